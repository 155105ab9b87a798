//! What travels: a payload as posted ([`Draft`]), what the publisher hears ([`Receipt`]), and a message
//! with its place in a channel ([`Publication`]).

use std::{fmt, str::FromStr};

use bytes::Bytes;

use crate::{
    channel::Channel,
    position::{Epoch, Position},
    trace_parent::TraceParent,
};

/// How a payload was posted, and so how it is delivered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// A JSON value, kept byte for byte, without line breaks between its tokens.
    Json,
    /// UTF-8 text; delivered as a JSON string.
    Text,
    /// Anything else; delivered as base64.
    Bytes,
}

/// A payload that is what its kind says. Made by [`crate::payload`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Payload {
    kind: Kind,
    bytes: Bytes,
}

impl Payload {
    /// `bytes` must be what `kind` says: valid JSON without line breaks, or UTF-8.
    pub(crate) fn new(kind: Kind, bytes: Bytes) -> Self {
        debug_assert!(kind == Kind::Bytes || std::str::from_utf8(&bytes).is_ok());
        Self { kind, bytes }
    }

    /// How it was posted.
    #[must_use]
    pub fn kind(&self) -> Kind {
        self.kind
    }

    /// The bytes as stored.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// The payload as text, for JSON and text; empty for bytes.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self.kind {
            Kind::Bytes => "",
            Kind::Json | Kind::Text => std::str::from_utf8(&self.bytes).unwrap_or_default(),
        }
    }
}

/// A message's event name: 1 to 64 of `A-Z a-z 0-9 _ . -`; not `open` or `error`, which browsers raise
/// themselves, nor beginning with `tidegate.`, which are the gateway's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EventName(Box<str>);

/// An idempotency key: 1 to 128 visible ASCII characters.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IdempotencyKey(Box<str>);

/// A text that is no event name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "an event name has 1 to 64 of A-Z a-z 0-9 _ . -, is not `open` or `error`, and does not begin with `tidegate.`"
)]
pub struct EventNameError;

/// A text that is no idempotency key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an idempotency key has 1 to 128 visible ASCII characters")]
pub struct IdempotencyKeyError;

impl EventName {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for EventName {
    type Err = EventNameError;

    fn from_str(text: &str) -> Result<Self, EventNameError> {
        let fine = |b: u8| b.is_ascii_alphanumeric() || b"_.-".contains(&b);
        let reserved = matches!(text, "open" | "error") || text.starts_with("tidegate.");
        if !(1..=64).contains(&text.len()) || reserved || !text.bytes().all(fine) {
            return Err(EventNameError);
        }
        Ok(Self(text.into()))
    }
}

impl IdempotencyKey {
    /// The key as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for IdempotencyKey {
    type Err = IdempotencyKeyError;

    fn from_str(text: &str) -> Result<Self, IdempotencyKeyError> {
        if !(1..=128).contains(&text.len()) || !text.bytes().all(|b| b.is_ascii_graphic()) {
            return Err(IdempotencyKeyError);
        }
        Ok(Self(text.into()))
    }
}

/// A message as a publisher hands it in, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Draft {
    /// What is to be delivered.
    pub payload: Payload,
    /// The name of the SSE event, if any.
    pub event: Option<EventName>,
    /// Makes a repeated publish harmless, if given.
    pub idempotency_key: Option<IdempotencyKey>,
    /// Which trace it is a part of, if any.
    pub trace: Option<TraceParent>,
}

/// The broker's word that it has a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// The message's id.
    pub position: Position,
    /// An earlier publish with the same key stored it.
    pub duplicate: bool,
}

/// A message with its place in its channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Publication {
    /// Where it was published.
    pub channel: Channel,
    /// The epoch of its id.
    pub epoch: Epoch,
    /// The offset of its id, from 1 without holes.
    pub offset: u64,
    /// Milliseconds since 1970 by the broker's clock; never going back within a channel.
    pub time: u64,
    /// The name of the SSE event, if any.
    pub event: Option<EventName>,
    /// What is delivered.
    pub payload: Payload,
    /// The span that published it, where somebody records its trace. Boxed, since few are.
    pub trace: Option<Box<TraceParent>>,
}

impl Publication {
    /// The message's id.
    #[must_use]
    pub fn position(&self) -> Position {
        Position::At(self.epoch, self.offset)
    }

    /// What the message counts against `history_bytes`: payload and event.
    #[must_use]
    pub fn size(&self) -> usize {
        self.payload.bytes.len() + self.event.as_ref().map_or(0, |e| e.as_str().len())
    }
}

impl fmt::Display for EventName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn event_names_cannot_pass_for_the_browsers_or_the_gateways_own() {
        for good in ["created", "a.b-c_D9", "opened", &"x".repeat(64)] {
            assert!(good.parse::<EventName>().is_ok(), "{good}");
        }
        for bad in ["", "open", "error", "tidegate.gap", "a b", "a\n", "é", &"x".repeat(65)] {
            assert!(bad.parse::<EventName>().is_err(), "{bad}");
        }
    }

    #[test]
    fn idempotency_keys_are_visible_ascii() {
        assert!("a!~".parse::<IdempotencyKey>().is_ok());
        for bad in ["", "a b", "\u{7f}", "é", &"x".repeat(129)] {
            assert!(bad.parse::<IdempotencyKey>().is_err(), "{bad}");
        }
    }
}

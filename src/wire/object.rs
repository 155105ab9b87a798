//! What the server says besides messages.

use bytes::Bytes;

use super::{Reference, json::Fields};
use crate::{
    channel::Channel,
    disconnect::Disconnect,
    fault::Fault,
    gap::{Gap, Recovery},
    position::Position,
};

/// Most objects take less.
pub(super) const SIZE_HINT: usize = 256;

/// A control object. `reference` is the `ref` of the command that it answers, echoed byte for byte.
#[derive(Clone, Debug)]
pub enum Object<'a> {
    /// A subscription has begun.
    Subscribed {
        /// To what.
        channel: &'a Channel,
        /// Where it starts, before any gap.
        position: Position,
        /// Whether all that was asked for follows.
        recovery: Recovery,
        /// The command's `ref`, if it had one.
        reference: Option<&'a Reference>,
    },
    /// Messages are missing here.
    Gap {
        /// In which channel.
        channel: &'a Channel,
        /// Which, and why.
        gap: Gap,
    },
    /// A subscription has ended, and the connection goes on.
    Unsubscribed {
        /// From what.
        channel: &'a Channel,
        /// Why.
        code: UnsubscribedCode,
        /// The command's `ref`, if it had one.
        reference: Option<&'a Reference>,
    },
    /// The broker has the message.
    Published {
        /// Where it was published.
        channel: &'a Channel,
        /// Its id.
        id: Position,
        /// An earlier publish with the same key stored it.
        duplicate: bool,
        /// The command's `ref`, if it had one.
        reference: Option<&'a Reference>,
    },
    /// The credential was taken.
    Authenticated {
        /// Whose it is; `None` where no credentials are configured.
        subject: Option<&'a str>,
        /// Until when it holds.
        expires_at: Option<u64>,
        /// The command's `ref`, if it had one.
        reference: Option<&'a Reference>,
    },
    /// The answer to `ping`.
    Pong {
        /// The command's `ref`, if it had one.
        reference: Option<&'a Reference>,
    },
    /// The stream lives.
    Heartbeat {
        /// Milliseconds since 1970.
        time: u64,
    },
    /// A frame was no command, or its command is refused.
    Error {
        /// What is wrong.
        fault: &'a Fault,
        /// The frame's `ref`, if it could be read.
        reference: Option<&'a Reference>,
    },
    /// The server is about to close.
    Goodbye {
        /// Why.
        disconnect: Disconnect,
        /// When to come back; `None`: not at all.
        reconnect_after_ms: Option<u64>,
    },
}

/// Why a subscription ended while its connection goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UnsubscribedCode {
    /// The client said so.
    Requested,
    /// A new token no longer grants it.
    Forbidden,
    /// Ended by `POST /v1/disconnect`.
    Revoked,
}

impl UnsubscribedCode {
    /// The code as it stands on the wire.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Requested => "requested",
            Self::Forbidden => "forbidden",
            Self::Revoked => "revoked",
        }
    }
}

impl Object<'_> {
    /// The `type`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Subscribed { .. } => "subscribed",
            Self::Gap { .. } => "gap",
            Self::Unsubscribed { .. } => "unsubscribed",
            Self::Published { .. } => "published",
            Self::Authenticated { .. } => "authenticated",
            Self::Pong { .. } => "pong",
            Self::Heartbeat { .. } => "heartbeat",
            Self::Error { .. } => "error",
            Self::Goodbye { .. } => "goodbye",
        }
    }

    /// The object as JSON, without line breaks.
    #[must_use]
    pub fn to_json(&self) -> Bytes {
        let mut out = Vec::with_capacity(SIZE_HINT);
        self.write(&mut out);
        out.into()
    }

    /// Appends the object as JSON, its fields in the order of the contract.
    pub(super) fn write(&self, out: &mut Vec<u8>) {
        let mut fields = Fields::new(out, self.kind());
        match self {
            Self::Subscribed { channel, position, recovery, .. } => {
                fields.channel(channel).position("position", *position).word("recovery", recovery.as_str())
            }
            Self::Gap { channel, gap } => fields
                .channel(channel)
                .word("reason", gap.reason.as_str())
                .position("from", gap.from)
                .position("to", gap.to),
            Self::Unsubscribed { channel, code, .. } => fields.channel(channel).word("code", code.as_str()),
            Self::Published { channel, id, duplicate, .. } => {
                fields.channel(channel).position("id", *id).value("duplicate", duplicate)
            }
            Self::Authenticated { subject, expires_at, .. } => match subject {
                Some(subject) => fields.text("subject", subject),
                None => fields.value("subject", "null"),
            }
            .number_or_null("expires_at", *expires_at),
            Self::Pong { .. } => &mut fields,
            Self::Heartbeat { time } => fields.value("time", time),
            Self::Error { fault, .. } => fields
                .word("code", fault.code.as_str())
                .text("title", fault.code.title())
                .text("detail", &fault.detail),
            Self::Goodbye { disconnect, reconnect_after_ms } => fields
                .word("code", disconnect.name())
                .number_or_null("reconnect_after_ms", *reconnect_after_ms),
        };
        match (self.reference(), self) {
            (Some(reference), _) => fields.value("ref", reference.as_json()),
            (None, Self::Error { .. }) => fields.value("ref", "null"),
            (None, _) => &mut fields,
        }
        .end();
    }

    fn reference(&self) -> Option<&Reference> {
        match self {
            Self::Subscribed { reference, .. }
            | Self::Unsubscribed { reference, .. }
            | Self::Published { reference, .. }
            | Self::Authenticated { reference, .. }
            | Self::Pong { reference }
            | Self::Error { reference, .. } => *reference,
            Self::Gap { .. } | Self::Heartbeat { .. } | Self::Goodbye { .. } => None,
        }
    }
}

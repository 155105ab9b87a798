//! The message object, and the few ways in which JSON is written here: fields in a fixed order, payloads
//! as they were stored.
//!
//! Memory takes every byte, so what `write!` and serde_json return is dropped, in this file alone.

use std::{
    fmt::{self, Display, Write as _},
    io::Write,
};

use base64::{Engine, prelude::BASE64_STANDARD};

use crate::{
    channel::Channel,
    position::Position,
    publication::{Kind, Payload, Publication},
};

/// An object that is being written, field by field.
pub(super) struct Fields<'a>(&'a mut Vec<u8>);

impl<'a> Fields<'a> {
    /// Opens an object with its `type`.
    pub(super) fn new(out: &'a mut Vec<u8>, kind: &'static str) -> Self {
        out.extend_from_slice(b"{\"type\":\"");
        out.extend_from_slice(kind.as_bytes());
        out.push(b'"');
        Self(out)
    }

    fn name(&mut self, name: &'static str) {
        self.0.extend_from_slice(b",\"");
        self.0.extend_from_slice(name.as_bytes());
        self.0.extend_from_slice(b"\":");
    }

    /// A string, escaped.
    pub(super) fn text(&mut self, name: &'static str, value: &str) -> &mut Self {
        self.name(name);
        string(self.0, value);
        self
    }

    /// A string of a closed grammar in which nothing needs escaping.
    pub(super) fn word(&mut self, name: &'static str, value: impl Display) -> &mut Self {
        self.name(name);
        let _ = write!(self.0, "\"{value}\"");
        self
    }

    /// The channel. Nothing in it needs escaping, and nothing in a position; both are in every message, so neither
    /// goes the long way through `write!`.
    pub(super) fn channel(&mut self, channel: &Channel) -> &mut Self {
        self.name("channel");
        self.quoted(|out| out.write_str(channel.as_str()))
    }

    /// A position.
    pub(super) fn position(&mut self, name: &'static str, position: Position) -> &mut Self {
        self.name(name);
        self.quoted(|out| position.write_to(out))
    }

    fn quoted(&mut self, write: impl FnOnce(&mut Text<'_>) -> fmt::Result) -> &mut Self {
        self.0.push(b'"');
        let _ = write(&mut Text(self.0));
        self.0.push(b'"');
        self
    }

    /// What is JSON as it is displayed: a number, a boolean, a piece kept from before.
    pub(super) fn value(&mut self, name: &'static str, value: impl Display) -> &mut Self {
        self.name(name);
        let _ = write!(self.0, "{value}");
        self
    }

    /// A number, or null.
    pub(super) fn number_or_null(&mut self, name: &'static str, value: Option<u64>) -> &mut Self {
        match value {
            Some(value) => self.value(name, value),
            None => self.value(name, "null"),
        }
    }

    /// Closes the object.
    pub(super) fn end(&mut self) {
        self.0.push(b'}');
    }
}

/// Takes text into memory.
struct Text<'a>(&'a mut Vec<u8>);

impl fmt::Write for Text<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        self.0.extend_from_slice(text.as_bytes());
        Ok(())
    }
}

/// About how many bytes a message takes, whatever its encoding, so that its buffer seldom grows.
pub(super) fn size_hint(publication: &Publication) -> usize {
    let payload = publication.payload.bytes().len();
    let payload = match publication.payload.kind() {
        Kind::Json => payload,
        Kind::Text => payload + payload / 16,
        Kind::Bytes => payload.div_ceil(3) * 4,
    };
    let event = publication.event.as_ref().map_or(0, |event| 2 * event.as_str().len() + 20);
    payload + publication.channel.as_str().len() + event + 160
}

/// The `message` object.
pub(super) fn message(out: &mut Vec<u8>, publication: &Publication) {
    let mut fields = Fields::new(out, "message");
    fields
        .channel(&publication.channel)
        .position("id", publication.position())
        .value("time", publication.time);
    if let Some(event) = &publication.event {
        fields.word("event", event);
    }
    fields.name(match publication.payload.kind() {
        Kind::Json | Kind::Text => "data",
        Kind::Bytes => "data_base64",
    });
    payload(fields.0, &publication.payload);
    fields.end();
}

/// A payload as one JSON value: JSON as stored, text as a string, bytes as a string of base64.
pub(super) fn payload(out: &mut Vec<u8>, payload: &Payload) {
    match payload.kind() {
        Kind::Json => out.extend_from_slice(payload.bytes()),
        Kind::Text => string(out, payload.as_str()),
        Kind::Bytes => {
            let _ = write!(out, "\"{}\"", base64(payload.bytes()));
        }
    }
}

/// Standard base64, padded (RFC 4648 section 4).
pub(super) fn base64(bytes: &[u8]) -> String {
    BASE64_STANDARD.encode(bytes)
}

fn string(out: &mut Vec<u8>, text: &str) {
    let _ = serde_json::to_writer(out, text);
}

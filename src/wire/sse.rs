//! Server-Sent Events. `\r`, `\n` and `\r\n` all end a line, so nothing that a publisher chose stands in
//! a line unless it is JSON, of a closed grammar, or was split at all three.

use std::fmt::Display;

use bytes::Bytes;

use super::{Encoding, Framing, Object, Prepared, head::framed, json, object};
use crate::publication::{Kind, Publication};

/// A message with the cursor of a stream of several channels as its `id:`.
#[must_use]
pub fn with_cursor(prepared: &Prepared, raw: bool, cursor: &str, framing: Framing) -> Bytes {
    let own = prepared.bytes(Encoding::Sse { raw }, Framing::Plain);
    let id_line = memchr::memchr(b'\n', &own).map_or(0, |end| end + 1);
    let rest = own.slice(id_line..);
    framed(framing, cursor.len() + rest.len() + 5, |out| {
        line(out, "id", cursor);
        out.extend_from_slice(&rest);
    })
}

/// How long the client is to wait before it comes back.
#[must_use]
pub fn retry(millis: u64, framing: Framing) -> Bytes {
    framed(framing, 32, |out| {
        line(out, "retry", millis);
        out.push(b'\n');
    })
}

/// A comment: the heartbeat, which no client hears of.
#[must_use]
pub fn comment(framing: Framing) -> Bytes {
    match framing {
        Framing::Chunked => Bytes::from_static(b"3\r\n:\n\n\r\n"),
        Framing::Plain => Bytes::from_static(b":\n\n"),
    }
}

/// A heartbeat that also renews the cursor. A block without `data:` sets the last event id and fires
/// nothing (HTML standard, section 9.2.6, "dispatch the event", steps 1 and 2).
#[must_use]
pub fn heartbeat_with_id(cursor: &str, framing: Framing) -> Bytes {
    framed(framing, cursor.len() + 8, |out| {
        out.extend_from_slice(b":\n");
        line(out, "id", cursor);
        out.push(b'\n');
    })
}

/// `event: tidegate.<type>`, in raw format as well.
pub(super) fn control(object: &Object<'_>, id: Option<&str>, framing: Framing) -> Bytes {
    framed(framing, object::SIZE_HINT, |out| {
        if let Some(id) = id {
            line(out, "id", id);
        }
        line(out, "event", format_args!("tidegate.{}", object.kind()));
        out.extend_from_slice(b"data: ");
        object.write(out);
        out.extend_from_slice(b"\n\n");
    })
}

/// A message with its own id. The id line is the first: [`with_cursor`] relies on it.
pub(super) fn message(out: &mut Vec<u8>, publication: &Publication, raw: bool) {
    line(out, "id", publication.position());
    if let Some(event) = &publication.event {
        line(out, "event", event);
    }
    let payload = &publication.payload;
    match (raw, payload.kind()) {
        (false, _) => {
            out.extend_from_slice(b"data: ");
            json::message(out, publication);
            out.push(b'\n');
        }
        (true, Kind::Json | Kind::Text) => lines(out, payload.bytes()),
        (true, Kind::Bytes) => line(out, "data", json::base64(payload.bytes())),
    }
    out.push(b'\n');
}

/// One `data:` line for each line of `text`; an empty text is one empty line.
fn lines(out: &mut Vec<u8>, mut text: &[u8]) {
    loop {
        let end = memchr::memchr2(b'\r', b'\n', text);
        out.extend_from_slice(b"data: ");
        out.extend_from_slice(&text[..end.unwrap_or(text.len())]);
        out.push(b'\n');
        let Some(end) = end else { return };
        let both = text[end..].starts_with(b"\r\n");
        text = &text[end + 1 + usize::from(both)..];
    }
}

/// A field whose value has no line break.
fn line(out: &mut Vec<u8>, name: &str, value: impl Display) {
    out.extend_from_slice(format!("{name}: {value}\n").as_bytes());
}

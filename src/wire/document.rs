//! The document of a long poll and of the history.

use bytes::Bytes;

/// What stands around the lists and the cursor, and some more.
const ENVELOPE: usize = 64;

/// A position has no more, with its comma.
const POSITION: usize = 32;

/// What the messages and gaps of a document of at most `limit` bytes may have together, each with a comma, where its
/// cursor is of so many channels.
#[must_use]
pub fn room(limit: usize, channels: usize) -> usize {
    limit.saturating_sub(ENVELOPE + channels * POSITION)
}

/// `{"messages":[…],"gaps":[…],"cursor":"…"}`, and `"more"` at its end where it is given. Messages and gaps
/// are objects, copied as they were encoded before; `cursor` is of the grammar of positions and needs no
/// escaping.
#[must_use]
pub fn document(messages: &[Bytes], gaps: &[Bytes], cursor: &str, more: Option<bool>) -> Bytes {
    let size = messages.iter().map(|message| message.len() + 1).sum::<usize>();
    let mut out = Vec::with_capacity(size + gaps.len() * 256 + cursor.len() + ENVELOPE);
    out.extend_from_slice(b"{\"messages\":[");
    list(&mut out, messages);
    out.extend_from_slice(b"],\"gaps\":[");
    list(&mut out, gaps);
    out.extend_from_slice(b"],\"cursor\":\"");
    out.extend_from_slice(cursor.as_bytes());
    out.extend_from_slice(match more {
        None => b"\"}".as_slice(),
        Some(true) => b"\",\"more\":true}",
        Some(false) => b"\",\"more\":false}",
    });
    out.into()
}

/// Values with commas between them.
fn list(out: &mut Vec<u8>, values: &[Bytes]) {
    for (i, value) in values.iter().enumerate() {
        if i > 0 {
            out.push(b',');
        }
        out.extend_from_slice(value);
    }
}

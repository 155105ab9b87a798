//! Content behind a head that tells its length, an HTTP chunk or a WebSocket frame, in one piece of memory.

use bytes::Bytes;

use super::Framing;

/// Room for the longest head: sixteen hexadecimal digits and CRLF.
const ROOM: usize = 18;

/// Content that is being written, with room for its head before it.
pub(super) struct Headed(Vec<u8>);

impl Headed {
    /// Runs `write`, which appends about `size` bytes of content.
    pub(super) fn new(size: usize, write: impl FnOnce(&mut Vec<u8>)) -> Self {
        let mut buffer = Vec::with_capacity(ROOM + size);
        buffer.resize(ROOM, 0);
        write(&mut buffer);
        Self(buffer)
    }

    /// The length of the content.
    pub(super) fn len(&self) -> usize {
        self.0.len() - ROOM
    }

    /// `head`, the content, `tail`.
    pub(super) fn finish(mut self, head: &[u8], tail: &[u8]) -> Bytes {
        let start = ROOM - head.len();
        self.0[start..ROOM].copy_from_slice(head);
        self.0.extend_from_slice(tail);
        Bytes::from(self.0).slice(start..)
    }
}

/// What `write` appends, in its framing. It must append something: an empty chunk would end the body.
pub(super) fn framed(framing: Framing, size: usize, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    match framing {
        Framing::Plain => {
            let mut buffer = Vec::with_capacity(size);
            write(&mut buffer);
            buffer.into()
        }
        Framing::Chunked => {
            let content = Headed::new(size + 2, write);
            debug_assert!(content.len() > 0);
            let head = format!("{:x}\r\n", content.len());
            content.finish(head.as_bytes(), b"\r\n")
        }
    }
}

/// What stands inside a chunk that [`framed`] made.
pub(super) fn chunk_content(chunk: &Bytes) -> Bytes {
    let head = memchr::memchr(b'\n', chunk).map_or(0, |end| end + 1);
    chunk.slice(head..chunk.len() - 2)
}

//! How a message and a control object are written down: every encoding of every transport, each made at
//! most once for a message and shared as bytes. What is written follows from the arguments alone; when it
//! is sent, and to whom, is for the hub and the transports.

pub mod command;
mod document;
pub mod envelope;
mod head;
mod json;
mod object;
pub mod sse;
#[cfg(test)]
mod tests;
pub mod websocket;

use std::sync::{Arc, OnceLock};

use bytes::Bytes;

pub use self::{
    command::{Command, Reference, Refusal},
    document::{document, room},
    object::{Object, UnsubscribedCode},
};
use crate::publication::Publication;

/// How a message is written for one kind of stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Encoding {
    /// The JSON object alone, as it stands in the document of a poll. It has no framing.
    Object,
    /// A whole WebSocket frame. It has no framing but its own.
    WebSocket {
        /// The payload alone instead of the object.
        raw: bool,
    },
    /// A Server-Sent Event whose `id:` is the message's own position: for streams of one channel.
    /// Streams of several channels use [`sse::with_cursor`].
    Sse {
        /// The payload alone instead of the object.
        raw: bool,
    },
    /// A line.
    Ndjson {
        /// The payload alone instead of the object.
        raw: bool,
    },
}

/// What the connection puts around the bytes of an SSE or NDJSON stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Framing {
    /// One chunk of HTTP/1.1's chunked coding (RFC 9112 section 7.1) for each piece.
    Chunked,
    /// Nothing: HTTP/1.0, which ends with the connection, and HTTP/2, which frames itself.
    Plain,
}

/// What ends a chunked body.
pub const LAST_CHUNK: Bytes = Bytes::from_static(b"0\r\n\r\n");

/// A publication with each of its encodings made at most once. Clones share them.
#[derive(Clone, Debug)]
pub struct Prepared(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    publication: Arc<Publication>,
    /// By [`Encoding::index`]. Those of SSE and NDJSON hold the chunk, whose inside is the plain form.
    encoded: [OnceLock<Bytes>; Encoding::COUNT],
}

impl Prepared {
    /// Nothing is encoded yet.
    #[must_use]
    pub fn new(publication: impl Into<Arc<Publication>>) -> Self {
        Self(Arc::new(Inner { publication: publication.into(), encoded: Default::default() }))
    }

    /// What was published.
    #[must_use]
    pub fn publication(&self) -> &Publication {
        &self.0.publication
    }

    /// The message as `encoding` writes it; `framing` matters to SSE and NDJSON alone.
    #[must_use]
    pub fn bytes(&self, encoding: Encoding, framing: Framing) -> Bytes {
        let stored = self.0.encoded[encoding.index()].get_or_init(|| encode(self.publication(), encoding));
        match (encoding, framing) {
            (Encoding::WebSocket { .. }, _) => stored.clone(),
            (Encoding::Object, _) => {
                let line = head::chunk_content(stored);
                line.slice(..line.len() - 1)
            }
            (Encoding::Sse { .. } | Encoding::Ndjson { .. }, Framing::Plain) => head::chunk_content(stored),
            (Encoding::Sse { .. } | Encoding::Ndjson { .. }, Framing::Chunked) => stored.clone(),
        }
    }
}

impl Encoding {
    /// How many there are to be kept.
    pub const COUNT: usize = 6;

    /// Where it is kept: below [`Encoding::COUNT`]. The object is the line of NDJSON without its end.
    #[must_use]
    pub fn index(self) -> usize {
        match self {
            Self::Object | Self::Ndjson { raw: false } => 0,
            Self::Ndjson { raw: true } => 1,
            Self::Sse { raw: false } => 2,
            Self::Sse { raw: true } => 3,
            Self::WebSocket { raw: false } => 4,
            Self::WebSocket { raw: true } => 5,
        }
    }
}

fn encode(publication: &Publication, encoding: Encoding) -> Bytes {
    let size = json::size_hint(publication);
    match encoding {
        Encoding::WebSocket { raw } => websocket::message(publication, raw),
        Encoding::Sse { raw } => {
            head::framed(Framing::Chunked, size, |out| sse::message(out, publication, raw))
        }
        Encoding::Object | Encoding::Ndjson { raw: false } => head::framed(Framing::Chunked, size, |out| {
            json::message(out, publication);
            out.push(b'\n');
        }),
        Encoding::Ndjson { raw: true } => head::framed(Framing::Chunked, size, |out| {
            json::payload(out, &publication.payload);
            out.push(b'\n');
        }),
    }
}

/// A control object as `encoding` writes it; `None` where that format has no objects from the server.
/// `id` is the cursor that an SSE event carries, if it is to carry one.
#[must_use]
pub fn control(object: &Object<'_>, encoding: Encoding, framing: Framing, id: Option<&str>) -> Option<Bytes> {
    match encoding {
        Encoding::Object => Some(object.to_json()),
        Encoding::WebSocket { raw: false } => Some(websocket::object(object)),
        Encoding::Sse { .. } => Some(sse::control(object, id, framing)),
        Encoding::Ndjson { raw: false } => Some(head::framed(framing, object::SIZE_HINT, |out| {
            object.write(out);
            out.push(b'\n');
        })),
        Encoding::WebSocket { raw: true } | Encoding::Ndjson { raw: true } => None,
    }
}

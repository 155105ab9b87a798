//! What a request knows of the connection that it came on, and how a handler asks for that connection: the
//! server takes the socket back from the HTTP library, for a stream once the head of the answer is out, for a
//! poll until there is an answer.

use std::{
    convert::Infallible,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use parking_lot::Mutex;
use tokio::sync::OwnedSemaphorePermit;

use crate::{
    disconnect::Disconnect,
    gateway::Gateway,
    hub::Outbox,
    metrics::Rejection,
    transport::{
        Connection,
        poll::{Turns, Waiting},
    },
};

/// An extension of each request.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The client's, as far as it is known: by `X-Forwarded-For` or the PROXY protocol from who is trusted, else
    /// that of the connection. None on a Unix socket.
    pub address: Option<IpAddr>,
    /// The connection is a proxy's: its requests may be of one client or of many.
    pub is_proxy: bool,
    /// The connection is over a limit: it is told so, and then closed.
    pub refused: Option<Rejection>,
    /// Where the connection can be taken over: on HTTP/1.
    pub handover: Option<Handover>,
    /// How many answers to polls may be on their way: on HTTP/2.
    pub turns: Option<Turns>,
}

/// What takes a connection over.
pub enum Takeover {
    /// A stream, for good.
    Stream(Box<Connection>),
    /// A poll, until there is an answer.
    Poll(Waiting),
}

/// Where a handler leaves what is to take the connection over.
#[derive(Clone, Default)]
pub struct Handover(Arc<Mutex<Option<Takeover>>>);

impl Handover {
    /// Asks for the connection.
    pub fn leave(&self, takeover: Takeover) {
        *self.0.lock() = Some(takeover);
    }

    /// What takes the connection over.
    #[must_use]
    pub fn take(&self) -> Option<Takeover> {
        self.0.lock().take()
    }
}

impl std::fmt::Debug for Handover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handover")
    }
}

/// The body of an answer whose connection is taken over: it never yields, so that the HTTP library writes
/// the head of an open stream and no more. (A poll's head is not written before there is a body.)
#[derive(Debug)]
pub struct Hold;

impl Body for Hold {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

/// The body of a stream that an HTTP library writes (HTTP/2): what is taken from the outbox.
#[derive(Debug)]
pub struct OutboxBody {
    gateway: Gateway,
    outbox: Arc<Outbox>,
}

impl OutboxBody {
    /// A body of what comes into `outbox`.
    #[must_use]
    pub fn new(gateway: &Gateway, outbox: &Arc<Outbox>) -> Self {
        Self { gateway: gateway.clone(), outbox: Arc::clone(outbox) }
    }
}

impl Body for OutboxBody {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let taken = self.outbox.poll_take(cx, self.gateway.metrics());
        taken.map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }
}

impl Drop for OutboxBody {
    fn drop(&mut self) {
        self.outbox.end(Disconnect::Client);
    }
}

/// The body of an answer to a poll. It is handed over in small pieces, since the HTTP library would hold all
/// of one, and the turn be over, as soon as the client takes a byte.
#[derive(Debug)]
pub struct InTurn {
    document: Bytes,
    _turn: OwnedSemaphorePermit,
}

impl InTurn {
    const PIECE: usize = 16 * 1024;

    /// A body of `document`; the turn is over with its last piece.
    #[must_use]
    pub fn new(document: Bytes, turn: OwnedSemaphorePermit) -> Self {
        Self { document, _turn: turn }
    }
}

impl Body for InTurn {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        let piece = self.document.len().min(Self::PIECE);
        let piece = self.document.split_to(piece);
        Poll::Ready((!piece.is_empty()).then(|| Ok(Frame::data(piece))))
    }

    fn is_end_stream(&self) -> bool {
        self.document.is_empty()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.document.len() as u64)
    }
}

//! What a request knows of the connection that it came on, and how a handler asks for that connection:
//! once the head of the answer is out, the server takes the socket back from the HTTP library.

use std::{
    convert::Infallible,
    net::IpAddr,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use bytes::Bytes;
use http_body::{Body, Frame};
use parking_lot::Mutex;

use crate::{
    disconnect::Disconnect, gateway::Gateway, hub::Outbox, metrics::Rejection, transport::Connection,
};

/// An extension of each request.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Whence; none on a Unix socket.
    pub address: Option<IpAddr>,
    /// The connection is over a limit: it is told so, and then closed.
    pub refused: Option<Rejection>,
    /// Where the connection can be taken over: on HTTP/1.
    pub handover: Option<Handover>,
}

/// Where a handler leaves what is to take the connection over.
#[derive(Clone, Default)]
pub struct Handover(Arc<Mutex<Option<Connection>>>);

impl Handover {
    /// Asks for the connection.
    pub fn leave(&self, connection: Connection) {
        *self.0.lock() = Some(connection);
    }

    /// Whether it was asked for.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.0.lock().is_some()
    }

    /// What takes the connection over.
    #[must_use]
    pub fn take(&self) -> Option<Connection> {
        self.0.lock().take()
    }
}

impl std::fmt::Debug for Handover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Handover")
    }
}

/// The body of an answer whose connection is taken over: it never yields, so that the HTTP library writes
/// the head of an open stream and no more.
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

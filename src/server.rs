//! Accepts connections, keeps their deadlines, has hyper parse their requests, and hands a socket over to
//! its transport where the library is not needed: for a stream after its head, for a poll while it waits.

mod answer;
mod guard;
mod http1;
mod listener;
mod proxied;
mod read_on;
mod refusal;
mod secure;

use std::{
    convert::Infallible, future::poll_fn, net::IpAddr, pin::pin, sync::Arc, task::Poll, time::Duration,
};

use axum::{body::Body, response::Response};
use http::{HeaderValue, Version, header};
use hyper::{Request, body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, sleep_until},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use self::guard::{Busy, Guard, Tracked, Watched};
pub use self::listener::{BindError, Listener};
use self::read_on::ReadOn;
use crate::{
    admission::{Admission, Permit, Refusal},
    config::TrustedProxies,
    drain::Readiness,
    http::{edge::Edge, forwarded, handover::Peer},
    metrics::{Metrics, Rejection},
    socket::Socket,
    tls::Certificate,
};

/// An idle kept-alive connection is closed after this time.
const IDLE: Duration = Duration::from_secs(75);

/// How long a peer may take to close after us, while its last bytes are read and dropped.
const LINGER: Duration = Duration::from_secs(2);

/// What hyper may buffer of a head: more than `limits.headers`, so that we refuse with a problem, not hyper
/// with a bare status.
const HEAD_BUFFER: usize = 256 * 1024;

/// Streams that one HTTP/2 connection may have open at once.
const STREAMS: u32 = 100;

/// Of these, so many may have an answer to a poll on its way, which may have a mebibyte each.
const TURNS: usize = 8;

/// What all connections of a listener share.
#[derive(Clone)]
pub struct Server {
    /// Where requests go.
    pub edge: Edge,
    /// With what TLS is spoken; `None`: it is not.
    pub certificate: Option<Arc<Certificate>>,
    /// Whose word on a client's address counts.
    pub trusted_proxies: TrustedProxies,
    /// Whether each connection begins with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// Who may come in; `None`: whoever there is a spare place for.
    pub admission: Option<Admission>,
    /// Places for connections that are only told that there is no room, or that need no permit.
    pub spare: Arc<Semaphore>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Whether connections close after their answer.
    pub readiness: Readiness,
    /// From the connection to the end of its first head, and from a later head's first byte to its end.
    pub header_timeout: Duration,
    /// Cancelled when no further request is served.
    pub stop: CancellationToken,
    /// The tasks of all connections.
    pub tasks: TaskTracker,
}

/// A connection whose first request is about to come.
struct Opened {
    socket: Socket,
    /// Whose it is, as far as that is known.
    address: Option<IpAddr>,
    http2: bool,
    /// What was read of the request.
    read: Vec<u8>,
}

/// What a connection holds for as long as it lives.
struct Place {
    permit: Option<Permit>,
    _spare: Option<OwnedSemaphorePermit>,
    refused: Option<Rejection>,
}

impl Server {
    /// Accepts until [`Server::stop`].
    pub async fn accept(self, listener: Listener) {
        let mut stop = pin!(self.stop.cancelled());
        loop {
            let accepted = tokio::select! {
                () = &mut stop => return,
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(socket) => self.admit(socket),
                Err(error) => {
                    // Out of descriptors, mostly: they come back as connections end.
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            }
        }
    }

    fn admit(&self, socket: Socket) {
        // A peer that is gone already is found out by the first read.
        let _ = socket.tune();
        let peer = socket.peer();
        // A proxy's address is not its clients'; they are counted once it has said whose they are.
        let counted = peer.filter(|_| !self.proxy_protocol && !self.trusted_proxies.has(peer));
        let admitted = self.admission.as_ref().map(|admission| admission.try_admit(counted));
        let (permit, refused) = match admitted {
            Some(Ok(permit)) => (Some(permit), None),
            Some(Err(refusal)) => (None, Some(Rejection::from(refusal))),
            None => (None, None),
        };
        refused.iter().for_each(|reason| self.metrics.rejected(*reason));
        let mut spare = None;
        if permit.is_none() {
            spare = Arc::clone(&self.spare).try_acquire_owned().ok();
            if spare.is_none() {
                return;
            }
        }
        let place = Place { permit, _spare: spare, refused };
        self.tasks.spawn(self.clone().serve(socket, peer, place));
    }

    async fn serve(self, socket: Socket, peer: Option<IpAddr>, mut place: Place) {
        let first_head = Instant::now() + self.header_timeout;
        let Opened { socket, address, http2, read } = tokio::select! {
            () = self.stop.cancelled() => return,
            opened = tokio::time::timeout_at(first_head, self.open(socket, peer)) => match opened {
                Ok(Some(opened)) => opened,
                _ => return,
            },
        };
        let is_proxy = self.trusted_proxies.has(address);
        if self.proxy_protocol
            && !is_proxy
            && let Err(refusal) = self.admit_client(address, &mut place)
        {
            self.metrics.rejected(refusal.into());
            place.refused = Some(refusal.into());
        }
        let guard = Arc::new(Guard::new(first_head, self.header_timeout, !http2));
        let io = Watched::new(socket, read, Arc::clone(&guard));
        let turns = http2.then(|| Arc::new(Semaphore::new(TURNS)));
        let peer = Peer { address, is_proxy, refused: place.refused, handover: None, turns };
        if http2 {
            // Boxed, so that a connection has no room for this while it is told which kind it is.
            Box::pin(self.serve_http2(io, peer, &guard)).await;
        } else {
            // A task of its own: a held poll is small, and has no room for what came before.
            self.tasks.clone().spawn(self.serve_http1(io, peer, guard, place));
        }
    }

    /// Counts the client of whom the PROXY protocol told.
    fn admit_client(&self, address: Option<IpAddr>, place: &mut Place) -> Result<(), Refusal> {
        if let (Some(admission), Some(connection)) = (&self.admission, place.permit.take()) {
            match admission.try_admit_client(address) {
                Ok(client) => place.permit = Some(client.and(connection)),
                Err(refusal) => {
                    place.permit = Some(connection);
                    return Err(refusal);
                }
            }
        }
        Ok(())
    }

    /// All that comes before the first head, and whether that will be of HTTP/2. (ALPN has said so as well, but
    /// the first bytes are what counts.) `None`: it does not come to that.
    async fn open(&self, mut socket: Socket, peer: Option<IpAddr>) -> Option<Opened> {
        let (mut address, mut read) = (peer, Vec::new());
        // Boxed, both, so that a plain connection has no room for them.
        if self.proxy_protocol {
            if !self.trusted_proxies.is_empty() && !self.trusted_proxies.has(peer) {
                let address = peer.map(tracing::field::display);
                tracing::debug!(client.address = address, "a connection of nobody in public.trusted_proxies");
                return None;
            }
            (address, read) = Box::pin(proxied::read(&socket, peer)).await?;
        }
        if let Some(certificate) = &self.certificate {
            let read = std::mem::take(&mut read);
            socket = Box::pin(secure::secure(socket, certificate.current(), read, address)).await?;
        }
        let (http2, read) = guard::sniff(&socket, read).await.ok()?;
        Some(Opened { socket, address, http2, read })
    }

    async fn serve_http2(self, io: Watched, peer: Peer, guard: &Arc<Guard>) {
        let server = self.clone();
        let served = Arc::clone(guard);
        let service = service_fn(move |request: Request<Incoming>| {
            let request = request.map(|body| Body::new(ReadOn::new(body)));
            let (server, peer, guard) = (server.clone(), peer.clone(), Arc::clone(&served));
            async move { server.answer(request, &peer, &guard).await }
        });
        let mut http = http2::Builder::new(TokioExecutor::new());
        http.timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .max_header_list_size(HEAD_BUFFER as u32)
            .keep_alive_interval(Duration::from_secs(25))
            .keep_alive_timeout(Duration::from_secs(10));
        let mut connection = pin!(http.serve_connection(TokioIo::new(io), service));
        let mut stop = pin!(self.stop.cancelled());
        let mut deadline = pin!(sleep_until(guard.first_deadline()));
        let mut stopping = false;
        poll_fn(|cx| {
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if !stopping && stop.as_mut().poll(cx).is_ready() {
                stopping = true;
                connection.as_mut().graceful_shutdown();
                cx.waker().wake_by_ref();
            }
            guard.poll_deadline(cx, deadline.as_mut())
        })
        .await;
    }

    async fn answer(
        &self,
        mut request: Request<Body>,
        peer: &Peer,
        guard: &Arc<Guard>,
    ) -> Result<Response<Tracked>, Infallible> {
        let busy = guard.busy();
        if guard.is_ambiguous() {
            let mut refusal = Response::new(Tracked::new(Body::empty(), busy));
            *refusal.status_mut() = http::StatusCode::BAD_REQUEST;
            refusal.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
            return Ok(refusal);
        }
        let version = request.version();
        let mut client = peer.clone();
        if peer.is_proxy {
            client.address = forwarded::client(request.headers(), peer.address, &self.trusted_proxies);
        }
        request.extensions_mut().insert(client);
        let response = self.edge.answer(request).await;
        Ok(self.finish(response, version, peer, busy))
    }

    /// Says whether the connection closes, as it is decided at the last moment.
    fn finish(&self, mut response: Response, version: Version, peer: &Peer, busy: Busy) -> Response<Tracked> {
        let keeps_alive = version == Version::HTTP_11;
        if self.closes(peer) && keeps_alive && response.status() != http::StatusCode::SWITCHING_PROTOCOLS {
            response.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("close"));
        }
        response.map(|body| Tracked::new(body, busy))
    }

    /// Whether no further request is to come on the connection.
    fn closes(&self, peer: &Peer) -> bool {
        self.readiness.is_leaving() || peer.refused.is_some()
    }
}

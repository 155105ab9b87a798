//! One HTTP/1 connection. hyper parses the requests and writes the answers at once; in between it lets go of the
//! socket, for good when a stream takes over, and for a while when a poll has to wait: hyper's buffers and the
//! future of a request are 26 KiB, and a poll spends its life waiting.
//!
//! When a poll has its answer, it is written to the plain socket, and hyper comes back with the next request. That
//! is not only less work: thousands who wait for one message ask again at once, and their requests are parsed one
//! after another in memory that is warm, not each in what was left waiting for it.

use std::{
    convert::Infallible,
    future::{pending, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
};

use axum::body::Body;
use http::{Request, Version, header, response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::time::{Instant, Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFuture;

use super::{
    HEAD_BUFFER, IDLE, LINGER, Place, Server, answer,
    guard::{Busy, Guard, Watched},
    refusal,
};
use crate::{
    http::{
        handover::{Handover, Peer, Takeover},
        headers,
    },
    socket::Socket,
    transport::{Connection, alarm, poll::Waiting},
};

/// Why hyper has let go of a connection.
enum Next {
    /// A stream goes on with it.
    Stream(Box<Connection>),
    /// A poll waits.
    Poll(Box<Held>),
    /// It is to be closed, by us or after the client did.
    Close,
    /// A deadline is past.
    TimedOut,
}

/// A poll that waits, with what its answer will need.
struct Held {
    waiting: Waiting,
    /// The answer's head, as the handler made it, in the client's version of HTTP.
    head: response::Parts,
    /// The client can take another answer on this connection.
    keeps_alive: bool,
    /// Until the answer is out.
    busy: Busy,
}

/// What lasts as long as the connection does.
struct Line<'a, 's> {
    peer: &'a Peer,
    guard: &'a Arc<Guard>,
    timer: Pin<&'a mut Sleep>,
    stop: Pin<&'a mut WaitForCancellationFuture<'s>>,
}

impl Line<'_, '_> {
    /// Writes an answer; `false` where the client has not taken it within the time that a connection may be idle.
    async fn answer(&mut self, socket: &Socket, head: &[u8], body: &[u8]) -> bool {
        let deadline = Instant::now() + IDLE;
        tokio::select! {
            biased;
            sent = answer::send(socket, head, body) => sent.is_ok(),
            () = poll_fn(|cx| alarm::poll_past(self.timer.as_mut(), deadline, cx)) => false,
        }
    }

    /// Waits until there is something to read of the next request; `false`: there will be none.
    async fn next_request(&mut self, socket: &Socket) -> bool {
        let Self { guard, timer, stop, .. } = self;
        tokio::select! {
            biased;
            _ = poll_fn(|cx| socket.poll_read_ready(cx)) => true,
            () = stop => {
                close(socket).await;
                false
            }
            () = poll_fn(|cx| guard.poll_deadline(cx, timer.as_mut())) => false,
        }
    }
}

impl Server {
    pub(super) async fn serve_http1(self, mut io: Watched, peer: Peer, guard: Arc<Guard>, place: Place) {
        let timer = pin!(sleep_until(guard.first_deadline()));
        let stop = pin!(self.stop.cancelled());
        let mut line = Line { peer: &peer, guard: &guard, timer, stop };
        loop {
            // Boxed, as what is seldom is, so that a poll that waits has no room for it.
            let (next, socket, mut ahead) = Box::pin(self.serve_requests(io, &mut line)).await;
            let held = match next {
                Next::Poll(held) => held,
                Next::Stream(mut stream) => {
                    stream.connect(socket, &ahead);
                    stream.session_mut().hold(place.permit);
                    tokio::spawn(stream.run());
                    return;
                }
                Next::Close => {
                    if let Some(oversize) = guard.oversize() {
                        Box::pin(refusal::tell(&socket, oversize, self.header_timeout)).await;
                    }
                    // What the client still sends must not reset our last bytes.
                    return socket.linger(LINGER).await;
                }
                Next::TimedOut => return,
            };
            let Some(document) = held.waiting.answer_on(&socket, &mut ahead, line.timer.as_mut()).await
            else {
                return;
            };
            let Held { waiting, head, keeps_alive, busy } = *held;
            drop(waiting);
            let keeps_alive = keeps_alive && !self.closes(&peer);
            let head = answer::written(&head, keeps_alive, document.len());
            if !line.answer(&socket, &head, &document).await {
                return;
            }
            drop(busy);
            if !keeps_alive {
                return close(&socket).await;
            }
            guard.begin_again();
            if ahead.is_empty() && !line.next_request(&socket).await {
                return;
            }
            io = Watched::new(socket, ahead, Arc::clone(&guard));
        }
    }

    /// Has hyper serve requests until the connection ends or is taken over; then what was read of the next request
    /// comes back with the socket.
    async fn serve_requests(&self, io: Watched, line: &mut Line<'_, '_>) -> (Next, Socket, Vec<u8>) {
        let Line { peer, guard, timer, stop } = line;
        let (peer, guard): (&Peer, &Arc<Guard>) = (peer, guard);
        let handover = Handover::default();
        let peer = Peer { handover: Some(handover.clone()), ..peer.clone() };
        let next = Mutex::new(None);
        let service = service_fn(|request: Request<Incoming>| {
            let (peer, handover, next) = (&peer, &handover, &next);
            Box::pin(async move {
                let (version, keeps_alive) = (request.version(), keeps_alive(&request));
                let answer = self.answer(request.map(Body::new), peer, guard).await?;
                match handover.take() {
                    None => Ok::<_, Infallible>(answer),
                    Some(Takeover::Stream(stream)) => {
                        *next.lock() = Some(Next::Stream(stream));
                        Ok(answer)
                    }
                    Some(Takeover::Poll(waiting)) => {
                        let (mut head, body) = answer.into_parts();
                        head.version = version;
                        let busy = body.into_busy();
                        let held = Held { waiting, head, keeps_alive, busy };
                        *next.lock() = Some(Next::Poll(Box::new(held)));
                        pending().await
                    }
                }
            })
        });
        let mut http = http1::Builder::new();
        http.timer(TokioTimer::new()).header_read_timeout(None).max_buf_size(HEAD_BUFFER);
        let mut connection = Box::pin(http.serve_connection(TokioIo::new(io), service));
        let mut stopping = false;
        let next = poll_fn(|cx| {
            let ended = connection.as_mut().poll(cx).is_ready();
            // What hyper has not flushed would be lost with it.
            let taken = if ended || guard.is_flushed() { next.lock().take() } else { None };
            match taken {
                Some(Next::Poll(_)) | None if ended => return Poll::Ready(Next::Close),
                Some(next) => return Poll::Ready(next),
                None if guard.oversize().is_some() => return Poll::Ready(Next::Close),
                None => {}
            }
            if !stopping && stop.as_mut().poll(cx).is_ready() {
                stopping = true;
                connection.as_mut().graceful_shutdown();
                cx.waker().wake_by_ref();
            }
            guard.poll_deadline(cx, timer.as_mut()).map(|()| Next::TimedOut)
        })
        .await;
        let parts = Pin::into_inner(connection).into_parts();
        let (socket, unread) = parts.io.into_inner().into_parts();
        (next, socket, [&parts.read_buf[..], &unread].concat())
    }
}

/// Whether the client can take another answer on the connection (RFC 9112, section 9.3).
fn keeps_alive(request: &Request<Incoming>) -> bool {
    let says = |word: &str| {
        headers::list(request.headers(), header::CONNECTION).any(|said| said.eq_ignore_ascii_case(word))
    };
    !says("close") && (request.version() != Version::HTTP_10 || says("keep-alive"))
}

/// Ends our direction. What the client still sends must not reset our last bytes.
async fn close(socket: &Socket) {
    if socket.half_close().is_ok() {
        socket.linger(LINGER).await;
    }
}

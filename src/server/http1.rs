//! One HTTP/1 connection. hyper parses the requests and writes the answers; in between it lets go of the
//! socket, for good when a stream takes over, and for a while when a poll has to wait: hyper's buffers and the
//! future of a request are 26 KiB, and a poll spends its life waiting.
//!
//! When a poll has its answer, a new hyper connection on the same socket writes it. It is given a short request
//! that stands for the poll's ([`stand_in`]), behind it what the client has sent meanwhile, and answers the
//! stand-in with what the poll came to. So there is one writer of heads, and `Date`, keeping alive, HTTP/1.0,
//! slow readers, deadlines and requests sent ahead are as with any other answer, without a line here.

use std::{
    convert::Infallible,
    future::{pending, poll_fn},
    pin::{Pin, pin},
    sync::Arc,
    task::Poll,
};

use axum::{body::Body, response::Response};
use http::{Request, Version, header, response};
use hyper::{body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use parking_lot::Mutex;
use tokio::time::{Sleep, sleep_until};
use tokio_util::sync::WaitForCancellationFuture;

use super::{
    HEAD_BUFFER, LINGER, Place, Server,
    guard::{Guard, Watched},
    refusal,
};
use crate::{
    http::{
        handover::{Handover, Peer, Takeover},
        headers,
    },
    socket::Socket,
    transport::{Connection, poll::Waiting},
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
    /// The answer's head, as the handler and the layers made it.
    head: response::Parts,
    stand_in: &'static [u8],
}

/// What lasts as long as the connection does.
struct Line<'a, 's> {
    peer: &'a Peer,
    guard: &'a Arc<Guard>,
    timer: Pin<&'a mut Sleep>,
    stop: Pin<&'a mut WaitForCancellationFuture<'s>>,
}

impl Server {
    pub(super) async fn serve_http1(self, io: Watched, peer: Peer, guard: Arc<Guard>, place: Place) {
        let timer = pin!(sleep_until(guard.first_deadline()));
        let stop = pin!(self.stop.cancelled());
        let mut line = Line { peer: &peer, guard: &guard, timer, stop };
        let mut turn = (io, None);
        loop {
            // Boxed, so that a poll that waits has no room for it.
            let (next, socket, mut ahead) = Box::pin(self.serve_requests(turn, &mut line)).await;
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
                        refusal::tell(&socket, oversize, self.header_timeout).await;
                    }
                    // What the client still sends must not reset our last bytes.
                    return socket.linger(LINGER).await;
                }
                Next::TimedOut => return,
            };
            let answered = held.waiting.answer_on(&socket, &mut ahead, line.timer.as_mut());
            let Some(document) = answered.await else {
                return;
            };
            ahead.splice(..0, held.stand_in.iter().copied());
            guard.begin_again();
            let io = Watched::new(socket, ahead, Arc::clone(&guard));
            let answer = Response::from_parts(held.head, Body::from(document));
            turn = (io, Some(answer));
        }
    }

    /// Has hyper serve requests, the first one with `answer` if there is one, until the connection ends or is
    /// taken over; then what was read of the next request comes back with the socket.
    async fn serve_requests(
        &self,
        (io, answer): (Watched, Option<Response>),
        line: &mut Line<'_, '_>,
    ) -> (Next, Socket, Vec<u8>) {
        let Line { peer, guard, timer, stop } = line;
        let (peer, guard): (&Peer, &Arc<Guard>) = (peer, guard);
        let handover = Handover::default();
        let peer = Peer { handover: Some(handover.clone()), ..peer.clone() };
        let (answer, next) = (Mutex::new(answer), Mutex::new(None));
        let service = service_fn(|request: Request<Incoming>| {
            let answer = answer.lock().take();
            let (peer, handover, next) = (&peer, &handover, &next);
            Box::pin(async move {
                if let Some(answer) = answer {
                    return Ok::<_, Infallible>(self.finish(answer, request.version(), peer, guard.busy()));
                }
                let stand_in = stand_in(&request);
                let answer = self.answer(request.map(Body::new), peer, guard).await?;
                match handover.take() {
                    None => Ok(answer),
                    Some(Takeover::Stream(stream)) => {
                        *next.lock() = Some(Next::Stream(stream));
                        Ok(answer)
                    }
                    Some(Takeover::Poll(waiting)) => {
                        // The connection is busy until hyper drops this future, when it lets go.
                        let (head, _busy) = answer.into_parts();
                        *next.lock() = Some(Next::Poll(Box::new(Held { waiting, head, stand_in })));
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

/// A request that hyper answers as it answers this one, as far as the head and what follows on it go.
fn stand_in(request: &Request<Incoming>) -> &'static [u8] {
    let says = |word: &str| {
        headers::list(request.headers(), header::CONNECTION).any(|said| said.eq_ignore_ascii_case(word))
    };
    match request.version() {
        Version::HTTP_10 if says("keep-alive") => b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        Version::HTTP_10 => b"GET / HTTP/1.0\r\n\r\n",
        _ if says("close") => b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n",
        _ => b"GET / HTTP/1.1\r\n\r\n",
    }
}

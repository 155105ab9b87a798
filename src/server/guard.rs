//! The deadlines of one connection, and the socket as hyper sees it: watched, so that they can be kept.
//!
//! One deadline serves three rules. The first head must be complete within `limits.header_timeout` of the
//! connection, whatever bytes come; a later head within the same time of its first byte; and between an
//! answer and the next head a connection may be idle for 75 s. (hyper's own header timer starts when a
//! connection is idle, so it closes those too, and not before it has chosen between HTTP/1 and HTTP/2.)

use std::{
    io::{self, IoSlice},
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::body::{Body, Bytes};
use http_body::{Frame, SizeHint};
use parking_lot::Mutex;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Instant, Sleep},
};

use super::IDLE;
use crate::{
    http::framing::{HeadWatch, Oversize},
    socket::Socket,
    transport::alarm,
};

/// The client's first bytes on HTTP/2 (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Reads on after what was `read` until it is clear whether the client speaks HTTP/2; whether it does, and all that
/// was read.
pub(super) async fn sniff(socket: &Socket, mut read: Vec<u8>) -> io::Result<(bool, Vec<u8>)> {
    loop {
        let begun = read.len().min(PREFACE.len());
        let http2 = read[..begun] == PREFACE[..begun];
        if !http2 || begun == PREFACE.len() {
            return Ok((http2, read));
        }
        let mut more = [0; PREFACE.len()];
        match std::future::poll_fn(|cx| socket.poll_read_some(cx, &mut more[begun..])).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => read.extend_from_slice(&more[begun..begun + n]),
        }
    }
}

/// See the module.
pub(super) struct Guard {
    header_timeout: Duration,
    /// Whether a first byte starts the clock of a head: on HTTP/2 bytes are not heads.
    heads_by_bytes: bool,
    state: Mutex<State>,
    /// hyper has written all it had since the last request was answered.
    flushed: AtomicBool,
}

struct State {
    deadline: Option<Instant>,
    first: Instant,
    /// Requests whose answers are not out.
    busy: usize,
    /// The next byte begins a head.
    between: bool,
    head: HeadWatch,
}

impl Guard {
    pub(super) fn new(first: Instant, header_timeout: Duration, heads_by_bytes: bool) -> Self {
        Self {
            header_timeout,
            heads_by_bytes,
            state: Mutex::new(State {
                deadline: Some(first),
                first,
                busy: 0,
                between: false,
                head: HeadWatch::default(),
            }),
            flushed: AtomicBool::new(true),
        }
    }

    pub(super) fn first_deadline(&self) -> Instant {
        self.state.lock().first
    }

    /// A head is complete; until the returned value is dropped, no deadline runs.
    pub(super) fn busy(self: &Arc<Self>) -> Busy {
        let mut state = self.state.lock();
        state.busy += 1;
        state.deadline = None;
        if state.between {
            // Its head was sent ahead of the last answer. What comes now is more of it, or of the next one.
            state.between = false;
            state.head = HeadWatch::unseen();
        }
        self.flushed.store(false, Relaxed);
        Busy(Arc::clone(self))
    }

    /// What was read behind the last request comes once more.
    pub(super) fn begin_again(&self) {
        let mut state = self.state.lock();
        state.head = HeadWatch::default();
        state.between = true;
    }

    /// Whether the kernel has all that hyper wrote since the last request came: the head of its answer, when
    /// the body yields nothing.
    pub(super) fn is_flushed(&self) -> bool {
        self.flushed.load(Relaxed)
    }

    /// Ready when the deadline is past.
    pub(super) fn poll_deadline(&self, cx: &mut Context<'_>, timer: Pin<&mut Sleep>) -> Poll<()> {
        let deadline = self.state.lock().deadline;
        deadline.map_or(Poll::Pending, |deadline| alarm::poll_past(timer, deadline, cx))
    }

    /// Whether the head says its body's length in two ways.
    pub(super) fn is_ambiguous(&self) -> bool {
        self.state.lock().head.is_ambiguous()
    }

    /// How the head is larger than can be read, if it is, once all answers before it are out.
    pub(super) fn oversize(&self) -> Option<Oversize> {
        self.state.lock().head.oversize().filter(|_| self.is_flushed())
    }

    /// Follows the bytes that came. Pending where hyper must not see them: the connection ends.
    fn read(&self, bytes: &[u8]) -> Poll<io::Result<()>> {
        if !self.heads_by_bytes || bytes.is_empty() {
            return Poll::Ready(Ok(()));
        }
        let mut state = self.state.lock();
        if state.between {
            state.between = false;
            state.deadline = Some(Instant::now() + self.header_timeout);
            state.head = state.head.next();
        }
        state.head.feed(bytes);
        match state.head.oversize() {
            None => Poll::Ready(Ok(())),
            Some(_) => Poll::Pending,
        }
    }
}

/// A request is being answered.
pub(super) struct Busy(Arc<Guard>);

impl Drop for Busy {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.busy -= 1;
        if state.busy == 0 {
            // What was sent ahead of the answer may be a part of a head.
            let has_begun = state.head.is_followed();
            let time = if has_begun { self.0.header_timeout } else { IDLE };
            state.deadline = Some(Instant::now() + time);
            state.between = !has_begun;
            if has_begun {
                state.head = HeadWatch::unseen();
            }
        }
    }
}

/// The body of an answer, which knows when it is out.
pub(super) struct Tracked {
    body: Body,
    busy: Busy,
}

impl Tracked {
    pub(super) fn new(body: Body, busy: Busy) -> Self {
        Self { body, busy }
    }

    /// Without the body: it is answered in another way.
    pub(super) fn into_busy(self) -> Busy {
        self.busy
    }
}

impl http_body::Body for Tracked {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        Pin::new(&mut self.body).poll_frame(cx)
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// A socket with what was read of it before.
pub(super) struct Watched {
    socket: Socket,
    read: Vec<u8>,
    guard: Arc<Guard>,
}

impl Watched {
    pub(super) fn new(socket: Socket, read: Vec<u8>, guard: Arc<Guard>) -> Self {
        Self { socket, read, guard }
    }

    /// The socket, and what was read of it and has not been asked for.
    pub(super) fn into_parts(self) -> (Socket, Vec<u8>) {
        (self.socket, self.read)
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.read.is_empty() {
            let n = self.read.len().min(buf.remaining());
            buf.put_slice(&self.read[..n]);
            let watched = self.guard.read(&self.read[..n]);
            self.read = self.read.split_off(n);
            return watched;
        }
        let before = buf.filled().len();
        std::task::ready!(Pin::new(&mut self.socket).poll_read(cx, buf))?;
        self.guard.read(&buf.filled()[before..])
    }
}

impl AsyncWrite for Watched {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.guard.flushed.store(false, Relaxed);
        Pin::new(&mut self.socket).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.guard.flushed.store(false, Relaxed);
        Pin::new(&mut self.socket).poll_write_vectored(cx, pieces)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // hyper flushes when its own buffer is empty, so the kernel has all that hyper wrote.
        self.guard.flushed.store(true, Relaxed);
        Pin::new(&mut self.socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.socket.half_close())
    }
}

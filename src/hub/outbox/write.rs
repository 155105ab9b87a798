//! How what waits leaves: into the socket where the connection has one, else taken by who writes the answer.

use std::{
    io::{self, IoSlice},
    task::{Context, Poll},
};

use bytes::Bytes;

use super::{
    Outbox,
    queue::{Meaning, State},
};
use crate::{metrics::Metrics, socket::Socket};

impl Outbox {
    /// Writes what waits; ready once nothing waits. For the task of a connection with a socket.
    pub fn poll_flush(&self, cx: &mut Context<'_>, metrics: &Metrics) -> Poll<io::Result<()>> {
        let Some(socket) = self.socket.get() else {
            return Poll::Ready(Ok(()));
        };
        loop {
            if self.write_now(&mut self.state.lock(), metrics)? {
                return Poll::Ready(Ok(()));
            }
            std::task::ready!(socket.poll_write_ready(cx))?;
        }
    }

    /// Writes what the kernel takes of what waits, in one call where it can. Whether the kernel has all.
    pub(super) fn write_now(&self, state: &mut State, metrics: &Metrics) -> io::Result<bool> {
        const PIECES: usize = 64;
        let Some(socket) = self.socket.get() else {
            return Ok(true);
        };
        while !state.queue.is_empty() {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let mut count = 0;
            for (piece, entry) in pieces.iter_mut().zip(&state.queue) {
                *piece = IoSlice::new(&entry.bytes);
                count += 1;
            }
            match socket.try_write_vectored(&pieces[..count]) {
                Ok(n) => state.written(n, self.style.transport, metrics),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        socket.try_flush()
    }

    /// Takes what waits, up to about 64 KiB. For an HTTP library's body; `None` after the last.
    pub fn poll_take(&self, cx: &Context<'_>, metrics: &Metrics) -> Poll<Option<Bytes>> {
        const PIECE: usize = 64 * 1024;
        let mut state = self.state.lock();
        if state.queue.is_empty() {
            if state.sealed {
                return Poll::Ready(None);
            }
            state.taker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut count = 0;
        let mut size = 0;
        for entry in &state.queue {
            size += entry.bytes.len();
            count += 1;
            if size >= PIECE {
                break;
            }
        }
        let bytes = if count == 1 {
            state.queue[0].bytes.clone()
        } else {
            let mut joined = Vec::with_capacity(size);
            state.queue.iter().take(count).for_each(|e| joined.extend_from_slice(&e.bytes));
            joined.into()
        };
        state.written(size, self.style.transport, metrics);
        if let Some(task) = &state.task {
            task.wake_by_ref();
        }
        Poll::Ready(Some(bytes))
    }

    /// Takes up to `limit` messages and `most` bytes (at least one message), and the gaps between them, for
    /// one answer. The cursor then stands after the last one taken of each channel.
    pub fn take_messages(&self, limit: usize, most: usize, metrics: &Metrics) -> (Vec<Bytes>, Vec<Bytes>) {
        let mut state = self.state.lock();
        let (mut messages, mut gaps) = (Vec::new(), Vec::new());
        let mut size = 0;
        while let Some(entry) = state.queue.front() {
            size += entry.bytes.len() + 1;
            if messages.len() == limit || (size > most && !messages.is_empty()) {
                break;
            }
            let n = entry.bytes.len();
            let taken = match entry.meaning {
                Meaning::Gap(_) => &mut gaps,
                Meaning::Message(_) | Meaning::Control => &mut messages,
            };
            taken.push(entry.bytes.clone());
            state.written(n, self.style.transport, metrics);
        }
        // Not lost: the cursor stands before them, and the next poll takes them.
        let _ = state.drop_waiting();
        state.sealed = true;
        (messages, gaps)
    }

    /// Whether something waits that answers a poll.
    #[must_use]
    pub fn has_answer(&self) -> bool {
        self.state.lock().queue.iter().any(|entry| match entry.meaning {
            Meaning::Gap(gap) => gap.answers,
            Meaning::Message(_) | Meaning::Control => true,
        })
    }
}

/// Writes until the socket takes no more; the bytes that it took.
pub(super) fn write_all_now(socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match socket.try_write(&bytes[sent..]) {
            Ok(n) => sent += n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(sent)
}

//! A client's socket with TLS on it, in the ways of a plain one: reads and writes that never wait, and readiness. So
//! a stream, a held poll and an HTTP library use it as they use a plain one, and a message is encrypted where it
//! is written, straight into the kernel where that takes it.
//!
//! What is encrypted cannot be taken back. So a write takes one record (16 KiB) at most, and only when the kernel has
//! all of those before: what is neither in the outbox nor in the kernel is never more than one record.

use std::{
    io::{self, IoSlice, Read as _, Write as _},
    sync::Arc,
    task::{Context, Poll, ready},
};

use parking_lot::Mutex;
use tokio_rustls::rustls::{Error as RustlsError, ServerConfig, ServerConnection};

use super::Socket;

/// The plaintext of one record.
const RECORD: usize = 16 * 1024;

/// See the module.
#[derive(Debug)]
pub struct Tls {
    wire: Socket,
    state: Mutex<State>,
}

#[derive(Debug)]
struct State {
    session: ServerConnection,
    /// Bytes that are decrypted and were not asked for.
    plaintext: usize,
    /// No more will come.
    ended: bool,
}

/// The plain socket as rustls wants it.
struct Wire<'a>(&'a Socket);

impl Tls {
    /// TLS on `wire`, of which `read` was read already; the handshake is still to come.
    ///
    /// # Errors
    /// What was read is no TLS.
    pub fn new(wire: Socket, config: Arc<ServerConfig>, mut read: &[u8]) -> io::Result<Self> {
        let mut session = ServerConnection::new(config).map_err(io::Error::other)?;
        session.set_buffer_limit(Some(RECORD));
        let mut state = State { session, plaintext: 0, ended: false };
        while !read.is_empty() {
            state.session.read_tls(&mut read)?;
            state.process(&wire)?;
        }
        Ok(Self { wire, state: Mutex::new(state) })
    }

    /// The socket below.
    pub(super) fn wire(&self) -> &Socket {
        &self.wire
    }

    /// Ready when the handshake is over. The client's last flight may still be answered to.
    pub fn poll_handshake(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        loop {
            let mut state = self.state.lock();
            if !state.flush(&self.wire)? {
                ready!(self.wire.poll_write_ready(cx))?;
            } else if !state.session.is_handshaking() {
                return Poll::Ready(Ok(()));
            } else if state.ended {
                return Poll::Ready(Err(io::ErrorKind::UnexpectedEof.into()));
            } else {
                ready!(self.wire.poll_read_ready(cx))?;
                match state.receive(&self.wire) {
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                    received => received?,
                }
            }
        }
    }

    pub(super) fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        self.try_write_vectored(&[IoSlice::new(bytes)])
    }

    pub(super) fn try_write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut state = self.state.lock();
        if !state.flush(&self.wire)? {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        let taken = state.session.writer().write_vectored(pieces)?;
        state.flush(&self.wire)?;
        Ok(taken)
    }

    /// Tries until the kernel has room.
    pub(super) fn poll_write<T>(
        &self,
        cx: &mut Context<'_>,
        attempt: impl Fn(&Self) -> io::Result<T>,
    ) -> Poll<io::Result<T>> {
        loop {
            match attempt(self) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(self.wire.poll_write_ready(cx))?;
                }
                done => return Poll::Ready(done),
            }
        }
    }

    /// Whether the kernel has all that was written, after it was offered the rest.
    pub(super) fn try_flush(&self) -> io::Result<bool> {
        self.state.lock().flush(&self.wire)
    }

    pub(super) fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        let mut state = self.state.lock();
        while state.plaintext == 0 {
            if state.ended {
                return Ok(0);
            }
            state.receive(&self.wire)?;
        }
        let read = state.session.reader().read(buffer)?;
        state.plaintext -= read;
        Ok(read)
    }

    pub(super) fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        {
            let state = self.state.lock();
            if state.plaintext > 0 || state.ended {
                return Poll::Ready(Ok(()));
            }
        }
        self.wire.poll_read_ready(cx)
    }

    pub(super) fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.poll_write_ready(cx)
    }

    /// Says that no more is to come, so that the client can tell the end from a cut.
    pub(super) fn half_close(&self) -> io::Result<()> {
        {
            let mut state = self.state.lock();
            state.session.send_close_notify();
            // Where the kernel has no room for it, the client sees a cut: nothing else can be done.
            state.flush(&self.wire)?;
        }
        self.wire.half_close()
    }
}

impl State {
    /// Offers the kernel what is encrypted; whether it has all.
    fn flush(&mut self, wire: &Socket) -> io::Result<bool> {
        while self.session.wants_write() {
            match self.session.write_tls(&mut Wire(wire)) {
                Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }

    /// Takes what the kernel has, once.
    fn receive(&mut self, wire: &Socket) -> io::Result<()> {
        if self.session.read_tls(&mut Wire(wire))? == 0 {
            self.ended = true;
            return Ok(());
        }
        self.process(wire)
    }

    fn process(&mut self, wire: &Socket) -> io::Result<()> {
        let processed = self.session.process_new_packets();
        // An alert that says why goes out as well as it can.
        let flushed = self.flush(wire);
        let state = processed.map_err(broken)?;
        flushed?;
        self.plaintext = state.plaintext_bytes_to_read();
        self.ended |= state.peer_has_closed();
        Ok(())
    }
}

fn broken(error: RustlsError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, error)
}

impl io::Read for Wire<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buffer)
    }
}

impl io::Write for Wire<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.try_write(bytes)
    }

    fn write_vectored(&mut self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(pieces)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

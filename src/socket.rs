//! A client's socket, TCP or Unix, plain or with TLS on it, once no HTTP library stands between: reads and writes
//! that never wait, and readiness for the one task that owns the connection.

mod tls;

use std::{
    io::{self, IoSlice},
    net::IpAddr,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

pub use self::tls::Tls;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::{TcpStream, UnixStream},
};

/// Above so many unsent bytes the kernel takes no more: the slow reader is seen here, not megabytes later.
const NOTSENT_LOWAT: u32 = 64 * 1024;

/// A peer that acknowledges nothing for so long is gone.
const USER_TIMEOUT: Duration = Duration::from_secs(30);

/// A connected stream socket.
#[derive(Debug)]
pub enum Socket {
    /// From a TCP listener.
    Tcp(TcpStream),
    /// From a `unix:` listener.
    Unix(UnixStream),
    /// With TLS on either.
    Tls(Box<Tls>),
}

/// Calls the same method on whichever socket it is.
macro_rules! either {
    ($self:expr, $socket:ident => $call:expr) => {
        match $self {
            Socket::Tcp($socket) => $call,
            Socket::Unix($socket) => $call,
            Socket::Tls($socket) => $call,
        }
    };
}

impl Socket {
    /// Sets what every client socket has: no Nagle delay, and bounds on what the kernel holds for a slow
    /// or vanished peer.
    pub fn tune(&self) -> io::Result<()> {
        let Self::Tcp(stream) = self else {
            return Ok(());
        };
        stream.set_nodelay(true)?;
        let socket = socket2::SockRef::from(stream);
        socket.set_tcp_notsent_lowat(NOTSENT_LOWAT)?;
        socket.set_tcp_user_timeout(Some(USER_TIMEOUT))
    }

    /// The peer's address; none on a Unix socket.
    #[must_use]
    pub fn peer(&self) -> Option<IpAddr> {
        match self {
            Self::Tcp(stream) => stream.peer_addr().ok().map(|a| a.ip().to_canonical()),
            Self::Unix(_) => None,
            Self::Tls(tls) => tls.wire().peer(),
        }
    }

    /// Writes what the kernel takes now.
    pub fn try_write(&self, bytes: &[u8]) -> io::Result<usize> {
        either!(self, s => s.try_write(bytes))
    }

    /// Writes what the kernel takes now of several pieces.
    pub fn try_write_vectored(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        either!(self, s => s.try_write_vectored(pieces))
    }

    /// Whether the kernel has all that was written, after it was offered what it has not: with TLS a write may
    /// leave a part of a record behind.
    pub fn try_flush(&self) -> io::Result<bool> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Ok(true),
            Self::Tls(tls) => tls.try_flush(),
        }
    }

    /// Reads what is there now; 0 is the end.
    pub fn try_read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        either!(self, s => s.try_read(buffer))
    }

    /// Reads some bytes; 0 is the end.
    pub fn poll_read_some(&self, cx: &mut Context<'_>, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            ready!(self.poll_read_ready(cx))?;
            match self.try_read(buffer) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                read => return Poll::Ready(read),
            }
        }
    }

    /// Wakes the task when there may be something to read.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, s => s.poll_read_ready(cx))
    }

    /// Wakes the task when there may be room to write.
    pub fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        either!(self, s => s.poll_write_ready(cx))
    }

    /// Ends our direction; the peer still can send.
    pub fn half_close(&self) -> io::Result<()> {
        match self {
            Self::Tcp(s) => socket2::SockRef::from(s).shutdown(std::net::Shutdown::Write),
            Self::Unix(s) => socket2::SockRef::from(s).shutdown(std::net::Shutdown::Write),
            Self::Tls(tls) => tls.half_close(),
        }
    }

    /// Reads and drops what the peer still sends, for at most `time` and a bounded number of bytes, so that
    /// our last bytes are not lost to a reset (a socket closed with bytes unread resets the connection).
    pub async fn linger(&self, time: Duration) {
        const MOST: usize = 4 * 1024 * 1024;
        let drain = async {
            let mut total = 0;
            while total < MOST {
                match std::future::poll_fn(|cx| self.poll_read_some(cx, &mut [0; 8192])).await {
                    Ok(n) if n > 0 => total += n,
                    Ok(_) | Err(_) => return,
                }
            }
        };
        let _ = tokio::time::timeout(time, drain).await;
    }
}

impl AsyncRead for Socket {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_read(cx, buf),
            Self::Unix(s) => Pin::new(s).poll_read(cx, buf),
            socket => {
                let read = ready!(socket.poll_read_some(cx, buf.initialize_unfilled()))?;
                buf.advance(read);
                Poll::Ready(Ok(()))
            }
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_write(cx, bytes),
            Self::Unix(s) => Pin::new(s).poll_write(cx, bytes),
            Self::Tls(tls) => tls.poll_write(cx, |tls| tls.try_write(bytes)),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        pieces: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(s) => Pin::new(s).poll_write_vectored(cx, pieces),
            Self::Unix(s) => Pin::new(s).poll_write_vectored(cx, pieces),
            Self::Tls(tls) => tls.poll_write(cx, |tls| tls.try_write_vectored(pieces)),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !self.try_flush()? {
            ready!(self.poll_write_ready(cx))?;
        }
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.half_close())
    }
}

//! Listening sockets, TCP and Unix.

use std::{
    io,
    net::SocketAddr,
    path::{Path, PathBuf},
};

use tokio::net::{TcpListener, TcpSocket, UnixListener, UnixStream};

use crate::{config::Listen, socket::Socket};

/// Connections that the kernel keeps until they are accepted: a crowd that comes back at once fits.
const BACKLOG: u32 = 4096;

/// An address that cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address} ({key}): {source}")]
pub struct BindError {
    address: Listen,
    key: &'static str,
    source: io::Error,
}

/// A bound address.
#[derive(Debug)]
pub enum Listener {
    /// A TCP port.
    Tcp(TcpListener),
    /// A path, which is removed with the listener.
    Unix(UnixListener, PathBuf),
}

impl Listener {
    /// Binds `address`, which the configuration names in `key`.
    ///
    /// # Errors
    /// What the system says, with the key.
    pub async fn bind(address: &Listen, key: &'static str) -> Result<Self, BindError> {
        let bound = match address {
            Listen::Tcp(address) => bind_tcp(*address).map(Self::Tcp),
            Listen::Unix(path) => bind_unix(path).await,
        };
        bound.map_err(|source| BindError { address: address.clone(), key, source })
    }

    /// The port that was bound, for a TCP address.
    #[must_use]
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Tcp(listener) => listener.local_addr().ok(),
            Self::Unix(..) => None,
        }
    }

    pub(super) async fn accept(&self) -> io::Result<Socket> {
        match self {
            Self::Tcp(listener) => Ok(Socket::Tcp(listener.accept().await?.0)),
            Self::Unix(listener, _) => Ok(Socket::Unix(listener.accept().await?.0)),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Self::Unix(_, path) = self {
            let _ = std::fs::remove_file(path);
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = match address {
        SocketAddr::V4(_) => TcpSocket::new_v4()?,
        SocketAddr::V6(_) => TcpSocket::new_v6()?,
    };
    // A restarted gateway must not wait for its old connections to be forgotten.
    socket.set_reuseaddr(true)?;
    socket.bind(address)?;
    socket.listen(BACKLOG)
}

/// A path that a killed process left behind is taken over; one that somebody listens on is not.
async fn bind_unix(path: &Path) -> io::Result<Listener> {
    if path.exists() && UnixStream::connect(path).await.is_err() {
        std::fs::remove_file(path)?;
    }
    Ok(Listener::Unix(UnixListener::bind(path)?, path.to_owned()))
}

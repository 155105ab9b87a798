//! Listening sockets, TCP and Unix.

use std::{
    io,
    net::SocketAddr,
    os::unix::fs::FileTypeExt as _,
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

impl BindError {
    /// Whether somebody listens there.
    #[must_use]
    pub fn is_taken(&self) -> bool {
        self.source.kind() == io::ErrorKind::AddrInUse
    }
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

    /// What is bound: a TCP address with its port, or a path.
    ///
    /// # Errors
    /// The system's.
    pub fn address(&self) -> io::Result<Listen> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Listen::Tcp),
            Self::Unix(_, path) => Ok(Listen::Unix(path.clone())),
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

/// A socket that a killed process left behind is taken over; one that somebody listens on is not, nor is
/// a file of another kind.
async fn bind_unix(path: &Path) -> io::Result<Listener> {
    let is_socket = path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket());
    if is_socket && UnixStream::connect(path).await.is_err() {
        std::fs::remove_file(path)?;
    }
    Ok(Listener::Unix(UnixListener::bind(path)?, path.to_owned()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_a_socket_that_nobody_listens_on_is_taken_over() {
        let path = std::env::temp_dir().join(format!("tidegate-{}-listener.sock", std::process::id()));
        std::fs::write(&path, "precious").unwrap();
        assert!(bind_unix(&path).await.is_err());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
        std::fs::remove_file(&path).unwrap();

        // The standard library's leaves its path behind.
        drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let listener = bind_unix(&path).await.unwrap();
        assert_eq!(listener.address().unwrap(), Listen::Unix(path.clone()));
        assert!(bind_unix(&path).await.is_err());
        drop(listener);
        assert!(!path.exists());
    }
}

//! One server: where it is, as an operator would write it.

use std::{fmt, path::Path, sync::Arc};

use crate::config::HostPort;

/// One server.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Server {
    /// By TCP.
    Tcp {
        /// A name, or an address without brackets.
        host: Arc<str>,
        /// The port.
        port: u16,
    },
    /// By a socket of this machine.
    Unix(Arc<Path>),
}

impl Server {
    /// A server by TCP.
    #[must_use]
    pub fn tcp(host: impl Into<Arc<str>>, port: u16) -> Self {
        Self::Tcp { host: host.into(), port }
    }

    /// What this server means by `host:port`: its own host where the host is missing or `?`.
    #[must_use]
    pub fn beside(&self, address: &str) -> Option<Self> {
        let (host, port) = address.rsplit_once(':')?;
        self.with(host, port.parse().ok()?)
    }

    /// What this server means by a host and a port; 0 is no port.
    #[must_use]
    pub fn with(&self, host: &str, port: u16) -> Option<Self> {
        if port == 0 {
            return None;
        }
        let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
        match (host, self) {
            ("" | "?", Self::Tcp { host, .. }) => Some(Self::Tcp { host: Arc::clone(host), port }),
            ("" | "?", Self::Unix(_)) => None,
            _ => Some(Self::tcp(host, port)),
        }
    }
}

impl From<&HostPort> for Server {
    fn from(address: &HostPort) -> Self {
        Self::tcp(address.host.as_str(), address.port)
    }
}

impl fmt::Display for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp { host, port } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Self::Tcp { host, port } => write!(f, "{host}:{port}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl fmt::Debug for Server {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

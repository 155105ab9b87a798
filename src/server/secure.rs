//! The handshake of TLS, with a deadline of its own, and a word for who speaks plain HTTP to a port with TLS.

use std::{future::poll_fn, io, net::IpAddr, sync::Arc, time::Duration};

use tokio_rustls::rustls::ServerConfig;

use super::{LINGER, refusal};
use crate::socket::{Socket, Tls};

/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// The first byte of a client that speaks TLS: its record is of a handshake (RFC 8446, section 5.1).
const HANDSHAKE_RECORD: u8 = 22;

/// The socket with TLS on it; `read` was read of it before. `None`: the connection is over.
pub(super) async fn secure(
    socket: Socket,
    config: Arc<ServerConfig>,
    read: Vec<u8>,
    address: Option<IpAddr>,
) -> Option<Socket> {
    match tokio::time::timeout(HANDSHAKE, handshake(socket, config, read)).await {
        Ok(Ok(socket)) => return Some(socket),
        Ok(Err(Failed::Tls(error))) => {
            tracing::debug!(client.address = address.map(tracing::field::display), %error, "a TLS handshake failed");
        }
        Ok(Err(Failed::Plain(socket))) => {
            refusal::tell_plain(&socket, "this port speaks TLS: use https:// or wss://\n", LINGER).await;
            socket.linger(LINGER).await;
        }
        Err(_) => {
            tracing::debug!(client.address = address.map(tracing::field::display), "a TLS handshake stalled")
        }
    }
    None
}

enum Failed {
    Tls(io::Error),
    /// The client speaks something else.
    Plain(Socket),
}

impl From<io::Error> for Failed {
    fn from(error: io::Error) -> Self {
        Self::Tls(error)
    }
}

async fn handshake(socket: Socket, config: Arc<ServerConfig>, mut read: Vec<u8>) -> Result<Socket, Failed> {
    if read.is_empty() {
        let mut first = [0; 1024];
        match poll_fn(|cx| socket.poll_read_some(cx, &mut first)).await? {
            0 => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            n => read.extend_from_slice(&first[..n]),
        }
    }
    if read[0] != HANDSHAKE_RECORD {
        return Err(Failed::Plain(socket));
    }
    let tls = Tls::new(socket, config, &read)?;
    drop(read);
    poll_fn(|cx| tls.poll_handshake(cx)).await?;
    Ok(Socket::Tls(Box::new(tls)))
}

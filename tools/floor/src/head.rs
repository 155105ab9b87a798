//! Reading requests off a socket: heads by httparse, bodies by `Content-Length`, whatever came along kept for the next.

use anyhow::{Context, bail};
use tokio::{io::AsyncReadExt, net::TcpStream};

const MAX_HEADERS: usize = 32;
/// The only client is the load generator; this bounds its mistakes.
const MAX_REQUEST: usize = 1 << 20;

/// What the floor needs to know of a request.
pub struct Request {
    /// `GET` or `POST`.
    pub method: String,
    /// Path and query.
    pub target: String,
    /// `Accept`, empty where there is none.
    pub accept: String,
    /// `Sec-WebSocket-Key`, where the client wants a WebSocket.
    pub websocket_key: Option<String>,
    /// The body.
    pub body: Vec<u8>,
}

/// The requests of one connection, in order.
pub struct Requests {
    buffer: Vec<u8>,
}

impl Requests {
    /// No bytes read yet.
    pub fn new() -> Self {
        Self { buffer: Vec::new() }
    }

    /// The next request; `None` when the client has closed.
    pub async fn next(&mut self, socket: &mut TcpStream) -> anyhow::Result<Option<Request>> {
        loop {
            if let Some((request, length)) = parse(&self.buffer)? {
                self.buffer.drain(..length);
                return Ok(Some(request));
            }
            if self.buffer.len() > MAX_REQUEST {
                bail!("a request over {MAX_REQUEST} bytes");
            }
            if socket.read_buf(&mut self.buffer).await? == 0 {
                return Ok(None);
            }
        }
    }
}

/// The first request in `bytes` and its length, once all of it is there.
fn parse(bytes: &[u8]) -> anyhow::Result<Option<(Request, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut head = httparse::Request::new(&mut headers);
    let httparse::Status::Complete(start) = head.parse(bytes)? else {
        return Ok(None);
    };
    let header = |name: &str| {
        let found = head.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok()
    };
    let length: usize = header("content-length").unwrap_or("0").parse().context("content-length")?;
    let Some(body) = bytes.get(start..start.saturating_add(length)) else {
        return Ok(None);
    };
    let request = Request {
        method: head.method.unwrap_or_default().to_owned(),
        target: head.path.unwrap_or_default().to_owned(),
        accept: header("accept").unwrap_or_default().to_owned(),
        websocket_key: header("sec-websocket-key").map(str::to_owned),
        body: body.to_vec(),
    };
    Ok(Some((request, start + length)))
}

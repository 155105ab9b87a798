//! HTTP/1.1 and WebSocket frames over a bare `TcpStream`, so that a test may also say what no
//! decent client says. Parses only what comes back.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::{PATIENCE, openapi, within};

/// The head of an answer.
#[derive(Debug, Clone)]
pub struct Head {
    pub status: u16,
    pub headers: Vec<(String, String)>,
}

impl Head {
    /// The value of a header that stands there once; a second one is a failure.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut found = self.headers.iter().filter(|(header, _)| header.eq_ignore_ascii_case(name));
        let value = found.next().map(|(_, value)| value.as_str());
        assert!(found.next().is_none(), "header {name} given twice: {:?}", self.headers);
        value
    }

    /// Whether the server ends the connection after this answer.
    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.to_ascii_lowercase().contains("close"))
    }
}

/// A whole answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub head: Head,
    pub body: Vec<u8>,
}

impl Answer {
    pub fn status(&self) -> u16 {
        self.head.status
    }

    pub fn header(&self, name: &str) -> Option<&str> {
        self.head.header(name)
    }

    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("the body is UTF-8")
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body)
            .unwrap_or_else(|error| panic!("not JSON ({error}): {} {:?}", self.status(), self.text()))
    }

    /// Fails unless this is a problem with that status and code; gives the problem.
    #[track_caller]
    pub fn problem(&self, status: u16, code: &str) -> Value {
        assert_eq!(self.status(), status, "wanted {status} {code}, got: {}", self.text());
        assert_eq!(self.header("content-type"), Some("application/problem+json"));
        let problem = self.json();
        assert_eq!(problem["code"], code, "{problem}");
        assert_eq!(problem["status"], status, "{problem}");
        assert_eq!(problem["type"], format!("/problems/{code}"), "{problem}");
        assert!(problem["title"].as_str().is_some_and(|title| !title.is_empty()), "{problem}");
        assert!(problem["detail"].as_str().is_some_and(|detail| !detail.is_empty()), "{problem}");
        assert!(self.header("tidegate-connection").is_none(), "a problem names no connection");
        problem
    }

    /// Fails unless the status is this one.
    #[track_caller]
    pub fn expect(self, status: u16) -> Self {
        assert_eq!(self.status(), status, "{}", String::from_utf8_lossy(&self.body));
        self
    }
}

/// How the end of a body is told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Framing {
    Length(u64),
    Chunked,
    UntilClose,
    Done,
}

/// The body of an answer that is being read. Its reads may be cancelled without loss.
#[derive(Debug)]
pub struct Body {
    framing: Framing,
    chunk: Option<usize>,
}

/// A connection of bytes.
#[derive(Debug)]
pub struct Conn {
    pub stream: TcpStream,
    buffer: Vec<u8>,
}

impl Conn {
    pub async fn open(address: SocketAddr) -> Self {
        let stream = within(PATIENCE, "connect", TcpStream::connect(address)).await.expect("connects");
        stream.set_nodelay(true).expect("sets nodelay");
        Self { stream, buffer: Vec::new() }
    }

    /// One that is there already.
    pub fn on(stream: TcpStream) -> Self {
        Self { stream, buffer: Vec::new() }
    }

    /// A connection whose receive buffer is small, so that a reader who stops reading is soon felt.
    pub async fn open_narrow(address: SocketAddr) -> Self {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.set_recv_buffer_size(4096).expect("sets the receive buffer");
        let stream = within(PATIENCE, "connect", socket.connect(address)).await.expect("connects");
        Self { stream, buffer: Vec::new() }
    }

    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.try_send(bytes).await.expect("sends");
    }

    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> io::Result<()> {
        within(PATIENCE, "send", self.stream.write_all(bytes.as_ref())).await
    }

    /// The socket and what was read beyond the head.
    pub fn into_parts(self) -> (TcpStream, Vec<u8>) {
        (self.stream, self.buffer)
    }

    /// Reads more; `false` at the end of the stream.
    async fn fill(&mut self) -> io::Result<bool> {
        Ok(self.stream.read_buf(&mut self.buffer).await? > 0)
    }

    /// The next head; `None` where the connection ended before its first byte.
    pub async fn try_head(&mut self) -> io::Result<Option<Head>> {
        let end = loop {
            if let Some(at) = find(&self.buffer, b"\r\n\r\n") {
                break at + 4;
            }
            if !self.fill().await? {
                if self.buffer.is_empty() {
                    return Ok(None);
                }
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        };
        let text = String::from_utf8(self.buffer.drain(..end).collect()).expect("the head is UTF-8");
        let mut lines = text.split("\r\n");
        let first = lines.next().expect("a status line");
        let mut words = first.splitn(3, ' ');
        assert!(words.next().is_some_and(|version| version.starts_with("HTTP/1.")), "{first:?}");
        let status = words.next().expect("a status").parse().expect("a number for the status");
        let headers = lines
            .filter(|line| !line.is_empty())
            .map(|line| {
                let (name, value) = line.split_once(':').expect("a header");
                (name.to_owned(), value.trim().to_owned())
            })
            .collect();
        Ok(Some(Head { status, headers }))
    }

    pub async fn head(&mut self) -> Head {
        within(PATIENCE, "an answer's head", self.try_head()).await.expect("reads").expect("an answer")
    }

    /// The rest of an answer to `method` whose head was read.
    pub async fn body(&mut self, method: &str, head: &Head) -> Vec<u8> {
        let mut body = Body::after(method, head);
        let mut bytes = Vec::new();
        while let Some(piece) = within(PATIENCE, "the body", body.next(self)).await.expect("reads the body") {
            bytes.extend(piece);
        }
        bytes
    }

    /// One whole answer; 1xx ones are passed over.
    pub async fn answer(&mut self, method: &str) -> Answer {
        let mut head = self.head().await;
        while head.status < 200 && head.status != 101 {
            head = self.head().await;
        }
        let body = self.body(method, &head).await;
        Answer { head, body }
    }

    /// Sends a request without a body and reads the answer; the connection may be used again.
    pub async fn get(&mut self, target: &str, headers: &[(&str, &str)]) -> Answer {
        self.request("GET", target, headers, None).await
    }

    /// Sends a request and reads the answer, checked against the contract.
    pub async fn request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Answer {
        let bytes = self.encode(method, target, headers, body);
        // A server that refuses early may close while we still send: its answer is what counts.
        let _ = self.try_send(bytes).await;
        let answer = self.answer(method).await;
        openapi::saw(method, target, &answer);
        answer
    }

    /// A request's bytes; `Host` and `Content-Length` are added unless they are among the headers.
    pub fn encode(
        &self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: Option<&[u8]>,
    ) -> Vec<u8> {
        let mut head = format!("{method} {target} HTTP/1.1\r\n");
        let given = |name: &str| headers.iter().any(|(header, _)| header.eq_ignore_ascii_case(name));
        if !given("host") {
            head += &format!("Host: {}\r\n", self.stream.peer_addr().expect("a peer"));
        }
        for (name, value) in headers {
            head += &format!("{name}: {value}\r\n");
        }
        if let Some(body) = body
            && !given("transfer-encoding")
            && !given("content-length")
        {
            head += &format!("Content-Length: {}\r\n", body.len());
        }
        head += "\r\n";
        let mut bytes = head.into_bytes();
        bytes.extend(body.unwrap_or_default());
        bytes
    }

    /// Reads and throws away until the connection ends; `false` where it does not within `limit`.
    pub async fn closed_within(&mut self, limit: Duration) -> bool {
        let drain = async {
            loop {
                self.buffer.clear();
                if !matches!(self.fill().await, Ok(true)) {
                    break;
                }
            }
        };
        tokio::time::timeout(limit, drain).await.is_ok()
    }

    /// Opens a WebSocket by hand; the answer instead where it is refused.
    pub async fn upgrade(mut self, target: &str, headers: &[(&str, &str)]) -> Result<(Self, Head), Answer> {
        let mut all = vec![
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        all.extend(headers);
        let bytes = self.encode("GET", target, &all, None);
        self.send(bytes).await;
        let head = self.head().await;
        if head.status != 101 {
            let body = self.body("GET", &head).await;
            let answer = Answer { head, body };
            openapi::saw("GET", target, &answer);
            return Err(answer);
        }
        assert_eq!(head.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        assert!(
            head.header("upgrade").is_some_and(|value| value.eq_ignore_ascii_case("websocket")),
            "{head:?}"
        );
        openapi::saw("GET", target, &Answer { head: head.clone(), body: Vec::new() });
        Ok((self, head))
    }

    /// The next WebSocket frame; `None` at the end of the connection.
    pub async fn frame(&mut self) -> Option<Frame> {
        within(PATIENCE, "a frame", self.try_frame()).await
    }

    async fn try_frame(&mut self) -> Option<Frame> {
        loop {
            if let Some((frame, used)) = Frame::parse(&self.buffer) {
                self.buffer.drain(..used);
                return Some(frame);
            }
            if !matches!(self.fill().await, Ok(true)) {
                return None;
            }
        }
    }

    /// The next frame that is neither ping nor pong.
    pub async fn data_frame(&mut self) -> Option<Frame> {
        loop {
            match self.frame().await {
                Some(frame) if frame.opcode == PING || frame.opcode == PONG => {}
                other => return other,
            }
        }
    }

    /// The close frame that must come next but for data, and then the end of the connection.
    pub async fn close_frame(&mut self) -> (u16, String) {
        let frame = loop {
            match self.frame().await {
                Some(frame) if frame.opcode == CLOSE => break frame,
                Some(_) => {}
                None => panic!("the connection ended without a close frame"),
            }
        };
        let code = u16::from_be_bytes([frame.payload[0], frame.payload[1]]);
        let reason = String::from_utf8(frame.payload[2..].to_vec()).expect("the reason is UTF-8");
        (code, reason)
    }
}

impl Body {
    /// What follows this head as an answer to `method`.
    pub fn after(method: &str, head: &Head) -> Self {
        let framing = if method == "HEAD" || matches!(head.status, 100..=199 | 204 | 304) {
            Framing::Done
        } else if head.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked"))
        {
            Framing::Chunked
        } else if let Some(length) = head.header("content-length") {
            Framing::Length(length.parse().expect("a number for the length"))
        } else {
            Framing::UntilClose
        };
        Self { framing, chunk: None }
    }

    /// Some more of the body; `None` after its proper end, an error where the connection broke off.
    pub async fn next(&mut self, conn: &mut Conn) -> io::Result<Option<Vec<u8>>> {
        loop {
            if let Some(piece) = self.take(&mut conn.buffer)? {
                return Ok(Some(piece));
            }
            if self.framing == Framing::Done {
                return Ok(None);
            }
            if !conn.fill().await? {
                if self.framing == Framing::UntilClose {
                    self.framing = Framing::Done;
                    return Ok(None);
                }
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn take(&mut self, buffer: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
        match self.framing {
            Framing::Done => Ok(None),
            Framing::Length(0) => {
                self.framing = Framing::Done;
                Ok(None)
            }
            Framing::Length(left) => {
                let count = buffer.len().min(usize::try_from(left).unwrap_or(usize::MAX));
                if count == 0 {
                    return Ok(None);
                }
                self.framing = Framing::Length(left - count as u64);
                Ok(Some(buffer.drain(..count).collect()))
            }
            Framing::UntilClose if buffer.is_empty() => Ok(None),
            Framing::UntilClose => Ok(Some(std::mem::take(buffer))),
            Framing::Chunked => self.take_chunk(buffer),
        }
    }

    fn take_chunk(&mut self, buffer: &mut Vec<u8>) -> io::Result<Option<Vec<u8>>> {
        let size = match self.chunk {
            Some(size) => size,
            None => {
                let Some(end) = find(buffer, b"\r\n") else { return Ok(None) };
                let line: Vec<u8> = buffer.drain(..end + 2).collect();
                let text = String::from_utf8_lossy(&line);
                let size = usize::from_str_radix(text.split(';').next().unwrap_or_default().trim(), 16)
                    .map_err(|error| io::Error::other(format!("a chunk's size {text:?}: {error}")))?;
                self.chunk = Some(size);
                size
            }
        };
        if buffer.len() < size + 2 {
            return Ok(None);
        }
        let mut piece: Vec<u8> = buffer.drain(..size + 2).collect();
        if piece.split_off(size) != b"\r\n" {
            return Err(io::Error::other("a chunk without its end"));
        }
        self.chunk = None;
        if size == 0 {
            self.framing = Framing::Done;
            return Ok(None);
        }
        Ok(Some(piece))
    }
}

pub const CONTINUATION: u8 = 0;
pub const TEXT: u8 = 1;
pub const BINARY: u8 = 2;
pub const CLOSE: u8 = 8;
pub const PING: u8 = 9;
pub const PONG: u8 = 10;

/// A WebSocket frame as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    pub fin: bool,
    pub opcode: u8,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.payload).expect("the frame is UTF-8")
    }

    fn parse(bytes: &[u8]) -> Option<(Self, usize)> {
        let (first, second) = (*bytes.first()?, *bytes.get(1)?);
        assert_eq!(second & 0x80, 0, "a server masks no frame");
        assert_eq!(first & 0x70, 0, "no extension was agreed on");
        let (length, start) = match second & 0x7f {
            126 => (usize::from(u16::from_be_bytes(bytes.get(2..4)?.try_into().ok()?)), 4),
            127 => (u64::from_be_bytes(bytes.get(2..10)?.try_into().ok()?).try_into().ok()?, 10),
            short => (usize::from(short), 2),
        };
        let payload = bytes.get(start..start + length)?.to_vec();
        Some((Self { fin: first & 0x80 != 0, opcode: first & 0x0f, payload }, start + length))
    }
}

/// A client's frame, masked as it should be.
pub fn frame(fin: bool, opcode: u8, payload: &[u8]) -> Vec<u8> {
    let mask = [0x1d, 0xc4, 0x7a, 0x03];
    let mut bytes = frame_head(fin, opcode, payload.len() as u64, true);
    bytes.extend(mask);
    bytes.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    bytes
}

/// The first bytes of a frame, up to the mask; may promise more than ever comes.
pub fn frame_head(fin: bool, opcode: u8, length: u64, masked: bool) -> Vec<u8> {
    let mut bytes = vec![u8::from(fin) << 7 | opcode];
    let mask = u8::from(masked) << 7;
    if length < 126 {
        bytes.push(mask | length as u8);
    } else if let Ok(short) = u16::try_from(length) {
        bytes.push(mask | 126);
        bytes.extend(short.to_be_bytes());
    } else {
        bytes.push(mask | 127);
        bytes.extend(length.to_be_bytes());
    }
    bytes
}

/// Where `needle` begins in `haystack`.
pub fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

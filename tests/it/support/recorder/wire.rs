//! HTTP/1.1, event streams, lines and WebSocket frames over a bare `TcpStream`, as far as a client
//! needs them. Nothing here fails a test: the networks of these tests break on purpose, and what is
//! broken is an `Err` that the client comes back from.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// How long a connection may take to be made.
const CONNECT: Duration = Duration::from_secs(3);

/// A connection and what was read of it.
pub struct Pipe {
    stream: TcpStream,
    buffer: Vec<u8>,
}

/// The status and the headers, names in lower case.
#[derive(Debug, Clone)]
pub struct Head {
    pub status: u16,
    headers: Vec<(String, String)>,
}

impl Head {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(header, _)| header == name).map(|(_, value)| value.as_str())
    }

    pub fn closes(&self) -> bool {
        self.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close"))
    }
}

fn broken(why: &str) -> io::Error {
    io::Error::other(why.to_owned())
}

/// `future`, or the error that it took too long.
pub async fn timed<T>(
    limit: Duration,
    what: &str,
    future: impl Future<Output = io::Result<T>>,
) -> io::Result<T> {
    match tokio::time::timeout(limit, future).await {
        Ok(result) => result,
        Err(_) => Err(broken(&format!("{what}: nothing within {limit:?}"))),
    }
}

impl Pipe {
    pub async fn open(address: SocketAddr) -> io::Result<Self> {
        let stream = timed(CONNECT, "connecting", TcpStream::connect(address)).await?;
        stream.set_nodelay(true)?;
        Ok(Self { stream, buffer: Vec::new() })
    }

    pub async fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await
    }

    /// Reads some more; an error at the end of the connection.
    async fn fill(&mut self) -> io::Result<()> {
        match self.stream.read_buf(&mut self.buffer).await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// Up to and without the next CRLF.
    async fn line(&mut self) -> io::Result<String> {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|pair| pair == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).take(end).collect();
                return String::from_utf8(line).map_err(|_| broken("a head that is not UTF-8"));
            }
            self.fill().await?;
        }
    }

    async fn exactly(&mut self, count: usize) -> io::Result<Vec<u8>> {
        while self.buffer.len() < count {
            self.fill().await?;
        }
        Ok(self.buffer.drain(..count).collect())
    }

    pub async fn head(&mut self) -> io::Result<Head> {
        let first = self.line().await?;
        let status = first.split(' ').nth(1).and_then(|word| word.parse().ok());
        let mut headers = Vec::new();
        loop {
            let line = self.line().await?;
            if line.is_empty() {
                break;
            }
            let (name, value) = line.split_once(':').ok_or_else(|| broken("a header without a colon"))?;
            headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        Ok(Head { status: status.ok_or_else(|| broken("no status"))?, headers })
    }

    /// The whole body of an answer.
    pub async fn body(&mut self, head: &Head) -> io::Result<Vec<u8>> {
        let mut body = Vec::new();
        let mut flow = Flow::of(head);
        while let Some(piece) = flow.next(self).await? {
            body.extend(piece);
        }
        Ok(body)
    }

    /// One WebSocket frame: its opcode, its payload.
    pub async fn frame(&mut self) -> io::Result<(u8, Vec<u8>)> {
        while self.buffer.len() < 2 {
            self.fill().await?;
        }
        let (first, short) = (self.buffer[0], self.buffer[1]);
        if first & 0xf0 != 0x80 || short & 0x80 != 0 {
            return Err(broken("a fragmented, reserved or masked frame"));
        }
        let start = match short {
            126 => 4,
            127 => 10,
            _ => 2,
        };
        while self.buffer.len() < start {
            self.fill().await?;
        }
        let length = match short {
            126 | 127 => {
                self.buffer[2..start].iter().fold(0_usize, |sum, byte| sum << 8 | usize::from(*byte))
            }
            _ => usize::from(short),
        };
        let mut frame = self.exactly(start + length).await?;
        Ok((first & 0x0f, frame.split_off(start)))
    }

    /// A short frame of the client's, masked with zeros.
    pub async fn send_frame(&mut self, opcode: u8, payload: &[u8]) -> io::Result<()> {
        let mut frame =
            vec![0x80 | opcode, 0x80 | u8::try_from(payload.len().min(125)).unwrap_or(125), 0, 0, 0, 0];
        frame.extend(&payload[..payload.len().min(125)]);
        self.send(&frame).await
    }
}

/// A body on its way.
pub enum Flow {
    Chunked,
    Length(usize),
    UntilClose,
    Over,
}

impl Flow {
    pub fn of(head: &Head) -> Self {
        if head.header("transfer-encoding").is_some_and(|value| value.eq_ignore_ascii_case("chunked")) {
            return Self::Chunked;
        }
        match head.header("content-length").and_then(|value| value.parse().ok()) {
            Some(length) => Self::Length(length),
            None => Self::UntilClose,
        }
    }

    /// Some more; `None` after the proper end.
    pub async fn next(&mut self, pipe: &mut Pipe) -> io::Result<Option<Vec<u8>>> {
        match self {
            Self::Over => Ok(None),
            Self::Length(0) => {
                *self = Self::Over;
                Ok(None)
            }
            Self::Length(left) => {
                let bytes = pipe.exactly(*left).await?;
                *self = Self::Over;
                Ok(Some(bytes))
            }
            Self::UntilClose => {
                if pipe.buffer.is_empty()
                    && let Err(error) = pipe.fill().await
                {
                    *self = Self::Over;
                    return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(None) } else { Err(error) };
                }
                Ok(Some(std::mem::take(&mut pipe.buffer)))
            }
            Self::Chunked => {
                let line = pipe.line().await?;
                let size = line.split(';').next().unwrap_or_default().trim();
                let size = usize::from_str_radix(size, 16).map_err(|_| broken("a bad chunk"))?;
                let mut bytes = pipe.exactly(size + 2).await?;
                if bytes.split_off(size) != b"\r\n" {
                    return Err(broken("a chunk without its end"));
                }
                if size == 0 {
                    *self = Self::Over;
                    return Ok(None);
                }
                Ok(Some(bytes))
            }
        }
    }
}

/// One event of an event stream, after the rules of the HTML standard.
#[derive(Debug, Default)]
pub struct Event {
    pub data: String,
    pub id: Option<String>,
    pub retry: Option<u64>,
}

/// Takes the bytes of an event stream; LF and CRLF end lines.
#[derive(Default)]
pub struct Events {
    text: Vec<u8>,
}

impl Events {
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Event> {
        self.text.extend(bytes.iter().filter(|byte| **byte != b'\r'));
        let mut events = Vec::new();
        while let Some(end) = self.text.windows(2).position(|pair| pair == b"\n\n") {
            let block: Vec<u8> = self.text.drain(..end + 2).collect();
            let mut event = Event::default();
            for line in String::from_utf8_lossy(&block).lines() {
                let (field, value) = line.split_once(':').unwrap_or((line, ""));
                let value = value.strip_prefix(' ').unwrap_or(value);
                match field {
                    "data" => event.data += value,
                    "id" => event.id = Some(value.to_owned()),
                    "retry" => event.retry = value.parse().ok(),
                    _ => {}
                }
            }
            events.push(event);
        }
        events
    }
}

//! Our own connection to a server: what opens it, greets it and asks it one thing at a time. The subscriber lives
//! on one; discovery and the search for a connection's fault use one for a moment.

use std::{fmt::Write, io, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use fred::{rustls::pki_types::ServerName, socket2::SockRef, types::Value};
use redis_protocol::resp3::{decode::complete::decode_bytes_mut, types::BytesFrame};
use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt},
    net::{TcpStream, UnixStream, lookup_host},
    time::timeout,
};
use tokio_rustls::TlsConnector;

use super::{
    endpoint::{Endpoint, Role, keepalive},
    error::{ConnectError, Problem},
    server::Server,
};

/// What our connections are called in `CLIENT LIST`.
pub const CLIENT_NAME: &str = "tidegate";
/// No answer to a question of ours comes near it.
const LARGEST_ANSWER: usize = 16 << 20;
/// Read at once at least.
pub(super) const READ: usize = 16 << 10;

/// A byte stream, whatever carries it.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection that has said HELLO.
pub struct Connection {
    pub(super) stream: Box<dyn Stream>,
    pub(super) input: BytesMut,
}

/// What a server says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hello {
    /// `redis` or `valkey`.
    pub server: String,
    /// Such as `7.0.15`.
    pub version: String,
    /// `standalone`, `sentinel` or `cluster`.
    pub mode: String,
    /// `master` or `replica`; empty for a Sentinel.
    pub role: String,
}

impl Connection {
    /// Connects, logs in and looks whether this is a server as wanted; `limit` is for all of it.
    ///
    /// # Errors
    /// What is wrong with the server.
    pub async fn open(
        endpoint: &Endpoint,
        server: &Server,
        role: Role,
        limit: Duration,
    ) -> Result<(Self, Hello), ConnectError> {
        let opened = timeout(limit, Self::try_open(endpoint, server, role)).await;
        let opened = opened.unwrap_or_else(|_| Err(endpoint.timed_out(limit)));
        opened.map_err(|problem| ConnectError::new(server, problem))
    }

    async fn try_open(endpoint: &Endpoint, server: &Server, role: Role) -> Result<(Self, Hello), Problem> {
        let stream = stream(endpoint, server).await?;
        let mut connection = Self { stream, input: BytesMut::with_capacity(READ) };
        let (login, keys) = endpoint.login(role);
        let mut hello: Vec<&[u8]> = vec![b"HELLO", b"3"];
        if let Some(password) = &login.password {
            let username = login.username.as_deref().unwrap_or("default");
            hello.extend([&b"AUTH"[..], username.as_bytes(), password.reveal().as_bytes()]);
        }
        hello.extend([&b"SETNAME"[..], CLIENT_NAME.as_bytes()]);
        let answer = connection.ask(&hello).await?;
        let hello = Hello::read(answer, keys)?;
        hello.check(role, endpoint.is_cluster())?;
        Ok((connection, hello))
    }

    /// Chooses a database.
    ///
    /// # Errors
    /// There is none of this number, or it is forbidden.
    pub(super) async fn select(&mut self, database: u32) -> Result<(), Problem> {
        let answer = self.ask(&[b"SELECT", database.to_string().as_bytes()]).await?;
        error_text(&answer).map_or(Ok(()), |error| Err(database_problem(database, error)))
    }

    /// Sends a command and waits for its answer, an error reply being one.
    ///
    /// # Errors
    /// The connection failed, or the answer is no RESP.
    pub async fn ask(&mut self, command: &[&[u8]]) -> io::Result<BytesFrame> {
        let mut output = BytesMut::new();
        encode(&mut output, command);
        self.stream.write_all(&output).await?;
        self.stream.flush().await?;
        loop {
            if let Some(frame) = decode(&mut self.input)? {
                return Ok(frame);
            }
            if self.input.len() > LARGEST_ANSWER {
                return Err(io::Error::other("an answer is larger than expected"));
            }
            self.input.reserve(READ);
            if self.stream.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }
}

async fn stream(endpoint: &Endpoint, server: &Server) -> Result<Box<dyn Stream>, Problem> {
    let (host, port) = match server {
        Server::Unix(path) => return Ok(Box::new(UnixStream::connect(path).await?)),
        Server::Tcp { host, port } => (host, *port),
    };
    let addresses =
        lookup_host((&**host, port)).await.map_err(|error| Problem::Unresolved(error.to_string()))?;
    let mut tcp = Err(Problem::Unresolved("it has no address".into()));
    for address in addresses {
        tcp = TcpStream::connect(address).await.map_err(Problem::from);
        if tcp.is_ok() {
            break;
        }
    }
    let tcp = tcp?;
    tcp.set_nodelay(true)?;
    SockRef::from(&tcp).set_tcp_keepalive(&keepalive())?;
    let Some(tls) = endpoint.tls() else {
        return Ok(Box::new(tcp));
    };
    let name = ServerName::try_from(host.to_string()).map_err(|error| Problem::Tls(error.to_string()))?;
    let connected = TlsConnector::from(std::sync::Arc::clone(tls)).connect(name, tcp).await;
    Ok(Box::new(connected.map_err(tls_problem)?))
}

fn tls_problem(error: io::Error) -> Problem {
    let text = error.to_string();
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset => {
            Problem::Tls("the server closed the connection (one that speaks no TLS does so: redis://)".into())
        }
        _ if text.contains("InvalidContentType") => {
            Problem::Tls("the server speaks no TLS: write redis:// in place of rediss://".into())
        }
        _ => match Problem::from(error) {
            Problem::Network(text) => Problem::Tls(text),
            other => other,
        },
    }
}

impl Hello {
    /// `keys` are the keys of the configuration that hold the login.
    pub(super) fn read(answer: BytesFrame, keys: &'static str) -> Result<Self, Problem> {
        if let Some(error) = error_text(&answer) {
            return Err(greeting_problem(&error, keys));
        }
        let mut hello = Self::default();
        for (key, value) in pairs(answer) {
            let (Some(key), Some(value)) = (text(&key), text(&value)) else {
                continue;
            };
            match key.as_ref() {
                "server" => hello.server = value,
                "version" => hello.version = value,
                "mode" => hello.mode = value,
                "role" => hello.role = value,
                _ => {}
            }
        }
        match hello.version.is_empty() {
            true => Err(Problem::Answer("HELLO names no version".into())),
            false => Ok(hello),
        }
    }

    /// Whether this is what `broker.url` says. Which role a server has changes, and is judged by who asks.
    pub(super) fn check(&self, role: Role, cluster: bool) -> Result<(), Problem> {
        let major = self.version.split('.').next().and_then(|major| major.parse::<u32>().ok());
        // Valkey began with 7.2.
        if major.is_some_and(|major| major < 7) {
            return Err(Problem::TooOld(self.version.clone()));
        }
        match (role, self.mode.as_str()) {
            (Role::Sentinel, "sentinel") => Ok(()),
            (Role::Sentinel, _) => Err(Problem::NotSentinel),
            (Role::Primary, "sentinel") => Err(Problem::IsSentinel),
            (Role::Primary, "cluster") if !cluster => Err(Problem::IsCluster),
            (Role::Primary, "standalone") if cluster => Err(Problem::NotCluster),
            (Role::Primary, _) => Ok(()),
        }
    }

    /// Whether it takes writes.
    #[must_use]
    pub fn is_primary(&self) -> bool {
        self.role == "master"
    }
}

/// What an error reply to HELLO says.
fn greeting_problem(error: &str, keys: &'static str) -> Problem {
    match error.split(' ').next().unwrap_or_default() {
        "WRONGPASS" => Problem::WrongLogin(keys),
        "NOAUTH" => Problem::NeedsLogin(keys),
        "NOPERM" => Problem::Denied(error.to_owned()),
        "LOADING" => Problem::Loading,
        // HELLO came with Redis 6.
        _ if error.to_ascii_lowercase().starts_with("err unknown command") => {
            Problem::TooOld("5 or older".into())
        }
        _ if error.starts_with("ERR Client sent AUTH, but no password is set") => Problem::WrongLogin(keys),
        _ => Problem::Answer(error.to_owned()),
    }
}

/// What an error reply to SELECT says.
pub(super) fn database_problem(database: u32, error: String) -> Problem {
    match error.starts_with("NOPERM") {
        true => Problem::Denied(error),
        false => Problem::Answer(format!("database {database}: {error}")),
    }
}

/// Appends a command.
pub(super) fn encode(output: &mut BytesMut, command: &[&[u8]]) {
    head(output, '*', command.len());
    for part in command {
        bulk(output, part);
    }
}

/// Appends a command with arguments as fred takes them: strings, bytes and integers.
pub(super) fn encode_values(output: &mut BytesMut, command: &str, args: &[Value]) {
    head(output, '*', args.len() + 1);
    bulk(output, command.as_bytes());
    for arg in args {
        match arg {
            Value::Integer(n) => bulk(output, n.to_string().as_bytes()),
            other => bulk(output, other.as_bytes().unwrap_or_default()),
        }
    }
}

fn head(output: &mut BytesMut, kind: char, length: usize) {
    // Memory has no errors.
    let _ = write!(output, "{kind}{length}\r\n");
}

fn bulk(output: &mut BytesMut, bytes: &[u8]) {
    head(output, '$', bytes.len());
    output.extend_from_slice(bytes);
    output.extend_from_slice(b"\r\n");
}

/// Takes the next whole frame from `input`. Attributes before a frame are dropped with it.
pub(super) fn decode(input: &mut BytesMut) -> io::Result<Option<BytesFrame>> {
    if input.is_empty() {
        return Ok(None);
    }
    match decode_bytes_mut(input) {
        Ok(Some((frame, _, _))) => Ok(Some(frame)),
        Ok(None) => Ok(None),
        Err(error) => Err(io::Error::new(io::ErrorKind::InvalidData, error.to_string())),
    }
}

/// The text of an error reply.
pub(super) fn error_text(frame: &BytesFrame) -> Option<String> {
    match frame {
        BytesFrame::SimpleError { data, .. } => Some(data.to_string()),
        BytesFrame::BlobError { data, .. } => Some(String::from_utf8_lossy(data).into_owned()),
        _ => None,
    }
}

/// The bytes of any string.
pub(super) fn bytes(frame: &BytesFrame) -> Option<&Bytes> {
    match frame {
        BytesFrame::BlobString { data, .. }
        | BytesFrame::SimpleString { data, .. }
        | BytesFrame::VerbatimString { data, .. } => Some(data),
        _ => None,
    }
}

/// A map, which RESP2 writes as a list.
pub(super) fn pairs(frame: BytesFrame) -> Vec<(BytesFrame, BytesFrame)> {
    match frame {
        BytesFrame::Map { data, .. } => data.into_iter().collect(),
        BytesFrame::Array { data, .. } => {
            let mut data = data.into_iter();
            std::iter::from_fn(|| data.next().zip(data.next())).collect()
        }
        _ => Vec::new(),
    }
}

/// Any string as text.
pub(super) fn text(frame: &BytesFrame) -> Option<String> {
    bytes(frame).map(|bytes| String::from_utf8_lossy(bytes.chunk()).into_owned())
}

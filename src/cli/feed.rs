//! One connection to a gateway, whichever the transport: what comes from it are objects, cursors and waits.

mod object;

use std::{collections::VecDeque, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use futures_util::StreamExt as _;
use http::{Method, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use hyper::{body::Incoming, client::conn::http1::SendRequest, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::timeout;
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{
        Message,
        handshake::{client::generate_key, derive_accept_key},
        protocol::{CloseFrame, Role},
    },
};

pub(super) use self::object::Object;
use super::client::{Client, Refusal, send};
use crate::{
    disconnect::{Disconnect, Return},
    transport_name::Transport,
};

/// The server beats every 25 s; a stream that says nothing for so long is dead.
const SILENCE: Duration = Duration::from_secs(90);

/// How long a poll is held when the client does not say.
const HELD: Duration = Duration::from_secs(25);

/// Something that came.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Heard {
    /// An object of the server's.
    Object(String),
    /// Where all channels stand.
    Cursor(String),
    /// How long to wait before coming back, once the stream has ended.
    Retry(Duration),
}

/// Why a connection is over.
#[derive(Debug)]
pub(super) enum End {
    /// Come back, after so long where the gateway said.
    Lost(String, Option<Duration>),
    /// The token is missing or does not hold: another one may.
    Unauthorized(String, Option<Duration>),
    /// It would be refused again.
    Refused(String),
    /// Nobody reads what is printed.
    Unread,
}

impl<E: Into<anyhow::Error>> From<E> for End {
    fn from(error: E) -> Self {
        Self::Lost(format!("{:#}", error.into()), None)
    }
}

/// A connection.
pub(super) struct Feed {
    source: Source,
    waiting: VecDeque<Heard>,
}

enum Source {
    WebSocket(Box<WebSocketStream<TokioIo<Upgraded>>>),
    Sse(Lines, Event),
    Ndjson(Lines),
    Poll(SendRequest<Full<Bytes>>),
}

/// The answer to a poll.
#[derive(Deserialize)]
struct Polled<'a> {
    #[serde(borrow)]
    messages: Vec<&'a RawValue>,
    #[serde(borrow)]
    gaps: Vec<&'a RawValue>,
    cursor: String,
}

/// A body by lines.
struct Lines {
    body: Incoming,
    rest: Vec<u8>,
    /// Bytes of `rest` that are known to hold no line feed.
    searched: usize,
}

/// An SSE event that is still being said.
#[derive(Default)]
struct Event {
    data: Option<String>,
    id: Option<String>,
}

impl Feed {
    /// Connects and sends the request. For a poll, [`Feed::poll`] asks again.
    pub(super) async fn open(client: &Client, transport: Transport, query: &str) -> Result<Self, End> {
        let mut sender = client.connect().await?;
        let source = match transport {
            Transport::WebSocket => Source::WebSocket(Box::new(upgrade(&mut sender, client, query).await?)),
            Transport::Sse => Source::Sse(lines(&mut sender, client, query).await?, Event::default()),
            Transport::Ndjson => Source::Ndjson(lines(&mut sender, client, query).await?),
            Transport::Poll => Source::Poll(sender),
        };
        let waiting = VecDeque::new();
        Ok(Self { source, waiting })
    }

    /// What comes next; `None` at the end of the stream, or when the poll's answer is used up.
    pub(super) async fn next(&mut self) -> Result<Option<Heard>, End> {
        loop {
            if let Some(heard) = self.waiting.pop_front() {
                return Ok(Some(heard));
            }
            match &mut self.source {
                Source::Poll(_) => return Ok(None),
                Source::WebSocket(socket) => match within(socket.next()).await? {
                    Some(Ok(Message::Text(text))) => return Ok(Some(Heard::Object(text.as_str().into()))),
                    Some(Ok(Message::Close(frame))) => return Err(closed(frame)),
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return Err(error.into()),
                    None => return Ok(None),
                },
                Source::Ndjson(lines) => return Ok(within(lines.next()).await??.map(Heard::Object)),
                Source::Sse(lines, event) => match within(lines.next()).await?? {
                    Some(line) => event.line(&line, &mut self.waiting),
                    None => return Ok(None),
                },
            }
        }
    }

    /// Asks once more.
    pub(super) async fn poll(&mut self, client: &Client, query: &str) -> Result<(), End> {
        let Source::Poll(sender) = &mut self.source else {
            return Ok(());
        };
        // A gateway that shuts down closes the connection after its answer.
        if sender.ready().await.is_err() {
            *sender = client.connect().await?;
        }
        let request = client.request(query)?.body(Full::default())?;
        let response = send(sender, request, HELD).await?;
        if response.status() != StatusCode::OK {
            return Err(refused(response).await);
        }
        let body = within(response.into_body().collect()).await??.to_bytes();
        let answer: Polled<'_> = serde_json::from_slice(&body)?;
        let objects = answer.gaps.iter().chain(&answer.messages);
        self.waiting.extend(objects.map(|object| Heard::Object(object.get().to_owned())));
        self.waiting.push_back(Heard::Cursor(answer.cursor));
        Ok(())
    }
}

async fn within<T>(future: impl Future<Output = T>) -> Result<T, End> {
    let heard = timeout(SILENCE, future).await;
    heard.map_err(|_| End::Lost("nothing came for too long".into(), None))
}

/// What a status other than the hoped for means.
async fn refused(response: http::Response<Incoming>) -> End {
    let refusal = Refusal::read(response).await;
    if refusal.may_pass() {
        End::Lost(refusal.sentence, refusal.retry_after)
    } else if refusal.status == 401 {
        End::Unauthorized(refusal.sentence, None)
    } else {
        End::Refused(refusal.sentence)
    }
}

/// What a close frame means; where a goodbye came before it, nobody asks.
fn closed(frame: Option<CloseFrame>) -> End {
    let Some(frame) = frame else {
        return End::Lost("the gateway closed the connection".into(), None);
    };
    let code = u16::from(frame.code);
    let why = format!("the gateway closed the connection ({code} {})", frame.reason);
    if code == Disconnect::Unauthorized.close_code() {
        return End::Unauthorized(why, None);
    }
    let known = Disconnect::ALL.iter().find(|disconnect| disconnect.close_code() == code);
    match known.map(|disconnect| disconnect.comes_back()) {
        Some(Return::Never) => End::Refused(why),
        Some(Return::Jittered) | None => End::Lost(why, None),
    }
}

async fn lines(sender: &mut SendRequest<Full<Bytes>>, client: &Client, query: &str) -> Result<Lines, End> {
    let request = client.request(query)?.body(Full::default())?;
    let response = send(sender, request, Duration::ZERO).await?;
    if response.status() != StatusCode::OK {
        return Err(refused(response).await);
    }
    Ok(Lines { body: response.into_body(), rest: Vec::new(), searched: 0 })
}

/// The handshake of RFC 6455 section 4.1, through hyper, so that a refusal can be read.
async fn upgrade(
    sender: &mut SendRequest<Full<Bytes>>,
    client: &Client,
    query: &str,
) -> Result<WebSocketStream<TokioIo<Upgraded>>, End> {
    let key = generate_key();
    let request = client
        .request(query)?
        .method(Method::GET)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_VERSION, "13")
        .header(header::SEC_WEBSOCKET_KEY, &key)
        .body(Full::default())?;
    let response = send(sender, request, Duration::ZERO).await?;
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        return Err(refused(response).await);
    }
    let accept = response.headers().get(header::SEC_WEBSOCKET_ACCEPT);
    if accept.is_none_or(|accept| accept != derive_accept_key(key.as_bytes()).as_str()) {
        return Err(End::Lost("the answer to the WebSocket handshake is not ours".into(), None));
    }
    let upgraded = hyper::upgrade::on(response).await.context("the upgrade failed")?;
    Ok(WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Client, None).await)
}

impl Lines {
    /// The next line without its end; `None` at the end of the body.
    async fn next(&mut self) -> anyhow::Result<Option<String>> {
        loop {
            if let Some(found) = memchr::memchr(b'\n', &self.rest[self.searched..]) {
                let mut line: Vec<u8> = self.rest.drain(..=self.searched + found).collect();
                self.searched = 0;
                line.truncate(line.trim_ascii_end().len());
                return Ok(Some(String::from_utf8(line)?));
            }
            self.searched = self.rest.len();
            let Some(frame) = self.body.frame().await else {
                return Ok(None);
            };
            if let Some(data) = frame?.data_ref() {
                self.rest.extend_from_slice(data);
            }
        }
    }
}

impl Event {
    /// Takes a line; a blank one ends the event. An `id` counts without data too: a heartbeat brings one.
    fn line(&mut self, line: &str, heard: &mut VecDeque<Heard>) {
        if line.is_empty() {
            let event = std::mem::take(self);
            heard.extend(event.data.map(Heard::Object));
            heard.extend(event.id.map(Heard::Cursor));
            return;
        }
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "data" => match &mut self.data {
                Some(data) => {
                    data.push('\n');
                    data.push_str(value);
                }
                None => self.data = Some(value.to_owned()),
            },
            "id" => self.id = Some(value.to_owned()),
            "retry" => {
                let wait = value.parse().map(Duration::from_millis);
                heard.extend(wait.ok().map(Heard::Retry));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn events_give_their_object_and_cursor_and_heartbeats_a_fresh_cursor() {
        let text = "retry: 1700\n\nevent: tidegate.subscribed\ndata: {\"a\":1}\nid: x-1\n\n: beat\nid: 0-9\n\ndata:2\ndata: 3\n\n";
        let mut event = Event::default();
        let mut heard = VecDeque::new();
        text.lines().for_each(|line| event.line(line, &mut heard));
        let expected = [
            Heard::Retry(Duration::from_millis(1700)),
            Heard::Object("{\"a\":1}".into()),
            Heard::Cursor("x-1".into()),
            Heard::Cursor("0-9".into()),
            Heard::Object("2\n3".into()),
        ];
        assert_eq!(heard, expected);
    }

    #[test]
    fn a_close_code_of_the_table_says_whether_to_come_back() {
        let end = |code: u16| closed(Some(CloseFrame { code: code.into(), reason: "".into() }));
        assert!(matches!(end(4500), End::Lost(..)));
        assert!(matches!(end(1009), End::Refused(_)));
        assert!(matches!(end(4403), End::Refused(_)));
        assert!(matches!(end(4401), End::Unauthorized(..)));
        assert!(matches!(end(1011), End::Lost(..)));
        assert!(matches!(closed(None), End::Lost(..)));
    }
}

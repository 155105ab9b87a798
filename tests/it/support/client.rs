//! One client over the four transports.
//!
//! It keeps the positions of its channels from what it sees, so that it can go on over another
//! transport, and holds each message against them: a hole or a repetition fails the test at once,
//! whatever the test is about. Nothing is read but in `next`: who does not ask is a slow reader.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::Duration;

use futures_util::{SinkExt, StreamExt};
use serde_json::value::RawValue;
use tokio::net::TcpStream;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Message as Frame, Utf8Bytes};

use super::gateway::TestGateway;
use super::objects::{Message, Object, split_position};
use super::raw::{Answer, Body, Conn, Head};
use super::sse_parser::{SseItem, SseParser};
use super::{PATIENCE, openapi, within};

/// The four ways to receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Transport {
    Websocket,
    Sse,
    Ndjson,
    Poll,
}

impl Transport {
    pub const ALL: [Self; 4] = [Self::Websocket, Self::Sse, Self::Ndjson, Self::Poll];
    pub const STREAMS: [Self; 3] = [Self::Websocket, Self::Sse, Self::Ndjson];

    /// The name on the wire and in the metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Websocket => "websocket",
            Self::Sse => "sse",
            Self::Ndjson => "ndjson",
            Self::Poll => "poll",
        }
    }

    /// What a client of this transport sends as `Accept`.
    pub fn accept(self) -> &'static str {
        match self {
            Self::Websocket | Self::Poll => "*/*",
            Self::Sse => "text/event-stream",
            Self::Ndjson => "application/x-ndjson",
        }
    }
}

/// What a client sees.
#[derive(Debug, Clone)]
pub enum Event {
    Subscribed {
        channel: String,
        position: String,
        recovery: String,
    },
    Message(Message),
    Gap {
        channel: String,
        reason: String,
        from: String,
        to: String,
    },
    Goodbye {
        code: String,
        reconnect_after_ms: Option<u64>,
    },
    /// A heartbeat: NDJSON's object, SSE's comment, a WebSocket ping.
    Heartbeat,
    /// `retry:` of an event stream.
    Retry(u64),
    /// Any other object.
    Object(Object),
    End(End),
}

/// How a connection ended. What no test compares is there to be shown when one fails.
#[derive(Debug, Clone)]
#[allow(dead_code)]
pub enum End {
    /// A WebSocket's close frame.
    Close(u16, String),
    /// The proper end of a body.
    Body,
    /// Cut off.
    Broken(String),
    /// A poll that was refused.
    Refused(Box<Answer>),
}

enum Inner {
    Websocket(Box<WebSocketStream<TcpStream>>),
    Sse { conn: Conn, body: Body, parser: SseParser },
    Ndjson { conn: Conn, body: Body, line: Vec<u8> },
    Poll { conn: Option<Conn>, cursor: String },
    Over,
}

/// How to connect, beyond the query.
#[derive(Debug, Clone, Default)]
pub struct Options<'a> {
    pub headers: Vec<(&'a str, &'a str)>,
    /// A small receive buffer, for readers that stop reading.
    pub narrow: bool,
    /// Messages may be left out (the policy `latest`).
    pub conflated: bool,
}

/// A connected client.
pub struct Client {
    pub transport: Transport,
    /// The `subscribed` of the URL's channels; none with a poll.
    pub subscribed: Vec<(String, String, String)>,
    /// What `Tidegate-Connection` named.
    pub connection: String,
    /// The head of the answer; with a poll that of the last one.
    pub head: Head,
    address: SocketAddr,
    channels: Vec<String>,
    positions: HashMap<String, String>,
    inner: Inner,
    queue: VecDeque<Event>,
    conflated: bool,
    /// Other query parameters, repeated by each poll.
    rest: String,
}

impl Client {
    /// Connects with this query, `channel=a&since=earliest`, and reads all `subscribed`, which must
    /// come first and in order. A poll asks once without waiting, so that it knows where it is.
    pub async fn connect(gateway: &TestGateway, transport: Transport, query: &str) -> Self {
        Self::connect_with(gateway.public, transport, query, Options::default()).await
    }

    /// The same, with options.
    pub async fn connect_with(
        address: SocketAddr,
        transport: Transport,
        query: &str,
        options: Options<'_>,
    ) -> Self {
        let mut client = match Self::open(address, transport, query, options).await {
            Ok(client) => client,
            Err(answer) => panic!("{} {query} is refused: {answer:?}", transport.name()),
        };
        if transport != Transport::Poll {
            client.read_subscribed().await;
        }
        client
    }

    /// Connects, or gives the refusal; reads nothing beyond the head.
    pub async fn open(
        address: SocketAddr,
        transport: Transport,
        query: &str,
        options: Options<'_>,
    ) -> Result<Self, Answer> {
        let conn = if options.narrow { Conn::open_narrow(address).await } else { Conn::open(address).await };
        let (channels, since, rest) = split_query(query);
        let mut client = Self {
            transport,
            subscribed: Vec::new(),
            connection: String::new(),
            head: Head { status: 0, headers: Vec::new() },
            address,
            channels,
            positions: HashMap::new(),
            inner: Inner::Over,
            queue: VecDeque::new(),
            conflated: options.conflated,
            rest,
        };
        match transport {
            Transport::Websocket => client.open_websocket(conn, query, &options).await?,
            Transport::Sse | Transport::Ndjson => client.open_stream(conn, query, &options).await?,
            Transport::Poll => client.open_poll(conn, since, &options).await?,
        }
        client.connection =
            client.head.header("tidegate-connection").expect("Tidegate-Connection is there").to_owned();
        assert!(!client.connection.is_empty());
        Ok(client)
    }

    async fn open_websocket(&mut self, conn: Conn, query: &str, options: &Options<'_>) -> Result<(), Answer> {
        let (conn, head) = conn.upgrade(&format!("/v1/subscribe?{query}"), &options.headers).await?;
        let (stream, rest) = conn.into_parts();
        let socket = WebSocketStream::from_partially_read(stream, rest, Role::Client, None).await;
        self.head = head;
        self.inner = Inner::Websocket(Box::new(socket));
        Ok(())
    }

    async fn open_stream(
        &mut self,
        mut conn: Conn,
        query: &str,
        options: &Options<'_>,
    ) -> Result<(), Answer> {
        let target = format!("/v1/subscribe?{query}");
        let mut headers = vec![("Accept", self.transport.accept())];
        headers.extend(&options.headers);
        let bytes = conn.encode("GET", &target, &headers, None);
        conn.send(bytes).await;
        let head = conn.head().await;
        let mut body = Body::after("GET", &head);
        if head.status != 200 {
            let body = conn.body("GET", &head).await;
            let answer = Answer { head, body };
            openapi::saw("GET", &target, &answer);
            return Err(answer);
        }
        let media = head.header("content-type").unwrap_or_default();
        assert_eq!(media, self.transport.accept(), "{head:?}");
        openapi::saw("GET", &target, &Answer { head: head.clone(), body: Vec::new() });
        self.head = head;
        if self.transport == Transport::Ndjson {
            self.inner = Inner::Ndjson { conn, body, line: Vec::new() };
            return Ok(());
        }
        // A refusal that an EventSource can bear is a 200 too: `retry:` and the end, no event.
        let (mut parser, mut bytes) = (SseParser::default(), Vec::new());
        loop {
            let Some(piece) = within(PATIENCE, "an event", body.next(&mut conn)).await.expect("reads") else {
                return Err(Answer { head: self.head.clone(), body: bytes });
            };
            let items = parser.push(&piece);
            bytes.extend(piece);
            let begun = items.iter().any(|item| matches!(item, SseItem::Event { .. }));
            self.take_items(items);
            if begun {
                self.inner = Inner::Sse { conn, body, parser };
                return Ok(());
            }
        }
    }

    async fn open_poll(
        &mut self,
        mut conn: Conn,
        since: Option<String>,
        options: &Options<'_>,
    ) -> Result<(), Answer> {
        let target =
            self.poll_target(since.as_deref(), if self.rest.contains("wait=") { None } else { Some(0) });
        let answer = conn.request("GET", &target, &options.headers, None).await;
        if answer.status() != 200 {
            return Err(answer);
        }
        self.inner = Inner::Poll { conn: (!answer.head.closes()).then_some(conn), cursor: String::new() };
        self.take_document(answer);
        Ok(())
    }

    fn poll_target(&self, since: Option<&str>, wait: Option<u32>) -> String {
        let mut target = "/v1/subscribe?transport=poll".to_owned();
        for channel in &self.channels {
            target += &format!("&channel={channel}");
        }
        if let Some(since) = since {
            target += &format!("&since={since}");
        }
        if let Some(wait) = wait {
            target += &format!("&wait={wait}");
        }
        target + &self.rest
    }

    async fn read_subscribed(&mut self) {
        for channel in self.channels.clone() {
            match self.next().await {
                Event::Subscribed { channel: named, position, recovery } => {
                    assert_eq!(named, channel, "`subscribed` in the order of the parameters");
                    self.subscribed.push((named, position, recovery));
                }
                other => panic!("{}: wanted subscribed for {channel}, got {other:?}", self.transport.name()),
            }
        }
    }

    /// What comes next, but for heartbeats and `retry:`.
    pub async fn next(&mut self) -> Event {
        loop {
            match self.next_any().await {
                Event::Heartbeat | Event::Retry(_) => {}
                event => return event,
            }
        }
    }

    /// What comes next. A poll holds on, again and again.
    pub async fn next_any(&mut self) -> Event {
        let what = format!("something over {} for {:?}", self.transport.name(), self.channels);
        within(PATIENCE, &what, self.next_patiently()).await
    }

    /// The same without a limit of time; may be cancelled without loss.
    pub async fn next_patiently(&mut self) -> Event {
        loop {
            if let Some(event) = self.queue.pop_front() {
                self.watch(&event);
                return event;
            }
            self.read().await;
        }
    }

    /// The next message; anything else but a heartbeat is a failure.
    pub async fn message(&mut self) -> Message {
        match self.next().await {
            Event::Message(message) => message,
            other => panic!("{}: wanted a message, got {other:?}", self.transport.name()),
        }
    }

    /// The next messages.
    pub async fn messages(&mut self, count: usize) -> Vec<Message> {
        let mut messages = Vec::with_capacity(count);
        while messages.len() < count {
            messages.push(self.message().await);
        }
        messages
    }

    /// The next messages, as the numbers that they hold.
    pub async fn numbers(&mut self, count: usize) -> Vec<u64> {
        self.messages(count).await.iter().map(Message::number).collect()
    }

    /// The next event must be a gap: its reason, `from` and `to`.
    pub async fn gap(&mut self) -> (String, String, String) {
        match self.next().await {
            Event::Gap { reason, from, to, .. } => (reason, from, to),
            other => panic!("{}: wanted a gap, got {other:?}", self.transport.name()),
        }
    }

    /// Reads on to the end; gives the goodbye, where one was said, and the end.
    pub async fn end(&mut self) -> (Option<(String, Option<u64>)>, End) {
        let mut goodbye = None;
        loop {
            match self.next().await {
                Event::Goodbye { code, reconnect_after_ms } => goodbye = Some((code, reconnect_after_ms)),
                Event::End(end) => return (goodbye, end),
                _ => {}
            }
        }
    }

    /// Where this client is, in the order of its channels; what any transport takes as `since`.
    pub fn cursor(&self) -> String {
        let position = |channel| {
            self.positions.get(channel).unwrap_or_else(|| panic!("no position of {channel}")).as_str()
        };
        self.channels.iter().map(position).collect::<Vec<_>>().join(",")
    }

    /// Breaks off and goes on over another transport.
    pub async fn resume_on(self, transport: Transport) -> Self {
        let address = self.address;
        self.resume_at(address, transport).await
    }

    /// Breaks off and goes on at another gateway.
    pub async fn resume_at(self, address: SocketAddr, transport: Transport) -> Self {
        let channels: String = self.channels.iter().map(|channel| format!("channel={channel}&")).collect();
        let query = format!("{channels}since={}", self.cursor());
        let positions = self.positions.clone();
        drop(self);
        let mut next = Self::connect_with(address, transport, &query, Options::default()).await;
        for (channel, position) in positions {
            next.positions.entry(channel).or_insert(position);
        }
        next
    }

    /// Sends a text frame (WebSocket only).
    pub async fn send(&mut self, text: impl Into<Utf8Bytes>) {
        self.send_frame(Frame::Text(text.into())).await;
    }

    /// Sends a frame (WebSocket only).
    pub async fn send_frame(&mut self, frame: Frame) {
        match &mut self.inner {
            Inner::Websocket(socket) => within(PATIENCE, "send", socket.send(frame)).await.expect("sends"),
            _ => panic!("only a WebSocket sends"),
        }
    }

    /// Closes politely (WebSocket only); gives the echo.
    pub async fn close(&mut self, code: u16) -> End {
        match &mut self.inner {
            Inner::Websocket(socket) => {
                let frame = CloseFrame { code: code.into(), reason: Utf8Bytes::default() };
                within(PATIENCE, "close", WebSocketStream::close(socket, Some(frame))).await.expect("closes");
            }
            _ => panic!("only a WebSocket closes"),
        }
        self.end().await.1
    }

    /// The next object that is no message (WebSocket commands).
    pub async fn object(&mut self) -> Object {
        match self.next().await {
            Event::Object(object) => object,
            other => panic!("wanted an object, got {other:?}"),
        }
    }

    async fn read(&mut self) {
        let mut inner = std::mem::replace(&mut self.inner, Inner::Over);
        // Each arm puts `inner` back before it awaits anything that may be cancelled, by reading
        // through a guard that does so when it is dropped.
        let mut guard =
            PutBack { slot: &mut self.inner, inner: Some(std::mem::replace(&mut inner, Inner::Over)) };
        let events = match guard.inner.as_mut().expect("just put there") {
            Inner::Websocket(socket) => Read::Events(read_websocket(socket).await),
            Inner::Sse { conn, body, parser } => read_sse(conn, body, parser).await,
            Inner::Ndjson { conn, body, line } => Read::Events(read_ndjson(conn, body, line).await),
            Inner::Poll { .. } => Read::Poll,
            Inner::Over => panic!("read beyond the end"),
        };
        drop(guard);
        match events {
            Read::Events(events) => self.queue.extend(events),
            Read::Sse(items) => self.take_items(items),
            Read::Poll => self.poll().await,
        }
        if let Some(Event::End(_)) = self.queue.back() {
            self.inner = Inner::Over;
        }
    }

    async fn poll(&mut self) {
        let target = match &self.inner {
            Inner::Poll { cursor, .. } => self.poll_target(Some(cursor), None),
            _ => unreachable!("only polls poll"),
        };
        let Inner::Poll { conn, .. } = &mut self.inner else { unreachable!("only polls poll") };
        let mut conn = match conn.take() {
            Some(conn) => conn,
            None => Conn::open(self.address).await,
        };
        let bytes = conn.encode("GET", &target, &[], None);
        conn.send(bytes).await;
        let head = match tokio::time::timeout(Duration::from_secs(60), conn.try_head())
            .await
            .expect("a poll's answer")
        {
            Ok(Some(head)) => head,
            Ok(None) => return self.queue.push_back(Event::End(End::Broken("no answer to a poll".into()))),
            Err(error) => return self.queue.push_back(Event::End(End::Broken(error.to_string()))),
        };
        let body = conn.body("GET", &head).await;
        let answer = Answer { head, body };
        openapi::saw("GET", &target, &answer);
        if answer.status() != 200 {
            self.queue.push_back(Event::End(End::Refused(Box::new(answer))));
            return;
        }
        if let Inner::Poll { conn: slot, .. } = &mut self.inner
            && !answer.head.closes()
        {
            *slot = Some(conn);
        }
        self.take_document(answer);
    }

    fn take_document(&mut self, answer: Answer) {
        let document = Document::parse(answer.text());
        for gap in &document.gaps {
            self.queue.push_back(event_of(Object::parse(gap)));
        }
        for message in &document.messages {
            self.queue.push_back(Event::Message(Message::of(&Object::parse(message))));
        }
        // What the queue will have said by its end is what the cursor must say.
        let mut positions = self.positions.clone();
        for event in &self.queue {
            match event {
                Event::Message(message) => positions.insert(message.channel.clone(), message.id.clone()),
                Event::Gap { channel, to, .. } => positions.insert(channel.clone(), to.clone()),
                _ => None,
            };
        }
        check_cursor(&document.cursor, &self.channels, &positions, self.conflated);
        let entries = document.cursor.split(',').map(str::to_owned);
        let fresh: HashMap<String, String> = self.channels.iter().cloned().zip(entries).collect();
        if self.queue.is_empty() {
            self.positions = fresh;
        } else if self.positions.is_empty() {
            for (channel, position) in fresh {
                let told = self.queue.iter().any(|event| match event {
                    Event::Message(message) => message.channel == channel,
                    Event::Gap { channel: named, .. } => *named == channel,
                    _ => false,
                });
                if !told {
                    self.positions.insert(channel, position);
                }
            }
        }
        if let Inner::Poll { cursor, .. } = &mut self.inner {
            *cursor = document.cursor;
        }
        self.head = answer.head;
    }

    fn take_items(&mut self, items: Vec<SseItem>) {
        for item in items {
            match item {
                SseItem::Comment(_) => self.queue.push_back(Event::Heartbeat),
                SseItem::Retry(delay) => self.queue.push_back(Event::Retry(delay)),
                SseItem::Id(_) => {}
                SseItem::Event { name, data, id } => self.take_sse(&name, &data, id),
            }
        }
    }

    fn take_sse(&mut self, name: &str, data: &str, id: Option<String>) {
        let object = Object::parse(data);
        if object.kind == "message" {
            let message = Message::of(&object);
            assert_eq!(name, message.event.as_deref().unwrap_or("message"), "the name of the event");
            assert!(id.is_some(), "a message without an id: {data}");
            self.queue.push_back(Event::Message(message));
        } else {
            assert_eq!(name, format!("tidegate.{}", object.kind), "the name of the event");
            assert!(object.kind != "gap" || id.is_some(), "a gap without an id: {data}");
            self.queue.push_back(event_of(object));
        }
        let Some(id) = id else { return };
        let mut positions = self.positions.clone();
        for event in &self.queue {
            let (channel, position) = match event {
                Event::Subscribed { channel, position, .. } => (channel, position),
                Event::Message(message) => (&message.channel, &message.id),
                Event::Gap { channel, to, .. } => (channel, to),
                _ => continue,
            };
            positions.insert(channel.clone(), position.clone());
        }
        check_cursor(&id, &self.channels, &positions, self.conflated);
    }

    /// Keeps the positions, and holds each message against them.
    fn watch(&mut self, event: &Event) {
        match event {
            Event::Subscribed { channel, position, .. } => {
                split_position(position);
                self.positions.insert(channel.clone(), position.clone());
                if !self.channels.contains(channel) {
                    self.channels.push(channel.clone());
                }
            }
            Event::Gap { channel, from, to, reason } => {
                split_position(from);
                split_position(to);
                assert_ne!(from, to, "a gap of nothing ({reason})");
                self.positions.insert(channel.clone(), to.clone());
            }
            Event::Message(message) => {
                let (epoch, offset) = split_position(&message.id);
                assert!(offset >= 1, "{}", message.text);
                if let Some(before) = self.positions.get(&message.channel) {
                    let (known, last) = split_position(before);
                    let follows =
                        if known == "0" { offset == 1 } else { known == epoch && offset == last + 1 };
                    let newer = known == "0" || (known == epoch && offset > last);
                    let right = if self.conflated { newer } else { follows };
                    assert!(right, "{}: {} came after {before}", self.transport.name(), message.id);
                }
                self.positions.insert(message.channel.clone(), message.id.clone());
            }
            Event::Object(object) if object.kind == "subscribed" => {
                self.positions.insert(object.string("channel"), object.string("position"));
            }
            Event::Object(object) if object.kind == "unsubscribed" => {
                self.positions.remove(&object.string("channel"));
            }
            _ => {}
        }
    }
}

/// Holds a cursor of the server's against what the client saw; `0-` entries may be fresher.
fn check_cursor(cursor: &str, channels: &[String], seen: &HashMap<String, String>, conflated: bool) {
    let entries: Vec<&str> = cursor.split(',').collect();
    assert_eq!(entries.len(), channels.len(), "an entry for each channel: {cursor:?} of {channels:?}");
    for (entry, channel) in entries.iter().zip(channels) {
        let (epoch, offset) = split_position(entry);
        // Conflated, a channel may be ahead by what was left out.
        if let Some(seen) = seen.get(channel)
            && conflated
        {
            assert!(
                offset >= split_position(seen).1,
                "the entry of {channel} in {cursor:?} is behind {seen}"
            );
            continue;
        }
        if let Some(seen) = seen.get(channel)
            && (epoch != "0" || !seen.starts_with("0-"))
        {
            assert_eq!(entry, seen, "the entry of {channel} in {cursor:?}");
        }
    }
}

/// A poll's document, its objects as their exact text.
#[derive(Debug)]
pub struct Document {
    pub messages: Vec<String>,
    pub gaps: Vec<String>,
    pub cursor: String,
    /// Only in a history.
    pub more: Option<bool>,
}

impl Document {
    pub fn parse(text: &str) -> Self {
        let fields = super::objects::Fields::parse(text);
        let names = fields.names();
        assert!(
            names == ["messages", "gaps", "cursor"] || names == ["messages", "gaps", "cursor", "more"],
            "the document's fields: {names:?}"
        );
        let list = |name| -> Vec<String> {
            let items: Vec<Box<RawValue>> =
                serde_json::from_str(fields.text(name).expect("a list")).expect("a list");
            items.iter().map(|item| item.get().to_owned()).collect()
        };
        Self {
            messages: list("messages"),
            gaps: list("gaps"),
            cursor: fields.string("cursor"),
            more: fields.text("more").map(|text| text == "true"),
        }
    }

    pub fn of(answer: &Answer) -> Self {
        assert_eq!(answer.status(), 200, "{}", answer.text());
        Self::parse(answer.text())
    }

    pub fn numbers(&self) -> Vec<u64> {
        self.messages.iter().map(|text| Message::of(&Object::parse(text)).number()).collect()
    }
}

enum Read {
    Events(Vec<Event>),
    Sse(Vec<SseItem>),
    Poll,
}

/// Puts the connection back into the client, also where the reading is cancelled.
struct PutBack<'a> {
    slot: &'a mut Inner,
    inner: Option<Inner>,
}

impl Drop for PutBack<'_> {
    fn drop(&mut self) {
        if let Some(inner) = self.inner.take() {
            *self.slot = inner;
        }
    }
}

async fn read_websocket(socket: &mut WebSocketStream<TcpStream>) -> Vec<Event> {
    let event = match socket.next().await {
        Some(Ok(Frame::Text(text))) => event_of(Object::parse(&text)),
        Some(Ok(Frame::Ping(_))) => Event::Heartbeat,
        Some(Ok(Frame::Close(Some(frame)))) => {
            // Lets the library send its half of the close.
            let _ = tokio::time::timeout(Duration::from_secs(1), socket.next()).await;
            Event::End(End::Close(frame.code.into(), frame.reason.to_string()))
        }
        Some(Ok(other)) => panic!("a frame that nobody asked for: {other:?}"),
        Some(Err(error)) => Event::End(End::Broken(error.to_string())),
        None => Event::End(End::Broken("no close frame".into())),
    };
    vec![event]
}

async fn read_sse(conn: &mut Conn, body: &mut Body, parser: &mut SseParser) -> Read {
    match body.next(conn).await {
        Ok(Some(piece)) => Read::Sse(parser.push(&piece)),
        Ok(None) => Read::Events(vec![Event::End(End::Body)]),
        Err(error) => Read::Events(vec![Event::End(End::Broken(error.to_string()))]),
    }
}

async fn read_ndjson(conn: &mut Conn, body: &mut Body, line: &mut Vec<u8>) -> Vec<Event> {
    match body.next(conn).await {
        Ok(Some(piece)) => line.extend(piece),
        Ok(None) => {
            assert!(line.is_empty(), "the stream ends within a line");
            return vec![Event::End(End::Body)];
        }
        Err(error) => return vec![Event::End(End::Broken(error.to_string()))],
    }
    let mut events = Vec::new();
    while let Some(end) = line.iter().position(|byte| *byte == b'\n') {
        let text: Vec<u8> = line.drain(..=end).take(end).collect();
        events.push(event_of(Object::parse(std::str::from_utf8(&text).expect("a line is UTF-8"))));
    }
    events
}

fn event_of(object: Object) -> Event {
    let string = |name| object.string(name);
    match object.kind.as_str() {
        "message" => Event::Message(Message::of(&object)),
        "subscribed" if object.reference().is_none() => Event::Subscribed {
            channel: string("channel"),
            position: string("position"),
            recovery: string("recovery"),
        },
        "gap" => Event::Gap {
            channel: string("channel"),
            reason: string("reason"),
            from: string("from"),
            to: string("to"),
        },
        "goodbye" => Event::Goodbye {
            code: string("code"),
            reconnect_after_ms: serde_json::from_str(
                object.fields.text("reconnect_after_ms").expect("a delay or null"),
            )
            .expect("a number or null"),
        },
        "heartbeat" => Event::Heartbeat,
        _ => Event::Object(object),
    }
}

/// A query's channels, its `since`, and the rest as `&name=value…`.
fn split_query(query: &str) -> (Vec<String>, Option<String>, String) {
    let (mut channels, mut since, mut rest) = (Vec::new(), None, String::new());
    for pair in query.split('&').filter(|pair| !pair.is_empty()) {
        match pair.split_once('=') {
            Some(("channel", channel)) => channels.push(channel.to_owned()),
            Some(("since", value)) => since = Some(value.to_owned()),
            Some(("transport", _)) => {}
            _ => rest += &format!("&{pair}"),
        }
    }
    (channels, since, rest)
}

//! A subscriber that always comes back, and remembers all that it was told.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use serde_json::Value;

use super::verdict::Seen;
use super::wire::{Events, Flow, Head, Pipe, timed};

/// A connection that says nothing for so long is given up; heartbeats come every 25 s.
const SILENCE: Duration = Duration::from_secs(60);
/// How long the head of an answer may take: a gateway that stands still is left for another.
const HEAD: Duration = Duration::from_secs(5);
/// The longest delay before a reconnect, whatever the server asks for: these tests have no time.
const DELAY: Duration = Duration::from_millis(400);
/// What a poll asks for.
const WAIT: u64 = 5;

/// The four ways to receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Websocket,
    Sse,
    Ndjson,
    Poll,
}

impl Way {
    pub const ALL: [Self; 4] = [Self::Websocket, Self::Sse, Self::Ndjson, Self::Poll];
}

/// Where a client goes when it comes back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Roam {
    /// To its own gateway, and to the next only where that one fails.
    Home,
    /// To the next, each time; a poll with each request.
    Always,
}

/// Who subscribes to what, where, and from where on.
#[derive(Debug, Clone)]
pub struct Spec {
    pub name: String,
    pub way: Way,
    pub channels: Vec<String>,
    /// Public addresses; the first is home.
    pub doors: Vec<SocketAddr>,
    pub roam: Roam,
    pub since: &'static str,
}

/// What a client saw.
#[derive(Debug, Default)]
pub struct Notes {
    /// In the order in which it came, for all channels.
    pub seen: Vec<Seen>,
    pub reconnects: usize,
    /// Refusals that no coming back cures (400 and the like), and answers that make no sense.
    pub faults: Vec<String>,
    /// The highest number seen of each channel.
    pub highest: HashMap<String, u64>,
    /// How the last connections ended, for who must find out why a test failed.
    pub ends: Vec<String>,
    ready: bool,
}

/// A running client; ends when dropped.
pub struct Recording {
    pub spec: Spec,
    notes: Arc<Mutex<Notes>>,
    task: tokio::task::JoinHandle<()>,
}

impl Recording {
    pub fn start(spec: Spec) -> Self {
        let notes = Arc::new(Mutex::new(Notes::default()));
        let subscriber = Subscriber {
            door: 0,
            positions: HashMap::new(),
            cursor: None,
            poll: None,
            retry: Duration::from_millis(100),
            notes: Arc::clone(&notes),
            spec: spec.clone(),
        };
        Self { spec, notes, task: tokio::spawn(subscriber.run()) }
    }

    pub fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().expect("no panic under the lock")
    }

    /// Whether it holds a position of each of its channels: from now on it may miss nothing.
    pub fn is_ready(&self) -> bool {
        self.notes().ready
    }

    /// The highest number that it saw of a channel.
    pub fn highest(&self, channel: &str) -> u64 {
        self.notes().highest.get(channel).copied().unwrap_or(0)
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Subscriber {
    spec: Spec,
    door: usize,
    positions: HashMap<String, String>,
    /// What the server itself called the cursor: an event stream's `id:`, a poll's `cursor`.
    cursor: Option<String>,
    /// A poll's connection, kept alive.
    poll: Option<(SocketAddr, Pipe)>,
    retry: Duration,
    notes: Arc<Mutex<Notes>>,
}

/// Why a connection ended, where that is no error: what the server said, and when to come back.
struct Left {
    why: String,
    wait: Option<Duration>,
}

impl Subscriber {
    async fn run(mut self) {
        let mut failures = 0;
        loop {
            let known = self.notes().seen.len();
            let ended = match self.spec.way {
                Way::Poll => self.poll().await,
                Way::Websocket => self.websocket().await,
                Way::Sse | Way::Ndjson => self.stream().await,
            };
            let (why, wait) = match ended {
                // A poll that was answered: the next one follows at once.
                Ok(None) => {
                    failures = 0;
                    self.step(self.spec.roam == Roam::Always);
                    continue;
                }
                Ok(Some(left)) => (left.why, left.wait),
                Err(error) => {
                    self.poll = None;
                    (error.to_string(), None)
                }
            };
            let lived = self.notes().seen.len() > known;
            failures = if lived { 1 } else { failures + 1 };
            {
                let mut notes = self.notes();
                notes.reconnects += 1;
                notes.ends.push(why);
            }
            self.step(self.spec.roam == Roam::Always || failures > 1);
            tokio::time::sleep(wait.unwrap_or(self.retry).min(DELAY)).await;
        }
    }

    fn notes(&self) -> MutexGuard<'_, Notes> {
        self.notes.lock().expect("no panic under the lock")
    }

    fn step(&mut self, on: bool) {
        if on {
            self.door += 1;
        }
    }

    fn address(&self) -> SocketAddr {
        self.spec.doors[self.door % self.spec.doors.len()]
    }

    /// Where to go on: the server's own cursor, or one made of the ids that were seen.
    fn since(&self) -> String {
        if let Some(cursor) = &self.cursor {
            return cursor.clone();
        }
        if self.positions.is_empty() {
            return self.spec.since.to_owned();
        }
        let position = |channel: &String| self.positions.get(channel).map_or(self.spec.since, String::as_str);
        self.spec.channels.iter().map(position).collect::<Vec<_>>().join(",")
    }

    fn request(&self, query: &str, headers: &str) -> Vec<u8> {
        let channels: Vec<String> =
            self.spec.channels.iter().map(|channel| format!("channel={channel}")).collect();
        let (channels, host) = (channels.join("&"), self.address());
        format!("GET /v1/subscribe?{channels}{query} HTTP/1.1\r\nHost: {host}\r\n{headers}\r\n").into_bytes()
    }

    /// A refusal: the delay that it names, and a note where coming back cannot help.
    async fn refused(&mut self, pipe: &mut Pipe, head: &Head) -> io::Result<Left> {
        let body = timed(HEAD, "a refusal", pipe.body(head)).await.unwrap_or_default();
        let text = String::from_utf8_lossy(&body).into_owned();
        if !matches!(head.status, 404 | 408 | 425 | 429 | 500..) {
            self.notes().faults.push(format!("{} {text}", head.status));
        }
        let wait = head.header("retry-after").and_then(|value| value.parse().ok()).map(Duration::from_secs);
        Ok(Left { why: format!("{} {text}", head.status), wait })
    }

    async fn poll(&mut self) -> io::Result<Option<Left>> {
        let address = self.address();
        let mut pipe = match self.poll.take() {
            Some((to, pipe)) if to == address => pipe,
            _ => Pipe::open(address).await?,
        };
        // The first poll only learns where it is.
        let wait = if self.cursor.is_some() { WAIT } else { 0 };
        let query = format!("&transport=poll&wait={wait}&since={}", self.since());
        pipe.send(&self.request(&query, "")).await?;
        let head = timed(HEAD + Duration::from_secs(wait), "a poll", pipe.head()).await?;
        if head.status != 200 {
            return self.refused(&mut pipe, &head).await.map(Some);
        }
        let body = timed(HEAD, "a poll's body", pipe.body(&head)).await?;
        if !head.closes() {
            self.poll = Some((address, pipe));
        }
        let document: Value = serde_json::from_slice(&body)?;
        let objects = |name: &str| document[name].as_array().cloned().unwrap_or_default();
        self.take_document(objects("messages"), objects("gaps"));
        let cursor = document["cursor"].as_str().unwrap_or_default().to_owned();
        self.positions =
            self.spec.channels.iter().cloned().zip(cursor.split(',').map(str::to_owned)).collect();
        self.cursor = Some(cursor);
        self.now_ready();
        Ok(None)
    }

    /// Messages and gaps come apart: each gap stands where the position that it starts from is.
    fn take_document(&mut self, messages: Vec<Value>, mut gaps: Vec<Value>) {
        for message in messages {
            let channel = text(&message, "channel");
            let here = self.positions.get(&channel).cloned();
            let next = text(&message, "id");
            // A gap whose end is the place before this message, or which begins where we are.
            while let Some(place) = gaps.iter().position(|gap| {
                text(gap, "channel") == channel
                    && (Some(text(gap, "from")) == here || before(&text(gap, "to"), &next))
            }) {
                let gap = gaps.remove(place);
                self.take(&gap);
            }
            self.take(&message);
        }
        for gap in gaps {
            self.take(&gap);
        }
    }

    async fn stream(&mut self) -> io::Result<Option<Left>> {
        let mut pipe = Pipe::open(self.address()).await?;
        let sse = self.spec.way == Way::Sse;
        let request = match (&self.cursor, sse) {
            (Some(cursor), true) => {
                self.request("", &format!("Accept: text/event-stream\r\nLast-Event-ID: {cursor}\r\n"))
            }
            (None, true) => {
                self.request(&format!("&since={}", self.since()), "Accept: text/event-stream\r\n")
            }
            (_, false) => self.request(&format!("&transport=ndjson&since={}", self.since()), ""),
        };
        pipe.send(&request).await?;
        let head = timed(HEAD, "a stream's head", pipe.head()).await?;
        if head.status != 200 {
            return self.refused(&mut pipe, &head).await.map(Some);
        }
        let (mut flow, mut events, mut line) = (Flow::of(&head), Events::default(), Vec::new());
        let mut goodbye = None;
        while let Some(piece) = timed(SILENCE, "a stream", flow.next(&mut pipe)).await? {
            if sse {
                for event in events.push(&piece) {
                    if let Some(retry) = event.retry {
                        self.retry = Duration::from_millis(retry);
                    }
                    if !event.data.is_empty() {
                        goodbye = self.take_text(&event.data).or(goodbye);
                    }
                    // As in a browser: the id counts once the event is there.
                    self.cursor = event.id.or(self.cursor.take());
                }
                self.now_ready();
                continue;
            }
            line.extend(piece);
            while let Some(end) = line.iter().position(|byte| *byte == b'\n') {
                let text: Vec<u8> = line.drain(..=end).collect();
                goodbye = self.take_text(&String::from_utf8_lossy(&text)).or(goodbye);
            }
            self.now_ready();
        }
        Ok(Some(goodbye.unwrap_or_else(|| Left { why: "the end of the body".into(), wait: None })))
    }

    async fn websocket(&mut self) -> io::Result<Option<Left>> {
        let mut pipe = Pipe::open(self.address()).await?;
        let headers = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                       Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
        pipe.send(&self.request(&format!("&since={}", self.since()), headers)).await?;
        let head = timed(HEAD, "an upgrade", pipe.head()).await?;
        if head.status != 101 {
            return self.refused(&mut pipe, &head).await.map(Some);
        }
        let mut goodbye = None;
        loop {
            let (opcode, payload) = timed(SILENCE, "a WebSocket", pipe.frame()).await?;
            match opcode {
                1 => goodbye = self.take_text(&String::from_utf8_lossy(&payload)).or(goodbye),
                8 => {
                    let _ = pipe.send_frame(8, &payload[..payload.len().min(2)]).await;
                    let reason = String::from_utf8_lossy(payload.get(2..).unwrap_or_default()).into_owned();
                    return Ok(Some(goodbye.unwrap_or(Left { why: reason, wait: None })));
                }
                9 => pipe.send_frame(10, &payload).await?,
                _ => {}
            }
            self.now_ready();
        }
    }

    /// One object's text; what a goodbye says.
    fn take_text(&mut self, text: &str) -> Option<Left> {
        match serde_json::from_str(text) {
            Ok(object) => self.take(&object),
            Err(error) => {
                self.notes().faults.push(format!("{error}: {text}"));
                None
            }
        }
    }

    fn take(&mut self, object: &Value) -> Option<Left> {
        let channel = text(object, "channel");
        match object["type"].as_str().unwrap_or_default() {
            "message" => {
                let id = text(object, "id");
                self.positions.insert(channel.clone(), id.clone());
                let mut notes = self.notes();
                let number = object["data"]["n"].as_u64();
                let whole =
                    number.is_some_and(|n| object["data"]["pad"].as_str() == Some(&super::publisher::pad(n)));
                if !whole {
                    notes.faults.push(format!("not what was published: {object}"));
                }
                let n = number.unwrap_or(0);
                let highest = notes.highest.entry(channel.clone()).or_default();
                *highest = n.max(*highest);
                notes.seen.push(Seen::Message { channel, id, n });
            }
            "gap" => {
                let (reason, from, to) = (text(object, "reason"), text(object, "from"), text(object, "to"));
                self.positions.insert(channel.clone(), to.clone());
                self.notes().seen.push(Seen::Gap { channel, reason, from, to });
            }
            "subscribed" => {
                let position = text(object, "position");
                self.positions.entry(channel).or_insert(position);
            }
            "goodbye" => {
                let wait = object["reconnect_after_ms"].as_u64().map(Duration::from_millis);
                return Some(Left { why: format!("goodbye {}", text(object, "code")), wait });
            }
            "heartbeat" => {}
            _ => self.notes().faults.push(format!("an object that nobody asked for: {object}")),
        }
        None
    }

    fn now_ready(&self) {
        if self.spec.channels.iter().all(|channel| self.positions.contains_key(channel))
            && (self.spec.way != Way::Sse || self.cursor.is_some())
        {
            self.notes().ready = true;
        }
    }
}

fn text(object: &Value, name: &str) -> String {
    object[name].as_str().unwrap_or_default().to_owned()
}

/// Whether the message `id` is the one right after `position`.
fn before(position: &str, id: &str) -> bool {
    let split =
        |text: &str| Some((text.split_once('-')?.0.to_owned(), text.split_once('-')?.1.parse::<u64>().ok()?));
    match (split(position), split(id)) {
        (Some((left, at)), Some((right, next))) => left == right && next == at + 1,
        _ => false,
    }
}

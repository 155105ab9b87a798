//! `tidegate selftest`: publishes to a gateway and receives from it over each transport, as its users do, and prints
//! what works, how long it took, and what to do about the rest.

use std::{
    io::{self, Write as _},
    time::{Duration, Instant},
};

use bytes::Bytes;
use http::{Method, StatusCode, header};
use http_body_util::{BodyExt as _, Full};
use serde::Deserialize;
use tokio::time::timeout;

use super::{
    client::{ApiKey, Client, Credential, Refusal, Token, Trust, Url, send},
    feed::{End, Feed, Heard, Object},
};
use crate::{channel::Channel, transport_name::Transport};

/// How long a message may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// The seconds for which a poll is held: less than the patience of any proxy.
const HELD: u32 = 5;

/// Publish to a gateway and receive from it over each transport
///
/// Over WebSocket, Server-Sent Events, NDJSON and long polling it subscribes, publishes a message and waits for it;
/// then it publishes another while it is away, and comes back for it with its position. It prints a line for each, with
/// the time that it took or, where something does not work, what to do.
///
/// Give the addresses that clients and backends use, proxies and all: what stands between is tested too.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The public listener, as clients reach it
    #[arg(value_name = "PUBLIC")]
    public: Url,
    /// The internal listener, as backends reach it
    #[arg(value_name = "INTERNAL")]
    internal: Url,
    /// The channel to use; a few small messages stay in its history
    #[arg(long, default_value = "selftest")]
    channel: Channel,
    #[command(flatten)]
    token: Token,
    #[command(flatten)]
    api_key: ApiKey,
    #[command(flatten)]
    trust: Trust,
}

const EXAMPLES: &str = "Examples:
  tidegate selftest http://127.0.0.1:8000 http://127.0.0.1:9000
  tidegate selftest https://push.example.org http://tidegate-internal:9000 --token-file token --api-key-file key

Exit codes: 0 all of it works, 1 something does not, 64 usage.";

/// A test, checked and ready.
pub(super) struct Selftest {
    public: Client,
    internal: Client,
    channel: Channel,
}

/// Why something does not work, and what to do.
#[derive(Debug)]
struct Trouble {
    why: String,
    advice: Option<&'static str>,
}

/// What a receipt says.
#[derive(Deserialize)]
struct Receipt {
    id: String,
}

impl<E: Into<anyhow::Error>> From<E> for Trouble {
    fn from(error: E) -> Self {
        Self { why: format!("{:#}", error.into()), advice: None }
    }
}

impl Selftest {
    /// What these arguments ask for.
    ///
    /// # Errors
    /// What of them cannot be used, as a sentence.
    pub(super) fn new(args: Args) -> Result<Self, String> {
        Ok(Self {
            public: Client::new(args.public, &args.trust, args.token.credential())?,
            internal: Client::new(args.internal, &args.trust, args.api_key.credential())?,
            channel: args.channel,
        })
    }

    /// Tests all of it.
    ///
    /// # Errors
    /// How much does not work.
    pub(super) async fn run(self) -> anyhow::Result<()> {
        let (public, internal) = (self.public.url(), self.internal.url());
        line(format_args!("clients at {public}, backends at {internal}, channel {}\n", self.channel));
        line(format_args!("{:<11}{:<8}{:>9}{:>11}", "", "result", "received", "resumed"));
        let mut failures = 0;
        let began = Instant::now();
        let published = self.publish().await.map(|_| vec![began.elapsed()]);
        let can_publish = published.is_ok();
        failures += show("publish", published);
        match self.public.connect().await {
            Err(error) => failures += show("connect", Err(error.into())),
            Ok(_) => {
                for transport in Transport::ALL {
                    failures += show(transport.as_str(), self.receive(*transport, can_publish).await);
                }
            }
        }
        anyhow::ensure!(failures == 0, "selftest: {failures} of these do not work");
        Ok(())
    }

    /// Publishes a message; its position.
    async fn publish(&self) -> Result<String, Trouble> {
        let request = self
            .internal
            .request(&format!("/v1/channels/{}/messages", self.channel))?
            .method(Method::POST)
            .header(header::CONTENT_TYPE, "text/plain")
            .body(Full::new(Bytes::from_static(b"from tidegate selftest")))?;
        let mut connection = self.internal.connect().await?;
        let response = send(&mut connection, request, PATIENCE).await?;
        if response.status() != StatusCode::ACCEPTED {
            let refusal = Refusal::read(response).await;
            let advice = self.advice_for_backends(refusal.status);
            return Err(Trouble { why: refusal.sentence, advice });
        }
        let receipt = response.into_body().collect().await?.to_bytes();
        Ok(serde_json::from_slice::<Receipt>(&receipt)?.id)
    }

    fn advice_for_backends(&self, status: u16) -> Option<&'static str> {
        match (status, self.internal.credential()) {
            (401, Credential::None) => Some(ApiKey::ADVICE),
            (403, _) => {
                Some("the key needs the operation `publish` for this channel, or --channel another one")
            }
            (404, _) => Some("is this the internal listener? It is the second of the two addresses"),
            _ => None,
        }
    }

    /// Receives a message, and another one after coming back; how long each took. Where nothing can be published it
    /// subscribes alone.
    async fn receive(&self, transport: Transport, can_publish: bool) -> Result<Vec<Duration>, Trouble> {
        let mut visit = Visit::begin(self, transport, "latest").await?;
        visit.subscribed().await?;
        if !can_publish {
            return Ok(Vec::new());
        }
        let began = Instant::now();
        let first = self.publish().await?;
        visit.message(&first).await?;
        let received = began.elapsed();
        drop(visit);
        let second = self.publish().await?;
        let began = Instant::now();
        let mut visit = Visit::begin(self, transport, &first).await?;
        visit.message(&second).await?;
        Ok(vec![received, began.elapsed()])
    }
}

/// A subscriber, and where it stands.
struct Visit<'a> {
    client: &'a Client,
    channel: &'a Channel,
    transport: Transport,
    since: String,
    feed: Feed,
}

impl<'a> Visit<'a> {
    async fn begin(test: &'a Selftest, transport: Transport, since: &str) -> Result<Self, Trouble> {
        let (client, channel) = (&test.public, &test.channel);
        let query = query(channel, transport, since);
        let feed = Feed::open(client, transport, &query).await;
        let feed = feed.map_err(|end| trouble(client, transport, end))?;
        Ok(Self { client, channel, transport, since: since.to_owned(), feed })
    }

    /// Waits until what is published arrives.
    async fn subscribed(&mut self) -> Result<(), Trouble> {
        self.until("no answer came", |heard| match heard {
            Heard::Object(text) => kind(text) == "subscribed",
            // A poll has no such object: its cursor is one.
            Heard::Cursor(_) => true,
            Heard::Retry(_) => false,
        })
        .await
    }

    /// Waits for a message.
    async fn message(&mut self, id: &str) -> Result<(), Trouble> {
        self.until("the message did not come", |heard| match heard {
            Heard::Object(text) => {
                serde_json::from_str::<Object<'_>>(text).is_ok_and(|object| object.id.as_deref() == Some(id))
            }
            Heard::Cursor(_) | Heard::Retry(_) => false,
        })
        .await
    }

    async fn until(&mut self, never: &str, is_it: impl Fn(&Heard) -> bool) -> Result<(), Trouble> {
        let heard = async {
            while !is_it(&self.next().await?) {}
            Ok(())
        };
        let heard = timeout(PATIENCE, heard).await;
        heard.unwrap_or_else(|_| {
            let why = format!("{never} within {} s", PATIENCE.as_secs());
            Err(Trouble { why, advice: Some(advice(self.transport)) })
        })
    }

    /// What comes next, by the next poll where the last is used up.
    async fn next(&mut self) -> Result<Heard, Trouble> {
        loop {
            let heard = self.feed.next().await;
            match heard.map_err(|end| trouble(self.client, self.transport, end))? {
                Some(Heard::Object(text)) if kind(&text) == "gap" => {
                    return Err(Trouble {
                        why: "the message that was published meanwhile is not in the history".into(),
                        advice: Some(
                            "does the namespace of this channel keep any (history_messages)? --channel names another",
                        ),
                    });
                }
                Some(heard) => {
                    if let Heard::Cursor(cursor) = &heard {
                        self.since.clone_from(cursor);
                    }
                    return Ok(heard);
                }
                None if self.transport == Transport::Poll => {
                    let query = query(self.channel, self.transport, &self.since);
                    let polled = self.feed.poll(self.client, &query).await;
                    polled.map_err(|end| trouble(self.client, self.transport, end))?;
                }
                None => {
                    let why = "the stream ended".into();
                    return Err(Trouble { why, advice: Some(advice(self.transport)) });
                }
            }
        }
    }
}

/// No character of a channel or a position needs escaping.
fn query(channel: &Channel, transport: Transport, since: &str) -> String {
    let wait = match (transport, since) {
        (Transport::Poll, "latest") => "&wait=0".to_owned(),
        (Transport::Poll, _) => format!("&wait={HELD}"),
        _ => String::new(),
    };
    format!("/v1/subscribe?channel={channel}&transport={transport}&since={since}{wait}")
}

fn kind(text: &str) -> String {
    serde_json::from_str::<Object<'_>>(text).map(|object| object.kind.into_owned()).unwrap_or_default()
}

fn trouble(client: &Client, transport: Transport, end: End) -> Trouble {
    match end {
        End::Lost(why, _) => Trouble { why, advice: Some(advice(transport)) },
        End::Unauthorized(why, _) if *client.credential() == Credential::None => {
            Trouble { why, advice: Some(Token::ADVICE) }
        }
        End::Unauthorized(why, _) | End::Refused(why) => Trouble { why, advice: None },
        End::Unread => Trouble { why: "it was given up".into(), advice: None },
    }
}

/// What is wrong most often.
fn advice(transport: Transport) -> &'static str {
    match transport {
        Transport::WebSocket => {
            "a proxy between must pass the headers Upgrade and Connection on (nginx: proxy_http_version 1.1; \
             proxy_set_header Upgrade $http_upgrade; proxy_set_header Connection upgrade)"
        }
        Transport::Sse | Transport::Ndjson => {
            "a proxy between must not hold a stream back (nginx: proxy_buffering off)"
        }
        Transport::Poll => "a proxy between must wait 30 s for an answer (nginx: proxy_read_timeout)",
    }
}

/// Prints the line of one part, and its advice below; gives how much of it does not work.
fn show(part: &str, outcome: Result<Vec<Duration>, Trouble>) -> usize {
    match outcome {
        Ok(times) => {
            let shown: Vec<_> =
                times.iter().map(|time| format!("{:.1} ms", time.as_secs_f64() * 1000.0)).collect();
            let column = |index: usize| shown.get(index).map_or("-", String::as_str);
            line(format_args!("{part:<11}{:<8}{:>9}{:>11}", "ok", column(0), column(1)));
            0
        }
        Err(Trouble { why, advice }) => {
            line(format_args!("{part:<11}{:<8}{why}", "fail"));
            if let Some(advice) = advice {
                line(format_args!("{:<11}{:<8}{advice}", "", ""));
            }
            1
        }
    }
}

/// Who pipes into `head` has read enough.
fn line(text: std::fmt::Arguments<'_>) {
    let _ = writeln!(io::stdout(), "{text}");
}

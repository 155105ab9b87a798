//! Who may subscribe, and publish as a client: every transport × every grant × every kind of channel.

use serde_json::json;

use crate::support::client::Options;
use crate::support::credentials::{bearer, now, sign, token, token_until};
use crate::support::gateway::Builder;
use crate::support::{Answer, Client, End, Event, TestGateway, Transport};

fn gateway() -> Builder {
    TestGateway::start()
        .tokens()
        .key("backend", &["*"], &["publish", "read", "manage"])
        .namespace("ticker", "subscribe = 'anyone'")
        .namespace("chat", "client_publish = true")
}

async fn open(gateway: &TestGateway, transport: Transport, query: String) -> Result<Client, Answer> {
    Client::open(gateway.public, transport, &query, Options::default()).await
}

/// Tokens, what they grant, and what becomes of who shows them.
struct Shown {
    token: Option<String>,
    grants: &'static [&'static str],
    refused: Option<&'static str>,
}

fn tokens() -> Vec<Shown> {
    let good = |grants: &'static [&'static str]| Shown {
        token: Some(token("ann", grants, &[])),
        grants,
        refused: None,
    };
    let bad = |token: String, code| Shown { token: Some(token), grants: &["*"], refused: Some(code) };
    let mut forged = token("ann", &["*"], &[]);
    forged.replace_range(forged.len() - 8.., "AAAAAAAA");
    vec![
        Shown { token: None, grants: &[], refused: None },
        good(&[]),
        good(&["orders:1"]),
        good(&["orders:*"]),
        good(&["news", "ticker:9"]),
        good(&["*"]),
        bad(token_until("ann", &["*"], now() as u64 - 60), "token_expired"),
        bad(forged, "unauthorized"),
        bad("not-a-token".into(), "unauthorized"),
    ]
}

/// What the rules say: independent of the server's code.
fn expected(shown: &Shown, channels: &[&str]) -> Option<(u16, &'static str)> {
    if let Some(code) = shown.refused {
        return Some((401, code));
    }
    let granted = |channel: &str| {
        shown.grants.iter().any(|pattern| match pattern.strip_suffix('*') {
            Some(beginning) => channel.starts_with(beginning),
            None => channel == *pattern,
        })
    };
    let denied = channels.iter().any(|channel| !channel.starts_with("ticker:") && !granted(channel));
    match (denied, &shown.token) {
        (false, _) => None,
        (true, None) => Some((401, "unauthorized")),
        (true, Some(_)) => Some((403, "forbidden")),
    }
}

const CHANNELS: [&[&str]; 5] =
    [&["orders:1"], &["orders:2"], &["ticker:1"], &["news", "ticker:1"], &["orders:1", "news"]];

/// A published channel and one that nobody used are refused in the same words.
fn same_words(refusals: &mut Vec<(String, String)>, case: String, answer: &Answer) {
    let text = answer.text().to_owned();
    match refusals.iter().find(|(before, _)| *before == case) {
        Some((_, before)) => assert_eq!(*before, text),
        None => refusals.push((case, text)),
    }
}

#[tokio::test]
async fn every_transport_serves_what_is_granted_and_nothing_else() {
    let gateway = gateway().run().await;
    for channel in ["orders:1", "ticker:1", "news"] {
        let target = format!("/v1/channels/{channel}/messages");
        gateway.by("backend", "POST", &target, Some(&json!(1))).await.expect(202);
    }
    let (mut refusals, mut cases) = (Vec::new(), 0);
    for (number, shown) in tokens().iter().enumerate() {
        for channels in CHANNELS {
            let query: Vec<String> = channels.iter().map(|channel| format!("channel={channel}")).collect();
            let query = query.join("&");
            for transport in Transport::ALL {
                for by_header in [true, false] {
                    let (mut query, mut options) = (query.clone(), Options::default());
                    let authorization = shown.token.as_deref().map(bearer);
                    match (&authorization, &shown.token) {
                        (Some(value), _) if by_header => options.headers.push(("Authorization", value)),
                        (_, Some(token)) => query += &format!("&token={token}"),
                        _ => {}
                    }
                    let outcome = Client::open(gateway.public, transport, &query, options).await;
                    cases += 1;
                    match (expected(shown, channels), outcome) {
                        (None, Ok(_)) => {}
                        (Some((status, code)), Err(answer)) => {
                            answer.problem(status, code);
                            assert_eq!(answer.header("www-authenticate").is_some(), status == 401);
                            if channels.len() == 1 {
                                let ticker = channels[0].starts_with("ticker");
                                same_words(&mut refusals, format!("{number} {ticker}"), &answer);
                            }
                        }
                        (wanted, outcome) => {
                            panic!(
                                "{transport:?} {query}: wanted {wanted:?}, got {:?}",
                                outcome.map(|_| "served")
                            )
                        }
                    }
                }
            }
        }
    }
    assert_eq!(cases, 9 * 5 * 4 * 2);
    let failures = |reason| {
        let gateway = &gateway;
        async move { gateway.metric("tidegate_auth_failures_total", &[("reason", reason)]).await }
    };
    assert_eq!(failures("expired").await, 5.0 * 8.0);
    assert_eq!(failures("invalid").await, 2.0 * 5.0 * 8.0);
    assert!(failures("missing").await > 0.0 && failures("forbidden").await > 0.0);
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_page_learns_by_the_close_code_what_it_cannot_read_as_a_status() {
    let gateway = gateway().run().await;
    for shown in tokens() {
        for channels in CHANNELS {
            for raw in [false, true] {
                if raw && channels.len() > 1 {
                    continue;
                }
                let query: Vec<String> =
                    channels.iter().map(|channel| format!("channel={channel}")).collect();
                let mut query = query.join("&") + if raw { "&format=raw" } else { "" };
                if let Some(token) = &shown.token {
                    query += &format!("&token={token}");
                }
                let headers = vec![("Origin", "http://localhost:3000")];
                let options = Options { headers, ..Options::default() };
                let mut client = Client::open(gateway.public, Transport::Websocket, &query, options)
                    .await
                    .unwrap_or_else(|answer| panic!("{query}: {answer:?}"));
                let Some((status, code)) = expected(&shown, channels) else {
                    continue;
                };
                let (goodbye, end) = client.end().await;
                let End::Close(close, reason) = end else { panic!("{query}: {end:?}") };
                assert_eq!(close, if status == 401 { 4401 } else { 4403 }, "{query}");
                assert_eq!(reason.split(' ').next(), Some(code), "{query}");
                assert_eq!(goodbye.map(|(code, _)| code), (!raw).then(|| code.to_owned()), "{query}");
            }
        }
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn commands_are_held_to_the_same_rules() {
    let gateway = gateway().run().await;
    for shown in tokens().into_iter().filter(|shown| shown.refused.is_none()) {
        let query = shown.token.as_ref().map(|token| format!("token={token}")).unwrap_or_default();
        let mut client = Client::connect(&gateway, Transport::Websocket, &query).await;
        for channel in ["orders:1", "orders:2", "ticker:1", "news"] {
            client.send(json!({"type": "subscribe", "channel": channel, "ref": channel}).to_string()).await;
            let object = client.object().await;
            match expected(&shown, &[channel]) {
                None => assert_eq!(object.kind, "subscribed", "{channel}"),
                Some((_, code)) => {
                    assert_eq!((object.kind.as_str(), object.string("code").as_str()), ("error", code))
                }
            }
        }
        drop(client);
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_client_publishes_where_token_and_namespace_say_so() {
    let gateway = gateway().run().await;
    for (token, code) in [
        (None, Some("unauthorized")),
        (Some(token("ann", &["*"], &[])), Some("forbidden")),
        (Some(token("ann", &["*"], &["chat:2"])), Some("forbidden")),
        (Some(token("ann", &["*"], &["chat:1"])), None),
        (Some(token("ann", &[], &["*"])), None),
    ] {
        let query = token.as_ref().map(|token| format!("token={token}")).unwrap_or_default();
        let mut client = Client::connect(&gateway, Transport::Websocket, &query).await;
        for (channel, wanted) in
            [("chat:1", code), ("orders:1", if token.is_some() { Some("forbidden") } else { code })]
        {
            client
                .send(json!({"type": "publish", "channel": channel, "data": 1, "ref": 7}).to_string())
                .await;
            let object = client.object().await;
            match wanted {
                None => assert_eq!(object.kind, "published", "{query}"),
                Some(code) => {
                    assert_eq!(
                        (object.kind.as_str(), object.string("code").as_str()),
                        ("error", code),
                        "{query}"
                    )
                }
            }
        }
        drop(client);
    }
    let raw = |token: String| format!("channel=chat:1&format=raw&token={token}");
    let granted = raw(token("ann", &["*"], &["chat:*"]));
    let mut may = open(&gateway, Transport::Websocket, granted).await.unwrap();
    may.send("1").await;
    gateway.until_published("backend", "chat:1", 3).await;
    let denied = raw(token("ann", &["*"], &[]));
    let mut may_not = open(&gateway, Transport::Websocket, denied).await.unwrap();
    may_not.send("Hello Server!").await;
    let (goodbye, end) = may_not.end().await;
    assert!(matches!(&end, End::Close(4403, reason) if reason == "forbidden"), "{end:?}");
    assert!(goodbye.is_none(), "a raw socket hears no objects");
    let refused = [("route", "websocket"), ("code", "4xx")];
    assert_eq!(gateway.metric("tidegate_publish_requests_total", &refused).await, 9.0);
    gateway.finish((may, may_not)).await;
}

impl TestGateway {
    /// Waits until so many messages are kept of a channel.
    async fn until_published(&self, key: &str, channel: &str, wanted: u64) {
        crate::support::eventually("the messages are kept", async || {
            let info = self.by(key, "GET", &format!("/v1/channels/{channel}"), None).await.expect(200).json();
            (info["messages"] == wanted).then_some(())
        })
        .await;
    }
}

#[tokio::test]
async fn a_token_may_travel_as_a_subprotocol_and_the_header_counts_first() {
    let gateway = gateway().run().await;
    let (good, bad) = (token("ann", &["orders:*"], &[]), token("ann", &["news"], &[]));
    let offer = format!("tidegate.v1, tidegate.token.{good}");
    let offered = |value| Options { headers: vec![("Sec-WebSocket-Protocol", value)], ..Options::default() };
    let client = Client::open(gateway.public, Transport::Websocket, "channel=orders:1", offered(&offer))
        .await
        .unwrap();
    assert_eq!(client.head.header("sec-websocket-protocol"), Some("tidegate.v1"));
    drop(client);
    let alone = format!("tidegate.token.{good}");
    let refused =
        Client::open(gateway.public, Transport::Websocket, "channel=orders:1", offered(&alone)).await;
    refused.err().expect("refused").problem(400, "invalid_header");
    // Header, then parameter, then subprotocol.
    let authorization = bearer(&bad);
    let mut options = offered(&offer);
    options.headers.push(("Authorization", &authorization));
    let query = format!("channel=orders:1&token={good}");
    let refused = Client::open(gateway.public, Transport::Websocket, &query, options).await;
    refused.err().expect("refused").problem(403, "forbidden");
    let query = format!("channel=orders:1&token={bad}");
    let refused = Client::open(gateway.public, Transport::Websocket, &query, offered(&offer)).await;
    refused.err().expect("refused").problem(403, "forbidden");
    gateway.finish(()).await;
}

#[tokio::test]
async fn without_tokens_only_what_is_open_is_served_and_credentials_are_not_looked_at() {
    let gateway = TestGateway::start()
        .key("backend", &["*"], &["publish"])
        .namespace("ticker", "subscribe = 'anyone'")
        .run()
        .await;
    for transport in Transport::ALL {
        for token in ["", "&token=whatever"] {
            let served = open(&gateway, transport, format!("channel=ticker:1{token}")).await;
            drop(served.unwrap_or_else(|answer| panic!("{answer:?}")));
            let shut = open(&gateway, transport, format!("channel=news{token}")).await;
            let problem = shut.err().expect("refused").problem(401, "unauthorized");
            assert!(problem["detail"].as_str().unwrap().contains("auth.jwt"), "{problem}");
        }
    }
    let mut client = Client::connect(&gateway, Transport::Websocket, "channel=ticker:1").await;
    client.send(json!({"type": "authenticate", "token": "whatever"}).to_string()).await;
    assert_eq!(client.object().await.text, r#"{"type":"authenticated","subject":null,"expires_at":null}"#);
    gateway.finish(client).await;

    let gateway = TestGateway::start().run().await;
    let headers = vec![("Authorization", "Bearer whatever")];
    let options = Options { headers, ..Options::default() };
    let client = Client::connect_with(gateway.public, Transport::Sse, "channel=news&token=x", options).await;
    gateway.post("news", &[("Authorization", "Bearer whatever")], "1").await.expect(202);
    gateway.finish(client).await;
}

#[tokio::test]
async fn who_shows_nothing_within_5_s_is_sent_away_and_who_does_something_stays() {
    let gateway = gateway().run().await;
    let begun = std::time::Instant::now();
    let mut silent = Client::connect(&gateway, Transport::Websocket, "").await;
    let mut wrong = Client::connect(&gateway, Transport::Websocket, "").await;
    let mut late = Client::connect(&gateway, Transport::Websocket, "").await;
    let mut open = Client::connect(&gateway, Transport::Websocket, "").await;
    wrong.send(r#"{"type":"authenticate","token":"not-a-token","ref":1}"#).await;
    assert_eq!(wrong.object().await.string("code"), "unauthorized");
    open.send(r#"{"type":"subscribe","channel":"ticker:1","ref":1}"#).await;
    assert_eq!(open.object().await.kind, "subscribed");
    late.send(r#"{"type":"subscribe","channel":"news","ref":1}"#).await;
    assert_eq!(late.object().await.string("code"), "unauthorized");
    late.send(json!({"type": "authenticate", "token": token("ann", &["news"], &[]), "ref": 2}).to_string())
        .await;
    assert_eq!(late.object().await.string("subject"), "ann");
    for client in [&mut silent, &mut wrong] {
        let (goodbye, end) = client.end().await;
        assert_eq!(goodbye, Some(("unauthorized".into(), None)));
        assert!(matches!(&end, End::Close(4401, reason) if reason == "unauthorized"), "{end:?}");
        assert!(begun.elapsed() >= std::time::Duration::from_millis(4900), "{:?}", begun.elapsed());
    }
    for client in [&mut late, &mut open] {
        client.send(r#"{"type":"ping","ref":9}"#).await;
        assert_eq!(client.object().await.kind, "pong");
    }
    gateway.finish((late, open)).await;
}

#[tokio::test]
async fn with_credentials_a_host_may_be_a_name() {
    let gateway = gateway().run().await;
    let target = format!("/v1/subscribe?channel=news&wait=0&token={}", token("ann", &["news"], &[]));
    gateway.public("GET", &target, &[("Host", "push.example.com")], None).await.expect(200);
    let page = [("Host", "push.example.com"), ("Origin", "https://push.example.com")];
    gateway.public("GET", &target, &page, None).await.expect(200);
    let other = [("Host", "push.example.com"), ("Origin", "https://evil.example")];
    gateway.public("GET", &target, &other, None).await.problem(403, "origin_refused");
    let key = bearer("backend");
    let headers = [("Host", "tidegate.push.svc:9000"), ("Authorization", key.as_str())];
    gateway.internal("GET", "/v1/channels", &headers, None).await.expect(200);
    gateway.finish(()).await;
}

#[tokio::test]
async fn claims_that_say_nothing_grant_nothing() {
    let gateway = gateway().run().await;
    let bare = sign(&json!({"sub": "ann", "exp": now() as u64 + 60}));
    let refused = open(&gateway, Transport::Poll, format!("channel=news&token={bare}")).await;
    refused.err().expect("refused").problem(403, "forbidden");
    let mut client =
        Client::connect(&gateway, Transport::Sse, &format!("channel=ticker:1&token={bare}")).await;
    gateway.by("backend", "POST", "/v1/channels/ticker:1/messages", Some(&json!(5))).await.expect(202);
    assert!(matches!(client.next().await, Event::Message(message) if message.number() == 5));
    gateway.finish(client).await;
}

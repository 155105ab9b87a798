//! Server-Sent Events: heads, fields, ids, the raw format, and injection.

use crate::support::objects::Fields;
use crate::support::raw::{Body, Head};
use crate::support::sse_parser::{SseItem, SseParser};
use crate::support::{Client, Conn, PATIENCE, TestGateway, Transport, within};

/// An event stream, item by item.
struct Stream {
    conn: Conn,
    body: Body,
    head: Head,
    parser: SseParser,
    items: std::collections::VecDeque<SseItem>,
    /// All bytes of the body so far.
    bytes: Vec<u8>,
}

impl Stream {
    async fn open(gateway: &TestGateway, query: &str, headers: &[(&str, &str)]) -> Self {
        let mut conn = Conn::open(gateway.public).await;
        let mut all = vec![("Accept", "text/event-stream")];
        all.extend(headers);
        let bytes = conn.encode("GET", &format!("/v1/subscribe?{query}"), &all, None);
        conn.send(bytes).await;
        let head = conn.head().await;
        assert_eq!(head.status, 200);
        let body = Body::after("GET", &head);
        Self { conn, body, head, parser: SseParser::default(), items: Default::default(), bytes: Vec::new() }
    }

    async fn item(&mut self) -> SseItem {
        loop {
            if let Some(item) = self.items.pop_front() {
                return item;
            }
            let piece = within(PATIENCE, "an item", self.body.next(&mut self.conn))
                .await
                .expect("reads")
                .expect("more");
            self.bytes.extend(&piece);
            self.items.extend(self.parser.push(&piece));
        }
    }

    /// The next event: name, data, id.
    async fn event(&mut self) -> (String, String, Option<String>) {
        loop {
            if let SseItem::Event { name, data, id } = self.item().await {
                return (name, data, id);
            }
        }
    }
}

#[tokio::test]
async fn the_head_keeps_proxies_and_caches_away() {
    let gateway = TestGateway::start().run().await;
    let stream = Stream::open(&gateway, "channel=a", &[]).await;
    assert_eq!(stream.head.header("content-type"), Some("text/event-stream"));
    assert_eq!(stream.head.header("cache-control"), Some("no-store, no-transform"));
    assert_eq!(stream.head.header("x-accel-buffering"), Some("no"));
    assert!(stream.head.header("tidegate-connection").is_some());
    assert_eq!(stream.head.header("content-length"), None);
    gateway.finish(stream.conn).await;
}

#[tokio::test]
async fn first_comes_retry_then_subscribed_for_each_channel_the_last_with_an_id() {
    let gateway = TestGateway::start().run().await;
    let id = gateway.publish("b", "1").await.id;
    let mut stream = Stream::open(&gateway, "channel=a&channel=b", &[]).await;
    let SseItem::Retry(delay) = stream.item().await else { panic!("retry comes first") };
    assert!((1500..=2500).contains(&delay), "{delay}");
    let (name, data, early) = stream.event().await;
    assert_eq!(
        (name.as_str(), Fields::parse(&data).string("channel").as_str(), early),
        ("tidegate.subscribed", "a", None)
    );
    let (name, data, cursor) = stream.event().await;
    assert_eq!(
        (name.as_str(), Fields::parse(&data).string("channel").as_str()),
        ("tidegate.subscribed", "b")
    );
    let cursor = cursor.expect("an id with the last of them");
    let (a, b) = cursor.split_once(',').expect("an entry for each channel");
    assert!(a.starts_with("0-") && b == id, "{cursor}");
    gateway.finish(stream.conn).await;
}

#[tokio::test]
async fn the_delays_of_retry_are_spread() {
    let gateway = TestGateway::start().run().await;
    let mut delays = std::collections::BTreeSet::new();
    for _ in 0..8 {
        let mut stream = Stream::open(&gateway, "channel=a", &[]).await;
        let SseItem::Retry(delay) = stream.item().await else { panic!("retry comes first") };
        delays.insert(delay);
    }
    assert!(delays.len() > 1, "{delays:?}");
    gateway.finish(()).await;
}

#[tokio::test]
async fn the_id_is_the_cursor_over_all_channels() {
    let gateway = TestGateway::start().run().await;
    let mut stream = Stream::open(&gateway, "channel=a&channel=b", &[]).await;
    stream.event().await;
    stream.event().await;
    let a = gateway.publish("a", "1").await.id;
    let (_, _, cursor) = stream.event().await;
    assert!(cursor.expect("an id").starts_with(&format!("{a},0-")));
    let b = gateway.publish("b", "1").await.id;
    assert_eq!(stream.event().await.2, Some(format!("{a},{b}")));
    let second = gateway.publish("a", "2").await.id;
    assert_eq!(stream.event().await.2, Some(format!("{second},{b}")));
    // What a browser sends when it comes back.
    drop(stream);
    let last = format!("{a},{b}");
    let mut back = Stream::open(&gateway, "channel=a&channel=b", &[("Last-Event-ID", &last)]).await;
    back.event().await;
    back.event().await;
    assert_eq!(back.event().await.2, Some(format!("{second},{b}")));
    gateway.finish(back.conn).await;
}

#[tokio::test]
async fn who_saw_no_message_resumes_too() {
    let gateway = TestGateway::start().run().await;
    let mut stream = Stream::open(&gateway, "channel=a", &[]).await;
    let (_, _, id) = stream.event().await;
    drop(stream);
    gateway.publish("a", "1").await;
    let mut back = Stream::open(&gateway, "channel=a", &[("Last-Event-ID", &id.expect("an id"))]).await;
    assert_eq!(back.event().await.0, "tidegate.subscribed");
    assert_eq!(back.event().await.0, "message");
    gateway.finish(back.conn).await;
}

#[tokio::test]
async fn a_message_has_its_event_name_where_one_was_given() {
    let gateway = TestGateway::start().run().await;
    let mut stream = Stream::open(&gateway, "channel=a", &[]).await;
    stream.event().await;
    gateway
        .post("a", &[("Content-Type", "text/plain"), ("Tidegate-Event", "created")], "x")
        .await
        .expect(202);
    gateway.post("a", &[("Content-Type", "text/plain")], "x").await.expect(202);
    assert_eq!(stream.event().await.0, "created");
    assert_eq!(stream.event().await.0, "message");
    let text = String::from_utf8(stream.bytes.clone()).expect("UTF-8");
    assert_eq!(text.matches("event: created").count() + text.matches("event:created").count(), 1);
    assert_eq!(text.matches("event: message").count(), 0, "`event:` only where given");
    gateway.finish(stream.conn).await;
}

#[tokio::test]
async fn a_gap_has_an_id_to_come_back_with() {
    let gateway = TestGateway::start().namespace("default", "history_messages = 1").run().await;
    let a = gateway.publish_numbers("a", 1, 4).await;
    let b = gateway.publish_numbers("b", 1, 1).await;
    for format in ["", "&format=raw"] {
        let query = format!("channel=a&channel=b&since={},latest{format}", a[0]);
        let mut stream = Stream::open(&gateway, &query, &[]).await;
        stream.event().await;
        assert_eq!(stream.event().await.2, Some(format!("{},{}", a[0], b[0])));
        let (name, data, id) = stream.event().await;
        assert_eq!(name, "tidegate.gap");
        assert_eq!(Fields::parse(&data).string("to"), a[2]);
        assert_eq!(id, Some(format!("{},{}", a[2], b[0])));
        assert_eq!(stream.event().await.2, Some(format!("{},{}", a[3], b[0])));
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn raw_is_the_payload_alone() {
    let gateway = TestGateway::start().run().await;
    let mut stream = Stream::open(&gateway, "channel=a&format=raw", &[]).await;
    assert_eq!(stream.event().await.0, "tidegate.subscribed");
    for (media, body, data) in [
        ("application/json", &br#"{"a": 1.0}"#[..], "{\"a\": 1.0}"),
        ("text/plain", b"hello", "hello"),
        ("text/plain", b" leading", " leading"),
        ("text/plain", b"one\ntwo\r\nthree\rfour", "one\ntwo\nthree\nfour"),
        ("text/plain", b"end\n", "end\n"),
        ("text/plain", b"\n\n", "\n\n"),
        ("text/plain", b"id: 1\nevent: x\n\ndata: y\nretry: 1", "id: 1\nevent: x\n\ndata: y\nretry: 1"),
        ("text/plain", ": comment".as_bytes(), ": comment"),
        ("text/plain", "\u{feff}bom".as_bytes(), "\u{feff}bom"),
        ("text/plain", "\u{2028}\u{85}\u{b}\u{c}".as_bytes(), "\u{2028}\u{85}\u{b}\u{c}"),
        ("application/octet-stream", b"\xff\x00\n", "/wAK"),
    ] {
        let id =
            crate::support::gateway::receipt(&gateway.post("a", &[("Content-Type", media)], body).await).id;
        assert_eq!(
            stream.event().await,
            ("message".to_owned(), data.to_owned(), Some(id)),
            "{media} {body:?}"
        );
    }
    let headers = [("Content-Type", "text/plain"), ("Tidegate-Event", "created")];
    gateway.post("a", &headers, "x").await.expect(202);
    assert_eq!(stream.event().await.0, "created");
    gateway.finish(stream.conn).await;
}

#[tokio::test]
async fn no_payload_can_forge_an_event() {
    let gateway = TestGateway::start().run().await;
    for format in ["json", "raw"] {
        let mut stream = Stream::open(&gateway, &format!("channel=a&format={format}"), &[]).await;
        stream.event().await;
        for ending in ["\n", "\r", "\r\n", "\n\n", "\r\r", "\r\n\r\n", "\u{0}\n"] {
            let body =
                format!("x{ending}{ending}event: forged{ending}id: 666{ending}data: forged{ending}{ending}");
            let id = crate::support::gateway::receipt(
                &gateway.post("a", &[("Content-Type", "text/plain")], &body).await,
            )
            .id;
            let (name, _, given) = stream.event().await;
            assert_eq!((name.as_str(), given), ("message", Some(id.clone())), "{ending:?} in {format}");
            assert_eq!(stream.parser.last_event_id, id);
        }
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_client_of_http_1_0_gets_a_body_that_ends_with_the_connection() {
    let gateway = TestGateway::start().run().await;
    for accept in ["text/event-stream", "application/x-ndjson"] {
        let mut conn = Conn::open(gateway.public).await;
        conn.send(format!("GET /v1/subscribe?channel=a HTTP/1.0\r\nAccept: {accept}\r\n\r\n")).await;
        let head = conn.head().await;
        assert_eq!((head.status, head.header("transfer-encoding")), (200, None), "{head:?}");
        gateway.until_subscribers("a", 1).await;
        gateway.publish("a", "\"over 1.0\"").await;
        let mut body = Body::after("GET", &head);
        let mut text = String::new();
        while !text.contains("over 1.0") {
            let piece =
                within(PATIENCE, "the message", body.next(&mut conn)).await.expect("reads").expect("more");
            text += std::str::from_utf8(&piece).expect("UTF-8");
        }
        drop(conn);
        gateway.until_subscribers("a", 0).await;
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_client_that_goes_is_noticed_without_a_message() {
    let gateway = TestGateway::start().run().await;
    for transport in Transport::STREAMS {
        let client = Client::connect(&gateway, transport, "channel=a").await;
        gateway.until_subscribers("a", 1).await;
        drop(client);
        gateway.until_subscribers("a", 0).await;
    }
    gateway.finish(()).await;
}

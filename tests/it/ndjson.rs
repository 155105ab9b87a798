//! NDJSON: one object a line, and the raw format.

use crate::support::client::Options;
use crate::support::raw::{Body, Head};
use crate::support::{Client, Conn, PATIENCE, TestGateway, Transport, within};

/// A stream, line by line.
struct Lines {
    conn: Conn,
    body: Body,
    head: Head,
    text: String,
}

impl Lines {
    async fn open(gateway: &TestGateway, query: &str) -> Self {
        let mut conn = Conn::open(gateway.public).await;
        let bytes = conn.encode(
            "GET",
            &format!("/v1/subscribe?{query}"),
            &[("Accept", "application/x-ndjson")],
            None,
        );
        conn.send(bytes).await;
        let head = conn.head().await;
        assert_eq!(head.status, 200);
        let body = Body::after("GET", &head);
        Self { conn, body, head, text: String::new() }
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some((line, rest)) = self.text.split_once('\n') {
                let line = line.to_owned();
                self.text = rest.to_owned();
                return line;
            }
            let piece = within(PATIENCE, "a line", self.body.next(&mut self.conn))
                .await
                .expect("reads")
                .expect("more");
            self.text += std::str::from_utf8(&piece).expect("UTF-8");
        }
    }
}

#[tokio::test]
async fn the_head_names_the_type_and_keeps_caches_away() {
    let gateway = TestGateway::start().run().await;
    let mut lines = Lines::open(&gateway, "channel=a").await;
    assert_eq!(lines.head.header("content-type"), Some("application/x-ndjson"));
    assert!(lines.head.header("tidegate-connection").is_some());
    assert!(
        lines.line().await.starts_with(r#"{"type":"subscribed","channel":"a","position":"0-"#),
        "at once"
    );
    gateway.finish(lines.conn).await;
}

#[tokio::test]
async fn raw_is_the_payload_alone_and_nothing_else() {
    let gateway = TestGateway::start().run().await;
    gateway.publish("a", "0").await;
    let mut lines = Lines::open(&gateway, "channel=a&format=raw&since=earliest").await;
    assert_eq!(lines.line().await, "0", "the controls go unsaid");
    for (media, body, line) in [
        ("application/json", &b"{\n  \"a\": 1.0\r\n}"[..], "{  \"a\": 1.0}"),
        ("application/json", b"null", "null"),
        ("text/plain", b"plain", "\"plain\""),
        ("application/octet-stream", b"\xff", "\"/w==\""),
    ] {
        gateway.post("a", &[("Content-Type", media)], body).await.expect(202);
        assert_eq!(lines.line().await, line);
    }
    let text = "a \"b\" \\ \r\n \u{1} é";
    gateway.post("a", &[("Content-Type", "text/plain")], text).await.expect(202);
    assert_eq!(serde_json::from_str::<String>(&lines.line().await).expect("a JSON string"), text);
    gateway.finish(lines.conn).await;
}

#[tokio::test]
async fn raw_takes_several_channels() {
    let gateway = TestGateway::start().run().await;
    let mut lines = Lines::open(&gateway, "channel=a&channel=b&format=raw").await;
    gateway.publish("b", "\"b\"").await;
    assert_eq!(lines.line().await, "\"b\"");
    gateway.publish("a", "\"a\"").await;
    assert_eq!(lines.line().await, "\"a\"");
    gateway.finish(lines.conn).await;
}

#[tokio::test]
async fn a_gap_at_the_start_of_raw_is_refused_and_names_the_position_to_use() {
    let gateway = TestGateway::start().namespace("default", "history_messages = 2").run().await;
    let ids = gateway.publish_numbers("a", 1, 5).await;
    let query = format!("channel=a&format=raw&since={}", ids[0]);
    let refused = Client::open(gateway.public, Transport::Ndjson, &query, Options::default()).await;
    let Err(answer) = refused else { panic!("served") };
    let problem = answer.problem(400, "invalid_since");
    assert!(problem["detail"].as_str().expect("a detail").contains(&ids[2]), "{problem}");
    let mut lines = Lines::open(&gateway, &format!("channel=a&format=raw&since={}", ids[2])).await;
    assert_eq!(lines.line().await, "4");
    gateway.finish(lines.conn).await;
}

#[tokio::test]
async fn a_gap_at_the_start_of_raw_names_positions_for_all_its_channels() {
    let gateway = TestGateway::start().namespace("default", "history_messages = 2").run().await;
    let ids = gateway.publish_numbers("a", 1, 5).await;
    let other = gateway.publish_numbers("b", 1, 1).await;
    let query = format!("channel=a&channel=b&format=raw&since={},latest", ids[0]);
    let refused = Client::open(gateway.public, Transport::Ndjson, &query, Options::default()).await;
    let Err(answer) = refused else { panic!("served") };
    let problem = answer.problem(400, "invalid_since");
    let detail = problem["detail"].as_str().expect("a detail");
    let since = detail.rsplit_once("since=").expect("a cure").1;
    assert_eq!(since, format!("{},{}", ids[2], other[0]), "{problem}");
    let mut lines = Lines::open(&gateway, &format!("channel=a&channel=b&format=raw&since={since}")).await;
    assert_eq!([lines.line().await, lines.line().await], ["4", "5"]);
    gateway.finish(lines.conn).await;
}

//! `POST /v1/channels/{channel}/messages`: what is accepted, what is refused and how it is said.

use std::collections::BTreeSet;

use crate::support::gateway::receipt;
use crate::support::objects::{Fields, split_position};
use crate::support::{Answer, Client, Conn, TestGateway, Transport};

const JSON: (&str, &str) = ("Content-Type", "application/json");
const TEXT: (&str, &str) = ("Content-Type", "text/plain");

#[tokio::test]
async fn the_receipt_names_channel_position_and_no_duplicate() {
    let gateway = TestGateway::start().run().await;
    let answer = gateway.post("orders", &[JSON], "{}").await.expect(202);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(Fields::parse(answer.text()).names(), ["channel", "id", "duplicate"]);
    let first = receipt(&answer);
    assert_eq!((first.channel.as_str(), first.duplicate), ("orders", false));
    let (epoch, offset) = split_position(&first.id);
    assert_eq!(offset, 1, "messages count from 1");
    assert!((6..=12).contains(&epoch.len()));
    assert_eq!(gateway.publish("orders", "1").await.id, format!("{epoch}-2"), "without holes");
    assert_ne!(split_position(&gateway.publish("other", "1").await.id).0, epoch, "an epoch for each channel");
    gateway.finish(()).await;
}

#[tokio::test]
async fn what_is_no_json_is_refused_with_line_and_column() {
    let gateway = TestGateway::start().run().await;
    for (body, place) in [
        ("{\n  \"a\": }", Some(("2", "8"))),
        ("{\"a\":1,}", Some(("1", "8"))),
        ("[1 2]", Some(("1", "4"))),
        ("", None),
        ("   ", None),
        ("{} {}", None),
        ("{'a':1}", None),
        ("NaN", None),
        ("01", None),
        ("1.", None),
        ("+1", None),
        (".5", None),
        ("\"\u{1}\"", None),
        ("\"\\x\"", None),
        ("\"a\nb\"", None),
        ("{\"a\"}", None),
        ("[1,]", None),
        ("tru", None),
        ("\"open", None),
        ("// c\n1", None),
        ("\u{feff}{}", None),
    ] {
        let problem = gateway.post("a", &[JSON], body).await.problem(400, "invalid_json");
        if let Some((line, column)) = place {
            let detail = problem["detail"].as_str().expect("a detail");
            assert!(
                detail.contains(&format!("line {line}")) && detail.contains(&format!("column {column}")),
                "{detail}"
            );
        }
    }
    assert!(gateway.get("/v1/channels/a").await["position"].as_str().expect("a position").starts_with("0-"));
    gateway.finish(()).await;
}

#[tokio::test]
async fn json_may_be_nested_128_deep_and_no_deeper() {
    let gateway = TestGateway::start().run().await;
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    gateway.publish("a", nested(128)).await;
    gateway.post("a", &[JSON], nested(129)).await.problem(400, "invalid_json");
    gateway.post("a", &[JSON], nested(100_000)).await.problem(400, "invalid_json");
    let objects = "{\"a\":".repeat(129) + "1" + &"}".repeat(129);
    gateway.post("a", &[JSON], objects).await.problem(400, "invalid_json");
    // Brackets within a string are text.
    gateway.publish("a", format!("\"{}\"", "[".repeat(1000))).await;
    gateway.finish(()).await;
}

#[tokio::test]
async fn text_and_json_must_be_utf_8() {
    let gateway = TestGateway::start().run().await;
    for bytes in [&b"\xff"[..], b"\xc0\x80", b"\xed\xa0\x80", b"a\xe2\x82", b"\xf5\x80\x80\x80"] {
        gateway.post("a", &[TEXT], bytes).await.problem(400, "invalid_body");
        let json = [&b"\""[..], bytes, b"\""].concat();
        let answer = gateway.post("a", &[JSON], json).await;
        let code = answer.json()["code"].as_str().expect("a code").to_owned();
        assert!(matches!(code.as_str(), "invalid_json" | "invalid_body"), "{code}");
        answer.problem(400, &code);
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn another_charset_or_an_encoding_is_unsupported() {
    let gateway = TestGateway::start().run().await;
    for media in [
        "text/plain; charset=iso-8859-1",
        "text/plain;charset=\"utf-16\"",
        "application/json; charset=latin1",
        "application/a+json;charset=us-ascii",
    ] {
        gateway.post("a", &[("Content-Type", media)], "1").await.problem(415, "unsupported_media_type");
    }
    for media in [
        "text/plain; charset=utf-8",
        "text/plain;charset=UTF-8",
        "application/json; Charset=\"utf-8\"",
        "text/plain; format=flowed",
        "TEXT/Plain",
        "Application/JSON",
    ] {
        gateway.post("a", &[("Content-Type", media)], "1").await.expect(202);
    }
    for encoding in ["gzip", "br", "deflate", "zstd"] {
        for media in [JSON, TEXT, ("Content-Type", "application/octet-stream")] {
            gateway
                .post("a", &[media, ("Content-Encoding", encoding)], "1")
                .await
                .problem(415, "unsupported_media_type");
        }
    }
    let chunks = b"1\r\n1\r\n0\r\n\r\n";
    gateway.post("a", &[JSON, ("Transfer-Encoding", "Chunked")], chunks).await.expect(202);
    for coding in ["gzip, chunked", "chunked, chunked"] {
        let answer = gateway.post("a", &[JSON, ("Transfer-Encoding", coding)], chunks).await;
        answer.problem(415, "unsupported_media_type");
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn the_same_key_gives_the_first_receipt() {
    let gateway = TestGateway::start().run().await;
    let mut client = Client::connect(&gateway, Transport::Ndjson, "channel=a").await;
    let keyed = |key: &'static str| vec![JSON, ("Idempotency-Key", key)];
    let first = receipt(&gateway.post("a", &keyed("k"), "{\"n\":1}").await);
    let again = receipt(&gateway.post("a", &keyed("k"), "{\"n\":1}").await);
    assert_eq!((again.id.as_str(), again.duplicate), (first.id.as_str(), true));
    // What is stored is compared, not what stood around it.
    assert!(receipt(&gateway.post("a", &keyed("k"), " {\"n\":1}\n").await).duplicate);
    assert!(!receipt(&gateway.post("a", &keyed("K"), "{\"n\":1}").await).duplicate, "keys have case");
    assert!(
        !receipt(&gateway.post("b", &keyed("k"), "{\"n\":1}").await).duplicate,
        "each channel has its keys"
    );
    assert!(!receipt(&gateway.post("a", &[JSON], "{\"n\":1}").await).duplicate, "no key, no duplicate");
    let longest = "~!".repeat(64);
    assert!(!receipt(&gateway.post("a", &[JSON, ("Idempotency-Key", &longest)], "1").await).duplicate);
    assert!(receipt(&gateway.post("a", &[JSON, ("Idempotency-Key", &longest)], "1").await).duplicate);
    let ids: BTreeSet<String> = client.messages(4).await.into_iter().map(|message| message.id).collect();
    assert_eq!(ids.len(), 4, "the duplicates were delivered to nobody");
    gateway.finish(client).await;
}

#[tokio::test]
async fn a_key_reused_for_something_else_is_refused() {
    let gateway = TestGateway::start().run().await;
    let key = ("Idempotency-Key", "k");
    gateway.post("a", &[JSON, key], "\"1\"").await.expect(202);
    gateway.post("a", &[JSON, key], "\"2\"").await.problem(422, "idempotency_key_reused");
    gateway.post("a", &[TEXT, key], "\"1\"").await.problem(422, "idempotency_key_reused");
    gateway.post("a", &[key], "\"1\"").await.problem(422, "idempotency_key_reused");
    gateway
        .post("a", &[JSON, key, ("Tidegate-Event", "e")], "\"1\"")
        .await
        .problem(422, "idempotency_key_reused");
    assert!(receipt(&gateway.post("a", &[JSON, key], "\"1\"").await).duplicate, "the first stands");
    assert_eq!(gateway.get("/v1/channels/a").await["messages"], 1);
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_refused_message_leaves_its_key_free() {
    let gateway = TestGateway::start().run().await;
    let key = ("Idempotency-Key", "k");
    gateway.post("a", &[JSON, key], "{").await.problem(400, "invalid_json");
    assert!(!receipt(&gateway.post("a", &[JSON, key], "{}").await).duplicate);
    gateway.finish(()).await;
}

#[tokio::test]
async fn the_same_key_at_the_same_time_is_one_message() {
    let gateway = TestGateway::start().run().await;
    for round in 0..10 {
        let (channel, key) = (format!("c{round}"), format!("key-{round}"));
        let headers = [JSON, ("Idempotency-Key", key.as_str())];
        let answers =
            futures_util::future::join_all((0..20).map(|_| gateway.post(&channel, &headers, "1"))).await;
        let receipts: Vec<_> = answers.iter().map(receipt).collect();
        assert!(receipts.windows(2).all(|pair| pair[0].id == pair[1].id), "{receipts:?}");
        assert_eq!(receipts.iter().filter(|receipt| !receipt.duplicate).count(), 1, "{receipts:?}");
        assert_eq!(gateway.get(&format!("/v1/channels/{channel}")).await["messages"], 1);
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn bad_headers_are_refused_by_name() {
    let gateway = TestGateway::start().run().await;
    let (long_key, long_event) = ("k".repeat(129), "e".repeat(65));
    for (name, value) in [
        ("Idempotency-Key", ""),
        ("Idempotency-Key", "a b"),
        ("Idempotency-Key", "ä"),
        ("Idempotency-Key", long_key.as_str()),
        ("Tidegate-Event", ""),
        ("Tidegate-Event", "a b"),
        ("Tidegate-Event", "a:b"),
        ("Tidegate-Event", "é"),
        ("Tidegate-Event", "open"),
        ("Tidegate-Event", "error"),
        ("Tidegate-Event", "tidegate."),
        ("Tidegate-Event", "tidegate.gap"),
        ("Tidegate-Event", long_event.as_str()),
    ] {
        let problem = gateway.post("a", &[JSON, (name, value)], "1").await.problem(400, "invalid_header");
        let detail = problem["detail"].as_str().expect("a detail").to_ascii_lowercase();
        assert!(detail.contains(&name.to_ascii_lowercase()), "{name} {value:?}: {detail}");
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_header_given_twice_is_refused() {
    let gateway = TestGateway::start().run().await;
    for (name, value) in [
        ("Idempotency-Key", "k"),
        ("Tidegate-Event", "e"),
        ("Content-Type", "application/json"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
    ] {
        let mut headers = vec![(name, value), (name, value)];
        if name != "Content-Type" {
            headers.push(JSON);
        }
        gateway.post("a", &headers, "1").await.problem(400, "invalid_header");
    }
    let traced = [JSON, ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")];
    gateway.post("a", &traced, "1").await.expect(202);
    gateway.finish(()).await;
}

#[tokio::test]
async fn channel_names_are_held_to_their_grammar_and_the_bad_byte_is_named() {
    let gateway = TestGateway::start().run().await;
    for (channel, position) in [
        ("a%20b", Some(1)),
        ("%C3%A9", Some(0)),
        ("abc%2Fd", Some(3)),
        ("a%00", Some(1)),
        ("a%0D%0Ab", Some(1)),
        ("a%7B", Some(1)),
        ("a*", Some(1)),
        ("ab%2Bc", Some(2)),
        ("a,b", Some(1)),
        ("%2E%2E", None),
        ("%2E", None),
        (&"n".repeat(201), None),
        ("%zz", None),
        ("%", None),
        ("a%f", None),
    ] {
        let target = format!("/v1/channels/{channel}/messages");
        let problem =
            gateway.internal("POST", &target, &[JSON], Some(b"1")).await.problem(400, "invalid_channel");
        if let Some(position) = position {
            assert_eq!(problem["position"], position, "{channel}: {problem}");
        }
    }
    // A name is what it says once decoded.
    assert_eq!(receipt(&gateway.post("%61%3Ab", &[JSON], "1").await).channel, "a:b");
    gateway.finish(()).await;
}

/// Publishes in chunks, the size unsaid.
async fn post_chunked(gateway: &TestGateway, body: &[u8]) -> Answer {
    let mut conn = Conn::open(gateway.internal).await;
    let mut bytes =
        conn.encode("POST", "/v1/channels/a/messages", &[TEXT, ("Transfer-Encoding", "chunked")], Some(b""));
    for piece in body.chunks(1000) {
        bytes.extend(format!("{:x}\r\n", piece.len()).bytes());
        bytes.extend(piece);
        bytes.extend(b"\r\n");
    }
    bytes.extend(b"0\r\n\r\n");
    let _ = conn.try_send(bytes).await;
    conn.answer("POST").await
}

#[tokio::test]
async fn a_message_may_have_as_many_bytes_as_configured_and_no_more() {
    let gateway = TestGateway::start().with("limits.message = '10KiB'").run().await;
    for media in [
        TEXT,
        ("Content-Type", "application/octet-stream"),
        ("Content-Type", "application/x-www-form-urlencoded"),
    ] {
        gateway.post("a", &[media], vec![b'x'; 10_240]).await.expect(202);
        let problem = gateway.post("a", &[media], vec![b'x'; 10_241]).await.problem(413, "message_too_large");
        assert_eq!(problem["limit"], 10_240);
        let detail = problem["detail"].as_str().expect("a detail");
        assert!(
            detail.contains("10240") || detail.contains("10 KiB") || detail.contains("10KiB"),
            "{detail}"
        );
    }
    gateway.publish("a", format!("\"{}\"", "x".repeat(10_238))).await;
    gateway.post("a", &[JSON], format!("\"{}\"", "x".repeat(10_239))).await.problem(413, "message_too_large");
    post_chunked(&gateway, &[b'x'; 10_240]).await.expect(202);
    post_chunked(&gateway, &[b'x'; 10_241]).await.problem(413, "message_too_large");
    post_chunked(&gateway, &vec![b'x'; 1_000_000]).await.problem(413, "message_too_large");
    gateway.finish(()).await;
}

#[tokio::test]
async fn the_limit_of_a_message_counts_what_is_stored() {
    let gateway = TestGateway::start().with("limits.message = '1KiB'").run().await;
    gateway.publish("a", format!("\n\n  \"{}\"  \n", "x".repeat(1022))).await;
    gateway.publish("a", format!("[\n{}1]", "1,\n".repeat(400))).await;
    gateway.finish(()).await;
}

#[tokio::test]
async fn the_default_limit_is_256_kib() {
    let gateway = TestGateway::start().run().await;
    gateway.post("a", &[TEXT], vec![b'x'; 262_144]).await.expect(202);
    let problem = gateway.post("a", &[TEXT], vec![b'x'; 262_145]).await.problem(413, "message_too_large");
    assert_eq!(problem["limit"], 262_144);
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_refusal_reaches_a_publisher_that_is_still_sending() {
    let gateway = TestGateway::start().run().await;
    for _ in 0..5 {
        let body = vec![b'x'; 4_000_000];
        gateway.post("a", &[TEXT], body).await.problem(413, "message_too_large");
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn publishing_is_not_on_the_public_listener() {
    let gateway = TestGateway::start().run().await;
    for (method, path) in [
        ("POST", "/v1/channels/a/messages"),
        ("GET", "/v1/channels/a/messages"),
        ("DELETE", "/v1/channels/a/messages"),
        ("POST", "/v1/messages"),
        ("GET", "/v1/channels"),
        ("GET", "/v1/channels/a"),
        ("POST", "/v1/disconnect"),
        ("GET", "/metrics"),
        ("GET", "/openapi.yaml"),
        ("GET", "/"),
    ] {
        let mut conn = Conn::open(gateway.public).await;
        let bytes = conn.encode(method, path, &[JSON], Some(b"1"));
        conn.send(bytes).await;
        conn.answer(method).await.problem(404, "not_found");
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn credentials_that_nobody_asked_for_are_ignored() {
    let gateway = TestGateway::start().run().await;
    gateway.post("a", &[JSON, ("Authorization", "Bearer nonsense")], "1").await.expect(202);
    gateway.get_public("/v1/subscribe?channel=a&wait=0&token=nonsense").await.expect(200);
    gateway.finish(()).await;
}

#[tokio::test]
async fn one_connection_serves_many_publishes_also_after_refusals() {
    let gateway = TestGateway::start().run().await;
    let mut conn = Conn::open(gateway.internal).await;
    let target = "/v1/channels/a/messages";
    for round in 0..20 {
        conn.request("POST", target, &[JSON], Some(b"1")).await.expect(202);
        match round % 3 {
            0 => drop(conn.request("POST", target, &[JSON], Some(b"{")).await.problem(400, "invalid_json")),
            1 => drop(
                conn.request("GET", "/v1/channels/a?x=1", &[], None).await.problem(400, "unknown_parameter"),
            ),
            _ => drop(conn.request("PUT", target, &[], None).await.problem(405, "method_not_allowed")),
        }
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_body_announced_with_expect_is_asked_for() {
    let gateway = TestGateway::start().run().await;
    let mut conn = Conn::open(gateway.internal).await;
    let headers = [TEXT, ("Expect", "100-continue"), ("Content-Length", "5")];
    let bytes = conn.encode("POST", "/v1/channels/a/messages", &headers, None);
    conn.send(bytes).await;
    assert_eq!(conn.head().await.status, 100);
    conn.send("hello").await;
    conn.answer("POST").await.expect(202);
    gateway.finish(()).await;
}

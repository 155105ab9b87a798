//! WebSocket: commands, references, errors, the raw format, frames good and bad, and closes.

use serde_json::json;
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::support::objects::{Object, at_offset};
use crate::support::raw::{BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, find, frame, frame_head};
use crate::support::{Client, Conn, End, Event, TestGateway, Transport};

const JSON: &[(&str, &str)] = &[("Content-Type", "application/json")];

async fn socket(gateway: &TestGateway, query: &str) -> Client {
    Client::connect(gateway, Transport::Websocket, query).await
}

/// A WebSocket by hand, for what no library sends.
async fn bare(gateway: &TestGateway, query: &str) -> Conn {
    let conn = Conn::open(gateway.public).await;
    conn.upgrade(&format!("/v1/subscribe?{query}"), &[]).await.expect("upgraded").0
}

/// Sends a command and reads the next object that is no message.
async fn ask(client: &mut Client, command: &str) -> Object {
    client.send(command.to_owned()).await;
    loop {
        match client.next().await {
            Event::Object(object) => return object,
            Event::Message(_) => {}
            other => panic!("after {command}: {other:?}"),
        }
    }
}

fn is_error(object: &Object, code: &str, reference: &str) {
    assert_eq!(object.kind, "error", "{}", object.text);
    assert_eq!(object.fields.names(), ["type", "code", "title", "detail", "ref"], "{}", object.text);
    assert_eq!(
        (object.string("code").as_str(), object.reference()),
        (code, Some(reference)),
        "{}",
        object.text
    );
}

#[tokio::test]
async fn a_socket_without_a_channel_stays_open_and_takes_commands() {
    let gateway = TestGateway::start().run().await;
    let mut client = socket(&gateway, "").await;
    assert_eq!(ask(&mut client, r#"{"type":"ping"}"#).await.text, r#"{"type":"pong"}"#);
    let subscribed = ask(&mut client, r#"{"type":"subscribe","channel":"a","ref":1}"#).await;
    assert_eq!(subscribed.fields.names(), ["type", "channel", "position", "recovery", "ref"]);
    assert_eq!((subscribed.string("channel"), subscribed.string("recovery")), ("a".into(), "none".into()));
    gateway.publish("a", "1").await;
    assert_eq!(client.numbers(1).await, [1]);
    gateway.finish(client).await;
}

#[tokio::test]
async fn a_since_is_held_to_the_rules_of_the_url() {
    let gateway = TestGateway::start().run().await;
    let mut client = socket(&gateway, "").await;
    let now =
        std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970").as_secs();
    for since in [format!("0-{}", now + 600), "0-9223372036854775807".to_owned(), "latest,".to_owned()] {
        let command = format!(r#"{{"type":"subscribe","channel":"a","since":"{since}","ref":1}}"#);
        is_error(&ask(&mut client, &command).await, "invalid_since", "1");
    }
    let command = r#"{"type":"subscribe","channel":"a","since":"","ref":2}"#;
    let subscribed = ask(&mut client, command).await;
    assert_eq!(subscribed.string("recovery"), "none", "what is empty counts as absent");
    let command = format!(r#"{{"type":"subscribe","channel":"b","since":"0-{}","ref":3}}"#, now + 30);
    assert_eq!(ask(&mut client, &command).await.string("recovery"), "complete", "a clock may be ahead");
    gateway.finish(client).await;
}

#[tokio::test]
async fn a_reference_comes_back_byte_for_byte() {
    let gateway = TestGateway::start().run().await;
    let mut client = socket(&gateway, "").await;
    let longest = format!("\"{}\"", "r".repeat(64));
    let long_number = "1".repeat(64);
    for reference in [
        "1",
        "-0",
        "1.50",
        "1e400",
        "1E+2",
        "12345678901234567890123",
        "\"a\"",
        "\"\"",
        "\"\\u00e9\\/\\n\"",
        "\"é🦀\"",
        &longest,
        &long_number,
    ] {
        let pong = ask(&mut client, &format!("{{\"type\":\"ping\",\"ref\": {reference} }}")).await;
        assert_eq!(pong.text, format!("{{\"type\":\"pong\",\"ref\":{reference}}}"));
    }
    // Wherever it stands.
    assert_eq!(ask(&mut client, r#"{"ref":7,"type":"ping"}"#).await.reference(), Some("7"));
    gateway.finish(client).await;
}

#[tokio::test]
async fn a_reference_that_is_too_long_or_no_scalar_is_refused() {
    let gateway = TestGateway::start().run().await;
    let mut client = socket(&gateway, "").await;
    for reference in [
        format!("\"{}\"", "r".repeat(65)),
        "1".repeat(65),
        "null".into(),
        "true".into(),
        "[]".into(),
        "{}".into(),
    ] {
        let error = ask(&mut client, &format!("{{\"type\":\"ping\",\"ref\":{reference}}}")).await;
        is_error(&error, "invalid_command", "null");
    }
    gateway.finish(client).await;
}

#[tokio::test]
async fn a_channel_is_subscribed_with_since_and_left_again() {
    let gateway = TestGateway::start().run().await;
    let ids = gateway.publish_numbers("a", 1, 5).await;
    let mut client = socket(&gateway, "").await;
    client.send(format!(r#"{{"type":"subscribe","channel":"a","since":"{}","ref":"s"}}"#, ids[2])).await;
    let subscribed = client.object().await;
    assert_eq!(
        (subscribed.string("position"), subscribed.string("recovery")),
        (ids[2].clone(), "complete".into())
    );
    assert_eq!(client.numbers(2).await, [4, 5]);
    gateway.publish("a", "6").await;
    assert_eq!(client.numbers(1).await, [6]);

    let left = ask(&mut client, r#"{"type":"unsubscribe","channel":"a","ref":2}"#).await;
    assert_eq!(left.text, r#"{"type":"unsubscribed","channel":"a","code":"requested","ref":2}"#);
    gateway.until_subscribers("a", 0).await;
    gateway.publish("a", "7").await;
    client.send(r#"{"type":"subscribe","channel":"a"}"#).await;
    assert!(matches!(client.next().await, Event::Subscribed { .. }), "without a ref");
    gateway.publish("a", "8").await;
    assert_eq!(client.numbers(1).await, [8], "what was published meanwhile does not come");
    gateway.finish(client).await;
}

#[tokio::test]
async fn a_gap_follows_its_subscribed() {
    let gateway = TestGateway::start().namespace("default", "history_messages = 2").run().await;
    let ids = gateway.publish_numbers("a", 1, 5).await;
    let mut client = socket(&gateway, "").await;
    client.send(format!(r#"{{"type":"subscribe","channel":"a","since":"{}","ref":1}}"#, ids[0])).await;
    assert_eq!(client.object().await.string("recovery"), "gap");
    assert_eq!(client.gap().await, ("trimmed".into(), ids[0].clone(), ids[2].clone()));
    assert_eq!(client.numbers(2).await, [4, 5]);
    gateway.finish(client).await;
}

#[tokio::test]
async fn what_a_client_publishes_arrives_as_from_a_backend() {
    let gateway = TestGateway::start().run().await;
    let mut client = socket(&gateway, "channel=a").await;
    let mut other = Client::connect(&gateway, Transport::Ndjson, "channel=a").await;
    for command in [
        r#"{"type":"publish","channel":"a","data":{ "x" : 1.00 },"event":"e","ref":1}"#,
        r#"{"type":"publish","channel":"a","data":"text é","ref":2}"#,
        r#"{"type":"publish","channel":"a","data_base64":"/w==","ref":3}"#,
        r#"{"type":"publish","channel":"a","data":null,"ref":4}"#,
    ] {
        client.send(command).await;
    }
    let (mut published, mut own) = (Vec::new(), Vec::new());
    while published.len() + own.len() < 8 {
        match client.next().await {
            Event::Object(object) => published.push(object),
            Event::Message(message) => own.push(message),
            other => panic!("{other:?}"),
        }
    }
    let references: Vec<_> = published.iter().map(|object| object.reference().expect("a ref")).collect();
    assert_eq!(references, ["1", "2", "3", "4"], "answered in order");
    assert_eq!(published[0].fields.names(), ["type", "channel", "id", "duplicate", "ref"]);
    let ids: Vec<String> = published.iter().map(|object| object.string("id")).collect();
    assert_eq!(
        own.iter().map(|message| message.id.clone()).collect::<Vec<_>>(),
        ids,
        "the sender receives its own"
    );
    assert_eq!(other.messages(4).await, own);
    assert_eq!((own[0].data.as_deref(), own[0].event.as_deref()), (Some("{ \"x\" : 1.00 }"), Some("e")));
    assert_eq!((own[1].string().as_str(), own[2].data_base64.as_deref()), ("text é", Some("/w==")));
    gateway.finish((client, other)).await;
}

#[tokio::test]
async fn an_idempotency_key_holds_over_websocket_and_http() {
    let gateway = TestGateway::start().run().await;
    let mut client = socket(&gateway, "").await;
    let first =
        ask(&mut client, r#"{"type":"publish","channel":"a","data":{"n":1},"idempotency_key":"k"}"#).await;
    let again =
        ask(&mut client, r#"{"type":"publish","channel":"a","data":{"n":1},"idempotency_key":"k"}"#).await;
    assert_eq!(
        (first.fields.text("duplicate"), again.fields.text("duplicate")),
        (Some("false"), Some("true"))
    );
    assert_eq!(first.string("id"), again.string("id"));
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "k")];
    let http = gateway.post("a", &headers, r#"{"n":1}"#).await.expect(202).json();
    assert_eq!((http["id"].as_str(), &http["duplicate"]), (Some(first.string("id").as_str()), &json!(true)));
    let other =
        ask(&mut client, r#"{"type":"publish","channel":"a","data":{"n":2},"idempotency_key":"k","ref":9}"#)
            .await;
    is_error(&other, "idempotency_key_reused", "9");
    gateway.finish(client).await;
}

#[tokio::test]
async fn a_well_formed_command_that_is_refused_says_why_and_costs_nothing() {
    let gateway = TestGateway::start().with("limits.message = '1KiB'").run().await;
    gateway.publish("b", "1").await;
    let mut client = socket(&gateway, "channel=a").await;
    let large = format!(r#"{{"type":"publish","channel":"a","data":"{}","ref":1}}"#, "x".repeat(1025));
    for _ in 0..5 {
        for (command, code) in [
            (r#"{"type":"subscribe","channel":"a","ref":1}"#, "already_subscribed"),
            (r#"{"type":"unsubscribe","channel":"b","ref":1}"#, "not_subscribed"),
            (r#"{"type":"subscribe","channel":"a b","ref":1}"#, "invalid_channel"),
            (r#"{"type":"subscribe","channel":"","ref":1}"#, "invalid_channel"),
            (r#"{"type":"subscribe","channel":"b","since":"x","ref":1}"#, "invalid_since"),
            (r#"{"type":"subscribe","channel":"b","since":"latest,latest","ref":1}"#, "invalid_since"),
            (r#"{"type":"publish","channel":"..","data":1,"ref":1}"#, "invalid_channel"),
            (r#"{"type":"publish","channel":"a","data":1,"event":"open","ref":1}"#, "invalid_command"),
            (
                r#"{"type":"publish","channel":"a","data":1,"idempotency_key":"a b","ref":1}"#,
                "invalid_command",
            ),
            (&large, "message_too_large"),
        ] {
            is_error(&ask(&mut client, command).await, code, "1");
        }
    }
    gateway.publish("a", "1").await;
    assert_eq!(client.numbers(1).await, [1], "50 refusals later");
    gateway.finish(client).await;
}

#[tokio::test]
async fn what_is_no_command_gets_an_error_and_the_socket_lives() {
    let gateway = TestGateway::start().run().await;
    let mut client = socket(&gateway, "channel=a").await;
    for text in [
        "Hello Server!",
        "",
        "{",
        "[]",
        "1",
        "{}",
        r#"{"type":"dance"}"#,
        r#"{"type":1}"#,
        r#"{"channel":"a"}"#,
        r#"{"type":"ping","extra":1}"#,
        r#"{"type":"ping","type":"ping"}"#,
        r#"{"type":"subscribe"}"#,
        r#"{"type":"subscribe","channel":1}"#,
        r#"{"type":"publish","channel":"a"}"#,
        r#"{"type":"publish","channel":"a","data":1,"data_base64":"AA=="}"#,
        r#"{"type":"publish","channel":"a","data":1,"data":2}"#,
    ] {
        let error = ask(&mut client, text).await;
        assert_eq!(error.kind, "error", "{text}: {}", error.text);
        let code = error.string("code");
        assert!(matches!(code.as_str(), "invalid_command" | "invalid_json"), "{text}: {}", error.text);
        assert_eq!(error.reference(), Some("null"), "{text}");
    }
    gateway.publish("a", "1").await;
    assert_eq!(client.numbers(1).await, [1]);
    gateway.finish(client).await;
}

#[tokio::test]
async fn the_error_of_a_readable_frame_keeps_its_reference() {
    let gateway = TestGateway::start().run().await;
    let mut client = socket(&gateway, "").await;
    is_error(&ask(&mut client, r#"{"type":"dance","ref":"x"}"#).await, "invalid_command", "\"x\"");
    is_error(&ask(&mut client, r#"{"type":"ping","extra":1,"ref":2}"#).await, "invalid_command", "2");
    gateway.finish(client).await;
}

#[tokio::test]
async fn the_twentieth_bad_frame_within_a_minute_ends_it() {
    let gateway = TestGateway::start().run().await;
    let mut client = socket(&gateway, "channel=a").await;
    for _ in 0..19 {
        assert_eq!(ask(&mut client, "x").await.kind, "error");
    }
    client.send("x").await;
    let (goodbye, end) = client.end().await;
    assert_eq!(goodbye, Some(("bad_request".to_owned(), None)));
    assert!(matches!(&end, End::Close(4400, reason) if reason == "bad_request"), "{end:?}");
    gateway.finish(client).await;
}

#[tokio::test]
async fn commands_sent_without_waiting_are_answered_in_order() {
    let gateway = TestGateway::start().with("limits.commands_per_second = 100000").run().await;
    let mut client = socket(&gateway, "").await;
    for number in 0..400_u32 {
        let command = match number % 5 {
            0 => {
                json!({"type": "subscribe", "channel": format!("c{}", number / 5), "since": "earliest", "ref": number})
            }
            1 => {
                json!({"type": "publish", "channel": format!("c{}", number / 5), "data": number, "ref": number})
            }
            2 => json!({"type": "ping", "ref": number}),
            3 => json!({"type": "publish", "channel": "a b", "data": 1, "ref": number}),
            _ => json!({"type": "unsubscribe", "channel": format!("c{}", number / 5), "ref": number}),
        };
        client.send(command.to_string()).await;
    }
    let kinds = ["subscribed", "published", "pong", "error", "unsubscribed"];
    let mut next = 0_usize;
    while next < 400 {
        match client.next().await {
            Event::Object(object) => {
                assert_eq!(object.reference(), Some(next.to_string().as_str()), "{}", object.text);
                assert_eq!(object.kind, kinds[next % 5]);
                next += 1;
            }
            Event::Message(_) => {}
            other => panic!("{other:?}"),
        }
    }
    gateway.finish(client).await;
}

#[tokio::test]
async fn without_a_rate_commands_are_read_as_they_come() {
    let gateway = TestGateway::start().with("limits.commands_per_second = 0").run().await;
    let mut client = socket(&gateway, "").await;
    let begun = std::time::Instant::now();
    for number in 0..1000 {
        client.send(format!(r#"{{"type":"ping","ref":{number}}}"#)).await;
    }
    for number in 0..1000 {
        assert_eq!(client.object().await.reference(), Some(number.to_string().as_str()));
    }
    assert!(begun.elapsed().as_secs() < 10, "1,000 commands took {:?}", begun.elapsed());
    gateway.finish(client).await;
}

#[tokio::test]
async fn too_many_commands_are_read_more_slowly_and_all_answered() {
    let gateway = TestGateway::start().with("limits.commands_per_second = 50").run().await;
    let mut client = socket(&gateway, "").await;
    let begun = std::time::Instant::now();
    for number in 0..150 {
        client.send(format!(r#"{{"type":"ping","ref":{number}}}"#)).await;
    }
    for number in 0..150 {
        assert_eq!(client.object().await.reference(), Some(number.to_string().as_str()));
    }
    assert!(begun.elapsed().as_millis() > 900, "150 commands at 50 a second took {:?}", begun.elapsed());
    let held_back = gateway.metric("tidegate_rate_limited_total", &[("scope", "commands")]).await;
    assert!((1.0..=100.0).contains(&held_back), "held back {held_back} times");
    assert_eq!(gateway.metric("tidegate_rate_limited_total", &[("scope", "connects")]).await, 0.0);
    gateway.finish(client).await;
}

#[tokio::test]
async fn a_connection_has_as_many_channels_as_configured_and_no_more() {
    let gateway = TestGateway::start()
        .with("limits.channels_per_connection = 3")
        .with("limits.commands_per_second = 1000")
        .run()
        .await;
    let mut client = socket(&gateway, "channel=a&channel=b").await;
    assert_eq!(ask(&mut client, r#"{"type":"subscribe","channel":"c","ref":1}"#).await.kind, "subscribed");
    is_error(
        &ask(&mut client, r#"{"type":"subscribe","channel":"d","ref":2}"#).await,
        "too_many_channels",
        "2",
    );
    assert_eq!(
        ask(&mut client, r#"{"type":"unsubscribe","channel":"a","ref":3}"#).await.kind,
        "unsubscribed"
    );
    assert_eq!(ask(&mut client, r#"{"type":"subscribe","channel":"d","ref":4}"#).await.kind, "subscribed");
    gateway.finish(client).await;
}

#[tokio::test]
async fn authenticating_where_nobody_asks_is_answered_with_nulls() {
    let gateway = TestGateway::start().run().await;
    let mut client = socket(&gateway, "").await;
    let answer = ask(&mut client, r#"{"type":"authenticate","token":"whatever","ref":1}"#).await;
    assert_eq!(answer.text, r#"{"type":"authenticated","subject":null,"expires_at":null,"ref":1}"#);
    gateway.finish(client).await;
}

#[tokio::test]
async fn raw_is_a_plain_two_way_socket() {
    let gateway = TestGateway::start().run().await;
    let mut conn = bare(&gateway, "channel=a&format=raw").await;
    let mut other = Client::connect(&gateway, Transport::Sse, "channel=a").await;
    // The best-known snippet.
    conn.send(frame(true, TEXT, b"Hello Server!")).await;
    let own = conn.data_frame().await.expect("the own message, and nothing before it");
    assert_eq!((own.opcode, own.text()), (TEXT, "Hello Server!"));
    assert_eq!(other.message().await.string(), "Hello Server!");
    for (opcode, payload, data) in [
        (TEXT, &br#"{"a": 1.0}"#[..], Some(r#"{"a": 1.0}"#)),
        (TEXT, b"42", Some("42")),
        (TEXT, b"", Some("\"\"")),
        (TEXT, b"{\"a\":", Some("\"{\\\"a\\\":\"")),
        (BINARY, b"\x00\xff", None),
        (BINARY, b"text", None),
    ] {
        conn.send(frame(true, opcode, payload)).await;
        let own = conn.data_frame().await.expect("a frame");
        assert_eq!((own.opcode, own.payload.as_slice()), (opcode, payload));
        assert_eq!(other.message().await.data.as_deref(), data);
    }
    // From a backend.
    gateway.post("a", JSON, " {\"b\":\n2} ").await.expect(202);
    assert_eq!(conn.data_frame().await.expect("a frame").text(), "{\"b\":2}");
    gateway.post("a", &[("Content-Type", "text/plain")], "line\r\nline").await.expect(202);
    assert_eq!(conn.data_frame().await.expect("a frame").text(), "line\r\nline");
    gateway.post("a", &[("Content-Type", "image/png")], "abc").await.expect(202);
    let bytes = conn.data_frame().await.expect("a frame");
    assert_eq!((bytes.opcode, bytes.payload.as_slice()), (BINARY, &b"abc"[..]));
    gateway.finish((conn, other)).await;
}

#[tokio::test]
async fn raw_replays_and_says_nothing_else() {
    let gateway = TestGateway::start().run().await;
    let ids = gateway.publish_numbers("a", 1, 5).await;
    let mut conn = bare(&gateway, &format!("channel=a&format=raw&since={}", ids[1])).await;
    for number in 3..=5 {
        assert_eq!(conn.data_frame().await.expect("a frame").text(), number.to_string());
    }
    gateway.finish(conn).await;
}

#[tokio::test]
async fn raw_wants_exactly_one_channel() {
    let gateway = TestGateway::start().run().await;
    for (query, code) in
        [("format=raw", "channel_required"), ("channel=a&channel=b&format=raw", "too_many_channels")]
    {
        let refused = Conn::open(gateway.public).await.upgrade(&format!("/v1/subscribe?{query}"), &[]).await;
        refused.expect_err("refused").problem(400, code);
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_gap_in_raw_closes_with_the_position_to_come_back_with() {
    let gateway = TestGateway::start().namespace("default", "history_messages = 2").run().await;
    let ids = gateway.publish_numbers("a", 1, 5).await;
    let mut conn = bare(&gateway, &format!("channel=a&format=raw&since={}", ids[0])).await;
    let close = conn.data_frame().await.expect("a close frame");
    assert_eq!(close.opcode, CLOSE, "no message before the gap: {close:?}");
    assert_eq!(close.payload[..2], 4409_u16.to_be_bytes());
    let reason = std::str::from_utf8(&close.payload[2..]).expect("UTF-8");
    assert_eq!(reason, format!("gap {}", ids[2]));
    let position = reason.strip_prefix("gap ").expect("the position");
    let mut back = bare(&gateway, &format!("channel=a&format=raw&since={position}")).await;
    assert_eq!(back.data_frame().await.expect("a frame").text(), "4");
    gateway.finish((conn, back)).await;
}

#[tokio::test]
async fn the_greeting_without_raw_is_an_error_and_published_to_nobody() {
    let gateway = TestGateway::start().run().await;
    let mut client = socket(&gateway, "channel=a").await;
    client.send("Hello Server!").await;
    assert_eq!(client.object().await.kind, "error");
    assert_eq!(gateway.get("/v1/channels/a").await["messages"], 0, "nothing was published");
    gateway.finish(client).await;
}

#[tokio::test]
async fn a_message_may_come_in_fragments_with_pings_between() {
    let gateway = TestGateway::start().run().await;
    let mut conn = bare(&gateway, "").await;
    conn.send(frame(false, TEXT, br#"{"type":"#)).await;
    conn.send(frame(true, PING, b"now")).await;
    conn.send(frame(false, CONTINUATION, b"")).await;
    conn.send(frame(false, CONTINUATION, br#""ping","#)).await;
    conn.send(frame(true, CONTINUATION, br#""ref":1}"#)).await;
    let pong = conn.frame().await.expect("the pong first");
    assert_eq!((pong.opcode, pong.payload.as_slice()), (PONG, &b"now"[..]));
    assert_eq!(conn.data_frame().await.expect("an answer").text(), r#"{"type":"pong","ref":1}"#);
    // A character may be cut in two.
    let crab = "{\"type\":\"ping\",\"ref\":\"🦀\"}".as_bytes();
    conn.send(frame(false, TEXT, &crab[..24])).await;
    conn.send(frame(true, CONTINUATION, &crab[24..])).await;
    assert_eq!(conn.data_frame().await.expect("an answer").text(), "{\"type\":\"pong\",\"ref\":\"🦀\"}");
    gateway.finish(conn).await;
}

#[tokio::test]
async fn frames_arrive_however_the_network_cuts_them() {
    let gateway = TestGateway::start().run().await;
    let mut conn = bare(&gateway, "").await;
    conn.stream.set_nodelay(true).expect("sets nodelay");
    for byte in frame(true, TEXT, br#"{"type":"ping","ref":1}"#) {
        conn.send([byte]).await;
        tokio::task::yield_now().await;
    }
    assert_eq!(conn.data_frame().await.expect("an answer").text(), r#"{"type":"pong","ref":1}"#);
    let many: Vec<u8> = (0..30)
        .flat_map(|number| frame(true, TEXT, format!(r#"{{"type":"ping","ref":{number}}}"#).as_bytes()))
        .collect();
    conn.send(many).await;
    for number in 0..30 {
        assert_eq!(
            conn.data_frame().await.expect("an answer").text(),
            format!(r#"{{"type":"pong","ref":{number}}}"#)
        );
    }
    gateway.finish(conn).await;
}

#[tokio::test]
async fn frames_sent_with_the_handshake_are_not_lost() {
    let gateway = TestGateway::start().run().await;
    let mut conn = Conn::open(gateway.public).await;
    let headers = [
        ("Connection", "keep-alive, Upgrade"),
        ("Upgrade", "WebSocket"),
        ("Sec-WebSocket-Version", "13"),
        ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
    ];
    let mut bytes = conn.encode("GET", "/v1/subscribe", &headers, None);
    bytes.extend(frame(true, TEXT, br#"{"type":"ping","ref":1}"#));
    bytes.extend(frame(true, TEXT, br#"{"type":"ping","ref":2}"#));
    conn.send(bytes).await;
    assert_eq!(conn.head().await.status, 101);
    for reference in 1..=2 {
        assert_eq!(
            conn.data_frame().await.expect("an answer").text(),
            format!(r#"{{"type":"pong","ref":{reference}}}"#)
        );
    }
    gateway.finish(conn).await;
}

#[tokio::test]
async fn pings_are_answered_with_their_own_payload() {
    let gateway = TestGateway::start().run().await;
    let mut conn = bare(&gateway, "channel=a").await;
    conn.data_frame().await.expect("subscribed");
    for payload in [&b""[..], b"x", &[0xff; 125]] {
        conn.send(frame(true, PING, payload)).await;
        let pong = conn.frame().await.expect("a pong");
        assert_eq!((pong.opcode, pong.payload.as_slice()), (PONG, payload));
    }
    // A pong that nobody asked for is no fault.
    conn.send(frame(true, PONG, b"unasked")).await;
    conn.send(frame(true, PING, b"still here")).await;
    assert_eq!(conn.frame().await.expect("a pong").payload, b"still here");
    gateway.finish(conn).await;
}

#[tokio::test]
async fn a_frame_may_have_64_kib_all_fragments_together() {
    let gateway = TestGateway::start().run().await;
    let mut conn = bare(&gateway, "").await;
    let command = |bytes: usize| {
        let around = r#"{"type":"publish","channel":"a","data":""}"#.len();
        format!(r#"{{"type":"publish","channel":"a","data":"{}"}}"#, "x".repeat(bytes - around)).into_bytes()
    };
    conn.send(frame(true, TEXT, &command(65_536))).await;
    assert!(conn.data_frame().await.expect("an answer").text().contains("published"));
    let whole = command(65_536);
    conn.send(frame(false, TEXT, &whole[..30_000])).await;
    conn.send(frame(true, CONTINUATION, &whole[30_000..])).await;
    assert!(conn.data_frame().await.expect("an answer").text().contains("published"));
    conn.send(frame(true, TEXT, &command(65_537))).await;
    let (code, reason) = conn.close_frame().await;
    assert_eq!((code, reason.as_str()), (1009, "too_big"));

    let mut conn = bare(&gateway, "").await;
    let large = command(65_537);
    conn.send(frame(false, TEXT, &large[..40_000])).await;
    conn.send(frame(true, CONTINUATION, &large[40_000..])).await;
    assert_eq!(conn.close_frame().await.0, 1009);
    gateway.finish(conn).await;
}

#[tokio::test]
async fn a_frame_is_refused_by_the_length_that_it_declares() {
    let gateway = TestGateway::start().run().await;
    for length in [65_537, 1 << 31, 1 << 40, (1 << 63) - 1] {
        let mut conn = bare(&gateway, "channel=a&format=raw").await;
        conn.send([frame_head(true, BINARY, length, true), vec![0; 4]].concat()).await;
        assert_eq!(conn.close_frame().await.0, 1009, "{length}");
        assert!(conn.closed_within(std::time::Duration::from_secs(5)).await);
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn the_limit_of_a_frame_is_configured() {
    let gateway = TestGateway::start().with("limits.frame = '1KiB'").run().await;
    let mut conn = bare(&gateway, "channel=a&format=raw").await;
    conn.send(frame(true, TEXT, &[b'x'; 1024])).await;
    assert_eq!(conn.data_frame().await.expect("a frame").payload.len(), 1024);
    conn.send(frame(true, TEXT, &[b'x'; 1025])).await;
    assert_eq!(conn.close_frame().await.0, 1009);
    gateway.finish(conn).await;
}

#[tokio::test]
async fn a_close_reaches_a_client_that_is_still_sending() {
    let gateway = TestGateway::start().run().await;
    for _ in 0..5 {
        let mut conn = bare(&gateway, "").await;
        let _ = conn.try_send(frame(true, TEXT, &vec![b'x'; 1_500_000])).await;
        assert_eq!(conn.close_frame().await.0, 1009);
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn broken_frames_end_the_connection_with_their_code_and_no_goodbye() {
    let gateway = TestGateway::start().run().await;
    let mut unmasked = frame_head(true, TEXT, 2, false);
    unmasked.extend(b"{}");
    let mut reserved = frame(true, TEXT, b"{}");
    reserved[0] |= 0x40;
    let mut long_control = frame_head(true, PING, 126, true);
    long_control.extend([0; 130]);
    let twice = [frame(false, TEXT, b"a"), frame(true, TEXT, b"b")].concat();
    let bad_second_half = [frame(false, TEXT, b"\xf0\x9f"), frame(true, CONTINUATION, b"xx")].concat();
    let huge = [vec![0x82, 0xff], vec![0xff; 8], vec![0; 4]].concat();
    for (what, bytes, code, reason) in [
        ("unmasked", unmasked, 1002, "protocol_error"),
        ("a reserved bit", reserved, 1002, "protocol_error"),
        ("opcode 3", frame(true, 3, b""), 1002, "protocol_error"),
        ("opcode 11", frame(true, 11, b""), 1002, "protocol_error"),
        ("a continuation of nothing", frame(true, CONTINUATION, b"a"), 1002, "protocol_error"),
        ("a text within a text", twice, 1002, "protocol_error"),
        ("a fragmented ping", frame(false, PING, b""), 1002, "protocol_error"),
        ("a long ping", long_control, 1002, "protocol_error"),
        ("a close with half a code", frame(true, CLOSE, b"\x03"), 1002, "protocol_error"),
        ("a close with 1005", frame(true, CLOSE, &1005_u16.to_be_bytes()), 1002, "protocol_error"),
        ("a close with 999", frame(true, CLOSE, &999_u16.to_be_bytes()), 1002, "protocol_error"),
        ("a close whose reason is no text", frame(true, CLOSE, b"\x03\xe8\xff"), 1007, "bad_utf8"),
        ("a text that is none", frame(true, TEXT, b"\xff"), 1007, "bad_utf8"),
        ("a text that is none in its second half", bad_second_half, 1007, "bad_utf8"),
        ("a binary frame", frame(true, BINARY, b"{}"), 1003, "unwanted_data"),
        ("a length with its highest bit set", huge, 0, ""),
    ] {
        let mut conn = bare(&gateway, "channel=a").await;
        conn.data_frame().await.expect("subscribed");
        conn.send(bytes).await;
        let close = conn.data_frame().await.unwrap_or_else(|| panic!("{what}: no close frame"));
        assert_eq!(close.opcode, CLOSE, "{what}: the close frame alone, not {close:?}");
        let found = u16::from_be_bytes([close.payload[0], close.payload[1]]);
        if code == 0 {
            assert!(matches!(found, 1002 | 1009), "{what}: {found}");
        } else {
            assert_eq!((found, &close.payload[2..]), (code, reason.as_bytes()), "{what}");
        }
        assert!(conn.closed_within(std::time::Duration::from_secs(5)).await, "{what}");
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn bad_text_ends_a_raw_socket_too() {
    let gateway = TestGateway::start().run().await;
    let mut conn = bare(&gateway, "channel=a&format=raw").await;
    conn.send(frame(true, TEXT, b"\xc3\x28")).await;
    assert_eq!(conn.close_frame().await.0, 1007);
    assert_eq!(gateway.get("/v1/channels/a").await["messages"], 0);
    gateway.finish(conn).await;
}

#[tokio::test]
async fn a_close_is_echoed_and_then_the_connection_ends() {
    let gateway = TestGateway::start().run().await;
    for code in [1000_u16, 1001, 1011, 3000, 4999] {
        let mut conn = bare(&gateway, "channel=a").await;
        conn.data_frame().await.expect("subscribed");
        conn.send(frame(true, CLOSE, &[&code.to_be_bytes()[..], b"bye"].concat())).await;
        let echo = conn.data_frame().await.expect("the echo");
        assert_eq!((echo.opcode, &echo.payload[..2]), (CLOSE, &code.to_be_bytes()[..]), "{code}");
        assert!(conn.closed_within(std::time::Duration::from_secs(5)).await, "{code}");
    }
    let mut conn = bare(&gateway, "channel=a").await;
    conn.data_frame().await.expect("subscribed");
    conn.send(frame(true, CLOSE, b"")).await;
    let echo = conn.data_frame().await.expect("the echo");
    assert_eq!(echo.opcode, CLOSE);
    assert!(echo.payload.is_empty() || echo.payload[..2] == 1000_u16.to_be_bytes());
    let mut client = socket(&gateway, "channel=a").await;
    assert!(matches!(client.close(1000).await, End::Close(1000, _)));
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_binary_frame_is_unwanted_in_json() {
    let gateway = TestGateway::start().run().await;
    let mut client = socket(&gateway, "channel=a").await;
    client.send_frame(Frame::Binary(vec![1].into())).await;
    let (goodbye, end) = client.end().await;
    assert_eq!(goodbye, None);
    assert!(matches!(&end, End::Close(1003, reason) if reason == "unwanted_data"), "{end:?}");
    gateway.finish(client).await;
}

#[tokio::test]
async fn only_the_subprotocol_without_the_token_is_chosen() {
    let gateway = TestGateway::start().run().await;
    let offer = |value: &'static str| {
        let address = gateway.public;
        async move {
            Conn::open(address)
                .await
                .upgrade("/v1/subscribe?channel=a", &[("Sec-WebSocket-Protocol", value)])
                .await
        }
    };
    for (offered, chosen) in [
        ("tidegate.v1", Some("tidegate.v1")),
        ("tidegate.v1, tidegate.token.eyJh.bGci.x-_", Some("tidegate.v1")),
        ("tidegate.token.eyJh.bGci.x-_,tidegate.v1", Some("tidegate.v1")),
    ] {
        let (_, head) = offer(offered).await.expect("upgraded");
        assert_eq!(head.header("sec-websocket-protocol"), chosen, "{offered}");
    }
    offer("tidegate.token.eyJh.bGci.x-_").await.expect_err("refused").problem(400, "invalid_header");
    let (_, head) = bare_head(&gateway).await;
    assert_eq!(head.header("sec-websocket-protocol"), None);
    gateway.finish(()).await;
}

async fn bare_head(gateway: &TestGateway) -> (Conn, crate::support::raw::Head) {
    let offer = [("Sec-WebSocket-Extensions", "permessage-deflate; client_max_window_bits")];
    Conn::open(gateway.public).await.upgrade("/v1/subscribe?channel=a", &offer).await.expect("upgraded")
}

#[tokio::test]
async fn nothing_is_compressed() {
    let gateway = TestGateway::start().run().await;
    let (mut conn, head) = bare_head(&gateway).await;
    assert_eq!(head.header("sec-websocket-extensions"), None);
    conn.data_frame().await.expect("subscribed");
    gateway.publish("a", format!("\"{}\"", "x".repeat(70_000))).await;
    let message = conn.data_frame().await.expect("a message");
    assert!(message.fin && message.payload.len() > 70_000 && find(&message.payload, b"xxxx").is_some());
    gateway.finish(conn).await;
}

#[tokio::test]
async fn since_of_a_command_is_a_single_entry_or_keyword() {
    let gateway = TestGateway::start().run().await;
    let ids = gateway.publish_numbers("a", 1, 5).await;
    for (since, wanted) in [
        ("earliest".to_owned(), 1),
        ("last:2".to_owned(), 4),
        (at_offset(&ids[0], 3), 4),
        (at_offset(&ids[0], 0), 1),
    ] {
        let mut client = socket(&gateway, "").await;
        let command = format!(r#"{{"type":"subscribe","channel":"a","since":"{since}","ref":1}}"#);
        assert_eq!(ask(&mut client, &command).await.kind, "subscribed");
        assert_eq!(client.numbers(1).await, [wanted], "{since}");
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_flood_that_lasts_ends_as_rate_limited() {
    let gateway = TestGateway::start().with("limits.commands_per_second = 5").run().await;
    let mut conn = bare(&gateway, "").await;
    let ping = frame(true, TEXT, br#"{"type":"ping"}"#);
    let many: Vec<u8> = std::iter::repeat_n(ping, 20_000).flatten().collect();
    // More than what any buffer on the way holds; the send ends with the connection.
    let (stream, _) = conn.into_parts();
    let (reader, mut writer) = stream.into_split();
    let flood = tokio::spawn(async move {
        use tokio::io::AsyncWriteExt;
        while writer.write_all(&many).await.is_ok() {}
    });
    let mut seen = Vec::new();
    let mut reader = tokio::io::BufReader::new(reader);
    let read = async {
        use tokio::io::AsyncReadExt;
        let _ = reader.read_to_end(&mut seen).await;
    };
    let begun = std::time::Instant::now();
    crate::support::within(std::time::Duration::from_secs(40), "the end of a flood", read).await;
    flood.abort();
    assert!(begun.elapsed().as_secs() >= 9, "closed after {:?}", begun.elapsed());
    let text = String::from_utf8_lossy(&seen);
    assert!(
        text.contains(r#"{"type":"goodbye","code":"rate_limited","reconnect_after_ms":"#),
        "{text:.2000}"
    );
    assert!(
        find(&seen, &[&4429_u16.to_be_bytes()[..], b"rate_limited "].concat()).is_some(),
        "the close frame"
    );
    conn = bare(&gateway, "").await;
    gateway.finish(conn).await;
}

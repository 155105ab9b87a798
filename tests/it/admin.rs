//! History, channel information, the list of channels, delete and disconnect.

use std::time::Duration;

use serde_json::json;

use crate::support::client::Document;
use crate::support::objects::{Fields, split_position};
use crate::support::{Client, Conn, End, TestGateway, Transport, within};

/// One page of a channel's history.
async fn page(gateway: &TestGateway, query: &str) -> Document {
    let answer = gateway.internal("GET", &format!("/v1/channels/a/messages{query}"), &[], None).await;
    let document = Document::of(&answer);
    assert!(document.more.is_some(), "a history says whether there is more");
    document
}

#[tokio::test]
async fn history_is_read_page_by_page_from_the_earliest() {
    let gateway = TestGateway::start().run().await;
    gateway.publish_numbers("a", 1, 25).await;
    let (mut query, mut seen, mut pages) = ("?limit=10".to_owned(), Vec::new(), 0);
    loop {
        let document = page(&gateway, &query).await;
        seen.extend(document.numbers());
        pages += 1;
        query = format!("?limit=10&since={}", document.cursor);
        if document.more == Some(false) {
            break;
        }
        assert_eq!(document.messages.len(), 10);
    }
    assert_eq!((seen, pages), ((1..=25).collect(), 3));
    let after = page(&gateway, &query).await;
    assert!(after.messages.is_empty() && after.more == Some(false));
    gateway.finish(()).await;
}

#[tokio::test]
async fn history_begins_where_since_says() {
    let gateway = TestGateway::start().run().await;
    let ids = gateway.publish_numbers("a", 1, 5).await;
    assert_eq!(page(&gateway, "").await.numbers(), [1, 2, 3, 4, 5]);
    assert_eq!(page(&gateway, "?since=earliest").await.numbers(), [1, 2, 3, 4, 5]);
    assert_eq!(page(&gateway, "?since=").await.numbers(), [1, 2, 3, 4, 5]);
    assert_eq!(page(&gateway, "?since=last:2").await.numbers(), [4, 5]);
    assert_eq!(page(&gateway, &format!("?since={}", ids[2])).await.numbers(), [4, 5]);
    assert!(page(&gateway, "?since=latest").await.messages.is_empty());
    assert_eq!(page(&gateway, &format!("?since={}&limit=1", ids[2])).await.cursor, ids[3]);
    let headers = [("Last-Event-ID", ids[3].as_str())];
    let answer = gateway.internal("GET", "/v1/channels/a/messages", &headers, None).await;
    assert_eq!(Document::of(&answer).numbers(), [1, 2, 3, 4, 5], "Last-Event-ID is for those who follow");
    gateway.finish(()).await;
}

#[tokio::test]
async fn history_tells_gaps() {
    let gateway = TestGateway::start().namespace("default", "history_messages = 2").run().await;
    let ids = gateway.publish_numbers("a", 1, 5).await;
    let document = page(&gateway, &format!("?since={}", ids[0])).await;
    let gap = Fields::parse(&document.gaps[0]);
    assert_eq!(
        (gap.string("reason"), gap.string("from"), gap.string("to")),
        ("trimmed".into(), ids[0].clone(), ids[2].clone())
    );
    assert_eq!(document.numbers(), [4, 5]);
    assert_eq!(document.cursor, ids[4]);
    gateway.finish(()).await;
}

#[tokio::test]
async fn history_of_an_unused_channel_is_empty() {
    let gateway = TestGateway::start().run().await;
    let document = page(&gateway, "").await;
    assert!(document.messages.is_empty() && document.gaps.is_empty() && document.more == Some(false));
    assert!(document.cursor.starts_with("0-"), "{}", document.cursor);
    gateway.finish(()).await;
}

#[tokio::test]
async fn history_refuses_bad_parameters() {
    let gateway = TestGateway::start().run().await;
    for (query, code) in [
        ("?limit=0", "invalid_parameter"),
        ("?limit=1001", "invalid_parameter"),
        ("?limit=x", "invalid_parameter"),
        ("?limit=", "invalid_parameter"),
        ("?limit=1&limit=2", "invalid_parameter"),
        ("?since=x", "invalid_since"),
        ("?since=latest,latest", "invalid_since"),
        ("?sinse=latest", "unknown_parameter"),
        ("?wait=1", "unknown_parameter"),
    ] {
        let answer = gateway.internal("GET", &format!("/v1/channels/a/messages{query}"), &[], None).await;
        answer.problem(400, code);
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn history_keeps_to_a_mebibyte_a_page() {
    let gateway = TestGateway::start().namespace("default", "history_bytes = '8MiB'").run().await;
    let body = format!("\"{}\"", "x".repeat(199_998));
    for _ in 0..20 {
        gateway.publish("a", &body).await;
    }
    let (mut query, mut count) = ("?limit=1000".to_owned(), 0);
    loop {
        let answer = gateway.internal("GET", &format!("/v1/channels/a/messages{query}"), &[], None).await;
        let document = Document::of(&answer);
        assert!((1..=5).contains(&document.messages.len()), "{} messages of 200 kB", document.messages.len());
        count += document.messages.len();
        query = format!("?limit=1000&since={}", document.cursor);
        if document.more == Some(false) {
            break;
        }
    }
    assert_eq!(count, 20);
    gateway.finish(()).await;
}

#[tokio::test]
async fn documents_keep_to_a_mebibyte_as_they_are_written() {
    let limits = "history_bytes = '8MiB'\nhistory_messages = 2000";
    let gateway = TestGateway::start().namespace("default", limits).run().await;
    let text = [("Content-Type", "text/plain")];
    // JSON writes six bytes for each of the one; the other is large by its envelopes and commas alone.
    for (channel, count, body) in [("long", 4, "\u{1}".repeat(200_000)), ("many", 1000, "x".repeat(1040))] {
        for _ in 0..count {
            gateway.post(channel, &text, &body).await.expect(202);
        }
        for (address, path) in [
            (gateway.internal, format!("/v1/channels/{channel}/messages?limit=1000")),
            (gateway.public, format!("/v1/subscribe?channel={channel}&limit=1000&wait=0")),
        ] {
            let (mut since, mut read) = ("earliest".to_owned(), 0);
            while read < count {
                let answer = Conn::open(address).await.get(&format!("{path}&since={since}"), &[]).await;
                let document = Document::of(&answer);
                let (bytes, messages) = (answer.text().len(), document.messages.len());
                assert!(
                    messages == 1 || bytes <= 1024 * 1024,
                    "{path}: {messages} messages in {bytes} bytes"
                );
                assert!(
                    messages == 1 || read + messages == count || bytes > 1000 * 1024,
                    "{path}: {bytes} bytes"
                );
                read += messages;
                assert!(document.more.is_none_or(|more| more == (read < count)), "{path}");
                since = document.cursor;
            }
        }
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_channels_information_counts_messages_and_subscribers() {
    let gateway = TestGateway::start().run().await;
    let answer = gateway.internal("GET", "/v1/channels/a", &[], None).await.expect(200);
    assert_eq!(
        Fields::parse(answer.text()).names(),
        ["channel", "position", "messages", "subscribers", "subscribers_age_ms"]
    );
    let unused = answer.json();
    assert_eq!(
        (&unused["channel"], &unused["messages"], &unused["subscribers"]),
        (&json!("a"), &json!(0), &json!(0))
    );
    assert_eq!(split_position(unused["position"].as_str().expect("a position")).0, "0");
    let ids = gateway.publish_numbers("a", 1, 3).await;
    let mut streams = Vec::new();
    for transport in Transport::STREAMS {
        streams.push(Client::connect(&gateway, transport, "channel=a&channel=b").await);
    }
    let info = gateway.get("/v1/channels/a").await;
    assert_eq!(
        (&info["position"], &info["messages"], &info["subscribers"]),
        (&json!(ids[2]), &json!(3), &json!(3))
    );
    assert!(info["subscribers_age_ms"].is_u64());
    let mut poll = Client::connect(&gateway, Transport::Poll, "channel=a").await;
    {
        let held = poll.next_patiently();
        tokio::pin!(held);
        tokio::select! {
            _ = &mut held => panic!("nothing was published"),
            () = gateway.until_subscribers("a", 4) => {}
        }
    }
    drop(poll);
    gateway.until_subscribers("a", 3).await;
    drop(streams);
    gateway.until_subscribers("a", 0).await;
    gateway.delete("a").await;
    let deleted = gateway.get("/v1/channels/a").await;
    assert_eq!((&deleted["position"], &deleted["messages"]), (&json!(ids[2]), &json!(0)));
    gateway.finish(()).await;
}

#[tokio::test]
async fn the_list_holds_channels_with_messages_sorted_by_bytes_and_paged() {
    let gateway = TestGateway::start().run().await;
    assert_eq!(gateway.get("/v1/channels").await, json!({"channels": [], "cursor": null}));
    let mut names: Vec<String> = (0..250).map(|number| format!("n{number}:x")).collect();
    names.extend(["B", "a", "Z:1", "~", "-", "_", "n1", "n1:"].map(str::to_owned));
    for chunk in names.chunks(100) {
        gateway.batch(&json!({"messages": [{"channels": chunk, "data": 1}]})).await.expect(202);
    }
    names.sort();
    let first = gateway.get("/v1/channels").await;
    assert_eq!(first["channels"].as_array().map(Vec::len), Some(100), "100 a page");
    for limit in [7, 100, 1000] {
        let (mut seen, mut cursor) = (Vec::<String>::new(), String::new());
        loop {
            let page = gateway.get(&format!("/v1/channels?limit={limit}{cursor}")).await;
            seen.extend(
                page["channels"]
                    .as_array()
                    .expect("channels")
                    .iter()
                    .map(|name| name.as_str().expect("a name").to_owned()),
            );
            match page["cursor"].as_str() {
                Some(next) => cursor = format!("&cursor={next}"),
                None => break,
            }
        }
        assert_eq!(seen, names, "{limit}");
    }
    let page = gateway.get("/v1/channels?prefix=n24&limit=1000").await;
    let mut wanted: Vec<&String> = names.iter().filter(|name| name.starts_with("n24")).collect();
    wanted.sort();
    assert_eq!(page, json!({"channels": wanted, "cursor": null}));
    gateway.delete("a").await;
    assert_eq!(
        gateway.get("/v1/channels?prefix=a").await["channels"],
        json!([]),
        "a channel without messages is not listed"
    );
    gateway.finish(()).await;
}

#[tokio::test]
async fn the_list_refuses_bad_parameters() {
    let gateway = TestGateway::start().run().await;
    for (query, code) in [
        ("limit=0", "invalid_parameter"),
        ("limit=1001", "invalid_parameter"),
        ("limit=-1", "invalid_parameter"),
        ("prefix=a&prefix=b", "invalid_parameter"),
        ("prefx=a", "unknown_parameter"),
        ("since=latest", "unknown_parameter"),
    ] {
        gateway.internal("GET", &format!("/v1/channels?{query}"), &[], None).await.problem(400, code);
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn deleting_twice_or_nothing_is_no_error() {
    let gateway = TestGateway::start().run().await;
    gateway.delete("unused").await;
    assert!(
        gateway.get("/v1/channels/unused").await["position"].as_str().expect("a position").starts_with("0-")
    );
    gateway.publish("a", "1").await;
    gateway.delete("a").await;
    gateway.delete("a").await;
    gateway.finish(()).await;
}

// A held poll's name is known to those alone who see its head, so it is ended by channel.
each_stream! {
    async fn a_connection_can_be_ended_by_its_name(transport) {
        let gateway = TestGateway::start().run().await;
        let mut other = Client::connect(&gateway, transport, "channel=a").await;
        let mut client = Client::connect(&gateway, transport, "channel=a").await;
        gateway.disconnect("connection", &client.connection).await;
        let (goodbye, end) = client.end().await;
        assert_eq!(goodbye, Some(("revoked".to_owned(), None)));
        match transport {
            Transport::Websocket => assert!(matches!(&end, End::Close(4410, reason) if reason == "revoked"), "{end:?}"),
            _ => assert!(matches!(end, End::Body), "{end:?}"),
        }
        gateway.publish("a", "1").await;
        assert_eq!(other.numbers(1).await, [1], "nobody else");
        let mut back = Client::connect(&gateway, transport, "channel=a&since=earliest").await;
        assert_eq!(back.numbers(1).await, [1], "coming back is not barred");
        gateway.finish((client, other, back)).await;
    }
}

each_transport! {
    async fn a_channels_connections_can_be_ended(transport) {
        let gateway = TestGateway::start().run().await;
        let mut other = Client::connect(&gateway, transport, "channel=b").await;
        let mut client = Client::connect(&gateway, transport, "channel=b&channel=a").await;
        if transport == Transport::Poll {
            // Held: answered at once, empty.
            let waiting = tokio::spawn({
                let address = gateway.public;
                async move {
                    let mut conn = crate::support::Conn::open(address).await;
                    conn.get("/v1/subscribe?channel=a&wait=55", &[]).await
                }
            });
            gateway.until_subscribers("a", 1).await;
            gateway.disconnect("channel", "a").await;
            let answer = within(Duration::from_secs(10), "the held poll's answer", waiting).await.expect("answered");
            let document = Document::of(&answer);
            assert!(document.messages.is_empty() && document.gaps.is_empty());
        } else {
            gateway.disconnect("channel", "a").await;
            let (goodbye, _) = client.end().await;
            assert_eq!(goodbye.map(|(code, _)| code).as_deref(), Some("revoked"));
        }
        gateway.publish("b", "1").await;
        assert_eq!(other.numbers(1).await, [1], "who does not listen there stays");
        gateway.finish((client, other)).await;
    }
}

#[tokio::test]
async fn a_revoked_event_stream_is_told_when_to_retry() {
    let gateway = TestGateway::start().run().await;
    let mut client = Client::connect(&gateway, Transport::Sse, "channel=a").await;
    gateway.disconnect("connection", &client.connection).await;
    let mut after_goodbye = Vec::new();
    let mut parting = false;
    loop {
        match client.next_any().await {
            crate::support::Event::Goodbye { .. } => parting = true,
            crate::support::Event::End(_) => break,
            event if parting => after_goodbye.push(event),
            _ => {}
        }
    }
    assert!(parting);
    assert!(matches!(after_goodbye[..], [crate::support::Event::Retry(_)]), "{after_goodbye:?}");
    gateway.finish(client).await;
}

#[tokio::test]
async fn disconnecting_nobody_is_accepted_and_nonsense_is_refused() {
    let gateway = TestGateway::start().run().await;
    gateway.disconnect("connection", "nobody").await;
    gateway.disconnect("channel", "nowhere").await;
    gateway.disconnect("subject", "no-one").await;
    let headers = [("Content-Type", "application/json")];
    for body in [
        "{}",
        "[]",
        "[null,\"a\",null]",
        "{\"connection\":1}",
        "{\"connection\":\"a\",\"channel\":\"b\"}",
        "{\"who\":\"a\"}",
        "{\"connection\":\"a\",\"why\":1}",
    ] {
        let answer = gateway.internal("POST", "/v1/disconnect", &headers, Some(body.as_bytes())).await;
        answer.problem(400, "invalid_body");
    }
    gateway.internal("POST", "/v1/disconnect", &headers, Some(b"{")).await.problem(400, "invalid_json");
    let bad = gateway.internal("POST", "/v1/disconnect", &headers, Some(b"{\"channel\":\"a b\"}")).await;
    bad.problem(400, "invalid_channel");
    gateway.finish(()).await;
}

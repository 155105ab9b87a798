//! Heartbeats on every stream, and clients that no longer answer.

use std::time::{Duration, Instant};

use crate::support::raw::{CLOSE, PING, TEXT, frame};
use crate::support::sse_parser::{SseItem, SseParser};
use crate::support::{Client, Conn, End, Event, TestGateway, raw, within};

fn quick() -> crate::support::gateway::Builder {
    TestGateway::start().with("sessions.heartbeat = '400ms'").with("sessions.pong_timeout = '400ms'")
}

each_stream! {
    async fn a_silent_stream_has_heartbeats(transport) {
        let gateway = quick().run().await;
        let mut client = Client::connect(&gateway, transport, "channel=a").await;
        let mut before = Instant::now();
        for round in 0..6 {
            let event = client.next_any().await;
            if matches!(event, Event::Retry(_)) {
                continue;
            }
            assert!(matches!(event, Event::Heartbeat), "{event:?}");
            let pause = before.elapsed().as_millis();
            before = Instant::now();
            // The first may fall anywhere within the interval.
            assert!(pause < 1500 && (round < 2 || pause > 250), "after {pause} ms");
        }
        gateway.publish("a", "1").await;
        assert_eq!(client.numbers(1).await, [1]);
        gateway.finish(client).await;
    }
}

#[tokio::test]
async fn a_heartbeat_of_ndjson_says_the_time() {
    let gateway = quick().run().await;
    let mut conn = Conn::open(gateway.public).await;
    let bytes = conn.encode("GET", "/v1/subscribe?channel=a", &[("Accept", "application/x-ndjson")], None);
    conn.send(bytes).await;
    let head = conn.head().await;
    let mut body = raw::Body::after("GET", &head);
    let mut text = String::new();
    let line = loop {
        if let Some(line) = text.lines().find(|line| line.contains("heartbeat") && text.ends_with('\n')) {
            break line.to_owned();
        }
        let piece =
            within(Duration::from_secs(10), "a heartbeat", body.next(&mut conn)).await.expect("reads");
        text += std::str::from_utf8(&piece.expect("more")).expect("UTF-8");
    };
    let time: u64 = line
        .strip_prefix(r#"{"type":"heartbeat","time":"#)
        .and_then(|rest| rest.strip_suffix('}'))
        .expect("the object")
        .parse()
        .expect("a number");
    assert!(time.abs_diff(crate::support::now_seconds() * 1000) < 30_000);
    gateway.finish(conn).await;
}

#[tokio::test]
async fn an_idle_event_stream_of_an_unused_channel_gets_fresh_ids() {
    let gateway = quick().run().await;
    let mut conn = Conn::open(gateway.public).await;
    let bytes = conn.encode("GET", "/v1/subscribe?channel=a", &[("Accept", "text/event-stream")], None);
    conn.send(bytes).await;
    let head = conn.head().await;
    let mut body = raw::Body::after("GET", &head);
    let mut parser = SseParser::default();
    let begun = Instant::now();
    let (mut first, mut comments) = (None, 0);
    loop {
        let piece = within(Duration::from_secs(10), "a heartbeat", body.next(&mut conn))
            .await
            .expect("reads")
            .expect("more");
        comments += parser.push(&piece).iter().filter(|item| matches!(item, SseItem::Comment(_))).count();
        let id = parser.last_event_id.clone();
        if id.is_empty() {
            continue;
        }
        let seconds: u64 =
            id.strip_prefix("0-").expect("an empty channel's position").parse().expect("seconds");
        let first = *first.get_or_insert(seconds);
        if seconds > first {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(8), "the id stays {id} after {comments} heartbeats");
    }
    assert!(comments > 0);
    gateway.finish(conn).await;
}

#[tokio::test]
async fn a_fresh_id_renews_each_unused_channel_and_leaves_the_others() {
    let gateway = quick().run().await;
    let used = gateway.publish("used", "1").await.id;
    let mut conn = Conn::open(gateway.public).await;
    let target = "/v1/subscribe?channel=a&channel=used&channel=b&channel=c";
    let bytes = conn.encode("GET", target, &[("Accept", "text/event-stream")], None);
    conn.send(bytes).await;
    let head = conn.head().await;
    let mut body = raw::Body::after("GET", &head);
    let mut parser = SseParser::default();
    let begun = Instant::now();
    let mut first = Vec::new();
    loop {
        let piece = within(Duration::from_secs(10), "a heartbeat", body.next(&mut conn)).await;
        parser.push(&piece.expect("reads").expect("more"));
        if parser.last_event_id.is_empty() {
            continue;
        }
        let entries: Vec<&str> = parser.last_event_id.split(',').collect();
        assert_eq!((entries.len(), entries[1]), (4, used.as_str()), "{entries:?}");
        let seconds: Vec<u64> = [entries[0], entries[2], entries[3]]
            .iter()
            .map(|entry| entry.strip_prefix("0-").expect("empty").parse().expect("seconds"))
            .collect();
        if first.is_empty() {
            first.clone_from(&seconds);
        }
        if seconds.iter().zip(&first).all(|(now, then)| now > then) {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(8), "not renewed: {entries:?}");
    }
    gateway.finish(conn).await;
}

#[tokio::test]
async fn a_websocket_that_answers_no_ping_is_dropped() {
    let gateway = quick().run().await;
    let (mut conn, _) =
        Conn::open(gateway.public).await.upgrade("/v1/subscribe?channel=a", &[]).await.expect("upgraded");
    let mut goodbye = String::new();
    let close = loop {
        let frame = conn.frame().await.expect("a close frame");
        match frame.opcode {
            CLOSE => break frame,
            PING => {}
            _ => goodbye = frame.text().to_owned(),
        }
    };
    assert_eq!(close.payload[..2], 4408_u16.to_be_bytes());
    let reason = std::str::from_utf8(&close.payload[2..]).expect("UTF-8");
    // Where it may come back at once, no delay need be said.
    assert!(reason == "unresponsive" || reason.starts_with("unresponsive "), "{reason}");
    assert!(goodbye.starts_with(r#"{"type":"goodbye","code":"unresponsive","#), "{goodbye}");
    assert!(conn.closed_within(Duration::from_secs(5)).await);
    gateway.until_subscribers("a", 0).await;
    gateway.finish(conn).await;
}

#[tokio::test]
async fn a_websocket_that_neither_reads_nor_answers_is_let_go() {
    let gateway = quick().run().await;
    let (conn, _) =
        Conn::open(gateway.public).await.upgrade("/v1/subscribe?channel=a", &[]).await.expect("upgraded");
    gateway.until_subscribers("a", 1).await;
    gateway.until_subscribers("a", 0).await;
    gateway.finish(conn).await;
}

#[tokio::test]
async fn any_byte_counts_as_a_pong() {
    let gateway = quick().run().await;
    let (mut conn, _) =
        Conn::open(gateway.public).await.upgrade("/v1/subscribe?channel=a", &[]).await.expect("upgraded");
    let mut beat = tokio::time::interval(Duration::from_millis(150));
    let mut pings = 0;
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(3) {
        tokio::select! {
            _ = beat.tick() => conn.send(frame(true, TEXT, br#"{"type":"ping"}"#)).await,
            received = conn.frame() => {
                let received = received.expect("still connected");
                assert_ne!(received.opcode, CLOSE, "{received:?}");
                pings += u32::from(received.opcode == PING);
            }
        }
    }
    assert!(pings >= 2, "{pings} pings");
    gateway.finish(conn).await;
}

#[tokio::test]
async fn a_websocket_that_answers_lives_on() {
    let gateway = quick().run().await;
    let mut client = Client::connect(&gateway, crate::support::Transport::Websocket, "channel=a").await;
    for _ in 0..6 {
        let event = client.next_any().await;
        assert!(!matches!(event, Event::End(End::Close(..))), "{event:?}");
    }
    gateway.publish("a", "1").await;
    assert_eq!(client.numbers(1).await, [1]);
    gateway.finish(client).await;
}

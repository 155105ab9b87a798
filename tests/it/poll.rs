//! Long poll: the document, waiting, limits, fairness and the cursor.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use crate::support::client::Document;
use crate::support::objects::{Message, Object};
use crate::support::{Answer, Client, Conn, TestGateway, Transport, within};

async fn poll(gateway: &TestGateway, query: &str) -> Answer {
    gateway.get_public(&format!("/v1/subscribe?{query}")).await
}

/// A poll that is held; `subscribers` of channel `a` from then on.
async fn hold(gateway: &TestGateway, query: &str, subscribers: u64) -> tokio::task::JoinHandle<Answer> {
    let (address, target) = (gateway.public, format!("/v1/subscribe?{query}"));
    let held = tokio::spawn(async move {
        let mut conn = Conn::open(address).await;
        conn.request("GET", &target, &[], None).await
    });
    gateway.until_subscribers("a", subscribers).await;
    held
}

async fn answered(held: tokio::task::JoinHandle<Answer>) -> Document {
    Document::of(&within(Duration::from_secs(10), "a held poll's answer", held).await.expect("answered"))
}

#[tokio::test]
async fn the_document_has_messages_gaps_and_cursor() {
    let gateway = TestGateway::start().run().await;
    let id = gateway.publish("a", "1").await.id;
    let answer = poll(&gateway, "channel=a&since=earliest").await.expect(200);
    assert_eq!(answer.header("content-type"), Some("application/json"));
    assert_eq!(answer.header("cache-control"), Some("no-store"));
    assert!(answer.header("tidegate-connection").is_some());
    let document = Document::of(&answer);
    assert_eq!((document.more, document.cursor.as_str(), document.gaps.len()), (None, id.as_str(), 0));
    let message = Message::of(&Object::parse(&document.messages[0]));
    assert_eq!((message.id, message.data.as_deref()), (id, Some("1")));
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_held_poll_is_answered_by_the_message() {
    let gateway = TestGateway::start().run().await;
    let held = hold(&gateway, "channel=a&wait=55", 1).await;
    let begun = Instant::now();
    let id = gateway.publish("a", "7").await.id;
    let document = answered(held).await;
    assert_eq!((document.numbers(), document.cursor), (vec![7], id));
    assert!(begun.elapsed() < Duration::from_secs(5));
    gateway.until_subscribers("a", 0).await;
    gateway.finish(()).await;
}

#[tokio::test]
async fn wait_is_the_longest_an_empty_answer_takes() {
    let gateway = TestGateway::start().run().await;
    for (wait, least, most) in [(0, 0, 900), (1, 900, 3000), (2, 1900, 4500)] {
        let begun = Instant::now();
        let document = Document::of(&poll(&gateway, &format!("channel=a&wait={wait}")).await);
        let took = begun.elapsed().as_millis();
        assert!(document.messages.is_empty() && document.gaps.is_empty());
        assert!((least..most).contains(&took), "wait={wait} took {took} ms");
        assert!(document.cursor.starts_with("0-"));
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn nothing_is_lost_between_two_polls() {
    let gateway = TestGateway::start().run().await;
    let first = Document::of(&poll(&gateway, "channel=a&wait=0").await);
    gateway.publish_numbers("a", 1, 3).await;
    let second = Document::of(&poll(&gateway, &format!("channel=a&since={}", first.cursor)).await);
    assert_eq!(second.numbers(), [1, 2, 3]);
    gateway.publish_numbers("a", 4, 5).await;
    let third = Document::of(&poll(&gateway, &format!("channel=a&since={}", second.cursor)).await);
    assert_eq!(third.numbers(), [4, 5]);
    let fourth = Document::of(&poll(&gateway, &format!("channel=a&wait=0&since={}", third.cursor)).await);
    assert_eq!((fourth.numbers(), fourth.cursor), (vec![], third.cursor));
    gateway.finish(()).await;
}

#[tokio::test]
async fn at_most_limit_messages_and_the_rest_with_the_next_poll() {
    let gateway = TestGateway::start().run().await;
    gateway.publish_numbers("a", 1, 250).await;
    let first = Document::of(&poll(&gateway, "channel=a&since=earliest").await);
    assert_eq!(first.numbers(), (1..=100).collect::<Vec<_>>(), "100 where nothing is said");
    let second = Document::of(&poll(&gateway, &format!("channel=a&limit=1&since={}", first.cursor)).await);
    assert_eq!(second.numbers(), [101]);
    let third = Document::of(&poll(&gateway, &format!("channel=a&limit=1000&since={}", second.cursor)).await);
    assert_eq!(third.numbers(), (102..=250).collect::<Vec<_>>());
    gateway.finish(()).await;
}

#[tokio::test]
async fn at_most_a_mebibyte_but_always_one_message() {
    let gateway = TestGateway::start()
        .namespace("default", "history_bytes = '16MiB'")
        .with("limits.message = '4MiB'")
        .run()
        .await;
    let sizes = [300_000, 300_000, 300_000, 300_000, 2_000_000, 3_000_000, 10];
    for size in sizes {
        gateway.publish("a", format!("\"{}\"", "x".repeat(size))).await;
    }
    let (mut since, mut counts) = ("earliest".to_owned(), Vec::new());
    while counts.iter().sum::<usize>() < sizes.len() {
        let document = Document::of(&poll(&gateway, &format!("channel=a&limit=1000&since={since}")).await);
        let bytes: usize = document.messages.iter().map(String::len).sum();
        assert!(document.messages.len() == 1 || bytes <= 1_048_576, "{bytes} bytes");
        counts.push(document.messages.len());
        since = document.cursor;
    }
    assert_eq!(counts, [3, 1, 1, 1, 1], "as much as fits");
    gateway.finish(()).await;
}

#[tokio::test]
async fn the_limit_is_shared_fairly_among_channels() {
    let gateway = TestGateway::start().run().await;
    for channel in ["a", "b", "c", "d"] {
        gateway.publish_numbers(channel, 1, if channel == "a" { 300 } else { 30 }).await;
    }
    let mut since = "earliest".to_owned();
    let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for round in 0.. {
        let query = format!("channel=a&channel=b&channel=c&channel=d&limit=40&wait=0&since={since}");
        let document = Document::of(&poll(&gateway, &query).await);
        if document.messages.is_empty() {
            break;
        }
        for text in &document.messages {
            let message = Message::of(&Object::parse(text));
            seen.entry(message.channel.clone()).or_default().push(message.number());
        }
        if round == 0 {
            assert!(
                seen.values().all(|numbers| numbers.len() >= 5) && seen.len() == 4,
                "nobody starves: {seen:?}"
            );
        }
        since = document.cursor;
    }
    assert_eq!(seen["a"], (1..=300).collect::<Vec<_>>());
    assert!(["b", "c", "d"].iter().all(|channel| seen[*channel] == (1..=30).collect::<Vec<_>>()));
    gateway.finish(()).await;
}

#[tokio::test]
async fn with_a_limit_of_one_every_channel_gets_its_turn() {
    let gateway = TestGateway::start().run().await;
    for channel in ["a", "b", "c"] {
        gateway.publish_numbers(channel, 1, 200).await;
    }
    let mut since = "earliest".to_owned();
    let mut seen = std::collections::BTreeSet::new();
    // A random start: three channels in 60 polls, but for one chance in 10^10.
    for _ in 0..60 {
        let query = format!("channel=a&channel=b&channel=c&limit=1&since={since}");
        let document = Document::of(&poll(&gateway, &query).await);
        assert_eq!(document.messages.len(), 1);
        seen.insert(Message::of(&Object::parse(&document.messages[0])).channel);
        since = document.cursor;
    }
    assert_eq!(seen.len(), 3, "{seen:?}");
    gateway.finish(()).await;
}

#[tokio::test]
async fn the_cursor_has_an_entry_for_each_channel_in_their_order() {
    let gateway = TestGateway::start().run().await;
    let b = gateway.publish("b", "1").await.id;
    let document = Document::of(&poll(&gateway, "channel=c&channel=b&channel=a&wait=0").await);
    let entries: Vec<&str> = document.cursor.split(',').collect();
    assert!(
        entries.len() == 3 && entries[0].starts_with("0-") && entries[1] == b && entries[2].starts_with("0-")
    );
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_gap_alone_answers_at_once() {
    let gateway = TestGateway::start().run().await;
    let id = gateway.publish_numbers("a", 1, 3).await.swap_remove(0);
    gateway.delete("a").await;
    let begun = Instant::now();
    let document = Document::of(&poll(&gateway, &format!("channel=a&wait=55&since={id}")).await);
    assert_eq!((document.gaps.len(), document.messages.len()), (1, 0));
    assert!(begun.elapsed() < Duration::from_secs(5));
    gateway.finish(()).await;
}

#[tokio::test]
async fn one_connection_polls_again_and_again() {
    let gateway = TestGateway::start().run().await;
    let mut conn = Conn::open(gateway.public).await;
    let mut cursor = String::new();
    for round in 0..30 {
        let answer = conn.get(&format!("/v1/subscribe?channel=a&wait=0&since={cursor}"), &[]).await;
        let document = Document::of(&answer);
        assert_eq!(document.messages.len(), usize::from(round > 0));
        cursor = document.cursor;
        gateway.publish("a", "1").await;
    }
    gateway.finish(conn).await;
}

#[tokio::test]
async fn a_poll_whose_client_has_gone_is_let_go() {
    let gateway = TestGateway::start().run().await;
    let mut conn = Conn::open(gateway.public).await;
    let bytes = conn.encode("GET", "/v1/subscribe?channel=a&wait=55", &[], None);
    conn.send(bytes).await;
    gateway.until_subscribers("a", 1).await;
    drop(conn);
    gateway.until_subscribers("a", 0).await;
    gateway.finish(()).await;
}

#[tokio::test]
async fn many_held_polls_are_answered_by_one_message() {
    let gateway = TestGateway::start().run().await;
    let mut held = Vec::new();
    for number in 1..=30 {
        held.push(hold(&gateway, "channel=a&wait=55", number).await);
    }
    gateway.publish("a", "1").await;
    for poll in held {
        assert_eq!(answered(poll).await.numbers(), [1]);
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn what_already_waits_comes_along() {
    let gateway = TestGateway::start().run().await;
    let mut client = Client::connect(&gateway, Transport::Poll, "channel=a&channel=b").await;
    gateway.publish_numbers("a", 1, 5).await;
    gateway.publish_numbers("b", 1, 5).await;
    let document =
        Document::of(&poll(&gateway, &format!("channel=a&channel=b&since={}", client.cursor())).await);
    assert_eq!(document.messages.len(), 10);
    assert_eq!(client.messages(10).await.len(), 10);
    gateway.finish(client).await;
}

#[tokio::test]
async fn bad_values_are_refused_with_their_parameter() {
    let gateway = TestGateway::start().run().await;
    for (query, parameter) in [
        ("wait=56", "wait"),
        ("wait=-1", "wait"),
        ("wait=1.5", "wait"),
        ("wait=x", "wait"),
        ("wait=", "wait"),
        ("wait=1&wait=1", "wait"),
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=x", "limit"),
        ("format=raw", "format"),
        ("format=xml", "format"),
    ] {
        let problem = poll(&gateway, &format!("channel=a&{query}")).await.problem(400, "invalid_parameter");
        assert_eq!(problem["parameter"], parameter, "{query}");
    }
    gateway.finish(()).await;
}

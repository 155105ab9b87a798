//! Who reads slowly: cut off and told where to go on, or given the newest alone; nobody else notices.

use std::time::{Duration, Instant};

use crate::support::client::Options;
use crate::support::{Client, Event, Message, TestGateway, Transport, eventually};

fn stalled() -> Options<'static> {
    Options { narrow: true, ..Options::default() }
}

/// Publishes this many messages of 8 KiB, each a number and a filling.
async fn publish_large(gateway: &TestGateway, channel: &str, first: u64, last: u64) {
    let mut conn = crate::support::Conn::open(gateway.internal).await;
    let filling = "x".repeat(8192);
    for number in first..=last {
        let body = format!("{{\"n\":{number},\"x\":\"{filling}\"}}");
        let target = format!("/v1/channels/{channel}/messages");
        let headers = [("Content-Type", "application/json")];
        conn.request("POST", &target, &headers, Some(body.as_bytes())).await.expect(202);
    }
}

fn number(message: &Message) -> u64 {
    let data: serde_json::Value = serde_json::from_str(message.data.as_deref().expect("data")).expect("JSON");
    data["n"].as_u64().expect("a number")
}

const LONG: &str = "history_messages = 100000\nhistory_bytes = '64MiB'";

each_stream! {
    async fn a_stalled_reader_is_cut_off_and_loses_nothing(transport) {
        let gateway = TestGateway::start().with("limits.outbox = '64KiB'").namespace("default", LONG).run().await;
        let mut slow = Client::connect_with(gateway.public, transport, "channel=a", stalled()).await;
        let mut fast = Client::connect(&gateway, transport, "channel=a").await;
        let total = 400;
        let read = async {
            for wanted in 1..=total {
                assert_eq!(number(&fast.message().await), wanted);
            }
        };
        tokio::join!(publish_large(&gateway, "a", 1, total), read);
        gateway.until_subscribers("a", 1).await;

        // It wakes up: what had left for it is whole and in order, then comes the end.
        let mut seen = 0;
        let mut parting = None;
        loop {
            match slow.next().await {
                Event::Message(message) => {
                    seen += 1;
                    assert_eq!(number(&message), seen);
                }
                Event::Goodbye { code, .. } => parting = Some(code),
                Event::End(_) => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(seen < total, "it was never slow");
        assert!(parting.is_none_or(|code| code == "slow"));
        let mut back = slow.resume_on(transport).await;
        assert_eq!(back.subscribed[0].2, "complete", "no gap");
        while seen < total {
            seen += 1;
            assert_eq!(number(&back.message().await), seen);
        }
        gateway.finish((fast, back)).await;
    }

    async fn a_stalled_reader_delays_nobody(transport) {
        let gateway = TestGateway::start().with("limits.outbox = '1MiB'").namespace("default", LONG).run().await;
        let mut stalled_ones = Vec::new();
        for _ in 0..10 {
            stalled_ones.push(Client::connect_with(gateway.public, transport, "channel=a", stalled()).await);
        }
        let mut fast = Client::connect(&gateway, Transport::Ndjson, "channel=a").await;
        let mut slowest = Duration::ZERO;
        for round in 1..=300 {
            let begun = Instant::now();
            publish_large(&gateway, "a", round, round).await;
            assert_eq!(number(&fast.message().await), round);
            slowest = slowest.max(begun.elapsed());
        }
        assert!(slowest < Duration::from_secs(2), "{slowest:?}");
        gateway.finish((stalled_ones, fast)).await;
    }

    async fn a_reader_is_slow_too_when_what_waits_for_it_leaves_the_history(transport) {
        let gateway = TestGateway::start()
            .with("limits.outbox = '64MiB'")
            .namespace("default", "history_messages = 10\nhistory_bytes = '64MiB'")
            .run()
            .await;
        let mut slow = Client::connect_with(gateway.public, transport, "channel=a", stalled()).await;
        publish_large(&gateway, "a", 1, 400).await;
        gateway.until_subscribers("a", 0).await;
        let mut seen = 0;
        while let Event::Message(message) = slow.next().await {
            seen += 1;
            assert_eq!(number(&message), seen);
        }
        assert!(seen < 400);
        // What is gone by now is said.
        let mut back = slow.resume_on(transport).await;
        assert_eq!(back.gap().await.0, "trimmed");
        assert_eq!(number(&back.message().await), 391);
        gateway.finish(back).await;
    }

    async fn with_latest_a_stalled_reader_stays_and_gets_the_newest(transport) {
        let gateway = TestGateway::start()
            .with("limits.outbox = '64KiB'")
            .namespace("ticker", &format!("slow = 'latest'\n{LONG}"))
            .run()
            .await;
        let options = Options { narrow: true, conflated: true, ..Options::default() };
        let mut slow = Client::connect_with(gateway.public, transport, "channel=ticker:a&channel=ticker:b", options).await;
        let total = 400;
        tokio::join!(publish_large(&gateway, "ticker:a", 1, total), publish_large(&gateway, "ticker:b", 1, total));
        assert_eq!(gateway.subscribers("ticker:a").await, 1, "it stays");
        let (mut a, mut b) = (Vec::new(), Vec::new());
        while a.last() != Some(&total) || b.last() != Some(&total) {
            let message = slow.message().await;
            if message.channel == "ticker:a" { a.push(number(&message)) } else { b.push(number(&message)) }
        }
        for numbers in [&a, &b] {
            assert!(numbers.is_sorted_by(|one, other| one < other), "{numbers:?}");
        }
        let left_out = total as usize * 2 - a.len() - b.len();
        assert!(left_out > 0, "it was never slow");
        assert_eq!(dropped(&gateway, "conflated").await, left_out as f64, "each message left out is counted");
        let action = |name| [("action", name)];
        assert!(gateway.metric("tidegate_slow_consumers_total", &action("conflate")).await > 0.0);
        assert_eq!(gateway.metric("tidegate_slow_consumers_total", &action("disconnect")).await, 0.0);
        // From here on it is like any other.
        publish_large(&gateway, "ticker:a", total + 1, total + 1).await;
        assert_eq!(number(&slow.message().await), total + 1);
        gateway.finish(slow).await;
    }

    async fn a_reader_that_keeps_up_with_bursts_is_not_slow(transport) {
        let gateway = TestGateway::start().with("limits.outbox = '256KiB'").namespace("default", LONG).run().await;
        let mut client = Client::connect(&gateway, transport, "channel=a").await;
        for burst in 0..10 {
            publish_large(&gateway, "a", burst * 10 + 1, burst * 10 + 10).await;
            for wanted in burst * 10 + 1..=burst * 10 + 10 {
                assert_eq!(number(&client.message().await), wanted);
            }
        }
        gateway.finish(client).await;
    }

    async fn a_long_replay_into_a_narrow_reader_is_no_slowness(transport) {
        let gateway = TestGateway::start().with("limits.outbox = '64KiB'").namespace("default", LONG).run().await;
        publish_large(&gateway, "a", 1, 300).await;
        let mut client = Client::connect_with(gateway.public, transport, "channel=a&since=earliest", stalled()).await;
        let catching_up = async |count: f64| {
            eventually("the catch-up is counted", async || {
                (gateway.metric("tidegate_catchup_inflight", &[]).await == count).then_some(())
            })
            .await;
        };
        catching_up(1.0).await;
        for wanted in 1..=300 {
            assert_eq!(number(&client.message().await), wanted);
        }
        catching_up(0.0).await;
        gateway.finish(client).await;
    }
}

#[tokio::test]
async fn a_message_larger_than_the_outbox_still_arrives() {
    let gateway = TestGateway::start().with("limits.outbox = '16KiB'").namespace("default", LONG).run().await;
    for transport in Transport::ALL {
        let mut client = Client::connect(&gateway, transport, "channel=a").await;
        let body = format!("\"{}\"", "x".repeat(200_000));
        gateway.publish("a", &body).await;
        assert_eq!(
            client.message().await.data.as_deref().map(str::len),
            Some(body.len()),
            "{}",
            transport.name()
        );
    }
    gateway.finish(()).await;
}

/// Messages that were on their way to a client and did not reach it.
async fn dropped(gateway: &TestGateway, reason: &str) -> f64 {
    gateway.metric("tidegate_messages_dropped_total", &[("reason", reason)]).await
}

async fn until_nobody_is_connected(gateway: &TestGateway, transport: Transport) {
    let label = [("transport", transport.name())];
    eventually("the gauge falls", async || {
        (gateway.metric("tidegate_connections", &label).await == 0.0).then_some(())
    })
    .await;
}

each_stream! {
    async fn a_slow_readers_end_is_counted(transport) {
        let gateway = TestGateway::start().with("limits.outbox = '64KiB'").namespace("default", LONG).run().await;
        let slow = Client::connect_with(gateway.public, transport, "channel=a", stalled()).await;
        let total = 300;
        publish_large(&gateway, "a", 1, total).await;
        gateway.until_subscribers("a", 0).await;
        // It reads nothing: what cannot leave is given up.
        drop(slow);
        until_nobody_is_connected(&gateway, transport).await;
        assert_eq!(gateway.metric("tidegate_slow_consumers_total", &[("action", "disconnect")]).await, 1.0);
        let ended = [("transport", transport.name()), ("reason", "slow")];
        assert_eq!(gateway.metric("tidegate_connections_closed_total", &ended).await, 1.0);
        // What came after its end never waited for it.
        let dropped_ones = dropped(&gateway, "ended").await;
        let delivered = gateway.metric("tidegate_deliveries_total", &[("transport", transport.name())]).await;
        assert!(dropped_ones > 0.0 && delivered + dropped_ones <= total as f64, "{delivered} and {dropped_ones}");
        gateway.finish(()).await;
    }

    async fn what_waited_for_a_client_that_went_is_counted(transport) {
        let gateway = TestGateway::start().with("limits.outbox = '64MiB'").namespace("default", LONG).run().await;
        let client = Client::connect_with(gateway.public, transport, "channel=a", stalled()).await;
        let total = 400;
        publish_large(&gateway, "a", 1, total).await;
        assert!(gateway.metric("tidegate_send_queue_bytes", &[]).await > 0.0, "nothing waits");
        assert_eq!(dropped(&gateway, "ended").await, 0.0, "what waits is not lost yet");
        drop(client);
        until_nobody_is_connected(&gateway, transport).await;
        let delivered = gateway.metric("tidegate_deliveries_total", &[("transport", transport.name())]).await;
        let dropped_ones = dropped(&gateway, "ended").await;
        assert!(dropped_ones > 0.0 && delivered > 0.0, "{delivered} and {dropped_ones}");
        assert_eq!(delivered + dropped_ones, total as f64, "each message is one or the other");
        assert_eq!(dropped(&gateway, "conflated").await, 0.0);
        gateway.finish(()).await;
    }

    async fn what_a_client_took_to_its_end_is_not_counted_as_dropped(transport) {
        let gateway = TestGateway::start().run().await;
        let mut client = Client::connect(&gateway, transport, "channel=a").await;
        gateway.publish_numbers("a", 1, 20).await;
        gateway.disconnect("channel", "a").await;
        assert_eq!(client.numbers(20).await, (1..=20).collect::<Vec<_>>());
        client.end().await;
        until_nobody_is_connected(&gateway, transport).await;
        assert_eq!(dropped(&gateway, "ended").await, 0.0);
        gateway.finish(client).await;
    }
}

#[tokio::test]
async fn what_a_poll_leaves_to_the_next_one_is_not_dropped() {
    let gateway = TestGateway::start().run().await;
    let mut client = Client::connect(&gateway, Transport::Poll, "channel=a&limit=1").await;
    let items: Vec<_> = (1..=5).map(|number| serde_json::json!({"channel": "a", "data": number})).collect();
    let publish = async {
        gateway.until_subscribers("a", 1).await;
        gateway.batch(&serde_json::json!({"messages": items})).await.expect(202);
    };
    let (numbers, ()) = tokio::join!(client.numbers(5), publish);
    assert_eq!(numbers, [1, 2, 3, 4, 5]);
    assert_eq!(dropped(&gateway, "ended").await, 0.0);
    gateway.finish(client).await;
}

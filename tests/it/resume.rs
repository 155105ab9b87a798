//! Where a subscription starts: keywords, positions, and one cursor for all transports.

use std::collections::BTreeMap;

use crate::support::client::Options;
use crate::support::objects::{at_offset, split_position};
use crate::support::{Client, TestGateway, Transport, now_seconds};

/// The `recovery` of the first channel; polls are told none.
fn recovery(client: &Client) -> Option<&str> {
    client.subscribed.first().map(|(_, _, recovery)| recovery.as_str())
}

fn expect_recovery(client: &Client, wanted: &str) {
    if client.transport != Transport::Poll {
        assert_eq!(recovery(client), Some(wanted));
    }
}

each_transport! {
    async fn nothing_said_is_latest(transport) {
        let gateway = TestGateway::start().run().await;
        let ids = gateway.publish_numbers("a", 1, 3).await;
        for query in ["channel=a", "channel=a&since=latest", "channel=a&since="] {
            let mut client = Client::connect(&gateway, transport, query).await;
            assert_eq!(client.cursor(), *gateway.get("/v1/channels/a").await["position"].as_str().expect("a position"));
            expect_recovery(&client, "none");
            let receipt = gateway.publish("a", "4").await;
            assert_eq!(client.message().await.id, receipt.id, "{query}");
            assert_ne!(receipt.id, ids[2]);
        }
        gateway.finish(()).await;
    }

    async fn earliest_is_everything_that_is_kept(transport) {
        let gateway = TestGateway::start().run().await;
        gateway.publish_numbers("a", 1, 20).await;
        let mut client = Client::connect(&gateway, transport, "channel=a&since=earliest").await;
        expect_recovery(&client, "complete");
        assert_eq!(client.numbers(20).await, (1..=20).collect::<Vec<_>>());
        gateway.publish("a", "21").await;
        assert_eq!(client.numbers(1).await, [21]);
        gateway.finish(client).await;
    }

    async fn last_n_is_the_end_of_what_is_kept(transport) {
        let gateway = TestGateway::start().run().await;
        gateway.publish_numbers("a", 1, 5).await;
        for (since, wanted) in [("last:1", &[5][..]), ("last:2", &[4, 5]), ("last:5", &[1, 2, 3, 4, 5]), ("last:9223372036854775807", &[1, 2, 3, 4, 5])] {
            let mut client = Client::connect(&gateway, transport, &format!("channel=a&since={since}")).await;
            expect_recovery(&client, "complete");
            assert_eq!(client.numbers(wanted.len()).await, wanted, "{since}");
        }
        let mut client = Client::connect(&gateway, transport, "channel=a&since=last:2").await;
        gateway.publish("a", "6").await;
        assert_eq!(client.numbers(3).await, [4, 5, 6]);
        gateway.finish(client).await;
    }

    async fn a_position_is_gone_on_from(transport) {
        let gateway = TestGateway::start().run().await;
        let ids = gateway.publish_numbers("a", 1, 5).await;
        for (since, wanted) in [(at_offset(&ids[0], 0), &[1, 2, 3, 4, 5][..]), (ids[0].clone(), &[2, 3, 4, 5]), (ids[3].clone(), &[5])] {
            let mut client = Client::connect(&gateway, transport, &format!("channel=a&since={since}")).await;
            expect_recovery(&client, "complete");
            if transport != Transport::Poll {
                assert_eq!(client.subscribed[0].1, since);
            }
            assert_eq!(client.numbers(wanted.len()).await, wanted, "{since}");
        }
        let mut client = Client::connect(&gateway, transport, &format!("channel=a&since={}", ids[4])).await;
        gateway.publish("a", "6").await;
        assert_eq!(client.numbers(1).await, [6]);
        gateway.finish(client).await;
    }

    async fn each_channel_has_its_entry_in_the_list(transport) {
        let gateway = TestGateway::start().run().await;
        let mut ids = BTreeMap::new();
        for channel in ["a", "b", "c", "d"] {
            ids.insert(channel, gateway.publish_numbers(channel, 1, 4).await);
        }
        let query = format!("channel=d&channel=a&channel=c&channel=b&since={},latest,last:1,earliest", ids["d"][1]);
        let mut client = Client::connect(&gateway, transport, &query).await;
        let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        for message in client.messages(2 + 1 + 4).await {
            seen.entry(message.channel.clone()).or_default().push(message.number());
        }
        assert_eq!(seen["d"], [3, 4]);
        assert_eq!(seen["c"], [4]);
        assert_eq!(seen["b"], [1, 2, 3, 4]);
        gateway.publish("a", "5").await;
        let live = client.message().await;
        assert_eq!((live.channel.as_str(), live.number()), ("a", 5));
        gateway.finish(client).await;
    }

    async fn a_keyword_alone_stands_for_every_channel(transport) {
        let gateway = TestGateway::start().run().await;
        gateway.publish_numbers("a", 1, 3).await;
        gateway.publish_numbers("b", 1, 3).await;
        let mut client = Client::connect(&gateway, transport, "channel=a&channel=b&since=last:2").await;
        let mut seen: Vec<(String, u64)> =
            client.messages(4).await.iter().map(|message| (message.channel.clone(), message.number())).collect();
        seen.sort();
        assert_eq!(seen, [("a".into(), 2), ("a".into(), 3), ("b".into(), 2), ("b".into(), 3)]);
        gateway.finish(client).await;
    }

    async fn last_event_id_wins_over_since_unless_it_is_empty(transport) {
        let gateway = TestGateway::start().run().await;
        let ids = gateway.publish_numbers("a", 1, 4).await;
        for (header, query, wanted) in [
            (Some(ids[2].as_str()), "channel=a&since=earliest".to_owned(), 4),
            (Some("last:1"), "channel=a&since=earliest".to_owned(), 4),
            (Some(""), "channel=a&since=last:2".to_owned(), 3),
            (None, format!("channel=a&since=earliest&lastEventId={}", ids[1]), 3),
            (None, "channel=a&since=last:3&lastEventId=".to_owned(), 2),
        ] {
            let headers = header.map(|value| ("Last-Event-ID", value)).into_iter().collect();
            // The later polls go on from their cursor, without these.
            let mut client = match Client::open(gateway.public, transport, &query, Options { headers, ..Options::default() }).await {
                Ok(client) => client,
                Err(answer) => panic!("{query}: {answer:?}"),
            };
            let first = loop {
                if let crate::support::Event::Message(message) = client.next().await {
                    break message.number();
                }
            };
            assert_eq!(first, wanted, "{header:?} {query}");
        }
        gateway.finish(()).await;
    }

    async fn an_empty_channel_has_a_position_to_come_back_with(transport) {
        let gateway = TestGateway::start().run().await;
        let client = Client::connect(&gateway, transport, "channel=a").await;
        let cursor = client.cursor();
        let (epoch, seconds) = split_position(&cursor);
        assert_eq!(epoch, "0");
        assert!(seconds.abs_diff(now_seconds()) <= 5, "{cursor}");
        drop(client);
        gateway.publish_numbers("a", 1, 3).await;
        let mut back = Client::connect(&gateway, transport, &format!("channel=a&since={cursor}")).await;
        expect_recovery(&back, "complete");
        assert_eq!(back.numbers(3).await, [1, 2, 3], "everything since");
        gateway.finish(back).await;
    }

    async fn an_empty_channel_can_be_gone_on_from_while_it_stays_empty(transport) {
        let gateway = TestGateway::start().run().await;
        let client = Client::connect(&gateway, transport, "channel=a&channel=b&since=earliest").await;
        let mut client = client.resume_on(transport).await.resume_on(transport).await;
        gateway.publish("b", "1").await;
        gateway.publish("a", "1").await;
        assert_eq!(client.numbers(2).await, [1, 1]);
        gateway.finish(client).await;
    }

    async fn a_second_before_the_broker_began_has_expired(transport) {
        let gateway = TestGateway::start().run().await;
        gateway.publish_numbers("a", 1, 3).await;
        let mut client = Client::connect(&gateway, transport, "channel=a&since=0-1000000000").await;
        expect_recovery(&client, "gap");
        let (reason, from, to) = client.gap().await;
        assert_eq!((reason.as_str(), from.as_str(), split_position(&to).1), ("expired", "0-1000000000", 0));
        assert_eq!(client.numbers(3).await, [1, 2, 3]);
        gateway.finish(client).await;
    }

    async fn a_second_in_the_near_future_is_a_clocks_difference_and_later_ones_are_refused(transport) {
        let gateway = TestGateway::start().run().await;
        let near = format!("channel=a&since=0-{}", now_seconds() + 30);
        let mut client = Client::connect(&gateway, transport, &near).await;
        gateway.publish("a", "1").await;
        assert_eq!(client.numbers(1).await, [1]);
        let far = format!("channel=a&since=0-{}", now_seconds() + 120);
        let Err(refusal) = Client::open(gateway.public, transport, &far, Options::default()).await else { panic!("served") };
        refusal.problem(400, "invalid_since");
        gateway.finish(client).await;
    }

    async fn a_malformed_since_is_refused_before_anything_begins(transport) {
        let gateway = TestGateway::start().run().await;
        let id = gateway.publish("a", "1").await.id;
        let epoch = split_position(&id).0;
        let refused = [
            "newest".to_owned(),
            "LATEST".to_owned(),
            "last".to_owned(),
            "last:".to_owned(),
            "last:0".to_owned(),
            "last:01".to_owned(),
            "last:-1".to_owned(),
            "last:x".to_owned(),
            "last:9223372036854775808".to_owned(),
            epoch.to_owned(),
            format!("{epoch}-"),
            format!("{epoch}-x"),
            format!("{epoch}-01"),
            format!("{epoch}-+1"),
            format!("{epoch}--1"),
            format!("{epoch}-1-1"),
            format!("{epoch}-9223372036854775808"),
            format!("{epoch}-99999999999999999999999"),
            "ABCDEF-1".to_owned(),
            "abc-1".to_owned(),
            "abcdefghijklm-1".to_owned(),
            "-1".to_owned(),
            "1".to_owned(),
            "0-".to_owned(),
            "0-01".to_owned(),
            format!("{id},{id}"),
            format!("{id},"),
            format!(",{id}"),
            ",".to_owned(),
            "latest,latest".to_owned(),
            "%20latest".to_owned(),
        ];
        for since in &refused {
            let query = format!("channel=a&since={since}");
            let Err(refusal) = Client::open(gateway.public, transport, &query, Options::default()).await else {
                panic!("{since} is served");
            };
            let problem = refusal.problem(400, "invalid_since");
            assert_eq!(problem["parameter"], "since", "{since}");
        }
        for since in [&id, "earliest,earliest,earliest", ",", "earliest,"] {
            let query = format!("channel=a&channel=b&since={since}");
            let Err(refusal) = Client::open(gateway.public, transport, &query, Options::default()).await else {
                panic!("{since} is served for two channels");
            };
            refusal.problem(400, "invalid_since");
        }
        gateway.finish(()).await;
    }

    async fn subscribing_makes_nothing_of_a_channel(transport) {
        let gateway = TestGateway::start().run().await;
        let client = Client::connect(&gateway, transport, "channel=a&since=earliest").await;
        let info = gateway.get("/v1/channels/a").await;
        assert!(info["position"].as_str().expect("a position").starts_with("0-"), "{info}");
        assert_eq!(gateway.get("/v1/channels").await["channels"], serde_json::json!([]));
        gateway.finish(client).await;
    }
}

/// Goes through transports, a few messages on each, while two channels are published to.
async fn hop(route: &[Transport], each: usize) {
    let total = 150;
    let gateway = TestGateway::start().run().await;
    let mut client = Client::connect(&gateway, route[0], "channel=a&channel=b").await;
    let publish = async {
        for number in 1..=total {
            gateway.publish("a", number.to_string()).await;
            gateway.publish("b", number.to_string()).await;
        }
    };
    let receive = async {
        let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
        let (mut count, mut hops) = (0, route.iter().cycle().skip(1));
        let all = usize::try_from(total).expect("fits") * 2;
        while count < all {
            for message in client.messages(each.min(all - count)).await {
                seen.entry(message.channel.clone()).or_default().push(message.number());
                count += 1;
            }
            client = client.resume_on(*hops.next().expect("endless")).await;
        }
        (seen, client)
    };
    let ((), (seen, client)) = tokio::join!(publish, receive);
    for channel in ["a", "b"] {
        assert_eq!(seen[channel], (1..=total).collect::<Vec<_>>(), "{channel}: no loss, no double, in order");
    }
    gateway.finish(client).await;
}

#[tokio::test]
async fn a_client_hops_over_all_transports_without_loss_or_double() {
    use Transport::{Ndjson, Poll, Sse, Websocket};
    hop(&[Websocket, Sse, Ndjson, Poll], 7).await;
    hop(&[Poll, Ndjson, Sse, Websocket], 1).await;
    hop(&[Sse, Poll, Websocket, Ndjson], 13).await;
}

each_transport! {
    async fn a_client_reconnects_again_and_again_without_loss_or_double(transport) {
        hop(&[transport], 5).await;
    }

    async fn a_burst_at_the_seam_of_replay_and_live_is_whole(transport) {
        let gateway = TestGateway::start().run().await;
        let before = gateway.publish_numbers("a", 1, 100).await;
        for start in [1_usize, 50, 99] {
            let query = format!("channel=a&since={}", before[start - 1]);
            let top = gateway.get("/v1/channels/a").await["messages"].as_u64().expect("a number");
            let (mut client, _) = tokio::join!(
                Client::connect(&gateway, transport, &query),
                gateway.publish_numbers("a", top + 1, top + 50)
            );
            let first = start as u64 + 1;
            let count = usize::try_from(top + 50 - first + 1).expect("fits");
            assert_eq!(client.numbers(count).await, (first..=top + 50).collect::<Vec<_>>());
        }
        gateway.finish(()).await;
    }
}

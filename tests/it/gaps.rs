//! Loss is never silent: what is missing is told, with its reason and where certainty begins again.

use crate::support::objects::{at_offset, split_position};
use crate::support::{Client, TestGateway, Transport, eventually};

/// A client that comes back with this position; its one `subscribed` must say `gap`.
async fn back(gateway: &TestGateway, transport: Transport, since: &str) -> Client {
    let client = Client::connect(gateway, transport, &format!("channel=a&since={since}")).await;
    for (_, position, recovery) in &client.subscribed {
        assert_eq!((position.as_str(), recovery.as_str()), (since, "gap"));
    }
    client
}

#[track_caller]
fn is_gap(found: &(String, String, String), reason: &str, from: &str, to: &str) {
    assert_eq!((found.0.as_str(), found.1.as_str(), found.2.as_str()), (reason, from, to));
}

each_transport! {
    async fn what_was_trimmed_by_count_is_a_gap(transport) {
        let gateway = TestGateway::start().namespace("default", "history_messages = 5").run().await;
        let ids = gateway.publish_numbers("a", 1, 12).await;
        let mut client = back(&gateway, transport, &ids[1]).await;
        is_gap(&client.gap().await, "trimmed", &ids[1], &ids[6]);
        assert_eq!(client.numbers(5).await, [8, 9, 10, 11, 12]);
        gateway.publish("a", "13").await;
        assert_eq!(client.numbers(1).await, [13]);
        gateway.finish(client).await;
    }

    async fn the_oldest_kept_message_can_still_be_reached_without_a_gap(transport) {
        let gateway = TestGateway::start().namespace("default", "history_messages = 5").run().await;
        let ids = gateway.publish_numbers("a", 1, 12).await;
        let mut client = Client::connect(&gateway, transport, &format!("channel=a&since={}", ids[6])).await;
        assert_eq!(client.numbers(5).await, [8, 9, 10, 11, 12]);
        gateway.finish(client).await;
    }

    async fn what_was_trimmed_by_bytes_is_a_gap(transport) {
        let gateway = TestGateway::start().namespace("default", "history_bytes = '1KiB'").run().await;
        let body = format!("\"{}\"", "x".repeat(298));
        let mut ids = Vec::new();
        for _ in 0..10 {
            ids.push(gateway.publish("a", &body).await.id);
        }
        // Three times 300 bytes fit into 1,024, four do not.
        let mut client = back(&gateway, transport, &ids[0]).await;
        is_gap(&client.gap().await, "trimmed", &ids[0], &ids[6]);
        assert_eq!(client.messages(3).await.last().expect("three").id, ids[9]);
        gateway.finish(client).await;
    }

    async fn what_grew_too_old_is_a_gap(transport) {
        let gateway = TestGateway::start().namespace("default", "history_age = '1s'").run().await;
        let ids = gateway.publish_numbers("a", 1, 3).await;
        eventually("the messages grow old", async || (gateway.get("/v1/channels/a").await["messages"] == 0).then_some(())).await;
        let mut client = back(&gateway, transport, &ids[0]).await;
        is_gap(&client.gap().await, "trimmed", &ids[0], &ids[2]);
        let next = gateway.publish("a", "4").await.id;
        assert_eq!(next, at_offset(&ids[0], 4), "positions go on counting");
        assert_eq!(client.numbers(1).await, [4]);
        gateway.finish(client).await;
    }

    async fn without_a_history_whatever_was_missed_is_a_gap(transport) {
        let gateway = TestGateway::start().namespace("default", "history_messages = 0").run().await;
        let mut client = Client::connect(&gateway, transport, "channel=a").await;
        // A poll holds nothing between two requests, so only the streams see these live.
        let ids = gateway.publish_numbers("a", 1, 3).await;
        if transport != Transport::Poll {
            assert_eq!(client.numbers(3).await, [1, 2, 3], "delivered live");
        }
        drop(client);
        let mut client = back(&gateway, transport, &ids[0]).await;
        is_gap(&client.gap().await, "trimmed", &ids[0], &ids[2]);
        gateway.finish(client).await;
    }

    async fn a_deleted_history_is_a_gap(transport) {
        let gateway = TestGateway::start().run().await;
        let ids = gateway.publish_numbers("a", 1, 3).await;
        gateway.delete("a").await;
        let mut client = back(&gateway, transport, &ids[0]).await;
        is_gap(&client.gap().await, "deleted", &ids[0], &ids[2]);
        assert_eq!(gateway.publish("a", "4").await.id, at_offset(&ids[0], 4), "positions go on counting");
        assert_eq!(client.numbers(1).await, [4]);
        gateway.finish(client).await;
    }

    async fn after_a_delete_what_came_later_follows_the_gap(transport) {
        let gateway = TestGateway::start().run().await;
        let ids = gateway.publish_numbers("a", 1, 3).await;
        gateway.delete("a").await;
        gateway.publish_numbers("a", 4, 5).await;
        let mut client = back(&gateway, transport, &ids[1]).await;
        is_gap(&client.gap().await, "deleted", &ids[1], &ids[2]);
        assert_eq!(client.numbers(2).await, [4, 5]);
        gateway.finish(client).await;
    }

    async fn who_had_everything_before_a_delete_has_no_gap(transport) {
        let gateway = TestGateway::start().run().await;
        let ids = gateway.publish_numbers("a", 1, 3).await;
        gateway.delete("a").await;
        let mut client = Client::connect(&gateway, transport, &format!("channel=a&since={}", ids[2])).await;
        gateway.publish("a", "4").await;
        assert_eq!(client.numbers(1).await, [4]);
        gateway.finish(client).await;
    }

    async fn deleted_outranks_trimmed(transport) {
        let gateway = TestGateway::start().namespace("default", "history_messages = 3").run().await;
        let ids = gateway.publish_numbers("a", 1, 3).await;
        gateway.delete("a").await;
        let later = gateway.publish_numbers("a", 4, 13).await;
        let mut client = back(&gateway, transport, &ids[0]).await;
        is_gap(&client.gap().await, "deleted", &ids[0], &later[6]);
        assert_eq!(client.numbers(3).await, [11, 12, 13]);
        drop(client);
        // Who had all that was deleted misses only what was trimmed.
        let mut client = back(&gateway, transport, &ids[2]).await;
        is_gap(&client.gap().await, "trimmed", &ids[2], &later[6]);
        gateway.finish(client).await;
    }

    async fn deleted_outranks_expired(transport) {
        let gateway = TestGateway::start().run().await;
        let cursor = Client::connect(&gateway, transport, "channel=a").await.cursor();
        let ids = gateway.publish_numbers("a", 1, 3).await;
        gateway.delete("a").await;
        let mut client = back(&gateway, transport, &cursor).await;
        is_gap(&client.gap().await, "deleted", &cursor, &ids[2]);
        gateway.finish(client).await;
    }

    async fn who_was_there_when_it_was_empty_and_missed_some_is_told_expired(transport) {
        let gateway = TestGateway::start().namespace("default", "history_messages = 3").run().await;
        let cursor = Client::connect(&gateway, transport, "channel=a").await.cursor();
        let ids = gateway.publish_numbers("a", 1, 10).await;
        let mut client = back(&gateway, transport, &cursor).await;
        is_gap(&client.gap().await, "expired", &cursor, &ids[6]);
        assert_eq!(client.numbers(3).await, [8, 9, 10]);
        gateway.finish(client).await;
    }

    async fn an_unknown_epoch_is_a_reset_and_everything_kept_follows(transport) {
        let gateway = TestGateway::start().namespace("default", "history_messages = 3").run().await;
        let ids = gateway.publish_numbers("a", 1, 5).await;
        let mut client = back(&gateway, transport, "zzzzzzzz9999-2").await;
        is_gap(&client.gap().await, "reset", "zzzzzzzz9999-2", &ids[1]);
        assert_eq!(client.numbers(3).await, [3, 4, 5]);
        gateway.publish("a", "6").await;
        assert_eq!(client.numbers(1).await, [6]);
        gateway.finish(client).await;
    }

    async fn a_position_of_another_channel_is_never_complete(transport) {
        let gateway = TestGateway::start().run().await;
        let ids = gateway.publish_numbers("a", 1, 2).await;
        let other = gateway.publish_numbers("b", 1, 3).await;
        assert_ne!(split_position(&ids[0]).0, split_position(&other[0]).0);
        let mut client = back(&gateway, transport, &other[1]).await;
        is_gap(&client.gap().await, "reset", &other[1], &at_offset(&ids[0], 0));
        assert_eq!(client.numbers(2).await, [1, 2]);
        gateway.finish(client).await;
    }

    async fn a_position_in_an_unused_channel_is_a_reset(transport) {
        let gateway = TestGateway::start().run().await;
        let mut client = back(&gateway, transport, "abcdef-7").await;
        let (reason, from, _) = client.gap().await;
        assert_eq!((reason.as_str(), from.as_str()), ("reset", "abcdef-7"));
        gateway.publish("a", "1").await;
        assert_eq!(client.numbers(1).await, [1]);
        gateway.finish(client).await;
    }

    async fn a_position_beyond_the_top_is_a_reset_to_the_top(transport) {
        let gateway = TestGateway::start().run().await;
        let ids = gateway.publish_numbers("a", 1, 3).await;
        let beyond = at_offset(&ids[0], 9);
        let mut client = back(&gateway, transport, &beyond).await;
        is_gap(&client.gap().await, "reset", &beyond, &ids[2]);
        gateway.publish("a", "4").await;
        assert_eq!(client.numbers(1).await, [4]);
        gateway.finish(client).await;
    }

    async fn earliest_and_last_n_never_give_a_gap(transport) {
        let gateway = TestGateway::start().namespace("default", "history_messages = 3").run().await;
        gateway.publish_numbers("a", 1, 2).await;
        gateway.delete("a").await;
        gateway.publish_numbers("a", 3, 10).await;
        for since in ["earliest", "last:3", "last:100"] {
            let mut client = Client::connect(&gateway, transport, &format!("channel=a&since={since}")).await;
            assert_eq!(client.numbers(3).await, [8, 9, 10], "{since}");
        }
        gateway.delete("a").await;
        for since in ["earliest", "last:3"] {
            let mut client = Client::connect(&gateway, transport, &format!("channel=a&since={since}")).await;
            let next = gateway.publish("a", "11").await;
            assert_eq!(client.message().await.id, next.id, "{since}");
            gateway.delete("a").await;
        }
        gateway.finish(()).await;
    }

    async fn a_gap_concerns_its_channel_alone(transport) {
        let gateway = TestGateway::start().namespace("short", "history_messages = 2").run().await;
        let whole = gateway.publish_numbers("a", 1, 4).await;
        let short = gateway.publish_numbers("short:b", 1, 4).await;
        let query = format!("channel=a&channel=short:b&since={},{}", whole[0], short[0]);
        let mut client = Client::connect(&gateway, transport, &query).await;
        let (mut gaps, mut numbers) = (Vec::new(), Vec::new());
        while gaps.len() + numbers.len() < 1 + 3 + 2 {
            match client.next().await {
                crate::support::Event::Gap { channel, reason, .. } => gaps.push((channel, reason)),
                crate::support::Event::Message(message) => numbers.push((message.channel.clone(), message.number())),
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(gaps, [("short:b".to_owned(), "trimmed".to_owned())]);
        numbers.sort();
        let wanted = [("a", 2), ("a", 3), ("a", 4), ("short:b", 3), ("short:b", 4)];
        assert_eq!(numbers, wanted.map(|(channel, number)| (channel.to_owned(), number)));
        gateway.finish(client).await;
    }

    async fn a_connected_client_is_not_disturbed_by_a_delete(transport) {
        let gateway = TestGateway::start().run().await;
        let mut client = Client::connect(&gateway, transport, "channel=a").await;
        gateway.publish_numbers("a", 1, 2).await;
        assert_eq!(client.numbers(2).await, [1, 2]);
        gateway.delete("a").await;
        gateway.publish("a", "3").await;
        assert_eq!(client.numbers(1).await, [3]);
        gateway.finish(client).await;
    }

    async fn who_resumes_from_the_end_of_a_gap_meets_it_once(transport) {
        let gateway = TestGateway::start().namespace("default", "history_messages = 2").run().await;
        let ids = gateway.publish_numbers("a", 1, 6).await;
        let mut client = back(&gateway, transport, &ids[0]).await;
        let (_, _, to) = client.gap().await;
        assert_eq!(client.cursor(), to);
        let mut client = client.resume_on(transport).await;
        assert_eq!(client.numbers(2).await, [5, 6]);
        gateway.finish(client).await;
    }
}

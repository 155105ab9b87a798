//! Publish at any gateway, subscribe at any, come back at any.

use std::collections::BTreeMap;

use crate::redis::table::Trio;
use crate::support::objects::{at_offset, split_position};
use crate::support::{Client, Transport, now_seconds};

/// What was published, as clients saw it: whole objects.
async fn texts(client: &mut Client, count: usize) -> Vec<String> {
    client.messages(count).await.into_iter().map(|message| message.text).collect()
}

each_broker_and_transport! {
    async fn what_is_published_anywhere_arrives_everywhere_once_and_in_order(backend, transport) {
        let trio = Trio::start(backend).await;
        let mut clients = Vec::new();
        for number in 0..3 {
            clients.push(Client::connect(trio.at(number), transport, "channel=a&since=earliest").await);
        }
        let ids = trio.publish_numbers("a", 1, 30).await;
        let mut seen = Vec::new();
        for client in &mut clients {
            seen.push(texts(client, 30).await);
        }
        assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "the same bytes at each gateway: {seen:#?}");
        for (number, (text, id)) in (1..).zip(seen[0].iter().zip(&ids)) {
            assert!(text.contains(&format!("\"id\":\"{id}\"")) && text.ends_with(&format!("\"data\":{number}}}")), "{text}");
        }
        assert_eq!(split_position(&ids[29]), (split_position(&ids[0]).0, 30), "one count for all gateways");
        trio.finish(clients).await;
    }

    async fn who_comes_back_to_another_gateway_misses_nothing(backend, transport) {
        let trio = Trio::start(backend).await;
        let mut client = Client::connect(trio.at(0), transport, "channel=a&channel=b").await;
        trio.at(1).publish("a", "1").await;
        assert_eq!(client.numbers(1).await, [1]);
        let cursor = client.cursor();
        drop(client);
        trio.at(2).publish_numbers("a", 2, 6).await;
        trio.at(0).publish_numbers("b", 1, 3).await;
        for number in 0..3 {
            let query = format!("channel=a&channel=b&since={cursor}");
            let mut back = Client::connect(trio.at(number), transport, &query).await;
            let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            for message in back.messages(8).await {
                seen.entry(message.channel.clone()).or_default().push(message.number());
            }
            assert_eq!(seen["a"], [2, 3, 4, 5, 6]);
            assert_eq!(seen["b"], [1, 2, 3]);
            for (_, _, recovery) in &back.subscribed {
                assert_eq!(recovery, "complete");
            }
        }
        trio.finish(()).await;
    }

    async fn a_client_that_wanders_from_gateway_to_gateway_under_load_loses_nothing(backend, transport) {
        let trio = Trio::start(backend).await;
        let mut client = Client::connect(trio.at(0), transport, "channel=a&channel=b").await;
        let total = 60;
        let publish = async {
            for number in 1..=total {
                trio.at(1).publish("a", number.to_string()).await;
                trio.at(2).publish("b", number.to_string()).await;
            }
        };
        let receive = async {
            let mut seen: BTreeMap<String, Vec<u64>> = BTreeMap::new();
            let (mut left, mut next) = (2 * total, 1);
            while left > 0 {
                let count = left.min(5);
                for message in client.messages(usize::try_from(count).expect("fits")).await {
                    seen.entry(message.channel.clone()).or_default().push(message.number());
                }
                left -= count;
                client = client.resume_at(trio.at(next).public, transport).await;
                next += 1;
            }
            (seen, client)
        };
        let ((), (seen, client)) = tokio::join!(publish, receive);
        for channel in ["a", "b"] {
            assert_eq!(seen[channel], (1..=total).collect::<Vec<_>>(), "{channel}");
        }
        trio.finish(client).await;
    }

    async fn a_burst_at_the_seam_of_replay_and_live_is_whole_at_any_gateway(backend, transport) {
        let trio = Trio::start(backend).await;
        let before = trio.publish_numbers("a", 1, 40).await;
        for (number, start) in [1_usize, 20, 39].into_iter().enumerate() {
            let query = format!("channel=a&since={}", before[start - 1]);
            let top = trio.at(0).get("/v1/channels/a").await["messages"].as_u64().expect("a number");
            let (mut client, _) = tokio::join!(
                Client::connect(trio.at(number), transport, &query),
                trio.at(number + 1).publish_numbers("a", top + 1, top + 30)
            );
            let first = start as u64 + 1;
            let count = usize::try_from(top + 30 - first + 1).expect("fits");
            assert_eq!(client.numbers(count).await, (first..=top + 30).collect::<Vec<_>>());
        }
        trio.finish(()).await;
    }

    async fn keywords_and_positions_mean_the_same_at_each_gateway(backend, transport) {
        let trio = Trio::start(backend).await;
        let ids = trio.publish_numbers("a", 1, 10).await;
        for number in 0..3 {
            for (since, wanted) in [
                ("earliest".to_owned(), (1..=10).collect::<Vec<u64>>()),
                ("last:3".to_owned(), vec![8, 9, 10]),
                ("last:1000".to_owned(), (1..=10).collect()),
                (ids[6].clone(), vec![8, 9, 10]),
                (at_offset(&ids[0], 0), (1..=10).collect()),
            ] {
                let mut client = Client::connect(trio.at(number), transport, &format!("channel=a&since={since}")).await;
                assert_eq!(client.numbers(wanted.len()).await, wanted, "{since} at {number}");
            }
            let client = Client::connect(trio.at(number), transport, "channel=a").await;
            assert_eq!(client.cursor(), ids[9], "latest at {number}");
        }
        trio.finish(()).await;
    }

    async fn an_empty_channels_position_is_good_at_every_gateway(backend, transport) {
        let trio = Trio::start(backend).await;
        let client = Client::connect(trio.at(0), transport, "channel=a").await;
        let cursor = client.cursor();
        let (epoch, seconds) = split_position(&cursor);
        assert_eq!(epoch, "0");
        assert!(seconds.abs_diff(now_seconds()) <= 60, "{cursor}");
        drop(client);
        trio.at(1).publish_numbers("a", 1, 3).await;
        for number in 0..3 {
            let mut back = Client::connect(trio.at(number), transport, &format!("channel=a&since={cursor}")).await;
            assert_eq!(back.numbers(3).await, [1, 2, 3], "everything since, without a gap");
        }
        trio.finish(()).await;
    }

    async fn what_is_no_longer_kept_is_the_same_gap_at_every_gateway(backend, transport) {
        let trio = Trio::with(backend, |builder| builder.namespace("default", "history_messages = 5")).await;
        let ids = trio.publish_numbers("a", 1, 12).await;
        let unknown = "zzzzzzzz9999-2".to_owned();
        let beyond = at_offset(&ids[0], 99);
        for number in 0..3 {
            for (since, reason, to, rest) in [
                (&ids[1], "trimmed", &ids[6], 5),
                (&unknown, "reset", &ids[6], 5),
                (&beyond, "reset", &ids[11], 0),
            ] {
                let mut client = Client::connect(trio.at(number), transport, &format!("channel=a&since={since}")).await;
                let gap = client.gap().await;
                assert_eq!((gap.0.as_str(), &gap.1, &gap.2), (reason, since, to), "at {number}");
                client.messages(rest).await;
            }
        }
        trio.finish(()).await;
    }

    async fn a_delete_at_one_gateway_is_a_gap_at_the_others_and_disturbs_nobody(backend, transport) {
        let trio = Trio::start(backend).await;
        let mut here = Client::connect(trio.at(2), transport, "channel=a&since=earliest").await;
        let ids = trio.publish_numbers("a", 1, 3).await;
        assert_eq!(here.numbers(3).await, [1, 2, 3]);
        trio.at(0).delete("a").await;
        let mut back = Client::connect(trio.at(1), transport, &format!("channel=a&since={}", ids[0])).await;
        let (reason, from, to) = back.gap().await;
        assert_eq!((reason.as_str(), &from, &to), ("deleted", &ids[0], &ids[2]));
        let next = trio.at(2).publish("a", "4").await.id;
        assert_eq!(next, at_offset(&ids[0], 4), "positions go on counting");
        assert_eq!((here.numbers(1).await, back.numbers(1).await), (vec![4], vec![4]));
        // The node's own memory of what was deleted is no way around it.
        let mut again = Client::connect(trio.at(2), transport, &format!("channel=a&since={}", ids[1])).await;
        assert_eq!(again.gap().await.0, "deleted");
        trio.finish((here, back, again)).await;
    }

    async fn without_a_history_all_gateways_deliver_live_and_say_what_was_missed(backend, transport) {
        let trio = Trio::with(backend, |builder| builder.namespace("default", "history_messages = 0")).await;
        let mut client = Client::connect(trio.at(0), transport, "channel=a").await;
        let ids = trio.at(1).publish_numbers("a", 1, 3).await;
        if transport != Transport::Poll {
            assert_eq!(client.numbers(3).await, [1, 2, 3]);
        }
        drop(client);
        let mut back = Client::connect(trio.at(2), transport, &format!("channel=a&since={}", ids[0])).await;
        let (reason, _, to) = back.gap().await;
        assert_eq!((reason.as_str(), &to), ("trimmed", &ids[2]));
        trio.finish(back).await;
    }

    async fn every_kind_of_payload_passes_unchanged(backend, transport) {
        let trio = Trio::start(backend).await;
        let mut clients = Vec::new();
        for number in 0..3 {
            clients.push(Client::connect(trio.at(number), transport, "channel=orders:42&since=earliest").await);
        }
        let large = format!("\"{}\"", "x".repeat(200_000));
        let bytes: Vec<u8> = (0..=255).collect();
        let sent: [(&str, &[u8], &str); 5] = [
            ("application/json", br#"{"a":1.10,"a":[null,"\u00e9"]}"#, r#""data":{"a":1.10,"a":[null,"\u00e9"]}"#),
            ("text/plain", "caf\u{e9}\r\n\"\\".as_bytes(), r#""data":"café\r\n\"\\""#),
            ("application/octet-stream", &bytes, r#""data_base64":"AAECAwQFBgcICQoL"#),
            ("text/plain", b"", r#""data":"""#),
            ("application/json", large.as_bytes(), &large),
        ];
        for (number, (kind, body, _)) in sent.iter().enumerate() {
            let headers = [("Content-Type", *kind), ("Tidegate-Event", "order.changed")];
            trio.at(number).post("orders:42", &headers, body).await.expect(202);
        }
        for client in &mut clients {
            for (_, _, wanted) in &sent {
                let message = client.message().await;
                assert!(message.text.contains(wanted), "{:.200} in {:.300}", wanted, message.text);
                assert_eq!(message.event.as_deref(), Some("order.changed"));
            }
        }
        trio.finish(clients).await;
    }

    async fn a_channel_that_was_left_can_be_come_back_to(backend, transport) {
        let trio = Trio::start(backend).await;
        let mut cursor = None;
        for round in 0..4_u64 {
            let since = cursor.take().unwrap_or_else(|| "earliest".to_owned());
            let mut client = Client::connect(trio.at(0), transport, &format!("channel=a&since={since}")).await;
            trio.at(1).publish("a", (2 * round + 1).to_string()).await;
            let missed = if round == 0 { vec![1] } else { vec![2 * round, 2 * round + 1] };
            assert_eq!(client.numbers(missed.len()).await, missed);
            cursor = Some(client.cursor());
            drop(client);
            trio.at(2).publish("a", (2 * round + 2).to_string()).await;
            trio.at(0).until_subscribers("a", 0).await;
        }
        trio.finish(()).await;
    }
}

each_broker! {
    async fn all_transports_at_all_gateways_see_the_same(backend) {
        let trio = Trio::start(backend).await;
        let mut clients = Vec::new();
        for number in 0..3 {
            for transport in Transport::ALL {
                clients.push(Client::connect(trio.at(number), transport, "channel=a&since=earliest").await);
            }
        }
        trio.publish_numbers("a", 1, 20).await;
        let mut seen = Vec::new();
        for client in &mut clients {
            seen.push(texts(client, 20).await);
        }
        assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:#?}");
        trio.finish(clients).await;
    }

    async fn many_channels_at_once_keep_to_themselves(backend) {
        let trio = Trio::start(backend).await;
        let channels: Vec<String> = (0..100).map(|number| format!("many:{number}")).collect();
        let query: String = channels.iter().map(|channel| format!("channel={channel}&")).collect();
        let mut client = Client::connect(trio.at(0), Transport::Sse, &format!("{query}since=earliest")).await;
        let outcome = trio.at(1).batch(&serde_json::json!({"messages": [{"channels": channels, "data": 7}]})).await;
        assert_eq!(outcome.expect(202).json()["accepted"], 100);
        let mut seen: Vec<String> = client.messages(100).await.into_iter().map(|message| message.channel).collect();
        seen.sort();
        let mut wanted = channels.clone();
        wanted.sort();
        assert_eq!(seen, wanted);
        // From the same cursor at another gateway: nothing is left, and all of them are live.
        let mut client = client.resume_at(trio.at(2).public, Transport::Ndjson).await;
        trio.at(0).publish("many:77", "8").await;
        let message = client.message().await;
        assert_eq!((message.channel.as_str(), message.number()), ("many:77", 8));
        trio.finish(client).await;
    }

    async fn the_same_key_gives_the_first_receipt_at_every_gateway(backend) {
        let trio = Trio::start(backend).await;
        let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "order-42")];
        let tries = (0..6).map(|number| trio.at(number).post("a", &headers, "1"));
        let answers = futures_util::future::join_all(tries).await;
        let receipts: Vec<_> = answers.iter().map(crate::support::gateway::receipt).collect();
        assert!(receipts.iter().all(|receipt| receipt.id == receipts[0].id), "{receipts:?}");
        assert_eq!(receipts.iter().filter(|receipt| !receipt.duplicate).count(), 1, "{receipts:?}");
        for number in 0..3 {
            trio.at(number).post("a", &headers, "2").await.problem(422, "idempotency_key_reused");
        }
        let other = trio.at(1).post("b", &headers, "2").await;
        assert!(!crate::support::gateway::receipt(&other).duplicate, "keys belong to their channel");
        assert_eq!(trio.at(2).get("/v1/channels/a").await["messages"], 1);
        trio.finish(()).await;
    }

    async fn publishers_at_all_gateways_at_once_share_one_count(backend) {
        let trio = Trio::start(backend).await;
        let mut client = Client::connect(trio.at(0), Transport::Websocket, "channel=a&since=earliest").await;
        let publishers = (0..12).map(|number| trio.at(number).publish_numbers("a", number as u64 * 100, number as u64 * 100 + 9));
        let mut ids: Vec<String> = futures_util::future::join_all(publishers).await.into_iter().flatten().collect();
        let messages = client.messages(120).await;
        ids.sort_by_key(|id| split_position(id).1);
        assert_eq!(messages.iter().map(|message| message.id.clone()).collect::<Vec<_>>(), ids);
        let mut last = BTreeMap::new();
        for message in &messages {
            let (publisher, number) = (message.number() / 100, message.number() % 100);
            let before = last.insert(publisher, number);
            assert_eq!(number, before.map_or(0, |before| before + 1), "each publisher's own order holds");
        }
        trio.finish(client).await;
    }

    async fn what_a_websocket_publishes_arrives_at_the_other_gateways(backend) {
        let trio = Trio::start(backend).await;
        let mut there = Client::connect(trio.at(1), Transport::Sse, "channel=chat&since=earliest").await;
        let mut here = Client::connect(trio.at(0), Transport::Websocket, "channel=chat").await;
        here.send(r#"{"type":"publish","channel":"chat","data":"hello","ref":1}"#).await;
        assert_eq!(there.message().await.string(), "hello");
        trio.finish((here, there)).await;
    }

    async fn what_grew_too_old_is_a_gap_at_every_gateway(backend) {
        let trio = Trio::with(backend, |builder| builder.namespace("default", "history_age = '1s'")).await;
        let mut listening = Client::connect(trio.at(2), Transport::Sse, "channel=a&since=earliest").await;
        let ids = trio.publish_numbers("a", 1, 3).await;
        listening.messages(3).await;
        crate::support::eventually("the messages grow old", async || {
            (trio.at(0).get("/v1/channels/a").await["messages"] == 0).then_some(())
        })
        .await;
        for number in 0..3 {
            let mut client =
                Client::connect(trio.at(number), Transport::Sse, &format!("channel=a&since={}", ids[0])).await;
            let (reason, _, to) = client.gap().await;
            assert_eq!((reason.as_str(), &to), ("trimmed", &ids[2]), "at {number}");
        }
        trio.finish(listening).await;
    }

    async fn many_who_resume_at_once_all_get_everything(backend) {
        let trio = Trio::start(backend).await;
        let ids = trio.publish_numbers("a", 1, 50).await;
        let query = format!("channel=a&since={}", ids[9]);
        let connecting = (0..60).map(|number| {
            Client::connect(trio.at(number), Transport::ALL[number % 4], &query)
        });
        let mut clients = futures_util::future::join_all(connecting).await;
        trio.at(0).publish("a", "51").await;
        for client in &mut clients {
            assert_eq!(client.numbers(41).await, (11..=51).collect::<Vec<_>>());
        }
        trio.finish(clients).await;
    }
}

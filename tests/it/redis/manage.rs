//! History, facts, lists and disconnects for the whole cluster, asked of any gateway.

use std::time::{Duration, Instant};

use crate::redis::table::Trio;
use crate::support::client::Document;
use crate::support::credentials::token;
use crate::support::objects::split_position;
use crate::support::{Client, Transport, eventually, within};

/// How soon a disconnect must be obeyed by every gateway.
const OBEYED: Duration = Duration::from_secs(5);

/// The end of a client that a disconnect meant.
async fn revoked(client: &mut Client, asked: Instant) {
    let (goodbye, _) = within(OBEYED * 3, "the end", client.end()).await;
    assert_eq!(goodbye.map(|(code, _)| code).as_deref(), Some("revoked"));
    assert!(asked.elapsed() < OBEYED, "{:?}", asked.elapsed());
}

each_broker! {
    async fn the_history_is_the_same_at_every_gateway(backend) {
        let trio = Trio::start(backend).await;
        trio.publish_numbers("a", 1, 25).await;
        let mut bodies = Vec::new();
        for number in 0..3 {
            let (mut query, mut seen, mut pages) = ("?limit=10".to_owned(), Vec::new(), Vec::new());
            loop {
                let answer = trio.at(number).internal("GET", &format!("/v1/channels/a/messages{query}"), &[], None).await;
                let document = Document::of(&answer);
                pages.push(answer.text().to_owned());
                seen.extend(document.numbers());
                query = format!("?limit=10&since={}", document.cursor);
                if document.more == Some(false) {
                    break;
                }
            }
            assert_eq!(seen, (1..=25).collect::<Vec<_>>());
            bodies.push(pages);
        }
        assert!(bodies.windows(2).all(|pair| pair[0] == pair[1]));
        trio.finish(()).await;
    }

    async fn the_facts_of_a_channel_are_the_same_at_every_gateway(backend) {
        let trio = Trio::start(backend).await;
        let ids = trio.publish_numbers("a", 1, 7).await;
        for number in 0..3 {
            let info = trio.at(number).get("/v1/channels/a").await;
            assert_eq!((info["position"].as_str(), &info["messages"]), (Some(ids[6].as_str()), &7.into()), "{info}");
            let unused = trio.at(number).get("/v1/channels/unused").await;
            let position = unused["position"].as_str().expect("a position");
            assert_eq!((split_position(position).0, &unused["messages"]), ("0", &0.into()), "{unused}");
        }
        trio.finish(()).await;
    }

    async fn subscribers_are_counted_over_all_gateways(backend) {
        let trio = Trio::start(backend).await;
        let mut clients = Vec::new();
        for number in 0..6 {
            clients.push(Client::connect(trio.at(number), Transport::STREAMS[number % 3], "channel=a").await);
        }
        for number in 0..3 {
            trio.at(number).until_subscribers("a", 6).await;
            let info = trio.at(number).get("/v1/channels/a").await;
            let age = info["subscribers_age_ms"].as_u64().expect("an age");
            assert!(age < 60_000, "{info}");
        }
        clients.truncate(2);
        for number in 0..3 {
            trio.at(number).until_subscribers("a", 2).await;
        }
        drop(clients);
        for number in 0..3 {
            trio.at(number).until_subscribers("a", 0).await;
        }
        trio.finish(()).await;
    }

    async fn the_list_of_channels_is_the_same_at_every_gateway(backend) {
        let trio = Trio::start(backend).await;
        let mut names: Vec<String> = (0..230).map(|number| format!("list:{number}")).collect();
        for (number, page) in names.chunks(50).enumerate() {
            trio.at(number).batch(&serde_json::json!({"messages": [{"channels": page, "data": 1}]})).await.expect(202);
        }
        trio.at(1).publish("other", "1").await;
        names.sort();
        for number in 0..3 {
            for limit in [7, 100, 1000] {
                let (mut cursor, mut seen) = (String::new(), Vec::new());
                loop {
                    let page = trio.at(number).get(&format!("/v1/channels?prefix=list:&limit={limit}{cursor}")).await;
                    let found = page["channels"].as_array().expect("a list");
                    assert!(found.len() <= limit);
                    seen.extend(found.iter().map(|name| name.as_str().expect("a name").to_owned()));
                    match page["cursor"].as_str() {
                        Some(next) => cursor = format!("&cursor={next}"),
                        None => break,
                    }
                }
                assert_eq!(seen, names, "at {number} with {limit}");
            }
        }
        trio.at(2).delete("list:99").await;
        for number in 0..3 {
            let page = trio.at(number).get("/v1/channels?prefix=list:99&limit=1").await;
            assert_eq!(page["channels"], serde_json::json!([]), "a deleted channel is not listed, at {number}");
        }
        trio.finish(()).await;
    }

    async fn a_channel_whose_messages_grew_old_is_no_longer_listed(backend) {
        let trio = Trio::with(backend, |builder| builder.namespace("default", "history_age = '1s'")).await;
        trio.at(0).publish("a", "1").await;
        assert_eq!(trio.at(1).get("/v1/channels").await["channels"], serde_json::json!(["a"]));
        eventually("it is listed no more", async || {
            (trio.at(2).get("/v1/channels").await["channels"] == serde_json::json!([])).then_some(())
        })
        .await;
        trio.finish(()).await;
    }

    async fn asking_makes_nothing(backend) {
        let trio = Trio::start(backend).await;
        let client = Client::connect(trio.at(0), Transport::Sse, "channel=a&since=earliest").await;
        for number in 0..3 {
            trio.at(number).get("/v1/channels/a").await;
            trio.at(number).get("/v1/channels/a/messages").await;
            trio.at(number).delete("a").await;
            assert_eq!(trio.at(number).get("/v1/channels").await["channels"], serde_json::json!([]));
            let position = trio.at(number).get("/v1/channels/a").await["position"].clone();
            assert!(position.as_str().expect("a position").starts_with("0-"), "{position}");
        }
        trio.finish(client).await;
    }
}

each_broker! {
    async fn a_disconnect_sent_to_any_gateway_is_obeyed_by_all(backend) {
        let trio = Trio::start(backend).await;
        for (number, transport) in Transport::STREAMS.into_iter().enumerate() {
            let mut other = Client::connect(trio.at(number), transport, "channel=b").await;
            let mut clients = Vec::new();
            for place in 0..3 {
                clients.push(Client::connect(trio.at(place), transport, "channel=a").await);
            }
            let asked = Instant::now();
            trio.at(number).disconnect("channel", "a").await;
            for client in &mut clients {
                revoked(client, asked).await;
            }
            let mut one = Client::connect(trio.at(number + 1), transport, "channel=a").await;
            let asked = Instant::now();
            trio.at(number).disconnect("connection", &one.connection).await;
            revoked(&mut one, asked).await;
            trio.at(number).publish("b", "1").await;
            assert_eq!(other.numbers(1).await, [1], "who was not meant stays");
        }
        trio.finish(()).await;
    }

    async fn the_connections_of_a_subject_end_at_all_gateways(backend) {
        let trio = Trio::with(backend, |builder| builder.tokens().key("root", &["*"], &["manage"])).await;
        let query = |subject: &str| format!("channel=a&token={}", token(subject, &["a"], &[]));
        let mut clients = Vec::new();
        for (place, transport) in Transport::STREAMS.into_iter().enumerate() {
            clients.push(Client::connect(trio.at(place), transport, &query("ann")).await);
        }
        let mut other = Client::connect(trio.at(2), Transport::Websocket, &query("bob")).await;
        let (asked, body) = (Instant::now(), serde_json::json!({"subject": "ann"}));
        trio.at(1).by("root", "POST", "/v1/disconnect", Some(&body)).await.expect(202);
        for client in &mut clients {
            revoked(client, asked).await;
        }
        other.send(r#"{"type":"ping","ref":1}"#).await;
        assert_eq!(other.object().await.kind, "pong", "who was not meant stays");
        trio.finish((clients, other)).await;
    }

    async fn a_held_poll_is_answered_by_a_disconnect_at_another_gateway(backend) {
        let trio = Trio::start(backend).await;
        let mut conn = crate::support::Conn::open(trio.at(0).public).await;
        let held = tokio::spawn(async move { conn.get("/v1/subscribe?channel=a&wait=55", &[]).await });
        trio.at(1).until_subscribers("a", 1).await;
        let asked = Instant::now();
        trio.at(1).disconnect("channel", "a").await;
        let answer = within(OBEYED * 3, "the poll's answer", held).await.expect("no panic");
        assert!(asked.elapsed() < OBEYED, "{:?}", asked.elapsed());
        assert_eq!(Document::of(&answer).messages.len(), 0);
        trio.finish(()).await;
    }
}

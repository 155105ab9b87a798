//! What is published arrives: in order, once, whole, the same bytes over each transport.

use crate::support::client::Options;
use crate::support::gateway::receipt;
use crate::support::{Client, Message, TestGateway, Transport, now_seconds};

const JSON: &[(&str, &str)] = &[("Content-Type", "application/json")];

/// One message published with these headers, as a client of this transport sees it.
async fn delivered(transport: Transport, headers: &[(&str, &str)], body: &[u8]) -> Message {
    let gateway = TestGateway::start().run().await;
    let mut client = Client::connect(&gateway, transport, "channel=a").await;
    let receipt = receipt(&gateway.post("a", headers, body).await);
    let message = client.message().await;
    assert_eq!((message.id.as_str(), message.channel.as_str()), (receipt.id.as_str(), "a"));
    gateway.finish(client).await;
    message
}

each_transport! {
    async fn messages_arrive_in_order_and_once(transport) {
        let gateway = TestGateway::start().run().await;
        let mut client = Client::connect(&gateway, transport, "channel=a").await;
        let ids = gateway.publish_numbers("a", 1, 60).await;
        let messages = client.messages(60).await;
        assert_eq!(messages.iter().map(|message| message.id.clone()).collect::<Vec<_>>(), ids);
        assert_eq!(messages.iter().map(Message::number).collect::<Vec<_>>(), (1..=60).collect::<Vec<_>>());
        gateway.finish(client).await;
    }

    async fn several_channels_arrive_on_one_connection(transport) {
        let gateway = TestGateway::start().run().await;
        let mut client = Client::connect(&gateway, transport, "channel=b&channel=a&channel=c:1").await;
        for number in 1..=10 {
            for channel in ["a", "b", "c:1", "other"] {
                gateway.publish(channel, number.to_string()).await;
            }
        }
        let messages = client.messages(30).await;
        for channel in ["a", "b", "c:1"] {
            let numbers: Vec<u64> =
                messages.iter().filter(|message| message.channel == channel).map(Message::number).collect();
            assert_eq!(numbers, (1..=10).collect::<Vec<_>>(), "{channel}");
        }
        gateway.finish(client).await;
    }

    async fn everybody_receives(transport) {
        let gateway = TestGateway::start().run().await;
        let mut clients = Vec::new();
        for _ in 0..5 {
            clients.push(Client::connect(&gateway, transport, "channel=a").await);
        }
        gateway.publish_numbers("a", 1, 3).await;
        for client in &mut clients {
            assert_eq!(client.numbers(3).await, [1, 2, 3]);
        }
        gateway.finish(clients).await;
    }

    async fn json_is_kept_byte_for_byte(transport) {
        let body = r#" { "b" :1.0e2,  "a":"\u00e9\/\ud83d\ude00", "a":2,"n":12345678901234567890.000,"z":[ ] , "u":"grün 🦀" } "#;
        let message = delivered(transport, JSON, body.as_bytes()).await;
        assert_eq!(message.data.as_deref(), Some(body.trim()));
    }

    async fn line_breaks_between_tokens_of_json_go_and_nothing_else_does(transport) {
        let body = "\r\n{\r\n\t\"a\" : [1,\n  2 ],\n\"b\":\"c\\nd\\r\"\n}\n";
        let message = delivered(transport, JSON, body.as_bytes()).await;
        assert_eq!(message.data.as_deref(), Some("{\t\"a\" : [1,  2 ],\"b\":\"c\\nd\\r\"}"));
    }

    async fn any_json_value_is_a_message(transport) {
        for body in ["null", "true", "-0", "0.10", "\"text\"", "\"\"", "[]", "{}", "1E+2"] {
            let message = delivered(transport, &[("Content-Type", "application/vnd.acme+json; charset=utf-8")], body.as_bytes()).await;
            assert_eq!(message.data.as_deref(), Some(body));
        }
    }

    async fn text_arrives_as_a_string(transport) {
        let body = "a \"quoted\" \\ line\r\nand\nanother\rone\ttab \u{0}\u{1b} \u{2028} ümläut 🦀 </script> data: x";
        for media in ["text/plain", "text/html; charset=UTF-8", "text/csv;charset=\"utf-8\""] {
            let message = delivered(transport, &[("Content-Type", media)], body.as_bytes()).await;
            assert_eq!(message.string(), body, "{media}");
        }
        assert_eq!(delivered(transport, &[("Content-Type", "text/plain")], b"").await.string(), "");
        // Text stays text, also where it looks like JSON.
        assert_eq!(delivered(transport, &[("Content-Type", "text/plain")], b"{\"a\":1}").await.string(), "{\"a\":1}");
    }

    async fn bytes_arrive_as_base64(transport) {
        let every: Vec<u8> = (0..=255).collect();
        for (body, base64) in [
            (every.as_slice(), None),
            (b"\xff".as_slice(), Some("/w==")),
            (b"\xfb\xff".as_slice(), Some("+/8=")),
            (b"abc".as_slice(), Some("YWJj")),
            (b"".as_slice(), Some("")),
        ] {
            let message = delivered(transport, &[("Content-Type", "application/octet-stream")], body).await;
            assert_eq!(message.data, None);
            let given = message.data_base64.expect("data_base64");
            if let Some(base64) = base64 {
                assert_eq!(given, base64);
            }
            use base64::Engine;
            assert_eq!(base64::engine::general_purpose::STANDARD.decode(&given).expect("RFC 4648 §4, padded"), body);
        }
    }

    async fn what_names_no_known_type_is_bytes(transport) {
        for headers in [&[][..], &[("Content-Type", "image/png")], &[("Content-Type", "application/jsonish")]] {
            let message = delivered(transport, headers, b"{}").await;
            assert_eq!(message.data_base64.as_deref(), Some("e30="), "{headers:?}");
        }
    }

    async fn what_curl_posts_without_a_type_is_json_or_else_text(transport) {
        let form = [("Content-Type", "application/x-www-form-urlencoded")];
        assert_eq!(delivered(transport, &form, b"{\"a\": 1}").await.data.as_deref(), Some("{\"a\": 1}"));
        assert_eq!(delivered(transport, &form, b"42").await.number(), 42);
        assert_eq!(delivered(transport, &form, b"hello world").await.string(), "hello world");
        assert_eq!(delivered(transport, &form, b"a=1&b=%20").await.string(), "a=1&b=%20");
        assert_eq!(delivered(transport, &form, b"{\"a\": 1").await.string(), "{\"a\": 1");
    }

    async fn an_event_name_travels_with_its_message(transport) {
        for name in ["created", "a.b-c_D9", "message", &"x".repeat(64)] {
            let headers = [("Content-Type", "application/json"), ("Tidegate-Event", name)];
            let message = delivered(transport, &headers, b"1").await;
            assert_eq!(message.event.as_deref(), Some(name));
        }
        assert_eq!(delivered(transport, JSON, b"1").await.event, None);
    }

    async fn the_time_is_the_clocks_and_never_goes_back(transport) {
        let gateway = TestGateway::start().run().await;
        let mut client = Client::connect(&gateway, transport, "channel=a").await;
        gateway.publish_numbers("a", 1, 30).await;
        let times: Vec<u64> = client.messages(30).await.iter().map(|message| message.time).collect();
        assert!(times.is_sorted(), "{times:?}");
        assert!(times[0].abs_diff(now_seconds() * 1000) < 30_000, "{times:?}");
        gateway.finish(client).await;
    }

    async fn the_largest_message_arrives_whole(transport) {
        let body = format!("\"{}\"", "x".repeat(256 * 1024 - 2));
        let message = delivered(transport, JSON, body.as_bytes()).await;
        assert!(message.data.as_deref() == Some(body.as_str()));
    }

    async fn what_is_published_once_the_head_is_out_arrives(transport) {
        let gateway = TestGateway::start().run().await;
        for round in 0..20 {
            let channel = format!("c{round}");
            let open = Client::open(gateway.public, transport, &format!("channel={channel}"), Options::default()).await;
            let mut client = open.expect("not refused");
            let receipt = gateway.publish(&channel, "1").await;
            loop {
                if let crate::support::Event::Message(message) = client.next().await {
                    assert_eq!(message.id, receipt.id);
                    break;
                }
            }
            drop(client);
        }
        gateway.finish(()).await;
    }

    async fn every_legal_channel_name_works(transport) {
        let gateway = TestGateway::start().run().await;
        for channel in ["A-z_0.9:~@", "-", "~", "a:", ":a", "a:b:c", "...a", &"n".repeat(200)] {
            let mut client = Client::connect(&gateway, transport, &format!("channel={channel}")).await;
            gateway.publish(channel, "1").await;
            assert_eq!(client.message().await.channel, channel);
        }
        gateway.finish(()).await;
    }

    async fn the_channels_of_a_connection_may_be_many(transport) {
        let gateway = TestGateway::start().run().await;
        let names: Vec<String> = (0..128).map(|number| format!("{number:03}{}", "x".repeat(197))).collect();
        let query = names.iter().map(|name| format!("channel={name}")).collect::<Vec<_>>().join("&");
        let mut client = Client::connect(&gateway, transport, &query).await;
        for name in [&names[0], &names[64], &names[127]] {
            gateway.publish(name, "1").await;
            assert_eq!(&client.message().await.channel, name);
        }
        gateway.finish(client).await;
    }

    async fn a_hundred_messages_from_many_publishers_arrive_in_one_order(transport) {
        let gateway = TestGateway::start().run().await;
        let mut first = Client::connect(&gateway, transport, "channel=a").await;
        let mut second = Client::connect(&gateway, Transport::Ndjson, "channel=a").await;
        let publishers = (0..10).map(|_| gateway.publish_numbers("a", 1, 10));
        futures_util::future::join_all(publishers).await;
        assert_eq!(first.messages(100).await, second.messages(100).await);
        gateway.finish((first, second)).await;
    }
}

#[tokio::test]
async fn an_object_is_the_same_bytes_over_every_transport() {
    let gateway = TestGateway::start().run().await;
    let mut clients = Vec::new();
    for transport in Transport::ALL {
        clients.push(Client::connect(&gateway, transport, "channel=a").await);
    }
    let named = [("Content-Type", "application/json"), ("Tidegate-Event", "created")];
    gateway.post("a", &named, r#"{"a": "\u00e9"}"#).await.expect(202);
    gateway.post("a", &[("Content-Type", "text/plain")], "a\r\nb \u{2028}\u{7f}/<>&'\u{1}").await.expect(202);
    gateway.post("a", &[], [0, 1, 254, 255]).await.expect(202);
    let mut seen = Vec::new();
    for client in &mut clients {
        let texts: Vec<String> = client.messages(3).await.into_iter().map(|message| message.text).collect();
        seen.push(texts);
    }
    assert!(seen.windows(2).all(|pair| pair[0] == pair[1]), "{seen:#?}");
    let answer = gateway.internal("GET", "/v1/channels/a/messages", &[], None).await;
    assert_eq!(crate::support::client::Document::of(&answer).messages, seen[0], "and in the history");
    gateway.finish(clients).await;
}

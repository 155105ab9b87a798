//! `POST /v1/messages`: many messages in one request, each with its own outcome.

use serde_json::{Value, json};

use crate::support::objects::{Fields, Message};
use crate::support::{Answer, Client, TestGateway, Transport};

/// Sends a batch as its exact text.
async fn send(gateway: &TestGateway, media: &str, body: &str) -> Answer {
    gateway.internal("POST", "/v1/messages", &[("Content-Type", media)], Some(body.as_bytes())).await
}

async fn send_json(gateway: &TestGateway, body: &str) -> Answer {
    send(gateway, "application/json", body).await
}

#[tokio::test]
async fn every_channel_of_every_item_has_its_outcome_in_order() {
    let gateway = TestGateway::start().run().await;
    let answer = gateway
        .batch(&json!({"messages": [
            {"channel": "a", "data": {"n": 1}},
            {"channels": ["b", "a", "c"], "data": "text"},
            {"channel": "b", "data_base64": "/w==", "event": "e"},
        ]}))
        .await
        .expect(202);
    assert_eq!(Fields::parse(answer.text()).names(), ["accepted", "failed", "outcomes"]);
    let json = answer.json();
    assert_eq!((&json["accepted"], &json["failed"]), (&json!(5), &json!(0)));
    let outcomes = json["outcomes"].as_array().expect("outcomes");
    let order: Vec<(u64, &str)> = outcomes
        .iter()
        .map(|outcome| {
            (outcome["item"].as_u64().expect("an item"), outcome["channel"].as_str().expect("a channel"))
        })
        .collect();
    assert_eq!(order, [(0, "a"), (1, "b"), (1, "a"), (1, "c"), (2, "b")]);
    assert!(outcomes.iter().all(|outcome| outcome["duplicate"] == false && outcome["id"].is_string()));
    gateway.finish(()).await;
}

#[tokio::test]
async fn the_payloads_arrive_as_they_were_given() {
    let gateway = TestGateway::start().run().await;
    let mut client = Client::connect(&gateway, Transport::Websocket, "channel=a").await;
    let body = "{\"messages\":[
        {\"channel\":\"a\",\"data\":{ \"x\" :1.00,\r\n\"x\":\"\\u00e9\" }},
        {\"channel\":\"a\",\"data\":\"text \\u00e9\\n\"},
        {\"channel\":\"a\",\"data\":null},
        {\"channel\":\"a\",\"data_base64\":\"+/8=\",\"event\":\"e\"},
        {\"data\":7,\"channel\":\"a\"}
    ]}";
    send_json(&gateway, body).await.expect(202);
    let messages = client.messages(5).await;
    assert_eq!(messages[0].data.as_deref(), Some("{ \"x\" :1.00,\"x\":\"\\u00e9\" }"));
    assert_eq!(messages[1].string(), "text é\n");
    assert_eq!(messages[2].data.as_deref(), Some("null"));
    assert_eq!((messages[3].data_base64.as_deref(), messages[3].event.as_deref()), (Some("+/8="), Some("e")));
    assert_eq!(messages[4].number(), 7);
    gateway.finish(client).await;
}

#[tokio::test]
async fn a_bad_item_fails_alone() {
    let gateway = TestGateway::start().with("limits.message = '1KiB'").run().await;
    let large = "x".repeat(1025);
    let items = [
        (json!({"channel": "a", "data": 1}), None),
        (json!({"channel": "a b", "data": 1}), Some("invalid_channel")),
        (json!({"channel": "a", "data": large}), Some("message_too_large")),
        (json!({"channel": "a", "data": 1, "event": "open"}), Some("invalid_body")),
        (json!({"channel": "a", "data": 1, "idempotency_key": "a b"}), Some("invalid_body")),
        (json!({"channel": "a", "data": 2}), None),
    ];
    let batch: Vec<&Value> = items.iter().map(|(item, _)| item).collect();
    let json = gateway.batch(&json!({"messages": batch})).await.expect(207).json();
    assert_eq!((&json["accepted"], &json["failed"]), (&json!(2), &json!(4)), "{json:#}");
    for (number, (_, code)) in items.iter().enumerate() {
        let outcome = &json["outcomes"][number];
        assert_eq!(outcome["item"], number);
        match code {
            None => assert!(outcome["id"].is_string() && outcome.get("problem").is_none(), "{outcome}"),
            Some(code) => {
                assert_eq!(outcome["problem"]["code"], *code, "{outcome}");
                assert!(outcome["problem"]["status"].is_u64() && outcome.get("id").is_none(), "{outcome}");
            }
        }
    }
    assert_eq!(gateway.get("/v1/channels/a").await["messages"], 2);
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_channel_of_an_item_may_fail_while_the_others_succeed() {
    let gateway = TestGateway::start().run().await;
    let json = gateway
        .batch(&json!({"messages": [{"channels": ["a", "..", "b"], "data": 1}]}))
        .await
        .expect(207)
        .json();
    assert_eq!((&json["accepted"], &json["failed"]), (&json!(2), &json!(1)));
    assert_eq!(json["outcomes"][1]["problem"]["code"], "invalid_channel");
    gateway.finish(()).await;
}

#[tokio::test]
async fn an_item_bad_as_a_whole_has_one_outcome_without_a_channel() {
    let gateway = TestGateway::start().run().await;
    for item in [
        json!(1),
        json!("a"),
        json!(null),
        json!([]),
        json!(["a", null, 1, null, null, null]),
        json!({}),
        json!({"data": 1}),
        json!({"channel": "a"}),
        json!({"channel": "a", "data": 1, "data_base64": "AA=="}),
        json!({"channel": "a", "channels": ["b"], "data": 1}),
        json!({"channel": 1, "data": 1}),
        json!({"channels": "a", "data": 1}),
        json!({"channels": [1], "data": 1}),
        json!({"channel": "a", "data_base64": "*"}),
        json!({"channel": "a", "data_base64": "/w"}),
        json!({"channel": "a", "data_base64": 1}),
        json!({"channel": "a", "data": 1, "event": 1}),
        json!({"channel": "a", "data": 1, "extra": 1}),
    ] {
        let json =
            gateway.batch(&json!({"messages": [item, {"channel": "z", "data": 1}]})).await.expect(207).json();
        assert_eq!(json["outcomes"].as_array().map(Vec::len), Some(2), "{item}: {json:#}");
        assert_eq!(json["outcomes"][0]["problem"]["code"], "invalid_body", "{item}");
        assert!(json["outcomes"][1]["id"].is_string(), "{item}");
    }
    let json = gateway.batch(&json!({"messages": [{"data": 1}]})).await.expect(207).json();
    assert!(json["outcomes"][0].get("channel").is_none(), "{json:#}");
    gateway.finish(()).await;
}

#[tokio::test]
async fn an_empty_batch_is_accepted() {
    let gateway = TestGateway::start().run().await;
    let json = gateway.batch(&json!({"messages": []})).await.expect(202).json();
    assert_eq!(json, json!({"accepted": 0, "failed": 0, "outcomes": []}));
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_request_bad_as_a_whole_is_a_problem() {
    let gateway = TestGateway::start().run().await;
    for body in [
        "[]",
        "1",
        "null",
        "{}",
        "{\"messages\":1}",
        "{\"messages\":{}}",
        "{\"messages\":[],\"more\":1}",
        "{\"Messages\":[]}",
        "{\"messages\":[],\"messages\":[]}",
        // Arrays whose elements stand where the fields would.
        "[[]]",
        "[[{\"channel\":\"a\",\"data\":1}]]",
    ] {
        send_json(&gateway, body).await.problem(400, "invalid_body");
    }
    for body in ["", "{", "{\"messages\":[}", "{\"messages\":[{\"channel\":\"a\",\"data\":nul}]}"] {
        send_json(&gateway, body).await.problem(400, "invalid_json");
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_batch_is_json_whatever_curl_says() {
    let gateway = TestGateway::start().run().await;
    let body = r#"{"messages":[{"channel":"a","data":1}]}"#;
    for media in [
        "application/json",
        "application/json; charset=utf-8",
        "application/vnd.x+json",
        "application/x-www-form-urlencoded",
    ] {
        send(&gateway, media, body).await.expect(202);
    }
    for media in [
        "text/plain",
        "application/octet-stream",
        "application/json; charset=latin1",
        "multipart/form-data; boundary=x",
    ] {
        send(&gateway, media, body).await.problem(415, "unsupported_media_type");
    }
    gateway
        .internal("POST", "/v1/messages", &[], Some(body.as_bytes()))
        .await
        .problem(415, "unsupported_media_type");
    let zipped = [("Content-Type", "application/json"), ("Content-Encoding", "gzip")];
    gateway
        .internal("POST", "/v1/messages", &zipped, Some(body.as_bytes()))
        .await
        .problem(415, "unsupported_media_type");
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_thousand_outcomes_and_no_more() {
    let gateway = TestGateway::start().run().await;
    let items = |count: usize| -> Vec<Value> {
        (0..count).map(|number| json!({"channel": "a", "data": number})).collect()
    };
    let json = gateway.batch(&json!({"messages": items(1000)})).await.expect(202).json();
    assert_eq!(json["accepted"], 1000);
    let problem = gateway.batch(&json!({"messages": items(1001)})).await.problem(413, "batch_too_large");
    assert_eq!(problem["limit"], 1000);
    let names: Vec<String> = (0..501).map(|number| format!("c{number}")).collect();
    let two = json!({"messages": [{"channels": names, "data": 1}, {"channels": names, "data": 1}]});
    gateway.batch(&two).await.problem(413, "batch_too_large");
    assert_eq!(
        gateway.get("/v1/channels/a").await["messages"],
        1000,
        "nothing of a refused batch was published"
    );
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_batch_may_have_as_many_bytes_as_configured() {
    let gateway =
        TestGateway::start().with("limits.batch = '100KiB'").with("limits.message = '100KiB'").run().await;
    let body = |bytes: usize| {
        let frame = r#"{"messages":[{"channel":"a","data":""}]}"#.len();
        format!(r#"{{"messages":[{{"channel":"a","data":"{}"}}]}}"#, "x".repeat(bytes - frame))
    };
    send_json(&gateway, &body(102_400)).await.expect(202);
    let problem = send_json(&gateway, &body(102_401)).await.problem(413, "batch_too_large");
    assert_eq!(problem["limit"], 102_400);
    send_json(&gateway, &body(5_000_000)).await.problem(413, "batch_too_large");
    gateway.finish(()).await;
}

#[tokio::test]
async fn messages_to_one_channel_keep_their_order() {
    let gateway = TestGateway::start().run().await;
    let mut client = Client::connect(&gateway, Transport::Sse, "channel=a").await;
    let items: Vec<Value> = (1..=500)
        .map(|number| json!({"channels": ["a", format!("c{}", number % 7)], "data": number}))
        .collect();
    gateway.batch(&json!({"messages": items})).await.expect(202);
    assert_eq!(client.numbers(500).await, (1..=500).collect::<Vec<_>>());
    gateway.finish(client).await;
}

#[tokio::test]
async fn keys_hold_in_a_batch_as_elsewhere() {
    let gateway = TestGateway::start().run().await;
    let one = json!({"channel": "a", "data": {"n": 1}, "idempotency_key": "k"});
    let other = json!({"channel": "a", "data": {"n": 2}, "idempotency_key": "k"});
    let json = gateway.batch(&json!({"messages": [one, one, other]})).await.expect(207).json();
    let outcomes = &json["outcomes"];
    assert_eq!((&outcomes[0]["duplicate"], &outcomes[1]["duplicate"]), (&json!(false), &json!(true)));
    assert_eq!(outcomes[0]["id"], outcomes[1]["id"]);
    assert_eq!(outcomes[2]["problem"]["code"], "idempotency_key_reused");
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "k")];
    let single = gateway.post("a", &headers, one["data"].to_string()).await.expect(202).json();
    assert_eq!((&single["id"], &single["duplicate"]), (&outcomes[0]["id"], &json!(true)));
    gateway.finish(()).await;
}

#[tokio::test]
async fn data_in_an_item_is_held_to_the_same_depth() {
    let gateway = TestGateway::start().run().await;
    let mut client = Client::connect(&gateway, Transport::Ndjson, "channel=a").await;
    let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
    let batch = |depth| format!("{{\"messages\":[{{\"channel\":\"a\",\"data\":{}}}]}}", nested(depth));
    send_json(&gateway, &batch(100)).await.expect(202);
    let message: Message = client.message().await;
    assert_eq!(message.data, Some(nested(100)));
    // Deeper than what this client can read.
    drop(client);
    send_json(&gateway, &batch(128)).await.expect(202);
    for depth in [129, 100_000] {
        let json = send_json(&gateway, &batch(depth)).await.expect(207).json();
        assert_eq!(json["outcomes"][0]["problem"]["code"], "invalid_json", "{depth}: {json:#}");
    }
    gateway.finish(()).await;
}

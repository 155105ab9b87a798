//! Who may do what by the internal listener: every path × every key.

use serde_json::{Value, json};

use crate::support::credentials::token;
use crate::support::gateway::Builder;
use crate::support::{Answer, Conn, TestGateway};

const OPERATIONS: [&str; 3] = ["publish", "read", "manage"];

/// Text, channels, operations.
const KEYS: [(&str, &[&str], &[&str]); 6] = [
    ("publisher", &["orders:*"], &["publish"]),
    ("reader", &["orders:*"], &["read"]),
    ("manager", &["orders:*"], &["manage"]),
    ("one", &["orders:1", "news"], &["publish", "read", "manage"]),
    ("operator", &["*"], &["manage"]),
    ("root", &["*"], &["publish", "read", "manage"]),
];

fn gateway() -> Builder {
    KEYS.iter().fold(TestGateway::start().tokens(), |gateway, (key, channels, operations)| {
        gateway.key(key, channels, operations)
    })
}

/// Each path: method, target, body, and which operation it is.
fn paths(channel: &str) -> Vec<(&'static str, String, Option<Value>, &'static str)> {
    let messages = format!("/v1/channels/{channel}/messages");
    vec![
        ("POST", messages.clone(), Some(json!(1)), "publish"),
        ("GET", messages.clone(), None, "read"),
        ("GET", format!("/v1/channels/{channel}"), None, "read"),
        ("POST", "/v1/disconnect".into(), Some(json!({"channel": channel})), "manage"),
        ("DELETE", messages, None, "manage"),
    ]
}

fn matches(patterns: &[&str], channel: &str) -> bool {
    patterns.iter().any(|pattern| match pattern.strip_suffix('*') {
        Some(beginning) => channel.starts_with(beginning),
        None => channel == *pattern,
    })
}

#[tokio::test]
async fn every_path_asks_for_a_key_that_grants_it() {
    let gateway = gateway().run().await;
    for channel in ["orders:1", "orders:2", "news", "other"] {
        for (key, channels, operations) in KEYS {
            for (method, target, body, operation) in paths(channel) {
                let answer = gateway.by(key, method, &target, body.as_ref()).await;
                if matches(channels, channel) && operations.contains(&operation) {
                    assert!(answer.status() < 300, "{key} {method} {target}: {}", answer.text());
                } else {
                    answer.problem(403, "forbidden");
                }
            }
        }
    }
    // Whole connections may listen to anything.
    for (key, channels, operations) in KEYS {
        for target in [json!({"subject": "ann"}), json!({"connection": "0123456789abcdef"})] {
            let answer = gateway.by(key, "POST", "/v1/disconnect", Some(&target)).await;
            match channels == ["*"] && operations.contains(&"manage") {
                true => drop(answer.expect(202)),
                false => drop(answer.problem(403, "forbidden")),
            }
        }
        let answer = gateway.by(key, "GET", "/v1/channels", None).await;
        match operations.contains(&"read") {
            true => drop(answer.expect(200)),
            false => drop(answer.problem(403, "forbidden")),
        }
    }
    assert_eq!(OPERATIONS.len(), 3);
    gateway.finish(()).await;
}

#[tokio::test]
async fn without_a_key_nothing_is_served_but_what_says_nothing() {
    let gateway = gateway().run().await;
    let token = format!("Bearer {}", token("ann", &["*"], &["*"]));
    let shown: [&[(&str, &str)]; 5] = [
        &[],
        &[("Authorization", "Bearer wrong")],
        &[("Authorization", "Basic cm9vdDpyb290")],
        &[("Authorization", "root")],
        &[("Authorization", &token)],
    ];
    let mut all = paths("orders:1");
    all.push(("POST", "/v1/messages".into(), Some(json!({"messages": []})), "publish"));
    all.push(("GET", "/v1/channels".into(), None, "read"));
    all.push(("POST", "/v1/disconnect".into(), Some(json!({"subject": "ann"})), "manage"));
    let ask = async |method: &str, target: &str, body: &Option<Value>, headers: &[(&str, &str)]| -> Answer {
        let body = body.as_ref().map(Value::to_string);
        let mut headers = headers.to_vec();
        headers.push(("Content-Type", "application/json"));
        let mut conn = Conn::open(gateway.internal).await;
        conn.request(method, target, &headers, body.as_deref().map(str::as_bytes)).await
    };
    for headers in shown {
        for (method, target, body, _) in &all {
            let answer = ask(method, target, body, headers).await;
            // Wrong keys are counted by address, and a test has one.
            if answer.status() == 429 {
                answer.problem(429, "rate_limited");
                assert!(answer.header("retry-after").is_some());
            } else {
                answer.problem(401, "unauthorized");
                assert_eq!(answer.header("www-authenticate"), Some("Bearer"));
            }
        }
        for free in ["/live", "/ready", "/metrics", "/openapi.yaml", "/"] {
            ask("GET", free, &None, headers).await.expect(200);
        }
        ask("OPTIONS", "/v1/messages", &None, headers).await.expect(204);
    }
    for (route, wanted) in [("message", 5.0), ("batch", 5.0)] {
        let labels = [("route", route), ("code", "4xx")];
        assert_eq!(gateway.metric("tidegate_publish_requests_total", &labels).await, wanted);
    }
    let twice = [("Authorization", "Bearer root"), ("Authorization", "Bearer root")];
    ask("GET", "/v1/channels", &None, &twice).await.problem(400, "invalid_header");
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_refusal_does_not_say_whether_a_channel_exists() {
    let gateway = gateway().run().await;
    gateway.by("root", "POST", "/v1/channels/hidden/messages", Some(&json!(1))).await.expect(202);
    for (used, unused) in paths("hidden").into_iter().zip(paths("absent")) {
        let told = async |(method, target, body, _): (&str, String, Option<Value>, &str)| {
            let answer = gateway.by("one", method, &target, body.as_ref()).await;
            let headers: Vec<_> =
                answer.head.headers.iter().filter(|(name, _)| name != "date").cloned().collect();
            (answer.status(), headers, answer.text().to_owned())
        };
        assert_eq!(told(used).await, told(unused).await);
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn the_items_of_a_batch_are_judged_one_by_one() {
    let gateway = gateway().run().await;
    let body = json!({"messages": [
        {"channel": "orders:1", "data": 1},
        {"channel": "other", "data": 2},
        {"channels": ["news", "orders:2"], "data": 3},
        {"channel": "not a channel", "data": 4},
    ]});
    let answer = gateway.by("one", "POST", "/v1/messages", Some(&body)).await.expect(207).json();
    assert_eq!((&answer["accepted"], &answer["failed"]), (&json!(2), &json!(3)));
    let outcomes = answer["outcomes"].as_array().expect("outcomes");
    let told: Vec<_> = outcomes
        .iter()
        .map(|outcome| (outcome["channel"].as_str().unwrap(), outcome["problem"]["code"].as_str()))
        .collect();
    assert_eq!(
        told,
        [
            ("orders:1", None),
            ("other", Some("forbidden")),
            ("news", None),
            ("orders:2", Some("forbidden")),
            ("not a channel", Some("invalid_channel")),
        ]
    );
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_list_has_what_the_key_may_read_and_its_cursor_names_nothing_else() {
    let gateway = gateway().key("lister", &["b:*", "d", "b:2*", "e"], &["read"]).run().await;
    let names = ["a", "b:1", "b:2", "b:21", "b:3", "c", "d", "d2", "e:1", "z"];
    for name in names {
        let target = format!("/v1/channels/{name}/messages");
        gateway.by("root", "POST", &target, Some(&json!(1))).await.expect(202);
    }
    let listed = async |key: &str, query: &str| {
        let (mut found, mut cursor) = (Vec::new(), String::new());
        loop {
            let target = format!("/v1/channels?{query}&cursor={cursor}");
            let page = gateway.by(key, "GET", &target, None).await.expect(200).json();
            found.extend(
                page["channels"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned()),
            );
            match page["cursor"].as_str() {
                None => return found,
                Some(next) => {
                    assert_eq!(found.last().map(String::as_str), Some(next));
                    cursor = next.to_owned();
                }
            }
        }
    };
    for limit in [1, 2, 3, 100] {
        assert_eq!(listed("root", &format!("limit={limit}")).await, names);
        assert_eq!(
            listed("lister", &format!("limit={limit}")).await,
            ["b:1", "b:2", "b:21", "b:3", "d"],
            "limit={limit}"
        );
        assert_eq!(listed("lister", &format!("prefix=b:2&limit={limit}")).await, ["b:2", "b:21"]);
        assert!(listed("lister", &format!("prefix=a&limit={limit}")).await.is_empty());
    }
    gateway.finish(()).await;
}

//! Keys over time: their rate, their rotation, and who guesses.

use std::time::{Duration, Instant};

use serde_json::json;

use crate::support::credentials::entry;
use crate::support::{TestGateway, eventually};

const MESSAGES: &str = "/v1/channels/news/messages";

#[tokio::test]
async fn a_key_publishes_at_its_rate_and_no_faster() {
    let limited = entry("limited", &["*"], &["publish", "read"], "rate = 5");
    let gateway = TestGateway::start().table(&limited).key("free", &["*"], &["publish"]).run().await;
    let (begun, mut accepted, mut refused) = (Instant::now(), 0_u32, 0);
    while begun.elapsed() < Duration::from_secs(2) || refused == 0 {
        let answer = gateway.by("limited", "POST", MESSAGES, Some(&json!(1))).await;
        if answer.status() == 202 {
            accepted += 1;
        } else {
            let problem = answer.problem(429, "rate_limited");
            assert_eq!(problem["limit"], 5);
            let after: u64 = answer.header("retry-after").expect("Retry-After").parse().expect("seconds");
            assert!((1..=4).contains(&after));
            refused += 1;
        }
        gateway.by("limited", "GET", MESSAGES, None).await.expect(200);
        gateway.by("free", "POST", MESSAGES, Some(&json!(1))).await.expect(202);
    }
    // A second's worth at once, and then evenly.
    let most = 5.0 + 5.0 * begun.elapsed().as_secs_f64();
    assert!((5.0..=most).contains(&f64::from(accepted)), "{accepted} in {:?}", begun.elapsed());
    eventually("it may publish again", async || {
        (gateway.by("limited", "POST", MESSAGES, Some(&json!(1))).await.status() == 202).then_some(())
    })
    .await;
    assert!(
        gateway.metric("tidegate_rate_limited_total", &[("scope", "publishes")]).await >= f64::from(refused)
    );
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_batch_counts_by_message() {
    let limited = entry("limited", &["a*"], &["publish"], "rate = 3");
    let gateway = TestGateway::start().table(&limited).run().await;
    let item = |channel: &str| json!({"channel": channel, "data": 1});
    let body = json!({"messages": [item("b"), item("a"), {"channels": ["a1", "a2", "a3", "a4"], "data": 1}]});
    let answer = gateway.by("limited", "POST", "/v1/messages", Some(&body)).await.expect(207).json();
    let codes: Vec<_> = answer["outcomes"]
        .as_array()
        .unwrap()
        .iter()
        .map(|outcome| outcome["problem"]["code"].as_str().unwrap_or("accepted"))
        .collect();
    assert_eq!(
        codes[..4],
        ["forbidden", "accepted", "accepted", "accepted"],
        "what is forbidden costs nothing"
    );
    assert_eq!(codes[5], "rate_limited");
    gateway.finish(()).await;
}

#[tokio::test]
async fn old_and_new_key_work_side_by_side_from_two_files() {
    let path = std::path::Path::new(env!("CARGO_TARGET_TMPDIR"));
    let path = path.join(format!("keys-{}.toml", std::process::id()));
    let second = entry("new", &["news"], &["publish"], "") + &entry("other", &["other"], &["publish"], "");
    std::fs::write(&path, second).unwrap();
    let gateway = TestGateway::start()
        .with(&format!("auth.keys_file = '{}'", path.display()))
        .key("old", &["news"], &["publish"])
        .run()
        .await;
    for (key, status) in [("old", 202), ("new", 202), ("other", 403), ("none", 401), ("New", 401), ("", 401)]
    {
        let answer = gateway.by(key, "POST", MESSAGES, Some(&json!(1))).await;
        assert_eq!(answer.status(), status, "{key}");
    }
    std::fs::remove_file(&path).unwrap();
    gateway.finish(()).await;
}

#[tokio::test]
async fn who_guesses_is_told_to_wait_and_who_has_a_key_is_served_beside_him() {
    let gateway = TestGateway::start().key("right", &["*"], &["publish"]).run().await;
    let mut wrong = (0, 0);
    for number in 0..40 {
        let answer = gateway.by(&format!("guess-{number}"), "POST", MESSAGES, Some(&json!(1))).await;
        if answer.status() == 429 {
            answer.problem(429, "rate_limited");
            wrong.1 += 1;
        } else {
            answer.problem(401, "unauthorized");
            wrong.0 += 1;
        }
        gateway.by("right", "POST", MESSAGES, Some(&json!(1))).await.expect(202);
    }
    assert!(wrong.0 >= 10 && wrong.1 > 0, "{wrong:?}");
    assert_eq!(gateway.metric("tidegate_auth_failures_total", &[("reason", "invalid")]).await, 40.0);
    let limited = gateway.metric("tidegate_rate_limited_total", &[("scope", "keys")]).await;
    assert_eq!(limited, f64::from(wrong.1));
    gateway.finish(()).await;
}

//! What callers without a gateway may get wrong, and what the file's own example says.

use super::*;

async fn fcall(redis: &Fixture, keys: &[&str], arguments: &[&str]) -> String {
    let count = keys.len().to_string();
    let words = [&["FCALL", "tidegate_1_publish", &count], keys, arguments].concat();
    match redis.try_run::<redis::Value>(&words).await {
        Ok(_) => "fine".into(),
        Err(error) => format!("{} {}", error.code().unwrap_or_default(), error.detail().unwrap_or_default()),
    }
}

#[tokio::test]
async fn wrong_arguments_are_named() {
    let redis = Fixture::new().await;
    let owned: Vec<String> =
        ["meta", "log", "names", "state"].iter().map(|kind| redis.key(kind, "news")).collect();
    let keys: Vec<&str> = owned.iter().map(String::as_str).collect();
    let good = ["news", "0", "P", "10", "1000", "60000", "json", "", "{}"];
    assert_eq!(fcall(&redis, &keys, &good).await, "fine");
    let long = "x".repeat(201);
    let (long_event, trace) = ("e".repeat(65), "t".repeat(256));
    for (at, text, says) in [
        (0, "", "a channel has"),
        (0, "a b", "a channel has"),
        (0, "..", "a channel has"),
        (0, &long, "a channel has"),
        (0, "other", "the first key"),
        (1, "x", "the database"),
        (2, "p", "neither P nor S"),
        (3, "-1", "the history"),
        (3, "many", "the history"),
        (4, "1.5", "the history"),
        (5, "nan", "the history"),
        (5, "1e300", "the history"),
        (6, "xml", "the kind"),
        (7, "open", "an event"),
        (7, "tidegate.x", "an event"),
        (7, "a b", "an event"),
        (7, &long_event, "an event"),
    ] {
        let mut arguments = good;
        arguments[at] = text;
        let answer = fcall(&redis, &keys, &arguments).await;
        assert!(answer.starts_with("TGARG") && answer.contains(says), "{text}: {answer}");
    }
    let with = |more: &[&'static str]| [&good[..], more].concat();
    let answer = fcall(&redis, &keys, &good[..8]).await;
    assert!(answer.contains("9 to 12 arguments"), "{answer}");
    let answer = fcall(&redis, &keys, &with(&["", "", "", ""])).await;
    assert!(answer.contains("9 to 12 arguments"), "{answer}");
    let answer = fcall(&redis, &keys[..3], &good).await;
    assert!(answer.contains("4 keys"), "{answer}");
    let answer = fcall(&redis, &keys, &[&good[..], &["", "", &trace]].concat()).await;
    assert!(answer.contains("a trace parent"), "{answer}");
    for at in 1..4 {
        let mut keys = keys.clone();
        keys[at] = "tidegate:{0}:x";
        let answer = fcall(&redis, &keys, &good).await;
        assert!(answer.starts_with("TGARG the ") && answer.contains("key is not"), "{answer}");
    }
    let five = [&keys[..], &["tidegate:{80}:idem:other/k"]].concat();
    assert!(fcall(&redis, &five, &good).await.contains("the fifth key"));
    assert_eq!(redis.read("news", "latest").await.top.offset(), 1);

    // A digest is made where none is given.
    let five = [&keys[..], &["tidegate:{80}:idem:news/k"]].concat();
    assert_eq!(fcall(&redis, &five, &good).await, "fine");
    assert_eq!(fcall(&redis, &five, &good).await, "fine");
    let mut other = good;
    other[8] = "{} ";
    assert!(fcall(&redis, &five, &other).await.starts_with("TGKEYREUSED"));
    assert_eq!(redis.read("news", "latest").await.top.offset(), 2);

    for call in ["read", "forget", "list", "probe", "count", "counted", "format"] {
        let answer = redis.try_run::<redis::Value>(&["FCALL", &format!("tidegate_1_{call}"), "0"]).await;
        assert_eq!(answer.unwrap_err().code(), Some("TGARG"), "{call}");
    }
}

#[tokio::test]
async fn the_example_of_the_file_works_in_a_shell() {
    let redis = Fixture::new().await;
    let from = LIBRARY.find("  redis-cli FCALL").unwrap();
    let to = LIBRARY[from..].find("\n\n").unwrap();
    let example =
        LIBRARY[from..from + to].replace("redis-cli", &format!("redis-cli -p {}", redis.server.port));
    let output = std::process::Command::new("sh").args(["-c", &example]).output().unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && text.lines().count() >= 6, "{text}");
    let replay = redis.read("news", "earliest").await;
    assert_eq!(replay.messages[0].payload.as_str(), r#"{"hello":"world"}"#);
    assert_eq!(replay.messages[0].payload.kind(), crate::publication::Kind::Json);
}

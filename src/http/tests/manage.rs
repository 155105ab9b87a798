//! History, state, list, forgetting, disconnecting; probes and documents.

use serde_json::json;

use super::*;

async fn publish(fixture: &Fixture, channel: &str, count: usize) -> String {
    let mut last = Value::Null;
    for n in 0..count {
        let target = format!("/v1/channels/{channel}/messages");
        last = fixture.post(&target, "application/json", n.to_string()).await.json();
    }
    last["id"].as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn the_history_is_paged() {
    let fixture = Fixture::new("");
    let last = publish(&fixture, "a", 5).await;
    let id = |n: usize| last.replace("-5", &format!("-{n}"));
    let target = "/v1/channels/a/messages";
    for (query, count, cursor, more) in [
        (String::new(), 5, 5, false),
        ("?since=".into(), 5, 5, false),
        ("?limit=2".into(), 2, 2, true),
        (format!("?limit=2&since={}", id(2)), 2, 4, true),
        (format!("?since={}", id(4)), 1, 5, false),
        (format!("?since={}", id(5)), 0, 5, false),
        ("?since=latest".into(), 0, 5, false),
        ("?since=last:3".into(), 3, 5, false),
    ] {
        let answer = fixture.get(&format!("{target}{query}")).await;
        let page = answer.json();
        assert_eq!(page["messages"].as_array().unwrap().len(), count, "{query}");
        assert_eq!((&page["cursor"], &page["more"]), (&json!(id(cursor)), &json!(more)), "{query}");
        assert_eq!(answer.header("cache-control"), "no-store");
    }
    let page = fixture.send("GET /v1/channels/a/messages", &[("last-event-id", "latest")], "").await.json();
    assert_eq!(page["messages"].as_array().unwrap().len(), 5);
}

#[tokio::test]
async fn bad_parameters_have_their_code() {
    let fixture = Fixture::new("");
    for (target, code) in [
        ("/v1/channels/a/messages?since=x", "invalid_since"),
        ("/v1/channels/a/messages?since=latest,latest", "invalid_since"),
        ("/v1/channels/a/messages?since=0-9000000000", "invalid_since"),
        ("/v1/channels/a/messages?limit=0", "invalid_parameter"),
        ("/v1/channels/a/messages?limit=1&limit=1", "invalid_parameter"),
        ("/v1/channels/a/messages?wait=1", "unknown_parameter"),
        ("/v1/channels/a%2Fb/messages", "invalid_channel"),
        ("/v1/channels/a?x", "unknown_parameter"),
        ("/v1/channels/...", "invalid_channel"),
        ("/v1/channels?limit=1001", "invalid_parameter"),
        ("/v1/channels?prefix=a+b", "invalid_parameter"),
        ("/v1/channels?cursor=%2A", "invalid_parameter"),
        ("/v1/channels?cursor=a&cursor=a", "invalid_parameter"),
        ("/v1/channels?after=a", "unknown_parameter"),
        ("/openapi.yaml?x=1", "unknown_parameter"),
        ("/?x=1", "unknown_parameter"),
    ] {
        assert_eq!(fixture.get(target).await.problem(), (400, code.to_owned()), "{target}");
    }
}

#[tokio::test]
async fn a_channel_says_its_state_and_forgets() {
    let fixture = Fixture::new("");
    let unused = fixture.get("/v1/channels/a").await.json();
    let position = unused["position"].as_str().unwrap();
    assert!(position.starts_with("0-"), "{position}");
    let last = publish(&fixture, "a", 2).await;
    let answer = fixture.get("/v1/channels/a").await;
    let expected = format!(
        r#"{{"channel":"a","position":"{last}","messages":2,"subscribers":0,"subscribers_age_ms":0}}"#
    );
    assert_eq!(answer.body, expected);
    let answer = fixture.send("DELETE /v1/channels/a/messages", &[], "").await;
    assert_eq!((answer.status, answer.body.as_str()), (204, ""));
    assert_eq!(fixture.get("/v1/channels/a").await.json()["messages"], 0);
    let answer = fixture.send("DELETE /v1/channels/a/messages?x", &[], "").await;
    assert_eq!(answer.problem(), (400, "unknown_parameter".into()));
}

#[tokio::test]
async fn channels_are_listed_by_pages() {
    let fixture = Fixture::new("");
    for channel in ["b", "a", "c:2", "c:1"] {
        publish(&fixture, channel, 1).await;
    }
    for (query, body) in [
        ("", r#"{"channels":["a","b","c:1","c:2"],"cursor":null}"#),
        ("?limit=2", r#"{"channels":["a","b"],"cursor":"b"}"#),
        ("?limit=2&cursor=b", r#"{"channels":["c:1","c:2"],"cursor":null}"#),
        ("?prefix=c:", r#"{"channels":["c:1","c:2"],"cursor":null}"#),
        ("?prefix=c%3A&limit=1&cursor=", r#"{"channels":["c:1"],"cursor":"c:1"}"#),
        ("?prefix=.", r#"{"channels":[],"cursor":null}"#),
        ("?prefix=", r#"{"channels":["a","b","c:1","c:2"],"cursor":null}"#),
    ] {
        assert_eq!(fixture.get(&format!("/v1/channels{query}")).await.body, body, "{query}");
    }
}

#[tokio::test]
async fn a_disconnect_names_exactly_one() {
    let fixture = Fixture::new("");
    for (body, outcome) in [
        (r#"{"subject":"user-7"}"#, None),
        (r#"{"connection":"7qk2v9x0c4mbz1ta","channel":null}"#, None),
        (r#"{"channel":"a"}"#, None),
        ("{}", Some("invalid_body")),
        (r#"{"channel":"a","subject":"b"}"#, Some("invalid_body")),
        (r#"{"subject":""}"#, Some("invalid_body")),
        (r#"{"connection":""}"#, Some("invalid_body")),
        (r#"{"subject":7}"#, Some("invalid_body")),
        (r#"["user-7",null,null]"#, Some("invalid_body")),
        (r#"{"user":"a"}"#, Some("invalid_body")),
        (r#"{"channel":"a b"}"#, Some("invalid_channel")),
        ("", Some("invalid_json")),
        ("[", Some("invalid_json")),
    ] {
        let answer = fixture.post("/v1/disconnect", "application/json", body).await;
        match outcome {
            None => {
                assert_eq!((answer.status, answer.body.as_str()), (202, r#"{"requested":true}"#), "{body}")
            }
            Some(code) => assert_eq!(answer.problem(), (400, code.to_owned()), "{body}"),
        }
    }
    let answer =
        fixture.post("/v1/disconnect", "application/x-www-form-urlencoded", r#"{"channel":"a"}"#).await;
    assert_eq!(answer.status, 202);
    let answer = fixture.post("/v1/disconnect", "text/plain", r#"{"channel":"a"}"#).await;
    assert_eq!(answer.problem().0, 415);
}

#[tokio::test]
async fn probes_and_documents_are_served() {
    let fixture = Fixture::new("");
    for (target, content_type, beginning) in [
        ("/live?verbose", "text/plain; charset=utf-8", "ok"),
        ("/ready?x=1", "text/plain; charset=utf-8", "ok"),
        ("/metrics?x", "text/plain; version=0.0.4; charset=utf-8", "# HELP"),
        ("/openapi.yaml", "application/yaml", "openapi: 3.1"),
        ("/", "text/html; charset=utf-8", "<!doctype html>"),
    ] {
        let answer = fixture.get(target).await;
        assert_eq!((answer.status, answer.header("content-type")), (200, content_type), "{target}");
        assert!(answer.body.to_lowercase().starts_with(&beginning.to_lowercase()), "{target}");
    }
    let console = fixture.get("/").await.body;
    assert!(console.contains("http://127.0.0.1:8000") && !console.contains("{{"));
}

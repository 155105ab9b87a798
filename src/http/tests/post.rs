//! Publishing, one message and many.

use serde_json::json;

use super::*;

/// Target, headers, body, and the status and code of the answer.
type Case<'a> = (&'a str, &'a [(&'a str, &'a str)], &'a str, u16, &'a str);

const TARGET: &str = "/v1/channels/orders/messages";

#[tokio::test]
async fn a_receipt_is_written_to_the_byte() {
    let fixture = Fixture::new("");
    let answer = fixture.post(TARGET, "application/json", "{\"id\": 42}").await;
    assert_eq!(answer.status, 202);
    assert_eq!(answer.header("content-type"), "application/json");
    let id = answer.json()["id"].as_str().unwrap().to_owned();
    assert!(id.ends_with("-1"), "{id}");
    assert_eq!(answer.body, format!(r#"{{"channel":"orders","id":"{id}","duplicate":false}}"#));
    let next = fixture.post("/v1/channels/%6Frders/messages", "text/plain", "x").await.json();
    assert_eq!(next["id"], id.replace("-1", "-2"));
}

#[tokio::test]
async fn what_is_wrong_with_a_publish_has_its_code() {
    let fixture = Fixture::new("[limits]\nmessage = \"1KiB\"\nbatch = \"2KiB\"");
    let json = ("content-type", "application/json");
    let text = ("content-type", "text/plain");
    let large = "x".repeat(1025);
    let huge = " ".repeat(2049);
    let table: &[Case<'_>] = &[
        (TARGET, &[json], "{", 400, "invalid_json"),
        (TARGET, &[json], "", 400, "invalid_json"),
        (TARGET, &[("content-type", "application/json; charset=latin1")], "1", 415, "unsupported_media_type"),
        (TARGET, &[("content-type", "nonsense")], "1", 415, "unsupported_media_type"),
        (TARGET, &[text, ("content-encoding", "gzip")], "x", 415, "unsupported_media_type"),
        (TARGET, &[text, text], "x", 400, "invalid_header"),
        (TARGET, &[text, ("idempotency-key", "a"), ("idempotency-key", "a")], "x", 400, "invalid_header"),
        (TARGET, &[text, ("traceparent", "a"), ("traceparent", "b")], "x", 400, "invalid_header"),
        (TARGET, &[text, ("idempotency-key", "")], "x", 400, "invalid_header"),
        (TARGET, &[text, ("idempotency-key", "a b")], "x", 400, "invalid_header"),
        (TARGET, &[text, ("tidegate-event", "a"), ("tidegate-event", "b")], "x", 400, "invalid_header"),
        (TARGET, &[text, ("tidegate-event", "open")], "x", 400, "invalid_header"),
        (TARGET, &[text, ("tidegate-event", "tidegate.gap")], "x", 400, "invalid_header"),
        (TARGET, &[text], &large, 413, "message_too_large"),
        (TARGET, &[], &large, 413, "message_too_large"),
        (TARGET, &[json], &huge, 413, "message_too_large"),
        ("/v1/channels/a%20b/messages", &[text], "x", 400, "invalid_channel"),
        ("/v1/channels/%zz/messages", &[text], "x", 400, "invalid_channel"),
        ("/v1/channels//messages", &[text], "x", 400, "invalid_channel"),
        ("/v1/channels/../messages", &[text], "x", 400, "invalid_channel"),
        ("/v1/channels/orders/messages?x=1", &[text], "x", 400, "unknown_parameter"),
    ];
    for (target, headers, body, status, code) in table {
        let answer = fixture.send(&format!("POST {target}"), headers, (*body).to_owned()).await;
        assert_eq!(answer.problem(), (*status, (*code).to_owned()), "{target} {headers:?}");
        if *status == 413 {
            assert_eq!(answer.json()["limit"], 1024);
            assert_eq!(answer.header("connection"), "close");
        }
    }
    assert_eq!(fixture.get("/v1/channels/orders").await.json()["messages"], 0);
}

#[tokio::test]
async fn white_space_around_json_does_not_count() {
    let fixture = Fixture::new("[limits]\nmessage = \"1KiB\"\nbatch = \"4KiB\"");
    let spaced = format!("{}1{}", " ".repeat(1500), "\n".repeat(1500));
    assert_eq!(fixture.post(TARGET, "application/json", spaced).await.status, 202);
    let long = format!("\"{}\"", "x".repeat(1023));
    let answer = fixture.post(TARGET, "application/json", long).await;
    assert_eq!(answer.problem(), (413, "message_too_large".into()));
}

#[tokio::test]
async fn a_key_makes_a_second_publish_harmless() {
    let fixture = Fixture::new("");
    let headers = [("content-type", "text/plain"), ("idempotency-key", "k"), ("tidegate-event", "e")];
    let line = format!("POST {TARGET}");
    let first = fixture.send(&line, &headers, "x").await.json();
    let second = fixture.send(&line, &headers, "x").await;
    assert_eq!((second.status, &second.json()["duplicate"]), (202, &json!(true)));
    assert_eq!(second.json()["id"], first["id"]);
    let other = fixture.send(&line, &headers, "y").await;
    assert_eq!(other.problem(), (422, "idempotency_key_reused".into()));
}

#[tokio::test]
async fn a_body_may_come_in_pieces_but_not_for_ever_nor_without_end() {
    let fixture = Fixture::new("[limits]\nmessage = \"1KiB\"");
    let answer = fixture.post(TARGET, "text/plain", Pieces::body(&[b"a", b"", b"bc"], false)).await;
    assert_eq!(answer.status, 202);
    let page = fixture.get(TARGET).await.json();
    assert_eq!(page["messages"].as_array().unwrap().len(), 1);
    let endless = Pieces::body(&[&[b'x'; 600], &[b'x'; 600]], true);
    let answer = fixture.post(TARGET, "text/plain", endless).await;
    assert_eq!(answer.problem(), (413, "message_too_large".into()));
    tokio::time::pause();
    let answer = fixture.post(TARGET, "text/plain", Pieces::body(&[b"x"], true)).await;
    assert_eq!(answer.problem(), (408, "timeout".into()));
    assert_eq!(answer.header("connection"), "close");
}

#[tokio::test]
async fn without_a_broker_nothing_is_accepted() {
    let mut fixture = Fixture::new("");
    fixture.events = None;
    let answer = fixture.post(TARGET, "text/plain", "x").await;
    assert_eq!(answer.problem(), (503, "broker_unavailable".into()));
    assert!(answer.header("retry-after").parse::<u64>().unwrap() >= 1);
    let batch = r#"{"messages":[{},{"channel":"a","data":1},{"channel":"b","data":1}]}"#;
    let answer = fixture.post("/v1/messages", "application/json", batch).await;
    assert_eq!(answer.problem(), (503, "broker_unavailable".into()));
}

async fn batch(fixture: &Fixture, items: &str) -> Answer {
    let body = format!(r#"{{"messages":[{items}]}}"#);
    fixture.post("/v1/messages", "application/json", body).await
}

#[tokio::test]
async fn a_batch_has_an_outcome_for_each_channel_of_each_item() {
    let fixture = Fixture::new("");
    let answer = batch(
        &fixture,
        r#"{"channel":"a","data":{"x":1},"event":"e","idempotency_key":"k"},{"channels":["b","a"],"data_base64":"AAE="}"#,
    )
    .await;
    assert_eq!(answer.status, 202);
    let outcomes = answer.json()["outcomes"].clone();
    let id = |n: usize| outcomes[n]["id"].as_str().unwrap().to_owned();
    let expected = format!(
        concat!(
            r#"{{"accepted":3,"failed":0,"outcomes":[{{"item":0,"channel":"a","id":"{}","duplicate":false}},"#,
            r#"{{"item":1,"channel":"b","id":"{}","duplicate":false}},{{"item":1,"channel":"a","id":"{}","duplicate":false}}]}}"#
        ),
        id(0),
        id(1),
        id(2)
    );
    assert_eq!(answer.body, expected);
    assert!(id(0).ends_with("-1") && id(2).ends_with("-2"));
    assert_eq!(batch(&fixture, "").await.body, r#"{"accepted":0,"failed":0,"outcomes":[]}"#);
    let repeated =
        batch(&fixture, r#"{"channel":"a","data":{"x":1},"event":"e","idempotency_key":"k"}"#).await;
    assert_eq!(repeated.json()["outcomes"][0]["duplicate"], true);
}

#[tokio::test]
async fn a_bad_item_spoils_no_other() {
    let fixture = Fixture::new("[limits]\nmessage = \"1KiB\"");
    let large = format!(r#"{{"channel":"a","data":"{}"}}"#, "x".repeat(1025));
    let table = [
        (r#"{"channel":"a b","data":1}"#, Some("a b"), "invalid_channel"),
        (r#"{"channels":["\"<"],"data":1}"#, Some("\"<"), "invalid_channel"),
        (r#"{"data":1}"#, None, "invalid_body"),
        (r#"{"channels":[],"data":1}"#, None, "invalid_body"),
        (r#"{"channel":"a","channels":["b"],"data":1}"#, None, "invalid_body"),
        (r#"{"channel":"a"}"#, None, "invalid_body"),
        (r#"{"channel":"a","data":1,"data_base64":""}"#, None, "invalid_body"),
        (r#"{"channel":"a","data_base64":"AAE"}"#, None, "invalid_body"),
        (r#"{"channel":"a","data":1,"event":"open"}"#, None, "invalid_body"),
        (r#"{"channel":"a","data":1,"idempotency_key":""}"#, None, "invalid_body"),
        (r#"{"channel":"a","data":1,"extra":1}"#, None, "invalid_body"),
        (r#"{"channel":"a","channel":"a","data":1}"#, None, "invalid_body"),
        (r#"{"channel":5,"data":1}"#, None, "invalid_body"),
        ("[]", None, "invalid_body"),
        ("null", None, "invalid_body"),
        (large.as_str(), Some("a"), "message_too_large"),
    ];
    for (item, channel, code) in table {
        let answer = batch(&fixture, &format!(r#"{item},{{"channel":"good","data":null}}"#)).await;
        assert_eq!(answer.status, 207, "{item}: {answer:?}");
        let document = answer.json();
        assert_eq!((&document["accepted"], &document["failed"]), (&json!(1), &json!(1)), "{item}");
        let [bad, good] = document["outcomes"].as_array().unwrap().as_slice() else {
            panic!("{item}: {answer:?}");
        };
        assert_eq!(bad.get("channel").map(|channel| channel.as_str().unwrap()), channel, "{item}");
        assert_eq!(bad["problem"]["code"], code, "{item}");
        assert_eq!((&good["item"], &good["channel"]), (&json!(1), &json!("good")));
    }
    let deep = format!(r#"{{"channel":"a","data":{}{}}}"#, "[".repeat(200), "]".repeat(200));
    let answer = batch(&fixture, &deep).await.json();
    assert_eq!(answer["outcomes"][0]["problem"]["code"], "invalid_json");
}

#[tokio::test]
async fn a_bad_batch_is_refused_whole() {
    let fixture = Fixture::new("[limits]\nmessage = \"1KiB\"\nbatch = \"64KiB\"");
    let items = |n: usize| vec![r#"{"channel":"a","data":1}"#; n].join(",");
    let channels = |n: usize| format!(r#"{{"channels":[{}],"data":1}}"#, vec![r#""a""#; n].join(","));
    let whole = |items: &str| format!(r#"{{"messages":[{items}]}}"#);
    let table = [
        ("{".to_owned(), 400, "invalid_json"),
        ("".into(), 400, "invalid_json"),
        ("{}".into(), 400, "invalid_body"),
        ("[]".into(), 400, "invalid_body"),
        (r#"{"messages":{}}"#.into(), 400, "invalid_body"),
        (r#"{"messages":[],"extra":1}"#.into(), 400, "invalid_body"),
        (r#"{"messages":[],"messages":[]}"#.into(), 400, "invalid_body"),
        (r#"{"messages":[]} x"#.into(), 400, "invalid_json"),
        ("\u{feff}{\"messages\":[]}".into(), 400, "invalid_json"),
        (whole(&items(1001)), 413, "batch_too_large"),
        (whole(&channels(1001)), 413, "batch_too_large"),
        (whole(&format!("{},{}", channels(501), channels(500))), 413, "batch_too_large"),
        (whole(&["0"; 20_000].join(",")), 413, "batch_too_large"),
        (" ".repeat(65_537), 413, "batch_too_large"),
    ];
    for (body, status, code) in table {
        let shown = body.chars().take(40).collect::<String>();
        let answer = fixture.post("/v1/messages", "application/json", body).await;
        assert_eq!(answer.problem(), (status, code.to_owned()), "{shown}");
    }
    assert_eq!(
        batch(&fixture, &format!("{},{}", channels(500), channels(500))).await.json()["accepted"],
        1000
    );
    assert_eq!(batch(&fixture, &items(1000)).await.status, 202);
    for (content_type, status) in [
        ("application/json; charset=utf-8", 202),
        ("application/vnd.x+json", 202),
        ("application/x-www-form-urlencoded", 202),
        ("text/plain", 415),
        ("application/octet-stream", 415),
    ] {
        let answer = fixture.post("/v1/messages", content_type, whole(&items(1))).await;
        assert_eq!(answer.status, status, "{content_type}");
    }
    assert_eq!(fixture.send("POST /v1/messages", &[], whole("")).await.status, 415);
}

#[tokio::test]
async fn publish_requests_are_counted_by_route_and_outcome() {
    let fixture = Fixture::new("");
    fixture.post(TARGET, "text/plain", "x").await;
    fixture.post(TARGET, "application/json", "{").await;
    batch(&fixture, r#"{"channel":"a","data":1}"#).await;
    let metrics = fixture.get("/metrics").await;
    assert_eq!(metrics.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    for line in [
        r#"tidegate_publish_requests_total{route="message",code="2xx"} 1"#,
        r#"tidegate_publish_requests_total{route="message",code="4xx"} 1"#,
        r#"tidegate_publish_requests_total{route="batch",code="2xx"} 1"#,
    ] {
        let (name, labels) = line.split_once('{').unwrap();
        let (labels, count) = labels.split_once("} ").unwrap();
        let is_said = metrics.body.lines().any(|said| {
            said.starts_with(name)
                && said.ends_with(count)
                && labels.split(',').all(|label| said.contains(label))
        });
        assert!(is_said, "{line}");
    }
}

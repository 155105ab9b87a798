//! `openapi.yaml` and the routes: the same set. That every answer fits is checked with each
//! request of every other test (`support::openapi`).

use std::collections::BTreeSet;

use crate::support::openapi::contract;
use crate::support::{Conn, TestGateway};

#[tokio::test]
async fn the_contract_is_served_as_it_is_written() {
    let gateway = TestGateway::start().run().await;
    let answer = gateway.internal("GET", "/openapi.yaml", &[], None).await.expect(200);
    let written =
        std::fs::read(concat!(env!("CARGO_MANIFEST_DIR"), "/openapi.yaml")).expect("openapi.yaml is there");
    assert!(answer.body == written);
    assert!(answer.header("content-type").is_some_and(|media| media.contains("yaml")));
    gateway.finish(()).await;
}

#[tokio::test]
async fn every_operation_is_routed() {
    let gateway = TestGateway::start().run().await;
    let operations = contract().operations();
    assert!(operations.len() >= 10, "{}", operations.len());
    for (method, path, _) in operations {
        let target = path.replace("{channel}", "a");
        assert!(!target.contains('{'), "a parameter that this test does not know: {path}");
        let mut statuses = Vec::new();
        for address in [gateway.public, gateway.internal] {
            let mut conn = Conn::open(address).await;
            let query = if path == "/v1/subscribe" { "?channel=a&wait=0" } else { "" };
            let bytes = conn.encode(
                &method,
                &format!("{target}{query}"),
                &[("Content-Type", "application/json")],
                Some(b"{}"),
            );
            conn.send(bytes).await;
            statuses.push(conn.answer(&method).await.status());
        }
        assert!(statuses.iter().any(|status| !matches!(status, 404 | 405)), "{method} {path}: {statuses:?}");
    }
    gateway.finish(()).await;
}

#[test]
fn every_operation_has_a_name_and_a_summary() {
    let mut seen = BTreeSet::new();
    for (method, path, operation) in contract().operations() {
        let name =
            operation["operationId"].as_str().unwrap_or_else(|| panic!("{method} {path} has no operationId"));
        assert!(seen.insert(name.to_owned()), "{name} twice");
        assert!(operation["summary"].is_string() || operation["description"].is_string(), "{method} {path}");
    }
}

#[test]
fn the_codes_of_problems_are_the_closed_set() {
    let codes = BTreeSet::from([
        "invalid_channel",
        "channel_required",
        "too_many_channels",
        "duplicate_channel",
        "invalid_since",
        "unknown_parameter",
        "invalid_parameter",
        "invalid_json",
        "invalid_body",
        "invalid_header",
        "invalid_command",
        "already_subscribed",
        "not_subscribed",
        "unauthorized",
        "token_expired",
        "forbidden",
        "origin_refused",
        "not_found",
        "method_not_allowed",
        "not_acceptable",
        "timeout",
        "message_too_large",
        "batch_too_large",
        "unsupported_media_type",
        "idempotency_key_reused",
        "upgrade_required",
        "rate_limited",
        "headers_too_large",
        "internal",
        "too_many_connections",
        "overloaded",
        "broker_unavailable",
        "broker_uncertain",
        "shutting_down",
    ]);
    let by_status = contract().document["components"]["schemas"]["Problem"]["anyOf"].as_array();
    let mut written = BTreeSet::new();
    for status in by_status.expect("a row for each status") {
        let code = &status["properties"]["code"];
        let several = code["enum"].as_array().into_iter().flatten();
        written.extend(several.chain(code.get("const")).map(|code| code.as_str().expect("a name")));
    }
    assert_eq!(written, codes);
}

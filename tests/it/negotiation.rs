//! How a transport is chosen, and what is refused before anything begins.

use crate::support::client::Options;
use crate::support::raw::Body;
use crate::support::{Answer, Client, Conn, TestGateway, Transport};

/// The media type that a subscription with these headers gets; the status where it is refused.
async fn chosen(gateway: &TestGateway, query: &str, headers: &[(&str, &str)]) -> Result<String, u16> {
    let mut conn = Conn::open(gateway.public).await;
    let bytes = conn.encode("GET", &format!("/v1/subscribe?channel=a&since=earliest{query}"), headers, None);
    conn.send(bytes).await;
    let head = conn.head().await;
    match head.status {
        200 => Ok(head.header("content-type").expect("a type").to_owned()),
        101 => Ok("websocket".to_owned()),
        status => Err(status),
    }
}

const SSE: &str = "text/event-stream";
const NDJSON: &str = "application/x-ndjson";
const POLL: &str = "application/json";

const UPGRADE: [(&str, &str); 4] = [
    ("Connection", "Upgrade"),
    ("Upgrade", "websocket"),
    ("Sec-WebSocket-Version", "13"),
    ("Sec-WebSocket-Key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

#[tokio::test]
async fn accept_chooses_among_sse_ndjson_and_poll() {
    let gateway = TestGateway::start().run().await;
    gateway.publish("a", "1").await;
    assert_eq!(chosen(&gateway, "", &[]).await.as_deref(), Ok(POLL), "without Accept");
    for (accept, wanted) in [
        ("*/*", Ok(POLL)),
        ("application/json", Ok(POLL)),
        ("application/*", Ok(POLL)),
        ("text/event-stream", Ok(SSE)),
        ("text/*", Ok(SSE)),
        ("TEXT/Event-Stream", Ok(SSE)),
        ("text/event-stream;charset=utf-8", Ok(SSE)),
        ("text/event-stream ; q=0.3", Ok(SSE)),
        ("application/x-ndjson", Ok(NDJSON)),
        ("application/x-ndjson; profile=\"a,b\"", Ok(NDJSON)),
        // The highest q.
        ("application/json;q=0.5, text/event-stream;q=0.4", Ok(POLL)),
        ("application/json;q=0.5, text/event-stream;q=0.6", Ok(SSE)),
        ("text/event-stream;q=0.9,application/x-ndjson", Ok(NDJSON)),
        ("*/*, text/event-stream;q=0.1", Ok(POLL)),
        ("text/*;q=0.9, application/json;q=0.8", Ok(SSE)),
        ("application/json;q=0.999, application/x-ndjson;q=1.000", Ok(NDJSON)),
        // Then the most specific range.
        ("*/*, text/event-stream", Ok(SSE)),
        ("text/event-stream, */*", Ok(SSE)),
        ("text/*, application/x-ndjson", Ok(NDJSON)),
        ("text/*, application/json", Ok(POLL)),
        ("*/*, text/*", Ok(SSE)),
        ("application/*, application/x-ndjson", Ok(NDJSON)),
        ("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8", Ok(POLL)),
        // Then the order sse, ndjson, poll.
        ("application/json, application/x-ndjson, text/event-stream", Ok(SSE)),
        ("application/json, application/x-ndjson", Ok(NDJSON)),
        ("application/*, text/*", Ok(SSE)),
        // What is not wanted, and what we do not have.
        ("text/event-stream;q=0, */*", Ok(POLL)),
        ("text/event-stream;q=0, application/x-ndjson;q=0.1", Ok(NDJSON)),
        ("text/event-stream;q=0", Err(406)),
        ("*/*;q=0", Err(406)),
        ("text/html", Err(406)),
        ("image/*, text/plain", Err(406)),
        ("application/xml", Err(406)),
    ] {
        let found = chosen(&gateway, "", &[("Accept", accept)]).await;
        assert_eq!(found.as_deref(), wanted.as_ref().copied(), "{accept}");
    }
    let twice = [("Accept", "text/html"), ("Accept", "application/x-ndjson")];
    assert_eq!(chosen(&gateway, "", &twice).await.as_deref(), Ok(NDJSON), "a list may stand in two lines");
    let refused = gateway.public("GET", "/v1/subscribe?channel=a", &[("Accept", "text/html")], None).await;
    refused.problem(406, "not_acceptable");
    gateway.finish(()).await;
}

#[tokio::test]
async fn the_parameter_wins_over_upgrade_and_accept() {
    let gateway = TestGateway::start().run().await;
    gateway.publish("a", "1").await;
    for (transport, media) in [("sse", SSE), ("ndjson", NDJSON), ("poll", POLL)] {
        for accept in [SSE, NDJSON, POLL, "*/*", "text/html"] {
            let found = chosen(&gateway, &format!("&transport={transport}"), &[("Accept", accept)]).await;
            assert_eq!(found.as_deref(), Ok(media), "{transport} {accept}");
        }
        let found = chosen(&gateway, &format!("&transport={transport}"), &UPGRADE).await;
        assert_eq!(found.as_deref(), Ok(media), "{transport} with an upgrade");
    }
    let mut both = UPGRADE.to_vec();
    both.push(("Accept", SSE));
    assert_eq!(chosen(&gateway, "", &both).await.as_deref(), Ok("websocket"), "then the upgrade");
    assert_eq!(chosen(&gateway, "&transport=websocket", &UPGRADE).await.as_deref(), Ok("websocket"));
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_websocket_without_its_upgrade_is_told_what_is_required() {
    let gateway = TestGateway::start().run().await;
    let answer = gateway.get_public("/v1/subscribe?channel=a&transport=websocket").await;
    answer.problem(426, "upgrade_required");
    assert_eq!(answer.header("sec-websocket-version"), Some("13"));
    for version in ["8", "12", "14", "0", "x"] {
        let headers = [UPGRADE[0], UPGRADE[1], ("Sec-WebSocket-Version", version), UPGRADE[3]];
        let answer = gateway.public("GET", "/v1/subscribe?channel=a", &headers, None).await;
        answer.problem(426, "upgrade_required");
        assert_eq!(answer.header("sec-websocket-version"), Some("13"));
    }
    for key in [
        "",
        "short",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZSE0Nw==",
        "****************************",
    ] {
        let headers = [UPGRADE[0], UPGRADE[1], UPGRADE[2], ("Sec-WebSocket-Key", key)];
        let answer = gateway.public("GET", "/v1/subscribe?channel=a", &headers, None).await;
        answer.problem(400, "invalid_header");
    }
    let answer = gateway.public("GET", "/v1/subscribe?channel=a", &UPGRADE[..3], None).await;
    answer.problem(400, "invalid_header");
    for body in [("Content-Length", "5"), ("Transfer-Encoding", "chunked")] {
        let headers: Vec<(&str, &str)> = UPGRADE.iter().copied().chain([body]).collect();
        let answer = gateway.public("GET", "/v1/subscribe?channel=a", &headers, Some(b"0\r\n\r\n")).await;
        answer.problem(400, "invalid_header");
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn another_upgrade_is_no_concern_of_ours() {
    let gateway = TestGateway::start().run().await;
    gateway.publish("a", "1").await;
    let h2c = [
        ("Connection", "Upgrade, HTTP2-Settings"),
        ("Upgrade", "h2c"),
        ("HTTP2-Settings", "AAMAAABkAAQAAP__"),
    ];
    assert_eq!(chosen(&gateway, "", &h2c).await.as_deref(), Ok(POLL));
    gateway.finish(()).await;
}

each_transport! {
    async fn an_unknown_parameter_is_refused_with_the_nearest_name(transport) {
        let gateway = TestGateway::start().run().await;
        for (wrong, nearest) in [("chanel", "channel"), ("sinse", "since"), ("formt", "format"), ("transprt", "transport"), ("Channel", "channel"), ("lastEventID", "lastEventId")] {
            let query = format!("channel=a&{wrong}=latest");
            let problem = refused(&gateway, transport, &query).await.problem(400, "unknown_parameter");
            assert_eq!(problem["parameter"], wrong);
            let detail = problem["detail"].as_str().expect("a detail");
            assert!(detail.contains(wrong) && detail.contains(nearest), "{detail}");
        }
        gateway.finish(()).await;
    }

    async fn a_parameter_given_twice_is_refused(transport) {
        let gateway = TestGateway::start().run().await;
        for (name, value) in [("since", "latest"), ("transport", transport.name()), ("format", "json"), ("token", "x"), ("lastEventId", "latest")] {
            let query = format!("channel=a&{name}={value}&{name}={value}");
            let mut conn = Conn::open(gateway.public).await;
            let headers = if transport == Transport::Websocket { UPGRADE.to_vec() } else { vec![("Accept", transport.accept())] };
            let answer = conn.request("GET", &format!("/v1/subscribe?{query}"), &headers, None).await;
            let problem = answer.problem(400, "invalid_parameter");
            assert_eq!(problem["parameter"], name);
        }
        gateway.finish(()).await;
    }

    async fn a_repeated_channel_is_refused(transport) {
        let gateway = TestGateway::start().run().await;
        refused(&gateway, transport, "channel=a&channel=b&channel=a").await.problem(400, "duplicate_channel");
        // Also where it is written another way.
        refused(&gateway, transport, "channel=a&channel=%61").await.problem(400, "duplicate_channel");
        gateway.finish(()).await;
    }

    async fn bad_channels_are_refused_with_the_bytes_position(transport) {
        let gateway = TestGateway::start().run().await;
        for (channel, position) in [("a%20b", Some(1)), ("%C3%A9", Some(0)), ("ab%2F", Some(2)), ("a%00b", Some(1)), ("a%0A", Some(1)), ("abc*", Some(3)), ("", None), (".", None), ("...", None), (&"n".repeat(201), None)] {
            let answer = refused(&gateway, transport, &format!("channel=ok&channel={channel}")).await;
            let problem = answer.problem(400, "invalid_channel");
            if let Some(position) = position {
                assert_eq!(problem["position"], position, "{channel}");
            }
        }
        for channel in ["%zz", "%", "%2", "a%4"] {
            refused(&gateway, transport, &format!("channel={channel}")).await.problem(400, "invalid_parameter");
        }
        gateway.finish(()).await;
    }

    async fn more_channels_than_allowed_are_refused(transport) {
        let gateway = TestGateway::start().run().await;
        let query = |count: usize| (0..count).map(|number| format!("channel=c{number}")).collect::<Vec<_>>().join("&");
        let client = Client::connect(&gateway, transport, &query(128)).await;
        let problem = refused(&gateway, transport, &query(129)).await.problem(400, "too_many_channels");
        assert_eq!(problem["limit"], 128);
        gateway.finish(client).await;
    }

    async fn a_cache_busting_underscore_is_ignored(transport) {
        let gateway = TestGateway::start().run().await;
        let client = Client::connect(&gateway, transport, "channel=a&_=1700000000").await;
        gateway.finish(client).await;
    }

    async fn an_unknown_format_is_refused(transport) {
        let gateway = TestGateway::start().run().await;
        let problem = refused(&gateway, transport, "channel=a&format=xml").await.problem(400, "invalid_parameter");
        assert_eq!(problem["parameter"], "format");
        gateway.finish(()).await;
    }

    async fn every_answer_names_a_connection_of_its_own(transport) {
        let gateway = TestGateway::start().run().await;
        let first = Client::connect(&gateway, transport, "channel=a").await;
        let second = Client::connect(&gateway, transport, "channel=a").await;
        assert_ne!(first.connection, second.connection);
        gateway.finish((first, second)).await;
    }
}

/// The refusal of a subscription.
async fn refused(gateway: &TestGateway, transport: Transport, query: &str) -> Answer {
    match Client::open(gateway.public, transport, query, Options::default()).await {
        Ok(_) => panic!("{} serves {query}", transport.name()),
        Err(answer) => answer,
    }
}

#[tokio::test]
async fn only_a_websocket_may_come_without_a_channel() {
    let gateway = TestGateway::start().run().await;
    for transport in [Transport::Sse, Transport::Ndjson, Transport::Poll] {
        refused(&gateway, transport, "").await.problem(400, "channel_required");
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_parameter_of_no_use_for_the_transport_is_refused() {
    let gateway = TestGateway::start().run().await;
    for transport in Transport::STREAMS {
        for (name, value) in [("wait", "1"), ("limit", "10")] {
            let problem = refused(&gateway, transport, &format!("channel=a&{name}={value}"))
                .await
                .problem(400, "invalid_parameter");
            assert_eq!(problem["parameter"], name);
        }
    }
    refused(&gateway, Transport::Poll, "channel=a&format=raw").await.problem(400, "invalid_parameter");
    gateway.get_public("/v1/subscribe?channel=a&transport=smoke").await.problem(400, "invalid_parameter");
    gateway.finish(()).await;
}

#[tokio::test]
async fn methods_that_a_path_does_not_know_are_405_with_allow() {
    let gateway = TestGateway::start().run().await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "HEAD"] {
        let answer = gateway.public(method, "/v1/subscribe?channel=a", &[], None).await;
        assert_eq!(answer.status(), 405, "{method}");
        let allow = answer.header("allow").expect("Allow is there");
        assert!(
            allow.contains("GET") && allow.contains("OPTIONS") && !allow.contains("HEAD"),
            "{method}: {allow}"
        );
        if method != "HEAD" {
            answer.problem(405, "method_not_allowed");
        }
    }
    for (method, path, allowed) in [
        ("PUT", "/v1/channels/a/messages", &["GET", "POST", "DELETE"][..]),
        ("GET", "/v1/messages", &["POST"]),
        ("POST", "/v1/channels/a", &["GET"]),
        ("DELETE", "/v1/channels", &["GET"]),
        ("GET", "/v1/disconnect", &["POST"]),
        ("POST", "/metrics", &["GET"]),
        ("POST", "/live", &["GET"]),
        ("DELETE", "/ready", &["GET"]),
        ("POST", "/openapi.yaml", &["GET"]),
    ] {
        let answer = gateway.internal(method, path, &[], None).await;
        answer.problem(405, "method_not_allowed");
        let allow = answer.header("allow").expect("Allow is there");
        assert!(allowed.iter().all(|method| allow.contains(method)), "{method} {path}: {allow}");
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn options_says_what_is_allowed() {
    let gateway = TestGateway::start().run().await;
    let answer = gateway.public("OPTIONS", "/v1/subscribe", &[], None).await.expect(204);
    assert!(answer.header("allow").expect("Allow is there").contains("GET"));
    let answer = gateway.internal("OPTIONS", "/v1/channels/a/messages", &[], None).await.expect(204);
    let allow = answer.header("allow").expect("Allow is there");
    assert!(["GET", "POST", "DELETE"].iter().all(|method| allow.contains(method)), "{allow}");
    gateway.finish(()).await;
}

#[tokio::test]
async fn head_stands_where_get_does() {
    let gateway = TestGateway::start().run().await;
    for path in [
        "/live",
        "/ready",
        "/metrics",
        "/openapi.yaml",
        "/",
        "/v1/channels",
        "/v1/channels/a",
        "/v1/channels/a/messages",
    ] {
        let answer = gateway.internal("HEAD", path, &[], None).await.expect(200);
        assert!(answer.body.is_empty());
    }
    for path in ["/live", "/ready", "/client.js", "/client.d.ts"] {
        gateway.public("HEAD", path, &[], None).await.expect(200);
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn unknown_parameters_are_refused_everywhere_but_where_probes_ask() {
    let gateway = TestGateway::start().run().await;
    for (method, path) in [
        ("POST", "/v1/channels/a/messages"),
        ("GET", "/v1/channels/a/messages"),
        ("DELETE", "/v1/channels/a/messages"),
        ("GET", "/v1/channels/a"),
        ("GET", "/v1/channels"),
        ("POST", "/v1/messages"),
        ("POST", "/v1/disconnect"),
    ] {
        let body = (method == "POST").then_some(&b"{}"[..]);
        let headers = [("Content-Type", "application/json")];
        let answer = gateway.internal(method, &format!("{path}?unknown=1"), &headers, body).await;
        assert_eq!(answer.problem(400, "unknown_parameter")["parameter"], "unknown");
    }
    for path in ["/live", "/ready", "/metrics"] {
        gateway.internal("GET", &format!("{path}?probe=1&probe=2"), &[], None).await.expect(200);
    }
    for path in ["/live", "/ready"] {
        gateway.get_public(&format!("{path}?probe=1")).await.expect(200);
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn what_is_nowhere_is_not_found() {
    let gateway = TestGateway::start().run().await;
    for path in ["/", "/v1", "/v1/", "/v1/subscribe/", "/v2/subscribe", "/favicon.ico", "/v1/subscribe/x"] {
        gateway.get_public(path).await.problem(404, "not_found");
    }
    for path in ["/v1", "/v1/subscriber", "/v1/channels/a/b", "/v1/channels/a/messages/1"] {
        gateway.internal("GET", path, &[], None).await.problem(404, "not_found");
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn two_requests_at_once_are_answered_in_turn() {
    let gateway = TestGateway::start().run().await;
    let mut conn = Conn::open(gateway.public).await;
    let mut bytes = conn.encode("GET", "/v1/subscribe?channel=a&wait=1", &[], None);
    bytes.extend(conn.encode("GET", "/live", &[], None));
    bytes.extend(conn.encode("GET", "/v1/subscribe?channel=a", &[("Accept", SSE)], None));
    conn.send(bytes).await;
    assert!(conn.answer("GET").await.expect(200).text().contains("cursor"));
    conn.answer("GET").await.expect(200);
    let head = conn.head().await;
    assert_eq!((head.status, head.header("content-type")), (200, Some(SSE)));
    let mut body = Body::after("GET", &head);
    assert!(body.next(&mut conn).await.expect("reads").is_some());
    gateway.finish(conn).await;
}

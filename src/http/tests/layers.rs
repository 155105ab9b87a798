//! What holds for every path: methods, heads, pages of other origins, faults.

use super::*;

/// Every path, by its listener, and what `Allow` says there.
const PUBLIC: &[(&str, &str)] = &[
    ("/v1/subscribe", "GET, OPTIONS"),
    ("/client.js", READ),
    ("/client.d.ts", READ),
    ("/live", READ),
    ("/ready", READ),
];
const INTERNAL: &[(&str, &str)] = &[
    ("/v1/channels/a/messages", "GET, HEAD, POST, DELETE, OPTIONS"),
    ("/v1/channels/a", READ),
    ("/v1/channels", READ),
    ("/v1/messages", WRITE),
    ("/v1/disconnect", WRITE),
    ("/openapi.yaml", READ),
    ("/", READ),
    ("/metrics", READ),
    ("/live", READ),
    ("/ready", READ),
];
const READ: &str = "GET, HEAD, OPTIONS";
const WRITE: &str = "POST, OPTIONS";

#[tokio::test]
async fn paths_take_their_methods_and_no_others() {
    let fixture = Fixture::new("");
    let public = PUBLIC.iter().map(|(path, allow)| (&fixture.public, *path, *allow));
    let internal = INTERNAL.iter().map(|(path, allow)| (&fixture.internal, *path, *allow));
    for (edge, path, allow) in public.chain(internal) {
        for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "TRACE", "BREW"] {
            let answer = ask(edge, &format!("{method} {path}"), &[], Body::empty()).await;
            let is_taken = allow.split(", ").any(|allowed| allowed == method);
            assert_eq!(answer.status != 405, is_taken, "{method} {path}");
            if !is_taken {
                assert_eq!(answer.header("allow"), allow, "{method} {path}");
            }
            if method == "HEAD" && is_taken {
                assert_eq!((answer.status, answer.body.as_str()), (200, ""), "{path}");
            }
        }
        let answer = ask(edge, &format!("OPTIONS {path}"), &[], Body::empty()).await;
        assert_eq!((answer.status, answer.header("allow"), answer.body.as_str()), (204, allow, ""), "{path}");
    }
}

#[tokio::test]
async fn a_path_of_the_other_listener_is_not_found() {
    let fixture = Fixture::new("");
    let is_shared = |path: &str| matches!(path, "/live" | "/ready");
    for (edge, paths) in [(&fixture.public, INTERNAL), (&fixture.internal, PUBLIC)] {
        for (path, _) in paths.iter().filter(|(path, _)| !is_shared(path)) {
            for method in ["GET", "POST", "DELETE"] {
                let answer = ask(edge, &format!("{method} {path}"), &[], Body::empty()).await;
                assert_eq!(answer.problem(), (404, "not_found".into()), "{method} {path}");
            }
        }
    }
    for path in [
        "/v1/channels/",
        "/v1/channels/a/b/messages",
        "/v1/channels/a/messages/",
        "/live/",
        "//",
        "/V1/messages",
    ] {
        assert_eq!(fixture.get(path).await.problem().0, 404, "{path}");
    }
}

#[tokio::test]
async fn a_page_of_another_origin_is_refused_on_every_path_but_the_probes() {
    let fixture = Fixture::new("");
    let foreign = [("origin", "https://evil.example")];
    let renamed = [("host", "evil.example")];
    let public = PUBLIC.iter().map(|(path, _)| (&fixture.public, *path));
    let internal = INTERNAL.iter().map(|(path, _)| (&fixture.internal, *path));
    for (edge, path) in public.chain(internal) {
        let is_probe = ["/live", "/ready", "/metrics"].contains(&path);
        for method in ["GET", "POST", "OPTIONS"] {
            for headers in [&foreign, &renamed] {
                let answer = ask(edge, &format!("{method} {path}"), headers, Body::empty()).await;
                assert_eq!(answer.status == 403, !is_probe, "{method} {path} {headers:?}");
                assert_eq!(answer.header("access-control-allow-origin"), "", "{path}");
            }
        }
    }
    assert_eq!(fixture.send("GET /nowhere", &foreign, "").await.problem(), (403, "origin_refused".into()));
}

#[tokio::test]
async fn a_page_that_is_served_may_read_the_answer() {
    let fixture = Fixture::new("");
    let page = ("origin", "http://localhost:5173");
    for (line, status) in
        [("GET /v1/channels", 200), ("GET /v1/channels?x", 400), ("GET /nowhere", 404), ("PUT /", 405)]
    {
        let answer = fixture.send(line, &[page], "").await;
        assert_eq!(answer.status, status);
        assert_eq!(answer.header("access-control-allow-origin"), page.1, "{line}");
        assert_eq!(answer.header("vary"), "Origin", "{line}");
        assert!(answer.header("access-control-expose-headers").contains("tidegate-connection"));
    }
    let asked =
        [page, ("access-control-request-method", "GET"), ("access-control-request-headers", "last-event-id")];
    let answer = ask(&fixture.public, "OPTIONS /v1/subscribe?channel=a", &asked, Body::empty()).await;
    assert_eq!((answer.status, answer.header("allow")), (204, "GET, OPTIONS"));
    assert_eq!(answer.header("access-control-allow-methods"), "GET, OPTIONS");
    assert_eq!(answer.header("access-control-allow-headers"), "last-event-id");
    assert_eq!(answer.header("access-control-allow-origin"), page.1);
    let without = ask(&fixture.public, "OPTIONS /v1/subscribe", &[], Body::empty()).await;
    assert_eq!(without.header("access-control-allow-methods"), "");
    assert_eq!(without.header("vary"), "");
}

#[tokio::test]
async fn hosts_are_needed_but_in_http_1_0_and_named_once() {
    let fixture = Fixture::new("");
    let missing = [("host", "(none)")];
    assert_eq!(
        fixture.send("GET /v1/channels", &missing, "").await.problem(),
        (400, "invalid_header".into())
    );
    assert_eq!(fixture.send("GET /live", &missing, "").await.status, 200);
    let old = Request::get("/v1/channels").version(http::Version::HTTP_10).body(Body::empty()).unwrap();
    assert_eq!(fixture.internal.answer(old).await.status(), 200);
    let twice = [("host", "127.0.0.1"), ("host", "127.0.0.1")];
    assert_eq!(fixture.send("GET /v1/channels", &twice, "").await.problem(), (400, "invalid_header".into()));
    // HTTP/2's `:authority`, and the absolute target of a request through a proxy.
    assert_eq!(fixture.send("GET http://127.0.0.1:9000/v1/channels", &missing, "").await.status, 200);
    let answer = fixture.send("GET http://evil.example/v1/channels", &[("host", "127.0.0.1")], "").await;
    assert_eq!(answer.problem(), (403, "origin_refused".into()));
}

#[tokio::test]
async fn a_head_over_the_limit_is_told_so() {
    let fixture = Fixture::new("[limits]\nheaders = \"4KiB\"");
    for (line, value) in [
        ("GET /live".to_owned(), "x".repeat(4000)),
        (format!("GET /live?{}", "x".repeat(4000)), String::new()),
    ] {
        let fits = fixture.send(&line, &[("x-filler", &value)], "").await;
        assert_eq!(fits.status, 200);
        let filler = format!("{value}{}", "y".repeat(200));
        let answer = fixture.send(&line, &[("x-filler", &filler)], "").await;
        assert_eq!(answer.problem(), (431, "headers_too_large".into()));
        assert_eq!(answer.json()["limit"], 4096);
        assert_eq!(answer.header("connection"), "close");
    }
}

#[tokio::test]
async fn a_panic_costs_its_own_request() {
    let routes = Router::new()
        .route("/panic", get(async || -> &'static str { panic!("asked for") }))
        .route(
            "/later",
            get(async || -> &'static str {
                tokio::task::yield_now().await;
                panic!("asked for")
            }),
        )
        .route("/fine", get(async || "fine"));
    let (state, _events) = state("");
    let edge = Edge::new(routes, Busiest::Publish, Rules::internal(&state.config), state);
    for path in ["/panic", "/later"] {
        let answer = ask(&edge, &format!("GET {path}"), &[], Body::empty()).await;
        assert_eq!(answer.problem(), (500, "internal".into()));
    }
    assert_eq!(ask(&edge, "GET /fine", &[], Body::empty()).await.body, "fine");
}

//! Who may ask: `Origin` and `Host`, for browsers and against DNS rebinding.

use crate::support::client::Options;
use crate::support::{Answer, Client, Conn, TestGateway, Transport};

/// `PORT` stands for the listener's own.
fn at(gateway: &TestGateway, text: &str) -> String {
    text.replace("PORT", &gateway.public.port().to_string())
}

/// Asks with this `Host` and this `Origin`; none where empty.
async fn ask(gateway: &TestGateway, host: &str, origin: &str) -> Answer {
    let (host, origin) = (at(gateway, host), at(gateway, origin));
    let mut headers = vec![("Host", host.as_str())];
    if !origin.is_empty() {
        headers.push(("Origin", origin.as_str()));
    }
    gateway.public("GET", "/v1/subscribe?channel=a&wait=0", &headers, None).await
}

fn check(answer: &Answer, host: &str, origin: &str, served: bool) {
    if served {
        assert_eq!(answer.status(), 200, "{host} {origin}: {}", answer.text());
        if !origin.is_empty() {
            assert_eq!(answer.header("access-control-allow-origin"), Some(origin), "{host}");
            assert!(
                answer.header("vary").is_some_and(|vary| vary.to_ascii_lowercase().contains("origin")),
                "{host} {origin}"
            );
        }
        assert_eq!(answer.header("access-control-allow-credentials"), None);
    } else {
        assert_eq!(answer.status(), 403, "{host} {origin} is served");
        answer.problem(403, "origin_refused");
        assert_eq!(answer.header("access-control-allow-origin"), None, "{host} {origin}");
    }
}

#[tokio::test]
async fn without_configuration_the_own_host_and_loopback_are_served() {
    let gateway = TestGateway::start().run().await;
    for (host, origin, served) in [
        // No Origin: no browser, or the same site. The Host alone decides.
        ("127.0.0.1:PORT", "", true),
        ("localhost:PORT", "", true),
        ("LocalHost:PORT", "", true),
        ("[::1]:PORT", "", true),
        ("localhost", "", true),
        ("10.1.2.3:8000", "", true),
        ("[2001:db8::1]:8000", "", true),
        ("evil.com", "", false),
        ("evil.com:PORT", "", false),
        ("localhost.evil.com", "", false),
        ("127.0.0.1.evil.com:PORT", "", false),
        ("mylocalhost", "", false),
        ("1.2.3", "", false),
        // The own host and port.
        ("127.0.0.1:PORT", "http://127.0.0.1:PORT", true),
        ("localhost:PORT", "http://localhost:PORT", true),
        ("10.1.2.3:8000", "http://10.1.2.3:8000", true),
        ("10.1.2.3:8000", "https://10.1.2.3:8000", true),
        ("[2001:db8::1]:8000", "http://[2001:db8::1]:8000", true),
        ("10.1.2.3:8000", "http://10.1.2.3:8001", false),
        ("10.1.2.3:8000", "http://10.1.2.3", false),
        ("10.1.2.3:8000", "http://10.1.2.33:8000", false),
        ("10.1.2.3:8000", "http://localhost:8000", false),
        ("10.1.2.3:8000", "http://localhost", false),
        // The scheme's default port need not be said.
        ("10.1.2.3", "http://10.1.2.3", true),
        ("10.1.2.3:80", "http://10.1.2.3", true),
        ("10.1.2.3", "http://10.1.2.3:80", true),
        ("10.1.2.3:443", "https://10.1.2.3", true),
        ("10.1.2.3", "https://10.1.2.3", true),
        ("10.1.2.3:443", "http://10.1.2.3", false),
        ("10.1.2.3:80", "https://10.1.2.3", false),
        // Loopback to loopback, any port.
        ("127.0.0.1:PORT", "http://localhost:3000", true),
        ("localhost:PORT", "http://127.0.0.1:5173", true),
        ("localhost:PORT", "https://localhost", true),
        ("[::1]:PORT", "http://localhost:3000", true),
        ("127.0.0.1:PORT", "http://[::1]:3000", true),
        // Everybody else.
        ("127.0.0.1:PORT", "null", false),
        ("127.0.0.1:PORT", "https://evil.com", false),
        ("127.0.0.1:PORT", "http://evil.com:PORT", false),
        ("127.0.0.1:PORT", "http://localhost.evil.com", false),
        ("127.0.0.1:PORT", "http://127.0.0.1.evil.com", false),
        ("127.0.0.1:PORT", "http://evil-localhost:3000", false),
        ("127.0.0.1:PORT", "http://127.0.0.1:PORT.evil.com", false),
        ("127.0.0.1:PORT", "http://127.0.0.1@evil.com", false),
        ("127.0.0.1:PORT", "http://10.1.2.3", false),
        ("127.0.0.1:PORT", "file://", false),
        ("127.0.0.1:PORT", "chrome-extension://abcdef", false),
        ("127.0.0.1:PORT", "localhost:3000", false),
        ("127.0.0.1:PORT", "http://", false),
        ("127.0.0.1:PORT", "http://xn--lcalhost-54a:3000", false),
        // A name that was rebound to us.
        ("evil.com:PORT", "http://evil.com:PORT", false),
    ] {
        let answer = ask(&gateway, host, origin).await;
        check(&answer, host, &at(&gateway, origin), served);
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_list_of_origins_replaces_the_rule_and_is_exact() {
    let gateway = TestGateway::start()
        .with("public.allowed_origins = ['https://app.example.com', 'http://localhost:3000', 'https://xn--bcher-kva.example']")
        .run()
        .await;
    for (origin, served) in [
        ("https://app.example.com", true),
        ("http://localhost:3000", true),
        ("https://xn--bcher-kva.example", true),
        ("http://app.example.com", false),
        ("https://app.example.com:8443", false),
        ("https://app.example.com.evil.com", false),
        ("https://evil-app.example.com", false),
        ("https://sub.app.example.com", false),
        ("https://example.com", false),
        ("https://app.example.co", false),
        ("https://app.example.com@evil.com", false),
        ("https://app.example.com/", false),
        ("https://evil.com/https://app.example.com", false),
        ("http://localhost:3001", false),
        ("http://localhost", false),
        ("http://127.0.0.1:PORT", false),
        ("null", false),
        ("*", false),
    ] {
        let answer = ask(&gateway, "127.0.0.1:PORT", origin).await;
        check(&answer, "127.0.0.1:PORT", &at(&gateway, origin), served);
    }
    // The other listener keeps the rule.
    for (origin, served) in [("http://localhost:9999", true), ("https://app.example.com", false)] {
        let answer = gateway.internal("GET", "/v1/channels", &[("Origin", origin)], None).await;
        check(&answer, "the internal listener", origin, served);
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_star_lets_every_origin_in() {
    let gateway = TestGateway::start().with("public.allowed_origins = ['*']").run().await;
    for origin in ["https://anywhere.example", "http://localhost:1"] {
        let answer = ask(&gateway, "127.0.0.1:PORT", origin).await.expect(200);
        let allowed = answer.header("access-control-allow-origin").expect("allowed");
        assert!(allowed == origin || allowed == "*", "{allowed}");
        assert_eq!(answer.header("access-control-allow-credentials"), None);
    }
    gateway.finish(()).await;
}

each_transport! {
    async fn a_refused_origin_is_refused_before_anything_begins(transport) {
        let gateway = TestGateway::start().run().await;
        let host = gateway.public.to_string();
        for (headers, refused) in [
            (vec![("Origin", "https://evil.example")], true),
            (vec![("Origin", "null")], true),
            (vec![("Host", "evil.example")], true),
            (vec![("Origin", "http://localhost:3000")], false),
            (vec![("Host", host.as_str())], false),
        ] {
            let options = Options { headers: headers.clone(), ..Options::default() };
            match Client::open(gateway.public, transport, "channel=a", options).await {
                Err(answer) if refused => drop(answer.problem(403, "origin_refused")),
                Ok(client) if !refused => {
                    if let Some(("Origin", origin)) = headers.first() {
                        assert_eq!(client.head.header("access-control-allow-origin"), Some(*origin));
                    }
                }
                Ok(_) => panic!("{headers:?} is served"),
                Err(answer) => panic!("{headers:?} is refused: {answer:?}"),
            }
        }
        gateway.finish(()).await;
    }
}

#[tokio::test]
async fn the_refusal_names_both_values_and_the_cure() {
    let gateway = TestGateway::start().run().await;
    let problem = ask(&gateway, "127.0.0.1:PORT", "https://app.example").await.problem(403, "origin_refused");
    let detail = problem["detail"].as_str().expect("a detail");
    assert!(
        detail.contains("https://app.example") && detail.contains(&at(&gateway, "127.0.0.1:PORT")),
        "{detail}"
    );
    assert!(detail.contains("allowed_origins") || detail.contains("proxy_set_header Host $host"), "{detail}");
    let problem = ask(&gateway, "push.example", "").await.problem(403, "origin_refused");
    for part in ["push.example", "proxy_set_header Host $host", "--insecure"] {
        assert!(problem["detail"].as_str().expect("a detail").contains(part), "{problem}");
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn probes_and_metrics_are_exempt() {
    let gateway = TestGateway::start().run().await;
    let headers = [("Host", "evil.example"), ("Origin", "https://evil.example")];
    for path in ["/live", "/ready"] {
        gateway.public("GET", path, &headers, None).await.expect(200);
    }
    for path in ["/live", "/ready", "/metrics"] {
        gateway.internal("GET", path, &headers, None).await.expect(200);
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_foreign_page_cannot_publish() {
    let gateway = TestGateway::start().run().await;
    for headers in [
        [("Origin", "https://evil.example"), ("Content-Type", "text/plain")],
        [("Host", "evil.example"), ("Content-Type", "text/plain")],
    ] {
        gateway.post("a", &headers, "x").await.problem(403, "origin_refused");
    }
    assert_eq!(gateway.get("/v1/channels/a").await["messages"], 0);
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_missing_host_is_served_in_http_1_0_alone() {
    let gateway = TestGateway::start().run().await;
    for (head, status) in [
        ("HTTP/1.0\r\n\r\n", 200),
        ("HTTP/1.1\r\n\r\n", 400),
        // Two of them.
        ("HTTP/1.1\r\nHost: localhost\r\nHost: localhost\r\n\r\n", 400),
    ] {
        let mut conn = Conn::open(gateway.public).await;
        conn.send(format!("GET /v1/subscribe?channel=a&wait=0 {head}")).await;
        assert_eq!(conn.answer("GET").await.status(), status, "{head:?}");
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_preflight_is_answered_for_who_may_and_refused_for_others() {
    let gateway = TestGateway::start().run().await;
    let ask = |origin: &'static str| {
        let address = gateway.public;
        async move {
            let headers = [
                ("Origin", origin),
                ("Access-Control-Request-Method", "GET"),
                ("Access-Control-Request-Headers", "authorization, last-event-id"),
            ];
            Conn::open(address).await.request("OPTIONS", "/v1/subscribe", &headers, None).await
        }
    };
    let answer = ask("http://localhost:3000").await.expect(204);
    assert_eq!(answer.header("access-control-allow-origin"), Some("http://localhost:3000"));
    assert!(answer.header("access-control-allow-methods").is_some_and(|methods| methods.contains("GET")));
    assert_eq!(answer.header("access-control-allow-headers"), Some("authorization, last-event-id"));
    assert!(answer.header("allow").is_some_and(|allow| allow.contains("GET")));
    ask("https://evil.example").await.problem(403, "origin_refused");
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_problem_can_be_read_by_the_page_that_caused_it() {
    let gateway = TestGateway::start().run().await;
    let headers = [("Origin", "http://localhost:3000")];
    let answer = gateway.public("GET", "/v1/subscribe?chanel=a", &headers, None).await;
    answer.problem(400, "unknown_parameter");
    assert_eq!(answer.header("access-control-allow-origin"), Some("http://localhost:3000"));
    gateway.finish(()).await;
}

#[tokio::test]
async fn every_origin_sees_the_same_over_every_transport() {
    let gateway = TestGateway::start().run().await;
    for transport in Transport::ALL {
        let options = Options { headers: vec![("Origin", "http://localhost:3000")], ..Options::default() };
        let mut client = Client::connect_with(gateway.public, transport, "channel=a", options).await;
        gateway.publish("a", "1").await;
        client.message().await;
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_page_that_may_subscribe_may_load_the_client() {
    let gateway = TestGateway::start().with("public.allowed_origins = ['https://app.example']").run().await;
    for (path, media) in
        [("/client.js", "text/javascript; charset=utf-8"), ("/client.d.ts", "text/plain; charset=utf-8")]
    {
        for (origin, shared) in [("", None), ("https://app.example", Some("https://app.example"))] {
            let headers = [("Origin", origin)];
            let headers = if origin.is_empty() { &[][..] } else { &headers };
            let answer = gateway.public("GET", path, headers, None).await.expect(200);
            assert_eq!(answer.header("content-type"), Some(media), "{path}");
            assert_eq!(answer.header("access-control-allow-origin"), shared, "{path}");
            // Whatever keeps the file keeps it for each origin apart.
            assert_eq!(answer.header("vary"), Some("Origin"), "{path} {origin}");
            assert!(
                answer.text().contains("export class Tidegate") && answer.text().lines().count() <= 300,
                "{path}"
            );
        }
        let refused = gateway.public("GET", path, &[("Origin", "https://evil.example")], None).await;
        refused.problem(403, "origin_refused");
    }
    gateway.finish(()).await;
}

//! Limits of connections and requests: what is too large, too slow or too many is ended, and
//! nobody else notices.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use crate::support::client::Options;
use crate::support::raw::find;
use crate::support::sse_parser::{SseItem, SseParser};
use crate::support::{Answer, Client, Conn, TestGateway, Transport, eventually, within};

#[tokio::test]
async fn a_head_of_more_than_64_kib_is_431() {
    let gateway = TestGateway::start().run().await;
    for (bytes, status) in [(60 * 1024, 200), (70 * 1024, 431), (120 * 1024, 431)] {
        let filling = "x".repeat(bytes);
        let answer =
            gateway.public("GET", "/v1/subscribe?channel=a&wait=0", &[("X-Filling", &filling)], None).await;
        assert_eq!(answer.status(), status, "{bytes}");
        if status == 431 {
            answer.problem(431, "headers_too_large");
        }
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_head_that_no_handler_sees_is_431_all_the_same() {
    let gateway = TestGateway::start().run().await;
    let long = |length: usize| "x".repeat(length);
    let fields: Vec<(String, &str)> = (0..150).map(|n| (format!("X-{n}"), "y")).collect();
    let fields: Vec<(&str, &str)> = fields.iter().map(|(name, value)| (name.as_str(), *value)).collect();
    let filling = long(1_000_000);
    for (target, headers) in [
        (format!("/v1/subscribe?channel={}", long(66_000)), &[][..]),
        (format!("/{}", long(300_000)), &[][..]),
        ("/v1/subscribe?channel=a&wait=0".to_owned(), &fields[..]),
        ("/v1/subscribe?channel=a&wait=0".to_owned(), &[("X-Filling", filling.as_str())][..]),
    ] {
        for is_first in [true, false] {
            let mut conn = Conn::open(gateway.public).await;
            if !is_first {
                conn.get("/live", &[]).await.expect(200);
            }
            let bytes = conn.encode("GET", &target, headers, None);
            let _ = conn.try_send(bytes).await;
            let answer = conn.answer("GET").await;
            let problem = answer.problem(431, "headers_too_large");
            assert!(problem["limit"].is_u64(), "{problem}");
            assert!(answer.head.closes() && conn.closed_within(Duration::from_secs(5)).await);
        }
    }
    let target = format!("/v1/subscribe?channel=a&wait=0&_={}", long(60_000));
    gateway.public("GET", &target, &[], None).await.expect(200);
    gateway.finish(()).await;
}

#[tokio::test]
async fn requests_sent_ahead_keep_their_bodies_and_their_time() {
    let gateway = TestGateway::start().with("limits.header_timeout = '1s'").run().await;
    let mut conn = Conn::open(gateway.public).await;
    let live = conn.encode("GET", "/live", &[], None);
    let held = conn.encode("GET", "/v1/subscribe?channel=a&wait=3", &[], None);
    conn.send([live.clone(), held].concat()).await;
    conn.answer("GET").await.expect(200);
    // Comes while the poll is held, which began after the head's time would have.
    conn.send(&live[..10]).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    conn.send(&live[10..]).await;
    assert_eq!(conn.answer("GET").await.expect(200).json()["messages"], serde_json::json!([]));
    conn.answer("GET").await.expect(200);

    let (client, mut conn) = (conn, Conn::open(gateway.internal).await);
    let body = vec![b'x'; 200_000];
    let post = conn.encode(
        "POST",
        "/v1/channels/a/messages",
        &[("Content-Type", "text/plain")],
        Some(body.as_slice()),
    );
    let head = post.len() - body.len();
    conn.send([&live[..], &post[..head]].concat()).await;
    conn.answer("GET").await.expect(200);
    conn.send(&post[head..]).await;
    conn.answer("POST").await.expect(202);
    gateway.finish((client, conn)).await;
}

#[tokio::test]
async fn the_limit_of_a_head_is_configured() {
    let gateway = TestGateway::start().with("limits.headers = '4KiB'").run().await;
    for (bytes, status) in [(3000, 200), (5000, 431)] {
        let filling = "x".repeat(bytes);
        let answer = gateway.public("GET", "/live", &[("X-Filling", &filling)], None).await;
        assert_eq!(answer.status(), status, "{bytes}");
        if status == 431 {
            assert_eq!(answer.problem(431, "headers_too_large")["limit"], 4096);
        }
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_body_that_does_not_come_is_a_timeout() {
    let gateway = TestGateway::start().with("limits.body_timeout = '1s'").run().await;
    for path in ["/v1/channels/a/messages", "/v1/messages", "/v1/disconnect"] {
        let mut conn = Conn::open(gateway.internal).await;
        let headers = [("Content-Type", "application/json"), ("Content-Length", "100")];
        let mut bytes = conn.encode("POST", path, &headers, None);
        bytes.extend(b"{\"half");
        conn.send(bytes).await;
        let begun = Instant::now();
        conn.answer("POST").await.problem(408, "timeout");
        let took = begun.elapsed();
        assert!((Duration::from_millis(800)..Duration::from_secs(5)).contains(&took), "{took:?}");
        assert!(conn.closed_within(Duration::from_secs(5)).await, "the connection cannot go on");
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_body_that_trickles_gets_no_more_time_and_disturbs_nobody() {
    let gateway = TestGateway::start().with("limits.body_timeout = '1s'").run().await;
    let mut client = Client::connect(&gateway, Transport::Ndjson, "channel=a").await;
    let mut number = 0;
    for (path, framing, piece) in [
        ("/v1/channels/trickle/messages", ("Content-Length", "100"), "x"),
        ("/v1/channels/trickle/messages", ("Transfer-Encoding", "chunked"), "1\r\nx\r\n"),
        ("/v1/messages", ("Content-Length", "100"), " "),
        ("/v1/disconnect", ("Transfer-Encoding", "chunked"), "1\r\n \r\n"),
    ] {
        let mut conn = Conn::open(gateway.internal).await;
        let bytes = conn.encode("POST", path, &[("Content-Type", "application/json"), framing], None);
        conn.send(bytes).await;
        let begun = Instant::now();
        let mut drip = tokio::time::interval(Duration::from_millis(100));
        let head = loop {
            tokio::select! {
                head = conn.try_head() => break head.expect("reads").expect("an answer"),
                _ = drip.tick() => {}
            }
            assert!(begun.elapsed() < Duration::from_secs(8), "{path}: it may trickle for ever");
            let _ = conn.try_send(piece).await;
            number += 1;
            gateway.publish("a", number.to_string()).await;
            assert_eq!(client.numbers(1).await, [number]);
        };
        assert!(begun.elapsed() > Duration::from_millis(800), "{path}: {:?}", begun.elapsed());
        let body = conn.body("POST", &head).await;
        Answer { head, body }.problem(408, "timeout");
        assert!(conn.closed_within(Duration::from_secs(5)).await, "{path}: the connection cannot go on");
        // Nor is it read for ever.
        while conn.try_send(piece).await.is_ok() {
            drip.tick().await;
            assert!(begun.elapsed() < Duration::from_secs(8), "{path}: it is still read");
        }
    }
    assert_eq!(gateway.get("/v1/channels/trickle").await["messages"], 0);
    gateway.finish(client).await;
}

#[tokio::test]
async fn a_body_that_breaks_off_is_published_to_nobody() {
    let gateway = TestGateway::start().run().await;
    for head in ["Content-Length: 100\r\n", "Transfer-Encoding: chunked\r\n"] {
        let mut conn = Conn::open(gateway.internal).await;
        let start =
            "POST /v1/channels/a/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\n";
        conn.send(format!("{start}{head}\r\n5\r\nhello\r\n")).await;
        drop(conn);
    }
    gateway.publish("a", "1").await;
    assert_eq!(gateway.get("/v1/channels/a").await["messages"], 1);
    gateway.finish(()).await;
}

#[tokio::test]
async fn an_incomplete_head_is_closed_in_time() {
    let gateway = TestGateway::start().with("limits.header_timeout = '1s'").run().await;
    for address in [gateway.public, gateway.internal] {
        for bytes in [
            "",
            "P",
            "G",
            "\r\n",
            "PRI * HTTP",
            "PRI * HTTP/2.0\r\n\r\nSM",
            "GET / HTTP/1.1\r\n",
            "GET / HTTP/1.1\r\nHost: localhost\r\n",
            "\u{16}\u{3}\u{1}",
        ] {
            let mut conn = Conn::open(address).await;
            conn.send(bytes).await;
            let begun = Instant::now();
            assert!(conn.closed_within(Duration::from_secs(5)).await, "{bytes:?} is still open");
            assert!(begun.elapsed() < Duration::from_secs(4), "{bytes:?}: {:?}", begun.elapsed());
        }
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_later_heads_time_counts_from_its_first_byte() {
    let gateway = TestGateway::start().with("limits.header_timeout = '1s'").run().await;
    let mut conn = Conn::open(gateway.public).await;
    conn.get("/live", &[]).await.expect(200);
    // Idle for longer than a head may take: that is no fault.
    tokio::time::sleep(Duration::from_millis(1500)).await;
    conn.get("/live", &[]).await.expect(200);
    conn.send("GET /live HTTP/1.1\r\nHost").await;
    let begun = Instant::now();
    assert!(conn.closed_within(Duration::from_secs(5)).await);
    assert!(begun.elapsed() > Duration::from_millis(700), "{:?}", begun.elapsed());
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_head_that_begins_behind_another_request_has_its_time_too() {
    let gateway = TestGateway::start().with("limits.header_timeout = '1s'").run().await;
    for target in ["/live", "/v1/subscribe?channel=a&wait=1"] {
        let mut conn = Conn::open(gateway.public).await;
        let whole = conn.encode("GET", target, &[], None);
        conn.send([&whole[..], b"GET /li"].concat()).await;
        conn.answer("GET").await.expect(200);
        let begun = Instant::now();
        assert!(conn.closed_within(Duration::from_secs(5)).await, "{target}: still open");
        assert!(begun.elapsed() < Duration::from_secs(4), "{target}: {:?}", begun.elapsed());
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_head_that_trickles_gets_no_more_time() {
    let gateway = TestGateway::start().with("limits.header_timeout = '1s'").run().await;
    let mut conn = Conn::open(gateway.public).await;
    conn.send("GET /live HTTP/1.1\r\nHost: localhost\r\n").await;
    let begun = Instant::now();
    let mut drip = tokio::time::interval(Duration::from_millis(100));
    loop {
        drip.tick().await;
        if conn.try_send("X: y\r\n").await.is_err() {
            break;
        }
        assert!(begun.elapsed() < Duration::from_secs(8), "it may trickle for ever");
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn two_thousand_half_open_clients_are_closed_and_disturb_nobody() {
    let gateway = TestGateway::start().run().await;
    half_open(gateway.public, gateway).await;
}

#[tokio::test]
async fn two_thousand_half_open_backends_are_closed_and_disturb_nobody() {
    let gateway = TestGateway::start().run().await;
    half_open(gateway.internal, gateway).await;
}

/// Opens 2,000 connections that never say what they want, while others are served.
async fn half_open(address: SocketAddr, gateway: TestGateway) {
    let mut client = Client::connect(&gateway, Transport::Websocket, "channel=a").await;
    let begun = Instant::now();
    let mut half_open = Vec::new();
    for number in 0..2000 {
        let mut conn = Conn::open(address).await;
        let bytes = ["", "P", "PRI * HTTP", "GET /v1/subscribe HTTP/1.1\r\nHost: l"][number % 4];
        conn.send(bytes).await;
        half_open.push(conn);
    }
    let opened = Instant::now();
    let closed = futures_util::future::join_all(
        half_open.iter_mut().map(|conn| conn.closed_within(Duration::from_secs(20))),
    );
    let serve = async {
        let mut slowest = Duration::ZERO;
        for number in 1.. {
            let sent = Instant::now();
            gateway.publish("a", number.to_string()).await;
            assert_eq!(client.numbers(1).await, [number]);
            slowest = slowest.max(sent.elapsed());
            tokio::time::sleep(Duration::from_millis(200)).await;
            if opened.elapsed() > Duration::from_secs(9) {
                break;
            }
        }
        slowest
    };
    let (closed, slowest) = tokio::join!(
        async {
            let closed = closed.await;
            (closed, opened.elapsed(), begun.elapsed())
        },
        serve
    );
    assert!(closed.0.iter().all(|closed| *closed), "some are still open");
    assert!(closed.1 < Duration::from_secs(11), "the last one after {:?}", closed.1);
    assert!(closed.2 > Duration::from_secs(9), "not before their time: {:?}", closed.2);
    assert!(slowest < Duration::from_secs(2), "others waited {slowest:?}");
    gateway.finish((client, half_open)).await;
}

#[tokio::test]
#[ignore = "takes longer than a minute"]
async fn an_idle_kept_alive_connection_is_closed_after_75_s() {
    let gateway = TestGateway::start().run().await;
    let mut conn = Conn::open(gateway.public).await;
    conn.get("/live", &[]).await.expect(200);
    let begun = Instant::now();
    assert!(conn.closed_within(Duration::from_secs(90)).await);
    assert!(
        (Duration::from_secs(70)..Duration::from_secs(85)).contains(&begun.elapsed()),
        "{:?}",
        begun.elapsed()
    );
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_head_that_is_none_gets_a_bare_400_and_the_end() {
    let gateway = TestGateway::start().run().await;
    for bytes in [
        "NONSENSE\r\n\r\n",
        "GET /live\r\n\r\n",
        "GET  /live HTTP/1.1\r\n\r\n",
        "GET /live HTTP/1.1\r\nHost localhost\r\n\r\n",
        "GET /live HTTP/1.1\r\nHost: localhost\r\nBad Name: x\r\n\r\n",
        "GET /live HTTP/1.1\r\nHost: localhost\r\nX: a\u{0}b\r\n\r\n",
        "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: x\r\n\r\n",
        "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
        "POST /v1/messages HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip\r\n\r\n",
    ] {
        for address in [gateway.public, gateway.internal] {
            let mut conn = Conn::open(address).await;
            conn.send(bytes).await;
            let answer = within(Duration::from_secs(10), bytes, conn.answer("GET")).await;
            assert_eq!(answer.status(), 400, "{bytes:?}");
            assert!(conn.closed_within(Duration::from_secs(5)).await, "{bytes:?}");
        }
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn nothing_can_be_smuggled_behind_a_request() {
    let gateway = TestGateway::start().run().await;
    let smuggled = "POST /v1/channels/smuggled/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: 1\r\n\r\nx";
    let request = format!(
        "POST /v1/channels/a/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: text/plain\r\nContent-Length: {}\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n{smuggled}",
        smuggled.len() + 5
    );
    let mut conn = Conn::open(gateway.internal).await;
    conn.send(request).await;
    assert_eq!(conn.head().await.status, 400);
    assert!(conn.closed_within(Duration::from_secs(5)).await);
    for channel in ["a", "smuggled"] {
        assert_eq!(gateway.get(&format!("/v1/channels/{channel}")).await["messages"], 0);
    }
    gateway.finish(()).await;
}

each_transport! {
    async fn one_connection_too_many_is_told_to_come_back(transport) {
        for key in ["limits.connections", "limits.connections_per_address"] {
            let gateway = TestGateway::start().with(&format!("{key} = 4")).run().await;
            let mut clients = Vec::new();
            for number in 0..4 {
                clients.push(Client::connect(&gateway, Transport::Ndjson, &format!("channel=c{number}")).await);
            }
            let refused = Client::open(gateway.public, transport, "channel=a", Options::default()).await;
            let Err(answer) = refused else { panic!("{key}: a fifth is served") };
            if transport == Transport::Sse {
                assert_eq!(answer.status(), 200);
                let items = SseParser::default().push(&answer.body);
                assert!(matches!(items[..], [SseItem::Retry(_)]), "{items:?}");
            } else {
                assert_eq!(answer.problem(503, "too_many_connections")["limit"], 4);
                assert!(answer.header("retry-after").expect("Retry-After").parse::<u64>().is_ok());
            }
            // The other listener has places of its own.
            gateway.publish("b", "1").await;
            clients.pop();
            let address = gateway.public;
            let client = eventually("the free place is given", async || {
                Client::open(address, transport, "channel=a", Options::default()).await.ok()
            })
            .await;
            drop((client, clients));
            gateway.finish(()).await;
        }
    }
}

each_transport! {
    async fn connections_that_come_too_fast_are_told_to_come_back(transport) {
        let gateway = TestGateway::start().with("limits.connects_per_second = 1").run().await;
        let address = gateway.public;
        let mut inside = vec![Client::connect(&gateway, transport, "channel=a").await];
        let refusal = loop {
            match Client::open(address, transport, "channel=a", Options::default()).await {
                Err(refusal) => break refusal,
                // More than a second has passed: this machine is slow.
                Ok(client) => inside.push(client),
            }
            assert!(inside.len() < 10, "nobody is refused");
        };
        assert!(refusal.head.closes(), "{:?}", refusal.head);
        if transport == Transport::Sse {
            assert_eq!(refusal.status(), 200);
            let items = SseParser::default().push(&refusal.body);
            assert!(matches!(items[..], [SseItem::Retry(_)]), "{items:?}");
        } else {
            let problem = refusal.problem(429, "rate_limited");
            assert!(problem["detail"].as_str().is_some_and(|detail| detail.contains("limits.connects_per_second")));
            assert!(refusal.header("retry-after").expect("Retry-After").parse::<u64>().is_ok());
        }
        // Who is inside stays; a poll that goes on is no new connection.
        gateway.publish("a", "1").await;
        assert_eq!(inside[0].numbers(1).await, [1]);
        assert_eq!(too_fast(&gateway).await, 1.0);
        let late = eventually("a later one is served", async || {
            Client::open(address, transport, "channel=a", Options::default()).await.ok()
        })
        .await;
        gateway.finish((inside, late)).await;
    }
}

/// Connections that were refused since they came too fast.
async fn too_fast(gateway: &TestGateway) -> f64 {
    let rejected = gateway.metric("tidegate_connections_rejected_total", &[("reason", "rate")]).await;
    let limited = gateway.metric("tidegate_rate_limited_total", &[("scope", "connects")]).await;
    assert_eq!(limited, rejected, "one event under two names");
    assert_eq!(gateway.metric("tidegate_rate_limited_total", &[("scope", "commands")]).await, 0.0);
    limited
}

#[tokio::test]
async fn the_rate_of_connections_refills_evenly_and_backends_are_not_asked() {
    let gateway = TestGateway::start().with("limits.connects_per_second = 2").run().await;
    let begun = Instant::now();
    let (mut inside, mut refused) = (Vec::new(), 0);
    while begun.elapsed() < Duration::from_secs(3) {
        match Client::open(gateway.public, Transport::Ndjson, "channel=a", Options::default()).await {
            Ok(client) => inside.push(client),
            Err(_) => refused += 1,
        }
        Conn::open(gateway.internal).await.get("/live", &[]).await.expect(200);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    // A second's worth at once, and then two a second.
    let most = 3.0 + 2.0 * begun.elapsed().as_secs_f64();
    assert!(
        inside.len() >= 5 && inside.len() as f64 <= most,
        "{} of {}",
        inside.len(),
        inside.len() + refused
    );
    assert!(refused > 0);
    assert_eq!(too_fast(&gateway).await, refused as f64);
    gateway.finish(inside).await;
}

#[tokio::test]
async fn a_413_is_read_by_a_client_that_sends_all_before_it_reads() {
    let gateway = TestGateway::start().with("limits.message = '1KiB'").run().await;
    for _ in 0..10 {
        let mut conn = Conn::open(gateway.internal).await;
        let body = vec![b'x'; 900_000];
        let bytes =
            conn.encode("POST", "/v1/channels/a/messages", &[("Content-Type", "text/plain")], Some(&body));
        let _ = conn.try_send(bytes).await;
        conn.answer("POST").await.problem(413, "message_too_large");
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_declared_length_alone_costs_nothing() {
    let gateway = TestGateway::start().run().await;
    let mut conn = Conn::open(gateway.internal).await;
    let headers = [("Content-Type", "text/plain"), ("Content-Length", "9000000000000000000")];
    let bytes = conn.encode("POST", "/v1/channels/a/messages", &headers, None);
    conn.send(bytes).await;
    conn.answer("POST").await.problem(413, "message_too_large");
    gateway.finish(()).await;
}

#[tokio::test]
async fn nonsense_never_harms_others() {
    let gateway = TestGateway::start().run().await;
    let mut client = Client::connect(&gateway, Transport::Sse, "channel=a").await;
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    for round in 0..200 {
        let mut conn = Conn::open(if round % 2 == 0 { gateway.public } else { gateway.internal }).await;
        let mut bytes: Vec<u8> = (0..random() % 400).map(|_| random().to_be_bytes()[0]).collect();
        match round % 4 {
            0 => bytes
                .splice(0..0, *b"GET /v1/subscribe?channel=a HTTP/1.1\r\nHost: localhost\r\n")
                .for_each(drop),
            1 => bytes.splice(0..0, *b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").for_each(drop),
            2 => bytes.splice(0..0, *b"GET /v1/subscribe?").for_each(drop),
            _ => {}
        }
        let _ = conn.try_send(bytes).await;
    }
    gateway.publish("a", "1").await;
    assert_eq!(client.numbers(1).await, [1]);
    assert!(find(gateway.metrics().await.as_bytes(), b"tidegate_connections").is_some());
    gateway.finish(client).await;
}

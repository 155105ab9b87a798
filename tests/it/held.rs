//! The connection of a held poll: what is sent on it before, meanwhile and after.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::support::client::Document;
use crate::support::process::{Process, free_port, tidegate};
use crate::support::tls::Folder;
use crate::support::{Answer, Conn, TestGateway, eventually, within};

const POLL: &str = "/v1/subscribe?channel=a&wait=55";

/// Sends a poll and waits until it is held.
async fn hold(gateway: &TestGateway, conn: &mut Conn, headers: &[(&str, &str)]) {
    let request = conn.encode("GET", POLL, headers, None);
    conn.send(request).await;
    gateway.until_subscribers("a", 1).await;
}

/// The numbers in the next answer, which must be a poll's.
async fn numbers(conn: &mut Conn) -> Vec<u64> {
    Document::of(&conn.answer("GET").await.expect(200)).numbers()
}

async fn options(conn: &mut Conn) {
    conn.request("OPTIONS", "/v1/subscribe", &[], None).await.expect(204);
}

#[tokio::test]
async fn it_goes_on_after_the_answer() {
    let gateway = TestGateway::start().run().await;
    let mut conn = Conn::open(gateway.public).await;
    for number in 1..=3 {
        hold(&gateway, &mut conn, &[]).await;
        gateway.publish("a", number.to_string()).await;
        assert_eq!(numbers(&mut conn).await, [number]);
        options(&mut conn).await;
    }
    conn.get("/v1/subscribe?channel=a&since=last:2", &[]).await.expect(200);
    conn.get("/v1/nothing", &[]).await.problem(404, "not_found");
    hold(&gateway, &mut conn, &[]).await;
    gateway.publish("a", "4").await;
    assert_eq!(numbers(&mut conn).await, [4]);
    gateway.finish(conn).await;
}

#[tokio::test]
async fn its_answer_has_the_head_of_any_poll() {
    let gateway = TestGateway::start().run().await;
    let mut conn = Conn::open(gateway.public).await;
    let origin = format!("http://{}", gateway.public);
    let headers = [("Origin", origin.as_str())];
    hold(&gateway, &mut conn, &headers).await;
    gateway.publish("a", "1").await;
    let held = conn.answer("GET").await.expect(200);
    let at_once = conn.get("/v1/subscribe?channel=a&since=last:1", &headers).await.expect(200);
    let lines = |answer: &Answer| {
        let mut lines = answer.head.headers.clone();
        lines.sort();
        for (name, value) in &mut lines {
            if ["date", "tidegate-connection"].contains(&name.as_str()) {
                *value = "differs".to_owned();
            }
        }
        lines
    };
    assert_eq!(lines(&held), lines(&at_once));
    assert_eq!(held.header("access-control-allow-origin"), Some(origin.as_str()));
    assert_eq!(held.body, at_once.body);
    gateway.finish(conn).await;
}

#[tokio::test]
async fn what_is_sent_ahead_is_answered_after_it_in_order() {
    let gateway = TestGateway::start().run().await;
    for together in [true, false] {
        let mut conn = Conn::open(gateway.public).await;
        let first = conn.encode("GET", POLL, &[], None);
        let mut rest = conn.encode("OPTIONS", "/v1/subscribe", &[], None);
        rest.extend(conn.encode("GET", "/v1/subscribe?channel=b&wait=55", &[], None));
        rest.extend(conn.encode("GET", "/v1/nothing", &[], None));
        if together {
            conn.send([first, rest].concat()).await;
            gateway.until_subscribers("a", 1).await;
        } else {
            conn.send(first).await;
            gateway.until_subscribers("a", 1).await;
            conn.send(&rest).await;
        }
        assert_eq!(gateway.subscribers("b").await, 0, "one after another");
        gateway.publish("a", "1").await;
        assert_eq!(numbers(&mut conn).await, [1]);
        conn.answer("OPTIONS").await.expect(204);
        gateway.until_subscribers("b", 1).await;
        gateway.publish("b", "2").await;
        assert_eq!(numbers(&mut conn).await, [2]);
        conn.answer("GET").await.problem(404, "not_found");
        options(&mut conn).await;
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn much_that_is_sent_ahead_waits_in_the_kernel_and_is_answered() {
    let gateway = TestGateway::start().run().await;
    let mut conn = Conn::open(gateway.public).await;
    hold(&gateway, &mut conn, &[]).await;
    let many = conn.encode("OPTIONS", "/v1/subscribe", &[], None).repeat(1000);
    conn.send(many).await;
    gateway.publish("a", "1").await;
    assert_eq!(numbers(&mut conn).await, [1]);
    for _ in 0..1000 {
        conn.answer("OPTIONS").await.expect(204);
    }
    gateway.finish(conn).await;
}

#[tokio::test]
async fn its_answer_may_be_large_and_the_reader_slow() {
    let gateway = TestGateway::start().with("limits.message = '4MiB'").run().await;
    let mut conn = Conn::open_narrow(gateway.public).await;
    hold(&gateway, &mut conn, &[]).await;
    gateway.publish("a", format!("\"{}\"", "x".repeat(4_000_000))).await;
    gateway.until_subscribers("a", 0).await;
    let document = Document::of(&conn.answer("GET").await.expect(200));
    assert!(document.messages[0].len() > 4_000_000);
    options(&mut conn).await;
    gateway.finish(conn).await;
}

#[tokio::test]
#[ignore = "takes longer than a minute"]
async fn a_client_that_does_not_take_its_answer_is_let_go_after_75_s() {
    // Over TCP the kernel gives such a client up earlier; on a Unix socket, as behind a proxy, nobody else does.
    let folder = Folder::new();
    let path = folder.path().join("public.sock");
    let internal = format!("127.0.0.1:{}", free_port());
    let mut command = tidegate();
    command.env("TIDEGATE_PUBLIC__LISTEN", format!("unix:{}", path.display()));
    command.env("TIDEGATE_INTERNAL__LISTEN", &internal).env("TIDEGATE_LIMITS__MESSAGE", "4MiB");
    let _process = Process::spawn(command);
    let mut stream = eventually("it listens", async || UnixStream::connect(&path).await.ok()).await;
    let request = format!("GET {POLL} HTTP/1.1\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.expect("asks");
    let mut backend = Conn::open(internal.parse().expect("an address")).await;
    let subscribers = async |backend: &mut Conn| {
        let answer = backend.get("/v1/channels/a", &[]).await;
        answer.json()["subscribers"].as_u64()
    };
    while subscribers(&mut backend).await != Some(1) {
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let large = format!("\"{}\"", "x".repeat(4_000_000));
    let headers = [("Content-Type", "application/json")];
    let message = "/v1/channels/a/messages";
    backend.request("POST", message, &headers, Some(large.as_bytes())).await.expect(202);
    tokio::time::sleep(Duration::from_secs(80)).await;
    let mut taken = Vec::new();
    let rest = within(Duration::from_secs(5), "the end", stream.read_to_end(&mut taken)).await;
    assert!(rest.is_err() || taken.len() < 4_000_000, "{} bytes were still to be had", taken.len());
}

#[tokio::test]
async fn it_is_kept_or_closed_as_the_client_asked() {
    let gateway = TestGateway::start().run().await;
    let host = gateway.public;
    for (version, connection, closes, says) in [
        ("1.1", "", false, None),
        ("1.1", "Connection: keep-alive\r\n", false, None),
        ("1.1", "Connection: x, Close\r\n", true, Some("close")),
        ("1.0", "", true, None),
        ("1.0", "Connection: Keep-Alive\r\n", false, Some("keep-alive")),
        ("1.0", "Connection: keep-alive, close\r\n", true, None),
    ] {
        let mut conn = Conn::open(gateway.public).await;
        conn.send(format!("GET {POLL} HTTP/{version}\r\nHost: {host}\r\n{connection}\r\n")).await;
        gateway.until_subscribers("a", 1).await;
        gateway.publish("a", "1").await;
        let answer = conn.answer("GET").await.expect(200);
        let case = format!("HTTP/{version} {connection:?}: {:?}", answer.head);
        assert_eq!(Document::of(&answer).numbers(), [1], "{case}");
        assert_eq!(answer.header("connection"), says, "{case}");
        assert!(answer.header("content-length").is_some(), "{case}");
        if closes {
            assert!(conn.closed_within(Duration::from_secs(1)).await, "{case}");
        } else {
            options(&mut conn).await;
        }
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_client_that_goes_while_it_is_held_is_let_go() {
    let gateway = TestGateway::start().run().await;
    for (again, resets) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut conn = Conn::open(gateway.public).await;
        if again {
            hold(&gateway, &mut conn, &[]).await;
            gateway.publish("a", "1").await;
            numbers(&mut conn).await;
        }
        hold(&gateway, &mut conn, &[]).await;
        assert_eq!(gateway.metric("tidegate_connections", &[("transport", "poll")]).await, 1.0);
        if resets {
            conn.stream.set_zero_linger().expect("sets SO_LINGER");
        } else {
            tokio::io::AsyncWriteExt::shutdown(&mut conn.stream).await.expect("half-closes");
            gateway.until_subscribers("a", 0).await;
            assert!(conn.closed_within(Duration::from_secs(5)).await, "half-closed is gone");
        }
        drop(conn);
        gateway.until_subscribers("a", 0).await;
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_body_is_not_taken_for_the_next_request() {
    let gateway = TestGateway::start().run().await;
    let mut conn = Conn::open(gateway.public).await;
    let body = conn.encode("GET", "/v1/nothing", &[], None);
    for headers in [vec![], vec![("Transfer-Encoding", "chunked")]] {
        let request = match headers.is_empty() {
            true => conn.encode("GET", POLL, &headers, Some(&body)),
            false => {
                let chunks = [format!("{:x}\r\n", body.len()).as_bytes(), &body, b"\r\n0\r\n\r\n"].concat();
                conn.encode("GET", POLL, &headers, Some(&chunks))
            }
        };
        conn.send(request).await;
        gateway.until_subscribers("a", 1).await;
        gateway.publish("a", "1").await;
        assert_eq!(numbers(&mut conn).await, [1]);
        options(&mut conn).await;
    }
    gateway.finish(conn).await;
}

#[tokio::test]
async fn deadlines_rest_while_it_is_held_and_run_after() {
    let gateway = TestGateway::start().with("limits.header_timeout = '1s'").run().await;
    let mut conn = Conn::open(gateway.public).await;
    hold(&gateway, &mut conn, &[]).await;
    tokio::time::sleep(Duration::from_millis(1500)).await;
    gateway.publish("a", "1").await;
    assert_eq!(numbers(&mut conn).await, [1]);
    tokio::time::sleep(Duration::from_millis(1500)).await;
    options(&mut conn).await;
    hold(&gateway, &mut conn, &[]).await;
    gateway.publish("a", "1").await;
    numbers(&mut conn).await;
    let begun = Instant::now();
    conn.send("GET /v1/sub").await;
    assert!(conn.closed_within(Duration::from_secs(5)).await);
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    gateway.finish(conn).await;
}

#[tokio::test]
async fn a_request_after_it_is_watched_as_any() {
    let gateway = TestGateway::start().run().await;
    let mut conn = Conn::open(gateway.public).await;
    hold(&gateway, &mut conn, &[]).await;
    gateway.publish("a", "1").await;
    numbers(&mut conn).await;
    let headers = [("Content-Length", "5"), ("Transfer-Encoding", "chunked")];
    let request = conn.encode("GET", POLL, &headers, Some(b"0\r\n\r\n"));
    conn.send(request).await;
    conn.answer("GET").await.expect(400);
    assert!(conn.closed_within(Duration::from_secs(5)).await);
    gateway.finish(conn).await;
}

#[tokio::test]
async fn a_drain_answers_each_and_closes_its_connection() {
    let gateway =
        TestGateway::start().with("drain.notice = '100ms'").with("drain.period = '500ms'").run().await;
    let mut conns = Vec::new();
    for number in 1..=5 {
        let mut conn = Conn::open(gateway.public).await;
        conn.get("/v1/subscribe?channel=a&wait=0", &[]).await.expect(200);
        let request = conn.encode("GET", POLL, &[], None);
        conn.send(request).await;
        gateway.until_subscribers("a", number).await;
        conns.push(conn);
    }
    gateway.running.drain();
    for conn in &mut conns {
        let answer = within(Duration::from_secs(5), "the answer", conn.answer("GET")).await.expect(200);
        assert!(answer.head.closes(), "{:?}", answer.head);
        assert!(Document::of(&answer).messages.is_empty());
        assert!(conn.closed_within(Duration::from_secs(1)).await);
    }
    gateway.stopped(Duration::from_secs(10)).await;
}

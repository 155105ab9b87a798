//! HTTP/2 with prior knowledge, on both listeners.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use crate::support::client::Document;
use crate::support::sse_parser::{SseItem, SseParser};
use crate::support::{PATIENCE, TestGateway, eventually, within};

type Sender = SendRequest<Full<Bytes>>;

async fn connect(address: SocketAddr) -> Sender {
    let stream = TcpStream::connect(address).await.expect("connects");
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("speaks HTTP/2");
    tokio::spawn(async move { drop(connection.await) });
    sender
}

async fn send(
    sender: &mut Sender,
    method: &str,
    address: SocketAddr,
    target: &str,
    headers: &[(&str, &str)],
    body: &str,
) -> Response<Incoming> {
    let mut request = Request::builder().method(method).uri(format!("http://{address}{target}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes()))).expect("a request");
    within(PATIENCE, "an answer over HTTP/2", sender.send_request(request)).await.expect("an answer")
}

async fn text(answer: Response<Incoming>) -> String {
    let bytes = within(PATIENCE, "a body over HTTP/2", answer.into_body().collect())
        .await
        .expect("a body")
        .to_bytes();
    String::from_utf8(bytes.to_vec()).expect("UTF-8")
}

async fn publish(sender: &mut Sender, gateway: &TestGateway, body: &str) {
    let headers = [("content-type", "application/json")];
    let answer = send(sender, "POST", gateway.internal, "/v1/channels/a/messages", &headers, body).await;
    assert_eq!(answer.status(), 202);
    assert!(text(answer).await.starts_with(r#"{"channel":"a","id":""#));
}

#[tokio::test]
async fn a_message_goes_all_the_way_over_http_2() {
    let gateway = TestGateway::start().run().await;
    let mut backend = connect(gateway.internal).await;
    let mut client = connect(gateway.public).await;
    let target = "/v1/subscribe?channel=a";
    let sse = send(&mut client, "GET", gateway.public, target, &[("accept", "text/event-stream")], "").await;
    let ndjson =
        send(&mut client, "GET", gateway.public, target, &[("accept", "application/x-ndjson")], "").await;
    for (answer, media) in [(&sse, "text/event-stream"), (&ndjson, "application/x-ndjson")] {
        assert_eq!(
            (answer.status().as_u16(), answer.headers()["content-type"].to_str().expect("text")),
            (200, media)
        );
        assert!(answer.headers().contains_key("tidegate-connection"));
    }
    let (mut sse, mut ndjson) = (sse.into_body(), ndjson.into_body());
    let held = {
        let mut client = client.clone();
        let address = gateway.public;
        tokio::spawn(async move {
            text(send(&mut client, "GET", address, "/v1/subscribe?channel=a&wait=55", &[], "").await).await
        })
    };
    gateway.until_subscribers("a", 3).await;
    publish(&mut backend, &gateway, "{\"over\":\"h2\"}").await;

    let document = Document::parse(&within(PATIENCE, "the poll", held).await.expect("answered"));
    assert_eq!(document.messages.len(), 1);
    let mut parser = SseParser::default();
    let data = 'found: loop {
        let frame = within(PATIENCE, "an event", sse.frame()).await.expect("more").expect("a frame");
        for item in parser.push(frame.data_ref().expect("data")) {
            if let SseItem::Event { name, data, .. } = item
                && name == "message"
            {
                break 'found data;
            }
        }
    };
    assert_eq!(data, document.messages[0], "the same bytes");
    let mut lines = String::new();
    while !lines.contains(&format!("{data}\n")) {
        let frame = within(PATIENCE, "a line", ndjson.frame()).await.expect("more").expect("a frame");
        lines += std::str::from_utf8(frame.data_ref().expect("data")).expect("UTF-8");
    }
    drop((sse, ndjson));
    gateway.until_subscribers("a", 0).await;
    gateway.finish((client, backend)).await;
}

#[tokio::test]
async fn problems_are_the_same_over_http_2() {
    let gateway = TestGateway::start().with("limits.message = '1KiB'").run().await;
    let mut client = connect(gateway.public).await;
    let mut backend = connect(gateway.internal).await;
    let answer = send(&mut client, "GET", gateway.public, "/v1/subscribe?chanel=a", &[], "").await;
    assert_eq!(answer.status(), 400);
    assert_eq!(answer.headers()["content-type"], "application/problem+json");
    assert!(text(answer).await.contains("unknown_parameter"));
    let headers = [("content-type", "text/plain")];
    let answer =
        send(&mut backend, "POST", gateway.internal, "/v1/channels/a/messages", &headers, &"x".repeat(3000))
            .await;
    assert_eq!(answer.status(), 413);
    assert!(text(answer).await.contains("message_too_large"));
    publish(&mut backend, &gateway, "1").await;
    for (method, target, origin, status) in [
        ("GET", "/v1/subscribe?channel=a", "https://evil.example", 403),
        ("GET", "/v1/subscribe?channel=a&transport=websocket", "http://localhost", 426),
        ("HEAD", "/v1/subscribe?channel=a", "http://localhost", 405),
    ] {
        let answer = send(&mut client, method, gateway.public, target, &[("origin", origin)], "").await;
        assert_eq!(answer.status(), status, "{method} {target}");
        // Read to its end: a stream that somebody holds keeps the connection.
        text(answer).await;
    }
    let filling = "x".repeat(70_000);
    let large = Request::get(format!("http://{}/live", gateway.public))
        .header("x-filling", filling)
        .body(Full::default())
        .expect("a request");
    // Refused as a stream or as a status; the connection lives on.
    if let Ok(answer) = within(PATIENCE, "an answer", client.send_request(large)).await {
        assert_eq!(answer.status(), 431);
        text(answer).await;
    }
    let after = send(&mut client, "GET", gateway.public, "/live", &[], "").await;
    assert_eq!(after.status(), 200, "the connection lives on");
    text(after).await;
    gateway.finish((client, backend)).await;
}

#[tokio::test]
async fn one_connection_carries_many_streams() {
    let gateway = TestGateway::start().run().await;
    let mut client = connect(gateway.public).await;
    let mut streams = Vec::new();
    for _ in 0..50 {
        let headers = [("accept", "application/x-ndjson")];
        streams.push(
            send(&mut client, "GET", gateway.public, "/v1/subscribe?channel=a", &headers, "")
                .await
                .into_body(),
        );
    }
    gateway.until_subscribers("a", 50).await;
    gateway.publish("a", "\"to all\"").await;
    for stream in &mut streams {
        let mut lines = String::new();
        while !lines.contains("to all") {
            let frame = within(PATIENCE, "a line", stream.frame()).await.expect("more").expect("a frame");
            lines += std::str::from_utf8(frame.data_ref().expect("data")).expect("UTF-8");
        }
    }
    assert_eq!(gateway.metric("tidegate_connections", &[("transport", "ndjson")]).await, 50.0);
    streams.truncate(20);
    gateway.until_subscribers("a", 20).await;
    gateway.finish((streams, client)).await;
}

#[tokio::test]
async fn a_stream_that_subscribes_takes_a_place_as_its_connection_does() {
    let gateway = TestGateway::start().with("limits.connections = 3").run().await;
    let address = gateway.public;
    let headers = [("accept", "application/x-ndjson")];
    let mut client = connect(address).await;
    let first = send(&mut client, "GET", address, "/v1/subscribe?channel=a", &headers, "").await;
    let second = send(&mut client, "GET", address, "/v1/subscribe?channel=a", &headers, "").await;
    assert!(first.status() == 200 && second.status() == 200);
    let third = send(&mut client, "GET", address, "/v1/subscribe?channel=a", &headers, "").await;
    assert_eq!(third.status(), 503);
    assert!(third.headers().contains_key("retry-after"));
    assert!(text(third).await.contains(r#""code":"too_many_connections""#));
    assert_eq!(gateway.metric("tidegate_connections_rejected_total", &[("reason", "total")]).await, 1.0);
    drop(first);
    gateway.until_subscribers("a", 1).await;
    let again = eventually("the place is given back", async || {
        let mut client = client.clone();
        let answer = send(&mut client, "GET", address, "/v1/subscribe?channel=a", &headers, "").await;
        (answer.status() == 200).then_some(answer)
    })
    .await;
    gateway.finish((second, again, client)).await;
}

#[tokio::test]
async fn streams_over_http_2_are_drained_too() {
    let gateway = TestGateway::start().with("drain.notice = '200ms'").with("drain.period = '1s'").run().await;
    let mut client = connect(gateway.public).await;
    let headers = [("accept", "application/x-ndjson")];
    let stream = send(&mut client, "GET", gateway.public, "/v1/subscribe?channel=a", &headers, "").await;
    let held = {
        let mut client = client.clone();
        let address = gateway.public;
        tokio::spawn(async move {
            text(send(&mut client, "GET", address, "/v1/subscribe?channel=a&wait=55", &[], "").await).await
        })
    };
    gateway.until_subscribers("a", 2).await;
    gateway.running.drain();
    let lines = text(stream).await;
    assert!(lines.contains(r#"{"type":"goodbye","code":"shutdown","reconnect_after_ms":"#), "{lines}");
    let document = Document::parse(&within(PATIENCE, "the held poll", held).await.expect("answered"));
    assert!(document.messages.is_empty());
    drop(client);
    gateway.stopped(std::time::Duration::from_secs(10)).await;
}

#[tokio::test]
async fn a_slow_stream_over_http_2_delays_no_other_on_its_connection() {
    let gateway = TestGateway::start()
        .with("limits.outbox = '64KiB'")
        .namespace("default", "history_messages = 100000\nhistory_bytes = '64MiB'")
        .run()
        .await;
    let mut client = connect(gateway.public).await;
    let headers = [("accept", "application/x-ndjson")];
    // Never read: its window fills.
    let stalled = send(&mut client, "GET", gateway.public, "/v1/subscribe?channel=a", &headers, "").await;
    let mut fast =
        send(&mut client, "GET", gateway.public, "/v1/subscribe?channel=b", &headers, "").await.into_body();
    let body = format!("\"{}\"", "x".repeat(60_000));
    for _ in 0..100 {
        gateway.publish("a", &body).await;
    }
    gateway.publish("b", "\"through\"").await;
    let mut lines = String::new();
    while !lines.contains("through") {
        let frame = within(PATIENCE, "a line", fast.frame()).await.expect("more").expect("a frame");
        lines += std::str::from_utf8(frame.data_ref().expect("data")).expect("UTF-8");
    }
    gateway.until_subscribers("a", 0).await;
    eventually("what waited is counted", async || {
        let ended = [("reason", "ended")];
        (gateway.metric("tidegate_messages_dropped_total", &ended).await > 0.0).then_some(())
    })
    .await;
    gateway.finish((stalled, fast, client)).await;
}

#[tokio::test]
async fn streams_that_come_too_fast_are_refused_and_their_connection_lives_on() {
    let gateway = TestGateway::start().with("limits.connects_per_second = 1").run().await;
    // Takes the second's one place; each stream that subscribes needs another.
    let mut client = connect(gateway.public).await;
    let headers = [("accept", "application/x-ndjson")];
    let (mut streams, mut refused) = (Vec::new(), 0);
    while streams.is_empty() || refused == 0 {
        let answer = send(&mut client, "GET", gateway.public, "/v1/subscribe?channel=a", &headers, "").await;
        if answer.status() == 200 {
            streams.push(answer.into_body());
        } else {
            assert_eq!(answer.status(), 429);
            assert!(answer.headers()["retry-after"].to_str().expect("text").parse::<u64>().is_ok());
            assert!(text(answer).await.contains("limits.connects_per_second"));
            refused += 1;
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
        assert!(streams.len() < 20 && refused < 200, "{} streams, {refused} refused", streams.len());
    }
    for (name, label) in [
        ("tidegate_connections_rejected_total", ("reason", "rate")),
        ("tidegate_rate_limited_total", ("scope", "connects")),
    ] {
        assert_eq!(gateway.metric(name, &[label]).await, f64::from(refused), "{name}");
    }
    gateway.finish((streams, client)).await;
}

#[tokio::test]
async fn answers_that_nobody_reads_are_few_at_a_time() {
    let gateway = TestGateway::start().run().await;
    for _ in 0..4 {
        gateway.publish("a", &format!("\"{}\"", "x".repeat(200_000))).await;
    }
    let stream = TcpStream::connect(gateway.public).await.expect("connects");
    let (client, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .initial_stream_window_size(64 * 1024)
        .handshake(TokioIo::new(stream))
        .await
        .expect("speaks HTTP/2");
    tokio::spawn(async move { drop(connection.await) });
    let address = gateway.public;
    let (heads, mut answers) = tokio::sync::mpsc::unbounded_channel();
    for _ in 0..40 {
        let (mut client, heads) = (client.clone(), heads.clone());
        tokio::spawn(async move {
            let target = "/v1/subscribe?channel=a&since=earliest&wait=0";
            let answer = send(&mut client, "GET", address, target, &[], "").await;
            let _ = heads.send(answer);
        });
    }
    let mut unread = Vec::new();
    let quiet = Duration::from_millis(700);
    while let Ok(Some(answer)) = tokio::time::timeout(quiet, answers.recv()).await {
        unread.push(answer);
    }
    assert_eq!(unread.len(), 8, "an answer has 800 KB, and the client has taken 64 KiB of each");
    let another = gateway.public("GET", "/v1/subscribe?channel=a&since=earliest&wait=0", &[], None).await;
    assert_eq!(Document::of(&another).messages.len(), 4, "another connection is not held up");
    for _ in 0..40 {
        let answer = match unread.pop() {
            Some(answer) => answer,
            None => within(PATIENCE, "its turn", answers.recv()).await.expect("an answer"),
        };
        assert_eq!(Document::parse(&text(answer).await).messages.len(), 4);
    }
    drop(client);
    gateway.finish(()).await;
}

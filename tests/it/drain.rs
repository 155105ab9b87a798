//! The drain: first the notice, then clients are sent away evenly, publishing is served to the end.

use std::time::{Duration, Instant};

use crate::support::client::{Document, Options};
use crate::support::sse_parser::{SseItem, SseParser};
use crate::support::{Client, Conn, End, Event, TestGateway, Transport, eventually, within};

/// Held polls in the background: their answers, and when they came.
fn hold(gateway: &TestGateway) -> tokio::task::JoinHandle<(crate::support::Answer, Instant)> {
    let address = gateway.public;
    tokio::spawn(async move {
        let mut conn = Conn::open(address).await;
        let answer = conn.get("/v1/subscribe?channel=a&wait=55", &[]).await;
        (answer, Instant::now())
    })
}

async fn ready(gateway: &TestGateway) -> u16 {
    gateway.get_public("/ready").await.status()
}

each_transport! {
    async fn during_the_notice_everything_is_served_but_ready(transport) {
        let gateway = TestGateway::start().with("drain.notice = '3s'").with("drain.period = '1s'").run().await;
        let mut client = Client::connect(&gateway, transport, "channel=a").await;
        assert_eq!(ready(&gateway).await, 200);
        let begun = Instant::now();
        gateway.running.drain();
        eventually("/ready says no", async || (ready(&gateway).await == 503).then_some(())).await;
        let unready = gateway.get_public("/ready").await.problem(503, "shutting_down");
        assert!(unready["detail"].as_str().is_some_and(|detail| detail.contains("elsewhere")), "{unready}");
        gateway.get_public("/live").await.expect(200);
        gateway.publish("a", "1").await;
        assert_eq!(client.numbers(1).await, [1]);
        let mut newcomer = Client::connect(&gateway, transport, "channel=a").await;
        gateway.publish("a", "2").await;
        assert_eq!(newcomer.numbers(1).await, [2]);
        assert_eq!(client.numbers(1).await, [2]);
        assert!(begun.elapsed() < Duration::from_secs(3), "this machine is too slow for this test");
        drop((client, newcomer));
        gateway.stopped(Duration::from_secs(15)).await;
    }

    async fn everybody_is_sent_away_in_their_own_way(transport) {
        let gateway = TestGateway::start().with("drain.notice = '300ms'").with("drain.period = '1s'").run().await;
        if transport == Transport::Poll {
            let held = hold(&gateway);
            gateway.until_subscribers("a", 1).await;
            gateway.running.drain();
            let (answer, _) = within(Duration::from_secs(10), "the held poll's answer", held).await.expect("answered");
            assert!(answer.head.closes(), "{:?}", answer.head);
            let document = Document::of(&answer);
            assert!(document.messages.is_empty() && document.gaps.is_empty());
            gateway.stopped(Duration::from_secs(10)).await;
            return;
        }
        let mut client = Client::connect(&gateway, transport, "channel=a").await;
        gateway.running.drain();
        let (goodbye, end) = client.end().await;
        let (code, delay) = goodbye.expect("a goodbye");
        assert_eq!(code, "shutdown");
        let delay = delay.expect("a delay");
        assert!((200..=2000).contains(&delay), "{delay}");
        match end {
            End::Close(1001, reason) => assert_eq!(reason, format!("shutdown {delay}")),
            other => assert!(transport != Transport::Websocket && matches!(other, End::Body), "{other:?}"),
        }
        drop(client);
        gateway.stopped(Duration::from_secs(10)).await;
    }

    async fn newcomers_are_refused_while_others_are_sent_away(transport) {
        let gateway = TestGateway::start().with("drain.notice = '100ms'").with("drain.period = '4s'").run().await;
        let mut clients = Vec::new();
        for _ in 0..8 {
            clients.push(Client::connect(&gateway, Transport::Ndjson, "channel=a").await);
        }
        gateway.running.drain();
        let public = gateway.public;
        let refusal = eventually("a newcomer is refused", async || Client::open(public, transport, "channel=a", Options::default()).await.err()).await;
        if transport == Transport::Sse {
            assert_eq!(refusal.status(), 200, "what an EventSource can bear");
            let items = SseParser::default().push(&refusal.body);
            assert!(matches!(items[..], [SseItem::Retry(_)]), "{items:?}");
        } else {
            refusal.problem(503, "shutting_down");
            let seconds: u64 = refusal.header("retry-after").expect("Retry-After").parse().expect("a number");
            assert!(seconds >= 1);
        }
        // Publishing is served to the end.
        let answer = gateway.post("a", &[("Content-Type", "application/json")], "1").await.expect(202);
        assert!(answer.head.closes(), "{:?}", answer.head);
        for target in ["/live", "/metrics"] {
            gateway.internal("GET", target, &[], None).await.expect(200);
        }
        assert_eq!(ready(&gateway).await, 503);
        drop(clients);
        gateway.stopped(Duration::from_secs(15)).await;
    }

    async fn clients_are_sent_away_evenly(transport) {
        let gateway = TestGateway::start().with("drain.notice = '100ms'").with("drain.period = '3s'").run().await;
        let mut times = Vec::new();
        if transport == Transport::Poll {
            let held: Vec<_> = (0..12).map(|_| hold(&gateway)).collect();
            gateway.until_subscribers("a", 12).await;
            gateway.running.drain();
            for answer in futures_util::future::join_all(held).await {
                times.push(answer.expect("answered").1);
            }
        } else {
            let mut clients = Vec::new();
            for _ in 0..12 {
                clients.push(Client::connect(&gateway, transport, "channel=a").await);
            }
            gateway.running.drain();
            let ends = clients.iter_mut().map(|client| async {
                client.end().await;
                Instant::now()
            });
            times = futures_util::future::join_all(ends).await;
        }
        times.sort();
        assert!(times[11] - times[0] > Duration::from_millis(1500), "from first to last {:?}", times[11] - times[0]);
        for window in times.windows(7) {
            assert!(window[6] - window[0] > Duration::from_millis(400), "seven at once: {times:?}");
        }
        gateway.stopped(Duration::from_secs(10)).await;
    }

    async fn what_is_published_while_clients_go_is_lost_to_nobody(transport) {
        let gateway = TestGateway::start().with("drain.notice = '200ms'").with("drain.period = '2s'").run().await;
        let mut client = Client::connect(&gateway, transport, "channel=a").await;
        // Somebody who keeps the drain from ending early.
        let mut anchors = Vec::new();
        for _ in 0..4 {
            anchors.push(Client::connect(&gateway, Transport::Ndjson, "channel=b").await);
        }
        let publish = async {
            let mut accepted = Vec::new();
            for number in 1..=100_u64 {
                let Ok(mut conn) = tokio::net::TcpStream::connect(gateway.internal).await else { break };
                use tokio::io::{AsyncReadExt, AsyncWriteExt};
                let body = number.to_string();
                let request = format!(
                    "POST /v1/channels/a/messages HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
                    body.len()
                );
                let mut answer = String::new();
                if conn.write_all(request.as_bytes()).await.is_err() || conn.read_to_string(&mut answer).await.is_err() {
                    break;
                }
                assert!(answer.starts_with("HTTP/1.1 202"), "{answer}");
                accepted.push(number);
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            accepted
        };
        let receive = async {
            let mut seen = Vec::new();
            loop {
                match client.next().await {
                    Event::Message(message) => seen.push(message.number()),
                    Event::Goodbye { .. } => {}
                    Event::End(_) => return seen,
                    other => panic!("{other:?}"),
                }
            }
        };
        gateway.running.drain();
        let (accepted, seen) = tokio::join!(publish, receive);
        assert!(!seen.is_empty() && accepted.starts_with(&seen), "{seen:?} of {accepted:?}: without a hole to the end");
        drop((client, anchors));
        gateway.stopped(Duration::from_secs(10)).await;
    }
}

#[tokio::test]
async fn the_notice_is_waited_for_and_the_period_ends_with_the_last_client() {
    let gateway = TestGateway::start().with("drain.notice = '1s'").with("drain.period = '30s'").run().await;
    let begun = Instant::now();
    gateway.running.drain();
    gateway.stopped(Duration::from_secs(10)).await;
    let took = begun.elapsed();
    assert!((Duration::from_millis(950)..Duration::from_secs(5)).contains(&took), "{took:?}");
}

#[tokio::test]
async fn a_client_that_does_not_go_cannot_hold_the_drain_up() {
    let gateway = TestGateway::start().with("drain.notice = '100ms'").with("drain.period = '1s'").run().await;
    let mut kept = Vec::new();
    for transport in Transport::STREAMS {
        // Connected, and never reading again.
        kept.push(Client::connect(&gateway, transport, "channel=a").await);
    }
    let idle = Conn::open(gateway.internal).await;
    gateway.running.drain();
    gateway.stopped(Duration::from_secs(10)).await;
    drop((kept, idle));
}

#[tokio::test]
async fn an_event_stream_is_told_when_to_come_back() {
    let gateway =
        TestGateway::start().with("drain.notice = '100ms'").with("drain.period = '500ms'").run().await;
    let mut client = Client::connect(&gateway, Transport::Sse, "channel=a").await;
    gateway.running.drain();
    let (mut delay, mut retry) = (None, None);
    loop {
        match client.next_any().await {
            Event::Goodbye { reconnect_after_ms, .. } => delay = reconnect_after_ms,
            Event::Retry(given) => retry = Some(given),
            Event::End(_) => break,
            _ => {}
        }
    }
    assert_eq!(retry, delay, "`retry:` says what the goodbye says");
    assert!(delay.is_some());
    drop(client);
    gateway.stopped(Duration::from_secs(10)).await;
}

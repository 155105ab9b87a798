//! `/metrics`: every series from the start, closed labels, true numbers.

use std::collections::BTreeSet;

use crate::support::gateway::series;
use crate::support::raw::{TEXT, frame};
use crate::support::{Client, Conn, TestGateway, Transport, eventually};

/// All series without their values, but those of the process.
fn names(text: &str) -> BTreeSet<String> {
    text.lines()
        .filter(|line| !line.starts_with('#') && !line.starts_with("process_"))
        .filter_map(|line| line.rsplit_once(' ').map(|(series, _)| series.to_owned()))
        .collect()
}

#[tokio::test]
async fn every_metric_has_a_prefix_a_type_and_a_help() {
    let gateway = TestGateway::start().run().await;
    let answer = gateway.internal("GET", "/metrics", &[], None).await.expect(200);
    assert!(answer.header("content-type").is_some_and(|media| media.starts_with("text/plain")));
    let text = answer.text();
    let described: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# HELP ")?.split_once(' ').map(|(name, _)| name))
        .collect();
    let typed: BTreeSet<&str> = text
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' ').map(|(name, _)| name))
        .collect();
    assert_eq!(described, typed);
    for name in names(text) {
        let name = name.split('{').next().expect("a name");
        let base =
            ["_bucket", "_sum", "_count"].iter().find_map(|suffix| name.strip_suffix(suffix)).unwrap_or(name);
        assert!(typed.contains(base) || typed.contains(name), "{name} has no type");
        assert!(name.starts_with("tidegate_"), "{name}");
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn all_series_are_there_from_the_start_and_no_channel_makes_one() {
    let gateway = TestGateway::start().run().await;
    let before = gateway.metrics().await;
    for name in ["tidegate_connections", "tidegate_deliveries_total"] {
        for transport in Transport::ALL {
            assert_eq!(
                series(&before, name, &[("transport", transport.name())]),
                Some(0.0),
                "{name} {transport:?}"
            );
        }
    }
    assert_eq!(series(&before, "tidegate_publications_total", &[]), Some(0.0));
    // Some of everything that can happen.
    let channels: Vec<String> = (0..300).map(|number| format!("secret{number}:x")).collect();
    gateway.batch(&serde_json::json!({"messages": [{"channels": channels, "data": 1}]})).await.expect(202);
    for transport in Transport::ALL {
        let mut client = Client::connect(&gateway, transport, "channel=secret1:x&since=earliest").await;
        client.message().await;
    }
    let mut gapped = Client::connect(&gateway, Transport::Sse, "channel=secret1:x&since=abcdefgh-4").await;
    gapped.gap().await;
    drop(gapped);
    gateway.get_public("/v1/subscribe?chanel=a").await.expect(400);
    gateway.post("a b", &[], "").await;
    gateway.post("a", &[("Content-Type", "application/json")], "{").await.expect(400);
    gateway
        .public("GET", "/v1/subscribe?channel=a", &[("Origin", "https://evil.example")], None)
        .await
        .expect(403);
    gateway.disconnect("channel", "secret1:x").await;
    let after = gateway.metrics().await;
    assert!(!after.contains("secret") && !after.contains("channel="), "a channel is no label");
    let (before, after) = (names(&before), names(&after));
    let new: Vec<_> = after.difference(&before).collect();
    assert!(new.is_empty(), "series that began late: {new:#?}");
    assert!(after.len() < 500, "{} series", after.len());
    gateway.finish(()).await;
}

each_transport! {
    async fn connections_and_deliveries_are_counted_by_transport(transport) {
        let gateway = TestGateway::start().run().await;
        let label = [("transport", transport.name())];
        let mut client = Client::connect(&gateway, transport, "channel=a").await;
        if transport == Transport::Poll {
            {
                let held = client.next_patiently();
                tokio::pin!(held);
                let gauge = eventually("the held poll is a connection", async || {
                    (gateway.metric("tidegate_connections", &label).await == 1.0).then_some(())
                });
                tokio::select! {
                    _ = &mut held => panic!("nothing was published"),
                    () = gauge => {}
                }
            }
        } else {
            assert_eq!(gateway.metric("tidegate_connections", &label).await, 1.0);
        }
        for other in Transport::ALL.into_iter().filter(|other| *other != transport) {
            assert_eq!(gateway.metric("tidegate_connections", &[("transport", other.name())]).await, 0.0);
        }
        gateway.publish_numbers("a", 1, 7).await;
        client.numbers(7).await;
        eventually("the deliveries are counted", async || {
            (gateway.metric("tidegate_deliveries_total", &label).await == 7.0).then_some(())
        })
        .await;
        assert_eq!(gateway.metric("tidegate_publications_total", &[]).await, 7.0);
        drop(client);
        eventually("the gauge falls", async || {
            (gateway.metric("tidegate_connections", &label).await == 0.0).then_some(())
        })
        .await;
        gateway.finish(()).await;
    }
}

#[tokio::test]
async fn places_are_taken_of_a_number_that_is_told() {
    let gateway = TestGateway::start().with("limits.connections = 7").run().await;
    assert_eq!(gateway.metric("tidegate_connections_limit", &[]).await, 7.0);
    assert_eq!(gateway.metric("tidegate_connections_admitted", &[]).await, 0.0);
    let clients = (
        Client::connect(&gateway, Transport::Sse, "channel=a").await,
        Client::connect(&gateway, Transport::Websocket, "channel=a").await,
    );
    assert_eq!(gateway.metric("tidegate_connections_admitted", &[]).await, 2.0);
    gateway.finish(clients).await;
}

#[tokio::test]
async fn the_broker_is_told() {
    let gateway = TestGateway::start().run().await;
    for (kind, value) in [("memory", 1.0), ("redis", 0.0)] {
        assert_eq!(gateway.metric("tidegate_broker_info", &[("kind", kind)]).await, value);
    }
    gateway.finish(()).await;
}

each_transport! {
    async fn the_age_of_what_is_replayed_is_no_latency(transport) {
        const LATENCIES: &str = "tidegate_delivery_latency_seconds_count";
        let gateway = TestGateway::start().run().await;
        let label = [("transport", transport.name())];
        gateway.publish_numbers("a", 1, 3).await;
        let mut client = Client::connect(&gateway, transport, "channel=a&since=earliest").await;
        client.numbers(3).await;
        eventually("they are counted", async || {
            (gateway.metric("tidegate_deliveries_total", &label).await == 3.0).then_some(())
        })
        .await;
        assert_eq!(gateway.metric(LATENCIES, &label).await, 0.0);
        // A message may overtake the poll that was to be held for it: then the next one is.
        for number in 4..50 {
            let publish = async {
                eventually("it is there", async || {
                    (gateway.metric("tidegate_connections", &label).await == 1.0).then_some(())
                })
                .await;
                gateway.publish_numbers("a", number, number).await;
            };
            tokio::join!(publish, client.message());
            if gateway.metric(LATENCIES, &label).await > 0.0 {
                break;
            }
        }
        assert!(gateway.metric(LATENCIES, &label).await > 0.0);
        gateway.finish(client).await;
    }
}

#[tokio::test]
async fn a_duplicate_is_no_publication() {
    let gateway = TestGateway::start().run().await;
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "k")];
    for _ in 0..3 {
        gateway.post("a", &headers, "1").await.expect(202);
    }
    assert_eq!(gateway.metric("tidegate_publications_total", &[]).await, 1.0);
    assert_eq!(gateway.metric("tidegate_publish_deduplicated_total", &[]).await, 2.0);
    gateway.finish(()).await;
}

#[tokio::test]
async fn publish_requests_are_counted_by_the_way_they_came() {
    let gateway = TestGateway::start().with("limits.message = '1KiB'").run().await;
    let large = "x".repeat(1025);
    gateway.publish("a", "1").await;
    gateway.post("a", &[("Content-Type", "text/plain")], &large).await.problem(413, "message_too_large");
    gateway.batch(&serde_json::json!({"messages": [{"channel": "a", "data": 1}]})).await.expect(202);
    let mut client = Client::connect(&gateway, Transport::Websocket, "").await;
    for data in ["1", "2", &large] {
        client.send(format!(r#"{{"type":"publish","channel":"a","data":"{data}","ref":1}}"#)).await;
        client.object().await;
    }
    client.send(r#"{"type":"ping","ref":1}"#).await;
    client.object().await;
    let mut raw = Client::connect(&gateway, Transport::Websocket, "channel=b").await;
    let upgraded = Conn::open(gateway.public).await.upgrade("/v1/subscribe?channel=b&format=raw", &[]).await;
    let (mut conn, _) = upgraded.expect("upgraded");
    conn.send(frame(true, TEXT, b"raw")).await;
    raw.message().await;
    conn.send(frame(true, TEXT, large.as_bytes())).await;
    assert_eq!(conn.close_frame().await.0, 1009);
    for (route, code, count) in [
        ("message", "2xx", 1.0),
        ("message", "4xx", 1.0),
        ("batch", "2xx", 1.0),
        ("batch", "4xx", 0.0),
        ("websocket", "2xx", 3.0),
        ("websocket", "4xx", 2.0),
        ("websocket", "5xx", 0.0),
    ] {
        let labels = [("route", route), ("code", code)];
        assert_eq!(gateway.metric("tidegate_publish_requests_total", &labels).await, count, "{labels:?}");
    }
    gateway.finish((client, raw, conn)).await;
}

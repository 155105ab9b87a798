//! The age limit of connections: off unless configured, with a jitter, and nothing lost by it.

use std::time::{Duration, Instant};

use crate::support::{Client, End, TestGateway, Transport};

each_stream! {
    async fn an_old_connection_is_sent_away_and_comes_back(transport) {
        let gateway = TestGateway::start().with("sessions.max_age = '1s'").run().await;
        let begun = Instant::now();
        let mut client = Client::connect(&gateway, transport, "channel=a").await;
        gateway.publish("a", "1").await;
        assert_eq!(client.numbers(1).await, [1]);
        let (goodbye, end) = client.end().await;
        let age = begun.elapsed();
        assert!((Duration::from_millis(850)..Duration::from_secs(4)).contains(&age), "{age:?}");
        let (code, delay) = goodbye.expect("a goodbye");
        let delay = delay.expect("it may come back");
        match (transport, end) {
            (Transport::Websocket, End::Close(1001, reason)) => assert_eq!(reason, format!("{code} {delay}")),
            (Transport::Websocket, other) => panic!("{other:?}"),
            (_, end) => assert!(matches!(end, End::Body), "{end:?}"),
        }
        gateway.publish("a", "2").await;
        let mut client = client.resume_on(transport).await;
        assert_eq!(client.numbers(1).await, [2]);
        gateway.finish(client).await;
    }
}

#[tokio::test]
async fn ages_are_spread() {
    let gateway = TestGateway::start().with("sessions.max_age = '3s'").run().await;
    let begun = Instant::now();
    let clients = (0..12).map(|_| async {
        let mut client = Client::connect(&gateway, Transport::Ndjson, "channel=a").await;
        client.end().await;
        begun.elapsed()
    });
    let ages = futures_util::future::join_all(clients).await;
    let (first, last) = (ages.iter().min().expect("ages"), ages.iter().max().expect("ages"));
    assert!(*last - *first > Duration::from_millis(60), "{ages:?}");
    assert!(*first > Duration::from_millis(2500), "{ages:?}");
    gateway.finish(()).await;
}

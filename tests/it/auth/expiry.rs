//! A token ends, and with it what it was shown for.

use std::time::Duration;

use crate::support::client::Options;
use crate::support::credentials::{now, token_until};
use crate::support::{Client, End, TestGateway, Transport};

each_transport! {
    async fn at_its_end_the_client_is_told(transport) {
        let gateway = TestGateway::start().tokens().namespace("ticker", "subscribe = 'anyone'").run().await;
        let expires_at = now().ceil() as u64 + 2;
        let token = token_until("ann", &["news"], expires_at);
        let query = format!("channel=news&channel=ticker:1&token={token}");
        let mut client = Client::connect(&gateway, transport, &query).await;
        let (goodbye, end) = client.end().await;
        assert!(now() >= expires_at as f64, "{} before its end", expires_at as f64 - now());
        assert!(now() < expires_at as f64 + 10.0);
        match (transport, end) {
            (Transport::Poll, End::Refused(answer)) => {
                // The poll that was held was answered; the next one is refused.
                answer.problem(401, "token_expired");
            }
            (Transport::Websocket, End::Close(4401, reason)) => {
                let (code, after) = goodbye.expect("a goodbye");
                assert_eq!(code, "token_expired");
                assert_eq!(reason, format!("token_expired {}", after.expect("it comes back with a new one")));
            }
            (Transport::Sse | Transport::Ndjson, End::Body) => {
                let (code, after) = goodbye.expect("a goodbye");
                assert_eq!((code.as_str(), after.is_some()), ("token_expired", true));
            }
            (_, end) => panic!("{end:?}"),
        }
        let again = Client::open(gateway.public, transport, &query, Options::default()).await;
        again.err().expect("refused").problem(401, "token_expired");
        if transport != Transport::Poll {
            let labels = [("transport", transport.name()), ("reason", "token_expired")];
            assert_eq!(gateway.metric("tidegate_connections_closed_total", &labels).await, 1.0);
        }
        gateway.finish(client).await;
    }
}

#[tokio::test]
async fn a_distant_end_is_none() {
    let gateway = TestGateway::start().tokens().run().await;
    for expires_at in [now() as u64 + 1_000_000_000, 250_000_000_000] {
        let query = format!("channel=news&wait=0&token={}", token_until("ann", &["news"], expires_at));
        let options = Options::default();
        let client = Client::open(gateway.public, Transport::Poll, &query, options).await;
        drop(client.unwrap_or_else(|answer| panic!("{expires_at}: {answer:?}")));
        let query = query.replace("&wait=0", "");
        let mut client = Client::connect(&gateway, Transport::Ndjson, &query).await;
        let silence = tokio::time::timeout(Duration::from_millis(50), client.next_patiently()).await;
        assert!(silence.is_err(), "{silence:?}");
        drop(client);
    }
    gateway.finish(()).await;
}

//! Whose a connection is: so many for each, and all of them ended by name.

use serde_json::json;

use crate::support::client::Options;
use crate::support::credentials::token;
use crate::support::{Client, End, Event, TestGateway, Transport};

#[tokio::test]
async fn a_subject_has_so_many_connections_over_all_transports() {
    let gateway = TestGateway::start().tokens().with("limits.connections_per_subject = 2").run().await;
    let query = |subject: &str| format!("channel=news&token={}", token(subject, &["news"], &[]));
    let ann = query("ann");
    let first = Client::connect(&gateway, Transport::Websocket, &ann).await;
    let second = Client::connect(&gateway, Transport::Ndjson, &ann).await;
    for transport in Transport::ALL {
        let outcome = Client::open(gateway.public, transport, &ann, Options::default()).await;
        let answer = outcome.err().expect("refused");
        if transport == Transport::Sse {
            assert_eq!(answer.status(), 200);
            assert!(answer.text().starts_with("retry:"), "{}", answer.text());
        } else {
            let problem = answer.problem(503, "too_many_connections");
            assert_eq!(problem["limit"], 2);
            assert!(answer.header("retry-after").is_some());
        }
    }
    let rejected = gateway.metric("tidegate_connections_rejected_total", &[("reason", "subject")]).await;
    assert_eq!(rejected, 4.0);
    let bob = Client::connect(&gateway, Transport::Sse, &query("bob")).await;
    drop(first);
    let third = crate::support::eventually("the place is free again", async || {
        Client::open(gateway.public, Transport::Ndjson, &ann, Options::default()).await.ok()
    })
    .await;
    gateway.finish((second, bob, third)).await;
}

each_transport! {
    async fn the_connections_of_a_subject_are_ended_by_its_name(transport) {
        let gateway = TestGateway::start()
            .tokens()
            .key("backend", &["*"], &["publish", "read", "manage"])
            .run()
            .await;
        let query = |subject: &str| format!("channel=news&token={}", token(subject, &["news"], &[]));
        let mut ann = Client::connect(&gateway, transport, &query("ann")).await;
        let mut bob = Client::connect(&gateway, Transport::Ndjson, &query("bob")).await;
        let disconnect = async |body| {
            gateway.by("backend", "POST", "/v1/disconnect", Some(&body)).await.expect(202);
        };
        if transport == Transport::Poll {
            // A held poll is answered, and the client comes back: it is not barred.
            let held = async {
                crate::support::eventually("the poll is held", async || {
                    let info = gateway.by("backend", "GET", "/v1/channels/news", None).await.expect(200).json();
                    (info["subscribers"] == 2).then_some(())
                })
                .await;
                disconnect(json!({"subject": "ann"})).await;
                gateway.by("backend", "POST", "/v1/channels/news/messages", Some(&json!(1))).await.expect(202);
            };
            let (event, ()) = tokio::join!(ann.next(), held);
            assert!(matches!(event, Event::Message(_)), "{event:?}");
        } else {
            disconnect(json!({"subject": "ann"})).await;
            let (goodbye, end) = ann.end().await;
            assert_eq!(goodbye, Some(("revoked".into(), None)));
            match transport {
                Transport::Websocket => assert!(matches!(end, End::Close(4410, _)), "{end:?}"),
                _ => assert!(matches!(end, End::Body), "{end:?}"),
            }
            gateway.by("backend", "POST", "/v1/channels/news/messages", Some(&json!(1))).await.expect(202);
        }
        assert_eq!(bob.message().await.number(), 1, "the other subject is left alone");
        gateway.finish((ann, bob)).await;
    }
}

//! `authenticate` on an open connection: another token of the same subject.

use serde_json::json;

use crate::support::client::Options;
use crate::support::credentials::{now, sign, token, token_until};
use crate::support::objects::Object;
use crate::support::{Client, End, TestGateway, Transport};

async fn authenticate(client: &mut Client, token: &str) -> Object {
    client.send(json!({"type": "authenticate", "token": token, "ref": "a"}).to_string()).await;
    client.object().await
}

#[tokio::test]
async fn another_token_moves_the_end() {
    let gateway = TestGateway::start().tokens().run().await;
    let first = now().ceil() as u64 + 2;
    let query = format!("channel=news&token={}", token_until("ann", &["news"], first));
    let mut client = Client::connect(&gateway, Transport::Websocket, &query).await;
    let taken = authenticate(&mut client, &token_until("ann", &["news"], first + 2)).await;
    assert_eq!(
        taken.text,
        format!(r#"{{"type":"authenticated","subject":"ann","expires_at":{}000,"ref":"a"}}"#, first + 2)
    );
    let (goodbye, end) = client.end().await;
    assert!(now() >= (first + 2) as f64, "it ended with the first one");
    assert_eq!(goodbye.expect("a goodbye").0, "token_expired");
    assert!(matches!(end, End::Close(4401, _)), "{end:?}");
    gateway.finish(client).await;
}

#[tokio::test]
async fn a_token_that_does_not_hold_leaves_the_one_before_it() {
    let gateway = TestGateway::start().tokens().with("limits.connections_per_subject = 2").run().await;
    let query = format!("channel=news&token={}", token("ann", &["news"], &[]));
    let mut client = Client::connect(&gateway, Transport::Websocket, &query).await;
    for (bad, code) in [
        (token("bob", &["*"], &[]), "forbidden"),
        (token_until("ann", &["*"], now() as u64 - 60), "token_expired"),
        ("not-a-token".into(), "unauthorized"),
        (String::new(), "unauthorized"),
    ] {
        let refused = authenticate(&mut client, &bad).await;
        assert_eq!((refused.kind.as_str(), refused.string("code").as_str()), ("error", code));
        client.send(r#"{"type":"subscribe","channel":"other","ref":1}"#).await;
        assert_eq!(client.object().await.string("code"), "forbidden", "nothing was granted");
    }
    client.send(r#"{"type":"unsubscribe","channel":"news","ref":1}"#).await;
    assert_eq!(client.object().await.kind, "unsubscribed", "nothing was lost");
    gateway.finish(client).await;
}

#[tokio::test]
async fn what_the_new_token_does_not_grant_is_left() {
    let gateway = TestGateway::start()
        .tokens()
        .key("backend", &["*"], &["publish"])
        .namespace("ticker", "subscribe = 'anyone'")
        .run()
        .await;
    let query = format!("channel=a&channel=b&channel=ticker:1&token={}", token("ann", &["a", "b"], &[]));
    let mut client = Client::connect(&gateway, Transport::Websocket, &query).await;
    let taken = authenticate(&mut client, &token("ann", &["b", "c"], &[])).await;
    assert_eq!(taken.kind, "authenticated");
    let lost = client.object().await;
    assert_eq!(lost.text, r#"{"type":"unsubscribed","channel":"a","code":"forbidden"}"#);
    for channel in ["a", "b", "ticker:1"] {
        let target = format!("/v1/channels/{channel}/messages");
        gateway.by("backend", "POST", &target, Some(&json!(1))).await.expect(202);
    }
    let heard = [client.message().await.channel, client.message().await.channel];
    assert_eq!(heard, ["b", "ticker:1"]);
    client.send(r#"{"type":"subscribe","channel":"c","ref":1}"#).await;
    assert_eq!(client.object().await.kind, "subscribed");
    gateway.finish(client).await;
}

#[tokio::test]
async fn the_first_frame_brings_the_token_and_what_follows_it_is_answered_in_order() {
    let gateway = TestGateway::start().tokens().run().await;
    let mut client = Client::connect(&gateway, Transport::Websocket, "").await;
    let token = token("ann \"é\"", &["news"], &[]);
    client.send(json!({"type": "authenticate", "token": token, "ref": 1}).to_string()).await;
    client.send(r#"{"type":"subscribe","channel":"news","ref":2}"#).await;
    client.send(r#"{"type":"subscribe","channel":"other","ref":3}"#).await;
    let taken = client.object().await;
    assert_eq!((taken.kind.as_str(), taken.string("subject").as_str()), ("authenticated", "ann \"é\""));
    assert_eq!(client.object().await.kind, "subscribed");
    assert_eq!(client.object().await.string("code"), "forbidden");
    gateway.finish(client).await;
}

#[tokio::test]
async fn a_subject_over_its_limit_is_sent_away_until_there_is_room() {
    let gateway = TestGateway::start().tokens().with("limits.connections_per_subject = 1").run().await;
    let ann = token("ann", &["news"], &[]);
    let mut first = Client::connect(&gateway, Transport::Websocket, "").await;
    assert_eq!(authenticate(&mut first, &ann).await.kind, "authenticated");
    let mut second = Client::connect(&gateway, Transport::Websocket, "").await;
    assert_eq!(authenticate(&mut second, &ann).await.string("code"), "too_many_connections");
    let (goodbye, end) = second.end().await;
    assert_eq!(goodbye.expect("a goodbye").0, "overloaded");
    assert!(matches!(end, End::Close(4503, _)), "{end:?}");
    let claims = json!({"sub": "ann", "exp": now() as u64 + 60, "channels": ["news"], "jti": "another"});
    assert_eq!(authenticate(&mut first, &sign(&claims)).await.kind, "authenticated", "it counts once");
    drop(first);
    let query = format!("channel=news&token={ann}");
    let third = crate::support::eventually("the place is free again", async || {
        Client::open(gateway.public, Transport::Ndjson, &query, Options::default()).await.ok()
    })
    .await;
    gateway.finish((second, third)).await;
}

//! Who a gateway is to Redis: passwords, ACLs, and the login of the Sentinels.

use crate::redis::start::{complains, post};
use crate::support::Client;
use crate::support::client::{Options, Transport};
use crate::support::fleet::Node;
use crate::support::redis::{Replicated, Server, Settings, until};

#[tokio::test]
async fn a_wrong_or_missing_password_is_told_in_a_sentence() {
    let settings = Settings::default().password("right").user("gate", "right", "~* &* +@all");
    let redis = Server::start(settings).await;
    let place = redis.address().to_string();
    complains(&redis.url(), &[], &[&place, "password", "broker.password"]).await;
    complains(&format!("redis://:s3cr3t@{place}"), &[], &[&place, "password"]).await;
    complains(&format!("redis://gate:s3cr3t@{place}"), &[], &[&place, "password"]).await;
    let keys = [("TIDEGATE_BROKER__USERNAME", "gate"), ("TIDEGATE_BROKER__PASSWORD", "s3cr3t")];
    complains(&redis.url(), &keys, &[&place, "password"]).await;
    // And the right ones are taken from each place.
    for (url, keys) in [
        (format!("redis://:right@{place}"), vec![]),
        (format!("redis://gate:right@{place}"), vec![]),
        (redis.url(), vec![("TIDEGATE_BROKER__USERNAME", "gate"), ("TIDEGATE_BROKER__PASSWORD", "right")]),
    ] {
        let mut all = vec![("TIDEGATE_BROKER__URL", url.as_str())];
        all.extend(keys);
        let mut node = Node::new(&all);
        node.start().await;
        post(&node, &[]).await.expect(202);
    }
}

#[tokio::test]
async fn an_acl_that_forbids_too_much_is_told_in_a_sentence() {
    let rules = [
        ("nokeys", "~other:* &* +@all"),
        ("nochannels", "~* &other:* +@all"),
        ("nofunctions", "~* &* +@all -@scripting"),
        ("nopubsub", "~* &* +@all -subscribe -ssubscribe"),
    ];
    let settings =
        rules.iter().fold(Settings::default(), |settings, (name, rules)| settings.user(name, "pw", rules));
    let redis = Server::start(settings).await;
    let place = redis.address().to_string();
    for (name, _) in rules {
        complains(&format!("redis://{name}:pw@{place}"), &[], &[&place, "ACL|permission"]).await;
    }
}

#[tokio::test]
async fn without_the_right_to_info_it_serves_with_a_loud_warning() {
    let redis = Server::start(Settings::default().user("gate", "pw", "~* &* +@all -info")).await;
    let mut node = Node::new(&[("TIDEGATE_BROKER__URL", &format!("redis://gate:pw@{}", redis.address()))]);
    node.start().await;
    post(&node, &[]).await.expect(202);
    until("it warns", async || node.said().contains("INFO").then_some(())).await;
}

#[tokio::test]
async fn where_functions_are_refused_a_script_does_the_same() {
    let redis =
        Server::start(Settings::default().user("gate", "pw", "~* &* +@all -function -fcall -fcall_ro")).await;
    let mut node = Node::new(&[("TIDEGATE_BROKER__URL", &format!("redis://gate:pw@{}", redis.address()))]);
    node.start().await;
    let options = Options::default();
    let mut client =
        Client::connect_with(node.public, Transport::Ndjson, "channel=a&since=earliest", options).await;
    for _ in 0..3 {
        post(&node, &[]).await.expect(202);
        redis.command(&["SCRIPT", "FLUSH"]).await;
    }
    assert_eq!(client.numbers(3).await, [1, 1, 1]);
}

/// The users of the ACL file that is shipped, as far as rights go.
fn shipped_rules() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/deploy/redis/users.acl");
    let text = std::fs::read_to_string(path).expect("the ACL file");
    let line = text.lines().find_map(|line| line.strip_prefix("user tidegate on ")).expect("the user");
    let (hash, rules) = line.split_once(' ').expect("a password and rules");
    assert!(hash.starts_with('#'), "the password by its digest");
    rules.to_owned()
}

#[tokio::test]
async fn the_acl_that_is_shipped_is_enough() {
    let redis = Server::start(Settings::default().user("tidegate", "pw", &shipped_rules())).await;
    // With a database of its own, which takes a right more.
    let url = format!("redis://tidegate:pw@{}/3", redis.address());
    let mut node = Node::new(&[("TIDEGATE_BROKER__URL", &url)]);
    node.start().await;
    post(&node, &[("Idempotency-Key", "k")]).await.expect(202);
    post(&node, &[]).await.expect(202);
    let mut clients = Vec::new();
    for transport in Transport::STREAMS {
        let options = Options::default();
        clients.push(Client::connect_with(node.public, transport, "channel=a&since=earliest", options).await);
    }
    for client in &mut clients {
        assert_eq!(client.numbers(2).await, [1, 1]);
    }
    for (method, target, status) in [
        ("GET", "/v1/channels/a", 200),
        ("GET", "/v1/channels", 200),
        ("GET", "/v1/channels/a/messages", 200),
        ("DELETE", "/v1/channels/a/messages", 204),
    ] {
        node.internal(method, target, None).await.expect(status);
    }
    node.internal("POST", "/v1/disconnect", Some(&serde_json::json!({"channel": "a"}))).await.expect(202);
    for client in &mut clients {
        let (goodbye, _) = client.end().await;
        assert_eq!(goodbye.map(|(code, _)| code).as_deref(), Some("revoked"));
    }
    let refused: Vec<redis::Value> = redis.ask(&["ACL", "LOG"]).await;
    assert!(refused.is_empty(), "{refused:?}");
}

#[tokio::test]
async fn the_sentinels_have_a_login_of_their_own() {
    let redis = Replicated::watched().await;
    for sentinel in &redis.sentinels {
        sentinel.command(&["ACL", "SETUSER", "watcher", "on", ">w4tch", "+@all"]).await;
        sentinel.command(&["ACL", "SETUSER", "default", "resetpass", ">d3fault"]).await;
    }
    let url = redis.url();
    let place = redis.sentinels[0].address().to_string();
    complains(&url, &[], &["password", "broker.sentinel_password"]).await;
    let wrong = [("TIDEGATE_BROKER__SENTINEL_PASSWORD", "s3cr3t")];
    complains(&url, &wrong, &[&place, "password", "broker.sentinel_password"]).await;
    let logins = [
        vec![("TIDEGATE_BROKER__SENTINEL_PASSWORD", "d3fault")],
        vec![
            ("TIDEGATE_BROKER__SENTINEL_USERNAME", "watcher"),
            ("TIDEGATE_BROKER__SENTINEL_PASSWORD", "w4tch"),
        ],
    ];
    for login in logins {
        let mut node = Node::new(&[vec![("TIDEGATE_BROKER__URL", url.as_str())], login].concat());
        node.start().await;
        post(&node, &[]).await.expect(202);
    }
}

#[tokio::test]
async fn a_publish_that_fails_half_way_is_not_said_to_be_undone() {
    let redis = Server::start(Settings::default().user("gate", "pw", "~* &* +@all")).await;
    let mut node = Node::new(&[("TIDEGATE_BROKER__URL", &format!("redis://gate:pw@{}", redis.address()))]);
    node.start().await;
    post(&node, &[]).await.expect(202);
    redis.command(&["ACL", "SETUSER", "gate", "-publish"]).await;
    post(&node, &[]).await.problem(503, "broker_uncertain");
    let info = node.get("/v1/channels/a").await.expect("listens").expect(200).json();
    assert_eq!(info["messages"], 2, "it was stored: {info}");
}

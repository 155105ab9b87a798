//! `rediss://`: the server's certificate is checked, and ours is shown where it is asked for.
//!
//! tests/it/redis/tls holds a CA of these tests, a certificate for localhost and one for a client, for a hundred
//! years; the CA's key was thrown away.

use crate::redis::start::complains;
use crate::support::client::{Options, Transport};
use crate::support::fleet::Node;
use crate::support::process::free_port;
use crate::support::redis::{Server, Settings};
use crate::support::{Client, Conn};

const FILES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/redis/tls");

fn file(name: &str) -> String {
    format!("{FILES}/{name}")
}

/// A server with TLS beside its plain port, which the oracle uses.
async fn server(clients: &str) -> (Server, u16) {
    let port = free_port();
    let settings = Settings::default()
        .with(format!("tls-port {port}"))
        .with(format!("tls-cert-file {}", file("server.pem")))
        .with(format!("tls-key-file {}", file("server.key")))
        .with(format!("tls-ca-cert-file {}", file("ca.pem")))
        .with(format!("tls-auth-clients {clients}"));
    (Server::start(settings).await, port)
}

/// A gateway over this broker publishes and hears itself.
async fn works(url: &str, keys: &[(&str, &str)]) {
    let mut all = vec![("TIDEGATE_BROKER__URL", url)];
    all.extend(keys);
    let mut node = Node::new(&all);
    node.start().await;
    let mut client = Client::connect_with(node.public, Transport::Sse, "channel=a", Options::default()).await;
    let mut conn = Conn::open(node.internal).await;
    let headers = [("Content-Type", "application/json")];
    conn.request("POST", "/v1/channels/a/messages", &headers, Some(b"1")).await.expect(202);
    assert_eq!(client.numbers(1).await, [1]);
}

#[tokio::test]
async fn a_server_with_a_certificate_of_our_ca_is_used_by_its_name_and_by_its_address() {
    let (_redis, port) = server("no").await;
    let ca = file("ca.pem");
    for host in ["localhost", "127.0.0.1"] {
        works(&format!("rediss://{host}:{port}"), &[("TIDEGATE_BROKER__CA_FILE", &ca)]).await;
    }
}

#[tokio::test]
async fn a_server_whose_certificate_nobody_vouches_for_is_refused_in_a_sentence() {
    let (_redis, port) = server("no").await;
    complains(&format!("rediss://localhost:{port}"), &[], &["localhost", &port.to_string(), "certificate"])
        .await;
    // Another CA's word is worth nothing.
    let (url, other) = (format!("rediss://localhost:{port}"), file("client.pem"));
    complains(&url, &[("TIDEGATE_BROKER__CA_FILE", &other)], &["localhost", "certificate"]).await;
}

#[tokio::test]
async fn a_client_certificate_is_shown_where_the_server_asks_for_one() {
    let (_redis, port) = server("yes").await;
    let (url, ca) = (format!("rediss://localhost:{port}"), file("ca.pem"));
    complains(&url, &[("TIDEGATE_BROKER__CA_FILE", &ca)], &["localhost", &port.to_string()]).await;
    let (cert, key) = (file("client.pem"), file("client.key"));
    let keys = [
        ("TIDEGATE_BROKER__CA_FILE", &*ca),
        ("TIDEGATE_BROKER__CERT_FILE", &*cert),
        ("TIDEGATE_BROKER__KEY_FILE", &*key),
    ];
    works(&url, &keys).await;
}

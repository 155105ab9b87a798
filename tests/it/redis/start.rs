//! Redis away, wrong, or not allowed: what the gateway says, and that it needs no restart.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::redis::table::prefix;
use crate::support::client::{Options, Transport};
use crate::support::fleet::{Node, RECOVERY};
use crate::support::process::free_port;
use crate::support::redis::{Cluster, Replicated, Server, Settings, until};
use crate::support::tls::Folder;
use crate::support::{Answer, Client, Conn};

pub async fn post(node: &Node, headers: &[(&str, &str)]) -> Answer {
    let mut conn = Conn::open(node.internal).await;
    let mut all = vec![("Content-Type", "application/json")];
    all.extend(headers);
    conn.request("POST", "/v1/channels/a/messages", &all, Some(b"1")).await
}

fn refuses(answer: &Answer) {
    answer.problem(503, "broker_unavailable");
    let wait: u64 = answer.header("retry-after").expect("Retry-After").parse().expect("seconds");
    assert!((1..=10).contains(&wait), "{wait}");
}

/// Waits until somebody listens at the internal address.
async fn until_listening(node: &Node) {
    until("it listens", async || node.get("/live").await.map(|_| ())).await;
}

#[tokio::test]
async fn a_gateway_without_redis_starts_says_why_it_is_not_ready_and_becomes_so_without_a_restart() {
    let port = free_port();
    let mut node = Node::new(&[("TIDEGATE_BROKER__URL", &format!("redis://127.0.0.1:{port}"))]);
    node.spawn();
    until_listening(&node).await;
    node.get("/live").await.expect("listens").expect(200);
    let (status, why) = node.ready().await;
    assert_eq!(status, 503, "{why}");
    assert!(why.contains(&format!("127.0.0.1:{port}")), "the reason names the place: {why}");
    refuses(&post(&node, &[]).await);
    for transport in Transport::ALL {
        let options = Options { headers: vec![("Accept", transport.accept())], ..Options::default() };
        let Err(answer) = Client::open(node.public, transport, "channel=a", options).await else {
            panic!("{transport:?} is served");
        };
        // An EventSource stops for ever on any other status.
        let wanted = if transport == Transport::Sse { 200 } else { 503 };
        assert_eq!(answer.status(), wanted, "{transport:?}: {}", answer.text());
        if transport == Transport::Sse {
            assert!(answer.text().contains("retry:"), "{}", answer.text());
        } else {
            refuses(&answer);
        }
    }
    let redis = Server::prepare(port, Settings::default());
    redis.run().await;
    node.until_ready().await;
    post(&node, &[]).await.expect(202);
    let options = Options::default();
    let mut client =
        Client::connect_with(node.public, Transport::Sse, "channel=a&since=earliest", options).await;
    assert_eq!(client.numbers(1).await, [1]);
    assert!(node.said().contains(&port.to_string()), "the log says where: {}", node.said());
}

#[tokio::test]
async fn while_redis_is_away_publishing_is_refused_at_once_and_clients_stay() {
    let redis = Server::start(Settings::default().aof()).await;
    let mut node = Node::new(&[("TIDEGATE_BROKER__URL", &redis.url())]);
    node.start().await;
    let mut clients = Vec::new();
    for transport in Transport::STREAMS {
        clients.push(Client::connect_with(node.public, transport, "channel=a", Options::default()).await);
    }
    post(&node, &[]).await.expect(202);
    for client in &mut clients {
        assert_eq!(client.numbers(1).await, [1]);
    }
    let mut quickest = Duration::MAX;
    for _ in 0..3 {
        redis.kill9();
        until("it has noticed", async || (post(&node, &[]).await.status() == 503).then_some(())).await;
        let begun = Instant::now();
        for _ in 0..20 {
            refuses(&post(&node, &[]).await);
        }
        // A tenth of one command's time-out each: nobody waits for a dead link.
        assert!(begun.elapsed() < Duration::from_secs(4), "20 refusals in {:?}", begun.elapsed());
        let (ready, why) = node.ready().await;
        assert_eq!(ready, 200, "or every gateway would leave the load balancer at once: {why}");
        redis.run().await;
        let back = Instant::now();
        until("it publishes again", async || (post(&node, &[]).await.status() == 202).then_some(())).await;
        for client in &mut clients {
            // Another process, another fence: this gap is among those that are promised.
            let (reason, ..) = client.gap().await;
            assert_eq!(reason, "failover");
            assert_eq!(client.numbers(1).await, [1]);
        }
        quickest = quickest.min(back.elapsed());
    }
    // Of three, since a machine that is busy with other tests is late now and then.
    assert!(quickest < Duration::from_secs(1), "everything goes on after {quickest:?}");
}

#[tokio::test]
async fn a_publish_with_a_key_is_made_once_though_redis_fell_silent_meanwhile() {
    let redis = Server::plain().await;
    let mut node =
        Node::new(&[("TIDEGATE_BROKER__URL", &redis.url()), ("TIDEGATE_BROKER__COMMAND_TIMEOUT", "500ms")]);
    node.start().await;
    post(&node, &[("Idempotency-Key", "k0")]).await.expect(202);
    redis.stop();
    let answer = post(&node, &[("Idempotency-Key", "k1")]).await;
    answer.problem(503, "broker_uncertain");
    redis.cont();
    let receipt = until("the same key again", async || {
        let answer = post(&node, &[("Idempotency-Key", "k1")]).await;
        (answer.status() == 202).then(|| answer.json())
    })
    .await;
    assert!(receipt["id"].as_str().expect("an id").ends_with("-2"), "{receipt}");
    let info = node.get("/v1/channels/a").await.expect("listens").expect(200).json();
    assert_eq!(info["messages"], 2, "{info}");
}

/// What a gateway over this broker says: how it ended, or why it is not ready.
async fn complaint(url: &str, keys: &[(&str, &str)]) -> String {
    let mut all = vec![("TIDEGATE_BROKER__URL", url), ("TIDEGATE_LOG__FORMAT", "human")];
    all.extend(keys);
    let mut node = Node::new(&all);
    node.spawn();
    let deadline = Instant::now() + RECOVERY;
    let said = loop {
        if let Some(code) = node.process().ended() {
            assert_ne!(code, 0, "{}", node.said());
            break node.said();
        }
        let (status, text) = node.ready().await;
        assert_ne!(status, 200, "ready over {url}");
        // Its first try may not be over yet.
        if status == 503 && node.said().contains("Redis") {
            break text;
        }
        assert!(Instant::now() < deadline, "no complaint: {status} {text} {}", node.said());
        tokio::time::sleep(Duration::from_millis(20)).await;
    };
    assert!(
        !said.contains("s3cr3t") && !node.said().contains("s3cr3t"),
        "a secret is said: {said} {}",
        node.said()
    );
    assert!(!node.said().contains("panicked"), "{}", node.said());
    said
}

/// The complaint must hold all of these words, whatever their case; `a|b` is one of both.
pub async fn complains(url: &str, keys: &[(&str, &str)], words: &[&str]) {
    let said = complaint(url, keys).await;
    for word in words {
        let found = word.split('|').any(|word| said.to_lowercase().contains(&word.to_lowercase()));
        assert!(found, "{word:?} is not in: {said}");
    }
}

#[tokio::test]
async fn sentinels_have_a_login_of_their_own_and_passwords_may_be_in_files() {
    let redis = Server::start(Settings::default().password("primary")).await;
    let settings = Settings::default().watching("tide", redis.address(), "primary");
    let sentinel = Server::start(settings.user("watch", "sentinel", "+@all").with("user default off")).await;
    let url = format!("redis-sentinel://{}/tide", sentinel.address());
    let folder = Folder::new();
    let (password, other) = (folder.write("password", "primary\n"), folder.write("other", "sentinel\n"));
    let primary = ("TIDEGATE_BROKER__PASSWORD_FILE", password.as_str());
    let user = ("TIDEGATE_BROKER__SENTINEL_USERNAME", "watch");
    for secret in [
        ("TIDEGATE_BROKER__SENTINEL_PASSWORD", "sentinel"),
        ("TIDEGATE_BROKER__SENTINEL_PASSWORD_FILE", other.as_str()),
    ] {
        let mut node = Node::new(&[("TIDEGATE_BROKER__URL", url.as_str()), primary, user, secret]);
        node.start().await;
        post(&node, &[]).await.expect(202);
    }
    let wrong = [primary, user, ("TIDEGATE_BROKER__SENTINEL_PASSWORD", "s3cr3t")];
    complains(&url, &wrong, &["broker.sentinel_username and broker.sentinel_password"]).await;
}

#[tokio::test]
async fn a_replica_a_sentinel_and_a_cluster_under_the_wrong_scheme_are_told_apart() {
    let redis = Replicated::watched().await;
    let replica = redis.servers[1].address();
    complains(&format!("redis://{replica}"), &[], &[&replica.to_string(), "replica"]).await;
    let sentinel = redis.sentinels[0].address();
    complains(&format!("redis://{sentinel}"), &[], &[&sentinel.to_string(), "sentinel"]).await;
    complains(&format!("redis-sentinel://{sentinel}/nobody"), &[], &["nobody"]).await;
    let primary = redis.servers[0].address();
    complains(&format!("redis-sentinel://{primary}/tide"), &[], &[&primary.to_string(), "sentinel"]).await;
    complains(&format!("redis-cluster://{primary}"), &[], &[&primary.to_string(), "cluster"]).await;
    let cluster = Cluster::start().await;
    let node = cluster.nodes[0].address();
    complains(&format!("redis://{node}"), &[], &[&node.to_string(), "cluster"]).await;
}

#[tokio::test]
async fn tls_to_a_server_without_it_is_told_in_a_sentence() {
    let redis = Server::plain().await;
    complains(&format!("rediss://{}", redis.address()), &[], &[&redis.address().to_string()]).await;
}

/// A server that says it is this old.
async fn old_server(version: &'static str) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut buffer = [0; 4096];
                while let Ok(count @ 1..) = stream.read(&mut buffer).await {
                    let text = String::from_utf8_lossy(&buffer[..count]).to_uppercase();
                    // One answer for each command of the batch.
                    for command in text.split('*').skip(1) {
                        let info = format!("# Server\r\nredis_version:{version}\r\n");
                        let hello = format!(
                            "%7\r\n$6\r\nserver\r\n$5\r\nredis\r\n$7\r\nversion\r\n${}\r\n{version}\r\n$5\r\nproto\r\n:3\r\n\
                             $2\r\nid\r\n:1\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n$7\r\nmodules\r\n*0\r\n",
                            version.len()
                        );
                        let answer = if command.contains("HELLO") {
                            hello
                        } else if command.contains("INFO") && !command.contains("SETINFO") {
                            format!("${}\r\n{info}\r\n", info.len())
                        } else if command.contains("FUNCTION") || command.contains("FCALL") {
                            "-ERR unknown command `FUNCTION`\r\n".to_owned()
                        } else {
                            "+OK\r\n".to_owned()
                        };
                        if stream.write_all(answer.as_bytes()).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

#[tokio::test]
async fn a_redis_that_is_too_old_is_told_in_a_sentence() {
    let address = old_server("6.2.14").await;
    complains(&format!("redis://{address}"), &[], &[&address.to_string(), "6.2.14", "7.0"]).await;
}

#[tokio::test]
async fn a_broken_url_is_a_fault_of_the_configuration() {
    for url in [
        "redis://",
        "redis://localhost:port",
        "redis://a,b",
        "redis://localhost/x",
        "redis-sentinel://localhost",
        "redis-cluster://localhost/1",
        "http://localhost",
        "localhost:6379",
        "redis://user:s3cr3t/@localhost",
    ] {
        let mut node = Node::new(&[("TIDEGATE_BROKER__URL", url)]);
        node.spawn();
        let status = node.process().exit(Duration::from_secs(30)).await;
        assert_eq!(status.code(), Some(64), "{url}: {}", node.said());
        let said = node.said();
        assert!(
            said.to_uppercase().contains("BROKER") && said.to_uppercase().contains("URL"),
            "{url}: {said}"
        );
        assert!(!said.contains("s3cr3t"), "{said}");
    }
}

#[tokio::test]
async fn a_second_gateway_with_other_partitions_refuses_to_start() {
    let redis = Server::plain().await;
    let mut first = Node::new(&[("TIDEGATE_BROKER__URL", &redis.url())]);
    first.start().await;
    let keys = [("TIDEGATE_BROKER__URL", &*redis.url()), ("TIDEGATE_BROKER__PARTITIONS", "128")];
    let mut second = Node::new(&keys);
    second.spawn();
    let status = second.process().exit(Duration::from_secs(30)).await;
    let said = second.said();
    assert_ne!(status.code(), Some(0), "{said}");
    assert!(said.contains("128") && said.contains("256") && said.contains("partitions"), "{said}");
    // Under another prefix they are strangers.
    let mut third = Node::new(&[keys.as_slice(), &[("TIDEGATE_BROKER__PREFIX", "elsewhere")]].concat());
    third.start().await;
    post(&third, &[]).await.expect(202);
    assert_eq!(first.get("/v1/channels/a").await.expect("listens").json()["messages"], 0);
}

#[tokio::test]
async fn a_format_that_is_two_versions_away_is_refused_and_the_next_one_is_served_beside() {
    let redis = Server::plain().await;
    let url = redis.url();
    redis.command(&["SET", "tidegate:{0}:format", "256 3"]).await;
    let mut strange = Node::new(&[("TIDEGATE_BROKER__URL", &url)]);
    strange.spawn();
    let status = strange.process().exit(Duration::from_secs(30)).await;
    let said = strange.said();
    assert_ne!(status.code(), Some(0), "{said}");
    assert!(said.contains("format 3"), "{said}");
    redis.command(&["SET", "tidegate:{0}:format", "256 2"]).await;
    let mut beside = Node::new(&[("TIDEGATE_BROKER__URL", &url)]);
    beside.start().await;
    let mut client =
        Client::connect_with(beside.public, Transport::Sse, "channel=a", Options::default()).await;
    // The other's envelope: one block more than ours, before the payload.
    let live: Vec<String> = redis.ask(&["PUBSUB", "CHANNELS", "*:live:*:a"]).await;
    post(&beside, &[]).await.expect(202);
    assert_eq!(client.numbers(1).await, [1]);
    let logs = redis.keys("*log:a").await;
    type Fields = Vec<(String, Vec<u8>)>;
    let entries: Vec<(String, Fields)> = redis.ask(&["XRANGE", &logs[0], "-", "+"]).await;
    let mut envelope = entries[0].1[0].1.clone();
    let payload = envelope.len() - 1;
    // Version 2, offset 2.
    (envelope[0], envelope[9]) = (2, 2);
    envelope.splice(payload.., [0, 3, b'n', b'e', b'w', b'2']);
    assert_eq!(redis.publish(live[0].as_bytes(), &envelope).await, 1);
    assert_eq!(client.numbers(1).await, [2]);
}

#[tokio::test]
async fn databases_prefixes_and_sockets_keep_to_themselves() {
    let redis = Server::start(Settings::default().password("p@ss/w").socket()).await;
    let place = redis.address();
    let socket = redis.socket().display().to_string();
    let other = prefix();
    let worlds = [
        (format!("redis://:p%40ss%2Fw@{place}"), "tidegate"),
        (format!("redis://:p%40ss%2Fw@{place}/3"), "tidegate"),
        (format!("redis://:p%40ss%2Fw@{place}"), other.as_str()),
        (format!("unix://:p%40ss%2Fw@{socket}?db=7"), "tidegate"),
    ];
    let mut nodes = Vec::new();
    for (url, prefix) in &worlds {
        let mut node = Node::new(&[("TIDEGATE_BROKER__URL", url), ("TIDEGATE_BROKER__PREFIX", prefix)]);
        node.start().await;
        nodes.push(node);
    }
    let mut clients = Vec::new();
    for node in &nodes {
        clients.push(
            Client::connect_with(node.public, Transport::Ndjson, "channel=a", Options::default()).await,
        );
    }
    // Pub/sub knows no databases: only what a gateway's own world says may arrive.
    for (number, node) in nodes.iter().enumerate() {
        let headers = [("Content-Type", "application/json")];
        let body = (number + 1).to_string();
        let mut conn = Conn::open(node.internal).await;
        conn.request("POST", "/v1/channels/a/messages", &headers, Some(body.as_bytes())).await.expect(202);
    }
    for (client, number) in clients.iter_mut().zip(1..) {
        assert_eq!(client.numbers(1).await, [number]);
    }
    for (node, number) in nodes.iter().zip(1_u64..) {
        let history = node.get("/v1/channels/a/messages").await.expect("listens").expect(200).json();
        assert_eq!(history["messages"].as_array().expect("a list").len(), 1, "{number}: {history}");
    }
}

#[tokio::test]
async fn while_redis_takes_no_writes_its_links_are_made_anew_and_what_it_holds_is_read() {
    // It is full, or lacks the replica that it must have.
    for key in ["maxmemory", "min-replicas-to-write"] {
        let redis = Server::start(Settings::default().with("maxmemory-policy noeviction")).await;
        let mut node = Node::new(&[("TIDEGATE_BROKER__URL", &redis.url())]);
        node.start().await;
        post(&node, &[]).await.expect(202);
        redis.command(&["CONFIG", "SET", key, "1"]).await;
        until("it refuses", async || (post(&node, &[]).await.status() == 503).then_some(())).await;
        for kind in ["normal", "pubsub"] {
            redis.command(&["CLIENT", "KILL", "TYPE", kind, "SKIPME", "yes"]).await;
        }
        let mut nodes = vec![node];
        // A new gateway wants to see a probe come back first, and those are refused without the replica.
        if key == "maxmemory" {
            let mut late = Node::new(&[("TIDEGATE_BROKER__URL", &redis.url())]);
            late.start().await;
            nodes.push(late);
        }
        for node in &nodes {
            for path in ["/v1/channels", "/v1/channels/a", "/v1/channels/a/messages"] {
                until(path, async || (node.get(path).await?.status() == 200).then_some(())).await;
            }
            for transport in Transport::ALL {
                let query = "channel=a&since=earliest";
                let mut client =
                    Client::connect_with(node.public, transport, query, Options::default()).await;
                assert_eq!(client.numbers(1).await, [1], "{key}");
            }
        }
        refuses(&post(&nodes[0], &[]).await);
        redis.command(&["CONFIG", "SET", key, "0"]).await;
        until("it takes some again", async || (post(&nodes[0], &[]).await.status() == 202).then_some(()))
            .await;
    }
}

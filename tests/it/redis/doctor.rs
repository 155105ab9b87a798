//! `tidegate doctor` over real servers, one for each thing that it finds; and the same at the start of a gateway.

use crate::support::fleet::Node;
use crate::support::process::{free_port, run, tidegate};
use crate::support::redis::{Cluster, Directory, Replicated, Server, Settings, until};

/// What it says of this broker, and its exit code.
async fn doctor(url: &str, keys: &[(&str, &str)]) -> (i32, String) {
    let mut command = tidegate();
    command.arg("doctor").env("TIDEGATE_BROKER__URL", url);
    for key in ["TIDEGATE_PUBLIC__LISTEN", "TIDEGATE_INTERNAL__LISTEN"] {
        command.env(key, format!("127.0.0.1:{}", free_port()));
    }
    command.envs(keys.iter().copied());
    run(command).await
}

/// Some line begins with the first word and has all others.
fn has(said: &str, words: &[&str]) {
    let found = said.lines().any(|line| {
        line.split_whitespace().next() == Some(words[0]) && words[1..].iter().all(|word| line.contains(word))
    });
    assert!(found, "no {words:?} in:\n{said}");
}

#[tokio::test]
async fn a_server_that_is_well_replicated_is_fine() {
    let settings = Settings::default().with("maxmemory 500mb").with("maxmemory-policy noeviction");
    let pair = Replicated::pair(Server::start(settings).await, None).await;
    let (code, said) = doctor(&pair.servers[0].url(), &[]).await;
    assert_eq!(code, 0, "{said}");
    for words in [
        &["ok", "public.listen", "free"][..],
        &["ok", "internal.listen", "free"],
        &["ok", "Functions are allowed"],
        &["ok", "the ACL allows"],
        &["ok", "INFO is allowed"],
        &["ok", "500 MiB", "noeviction"],
        &["ok", "client-output-buffer-limit pubsub is 33554432 8388608 60"],
        &["ok", "1 replica, in sync"],
        &["ok", "min-replicas-to-write is 0"],
        &["ok", "clock"],
    ] {
        has(&said, words);
    }
    assert!(said.contains(": Redis 7.") || said.contains(": Valkey "), "{said}");
    let place = pair.servers[0].address().to_string();
    let of_redis: Vec<&str> = said.lines().filter(|line| line.contains(&place)).collect();
    assert!(of_redis.iter().all(|line| line.starts_with("ok")), "{said}");
    // It is a guest.
    assert_eq!(pair.servers[0].keys("*").await, [""; 0]);
    let libraries: Vec<String> = pair.servers[0].ask(&["FUNCTION", "LIST"]).await;
    assert!(libraries.is_empty(), "{libraries:?}");
}

#[tokio::test]
async fn settings_that_surprise_one_day_are_warnings() {
    let redis = Server::start(
        Settings::default()
            .with("maxmemory 100mb")
            .with("maxmemory-policy allkeys-lru")
            .with("maxclients 10"),
    )
    .await;
    redis.command(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 1mb 60"]).await;
    let (code, said) = doctor(&redis.url(), &[]).await;
    assert_eq!(code, 0, "{said}");
    has(&said, &["warn", "100 MiB", "allkeys-lru", "noeviction"]);
    has(&said, &["warn", "client-output-buffer-limit pubsub is 1048576", "32mb"]);
    has(&said, &["warn", "no replica"]);
    has(&said, &["warn", "neither a replica nor persistence"]);

    redis.command(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 0 0 0"]).await;
    redis.command(&["CONFIG", "SET", "maxmemory-policy", "volatile-lru"]).await;
    redis.command(&["CONFIG", "SET", "appendonly", "yes"]).await;
    let mut held = Vec::new();
    for _ in 0..8 {
        held.push(redis.connection().await.expect("connects"));
    }
    let (_, said) = doctor(&redis.url(), &[]).await;
    has(&said, &["warn", "client-output-buffer-limit pubsub is 0 0 0", "without end"]);
    has(&said, &["ok", "volatile-lru"]);
    has(&said, &["warn", "maxclients 10"]);
    assert!(!said.contains("nor persistence"), "{said}");
}

#[tokio::test]
async fn what_the_acl_refuses_is_told_or_could_not_be_checked() {
    let settings = [
        ("noinfo", "~* &* +@all -info"),
        ("noconfig", "~* &* +@all -config"),
        ("nofunctions", "~* &* +@all -function -fcall -fcall_ro"),
        ("noload", "~* &* +@all -function"),
        ("noscripts", "~* &* +@all -@scripting"),
        ("noeval", "~* &* +@all -eval -evalsha"),
        ("nokeys", "~other:* &* +@all"),
        ("nochannels", "~* &other:* +@all"),
        ("nowrites", "~* &* +@all -set -xadd -time"),
    ];
    let settings =
        settings.iter().fold(Settings::default(), |all, (name, rules)| all.user(name, "pw", rules));
    let redis = Server::start(settings).await;
    let table: [(&str, i32, &[&str]); 9] = [
        ("noinfo", 0, &["warn", "INFO is refused", "+info"]),
        ("noconfig", 0, &["warn", "CONFIG is refused", "could not be checked"]),
        ("nofunctions", 0, &["warn", "FCALL is refused", "script", "+fcall"]),
        ("noload", 0, &["warn", "FUNCTION LOAD is refused", "script"]),
        ("noscripts", 1, &["fail", "EVAL are refused"]),
        ("noeval", 0, &["warn", "EVAL is refused", "could not be checked"]),
        ("nokeys", 1, &["fail", "the ACL refuses", "~tidegate:*", "SET"]),
        ("nochannels", 1, &["fail", "PUBLISH, SUBSCRIBE", "&tidegate:*"]),
        ("nowrites", 1, &["fail", "SET", "XADD", "TIME", "+xadd"]),
    ];
    for (name, expected, words) in table {
        let (code, said) = doctor(&format!("redis://{name}:pw@{}", redis.address()), &[]).await;
        assert_eq!(code, expected, "{name}: {said}");
        has(&said, words);
        assert!(!said.contains(":pw@"), "{said}");
    }
    // Without INFO, CONFIG tells of the memory.
    let (_, said) = doctor(&format!("redis://noinfo:pw@{}", redis.address()), &[]).await;
    has(&said, &["ok", "maxmemory is not set"]);
    has(&said, &["warn", "replication could not be checked"]);
}

#[tokio::test]
async fn the_acl_is_asked_for_the_channels_that_other_programs_feed() {
    let settings =
        [("none", "&tidegate:*"), ("narrow", "&tidegate:* &feed.news:*"), ("all", "&tidegate:* &feed.*")]
            .iter()
            .fold(Settings::default(), |all, (name, channels)| {
                all.user(name, "pw", &format!("~* {channels} +@all"))
            });
    let redis = Server::start(settings).await;
    let directory = Directory::new();
    let file = directory.path().join("tidegate.toml");
    let namespace = |name| {
        format!("[[namespaces]]\nname = '{name}'\nsource = 'redis'\nredis_channel = 'feed.{{channel}}'\n")
    };
    std::fs::write(&file, namespace("prices") + &namespace("news")).expect("writes");
    let keys = [("TIDEGATE_CONFIG", file.to_str().expect("a path"))];
    for (user, refused) in [("none", 2), ("narrow", 1), ("all", 0)] {
        let (code, said) = doctor(&format!("redis://{user}:pw@{}", redis.address()), &keys).await;
        assert_eq!(code, i32::from(refused > 0), "{user}: {said}");
        assert_eq!(said.matches("the ACL refuses SUBSCRIBE").count(), refused, "{user}: {said}");
        if refused > 0 {
            has(&said, &["fail", "the ACL refuses SUBSCRIBE", "allow the user &feed.prices:* +subscribe"]);
        } else {
            has(&said, &["ok", "the ACL allows"]);
        }
    }
}

#[tokio::test]
async fn replicas_that_are_away_are_told() {
    let primary = Server::start(Settings::default().with("min-replicas-to-write 1")).await;
    let (code, said) = doctor(&primary.url(), &[]).await;
    assert_eq!(code, 1, "{said}");
    has(&said, &["fail", "min-replicas-to-write is 1 and 0"]);
    let pair = Replicated::pair(primary, None).await;
    let (code, said) = doctor(&pair.servers[0].url(), &[]).await;
    assert_eq!(code, 0, "{said}");
    has(&said, &["ok", "min-replicas-to-write is 1"]);
    pair.servers[1].stop();
    until("it lags", async || {
        let (_, said) = doctor(&pair.servers[0].url(), &[]).await;
        said.lines()
            .any(|line| line.starts_with("warn") && line.contains("has said nothing for"))
            .then_some(())
    })
    .await;
    pair.servers[1].cont();
}

#[tokio::test]
async fn sentinels_are_asked_each() {
    let redis = Replicated::watched().await;
    let (code, said) = doctor(&redis.url(), &[]).await;
    assert_eq!(code, 0, "{said}");
    let primary = redis.servers[0].address().to_string();
    for sentinel in &redis.sentinels {
        has(&said, &["ok", &sentinel.address().to_string(), &primary, "names"]);
        has(&said, &["ok", &sentinel.address().to_string(), "enough Sentinels for a failover"]);
    }
    has(&said, &["ok", "2 replicas"]);
    redis.sentinels[2].kill9();
    let (code, said) = doctor(&redis.url(), &[]).await;
    assert_eq!(code, 0, "{said}");
    has(&said, &["warn", &redis.sentinels[2].address().to_string(), "refused", "no say"]);
    redis.sentinels[1].kill9();
    let (code, said) = doctor(&redis.url(), &[]).await;
    assert_eq!(code, 1, "{said}");
    has(&said, &["fail", "1 of the 3 Sentinels"]);
    let one = format!("redis-sentinel://{}/tide", redis.sentinels[0].address());
    let (code, said) = doctor(&one, &[]).await;
    assert_eq!(code, 0, "{said}");
    has(&said, &["warn", "names 1 of the Sentinels"]);
}

#[tokio::test]
async fn each_primary_of_a_cluster_is_looked_at_and_holes_are_told() {
    let cluster = Cluster::start().await;
    let (code, said) = doctor(&cluster.url(), &[]).await;
    assert_eq!(code, 0, "{said}");
    has(&said, &["ok", "all 256 partitions", "3 primaries"]);
    for node in &cluster.nodes[..3] {
        has(&said, &["ok", &node.address().to_string(), "cluster_state is ok"]);
        has(&said, &["ok", &node.address().to_string(), "the ACL allows"]);
    }
    for node in &cluster.nodes {
        let _ = node.try_command(&["CLUSTER", "DELSLOTSRANGE", "0", "5000"]).await;
    }
    let (code, said) = doctor(&cluster.url(), &[]).await;
    assert_eq!(code, 1, "{said}");
    has(&said, &["fail", "no primary for", "of 256 partitions"]);
}

#[tokio::test]
async fn a_redis_that_is_away_or_another_deployments_fails() {
    let (code, said) = doctor(&format!("redis://127.0.0.1:{}", free_port()), &[]).await;
    assert_eq!(code, 1, "{said}");
    has(&said, &["fail", "the connection is refused"]);
    let redis = Server::plain().await;
    redis.command(&["SET", "tidegate:{0}:format", "64 1"]).await;
    let (code, said) = doctor(&redis.url(), &[]).await;
    assert_eq!(code, 1, "{said}");
    has(&said, &["fail", "64 partitions", "broker.partitions = 64"]);
    redis.command(&["SET", "tidegate:{0}:format", "256 9"]).await;
    let (code, said) = doctor(&redis.url(), &[]).await;
    assert_eq!(code, 1, "{said}");
    has(&said, &["fail", "format 9", "broker.prefix"]);
}

#[tokio::test]
async fn a_gateway_warns_of_the_same_once() {
    let redis = Server::plain().await;
    redis.command(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 1mb 60"]).await;
    let mut node = Node::new(&[("TIDEGATE_BROKER__URL", &redis.url())]);
    node.start().await;
    let warnings = || node.said().matches("client-output-buffer-limit pubsub is 1048576").count();
    until("it warns", async || (warnings() == 1).then_some(())).await;
    assert!(node.said().contains("no replica"), "{}", node.said());
    redis.restart_empty().await;
    redis.command(&["CONFIG", "SET", "client-output-buffer-limit", "pubsub 1mb 1mb 60"]).await;
    until("it is back", async || (!redis.keys("tidegate:{0}:format").await.is_empty()).then_some(())).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    assert_eq!(warnings(), 1, "{}", node.said());
    // The addresses of a gateway that serves are no fault, and its library is there.
    let (public, internal) = (node.public.to_string(), node.internal.to_string());
    let keys =
        [("TIDEGATE_PUBLIC__LISTEN", public.as_str()), ("TIDEGATE_INTERNAL__LISTEN", internal.as_str())];
    let (code, said) = doctor(&redis.url(), &keys).await;
    assert_eq!(code, 0, "{said}");
    has(&said, &["ok", &public, "used by a gateway"]);
    has(&said, &["ok", &internal, "used by a gateway"]);
    has(&said, &["ok", "Functions run"]);
    has(&said, &["ok", "256 partitions under this prefix"]);
}

#[tokio::test]
async fn the_machine_is_looked_at_without_redis_too() {
    let (code, said) = doctor("memory:", &[]).await;
    assert_eq!(code, 0, "{said}");
    has(&said, &["ok", "one node only"]);
    // Redis listens there, which is no gateway.
    let redis = Server::plain().await;
    let (code, said) = doctor("memory:", &[("TIDEGATE_PUBLIC__LISTEN", &redis.address().to_string())]).await;
    assert_eq!(code, 1, "{said}");
    has(&said, &["fail", "public.listen", "another program"]);
    let (code, said) = doctor("memory:", &[("TIDEGATE_LIMITS__CONNECTIONS", "2000000000")]).await;
    assert_eq!(code, 0, "{said}");
    has(&said, &["warn", "descriptors", "limits.connections is 2000000000"]);
    let (code, _) = doctor("redis://", &[]).await;
    assert_eq!(code, 64);
    let mut help = tidegate();
    help.args(["doctor", "--help"]);
    let (code, help) = run(help).await;
    assert_eq!(code, 0, "{help}");
    for words in ["  warn  it works", "writes nothing", "--set", "Examples:", "Exit codes: 0"] {
        assert!(help.contains(words), "no {words:?} in:\n{help}");
    }
}

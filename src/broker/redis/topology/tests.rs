//! Discovery with real servers.

use std::time::{Duration, Instant};

use super::*;
use crate::broker::redis::{
    command::CommandLink,
    tests::{LIMIT, Redis, cluster, endpoint, free_port},
};

/// As many partitions as there are thirds, and one more.
const SLOTS: [u16; 4] = [0, 8000, 16_383, 1];

fn within<T>(mut found: impl FnMut() -> Option<T>) -> T {
    let begin = Instant::now();
    loop {
        if let Some(found) = found() {
            return found;
        }
        assert!(begin.elapsed() < Duration::from_secs(30));
        std::thread::sleep(Duration::from_millis(50));
    }
}

#[tokio::test]
async fn one_server_is_itself() {
    let one = discover(&endpoint("redis://nowhere.invalid:7", ""), &SLOTS, &[]).await.unwrap();
    let expected = Topology::single(Server::tcp("nowhere.invalid", 7), 4);
    assert_eq!((one, expected.owner.clone()), (expected, vec![0; 4]));
    let socket = discover(&endpoint("unix:/run/x", ""), &SLOTS, &[]).await.unwrap();
    assert_eq!(socket.primaries[0].to_string(), "unix:/run/x");
}

#[tokio::test]
async fn a_cluster_is_found_from_any_node_that_lives() {
    let mut nodes = cluster(&[]);
    let dead = free_port();
    let url = format!("redis-cluster://127.0.0.1:{dead},127.0.0.1:{}", nodes[1].port);
    let endpoint = endpoint(&url, "");
    let expected = Topology {
        sharded: true,
        primaries: nodes.iter().map(Redis::server).collect(),
        owner: vec![0, 1, 2, 0],
        migrating: vec![],
    };
    assert_eq!(discover(&endpoint, &SLOTS, &[]).await.unwrap(), expected);
    assert_eq!(discover(&endpoint, &SLOTS, &[nodes[2].server()]).await.unwrap(), expected);

    let link = CommandLink::connect(&endpoint, &nodes[0].server(), LIMIT).await.unwrap();
    assert_eq!(moving(&link, &SLOTS).await.unwrap(), Vec::<u16>::new());
    let ids: Vec<String> = nodes.iter().map(|node| node.cli(&["CLUSTER", "MYID"])).collect();
    nodes[0].cli(&["CLUSTER", "SETSLOT", "8000", "IMPORTING", &ids[1]]);
    nodes[1].cli(&["CLUSTER", "SETSLOT", "8000", "MIGRATING", &ids[0]]);
    assert_eq!(moving(&link, &SLOTS).await.unwrap(), [1]);
    assert_eq!(discover(&endpoint, &SLOTS, &[]).await.unwrap().migrating, [1]);
    let third = CommandLink::connect(&endpoint, &nodes[2].server(), LIMIT).await.unwrap();
    assert_eq!(moving(&third, &SLOTS).await.unwrap(), Vec::<u16>::new(), "who takes no part does not know");

    nodes[2].kill();
    within(|| nodes[0].cli(&["CLUSTER", "NODES"]).contains("master,fail ").then_some(()));
    within(|| nodes[1].cli(&["CLUSTER", "NODES"]).contains("master,fail ").then_some(()));
    let without = discover(&endpoint, &SLOTS, &[nodes[2].server(), nodes[0].server()]).await.unwrap();
    assert_eq!((without.owner, without.primaries.len()), (vec![0, 1, NONE, 0], 2));

    nodes[0].kill();
    nodes[1].kill();
    let sentence = discover(&endpoint, &SLOTS, &[]).await.unwrap_err().to_string();
    let places = format!("127.0.0.1:{dead}, 127.0.0.1:{}", nodes[1].port);
    assert_eq!(sentence, format!("Redis at {places}: the connection is refused"));
}

#[tokio::test]
async fn nodes_may_prefer_host_names_or_to_be_unknown() {
    let nodes = cluster(&["--cluster-announce-hostname", "localhost"]);
    let endpoint = endpoint(&format!("redis-cluster://127.0.0.1:{}", nodes[0].port), "");
    let hosts = async |preferred: &str| {
        for node in &nodes {
            node.cli(&["CONFIG", "SET", "cluster-preferred-endpoint-type", preferred]);
        }
        let topology = discover(&endpoint, &SLOTS, &[]).await.unwrap();
        assert!(topology.is_covered());
        topology.primaries.iter().map(Server::to_string).collect::<Vec<_>>()
    };
    let with = |host: &str| nodes.iter().map(|node| format!("{host}:{}", node.port)).collect::<Vec<_>>();
    assert_eq!(hosts("ip").await, with("127.0.0.1"));
    // Names spread by gossip.
    within(|| nodes[0].cli(&["CLUSTER", "SLOTS"]).matches("localhost").nth(2).map(|_| ()));
    assert_eq!(hosts("hostname").await, with("localhost"));
    assert_eq!(hosts("unknown-endpoint").await, with("127.0.0.1"));
}

/// A primary, its replica and three Sentinels.
fn watched() -> (Redis, Redis, Vec<Redis>) {
    let primary = Redis::start(&["--repl-diskless-sync-delay", "0"]);
    let replica = Redis::start(&["--replicaof", &format!("127.0.0.1 {}", primary.port)]);
    within(|| replica.cli(&["ROLE"]).contains("connected").then_some(()));
    let sentinels = (0..3).map(|_| Redis::sentinel("main", primary.port)).collect();
    (primary, replica, sentinels)
}

fn sentinel_url(sentinels: &[Redis], service: &str) -> String {
    let hosts: Vec<String> =
        sentinels.iter().map(|sentinel| format!("127.0.0.1:{}", sentinel.port)).collect();
    format!("redis-sentinel://{}/{service}", hosts.join(","))
}

#[tokio::test]
async fn sentinels_name_the_primary_and_its_successor() {
    let (mut primary, replica, mut sentinels) = watched();
    let endpoint = endpoint(&sentinel_url(&sentinels, "main"), "command_timeout = '500ms'");
    let found = discover(&endpoint, &SLOTS, &[]).await.unwrap();
    assert_eq!(found, Topology::single(primary.server(), 4));

    let unknown = crate::broker::redis::tests::endpoint(&sentinel_url(&sentinels[..1], "other"), "");
    let sentence = discover(&unknown, &SLOTS, &[]).await.unwrap_err();
    assert_eq!(sentence.problem, Problem::UnknownService("other".into()));
    assert!(sentence.is_misconfigured());

    // One that stands still is not waited for, one that is gone does not matter.
    sentinels[0].signal("-STOP");
    let begin = Instant::now();
    assert_eq!(discover(&endpoint, &SLOTS, &[]).await.unwrap().primaries, [primary.server()]);
    assert!(begin.elapsed() < Duration::from_millis(300), "{:?}", begin.elapsed());
    sentinels[0].signal("-CONT");

    primary.kill();
    let begin = Instant::now();
    let successor = loop {
        if let Ok(found) = discover(&endpoint, &SLOTS, &[]).await {
            break found;
        }
        assert!(begin.elapsed() < Duration::from_secs(30));
        tokio::time::sleep(Duration::from_millis(100)).await;
    };
    assert_eq!(successor.primaries, [replica.server()]);
    for sentinel in &mut sentinels {
        sentinel.kill();
    }
    let sentence = discover(&endpoint, &SLOTS, &[]).await.unwrap_err().to_string();
    let places: Vec<_> = sentinels.iter().map(|sentinel| sentinel.server().to_string()).collect();
    assert!(sentence.ends_with(": the connection is refused") && !sentence.contains(';'), "{sentence}");
    assert!(places.iter().all(|place| sentence.contains(place)), "{sentence}");
}

#[tokio::test]
async fn a_sentinel_that_was_left_behind_is_outvoted() {
    let (primary, replica, sentinels) = watched();
    let endpoint = endpoint(&sentinel_url(&sentinels, "main"), "");
    within(|| {
        sentinels[0].cli(&["SENTINEL", "MASTER", "main"]).contains("num-other-sentinels\n2").then_some(())
    });
    sentinels[2].signal("-STOP");
    within(|| (sentinels[0].cli(&["SENTINEL", "FAILOVER", "main"]) == "OK").then_some(()));
    within(|| replica.cli(&["ROLE"]).starts_with("master").then_some(()));
    // The old primary comes back as one, and the third Sentinel still believes in it.
    primary.cli(&["CONFIG", "SET", "replica-announced", "no"]);
    let begin = Instant::now();
    loop {
        let found = discover(&endpoint, &SLOTS, &[]).await.map(|found| found.primaries);
        if found.as_deref() == Ok(&[replica.server()]) {
            break;
        }
        assert!(begin.elapsed() < Duration::from_secs(30), "{found:?}");
    }
    sentinels[2].signal("-CONT");
}

//! The servers themselves: that they start, obey, and are what the other tests take them for.

use std::time::{Duration, Instant};

use ::redis::Value;

use crate::support::redis::{Cluster, Replicated, Server, Settings, until};

#[tokio::test]
async fn a_server_starts_is_killed_and_comes_back_empty() {
    let server = Server::plain().await;
    server.command(&["SET", "a", "1"]).await;
    assert_eq!(server.ask::<String>(&["GET", "a"]).await, "1");
    let before = server.info("replication", "master_replid").await;
    server.restart().await;
    assert_eq!(server.command(&["GET", "a"]).await, Value::Nil);
    assert_ne!(server.info("replication", "master_replid").await, before, "the fence of the plan");
}

#[tokio::test]
async fn a_server_with_an_append_only_file_has_everything_again() {
    let server = Server::start(Settings::default().aof()).await;
    server.command(&["SET", "a", "1"]).await;
    server.kill9();
    assert!(!server.answers().await);
    server.restart().await;
    assert_eq!(server.ask::<String>(&["GET", "a"]).await, "1");
    server.restart_empty().await;
    assert_eq!(server.command(&["GET", "a"]).await, Value::Nil);
}

#[tokio::test]
async fn a_stopped_server_says_nothing_until_it_goes_on() {
    let server = Server::plain().await;
    server.stop();
    assert!(!server.answers().await);
    server.cont();
    until("it answers", async || server.answers().await.then_some(())).await;
}

#[tokio::test]
async fn passwords_users_and_sockets_are_as_told() {
    let settings = Settings::default().password("secret").user("gate", "pw", "~a* &a* +@all -info").socket();
    let server = Server::start(settings).await;
    server.command(&["SET", "a", "1"]).await;
    assert!(server.socket().exists());
    let client = ::redis::Client::open(format!("redis://gate:pw@{}", server.address())).expect("a URL");
    let mut connection = client.get_multiplexed_async_connection().await.expect("logs in");
    assert_eq!(::redis::cmd("GET").arg("a").query_async::<i64>(&mut connection).await.expect("may"), 1);
    assert!(::redis::cmd("INFO").query_async::<String>(&mut connection).await.is_err(), "may not");
    let nobody = ::redis::Client::open(server.url()).expect("a URL");
    let refused = async {
        ::redis::cmd("PING").query_async::<Value>(&mut nobody.get_multiplexed_async_connection().await?).await
    };
    assert!(refused.await.is_err());
}

#[tokio::test]
async fn the_sentinels_move_the_primary_when_they_are_told() {
    let begun = Instant::now();
    let watched = Replicated::watched().await;
    let took = begun.elapsed();
    let first = watched.primary().await;
    assert_eq!(first.port, watched.servers[0].port);
    first.command(&["SET", "a", "1"]).await;
    for replica in &watched.servers[1..] {
        until("it is copied", async || (replica.command(&["GET", "a"]).await != Value::Nil).then_some(()))
            .await;
    }
    watched.fail_over().await;
    let second = watched.primary().await;
    assert_ne!(second.port, watched.servers[0].port);
    assert_eq!(second.ask::<String>(&["GET", "a"]).await, "1");
    assert!(watched.url().ends_with("/tide"), "{}", watched.url());
    assert!(took < Duration::from_secs(20), "started in {took:?}");
}

#[tokio::test]
async fn a_pair_follows_and_can_be_parted() {
    let pair = Replicated::pair(Server::plain().await, None).await;
    pair.servers[0].command(&["SET", "a", "1"]).await;
    until("it is copied", async || {
        (pair.servers[1].command(&["GET", "a"]).await != Value::Nil).then_some(())
    })
    .await;
    pair.servers[1].command(&["REPLICAOF", "NO", "ONE"]).await;
    pair.servers[1].command(&["SET", "a", "2"]).await;
    assert_eq!(pair.servers[0].ask::<String>(&["GET", "a"]).await, "1");
}

#[tokio::test]
async fn the_cluster_starts_moves_slots_and_promotes() {
    let begun = Instant::now();
    let cluster = Cluster::start().await;
    let took = begun.elapsed();
    assert!(took < Duration::from_secs(20), "started in {took:?}");
    let slot: u16 = cluster.nodes[0].ask(&["CLUSTER", "KEYSLOT", "{7}x"]).await;
    let (source, target) = (cluster.owner(slot).await, cluster.other_primary(slot).await);
    for key in ["{7}a", "{7}b", "{7}c"] {
        source.command(&["SET", key, "1"]).await;
    }
    assert_eq!(cluster.slots_of("{7}*").await[&slot].len(), 3);
    cluster.begin_move(slot, source, target).await;
    assert_eq!(cluster.move_keys(slot, source, target, 1).await, 1);
    cluster.finish_move(slot, source, target).await;
    assert_eq!(cluster.owner(slot).await.port, target.port);
    assert_eq!(target.ask::<u64>(&["CLUSTER", "COUNTKEYSINSLOT", &slot.to_string()]).await, 3);
    let replica = cluster.replica_of(target).await;
    replica.command(&["CLUSTER", "FAILOVER"]).await;
    cluster.until_owned(slot, replica).await;
}

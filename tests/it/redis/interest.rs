//! What the gateways ask of Redis, counted there: nothing for channels that nobody here follows, few commands for
//! many channels, one read for many clients, and no key that stays for ever.

use std::{
    collections::BTreeMap,
    time::{Duration, Instant},
};

use tidegate::drain::Pace;

use crate::redis::table::{prefix, until_ready};
use crate::support::gateway::Builder;
use crate::support::redis::{Server, until};
use crate::support::{Client, TestGateway, Transport};

/// How long a gateway's figures count that it does not renew.
const LEASE: Duration = Duration::from_secs(40);

async fn over(redis: &Server, prefix: &str, more: impl Fn(Builder) -> Builder) -> TestGateway {
    let builder = TestGateway::start()
        .with(&format!("broker.url = '{}'", redis.url()))
        .with(&format!("broker.prefix = '{prefix}'"));
    let gateway = more(builder).run().await;
    until_ready(&gateway).await;
    gateway
}

/// How often each command was called since the last `CONFIG RESETSTAT`.
async fn calls(redis: &Server) -> BTreeMap<String, u64> {
    let text: String = redis.ask(&["INFO", "commandstats"]).await;
    let line = |line: &str| {
        let (name, rest) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    };
    text.lines().filter_map(line).collect()
}

async fn count(redis: &Server, commands: &[&str]) -> u64 {
    let calls = calls(redis).await;
    commands.iter().filter_map(|command| calls.get(*command)).sum()
}

/// The Redis channels of Tidegate channels whose names begin so.
async fn followed(redis: &Server, prefix: &str, names: &str) -> Vec<String> {
    redis.ask(&["PUBSUB", "CHANNELS", &format!("{prefix}:*live*{names}*")]).await
}

#[tokio::test]
async fn a_node_follows_a_channel_from_its_first_subscriber_until_some_time_after_its_last() {
    let (redis, prefix) = (Server::plain().await, prefix());
    let gateway = over(&redis, &prefix, |builder| builder.with("broker.linger = '1s'")).await;
    gateway.publish("a", "1").await;
    assert!(followed(&redis, &prefix, "a").await.is_empty(), "nobody here wants it");
    let first = Client::connect(&gateway, Transport::Sse, "channel=a").await;
    let second = Client::connect(&gateway, Transport::Ndjson, "channel=a").await;
    assert_eq!(followed(&redis, &prefix, "a").await.len(), 1, "before the head of the answer");
    drop(first);
    gateway.until_subscribers("a", 1).await;
    assert_eq!(followed(&redis, &prefix, "a").await.len(), 1, "somebody is still there");
    drop(second);
    until("it leaves", async || followed(&redis, &prefix, "a").await.is_empty().then_some(())).await;
    gateway.finish(()).await;
}

#[tokio::test]
async fn polls_that_come_again_and_again_keep_the_channel_followed() {
    let (redis, prefix) = (Server::plain().await, prefix());
    let gateway = over(&redis, &prefix, |builder| builder.with("broker.linger = '30s'")).await;
    let mut poll = Client::connect(&gateway, Transport::Poll, "channel=a").await;
    redis.command(&["CONFIG", "RESETSTAT"]).await;
    for number in 1..=20 {
        gateway.publish("a", number.to_string()).await;
        assert_eq!(poll.numbers(1).await, [number]);
    }
    let changes = count(&redis, &["subscribe", "unsubscribe", "ssubscribe", "sunsubscribe"]).await;
    assert_eq!(changes, 0, "{:?}", calls(&redis).await);
    gateway.finish(poll).await;
}

#[tokio::test]
async fn subscribing_and_reading_make_no_key_of_a_channel() {
    let (redis, prefix) = (Server::plain().await, prefix());
    let gateway = over(&redis, &prefix, |builder| builder).await;
    let mut clients = Vec::new();
    for transport in Transport::ALL {
        clients.push(Client::connect(&gateway, transport, "channel=a&since=earliest").await);
    }
    gateway.get("/v1/channels/a").await;
    gateway.get("/v1/channels/a/messages").await;
    gateway.get("/v1/channels").await;
    let keys = redis.keys(&format!("{prefix}:*")).await;
    // Counts have leases; everything else of a channel begins with a publish.
    let made: Vec<&String> =
        keys.iter().filter(|key| key.ends_with(":a") && !key.contains(":subs:")).collect();
    assert!(made.is_empty(), "{made:?}");
    gateway.finish(clients).await;
}

#[tokio::test]
async fn every_key_of_a_channel_ends_by_itself() {
    let (redis, prefix) = (Server::plain().await, prefix());
    let gateway = over(&redis, &prefix, |builder| builder.namespace("default", "history_age = '2s'")).await;
    let client = Client::connect(&gateway, Transport::Sse, "channel=a").await;
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "k")];
    gateway.post("a", &headers, "1").await.expect(202);
    gateway.until_subscribers("a", 1).await;
    let keys = redis.keys(&format!("{prefix}:*")).await;
    let mut seen = BTreeMap::new();
    for key in keys.iter().filter(|key| key.contains(":a")) {
        let left: i64 = redis.ask(&["PTTL", key]).await;
        seen.insert(key.split(':').nth(2).expect("P:{p}:kind:…").to_owned(), left);
    }
    let day = 24 * 60 * 60 * 1000;
    assert!((1..=2000).contains(&seen["log"]), "{seen:?}");
    assert!((day..=day + 2000).contains(&seen["meta"]), "longer than the log: {seen:?}");
    assert!((1..=300_000).contains(&seen["idem"]), "{seen:?}");
    assert!(seen.values().all(|left| *left > 0), "one stays for ever: {seen:?}");
    gateway.finish(client).await;
}

#[tokio::test]
async fn nothing_is_written_outside_of_the_prefix() {
    let (redis, prefix) = (Server::plain().await, prefix());
    let gateway = over(&redis, &prefix, |builder| builder).await;
    let client = Client::connect(&gateway, Transport::Sse, "channel=a").await;
    let headers = [("Content-Type", "application/json"), ("Idempotency-Key", "k*{1}?")];
    for channel in ["a", "b:1", "c.d:e~f"] {
        gateway.post(channel, &headers, "1").await.expect(202);
    }
    gateway.disconnect("channel", "a").await;
    gateway.delete("a").await;
    let keys = redis.keys("*").await;
    // P:{partition}:…, but for the one key that says how many partitions there are.
    for key in &keys {
        let rest = key.strip_prefix(&format!("{prefix}:")).unwrap_or_else(|| panic!("{key} is not ours"));
        let tag = rest.strip_prefix('{').and_then(|rest| rest.split_once("}:"));
        let partition = tag.and_then(|(tag, _)| tag.parse::<u16>().ok());
        assert!(partition.is_some_and(|partition| partition < 256) || rest == "format", "{key}");
    }
    let channels: Vec<String> = redis.ask(&["PUBSUB", "CHANNELS", "*"]).await;
    assert!(channels.iter().all(|name| name.starts_with(&format!("{prefix}:{{"))), "{channels:?}");
    assert_eq!(redis.ask::<u64>(&["PUBSUB", "NUMPAT"]).await, 0, "no pattern is ever subscribed to");
    gateway.finish(client).await;
}

/// Follows so many channels, ends the link, and gives the time until all are followed again.
async fn follow_again(count: usize) -> Duration {
    let (redis, prefix) = (Server::plain().await, prefix());
    let gateway = over(&redis, &prefix, |builder| builder).await;
    let mut clients = Vec::new();
    let names: Vec<String> = (0..count).map(|index| format!("channel=many:{index}")).collect();
    for names in names.chunks(125) {
        clients.push(Client::connect(&gateway, Transport::Ndjson, &names.join("&")).await);
    }
    assert_eq!(followed(&redis, &prefix, "many").await.len(), count);
    redis.command(&["CONFIG", "RESETSTAT"]).await;
    redis.command(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
    let killed = Instant::now();
    until("all are followed again", async || {
        // And the probes' own; the list of the names would be a load of its own.
        let channels: usize = redis.info("stats", "pubsub_channels").await.parse().ok()?;
        (channels > count).then_some(())
    })
    .await;
    let taken = killed.elapsed();
    assert_eq!(followed(&redis, &prefix, "many").await.len(), count);
    let commands = self::count(&redis, &["subscribe", "ssubscribe"]).await;
    assert!((1..=600).contains(&commands), "{commands} commands");
    // And they are live, with nothing lost meanwhile.
    gateway.publish(&format!("many:{}", count - 1), "7").await;
    let last = clients.last_mut().expect("some");
    assert_eq!(last.message().await.number(), 7);
    gateway.finish(clients).await;
    taken
}

#[tokio::test]
async fn two_thousand_channels_are_followed_again_with_a_few_hundred_commands() {
    follow_again(2000).await;
}

/// So many clients resume in one channel at a node that has seen nothing of it yet; gives how many shared a read.
async fn resume_at_once(count: usize) -> f64 {
    let (redis, prefix) = (Server::plain().await, prefix());
    let first = over(&redis, &prefix, |builder| builder).await;
    let ids = first.publish_numbers("a", 1, 30).await;
    let second = over(&redis, &prefix, |builder| builder).await;
    redis.command(&["CONFIG", "RESETSTAT"]).await;
    let reads =
        async || second.metric("tidegate_redis_command_duration_seconds_count", &[("op", "read")]).await;
    let before = reads().await;
    let query = format!("channel=a&since={}", ids[9]);
    let connecting =
        (0..count).map(|number| Client::connect(&second, Transport::STREAMS[number % 3], &query));
    let mut clients = futures_util::future::join_all(connecting).await;
    for client in &mut clients {
        assert_eq!(client.numbers(20).await, (11..=30).collect::<Vec<_>>());
    }
    let read = reads().await - before;
    println!("{count} clients resumed with {read} reads of Redis");
    assert!((1.0..=5.0).contains(&read), "a handful: {read}");
    // Every function that either node called, probes and counts among them.
    let functions = self::count(&redis, &["fcall", "fcall_ro", "evalsha", "eval"]).await;
    assert!(functions <= 60, "{:?}", calls(&redis).await);
    assert_eq!(self::count(&redis, &["subscribe", "ssubscribe"]).await, 1, "{:?}", calls(&redis).await);
    let shared = second.metric("tidegate_catchup_coalesced_total", &[]).await;
    first.finish(()).await;
    second.finish(clients).await;
    shared
}

#[tokio::test]
async fn many_who_resume_at_once_at_a_fresh_node_cost_a_handful_of_reads() {
    let shared = resume_at_once(200).await;
    assert!(shared > 100.0, "{shared} of 200 shared a read");
}

#[tokio::test]
async fn a_gateway_that_leaves_takes_its_subscribers_out_of_the_count() {
    let (redis, prefix) = (Server::plain().await, prefix());
    let (stays, leaves) = (over(&redis, &prefix, |b| b).await, over(&redis, &prefix, |b| b).await);
    let clients = [
        Client::connect(&stays, Transport::Sse, "channel=a").await,
        Client::connect(&leaves, Transport::Sse, "channel=a").await,
    ];
    stays.until_subscribers("a", 2).await;
    leaves.running.end(Pace::Hasty);
    let asked = Instant::now();
    stays.until_subscribers("a", 1).await;
    assert!(asked.elapsed() < LEASE / 2, "{:?}: not by the end of its lease", asked.elapsed());
    stays.finish(clients).await;
    leaves.finish(()).await;
}

#[tokio::test]
async fn a_history_that_is_gone_counts_as_a_change_of_epoch() {
    let (redis, prefix) = (Server::plain().await, prefix());
    let gateway = over(&redis, &prefix, |builder| builder).await;
    let mut client = Client::connect(&gateway, Transport::Sse, "channel=a").await;
    gateway.publish("a", "1").await;
    client.message().await;
    let changes = async || gateway.metric("tidegate_epoch_changes_total", &[("reason", "reset")]).await;
    assert_eq!(changes().await, 0.0);
    redis.command(&["FLUSHALL"]).await;
    gateway.publish("a", "2").await;
    until("it is counted", async || (changes().await > 0.0).then_some(())).await;
    gateway.finish(client).await;
}

/// Figures for docs/benchmarks.md, on a quiet machine; `tests/run` leaves them out.
/// `cargo test --release --test it measured -- --ignored --nocapture --test-threads=1`
mod measured {
    use super::*;

    #[tokio::test]
    #[ignore = "a measurement"]
    async fn ten_thousand_channels_are_followed_again_within_a_second() {
        let taken = follow_again(10_000).await;
        println!("10,000 channels are followed again after {taken:?}");
        assert!(taken < Duration::from_secs(1), "{taken:?}");
    }

    #[tokio::test]
    #[ignore = "a measurement"]
    async fn five_thousand_who_resume_at_once_cost_a_handful_of_reads() {
        resume_at_once(5000).await;
    }
}

//! What happens to a Redis server itself.

use std::time::Duration;

use super::faults;
use super::faults_over_all;
use super::stage::{Stage, one};
use crate::redis::table::Backend;
use crate::support::client::{Client, Options, Transport};
use crate::support::fleet::Run;
use crate::support::proxy::{Class, Mode};
use crate::support::recorder::{Gaps, Unsure, Way};
use crate::support::redis::{Server, Settings, until};

/// Stands still, and goes on after so long.
async fn stand_still(redis: &Server, seconds: u64) {
    redis.stop();
    tokio::time::sleep(Duration::from_secs(seconds)).await;
    redis.cont();
}

faults! {
    async fn redis_is_killed_and_comes_back_empty(form) {
        let (redis, fleet) = one(Settings::default()).await;
        let mut run = Run::start(&fleet, form.load(Unsure::Leave)).await;
        for _ in 0..form.rounds() {
            redis.restart_empty().await;
            run.flowing("after the restart").await;
        }
        let report = form.end(run, Backend::Standalone, Gaps::Excused(form.rounds())).await;
        assert!(report.verdict.gaps >= report.clients, "everything was forgotten, and nobody was told: {report:?}");
    }

    async fn redis_is_killed_and_comes_back_with_its_append_only_file(form) {
        let (redis, fleet) = one(Settings::default().aof()).await;
        let mut run = Run::start(&fleet, form.load(Unsure::Retry)).await;
        for _ in 0..form.rounds() {
            redis.restart().await;
            run.flowing("after the restart").await;
        }
        let report = form.end(run, Backend::Standalone, Gaps::Excused(form.rounds())).await;
        assert_eq!(report.verdict.told_missing, 0, "nothing was lost, so nothing may be missing: {report:?}");
    }

    async fn redis_is_away_for_some_seconds_before_it_comes_back_empty(form) {
        let (redis, fleet) = one(Settings::default()).await;
        let mut run = Run::start(&fleet, form.load(Unsure::Leave)).await;
        for _ in 0..form.rounds() {
            redis.kill9();
            tokio::time::sleep(Duration::from_secs(3)).await;
            redis.restart_empty().await;
            run.flowing("after the restart").await;
        }
        form.end(run, Backend::Standalone, Gaps::Excused(form.rounds())).await;
    }

    async fn redis_stands_still_for_five_seconds(form) {
        let (redis, fleet) = one(Settings::default()).await;
        let mut run = Run::start(&fleet, form.load(Unsure::Retry)).await;
        for _ in 0..form.rounds() {
            stand_still(&redis, 5).await;
            run.flowing("after it stood still").await;
        }
        form.end(run, Backend::Standalone, Gaps::True).await;
    }

    async fn redis_stands_still_for_fifteen_seconds(form) {
        let (redis, fleet) = one(Settings::default()).await;
        let mut run = Run::start(&fleet, form.load(Unsure::Retry)).await;
        for _ in 0..form.rounds() {
            stand_still(&redis, 15).await;
            run.flowing("after it stood still").await;
        }
        form.end(run, Backend::Standalone, Gaps::True).await;
    }

    async fn redis_kills_a_subscriber_whose_output_buffer_is_full(form) {
        let limit = "client-output-buffer-limit pubsub 1mb 1mb 1";
        let (redis, fleet) = one(Settings::default().with(limit)).await;
        let mut run = Run::start(&fleet, form.load(Unsure::Retry)).await;
        // Somebody makes the first gateway follow a channel with much in it.
        let bulky = Client::open(fleet.nodes[0].public, Transport::Ndjson, "channel=bulk", Options::default()).await;
        for round in 0..form.rounds() {
            fleet.links[0].set(Class::Subscribers, Mode::HalfOpen);
            let full = || redis.log().matches("overcoming of output buffer limits").count() > round;
            until("Redis kills the subscriber", async || {
                // What it is does not matter, only that it waits for the first gateway.
                for name in redis.ask::<Vec<String>>(&["PUBSUB", "CHANNELS", "*:bulk"]).await {
                    redis.publish(name.as_bytes(), &[b'x'; 500_000]).await;
                }
                full().then_some(())
            })
            .await;
            fleet.links[0].set(Class::Subscribers, Mode::Pass);
            run.flowing("after the kill").await;
        }
        drop(bulky);
        form.end(run, Backend::Standalone, Gaps::True).await;
    }

    async fn redis_has_no_memory_left_and_evicts_nothing(form) {
        let (redis, fleet) = one(Settings::default().with("maxmemory-policy noeviction")).await;
        let mut run = Run::start(&fleet, form.load(Unsure::Retry)).await;
        for round in 0..form.rounds() {
            let refused = run.publisher.figures().refused;
            redis.command(&["CONFIG", "SET", "maxmemory", "1"]).await;
            until("publishes are refused", async || (run.publisher.figures().refused > refused + 10).then_some(())).await;
            // What is there can still be read, by who comes now and by who comes back.
            if round == 0 {
                run.join_from_the_start(Way::Sse, fleet.public(1));
                let late = run.clients.last().expect("just added");
                until("a late client sees what is kept", async || (late.highest("c0") > 0).then_some(())).await;
            }
            redis.command(&["CONFIG", "SET", "maxmemory", "0"]).await;
            run.flowing("with memory again").await;
        }
        form.end(run, Backend::Standalone, Gaps::True).await;
    }
}

faults_over_all! {
    async fn everything_is_flushed(form, over) {
        let mut stage = Stage::over(over).await;
        let mut run = Run::start(stage.fleet(), form.load(Unsure::Leave)).await;
        for _ in 0..form.rounds() {
            stage.all(&["FLUSHALL"]).await;
            run.flowing("after the flush").await;
        }
        form.end(run, over, Gaps::Excused(form.rounds())).await;
    }

    async fn functions_and_scripts_are_flushed(form, over) {
        let mut stage = Stage::over(over).await;
        let mut run = Run::start(stage.fleet(), form.load(Unsure::Retry)).await;
        for _ in 0..form.rounds() {
            stage.all(&["FUNCTION", "FLUSH"]).await;
            stage.all(&["SCRIPT", "FLUSH"]).await;
            run.flowing("after the flush").await;
        }
        assert_eq!(run.publisher.figures().refused, 0, "loaded again and tried again, unseen by publishers");
        form.end(run, over, Gaps::True).await;
    }

    async fn redis_kills_every_subscriber(form, over) {
        let mut stage = Stage::over(over).await;
        let mut run = Run::start(stage.fleet(), form.load(Unsure::Retry)).await;
        for _ in 0..3 * form.rounds() {
            stage.all(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
            run.published(20).await;
        }
        run.flowing("after the kills").await;
        form.end(run, over, Gaps::True).await;
    }

    async fn redis_kills_every_client(form, over) {
        let mut stage = Stage::over(over).await;
        let mut run = Run::start(stage.fleet(), form.load(Unsure::Retry)).await;
        for _ in 0..form.rounds() {
            stage.all(&["CLIENT", "KILL", "TYPE", "normal"]).await;
            stage.all(&["CLIENT", "KILL", "TYPE", "pubsub"]).await;
            run.published(20).await;
        }
        run.flowing("after the kills").await;
        form.end(run, over, Gaps::True).await;
    }

    async fn the_meta_of_every_channel_is_evicted_alone(form, over) {
        let mut stage = Stage::over(over).await;
        let mut run = Run::start(stage.fleet(), form.load(Unsure::Leave)).await;
        for _ in 0..form.rounds() {
            assert!(evict(&stage, "*meta*").await >= 3, "no key is called so");
            run.flowing("after the eviction").await;
        }
        form.end(run, over, Gaps::Excused(form.rounds())).await;
    }

    async fn the_log_of_every_channel_is_evicted_alone(form, over) {
        let mut stage = Stage::over(over).await;
        let mut run = Run::start(stage.fleet(), form.load(Unsure::Leave)).await;
        for _ in 0..form.rounds() {
            assert!(evict(&stage, "*log*").await >= 3, "no key is called so");
            run.flowing("after the eviction").await;
        }
        form.end(run, over, Gaps::True).await;
    }
}

/// Deletes the keys that match; gives how many.
async fn evict(stage: &Stage, pattern: &str) -> usize {
    let mut count = 0;
    for primary in stage.primaries().await {
        for key in primary.keys(pattern).await {
            primary.command(&["DEL", &key]).await;
            count += 1;
        }
    }
    count
}

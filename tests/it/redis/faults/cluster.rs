//! A Cluster whose slots move and whose shards lose their primaries.

use std::time::Duration;

use super::faults;
use crate::redis::table::Backend;
use crate::support::fleet::{Fleet, Run};
use crate::support::recorder::{Gaps, Unsure};
use crate::support::redis::Cluster;

async fn start() -> (Cluster, Fleet) {
    let redis = Cluster::start().await;
    let fleet = Fleet::over(&redis.url(), 3).await;
    (redis, fleet)
}

/// The slots in which the channels of the run live.
async fn slots(redis: &Cluster) -> Vec<u16> {
    let slots: Vec<u16> = redis.slots_of("*meta*").await.into_keys().collect();
    assert!(!slots.is_empty(), "no key is called so");
    slots
}

faults! {
    async fn slots_move_while_messages_are_published(form) {
        let (redis, fleet) = start().await;
        let mut run = Run::start(&fleet, form.load(Unsure::Retry)).await;
        let slots = slots(&redis).await;
        for _ in 0..form.rounds() {
            for slot in &slots {
                let (source, target) = (redis.owner(*slot).await, redis.other_primary(*slot).await);
                redis.begin_move(*slot, source, target).await;
                redis.finish_move(*slot, source, target).await;
            }
            run.flowing("after the moves").await;
        }
        // Each move gives a slot another primary, and so its channels another epoch.
        let report = form.end(run, Backend::Cluster, Gaps::Excused(form.rounds())).await;
        assert_eq!(report.verdict.told_missing, 0, "nothing was lost: {report:?}");
    }

    async fn a_slot_stays_half_moved(form) {
        let (redis, fleet) = start().await;
        // With a new idempotency key a publish names a key that is on neither side, and Redis answers
        // TRYAGAIN as long as the slot moves.
        let mut run = Run::start(&fleet, form.load(Unsure::Leave).without_keys()).await;
        let held = Duration::from_secs(if form.long { 20 } else { 5 });
        let slot = slots(&redis).await[0];
        let (source, target) = (redis.owner(slot).await, redis.other_primary(slot).await);
        redis.begin_move(slot, source, target).await;
        run.flowing("nothing has moved yet").await;
        assert_eq!(redis.move_keys(slot, source, target, 1).await, 1);
        // Some keys here, some there: nobody can be served, and nothing may be lost.
        tokio::time::sleep(held).await;
        while redis.move_keys(slot, source, target, 100).await > 0 {}
        // All there, but the slot is still the source's: a publish there has no receiver at all.
        run.flowing("every key has moved, the slot has not").await;
        tokio::time::sleep(held).await;
        run.flowing("still half moved").await;
        redis.finish_move(slot, source, target).await;
        run.flowing("moved").await;
        let report = form.end(run, Backend::Cluster, Gaps::Excused(2)).await;
        assert_eq!(report.verdict.told_missing, 0, "nothing was lost: {report:?}");
    }

    async fn a_slot_stays_half_moved_while_publishers_use_keys(form) {
        let (redis, fleet) = start().await;
        let mut run = Run::start(&fleet, form.load(Unsure::Retry)).await;
        let slot = slots(&redis).await[0];
        let (source, target) = (redis.owner(slot).await, redis.other_primary(slot).await);
        redis.begin_move(slot, source, target).await;
        redis.move_keys(slot, source, target, 1).await;
        tokio::time::sleep(Duration::from_secs(if form.long { 20 } else { 5 })).await;
        redis.finish_move(slot, source, target).await;
        run.flowing("moved").await;
        let report = form.end(run, Backend::Cluster, Gaps::Excused(1)).await;
        assert_eq!(report.verdict.told_missing, 0, "nothing was lost: {report:?}");
    }

    async fn the_replica_of_a_shard_is_promoted(form) {
        let (redis, fleet) = start().await;
        let mut run = Run::start(&fleet, form.load(Unsure::Leave)).await;
        let slot = slots(&redis).await[0];
        for _ in 0..form.rounds() {
            let replica = redis.replica_of(redis.owner(slot).await).await;
            replica.until_following().await;
            redis.promote(slot, replica).await;
            run.flowing("after the promotion").await;
        }
        form.end(run, Backend::Cluster, Gaps::Excused(form.rounds())).await;
    }

    async fn the_primary_of_a_shard_is_killed_and_its_replica_is_elected(form) {
        let (redis, fleet) = start().await;
        redis.be_impatient().await;
        let mut run = Run::start(&fleet, form.load(Unsure::Leave)).await;
        let slot = slots(&redis).await[0];
        for _ in 0..form.rounds() {
            let primary = redis.owner(slot).await;
            let replica = redis.replica_of(primary).await;
            replica.until_following().await;
            primary.kill9();
            redis.until_owned(slot, replica).await;
            redis.until_well().await;
            run.flowing("after the election").await;
            primary.restart().await;
            primary.until_following().await;
            replica.until_followed(1).await;
        }
        // The election, and the first replica that the new primary gets.
        form.end(run, Backend::Cluster, Gaps::Excused(2 * form.rounds())).await;
    }
}

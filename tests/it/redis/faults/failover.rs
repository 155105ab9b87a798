//! Another server becomes the primary, with everything or without the last of it.

use super::faults;
use crate::redis::table::Backend;
use crate::support::fleet::{Fleet, Run};
use crate::support::proxy::{Class, FaultProxy, Mode};
use crate::support::recorder::{Gaps, Unsure};
use crate::support::redis::{Replicated, Server};

/// Two servers whose replication can be cut, and three gateways that reach the primary through addresses
/// that can be moved.
struct Pair {
    pair: Replicated,
    replication: FaultProxy,
    fleet: Fleet,
    primary: usize,
}

impl Pair {
    async fn start() -> Self {
        let primary = Server::plain().await;
        let replication = FaultProxy::to(primary.address()).await;
        let fleet = Fleet::behind_proxies(primary.address(), 3).await;
        let pair = Replicated::pair(primary, Some(replication.address)).await;
        Self { pair, replication, fleet, primary: 0 }
    }

    fn primary(&self) -> &Server {
        &self.pair.servers[self.primary]
    }

    fn replica(&self) -> &Server {
        &self.pair.servers[1 - self.primary]
    }

    /// Nothing reaches the replica any more; what is accepted from now on is the tail that is lost.
    fn cut_replication(&self) {
        self.replication.set(Class::All, Mode::HalfOpen);
    }

    /// The replica becomes the primary, and everybody is sent there.
    async fn promote(&mut self) {
        self.replica().command(&["REPLICAOF", "NO", "ONE"]).await;
        self.primary = 1 - self.primary;
        for link in &self.fleet.links {
            link.retarget(self.primary().address());
            link.cut(Class::All);
        }
    }

    /// The old primary follows the new one, and forgets what that one does not know.
    async fn follow(&self) {
        self.replication.set(Class::All, Mode::Pass);
        self.replication.cut(Class::All);
        self.replication.retarget(self.primary().address());
        let at = self.replication.address;
        self.replica().command(&["REPLICAOF", "127.0.0.1", &at.port().to_string()]).await;
        self.replica().until_following().await;
        self.primary().until_followed(1).await;
    }
}

faults! {
    async fn a_failover_that_sentinel_is_told_to_make(form) {
        let redis = Replicated::watched().await;
        let fleet = Fleet::over(&redis.url(), 3).await;
        let mut run = Run::start(&fleet, form.load(Unsure::Leave)).await;
        for _ in 0..form.rounds() {
            redis.fail_over().await;
            run.flowing("after the failover").await;
        }
        form.end(run, Backend::Sentinel, Gaps::Excused(form.rounds())).await;
    }

    async fn the_primary_is_killed_and_sentinel_elects_another(form) {
        let redis = Replicated::watched().await;
        redis.be_impatient().await;
        let fleet = Fleet::over(&redis.url(), 3).await;
        let mut run = Run::start(&fleet, form.load(Unsure::Leave)).await;
        for _ in 0..form.rounds().min(3) {
            let before = redis.primary().await;
            before.kill9();
            redis.until_replaced(before.port).await;
            run.flowing("after the failover").await;
            before.restart().await;
            redis.until_agreed().await;
            run.flowing("with three servers again").await;
        }
        // One where the new primary is a replica's heir, one where the old comes back as a first replica.
        form.end(run, Backend::Sentinel, Gaps::Excused(2 * form.rounds().min(3))).await;
    }

    async fn the_primary_stands_still_until_sentinel_elects_another_and_then_goes_on(form) {
        let redis = Replicated::watched().await;
        redis.be_impatient().await;
        let fleet = Fleet::over(&redis.url(), 3).await;
        let mut run = Run::start(&fleet, form.load(Unsure::Leave)).await;
        for _ in 0..form.rounds().min(3) {
            let before = redis.primary().await;
            before.stop();
            redis.until_replaced(before.port).await;
            run.flowing("after the failover").await;
            before.cont();
            // For a moment it takes itself for the primary still.
            redis.until_agreed().await;
            run.flowing("after the old primary went on").await;
        }
        form.end(run, Backend::Sentinel, Gaps::Excused(2 * form.rounds().min(3))).await;
    }

    async fn a_failover_loses_the_tail_that_everybody_saw(form) {
        let mut pair = Pair::start().await;
        let mut run = Run::start(&pair.fleet, form.load(Unsure::Leave)).await;
        for round in 0..form.rounds() {
            pair.cut_replication();
            run.published(60).await;
            run.flowing("while the tail grows").await;
            pair.promote().await;
            run.flowing("after the failover").await;
            if round + 1 < form.rounds() {
                pair.follow().await;
            }
        }
        let report = form.end(run, Backend::Standalone, Gaps::Excused(2 * form.rounds())).await;
        // The classic silent loss: the new primary gives the offsets of the tail once more.
        assert!(report.verdict.gaps >= report.clients * 3, "each client must be told of each channel: {report:?}");
    }

    async fn a_failover_loses_the_tail_that_some_did_not_see(form) {
        let mut pair = Pair::start().await;
        let mut run = Run::start(&pair.fleet, form.load(Unsure::Leave)).await;
        for round in 0..form.rounds() {
            pair.cut_replication();
            // The first gateway hears nothing of the tail.
            pair.fleet.links[0].freeze(Class::Subscribers);
            run.published(30).await;
            pair.promote().await;
            run.flowing("after the failover").await;
            if round + 1 < form.rounds() {
                pair.follow().await;
            }
        }
        form.end(run, Backend::Standalone, Gaps::Excused(2 * form.rounds())).await;
    }

    async fn the_primary_moves_to_another_server_and_back(form) {
        let mut pair = Pair::start().await;
        let mut run = Run::start(&pair.fleet, form.load(Unsure::Leave)).await;
        for _ in 0..form.rounds() {
            for _ in 0..2 {
                    pair.promote().await;
                run.flowing("after a move").await;
                pair.follow().await;
                run.flowing("with a replica again").await;
            }
        }
        form.end(run, Backend::Standalone, Gaps::Excused(4 * form.rounds())).await;
    }

    async fn a_first_replica_attaches(form) {
        let primary = Server::plain().await;
        let fleet = Fleet::behind_proxies(primary.address(), 3).await;
        let mut run = Run::start(&fleet, form.load(Unsure::Retry)).await;
        let pair = Replicated::pair(primary, None).await;
        run.flowing("with a replica").await;
        let report = form.end(run, Backend::Standalone, Gaps::Excused(1)).await;
        assert_eq!(report.verdict.told_missing, 0, "nothing was lost: {report:?}");
        drop(pair);
    }
}

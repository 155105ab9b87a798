//! What happens between a gateway and Redis. Nothing here loses a message, so nobody may be told of a gap.

use std::time::{Duration, Instant};

use super::faults;
use super::stage::one;
use crate::redis::table::Backend;
use crate::support::fleet::Run;
use crate::support::proxy::{Class, Mode};
use crate::support::recorder::{Gaps, Unsure, Way};
use crate::support::redis::{Settings, until};

/// How long a link stays as it is: longer than two probes.
const FAULT: Duration = Duration::from_secs(6);

faults! {
    async fn the_subscribers_link_of_one_gateway_falls_silent(form) {
        let (_redis, fleet) = one(Settings::default()).await;
        let mut run = Run::start(&fleet, form.load(Unsure::Retry)).await;
        for _ in 0..form.rounds() {
            // A PING would be answered on the other connection: only a probe that must come back shows it.
            fleet.links[0].freeze(Class::Subscribers);
            run.flowing("over a new connection").await;
        }
        form.end(run, Backend::Standalone, Gaps::True).await;
    }

    async fn the_command_link_of_one_gateway_falls_silent(form) {
        let (_redis, fleet) = one(Settings::default()).await;
        let mut run = Run::start(&fleet, form.load(Unsure::Retry)).await;
        for _ in 0..form.rounds() {
            fleet.links[0].freeze(Class::Commands);
            run.flowing("over a new connection").await;
        }
        form.end(run, Backend::Standalone, Gaps::True).await;
    }

    async fn every_link_is_half_open_for_some_seconds(form) {
        let (_redis, fleet) = one(Settings::default()).await;
        let mut run = Run::start(&fleet, form.load(Unsure::Retry)).await;
        for round in 0..form.rounds() {
            for link in &fleet.links {
                link.set(Class::All, Mode::HalfOpen);
            }
            tokio::time::sleep(FAULT).await;
            for link in &fleet.links {
                link.set(Class::All, Mode::Pass);
                // What was held comes through, or is lost with its connection.
                if round % 2 == 1 {
                    link.cut(Class::All);
                }
            }
            run.flowing("with links again").await;
        }
        form.end(run, Backend::Standalone, Gaps::True).await;
    }

    async fn one_gateway_is_parted_from_redis_and_its_clients_stay(form) {
        let (_redis, fleet) = one(Settings::default()).await;
        let mut run = Run::start(&fleet, form.load(Unsure::Retry)).await;
        let before: Vec<usize> = run.clients.iter().map(|client| client.notes().reconnects).collect();
        for _ in 0..form.rounds() {
            fleet.links[0].set(Class::All, Mode::Refuse);
            fleet.links[0].cut(Class::All);
            // The others publish on.
            run.published(60).await;
            fleet.links[0].set(Class::All, Mode::Pass);
            run.flowing("together again").await;
        }
        // Whoever is connected waits. Only polls, which come and go, were turned away.
        for (client, before) in run.clients.iter().zip(before) {
            if client.spec.way != Way::Poll {
                assert_eq!(client.notes().reconnects, before, "{}: {:?}", client.spec.name, client.notes().ends);
            }
        }
        form.end(run, Backend::Standalone, Gaps::True).await;
    }

    async fn a_disconnect_is_obeyed_by_a_gateway_whose_link_was_away(form) {
        let (_redis, fleet) = one(Settings::default()).await;
        let mut run = Run::start(&fleet, form.load(Unsure::Retry)).await;
        for _ in 0..form.rounds() {
            let sent_away = |run: &Run| {
                let streams = run.clients.iter().filter(|client| client.spec.way != Way::Poll);
                streams.map(|client| client.notes().ends.iter().filter(|end| end.contains("revoked")).count()).min()
            };
            let before = sent_away(&run);
            fleet.links[0].set(Class::All, Mode::Refuse);
            fleet.links[0].cut(Class::All);
            let body = serde_json::json!({"channel": "c0"});
            fleet.nodes[1].internal("POST", "/v1/disconnect", Some(&body)).await.expect(202);
            run.published(20).await;
            fleet.links[0].set(Class::All, Mode::Pass);
            let back = Instant::now();
            until("everybody was sent away", async || (sent_away(&run) > before).then_some(())).await;
            assert!(back.elapsed() < Duration::from_secs(5), "obeyed after {:?}", back.elapsed());
            run.flowing("back again").await;
        }
        form.end(run, Backend::Standalone, Gaps::True).await;
    }

    async fn every_link_is_slow(form) {
        let (_redis, fleet) = one(Settings::default()).await;
        let mut run = Run::start(&fleet, form.load(Unsure::Retry)).await;
        for _ in 0..form.rounds() {
            fleet.links.iter().for_each(|link| link.set(Class::All, Mode::Delay(Duration::from_millis(200))));
            run.published(60).await;
            run.flowing("slowly").await;
            fleet.links.iter().for_each(|link| link.set(Class::All, Mode::Pass));
            run.flowing("at speed").await;
        }
        form.end(run, Backend::Standalone, Gaps::True).await;
    }

    async fn every_link_is_thin(form) {
        let (_redis, fleet) = one(Settings::default()).await;
        let mut run = Run::start(&fleet, form.load(Unsure::Retry)).await;
        for _ in 0..form.rounds() {
            fleet.links.iter().for_each(|link| link.set(Class::All, Mode::Throttle(6_000)));
            tokio::time::sleep(FAULT).await;
            fleet.links.iter().for_each(|link| link.set(Class::All, Mode::Pass));
            run.flowing("with room again").await;
        }
        form.end(run, Backend::Standalone, Gaps::True).await;
    }

    async fn a_link_is_cut_in_the_middle_of_an_envelope(form) {
        let (_redis, fleet) = one(Settings::default()).await;
        let mut run = Run::start(&fleet, form.load(Unsure::Retry)).await;
        let times = if form.long { 20 } else { 5 };
        for link in &fleet.links {
            // The payload is within the envelope as it was posted.
            link.cut_within(Class::Subscribers, b"{\"n\":", 3, times);
        }
        until("every cut was made", async || {
            fleet.links.iter().all(|link| link.snapped() == u64::from(times)).then_some(())
        })
        .await;
        run.flowing("after the last cut").await;
        form.end(run, Backend::Standalone, Gaps::True).await;
    }

    async fn the_answers_of_redis_to_publishes_are_cut_off(form) {
        let (_redis, fleet) = one(Settings::default()).await;
        let mut run = Run::start(&fleet, form.load(Unsure::Retry)).await;
        let times = if form.long { 20 } else { 5 };
        for link in &fleet.links {
            // Executed, and nobody hears of it: the publisher comes again with the same key.
            link.cut_within(Class::Commands, b"\r\n", 0, times);
        }
        until("every cut was made", async || {
            fleet.links.iter().all(|link| link.snapped() == u64::from(times)).then_some(())
        })
        .await;
        run.flowing("after the last cut").await;
        assert!(run.publisher.figures().lost > 0, "no publisher was left uncertain: {:?}", run.publisher.figures());
        let report = form.end(run, Backend::Standalone, Gaps::True).await;
        assert_eq!(report.uncertain, 0, "each was made certain by its key");
    }

    async fn links_are_cut_again_and_again(form) {
        let (_redis, fleet) = one(Settings::default()).await;
        let mut run = Run::start(&fleet, form.load(Unsure::Retry).roaming()).await;
        for round in 0..10 * form.rounds() {
            fleet.links[round % 3].cut([Class::Subscribers, Class::All, Class::Commands][round % 3]);
            run.published(10).await;
        }
        run.flowing("after the cuts").await;
        form.end(run, Backend::Standalone, Gaps::True).await;
    }
}

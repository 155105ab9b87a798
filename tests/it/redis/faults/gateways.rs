//! Gateways that end, stand still, begin.

use std::time::Duration;

use super::stage::{Stage, one};
use super::{faults, faults_over_all};
use crate::redis::table::Backend;
use crate::support::fleet::Run;
use crate::support::recorder::{Gaps, Recording, Roam, Spec, Unsure, Way};
use crate::support::redis::{Settings, until};

faults_over_all! {
    async fn a_gateway_is_killed_and_its_clients_go_on_elsewhere(form, over) {
        let mut stage = Stage::over(over).await;
        let mut run = Run::start(stage.fleet(), form.load(Unsure::Retry)).await;
        for round in 0..form.rounds() {
            let node = &mut stage.fleet().nodes[round % 3];
            node.kill9();
            run.flowing("with two gateways").await;
            stage.fleet().nodes[round % 3].start().await;
            run.flowing("with three again").await;
        }
        let report = form.end(run, over, Gaps::True).await;
        assert!(report.reconnects >= 3, "nobody was disturbed: {report:?}");
    }

    async fn three_gateways_are_restarted_one_after_the_other(form, over) {
        let mut stage = Stage::over(over).await;
        // At the rate of the promise, with the history of the default.
        let mut run = Run::start(stage.fleet(), form.load(Unsure::Retry).rate(20)).await;
        for _ in 0..form.rounds() {
            for index in 0..3 {
                let node = &mut stage.fleet().nodes[index];
                node.process().signal("TERM");
                let status = node.process().exit(Duration::from_secs(30)).await;
                assert_eq!(status.code(), Some(0), "{}", node.said());
                node.start().await;
                run.flowing("after a restart").await;
            }
        }
        let report = form.end(run, over, Gaps::True).await;
        assert_eq!(report.verdict.gaps, 0);
        assert!(report.reconnects >= report.clients / 4 * 3, "nobody was sent away: {report:?}");
    }

    async fn clients_wander_between_gateways_all_the_time(form, over) {
        let mut stage = Stage::over(over).await;
        let mut run = Run::start(stage.fleet(), form.load(Unsure::Retry).roaming()).await;
        for _ in 0..5 * form.rounds() {
            let body = serde_json::json!({"channel": "c1"});
            stage.fleet().nodes[0].internal("POST", "/v1/disconnect", Some(&body)).await.expect(202);
            run.published(30).await;
        }
        run.flowing("after the last move").await;
        form.end(run, over, Gaps::True).await;
    }
}

faults! {
    async fn a_gateway_stands_still_for_ten_seconds(form) {
        let (_redis, fleet) = one(Settings::default()).await;
        let mut run = Run::start(&fleet, form.load(Unsure::Retry)).await;
        for round in 0..form.rounds() {
            fleet.nodes[round % 3].stop();
            tokio::time::sleep(Duration::from_secs(10)).await;
            fleet.nodes[round % 3].cont();
            run.flowing("after it stood still").await;
        }
        form.end(run, Backend::Standalone, Gaps::True).await;
    }

    async fn a_fresh_gateway_publishes_in_its_first_second(form) {
        let (_redis, mut fleet) = one(Settings::default()).await;
        fleet.nodes[2].kill9();
        let mut run = Run::start(&fleet, form.load(Unsure::Retry)).await;
        for _ in 0..form.rounds() {
            // Publishers try it with every third message, from the first moment that it listens.
            fleet.nodes[2].spawn();
            fleet.nodes[2].until_ready().await;
            let taken = async || {
                (fleet.nodes[2].metric("tidegate_publications_total", &[]).await >= 3.0).then_some(())
            };
            until("it has published", taken).await;
            run.flowing("with the fresh gateway").await;
            fleet.nodes[2].kill9();
            run.flowing("without it").await;
        }
        form.end(run, Backend::Standalone, Gaps::True).await;
    }

    async fn clients_of_a_fresh_gateway_hear_the_others_at_once(form) {
        let (_redis, mut fleet) = one(Settings::default()).await;
        fleet.nodes[2].kill9();
        let mut run = Run::start(&fleet, form.load(Unsure::Retry)).await;
        for round in 0..form.rounds() {
            fleet.nodes[2].spawn();
            for way in Way::ALL {
                // From the first moment that it listens, and nowhere else.
                let spec = Spec {
                    name: format!("{way:?} at the fresh gateway, round {round}"),
                    way,
                    channels: vec!["fresh".to_owned()],
                    doors: vec![fleet.nodes[2].public],
                    roam: Roam::Home,
                    since: "latest",
                };
                let client = Recording::start(spec);
                until("it is subscribed", async || client.is_ready().then_some(())).await;
                let body = serde_json::json!({"n": 1, "pad": crate::support::recorder::publisher::pad(1)});
                fleet.nodes[0].internal("POST", "/v1/channels/fresh/messages", Some(&body)).await.expect(202);
                until("it hears the others", async || (client.highest("fresh") == 1).then_some(())).await;
            }
            run.flowing("meanwhile").await;
            fleet.nodes[2].kill9();
        }
        form.end(run, Backend::Standalone, Gaps::True).await;
    }
}

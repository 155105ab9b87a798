//! Networks between clients and gateways that go away and come back.

use std::time::Duration;

use super::faults;
use super::stage::one;
use crate::redis::table::Backend;
use crate::support::fleet::{Load, Run};
use crate::support::proxy::{Class, FaultProxy, Mode};
use crate::support::recorder::{Gaps, Unsure};
use crate::support::redis::Settings;

faults! {
    async fn clients_lose_the_network_again_and_again(form) {
        let (_redis, fleet) = one(Settings::default()).await;
        let mut networks = Vec::new();
        for node in &fleet.nodes {
            networks.push(FaultProxy::to(node.public).await);
        }
        let doors = (0..3).map(|first| (0..3).map(|next| networks[(first + next) % 3].address).collect()).collect();
        let load = Load { doors: Some(doors), ..form.load(Unsure::Retry) };
        let mut run = Run::start(&fleet, load).await;
        // 2 s in every 10 s for a minute; a shorter rhythm for every day.
        let (rounds, lost, between) = if form.long { (6, 2, 8) } else { (3, 1, 2) };
        for round in 0..rounds {
            networks.iter().for_each(|network| network.set(Class::All, Mode::HalfOpen));
            tokio::time::sleep(Duration::from_secs(lost)).await;
            for network in &networks {
                // Now it comes back with what was on its way, now every connection is gone.
                if round % 2 == 0 {
                    network.cut(Class::All);
                }
                network.set(Class::All, Mode::Pass);
            }
            tokio::time::sleep(Duration::from_secs(between)).await;
        }
        run.flowing("with a network").await;
        let report = form.end(run, Backend::Standalone, Gaps::True).await;
        // 100 % delivered: every accepted message to every client.
        assert_eq!(report.verdict.seen, report.accepted * report.clients, "{report:?}");
    }
}

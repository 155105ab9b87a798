//! Tells the broker how many listen here, so that any node can say how many do in all.

use std::{collections::HashMap, time::Duration};

use tokio::time::{Instant, interval};
use tokio_util::sync::CancellationToken;

use super::Gateway;
use crate::channel::Channel;

/// What changed is told this often.
const CHANGES: Duration = Duration::from_secs(1);

/// All is told this often, well within the time for which a figure counts.
const RENEWAL: Duration = Duration::from_secs(15);

/// Runs until `stop`, and takes back then what it has told: who has left must not count until the lease ends.
pub async fn run(gateway: Gateway, stop: CancellationToken) {
    let mut told: HashMap<Channel, usize> = HashMap::new();
    let mut renewed = Instant::now();
    let mut ticks = interval(CHANGES);
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = stop.cancelled() => break,
        }
        let all = renewed.elapsed() >= RENEWAL;
        let now: HashMap<Channel, usize> = gateway.hub().counts().into_iter().collect();
        let gone = told.keys().filter(|channel| !now.contains_key(*channel)).map(|c| (c.clone(), 0));
        let fresh = now.iter().filter(|(channel, count)| all || told.get(*channel) != Some(*count));
        let report: Vec<_> = gone.chain(fresh.map(|(c, n)| (c.clone(), *n))).collect();
        if report.is_empty() || gateway.0.broker.report(&report).await.is_ok() {
            told = now;
            if all {
                renewed = Instant::now();
            }
        }
    }
    let back: Vec<_> = told.into_keys().map(|channel| (channel, 0)).collect();
    if let Err(error) = gateway.0.broker.report(&back).await {
        tracing::debug!(%error, "the counts of subscribers could not be taken back; they end with their lease");
    }
}

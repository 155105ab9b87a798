//! How the process ends: not ready while all is served, then clients are sent away evenly, then it stops.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering},
    },
    time::Duration,
};

use tokio::time::{Instant, sleep, sleep_until};

use crate::{disconnect::Disconnect, gateway::Gateway, metrics::DrainState};

/// Clients are sent away within this part of the period; the rest is theirs to leave.
const SENDING_AWAY: f64 = 0.9;

/// How often it is looked whether the last client is gone.
const LOOK: Duration = Duration::from_millis(10);

/// A person at a terminal does not wait longer: half of it for the clients, the rest for what they leave behind.
pub const HASTE: Duration = Duration::from_secs(1);

/// Whether the process takes work. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Readiness(Arc<AtomicU8>);

impl Readiness {
    /// Why load balancers should not send anybody here, if they should not.
    ///
    /// # Errors
    /// The reason, a sentence.
    pub fn state(&self) -> Result<(), &'static str> {
        match self.0.load(Ordering::Relaxed) {
            0 => Ok(()),
            _ => Err("the gateway is shutting down; send new connections elsewhere"),
        }
    }

    /// Whether new subscribers are refused and connections close after their answer.
    #[must_use]
    pub fn is_leaving(&self) -> bool {
        self.0.load(Ordering::Relaxed) == DrainState::Leaving as u8
    }

    fn set(&self, state: DrainState, gateway: &Gateway) {
        self.0.store(state as u8, Ordering::Relaxed);
        gateway.metrics().draining(state);
    }
}

/// How much time there is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Pace {
    /// SIGTERM: as configured.
    Configured,
    /// SIGINT: no notice, and a second at most.
    Hasty,
}

/// Waits out the notice, then sends every client away. Returns when the last one is gone, or the period over.
pub async fn run(gateway: &Gateway, readiness: &Readiness, pace: Pace) {
    let config = &gateway.config().drain;
    let mut period = config.period;
    match pace {
        Pace::Configured => {
            readiness.set(DrainState::Notice, gateway);
            tracing::info!(notice = ?config.notice, "not ready; still serving");
            sleep(config.notice).await;
        }
        Pace::Hasty => period = period.min(HASTE / 2),
    }
    readiness.set(DrainState::Leaving, gateway);
    let end = Instant::now() + period;
    send_away(gateway, period.mul_f64(SENDING_AWAY)).await;
    while !gateway.registry().is_empty() && Instant::now() < end {
        sleep(LOOK).await;
    }
    tracing::info!(clients.left = gateway.registry().len(), "drained");
}

/// Evenly over `time`: who is sent away together comes back together.
async fn send_away(gateway: &Gateway, time: Duration) {
    let mut clients = gateway.registry().all();
    fastrand::shuffle(&mut clients);
    let (start, count) = (Instant::now(), clients.len());
    tracing::info!(clients = count, "sending clients away");
    for (index, client) in clients.into_iter().enumerate() {
        sleep_until(start + time.mul_f64(index as f64 / count as f64)).await;
        client.end(Disconnect::Shutdown);
    }
    // Who was being let in when the list was made.
    for client in gateway.registry().all() {
        client.end(Disconnect::Shutdown);
    }
}

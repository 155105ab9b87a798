//! Probes: what a node publishes to itself through Redis, to learn whether what is published comes back. An answered
//! PING proves nothing of that.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::sync::{mpsc, watch};

use super::{Inner, names::Partition, reader::Input, server::Server, subscriber::SubscriberHandle};
use crate::metrics::RedisEnd;

/// Between two probes, and two looks at what moves.
pub(super) const PROBE: Duration = Duration::from_secs(2);

/// Probes that may be missing before a pub/sub link is no longer believed.
const MISSED: u64 = 2;

/// The probes of one life of a pub/sub link.
pub(super) struct Probe {
    channel: Bytes,
    partition: Partition,
    /// Tells lives apart.
    life: u64,
    /// The number of the newest one that came back; `None` until the subscription to them is confirmed.
    back: watch::Receiver<Option<u64>>,
}

/// What the reader needs to know of them.
pub(super) struct Probed {
    channel: Bytes,
    life: u64,
    sent: Instant,
    back: watch::Sender<Option<u64>>,
}

/// Forgets the probes of a pub/sub link when it is dropped, however its life ends: only those of this life.
pub(super) struct Proving<'a>(&'a Inner, &'a Server, Option<u64>);

impl<'a> Proving<'a> {
    pub(super) fn of(inner: &'a Inner, server: &'a Server, probe: Option<&Probe>) -> Self {
        Self(inner, server, probe.map(|probe| probe.life))
    }
}

impl Drop for Proving<'_> {
    fn drop(&mut self) {
        let Self(inner, server, life) = self;
        let mut probes = inner.probes.lock();
        if probes.get(*server).map(|probed| probed.life) == *life {
            probes.remove(*server);
            inner.proved.lock().remove(*server);
        }
    }
}

/// Publishes probes; ends where they no longer come back.
pub(super) async fn prove(
    inner: &Inner,
    inputs: &mpsc::Sender<Input>,
    server: &Server,
    probe: Option<Probe>,
) -> RedisEnd {
    let Some(mut probe) = probe else {
        return std::future::pending().await;
    };
    let confirmed = tokio::time::timeout(PROBE * 2, probe.back.wait_for(Option::is_some));
    if !matches!(confirmed.await, Ok(Ok(_))) {
        return RedisEnd::Deaf;
    }
    let mut ticks = tokio::time::interval(PROBE);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let (mut number, mut published, mut known, mut identity) = (0, 0, 0, None);
    loop {
        ticks.tick().await;
        if inner.topology.read().owner_of(probe.partition) != Some(server) {
            return RedisEnd::Moved;
        }
        let back = probe.back.borrow().unwrap_or(0);
        // One that came late is a sign of life too.
        if back == number || std::mem::replace(&mut known, back) != back {
            published = 0;
        } else if published >= MISSED {
            return RedisEnd::Silent;
        }
        number += 1;
        inner.probing(server);
        let Some(link) = inner.link_to(server) else { continue };
        let payload = format!("{} {number}", probe.life);
        let answer = inner.functions.probe(&*link, probe.partition, &probe.channel, &payload).await;
        let Ok(answer) = answer else {
            // Nothing is known: the command link has its own watch.
            number = back;
            continue;
        };
        published += 1;
        inner.heard(answer.now_ms);
        if answer.receivers == 0 {
            return RedisEnd::Deaf;
        }
        let was_emptied = !answer.has_state;
        if was_emptied {
            let _ = inner.open(&link, server).await;
        }
        let changed = identity.as_ref().is_some_and(|known| *known != answer.identity);
        identity = Some(answer.identity);
        if (was_emptied || changed) && inputs.send(Input::Compare(server.clone())).await.is_err() {
            return RedisEnd::Closed;
        }
    }
}

impl Inner {
    /// Begins the probes of a new pub/sub link: `None` where its server owns no partition.
    pub(super) fn begin_probes(&self, server: &Server, handle: &SubscriberHandle) -> Option<Probe> {
        let topology = Arc::clone(&self.topology.read());
        let partition = topology.partitions_of(server).next()?;
        let channel = self.names.probe(partition, &self.node);
        match topology.sharded {
            true => handle.ssubscribe(std::slice::from_ref(&channel)),
            false => handle.subscribe(std::slice::from_ref(&channel)),
        }
        let (sender, back) = watch::channel(None);
        let life = fastrand::u64(..);
        let probed = Probed { channel: channel.clone(), life, sent: Instant::now(), back: sender };
        self.probes.lock().insert(server.clone(), probed);
        Some(Probe { channel, partition, life, back })
    }

    fn probing(&self, server: &Server) {
        if let Some(probed) = self.probes.lock().get_mut(server) {
            probed.sent = Instant::now();
        }
    }

    /// Takes a probe that came back: up to the second that it bears, everything published has come here.
    /// `None` where it is no probe of this link.
    pub(super) fn probed(&self, server: &Server, channel: &[u8], payload: &[u8]) -> Option<u64> {
        let probes = self.probes.lock();
        let probed = probes.get(server).filter(|probed| probed.channel == channel)?;
        let mut words = std::str::from_utf8(payload).ok()?.split(' ');
        let now_ms: u64 = words.next()?.parse().ok()?;
        let life: u64 = words.next()?.parse().ok()?;
        let number: u64 = words.next()?.parse().ok()?;
        if life != probed.life {
            return None;
        }
        probed.back.send_replace(Some(number));
        self.metrics.redis_probed(probed.sent.elapsed());
        self.proved.lock().insert(server.clone());
        drop(probes);
        self.is_up();
        Some(now_ms / 1000)
    }

    /// The subscription to the probes of this link is confirmed.
    pub(super) fn is_heard(&self, server: &Server, channel: &[u8]) {
        let probes = self.probes.lock();
        if let Some(probed) = probes.get(server).filter(|probed| probed.channel == channel) {
            probed.back.send_if_modified(|back| back.replace(back.unwrap_or(0)).is_none());
        }
    }
}

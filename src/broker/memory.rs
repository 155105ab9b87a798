//! The embedded broker: one node, no Redis, nothing on disk. Channels live in shards, each under one lock
//! that is held for one step and never over an await.

mod keys;
mod log;
mod shard;

use std::{collections::BinaryHeap, fmt, sync::Arc};

use parking_lot::{Mutex, MutexGuard};
use tokio::sync::mpsc;

use self::shard::Shard;
use crate::{
    broker::{BrokerError, BrokerEvent, Channels, Info, Page, Replay, idempotency::Digest},
    channel::Channel,
    clock::Clock,
    config::History,
    position::{Position, Since},
    publication::{Draft, Receipt},
};

/// Enough that publishers to different channels seldom meet at a lock, few enough to walk over.
const SHARDS: usize = 64;

/// What one sweep does under a lock before others may have it.
const SWEEP_STEPS: usize = 256;

/// The memory broker; clones share it.
#[derive(Clone)]
pub struct Memory(Arc<Inner>);

struct Inner {
    shards: Box<[Mutex<Shard>]>,
    clock: Clock,
    events: mpsc::Sender<BrokerEvent>,
}

impl Memory {
    /// An empty broker, and the events of the channels that will be listened to. While `queue` of them
    /// wait, publishers wait too, since none may be lost.
    #[must_use]
    pub fn new(queue: usize, clock: Clock) -> (Self, mpsc::Receiver<BrokerEvent>) {
        let (events, receiver) = mpsc::channel(queue.max(1));
        let shards = (0..SHARDS).map(|_| Mutex::new(Shard::new(clock.clone()))).collect();
        let inner = Inner { shards, clock, events };
        (Self(Arc::new(inner)), receiver)
    }

    fn shard(&self, channel: &Channel) -> MutexGuard<'_, Shard> {
        self.0.shards[channel.shard(SHARDS)].lock()
    }

    /// See [`Broker::publish`](super::Broker::publish).
    ///
    /// # Errors
    /// [`BrokerError::KeyReused`]; [`BrokerError::Unavailable`] where nobody takes the events any more.
    pub async fn publish(
        &self,
        channel: &Channel,
        history: &History,
        draft: Draft,
    ) -> Result<Receipt, BrokerError> {
        // The place in the queue comes first and is filled under the lock: so the queue has the order of
        // offsets, and a message is never stored without its event.
        let place = self.0.events.reserve().await;
        let place = place.map_err(|_| BrokerError::Unavailable)?;
        let digest = draft.idempotency_key.as_ref().map(|_| Digest::of(&draft));

        let mut shard = self.shard(channel);
        let (receipt, event) = shard.publish(channel, history, draft, digest)?;
        if let Some(event) = event {
            place.send(event);
        }
        Ok(receipt)
    }

    /// See [`Broker::listen`](super::Broker::listen).
    #[must_use]
    pub fn listen(&self, channel: &Channel) -> Position {
        self.shard(channel).listen(channel)
    }

    /// See [`Broker::unlisten`](super::Broker::unlisten).
    pub fn unlisten(&self, channel: &Channel) {
        self.shard(channel).unlisten(channel);
    }

    /// See [`Broker::read`](super::Broker::read).
    #[must_use]
    pub fn read(&self, channel: &Channel, history: &History, since: &Since, page: Page) -> Replay {
        self.shard(channel).read(channel, history, since, page)
    }

    /// See [`Broker::info`](super::Broker::info).
    #[must_use]
    pub fn info(&self, channel: &Channel, history: &History) -> Info {
        self.shard(channel).info(channel, history)
    }

    /// See [`Broker::channels`](super::Broker::channels).
    #[must_use]
    pub fn channels(&self, prefix: &str, after: Option<&str>, limit: usize) -> Channels {
        // The smallest so far, the largest of them on top; one more than asked for tells of a further page.
        let mut found: BinaryHeap<Channel> = BinaryHeap::new();
        for shard in &self.0.shards {
            for name in shard.lock().names() {
                let listed =
                    name.as_str().starts_with(prefix) && after.is_none_or(|after| name.as_str() > after);
                let room = found.len() <= limit || found.peek().is_some_and(|largest| name < largest);
                if listed && room {
                    found.push(name.clone());
                    if found.len() > limit.saturating_add(1) {
                        found.pop();
                    }
                }
            }
        }
        let mut names = found.into_sorted_vec();
        let more = names.len() > limit;
        names.truncate(limit);
        Channels { names, more }
    }

    /// See [`Broker::forget`](super::Broker::forget).
    pub fn forget(&self, channel: &Channel) {
        self.shard(channel).forget(channel);
    }

    /// Drops messages, idempotency keys and idle channels that have outlived their time. Costs by what is
    /// due, not by what there is; others get the locks and the thread in between.
    pub async fn sweep(&self) {
        for shard in &self.0.shards {
            while !shard.lock().sweep(SWEEP_STEPS) {
                tokio::task::yield_now().await;
            }
        }
    }

    /// The broker's clock: milliseconds since 1970.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.0.clock.now()
    }
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Memory")
    }
}

#[cfg(test)]
mod tests;

//! Who on this node listens to what. A topic is a channel with its members on this node; a broadcast offers
//! a batch to each member's outbox and never waits. The hub knows no broker: [`crate::gateway`] joins them.

mod batch;
mod outbox;
mod registry;

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use parking_lot::Mutex;
use slab::Slab;
use tokio::sync::OnceCell;

pub use self::{
    batch::Batch,
    outbox::{Hole, Outbox, Slot, Style},
    registry::{ConnectionId, Crowded, Registry},
};
use crate::{
    channel::{Channel, ChannelMap},
    config::Namespace,
    disconnect::Disconnect,
    gap::Gap,
    metrics::Metrics,
    wire::Prepared,
};

/// Independent locks for the map of topics.
const SHARDS: usize = 64;

/// Members offered a batch under one lock of the topic, so that who comes or goes waits no longer than this.
const SLICE: usize = 256;

/// Messages held for a member while its replay runs; beyond them it reads the history once more.
const HELD: usize = 256;

type Shard = Mutex<ChannelMap<Arc<Topic>>>;

/// See the module.
#[derive(Debug)]
pub struct Hub {
    shards: Box<[Shard]>,
}

/// A channel with its members on this node.
#[derive(Debug)]
pub struct Topic {
    channel: Channel,
    namespace: Arc<Namespace>,
    /// Filled once the broker confirmed that it listens.
    listening: OnceCell<()>,
    members: Mutex<Slab<Member>>,
    /// The oldest offset that the history kept after the last pass of the pump. A message of the running
    /// pass is never before it: who takes it at once is not slow.
    floor: AtomicU64,
}

#[derive(Debug)]
struct Member {
    outbox: Arc<Outbox>,
    slot: Slot,
    phase: Phase,
}

#[derive(Debug)]
enum Phase {
    /// Its replay runs; what comes meanwhile is held, or too much of it came.
    Held(Vec<Prepared>),
    Overrun,
    Live,
}

/// A member's key in its topic.
pub type Key = usize;

/// Whether a member that has read up to the top now hears live messages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Seam {
    /// It does, without a hole or a repetition.
    Live,
    /// More came meanwhile than is held: read on from its position and try again.
    ReadOn,
}

impl Default for Hub {
    fn default() -> Self {
        Self { shards: (0..SHARDS).map(|_| Shard::default()).collect() }
    }
}

impl Hub {
    fn shard(&self, channel: &Channel) -> &Shard {
        &self.shards[channel.shard(SHARDS)]
    }

    /// Seats an outbox in a channel, and says whether it is the first here. Messages are held for it until
    /// [`Topic::go_live`].
    pub fn enter(
        &self,
        channel: &Channel,
        namespace: &Arc<Namespace>,
        outbox: &Arc<Outbox>,
        slot: Slot,
    ) -> (Arc<Topic>, Key, bool) {
        let mut shard = self.shard(channel).lock();
        let first = !shard.contains_key(channel);
        let topic = shard.entry(channel.clone()).or_insert_with(|| Arc::new(Topic::new(channel, namespace)));
        let key = topic.members.lock().insert(Member {
            outbox: Arc::clone(outbox),
            slot,
            phase: Phase::Held(Vec::new()),
        });
        (Arc::clone(topic), key, first)
    }

    /// Takes a member out. `last` runs where nobody is left, before anybody can enter anew.
    pub fn leave(&self, topic: &Topic, key: Key, last: impl FnOnce()) {
        let mut shard = self.shard(&topic.channel).lock();
        let mut members = topic.members.lock();
        members.remove(key);
        if members.is_empty() {
            shard.remove(&topic.channel);
            last();
        }
    }

    /// The topic of a channel that somebody here listens to.
    #[must_use]
    pub fn topic(&self, channel: &Channel) -> Option<Arc<Topic>> {
        self.shard(channel).lock().get(channel).cloned()
    }

    /// Channels with a member, and members in all.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        let mut counts = (0, 0);
        for shard in &self.shards {
            let shard = shard.lock();
            counts.0 += shard.len();
            counts.1 += shard.values().map(|t| t.members.lock().len()).sum::<usize>();
        }
        counts
    }
}

impl Hub {
    /// How many listen to each channel here.
    #[must_use]
    pub fn counts(&self) -> Vec<(Channel, usize)> {
        let mut counts = Vec::new();
        for shard in &self.shards {
            counts.extend(shard.lock().iter().map(|(channel, topic)| (channel.clone(), topic.len())));
        }
        counts
    }
}

impl Topic {
    fn new(channel: &Channel, namespace: &Arc<Namespace>) -> Self {
        Self {
            channel: channel.clone(),
            namespace: Arc::clone(namespace),
            listening: OnceCell::new(),
            members: Mutex::default(),
            floor: AtomicU64::new(0),
        }
    }

    /// The channel.
    #[must_use]
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Its namespace.
    #[must_use]
    pub fn namespace(&self) -> &Arc<Namespace> {
        &self.namespace
    }

    /// Filled once the broker confirmed that it listens.
    #[must_use]
    pub fn listening(&self) -> &OnceCell<()> {
        &self.listening
    }

    /// How many listen here.
    #[must_use]
    pub fn len(&self) -> usize {
        self.members.lock().len()
    }

    /// Whether nobody listens here.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Offers a batch to every member and returns how many there were. A member that comes while this runs
    /// finds the messages in the history, which it reads after it entered.
    pub fn broadcast(&self, batch: &Batch, metrics: &Metrics) -> usize {
        let floor = self.floor.load(Relaxed);
        let mut from = 0;
        let mut count = 0;
        loop {
            let mut members = self.members.lock();
            let end = members.capacity();
            let slice = from..end.min(from + SLICE);
            for key in slice.clone() {
                if let Some(member) = members.get_mut(key) {
                    member.take(batch, floor, metrics);
                    count += 1;
                }
            }
            from = slice.end;
            if from >= end {
                return count;
            }
        }
    }

    /// What left the history is told to the members with the next batch: who still waits for it is slow.
    pub fn trimmed_to(&self, floor: u64) {
        self.floor.store(floor, Relaxed);
    }

    /// Tells every member that hears live messages of a gap. Who catches up finds it in the history.
    pub fn tell(&self, gap: Gap, metrics: &Metrics) {
        for (_, member) in self.members.lock().iter_mut() {
            match &mut member.phase {
                Phase::Live => member.outbox.tell(member.slot, &self.channel, gap, metrics),
                catching_up @ (Phase::Held(_) | Phase::Overrun) => *catching_up = Phase::Overrun,
            }
        }
    }

    /// Ends the replay of a member that has read up to the top: what was held and is newer follows at once,
    /// then what is live.
    pub fn go_live(&self, key: Key, metrics: &Metrics) -> Seam {
        let mut members = self.members.lock();
        let Some(member) = members.get_mut(key) else {
            return Seam::Live;
        };
        match std::mem::replace(&mut member.phase, Phase::Live) {
            Phase::Live => Seam::Live,
            Phase::Overrun => {
                member.phase = Phase::Held(Vec::new());
                Seam::ReadOn
            }
            Phase::Held(held) => {
                if !held.is_empty()
                    && member.outbox.offer(member.slot, &Batch::new(held), 0, metrics).is_err()
                {
                    member.phase = Phase::Held(Vec::new());
                    return Seam::ReadOn;
                }
                Seam::Live
            }
        }
    }

    /// The connections that listen here.
    #[must_use]
    pub fn outboxes(&self) -> Vec<Arc<Outbox>> {
        self.members.lock().iter().map(|(_, member)| Arc::clone(&member.outbox)).collect()
    }
}

impl Member {
    fn take(&mut self, batch: &Batch, floor: u64, metrics: &Metrics) {
        match &mut self.phase {
            Phase::Live => {
                if self.outbox.offer(self.slot, batch, floor, metrics).is_err() {
                    // It comes back with its position, and is told what is missing.
                    self.outbox.end(Disconnect::Internal);
                }
            }
            Phase::Held(held) if held.len() + batch.messages().len() > HELD => self.phase = Phase::Overrun,
            Phase::Held(held) => held.extend_from_slice(batch.messages()),
            Phase::Overrun => {}
        }
    }
}

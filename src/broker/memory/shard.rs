//! The channels, listeners and idempotency keys that share a lock.

use std::{cmp::Reverse, collections::BinaryHeap, sync::Arc};

use super::{keys::Keys, log::Log};
use crate::{
    broker::{BrokerError, BrokerEvent, Info, Page, Replay, idempotency::Digest},
    channel::{Channel, ChannelMap, ChannelSet},
    clock::Clock,
    config::History,
    position::{Position, Since},
    publication::{Draft, Publication, Receipt},
    resume::{LogView, resume},
};

/// A part of the broker. Its owner holds the lock; the clock is read under it, so that within a channel
/// time never goes back.
pub(super) struct Shard {
    clock: Clock,
    logs: ChannelMap<Log>,
    listened: ChannelSet,
    keys: Keys,
    /// When to look at which channel for something to drop: one entry for each log.
    looks: BinaryHeap<Reverse<(u64, Channel)>>,
    /// See [`LogView::vouch_from`]: the start, or what was forgotten since.
    vouch_from: u64,
}

impl Shard {
    /// It vouches for nothing before the second after this one: positions that an earlier life handed
    /// out in the same second must not look complete. (Two starts within one second look alike.)
    pub(super) fn new(clock: Clock) -> Self {
        Self {
            vouch_from: clock.now() / 1000 + 1,
            clock,
            logs: ChannelMap::default(),
            listened: ChannelSet::default(),
            keys: Keys::default(),
            looks: BinaryHeap::new(),
        }
    }

    /// The second of an empty channel's position: never one that [`LogView::vouch_from`] bars, even in the
    /// first second of this life.
    fn second(&self, now: u64) -> u64 {
        (now / 1000).max(self.vouch_from)
    }

    /// Stores a message; with an event where it is new and somebody listens.
    pub(super) fn publish(
        &mut self,
        channel: &Channel,
        history: &History,
        draft: Draft,
        digest: Option<Digest>,
    ) -> Result<(Receipt, Option<BrokerEvent>), BrokerError> {
        let now = self.clock.now();
        let key = draft.idempotency_key.clone().zip(digest);
        if let Some((key, digest)) = &key
            && let Some((position, first)) = self.keys.recall(channel, key, now)
        {
            let duplicate = Receipt { position, duplicate: true };
            return if first == *digest { Ok((duplicate, None)) } else { Err(BrokerError::KeyReused) };
        }
        let (publication, floor) = self.append(channel, history, draft, now);
        let position = publication.position();
        if let Some((key, digest)) = key {
            self.keys.remember(channel, key, (position, digest), now);
        }
        let receipt = Receipt { position, duplicate: false };
        let event = BrokerEvent::Published { publication, floor };
        Ok((receipt, self.listened.contains(channel).then_some(event)))
    }

    fn append(
        &mut self,
        channel: &Channel,
        history: &History,
        draft: Draft,
        now: u64,
    ) -> (Arc<Publication>, u64) {
        if let Some(log) = self.logs.get_mut(channel) {
            return (log.append(channel, history, draft, now), log.floor());
        }
        let mut log = Log::begin(self.second(now), self.vouch_from);
        let publication = log.append(channel, history, draft, now);
        let floor = log.floor();
        self.looks.push(Reverse((log.next_look(now), channel.clone())));
        self.logs.insert(channel.clone(), log);
        (publication, floor)
    }

    pub(super) fn listen(&mut self, channel: &Channel) -> Position {
        self.listened.insert(channel.clone());
        self.top(channel, self.clock.now())
    }

    pub(super) fn unlisten(&mut self, channel: &Channel) {
        self.listened.remove(channel);
    }

    fn top(&self, channel: &Channel, now: u64) -> Position {
        let log = self.logs.get(channel);
        log.map_or_else(|| Position::Empty(self.second(now)), Log::top)
    }

    pub(super) fn read(&mut self, channel: &Channel, history: &History, since: &Since, page: Page) -> Replay {
        let now = self.clock.now();
        let second = self.second(now);
        let Some(log) = self.logs.get_mut(channel) else {
            return Replay {
                start: resume(since, &unused(second, self.vouch_from)),
                messages: Vec::new(),
                more: false,
                top: Position::Empty(second),
            };
        };
        log.trim(history, now);
        let log = &*log;
        let oldest_since = |second| log.oldest_since(second);
        let start = resume(since, &log.view(second, &oldest_since));
        let (messages, more) = log.page(start.after.offset(), page);
        Replay { start, messages, more, top: log.top() }
    }

    pub(super) fn info(&mut self, channel: &Channel, history: &History) -> Info {
        let now = self.clock.now();
        let messages = self.logs.get_mut(channel).map_or(0, |log| {
            log.trim(history, now);
            log.kept()
        });
        Info { position: self.top(channel, now), messages }
    }

    /// The channels that keep a message, in no order.
    pub(super) fn names(&self) -> impl Iterator<Item = &Channel> {
        let now = self.clock.now();
        let alive = self.logs.iter().filter(move |(_, log)| log.is_alive(now));
        alive.map(|(name, _)| name)
    }

    pub(super) fn forget(&mut self, channel: &Channel) {
        if let Some(log) = self.logs.get_mut(channel) {
            log.delete();
        }
    }

    /// Looks at no more than `steps` of what is due; whether that was all of it.
    pub(super) fn sweep(&mut self, steps: usize) -> bool {
        let now = self.clock.now();
        for _ in 0..steps {
            match self.looks.pop() {
                Some(Reverse((due, channel))) if due <= now => self.look_at(channel, now),
                later => {
                    self.looks.extend(later);
                    return self.keys.forget(now, steps);
                }
            }
        }
        false
    }

    fn look_at(&mut self, channel: Channel, now: u64) {
        let Some(log) = self.logs.get_mut(&channel) else {
            return;
        };
        log.trim_by_age(now);
        if log.has_outlived_its_memory(now) && !self.listened.contains(&channel) {
            self.vouch_from = self.vouch_from.max(log.forgotten_before());
            self.logs.remove(&channel);
        } else {
            self.looks.push(Reverse((log.next_look(now), channel)));
        }
    }

    #[cfg(test)]
    pub(super) fn sizes(&self) -> [usize; 4] {
        [self.logs.len(), self.listened.len(), self.keys.len(), self.looks.len()]
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.logs.values().map(Log::bytes).sum()
    }
}

/// A channel of which nothing is known.
fn unused(now: u64, vouch_from: u64) -> LogView<'static> {
    LogView {
        epoch: None,
        top: 0,
        floor: 1,
        deleted_to: 0,
        past: &[],
        now,
        began: 0,
        vouch_from,
        removed: 0,
        oldest_since: &|_| 1,
    }
}

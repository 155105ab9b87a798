//! Idempotency keys: what was published with a key within the last minutes.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use crate::{
    broker::idempotency::{Digest, LIFE},
    channel::Channel,
    position::Position,
    publication::IdempotencyKey,
};

/// Forgotten with each key that is remembered: more than one, so that a crowd of them melts.
const FORGOTTEN_AT_ONCE: usize = 4;

/// The keys of a shard.
#[derive(Default)]
pub(super) struct Keys {
    known: HashMap<Arc<Key>, Known>,
    /// By age, with the time at which each ends.
    ends: VecDeque<(u64, Arc<Key>)>,
}

#[derive(PartialEq, Eq, Hash)]
struct Key {
    channel: Channel,
    key: IdempotencyKey,
}

struct Known {
    digest: Digest,
    position: Position,
    ends: u64,
}

impl Keys {
    /// What was first published with the key.
    pub(super) fn recall(
        &self,
        channel: &Channel,
        key: &IdempotencyKey,
        now: u64,
    ) -> Option<(Position, Digest)> {
        let key = Key { channel: channel.clone(), key: key.clone() };
        let known = self.known.get(&key).filter(|known| known.ends > now)?;
        Some((known.position, known.digest))
    }

    /// Remembers what is published with the key.
    pub(super) fn remember(
        &mut self,
        channel: &Channel,
        key: IdempotencyKey,
        (position, digest): (Position, Digest),
        now: u64,
    ) {
        self.forget(now, FORGOTTEN_AT_ONCE);
        let channel = channel.clone();
        let key = Arc::new(Key { channel, key });
        let ends = now + LIFE;
        self.ends.push_back((ends, key.clone()));
        let known = Known { digest, position, ends };
        self.known.insert(key, known);
    }

    /// Forgets at most `steps` keys that have ended; whether that was all of them.
    pub(super) fn forget(&mut self, now: u64, steps: usize) -> bool {
        for _ in 0..steps {
            let Some((_, key)) = self.ends.pop_front_if(|(ends, _)| *ends <= now) else {
                self.shrink();
                return true;
            };
            // A key that was used again after its end stands in the queue twice.
            if self.known.get(&key).is_some_and(|known| known.ends <= now) {
                self.known.remove(&key);
            }
        }
        false
    }

    /// Gives the room of a burst back once it is over.
    fn shrink(&mut self) {
        if self.known.is_empty() && self.known.capacity() > 0 {
            *self = Self::default();
        }
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.ends.len().max(self.known.len())
    }
}

//! Every connection of this node by its id, so that one, or those of one
//! subject, can be ended, and all be sent away.

use std::{
    collections::{HashMap, hash_map},
    fmt,
    str::FromStr,
    sync::Arc,
};

use parking_lot::Mutex;

use super::Outbox;

/// A connection's id: random, so that ids of several nodes and lives do not meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// A fresh one.
    #[must_use]
    pub fn random() -> Self {
        Self(fastrand::u64(..))
    }
}

impl fmt::Display for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

impl FromStr for ConnectionId {
    type Err = std::num::ParseIntError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        u64::from_str_radix(text, 16).map(Self)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub struct Registry(Mutex<Entered>);

#[derive(Debug, Default)]
struct Entered {
    connections: HashMap<ConnectionId, Entry>,
    /// The connections of each subject that has any.
    subjects: HashMap<Arc<str>, Vec<ConnectionId>>,
}

#[derive(Debug)]
struct Entry {
    outbox: Arc<Outbox>,
    subject: Option<Arc<str>>,
}

/// A subject has as many connections as it may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Crowded;

impl Registry {
    /// Enters a connection under a fresh id.
    pub fn enter(&self, outbox: &Arc<Outbox>) -> ConnectionId {
        let id = ConnectionId::random();
        self.0.lock().connections.insert(id, Entry { outbox: Arc::clone(outbox), subject: None });
        id
    }

    /// Says whose a connection is, of whom there may be `limit`.
    ///
    /// # Errors
    /// There are as many; then it stays nobody's.
    pub fn name(&self, id: ConnectionId, subject: &str, limit: Option<usize>) -> Result<(), Crowded> {
        let mut guard = self.0.lock();
        let Entered { connections, subjects } = &mut *guard;
        let Some(entry) = connections.get_mut(&id).filter(|entry| entry.subject.is_none()) else {
            return Ok(());
        };
        let known = subjects.get_key_value(subject);
        if known.is_some_and(|(_, ids)| limit.is_some_and(|limit| ids.len() >= limit)) {
            return Err(Crowded);
        }
        let subject = known.map_or_else(|| Arc::from(subject), |(subject, _)| Arc::clone(subject));
        entry.subject = Some(Arc::clone(&subject));
        subjects.entry(subject).or_default().push(id);
        Ok(())
    }

    /// Takes a connection out.
    pub fn leave(&self, id: ConnectionId) {
        let mut guard = self.0.lock();
        let Entered { connections, subjects } = &mut *guard;
        let subject = connections.remove(&id).and_then(|entry| entry.subject);
        if let Some(hash_map::Entry::Occupied(mut ids)) = subject.map(|subject| subjects.entry(subject)) {
            ids.get_mut().retain(|other| *other != id);
            if ids.get().is_empty() {
                ids.remove();
            }
        }
    }

    /// The connection, while it lives.
    #[must_use]
    pub fn get(&self, id: ConnectionId) -> Option<Arc<Outbox>> {
        self.0.lock().connections.get(&id).map(|entry| Arc::clone(&entry.outbox))
    }

    /// The connections of a subject.
    #[must_use]
    pub fn of(&self, subject: &str) -> Vec<Arc<Outbox>> {
        let entered = self.0.lock();
        let ids = entered.subjects.get(subject).into_iter().flatten();
        ids.filter_map(|id| entered.connections.get(id)).map(|entry| Arc::clone(&entry.outbox)).collect()
    }

    /// Every connection there is now.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Outbox>> {
        self.0.lock().connections.values().map(|entry| Arc::clone(&entry.outbox)).collect()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.lock().connections.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        hub::Style,
        transport_name::Transport,
        wire::{Encoding, Framing},
    };

    #[test]
    fn a_subject_has_its_connections_up_to_the_limit_and_nothing_is_left_of_it() {
        let style = Style {
            transport: Transport::Ndjson,
            encoding: Encoding::Ndjson { raw: false },
            framing: Framing::Plain,
            many: false,
        };
        let registry = Registry::default();
        let enter = || registry.enter(&Arc::new(Outbox::new(style, 1024, 0)));
        let [first, second, third, nobody] = std::array::from_fn(|_| enter());
        assert_eq!(registry.name(first, "ann", Some(2)), Ok(()));
        assert_eq!(registry.name(second, "ann", Some(2)), Ok(()));
        assert_eq!(registry.name(third, "ann", Some(2)), Err(Crowded));
        assert_eq!(registry.name(third, "bob", Some(2)), Ok(()));
        assert_eq!((registry.of("ann").len(), registry.of("bob").len(), registry.of("").len()), (2, 1, 0));
        registry.leave(first);
        assert_eq!(registry.of("ann").len(), 1);
        let again = enter();
        assert_eq!(registry.name(again, "ann", Some(2)), Ok(()));
        assert_eq!(registry.name(again, "bob", Some(2)), Ok(()), "whose it is does not change");
        assert_eq!(registry.of("bob").len(), 1);
        for id in [second, third, nobody, again] {
            registry.leave(id);
        }
        assert!(registry.is_empty() && registry.0.lock().subjects.is_empty());
    }
}

//! Every connection of this node by its id, so that one can be ended, and all be sent away.

use std::{collections::HashMap, fmt, str::FromStr, sync::Arc};

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
pub struct Registry {
    connections: Mutex<HashMap<ConnectionId, Arc<Outbox>>>,
}

impl Registry {
    /// Enters a connection under a fresh id.
    pub fn enter(&self, outbox: &Arc<Outbox>) -> ConnectionId {
        let id = ConnectionId::random();
        self.connections.lock().insert(id, Arc::clone(outbox));
        id
    }

    /// Takes a connection out.
    pub fn leave(&self, id: ConnectionId) {
        self.connections.lock().remove(&id);
    }

    /// The connection, while it lives.
    #[must_use]
    pub fn get(&self, id: ConnectionId) -> Option<Arc<Outbox>> {
        self.connections.lock().get(&id).cloned()
    }

    /// Every connection there is now.
    #[must_use]
    pub fn all(&self) -> Vec<Arc<Outbox>> {
        self.connections.lock().values().cloned().collect()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.connections.lock().len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

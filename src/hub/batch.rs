//! Messages of one channel that leave together, with the bytes that most members share.

use std::sync::OnceLock;

use bytes::Bytes;

use crate::{
    position::Position,
    wire::{Encoding, Framing, Prepared},
};

/// One or more messages in order; joined at most once for each encoding.
#[derive(Debug)]
pub struct Batch {
    messages: Vec<Prepared>,
    live: bool,
    joined: [OnceLock<Bytes>; Encoding::COUNT * 2],
}

impl Batch {
    /// Messages that were just published: of one channel, in order, and not empty.
    #[must_use]
    pub fn new(messages: Vec<Prepared>) -> Self {
        debug_assert!(!messages.is_empty());
        Self { messages, live: true, joined: Default::default() }
    }

    /// Messages of the history: their age says when their client came back, not how long they were on the way.
    #[must_use]
    pub fn replayed(messages: Vec<Prepared>) -> Self {
        Self { live: false, ..Self::new(messages) }
    }

    /// Whether they were just published.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.live
    }

    /// The messages.
    #[must_use]
    pub fn messages(&self) -> &[Prepared] {
        &self.messages
    }

    /// All of them, written down one after the other.
    #[must_use]
    pub fn joined(&self, encoding: Encoding, framing: Framing) -> &Bytes {
        let slot = encoding.index() * 2 + framing as usize;
        self.joined[slot].get_or_init(|| match self.messages.as_slice() {
            [message] => message.bytes(encoding, framing),
            many => {
                let pieces: Vec<Bytes> = many.iter().map(|m| m.bytes(encoding, framing)).collect();
                pieces.concat().into()
            }
        })
    }

    /// The id of the newest.
    #[must_use]
    pub fn last_position(&self) -> Position {
        let last = self.messages.last();
        last.map_or(Position::Empty(0), |m| m.publication().position())
    }

    /// When the oldest was published, in ms since 1970; `None` for those of the history.
    #[must_use]
    pub fn published(&self) -> Option<u64> {
        self.messages.first().filter(|_| self.live).map(|m| m.publication().time)
    }
}

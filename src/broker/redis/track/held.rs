//! Messages that came while it was not certain that they are next.
//!
//! Bounded: beyond the bound new ones are dropped and [`Held::is_overrun`] says so, upon which the log is read
//! once more. A read covers all that came before it was asked for ([`Held::ask`]), dropped ones too; what
//! came later is *fresh*.

use std::{collections::VecDeque, sync::Arc};

use crate::{position::Epoch, publication::Publication};

/// Messages that one channel holds at most; few in tests, so that the simulation gets there.
pub(super) const MESSAGES: usize = if cfg!(test) { 4 } else { 256 };

/// Bytes that one channel holds at most, but for one message that is larger alone.
const BYTES: usize = 256 * 1024;

/// A message, and the oldest offset that the history keeps after it.
#[derive(Clone, Debug)]
pub(super) struct Heard {
    pub(super) message: Arc<Publication>,
    pub(super) floor: u64,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Held {
    heard: VecDeque<Heard>,
    bytes: usize,
    /// How many, from the front, came before the last read was asked for.
    covered: usize,
    overrun: bool,
}

impl Held {
    pub(super) fn push(&mut self, message: Publication, floor: u64) {
        let bytes = self.bytes + message.size();
        if self.heard.len() >= MESSAGES || (bytes > BYTES && !self.heard.is_empty()) {
            self.overrun = true;
            return;
        }
        self.bytes = bytes;
        self.heard.push_back(Heard { message: Arc::new(message), floor });
    }

    /// A read is asked for: it will have seen all that came until now.
    pub(super) fn ask(&mut self) {
        self.covered = self.heard.len();
        self.overrun = false;
    }

    /// The read that was asked for is given up.
    pub(super) fn distrust(&mut self) {
        self.covered = 0;
    }

    /// Something came that is not here, and no read was asked for since.
    pub(super) fn overrun(&mut self) {
        self.overrun = true;
    }

    pub(super) fn is_overrun(&self) -> bool {
        self.overrun
    }

    pub(super) fn first(&self) -> Option<&Publication> {
        self.heard.front().map(|heard| &*heard.message)
    }

    /// Drops what the answer to the last read has seen: where it did not say it, it knew better.
    pub(super) fn drop_covered(&mut self) {
        while self.covered > 0 && self.pop().is_some() {}
    }

    pub(super) fn pop(&mut self) -> Option<Heard> {
        let heard = self.heard.pop_front()?;
        self.bytes -= heard.message.size();
        self.covered = self.covered.saturating_sub(1);
        Some(heard)
    }

    /// Those of `epoch` up to `offset`, in order; they stay here.
    pub(super) fn up_to(&self, epoch: Epoch, offset: u64) -> Vec<Heard> {
        let wanted = |heard: &&Heard| heard.message.epoch == epoch && heard.message.offset <= offset;
        let mut found: Vec<_> = self.heard.iter().filter(wanted).cloned().collect();
        found.sort_by_key(|heard| heard.message.offset);
        found
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    #[cfg(test)]
    pub(super) fn size(&self) -> (usize, usize) {
        (self.heard.len(), self.bytes)
    }
}

//! The recent messages of one channel that this node has seen: what most of those who come back are
//! answered from.
//!
//! Invariants: the messages are those of one epoch from [`Mirror::oldest`] to the top, without a hole; none
//! was deleted, as far as this node was told; together they are within the [`Budget`]. It knows offsets only:
//! its owner empties it when the epoch changes, or when something may have been deleted unheard.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    broker::{Page, Replay},
    clock::millis,
    config::History,
    publication::Publication,
};

/// What one channel's mirror holds at most.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Messages.
    pub messages: usize,
    /// Bytes of payloads and events.
    pub bytes: usize,
}

impl Default for Budget {
    fn default() -> Self {
        Self { messages: 1000, bytes: 64 * 1024 }
    }
}

/// See the module.
#[derive(Debug)]
pub(super) struct Mirror {
    kept: VecDeque<Arc<Publication>>,
    /// Of the messages kept.
    bytes: usize,
    top: u64,
    /// The oldest offset that the broker keeps, age apart; where [`Mirror::floor_is_known`] is unset it may
    /// be higher.
    floor: u64,
    floor_is_known: bool,
    /// The highest offset that a DELETE removed.
    deleted_to: u64,
    budget: Budget,
}

impl Mirror {
    pub(super) fn new(budget: Budget) -> Self {
        Self {
            kept: VecDeque::new(),
            bytes: 0,
            top: 0,
            floor: 0,
            floor_is_known: false,
            deleted_to: 0,
            budget,
        }
    }

    /// Goes on after `top` in another epoch.
    pub(super) fn begin(&mut self, top: u64) {
        *self = Self { top, ..Self::new(self.budget) };
    }

    /// Goes on after `top` in the same epoch, having missed what was before it.
    pub(super) fn skip_to(&mut self, top: u64) {
        self.empty();
        self.top = top;
    }

    /// Something may have been deleted, or may be, without this node being told.
    pub(super) fn distrust(&mut self) {
        self.empty();
        self.floor_is_known = false;
    }

    fn empty(&mut self) {
        self.kept = VecDeque::new();
        self.bytes = 0;
    }

    /// The oldest offset here; the next one where nothing is.
    pub(super) fn oldest(&self) -> u64 {
        self.top + 1 - self.kept.len() as u64
    }

    pub(super) fn top(&self) -> u64 {
        self.top
    }

    /// The oldest offset that the broker keeps, as far as this node knows.
    pub(super) fn floor(&self) -> u64 {
        self.floor
    }

    /// Takes the message after the top.
    pub(super) fn push(&mut self, message: Arc<Publication>) {
        self.top = message.offset;
        self.bytes += message.size();
        self.kept.push_back(message);
        self.trim(self.budget.messages, self.budget.bytes);
    }

    /// Removes the oldest until what is left is within the bounds.
    pub(super) fn trim(&mut self, messages: usize, bytes: usize) {
        while self.kept.len() > messages || self.bytes > bytes {
            self.remove_oldest();
        }
    }

    /// The broker keeps nothing older than `floor`. It may have kept less for a while than it keeps now, but
    /// what it removed it does not get back.
    pub(super) fn trim_to(&mut self, floor: u64) {
        self.floor = self.floor.max(floor);
        self.floor_is_known = true;
        while self.oldest() < self.floor && !self.kept.is_empty() {
            self.remove_oldest();
        }
    }

    /// A DELETE removed all up to `offset`.
    pub(super) fn forget(&mut self, offset: u64) {
        self.deleted_to = self.deleted_to.max(offset);
        self.floor = self.floor.max(offset + 1);
        while self.oldest() <= offset && !self.kept.is_empty() {
            self.remove_oldest();
        }
    }

    /// Removes what has outlived its time.
    pub(super) fn expire(&mut self, now_ms: u64, history: &History) {
        for _ in 0..self.expired(now_ms, history) {
            self.remove_oldest();
        }
        if self.kept.is_empty() {
            self.empty();
        }
    }

    fn remove_oldest(&mut self) {
        if let Some(oldest) = self.kept.pop_front() {
            self.bytes -= oldest.size();
        }
    }

    /// How many have outlived their time; they are the oldest.
    fn expired(&self, now_ms: u64, history: &History) -> usize {
        let age = millis(history.age);
        self.kept.iter().take_while(|message| message.time.saturating_add(age) <= now_ms).count()
    }

    /// The oldest offset here that has not outlived its time; the next one where none is.
    pub(super) fn alive_from(&self, now_ms: u64, history: &History) -> u64 {
        self.oldest() + self.expired(now_ms, history) as u64
    }

    /// Whether the broker keeps nothing that is not here.
    pub(super) fn is_whole(&self) -> bool {
        self.floor_is_known && self.oldest() <= self.floor
    }

    /// The messages after an offset that fit on a page, at least one; and whether more are here.
    pub(super) fn page(&self, after: u64, page: Page) -> (Vec<Arc<Publication>>, bool) {
        let skipped = usize::try_from((after + 1).saturating_sub(self.oldest())).unwrap_or(usize::MAX);
        page.cut(self.kept.range(skipped.min(self.kept.len())..))
    }

    /// Takes from `replay`, of the same epoch, what is next below the oldest here, as far as the budget goes.
    pub(super) fn fill(&mut self, replay: &Replay) {
        let lowest = self.floor.max(self.deleted_to + 1);
        for message in replay.messages.iter().rev() {
            let over = self.kept.len() == self.budget.messages
                || self.bytes + message.size() > self.budget.bytes
                || message.offset < lowest;
            if message.offset >= self.oldest() {
                continue;
            }
            if over || message.offset + 1 != self.oldest() {
                break;
            }
            self.bytes += message.size();
            self.kept.push_front(Arc::clone(message));
        }
    }
}

#[cfg(test)]
mod tests;

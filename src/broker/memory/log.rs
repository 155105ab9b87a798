//! One channel's messages and counting.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    broker::Page,
    channel::Channel,
    clock::millis,
    config::History,
    position::{Epoch, Position},
    publication::{Draft, Publication},
    resume::LogView,
};

/// How long a channel's epoch and top are remembered after its last message expired: 24 h, in
/// milliseconds.
pub(super) const MEMORY: u64 = 24 * 60 * 60 * 1000;

/// How often an idle channel is looked at, at most: once a minute, in milliseconds.
const IDLE_LOOK: u64 = 60 * 1000;

/// A channel that was published to.
pub(super) struct Log {
    epoch: Epoch,
    /// The newest offset; without gaps, `kept` are the newest ones up to it.
    top: u64,
    kept: VecDeque<Arc<Publication>>,
    /// Of the messages kept.
    bytes: usize,
    deleted_to: u64,
    /// Milliseconds, of the newest message; 0 before the first.
    last: u64,
    /// Milliseconds, of the newest message removed; 0 where none was.
    removed: u64,
    /// See [`LogView::began`] and [`LogView::vouch_from`].
    began: u64,
    vouch_from: u64,
    /// The history's age in milliseconds, as it was last said.
    age: u64,
}

impl Log {
    /// A channel that begins, in a second that a position of it as empty would bear.
    pub(super) fn begin(second: u64, vouch_from: u64) -> Self {
        Self {
            epoch: Epoch::random(),
            top: 0,
            kept: VecDeque::new(),
            bytes: 0,
            deleted_to: 0,
            last: 0,
            removed: 0,
            began: second,
            vouch_from,
            age: 0,
        }
    }

    pub(super) fn top(&self) -> Position {
        Position::At(self.epoch, self.top)
    }

    /// Counts a message, and keeps it as far as `history` allows.
    pub(super) fn append(
        &mut self,
        channel: &Channel,
        history: &History,
        draft: Draft,
        now: u64,
    ) -> Arc<Publication> {
        self.top += 1;
        self.last = self.last.max(now);
        let publication = Arc::new(Publication {
            channel: channel.clone(),
            epoch: self.epoch,
            offset: self.top,
            time: self.last,
            event: draft.event,
            payload: draft.payload,
            trace: draft.trace.map(Box::new),
        });
        self.bytes += publication.size();
        self.kept.push_back(publication.clone());
        self.trim(history, now);
        publication
    }

    /// Removes what is too much, too large or too old. A message larger than the bytes of the whole
    /// history is not kept, nor is anything before it.
    pub(super) fn trim(&mut self, history: &History, now: u64) {
        while self.kept.len() > history.messages || self.bytes > history.bytes {
            self.remove_oldest();
        }
        self.age = millis(history.age);
        self.trim_by_age(now);
    }

    pub(super) fn trim_by_age(&mut self, now: u64) {
        while self.kept.front().is_some_and(|oldest| ends(oldest, self.age) <= now) {
            self.remove_oldest();
        }
        if self.kept.is_empty() {
            self.kept.shrink_to_fit();
        }
    }

    fn remove_oldest(&mut self) {
        if let Some(oldest) = self.kept.pop_front() {
            self.bytes -= oldest.size();
            self.removed = oldest.time;
        }
    }

    /// Removes all, as a DELETE does.
    pub(super) fn delete(&mut self) {
        if let Some(newest) = self.kept.back() {
            self.deleted_to = self.top;
            self.removed = newest.time;
            self.bytes = 0;
            self.kept = VecDeque::new();
        }
    }

    pub(super) fn kept(&self) -> u64 {
        self.kept.len() as u64
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Whether a message is kept that has not expired.
    pub(super) fn is_alive(&self, now: u64) -> bool {
        self.kept.back().is_some_and(|newest| ends(newest, self.age) > now)
    }

    /// What [`resume`](crate::resume::resume) needs to know; `second` is the one that the position of an
    /// empty channel bears now.
    pub(super) fn view<'a>(&self, second: u64, oldest_since: &'a dyn Fn(u64) -> u64) -> LogView<'a> {
        LogView {
            epoch: Some(self.epoch),
            top: self.top,
            floor: self.floor(),
            deleted_to: self.deleted_to,
            past: &[],
            now: second,
            began: self.began,
            vouch_from: self.vouch_from,
            removed: self.removed / 1000,
            oldest_since,
        }
    }

    /// The oldest offset kept; the next one where none is.
    pub(super) fn floor(&self) -> u64 {
        self.top + 1 - self.kept()
    }

    /// The offset of the oldest message kept that was published in or after `second`.
    pub(super) fn oldest_since(&self, second: u64) -> u64 {
        let before = self.kept.partition_point(|message| message.time / 1000 < second);
        self.floor() + before as u64
    }

    /// The messages after an offset that fit on a page, at least one; and whether more are kept.
    pub(super) fn page(&self, after: u64, page: Page) -> (Vec<Arc<Publication>>, bool) {
        let skipped = usize::try_from((after + 1).saturating_sub(self.floor())).unwrap_or(usize::MAX);
        page.cut(self.kept.range(skipped.min(self.kept.len())..))
    }

    /// When to look for something to drop again. Readers never see an expired message, so this may be
    /// late: a busy channel is then looked at 16 times in its age instead of every second, and an idle
    /// one needs no earlier entry when it is published to again.
    pub(super) fn next_look(&self, now: u64) -> u64 {
        match self.kept.front() {
            Some(oldest) => ends(oldest, self.age).saturating_add(self.age / 16),
            None => now.saturating_add(self.age.clamp(IDLE_LOOK, MEMORY)),
        }
    }

    /// Whether nothing is kept, and the newest message expired long enough ago to forget the channel.
    pub(super) fn has_outlived_its_memory(&self, now: u64) -> bool {
        let end = self.last.saturating_add(self.age).saturating_add(MEMORY);
        self.kept.is_empty() && end <= now
    }

    /// The first second for which a broker can vouch that has forgotten this channel: one later than
    /// every position that was handed out before it began, and than its messages.
    pub(super) fn forgotten_before(&self) -> u64 {
        self.began.max(self.last / 1000) + 1
    }
}

/// When a message expires.
fn ends(message: &Publication, age: u64) -> u64 {
    message.time.saturating_add(age)
}

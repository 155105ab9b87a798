//! A listened channel that other programs feed by their own `PUBLISH`. It has no log: this node counts, each
//! doubt begins another epoch, and what the mirror does not reach is told as a gap `link`.
//!
//! Invariants: within an epoch nothing was lost and nothing is missing; an epoch ends at each doubt, and the
//! next one begins with the gap that says so, before any message of it. From a doubt to the confirmation
//! messages are passed over: they are in that gap.

use std::sync::Arc;

use super::{Budget, Step, mirror::Mirror};
use crate::{
    broker::{Page, Replay},
    channel::Channel,
    config::History,
    gap::{Gap, GapReason, Recovery},
    position::{Epoch, Position, Since},
    publication::{Payload, Publication},
    resume::{LogView, Start, resume},
};

/// See the module.
#[derive(Debug)]
pub struct PlainTrack {
    channel: Channel,
    epoch: Epoch,
    /// Of this epoch a subscriber may know.
    is_begun: bool,
    is_live: bool,
    /// Milliseconds, of the newest message.
    last: u64,
    mirror: Mirror,
}

impl PlainTrack {
    /// A channel that is about to be subscribed to.
    #[must_use]
    pub fn joining(channel: Channel, budget: Budget) -> Self {
        Self {
            channel,
            epoch: Epoch::random(),
            is_begun: false,
            is_live: false,
            last: 0,
            mirror: Mirror::new(budget),
        }
    }

    /// What a subscriber holds who heard everything.
    #[must_use]
    pub fn position(&self) -> Position {
        Position::At(self.epoch, self.mirror.top())
    }

    /// Messages may be lost until the next confirmation.
    pub fn doubt(&mut self) {
        self.is_live = false;
    }

    /// The subscription is confirmed: what is published from now on comes, until the next doubt.
    pub fn confirmed(&mut self, steps: &mut Vec<Step>) {
        if self.is_live {
            return;
        }
        self.is_live = true;
        if std::mem::replace(&mut self.is_begun, true) {
            let from = self.position();
            self.epoch = Epoch::random();
            self.mirror.begin(0);
            steps.push(Step::Gap(Gap { reason: GapReason::Link, from, to: self.position() }));
        }
    }

    /// A message came through the link, at this time of the broker's clock.
    pub fn message(&mut self, payload: Payload, now_ms: u64, history: &History, steps: &mut Vec<Step>) {
        if !self.is_live {
            return;
        }
        self.last = self.last.max(now_ms);
        let publication = Arc::new(Publication {
            channel: self.channel.clone(),
            epoch: self.epoch,
            offset: self.mirror.top() + 1,
            time: self.last,
            event: None,
            payload,
            trace: None,
        });
        self.mirror.push(Arc::clone(&publication));
        self.mirror.trim(history.messages, history.bytes);
        self.mirror.expire(now_ms, history);
        steps.push(Step::Deliver { publication, floor: self.mirror.oldest() });
    }

    /// Where `since` starts: complete where the recent messages reach it, and else after the newest one,
    /// with a gap.
    #[must_use]
    pub fn answer(&self, since: &Since, page: Page, now_ms: u64, history: &History) -> Replay {
        let top = self.position();
        let oldest = self.mirror.alive_from(now_ms, history);
        let start = match *since {
            Since::Position(position) if !self.reaches(position, oldest) => Start {
                position,
                after: top,
                gap: Some(Gap { reason: GapReason::Link, from: position, to: top }),
                recovery: Recovery::Gap,
            },
            _ => resume(since, &self.view(oldest)),
        };
        let (messages, more) = self.mirror.page(start.after.offset(), page);
        Replay { start, messages, more, top }
    }

    fn reaches(&self, position: Position, oldest: u64) -> bool {
        let Position::At(epoch, offset) = position else {
            return false;
        };
        epoch == self.epoch && offset <= self.mirror.top() && offset + 1 >= oldest
    }

    fn view(&self, floor: u64) -> LogView<'static> {
        LogView {
            epoch: Some(self.epoch),
            top: self.mirror.top(),
            floor,
            deleted_to: 0,
            past: &[],
            now: 0,
            began: 0,
            vouch_from: 0,
            removed: 0,
            oldest_since: &|_| 0,
        }
    }

    /// Drops what has outlived its time from the mirror. To be called now and then.
    pub fn sweep(&mut self, now_ms: u64, history: &History) {
        self.mirror.expire(now_ms, history);
    }
}

#[cfg(test)]
mod tests;

//! What waits for one client: the queue and its count, where each channel stands, and the rules for a reader
//! who is slow. Touches no socket.

use std::{collections::VecDeque, io, sync::Arc, task::Waker};

use bytes::{Buf as _, Bytes};

use super::Slot;
use crate::{
    config::{Namespace, Slow},
    disconnect::Disconnect,
    metrics::Metrics,
    position::Position,
    transport_name::Transport,
};

#[derive(Debug, Default)]
pub(super) struct State {
    pub(super) queue: VecDeque<Entry>,
    /// Bytes in the queue.
    pub(super) waiting: usize,
    /// Some bytes of the front entry are out: it must be finished or the client reads garbage.
    pub(super) torn: bool,
    slots: Vec<Option<Seat>>,
    pub(super) ending: Option<Disconnect>,
    /// Only what [`super::Outbox::finish`] hands in is still taken.
    pub(super) sealed: bool,
    /// The connection's task.
    pub(super) task: Option<Waker>,
    /// Who takes from the queue where an HTTP library writes.
    pub(super) taker: Option<Waker>,
}

#[derive(Debug)]
struct Seat {
    /// All up to here was handed over.
    position: Position,
    namespace: Arc<Namespace>,
}

#[derive(Debug)]
pub(super) struct Entry {
    pub(super) bytes: Bytes,
    pub(super) meaning: Meaning,
}

/// What an entry says.
#[derive(Clone, Copy, Debug)]
pub(super) enum Meaning {
    /// Nothing of a channel's messages.
    Control,
    Message(Mark),
    Gap(Break),
}

/// Where a channel's messages do not follow on one another.
#[derive(Clone, Copy, Debug)]
pub(super) struct Break {
    pub(super) slot: Slot,
    /// Where the channel stood before it.
    pub(super) from: Position,
    /// Whether a poll is answered by it alone.
    pub(super) answers: bool,
}

impl Entry {
    fn message(&self) -> Option<Mark> {
        match self.meaning {
            Meaning::Message(mark) => Some(mark),
            Meaning::Control | Meaning::Gap(_) => None,
        }
    }
}

/// Which message an entry is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Mark {
    pub(super) slot: Slot,
    pub(super) position: Position,
    pub(super) time: u64,
    /// Just published, not read from the history.
    pub(super) live: bool,
}

impl Mark {
    /// When a live message was published.
    pub(super) fn published(self) -> Option<u64> {
        self.live.then_some(self.time)
    }
}

impl State {
    pub(super) fn seat(&mut self, namespace: Arc<Namespace>) -> Slot {
        let seat = Some(Seat { position: Position::Empty(0), namespace });
        match self.slots.iter().position(Option::is_none) {
            Some(free) => {
                self.slots[free] = seat;
                free
            }
            None => {
                self.slots.reserve_exact(1);
                self.slots.push(seat);
                self.slots.len() - 1
            }
        }
    }

    pub(super) fn unseat(&mut self, slot: Slot) {
        self.slots[slot] = None;
    }

    pub(super) fn position(&self, slot: Slot) -> Option<Position> {
        self.slots.get(slot)?.as_ref().map(|seat| seat.position)
    }

    pub(super) fn first_position(&self) -> Option<Position> {
        self.slots.iter().flatten().next().map(|seat| seat.position)
    }

    pub(super) fn still_empty(&mut self, slot: Slot, second: u64) {
        if let Some(Some(Seat { position: Position::Empty(at), .. })) = self.slots.get_mut(slot) {
            *at = second.max(*at);
        }
    }

    pub(super) fn cursor(&self) -> String {
        let mut cursor = String::with_capacity(self.slots.len() * 32);
        for seat in self.slots.iter().flatten() {
            if !cursor.is_empty() {
                cursor.push(',');
            }
            // Into memory: nothing that could fail.
            let _ = seat.position.write_to(&mut cursor);
        }
        cursor
    }

    pub(super) fn advance(&mut self, slot: Slot, position: Position) {
        if let Some(Some(seat)) = self.slots.get_mut(slot) {
            seat.position = position;
        }
    }

    pub(super) fn push(&mut self, bytes: Bytes, meaning: Meaning) {
        self.waiting += bytes.len();
        self.queue.push_back(Entry { bytes, meaning });
    }

    pub(super) fn end(&mut self, reason: Disconnect) {
        self.ending.get_or_insert(reason);
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }

    /// Leaves to the task what an attempt to write has left: `Ok(true)` is nothing.
    pub(super) fn left(&mut self, attempt: io::Result<bool>) {
        match attempt {
            Ok(true) => {}
            Ok(false) => self.wake(),
            Err(_) => self.end(Disconnect::Client),
        }
    }

    pub(super) fn wake(&self) {
        for waker in self.task.iter().chain(&self.taker) {
            waker.wake_by_ref();
        }
    }

    /// `n` bytes are out.
    pub(super) fn written(&mut self, mut n: usize, transport: Transport, metrics: &Metrics) {
        self.waiting -= n;
        while let Some(front) = self.queue.front_mut() {
            if n < front.bytes.len() {
                front.bytes.advance(n);
                self.torn |= n > 0;
                return;
            }
            let size = front.bytes.len();
            n -= size;
            if let Some(mark) = front.message() {
                metrics.delivered(transport, 1, size, mark.published());
            }
            self.torn = false;
            self.queue.pop_front();
            if n == 0 {
                break;
            }
        }
        if self.queue.is_empty() {
            // An idle connection holds no buffer.
            self.queue = VecDeque::new();
        }
    }

    /// The oldest message that waits and has left the history by its age.
    pub(super) fn outlived(&self, now: u64) -> Option<Mark> {
        self.queue.iter().find_map(|entry| {
            let mark = entry.message()?;
            let history = &self.slots.get(mark.slot)?.as_ref()?.namespace.history;
            let gone = mark.time + history.age.as_millis() as u64 <= now;
            (history.messages > 0 && gone).then_some(mark)
        })
    }

    /// Applies the slow-reader rules after `slot` was given more: `over`, that too much waited already, and
    /// `floor`, the oldest offset that the history keeps.
    pub(super) fn settle(&mut self, slot: Slot, over: bool, floor: u64, bound: usize, metrics: &Metrics) {
        let first = self.queue.iter().filter_map(Entry::message).find(|m| m.slot == slot);
        let lost = first.is_some_and(|m| m.position.offset() < floor);
        if !over && !lost {
            return;
        }
        self.conflate(|s| over || s == slot, metrics);
        let keeps_newest = |seat: &Seat| seat.namespace.slow == Slow::Latest;
        let spared = self.slots[slot].as_ref().is_some_and(keeps_newest);
        if (over && self.waiting > bound) || (lost && !spared) {
            metrics.slow_disconnected();
            self.end(Disconnect::Slow);
        }
    }

    /// Keeps only the newest waiting message of each channel whose namespace says so.
    fn conflate(&mut self, chosen: impl Fn(Slot) -> bool, metrics: &Metrics) {
        let conflated = |slot: Slot| {
            let seat = self.slots.get(slot).and_then(Option::as_ref);
            chosen(slot) && seat.is_some_and(|seat| seat.namespace.slow == Slow::Latest)
        };
        let mut newest = vec![false; self.slots.len()];
        let torn = self.torn;
        let mut kept = VecDeque::with_capacity(self.queue.len());
        let (mut dropped, mut freed) = (0, 0);
        while let Some(entry) = self.queue.pop_back() {
            let is_front = self.queue.is_empty();
            let superseded = entry
                .message()
                .is_some_and(|mark| conflated(mark.slot) && std::mem::replace(&mut newest[mark.slot], true));
            if superseded && !(is_front && torn) {
                dropped += 1;
                freed += entry.bytes.len();
            } else {
                kept.push_front(entry);
            }
        }
        self.queue = kept;
        self.waiting -= freed;
        if dropped > 0 {
            metrics.conflated(dropped);
        }
    }

    /// Drops the messages that wait and leads the channels back to before them; how many there were.
    pub(super) fn drop_waiting(&mut self) -> usize {
        let keep = usize::from(self.torn);
        let mut dropped = 0;
        while self.queue.len() > keep {
            let Some(entry) = self.queue.pop_back() else { break };
            self.waiting -= entry.bytes.len();
            match entry.meaning {
                Meaning::Control => {}
                Meaning::Gap(gap) => self.advance(gap.slot, gap.from),
                Meaning::Message(mark) => {
                    dropped += 1;
                    if let Position::At(epoch, offset) = mark.position {
                        self.advance(mark.slot, Position::At(epoch, offset - 1));
                    }
                }
            }
        }
        dropped
    }

    /// Nothing leaves any more; how many messages waited.
    pub(super) fn abandon(&mut self) -> usize {
        self.sealed = true;
        self.waiting = 0;
        self.torn = false;
        let queue = std::mem::take(&mut self.queue);
        self.wake();
        queue.iter().filter_map(Entry::message).count()
    }
}

//! One listened channel: what may be handed on, what must be read first, and the mirror of recent messages.
//! Pure: all that happened is told by method calls, all that is to be done comes back as [`Step`]s. Of time it
//! knows only what it is told.
//!
//! # What it is told
//! The link carries a channel's messages in the order of their offsets, but it may lose any of them, repeat
//! them, or end; one server's link may be replaced by another's while messages of both are on their way. Tops
//! and reads come by another connection, at any time and in any order, or never.
//!
//! # What it promises
//! 1. The steps [`Step::Deliver`] and [`Step::Gap`] of a track form one sequence: each message is the successor
//!    of the position before it, or a gap stands between that begins at that position. [`Track::position`]
//!    is always what a subscriber holds who heard all of them.
//! 2. No message is handed on twice, not even when an epoch comes back that was left (A→B→A).
//! 3. After a doubt nothing is handed on until the channel's top, asked for after the subscription was
//!    confirmed again, is known to be reached.
//! 4. What is held meanwhile is bounded ([`held`]).
//! 5. Each doubt ends: each read covers all that was held when it was asked for, so what made it necessary
//!    does not make the next one necessary.
//!
//! # Why it holds
//! *A read is as new as its question.* A read that is asked for now runs in the broker later than all that
//! was handed on or held until now was published. So a read never lies behind the position unless the
//! state itself went back (and then [`resume`] says so), and what was held before it was asked for is in its
//! answer, or was trimmed, or belongs to an epoch that has ended. That is why a stranger among the messages
//! (a hole, another epoch, whichever of two epochs is the newer) needs no judgement: it is held, the log is
//! read from the position, and of the strangers only those that came after the question still count.
//!
//! *An old answer is no answer.* A read that was asked for before a doubt says nothing of what was lost in it,
//! though it starts at the right position; a top too. So each read bears a [`Ticket`] of its own, and a top the
//! ticket of the subscription under which it was asked for. What comes with another one is ignored.
//!
//! *Within an epoch an offset is one message.* The fence in the broker starts an epoch whenever offsets may
//! have been given away twice. So what is held may be handed on wherever it is the successor, whichever
//! link it came by, and fills holes that the log no longer can (history off, a message larger than it).
//!
//! *Across epochs offsets are not comparable here,* only in the broker, which remembers where each epoch
//! ended. A new epoch is entered by a read alone, with the gap that it says.
//!
//! *An empty channel's second is a lower bound.* It is a second of the broker's clock at which the channel
//! surely had no message: that of a top or read that said so, or of a probe that came through the link after
//! everything published before it. Whether the broker can vouch for all since then is for the broker to say:
//! where it cannot ([`Seen::vouch_from`]), the log is read.
//!
//! # What it asks of its caller
//! Reads and tops of a subscription go to the server that the subscription is at; another server is a doubt.
//! A read that failed is asked again, with the same ticket ([`Track::wanted`]), or the channel is doubted.

mod answer;
mod held;
mod mirror;
mod plain;
#[cfg(test)]
mod simulation;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use self::{
    held::{Heard, Held},
    mirror::Mirror,
};
pub use self::{mirror::Budget, plain::PlainTrack};
use crate::{
    broker::Replay,
    gap::{Gap, GapReason},
    position::{Advance, Epoch, Position},
    publication::Publication,
    resume::Start,
};

/// Epochs that a track remembers having left.
const LEFT: usize = 4;

/// What is to be done, in this order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Hand this message on.
    Deliver {
        /// The message.
        publication: Arc<Publication>,
        /// The oldest offset that the history keeps after it; the next one where it keeps none.
        floor: u64,
    },
    /// Say that messages are missing here.
    Gap(Gap),
    /// Read the log from here and hand the answer to [`Track::replayed`]; always the last step.
    Read {
        /// Comes back with the answer.
        ticket: Ticket,
        /// Where to read from.
        from: Position,
    },
}

/// What an answer belongs to: a read, or a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Ticket(u64);

/// What the broker said of a channel without reading its log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seen {
    /// The epoch and the newest offset; `None` where it has no memory of a message.
    pub top: Option<(Epoch, u64)>,
    /// The second of the broker's clock at which that was so.
    pub second: u64,
    /// The first second from which on it would know of a message, had there been one.
    pub vouch_from: u64,
}

/// A listened channel with a log in the broker.
#[derive(Debug)]
pub struct Track {
    phase: Phase,
    /// `None` until the first top is known.
    position: Option<Position>,
    /// Drawn anew at each confirmation and each doubt.
    subscription: Ticket,
    drawn: u64,
    held: Held,
    /// The epochs that were left last, with the offset reached.
    left: Vec<(Epoch, u64)>,
    mirror: Mirror,
    /// The last DELETE that came through the link: an answer that was made before it may come after it.
    deleted: Option<(Epoch, u64)>,
    /// Of an empty channel: it had no message from this second on.
    empty_from: u64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// The subscription is not confirmed: anything may be lost.
    Deaf,
    /// It is confirmed, but what was lost before is not known.
    Unsure,
    /// The answer to this read is awaited.
    Reading(Ticket),
    /// What comes next on the link is the successor, or something is wrong.
    Live,
}

impl Track {
    /// A channel that is about to be subscribed to.
    #[must_use]
    pub fn joining(budget: Budget) -> Self {
        Self {
            phase: Phase::Deaf,
            position: None,
            subscription: Ticket(0),
            drawn: 0,
            held: Held::default(),
            left: Vec::new(),
            mirror: Mirror::new(budget),
            deleted: None,
            empty_from: 0,
        }
    }

    /// What a subscriber holds who heard everything; `None` until the first top is known.
    #[must_use]
    pub fn position(&self) -> Option<Position> {
        self.position
    }

    /// Whether messages are handed on as they come.
    #[must_use]
    pub fn is_live(&self) -> bool {
        self.phase == Phase::Live
    }

    /// What a top, or a read on somebody's behalf, must come back with. To be taken before it is asked for;
    /// `None` while the subscription is not confirmed, when it would prove nothing.
    #[must_use]
    pub fn ticket(&self) -> Option<Ticket> {
        (self.phase != Phase::Deaf).then_some(self.subscription)
    }

    /// The read whose answer is awaited. A caller whose read failed asks again with these.
    #[must_use]
    pub fn wanted(&self) -> Option<(Ticket, Position)> {
        match self.phase {
            Phase::Reading(ticket) => self.position.map(|from| (ticket, from)),
            Phase::Deaf | Phase::Unsure | Phase::Live => None,
        }
    }

    /// The subscription is confirmed: what is published from now on comes, until the next doubt. What was
    /// before is settled by a top that is asked for now.
    pub fn confirmed(&mut self) {
        if self.phase == Phase::Deaf {
            self.phase = Phase::Unsure;
            self.subscription = self.draw();
            self.held.ask();
        }
    }

    /// Messages may be lost until the next confirmation: the link ended or lagged, or the channel moved.
    pub fn doubt(&mut self) {
        self.phase = Phase::Deaf;
        self.subscription = self.draw();
        self.held.distrust();
        // A DELETE may pass unheard.
        self.mirror.distrust();
    }

    /// The broker said what it knows of the channel, `ticket` being what [`Track::ticket`] gave before it was
    /// asked. The first time the track begins there. In doubt, or at any time: the log is read where
    /// something is missing.
    pub fn settled(&mut self, ticket: Ticket, seen: &Seen, steps: &mut Vec<Step>) {
        if ticket != self.subscription || !matches!(self.phase, Phase::Unsure | Phase::Live) {
            return;
        }
        let is_reached = match (self.position, seen.top) {
            (None, _) => {
                self.begin(seen);
                true
            }
            (Some(Position::At(mine, at)), Some((epoch, top))) if mine == epoch && at <= top => {
                self.hand_on_held(steps);
                self.offset() >= top
            }
            (Some(Position::Empty(second)), None) if second >= seen.vouch_from => {
                self.position = Some(Position::Empty(second.max(seen.second)));
                true
            }
            _ => false,
        };
        if is_reached {
            self.go_live(steps);
        } else {
            self.read(steps);
        }
    }

    fn begin(&mut self, seen: &Seen) {
        // The broker bars a younger life of it from vouching for this second too.
        let second = seen.second.max(seen.vouch_from);
        self.empty_from = seen.vouch_from;
        let position = seen.top.map_or(Position::Empty(second), |(epoch, top)| Position::At(epoch, top));
        self.enter(position);
    }

    /// A message came through a link. `floor` is the oldest offset that the history keeps after it.
    pub fn message(&mut self, message: Publication, floor: u64, steps: &mut Vec<Step>) {
        match self.advance(&message) {
            Advance::Duplicate => {}
            Advance::Next if self.is_live() => self.deliver(Arc::new(message), floor, steps),
            Advance::Next | Advance::Gap | Advance::NewEpoch => {
                self.held.push(message, floor);
                if self.is_live() {
                    self.read(steps);
                }
            }
        }
    }

    /// A DELETE removed the messages of `epoch` up to `deleted_to`; it came through the link in its place
    /// among the messages.
    pub fn forgotten(&mut self, epoch: Epoch, deleted_to: u64, steps: &mut Vec<Step>) {
        self.deleted = Some((epoch, deleted_to));
        if self.is_in(epoch) {
            self.mirror.forget(deleted_to);
        }
        if self.follows(&Position::At(epoch, deleted_to)) != Advance::Duplicate {
            // Messages came before it that are not here.
            self.skipped(steps);
        }
    }

    /// Something came through the link, and was not taken.
    pub fn skipped(&mut self, steps: &mut Vec<Step>) {
        self.held.overrun();
        if self.is_live() {
            self.read(steps);
        }
    }

    /// A probe that left the broker in this second came through the link: all that was published before it
    /// has come.
    pub fn certain_at(&mut self, second: u64) {
        if let (Phase::Live, Some(Position::Empty(at))) = (self.phase, &mut self.position) {
            *at = second.max(*at);
        }
    }

    /// The answer to [`Step::Read`] came. `floor` is the oldest offset that the history keeps. A page that
    /// says `more` has a message.
    pub fn replayed(&mut self, ticket: Ticket, replay: &Replay, floor: u64, steps: &mut Vec<Step>) {
        let Some(before) = self.position.filter(|_| self.phase == Phase::Reading(ticket)) else {
            return;
        };
        self.lead(&replay.start, replay.top.offset(), steps);
        self.mirror.trim_to(floor);
        for message in &replay.messages {
            match self.follows(&message.position()) {
                Advance::Duplicate => continue,
                Advance::Next => {}
                // One that could not be decoded was left out.
                Advance::Gap | Advance::NewEpoch => self.miss(GapReason::Trimmed, ahead_of(message), steps),
            }
            self.deliver(Arc::clone(message), floor, steps);
        }
        if replay.more && self.position != Some(before) {
            return self.read(steps);
        }
        if matches!(self.follows(&replay.top), Advance::Next | Advance::Gap) {
            self.miss(GapReason::Trimmed, replay.top, steps);
        }
        self.go_live(steps);
    }

    /// Goes from the position to where a replay starts. What is held fills what it can of a gap.
    fn lead(&mut self, start: &Start, top: u64, steps: &mut Vec<Step>) {
        let to = self.not_again(start.after, top);
        let Some(Gap { mut reason, .. }) = start.gap else {
            match (self.position, to) {
                // Still empty, so for as long as it was.
                (Some(Position::Empty(_)), Position::Empty(_)) => self.position = Some(to),
                (from, _) if from == Some(to) => {}
                _ => self.move_to(to),
            }
            return;
        };
        if let Position::At(epoch, offset) = to {
            for Heard { message, floor } in self.held.up_to(epoch, offset) {
                let is_here = self.is_in(epoch);
                match self.follows(&message.position()) {
                    Advance::Duplicate => continue,
                    Advance::Next if is_here => {}
                    Advance::Next | Advance::Gap | Advance::NewEpoch => {
                        self.miss(reason, ahead_of(&message), steps);
                    }
                }
                if !is_here {
                    reason = GapReason::Trimmed;
                }
                self.deliver(message, floor, steps);
            }
        }
        if self.position != Some(to) {
            self.miss(reason, to, steps);
        }
    }

    /// Where an epoch is entered again that was left, what was handed on of it is not handed on again.
    fn not_again(&self, to: Position, top: u64) -> Position {
        match to {
            Position::At(epoch, offset) => {
                let reached = self.reached(epoch).unwrap_or(0);
                Position::At(epoch, offset.max(reached.min(top)))
            }
            Position::Empty(_) => to,
        }
    }

    /// Hands on what is held, as long as it is the next in this epoch.
    fn hand_on_held(&mut self, steps: &mut Vec<Step>) {
        while let Some(message) = self.held.first() {
            match self.advance(message) {
                Advance::Duplicate => drop(self.held.pop()),
                Advance::Next => {
                    if let Some(Heard { message, floor }) = self.held.pop() {
                        self.deliver(message, floor, steps);
                    }
                }
                Advance::Gap | Advance::NewEpoch => return,
            }
        }
    }

    /// Nothing is missing up to the position: what was held follows, and then what comes.
    fn go_live(&mut self, steps: &mut Vec<Step>) {
        self.held.drop_covered();
        self.hand_on_held(steps);
        if self.held.first().is_some() || self.held.is_overrun() {
            return self.read(steps);
        }
        self.held.clear();
        self.phase = Phase::Live;
    }

    fn read(&mut self, steps: &mut Vec<Step>) {
        if let Some(from) = self.position {
            let ticket = self.draw();
            self.phase = Phase::Reading(ticket);
            self.held.ask();
            steps.push(Step::Read { ticket, from });
        }
    }

    fn draw(&mut self) -> Ticket {
        self.drawn += 1;
        Ticket(self.drawn)
    }

    fn offset(&self) -> u64 {
        self.position.map_or(0, |position| position.offset())
    }

    fn is_in(&self, epoch: Epoch) -> bool {
        matches!(self.position, Some(Position::At(mine, _)) if mine == epoch)
    }

    /// The offset that was reached in an epoch that was left.
    fn reached(&self, epoch: Epoch) -> Option<u64> {
        self.left.iter().find(|(left, _)| *left == epoch).map(|(_, reached)| *reached)
    }

    /// How a message that came through a link follows on what was handed on.
    fn advance(&self, message: &Publication) -> Advance {
        match (self.position, self.follows(&message.position())) {
            // It may be the first one, or of a life that ended before the channel was found empty.
            // (A broker that has just begun stamps with the second that it will vouch from.)
            (Some(Position::Empty(second)), Advance::Next)
                if message.time / 1000 < second && second > self.empty_from =>
            {
                Advance::Gap
            }
            (_, advance) => advance,
        }
    }

    /// How the message with this id follows on what was handed on.
    fn follows(&self, id: &Position) -> Advance {
        match (self.position, id) {
            (_, Position::At(epoch, offset)) if self.reached(*epoch).is_some_and(|r| *offset <= r) => {
                Advance::Duplicate
            }
            (Some(position), id) => position.advance(id),
            (None, _) => Advance::Gap,
        }
    }

    /// `message` is the successor of the position.
    fn deliver(&mut self, publication: Arc<Publication>, floor: u64, steps: &mut Vec<Step>) {
        if !self.is_in(publication.epoch) {
            self.move_to(ahead_of(&publication));
        }
        self.position = Some(publication.position());
        self.mirror.push(Arc::clone(&publication));
        self.mirror.trim_to(floor);
        steps.push(Step::Deliver { publication, floor: self.mirror.floor() });
    }

    fn miss(&mut self, reason: GapReason, to: Position, steps: &mut Vec<Step>) {
        if let Some(from) = self.position {
            steps.push(Step::Gap(Gap { reason, from, to }));
            self.move_to(to);
        }
    }

    fn move_to(&mut self, to: Position) {
        match (self.position, to) {
            (Some(Position::At(mine, _)), Position::At(epoch, offset)) if mine == epoch => {
                self.mirror.skip_to(offset);
            }
            (from, _) => {
                if let Some(Position::At(epoch, offset)) = from {
                    self.leave(epoch, offset);
                }
                if let Position::Empty(second) = to {
                    self.empty_from = second;
                }
                self.enter(to);
            }
        }
        self.position = Some(to);
    }

    /// Begins at `to`, in another epoch or none.
    fn enter(&mut self, to: Position) {
        self.position = Some(to);
        self.mirror.begin(to.offset());
        if let Position::At(epoch, _) = to {
            self.left.retain(|(left, _)| *left != epoch);
            if let Some((_, offset)) = self.deleted.filter(|(deleted, _)| *deleted == epoch) {
                self.mirror.forget(offset);
            }
        }
    }

    fn leave(&mut self, epoch: Epoch, offset: u64) {
        if self.left.len() == LEFT {
            self.left.remove(0);
        }
        self.left.push((epoch, offset));
    }
}

/// The position before a message.
fn ahead_of(message: &Publication) -> Position {
    Position::At(message.epoch, message.offset.saturating_sub(1))
}

//! Where reading starts, and what is missing before it, given a `since` and what is known of a channel's
//! log. Pure: every broker answers by these rules, so that a cursor means the same on each of them.

use crate::{
    gap::{Gap, GapReason, Recovery},
    position::{Epoch, Position, Since},
};

/// What a broker knows of a channel's log at one moment.
///
/// Of an unused channel (`epoch` is `None`) only `now` and `vouch_from` are read.
#[derive(Clone, Copy)]
pub struct LogView<'a> {
    /// The run of the counting; `None` where the channel has no message and no memory of one.
    pub epoch: Option<Epoch>,
    /// The offset of the newest message, kept or not.
    pub top: u64,
    /// The offset of the oldest message kept; `top + 1` where none is.
    pub floor: u64,
    /// The highest offset that a DELETE removed; 0 where none did.
    pub deleted_to: u64,
    /// Earlier epochs that are remembered, each with the highest offset that the next one took over.
    pub past: &'a [(Epoch, u64)],
    /// The second that the position of an empty channel bears now.
    pub now: u64,
    /// The second that it would have borne when the channel's first message came, so that no position
    /// handed out before has a later one.
    pub began: u64,
    /// Before this second the channel may have had messages that the broker no longer knows of. For a
    /// used channel, as it was when the channel began.
    pub vouch_from: u64,
    /// The second of the newest message that was removed, or a later one; 0 where none was.
    pub removed: u64,
    /// The offset of the oldest message kept that was published in or after a second; `top + 1` where
    /// none was. Asked only for a second after `began`.
    pub oldest_since: &'a dyn Fn(u64) -> u64,
}

/// Where a subscription starts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// What `subscribed` says: the position as given, or what the keyword stands for.
    pub position: Position,
    /// What comes after this is delivered.
    pub after: Position,
    /// What is missing between `position` and `after`.
    pub gap: Option<Gap>,
    /// The two, in a word.
    pub recovery: Recovery,
}

impl LogView<'_> {
    /// The position after the message with `offset`, or that of an empty channel.
    #[must_use]
    pub fn at(&self, offset: u64) -> Position {
        match self.epoch {
            Some(epoch) => Position::At(epoch, offset),
            None => Position::Empty(self.now),
        }
    }

    /// The newest position.
    #[must_use]
    pub fn top(&self) -> Position {
        self.at(self.top)
    }

    /// The offset before the oldest message kept.
    fn before_oldest(&self) -> u64 {
        self.floor.saturating_sub(1)
    }

    /// Why messages after `offset` are gone, where some are.
    fn removal(&self, offset: u64, otherwise: GapReason) -> Option<GapReason> {
        if offset >= self.before_oldest() {
            None
        } else if offset < self.deleted_to {
            Some(GapReason::Deleted)
        } else {
            Some(otherwise)
        }
    }
}

/// Where reading `log` starts for `since`.
#[must_use]
pub fn resume(since: &Since, log: &LogView<'_>) -> Start {
    let complete = |position| Start { position, after: position, gap: None, recovery: Recovery::Complete };
    match *since {
        Since::Latest => Start { recovery: Recovery::None, ..complete(log.top()) },
        Since::Earliest => complete(log.at(log.before_oldest())),
        Since::Last(n) => {
            let offset = log.top.saturating_sub(n.get()).max(log.before_oldest());
            complete(log.at(offset))
        }
        Since::Position(position) => {
            let (after, reason) = follow(position, log);
            Start {
                position,
                after,
                gap: reason.map(|reason| Gap { reason, from: position, to: after }),
                recovery: reason.map_or(Recovery::Complete, |_| Recovery::Gap),
            }
        }
    }
}

/// What comes after `given`, and why some of it is missing.
fn follow(given: Position, log: &LogView<'_>) -> (Position, Option<GapReason>) {
    let oldest = log.before_oldest();
    let (offset, reason) = match given {
        Position::Empty(second) => since_second(second, log),
        Position::At(epoch, offset) if Some(epoch) == log.epoch => {
            if offset > log.top {
                (log.top, Some(GapReason::Reset))
            } else {
                (offset.max(oldest), log.removal(offset, GapReason::Trimmed))
            }
        }
        Position::At(epoch, offset) => match log.past.iter().find(|(past, _)| *past == epoch) {
            Some((_, end)) => (offset.min(*end).max(oldest), Some(GapReason::Failover)),
            None => (oldest, Some(GapReason::Reset)),
        },
    };
    (log.at(offset), reason)
}

/// What comes after a second in which the channel was empty: all, unless the channel began earlier (a
/// clock that went back, a position made by hand), then what was published since.
fn since_second(second: u64, log: &LogView<'_>) -> (u64, Option<GapReason>) {
    let unknown = (second < log.vouch_from).then_some(GapReason::Expired);
    if log.epoch.is_none() {
        return (0, unknown);
    }
    let oldest = log.before_oldest();
    // One in the future was handed out by a clock that ran ahead of this one.
    let second = second.min(log.now);
    let (after, removed) = if second <= log.began {
        (oldest, log.removal(0, GapReason::Expired))
    } else if second <= log.removed {
        (oldest, log.removal(oldest.saturating_sub(1), GapReason::Expired))
    } else {
        ((log.oldest_since)(second).saturating_sub(1), None)
    };
    // Each epoch that ended may have taken messages with it that nobody else has seen.
    let failover = (!log.past.is_empty()).then_some(GapReason::Failover);
    (after, failover.or(removed).or(unknown))
}

#[cfg(test)]
mod tests;

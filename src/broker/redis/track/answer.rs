//! What a track answers in the broker's place, out of the channel's recent messages.

use super::{Ticket, Track};
use crate::{
    broker::{Page, Replay},
    config::History,
    position::{Position, Since},
    resume::{LogView, resume},
};

impl Track {
    /// Answers in the broker's place where this node is certain of the answer: after a position of this
    /// epoch that its recent messages reach, of an empty channel, and, while it is live, after the newest
    /// message or within what it knows to be all. `now_ms` is the broker's time.
    ///
    /// The broker may have accepted a message that is still on its way here. To who listens it comes; who
    /// only wants to see what is kept asks the broker.
    #[must_use]
    pub fn answer(&self, since: &Since, page: Page, now_ms: u64, history: &History) -> Option<Replay> {
        let top = self.position?;
        let oldest = self.mirror.alive_from(now_ms, history);
        let is_certain = match (since, top) {
            (Since::Position(Position::At(epoch, offset)), Position::At(mine, at)) => {
                *epoch == mine && *offset <= at && *offset + 1 >= oldest
            }
            (Since::Position(Position::Empty(second)), Position::Empty(_)) => {
                self.is_live() && *second >= self.empty_from
            }
            (Since::Position(_), _) => false,
            (Since::Latest, _) | (_, Position::Empty(_)) => self.is_live(),
            (Since::Earliest, _) => self.is_live() && self.mirror.is_whole(),
            (Since::Last(n), Position::At(_, at)) => {
                self.is_live() && (self.mirror.is_whole() || n.get() <= at + 1 - oldest)
            }
        };
        is_certain.then(|| {
            let start = resume(since, &self.view(top, oldest));
            let (messages, more) = self.mirror.page(start.after.offset(), page);
            Replay { start, messages, more, top }
        })
    }

    fn view(&self, top: Position, floor: u64) -> LogView<'static> {
        let (epoch, now) = match top {
            Position::At(epoch, _) => (Some(epoch), 0),
            Position::Empty(second) => (None, second),
        };
        LogView {
            epoch,
            top: top.offset(),
            floor,
            deleted_to: 0,
            past: &[],
            now,
            began: 0,
            vouch_from: self.empty_from,
            removed: 0,
            oldest_since: &|_| 0,
        }
    }

    /// Takes what was read from the broker on somebody's behalf into the mirror, `ticket` being what
    /// [`Track::ticket`] gave before it was asked for: so many who come back at once cost one read.
    pub fn fill(&mut self, ticket: Ticket, replay: &Replay) {
        let is_ours = replay.messages.first().is_some_and(|message| self.is_in(message.epoch));
        if ticket == self.subscription && is_ours {
            self.mirror.fill(replay);
        }
    }

    /// Drops what has outlived its time from the mirror. To be called now and then.
    pub fn sweep(&mut self, now_ms: u64, history: &History) {
        self.mirror.expire(now_ms, history);
    }
}

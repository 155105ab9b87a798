//! What is held to account: a node's answers against the broker's, and in the end what each client got.

use super::{Outcome, ROUNDS, World};
use crate::{
    broker::{
        Page,
        redis::track::simulation::{client::Place, script::Ask},
    },
    position::{Position, Since},
};

impl World {
    /// Holds what a node answers itself against what the broker would.
    pub(super) fn compare(&mut self, index: usize, ask: Ask) -> Outcome {
        let node = &self.nodes[index];
        let Some(track) = &node.track else {
            return Ok(());
        };
        let since = match (ask, track.position()) {
            (Ask::Since(since), _) => since,
            (Ask::Behind(n), Some(Position::At(epoch, at))) => {
                Since::Position(Position::At(epoch, at.saturating_sub(n)))
            }
            (Ask::Empty(n), Some(Position::Empty(second))) => Since::Position(Position::Empty(second - n)),
            _ => return Ok(()),
        };
        let whole = Page { messages: usize::MAX, bytes: usize::MAX };
        let Some(mine) = track.answer(&since, whole, self.redis.now, &self.redis.history) else {
            return Ok(());
        };
        if mine.start.gap.is_some() {
            return Err(format!("{since:?} is answered with {:?}", mine.start));
        }
        if let (Some((epoch, offset)), Some(first)) = (node.deleted, mine.messages.first())
            && first.epoch == epoch
            && first.offset <= offset
        {
            return Err(format!("{} was deleted", first.position()));
        }
        let is_quiet = node.hears && node.link.is_empty() && track.is_live();
        let theirs = self.redis.peek(&since, whole);
        let is_same_life = match (mine.top, theirs.top) {
            (Position::At(mine, _), Position::At(epoch, _)) => mine == epoch,
            (Position::Empty(_), Position::Empty(_)) => theirs.start.gap.is_none(),
            _ => false,
        };
        if !is_quiet || !is_same_life || self.redis.is_log_evicted {
            return Ok(());
        }
        let is_same_start = match (mine.start.after, theirs.start.after) {
            (Position::Empty(_), Position::Empty(_)) => mine.start.recovery == theirs.start.recovery,
            _ => mine.start == theirs.start && mine.top == theirs.top,
        };
        if !is_same_start || mine.messages != theirs.messages {
            return Err(format!("{since:?}: the node says {mine:?}, the broker {theirs:?}"));
        }
        Ok(())
    }

    /// Heals everything, lets it come to rest, and holds every client to account.
    pub(super) fn rest(&mut self) -> Outcome {
        self.redis.is_down = false;
        for client in 0..self.clients.len() {
            if matches!(self.clients[client].place, Place::Away) {
                self.attach(client, client % self.nodes.len())?;
            }
        }
        for index in 0..self.nodes.len() {
            let node = &self.nodes[index];
            if !node.hears && !node.is_down {
                self.doubt(index, false);
            }
            self.resubscribe(index);
        }
        for _ in 0..ROUNDS {
            for index in 0..self.nodes.len() {
                while !self.nodes[index].link.is_empty() {
                    self.hear(index)?;
                }
            }
            if self.nodes.iter().all(|node| node.questions.is_empty()) {
                return self.account();
            }
            self.ask_broker(0);
            self.answer(0)?;
        }
        Err("no rest".into())
    }

    pub(super) fn account(&mut self) -> Outcome {
        for node in self.nodes.iter().filter_map(|node| node.track.as_ref()) {
            if !node.is_live() {
                return Err(format!("a track stays {:?}", node.phase));
            }
        }
        for (index, client) in self.clients.iter_mut().enumerate() {
            if !client.is_live() {
                return Err(format!("client {index} is not live"));
            }
            client.finish(&self.redis).map_err(|fault| format!("client {index}: {fault}"))?;
        }
        Ok(())
    }
}

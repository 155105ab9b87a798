//! A client's side: it comes to a node, reads, listens and leaves.

use super::{For, Outcome, Question, World};
use crate::broker::{
    Replay,
    redis::track::{
        Track,
        simulation::client::{Next, Place},
    },
};

impl World {
    pub(super) fn leave(&mut self, client: usize) {
        self.clients[client].leave();
        for node in &mut self.nodes {
            node.questions.retain(|question| !matches!(question.of, For::Client(of, _) if of == client));
        }
    }

    pub(super) fn attach(&mut self, client: usize, index: usize) -> Outcome {
        self.leave(client);
        self.clients[client].place = Place::Waiting { node: index };
        let node = &mut self.nodes[index];
        if node.track.is_none() {
            node.track = Some(Track::joining(self.setting.budget));
            node.is_down = true;
            self.resubscribe(index);
        }
        self.welcome(index)
    }

    /// Who waits for the channel reads, once it is listened to.
    pub(super) fn welcome(&mut self, index: usize) -> Outcome {
        if self.nodes[index].position.is_none() {
            return Ok(());
        }
        for client in 0..self.clients.len() {
            if matches!(self.clients[client].place, Place::Waiting { node } if node == index) {
                self.read_for(client, index)?;
            }
        }
        Ok(())
    }

    /// Reads what comes after a client's position, here or in the broker.
    pub(super) fn read_for(&mut self, client: usize, index: usize) -> Outcome {
        let node = &mut self.nodes[index];
        let Some(track) = &node.track else {
            return Ok(());
        };
        let since = self.clients[client].since;
        if !matches!(self.clients[client].place, Place::Reading { .. }) {
            self.clients[client].place = Place::Reading { node: index, held: Vec::new() };
        }
        match track.answer(&since, self.setting.page, self.redis.now, &self.redis.history) {
            Some(replay) => self.page(client, index, &replay),
            None => {
                let of = For::Client(client, track.ticket());
                node.questions.push(Question { of, since, answer: None });
                Ok(())
            }
        }
    }

    pub(super) fn page(&mut self, client: usize, index: usize, replay: &Replay) -> Outcome {
        let next = self.clients[client].page(replay, &self.redis);
        match next.map_err(|fault| format!("client {client}: {fault}"))? {
            Next::Nothing => Ok(()),
            Next::Read => self.read_for(client, index),
        }
    }
}

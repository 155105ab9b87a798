//! A node's side: what comes through its link, what is answered, and what its track says to that.

use super::{Answer, For, Node, Outcome, Push, Question, World};
use crate::{
    broker::redis::track::{
        Step, Track, held,
        simulation::{
            client::{Client, Next},
            redis::uid_of,
        },
    },
    position::{Advance, Position, Since},
};

impl World {
    pub(super) fn resubscribe(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        if node.track.is_some() && node.is_down && !self.redis.is_down {
            node.is_down = false;
            node.hears = true;
            node.link.push(Push::Subscribed);
        }
    }

    pub(super) fn doubt(&mut self, node: usize, late: bool) {
        let node = &mut self.nodes[node];
        let Some(track) = &mut node.track else { return };
        track.doubt();
        node.is_down = true;
        node.hears = false;
        node.is_settled = false;
        node.deleted = node.unheard.or(node.deleted);
        node.link.retain(|push| late && matches!(push, Push::Message(..) | Push::Forgotten(..)));
    }

    pub(super) fn unlisten(&mut self, node: usize) {
        if self.clients.iter().all(|client| client.node() != Some(node)) {
            self.nodes[node] = Node::default();
        }
    }

    pub(super) fn kill_node(&mut self, node: usize) {
        self.clients.iter_mut().filter(|client| client.node() == Some(node)).for_each(Client::leave);
        self.nodes[node] = Node::default();
    }

    /// Ends a node whose clients were told to come back: they do, to another one or to its successor.
    pub(super) fn drain(&mut self, node: usize, to: usize) -> Outcome {
        let is_there = |client: &usize| self.clients[*client].node() == Some(node);
        let leaving: Vec<usize> = (0..self.clients.len()).filter(is_there).collect();
        self.kill_node(node);
        leaving.into_iter().try_for_each(|client| self.attach(client, to))
    }

    /// Asks for the top.
    pub(super) fn settle(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        if let Some(ticket) = node.track.as_ref().and_then(Track::ticket) {
            node.questions.push(Question { of: For::Settling(ticket), since: Since::Latest, answer: None });
        }
    }

    /// Something comes through the link.
    pub(super) fn hear(&mut self, index: usize) -> Outcome {
        let node = &mut self.nodes[index];
        if node.link.is_empty() {
            return Ok(());
        }
        let push = node.link.remove(0);
        let Some(track) = &mut node.track else {
            return Ok(());
        };
        let was_live = track.is_live();
        let mut steps = Vec::new();
        match &push {
            Push::Subscribed => {
                track.confirmed();
                self.settle(index);
                return Ok(());
            }
            Push::Probe(second) => {
                track.certain_at(*second);
                if let (Some(Position::Empty(_)), Some(Position::Empty(_))) =
                    (node.position, track.position())
                {
                    node.position = track.position();
                }
            }
            Push::Message(message, floor) => track.message(message.clone(), *floor, &mut steps),
            Push::Forgotten(epoch, offset) => {
                track.forgotten(*epoch, *offset, &mut steps);
                node.deleted = Some((*epoch, *offset));
            }
        }
        if !matches!(push, Push::Probe(_)) {
            node.heard.push(push);
        }
        if !was_live && !steps.is_empty() {
            return Err(format!("{steps:?} while not live"));
        }
        self.follow(index, steps)
    }

    /// An answer arrives.
    pub(super) fn answer(&mut self, which: usize) -> Outcome {
        let answered = |question: &Question| question.answer.is_some();
        let count = self.nodes.iter().flat_map(|node| &node.questions).filter(|q| answered(q)).count();
        if count == 0 {
            return Ok(());
        }
        let mut which = which % count;
        for index in 0..self.nodes.len() {
            let questions = &mut self.nodes[index].questions;
            let here = questions.iter().filter(|q| answered(q)).count();
            if which >= here {
                which -= here;
                continue;
            }
            let at = questions.iter().enumerate().filter(|(_, q)| answered(q)).nth(which).unwrap().0;
            let question = questions.remove(at);
            return self.take_answer(index, question);
        }
        Ok(())
    }

    pub(super) fn take_answer(&mut self, index: usize, question: Question) -> Outcome {
        let node = &mut self.nodes[index];
        let Some(track) = &mut node.track else {
            return Ok(());
        };
        let mut steps = Vec::new();
        match (question.of, question.answer) {
            (For::Settling(ticket), Some(Answer::Failed)) if track.ticket() == Some(ticket) => {
                self.settle(index);
            }
            (For::Track(ticket), Some(Answer::Failed)) => {
                if let Some((wanted, from)) = track.wanted().filter(|(wanted, _)| *wanted == ticket) {
                    let since = Since::Position(from);
                    node.questions.push(Question { of: For::Track(wanted), since, answer: None });
                }
            }
            (For::Client(client, _), Some(Answer::Failed)) => return self.read_for(client, index),
            (For::Settling(ticket), Some(Answer::Seen(seen))) => {
                let is_first = node.position.is_none();
                node.is_settled |= track.ticket() == Some(ticket);
                track.settled(ticket, &seen, &mut steps);
                if is_first {
                    let first = steps.iter().find_map(|step| match step {
                        Step::Deliver { publication, .. } => {
                            Some(Position::At(publication.epoch, publication.offset - 1))
                        }
                        Step::Gap(gap) => Some(gap.from),
                        Step::Read { .. } => None,
                    });
                    node.position = match (first.or(track.position()), seen.top) {
                        (Some(Position::At(_, 0)), None) => {
                            Some(Position::Empty(seen.second.max(seen.vouch_from)))
                        }
                        (position, _) => position,
                    };
                } else if let (Some(Position::Empty(_)), Some(Position::Empty(_))) =
                    (node.position, track.position())
                {
                    node.position = track.position();
                }
            }
            (For::Track(ticket), Some(Answer::Page(replay, floor))) => {
                if track.wanted().is_some_and(|(wanted, _)| wanted == ticket)
                    && replay.start.gap.is_none()
                    && matches!(node.position, Some(Position::Empty(_)))
                {
                    node.position = Some(replay.start.after);
                }
                track.replayed(ticket, &replay, floor, &mut steps);
            }
            (For::Client(client, ticket), Some(Answer::Page(replay, _))) => {
                if let Some(ticket) = ticket {
                    track.fill(ticket, &replay);
                }
                return self.page(client, index, &replay);
            }
            _ => {}
        }
        self.follow(index, steps)?;
        self.welcome(index)
    }

    /// Does what the track said, and checks it.
    pub(super) fn follow(&mut self, index: usize, steps: Vec<Step>) -> Outcome {
        for step in steps {
            let node = &mut self.nodes[index];
            match &step {
                Step::Read { ticket, from } => {
                    let since = Since::Position(*from);
                    node.questions.push(Question { of: For::Track(*ticket), since, answer: None });
                    continue;
                }
                _ if !node.is_settled => return Err(format!("{step:?} in doubt")),
                Step::Deliver { publication, .. } => {
                    let id = publication.position();
                    if self.redis.uid(id) != Some(uid_of(publication)) {
                        return Err(format!("node {index}: {id} is another message"));
                    }
                    if node.position.map(|p| p.advance(&id)) != Some(Advance::Next) {
                        return Err(format!("node {index}: {id} after {:?}", node.position));
                    }
                    if !node.emitted.insert(id) {
                        return Err(format!("node {index}: {id} twice"));
                    }
                    node.position = Some(id);
                }
                Step::Gap(gap) => {
                    if node.position != Some(gap.from) || gap.to == gap.from {
                        return Err(format!("node {index}: {gap:?} at {:?}", node.position));
                    }
                    node.position = Some(gap.to);
                }
            }
            self.hand_on(index, &step)?;
        }
        let node = &self.nodes[index];
        let Some(track) = &node.track else {
            return Ok(());
        };
        if track.position() != node.position {
            return Err(format!("node {index}: at {:?}, not {:?}", track.position(), node.position));
        }
        let (held, _) = track.held.size();
        if held > held::MESSAGES || (track.is_live() && held > 0) {
            return Err(format!("node {index}: {held} held"));
        }
        Ok(())
    }

    pub(super) fn hand_on(&mut self, node: usize, step: &Step) -> Outcome {
        for index in 0..self.clients.len() {
            let client = &mut self.clients[index];
            if client.node() == Some(node)
                && client.hear(step, &self.redis).map_err(|fault| format!("client {index}: {fault}"))?
                    == Next::Read
            {
                self.read_for(index, node)?;
            }
        }
        Ok(())
    }
}

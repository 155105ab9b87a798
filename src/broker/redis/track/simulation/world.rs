//! Nodes, links, questions on their way, and clients: a run, checked at each step.

use std::collections::HashSet;

use super::{
    super::{Step, Ticket, Track},
    client::{Client, Next, Place},
    redis::{Redis, uid_of},
    script::{Act, Ask, Setting},
};
use crate::{
    broker::{Page, Replay},
    position::{Advance, Epoch, Position, Since},
    publication::Publication,
};

/// Rounds in which everything must have come to rest.
const ROUNDS: usize = 300;

/// What comes through a link.
#[derive(Clone)]
enum Push {
    Subscribed,
    Message(Publication, u64),
    Forgotten(Epoch, u64),
    Probe(u64),
}

/// Whom an answer is for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum For {
    Settling(Ticket),
    Track(Ticket),
    Client(usize, Option<Ticket>),
}

enum Answer {
    Failed,
    Seen(super::super::Seen),
    Page(Replay, u64),
}

struct Question {
    of: For,
    since: Since,
    answer: Option<Answer>,
}

#[derive(Default)]
struct Node {
    track: Option<Track>,
    /// The broker knows of the subscription.
    hears: bool,
    /// The node doubts it.
    is_down: bool,
    link: Vec<Push>,
    /// What came lately, to be repeated.
    heard: Vec<Push>,
    questions: Vec<Question>,
    /// What the steps add up to.
    position: Option<Position>,
    emitted: HashSet<Position>,
    /// A top was asked for and came since the last doubt.
    is_settled: bool,
    /// Deleted, and this node heard of it or knows that it may have missed it.
    deleted: Option<(Epoch, u64)>,
    /// Deleted while the link was dead or the word on its way.
    unheard: Option<(Epoch, u64)>,
}

pub(super) struct World {
    setting: Setting,
    redis: Redis,
    nodes: Vec<Node>,
    clients: Vec<Client>,
}

type Outcome = Result<(), String>;

/// Runs a script and lets everything come to rest.
pub(super) fn run(setting: &Setting, acts: &[Act]) -> Outcome {
    let mut world = World {
        setting: *setting,
        redis: Redis::new(setting.history),
        nodes: (0..setting.nodes).map(|_| Node::default()).collect(),
        clients: (0..setting.clients).map(|_| Client::new()).collect(),
    };
    world.redis.open();
    for (index, act) in acts.iter().enumerate() {
        world.redis.now += 7;
        world.act(*act).map_err(|fault| format!("step {index} {act:?}: {fault}"))?;
    }
    world.rest().map_err(|fault| format!("at rest: {fault}"))?;
    world.act(Act::Publish { size: 0 })?;
    world.rest().map_err(|fault| format!("at rest after one more: {fault}"))
}

impl World {
    fn act(&mut self, act: Act) -> Outcome {
        match act {
            Act::Publish { size } => self.publish(size),
            Act::Wait { ms } => self.redis.now += ms,
            Act::Hear { node, count } => {
                let node = node % self.nodes.len();
                for _ in 0..count {
                    self.hear(node)?;
                }
            }
            Act::Run { which } => self.ask_broker(which),
            Act::Answer { which } => return self.answer(which),
            Act::Attach { client, node } => {
                let client = client % self.clients.len();
                return self.attach(client, node % self.nodes.len());
            }
            Act::Leave { client } => {
                let client = client % self.clients.len();
                self.leave(client);
            }
            Act::Renew { client } => {
                let count = self.clients.len();
                let client = &mut self.clients[client % count];
                if let Place::Live { node } = client.place
                    && let Some(track) = self.nodes[node].track.as_ref().filter(|track| track.is_live())
                {
                    client.renew(track.position());
                }
            }
            Act::Ask { node, since } => return self.compare(node % self.nodes.len(), since),
            Act::Resubscribe { node } => {
                let node = node % self.nodes.len();
                self.resubscribe(node);
            }
            Act::Probe { node } => self.probe(node),
            Act::Sweep { node } => {
                let count = self.nodes.len();
                if let Some(track) = &mut self.nodes[node % count].track {
                    track.sweep(self.redis.now, &self.redis.history);
                }
            }
            fault => self.fault(fault),
        }
        Ok(())
    }

    fn fault(&mut self, act: Act) {
        let count = self.nodes.len();
        match act {
            Act::Unlisten { node } => self.unlisten(node % count),
            Act::Poll { node } => self.settle(node % count),
            Act::Kill { node, late } => self.doubt(node % count, late),
            Act::Cut { node } => self.nodes[node % count].hears = false,
            Act::Notice { node } if !self.nodes[node % count].hears => self.doubt(node % count, false),
            Act::Repeat { node, count: n } => {
                let node = &mut self.nodes[node % count];
                let from = node.heard.len().saturating_sub(n);
                node.link.extend_from_slice(&node.heard[from..]);
            }
            Act::KillNode { node } => self.kill_node(node % count),
            Act::Down => {
                self.redis.is_down = true;
                self.cut_all();
            }
            Act::Up => self.redis.is_down = false,
            Act::Delete if !self.redis.is_down => {
                if let Some((epoch, offset)) = self.redis.forget() {
                    self.push(&Push::Forgotten(epoch, offset));
                    for node in &mut self.nodes {
                        let known = if node.is_down { &mut node.deleted } else { &mut node.unheard };
                        *known = Some((epoch, offset));
                    }
                }
            }
            Act::Flush => self.redis.flush(),
            Act::EvictMeta => self.redis.evict_meta(),
            Act::EvictLog => self.redis.evict_log(),
            Act::EvictState => self.redis.evict_state(),
            Act::Replicate => self.redis.replicate(),
            Act::FailOver => {
                self.redis.fail_over();
                self.cut_all();
            }
            Act::Resurrect => {
                self.redis.resurrect();
                self.cut_all();
            }
            Act::Move => {
                self.redis.new_replid();
                self.cut_all();
            }
            Act::NewReplid => self.redis.new_replid(),
            _ => {}
        }
    }

    // The broker's side.

    fn push(&mut self, push: &Push) {
        for node in self.nodes.iter_mut().filter(|node| node.hears) {
            node.link.push(push.clone());
        }
    }

    fn publish(&mut self, size: usize) {
        if !self.redis.is_down {
            let (message, floor) = self.redis.publish(size);
            self.push(&Push::Message(message, floor));
        }
    }

    fn probe(&mut self, node: usize) {
        let second = self.redis.now / 1000;
        let count = self.nodes.len();
        let node = &mut self.nodes[node % count];
        if node.hears {
            node.link.push(Push::Probe(second));
        }
    }

    fn cut_all(&mut self) {
        self.nodes.iter_mut().for_each(|node| node.hears = false);
    }

    /// The broker runs one of the questions of one of the nodes.
    fn ask_broker(&mut self, which: usize) {
        let page = self.setting.page;
        let waiting = self.nodes.iter_mut().flat_map(|node| &mut node.questions);
        let mut waiting: Vec<_> = waiting.filter(|question| question.answer.is_none()).collect();
        if waiting.is_empty() {
            return;
        }
        let index = which % waiting.len();
        let question = &mut *waiting[index];
        question.answer = Some(match question.of {
            _ if self.redis.is_down => Answer::Failed,
            For::Settling(_) => {
                self.redis.open();
                Answer::Seen(self.redis.tops())
            }
            For::Track(_) | For::Client(..) => {
                let (replay, floor) = self.redis.read(&question.since, page);
                Answer::Page(replay, floor)
            }
        });
    }

    // A node's side.

    fn resubscribe(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        if node.track.is_some() && node.is_down && !self.redis.is_down {
            node.is_down = false;
            node.hears = true;
            node.link.push(Push::Subscribed);
        }
    }

    fn doubt(&mut self, node: usize, late: bool) {
        let node = &mut self.nodes[node];
        let Some(track) = &mut node.track else { return };
        track.doubt();
        node.is_down = true;
        node.hears = false;
        node.is_settled = false;
        node.deleted = node.unheard.or(node.deleted);
        node.link.retain(|push| late && matches!(push, Push::Message(..) | Push::Forgotten(..)));
    }

    fn unlisten(&mut self, node: usize) {
        if self.clients.iter().all(|client| client.node() != Some(node)) {
            self.nodes[node] = Node::default();
        }
    }

    fn kill_node(&mut self, node: usize) {
        self.clients.iter_mut().filter(|client| client.node() == Some(node)).for_each(Client::leave);
        self.nodes[node] = Node::default();
    }

    /// Asks for the top.
    fn settle(&mut self, node: usize) {
        let node = &mut self.nodes[node];
        if let Some(ticket) = node.track.as_ref().and_then(Track::ticket) {
            node.questions.push(Question { of: For::Settling(ticket), since: Since::Latest, answer: None });
        }
    }

    /// Something comes through the link.
    fn hear(&mut self, index: usize) -> Outcome {
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
    fn answer(&mut self, which: usize) -> Outcome {
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

    fn take_answer(&mut self, index: usize, question: Question) -> Outcome {
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
    fn follow(&mut self, index: usize, steps: Vec<Step>) -> Outcome {
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
        if held > super::super::held::MESSAGES || (track.is_live() && held > 0) {
            return Err(format!("node {index}: {held} held"));
        }
        Ok(())
    }

    fn hand_on(&mut self, node: usize, step: &Step) -> Outcome {
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

    // A client's side.

    fn leave(&mut self, client: usize) {
        self.clients[client].leave();
        for node in &mut self.nodes {
            node.questions.retain(|question| !matches!(question.of, For::Client(of, _) if of == client));
        }
    }

    fn attach(&mut self, client: usize, index: usize) -> Outcome {
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
    fn welcome(&mut self, index: usize) -> Outcome {
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
    fn read_for(&mut self, client: usize, index: usize) -> Outcome {
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

    fn page(&mut self, client: usize, index: usize, replay: &Replay) -> Outcome {
        let next = self.clients[client].page(replay, &self.redis);
        match next.map_err(|fault| format!("client {client}: {fault}"))? {
            Next::Nothing => Ok(()),
            Next::Read => self.read_for(client, index),
        }
    }

    /// Holds what a node answers itself against what the broker would.
    fn compare(&mut self, index: usize, ask: Ask) -> Outcome {
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

    // The end.

    /// Heals everything, lets it come to rest, and holds every client to account.
    fn rest(&mut self) -> Outcome {
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

    fn account(&mut self) -> Outcome {
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

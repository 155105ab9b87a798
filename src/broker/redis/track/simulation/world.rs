//! Nodes, links, questions on their way, and clients: a run, checked at each step.

mod account;
mod clients;
mod nodes;

use std::collections::HashSet;

use super::{
    super::{Seen, Ticket, Track},
    client::{Client, Place},
    redis::Redis,
    script::{Act, Setting},
};
use crate::{
    broker::Replay,
    position::{Epoch, Position, Since},
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
    Seen(Seen),
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
            Act::Drain { node, to } => {
                let count = self.nodes.len();
                return self.drain(node % count, to % count);
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
}

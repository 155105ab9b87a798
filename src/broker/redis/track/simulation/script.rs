//! What a seed stands for: the settings of a run and what happens in it, step by step. Each step can be taken
//! in any state, so that any of them may be left out when a failing run is made smaller.

use std::{num::NonZeroU64, time::Duration};

use fastrand::Rng;

use super::super::Budget;
use crate::{broker::Page, config::History, position::Since};

/// One thing that happens. Indices are taken modulo what there is.
#[derive(Clone, Copy, Debug)]
pub(super) enum Act {
    Publish {
        size: usize,
    },
    Wait {
        ms: u64,
    },
    /// A node takes so much from its link.
    Hear {
        node: usize,
        count: usize,
    },
    /// The broker runs what waits; the answer is on its way.
    Run {
        which: usize,
    },
    /// An answer arrives, whichever.
    Answer {
        which: usize,
    },
    Attach {
        client: usize,
        node: usize,
    },
    Leave {
        client: usize,
    },
    /// The heartbeat of an event stream.
    Renew {
        client: usize,
    },
    /// What a node would answer itself is held against the broker.
    Ask {
        node: usize,
        since: Ask,
    },
    Sweep {
        node: usize,
    },
    /// A node leaves a channel that nobody listens to.
    Unlisten {
        node: usize,
    },
    Probe {
        node: usize,
    },
    /// The tops are compared while the link is up, as during a migration.
    Poll {
        node: usize,
    },
    /// The link ends, and what was on its way is lost, or comes late.
    Kill {
        node: usize,
        late: bool,
    },
    /// The link is dead and nobody noticed.
    Cut {
        node: usize,
    },
    /// It is noticed, where it is so.
    Notice {
        node: usize,
    },
    Resubscribe {
        node: usize,
    },
    /// The link repeats messages.
    Repeat {
        node: usize,
        count: usize,
    },
    KillNode {
        node: usize,
    },
    /// A node ends as a rolling restart has it: its clients go on elsewhere at once, or where it was.
    Drain {
        node: usize,
        to: usize,
    },
    Down,
    Up,
    Delete,
    Flush,
    EvictMeta,
    EvictLog,
    EvictState,
    Replicate,
    FailOver,
    Resurrect,
    /// A restart with its data, a slot that moved; the links end unnoticed.
    Move,
    /// A replica attached; the links stay.
    NewReplid,
}

/// What is asked.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ask {
    Since(Since),
    /// So far behind the node's position.
    Behind(u64),
    /// The node's own position of an empty channel, less so many seconds.
    Empty(u64),
}

/// The settings of a run.
#[derive(Clone, Copy, Debug)]
pub(super) struct Setting {
    pub(super) nodes: usize,
    pub(super) clients: usize,
    pub(super) history: History,
    pub(super) page: Page,
    pub(super) budget: Budget,
}

/// The run of a seed.
pub(super) fn script(seed: u64) -> (Setting, Vec<Act>) {
    let mut rng = Rng::with_seed(seed);
    let setting = Setting {
        nodes: rng.usize(1..=3),
        clients: rng.usize(1..=4),
        history: History {
            messages: *pick(&mut rng, &[0, 1, 2, 3, 5, 10, 100, 100, 100]),
            bytes: *pick(&mut rng, &[20, 60, 100_000, 100_000]),
            age: Duration::from_secs(*pick(&mut rng, &[2, 10, 100, 100])),
        },
        page: Page { messages: *pick(&mut rng, &[1, 2, 3, 100]), bytes: *pick(&mut rng, &[10, 40, 100_000]) },
        budget: Budget { messages: *pick(&mut rng, &[0, 1, 3, 100]), bytes: *pick(&mut rng, &[30, 100_000]) },
    };
    // A run knows only some of the faults, so that each meets quiet and storm.
    let faults: Vec<usize> = (0..FAULTS).filter(|_| rng.u8(..4) == 0).collect();
    let storm = rng.usize(2..25);
    let count = rng.usize(10..110);
    let mut acts = vec![Act::Attach { client: 0, node: 0 }];
    for _ in 0..count {
        let is_fault = !faults.is_empty() && rng.usize(..storm) == 0;
        let act = if is_fault { fault(*pick(&mut rng, &faults), &mut rng) } else { usual(&mut rng) };
        acts.push(act);
    }
    (setting, acts)
}

fn pick<'a, T>(rng: &mut Rng, from: &'a [T]) -> &'a T {
    &from[rng.usize(..from.len())]
}

fn usual(rng: &mut Rng) -> Act {
    let node = rng.usize(..6);
    let client = rng.usize(..12);
    let which = rng.usize(..100);
    match rng.u8(..100) {
        0..25 => Act::Publish { size: *pick(rng, &[0, 0, 0, 5, 30]) },
        25..50 => Act::Hear { node, count: rng.usize(1..6) },
        50..62 => Act::Run { which },
        62..74 => Act::Answer { which },
        74..83 => Act::Attach { client, node },
        83..86 => Act::Leave { client },
        86..90 => Act::Wait { ms: *pick(rng, &[1, 300, 700, 1000, 1500, 3000]) },
        90..93 => Act::Ask { node, since: ask(rng) },
        93..96 => Act::Resubscribe { node },
        96..98 => Act::Probe { node },
        98 => Act::Renew { client },
        _ => Act::Sweep { node },
    }
}

fn ask(rng: &mut Rng) -> Ask {
    match rng.u8(..6) {
        0 => Ask::Since(Since::Latest),
        1 => Ask::Since(Since::Earliest),
        2 => Ask::Since(Since::Last(NonZeroU64::MIN.saturating_add(rng.u64(..4)))),
        3 => Ask::Empty(rng.u64(..4)),
        _ => Ask::Behind(rng.u64(..6)),
    }
}

const FAULTS: usize = 22;

fn fault(which: usize, rng: &mut Rng) -> Act {
    let node = rng.usize(..6);
    match which {
        0 | 1 => Act::Kill { node, late: rng.bool() },
        2 => Act::Cut { node },
        3 => Act::Notice { node },
        4 => Act::Repeat { node, count: rng.usize(1..4) },
        5 => Act::KillNode { node },
        6 => Act::Poll { node },
        7 => *pick(rng, &[Act::Down, Act::Up, Act::Up]),
        8 => Act::Delete,
        9 => Act::Flush,
        10 => Act::EvictMeta,
        11 => Act::EvictLog,
        12 => Act::EvictState,
        13 | 14 => *pick(rng, &[Act::Replicate, Act::FailOver]),
        15 => Act::FailOver,
        16 => *pick(rng, &[Act::Replicate, Act::FailOver, Act::Resurrect]),
        17 => Act::Move,
        18 => Act::NewReplid,
        19 => Act::Wait { ms: *pick(rng, &[12_000, 35_000, 140_000]) },
        20 => Act::Unlisten { node },
        _ => Act::Drain { node, to: rng.usize(..6) },
    }
}

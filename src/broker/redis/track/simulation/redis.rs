//! A Redis of one channel, as the functions of the library treat it, with all that can befall it. It also
//! knows what no Redis knows: which message every id ever given stands for.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use bytes::Bytes;

use super::super::Seen;
use crate::{
    broker::{Page, Replay},
    channel::Channel,
    clock::millis,
    config::History,
    position::{Epoch, Position, Since},
    publication::{Kind, Payload, Publication},
    resume::{LogView, resume},
};

/// Seconds for which a channel's counting outlives its last message. A day in truth.
const MEMORY: u64 = 30;

/// A message, by its place in the order in which all were accepted, from 1.
pub(super) type Uid = u64;

#[derive(Clone)]
struct Entry {
    offset: u64,
    time: u64,
    uid: Uid,
    size: usize,
}

#[derive(Clone)]
struct Meta {
    epoch: Epoch,
    top: u64,
    fence: u64,
    past: Vec<(Epoch, u64)>,
    last: u64,
    removed: u64,
    deleted_to: u64,
    began: u64,
    vouch_from: u64,
}

#[derive(Clone, Copy)]
struct State {
    born: u64,
    fence: u64,
}

/// The keys of the channel.
#[derive(Clone, Default)]
struct Store {
    meta: Option<Meta>,
    log: Vec<Entry>,
    state: Option<State>,
}

/// See the module.
pub(super) struct Redis {
    pub(super) now: u64,
    pub(super) history: History,
    pub(super) is_down: bool,
    channel: Channel,
    store: Store,
    replid: u64,
    replids: u64,
    replica: Store,
    /// The primary before the last failover, as it was then.
    other: Option<(Store, u64, Uid)>,
    epochs: u64,
    /// How many messages were accepted.
    pub(super) accepted: Uid,
    /// What each id stands for.
    ids: HashMap<(Epoch, u64), Uid>,
    removed: HashSet<Uid>,
    /// How many messages were accepted when an epoch began.
    births: HashMap<Epoch, Uid>,
    /// Accepted by a primary that was thrown away without a trace: nobody can know of them.
    pub(super) void: Vec<Uid>,
    /// When the broker lost what it knew, or learnt that it may have.
    upheavals: Vec<u64>,
    /// The latest second that an empty channel's position bears.
    latest_second: u64,
    /// The log was evicted alone: mirrors know more than it does.
    pub(super) is_log_evicted: bool,
}

impl Redis {
    pub(super) fn new(history: History) -> Self {
        Self {
            now: 1_000_000_300,
            history,
            is_down: false,
            channel: "c".parse().unwrap(),
            store: Store::default(),
            replid: 1,
            replids: 1,
            replica: Store::default(),
            other: None,
            epochs: 0,
            accepted: 0,
            ids: HashMap::new(),
            removed: HashSet::new(),
            births: HashMap::new(),
            void: Vec::new(),
            upheavals: Vec::new(),
            latest_second: 0,
            is_log_evicted: false,
        }
    }

    fn second(&self) -> u64 {
        self.now / 1000
    }

    /// All is gone; where an older state comes back, nobody need be given what this one had lost.
    fn remove_all(&mut self) {
        self.removed.extend(self.store.log.drain(..).map(|entry| entry.uid));
    }

    fn upheaval(&mut self) {
        self.upheavals.push(self.now);
    }

    /// Something befalls it. Not twice within a second: such lives look alike to who comes back with the
    /// position of an empty channel, which is the one thing that the rules cannot tell.
    fn befall(&mut self) {
        self.now = self.now.max(self.latest_second * 1000);
        self.upheaval();
    }

    /// Whether the broker may have been unable to vouch for `second`.
    pub(super) fn is_disturbed_since(&self, second: u64) -> bool {
        let is_too_old = second <= (self.now - millis(self.history.age)) / 1000 - MEMORY;
        is_too_old || self.upheavals.iter().any(|at| *at + 1000 >= second * 1000)
    }

    /// The message that an id stands for; 0 for the position before the first.
    pub(super) fn uid(&self, id: Position) -> Option<Uid> {
        match id {
            Position::At(_, 0) | Position::Empty(_) => Some(0),
            Position::At(epoch, offset) => self.ids.get(&(epoch, offset)).copied(),
        }
    }

    /// The messages that a read would find, less those that an earlier one would not.
    pub(super) fn kept(&self) -> Vec<Uid> {
        let alive = self.now - millis(self.history.age);
        let is_counted = self.store.meta.is_some();
        let log = self.store.log.iter().filter(|entry| is_counted && entry.time > alive);
        log.map(|entry| entry.uid).filter(|uid| !self.removed.contains(uid)).collect()
    }

    // What the functions do.

    fn new_epoch(&mut self) -> Epoch {
        self.epochs += 1;
        let epoch = format!("e{:06}", self.epochs).parse().unwrap();
        self.births.insert(epoch, self.accepted);
        epoch
    }

    /// The last message that was accepted before the epoch of a position began.
    pub(super) fn before_epoch(&self, position: Position) -> Uid {
        match position {
            Position::At(epoch, _) => self.births[&epoch],
            Position::Empty(_) => 0,
        }
    }

    /// What has outlived its time is not there.
    fn expire(&mut self) {
        let age = millis(self.history.age);
        let now = self.now;
        if self.store.meta.as_ref().is_some_and(|meta| meta.last + age + MEMORY * 1000 <= now) {
            self.store.meta = None;
        }
        let dead = self.store.log.iter().take_while(|entry| entry.time + age <= now).count();
        let is_orphaned = self.store.meta.is_none() && dead > 0;
        self.remove(dead);
        if is_orphaned && self.store.log.is_empty() {
            self.lose_every_trace();
        }
    }

    /// Meta and log are both gone, while all else stays: who had no message yet cannot be told.
    fn lose_every_trace(&mut self) {
        self.void.extend(1..=self.accepted);
    }

    fn remove(&mut self, count: usize) {
        for entry in self.store.log.drain(..count) {
            self.removed.insert(entry.uid);
            if let Some(meta) = &mut self.store.meta {
                meta.removed = entry.time;
            }
        }
    }

    /// The fence: another server than the one that counted last begins an epoch.
    fn fence(&mut self) {
        self.expire();
        let replid = self.replid;
        let epoch = match &self.store.meta {
            Some(meta) if meta.fence != replid => self.new_epoch(),
            _ => return,
        };
        self.upheaval();
        let Some(meta) = &mut self.store.meta else { return };
        let left = meta.epoch;
        meta.past.insert(0, (left, meta.top));
        meta.past.truncate(4);
        meta.epoch = epoch;
        meta.fence = replid;
        for offset in 1..=meta.top {
            if let Some(uid) = self.ids.get(&(left, offset)).copied() {
                self.ids.insert((epoch, offset), uid);
            }
        }
    }

    /// The first second from which on a first message cannot have been lost.
    fn vouch_from(&self) -> u64 {
        let is_orphaned = self.store.meta.is_none() && !self.store.log.is_empty();
        let born = match self.store.state {
            Some(state) if state.fence == self.replid && !is_orphaned => state.born,
            _ => self.second() + 1,
        };
        born.max((self.now - millis(self.history.age)) / 1000 - MEMORY + 1)
    }

    /// `open`, as a node does when its link is up.
    pub(super) fn open(&mut self) {
        if self.store.state.is_none_or(|state| state.fence != self.replid) {
            self.upheaval();
            self.store.state = Some(State { born: self.second() + 1, fence: self.replid });
        }
    }

    /// `publish`: the message, and the oldest offset kept after it.
    pub(super) fn publish(&mut self, size: usize) -> (Publication, u64) {
        self.fence();
        if self.store.meta.is_none() {
            let vouch_from = self.vouch_from();
            if !self.store.log.is_empty() {
                self.remove_all();
                self.upheaval();
            }
            self.open();
            let vouch_from = vouch_from.max(self.vouch_from());
            self.store.meta = Some(Meta {
                epoch: self.new_epoch(),
                top: 0,
                fence: self.replid,
                past: Vec::new(),
                last: 0,
                removed: 0,
                deleted_to: 0,
                began: self.second().max(vouch_from),
                vouch_from,
            });
            self.is_log_evicted = false;
        }
        self.accepted += 1;
        let meta = self.store.meta.as_mut().unwrap();
        meta.top += 1;
        meta.last = meta.last.max(self.now);
        self.ids.insert((meta.epoch, meta.top), self.accepted);
        let entry = Entry { offset: meta.top, time: meta.last, uid: self.accepted, size };
        let message = publication(&self.channel, meta.epoch, &entry);
        self.store.log.push(entry);
        self.trim();
        (message, self.floor())
    }

    fn trim(&mut self) {
        while self.store.log.len() > self.history.messages
            || self.store.log.iter().map(|entry| 8 + entry.size).sum::<usize>() > self.history.bytes
        {
            self.remove(1);
        }
    }

    fn floor(&self) -> u64 {
        let top = self.store.meta.as_ref().map_or(0, |meta| meta.top);
        self.store.log.first().map_or(top + 1, |entry| entry.offset)
    }

    /// `tops`.
    pub(super) fn tops(&mut self) -> Seen {
        self.fence();
        let vouch_from = self.vouch_from();
        self.latest_second = self.latest_second.max(self.second().max(vouch_from));
        Seen {
            top: self.store.meta.as_ref().map(|meta| (meta.epoch, meta.top)),
            second: self.second(),
            vouch_from,
        }
    }

    /// `read`: with the oldest offset kept.
    pub(super) fn read(&mut self, since: &Since, page: Page) -> (Replay, u64) {
        self.fence();
        let vouch_from = self.vouch_from();
        let now = self.second().max(vouch_from);
        self.latest_second = self.latest_second.max(now);
        let floor = self.floor();
        let Some(meta) = &self.store.meta else {
            let view = LogView {
                epoch: None,
                top: 0,
                floor: 1,
                deleted_to: 0,
                past: &[],
                now,
                began: 0,
                vouch_from,
                removed: 0,
                oldest_since: &|_| 1,
            };
            let top = Position::Empty(now);
            return (Replay { start: resume(since, &view), messages: Vec::new(), more: false, top }, 1);
        };
        let log = &self.store.log;
        let oldest_since = |second: u64| {
            let young = log.iter().find(|entry| entry.time / 1000 >= second);
            young.map_or(meta.top + 1, |entry| entry.offset)
        };
        let view = LogView {
            epoch: Some(meta.epoch),
            top: meta.top,
            floor,
            deleted_to: meta.deleted_to,
            past: &meta.past,
            now,
            began: meta.began,
            vouch_from: meta.vouch_from,
            removed: meta.removed / 1000,
            oldest_since: &oldest_since,
        };
        let start = resume(since, &view);
        let rest = log.iter().filter(|entry| entry.offset > start.after.offset());
        let rest: Vec<_> =
            rest.map(|entry| Arc::new(publication(&self.channel, meta.epoch, entry))).collect();
        let (messages, more) = page.cut(rest.iter());
        (Replay { start, messages, more, top: view.top() }, floor)
    }

    /// What a read would say, which changes nothing.
    pub(super) fn peek(&mut self, since: &Since, page: Page) -> Replay {
        let before = (self.store.clone(), self.epochs);
        let upheavals = self.upheavals.len();
        let (replay, _) = self.read(since, page);
        (self.store, self.epochs) = before;
        self.upheavals.truncate(upheavals);
        replay
    }

    /// `forget`: the epoch and the offset up to which all is gone.
    pub(super) fn forget(&mut self) -> Option<(Epoch, u64)> {
        self.fence();
        let is_empty = self.store.log.is_empty();
        self.remove_all();
        let Some(meta) = &mut self.store.meta else {
            self.lose_every_trace();
            return None;
        };
        if !is_empty {
            meta.deleted_to = meta.top;
            meta.removed = meta.last;
        }
        Some((meta.epoch, meta.deleted_to))
    }

    // What befalls it.

    pub(super) fn flush(&mut self) {
        self.befall();
        self.remove_all();
        self.store = Store::default();
    }

    pub(super) fn evict_meta(&mut self) {
        if self.store.meta.is_some() {
            self.befall();
            self.store.meta = None;
            self.removed.extend(self.store.log.iter().map(|entry| entry.uid));
            if self.store.log.is_empty() {
                self.lose_every_trace();
            }
        }
    }

    pub(super) fn evict_log(&mut self) {
        if !self.store.log.is_empty() {
            self.is_log_evicted = true;
            self.remove_all();
            if let Some(meta) = &mut self.store.meta {
                meta.removed = meta.last;
            } else {
                self.lose_every_trace();
            }
        }
    }

    pub(super) fn evict_state(&mut self) {
        self.befall();
        self.store.state = None;
    }

    pub(super) fn replicate(&mut self) {
        self.replica = self.store.clone();
    }

    /// Another server takes the same keys over: a restart with its data, a slot that moved.
    pub(super) fn new_replid(&mut self) {
        self.befall();
        self.replids += 1;
        self.replid = self.replids;
    }

    /// The replica takes over with what it has.
    pub(super) fn fail_over(&mut self) {
        let store = std::mem::replace(&mut self.store, self.replica.clone());
        self.other = Some((store, self.replid, self.accepted));
        self.new_replid();
    }

    /// The old primary is the primary again and knows of nothing.
    pub(super) fn resurrect(&mut self) {
        if let Some((store, replid, accepted)) = self.other.take() {
            self.befall();
            self.void.extend(accepted + 1..=self.accepted);
            self.removed.extend(1..=self.accepted);
            self.store = store;
            self.replid = replid;
        }
    }
}

fn publication(channel: &Channel, epoch: Epoch, entry: &Entry) -> Publication {
    let mut bytes = entry.uid.to_le_bytes().to_vec();
    bytes.resize(8 + entry.size, 0);
    Publication {
        channel: channel.clone(),
        epoch,
        offset: entry.offset,
        time: entry.time,
        event: None,
        payload: Payload::new(Kind::Bytes, Bytes::from(bytes)),
        trace: None,
    }
}

/// Which message this is.
pub(super) fn uid_of(message: &Publication) -> Uid {
    let bytes = message.payload.bytes();
    Uid::from_le_bytes(bytes[..8].try_into().unwrap())
}

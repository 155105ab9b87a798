//! The channels that this node listens to: from their first subscriber here until some time after the last.

use std::{sync::Arc, time::Instant};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio_util::sync::CancellationToken;

use super::{
    Inner,
    names::Partition,
    reader::Wish,
    track::{Budget, PlainTrack, Ticket, Track},
};
use crate::{
    channel::Channel,
    config::{History, Namespace, Source},
    payload,
    publication::Payload,
};

/// Recent messages that this node keeps of all channels together, about; of one, no more than a history.
const MIRRORS: usize = 64 * 1024 * 1024;

/// What a channel's mirror may hold at least, however many channels there are.
const SMALLEST_MIRROR: usize = 16 * 1024;

fn mirror_budget(history: &History, others: usize) -> Budget {
    let share = (MIRRORS / (others + 1)).max(SMALLEST_MIRROR);
    Budget { messages: history.messages, bytes: share.min(history.bytes) }
}

/// A channel that this node listens to.
pub(super) struct Listened {
    pub(super) channel: Channel,
    pub(super) namespace: Arc<Namespace>,
    pub(super) partition: Partition,
    /// Its Redis channel.
    pub(super) live: Bytes,
    /// Cancelled once it was subscribed and its top is known.
    pub(super) joined: CancellationToken,
    pub(super) track: Mutex<Tracked>,
    /// Since when nobody listens.
    pub(super) idle_since: Mutex<Option<Instant>>,
}

/// What is known of a channel, by where its messages come from.
pub(super) enum Tracked {
    /// Published through Tidegate.
    Log(Track),
    /// Fed by other programs' PUBLISH.
    Plain(PlainTrack),
}

impl Listened {
    pub(super) fn is_plain(&self) -> bool {
        matches!(self.namespace.source, Source::Redis(_))
    }

    pub(super) fn history(&self) -> &History {
        &self.namespace.history
    }

    /// What a question about the whole channel must come back with.
    pub(super) fn ticket(&self) -> Option<Ticket> {
        match &*self.track.lock() {
            Tracked::Log(track) => track.ticket(),
            Tracked::Plain(_) => None,
        }
    }

    /// Whether this read is still awaited.
    pub(super) fn wants(&self, ticket: Ticket) -> bool {
        match &*self.track.lock() {
            Tracked::Log(track) => track.wanted().is_some_and(|(wanted, _)| wanted == ticket),
            Tracked::Plain(_) => false,
        }
    }

    pub(super) fn doubt(&self) {
        match &mut *self.track.lock() {
            Tracked::Log(track) => track.doubt(),
            Tracked::Plain(plain) => plain.doubt(),
        }
    }
}

impl Inner {
    pub(super) fn listened(&self, channel: &Channel) -> Option<Arc<Listened>> {
        let listened = self.listened.lock();
        listened.get(channel).filter(|listened| listened.joined.is_cancelled()).cloned()
    }

    /// The channel among those that are listened to; it begins to be where it is not.
    pub(super) fn enter(&self, channel: &Channel) -> Arc<Listened> {
        let mut all = self.listened.lock();
        if let Some(listened) = all.get(channel) {
            *listened.idle_since.lock() = None;
            return Arc::clone(listened);
        }
        let namespace = Arc::clone(self.config.namespaces.of(channel.as_str()));
        let budget = mirror_budget(&namespace.history, all.len());
        let partition = self.names.partition(channel);
        let (live, track) = match &namespace.source {
            Source::Tidegate => (self.names.live(partition, channel), Tracked::Log(Track::joining(budget))),
            Source::Redis(name) => (
                name.of(channel.as_str()).into(),
                Tracked::Plain(PlainTrack::joining(channel.clone(), budget)),
            ),
        };
        let listened = Arc::new(Listened {
            channel: channel.clone(),
            namespace,
            partition,
            live,
            joined: CancellationToken::new(),
            track: Mutex::new(track),
            idle_since: Mutex::new(None),
        });
        all.insert(channel.clone(), Arc::clone(&listened));
        let _ = self.wishes.send(Wish::Listen(Arc::clone(&listened)));
        listened
    }

    /// Forgets a channel that nobody has listened to for `linger`; whether it did.
    pub(super) fn let_go(&self, listened: &Arc<Listened>) -> bool {
        let mut all = self.listened.lock();
        let is_idle =
            listened.idle_since.lock().is_some_and(|since| since.elapsed() >= self.config.broker.linger);
        let is_same = all.get(&listened.channel).is_some_and(|now| Arc::ptr_eq(now, listened));
        if is_idle && is_same {
            all.remove(&listened.channel);
        }
        is_idle && is_same
    }

    /// The payload of another program's message: JSON where it parses, else text, else bytes. `None` where it
    /// is over the limit.
    pub(super) fn foreign(&self, payload: Bytes) -> Option<Payload> {
        if payload.len() > self.config.limits.message {
            return None;
        }
        Some(payload::form(payload.clone()).unwrap_or_else(|_| payload::binary(payload)))
    }
}

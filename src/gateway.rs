//! Where broker and hub meet: the rules of the namespaces, one listener in the broker for all of a channel's
//! members here, and the way of every request into the broker.

pub mod counts;
pub mod pump;

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;

pub use crate::broker::Target;
use crate::{
    auth::Auth,
    broker::{Broker, BrokerError, Page, Replay},
    channel::Channel,
    config::{Config, Namespace, Source},
    disconnect::Disconnect,
    fault::{Code, Fault},
    hub::{ConnectionId, Hub, Key, Outbox, Registry, Slot, Topic},
    metrics::Metrics,
    pattern::Patterns,
    position::{Position, Since},
    publication::{Draft, Receipt},
    telemetry::Tracer,
    transport_name::Transport,
    wire::{self, Encoding, Framing, Object, Prepared},
};

/// What a replay reads at once: small enough that a slow reader holds little, large enough to be one write.
const REPLAY_PAGE: Page = Page { messages: 1000, bytes: 64 * 1024 };

/// What a poll reads at once: all that its one answer may hold.
const POLL_PAGE: Page = Page { messages: 1000, bytes: ANSWER_BYTES };

/// What one answer of the history, or of a poll, holds at most.
pub const ANSWER_BYTES: usize = 1024 * 1024;

/// A handle on the gateway; clones cheaply.
#[derive(Clone, Debug)]
pub struct Gateway(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    config: Arc<Config>,
    auth: Auth,
    broker: Broker,
    hub: Hub,
    registry: Registry,
    metrics: Arc<Metrics>,
    tracer: Tracer,
    /// Messages of this node's publishers that the broker has and has not answered.
    publishing: AtomicUsize,
}

/// Counts a publish for as long as it lives: nobody may wait for it to the end.
struct Publishing<'a>(&'a AtomicUsize);

impl<'a> Publishing<'a> {
    fn begin(count: &'a AtomicUsize) -> Self {
        count.fetch_add(1, Relaxed);
        Self(count)
    }
}

impl Drop for Publishing<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Relaxed);
    }
}

/// Messages of a channel's history, written down.
#[derive(Debug)]
pub struct HistoryPage {
    /// Message objects.
    pub messages: Vec<Bytes>,
    /// Gap objects: one or none.
    pub gaps: Vec<Bytes>,
    /// What to come back with.
    pub cursor: String,
    /// Further messages are kept.
    pub more: bool,
}

/// What is known of a channel.
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// The newest position.
    pub position: Position,
    /// Messages kept.
    pub messages: u64,
    /// Connections that listen, over all nodes.
    pub subscribers: usize,
    /// How old that figure is.
    pub subscribers_age_ms: u64,
}

/// A member of a channel's topic on this node. Leaves it when dropped.
#[derive(Debug)]
pub struct Subscription {
    gateway: Gateway,
    topic: Arc<Topic>,
    key: Key,
    slot: Slot,
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let Inner { hub, broker, metrics, .. } = &*self.gateway.0;
        hub.leave(&self.topic, self.key, || {
            broker.unlisten(self.topic.channel());
            metrics.topics().dec();
        });
        metrics.subscriptions().dec();
    }
}

impl Subscription {
    /// The channel.
    #[must_use]
    pub fn channel(&self) -> &Channel {
        self.topic.channel()
    }

    /// The channel's seat in the connection's outbox.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// The topic.
    #[must_use]
    pub fn topic(&self) -> &Arc<Topic> {
        &self.topic
    }

    /// The member's key in the topic.
    #[must_use]
    pub fn key(&self) -> Key {
        self.key
    }
}

impl Gateway {
    /// Joins the parts. [`pump::run`] must run for messages to flow.
    #[must_use]
    pub fn new(
        config: Arc<Config>,
        auth: Auth,
        broker: Broker,
        metrics: Arc<Metrics>,
        tracer: Tracer,
    ) -> Self {
        let (hub, registry) = (Hub::default(), Registry::default());
        let publishing = AtomicUsize::new(0);
        Self(Arc::new(Inner { config, auth, broker, hub, registry, metrics, tracer, publishing }))
    }

    /// What is configured.
    #[must_use]
    pub fn config(&self) -> &Arc<Config> {
        &self.0.config
    }

    /// Who may do what.
    #[must_use]
    pub fn auth(&self) -> &Auth {
        &self.0.auth
    }

    /// The metrics.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.0.metrics
    }

    /// What makes the spans of traces.
    #[must_use]
    pub fn tracer(&self) -> &Tracer {
        &self.0.tracer
    }

    /// Whether messages of this node's publishers are on their way through the broker.
    #[must_use]
    pub fn is_publishing(&self) -> bool {
        self.0.publishing.load(Relaxed) > 0
    }

    /// Who listens on this node.
    #[must_use]
    pub fn hub(&self) -> &Hub {
        &self.0.hub
    }

    /// Every connection of this node.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.0.registry
    }

    /// Milliseconds since 1970, by the broker's clock.
    #[must_use]
    pub fn now(&self) -> u64 {
        self.0.broker.now()
    }

    /// Whether the broker is up, or was: a link that is away is a pause.
    ///
    /// # Errors
    /// Why not, in a sentence.
    pub fn broker_state(&self) -> Result<(), String> {
        self.0.broker.state()
    }

    /// Seconds since 1970, by the broker's clock.
    #[must_use]
    pub fn now_seconds(&self) -> u64 {
        self.now() / 1000
    }

    fn namespace(&self, channel: &Channel) -> &Arc<Namespace> {
        self.0.config.namespaces.of(channel.as_str())
    }

    /// Whether messages of a channel come in here.
    fn is_ours(&self, channel: &Channel) -> Result<(), Fault> {
        match &self.namespace(channel).source {
            Source::Tidegate => Ok(()),
            Source::Redis(name) => Err(Fault::new(
                Code::Forbidden,
                format!(
                    "other programs feed this channel (namespaces.source = \"redis\"): PUBLISH to {:?} in Redis",
                    name.of(channel.as_str())
                ),
            )),
        }
    }

    /// Publishes a message.
    ///
    /// # Errors
    /// `message_too_large`, `idempotency_key_reused`, or the broker's.
    pub async fn publish(&self, channel: &Channel, mut draft: Draft) -> Result<Receipt, Fault> {
        let Inner { config, broker, metrics, tracer, publishing, .. } = &*self.0;
        let size = draft.payload.bytes().len();
        if size > config.limits.message {
            return Err(message_too_large(config.limits.message));
        }
        self.is_ours(channel)?;
        let timer = metrics.publish_timer();
        let span = tracer.publish(channel, size, draft.trace);
        draft.trace = span.carried();
        let on_its_way = Publishing::begin(publishing);
        let published = broker.publish(channel, &self.namespace(channel).history, draft).await;
        drop(on_its_way);
        span.end(published.as_ref().map(|receipt| receipt.position));
        let receipt = published?;
        metrics.published(&receipt, timer);
        Ok(receipt)
    }

    /// Seats `outbox` in a channel and reads what comes after `since`: hub first, broker confirmed second,
    /// history third, so that nothing falls between.
    ///
    /// # Errors
    /// The broker's.
    pub async fn attach(
        &self,
        outbox: &Arc<Outbox>,
        channel: &Channel,
        since: &Since,
    ) -> Result<(Subscription, Replay), Fault> {
        let Inner { broker, hub, metrics, .. } = &*self.0;
        let namespace = self.namespace(channel);
        let slot = outbox.seat(Arc::clone(namespace));
        let (topic, key, first) = hub.enter(channel, namespace, outbox, slot);
        if first {
            metrics.topics().inc();
        }
        metrics.subscriptions().inc();
        let subscription = Subscription { gateway: self.clone(), topic, key, slot };
        let listen = || async { broker.listen(channel).await.map(|_| ()) };
        subscription.topic.listening().get_or_try_init(listen).await?;
        let replay = self.read_on(outbox, &subscription.topic, since).await?;
        Ok((subscription, replay))
    }

    /// Reads on, for the connection of `outbox`.
    ///
    /// # Errors
    /// The broker's.
    pub async fn read_on(
        &self,
        outbox: &Outbox,
        topic: &Topic,
        since: &Since,
    ) -> Result<Replay, BrokerError> {
        let page = match outbox.style().transport {
            Transport::Poll => POLL_PAGE,
            Transport::WebSocket | Transport::Sse | Transport::Ndjson => REPLAY_PAGE,
        };
        self.0.broker.read(topic.channel(), &topic.namespace().history, since, page).await
    }

    /// A page of a channel's history.
    ///
    /// # Errors
    /// The broker's.
    pub async fn history(&self, channel: &Channel, since: Since, limit: usize) -> Result<HistoryPage, Fault> {
        let page = Page { messages: limit, bytes: ANSWER_BYTES };
        let history = &self.namespace(channel).history;
        let replay = self.0.broker.kept(channel, history, &since, page).await?;
        let gap = replay.start.gap.map(|gap| Object::Gap { channel, gap }.to_json());
        let mut room = wire::room(ANSWER_BYTES, 1).saturating_sub(gap.as_ref().map_or(0, Bytes::len));
        let (mut messages, mut last, mut more) = (Vec::new(), replay.start.after, replay.more);
        for publication in replay.messages {
            let position = publication.position();
            let message = written(publication);
            // Written down they are longer than what the page counts.
            room = match room.checked_sub(message.len() + 1) {
                Some(rest) => rest,
                None if messages.is_empty() => 0,
                None => {
                    more = true;
                    break;
                }
            };
            messages.push(message);
            last = position;
        }
        Ok(HistoryPage { messages, gaps: gap.into_iter().collect(), cursor: last.to_string(), more })
    }

    /// What is known of a channel.
    ///
    /// # Errors
    /// The broker's.
    pub async fn info(&self, channel: &Channel) -> Result<Info, Fault> {
        let info = self.0.broker.info(channel, &self.namespace(channel).history).await?;
        let (elsewhere, subscribers_age_ms) = self.0.broker.counted(channel).await?;
        Ok(Info {
            position: info.position,
            messages: info.messages,
            subscribers: elsewhere + self.0.hub.topic(channel).map_or(0, |topic| topic.len()),
            subscribers_age_ms,
        })
    }

    /// Channels of these patterns that keep a message and begin with `prefix`, sorted, and whether more follow.
    ///
    /// # Errors
    /// The broker's.
    pub async fn channels(
        &self,
        patterns: &Patterns,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<(Vec<Channel>, bool), Fault> {
        let (mut names, mut more) = (BTreeSet::new(), false);
        // Each is asked for, rather than all names looked through: the last one of a page is told as its cursor.
        for pattern in patterns.iter() {
            let Some(beginning) = pattern.beginning(prefix) else {
                continue;
            };
            let limit = if pattern.is_exact() { 1 } else { limit };
            let page = self.0.broker.channels(beginning, after, limit).await?;
            more |= page.more && !pattern.is_exact();
            names.extend(page.names.into_iter().filter(|name| pattern.matches(name)));
        }
        more |= names.len() > limit;
        Ok((names.into_iter().take(limit).collect(), more))
    }

    /// Forgets a channel's messages.
    ///
    /// # Errors
    /// The broker's.
    pub async fn forget(&self, channel: &Channel) -> Result<(), Fault> {
        self.is_ours(channel)?;
        Ok(self.0.broker.forget(channel).await?)
    }

    /// Ends connections for good, on every node. It bars nobody from coming back.
    ///
    /// # Errors
    /// The broker's: other nodes could not be told.
    pub async fn disconnect(&self, target: Target) -> Result<(), Fault> {
        self.end(&target, u64::MAX);
        Ok(self.0.broker.disconnect(&target).await?)
    }

    /// Ends connections of this node that were there before a moment of the broker's clock, in ms.
    fn end(&self, target: &Target, before: u64) {
        let end = |outbox: &Arc<Outbox>| {
            if outbox.opened() < before {
                outbox.end(Disconnect::Revoked);
            }
        };
        match target {
            Target::Subject(subject) => self.0.registry.of(subject).iter().for_each(end),
            Target::Connection(id) => {
                let outbox = id.parse::<ConnectionId>().ok().and_then(|id| self.0.registry.get(id));
                outbox.iter().for_each(end);
            }
            Target::Channel(channel) => {
                let topic = self.0.hub.topic(channel);
                topic.iter().for_each(|topic| topic.outboxes().iter().for_each(end));
            }
        }
    }
}

/// The fault of a message over the limit.
#[must_use]
pub fn message_too_large(limit: usize) -> Fault {
    Fault::new(Code::MessageTooLarge, format!("a message may have {limit} bytes (limits.message)"))
        .limit(limit)
}

fn written(publication: Arc<crate::publication::Publication>) -> Bytes {
    Prepared::new(publication).bytes(Encoding::Object, Framing::Plain)
}

impl From<BrokerError> for Fault {
    fn from(error: BrokerError) -> Self {
        let (code, detail) = match error {
            BrokerError::Unavailable => (Code::BrokerUnavailable, "the broker is away; nothing was stored"),
            BrokerError::Uncertain => (
                Code::BrokerUncertain,
                "the broker's answer was lost; the message may be stored: retry with the same Idempotency-Key",
            ),
            BrokerError::KeyReused => (
                Code::IdempotencyKeyReused,
                "this key was used in this channel for another kind, event or payload within the last 5 minutes",
            ),
        };
        Self::new(code, detail)
    }
}

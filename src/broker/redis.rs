//! The broker over Redis or Valkey: many gateways as one. Messages, their order and the history are in Redis
//! (`tidegate.lua` is the one place that writes them); this node subscribes to what its clients want and
//! keeps the newest messages of it.
//!
//! | room | what lives there |
//! |---|---|
//! | `names` `tidegate.lua` `functions` | keys, and every call that touches them |
//! | `server` `endpoint` `command` `pipeline` `subscriber` `topology` | how one server is reached, for commands and for pub/sub; who owns what |
//! | `supervisor` `probes` `health` | keeps the links up and follows the topology; proves that messages come; says if not |
//! | `listened` `reader` | what this node listens to; the one task through which everything from Redis passes |
//! | `track` | what is known of one channel: pure, simulated |
//! | `coalesce` | reads that are shared |
//! | `checkup` | what an operator should know of a server before it matters |
//!
//! A doubt (a link was away, a slot moved, a probe did not come back) is never guessed away: what may have
//! changed is compared with Redis, and what is missing is read.

mod calls;
pub mod checkup;
mod coalesce;
pub mod command;
mod control;
mod counts;
pub mod endpoint;
pub mod error;
pub mod functions;
mod health;
mod listened;
pub mod names;
mod pipeline;
mod probes;
mod reader;
pub mod resp;
pub mod server;
pub mod subscriber;
mod supervisor;
pub mod topology;
mod track;

use std::{
    collections::{HashMap, HashSet},
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64},
    },
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use parking_lot::{Mutex, RwLock};
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::sync::CancellationToken;

use self::{
    calls::Way,
    coalesce::Coalesce,
    command::CommandLink,
    endpoint::Endpoint,
    functions::Functions,
    health::Health,
    listened::{Listened, Tracked},
    names::{Names, Partition},
    probes::Probed,
    reader::{Reader, Wish},
    server::Server,
    topology::Topology,
    track::{Budget, PlainTrack},
};
use super::{BrokerError, BrokerEvent, Channels, Info, Page, Replay, Target};
use crate::{
    channel::{Channel, ChannelMap},
    clock::Clock,
    config::{Config, History, Source},
    metrics::{Metrics, RedisCommand},
    position::{Position, Since},
    publication::{Draft, Receipt},
};

/// Between two attempts at what a link or a moving slot does not allow just now.
const RETRY: Duration = Duration::from_millis(50);

/// What may be on the way from links to the reader.
const INPUTS: usize = 256;

/// Beside a payload, an envelope has no more than this.
const ENVELOPE: usize = 1024;

/// What may come on a channel of pub/sub.
fn largest_payload(config: &Config) -> usize {
    config.limits.message + ENVELOPE
}

/// What a node reads at once to answer everybody who resumes in a channel: its newest messages.
const FILL: Page = Page { messages: 1000, bytes: 1024 * 1024 };

/// The Redis broker; clones share it.
#[derive(Clone)]
pub struct Redis(Arc<Inner>);

struct Inner {
    config: Arc<Config>,
    names: Names,
    /// In a Cluster: of each partition.
    slots: Vec<u16>,
    endpoint: Endpoint,
    functions: Functions,
    metrics: Arc<Metrics>,
    clock: Clock,
    /// How far Redis' clock is ahead of this machine's, in ms, as last measured.
    ahead: AtomicI64,
    topology: RwLock<Arc<Topology>>,
    links: RwLock<HashMap<Server, Arc<CommandLink>>>,
    listened: Mutex<ChannelMap<Arc<Listened>>>,
    wishes: mpsc::UnboundedSender<Wish>,
    reads: Coalesce<(Channel, Since, Page), Result<Arc<Replay>, BrokerError>>,
    fills: Coalesce<Channel, ()>,
    /// By partition: the second, by Redis' clock, up to which everything published has come here.
    certain: Box<[AtomicU64]>,
    /// Somebody saw that partitions have moved, or a link end.
    rediscover: Notify,
    /// The probes on their way, by the server whose pub/sub link they prove.
    probes: Mutex<HashMap<Server, Probed>>,
    /// Servers whose pub/sub link has brought a probe back.
    proved: Mutex<HashSet<Server>>,
    /// Servers that were looked at for what the operator should know.
    checked: Mutex<HashSet<Server>>,
    health: watch::Sender<Health>,
    /// This node's name in probes, counts and disconnects.
    node: String,
    stop: CancellationToken,
}

impl Redis {
    /// Connects in the background, and gives the events of the channels that will be listened to.
    /// [`Redis::state`] says when it is up.
    ///
    /// # Errors
    /// A certificate that cannot be used: what is wrong with which key, in a sentence.
    pub fn start(
        config: &Arc<Config>,
        metrics: &Arc<Metrics>,
        queue: usize,
    ) -> Result<(Self, mpsc::Receiver<BrokerEvent>), String> {
        let settings = &config.broker;
        let endpoint = Endpoint::new(settings, largest_payload(config))?;
        let names = Names::new(&settings.prefix, settings.partitions, endpoint.database());
        let (wishes, wished) = mpsc::unbounded_channel();
        let inner = Arc::new(Inner {
            config: Arc::clone(config),
            functions: Functions::new(names.clone(), endpoint.is_cluster()),
            slots: (0..settings.partitions).map(|p| names.slot(Partition(p))).collect(),
            endpoint,
            certain: (0..settings.partitions).map(|_| AtomicU64::new(0)).collect(),
            names,
            metrics: Arc::clone(metrics),
            clock: Clock::system(),
            ahead: AtomicI64::new(0),
            topology: RwLock::default(),
            links: RwLock::default(),
            listened: Mutex::default(),
            wishes,
            reads: Coalesce::new(Arc::clone(metrics)),
            fills: Coalesce::new(Arc::clone(metrics)),
            rediscover: Notify::new(),
            probes: Mutex::default(),
            proved: Mutex::default(),
            checked: Mutex::default(),
            health: watch::Sender::new(Health::unknown()),
            node: format!("{:016x}", fastrand::u64(..)),
            stop: CancellationToken::new(),
        });
        let (events, received) = mpsc::channel(queue);
        let (inputs, input) = mpsc::channel(INPUTS);
        let reader = Reader::new(Arc::clone(&inner), events.clone(), inputs.clone());
        tokio::spawn(control::follow(Arc::clone(&inner), events));
        tokio::spawn(reader.run(input, wished));
        tokio::spawn(supervisor::run(Arc::clone(&inner), inputs));
        Ok((Self(inner), received))
    }

    fn is_plain(&self, channel: &Channel) -> bool {
        matches!(self.0.config.namespaces.of(channel.as_str()).source, Source::Redis(_))
    }

    /// See [`Broker::publish`](super::Broker::publish).
    ///
    /// # Errors
    /// [`BrokerError::KeyReused`], or that Redis is away or may be.
    pub async fn publish(
        &self,
        channel: &Channel,
        history: &History,
        draft: Draft,
    ) -> Result<Receipt, BrokerError> {
        let inner = &*self.0;
        let partition = inner.names.partition(channel);
        let draft = &draft;
        let ask = |way: Way| async move { inner.functions.publish(&way, channel, history, draft).await };
        inner.on(RedisCommand::Publish, partition, ask).await
    }

    /// See [`Broker::listen`](super::Broker::listen).
    ///
    /// # Errors
    /// Redis is away.
    pub async fn listen(&self, channel: &Channel) -> Result<Position, BrokerError> {
        let inner = &*self.0;
        // Who asks while Redis is away is refused, and leaves nothing behind.
        if inner.listened(channel).is_none() && inner.link(inner.names.partition(channel)).is_none() {
            return Err(BrokerError::Unavailable);
        }
        let listened = inner.enter(channel);
        if !listened.joined.is_cancelled() {
            let joined = listened.joined.cancelled();
            let joined = tokio::time::timeout(inner.config.broker.command_timeout * 2, joined).await;
            joined.map_err(|_| BrokerError::Unavailable)?;
        }
        let position = match &*listened.track.lock() {
            Tracked::Log(track) => track.position(),
            Tracked::Plain(plain) => Some(plain.position()),
        };
        Ok(position.unwrap_or_else(|| Position::Empty(inner.now() / 1000)))
    }

    /// See [`Broker::unlisten`](super::Broker::unlisten). The channel stays subscribed for the time to linger.
    pub fn unlisten(&self, channel: &Channel) {
        if let Some(listened) = self.0.listened.lock().get(channel) {
            *listened.idle_since.lock() = Some(Instant::now());
            let _ = self.0.wishes.send(Wish::Idle(Arc::clone(listened)));
        }
    }

    /// See [`Broker::read`](super::Broker::read).
    ///
    /// # Errors
    /// Redis is away.
    pub async fn read(
        &self,
        channel: &Channel,
        history: &History,
        since: &Since,
        page: Page,
    ) -> Result<Replay, BrokerError> {
        let inner = &self.0;
        let listened = inner.listened(channel);
        if let Some(listened) = &listened {
            if let Some(replay) = inner.answer(listened, history, since, page) {
                return Ok(replay);
            }
            inner.fill(listened).await;
            if let Some(replay) = inner.answer(listened, history, since, page) {
                return Ok(replay);
            }
        } else if self.is_plain(channel) {
            let nobody_listens = PlainTrack::joining(channel.clone(), Budget::default());
            return Ok(nobody_listens.answer(since, page, inner.now(), history));
        }
        inner.read_shared(channel, history, since, page).await
    }

    /// See [`Broker::kept`](super::Broker::kept).
    ///
    /// # Errors
    /// Redis is away.
    pub async fn kept(
        &self,
        channel: &Channel,
        history: &History,
        since: &Since,
        page: Page,
    ) -> Result<Replay, BrokerError> {
        match self.is_plain(channel) {
            // Nothing is kept but here.
            true => self.read(channel, history, since, page).await,
            false => self.0.read_shared(channel, history, since, page).await,
        }
    }
}

impl Redis {
    /// See [`Broker::info`](super::Broker::info).
    ///
    /// # Errors
    /// Redis is away.
    pub async fn info(&self, channel: &Channel, history: &History) -> Result<Info, BrokerError> {
        if self.is_plain(channel) {
            let all = Page { messages: usize::MAX, bytes: usize::MAX };
            let here = self.read(channel, history, &Since::Earliest, all).await?;
            return Ok(Info { position: here.top, messages: here.messages.len() as u64 });
        }
        let none = Page { messages: 0, bytes: 0 };
        let read = self.0.read_redis(channel, history, &Since::Latest, none).await?;
        let position = read.replay.top;
        Ok(Info { position, messages: (position.offset() + 1).saturating_sub(read.floor) })
    }

    /// See [`Broker::channels`](super::Broker::channels).
    ///
    /// # Errors
    /// Redis is away.
    pub async fn channels(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Channels, BrokerError> {
        let inner = &*self.0;
        let ask = |partition| async move {
            inner
                .on(RedisCommand::Other, partition, |way: Way| async move {
                    inner.functions.list(&way, partition, prefix, after, limit + 1).await
                })
                .await
        };
        let lists = join_all((0..self.0.config.broker.partitions).map(|p| ask(Partition(p)))).await;
        let mut names = Vec::new();
        for list in lists {
            names.extend(list?);
        }
        names.sort_unstable();
        let more = names.len() > limit;
        names.truncate(limit);
        Ok(Channels { names, more })
    }

    /// See [`Broker::forget`](super::Broker::forget).
    ///
    /// # Errors
    /// Redis is away.
    pub async fn forget(&self, channel: &Channel) -> Result<(), BrokerError> {
        let inner = &*self.0;
        let partition = inner.names.partition(channel);
        inner
            .on(RedisCommand::Other, partition, |way: Way| async move {
                inner.functions.forget(&way, channel).await
            })
            .await
    }

    /// See [`Broker::disconnect`](super::Broker::disconnect).
    ///
    /// # Errors
    /// Redis is away.
    pub async fn disconnect(&self, target: &Target) -> Result<(), BrokerError> {
        self.0.tell(target).await
    }

    /// See [`Broker::report`](super::Broker::report).
    ///
    /// # Errors
    /// Redis is away.
    pub async fn report(&self, counts: &[(Channel, usize)]) -> Result<(), BrokerError> {
        self.0.report(counts).await
    }

    /// See [`Broker::counted`](super::Broker::counted).
    ///
    /// # Errors
    /// Redis is away.
    pub async fn counted(&self, channel: &Channel) -> Result<(usize, u64), BrokerError> {
        self.0.counted(channel).await
    }

    /// See [`Broker::sweep`](super::Broker::sweep).
    pub async fn sweep(&self) {
        let all: Vec<_> = self.0.listened.lock().values().cloned().collect();
        let now = self.0.now();
        for some in all.chunks(256) {
            for listened in some {
                match &mut *listened.track.lock() {
                    Tracked::Log(track) => track.sweep(now, listened.history()),
                    Tracked::Plain(plain) => plain.sweep(now, listened.history()),
                }
            }
            tokio::task::yield_now().await;
        }
    }

    /// See [`Broker::now`](super::Broker::now).
    #[must_use]
    pub fn now(&self) -> u64 {
        self.0.now()
    }
}

impl fmt::Debug for Redis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Redis")
    }
}

#[cfg(test)]
mod tests;

//! How a question finds the server that can answer it: the owner of the channel's partition, another one
//! that is named instead, the same one a little later. Within `broker.command_timeout`, then it is refused.

use std::{
    num::NonZeroU64,
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Instant,
};

use fred::types::Value;

use super::{
    FILL, Inner, Listened, RETRY, Tracked,
    command::{CommandError, CommandLink},
    functions::{Call, Read},
    names::Partition,
    server::Server,
    track::Seen,
};
use crate::{
    broker::{BrokerError, Page, Replay},
    channel::Channel,
    config::History,
    metrics::RedisCommand,
    position::Since,
};

/// A link, and whether its server is asked for what is moving to it.
#[derive(Clone, Debug)]
pub(super) struct Way {
    link: Arc<CommandLink>,
    asking: bool,
}

/// Messages that are read at once for everybody who resumes in a channel.
const NEWEST: NonZeroU64 = NonZeroU64::new(1000).expect("not zero");

impl Call for Way {
    async fn call(&self, command: &'static str, arguments: Vec<Value>) -> Result<Value, CommandError> {
        match self.asking {
            true => self.link.ask(command, arguments).await,
            false => self.link.pipelined(command, arguments).await,
        }
    }

    fn is_asking(&self) -> bool {
        self.asking
    }
}

impl Call for CommandLink {
    async fn call(&self, command: &'static str, arguments: Vec<Value>) -> Result<Value, CommandError> {
        self.pipelined(command, arguments).await
    }
}

impl Inner {
    /// The link to the owner of a partition, while it is up.
    pub(super) fn link(&self, partition: Partition) -> Option<Arc<CommandLink>> {
        let topology = self.topology.read();
        self.links.read().get(topology.owner_of(partition)?).cloned()
    }

    pub(super) fn link_to(&self, server: &Server) -> Option<Arc<CommandLink>> {
        self.links.read().get(server).cloned()
    }

    /// Asks the owner of a partition, and follows it where it has moved. What was answered is booked as `what`.
    ///
    /// # Errors
    /// `Unavailable` where it was surely not done, `Uncertain` where it may have been.
    pub(super) async fn on<T, F>(
        &self,
        what: RedisCommand,
        partition: Partition,
        ask: impl Fn(Way) -> F,
    ) -> Result<T, BrokerError>
    where
        F: Future<Output = Result<T, CommandError>> + Send,
    {
        let started = Instant::now();
        let until = started + self.endpoint.command_timeout();
        let mut instead: Option<Server> = None;
        let mut asking = false;
        let mut loaded = false;
        loop {
            let link = match &instead {
                Some(server) => self.link_to(server),
                None => self.link(partition),
            };
            // Without a link the answer is no, at once; one that was named elsewhere is about to come.
            let Some(link) = link else {
                if instead.take().is_none() || Instant::now() >= until {
                    return Err(BrokerError::Unavailable);
                }
                asking = false;
                tokio::time::sleep(RETRY).await;
                continue;
            };
            let way = Way { link, asking: std::mem::take(&mut asking) };
            match ask(way.clone()).await {
                Ok(answer) => {
                    self.metrics.redis_answered(what, started.elapsed());
                    return Ok(answer);
                }
                Err(CommandError::Moved { server, .. }) => {
                    self.rediscover.notify_one();
                    if instead.replace(server).is_some() {
                        // Two that name each other have yet to agree.
                        tokio::time::sleep(RETRY).await;
                    }
                }
                Err(CommandError::Ask { server, .. }) => {
                    instead = Some(server);
                    asking = true;
                }
                Err(CommandError::TryAgain) => {
                    instead = None;
                    tokio::time::sleep(RETRY).await;
                }
                Err(CommandError::NoFunction) if !loaded => {
                    loaded = true;
                    // Where it cannot be loaded, the call itself says so.
                    let _ = self.functions.load(&*way.link).await;
                }
                Err(error) => return Err(self.fault(what, error)),
            }
            if Instant::now() >= until {
                return Err(BrokerError::Unavailable);
            }
        }
    }

    fn fault(&self, what: RedisCommand, error: CommandError) -> BrokerError {
        match error {
            CommandError::Uncertain => BrokerError::Uncertain,
            // Its first steps may be done.
            error if what == RedisCommand::Publish && error.is_from_within() => BrokerError::Uncertain,
            CommandError::Other(text) if text.starts_with("TGKEYREUSED") => BrokerError::KeyReused,
            error => {
                // The server is not what it was: a replica now, or loading, or full.
                self.rediscover.notify_one();
                tracing::debug!(%error, "Redis refused a command");
                BrokerError::Unavailable
            }
        }
    }

    /// Reads a channel's log.
    pub(super) async fn read_redis(
        &self,
        channel: &Channel,
        history: &History,
        since: &Since,
        page: Page,
    ) -> Result<Read, BrokerError> {
        let ask = |way: Way| async move { self.functions.read(&way, channel, history, since, page).await };
        let read = self.on(RedisCommand::Read, self.names.partition(channel), ask).await?;
        self.heard(read.now_ms);
        Ok(read)
    }

    /// The same for all who ask it at the same time.
    pub(super) async fn read_shared(
        self: &Arc<Self>,
        channel: &Channel,
        history: &History,
        since: &Since,
        page: Page,
    ) -> Result<Replay, BrokerError> {
        let (inner, asked, kept, from) = (Arc::clone(self), channel.clone(), *history, *since);
        let read = move || {
            let (inner, asked) = (Arc::clone(&inner), asked.clone());
            async move { inner.read_redis(&asked, &kept, &from, page).await.map(|read| Arc::new(read.replay)) }
        };
        match self.reads.run((channel.clone(), *since, page), read).await {
            Some(Ok(replay)) => Ok(Arc::unwrap_or_clone(replay)),
            Some(Err(error)) => Err(error),
            None => Err(BrokerError::Unavailable),
        }
    }

    /// Reads on what this node misses of a channel that it listens to.
    pub(super) async fn read_log(&self, listened: &Listened, since: &Since) -> Result<Read, BrokerError> {
        self.read_redis(&listened.channel, &listened.namespace.history, since, FILL).await
    }

    /// What Redis knows of channels of one partition.
    pub(super) async fn tops(
        &self,
        partition: Partition,
        channels: &[Channel],
    ) -> Result<Vec<Seen>, BrokerError> {
        let ask = |way: Way| async move { self.functions.tops(&way, partition, channels).await };
        self.on(RedisCommand::Tops, partition, ask).await
    }

    /// Milliseconds since 1970 by Redis' clock, as near as it is known.
    pub(super) fn now(&self) -> u64 {
        self.clock.now().saturating_add_signed(self.ahead.load(Relaxed))
    }

    /// Redis said what time it is.
    pub(super) fn heard(&self, now_ms: u64) {
        let ahead = i64::try_from(now_ms).unwrap_or(i64::MAX) - i64::try_from(self.clock.now()).unwrap_or(0);
        self.ahead.store(ahead, Relaxed);
    }

    /// What this node knows for certain, without asking Redis.
    pub(super) fn answer(
        &self,
        listened: &Listened,
        history: &History,
        since: &Since,
        page: Page,
    ) -> Option<Replay> {
        let certain = self.certain[usize::from(listened.partition.0)].load(Relaxed);
        let now = self.now();
        match &mut *listened.track.lock() {
            Tracked::Log(track) => {
                track.certain_at(certain);
                track.answer(since, page, now, history)
            }
            Tracked::Plain(plain) => Some(plain.answer(since, page, now, history)),
        }
    }

    /// Reads the newest messages of a channel once for all who resume in it.
    pub(super) async fn fill(self: &Arc<Self>, listened: &Arc<Listened>) {
        let (inner, filled) = (Arc::clone(self), Arc::clone(listened));
        let read = move || {
            let (inner, listened) = (Arc::clone(&inner), Arc::clone(&filled));
            async move {
                let Some(ticket) = listened.ticket() else { return };
                let newest = Since::Last(NEWEST);
                if let Ok(read) = inner.read_log(&listened, &newest).await
                    && let Tracked::Log(track) = &mut *listened.track.lock()
                {
                    track.fill(ticket, &read.replay);
                }
            }
        };
        self.fills.run(listened.channel.clone(), read).await;
    }
}

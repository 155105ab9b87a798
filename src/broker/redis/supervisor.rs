//! Keeps the links up: finds out who the primaries are, holds one command link and one pub/sub link to each,
//! and proves every two seconds that what is published comes back. A link lives once: whatever ends it, a new
//! one is made and what hung on it is in doubt until it was compared.

use std::{collections::HashMap, sync::Arc, time::Duration};

use tokio::{sync::mpsc, time::sleep};
use tokio_util::sync::CancellationToken;

use super::{
    Inner,
    checkup::{self, Severity},
    command::{CommandError, CommandLink, ConnectError},
    names::Partition,
    probes::{PROBE, Proving, prove},
    reader::Input,
    server::Server,
    subscriber::{Subscriber, SubscriberStream},
    topology::{self, Topology},
};
use crate::metrics::{RedisEnd, RedisRole};

/// Pushes handed on at once.
const PUSHES: usize = 256;

const FIRST_PAUSE: Duration = Duration::from_millis(50);
/// Half as much again at most: everything goes on within a second of Redis being back.
const LONGEST_PAUSE: Duration = Duration::from_millis(400);

/// The pauses between attempts: longer each time, and never the same for all nodes.
struct Backoff(Duration);

impl Backoff {
    fn new() -> Self {
        Self(FIRST_PAUSE)
    }

    async fn pause(&mut self) {
        sleep(self.0.mul_f64(0.5 + fastrand::f64())).await;
        self.0 = (self.0 * 2).min(LONGEST_PAUSE);
    }
}

/// Runs until the broker stops.
pub(super) async fn run(inner: Arc<Inner>, inputs: mpsc::Sender<Input>) {
    let mut servers: HashMap<Server, CancellationToken> = HashMap::new();
    let mut backoff = Backoff::new();
    while !inner.stop.is_cancelled() && !inputs.is_closed() {
        match inner.discover().await {
            Ok(found) => {
                backoff = Backoff::new();
                follow(&inner, &inputs, Arc::new(found), &mut servers).await;
                let watches = inner.endpoint.is_cluster() || inner.endpoint.is_sentinel();
                tokio::select! {
                    () = inner.rediscover.notified() => sleep(FIRST_PAUSE).await,
                    () = sleep(PROBE), if watches => {}
                    () = inner.stop.cancelled() => {}
                }
            }
            Err(error) => {
                inner.is_down(&error);
                tokio::select! {
                    () = backoff.pause() => {}
                    () = inner.stop.cancelled() => {}
                }
            }
        }
    }
    servers.into_values().for_each(|server| server.cancel());
}

/// Begins with new primaries and leaves those that are none any more.
async fn follow(
    inner: &Arc<Inner>,
    inputs: &mpsc::Sender<Input>,
    topology: Arc<Topology>,
    servers: &mut HashMap<Server, CancellationToken>,
) {
    servers.retain(|server, life| {
        let stays = topology.primaries.contains(server);
        if !stays {
            life.cancel();
        }
        stays
    });
    // First: a link looks here for what its server owns.
    let changed = **inner.topology.read() != *topology;
    if changed {
        *inner.topology.write() = Arc::clone(&topology);
    }
    for server in &topology.primaries {
        servers.entry(server.clone()).or_insert_with(|| {
            let life = inner.stop.child_token();
            tokio::spawn(until(life.clone(), keep_commands(Arc::clone(inner), server.clone())));
            tokio::spawn(until(
                life.clone(),
                keep_subscribed(Arc::clone(inner), inputs.clone(), server.clone()),
            ));
            life
        });
    }
    if changed {
        let _ = inputs.send(Input::Topology(topology)).await;
    }
}

async fn until(end: CancellationToken, work: impl Future<Output = ()>) {
    let _ = end.run_until_cancelled(work).await;
}

/// Takes a link out of use when it is dropped, however its life ends: never the one that came after it.
struct InUse<'a>(&'a Inner, &'a Server, Arc<CommandLink>);

impl Drop for InUse<'_> {
    fn drop(&mut self) {
        let Self(inner, server, ours) = self;
        let mut links = inner.links.write();
        if links.get(*server).is_some_and(|link| Arc::ptr_eq(link, ours)) {
            links.remove(*server);
            inner.metrics.redis_up(RedisRole::Command, false);
        }
        drop(links);
        ours.close();
    }
}

async fn keep_commands(inner: Arc<Inner>, server: Server) {
    let timeout = inner.endpoint.command_timeout();
    let mut backoff = Backoff::new();
    loop {
        match CommandLink::connect(&inner.endpoint, &server, timeout).await {
            Ok(link) => match inner.prepare(&link, &server).await {
                Ok(()) => {
                    backoff = Backoff::new();
                    let link = Arc::new(link);
                    inner.links.write().insert(server.clone(), Arc::clone(&link));
                    let _in_use = InUse(&inner, &server, Arc::clone(&link));
                    inner.metrics.redis_up(RedisRole::Command, true);
                    inner.is_up();
                    check_once(&inner, &link);
                    let reason = watch(&link, timeout).await;
                    inner.metrics.redis_ended(RedisRole::Command, reason);
                }
                Err(error) => inner.is_down(&error),
            },
            Err(error) => inner.is_down(&error),
        }
        inner.rediscover.notify_one();
        backoff.pause().await;
    }
}

/// Says what is to be said of a server, once in the life of this process.
fn check_once(inner: &Arc<Inner>, link: &Arc<CommandLink>) {
    if !inner.checked.lock().insert(link.server().clone()) {
        return;
    }
    let (inner, link) = (Arc::clone(inner), Arc::clone(link));
    tokio::spawn(until(inner.stop.clone(), async move {
        let server = link.server();
        let partition = inner.topology.read().partitions_of(server).next();
        let (endpoint, names, namespaces) = (&inner.endpoint, &inner.names, &inner.config.namespaces);
        for finding in checkup::look(&link, endpoint, names, namespaces, partition).await {
            match finding.severity {
                Severity::Good => tracing::debug!(%server, "{}", finding.sentence),
                Severity::Unchecked => tracing::info!(%server, "{}", finding.sentence),
                Severity::Warning | Severity::Failure => tracing::warn!(%server, "{}", finding.sentence),
            }
        }
    }));
}

/// Waits until a command link ends, or no longer answers.
async fn watch(link: &CommandLink, timeout: Duration) -> RedisEnd {
    loop {
        tokio::select! {
            () = link.closed() => return RedisEnd::Closed,
            () = sleep(PROBE / 2) => {}
        }
        if !matches!(tokio::time::timeout(timeout, link.ping()).await, Ok(Ok(()))) {
            return if link.is_closed() { RedisEnd::Closed } else { RedisEnd::Silent };
        }
    }
}

async fn keep_subscribed(inner: Arc<Inner>, inputs: mpsc::Sender<Input>, server: Server) {
    let timeout = inner.endpoint.command_timeout();
    let mut backoff = Backoff::new();
    loop {
        match Subscriber::connect(&inner.endpoint, &server, timeout).await {
            Ok((handle, stream)) => {
                backoff = Backoff::new();
                let probe = inner.begin_probes(&server, &handle);
                let proving = Proving::of(&inner, &server, probe.as_ref());
                inner.metrics.redis_up(RedisRole::Pubsub, true);
                if inputs.send(Input::Up(server.clone(), handle)).await.is_err() {
                    return;
                }
                let reason = tokio::select! {
                    reason = hand_on(&inputs, &server, stream) => reason,
                    reason = prove(&inner, &inputs, &server, probe) => reason,
                };
                inner.metrics.redis_up(RedisRole::Pubsub, false);
                drop(proving);
                inner.metrics.redis_ended(RedisRole::Pubsub, reason);
                tracing::warn!(%server, ?reason, "a pub/sub link to Redis ended");
                if inputs.send(Input::Down(server.clone())).await.is_err() {
                    return;
                }
            }
            Err(error) => inner.is_down(&error),
        }
        inner.rediscover.notify_one();
        backoff.pause().await;
    }
}

/// Hands on what a pub/sub link brings, until it ends.
async fn hand_on(inputs: &mpsc::Sender<Input>, server: &Server, mut stream: SubscriberStream) -> RedisEnd {
    while let Some(first) = stream.next().await {
        let mut pushes = Vec::new();
        let mut next = Some(first);
        while let Some(Ok(push)) = next {
            pushes.push(push);
            next = if pushes.len() < PUSHES { stream.try_next() } else { None };
        }
        if inputs.send(Input::Pushes(server.clone(), pushes)).await.is_err() {
            break;
        }
        if let Some(Err(error)) = next {
            tracing::debug!(%server, %error, "a pub/sub link broke");
            break;
        }
    }
    RedisEnd::Closed
}

impl Inner {
    /// Finds out who the primaries are, and what is moving between them: each knows only its own part.
    async fn discover(&self) -> Result<Topology, ConnectError> {
        let known = self.topology.read().primaries.clone();
        let mut found = topology::discover(&self.endpoint, &self.slots, &known).await?;
        if found.sharded {
            let links: Vec<_> = found.primaries.iter().filter_map(|server| self.link_to(server)).collect();
            let asked = links.iter().map(|link| topology::moving(link, &self.slots));
            for moving in futures_util::future::join_all(asked).await {
                found.migrating.extend(moving.unwrap_or_default());
            }
            found.migrating.sort_unstable();
            found.migrating.dedup();
        }
        Ok(found)
    }

    /// Makes a new command link usable: the functions are there, the state is opened, the format is ours.
    async fn prepare(&self, link: &CommandLink, server: &Server) -> Result<(), String> {
        let failed = |error: CommandError| format!("{server} refused to prepare: {error}");
        self.functions.load(link).await.map_err(failed)?;
        if self.topology.read().owner_of(Partition(0)) == Some(server) {
            let held = self.functions.format(link).await.map_err(failed)?;
            let ours = self.names.partitions();
            if held.partitions != u64::from(ours) {
                let why = format!(
                    "Redis holds {} partitions under this prefix and broker.partitions is {ours}: they are \
                     fixed for the life of a deployment",
                    held.partitions
                );
                return Err(self.refuse(why));
            }
            if !held.is_readable() {
                let why = format!(
                    "Redis holds format {} under this prefix, which this release cannot read",
                    held.format
                );
                return Err(self.refuse(why));
            }
        }
        self.open(link, server).await.map_err(failed)
    }

    /// Tells Redis from when on it can vouch for the channels of this server's partitions.
    pub(super) async fn open(&self, link: &CommandLink, server: &Server) -> Result<(), CommandError> {
        let topology = Arc::clone(&self.topology.read());
        let partitions = topology.partitions_of(server);
        let opened = partitions.map(|partition| self.functions.open(link, partition));
        let opened = futures_util::future::join_all(opened).await;
        for opened in opened {
            self.heard(opened?.now_ms);
        }
        Ok(())
    }

    /// A subscription was refused.
    pub(super) fn is_refused(&self, server: &Server, answer: &str) {
        if answer.starts_with("NOPERM") {
            let prefix = &self.config.broker.prefix;
            self.is_down(&format!(
                "{server} refused to subscribe: {answer}: by its ACL; allow the user the channels &{prefix}:* \
                 and those of namespaces with source = \"redis\""
            ));
        }
        self.rediscover.notify_one();
    }
}

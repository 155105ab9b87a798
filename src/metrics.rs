//! Every metric of the gateway: its name, its help (the doc comment) and its closed set of labels. Each
//! combination of labels exists at zero from the start and is held where it is counted, so that counting
//! looks nothing up and `rate()` sees the first event. Never a channel, subject or address as a label.

mod family;
mod labels;

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use prometheus::{Counter, IntCounter, IntGauge, Registry, TextEncoder, core::Collector};
use tokio::runtime::RuntimeMetrics;

use self::family::{Age, By, Counts, Metric, Seconds};
pub use self::labels::{
    AuthFailure, BrokerKind, Dropped, EpochChange, JwksRefresh, ListenerName, RateScope, RedisCommand,
    RedisEnd, RedisRole, Rejection, Resume, Route, SlowAction, Source, StatusClass,
};
use crate::{
    disconnect::Disconnect,
    gap::{GapReason, Recovery},
    publication::Receipt,
    transport_name::Transport,
};

/// How far the end of the process has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DrainState {
    /// It is not ending.
    Serving = 0,
    /// Not ready, so that load balancers notice; all is served.
    Notice = 1,
    /// Clients are sent away.
    Leaving = 2,
}

/// Defines [`Metrics`]: a doc comment is the help of its metric.
macro_rules! metrics {
    ($($(#[doc = $help:literal])+ $field:ident: $kind:ty = $name:literal;)*) => {
        /// The metrics of one process.
        #[derive(Debug)]
        pub struct Metrics {
            registry: Registry,
            $($(#[doc = $help])+ $field: $kind,)*
        }

        impl Metrics {
            /// All metrics at zero.
            ///
            /// # Errors
            /// A name or a label that Prometheus does not take: never, as a test holds.
            pub fn new() -> prometheus::Result<Self> {
                let registry = Registry::new();
                $(let $field = <$kind as Metric>::register(
                    family::options($name, concat!($($help),+)),
                    &registry,
                )?;)*
                let metrics = Self { registry, $($field,)* };
                metrics.register_process()?;
                Ok(metrics)
            }
        }
    };
}

metrics! {
    /// Clients connected.
    connections: By<Transport, IntGauge> = "tidegate_connections";
    /// Clients that have connected.
    opened: By<Transport, IntCounter> = "tidegate_connections_opened_total";
    /// Connections that have ended, by reason.
    closed: By<Transport, By<Disconnect, IntCounter>> = "tidegate_connections_closed_total";
    /// Connections that were refused.
    rejected: By<Rejection, IntCounter> = "tidegate_connections_rejected_total";
    /// Places taken of `limits.connections`: sockets, and HTTP/2 streams that subscribe.
    admitted: IntGauge = "tidegate_connections_admitted";
    /// Places that there are: `limits.connections`, or what the descriptors allow.
    limit: IntGauge = "tidegate_connections_limit";
    /// How long connections lasted that have ended.
    lasted: Seconds = "tidegate_connection_duration_seconds";
    /// Subscriptions of connected clients.
    subscriptions: IntGauge = "tidegate_subscriptions";
    /// Channels with a subscriber on this node.
    channels: IntGauge = "tidegate_channels";
    /// Credentials that did not do, or were missing.
    auth_failures: By<AuthFailure, IntCounter> = "tidegate_auth_failures_total";
    /// Publish requests that were answered.
    publish_requests: By<Route, By<StatusClass, IntCounter>> = "tidegate_publish_requests_total";
    /// Messages that the broker accepted from this node.
    publications: IntCounter = "tidegate_publications_total";
    /// From the end of a publish's checks to the broker's receipt.
    publish_duration: Seconds = "tidegate_publish_duration_seconds";
    /// Publishes answered with an earlier receipt, since their idempotency key was known.
    deduplicated: IntCounter = "tidegate_publish_deduplicated_total";
    /// Messages that came from the broker for this node's subscribers.
    received: By<Source, IntCounter> = "tidegate_publications_received_total";
    /// Messages handed to clients' sockets.
    deliveries: By<Transport, IntCounter> = "tidegate_deliveries_total";
    /// Bytes of messages handed to clients' sockets, with their framing.
    delivered_bytes: By<Transport, IntCounter> = "tidegate_delivered_bytes_total";
    /// From the broker's time stamp to the client's socket, of messages that came while the client was
    /// there; of several in one write, the oldest.
    delivery_latency: By<Transport, Seconds> = "tidegate_delivery_latency_seconds";
    /// Subscribers on this node to whom a batch of messages went.
    fanout: Counts = "tidegate_fanout_size";
    /// Messages that were on their way to a client and did not reach it.
    dropped: By<Dropped, IntCounter> = "tidegate_messages_dropped_total";
    /// Gaps that clients were told of.
    gaps: By<GapReason, IntCounter> = "tidegate_gap_signals_total";
    /// Subscriptions that started, by what became of their position.
    resumes: By<Resume, IntCounter> = "tidegate_resumes_total";
    /// Messages of a history handed to a subscriber at once.
    resume_messages: Counts = "tidegate_resume_messages";
    /// Subscriptions that are reading the history, on their way to what is live.
    catching_up: IntGauge = "tidegate_catchup_inflight";
    /// Clients that read too slowly, by what was done.
    slow: By<SlowAction, IntCounter> = "tidegate_slow_consumers_total";
    /// Bytes that wait for clients' sockets.
    send_queue: IntGauge = "tidegate_send_queue_bytes";
    /// Whether the process is ending: 0 serving, 1 notice, 2 clients are sent away.
    drain: IntGauge = "tidegate_drain_state";
    /// What rate limits held back.
    limited: By<RateScope, IntCounter> = "tidegate_rate_limited_total";
    /// 1 for the broker that is configured, 0 for the other.
    broker: By<BrokerKind, IntGauge> = "tidegate_broker_info";
    /// When the certificate of a listener ends, in seconds since 1970; 0 where it has none.
    certificates: By<ListenerName, IntGauge> = "tidegate_certificate_expiry_timestamp_seconds";
    /// Whether this node has a link to each primary of Redis; 0 as well where the broker is not Redis.
    redis_up: By<RedisRole, IntGauge> = "tidegate_redis_up";
    /// Links to Redis that were made anew.
    redis_reconnects: By<RedisRole, By<RedisEnd, IntCounter>> = "tidegate_redis_reconnects_total";
    /// From the publishing of a node's own probe to its arrival.
    redis_probe: Seconds = "tidegate_redis_probe_seconds";
    /// From a question to Redis to its answer, redirections and retries included.
    redis_commands: By<RedisCommand, Seconds> = "tidegate_redis_command_duration_seconds";
    /// Reads of what a node missed of a channel, once for all its subscribers.
    redis_repairs: IntCounter = "tidegate_redis_repairs_total";
    /// Messages on our Redis channels that are none, or too large, and were skipped.
    redis_damaged: IntCounter = "tidegate_redis_damaged_messages_total";
    /// Channels that are not known to be up to date: their subscribers wait.
    redis_doubtful: IntGauge = "tidegate_redis_doubtful_channels";
    /// Channels that went on in another epoch.
    epoch_changes: By<EpochChange, IntCounter> = "tidegate_epoch_changes_total";
    /// Subscriptions that were answered from a read that others had asked for too.
    coalesced: IntCounter = "tidegate_catchup_coalesced_total";
    /// Fetches of the keys at `auth.jwt.jwks_url`, by what came of them.
    jwks_refreshes: By<JwksRefresh, IntCounter> = "tidegate_jwks_refresh_total";
    /// How old the keys of `auth.jwt.jwks_url` are; after an hour they no longer serve. 0 where there is no URL.
    jwks_age: Age = "tidegate_jwks_age_seconds";
    /// Worker threads of the runtime.
    workers: IntGauge = "tidegate_tokio_workers";
    /// Tasks of the runtime that have not ended.
    tasks: IntGauge = "tidegate_tokio_alive_tasks";
    /// Tasks that wait for any of the runtime's workers.
    unassigned: IntGauge = "tidegate_tokio_global_queue_depth";
    /// How long the runtime's workers were busy, all together.
    busy: Counter = "tidegate_tokio_busy_seconds_total";
}

impl Metrics {
    fn register_process(&self) -> prometheus::Result<()> {
        // Whoever builds a release says the commit; a build from a source archive has none to say.
        let commit = option_env!("TIDEGATE_COMMIT").unwrap_or("unknown");
        let labels = [("version", env!("CARGO_PKG_VERSION")), ("commit", commit)];
        let options = family::options("tidegate_build_info", "Always 1; the labels say what runs.");
        let build = IntGauge::with_opts(options.const_labels(family::pairs(labels)))?;
        build.set(1);
        self.register(build)?;
        #[cfg(target_os = "linux")]
        self.register(prometheus::process_collector::ProcessCollector::for_self())?;
        Ok(())
    }

    fn register(&self, collector: impl Collector + 'static) -> prometheus::Result<()> {
        self.registry.register(Box::new(collector))
    }

    /// Everything in Prometheus' text format 0.0.4.
    ///
    /// # Errors
    /// A metric that cannot be written: never, as a test holds.
    pub fn render(&self) -> prometheus::Result<String> {
        let mut text = String::new();
        TextEncoder::new().encode_utf8(&self.registry.gather(), &mut text)?;
        Ok(text)
    }

    /// A client connected.
    pub fn opened(&self, transport: Transport) {
        self.connections.of(transport).inc();
        self.opened.of(transport).inc();
    }

    /// A connection ended.
    pub fn closed(&self, transport: Transport, reason: Disconnect, lasted: Duration) {
        self.connections.of(transport).dec();
        self.closed.of(transport).of(reason).inc();
        self.lasted.observe(lasted);
    }

    /// A connection was refused.
    pub fn rejected(&self, reason: Rejection) {
        self.rejected.of(reason).inc();
        if reason == Rejection::Rate {
            self.rate_limited(RateScope::Connects);
        }
    }

    /// How many places of `limits.connections` are taken, and how many there are.
    pub fn admitted(&self, held: usize, limit: usize) {
        self.admitted.set(gauge(held));
        self.limit.set(gauge(limit));
    }

    /// A credential did not do.
    pub fn auth_failed(&self, reason: AuthFailure) {
        self.auth_failures.of(reason).inc();
    }

    /// Subscriptions of connected clients.
    #[must_use]
    pub fn subscriptions(&self) -> &IntGauge {
        &self.subscriptions
    }

    /// Channels with a subscriber on this node.
    #[must_use]
    pub fn topics(&self) -> &IntGauge {
        &self.channels
    }

    /// A publish request was answered.
    pub fn publish_answered(&self, route: Route, class: StatusClass) {
        self.publish_requests.of(route).of(class).inc();
    }

    /// A publish goes to the broker; for [`Metrics::published`].
    #[must_use]
    pub fn publish_timer(&self) -> Instant {
        Instant::now()
    }

    /// The broker gave a receipt.
    pub fn published(&self, receipt: &Receipt, timer: Instant) {
        self.publish_duration.observe(timer.elapsed());
        let counter = if receipt.duplicate { &self.deduplicated } else { &self.publications };
        counter.inc();
    }

    /// So many messages came from the broker.
    pub fn received(&self, source: Source, messages: usize) {
        self.received.of(source).inc_by(messages as u64);
    }

    /// So many messages, in so many bytes, were handed to a socket; the oldest of them was published at
    /// `published`, in milliseconds since 1970. `None`: they are of the history.
    pub fn delivered(&self, transport: Transport, messages: usize, bytes: usize, published: Option<u64>) {
        self.deliveries.of(transport).inc_by(messages as u64);
        self.delivered_bytes.of(transport).inc_by(bytes as u64);
        if let Some(time) = published {
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
            let took = now.saturating_sub(Duration::from_millis(time));
            self.delivery_latency.of(transport).observe(took);
        }
    }

    /// A batch went to so many subscribers.
    pub fn fanned_out(&self, subscribers: usize) {
        self.fanout.observe(subscribers);
    }

    /// So many messages did not reach their client.
    pub fn dropped(&self, reason: Dropped, messages: usize) {
        self.dropped.of(reason).inc_by(messages as u64);
    }

    /// A client was told of a gap.
    pub fn gap(&self, reason: GapReason) {
        self.gaps.of(reason).inc();
    }

    /// A subscription started.
    pub fn resumed(&self, recovery: Recovery) {
        let result = match recovery {
            Recovery::None => Resume::Fresh,
            Recovery::Complete => Resume::Recovered,
            Recovery::Gap => Resume::Gap,
        };
        self.resumes.of(result).inc();
    }

    /// So many messages of a history were handed to a subscriber.
    pub fn replayed(&self, messages: usize) {
        self.resume_messages.observe(messages);
    }

    /// Subscriptions that are reading the history.
    #[must_use]
    pub fn catching_up(&self) -> &IntGauge {
        &self.catching_up
    }

    /// A connection was ended since its client read too slowly.
    pub fn slow_disconnected(&self) {
        self.slow.of(SlowAction::Disconnect).inc();
    }

    /// So many messages made way for newer ones, since their client read too slowly.
    pub fn conflated(&self, messages: usize) {
        self.slow.of(SlowAction::Conflate).inc();
        self.dropped(Dropped::Conflated, messages);
    }

    /// So many bytes wait for sockets.
    pub fn queued(&self, bytes: usize) {
        self.send_queue.set(gauge(bytes));
    }

    /// How the runtime is doing at this scrape.
    pub fn runtime(&self, runtime: &RuntimeMetrics) {
        self.workers.set(gauge(runtime.num_workers()));
        self.tasks.set(gauge(runtime.num_alive_tasks()));
        self.unassigned.set(gauge(runtime.global_queue_depth()));
        let workers = 0..runtime.num_workers();
        let busy: Duration = workers.map(|worker| runtime.worker_total_busy_duration(worker)).sum();
        self.busy.inc_by((busy.as_secs_f64() - self.busy.get()).max(0.0));
    }

    /// Which broker is configured.
    pub fn broker(&self, kind: BrokerKind) {
        self.broker.of(kind).set(1);
    }

    /// A listener has a certificate that ends then, in seconds since 1970.
    pub fn certificate(&self, listener: ListenerName, ends: i64) {
        self.certificates.of(listener).set(ends);
    }

    /// Whether there is a link to each primary of Redis.
    pub fn redis_up(&self, role: RedisRole, up: bool) {
        self.redis_up.of(role).set(i64::from(up));
    }

    /// A link to Redis ended.
    pub fn redis_ended(&self, role: RedisRole, reason: RedisEnd) {
        self.redis_reconnects.of(role).of(reason).inc();
    }

    /// A probe came back.
    pub fn redis_probed(&self, took: Duration) {
        self.redis_probe.observe(took);
    }

    /// Redis answered.
    pub fn redis_answered(&self, command: RedisCommand, took: Duration) {
        self.redis_commands.of(command).observe(took);
    }

    /// What was missed of a channel is read.
    pub fn redis_repair(&self) {
        self.redis_repairs.inc();
    }

    /// A message on a channel of ours was none.
    pub fn redis_damaged(&self) {
        self.redis_damaged.inc();
    }

    /// So many channels are in doubt.
    pub fn redis_doubtful(&self, channels: usize) {
        self.redis_doubtful.set(gauge(channels));
    }

    /// A channel goes on after this gap, in another epoch or as it was.
    pub fn epoch_changed(&self, reason: GapReason) {
        let change = match reason {
            GapReason::Failover => EpochChange::Failover,
            GapReason::Reset => EpochChange::Reset,
            GapReason::Link => EpochChange::Link,
            GapReason::Trimmed | GapReason::Expired | GapReason::Deleted => return,
        };
        self.epoch_changes.of(change).inc();
    }

    /// A read was shared.
    pub fn coalesced(&self) {
        self.coalesced.inc();
    }

    /// The issuer's keys were fetched, or could not be.
    pub fn jwks_refreshed(&self, result: JwksRefresh) {
        self.jwks_refreshes.of(result).inc();
        if result == JwksRefresh::Ok {
            self.jwks_age.renew();
        }
    }

    /// How far the end has come.
    pub fn draining(&self, state: DrainState) {
        self.drain.set(state as i64);
    }

    /// A rate limit held something back.
    pub fn rate_limited(&self, scope: RateScope) {
        self.limited.of(scope).inc();
    }

    /// Clients connected now.
    #[must_use]
    pub fn connected(&self) -> i64 {
        Transport::ALL.iter().map(|t| self.connections.of(*t).get()).sum()
    }
}

fn gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;

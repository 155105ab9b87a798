//! Builds the parts, binds the listeners, and ends them in order.

mod descriptors;
mod reload;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use arc_swap::ArcSwap;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    time::timeout,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

pub use self::{descriptors::Descriptors, reload::Reload};
use crate::{
    admission::{Admission, Limits},
    auth::{Auth, jwt::KeyError},
    broker::{Broker, BrokerEvent, memory::Memory, redis::Redis},
    clock::Clock,
    config::{AllowedOrigins, BrokerUrl, Config, Listen, Live, TrustedProxies},
    drain::{self, HASTE, Pace, Readiness},
    gateway::{Gateway, counts, pump},
    http,
    metrics::{BrokerKind, ListenerName, Metrics},
    server::{BindError, Listener, Server},
    telemetry::{Tracer, TracingError},
    tls::{self, Certificate, TlsError, TlsFiles},
};

/// Messages on their way from the broker to the pump; publishers wait beyond that.
const EVENTS: usize = 4096;

/// How long answers that are being written may take once the last client is gone.
const LAST_ANSWERS: Duration = Duration::from_secs(1);

/// Why the gateway does not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// An address.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A certificate that has become bad since the configuration was checked.
    #[error(transparent)]
    Tls(#[from] TlsError),
    /// What tokens are checked by, where it has become bad since the configuration was checked.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// Traces that cannot be sent.
    #[error(transparent)]
    Tracing(#[from] TracingError),
    /// What is in Redis is not this gateway's.
    #[error("{0}")]
    Broker(String),
    /// A fault in our own metrics.
    #[error("cannot register the metrics: {0}")]
    Metrics(#[from] prometheus::Error),
}

/// A gateway that serves.
pub struct Running {
    gateway: Gateway,
    admission: Admission,
    public: Vec<Listen>,
    internal: Vec<Listen>,
    certificates: [Option<Arc<Certificate>>; 2],
    allowed_origins: Live<AllowedOrigins>,
    pace: watch::Sender<Option<Pace>>,
    ended: CancellationToken,
    stop: CancellationToken,
    background: Vec<tokio::task::JoinHandle<()>>,
}

/// Binds the listeners and serves.
///
/// # Errors
/// An address that cannot be bound.
pub async fn start(config: Config) -> Result<Running, StartError> {
    let config = Arc::new(config);
    let metrics = Arc::new(Metrics::new()?);
    let outer = certificate(config.public.tls.as_ref())?;
    let inner = certificate(config.internal.tls.as_ref())?;
    let auth = Auth::new(&config, &metrics)?;
    let (public, public_addresses) = bind(&config.public.listen, "public.listen").await?;
    let (internal, internal_addresses) = bind(&config.internal.listen, "internal.listen").await?;
    if let Some(verifier) = auth.verifier() {
        verifier.first_keys().await?;
    }
    let (broker, events) = broker(&config, &metrics).await?;
    let tracer = Tracer::new(&config.tracing)?;
    let gateway =
        Gateway::new(Arc::clone(&config), auth.clone(), broker.clone(), Arc::clone(&metrics), tracer);
    let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
    let counts = tokio::spawn(counts::run(gateway.clone(), stop.clone()));
    let mut background = vec![tokio::spawn(pump::run(gateway.clone(), events)), tokio::spawn(sweep(broker))];
    background.extend(auth.verifier().cloned().map(|verifier| tokio::spawn(verifier.keep_fresh())));
    let descriptors = Descriptors::raised();
    if let Err(shortage) = descriptors.are_enough(config.limits.connections) {
        tracing::warn!("{shortage}");
    }
    let (descriptors, reserve) = (descriptors.count, descriptors.reserve());
    let admission = Admission::new(Limits {
        total: config.limits.connections.or(Some(descriptors.saturating_sub(reserve).max(1))),
        per_address: config.limits.connections_per_address,
        per_second: config.limits.connects_per_second,
    });
    let readiness = Readiness::default();
    let allowed_origins = Arc::new(ArcSwap::from_pointee(config.public.allowed_origins.clone()));
    let state = http::State {
        gateway: gateway.clone(),
        config: Arc::clone(&config),
        metrics: Arc::clone(&metrics),
        admission: admission.clone(),
        readiness: readiness.clone(),
        allowed_origins: Arc::clone(&allowed_origins),
        public_url: public_url(tcp(&public_addresses), outer.is_some()).into(),
    };
    for (certificate, listener, label) in
        [(&outer, "public", ListenerName::Public), (&inner, "internal", ListenerName::Internal)]
    {
        let Some(certificate) = certificate.clone() else { continue };
        let metrics = Arc::clone(&metrics);
        let ends = move |second| metrics.certificate(label, second);
        background.push(tokio::spawn(tls::watch(certificate, listener, ends)));
    }
    let certificates = [outer.clone(), inner.clone()];
    let server = |edge, certificate, admission, spare| Server {
        edge,
        certificate,
        trusted_proxies: TrustedProxies::default(),
        proxy_protocol: false,
        admission,
        spare: Arc::new(Semaphore::new(spare)),
        metrics: Arc::clone(&metrics),
        readiness: readiness.clone(),
        header_timeout: config.limits.header_timeout,
        stop: stop.clone(),
        tasks: tasks.clone(),
    };
    let outside = Server {
        trusted_proxies: config.public.trusted_proxies.clone(),
        proxy_protocol: config.public.proxy_protocol,
        ..server(http::public(state.clone()), outer, Some(admission.clone()), reserve / 2)
    };
    let inside = server(http::internal(state), inner, None, backends(descriptors, reserve));
    let both = [(outside, public), (inside, internal)];
    for (server, listener) in both.into_iter().flat_map(|(s, ls)| ls.into_iter().map(move |l| (s.clone(), l)))
    {
        tasks.spawn(server.accept(listener));
    }
    let ended = CancellationToken::new();
    let (pace, asked) = watch::channel(None);
    background.push(tokio::spawn(end(
        gateway.clone(),
        readiness.clone(),
        asked,
        (stop.clone(), tasks),
        counts,
        ended.clone(),
    )));
    Ok(Running {
        gateway,
        admission,
        public: public_addresses,
        internal: internal_addresses,
        certificates,
        allowed_origins,
        pace,
        ended,
        stop,
        background,
    })
}

/// The broker that is configured. Redis may be away: it is waited for a moment, so that what will never work
/// is said at once.
async fn broker(
    config: &Arc<Config>,
    metrics: &Arc<Metrics>,
) -> Result<(Broker, mpsc::Receiver<BrokerEvent>), StartError> {
    match &config.broker.url {
        BrokerUrl::Memory => {
            metrics.broker(BrokerKind::Memory);
            let (memory, events) = Memory::new(EVENTS, Clock::system());
            Ok((Broker::Memory(memory), events))
        }
        BrokerUrl::Redis(_) => {
            metrics.broker(BrokerKind::Redis);
            let (redis, events) = Redis::start(config, metrics, EVENTS).map_err(StartError::Broker)?;
            redis.first_word().await.map_err(StartError::Broker)?;
            Ok((Broker::Redis(redis), events))
        }
    }
}

/// The listeners, and what they are bound to.
async fn bind(addresses: &[Listen], key: &'static str) -> Result<(Vec<Listener>, Vec<Listen>), BindError> {
    let mut listeners = Vec::with_capacity(addresses.len());
    let mut bound = Vec::with_capacity(addresses.len());
    for address in addresses {
        let listener = Listener::bind(address, key).await?;
        // What the system does not tell is what was asked for.
        bound.push(listener.address().unwrap_or_else(|_| address.clone()));
        listeners.push(listener);
    }
    Ok((listeners, bound))
}

/// Waits until it is told to end; drains, and then ends the connections that are left.
async fn end(
    gateway: Gateway,
    readiness: Readiness,
    mut asked: watch::Receiver<Option<Pace>>,
    (stop, tasks): (CancellationToken, TaskTracker),
    mut counts: tokio::task::JoinHandle<()>,
    ended: CancellationToken,
) {
    let pace = asked.wait_for(Option::is_some).await.ok().and_then(|pace| *pace).unwrap_or(Pace::Hasty);
    let orderly = async {
        drain::run(&gateway, &readiness, pace).await;
        stop.cancel();
        tasks.close();
        let _ = timeout(LAST_ANSWERS, tasks.wait()).await;
        let _ = timeout(LAST_ANSWERS, &mut counts).await;
        gateway.tracer().finish().await;
    };
    match pace {
        Pace::Configured => orderly.await,
        Pace::Hasty => _ = timeout(HASTE, orderly).await,
    }
    stop.cancel();
    counts.abort();
    ended.cancel();
}

async fn sweep(broker: Broker) {
    let mut seconds = tokio::time::interval(Duration::from_secs(1));
    loop {
        seconds.tick().await;
        broker.sweep().await;
    }
}

/// Connections that the internal listener holds at most. Nothing but this bounds it, so that clients who take
/// all of `limits.connections` never keep a backend out; and half-open ones must leave room for the others.
fn backends(descriptors: usize, reserve: usize) -> usize {
    (descriptors / 4).max(reserve / 2)
}

fn certificate(files: Option<&TlsFiles>) -> Result<Option<Arc<Certificate>>, TlsError> {
    files.map(|files| Certificate::load(files.clone()).map(Arc::new)).transpose()
}

/// Where a browser on this machine finds the public listener.
fn public_url(address: Option<SocketAddr>, tls: bool) -> String {
    let Some(address) = address else {
        return String::new();
    };
    let scheme = if tls { "https" } else { "http" };
    match address.ip() {
        ip if ip.is_unspecified() => format!("{scheme}://localhost:{}", address.port()),
        _ => format!("{scheme}://{address}"),
    }
}

impl Running {
    /// Where clients connect: the first TCP address; `0.0.0.0:0` where only Unix sockets are configured.
    #[must_use]
    pub fn public_addr(&self) -> SocketAddr {
        tcp(&self.public).unwrap_or_else(nowhere)
    }

    /// Where backends connect: the first TCP address; `0.0.0.0:0` where only Unix sockets are configured.
    #[must_use]
    pub fn internal_addr(&self) -> SocketAddr {
        tcp(&self.internal).unwrap_or_else(nowhere)
    }

    /// What the public and the internal listener are bound to.
    #[must_use]
    pub fn addresses(&self) -> (&[Listen], &[Listen]) {
        (&self.public, &self.internal)
    }

    /// Uses what of `config` may change while everything runs.
    ///
    /// # Errors
    /// A certificate or a key file that has become bad since the configuration was checked.
    pub fn reload(&self, config: &Config) -> Result<(), StartError> {
        self.gateway.auth().reload(&config.auth)?;
        for (certificate, files) in self.certificates.iter().zip([&config.public.tls, &config.internal.tls]) {
            if let (Some(certificate), Some(files)) = (certificate, files) {
                certificate.replace(files.clone())?;
            }
        }
        self.allowed_origins.store(Arc::new(config.public.allowed_origins.clone()));
        Ok(())
    }

    /// Begins to end as SIGTERM does. [`Running::stopped`] waits for the end.
    pub fn drain(&self) {
        self.end(Pace::Configured);
    }

    /// Begins to end.
    pub fn end(&self, pace: Pace) {
        self.pace.send_if_modified(|now| now.replace(pace).is_none());
    }

    /// What is not given back though nobody is connected; empty where all is.
    #[must_use]
    pub fn leftovers(&self) -> String {
        let (channels, subscriptions) = self.gateway.hub().count();
        let counts = [
            ("sessions", self.gateway.registry().len()),
            ("permits", self.admission.held()),
            ("channels", channels),
            ("subscriptions", subscriptions),
        ];
        let left = counts.iter().filter(|(_, count)| *count > 0);
        left.map(|(what, count)| format!("{count} {what} ")).collect()
    }

    /// Waits until it was told to end and has ended.
    pub async fn stopped(&mut self) {
        self.ended.cancelled().await;
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.stop.cancel();
        self.background.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// The first TCP address.
fn tcp(addresses: &[Listen]) -> Option<SocketAddr> {
    addresses.iter().find_map(|address| match address {
        Listen::Tcp(address) => Some(*address),
        Listen::Unix(_) => None,
    })
}

fn nowhere() -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], 0))
}

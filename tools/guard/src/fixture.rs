//! What the steps need around them: a gateway's parts without its listeners, members with sockets, messages.

use std::{io::Read as _, os::unix::net::UnixStream as Reader, sync::Arc};

use anyhow::Context as _;
use arc_swap::ArcSwap;
use tidegate::{
    admission::{self, Admission},
    auth::Auth,
    broker::{Broker, BrokerEvent, memory::Memory},
    channel::Channel,
    clock::Clock,
    config::{AllowedOrigins, Config, Namespace},
    drain::Readiness,
    gateway::Gateway,
    http::{self, edge::Edge},
    hub::{Hub, Outbox, Seam, Slot, Style, Topic},
    metrics::Metrics,
    payload,
    position::{Epoch, Position},
    publication::{Payload, Publication},
    socket::Socket,
    telemetry::Tracer,
    transport_name::Transport,
    wire::{Encoding, Framing, Prepared},
};
use tokio::{net::UnixStream, sync::mpsc};

/// A gateway's parts.
pub struct Fixture {
    /// Who listens.
    pub hub: Hub,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    config: Arc<Config>,
    auth: Auth,
    broker: Memory,
    /// Without it the broker would be away.
    _events: mpsc::Receiver<BrokerEvent>,
}

impl Fixture {
    /// With the default configuration.
    pub fn new() -> anyhow::Result<Self> {
        let (broker, events) = Memory::new(1, Clock::system());
        let metrics = Arc::new(Metrics::new()?);
        let config = Arc::new(Config::from_toml("")?);
        Ok(Self {
            hub: Hub::default(),
            auth: Auth::new(&config, &metrics)?,
            metrics,
            config,
            broker,
            _events: events,
        })
    }

    /// The rules of a channel.
    pub fn namespace(&self, channel: &Channel) -> &Arc<Namespace> {
        self.config.namespaces.of(channel.as_str())
    }

    /// Of a WebSocket with a seat for one channel.
    pub fn outbox(&self) -> (Arc<Outbox>, Slot) {
        let style = Style {
            transport: Transport::WebSocket,
            encoding: Encoding::WebSocket { raw: false },
            framing: Framing::Chunked,
            many: false,
        };
        let outbox = Arc::new(Outbox::new(style, self.config.limits.outbox, 0));
        let slot = outbox.seat(Arc::clone(self.config.namespaces.of("bench-0")));
        (outbox, slot)
    }

    /// Where publishes go.
    pub fn internal(&self) -> Edge {
        http::internal(self.state())
    }

    /// Where subscribers ask.
    pub fn public(&self) -> Edge {
        http::public(self.state())
    }

    fn state(&self) -> http::State {
        let broker = Broker::Memory(self.broker.clone());
        let gateway = Gateway::new(
            Arc::clone(&self.config),
            self.auth.clone(),
            broker,
            Arc::clone(&self.metrics),
            Tracer::default(),
        );
        http::State {
            gateway,
            allowed_origins: Arc::new(ArcSwap::from_pointee(AllowedOrigins::SameHost)),
            config: Arc::clone(&self.config),
            metrics: Arc::clone(&self.metrics),
            admission: Admission::new(admission::Limits::default()),
            readiness: Readiness::default(),
            public_url: "http://127.0.0.1:8000".into(),
        }
    }
}

/// Messages of one channel, in order.
pub struct Messages {
    channel: Channel,
    epoch: Epoch,
    offset: u64,
    payload: Payload,
}

impl Messages {
    /// Of 100 bytes each.
    pub fn new() -> anyhow::Result<Self> {
        Ok(Self {
            channel: "bench-0".parse()?,
            epoch: "k3x9q0".parse().ok().context("no epoch")?,
            offset: 0,
            payload: payload::text(vec![b'.'; 100].into()).ok().context("no text")?,
        })
    }

    /// Theirs.
    pub fn channel(&self) -> &Channel {
        &self.channel
    }

    /// Of the last one.
    pub fn position(&self) -> Position {
        Position::At(self.epoch, self.offset)
    }

    /// The next one, not yet written down.
    pub fn next(&mut self) -> Prepared {
        self.offset += 1;
        Prepared::new(Publication {
            channel: self.channel.clone(),
            epoch: self.epoch,
            offset: self.offset,
            time: 1_790_000_000_123,
            event: None,
            payload: self.payload.clone(),
            trace: None,
        })
    }
}

/// Members of one channel that read all they get.
pub struct Crowd {
    /// What they listen to.
    pub topic: Arc<Topic>,
    members: Vec<(Arc<Outbox>, Reader)>,
    scratch: Vec<u8>,
}

impl Crowd {
    /// Lets so many members go live after the last of `messages`.
    pub async fn enter(fixture: &Fixture, messages: &Messages, count: usize) -> anyhow::Result<Self> {
        let channel = messages.channel();
        let mut members = Vec::with_capacity(count);
        let mut entered = None;
        for _ in 0..count {
            let (near, far) = UnixStream::pair()?;
            // Only then the runtime knows that it may be written to.
            near.writable().await?;
            let (outbox, slot) = fixture.outbox();
            outbox.connect(Socket::Unix(near));
            outbox.set_position(slot, messages.position());
            let (topic, key, _) = fixture.hub.enter(channel, fixture.namespace(channel), &outbox, slot);
            anyhow::ensure!(topic.go_live(key, &fixture.metrics) == Seam::Live);
            members.push((outbox, far.into_std()?));
            entered = Some(topic);
        }
        Ok(Self { topic: entered.context("nobody")?, members, scratch: vec![0; 4096] })
    }

    /// Reads what came.
    pub fn read(&mut self) -> std::io::Result<()> {
        for (_, reader) in &mut self.members {
            let _ = reader.read(&mut self.scratch)?;
        }
        Ok(())
    }

    /// Whether nothing waits and nobody was sent away.
    pub fn is_served(&self) -> bool {
        self.members.iter().all(|(outbox, _)| outbox.is_empty() && outbox.ending().is_none())
    }
}

//! Three gateways over each kind of broker: what holds over one must hold over all.
//!
//! The servers are shared by all tests of this file's users, each with a prefix of its own; faults have
//! servers of their own. `memory` is one gateway that bears three names: a case that fails there is wrong
//! itself.

use std::sync::atomic::{AtomicU32, Ordering};

use tokio::sync::OnceCell;

use crate::support::TestGateway;
use crate::support::gateway::Builder;
use crate::support::redis::{Cluster, Replicated, Server, until};

/// Kinds of brokers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Backend {
    Memory,
    Standalone,
    Sentinel,
    Cluster,
}

/// The server that the cases over one Redis share.
pub async fn standalone() -> &'static Server {
    static SHARED: OnceCell<Server> = OnceCell::const_new();
    SHARED.get_or_init(Server::plain).await
}

async fn watched() -> &'static Replicated {
    static SHARED: OnceCell<Replicated> = OnceCell::const_new();
    SHARED.get_or_init(Replicated::watched).await
}

async fn cluster() -> &'static Cluster {
    static SHARED: OnceCell<Cluster> = OnceCell::const_new();
    SHARED.get_or_init(Cluster::start).await
}

impl Backend {
    /// What the table of docs/reliability.md calls it.
    pub fn name(self) -> &'static str {
        match self {
            Self::Memory => "memory",
            Self::Standalone => "one Redis",
            Self::Sentinel => "Sentinel",
            Self::Cluster => "Cluster",
        }
    }

    async fn url(self) -> String {
        match self {
            Self::Memory => "memory:".into(),
            Self::Standalone => standalone().await.url(),
            Self::Sentinel => watched().await.url(),
            Self::Cluster => cluster().await.url(),
        }
    }
}

/// A prefix that no other test uses.
pub fn prefix() -> String {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    format!("t{}", NEXT.fetch_add(1, Ordering::Relaxed))
}

/// Waits until a gateway in this process is ready.
pub async fn until_ready(gateway: &TestGateway) {
    until("the gateway is ready", async || {
        (gateway.get_public("/ready").await.status() == 200).then_some(())
    })
    .await;
}

/// Three gateways over one broker.
pub struct Trio(Vec<TestGateway>);

impl Trio {
    pub async fn start(backend: Backend) -> Self {
        Self::with(backend, |builder| builder).await
    }

    /// With more of a configuration.
    pub async fn with(backend: Backend, more: impl Fn(Builder) -> Builder) -> Self {
        let (url, prefix) = (backend.url().await, prefix());
        if backend == Backend::Memory {
            return Self(vec![more(TestGateway::start()).run().await]);
        }
        let mut gateways = Vec::new();
        for _ in 0..3 {
            let builder = TestGateway::start()
                .with(&format!("broker.url = '{url}'"))
                .with(&format!("broker.prefix = '{prefix}'"))
                // Shorter than these tests: nodes leave channels in Redis and enter them again.
                .with("broker.linger = '300ms'");
            gateways.push(more(builder).run().await);
        }
        for gateway in &gateways {
            until_ready(gateway).await;
        }
        Self(gateways)
    }

    /// The gateway of this number; numbers go round.
    pub fn at(&self, number: usize) -> &TestGateway {
        &self.0[number % self.0.len()]
    }

    /// Publishes numbers, each at another gateway, one after the other; gives their ids.
    pub async fn publish_numbers(&self, channel: &str, first: u64, last: u64) -> Vec<String> {
        let mut ids = Vec::new();
        for number in first..=last {
            let gateway = self.at(usize::try_from(number).expect("fits"));
            ids.push(gateway.publish(channel, number.to_string()).await.id);
        }
        ids
    }

    /// The end of a test, as [`TestGateway::finish`].
    pub async fn finish<T>(self, clients: T) {
        drop(clients);
        for gateway in self.0 {
            gateway.finish(()).await;
        }
    }
}

/// Writes one test for each kind of broker out of one body.
macro_rules! each_broker {
    ($($(#[$meta:meta])* async fn $name:ident($backend:ident) $body:block)+) => {$(
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            use crate::redis::table::Backend;

            async fn case($backend: Backend) $body

            #[tokio::test]
            async fn over_memory() {
                case(Backend::Memory).await;
            }

            #[tokio::test]
            async fn over_one_redis() {
                case(Backend::Standalone).await;
            }

            #[tokio::test]
            async fn over_sentinel() {
                case(Backend::Sentinel).await;
            }

            #[tokio::test]
            async fn over_a_cluster() {
                case(Backend::Cluster).await;
            }
        }
    )+};
}

/// The same for each transport over each kind of broker.
macro_rules! each_broker_and_transport {
    ($($(#[$meta:meta])* async fn $name:ident($backend:ident, $transport:ident) $body:block)+) => {$(
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;
            use crate::redis::table::Backend;

            async fn case($backend: Backend, $transport: crate::support::Transport) $body

            each_broker_and_transport!(@over memory, Memory);
            each_broker_and_transport!(@over one_redis, Standalone);
            each_broker_and_transport!(@over sentinel, Sentinel);
            each_broker_and_transport!(@over a_cluster, Cluster);
        }
    )+};
    (@over $name:ident, $backend:ident) => {
        mod $name {
            use super::{Backend, case};
            use crate::support::Transport;

            #[tokio::test]
            async fn over_websocket() {
                case(Backend::$backend, Transport::Websocket).await;
            }

            #[tokio::test]
            async fn over_sse() {
                case(Backend::$backend, Transport::Sse).await;
            }

            #[tokio::test]
            async fn over_ndjson() {
                case(Backend::$backend, Transport::Ndjson).await;
            }

            #[tokio::test]
            async fn over_poll() {
                case(Backend::$backend, Transport::Poll).await;
            }
        }
    };
}

//! Servers of one test's own, three gateways over them, and how long and how hard a fault is tried.

use crate::redis::table::Backend;
use crate::support::fleet::{Fleet, Load, Report, Run};
use crate::support::recorder::{Gaps, Unsure};
use crate::support::redis::{Cluster, Replicated, Server, Settings};

/// Short for every day, long for the table.
pub struct Form {
    pub long: bool,
    name: &'static str,
}

impl Form {
    pub fn short(path: &'static str) -> Self {
        Self { long: false, name: last(path) }
    }

    pub fn long(path: &'static str) -> Self {
        Self { long: true, name: last(path) }
    }

    /// How often the fault happens.
    pub fn rounds(&self) -> usize {
        if self.long { 5 } else { 1 }
    }

    /// What goes on meanwhile.
    pub fn load(&self, unsure: Unsure) -> Load {
        Load::new(unsure).rate(if self.long { 40 } else { 20 })
    }

    /// The verdict, and its row.
    pub async fn end(&self, run: Run, over: Backend, gaps: Gaps) -> Report {
        let report = run.end(gaps).await;
        report.write(self.name, if self.long { "long" } else { "short" }, over.name());
        report
    }
}

fn last(path: &'static str) -> &'static str {
    path.rsplit("::").next().unwrap_or(path)
}

/// Redis of one kind and three gateways over it.
pub enum Stage {
    /// One server, with a proxy for each gateway.
    One {
        redis: Server,
        fleet: Fleet,
    },
    Watched {
        redis: Replicated,
        fleet: Fleet,
    },
    Sharded {
        redis: Cluster,
        fleet: Fleet,
    },
}

impl Stage {
    pub async fn over(backend: Backend) -> Self {
        match backend {
            Backend::Memory => panic!("faults are Redis's"),
            Backend::Standalone => Self::one(Settings::default()).await,
            Backend::Sentinel => {
                let redis = Replicated::watched().await;
                let fleet = Fleet::over(&redis.url(), 3).await;
                Self::Watched { redis, fleet }
            }
            Backend::Cluster => {
                let redis = Cluster::start().await;
                let fleet = Fleet::over(&redis.url(), 3).await;
                Self::Sharded { redis, fleet }
            }
        }
    }

    async fn one(settings: Settings) -> Self {
        let (redis, fleet) = one(settings).await;
        Self::One { redis, fleet }
    }

    pub fn fleet(&mut self) -> &mut Fleet {
        match self {
            Self::One { fleet, .. } | Self::Watched { fleet, .. } | Self::Sharded { fleet, .. } => fleet,
        }
    }

    /// The servers that take writes now.
    pub async fn primaries(&self) -> Vec<&Server> {
        match self {
            Self::One { redis, .. } => vec![redis],
            Self::Watched { redis, .. } => vec![redis.primary().await],
            Self::Sharded { redis, .. } => {
                let mut primaries = Vec::new();
                for node in &redis.nodes {
                    if node.info("replication", "role").await == "master" {
                        primaries.push(node);
                    }
                }
                primaries
            }
        }
    }

    /// The same command on every primary.
    pub async fn all(&self, words: &[&str]) {
        for primary in self.primaries().await {
            primary.command(words).await;
        }
    }
}

/// One server with these settings, and three gateways, each behind a proxy of its own.
pub async fn one(settings: Settings) -> (Server, Fleet) {
    let redis = Server::start(settings).await;
    let fleet = Fleet::behind_proxies(redis.address(), 3).await;
    (redis, fleet)
}

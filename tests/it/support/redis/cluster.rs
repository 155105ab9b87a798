//! A Cluster of three primaries and three replicas; its nodes know each other before they start.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use super::{Server, Settings, free_port, until};

/// The slots of a Cluster.
const SLOTS: u16 = 16_384;

const NODE_TIMEOUT: Duration = Duration::from_secs(8);

/// Six nodes: the first three begin as primaries, the others as their replicas.
pub struct Cluster {
    pub nodes: Vec<Server>,
    /// When a replica was last promoted by [`Cluster::promote`].
    promoted: Mutex<Option<Instant>>,
}

/// What one node says of another (or of itself) in `CLUSTER NODES`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Told {
    pub id: String,
    pub port: u16,
    pub primary: bool,
    pub slots: Vec<(u16, u16)>,
}

fn id(index: usize) -> String {
    format!("{:040x}", 0xc1u64 << 32 | index as u64)
}

impl Cluster {
    /// Starts six nodes and waits until each says that all is well and each replica follows.
    pub async fn start() -> Self {
        let ports: Vec<(u16, u16)> = (0..6).map(|_| (free_port(), free_port())).collect();
        let nodes: Vec<Server> = (0..6).map(|index| Self::prepare(index, &ports)).collect();
        futures_util::future::join_all(nodes.iter().map(Server::run)).await;
        let cluster = Self { nodes, promoted: Mutex::default() };
        cluster.until_well().await;
        for replica in &cluster.nodes[3..] {
            replica.until_following().await;
        }
        for primary in &cluster.nodes[..3] {
            primary.until_followed(1).await;
        }
        cluster
    }

    fn prepare(own: usize, ports: &[(u16, u16)]) -> Server {
        let settings = Settings::default()
            .with("cluster-enabled yes")
            .with("cluster-config-file nodes.conf")
            .with(format!("cluster-node-timeout {}", NODE_TIMEOUT.as_millis()))
            .with("cluster-replica-validity-factor 0")
            .with(format!("cluster-port {}", ports[own].1));
        let server = Server::prepare(ports[own].0, settings);
        let third = SLOTS / 3 + 1;
        let mut lines = String::new();
        for (index, (port, bus)) in ports.iter().enumerate() {
            let me = if index == own { "myself," } else { "" };
            let first = third * index as u16;
            let rest = match index {
                0..3 => {
                    let last = (first + third - 1).min(SLOTS - 1);
                    format!("{me}master - 0 0 {} connected {first}-{last}", index + 1)
                }
                _ => format!("{me}slave {} 0 0 {} connected", id(index - 3), index - 2),
            };
            lines += &format!("{} 127.0.0.1:{port}@{bus} {rest}\n", id(index));
        }
        lines += "vars currentEpoch 6 lastVoteEpoch 0\n";
        server.write_file("nodes.conf", &lines);
        server
    }

    /// A primary that does not answer is replaced soon. Otherwise nobody is, on a slow machine either.
    pub async fn be_impatient(&self) {
        for node in &self.nodes {
            node.command(&["CONFIG", "SET", "cluster-node-timeout", "1500"]).await;
        }
    }

    /// Waits until every node that runs says `cluster_state:ok`.
    pub async fn until_well(&self) {
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            until("the cluster agrees", async || {
                let text = node.try_command(&["CLUSTER", "INFO"]).await.ok()?;
                let text: String = ::redis::from_redis_value(text).ok()?;
                text.contains("cluster_state:ok").then_some(())
            })
            .await;
        }
    }

    /// `redis-cluster://…` of the first three.
    pub fn url(&self) -> String {
        let seeds: Vec<String> = self.nodes[..3].iter().map(|node| node.address().to_string()).collect();
        format!("redis-cluster://{}", seeds.join(","))
    }

    /// What this node says of all.
    pub async fn told_by(&self, node: &Server) -> Vec<Told> {
        let text: String = node.ask(&["CLUSTER", "NODES"]).await;
        text.lines().filter_map(parse_line).collect()
    }

    /// The primary that owns a slot, as the first node that runs says.
    pub async fn owner(&self, slot: u16) -> &Server {
        let asked = self.nodes.iter().find(|node| node.is_running()).expect("one runs");
        self.at(self.owner_told_by(asked, slot).await.expect("somebody owns the slot"))
    }

    /// The port of the primary that owns a slot, as this node says.
    async fn owner_told_by(&self, asked: &Server, slot: u16) -> Option<u16> {
        let told = self.told_by(asked).await;
        let owns = |node: &&Told| {
            node.primary && node.slots.iter().any(|(first, last)| (*first..=*last).contains(&slot))
        };
        told.iter().find(owns).map(|node| node.port)
    }

    /// Waits until every node that runs names this one as the slot's owner.
    pub async fn until_owned(&self, slot: u16, owner: &Server) {
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            until("all name the slot's new owner", async || {
                (self.owner_told_by(node, slot).await? == owner.port).then_some(())
            })
            .await;
        }
    }

    /// Makes a replica the owner of its primary's slots. Primaries do not vote twice within twice the time-out of a
    /// node, and an election without their votes is over after 5 s: it is asked for again. Redis counts the votes of
    /// an earlier election for who stands again within four times that time-out: it would take the slots without
    /// being elected, and lose them.
    pub async fn promote(&self, slot: u16, replica: &Server) {
        let last = *self.promoted.lock().expect("no panic under the lock");
        if let Some(last) = last {
            tokio::time::sleep_until((last + 4 * NODE_TIMEOUT + Duration::from_secs(1)).into()).await;
        }
        let asked = Cell::new(None::<Instant>);
        until("the replica is promoted", async || {
            if asked.get().is_none_or(|at| at.elapsed() > Duration::from_secs(6)) {
                asked.set(Some(Instant::now()));
                // It may have happened meanwhile.
                let _ = replica.try_command(&["CLUSTER", "FAILOVER"]).await;
            }
            (self.owner_told_by(replica, slot).await? == replica.port).then_some(())
        })
        .await;
        self.until_owned(slot, replica).await;
        *self.promoted.lock().expect("no panic under the lock") = Some(Instant::now());
    }

    /// Some primary that does not own the slot.
    pub async fn other_primary(&self, slot: u16) -> &Server {
        let owner = self.owner(slot).await.port;
        let told = self.told_by(&self.nodes[0]).await;
        self.at(told.iter().find(|node| node.primary && node.port != owner).expect("three primaries").port)
    }

    /// A replica of the primary at this port.
    pub async fn replica_of(&self, primary: &Server) -> &Server {
        let own: String = primary.ask(&["CLUSTER", "MYID"]).await;
        // After a promotion it takes a moment until the old primary has announced itself as a replica.
        let told = until("it has a replica", async || {
            let lines: Vec<String> = primary.ask(&["CLUSTER", "REPLICAS", &own]).await;
            lines.first().and_then(|line| parse_line(line))
        });
        self.at(told.await.port)
    }

    fn at(&self, port: u16) -> &Server {
        self.nodes.iter().find(|node| node.port == port).expect("one of ours")
    }

    /// The slots in which a key matches, each with the keys.
    pub async fn slots_of(&self, pattern: &str) -> BTreeMap<u16, Vec<String>> {
        let mut slots: BTreeMap<u16, Vec<String>> = BTreeMap::new();
        for node in self.nodes.iter().filter(|node| node.is_running()) {
            if node.info("replication", "role").await != "master" {
                continue;
            }
            for key in node.keys(pattern).await {
                slots.entry(node.ask(&["CLUSTER", "KEYSLOT", &key]).await).or_default().push(key);
            }
        }
        slots
    }

    /// Marks a slot as moving from its owner to `target`; keys stay where they are.
    pub async fn begin_move(&self, slot: u16, source: &Server, target: &Server) {
        let slot = slot.to_string();
        let from: String = source.ask(&["CLUSTER", "MYID"]).await;
        let to: String = target.ask(&["CLUSTER", "MYID"]).await;
        target.command(&["CLUSTER", "SETSLOT", &slot, "IMPORTING", &from]).await;
        source.command(&["CLUSTER", "SETSLOT", &slot, "MIGRATING", &to]).await;
    }

    /// Moves at most so many keys of a moving slot; gives how many.
    pub async fn move_keys(&self, slot: u16, source: &Server, target: &Server, most: usize) -> usize {
        let keys: Vec<String> =
            source.ask(&["CLUSTER", "GETKEYSINSLOT", &slot.to_string(), &most.to_string()]).await;
        let port = target.port.to_string();
        for key in &keys {
            // A key that expired meanwhile is NOKEY, which is no error.
            source.command(&["MIGRATE", "127.0.0.1", &port, key, "0", "5000"]).await;
        }
        keys.len()
    }

    /// Moves what is left and gives the slot to `target`.
    pub async fn finish_move(&self, slot: u16, source: &Server, target: &Server) {
        while self.move_keys(slot, source, target, 100).await > 0 {}
        let to: String = target.ask(&["CLUSTER", "MYID"]).await;
        for node in [target, source] {
            node.command(&["CLUSTER", "SETSLOT", &slot.to_string(), "NODE", &to]).await;
        }
        self.until_owned(slot, target).await;
    }
}

/// `<id> <ip:port@bus[,host]> <flags> <primary> … <slots>…`
fn parse_line(line: &str) -> Option<Told> {
    let mut words = line.split(' ');
    let (id, address, flags) = (words.next()?, words.next()?, words.next()?);
    let port = address.split('@').next()?.rsplit(':').next()?.parse().ok()?;
    let primary = flags.split(',').any(|flag| flag == "master") && !flags.contains("fail");
    let slots = words.skip(5).filter(|range| !range.starts_with('[')).filter_map(|range| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        Some((first.parse().ok()?, last.parse().ok()?))
    });
    Some(Told { id: id.to_owned(), port, primary, slots: slots.collect() })
}

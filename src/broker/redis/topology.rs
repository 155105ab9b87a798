//! Who serves what: the primaries, and the partitions of each.

mod nodes;

use std::time::Duration;

use redis_protocol::resp3::types::BytesFrame;
use tokio::{task::JoinSet, time::timeout};

pub use self::nodes::{Nodes, Slots};
use super::{
    command::CommandLink,
    endpoint::{Endpoint, Role},
    error::{CommandError, ConnectError, Problem},
    names::Partition,
    resp::{Connection, bytes, error_text, pairs, text},
    server::Server,
};
use crate::config::Deployment;

/// No primary serves the partition.
pub const NONE: u16 = u16::MAX;

/// Who serves what, as one server or a majority of Sentinels sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Topology {
    /// Whether messages are published by SPUBLISH: it is a Cluster.
    pub sharded: bool,
    /// The primaries that own a partition.
    pub primaries: Vec<Server>,
    /// For each partition the index of its primary, or [`NONE`].
    pub owner: Vec<u16>,
    /// Partitions whose slot is moving, as far as the server that was asked takes part.
    pub migrating: Vec<u16>,
}

impl Topology {
    /// One primary that serves everything.
    fn single(server: Server, partitions: usize) -> Self {
        Self { sharded: false, primaries: vec![server], owner: vec![0; partitions], migrating: Vec::new() }
    }

    /// The primary that owns a partition, if one does.
    #[must_use]
    pub fn owner_of(&self, partition: Partition) -> Option<&Server> {
        let index = self.owner.get(usize::from(partition.0))?;
        self.primaries.get(usize::from(*index))
    }

    /// The partitions that a primary owns.
    pub fn partitions_of(&self, server: &Server) -> impl Iterator<Item = Partition> {
        let index = self.primaries.iter().position(|primary| primary == server);
        let all = (0..).zip(&self.owner);
        all.filter(move |(_, owner)| Some(usize::from(**owner)) == index).map(|(p, _)| Partition(p))
    }

    /// Whether every partition has an owner.
    #[must_use]
    pub fn is_covered(&self) -> bool {
        !self.owner.contains(&NONE)
    }
}

/// Finds the primaries. `slots` is the slot of each partition; `known` are nodes of the Cluster that were found before,
/// asked first, since the seeds may be gone by now.
///
/// # Errors
/// One sentence that names every server that was asked and what is wrong with it.
pub async fn discover(
    endpoint: &Endpoint,
    slots: &[u16],
    known: &[Server],
) -> Result<Topology, ConnectError> {
    let limit = endpoint.command_timeout();
    match endpoint.deployment() {
        Deployment::Standalone(address) => Ok(Topology::single(address.into(), slots.len())),
        Deployment::Unix(path) => Ok(Topology::single(Server::Unix(path.as_path().into()), slots.len())),
        Deployment::Sentinel { sentinels, service } => {
            let sentinels: Vec<Server> = sentinels.iter().map(Server::from).collect();
            let primary = sentinel(endpoint, &sentinels, service, limit).await?;
            Ok(Topology::single(primary, slots.len()))
        }
        Deployment::Cluster { seeds } => {
            let mut nodes: Vec<Server> = known.to_vec();
            nodes.extend(seeds.iter().map(Server::from).filter(|seed| !known.contains(seed)));
            cluster(endpoint, &nodes, slots, limit).await
        }
    }
}

/// Which partitions of the server behind `link` are moving, to it or from it: each primary knows its own only.
///
/// # Errors
/// What became of the question.
pub async fn moving(link: &CommandLink, slots: &[u16]) -> Result<Vec<u16>, CommandError> {
    let answer = link.call("CLUSTER", vec!["NODES".into()]).await?;
    let text = answer.as_bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned());
    let text = text.ok_or_else(|| CommandError::Other("CLUSTER NODES has no text for an answer".into()))?;
    Ok(Nodes::parse(&text, link.server()).migrating(slots))
}

/// Asks nodes until one knows an owner of every partition; else the best answer counts.
async fn cluster(
    endpoint: &Endpoint,
    nodes: &[Server],
    slots: &[u16],
    limit: Duration,
) -> Result<Topology, ConnectError> {
    let mut errors = Vec::new();
    let mut best: Option<Topology> = None;
    for node in nodes {
        match cluster_by(endpoint, node, slots, limit).await {
            Ok(topology) if topology.is_covered() => return Ok(topology),
            Ok(topology) => {
                let uncovered =
                    |topology: &Topology| topology.owner.iter().filter(|owner| **owner == NONE).count();
                if best.as_ref().is_none_or(|best| uncovered(&topology) < uncovered(best)) {
                    best = Some(topology);
                }
            }
            Err(error) => errors.push(error),
        }
    }
    match best {
        Some(topology) if !topology.primaries.is_empty() => Ok(topology),
        Some(_) => Err(ConnectError { place: list(nodes), problem: Problem::NoSlots }),
        None => Err(joined(&errors, nodes)),
    }
}

async fn cluster_by(
    endpoint: &Endpoint,
    node: &Server,
    slots: &[u16],
    limit: Duration,
) -> Result<Topology, ConnectError> {
    let (mut connection, _) = Connection::open(endpoint, node, Role::Primary, limit).await?;
    let asked = async {
        let nodes = checked(connection.ask(&[b"CLUSTER", b"NODES"]).await?)?;
        let slots = checked(connection.ask(&[b"CLUSTER", b"SLOTS"]).await?)?;
        Ok((nodes, slots))
    };
    let answers = timeout(limit, asked).await.unwrap_or_else(|_| Err(endpoint.timed_out(limit)));
    let (nodes, ranges) = answers.map_err(|problem| ConnectError::new(node, problem))?;
    let Some(nodes) = text(&nodes) else {
        return Err(ConnectError::new(
            node,
            Problem::Answer("CLUSTER NODES has no text for an answer".into()),
        ));
    };
    // CLUSTER NODES knows what is failing and moving, CLUSTER SLOTS how the nodes want to be called.
    Ok(Nodes::parse(&nodes, node).topology(slots, &Slots::read(&ranges, node)))
}

fn checked(frame: BytesFrame) -> Result<BytesFrame, Problem> {
    match error_text(&frame) {
        None => Ok(frame),
        Some(error) if error.starts_with("NOPERM") => Err(Problem::Denied(error)),
        Some(error) => Err(Problem::Answer(error)),
    }
}

/// What one Sentinel says: how new it is, and who the primary is.
pub(super) type Opinion = (u64, Server);

/// Asks all Sentinels at once. One that lost its network may name an old primary, so the answer of a majority is waited
/// for, and the newest of them counts; an answer whose server is no primary does not.
async fn sentinel(
    endpoint: &Endpoint,
    sentinels: &[Server],
    service: &str,
    limit: Duration,
) -> Result<Server, ConnectError> {
    let mut asked = JoinSet::new();
    for server in sentinels {
        let (endpoint, server, service) = (endpoint.clone(), server.clone(), service.to_owned());
        asked.spawn(async move { opinion(&endpoint, &server, &service, limit).await });
    }
    let (mut opinions, mut errors): (Vec<Opinion>, Vec<ConnectError>) = (Vec::new(), Vec::new());
    loop {
        let waiting = asked.join_next().await;
        match waiting {
            Some(Ok(Ok(opinion))) => opinions.push(opinion),
            Some(Ok(Err(error))) => errors.push(error),
            Some(Err(_)) => {}
            None => break,
        }
        let majority = opinions.len() > sentinels.len() / 2;
        if majority || asked.is_empty() {
            opinions.sort();
            while let Some((_, server)) = opinions.pop() {
                opinions.retain(|(_, other)| *other != server);
                match is_primary(endpoint, &server, limit).await {
                    Ok(()) => return Ok(server),
                    Err(error) => errors.push(error),
                }
            }
        }
    }
    Err(joined(&errors, sentinels))
}

/// Asks one Sentinel who the primary is.
pub(super) async fn opinion(
    endpoint: &Endpoint,
    server: &Server,
    service: &str,
    limit: Duration,
) -> Result<Opinion, ConnectError> {
    let (mut connection, _) = Connection::open(endpoint, server, Role::Sentinel, limit).await?;
    let name = service.as_bytes();
    let asked = async {
        let address = checked(connection.ask(&[b"SENTINEL", b"GET-MASTER-ADDR-BY-NAME", name]).await?)?;
        let details = connection.ask(&[b"SENTINEL", b"MASTER", name]).await?;
        let BytesFrame::Array { data, .. } = &address else {
            return Err(Problem::UnknownService(service.to_owned()));
        };
        let (host, port) = (data.first().and_then(text), data.get(1).and_then(text));
        let primary = host.zip(port).and_then(|(host, port)| server.with(&host, port.parse().ok()?));
        let primary =
            primary.ok_or_else(|| Problem::Answer("the address of the primary has another form".into()))?;
        Ok((epoch(details), primary))
    };
    let answer = timeout(limit, asked).await.unwrap_or_else(|_| Err(endpoint.timed_out(limit)));
    answer.map_err(|problem| ConnectError::new(server, problem))
}

/// The configuration epoch among the details of a service; it grows with each failover.
fn epoch(details: BytesFrame) -> u64 {
    let details = pairs(details);
    let found = details.iter().find(|(key, _)| bytes(key).is_some_and(|key| **key == b"config-epoch"[..]));
    found.and_then(|(_, value)| text(value)?.parse().ok()).unwrap_or(0)
}

async fn is_primary(endpoint: &Endpoint, server: &Server, limit: Duration) -> Result<(), ConnectError> {
    let (_, hello) = Connection::open(endpoint, server, Role::Primary, limit).await?;
    if hello.is_primary() { Ok(()) } else { Err(ConnectError::new(server, Problem::NotPrimary)) }
}

fn list(servers: &[Server]) -> String {
    servers.iter().map(Server::to_string).collect::<Vec<_>>().join(", ")
}

/// Where all say the same, it is said once.
fn joined(errors: &[ConnectError], servers: &[Server]) -> ConnectError {
    match errors {
        [one] => one.clone(),
        [first, others @ ..] if others.iter().all(|other| other.problem == first.problem) => {
            let places: Vec<&str> = errors.iter().map(|error| error.place.as_str()).collect();
            ConnectError { place: places.join(", "), problem: first.problem.clone() }
        }
        _ => {
            let sentences: Vec<String> =
                errors.iter().map(|error| format!("{}: {}", error.place, error.problem)).collect();
            ConnectError { place: list(servers), problem: Problem::Network(sentences.join("; ")) }
        }
    }
}

#[cfg(test)]
mod tests;

//! What the nodes of a Cluster say of one another: CLUSTER NODES and CLUSTER SLOTS, read without asking anybody.

use std::collections::HashMap;

use redis_protocol::resp3::types::BytesFrame;

use super::{NONE, Topology};
use crate::broker::redis::{resp::text, server::Server};

/// The answer to CLUSTER NODES.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Nodes(Vec<Node>);

/// One line of it.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Node {
    id: String,
    /// By its address; `None` where it has none, or none is known.
    server: Option<Server>,
    primary: bool,
    /// A majority says that it is gone.
    failed: bool,
    /// From and to, both included.
    slots: Vec<(u16, u16)>,
    /// Slots that move to or from it; only the node that was asked says it, of itself.
    moving: Vec<u16>,
}

impl Nodes {
    /// Lines that are not understood are left out: newer servers may say more. `asked` is who answered.
    #[must_use]
    pub fn parse(text: &str, asked: &Server) -> Self {
        Self(text.lines().filter_map(|line| Node::parse(line, asked)).collect())
    }

    /// Partitions whose slot is moving, in order.
    #[must_use]
    pub fn migrating(&self, slots: &[u16]) -> Vec<u16> {
        let moving: Vec<u16> = self.0.iter().flat_map(|node| node.moving.iter().copied()).collect();
        let partitions = slots.iter().enumerate().filter(|(_, slot)| moving.contains(slot));
        partitions.filter_map(|(partition, _)| u16::try_from(partition).ok()).collect()
    }

    /// Who serves the partitions whose slots are given.
    #[must_use]
    pub fn topology(&self, slots: &[u16], names: &Slots) -> Topology {
        let mut primaries: Vec<Server> = Vec::new();
        let owner = slots.iter().map(|slot| {
            let owner = self.0.iter().find(|node| node.primary && !node.failed && node.owns(*slot));
            let server = owner.and_then(|node| names.0.get(&node.id).or(node.server.as_ref()));
            let Some(server) = server else {
                return NONE;
            };
            let index = primaries.iter().position(|primary| primary == server).unwrap_or_else(|| {
                primaries.push(server.clone());
                primaries.len() - 1
            });
            u16::try_from(index).unwrap_or(NONE)
        });
        let owner = owner.collect();
        Topology { sharded: true, primaries, owner, migrating: self.migrating(slots) }
    }
}

impl Node {
    /// `id ip:port@bus[,hostname[,key=value…]] flags primary ping pong epoch link slot…`
    fn parse(line: &str, asked: &Server) -> Option<Self> {
        let mut words = line.split_ascii_whitespace();
        let id = words.next()?.to_owned();
        let address = words.next()?;
        let flags: Vec<&str> = words.next()?.split(',').collect();
        let has = |flag: &str| flags.contains(&flag);
        // Redis before 7 has no `,hostname`, and 3 no `@bus`.
        let address = address.split([',', '@']).next()?;
        let itself = has("myself");
        let server = match asked.beside(address) {
            // Only the node that was asked may go without an address: it is where it was asked.
            Some(_) if address.starts_with(':') && !itself => None,
            server => server,
        };
        let mut node = Self {
            id,
            server: server.filter(|_| !has("noaddr") && !has("handshake")),
            primary: has("master"),
            failed: has("fail"),
            slots: Vec::new(),
            moving: Vec::new(),
        };
        for word in words.skip(5) {
            node.add(word);
        }
        Some(node)
    }

    /// `5`, `5-9`, `[5->-id]` (to a node) or `[5-<-id]` (from one).
    fn add(&mut self, word: &str) {
        if let Some(word) = word.strip_prefix('[') {
            let slot = word.split('-').next().and_then(|slot| slot.parse::<u16>().ok());
            self.moving.extend(slot);
            return;
        }
        let (from, to) = word.split_once('-').unwrap_or((word, word));
        if let (Ok(from), Ok(to)) = (from.parse(), to.parse()) {
            self.slots.push((from, to));
        }
    }

    fn owns(&self, slot: u16) -> bool {
        self.slots.iter().any(|(from, to)| (*from..=*to).contains(&slot))
    }
}

/// How the primaries want to be called, by their ids: an address or a host name, as each Cluster prefers.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Slots(HashMap<String, Server>);

impl Slots {
    /// Reads the answer to CLUSTER SLOTS: `[from, to, [endpoint, port, id, …], replica…]` for each range.
    #[must_use]
    pub fn read(answer: &BytesFrame, asked: &Server) -> Self {
        let ranges = list(answer).unwrap_or_default();
        let primaries = ranges.iter().filter_map(|range| list(range)?.get(2));
        Self(primaries.filter_map(|primary| named(list(primary)?, asked)).collect())
    }
}

fn named(primary: &[BytesFrame], asked: &Server) -> Option<(String, Server)> {
    let BytesFrame::Number { data: port, .. } = primary.get(1)? else {
        return None;
    };
    // Null and `?` stand for the host that was asked.
    let host = text(primary.first()?).unwrap_or_default();
    Some((text(primary.get(2)?)?, asked.with(&host, u16::try_from(*port).ok()?)?))
}

fn list(frame: &BytesFrame) -> Option<&[BytesFrame]> {
    match frame {
        BytesFrame::Array { data, .. } => Some(data),
        _ => None,
    }
}

#[cfg(test)]
mod tests;

//! Every name that Tidegate has in Redis: keys, and channels of pub/sub. All of a partition bear its number as
//! the hash tag, so that in a Cluster they are in one slot.

use std::{fmt, sync::Arc};

use bytes::Bytes;

use crate::{channel::Channel, publication::IdempotencyKey};

/// The slots of a Cluster.
const SLOTS: u16 = 16384;

/// Channels that share a hash tag, and so a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Partition(pub u16);

/// The names of one deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    prefix: Arc<str>,
    partitions: u16,
    database: u32,
}

impl Names {
    /// `prefix` has neither braces nor anything else that would move the hash tag.
    #[must_use]
    pub fn new(prefix: &str, partitions: u16, database: u32) -> Self {
        Self { prefix: prefix.into(), partitions: partitions.max(1), database }
    }

    /// How many partitions there are.
    #[must_use]
    pub fn partitions(&self) -> u16 {
        self.partitions
    }

    /// The number of the database.
    #[must_use]
    pub fn database(&self) -> u32 {
        self.database
    }

    /// The channel's partition: by the CRC-32 of zlib, which every language has.
    #[must_use]
    pub fn partition(&self, channel: &Channel) -> Partition {
        let hash = crc32fast::hash(channel.as_str().as_bytes());
        Partition((hash % u32::from(self.partitions)) as u16)
    }

    /// The slot of a partition in a Cluster.
    #[must_use]
    pub fn slot(&self, partition: Partition) -> u16 {
        crc16(partition.0.to_string().as_bytes()) % SLOTS
    }

    /// A channel's counting.
    #[must_use]
    pub fn meta(&self, partition: Partition, channel: &Channel) -> Bytes {
        self.name(partition, format_args!("meta:{channel}"))
    }

    /// A channel's messages.
    #[must_use]
    pub fn log(&self, partition: Partition, channel: &Channel) -> Bytes {
        self.name(partition, format_args!("log:{channel}"))
    }

    /// What the keys of a partition's logs begin with, before the channel.
    #[must_use]
    pub fn logs(&self, partition: Partition) -> Bytes {
        self.name(partition, format_args!("log:"))
    }

    /// What was published with an idempotency key. No channel has a slash, so the first one ends its name.
    #[must_use]
    pub fn idempotency(&self, partition: Partition, channel: &Channel, key: &IdempotencyKey) -> Bytes {
        self.name(partition, format_args!("idem:{channel}/{}", key.as_str()))
    }

    /// How many subscribers each node has of a channel.
    #[must_use]
    pub fn subscribers(&self, partition: Partition, channel: &Channel) -> Bytes {
        self.name(partition, format_args!("subs:{channel}"))
    }

    /// The channels of a partition that may have messages.
    #[must_use]
    pub fn names(&self, partition: Partition) -> Bytes {
        self.name(partition, format_args!("names"))
    }

    /// From when on Redis can vouch for a partition's channels.
    #[must_use]
    pub fn state(&self, partition: Partition) -> Bytes {
        self.name(partition, format_args!("state"))
    }

    /// The one key that says how many partitions there are, and the format of all others; in partition 0.
    #[must_use]
    pub fn format(&self) -> Bytes {
        self.name(Partition(0), format_args!("format"))
    }

    /// The one stream of disconnects; in partition 0.
    #[must_use]
    pub fn control(&self) -> Bytes {
        self.name(Partition(0), format_args!("control"))
    }

    /// The channel of pub/sub that carries a channel's messages. Pub/sub knows no databases, so their number
    /// is in the name.
    #[must_use]
    pub fn live(&self, partition: Partition, channel: &Channel) -> Bytes {
        self.name(partition, format_args!("live:{}:{channel}", self.database))
    }

    /// The channel of pub/sub by which a node hears of itself.
    #[must_use]
    pub fn probe(&self, partition: Partition, node: &str) -> Bytes {
        self.name(partition, format_args!("probe:{}:{node}", self.database))
    }

    /// The channel whose messages a channel of pub/sub carries, if it is one of these.
    #[must_use]
    pub fn channel_of_live(&self, name: &[u8]) -> Option<Channel> {
        let rest = std::str::from_utf8(name).ok()?.strip_prefix(&*self.prefix)?.strip_prefix(":{")?;
        let (_, rest) = rest.split_once("}:live:")?;
        let (_, channel) = rest.split_once(':')?;
        let channel = channel.parse().ok()?;
        (self.live(self.partition(&channel), &channel) == name).then_some(channel)
    }

    fn name(&self, partition: Partition, rest: fmt::Arguments<'_>) -> Bytes {
        format!("{}:{{{}}}:{rest}", self.prefix, partition.0).into()
    }
}

/// CRC-16/XMODEM, as a Cluster hashes tags.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc: u16, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| match crc & 0x8000 {
            0 => crc << 1,
            _ => (crc << 1) ^ 0x1021,
        })
    })
}

impl fmt::Display for Partition {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        Names::new("tidegate", 256, 3)
    }

    fn channel(name: &str) -> Channel {
        name.parse().unwrap()
    }

    #[test]
    fn names_are_as_the_documentation_says() {
        let news = channel("news");
        let p = names().partition(&news);
        assert_eq!(p, Partition(80));
        for (name, is) in [
            (names().meta(p, &news), "tidegate:{80}:meta:news"),
            (names().log(p, &news), "tidegate:{80}:log:news"),
            (names().idempotency(p, &news, &"a/b".parse().unwrap()), "tidegate:{80}:idem:news/a/b"),
            (names().names(p), "tidegate:{80}:names"),
            (names().state(p), "tidegate:{80}:state"),
            (names().live(p, &news), "tidegate:{80}:live:3:news"),
            (names().probe(p, "n1"), "tidegate:{80}:probe:3:n1"),
            (names().format(), "tidegate:{0}:format"),
            (names().control(), "tidegate:{0}:control"),
        ] {
            assert_eq!(name, is);
        }
    }

    #[test]
    fn slots_are_those_of_a_cluster() {
        // By CLUSTER KEYSLOT.
        assert_eq!(crc16(b"123456789"), 0x31c3);
        assert_eq!(names().slot(Partition(0)), 13907);
        let slots: std::collections::HashSet<_> = (0..256).map(|p| names().slot(Partition(p))).collect();
        assert!(slots.len() > 250, "{}", slots.len());
    }

    #[test]
    fn a_live_channel_is_read_back_and_no_other() {
        for name in ["news", "a:b:c", "0:live:3:x", "~@-"] {
            let channel = channel(name);
            let live = names().live(names().partition(&channel), &channel);
            assert_eq!(names().channel_of_live(&live), Some(channel));
        }
        for foreign in [
            "tidegate:{80}:live:0:news",
            "tidegate:{81}:live:3:news",
            "tidegate:{80}:live:3:",
            "tidegate:{80}:probe:3:news",
            "other:{80}:live:3:news",
            "news",
            "",
        ] {
            assert_eq!(names().channel_of_live(foreign.as_bytes()), None, "{foreign}");
        }
    }
}

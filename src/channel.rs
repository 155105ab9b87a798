//! Channel names: the only way in is [`Channel::from_str`], so a `Channel` is always well formed.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    hash::{BuildHasher, BuildHasherDefault, Hash, Hasher, RandomState},
    str::FromStr,
    sync::{Arc, LazyLock},
};

/// The longest channel name, in bytes.
pub const MAX_LEN: usize = 200;

/// The namespace of names without a colon.
pub const DEFAULT_NAMESPACE: &str = "default";

/// A channel's name: 1 to 200 bytes of `A-Z a-z 0-9 _ . : ~ @ -`, not of dots alone
/// (`.` and `..` are eaten by URL normalisation).
///
/// It carries its hash: a request looks its channel up half a dozen times, and hashing what a client has named needs a
/// hash that nobody can aim at, which is slow.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Channel {
    name: Arc<str>,
    hash: u64,
}

/// A map by channel.
pub type ChannelMap<V> = HashMap<Channel, V, BuildHasherDefault<OwnHash>>;

/// A set of channels.
pub type ChannelSet = HashSet<Channel, BuildHasherDefault<OwnHash>>;

/// Takes the hash that a [`Channel`] carries.
#[derive(Debug, Default)]
pub struct OwnHash(u64);

/// Keyed at random, as long as the process lives.
static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

/// Why a text is no channel name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ChannelError {
    /// No byte at all.
    #[error("a channel name has at least one byte")]
    Empty,
    /// More than [`MAX_LEN`] bytes.
    #[error("a channel name has at most {MAX_LEN} bytes, this one has {0}")]
    TooLong(usize),
    /// A byte outside the alphabet, and where it stands.
    #[error("byte {position} of the channel name is not one of A-Z a-z 0-9 _ . : ~ @ -")]
    BadByte {
        /// Counted from 0.
        position: usize,
    },
    /// `.`, `..` and so on.
    #[error("a channel name of dots alone is refused, since URLs swallow it")]
    DotsOnly,
}

impl ChannelError {
    /// The byte at which the name goes wrong, from 0, where there is one.
    #[must_use]
    pub fn position(&self) -> Option<usize> {
        match self {
            Self::BadByte { position } => Some(*position),
            Self::TooLong(_) => Some(MAX_LEN),
            Self::DotsOnly | Self::Empty => Some(0),
        }
    }
}

impl Channel {
    /// The name as text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.name
    }

    /// Which of so many shards it belongs to.
    #[must_use]
    pub fn shard(&self, shards: usize) -> usize {
        // By other bits than a map takes, or each shard's map would be crowded.
        (self.hash >> 32) as usize % shards
    }

    /// What stands before the first colon; [`DEFAULT_NAMESPACE`] where there is none.
    #[must_use]
    pub fn namespace(&self) -> &str {
        namespace_of(&self.name).unwrap_or(DEFAULT_NAMESPACE)
    }
}

/// What stands before the first colon of a channel's name, if it has one.
#[must_use]
pub fn namespace_of(name: &str) -> Option<&str> {
    name.bytes().position(|byte| byte == b':').map(|colon| &name[..colon])
}

/// Whether a name may have this byte.
pub fn is_fine(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"_.:~@-".contains(&byte)
}

impl FromStr for Channel {
    type Err = ChannelError;

    fn from_str(text: &str) -> Result<Self, ChannelError> {
        if text.is_empty() {
            return Err(ChannelError::Empty);
        }
        if let Some(position) = text.bytes().position(|b| !is_fine(b)) {
            return Err(ChannelError::BadByte { position });
        }
        if text.len() > MAX_LEN {
            return Err(ChannelError::TooLong(text.len()));
        }
        if text.bytes().all(|b| b == b'.') {
            return Err(ChannelError::DotsOnly);
        }
        Ok(Self { name: text.into(), hash: HASHER.hash_one(text) })
    }
}

impl Hash for Channel {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
    }
}

impl Hasher for OwnHash {
    fn write(&mut self, bytes: &[u8]) {
        // Not by a channel.
        bytes.iter().for_each(|byte| self.0 = self.0.rotate_left(8) ^ u64::from(*byte));
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

impl fmt::Display for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_alphabet_are_channels_and_know_their_namespace() {
        for (name, namespace) in [
            ("a", "default"),
            ("orders:42", "orders"),
            ("orders:eu:42", "orders"),
            (":x", ""),
            ("a.b~c@d-e_F", "default"),
            ("..a", "default"),
        ] {
            let channel: Channel = name.parse().unwrap();
            assert_eq!((channel.as_str(), channel.namespace()), (name, namespace));
        }
        assert!("x".repeat(MAX_LEN).parse::<Channel>().is_ok());
    }

    #[test]
    fn what_is_no_name_is_refused_with_its_byte() {
        let refused = |name: &str| name.parse::<Channel>().unwrap_err();
        assert_eq!(refused(""), ChannelError::Empty);
        assert_eq!(refused("a b"), ChannelError::BadByte { position: 1 });
        assert_eq!(refused("ab\u{e9}"), ChannelError::BadByte { position: 2 });
        assert_eq!(refused("a\r\nb").position(), Some(1));
        assert_eq!(refused(&"x".repeat(201)), ChannelError::TooLong(201));
        for dots in [".", "..", "...."] {
            assert_eq!(refused(dots), ChannelError::DotsOnly);
        }
    }
}

//! What the gateway asks of a broker, whichever it is: publish, listen, read, list. Knows neither
//! subscribers nor bytes on a wire; what it was told to listen to comes back as [`BrokerEvent`]s.

mod idempotency;
pub mod memory;
pub mod redis;

use std::sync::Arc;

use crate::{
    channel::Channel,
    config::History,
    gap::Gap,
    position::{Position, Since},
    publication::{Draft, Publication, Receipt},
    resume::Start,
};

/// A handle on the one broker of this process; clones cheaply.
///
/// What goes over a link is boxed where messages pass: its futures are large, and who uses the memory broker would
/// move as much memory about for each message.
#[derive(Clone, Debug)]
pub enum Broker {
    /// One node, no Redis: the embedded default.
    Memory(memory::Memory),
    /// Many nodes over Redis or Valkey.
    Redis(redis::Redis),
}

/// What comes back for a channel that is listened to: each message follows on the one before it, or a gap
/// stands between them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerEvent {
    /// A message was accepted, here or elsewhere.
    Published {
        /// The message.
        publication: Arc<Publication>,
        /// The oldest offset that the history keeps after it; the next one where it keeps none.
        floor: u64,
    },
    /// Here messages are missing, or may be: what follows continues at the gap's end.
    Gap {
        /// Where.
        channel: Channel,
        /// From where a subscriber stood who had heard everything.
        gap: Gap,
    },
    /// Another node was told to end connections.
    Disconnect {
        /// Which.
        target: Target,
        /// Those that were there before this moment, in ms since 1970 by the broker's clock.
        before: u64,
    },
}

/// Whose connections end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Of the token's subject.
    Subject(String),
    /// The one with this id.
    Connection(String),
    /// All that listen to this channel.
    Channel(Channel),
}

impl Target {
    /// The kind and the name, as they travel between nodes.
    #[must_use]
    pub fn parts(&self) -> (&'static str, &str) {
        match self {
            Self::Subject(name) => ("subject", name),
            Self::Connection(id) => ("connection", id),
            Self::Channel(channel) => ("channel", channel.as_str()),
        }
    }

    /// What [`Target::parts`] took apart; `None` for what a later release may say.
    #[must_use]
    pub fn from_parts(kind: &str, name: &str) -> Option<Self> {
        match kind {
            "subject" => Some(Self::Subject(name.to_owned())),
            "connection" => Some(Self::Connection(name.to_owned())),
            "channel" => name.parse().ok().map(Self::Channel),
            _ => None,
        }
    }
}

/// Why a broker did not do what it was asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BrokerError {
    /// It is away; nothing was stored.
    #[error("the broker is away")]
    Unavailable,
    /// Its answer was lost; the message may be stored.
    #[error("the broker's answer was lost")]
    Uncertain,
    /// The idempotency key was used for another kind, event or payload.
    #[error("the idempotency key was used for another message")]
    KeyReused,
}

/// How much of a history to hand out at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Page {
    /// At most so many messages.
    pub messages: usize,
    /// At most so many bytes of payloads and events; the first message comes whatever its size.
    pub bytes: usize,
}

impl Page {
    /// The first of `messages` that fit, at least one; and whether more follow.
    fn cut<'a>(
        self,
        messages: impl ExactSizeIterator<Item = &'a Arc<Publication>>,
    ) -> (Vec<Arc<Publication>>, bool) {
        let all = messages.len();
        let mut left = self.bytes;
        let mut taken = Vec::new();
        for message in messages.take(self.messages.max(1)) {
            match left.checked_sub(message.size()) {
                Some(rest) => left = rest,
                None if taken.is_empty() => left = 0,
                None => break,
            }
            taken.push(Arc::clone(message));
        }
        let more = taken.len() < all;
        (taken, more)
    }
}

/// A piece of a channel's history, taken at one moment between two publishes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// Where it starts, and what is missing before it.
    pub start: Start,
    /// The messages after `start.after`, the oldest first.
    pub messages: Vec<Arc<Publication>>,
    /// Further messages are kept after these.
    pub more: bool,
    /// The channel's newest position.
    pub top: Position,
}

/// What is known of a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Info {
    /// The newest position.
    pub position: Position,
    /// Messages kept.
    pub messages: u64,
}

/// A page of the sorted list of channels that keep a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channels {
    /// The names, sorted by bytes.
    pub names: Vec<Channel>,
    /// Further names follow the last of these.
    pub more: bool,
}

impl Broker {
    /// Stores `draft` as the channel's next message. A message larger than `history.bytes` is delivered
    /// and counted, but not kept.
    ///
    /// # Errors
    /// [`BrokerError::KeyReused`], or that the broker is away or may be.
    pub async fn publish(
        &self,
        channel: &Channel,
        history: &History,
        draft: Draft,
    ) -> Result<Receipt, BrokerError> {
        match self {
            Self::Memory(memory) => memory.publish(channel, history, draft).await,
            Self::Redis(redis) => Box::pin(redis.publish(channel, history, draft)).await,
        }
    }

    /// From now on the channel's messages come as events. Gives the position after which they do.
    /// Listening twice is listening once; of the channel itself nothing is created.
    ///
    /// # Errors
    /// The broker is away.
    pub async fn listen(&self, channel: &Channel) -> Result<Position, BrokerError> {
        match self {
            Self::Memory(memory) => Ok(memory.listen(channel)),
            Self::Redis(redis) => Box::pin(redis.listen(channel)).await,
        }
    }

    /// Ends what [`Broker::listen`] began.
    pub fn unlisten(&self, channel: &Channel) {
        match self {
            Self::Memory(memory) => memory.unlisten(channel),
            Self::Redis(redis) => redis.unlisten(channel),
        }
    }

    /// What is kept from `since` on, at one moment: what is published later has a higher offset than
    /// `top`. At least one message, however large, where there is one.
    ///
    /// # Errors
    /// The broker is away.
    pub async fn read(
        &self,
        channel: &Channel,
        history: &History,
        since: &Since,
        page: Page,
    ) -> Result<Replay, BrokerError> {
        match self {
            Self::Memory(memory) => Ok(memory.read(channel, history, since, page)),
            Self::Redis(redis) => Box::pin(redis.read(channel, history, since, page)).await,
        }
    }

    /// The same, and never behind: whoever was told that a message is stored finds it here, at any node.
    /// (Who listens may be answered by [`Broker::read`] with less: the rest is on its way to him.)
    ///
    /// # Errors
    /// The broker is away.
    pub async fn kept(
        &self,
        channel: &Channel,
        history: &History,
        since: &Since,
        page: Page,
    ) -> Result<Replay, BrokerError> {
        match self {
            Self::Memory(memory) => Ok(memory.read(channel, history, since, page)),
            Self::Redis(redis) => Box::pin(redis.kept(channel, history, since, page)).await,
        }
    }

    /// The newest position and the number of messages kept.
    ///
    /// # Errors
    /// The broker is away.
    pub async fn info(&self, channel: &Channel, history: &History) -> Result<Info, BrokerError> {
        match self {
            Self::Memory(memory) => Ok(memory.info(channel, history)),
            Self::Redis(redis) => redis.info(channel, history).await,
        }
    }

    /// Channels that keep a message, begin with `prefix` and sort after `after`; at most `limit`.
    ///
    /// # Errors
    /// The broker is away.
    pub async fn channels(
        &self,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Channels, BrokerError> {
        match self {
            Self::Memory(memory) => Ok(memory.channels(prefix, after, limit)),
            Self::Redis(redis) => redis.channels(prefix, after, limit).await,
        }
    }

    /// Removes the channel's messages. Offsets go on; who comes back from before is told by a gap.
    ///
    /// # Errors
    /// The broker is away.
    pub async fn forget(&self, channel: &Channel) -> Result<(), BrokerError> {
        match self {
            Self::Memory(memory) => {
                memory.forget(channel);
                Ok(())
            }
            Self::Redis(redis) => redis.forget(channel).await,
        }
    }

    /// Tells the other nodes to end connections.
    ///
    /// # Errors
    /// The broker is away.
    pub async fn disconnect(&self, target: &Target) -> Result<(), BrokerError> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Redis(redis) => redis.disconnect(target).await,
        }
    }

    /// Tells how many listen here; 0 takes a figure back. Figures that are not renewed are forgotten.
    ///
    /// # Errors
    /// The broker is away.
    pub async fn report(&self, counts: &[(Channel, usize)]) -> Result<(), BrokerError> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Redis(redis) => redis.report(counts).await,
        }
    }

    /// How many listen at other nodes, and the age of the oldest of their figures in ms.
    ///
    /// # Errors
    /// The broker is away.
    pub async fn counted(&self, channel: &Channel) -> Result<(usize, u64), BrokerError> {
        match self {
            Self::Memory(_) => Ok((0, 0)),
            Self::Redis(redis) => redis.counted(channel).await,
        }
    }

    /// Whether it is up, or was.
    ///
    /// # Errors
    /// Why not, in a sentence.
    pub fn state(&self) -> Result<(), String> {
        match self {
            Self::Memory(_) => Ok(()),
            Self::Redis(redis) => redis.state(),
        }
    }

    /// Drops what has outlived its time. To be called about once a second.
    pub async fn sweep(&self) {
        match self {
            Self::Memory(memory) => memory.sweep().await,
            Self::Redis(redis) => redis.sweep().await,
        }
    }

    /// The broker's clock: milliseconds since 1970.
    #[must_use]
    pub fn now(&self) -> u64 {
        match self {
            Self::Memory(memory) => memory.now(),
            Self::Redis(redis) => redis.now(),
        }
    }
}

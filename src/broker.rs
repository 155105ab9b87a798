//! What the gateway asks of a broker, whichever it is: publish, listen, read, list. Knows neither
//! subscribers nor bytes on a wire; what it was told to listen to comes back as [`BrokerEvent`]s.

pub mod memory;

use std::sync::Arc;

use crate::{
    channel::Channel,
    config::History,
    position::{Position, Since},
    publication::{Draft, Publication, Receipt},
    resume::Start,
};

/// A handle on the one broker of this process; clones cheaply.
#[derive(Clone, Debug)]
pub enum Broker {
    /// One node, no Redis: the embedded default.
    Memory(memory::Memory),
}

/// What comes back for a channel that is listened to. For one channel, in the order of offsets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum BrokerEvent {
    /// A message was accepted, here or elsewhere.
    Published {
        /// The message.
        publication: Arc<Publication>,
        /// The oldest offset that the history keeps after it; the next one where it keeps none.
        floor: u64,
    },
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
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Page {
    /// At most so many messages.
    pub messages: usize,
    /// At most so many bytes of payloads and events; the first message comes whatever its size.
    pub bytes: usize,
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
        }
    }

    /// Ends what [`Broker::listen`] began.
    pub fn unlisten(&self, channel: &Channel) {
        match self {
            Self::Memory(memory) => memory.unlisten(channel),
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
        }
    }

    /// The newest position and the number of messages kept.
    ///
    /// # Errors
    /// The broker is away.
    pub async fn info(&self, channel: &Channel, history: &History) -> Result<Info, BrokerError> {
        match self {
            Self::Memory(memory) => Ok(memory.info(channel, history)),
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
        }
    }

    /// Drops what has outlived its time. To be called about once a second.
    pub async fn sweep(&self) {
        match self {
            Self::Memory(memory) => memory.sweep().await,
        }
    }

    /// The broker's clock: milliseconds since 1970.
    #[must_use]
    pub fn now(&self) -> u64 {
        match self {
            Self::Memory(memory) => memory.now(),
        }
    }
}

//! What a subscriber missed, and why: the words of a `gap`, and of how a subscription was recovered.

use crate::position::Position;

/// Why messages are missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GapReason {
    /// The history no longer holds them: count, bytes or age.
    Trimmed,
    /// The channel was empty then, so long ago that the broker cannot vouch for it.
    Expired,
    /// A `DELETE` removed them.
    Deleted,
    /// The broker's primary changed and did not have them.
    Failover,
    /// The position is of another life of the channel.
    Reset,
    /// The link to the broker was away, and what passed meanwhile cannot be read back.
    Link,
}

impl GapReason {
    /// Every reason.
    pub const ALL: &'static [GapReason] =
        &[Self::Trimmed, Self::Expired, Self::Deleted, Self::Failover, Self::Reset, Self::Link];

    /// The reason as it stands on the wire and in the metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Trimmed => "trimmed",
            Self::Expired => "expired",
            Self::Deleted => "deleted",
            Self::Failover => "failover",
            Self::Reset => "reset",
            Self::Link => "link",
        }
    }
}

/// Messages that a subscriber will not get.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Gap {
    /// Why they are missing.
    pub reason: GapReason,
    /// The position as given, or the last certain one.
    pub from: Position,
    /// All after it is certain, and follows.
    pub to: Position,
}

/// What became of the position that a subscription was to start from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Recovery {
    /// None was given: it starts with what is published from now on.
    None,
    /// All after it follows.
    Complete,
    /// Some after it is missing; a [`Gap`] says what.
    Gap,
}

impl Recovery {
    /// The word as it stands on the wire and in the metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "none",
            Self::Complete => "complete",
            Self::Gap => "gap",
        }
    }
}

//! What an idempotency key stands for, in every broker.

use sha2::{Digest as _, Sha256};

use crate::publication::{Draft, Kind};

/// How long a key is remembered: 5 minutes (wire.md), in milliseconds.
pub(super) const LIFE: u64 = 5 * 60 * 1000;

/// What a draft says, collision-safe, in 32 bytes: a payload itself would be held long after the history
/// let it go.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Digest(pub(super) [u8; 32]);

impl Digest {
    /// Of kind, event and payload.
    pub(super) fn of(draft: &Draft) -> Self {
        let kind = match draft.payload.kind() {
            Kind::Json => 0,
            Kind::Text => 1,
            Kind::Bytes => 2,
        };
        let event = draft.event.as_ref().map_or("", |event| event.as_str());
        // An event name has at most 64 bytes and is never empty: its length tells where it ends.
        let hash = Sha256::new()
            .chain_update([kind, event.len() as u8])
            .chain_update(event)
            .chain_update(draft.payload.bytes());
        Self(hash.finalize().into())
    }
}

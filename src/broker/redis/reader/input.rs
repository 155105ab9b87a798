//! What the reader is told, and what it is asked for.

use std::sync::Arc;

use super::super::{
    Listened,
    functions::Read,
    server::Server,
    subscriber::{Push, SubscriberHandle},
    topology::Topology,
    track::{Seen, Ticket},
};

/// What the reader is told.
pub(in super::super) enum Input {
    /// A pub/sub link is up.
    Up(Server, SubscriberHandle),
    /// It is gone.
    Down(Server),
    /// It brought this, in order.
    Pushes(Server, Vec<Push>),
    /// Who owns which partition.
    Topology(Arc<Topology>),
    /// The state of this server may have changed without a word on the links: compare.
    Compare(Server),
    /// The tops of channels of one partition.
    Tops(Vec<(Arc<Listened>, Ticket, Seen)>),
    /// What was read for a channel.
    Read(Arc<Listened>, Ticket, Box<Read>),
}

/// What sessions ask for.
pub(in super::super) enum Wish {
    /// Somebody listens.
    Listen(Arc<Listened>),
    /// Nobody does any more.
    Idle(Arc<Listened>),
}

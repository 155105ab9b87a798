//! Server-Sent Events (WHATWG HTML, section 9.2).

use std::sync::Arc;

use bytes::Bytes;
use futures_util::future::join_all;

use crate::{
    disconnect::Disconnect,
    gateway::Info,
    hub::Style,
    position::Position,
    session::{CatchUp, Session},
    transport::{Done, Work, goodbye},
    wire::{self, Framing, sse},
};

/// A browser that loses the stream comes back after this many milliseconds, each after its own.
fn retry_after() -> u64 {
    fastrand::u64(1500..=2500)
}

/// The first bytes of a stream: the delay for a reconnect, and where each channel starts; the last of them
/// carries the cursor, so that a client that never saw a message resumes too.
pub fn open(session: &Session, channels: &[CatchUp]) {
    let framing = session.outbox().style().framing;
    session.outbox().send(sse::retry(retry_after(), framing), session.metrics());
    for (index, channel) in channels.iter().enumerate() {
        channel.announce(None, index + 1 == channels.len());
    }
}

/// A comment.
pub fn heartbeat(session: &Session) {
    let framing = session.outbox().style().framing;
    session.outbox().send(sse::comment(framing), session.metrics());
}

/// The work of a heartbeat with a fresh `id:`, where a channel has no message so far: the broker says of
/// this second that it still is empty. All are asked at once: a broker that is far away costs one way there
/// and back, not one for each channel.
pub(super) fn renewal(session: &Session) -> Option<Work> {
    let outbox = Arc::clone(session.outbox());
    let unused = session.subscriptions().iter().filter(|s| outbox.is_unused(s.slot()));
    let unused: Vec<_> = unused.map(|s| (s.slot(), s.channel().clone())).collect();
    if unused.is_empty() {
        return None;
    }
    let gateway = session.gateway().clone();
    Some(Box::pin(async move {
        let questions = unused.iter().map(|(_, channel)| gateway.info(channel));
        for ((slot, _), answer) in unused.iter().zip(join_all(questions).await) {
            if let Ok(Info { position: Position::Empty(second), .. }) = answer {
                outbox.still_empty(*slot, second);
            }
        }
        let framing = outbox.style().framing;
        outbox.send(sse::heartbeat_with_id(&outbox.cursor(), framing), gateway.metrics());
        Ok(Done::Nothing)
    }))
}

/// Why it ends, when to come back, and the end of the body.
#[must_use]
pub fn farewell(reason: Disconnect, style: Style) -> Vec<Bytes> {
    let mut last = Vec::new();
    if reason.says_goodbye() {
        let after = reason.reconnect_after();
        last.extend(goodbye(reason, after, style));
        let delay = after.map_or_else(retry_after, |d| d.as_millis() as u64);
        last.push(sse::retry(delay, style.framing));
    }
    if style.framing == Framing::Chunked {
        last.push(wire::LAST_CHUNK);
    }
    last
}

/// The whole body for a client that cannot be served now. A browser's EventSource never comes back after
/// any status but 200, so this is what it gets.
#[must_use]
pub fn come_back_later() -> Bytes {
    sse::retry(retry_after(), Framing::Plain)
}

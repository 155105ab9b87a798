//! Server-Sent Events (WHATWG HTML, section 9.2).

use bytes::Bytes;

use crate::{
    disconnect::Disconnect,
    hub::Style,
    session::{CatchUp, Session},
    transport::goodbye,
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

/// A comment; with a fresh `id:` where a channel was empty so far. That says "empty then" of a moment some
/// seconds ago: what was published since may still be on its way here.
pub fn heartbeat(session: &Session) {
    const ON_ITS_WAY: u64 = 5;
    let (outbox, framing) = (session.outbox(), session.outbox().style().framing);
    let second = session.gateway().now_seconds().saturating_sub(ON_ITS_WAY);
    let bytes = match outbox.refresh_empty(second) {
        true => sse::heartbeat_with_id(&outbox.cursor(), framing),
        false => sse::comment(framing),
    };
    outbox.send(bytes, session.metrics());
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

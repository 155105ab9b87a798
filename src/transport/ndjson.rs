//! NDJSON: one JSON object a line.

use bytes::Bytes;

use crate::{
    disconnect::Disconnect,
    hub::Style,
    session::{CatchUp, Session},
    transport::goodbye,
    wire::{self, Framing, Object},
};

/// Where each channel starts.
pub fn open(channels: &[CatchUp]) {
    channels.iter().for_each(|channel| channel.announce(None, false));
}

/// A line that shows the stream lives; unsaid in raw format, as all control objects are.
pub fn heartbeat(session: &Session) {
    let time = session.gateway().now();
    session.outbox().say(&Object::Heartbeat { time }, false, session.metrics());
}

/// Why it ends, and the end of the body.
#[must_use]
pub fn farewell(reason: Disconnect, style: Style) -> Vec<Bytes> {
    let mut last = Vec::new();
    if reason.says_goodbye() {
        last.extend(goodbye(reason, reason.reconnect_after(), style));
    }
    if style.framing == Framing::Chunked {
        last.push(wire::LAST_CHUNK);
    }
    last
}

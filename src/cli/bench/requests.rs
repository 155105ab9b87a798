//! What is asked of the server: the one file that knows its paths, so that another server needs no other change.

use super::{
    plan::{Endpoint, Plan},
    way::Way,
};
use crate::transport_name::Transport;

/// Any 16 bytes will do for a handshake between two parties that know each other.
const WEBSOCKET_KEY: &str = "dGlkZWdhdGUtYmVuY2ghIQ==";
/// Seconds that a poll may be held: the longest that the server allows.
const HOLD: u32 = 55;

/// Opens a stream.
pub fn subscribe(plan: &Plan, channel: u32) -> Vec<u8> {
    let target = format!("/v1/subscribe?channel={}", plan.channel_name(channel));
    let headers = match plan.way {
        Way::Gateway(Transport::WebSocket) => format!(
            "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {WEBSOCKET_KEY}\r\n"
        ),
        Way::Gateway(Transport::Sse) => "Accept: text/event-stream\r\n".to_owned(),
        Way::Gateway(Transport::Ndjson) => "Accept: application/x-ndjson\r\n".to_owned(),
        Way::Gateway(Transport::Poll) | Way::Echo => String::new(),
    };
    get(&plan.public, &target, &headers)
}

/// Asks for what comes after a cursor and waits for it; without a cursor, asks at once for the present one.
pub fn poll(plan: &Plan, channel: u32, cursor: &str) -> Vec<u8> {
    let wait = if cursor.is_empty() { 0 } else { HOLD };
    let target = format!("/v1/subscribe?channel={}&since={cursor}&wait={wait}", plan.channel_name(channel));
    get(&plan.public, &target, "Accept: application/json\r\n")
}

/// Asks the floor to say it back.
pub fn echo(plan: &Plan, payload: &str) -> Vec<u8> {
    get(&plan.public, &format!("/v1/subscribe?data={payload}"), "Accept: application/json\r\n")
}

/// Publishes a text.
pub fn publish(plan: &Plan, channel: u32, payload: &str) -> Vec<u8> {
    let (host, channel, length) = (&plan.internal.authority, plan.channel_name(channel), payload.len());
    format!(
        "POST /v1/channels/{channel}/messages HTTP/1.1\r\nHost: {host}\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\n\r\n{payload}"
    )
    .into_bytes()
}

fn get(endpoint: &Endpoint, target: &str, headers: &str) -> Vec<u8> {
    format!("GET {target} HTTP/1.1\r\nHost: {}\r\n{headers}\r\n", endpoint.authority).into_bytes()
}

//! What is asked of the server: the one file that knows the gateway's paths. Another server's come as templates.

use super::{
    plan::{Endpoint, Plan},
    template::Blanks,
    way::Way,
};
use crate::transport_name::Transport;

/// How this gateway is subscribed to.
pub const SUBSCRIBE: &str = "GET /v1/subscribe?channel={channel}";
/// How this gateway is published to: as text.
pub const PUBLISH: &str = "POST /v1/channels/{channel}/messages\nContent-Type: text/plain\n\n{payload}";

/// Any 16 bytes will do for a handshake between two parties that know each other.
const WEBSOCKET_KEY: &str = "dGlkZWdhdGUtYmVuY2ghIQ==";
/// Seconds that a poll may be held: the longest that the server allows.
const HOLD: u32 = 55;

/// Opens a stream; and what is then said on a WebSocket, in lines.
pub fn subscribe(plan: &Plan, channel: u32) -> (Vec<u8>, String) {
    let headers: &[_] = match plan.way {
        Way::Gateway(Transport::WebSocket) => &[
            ("Connection", "Upgrade"),
            ("Upgrade", "websocket"),
            ("Sec-WebSocket-Version", "13"),
            ("Sec-WebSocket-Key", WEBSOCKET_KEY),
        ],
        Way::Gateway(Transport::Sse) => &[("Accept", "text/event-stream")],
        Way::Gateway(Transport::Ndjson) => &[("Accept", "application/x-ndjson")],
        Way::Gateway(Transport::Poll) | Way::Echo => &[],
    };
    let headers: Vec<_> = headers.iter().copied().chain(plan.public.authorization()).collect();
    let blanks = Blanks { channel: &plan.channel_name(channel), payload: "" };
    plan.subscribe.apart(blanks, &plan.public.authority, &headers)
}

/// Asks for what comes after a cursor and waits for it; without a cursor, asks at once for the present one.
pub fn poll(plan: &Plan, channel: u32, cursor: &str) -> Vec<u8> {
    let wait = if cursor.is_empty() { 0 } else { HOLD };
    let target = format!("/v1/subscribe?channel={}&since={cursor}&wait={wait}", plan.channel_name(channel));
    get(&plan.public, &target)
}

/// Asks the floor to say it back.
pub fn echo(plan: &Plan, payload: &str) -> Vec<u8> {
    get(&plan.public, &format!("/v1/subscribe?data={payload}"))
}

/// Publishes.
pub fn publish(plan: &Plan, channel: u32, payload: &str) -> Vec<u8> {
    let blanks = Blanks { channel: &plan.channel_name(channel), payload };
    plan.publish.request(blanks, &plan.internal.authority, plan.internal.authorization().as_slice())
}

fn get(endpoint: &Endpoint, target: &str) -> Vec<u8> {
    let host = &endpoint.authority;
    let more: String =
        endpoint.authorization().iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
    format!("GET {target} HTTP/1.1\r\nHost: {host}\r\nAccept: application/json\r\n{more}\r\n").into_bytes()
}

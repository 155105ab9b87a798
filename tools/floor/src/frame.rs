//! The frames that the floor sends: as long as the gateway's, so that the kernel copies as much.

/// How a subscriber is written to.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Transport {
    /// Text frames.
    WebSocket,
    /// Events in HTTP chunks.
    Sse,
    /// Lines in HTTP chunks.
    Ndjson,
}

/// One message, encoded once for all subscribers of a transport. The payload must need no escapes in JSON.
pub fn encode(transport: Transport, channel: &str, offset: u64, payload: &str) -> Vec<u8> {
    let object = format!(
        r#"{{"type":"message","channel":"{channel}","id":"floor0-{offset}","time":1790000000123,"data":"{payload}"}}"#
    );
    match transport {
        Transport::WebSocket => text_frame(object.as_bytes()),
        Transport::Sse => chunk(&format!("id: floor0-{offset}\ndata: {object}\n\n")),
        Transport::Ndjson => chunk(&format!("{object}\n")),
    }
}

fn chunk(data: &str) -> Vec<u8> {
    format!("{:x}\r\n{data}\r\n", data.len()).into_bytes()
}

/// An unmasked text frame, RFC 6455 section 5.2.
fn text_frame(payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![0x81];
    match payload.len() {
        length @ 0..=125 => frame.push(length as u8),
        length @ 126..=0xffff => {
            frame.push(126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(payload);
    frame
}

//! WebSocket frames that the server sends (RFC 6455); what the client sends is read by [`Reader`].

mod reader;
#[cfg(test)]
mod tests;

use base64::{
    Engine,
    alphabet::STANDARD,
    engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig},
};
use bytes::Bytes;
use tungstenite::{
    handshake::derive_accept_key,
    protocol::frame::{
        FrameHeader,
        coding::{Control, Data, OpCode},
    },
};

pub use self::reader::{Incoming, Reader};
use super::{Object, head::Headed, json, object};
use crate::publication::{Kind, Publication};

/// What a control frame may carry (RFC 6455 section 5.5).
const MAX_CONTROL: usize = 125;

const TEXT: OpCode = OpCode::Data(Data::Text);

/// The key that RFC 6455 itself shows in its section 4.1 has bits behind its last byte.
const LENIENT: GeneralPurpose =
    GeneralPurpose::new(&STANDARD, GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true));

/// The `Sec-WebSocket-Accept` for a `Sec-WebSocket-Key`; `None` where the key is not 16 bytes in base64.
#[must_use]
pub fn accept_key(key: &str) -> Option<String> {
    let nonce = LENIENT.decode(key).ok()?;
    (nonce.len() == 16).then(|| derive_accept_key(key.as_bytes()))
}

/// A ping without payload.
#[must_use]
pub fn ping() -> Bytes {
    Bytes::from_static(&[0x89, 0])
}

/// The answer to a ping, with what the ping carried.
#[must_use]
pub fn pong(payload: &[u8]) -> Bytes {
    let payload = &payload[..payload.len().min(MAX_CONTROL)];
    frame(OpCode::Control(Control::Pong), payload.len(), |out| out.extend_from_slice(payload))
}

/// A close frame; a reason that does not fit is cut between two characters.
#[must_use]
pub fn close_frame(code: u16, reason: &str) -> Bytes {
    let reason = &reason[..reason.floor_char_boundary(MAX_CONTROL - 2)];
    frame(OpCode::Control(Control::Close), 2 + reason.len(), |out| {
        out.extend_from_slice(&code.to_be_bytes());
        out.extend_from_slice(reason.as_bytes());
    })
}

/// A close frame that says nothing, in answer to one.
#[must_use]
pub fn empty_close_frame() -> Bytes {
    Bytes::from_static(&[0x88, 0])
}

/// A message: the object as text, or the payload alone.
pub(super) fn message(publication: &Publication, raw: bool) -> Bytes {
    if !raw {
        let size = json::size_hint(publication);
        return frame(TEXT, size, |out| json::message(out, publication));
    }
    let payload = publication.payload.bytes();
    let opcode = match publication.payload.kind() {
        Kind::Json | Kind::Text => TEXT,
        Kind::Bytes => OpCode::Data(Data::Binary),
    };
    frame(opcode, payload.len(), |out| out.extend_from_slice(payload))
}

/// A control object as text.
pub(super) fn object(object: &Object<'_>) -> Bytes {
    frame(TEXT, object::SIZE_HINT, |out| object.write(out))
}

/// One whole frame, not masked, with what `write` appends.
fn frame(opcode: OpCode, size: usize, write: impl FnOnce(&mut Vec<u8>)) -> Bytes {
    let content = Headed::new(size, write);
    let header = FrameHeader { opcode, ..FrameHeader::default() };
    let mut head = Vec::with_capacity(10);
    // Memory takes every byte.
    let _ = header.format(content.len() as u64, &mut head);
    content.finish(&head, b"")
}

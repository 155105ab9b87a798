//! Reads the frames of a client (RFC 6455 section 5), however the bytes arrive.

use std::io::Cursor;

use bytes::Bytes;
use tungstenite::protocol::frame::{
    FrameHeader,
    coding::{Control, Data, OpCode},
};

use super::MAX_CONTROL;
use crate::disconnect::Disconnect;

/// The longest head: two bytes, eight of length, four of mask.
const MAX_HEAD: usize = 14;

/// What a client sent: a whole message, or a control frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Incoming {
    /// A text message.
    Text(String),
    /// A binary message.
    Binary(Bytes),
    /// A ping, to be answered with the same payload.
    Ping(Bytes),
    /// A pong, asked for or not.
    Pong,
    /// The client closes, with a code and a reason if it gave them.
    Close(Option<(u16, String)>),
}

/// Cuts what a socket gives into messages. One word while nothing is under way; otherwise it holds the bytes
/// that arrived of one message, one control frame and one head, and never room for bytes only declared.
#[derive(Debug, Default)]
pub struct Reader(Option<Box<Partial>>);

/// What is under way.
#[derive(Debug, Default)]
struct Partial {
    /// The beginning of a head: its first `head_len` bytes.
    head: [u8; MAX_HEAD],
    head_len: usize,
    frame: Option<Frame>,
    /// A data message and its kind, while its last fragment is not complete.
    message: Option<(Data, Vec<u8>)>,
    /// The payload of a control frame, which may come between the fragments of a message.
    control: Vec<u8>,
}

/// A frame whose head was read and found right.
#[derive(Clone, Copy, Debug)]
struct Frame {
    opcode: OpCode,
    is_final: bool,
    mask: [u8; 4],
    /// How many bytes of the payload are still to come.
    missing: usize,
}

impl Reader {
    /// Takes bytes from the front of `input` until something is complete; `None`: all were taken, and more
    /// are needed. To be called until then. After an error the connection is to be closed.
    ///
    /// # Errors
    /// `ProtocolError`, `BadUtf8`, and `TooBig` as soon as a message declares more than `max_message` bytes,
    /// all its fragments together.
    pub fn read(&mut self, input: &mut &[u8], max_message: usize) -> Result<Option<Incoming>, Disconnect> {
        while !input.is_empty() {
            let partial = self.0.get_or_insert_default();
            let incoming = partial.advance(input, max_message)?;
            if partial.is_empty() {
                self.0 = None;
            }
            if incoming.is_some() {
                return Ok(incoming);
            }
        }
        Ok(None)
    }
}

impl Partial {
    fn is_empty(&self) -> bool {
        self.head_len == 0 && self.frame.is_none() && self.message.is_none()
    }

    /// At most one frame further.
    fn advance(&mut self, input: &mut &[u8], max_message: usize) -> Result<Option<Incoming>, Disconnect> {
        let mut frame = match self.frame.take() {
            Some(frame) => frame,
            None => match self.read_head(input)? {
                Some((header, length)) => self.begin(&header, length, max_message)?,
                None => return Ok(None),
            },
        };
        self.read_payload(&mut frame, input, max_message);
        if frame.missing > 0 {
            self.frame = Some(frame);
            return Ok(None);
        }
        match frame.opcode {
            OpCode::Control(control) => finish_control(control, std::mem::take(&mut self.control)).map(Some),
            OpCode::Data(_) if frame.is_final => self.message.take().map(finish_message).transpose(),
            OpCode::Data(_) => Ok(None),
        }
    }

    /// The head of a frame, once it is complete.
    fn read_head(&mut self, input: &mut &[u8]) -> Result<Option<(FrameHeader, u64)>, Disconnect> {
        let before = self.head_len;
        let taken = input.len().min(MAX_HEAD - before);
        self.head[before..before + taken].copy_from_slice(&input[..taken]);
        let mut cursor = Cursor::new(&self.head[..before + taken]);
        let parsed = FrameHeader::parse(&mut cursor).map_err(|_| Disconnect::ProtocolError)?;
        let Some((header, length)) = parsed else {
            self.head_len += taken;
            *input = &input[taken..];
            return Ok(None);
        };
        let size = cursor.position() as usize;
        self.head_len = 0;
        *input = &input[size - before..];
        // Section 5.2: the length takes as few bytes as it can, and its highest bit is 0.
        if header.len(length) != size || i64::try_from(length).is_err() {
            return Err(Disconnect::ProtocolError);
        }
        Ok(Some((header, length)))
    }

    /// Whether this frame may come now, and whether what it declares has room.
    fn begin(&mut self, header: &FrameHeader, length: u64, max_message: usize) -> Result<Frame, Disconnect> {
        let reserved = header.rsv1 || header.rsv2 || header.rsv3;
        let Some(mask) = header.mask.filter(|_| !reserved) else {
            return Err(Disconnect::ProtocolError);
        };
        let room = match (header.opcode, &self.message) {
            (OpCode::Control(_), _) if header.is_final && length <= MAX_CONTROL as u64 => MAX_CONTROL,
            (OpCode::Data(Data::Continue), Some((_, message))) => max_message.saturating_sub(message.len()),
            (OpCode::Data(kind @ (Data::Text | Data::Binary)), None) => {
                self.message = Some((kind, Vec::new()));
                max_message
            }
            _ => return Err(Disconnect::ProtocolError),
        };
        let missing = usize::try_from(length).ok().filter(|length| *length <= room);
        Ok(Frame {
            opcode: header.opcode,
            is_final: header.is_final,
            mask,
            missing: missing.ok_or(Disconnect::TooBig)?,
        })
    }

    /// Takes what has arrived of the payload, unmasked.
    fn read_payload(&mut self, frame: &mut Frame, input: &mut &[u8], max_message: usize) {
        let (target, limit) = match (frame.opcode, &mut self.message) {
            (OpCode::Data(_), Some((_, message))) => (message, max_message),
            _ => (&mut self.control, MAX_CONTROL),
        };
        let taken = input.len().min(frame.missing);
        grow(target, taken, limit);
        let masked = target.len();
        target.extend_from_slice(&input[..taken]);
        for four in target[masked..].chunks_mut(4) {
            four.iter_mut().zip(frame.mask).for_each(|(byte, mask)| *byte ^= mask);
        }
        frame.mask.rotate_left(taken % 4);
        frame.missing -= taken;
        *input = &input[taken..];
    }
}

/// Makes room for `more` bytes. It doubles, so that many small pieces cost no more than their bytes, but
/// never beyond `limit`, so that a buffer is not twice what a message may have.
fn grow(buffer: &mut Vec<u8>, more: usize, limit: usize) {
    if buffer.capacity() - buffer.len() < more {
        let room = limit.saturating_sub(buffer.len());
        buffer.reserve_exact(buffer.len().min(room).max(more));
    }
}

fn finish_message((kind, message): (Data, Vec<u8>)) -> Result<Incoming, Disconnect> {
    match kind {
        Data::Text => String::from_utf8(message).map(Incoming::Text).map_err(|_| Disconnect::BadUtf8),
        _ => Ok(Incoming::Binary(message.into())),
    }
}

fn finish_control(control: Control, payload: Vec<u8>) -> Result<Incoming, Disconnect> {
    match control {
        Control::Ping => Ok(Incoming::Ping(payload.into())),
        Control::Pong => Ok(Incoming::Pong),
        Control::Close => finish_close(&payload).map(Incoming::Close),
        Control::Reserved(_) => Err(Disconnect::ProtocolError),
    }
}

fn finish_close(payload: &[u8]) -> Result<Option<(u16, String)>, Disconnect> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return match payload {
            [] => Ok(None),
            _ => Err(Disconnect::ProtocolError),
        };
    };
    let code = u16::from_be_bytes(*code);
    // Section 7.4, and IANA's registry for 1012 to 1014; the others are reserved or never sent.
    if !matches!(code, 1000..=1003 | 1007..=1014 | 3000..=4999) {
        return Err(Disconnect::ProtocolError);
    }
    let reason = std::str::from_utf8(reason).map_err(|_| Disconnect::BadUtf8)?;
    Ok(Some((code, reason.to_owned())))
}

#[cfg(test)]
impl Reader {
    /// Whether nothing is under way.
    pub(super) fn is_idle(&self) -> bool {
        self.0.is_none()
    }

    /// The memory taken for what has arrived of a message and a control frame.
    pub(super) fn held(&self) -> usize {
        let held = |partial: &Partial| {
            let message = partial.message.as_ref().map_or(0, |(_, message)| message.capacity());
            message + partial.control.capacity()
        };
        self.0.as_deref().map_or(0, held)
    }
}

//! Takes the framing off a stream cheaply: WebSocket frames, HTTP chunks, or nothing at all.
//!
//! Payloads are handed on in pieces as they come, never collected: `stamp` finds messages across the seams.
//! Pings are answered, since a server may end who does not answer.

/// How the bytes of an accepted connection are framed.
pub enum Framing {
    /// The bytes themselves.
    Plain,
    /// `Transfer-Encoding: chunked`.
    Chunked(Chunks),
    /// Frames of RFC 6455.
    WebSocket(Frames),
}

/// Where a chunked body is.
#[derive(Clone, Copy)]
pub enum Chunks {
    /// In the line with the size, this much of it read; the flag says that an extension has begun.
    Size(usize, bool),
    /// This many bytes of data, and the line end after them.
    Data(usize),
    /// At that line end.
    LineEnd,
}

/// Where a sequence of frames is.
#[derive(Default)]
pub struct Frames {
    /// The header so far, where it was cut.
    header: Vec<u8>,
    opcode: u8,
    left: u64,
    /// The payload so far of a control frame.
    control: Vec<u8>,
}

/// Why a stream is over, in words for a person.
pub type Ended = String;

/// A text as a client sends it. Masked with zeros: a client has to mask, and nobody else is on this wire.
pub fn text_frame(text: &str) -> Vec<u8> {
    let mut frame = vec![0x81];
    match text.len() {
        length @ 0..126 => frame.push(0x80 | length as u8),
        length @ 126..0x1_0000 => {
            frame.push(0x80 | 126);
            frame.extend_from_slice(&(length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend_from_slice(&(length as u64).to_be_bytes());
        }
    }
    frame.extend_from_slice(&[0; 4]);
    frame.extend_from_slice(text.as_bytes());
    frame
}

const CLOSE: u8 = 8;
const PING: u8 = 9;

impl Framing {
    /// The framing after a `101`.
    pub fn websocket() -> Self {
        Self::WebSocket(Frames::default())
    }

    /// The framing of a chunked body.
    pub fn chunked() -> Self {
        Self::Chunked(Chunks::Size(0, false))
    }

    /// Takes in what was read, hands the payloads to `payload`, and returns what is to be written back, mostly nothing.
    pub fn feed(&mut self, bytes: &[u8], mut payload: impl FnMut(&[u8])) -> Result<Vec<u8>, Ended> {
        match self {
            Self::Plain => payload(bytes),
            Self::Chunked(chunks) => chunks.feed(bytes, payload)?,
            Self::WebSocket(frames) => return frames.feed(bytes, payload),
        }
        Ok(Vec::new())
    }
}

impl Chunks {
    fn feed(&mut self, mut bytes: &[u8], mut payload: impl FnMut(&[u8])) -> Result<(), Ended> {
        while let Some((&first, rest)) = bytes.split_first() {
            match *self {
                Self::Size(0, _) if first == b'\n' => return Err("the body has ended".to_owned()),
                Self::Size(size, extension) => {
                    *self = match (first, char::from(first).to_digit(16)) {
                        (b'\n', _) => Self::Data(size),
                        (_, Some(digit)) if !extension => Self::Size(size << 4 | digit as usize, false),
                        _ => Self::Size(size, true),
                    };
                    bytes = rest;
                }
                Self::Data(left) => {
                    let (data, after) = bytes.split_at(left.min(bytes.len()));
                    payload(data);
                    *self = if data.len() == left { Self::LineEnd } else { Self::Data(left - data.len()) };
                    bytes = after;
                }
                Self::LineEnd => {
                    if first == b'\n' {
                        *self = Self::Size(0, false);
                    }
                    bytes = rest;
                }
            }
        }
        Ok(())
    }
}

impl Frames {
    fn feed(&mut self, mut bytes: &[u8], mut payload: impl FnMut(&[u8])) -> Result<Vec<u8>, Ended> {
        let mut reply = Vec::new();
        while !bytes.is_empty() {
            if self.left == 0 {
                let Some(rest) = self.open(bytes) else { break };
                bytes = rest;
            }
            let length = usize::try_from(self.left).map_or(bytes.len(), |left| left.min(bytes.len()));
            let (piece, rest) = bytes.split_at(length);
            bytes = rest;
            self.left -= length as u64;
            if self.opcode < CLOSE {
                payload(piece);
            } else {
                self.control.extend_from_slice(piece);
                if self.left == 0 {
                    self.answer(&mut reply)?;
                }
            }
        }
        Ok(reply)
    }

    /// Reads a header; returns what follows it, or `None` where more bytes are needed.
    fn open<'a>(&mut self, bytes: &'a [u8]) -> Option<&'a [u8]> {
        let before = self.header.len();
        self.header.extend_from_slice(&bytes[..bytes.len().min(10 - before)]);
        let header = &self.header[..];
        let (length, left) = match (header.get(1)? & 0x7f, header) {
            (126, [_, _, a, b, ..]) => (4, u64::from(u16::from_be_bytes([*a, *b]))),
            (127, [_, _, a, b, c, d, e, f, g, h]) => {
                (10, u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]))
            }
            (126 | 127, _) => return None,
            (short, _) => (2, u64::from(short)),
        };
        self.opcode = header[0] & 0x0f;
        self.left = left;
        self.header.clear();
        Some(&bytes[length - before..])
    }

    fn answer(&mut self, reply: &mut Vec<u8>) -> Result<(), Ended> {
        let control = std::mem::take(&mut self.control);
        match (self.opcode, &control[..]) {
            (CLOSE, [high, low, reason @ ..]) => {
                let code = u16::from_be_bytes([*high, *low]);
                Err(format!("closed by the server: {code} {}", String::from_utf8_lossy(reason)))
            }
            (CLOSE, _) => Err("closed by the server".to_owned()),
            (PING, data) => {
                // Masked with zeros, as `text_frame`.
                reply.extend_from_slice(&[0x8a, 0x80 | data.len() as u8, 0, 0, 0, 0]);
                reply.extend_from_slice(data);
                Ok(())
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds `bytes` cut at every place; returns the payload, the replies and the end, which must all be the same.
    fn feed_cut(make: impl Fn() -> Framing, bytes: &[u8]) -> (String, Vec<u8>, Option<Ended>) {
        let feed = |cut: usize| {
            let (mut framing, mut text, mut replies, mut ended) = (make(), Vec::new(), Vec::new(), None);
            for part in [&bytes[..cut], &bytes[cut..]] {
                match framing.feed(part, |piece| text.extend_from_slice(piece)) {
                    Ok(reply) => replies.extend(reply),
                    Err(reason) => ended = Some(reason),
                }
            }
            (String::from_utf8(text).unwrap(), replies, ended)
        };
        let whole = feed(bytes.len());
        (0..bytes.len()).for_each(|cut| assert_eq!(feed(cut), whole, "cut at {cut}"));
        whole
    }

    #[test]
    fn chunks_are_joined_and_the_last_one_ends_the_stream() {
        let (text, _, ended) =
            feed_cut(Framing::chunked, b"5\r\nhello\r\n1;name=1f\r\n \r\nA\r\n0123456789\r\n");
        assert_eq!((text.as_str(), ended), ("hello 0123456789", None));
        let (text, _, ended) = feed_cut(Framing::chunked, b"2\r\nhi\r\n0\r\n\r\n");
        assert_eq!((text.as_str(), ended.is_some()), ("hi", true));
    }

    #[test]
    fn a_text_is_framed_and_masked_whatever_its_length() {
        for length in [0, 1, 125, 126, 65_535, 65_536] {
            let text = "x".repeat(length);
            let frame = text_frame(&text);
            assert_eq!((frame[0], frame[1] & 0x80), (0x81, 0x80));
            // A server's frame is the same without the mask.
            let (mut head, body) =
                (frame[..frame.len() - length - 4].to_vec(), &frame[frame.len() - length..]);
            head[1] &= 0x7f;
            let mut read = 0;
            Framing::websocket().feed(&[&head, body].concat(), |piece| read += piece.len()).unwrap();
            assert_eq!(read, length);
        }
    }

    #[test]
    fn frames_of_every_length_are_opened() {
        let mut bytes = b"\x81\x02hi\x81\x00".to_vec();
        bytes.extend_from_slice(b"\x81\x7e\x00\x7e");
        bytes.extend_from_slice(&[b'x'; 126]);
        bytes.extend_from_slice(b"\x81\x7f\x00\x00\x00\x00\x00\x01\x00\x00");
        bytes.extend_from_slice(&[b'y'; 65536]);
        let (mut framing, mut text) = (Framing::websocket(), Vec::new());
        for part in bytes.chunks(7) {
            framing.feed(part, |piece| text.extend_from_slice(piece)).unwrap();
        }
        assert_eq!(text.len(), 2 + 126 + 65536);
    }

    #[test]
    fn a_ping_between_messages_is_answered_and_a_close_is_told() {
        let (text, reply, ended) = feed_cut(Framing::websocket, b"\x81\x01a\x89\x02pp\x89\x00\x81\x01b");
        assert_eq!((text.as_str(), ended), ("ab", None));
        assert_eq!(reply, b"\x8a\x82\0\0\0\0pp\x8a\x80\0\0\0\0");
        let (_, _, ended) = feed_cut(Framing::websocket, b"\x88\x06\x11\x9cslow");
        assert_eq!(ended.as_deref(), Some("closed by the server: 4508 slow"));
    }
}

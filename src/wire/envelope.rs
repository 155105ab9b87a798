//! A message on its way through Redis: what `tidegate.lua` publishes, and stores as an entry of the log. Written
//! there alone; here it is read. Big endian:
//!
//! | bytes | what |
//! |---|---|
//! | 1 | version: 1; 2 is read too |
//! | 1 | kind: 0 message, 1 the history was deleted |
//! | 8 | offset; of a deletion the newest that it removed |
//! | 8 | time, milliseconds since 1970 |
//! | 8 | the oldest offset that the history keeps now |
//! | 1, n | epoch, after its length |
//! | 1 | payload: 0 JSON, 1 text, 2 bytes |
//! | 1, n | event, after its length |
//! | 2, n | trace parent, after its length |
//! | 2, n | from version 2 on: what it adds, after its length |
//! | … | payload |

use bytes::{Buf, Bytes};

use crate::{
    channel::Channel,
    payload,
    position::Epoch,
    publication::{EventName, Payload, Publication},
    trace_parent::TraceParent,
};

/// The version that is written and read. The next one is read as well, without what it adds: while gateways are brought
/// up to date one after the other, and when they are brought back, both publish.
const VERSION: u8 = 1;

/// What an envelope says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A message.
    Message,
    /// All messages up to the offset were deleted.
    Forgotten,
}

/// An envelope, opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Envelope {
    /// What it says.
    pub kind: Kind,
    /// The epoch when it was published. A log whose epoch has changed since gives its messages the new one.
    pub epoch: Epoch,
    /// The message's offset.
    pub offset: u64,
    /// Milliseconds since 1970 by the clock of Redis.
    pub time: u64,
    /// The oldest offset that the history keeps after it; the next one where it keeps none.
    pub floor: u64,
    /// The name of the event.
    pub event: Option<EventName>,
    /// The span that published it, where somebody records its trace.
    pub trace: Option<Box<TraceParent>>,
    /// The payload.
    pub payload: Payload,
}

/// Bytes that are no envelope. Somebody else wrote them, or changed them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damaged {
    /// A version that this release does not know.
    #[error("version {0} of the envelope is unknown")]
    Version(u8),
    /// It ends too early.
    #[error("the envelope ends too early")]
    Short,
    /// A field does not hold what it should.
    #[error("the {0} of the envelope is none")]
    Field(&'static str),
}

/// Opens an envelope; the payload stays a slice of `bytes`. Whoever publishes without a gateway may call
/// JSON what is none: then it is text, or bytes, since a message that is left out would be a hole.
///
/// # Errors
/// It is no envelope, or one of another version.
pub fn decode(bytes: Bytes) -> Result<Envelope, Damaged> {
    let mut rest = bytes;
    let version = take_u8(&mut rest)?;
    if !(VERSION..=VERSION + 1).contains(&version) {
        return Err(Damaged::Version(version));
    }
    let kind = match take_u8(&mut rest)? {
        0 => Kind::Message,
        1 => Kind::Forgotten,
        _ => return Err(Damaged::Field("kind")),
    };
    let offset = take_u64(&mut rest)?;
    let time = take_u64(&mut rest)?;
    let floor = take_u64(&mut rest)?;
    let length = take_u8(&mut rest)?.into();
    let epoch = text(&take(&mut rest, length)?).and_then(|epoch| epoch.parse().ok());
    let epoch = epoch.ok_or(Damaged::Field("epoch"))?;
    // What counts from 1 and is added to later on.
    if offset == 0 || offset > i64::MAX as u64 || floor == 0 || floor > offset + 1 {
        return Err(Damaged::Field("offset"));
    }
    let payload_kind = take_u8(&mut rest)?;
    let length = take_u8(&mut rest)?.into();
    let event = match &*take(&mut rest, length)? {
        b"" => None,
        name => Some(text(name).and_then(|name| name.parse().ok()).ok_or(Damaged::Field("event"))?),
    };
    let length = usize::from(take_u16(&mut rest)?);
    // Whoever publishes without a gateway may write here what he likes.
    let trace = text(&take(&mut rest, length)?).and_then(|text| text.parse::<TraceParent>().ok());
    let trace = trace.filter(|trace| trace.sampled).map(Box::new);
    if version > VERSION {
        let length = usize::from(take_u16(&mut rest)?);
        take(&mut rest, length)?;
    }
    let payload = match payload_kind {
        0 => payload::json(rest.clone()).or_else(|_| payload::text(rest.clone())),
        1 => payload::text(rest.clone()),
        2 => Ok(payload::binary(rest.clone())),
        _ => return Err(Damaged::Field("kind of payload")),
    };
    let payload = payload.unwrap_or_else(|_| payload::binary(rest));
    Ok(Envelope { kind, epoch, offset, time, floor, event, trace, payload })
}

impl Envelope {
    /// The message, with the epoch that it was published in.
    #[must_use]
    pub fn into_publication(self, channel: &Channel) -> Publication {
        let epoch = self.epoch;
        self.in_epoch(channel, epoch)
    }

    /// The message as it is kept in a log that counts in `epoch` now.
    #[must_use]
    pub fn in_epoch(self, channel: &Channel, epoch: Epoch) -> Publication {
        Publication {
            channel: channel.clone(),
            epoch,
            offset: self.offset,
            time: self.time,
            event: self.event,
            payload: self.payload,
            trace: self.trace,
        }
    }
}

fn text(bytes: &[u8]) -> Option<&str> {
    std::str::from_utf8(bytes).ok()
}

fn take(rest: &mut Bytes, length: usize) -> Result<Bytes, Damaged> {
    if rest.len() < length {
        return Err(Damaged::Short);
    }
    Ok(rest.split_to(length))
}

fn take_u8(rest: &mut Bytes) -> Result<u8, Damaged> {
    rest.try_get_u8().map_err(|_| Damaged::Short)
}

fn take_u16(rest: &mut Bytes) -> Result<u16, Damaged> {
    rest.try_get_u16().map_err(|_| Damaged::Short)
}

fn take_u64(rest: &mut Bytes) -> Result<u64, Damaged> {
    rest.try_get_u64().map_err(|_| Damaged::Short)
}

/// Writes an envelope as `tidegate.lua` does.
#[cfg(test)]
pub(crate) fn encode(kind: Kind, publication: &Publication, floor: u64) -> Bytes {
    use crate::publication::Kind as Payloads;

    let mut out = vec![VERSION, u8::from(kind == Kind::Forgotten)];
    out.extend(publication.offset.to_be_bytes());
    out.extend(publication.time.to_be_bytes());
    out.extend(floor.to_be_bytes());
    out.push(publication.epoch.as_str().len() as u8);
    out.extend(publication.epoch.as_str().bytes());
    out.push(match publication.payload.kind() {
        Payloads::Json => 0,
        Payloads::Text => 1,
        Payloads::Bytes => 2,
    });
    let event = publication.event.as_ref().map_or("", |event| event.as_str());
    out.push(event.len() as u8);
    out.extend(event.bytes());
    let trace = publication.trace.as_ref().map_or(String::new(), |trace| trace.to_string());
    out.extend((trace.len() as u16).to_be_bytes());
    out.extend(trace.bytes());
    out.extend(publication.payload.bytes());
    out.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::publication::Kind as Payloads;

    fn publication(payload: Payload, event: Option<&str>) -> Publication {
        Publication {
            channel: "a".parse().unwrap(),
            epoch: "k3x9q0ab".parse().unwrap(),
            offset: 42,
            time: 1_790_000_000_123,
            event: event.map(|event| event.parse().unwrap()),
            payload,
            trace: None,
        }
    }

    fn message(payload: Payload) -> Vec<u8> {
        encode(Kind::Message, &publication(payload, Some("ev")), 7).into()
    }

    /// Where the tail begins: after the head and an epoch of eight.
    const TAIL: usize = 35;

    #[test]
    fn what_is_written_is_read_and_the_payload_is_not_copied() {
        for payload in [
            payload::json(Bytes::from_static(b"{\"a\":[1,2]}")).unwrap(),
            payload::text(Bytes::from_static("h\u{e9}llo\r\n".as_bytes())).unwrap(),
            payload::binary(Bytes::from_static(b"\0\xff\r\n")),
            payload::binary(Bytes::new()),
        ] {
            for event in [None, Some("created")] {
                let publication = publication(payload.clone(), event);
                let bytes = encode(Kind::Message, &publication, 7);
                let end = bytes.as_ptr_range().end;
                let envelope = decode(bytes).unwrap();
                assert_eq!((envelope.kind, envelope.floor), (Kind::Message, 7));
                if !payload.bytes().is_empty() {
                    assert_eq!(envelope.payload.bytes().as_ptr_range().end, end);
                }
                assert_eq!(envelope.into_publication(&publication.channel), publication);
            }
        }
        let deleted = encode(Kind::Forgotten, &publication(payload::binary(Bytes::new()), None), 43);
        assert_eq!(decode(deleted).unwrap().kind, Kind::Forgotten);
    }

    #[test]
    fn the_next_version_is_read_without_what_it_adds() {
        let payload = payload::text(Bytes::from_static(b"x")).unwrap();
        let mut bytes = message(payload.clone());
        bytes[0] = 2;
        let at = bytes.len() - 1;
        bytes.splice(at..at, [0, 3, b'n', b'e', b'w']);
        let envelope = decode(bytes.into()).unwrap();
        assert_eq!((envelope.offset, envelope.payload), (42, payload));
    }

    #[test]
    fn a_trace_that_somebody_records_comes_with_the_message() {
        let parent = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let traced = Publication {
            trace: Some(Box::new(parent.parse().unwrap())),
            ..publication(payload::binary(Bytes::from_static(b"x")), Some("ev"))
        };
        let bytes = encode(Kind::Message, &traced, 7);
        assert_eq!(decode(bytes.clone()).unwrap().into_publication(&traced.channel), traced);
        let at = bytes.len() - 1 - parent.len();
        assert_eq!(bytes[at - 2..at], [0, 55]);
        for other in ["not of a gateway", &parent.replace("-01", "-00")] {
            let length = (other.len() as u16).to_be_bytes();
            let changed = [&bytes[..at - 2], &length, other.as_bytes(), b"x"].concat();
            let envelope = decode(changed.into()).unwrap();
            assert_eq!((envelope.trace, &envelope.payload.bytes()[..]), (None, &b"x"[..]), "{other}");
        }
    }

    #[test]
    fn a_message_of_a_log_bears_the_epoch_of_the_log() {
        let envelope = decode(message(payload::binary(Bytes::new())).into()).unwrap();
        let epoch = "newepoch".parse().unwrap();
        assert_eq!(envelope.in_epoch(&"a".parse().unwrap(), epoch).epoch, epoch);
    }

    #[test]
    fn what_is_called_json_or_text_and_is_none_is_delivered_as_what_it_is() {
        let of = |kind: u8, payload: &[u8]| {
            let mut bytes = message(payload::binary(Bytes::copy_from_slice(payload)));
            bytes[TAIL] = kind;
            decode(bytes.into()).unwrap().payload
        };
        assert_eq!(of(0, b"{\"a\":1}").kind(), Payloads::Json);
        assert_eq!(of(0, b"{\"a\":").kind(), Payloads::Text);
        assert_eq!(of(0, b"").kind(), Payloads::Text);
        assert_eq!(of(0, b"{\xff").kind(), Payloads::Bytes);
        assert_eq!(of(1, b"\xff").kind(), Payloads::Bytes);
        assert_eq!(of(0, b"[1,\r\n2]").bytes(), &b"[1,2]"[..]);
    }

    #[test]
    fn damage_is_named() {
        let good = message(payload::binary(Bytes::from_static(b"x")));
        let with = |at: usize, byte: u8| {
            let mut bytes = good.clone();
            bytes[at] = byte;
            decode(bytes.into())
        };
        assert_eq!(with(0, 0), Err(Damaged::Version(0)));
        assert_eq!(with(0, 3), Err(Damaged::Version(3)));
        assert_eq!(with(1, 2), Err(Damaged::Field("kind")));
        assert_eq!(with(2, 0xff), Err(Damaged::Field("offset")));
        assert_eq!(with(9, 0), Err(Damaged::Field("offset")));
        assert_eq!(with(25, 44), Err(Damaged::Field("offset")));
        assert_eq!(with(27, b'A'), Err(Damaged::Field("epoch")));
        assert_eq!(with(26, 5), Err(Damaged::Field("epoch")));
        assert_eq!(with(TAIL, 3), Err(Damaged::Field("kind of payload")));
        assert_eq!(with(TAIL + 2, b' '), Err(Damaged::Field("event")));
        for length in 0..good.len() - 1 {
            assert!(decode(Bytes::copy_from_slice(&good[..length])).is_err(), "{length}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail(bytes in prop::collection::vec(any::<u8>(), 0..80), versioned in any::<bool>()) {
            let mut bytes = bytes;
            if versioned && bytes.len() > 27 {
                bytes[..2].copy_from_slice(&[1, 0]);
                bytes[26] = 8;
            }
            let _ = decode(bytes.into());
        }
    }
}

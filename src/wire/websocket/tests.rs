//! Frames as the server writes them, and as it reads those of a client: whole, in pieces, and wrong.

use proptest::prelude::*;

use super::*;
use crate::{disconnect::Disconnect, payload, publication::Payload, wire::Prepared};

const MAX: usize = 100_000;

/// A client's frame: first byte, payload; the mask is not zero anywhere.
fn client(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = vec![first];
    match payload.len() {
        length @ 0..=125 => frame.push(0x80 | length as u8),
        length @ 126..=0xffff => {
            frame.push(0x80 | 126);
            frame.extend((length as u16).to_be_bytes());
        }
        length => {
            frame.push(0x80 | 127);
            frame.extend((length as u64).to_be_bytes());
        }
    }
    let mask = [1, 2, 3, 4];
    frame.extend(mask);
    frame.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// What comes out, and the error or whether the reader is idle at the end.
fn read_all(pieces: &[&[u8]], max: usize) -> (Vec<Incoming>, Result<bool, Disconnect>) {
    let mut reader = Reader::default();
    let mut read = Vec::new();
    for mut piece in pieces.iter().copied() {
        loop {
            match reader.read(&mut piece, max) {
                Ok(Some(incoming)) => read.push(incoming),
                Ok(None) => break,
                Err(disconnect) => return (read, Err(disconnect)),
            }
        }
        assert!(piece.is_empty());
    }
    (read, Ok(reader.is_idle()))
}

fn read_one(bytes: &[u8]) -> Result<Incoming, Disconnect> {
    let (mut read, end) = read_all(&[bytes], MAX);
    end.map(|idle| {
        assert!(idle && read.len() == 1, "{read:?}");
        read.remove(0)
    })
}

fn of(payload: Payload, raw: bool) -> Bytes {
    let publication = Publication {
        channel: "a".parse().unwrap(),
        epoch: "k3x9q0".parse().unwrap(),
        offset: 1,
        time: 0,
        event: None,
        payload,
        trace: None,
    };
    let encoding = crate::wire::Encoding::WebSocket { raw };
    Prepared::new(publication).bytes(encoding, crate::wire::Framing::Plain)
}

#[test]
fn a_message_is_one_frame_whose_kind_is_the_payloads_where_raw() {
    assert_eq!(of(payload::json("[1]".into()).unwrap(), true), b"\x81\x03[1]".as_slice());
    assert_eq!(of(payload::text("".into()).unwrap(), true), b"\x81\x00".as_slice());
    assert_eq!(of(payload::binary("\0".into()), true), b"\x82\x01\0".as_slice());
    let object = of(payload::binary("\0".into()), false);
    assert_eq!((object[0], usize::from(object[1])), (0x81, object.len() - 2));
    let medium = of(payload::text("x".repeat(126).into()).unwrap(), true);
    assert_eq!(medium[..4], [0x81, 126, 0, 126]);
    let large = of(payload::text("x".repeat(0x1_0000).into()).unwrap(), true);
    assert_eq!(large[..10], [0x81, 127, 0, 0, 0, 0, 0, 1, 0, 0]);
    assert_eq!(large.len(), 10 + 0x1_0000);
}

#[test]
fn control_frames_stay_within_125_bytes() {
    assert_eq!(ping(), b"\x89\x00".as_slice());
    assert_eq!(pong(b"ab"), b"\x8a\x02ab".as_slice());
    assert_eq!(close_frame(1001, "shutdown 1200"), b"\x88\x0f\x03\xe9shutdown 1200".as_slice());
    let cut = close_frame(4500, &"é".repeat(100));
    assert_eq!(cut.len(), 2 + 2 + 122);
    assert_eq!(std::str::from_utf8(&cut[4..]), Ok("é".repeat(61).as_str()));
}

#[test]
fn a_key_is_sixteen_bytes_in_base64() {
    // The example of RFC 6455 section 1.3.
    let accept = accept_key("dGhlIHNhbXBsZSBub25jZQ==");
    assert_eq!(accept.as_deref(), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
    for bad in ["", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25j", "dGhlIHNhbXBsZSBub25jZQ== ", "!"] {
        assert_eq!(accept_key(bad), None, "{bad}");
    }
}

#[test]
fn whole_frames_are_read() {
    let long = "x".repeat(70_000);
    for (frame, expected) in [
        (client(0x81, b"hi"), Incoming::Text("hi".into())),
        (client(0x81, b""), Incoming::Text(String::new())),
        (client(0x81, &[b'x'; 200]), Incoming::Text("x".repeat(200))),
        (client(0x82, long.as_bytes()), Incoming::Binary(long.clone().into())),
        (client(0x89, b"p"), Incoming::Ping("p".into())),
        (client(0x8a, b"p"), Incoming::Pong),
        (client(0x88, b""), Incoming::Close(None)),
        (client(0x88, b"\x03\xe8"), Incoming::Close(Some((1000, String::new())))),
        (client(0x88, b"\x0f\xa0bye"), Incoming::Close(Some((4000, "bye".into())))),
    ] {
        assert_eq!(read_one(&frame), Ok(expected));
    }
}

#[test]
fn control_frames_may_come_between_fragments() {
    let euro = "€".as_bytes();
    let frames = [
        client(0x01, &euro[..1]),
        client(0x89, b"1"),
        client(0x00, b""),
        client(0x8a, b""),
        client(0x80, &euro[1..]),
        client(0x82, b"next"),
    ];
    let (read, end) = read_all(&[&frames.concat()], 4);
    let expected = [
        Incoming::Ping("1".into()),
        Incoming::Pong,
        Incoming::Text("€".into()),
        Incoming::Binary("next".into()),
    ];
    assert_eq!((read.as_slice(), end), (expected.as_slice(), Ok(true)));
}

#[test]
fn what_the_protocol_does_not_allow_is_refused() {
    let protocol_errors = [
        b"\x81\x02hi".to_vec(),
        client(0xc1, b"rsv1"),
        client(0xa1, b"rsv2"),
        client(0x91, b"rsv3"),
        client(0x83, b"reserved data"),
        client(0x8b, b"reserved control"),
        client(0x09, b"fragmented ping"),
        client(0x89, &[0; 126]),
        client(0x80, b"continues nothing"),
        client(0x00, b"continues nothing"),
        [client(0x01, b"a"), client(0x81, b"b")].concat(),
        [client(0x02, b"a"), client(0x01, b"b")].concat(),
        [client(0x81, b"a"), client(0x80, b"b")].concat(),
        client(0x88, b"\x03"),
        b"\x81\xfe\x00\x7d\0\0\0\0".to_vec(),
        b"\x81\xff\0\0\0\0\0\0\xff\xff\0\0\0\0".to_vec(),
        b"\x81\xff\x80\0\0\0\0\0\0\0\0\0\0\0".to_vec(),
    ];
    for frame in protocol_errors {
        let (_, end) = read_all(&[&frame], MAX);
        assert_eq!(end, Err(Disconnect::ProtocolError), "{frame:x?}");
    }
    for code in [0u16, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535] {
        assert_eq!(read_one(&client(0x88, &code.to_be_bytes())), Err(Disconnect::ProtocolError), "{code}");
    }
    for frame in [client(0x81, b"\xff"), client(0x81, b"\xed\xa0\x80"), client(0x88, b"\x03\xe8\xff")] {
        assert_eq!(read_one(&frame), Err(Disconnect::BadUtf8));
    }
}

#[test]
fn a_message_is_too_big_by_what_it_declares() {
    let declared = |first: u8, length: u64| [&[first, 0xff][..], &length.to_be_bytes(), &[0; 4]].concat();
    for length in [MAX as u64 + 1, i64::MAX as u64] {
        assert_eq!(read_one(&declared(0x81, length)), Err(Disconnect::TooBig));
    }
    let fragments = [client(0x01, &[b'x'; 8]), client(0x00, b"y"), client(0x80, b"zz")].concat();
    assert_eq!(read_all(&[&fragments], 11).1, Ok(true));
    assert_eq!(read_all(&[&fragments], 10).1, Err(Disconnect::TooBig));

    let mut reader = Reader::default();
    let head = declared(0x82, MAX as u64);
    assert_eq!(reader.read(&mut head.as_slice(), MAX), Ok(None));
    assert_eq!(reader.held(), 0);
}

#[test]
fn many_tiny_fragments_cost_no_more_than_their_bytes() {
    let mut reader = Reader::default();
    let (empty, one) = (client(0x00, b""), client(0x00, b"x"));
    assert_eq!(reader.read(&mut client(0x01, b"x").as_slice(), 1000), Ok(None));
    for _ in 0..100_000 {
        assert_eq!(reader.read(&mut empty.as_slice(), 1000), Ok(None));
    }
    for _ in 1..1000 {
        assert_eq!(reader.read(&mut one.as_slice(), 1000), Ok(None));
    }
    assert_eq!(reader.held(), 1000);
    assert_eq!(reader.read(&mut one.as_slice(), 1000), Err(Disconnect::TooBig));
}

#[test]
fn an_idle_reader_is_one_word() {
    assert_eq!(size_of::<Reader>(), size_of::<usize>());
}

/// Frames that are mostly right, in any order.
fn frames() -> impl Strategy<Value = Vec<u8>> {
    let first = prop::sample::select(vec![0x81, 0x82, 0x01, 0x02, 0x00, 0x80, 0x89, 0x8a, 0x88]);
    let payload =
        prop_oneof![prop::collection::vec(any::<u8>(), 0..8), "[a-zé€]{0,200}".prop_map(String::into_bytes),];
    let frame = (first, payload).prop_map(|(first, payload)| client(first, &payload));
    prop::collection::vec(frame, 0..8).prop_map(|frames| frames.concat())
}

/// Bytes that begin like frames and then go any way.
fn junk() -> impl Strategy<Value = Vec<u8>> {
    (frames(), prop::collection::vec(any::<u8>(), 0..40)).prop_map(|(frames, junk)| [frames, junk].concat())
}

/// Enough to find what is rare; `PROPTEST_CASES` asks for more.
fn cases() -> ProptestConfig {
    ProptestConfig::with_cases(ProptestConfig::default().cases.max(2000))
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn the_pieces_in_which_bytes_arrive_make_no_difference(bytes in junk(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12)) {
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(bytes.len() + 1)).collect();
        cuts.extend([0, bytes.len()]);
        cuts.sort_unstable();
        let pieces: Vec<&[u8]> = cuts.windows(2).map(|cut| &bytes[cut[0]..cut[1]]).collect();
        let single: Vec<&[u8]> = bytes.chunks(1).collect();
        let whole = read_all(&[&bytes], 500);
        prop_assert_eq!(&whole, &read_all(&pieces, 500));
        prop_assert_eq!(&whole, &read_all(&single, 500));
    }

    #[test]
    fn no_bytes_make_it_panic_or_hold_more_than_a_message(bytes in junk(), max in 0usize..300) {
        let mut reader = Reader::default();
        let mut rest = bytes.as_slice();
        while let Ok(Some(_)) = reader.read(&mut rest, max) {
            prop_assert!(reader.held() <= max + MAX_CONTROL + 14);
        }
        prop_assert!(reader.held() <= max + MAX_CONTROL + 14);
    }
}

//! What is written, byte for byte; and Server-Sent Events read back as a browser reads them.

use proptest::prelude::*;

use super::*;
use crate::{
    channel::Channel,
    disconnect::Disconnect,
    fault::{Code, Fault},
    gap::{Gap, GapReason, Recovery},
    payload,
    publication::Payload,
};

fn publication(event: Option<&str>, payload: Payload) -> Publication {
    Publication {
        channel: "orders:42".parse().unwrap(),
        epoch: "k3x9q0".parse().unwrap(),
        offset: 42,
        time: 1_790_000_000_000,
        event: event.map(|event| event.parse().unwrap()),
        payload,
        trace: None,
    }
}

fn json(text: &'static str) -> Payload {
    payload::json(Bytes::from_static(text.as_bytes())).unwrap()
}

fn text(text: &str) -> Payload {
    payload::text(Bytes::copy_from_slice(text.as_bytes())).unwrap()
}

fn binary(bytes: &'static [u8]) -> Payload {
    payload::binary(Bytes::from_static(bytes))
}

/// The content of a body of chunks, none of them empty.
fn unchunk(mut body: &[u8]) -> Vec<u8> {
    let mut content = Vec::new();
    while !body.is_empty() {
        let head = body.iter().position(|b| *b == b'\r').unwrap();
        let length = usize::from_str_radix(std::str::from_utf8(&body[..head]).unwrap(), 16).unwrap();
        assert!(length > 0);
        let (chunk, rest) = body[head + 2..].split_at(length);
        content.extend_from_slice(chunk);
        body = rest.strip_prefix(b"\r\n").unwrap();
    }
    content
}

const OBJECT: &str = r#"{"type":"message","channel":"orders:42","id":"k3x9q0-42","time":1790000000000,"event":"created","data":{"n":1}}"#;

#[test]
fn a_message_object_has_its_fields_in_order() {
    for (event, payload, expected) in [
        (Some("created"), json("{\"n\":1}"), OBJECT),
        (
            None,
            text("a\"\n\u{2028}é\0"),
            concat!(
                r#"{"type":"message","channel":"orders:42","id":"k3x9q0-42","time":1790000000000,"#,
                "\"data\":\"a\\\"\\n\u{2028}é\\u0000\"}"
            ),
        ),
        (
            None,
            binary(b"\0\xff"),
            r#"{"type":"message","channel":"orders:42","id":"k3x9q0-42","time":1790000000000,"data_base64":"AP8="}"#,
        ),
    ] {
        let prepared = Prepared::new(publication(event, payload));
        assert_eq!(prepared.bytes(Encoding::Object, Framing::Plain), expected);
    }
}

#[test]
fn every_stream_writes_the_object_or_the_payload() {
    let created = || publication(Some("created"), json("{\"n\":1}"));
    let lines = || publication(None, text("a\rb\nc\r\n"));
    let bytes = || publication(None, binary(b"\0\xff"));
    let sse = |raw| Encoding::Sse { raw };
    let ndjson = |raw| Encoding::Ndjson { raw };
    for (publication, encoding, expected) in [
        (created(), sse(false), format!("id: k3x9q0-42\nevent: created\ndata: {OBJECT}\n\n")),
        (created(), sse(true), "id: k3x9q0-42\nevent: created\ndata: {\"n\":1}\n\n".into()),
        (lines(), sse(true), "id: k3x9q0-42\ndata: a\ndata: b\ndata: c\ndata: \n\n".into()),
        (bytes(), sse(true), "id: k3x9q0-42\ndata: AP8=\n\n".into()),
        (created(), ndjson(false), format!("{OBJECT}\n")),
        (created(), ndjson(true), "{\"n\":1}\n".into()),
        (lines(), ndjson(true), "\"a\\rb\\nc\\r\\n\"\n".into()),
        (bytes(), ndjson(true), "\"AP8=\"\n".into()),
    ] {
        let prepared = Prepared::new(publication);
        let chunk = prepared.bytes(encoding, Framing::Chunked);
        let plain = prepared.bytes(encoding, Framing::Plain);
        assert_eq!(plain, expected);
        assert_eq!(chunk, format!("{:x}\r\n{expected}\r\n", expected.len()));
    }
}

#[test]
fn an_encoding_is_made_once_and_shared() {
    let prepared = Prepared::new(publication(None, json("1")));
    let copy = prepared.clone();
    let shared = |a: Encoding, b: Encoding, at: usize| {
        let whole = prepared.bytes(a, Framing::Chunked);
        let part = copy.bytes(b, Framing::Plain);
        assert_eq!(whole[at..].as_ptr(), part.as_ptr());
    };
    shared(Encoding::WebSocket { raw: false }, Encoding::WebSocket { raw: false }, 0);
    shared(Encoding::Sse { raw: false }, Encoding::Sse { raw: false }, 4);
    shared(Encoding::Ndjson { raw: false }, Encoding::Object, 4);
}

#[test]
fn a_stream_of_several_channels_has_its_cursor_for_an_id() {
    let prepared = Prepared::new(publication(Some("created"), json("{\"n\":1}")));
    let own = prepared.bytes(Encoding::Sse { raw: true }, Framing::Plain);
    assert_eq!(sse::with_cursor(&prepared, true, "k3x9q0-42", Framing::Plain), own);
    assert_eq!(
        sse::with_cursor(&prepared, true, "k3x9q0-42,0-7", Framing::Chunked),
        "30\r\nid: k3x9q0-42,0-7\nevent: created\ndata: {\"n\":1}\n\n\r\n"
    );
}

#[test]
fn control_objects_have_their_fields_in_order() {
    let channel: &Channel = &"a".parse().unwrap();
    let position = "k3x9q0-42".parse().unwrap();
    let reference = |json: &str| {
        let (_, reference) = command::parse(&format!("{{\"type\":\"ping\",\"ref\":{json}}}")).unwrap();
        reference
    };
    let (number, string) = (reference("1.0"), reference("\"\\u0041\""));
    let gap = Gap { reason: GapReason::Trimmed, from: "0-7".parse().unwrap(), to: position };
    let fault = Fault::new(Code::InvalidChannel, "a \"quote\"").parameter("channel");
    let disconnect = Disconnect::Shutdown;
    let code = UnsubscribedCode::Requested;
    for (object, expected) in [
        (
            Object::Subscribed { channel, position, recovery: Recovery::None, reference: number.as_ref() },
            r#"{"type":"subscribed","channel":"a","position":"k3x9q0-42","recovery":"none","ref":1.0}"#,
        ),
        (
            Object::Gap { channel, gap },
            r#"{"type":"gap","channel":"a","reason":"trimmed","from":"0-7","to":"k3x9q0-42"}"#,
        ),
        (
            Object::Unsubscribed { channel, code, reference: string.as_ref() },
            r#"{"type":"unsubscribed","channel":"a","code":"requested","ref":"\u0041"}"#,
        ),
        (
            Object::Published { channel, id: position, duplicate: true, reference: None },
            r#"{"type":"published","channel":"a","id":"k3x9q0-42","duplicate":true}"#,
        ),
        (
            Object::Authenticated { subject: None, expires_at: None, reference: number.as_ref() },
            r#"{"type":"authenticated","subject":null,"expires_at":null,"ref":1.0}"#,
        ),
        (
            Object::Authenticated { subject: Some("\""), expires_at: Some(9), reference: None },
            r#"{"type":"authenticated","subject":"\"","expires_at":9}"#,
        ),
        (Object::Pong { reference: None }, r#"{"type":"pong"}"#),
        (Object::Heartbeat { time: 5 }, r#"{"type":"heartbeat","time":5}"#),
        (
            Object::Error { fault: &fault, reference: None },
            r#"{"type":"error","code":"invalid_channel","title":"The channel name is not valid","detail":"a \"quote\"","ref":null}"#,
        ),
        (
            Object::Goodbye { disconnect, reconnect_after_ms: Some(1200) },
            r#"{"type":"goodbye","code":"shutdown","reconnect_after_ms":1200}"#,
        ),
        (
            Object::Goodbye { disconnect: Disconnect::Revoked, reconnect_after_ms: None },
            r#"{"type":"goodbye","code":"revoked","reconnect_after_ms":null}"#,
        ),
    ] {
        assert_eq!(object.to_json(), expected);
    }
}

#[test]
fn a_control_object_goes_over_every_stream_that_has_them() {
    let pong = Object::Pong { reference: None };
    let over = |encoding, framing, id| control(&pong, encoding, framing, id);
    for raw in [false, true] {
        let event = over(Encoding::Sse { raw }, Framing::Chunked, Some("0-7")).unwrap();
        assert_eq!(event, "34\r\nid: 0-7\nevent: tidegate.pong\ndata: {\"type\":\"pong\"}\n\n\r\n");
        let event = over(Encoding::Sse { raw }, Framing::Plain, None).unwrap();
        assert_eq!(event, "event: tidegate.pong\ndata: {\"type\":\"pong\"}\n\n");
    }
    let line = over(Encoding::Ndjson { raw: false }, Framing::Plain, None).unwrap();
    assert_eq!(line, "{\"type\":\"pong\"}\n");
    let frame = over(Encoding::WebSocket { raw: false }, Framing::Plain, None).unwrap();
    assert_eq!(frame, b"\x81\x0f{\"type\":\"pong\"}".as_slice());
    assert_eq!(over(Encoding::Ndjson { raw: true }, Framing::Plain, None), None);
    assert_eq!(over(Encoding::WebSocket { raw: true }, Framing::Plain, None), None);
}

#[test]
fn a_document_holds_the_objects_as_they_are() {
    let message = Prepared::new(publication(Some("created"), json("{\"n\":1}")));
    let gap = Gap {
        reason: GapReason::Deleted,
        from: "k3x9q0-1".parse().unwrap(),
        to: "k3x9q0-2".parse().unwrap(),
    };
    let channel = "a".parse().unwrap();
    let gap = Object::Gap { channel: &channel, gap }.to_json();
    let message = message.bytes(Encoding::Object, Framing::Plain);
    assert_eq!(document(&[], &[], "0-7", None), r#"{"messages":[],"gaps":[],"cursor":"0-7"}"#);
    assert_eq!(
        document(&[message.clone(), message], &[gap], "0-7", Some(true)),
        format!(
            r#"{{"messages":[{OBJECT},{OBJECT}],"gaps":[{{"type":"gap","channel":"a","reason":"deleted","from":"k3x9q0-1","to":"k3x9q0-2"}}],"cursor":"0-7","more":true}}"#
        )
    );
    assert!(document(&[], &[], "", Some(false)).ends_with(b"\"cursor\":\"\",\"more\":false}"));
}

#[test]
fn chunked_and_plain_say_the_same() {
    type Make = fn(Framing) -> Bytes;
    let pieces: [Make; 3] =
        [sse::comment, |framing| sse::retry(1500, framing), |framing| sse::heartbeat_with_id("0-7", framing)];
    let expected = [":\n\n", "retry: 1500\n\n", ":\nid: 0-7\n\n"];
    for (make, expected) in pieces.iter().zip(expected) {
        assert_eq!(make(Framing::Plain), expected);
        assert_eq!(unchunk(&make(Framing::Chunked)), expected.as_bytes());
    }
}

/// An event as a browser dispatches it, or the last event id that it keeps without one.
#[derive(Debug, PartialEq)]
struct Event {
    kind: String,
    data: String,
    id: String,
}

/// HTML standard, section 9.2.6, by the letter; what stands after the last empty line is discarded.
fn browser(stream: &[u8]) -> (Vec<Event>, String) {
    let stream = String::from_utf8_lossy(stream);
    let stream = stream.strip_prefix('\u{feff}').unwrap_or(&stream);
    let stream = stream.replace("\r\n", "\n").replace('\r', "\n");
    let (mut events, mut last_id) = (Vec::new(), String::new());
    let (mut kind, mut data, mut id) = (String::new(), String::new(), String::new());
    for line in stream.split_terminator('\n') {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" if line.is_empty() => {
                last_id.clone_from(&id);
                let (kind, data) = (std::mem::take(&mut kind), std::mem::take(&mut data));
                if let Some(data) = data.strip_suffix('\n') {
                    events.push(Event { kind, data: data.to_owned(), id: last_id.clone() });
                }
            }
            "event" => value.clone_into(&mut kind),
            "data" => data.extend([value, "\n"]),
            "id" if !value.contains('\0') => value.clone_into(&mut id),
            _ => {}
        }
    }
    (events, last_id)
}

#[test]
fn a_heartbeat_with_an_id_renews_the_cursor_and_fires_nothing() {
    let prepared = Prepared::new(publication(None, text("x")));
    let mut stream = prepared.bytes(Encoding::Sse { raw: true }, Framing::Plain).to_vec();
    stream.extend(sse::heartbeat_with_id("0-9", Framing::Plain));
    stream.extend(sse::comment(Framing::Plain));
    stream.extend(sse::retry(1500, Framing::Plain));
    let (events, last_id) = browser(&stream);
    assert_eq!((events.len(), last_id.as_str()), (1, "0-9"));
}

/// Texts full of what ends lines and what looks like fields.
fn hostile() -> impl Strategy<Value = String> {
    let piece = prop::sample::select(vec![
        "\r",
        "\n",
        "\r\n",
        "\0",
        "\u{feff}",
        " ",
        ":",
        "data: ",
        "id: 1",
        "event: open",
        "retry: 1",
        "\u{85}",
        "\u{2028}",
        "é",
    ]);
    prop_oneof![prop::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat()), any::<String>(),]
}

/// Enough to find what is rare; `PROPTEST_CASES` asks for more.
fn cases() -> ProptestConfig {
    ProptestConfig::with_cases(ProptestConfig::default().cases.max(2000))
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn a_browser_reads_what_was_published_and_nothing_else(texts in prop::collection::vec(hostile(), 1..4), named: bool) {
        let event = named.then_some("created");
        let (mut raw, mut objects) = (Vec::new(), Vec::new());
        for payload in &texts {
            let prepared = Prepared::new(publication(event, text(payload)));
            raw.extend(prepared.bytes(Encoding::Sse { raw: true }, Framing::Chunked));
            objects.extend(sse::with_cursor(&prepared, false, "k3x9q0-42,0-7", Framing::Chunked));
        }
        let (raw, _) = browser(&unchunk(&raw));
        let (objects, _) = browser(&unchunk(&objects));
        prop_assert_eq!((raw.len(), objects.len()), (texts.len(), texts.len()));
        for ((raw, object), payload) in raw.iter().zip(&objects).zip(&texts) {
            prop_assert_eq!(&raw.data, &payload.replace("\r\n", "\n").replace('\r', "\n"));
            let data: serde_json::Value = serde_json::from_str(&object.data).unwrap();
            prop_assert_eq!(data["data"].as_str(), Some(payload.as_str()));
            prop_assert_eq!((raw.id.as_str(), object.id.as_str()), ("k3x9q0-42", "k3x9q0-42,0-7"));
            for read in [raw, object] {
                prop_assert_eq!(read.kind.as_str(), event.unwrap_or_default());
            }
        }
    }

    #[test]
    fn an_object_stays_on_its_line(payload in hostile()) {
        let prepared = Prepared::new(publication(None, text(&payload)));
        for raw in [false, true] {
            let line = prepared.bytes(Encoding::Ndjson { raw }, Framing::Plain);
            prop_assert_eq!(line.iter().position(|b| matches!(b, b'\n' | b'\r')), Some(line.len() - 1));
        }
    }
}

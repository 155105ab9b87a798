//! Frames that are commands, commands that are refused, and frames that are neither.

use proptest::prelude::*;

use super::*;

fn parsed(text: &str) -> (Command, Option<String>) {
    let (command, reference) = parse(text).unwrap_or_else(|refusal| panic!("{text}: {refusal:?}"));
    (command, reference.map(|reference| reference.as_json().to_owned()))
}

/// Code, whether it was no command at all, and the `ref` that is echoed.
fn refused(text: &str) -> (Code, bool, Option<String>) {
    let refusal = parse(text).unwrap_err();
    let reference = refusal.reference.map(|reference| reference.as_json().to_owned());
    (refusal.fault.code, refusal.malformed, reference)
}

fn channel_a() -> Channel {
    "a".parse().unwrap()
}

fn publish_of(payload: Payload) -> Command {
    Command::Publish { channel: channel_a(), payload, event: None, idempotency_key: None }
}

#[test]
fn commands_are_read_with_their_reference() {
    let channel = channel_a;
    for (text, command, reference) in [
        (r#"{"type":"ping"}"#, Command::Ping, None),
        (r#" { "ref" : 1.50e1 , "type" : "ping" } "#, Command::Ping, Some("1.50e1")),
        (
            r#"{"type":"subscribe","channel":"a","ref":"x\u0041"}"#,
            Command::Subscribe { channel: channel(), since: Since::Latest },
            Some(r#""x\u0041""#),
        ),
        (
            r#"{"type":"subscribe","channel":"a","since":""}"#,
            Command::Subscribe { channel: channel(), since: Since::Latest },
            None,
        ),
        (
            r#"{"typ\u0065":"subscribe","channel":"\u0061","since":"k3x9q0-42"}"#,
            Command::Subscribe { channel: channel(), since: "k3x9q0-42".parse().unwrap() },
            None,
        ),
        (r#"{"type":"unsubscribe","channel":"a"}"#, Command::Unsubscribe { channel: channel() }, None),
        (r#"{"type":"authenticate","token":""}"#, Command::Authenticate { token: String::new() }, None),
        (
            r#"{"type":"publish","channel":"a","data":1,"event":"e","idempotency_key":"k"}"#,
            Command::Publish {
                channel: channel(),
                payload: payload::json("1".into()).unwrap(),
                event: Some("e".parse().unwrap()),
                idempotency_key: Some("k".parse().unwrap()),
            },
            None,
        ),
    ] {
        assert_eq!(parsed(text), (command, reference.map(str::to_owned)), "{text}");
    }
}

#[test]
fn data_keeps_its_bytes_and_a_string_is_text() {
    for (text, payload) in [
        ("\"data\":{\"n\": 1.0,\r\n\"n\":2}", payload::json("{\"n\": 1.0,\"n\":2}".into()).unwrap()),
        ("\"data\":null", payload::json("null".into()).unwrap()),
        ("\"data\":\"1\\n\"", payload::text("1\n".into()).unwrap()),
        ("\"data_base64\":\"AAE=\"", payload::binary(vec![0, 1].into())),
    ] {
        let frame = format!("{{\"type\":\"publish\",\"channel\":\"a\",{text}}}");
        assert_eq!(parsed(&frame).0, publish_of(payload), "{text}");
    }
}

#[test]
fn frames_that_are_no_commands_are_malformed() {
    for text in [
        "Hello Server!",
        "",
        "{",
        "1",
        "null",
        "[]",
        "\"ping\"",
        r#"{"type":"ping"} x"#,
        r#"{"type":"pong","ref":7}"#,
        r#"{"type":1,"ref":7}"#,
        r#"{"type":null,"ref":7}"#,
        r#"{"ref":7}"#,
        r#"{"type":"ping","ref":7,"extra":1}"#,
        r#"{"type":"ping","ref":7,"channel":"a"}"#,
        r#"{"type":"ping","ref":7,"type":"ping"}"#,
        r#"{"type":"subscribe","ref":7}"#,
        r#"{"type":"subscribe","ref":7,"channel":["a"]}"#,
        r#"{"type":"subscribe","ref":7,"channel":"a b","since":1}"#,
        r#"{"type":"subscribe","ref":7,"channel":"a","since":null}"#,
        r#"{"type":"subscribe","ref":7,"channel":"\ud800"}"#,
        r#"{"type":"authenticate","ref":7}"#,
        r#"{"type":"publish","ref":7,"channel":"a"}"#,
        r#"{"type":"publish","ref":7,"channel":"a","data":1,"data_base64":""}"#,
        r#"{"type":"publish","ref":7,"channel":"a","data_base64":7}"#,
        r#"{"type":"publish","ref":7,"channel":"a","data":1,"event":null}"#,
    ] {
        let reference = text.contains("\"ref\":7").then(|| "7".to_owned());
        assert_eq!(refused(text), (Code::InvalidCommand, true, reference), "{text}");
    }
}

#[test]
fn a_bad_value_in_a_command_is_refused_but_not_malformed() {
    let deep = format!(
        "{{\"type\":\"publish\",\"channel\":\"a\",\"ref\":7,\"data\":{}1{}}}",
        "[".repeat(129),
        "]".repeat(129)
    );
    for (text, code) in [
        (r#"{"type":"subscribe","ref":7,"channel":"a b"}"#, Code::InvalidChannel),
        (r#"{"type":"unsubscribe","ref":7,"channel":""}"#, Code::InvalidChannel),
        (r#"{"type":"subscribe","ref":7,"channel":"a","since":"latest,latest"}"#, Code::InvalidSince),
        (r#"{"type":"publish","ref":7,"channel":"a","data":1,"event":"open"}"#, Code::InvalidCommand),
        (r#"{"type":"publish","ref":7,"channel":"a","data":1,"idempotency_key":" "}"#, Code::InvalidCommand),
        (r#"{"type":"publish","ref":7,"channel":"a","data_base64":"AA"}"#, Code::InvalidCommand),
        (r#"{"type":"publish","ref":7,"channel":"a","data":"\udc00"}"#, Code::InvalidJson),
        (&deep, Code::InvalidJson),
    ] {
        assert_eq!(refused(text), (code, false, Some("7".to_owned())), "{text}");
    }
    let fault = parse(r#"{"type":"subscribe","channel":"a b"}"#).unwrap_err().fault;
    assert_eq!((fault.position, fault.parameter.as_deref()), (Some(1), Some("channel")));
}

#[test]
fn a_reference_is_a_number_or_string_of_64_bytes_of_json() {
    let with = |reference: &str| format!("{{\"ref\":{reference},\"type\":\"ping\"}}");
    let longest = "x".repeat(64);
    for good in [format!("\"{longest}\""), "\"\"".into(), "-0.0".into(), "9".repeat(64), "\"\\ud800\"".into()]
    {
        assert_eq!(parsed(&with(&good)).1, Some(good));
    }
    let escapes = format!("\"{}\"", "\\u0041".repeat(11));
    for bad in [&format!("\"{longest}x\""), &"9".repeat(65), &escapes, "null", "true", "[1]", "{}"] {
        assert_eq!(refused(&with(bad)), (Code::InvalidCommand, true, None), "{bad}");
    }
}

#[test]
fn what_is_sent_back_of_a_long_name_is_short() {
    for text in [
        format!("\"{}\"", "é".repeat(30_000)),
        format!("{{\"{}\":1}}", "é".repeat(30_000)),
        format!("{{\"type\":\"{}\"}}", "é".repeat(30_000)),
        format!("{{\"type\":\"subscribe\",\"channel\":\"a\",\"since\":\"{}\"}}", "é".repeat(30_000)),
    ] {
        assert!(parse(&text).unwrap_err().fault.detail.len() < 256);
    }
}

proptest! {
    #[test]
    fn no_text_makes_it_panic(text in ".*", json in r#"\{("(type|ref|data|channel)":("[a-z]{0,9}"|[0-9]|\[\]),?){0,4}\}"#) {
        let _ = parse(&text);
        let _ = parse(&json);
    }
}

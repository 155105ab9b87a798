//! Payloads from bytes: JSON against serde_json, kinds, and where things go wrong.

use proptest::prelude::*;
use serde_json::{Value, value::RawValue};

use super::*;

fn kept(text: &str) -> Result<String, Fault> {
    json(Bytes::copy_from_slice(text.as_bytes())).map(|payload| payload.as_str().to_owned())
}

#[test]
fn json_is_kept_byte_for_byte_without_line_breaks_between_tokens() {
    for (posted, stored) in [
        ("1", "1"),
        (" \t\r\n{\"a\" :\t1.0e+5 } \r\n", "{\"a\" :\t1.0e+5 }"),
        ("{\r\n  \"a\": [\n    1,\n    2\n  ]\r}", "{  \"a\": [    1,    2  ]}"),
        ("[\n]", "[]"),
        ("{\"a\":1,\"a\":2}", "{\"a\":1,\"a\":2}"),
        ("\"\\ud800 \\u0000 \\/\"", "\"\\ud800 \\u0000 \\/\""),
        ("-0", "-0"),
        ("123456789012345678901234567890.10E-400", "123456789012345678901234567890.10E-400"),
        ("\"\u{7f}\u{2028}\u{feff}é\"", "\"\u{7f}\u{2028}\u{feff}é\""),
        ("[[],{},[{}],null,true,false]", "[[],{},[{}],null,true,false]"),
    ] {
        assert_eq!(kept(posted).as_deref(), Ok(stored), "{posted}");
    }
}

#[test]
fn json_without_line_breaks_is_not_copied() {
    let posted = Bytes::from_static(b"  {\"a\": [1, 2]}\r\n");
    let payload = json(posted.clone()).unwrap();
    assert_eq!(payload.bytes().as_ptr(), posted[2..].as_ptr());
}

#[test]
fn what_is_no_json_is_refused_where_it_goes_wrong() {
    for (text, detail) in [
        ("", "expected a value at line 1, column 1"),
        ("\n ", "expected a value at line 2, column 2"),
        ("{\"a\":1,\n \"é\" 2}", "expected `:` at line 2, column 6"),
        ("[1,]", "expected a value at line 1, column 4"),
        ("[1 2]", "expected `,` or `]` at line 1, column 4"),
        ("{\"a\":1]", "expected `,` or `}` at line 1, column 7"),
        ("{a:1}", "expected a key in double quotes at line 1, column 2"),
        ("{,}", "expected a key in double quotes at line 1, column 2"),
        ("01", "expected nothing more after the value at line 1, column 2"),
        ("1.", "expected a digit at line 1, column 3"),
        ("-", "expected a digit at line 1, column 2"),
        ("1e+", "expected a digit at line 1, column 4"),
        (".5", "expected a value at line 1, column 1"),
        ("NaN", "expected a value at line 1, column 1"),
        ("nul", "expected a value at line 1, column 1"),
        ("'a'", "expected a value at line 1, column 1"),
        ("\"a\nb\"", "a control character in a string must be escaped at line 1, column 3"),
        ("\"\\x\"", "this is not an escape at line 1, column 2"),
        ("\"\\u12", "this is not an escape at line 1, column 2"),
        ("\"\\u12g4\"", "this is not an escape at line 1, column 2"),
        ("\"", "the string does not end at line 1, column 2"),
        ("{} {}", "expected nothing more after the value at line 1, column 4"),
        ("[", "expected a value at line 1, column 2"),
        ("]", "expected a value at line 1, column 1"),
        ("1\u{a0}", "expected nothing more after the value at line 1, column 2"),
        ("\u{feff}1", "a byte order mark is not part of JSON at line 1, column 1"),
    ] {
        let fault = kept(text).unwrap_err();
        assert_eq!((fault.code, fault.detail.as_str()), (Code::InvalidJson, detail), "{text}");
    }
}

#[test]
fn depth_is_bounded_at_128() {
    for (open, close) in [("[", "]"), ("{\"a\":", "}")] {
        let nested = |depth: usize| [open.repeat(depth), "1".into(), close.repeat(depth)].concat();
        assert!(kept(&nested(128)).is_ok());
        let fault = kept(&nested(129)).unwrap_err();
        assert_eq!(fault.position, Some(open.len() * 128));
        assert!(kept(&open.repeat(100_000)).is_err());
    }
    let alternating = ["[{\"a\":".repeat(64), "[]".into(), "}]".repeat(64)].concat();
    assert!(kept(&alternating).is_err());
    assert!(kept(&alternating.replace("[]", "1")).is_ok());
}

#[test]
fn bytes_that_are_not_utf8_are_refused_with_their_place() {
    let posted = Bytes::from_static(b"\"a\xff\"");
    let fault = json(posted.clone()).unwrap_err();
    assert_eq!(fault.detail, "this byte is not UTF-8 at line 1, column 3");
    for read in [text, form] {
        let fault = read(posted.clone()).unwrap_err();
        assert_eq!((fault.code, fault.position), (Code::InvalidBody, Some(2)));
    }
    assert_eq!(binary(posted.clone()).bytes(), &posted);
}

#[test]
fn a_form_or_a_raw_frame_is_json_where_it_parses_and_text_otherwise() {
    let deep = "[".repeat(129) + &"]".repeat(129);
    for (posted, kind, stored) in [
        (" {\"a\":\n1} ", Kind::Json, "{\"a\":1}"),
        ("\"x\"", Kind::Json, "\"x\""),
        ("42", Kind::Json, "42"),
        ("Hello Server!", Kind::Text, "Hello Server!"),
        (" a=1&b=2\r\n", Kind::Text, " a=1&b=2\r\n"),
        ("", Kind::Text, ""),
        ("\u{feff}1", Kind::Text, "\u{feff}1"),
        (&deep, Kind::Text, &deep),
    ] {
        let posted_as_form = form(Bytes::copy_from_slice(posted.as_bytes())).unwrap();
        assert_eq!((posted_as_form.kind(), posted_as_form.as_str()), (kind, stored), "{posted}");
        assert_eq!(from_socket_text(posted.to_owned()), posted_as_form);
    }
}

#[test]
fn data_of_an_item_is_text_json_or_bytes() {
    let raw = |text: &str| RawValue::from_string(text.to_owned()).unwrap();
    let from = |text: &str| from_raw(Some(&raw(text)), None);
    assert_eq!(from("\"a\\n\\u00e9\""), text("a\né".into()));
    assert_eq!(from("{\"a\":\n1}"), json("{\"a\":1}".into()));
    assert_eq!(from("null"), json("null".into()));
    assert_eq!(from_raw(None, Some("AP8=")), Ok(binary(Bytes::from_static(b"\0\xff"))));
    for (fault, code) in [
        (from("\"\\ud800\""), Code::InvalidJson),
        (from(&("[".repeat(129) + &"]".repeat(129))), Code::InvalidJson),
        (from_raw(None, Some("AP8")), Code::InvalidBody),
        (from_raw(None, Some("AP9=")), Code::InvalidBody),
        (from_raw(None, Some("A P8=")), Code::InvalidBody),
        (from_raw(None, Some("_-8=")), Code::InvalidBody),
        (from_raw(None, None), Code::InvalidBody),
        (from_raw(Some(&raw("1")), Some("")), Code::InvalidBody),
    ] {
        assert_eq!(fault.unwrap_err().code, code);
    }
}

/// JSON, and texts that are nearly JSON: tokens in any order, then a value with a byte changed.
fn nearly_json() -> impl Strategy<Value = String> {
    let token = prop::sample::select(vec![
        "{", "}", "[", "]", ",", ":", "\"", "\"a\"", "\"a\":", "\\", "\\u00", "\\ud800", "0", "-", "1",
        "1.5", ".", "e", "E+3", "true", "null", "fals", " ", "\n", "\r\n", "\t", "é", "\u{1}", "\u{2028}",
    ]);
    prop_oneof![
        prop::collection::vec(token, 0..12).prop_map(|tokens| tokens.concat()),
        (value(), any::<prop::sample::Index>(), any::<char>()).prop_map(|(value, at, c)| {
            let mut text: Vec<char> = serde_json::to_string_pretty(&value).unwrap().chars().collect();
            let at = at.index(text.len());
            text[at] = c;
            text.into_iter().collect()
        }),
        value().prop_map(|value| serde_json::to_string_pretty(&value).unwrap().replace('\n', "\r\n")),
    ]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(Value::Null),
        any::<bool>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        any::<f64>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
    ];
    leaf.prop_recursive(6, 40, 6, |inner| {
        prop_oneof![
            prop::collection::vec(inner.clone(), 0..6).prop_map(Value::from),
            prop::collection::hash_map(any::<String>(), inner, 0..6)
                .prop_map(|map| map.into_iter().collect()),
        ]
    })
}

/// Enough to find what is rare; `PROPTEST_CASES` asks for more.
fn cases() -> ProptestConfig {
    ProptestConfig::with_cases(ProptestConfig::default().cases.max(2000))
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn what_serde_json_reads_is_accepted_and_stays_what_it_was(text in nearly_json()) {
        let ours = kept(&text);
        prop_assert_eq!(ours.is_ok(), serde_json::from_str::<&RawValue>(&text).is_ok(), "{:?}", ours);
        if let Ok(kept) = ours {
            prop_assert!(!kept.contains(['\r', '\n']));
            prop_assert_eq!(kept.trim(), &kept);
            if let Ok(value) = serde_json::from_str::<Value>(&text) {
                prop_assert_eq!(serde_json::from_str::<Value>(&kept).unwrap(), value);
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        let bytes = Bytes::from(bytes);
        let _ = json(bytes.clone());
        let _ = form(bytes);
    }
}

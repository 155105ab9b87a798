//! The server's JSON objects, read without losing a byte of them: payloads and `ref` are compared
//! as text, and the order of the fields is checked in each object that any test sees.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

/// The order of the fields, by type.
const FIELDS: &[(&str, &[&str])] = &[
    ("message", &["type", "channel", "id", "time", "event", "data", "data_base64"]),
    ("subscribed", &["type", "channel", "position", "recovery", "ref"]),
    ("gap", &["type", "channel", "reason", "from", "to"]),
    ("unsubscribed", &["type", "channel", "code", "ref"]),
    ("published", &["type", "channel", "id", "duplicate", "ref"]),
    ("authenticated", &["type", "subject", "expires_at", "ref"]),
    ("pong", &["type", "ref"]),
    ("heartbeat", &["type", "time"]),
    ("error", &["type", "code", "title", "detail", "ref"]),
    ("goodbye", &["type", "code", "reconnect_after_ms"]),
];

/// An object's fields in their order, values as their exact text.
#[derive(Debug, Clone)]
pub struct Fields(pub Vec<(String, String)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Walk;
        impl<'de> Visitor<'de> for Walk {
            type Value = Fields;

            fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Box<RawValue>>()? {
                    fields.push((name, value.get().to_owned()));
                }
                Ok(Fields(fields))
            }
        }
        deserializer.deserialize_map(Walk)
    }
}

impl Fields {
    pub fn parse(text: &str) -> Self {
        serde_json::from_str(text).unwrap_or_else(|error| panic!("not an object ({error}): {text:?}"))
    }

    pub fn names(&self) -> Vec<&str> {
        self.0.iter().map(|(name, _)| name.as_str()).collect()
    }

    pub fn text(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(field, _)| field == name).map(|(_, text)| text.as_str())
    }

    pub fn string(&self, name: &str) -> String {
        let text = self.text(name).unwrap_or_else(|| panic!("no {name} in {self:?}"));
        serde_json::from_str(text).unwrap_or_else(|error| panic!("{name} is no string ({error}): {self:?}"))
    }
}

/// An object of the server's, its text untouched.
#[derive(Debug, Clone)]
pub struct Object {
    pub kind: String,
    pub fields: Fields,
    pub text: String,
}

impl Object {
    /// Reads an object and holds it to the order of fields that the contract fixes.
    pub fn parse(text: &str) -> Self {
        assert!(!text.contains(['\n', '\r']), "an object is one line: {text:?}");
        super::openapi::saw_object(text);
        let fields = Fields::parse(text);
        let kind = fields.string("type");
        let order =
            FIELDS.iter().find(|(name, _)| *name == kind).unwrap_or_else(|| panic!("unknown type: {text}")).1;
        let mut rest = order.iter();
        for name in fields.names() {
            assert!(rest.any(|expected| *expected == name), "{name} is unknown or out of order in {text}");
        }
        Self { kind, fields, text: text.to_owned() }
    }

    pub fn string(&self, name: &str) -> String {
        self.fields.string(name)
    }

    /// The text of `ref`, as it was sent.
    pub fn reference(&self) -> Option<&str> {
        self.fields.text("ref")
    }
}

/// A `message` object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    pub channel: String,
    pub id: String,
    pub time: u64,
    pub event: Option<String>,
    /// The exact text of `data`.
    pub data: Option<String>,
    pub data_base64: Option<String>,
    /// The whole object as it came.
    pub text: String,
}

impl Message {
    pub fn of(object: &Object) -> Self {
        assert_eq!(object.kind, "message", "wanted a message, got {}", object.text);
        let string = |name: &str| object.fields.text(name).map(|_| object.string(name));
        let message = Self {
            channel: object.string("channel"),
            id: object.string("id"),
            time: object.fields.text("time").expect("a time").parse().expect("a number for the time"),
            event: string("event"),
            data: object.fields.text("data").map(str::to_owned),
            data_base64: string("data_base64"),
            text: object.text.clone(),
        };
        assert!(message.data.is_some() != message.data_base64.is_some(), "one of both: {}", message.text);
        message
    }

    /// `data` where it is a string.
    pub fn string(&self) -> String {
        serde_json::from_str(self.data.as_deref().expect("data")).expect("data is a string")
    }

    /// `data` where it is a number.
    pub fn number(&self) -> u64 {
        self.data.as_deref().expect("data").parse().unwrap_or_else(|_| panic!("no number: {}", self.text))
    }
}

/// The two halves of a position.
pub fn split_position(position: &str) -> (&str, u64) {
    let (epoch, offset) = position.split_once('-').unwrap_or_else(|| panic!("no position: {position:?}"));
    let lower = epoch.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    assert!(lower && (epoch == "0" || (6..=12).contains(&epoch.len())), "no epoch: {position:?}");
    (epoch, offset.parse().unwrap_or_else(|_| panic!("no offset: {position:?}")))
}

/// A position of the same epoch, further or back.
pub fn at_offset(position: &str, offset: u64) -> String {
    format!("{}-{offset}", split_position(position).0)
}

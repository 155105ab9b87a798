//! A SHA-256 digest as an operator writes it.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use toml::Value;

/// 64 hex digits; none where the key is missing.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "String")]
pub struct Digest(Option<[u8; 32]>);

impl Digest {
    /// The bytes, where they were given.
    pub fn get(&self) -> Option<[u8; 32]> {
        self.0
    }

    /// Whether it was not given.
    pub fn is_missing(&self) -> bool {
        self.0.is_none()
    }

    fn parse(text: &str) -> Option<Self> {
        let mut digest = [0; 32];
        if text.len() != 2 * digest.len() || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return None;
        }
        for (at, byte) in digest.iter_mut().enumerate() {
            *byte = u8::from_str_radix(text.get(2 * at..2 * at + 2)?, 16).ok()?;
        }
        Some(Self(Some(digest)))
    }
}

impl TryFrom<Value> for Digest {
    type Error = &'static str;

    /// The sentence must not repeat what may be the key itself, put here by mistake.
    fn try_from(value: Value) -> Result<Self, Self::Error> {
        value.as_str().and_then(Self::parse).ok_or(
            "this is not a SHA-256: write its 64 hex digits, as `tidegate key` prints them, and never the key itself",
        )
    }
}

impl From<Digest> for String {
    fn from(digest: Digest) -> Self {
        digest.0.iter().flatten().map(|byte| format!("{byte:02x}")).collect()
    }
}

impl JsonSchema for Digest {
    fn schema_name() -> Cow<'static, str> {
        "Digest".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^[0-9a-fA-F]{64}$" })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_digest_is_64_hex_digits() {
        let text = "00ff5E".repeat(10) + "abcd";
        let digest = Digest::try_from(Value::from(text.as_str())).unwrap();
        assert_eq!(digest.get().unwrap()[..3], [0, 0xff, 0x5e]);
        assert_eq!(String::from(digest), text.to_lowercase());
        assert_eq!(Digest::default().get(), None);
    }

    #[test]
    fn what_is_no_digest_is_not_repeated() {
        for text in ["", "tg_secret", &"0".repeat(63), &"0".repeat(65), &"g".repeat(64), &"é".repeat(32)] {
            let sentence = Digest::try_from(Value::from(text)).unwrap_err();
            assert!(sentence.starts_with("this is not a SHA-256"), "{sentence}");
        }
        assert!(Digest::try_from(Value::from(12)).is_err());
    }
}

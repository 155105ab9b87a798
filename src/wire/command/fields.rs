//! The fields of a command, as they stand in its frame: known ones, each at most once.

use std::fmt;

use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::{Bad, Reference};

/// Defines the closed set: variant and name on the wire.
macro_rules! fields {
    ($($variant:ident $name:literal,)*) => {
        /// A field that some command has.
        #[derive(Clone, Copy, PartialEq, Eq)]
        pub(super) enum Field { $($variant,)* }

        impl Field {
            const ALL: &'static [Field] = &[$(Field::$variant,)*];

            pub(super) fn name(self) -> &'static str {
                match self { $(Field::$variant => $name,)* }
            }
        }
    };
}

fields! {
    Type "type",
    Ref "ref",
    Channel "channel",
    Since "since",
    Data "data",
    DataBase64 "data_base64",
    Event "event",
    IdempotencyKey "idempotency_key",
    Token "token",
}

/// The values of the fields, by their place in [`Field::ALL`].
#[derive(Default)]
pub(super) struct Fields<'a> {
    values: [Option<&'a RawValue>; Field::ALL.len()],
    /// The first field that is unknown or there twice.
    wrong: Option<String>,
}

impl<'a> Fields<'a> {
    /// Reads a frame, or says why it is no command; and its `ref`, which an unknown field does not hide.
    pub(super) fn read(text: &'a str) -> (Result<Self, String>, Option<Reference>) {
        let mut fields: Self = match serde_json::from_str(text) {
            Ok(fields) => fields,
            // serde_json says what it found instead of an object, in full: that may be long.
            Err(error) if error.is_data() => {
                return (Err("a command is a JSON object".to_owned()), None);
            }
            Err(error) => return (Err(format!("a command is a JSON object: {error}")), None),
        };
        let sent = fields.get(Field::Ref);
        let reference = sent.and_then(|sent| Reference::from_json(sent.get()));
        match (fields.wrong.take(), sent, &reference) {
            (Some(wrong), _, _) => (Err(wrong), reference),
            (None, Some(_), None) => {
                let most = Reference::MAX_LEN;
                let wrong = format!("`ref` is not a number or string of at most {most} bytes of JSON");
                (Err(wrong), None)
            }
            (None, _, _) => (Ok(fields), reference),
        }
    }

    /// Refuses fields that the command `kind` does not have.
    pub(super) fn only(&self, kind: &str, known: &[Field]) -> Result<(), Bad> {
        let everywhere = [Field::Type, Field::Ref];
        let extra = Field::ALL.iter().find(|field| {
            self.get(**field).is_some() && !known.contains(field) && !everywhere.contains(field)
        });
        match extra {
            Some(extra) => Err(Bad::Frame(format!("`{kind}` has no field `{}`", extra.name()))),
            None => Ok(()),
        }
    }

    /// A value as it stands in the frame.
    pub(super) fn get(&self, field: Field) -> Option<&'a RawValue> {
        self.values[field as usize]
    }

    /// A string that must be there.
    pub(super) fn text(&self, field: Field) -> Result<String, Bad> {
        let missing = || Bad::Frame(format!("the field `{}` is missing", field.name()));
        self.optional_text(field)?.ok_or_else(missing)
    }

    /// A string that may be there.
    pub(super) fn optional_text(&self, field: Field) -> Result<Option<String>, Bad> {
        let value = self.get(field).map(|value| serde_json::from_str(value.get()));
        let wrong = |_| Bad::Frame(format!("the field `{}` is not a string", field.name()));
        value.transpose().map_err(wrong)
    }

    fn put(&mut self, field: Field, value: &'a RawValue) {
        if self.values[field as usize].replace(value).is_some() {
            self.refuse(format!("the field `{}` is there twice", field.name()));
        }
    }

    fn refuse(&mut self, wrong: String) {
        self.wrong.get_or_insert(wrong);
    }
}

impl<'de> Deserialize<'de> for Fields<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Frame)
    }
}

/// The visitor of a frame's object.
struct Frame;

impl<'de> Visitor<'de> for Frame {
    type Value = Fields<'de>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields<'de>, A::Error> {
        let mut fields = Fields::default();
        while let Some(name) = map.next_key::<String>()? {
            match Field::ALL.iter().find(|field| field.name() == name) {
                Some(field) => fields.put(*field, map.next_value()?),
                None => {
                    map.next_value::<IgnoredAny>()?;
                    fields.refuse(format!("no command has a field `{}`", shown(&name)));
                }
            }
        }
        Ok(fields)
    }
}

/// As much of what a client sent as is good to send back.
pub(super) fn shown(text: &str) -> &str {
    &text[..text.floor_char_boundary(64)]
}

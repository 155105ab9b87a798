//! What a client says on a WebSocket.

mod fields;
#[cfg(test)]
mod tests;

use std::{error::Error, str::FromStr};

use self::fields::{Field, Fields};
use crate::{
    channel::Channel,
    fault::{Code, Fault},
    payload,
    position::Since,
    publication::{EventName, IdempotencyKey, Payload},
};

/// A command, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Start a subscription.
    Subscribe {
        /// To what.
        channel: Channel,
        /// From where; `latest` unless said. It may be a second that is to come.
        since: Since,
    },
    /// End a subscription.
    Unsubscribe {
        /// From what.
        channel: Channel,
    },
    /// Publish a message.
    Publish {
        /// Where.
        channel: Channel,
        /// What.
        payload: Payload,
        /// The name of the event, if any.
        event: Option<EventName>,
        /// Makes a repeated publish harmless, if given.
        idempotency_key: Option<IdempotencyKey>,
    },
    /// Present a credential.
    Authenticate {
        /// The token as it was sent, unchecked.
        token: String,
    },
    /// Ask for a `pong`.
    Ping,
}

/// A command's `ref`, a JSON number or string, kept as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Reference(Box<str>);

/// A frame that is not obeyed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// What is wrong.
    pub fault: Fault,
    /// The frame's `ref`, if it could be read.
    pub reference: Option<Reference>,
    /// It was no command at all: the client is counted as one that does not know the protocol.
    pub malformed: bool,
}

/// Why a frame is no command, or which value of a command is bad.
enum Bad {
    Frame(String),
    Value(Fault),
}

impl Reference {
    /// The longest, in bytes of JSON text without the quotes.
    pub const MAX_LEN: usize = 64;

    /// From a JSON value; `None` where it is neither number nor string, or too long.
    fn from_json(json: &str) -> Option<Self> {
        let inside = match json.as_bytes() {
            [b'"', inside @ .., b'"'] => inside,
            number @ [b'-' | b'0'..=b'9', ..] => number,
            _ => return None,
        };
        (inside.len() <= Self::MAX_LEN).then(|| Self(json.into()))
    }

    /// The reference as JSON, byte for byte as it was sent.
    #[must_use]
    pub fn as_json(&self) -> &str {
        &self.0
    }
}

/// Reads a text frame.
///
/// # Errors
/// A [`Refusal`] to be answered with an `error` object.
pub fn parse(text: &str) -> Result<(Command, Option<Reference>), Refusal> {
    let (fields, reference) = Fields::read(text);
    let command = fields.map_err(Bad::Frame).and_then(|fields| command(&fields));
    match command {
        Ok(command) => Ok((command, reference)),
        Err(bad) => {
            let malformed = matches!(bad, Bad::Frame(_));
            let fault = match bad {
                Bad::Frame(detail) => Fault::new(Code::InvalidCommand, detail),
                Bad::Value(fault) => fault,
            };
            Err(Refusal { fault, reference, malformed })
        }
    }
}

fn command(fields: &Fields<'_>) -> Result<Command, Bad> {
    let kind = fields.text(Field::Type)?;
    match kind.as_str() {
        "subscribe" => {
            fields.only("subscribe", &[Field::Channel, Field::Since])?;
            subscribe(fields)
        }
        "unsubscribe" => {
            fields.only("unsubscribe", &[Field::Channel])?;
            let channel = channel(&fields.text(Field::Channel)?)?;
            Ok(Command::Unsubscribe { channel })
        }
        "publish" => {
            let known = [Field::Channel, Field::Data, Field::DataBase64, Field::Event, Field::IdempotencyKey];
            fields.only("publish", &known)?;
            publish(fields)
        }
        "authenticate" => {
            fields.only("authenticate", &[Field::Token])?;
            let token = fields.text(Field::Token)?;
            Ok(Command::Authenticate { token })
        }
        "ping" => {
            fields.only("ping", &[])?;
            Ok(Command::Ping)
        }
        other => Err(Bad::Frame(format!(
            "`{}` is no type of a command; there are subscribe, unsubscribe, publish, authenticate and ping",
            fields::shown(other)
        ))),
    }
}

fn subscribe(fields: &Fields<'_>) -> Result<Command, Bad> {
    let name = fields.text(Field::Channel)?;
    let since = fields.optional_text(Field::Since)?;
    let channel = channel(&name)?;
    // As in a URL: what is empty counts as absent.
    let since = match since.filter(|since| !since.is_empty()) {
        None => Since::Latest,
        Some(since) => since.parse().map_err(|error| {
            let detail = format!("`since` is `{}`; {error}", fields::shown(&since));
            Bad::Value(Fault::new(Code::InvalidSince, detail).parameter("since"))
        })?,
    };
    Ok(Command::Subscribe { channel, since })
}

fn publish(fields: &Fields<'_>) -> Result<Command, Bad> {
    let name = fields.text(Field::Channel)?;
    let event = fields.optional_text(Field::Event)?;
    let key = fields.optional_text(Field::IdempotencyKey)?;
    let data = fields.get(Field::Data);
    let data_base64 = fields.optional_text(Field::DataBase64)?;
    if data.is_some() == data_base64.is_some() {
        return Err(Bad::Frame("`publish` has either `data` or `data_base64`".to_owned()));
    }
    let channel = channel(&name)?;
    Ok(Command::Publish {
        channel,
        event: checked(Field::Event, event)?,
        idempotency_key: checked(Field::IdempotencyKey, key)?,
        payload: payload::from_raw(data, data_base64.as_deref()).map_err(|mut fault| {
            if fault.code == Code::InvalidBody {
                fault.code = Code::InvalidCommand;
            }
            Bad::Value(fault)
        })?,
    })
}

fn channel(name: &str) -> Result<Channel, Bad> {
    name.parse().map_err(|error| Bad::Value(Fault::from(error).parameter("channel")))
}

/// A text of a closed grammar, where it is given.
fn checked<T: FromStr<Err: Error>>(field: Field, text: Option<String>) -> Result<Option<T>, Bad> {
    let parsed = text.map(|text| text.parse::<T>()).transpose();
    parsed.map_err(|error| {
        let fault = Fault::new(Code::InvalidCommand, error.to_string());
        Bad::Value(fault.parameter(field.name()))
    })
}

//! From the bytes of a body, a frame or a batch item to a [`Payload`] that is what its kind says. How large
//! one may be is for the caller to say, of the payload as it is stored.

mod content_type;
mod json;
#[cfg(test)]
mod tests;

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use serde_json::value::RawValue;

pub use self::content_type::{ContentType, content_type};
use self::json::{Kept, Wrong};
use crate::{
    fault::{Code, Fault},
    publication::{Kind, Payload},
};

/// JSON, byte for byte but for white space around it and CR and LF between its tokens.
///
/// # Errors
/// `invalid_json`, with line and column.
pub fn json(bytes: Bytes) -> Result<Payload, Fault> {
    let text = match std::str::from_utf8(&bytes) {
        Ok(text) => text,
        Err(error) => {
            let what = "this byte is not UTF-8";
            return Err(invalid_json(&bytes, &Wrong { at: error.valid_up_to(), what }));
        }
    };
    match json::check(text) {
        Ok(kept) => Ok(keep(&bytes, kept)),
        Err(wrong) => Err(invalid_json(&bytes, &wrong)),
    }
}

/// Text.
///
/// # Errors
/// `invalid_body` where it is not UTF-8.
pub fn text(bytes: Bytes) -> Result<Payload, Fault> {
    utf8(&bytes)?;
    Ok(Payload::new(Kind::Text, bytes))
}

/// Bytes of any kind.
#[must_use]
pub fn binary(bytes: Bytes) -> Payload {
    Payload::new(Kind::Bytes, bytes)
}

/// JSON where it parses, else text.
///
/// # Errors
/// `invalid_body` where it is not UTF-8.
pub fn form(bytes: Bytes) -> Result<Payload, Fault> {
    match json::check(utf8(&bytes)?) {
        Ok(kept) => Ok(keep(&bytes, kept)),
        Err(_) => Ok(Payload::new(Kind::Text, bytes)),
    }
}

/// The text that a raw WebSocket sent: JSON where it parses, else text.
#[must_use]
pub fn from_socket_text(text: String) -> Payload {
    match json::check(&text) {
        Ok(kept) => keep(&text.into(), kept),
        Err(_) => Payload::new(Kind::Text, text.into()),
    }
}

/// The payload of a command or of a batch item: a string in `data` is text, anything else there is JSON.
///
/// # Errors
/// `invalid_body` where neither or both are given, or `data_base64` is not standard base64 with its padding;
/// `invalid_json` where `data` is nested too deeply or is a string with half of a surrogate pair.
pub(crate) fn from_raw(data: Option<&RawValue>, data_base64: Option<&str>) -> Result<Payload, Fault> {
    match (data, data_base64) {
        (Some(data), None) => from_data(data.get()).map_err(|fault| fault.parameter("data")),
        (None, Some(text)) => match BASE64_STANDARD.decode(text) {
            Ok(bytes) => Ok(binary(bytes.into())),
            Err(error) => Err(Fault::new(
                Code::InvalidBody,
                format!("`data_base64` is not standard base64 with its padding: {error}"),
            )
            .parameter("data_base64")),
        },
        (Some(_), Some(_)) => Err(Fault::new(
            Code::InvalidBody,
            "`data` and `data_base64` are both given; a message has one of them",
        )),
        (None, None) => Err(Fault::new(
            Code::InvalidBody,
            "neither `data` nor `data_base64` is given; a message has one of them",
        )),
    }
}

fn from_data(data: &str) -> Result<Payload, Fault> {
    if !data.starts_with('"') {
        return json(Bytes::copy_from_slice(data.as_bytes()));
    }
    match serde_json::from_str::<String>(data) {
        Ok(text) => Ok(Payload::new(Kind::Text, text.into())),
        Err(error) => {
            Err(Fault::new(Code::InvalidJson, format!("the string in `data` cannot be text: {error}")))
        }
    }
}

fn keep(text: &Bytes, kept: Kept) -> Payload {
    let bytes = match kept {
        Kept::Slice(range) if range.len() >= text.len() / 2 => text.slice(range),
        // A slice would keep what it was cut from in memory for as long as the message lives.
        Kept::Slice(range) => Bytes::copy_from_slice(&text[range]),
        Kept::Copy(copy) => copy.into(),
    };
    Payload::new(Kind::Json, bytes)
}

fn utf8(bytes: &Bytes) -> Result<&str, Fault> {
    std::str::from_utf8(bytes).map_err(|error| {
        let at = error.valid_up_to();
        Fault::new(Code::InvalidBody, format!("byte {at} of the body is not UTF-8")).position(Some(at))
    })
}

/// Lines end with LF, and columns count characters, as in most editors.
fn invalid_json(bytes: &[u8], wrong: &Wrong) -> Fault {
    let before = &bytes[..wrong.at];
    let line = 1 + before.iter().filter(|b| **b == b'\n').count();
    let in_line = before.rsplit(|b| *b == b'\n').next().unwrap_or_default();
    let column = 1 + String::from_utf8_lossy(in_line).chars().count();
    let detail = format!("{} at line {line}, column {column}", wrong.what);
    Fault::new(Code::InvalidJson, detail).position(Some(wrong.at))
}

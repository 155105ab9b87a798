//! JSON in the requests and answers of the internal listener. Messages themselves pass through
//! [`crate::payload`], byte for byte; what is read here is what stands around them.

use std::{fmt, marker::PhantomData};

use axum::response::Response;
use http::{HeaderValue, StatusCode, header};
use serde::{
    Deserialize, Deserializer,
    de::{IgnoredAny, SeqAccess, Visitor},
};
use serde_json::{error::Category, value::RawValue};

use crate::fault::{Code, Fault};

/// An answer that no cache may keep.
pub fn answer(status: StatusCode, body: impl Into<axum::body::Body>) -> Response {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

/// Reads a document, an object.
///
/// # Errors
/// `invalid_json` where it is none, with line and column; `invalid_body` where it is another than expected.
pub fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, Fault> {
    if is_object(body) {
        return serde_json::from_slice(body).map_err(|error| fault(&error));
    }
    serde_json::from_slice::<IgnoredAny>(body).map_err(|error| fault(&error))?;
    Err(Fault::new(Code::InvalidBody, "the body is JSON, but no object"))
}

fn fault(error: &serde_json::Error) -> Fault {
    let code = match error.classify() {
        Category::Data => Code::InvalidBody,
        Category::Io | Category::Syntax | Category::Eof => Code::InvalidJson,
    };
    let (line, column) = (error.line(), error.column().max(1));
    Fault::new(code, format!("{} at line {line}, column {column}", reason(error)))
}

/// Whether a text can be an object. serde would take an array as well, for the fields in their order.
pub fn is_object(json: &[u8]) -> bool {
    json.trim_ascii_start().starts_with(b"{")
}

/// What an error of `serde_json` says, without its place.
pub fn reason(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let place = text.rfind(" at line ").unwrap_or(text.len());
    text[..place].to_owned()
}

/// A list that keeps one element more than `MAX` and only counts the rest: a short text must not become a
/// large allocation.
#[derive(Debug)]
pub struct Bounded<T, const MAX: usize> {
    /// The first elements.
    pub kept: Vec<T>,
    /// How many there were.
    pub count: usize,
}

impl<'de, T: Deserialize<'de>, const MAX: usize> Deserialize<'de> for Bounded<T, MAX> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_seq(BoundedVisitor(PhantomData))
    }
}

struct BoundedVisitor<T, const MAX: usize>(PhantomData<T>);

impl<'de, T: Deserialize<'de>, const MAX: usize> Visitor<'de> for BoundedVisitor<T, MAX> {
    type Value = Bounded<T, MAX>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an array")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut elements: A) -> Result<Self::Value, A::Error> {
        let mut kept = Vec::new();
        while kept.len() <= MAX {
            match elements.next_element()? {
                Some(element) => kept.push(element),
                None => return Ok(Bounded { count: kept.len(), kept }),
            }
        }
        let mut count = kept.len();
        while elements.next_element::<IgnoredAny>()?.is_some() {
            count += 1;
        }
        Ok(Bounded { kept, count })
    }
}

/// A value that may be `null`, where an [`Option`] alone would take that for an absent field.
pub fn present<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<&'de RawValue>, D::Error> {
    <&RawValue>::deserialize(deserializer).map(Some)
}

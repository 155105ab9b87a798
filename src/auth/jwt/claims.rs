//! The claims that are read of a token whose signature holds.

use serde::de::MapAccess;
use serde_json::Value;

use super::strict::Members;
use crate::{
    auth::token::{Claims, TokenError},
    pattern::Patterns,
};

/// The end of the year 9999. A later `exp` was written in milliseconds, and would never expire.
const LATEST: u64 = 253_402_300_799;
/// It stands in logs, answers and the memory of each connection.
const LONGEST_SUBJECT: usize = 256;

/// The claims as they were written.
#[derive(Default)]
pub struct Given {
    subject: Option<Value>,
    issuer: Option<Value>,
    expires_at: Option<Value>,
    channels: Option<Value>,
    publish: Option<Value>,
}

impl Members for Given {
    fn take<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        let place = match name {
            "sub" => &mut self.subject,
            "iss" => &mut self.issuer,
            "exp" => &mut self.expires_at,
            "channels" => &mut self.channels,
            "publish" => &mut self.publish,
            // Not `IgnoredAny`, which passes over any depth.
            _ => return map.next_value::<Value>().map(drop),
        };
        *place = Some(map.next_value()?);
        Ok(())
    }
}

impl Given {
    /// Checks each.
    ///
    /// # Errors
    /// One is missing, or is not what it has to be.
    pub fn check(self) -> Result<Claims, TokenError> {
        // RFC 7519 §4.1.1; the library would take a list as well.
        if !self.issuer.is_none_or(|issuer| issuer.is_string()) {
            return Err(TokenError::Invalid("`iss` is not text"));
        }
        Ok(Claims {
            subject: subject(self.subject).map_err(TokenError::Invalid)?,
            expires_at: expires_at(self.expires_at.as_ref()).map_err(TokenError::Invalid)?,
            channels: patterns(self.channels)
                .ok_or(TokenError::Invalid("`channels` is not a list of channel patterns"))?,
            publish: patterns(self.publish)
                .ok_or(TokenError::Invalid("`publish` is not a list of channel patterns"))?,
        })
    }
}

fn subject(given: Option<Value>) -> Result<Box<str>, &'static str> {
    match given {
        None => Err("it has no `sub`"),
        Some(Value::String(text)) if text.is_empty() => Err("`sub` is empty"),
        Some(Value::String(text)) if text.len() > LONGEST_SUBJECT => Err("`sub` is longer than 256 bytes"),
        Some(Value::String(text)) if text.contains(char::is_control) => {
            Err("`sub` has a control character in it")
        }
        Some(Value::String(text)) => Ok(text.into()),
        Some(_) => Err("`sub` is not text"),
    }
}

/// Parts of a second are dropped: whoever is told the time must not come later than it.
fn expires_at(given: Option<&Value>) -> Result<u64, &'static str> {
    let Some(value) = given else {
        return Err("it has no `exp`");
    };
    let seconds = match (value.as_u64(), value.as_f64()) {
        (Some(seconds), _) => seconds,
        // Of a negative number and one beyond all years `as` makes the nearest.
        (None, Some(seconds)) => seconds as u64,
        (None, None) => return Err("`exp` is not a number"),
    };
    if seconds > LATEST {
        return Err("`exp` is beyond the year 9999: it is in seconds, not in milliseconds");
    }
    Ok(seconds)
}

/// None where the claim is missing; and `None` where it is no list of patterns.
fn patterns(given: Option<Value>) -> Option<Patterns> {
    match given {
        None => Some(Patterns::default()),
        Some(Value::Array(list)) => list.iter().map(|text| text.as_str()?.parse().ok()).collect(),
        Some(_) => None,
    }
}

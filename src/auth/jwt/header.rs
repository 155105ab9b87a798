//! What a token says of itself. Nobody vouches for it yet, so it is good for one thing: to find the key among ours.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde::de::MapAccess;
use serde_json::Value;

use super::strict::{Members, Strict};
use crate::auth::token::TokenError;

/// Larger ones carry what belongs elsewhere, and checking them is work that anybody could ask for.
const LONGEST: usize = 8 * 1024;

/// The part of a header that counts: `jwk`, `jku`, `x5u` and `x5c`, by which a token would bring its own key, do not.
#[derive(Debug)]
pub struct Header {
    /// `alg`.
    pub algorithm: Algorithm,
    /// `kid`: a name to compare, never one to look up elsewhere.
    pub key_id: Option<String>,
}

#[derive(Default)]
struct Given {
    algorithm: Option<Value>,
    key_id: Option<Value>,
    critical: bool,
}

impl Members for Given {
    fn take<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error> {
        match name {
            "alg" => self.algorithm = Some(map.next_value()?),
            "kid" => self.key_id = Some(map.next_value()?),
            _ => {
                self.critical |= name == "crit";
                map.next_value::<Value>()?;
            }
        }
        Ok(())
    }
}

impl Header {
    /// Reads it.
    ///
    /// # Errors
    /// The token has not the form of one, or demands what is not done here.
    pub fn of(token: &str) -> Result<Self, TokenError> {
        let invalid = |why| Err(TokenError::Invalid(why));
        if token.len() > LONGEST {
            return invalid("it is longer than 8 KiB");
        }
        let mut parts = token.split('.');
        let (Some(header), Some(_), Some(signature), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return invalid("it is not three parts with dots between");
        };
        let Ok(json) = URL_SAFE_NO_PAD.decode(header) else {
            return invalid("its header is not base64url");
        };
        let Ok(given) = serde_json::from_slice::<Strict<Given>>(&json) else {
            return invalid("its header is not a JSON object");
        };
        let Some(given) = given.once() else {
            return invalid("its header has a name twice");
        };
        // Whoever signed it demands that it be refused where an extension is not understood (RFC 7515 §4.1.11).
        if given.critical {
            return invalid("its header has `crit`, and no extension is understood here");
        }
        let algorithm = match given.algorithm.as_ref().and_then(Value::as_str).map(str::parse) {
            Some(Ok(algorithm)) => algorithm,
            Some(Err(_)) => return invalid("its `alg` is none of HS, RS, PS, ES and EdDSA"),
            None => return invalid("its header has no `alg`"),
        };
        if signature.is_empty() {
            return invalid("it is not signed");
        }
        let key_id = match given.key_id {
            None => None,
            Some(Value::String(name)) => Some(name),
            Some(_) => return invalid("its `kid` is not text"),
        };
        Ok(Self { algorithm, key_id })
    }
}

//! A JWKS document as keys. Keys that are of no use here are passed over: a set serves more than one purpose.

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;
use serde_json::Value;

use super::fetch::Trouble;
use crate::{
    auth::{
        jwt::{BAD_ALGORITHM, BAD_SIGNATURE, Header, Key, Kind},
        token::{Claims, TokenError},
    },
    config::Jwt,
};

/// No issuer has more at a time, and a token that names no key is tried with each.
const MOST: usize = 32;

#[derive(Deserialize)]
struct Document {
    keys: Vec<Value>,
}

struct Named {
    id: Option<String>,
    key: Key,
}

/// The keys of an issuer that tokens can be checked by; at least one.
pub struct KeySet(Vec<Named>);

impl KeySet {
    /// Reads a document.
    ///
    /// # Errors
    /// It is no JWKS, or has no key for tokens in it.
    pub fn parse(document: &[u8], jwt: &Jwt) -> Result<Self, Trouble> {
        let Ok(document) = serde_json::from_slice::<Document>(document) else {
            return Err(Trouble::Bad("the answer is not a JWKS: it has no list of \"keys\"".into()));
        };
        let keys: Vec<_> = document.keys.iter().filter_map(|key| named(key, jwt)).take(MOST).collect();
        if keys.is_empty() {
            let all = document.keys.len();
            return Err(Trouble::Bad(format!(
                "none of its {all} keys can check a token: they are for RSA (2048 bits or more), P-256, P-384 or \
                 Ed25519, with \"use\": \"sig\", and of auth.jwt.algorithms where that is set"
            )));
        }
        Ok(Self(keys))
    }

    /// Checks a token by the key that it names, or by any where it names none; `None`: there is no such key.
    pub fn verify(&self, token: &str, header: &Header) -> Option<Result<Claims, TokenError>> {
        let is_meant = |named: &&Named| header.key_id.is_none() || named.id == header.key_id;
        let mut meant = self.0.iter().filter(is_meant).peekable();
        meant.peek()?;
        let mut outcome = Err(BAD_ALGORITHM);
        // Two keys of different kinds may have one name (RFC 7517 §4.5).
        for named in meant.filter(|named| named.key.takes(header.algorithm)) {
            outcome = named.key.verify(token, header);
            if outcome != Err(BAD_SIGNATURE) {
                break;
            }
        }
        Some(outcome)
    }
}

fn named(key: &Value, jwt: &Jwt) -> Option<Named> {
    let jwk = Jwk::deserialize(key).ok()?;
    let common = &jwk.common;
    let signs = common.public_key_use.as_ref().is_none_or(|purpose| *purpose == PublicKeyUse::Signature);
    let operations = common.key_operations.as_ref();
    let checks = operations.is_none_or(|operations| operations.contains(&KeyOperations::Verify));
    if !signs || !checks {
        return None;
    }
    let key = Key::new(kind(&jwk)?, DecodingKey::from_jwk(&jwk).ok()?, jwt)?;
    let key = match common.key_algorithm {
        None => key,
        Some(algorithm) => key.only(Algorithm::try_from(algorithm).ok()?)?,
    };
    Some(Named { id: common.key_id.clone(), key })
}

/// The kind, of a key that is public and large enough. A secret in a JWKS is none.
fn kind(jwk: &Jwk) -> Option<Kind> {
    match &jwk.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            let modulus = URL_SAFE_NO_PAD.decode(&rsa.n).ok()?;
            let bytes = modulus.iter().skip_while(|byte| **byte == 0).count();
            (256..=1024).contains(&bytes).then_some(Kind::Rsa)
        }
        AlgorithmParameters::EllipticCurve(point) => match point.curve {
            EllipticCurve::P256 => Some(Kind::P256),
            EllipticCurve::P384 => Some(Kind::P384),
            _ => None,
        },
        AlgorithmParameters::OctetKeyPair(pair) => {
            (pair.curve == EllipticCurve::Ed25519).then_some(Kind::Ed25519)
        }
        _ => None,
    }
}

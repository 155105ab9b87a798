//! Verifies the tokens of subscribers: JSON Web Tokens (RFC 7519) under the rules of RFC 8725. What a token is
//! checked by is the configuration's word alone; the token says no more than which of our keys it means.
//!
//! jsonwebtoken checks signature, times, audience and issuer. Around it stands what it leaves open: no name twice
//! (`strict`), no algorithm but the key's own (`key`), and the claims that are ours (`claims`).

mod claims;
mod header;
mod key;
mod key_file;
mod sign;
mod strict;

use std::sync::Arc;

use arc_swap::ArcSwap;

pub use self::sign::{Signer, Wanted};
pub(super) use self::{
    header::Header,
    key::{BAD_ALGORITHM, BAD_SIGNATURE, Key, Kind},
};
use super::{
    jwks::Jwks,
    token::{Claims, TokenError},
};
use crate::{
    config::{Jwt, KeySource},
    metrics::Metrics,
};

/// Keys that no token can be checked by. The sentence names the configuration's key, and the file or URL.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct KeyError(pub(super) String);

/// Says whose a token is, and what it grants. Clones share the keys.
#[derive(Clone, Debug)]
pub struct Verifier(Arc<Keys>);

#[derive(Debug)]
enum Keys {
    /// One, from a file that may be read again, under rules that stay.
    File(ArcSwap<Key>, Jwt),
    /// The issuer's, which change.
    Issuer(Jwks),
}

/// Whether the key file, where there is one, holds a key that fits the algorithms. Asks nobody over the network.
///
/// # Errors
/// What is wrong, with the path.
pub fn check(jwt: &Jwt) -> Result<(), KeyError> {
    match &jwt.source {
        KeySource::File(path) => key_file::read(path, jwt).map(drop),
        KeySource::Url(_) => Ok(()),
    }
}

impl Verifier {
    /// Reads the key file. The keys of a URL are first fetched by [`Verifier::first_keys`].
    ///
    /// # Errors
    /// What is wrong with the file, with its path.
    pub fn new(jwt: &Jwt, metrics: &Arc<Metrics>) -> Result<Self, KeyError> {
        let keys = match &jwt.source {
            KeySource::File(path) => {
                Keys::File(ArcSwap::from_pointee(key_file::read(path, jwt)?), jwt.clone())
            }
            KeySource::Url(url) => Keys::Issuer(Jwks::new(url, jwt, Arc::clone(metrics))?),
        };
        Ok(Self(Arc::new(keys)))
    }

    /// Reads the key file that is named now, where keys come from a file. An issuer's keys change by themselves.
    ///
    /// # Errors
    /// What is wrong with the file, with its path; the key before stays.
    pub fn reload(&self, source: &KeySource) -> Result<(), KeyError> {
        if let (Keys::File(key, jwt), KeySource::File(path)) = (&*self.0, source) {
            key.store(Arc::new(key_file::read(path, jwt)?));
        }
        Ok(())
    }

    /// Waits until the issuer's keys are there, 5 s at most.
    ///
    /// # Errors
    /// Why they cannot be had, with the URL.
    pub async fn first_keys(&self) -> Result<(), KeyError> {
        match &*self.0 {
            Keys::File(..) => Ok(()),
            Keys::Issuer(jwks) => jwks.first().await,
        }
    }

    /// Keeps the issuer's keys fresh until it is dropped.
    pub async fn keep_fresh(self) {
        match &*self.0 {
            Keys::File(..) => {}
            Keys::Issuer(jwks) => jwks.keep_fresh().await,
        }
    }

    /// Checks a token. It may take as long as a fetch of the issuer's keys, where it names one that is new.
    ///
    /// # Errors
    /// Why it does not hold; nothing of the token is in it.
    pub async fn verify(&self, token: &str) -> Result<Claims, TokenError> {
        let header = Header::of(token)?;
        match &*self.0 {
            Keys::File(key, _) => key.load().verify(token, &header),
            // Boxed, or every subscriber's request has room for one to the issuer.
            Keys::Issuer(jwks) => Box::pin(jwks.verify(token, &header)).await,
        }
    }
}

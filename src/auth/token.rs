//! What a subscriber's token says once it is verified.

use crate::pattern::Patterns;

/// The claims that Tidegate reads, of a token that holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claims {
    /// `sub`: who it is; `POST /v1/disconnect` takes it.
    pub subject: Box<str>,
    /// `exp`, in seconds since 1970: when the connection must have shown another token.
    pub expires_at: u64,
    /// `channels`: what may be subscribed to.
    pub channels: Patterns,
    /// `publish`: what may be published to.
    pub publish: Patterns,
}

/// Why a token does not hold. Nothing of the token is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    /// It held once.
    #[error("the token has expired")]
    Expired,
    /// It never held here; the sentence says which rule it breaks, never a value.
    #[error("the token is not valid: {0}")]
    Invalid(&'static str),
    /// The issuer's keys cannot be had at the moment, so nobody can say.
    #[error("the issuer's keys cannot be fetched at the moment")]
    Unavailable,
}

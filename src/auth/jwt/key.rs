//! One key, and all that a token must be to hold under it.

use std::collections::HashSet;

use jsonwebtoken::{
    Algorithm, DecodingKey, Validation, decode,
    errors::{Error, ErrorKind},
};

use super::{claims::Given, header::Header, strict::Strict};
use crate::{
    auth::token::{Claims, TokenError},
    config::{self, Jwt},
};

/// It was not signed by this key, or not as it is now.
pub const BAD_SIGNATURE: TokenError = TokenError::Invalid("its signature does not hold");
/// No key that it could mean takes its `alg`.
pub const BAD_ALGORITHM: TokenError = TokenError::Invalid("its `alg` is not one of its key's");

/// What a key is made of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A secret of 256 bits or more.
    Secret,
    /// RSA of 2048 to 8192 bits.
    Rsa,
    /// ECDSA on P-256.
    P256,
    /// ECDSA on P-384.
    P384,
    /// Ed25519.
    Ed25519,
}

impl Kind {
    /// How tokens may be signed by such a key, whatever they say.
    pub fn algorithms(self) -> &'static [Algorithm] {
        use Algorithm::{ES256, ES384, EdDSA, HS256, HS384, HS512, PS256, PS384, PS512, RS256, RS384, RS512};
        match self {
            Self::Secret => &[HS256, HS384, HS512],
            Self::Rsa => &[RS256, RS384, RS512, PS256, PS384, PS512],
            Self::P256 => &[ES256],
            Self::P384 => &[ES384],
            Self::Ed25519 => &[EdDSA],
        }
    }

    /// As it is called in a sentence.
    pub fn name(self) -> &'static str {
        match self {
            Self::Secret => "an HMAC secret",
            Self::Rsa => "an RSA key",
            Self::P256 => "a P-256 key",
            Self::P384 => "a P-384 key",
            Self::Ed25519 => "an Ed25519 key",
        }
    }
}

/// The library's word for an algorithm of the configuration.
pub fn algorithm(configured: config::Algorithm) -> Algorithm {
    match configured {
        config::Algorithm::HS256 => Algorithm::HS256,
        config::Algorithm::HS384 => Algorithm::HS384,
        config::Algorithm::HS512 => Algorithm::HS512,
        config::Algorithm::RS256 => Algorithm::RS256,
        config::Algorithm::RS384 => Algorithm::RS384,
        config::Algorithm::RS512 => Algorithm::RS512,
        config::Algorithm::PS256 => Algorithm::PS256,
        config::Algorithm::PS384 => Algorithm::PS384,
        config::Algorithm::PS512 => Algorithm::PS512,
        config::Algorithm::ES256 => Algorithm::ES256,
        config::Algorithm::ES384 => Algorithm::ES384,
        config::Algorithm::EdDSA => Algorithm::EdDSA,
    }
}

/// A key with its rules.
#[derive(Clone, Debug)]
pub struct Key {
    key: DecodingKey,
    rules: Validation,
}

impl Key {
    /// A key that checks tokens of the algorithms that its kind and the configuration share; `None`: they share none.
    pub fn new(kind: Kind, key: DecodingKey, jwt: &Jwt) -> Option<Self> {
        let configured: HashSet<Algorithm> = jwt.algorithms.iter().copied().map(algorithm).collect();
        let is_wanted = |algorithm: &&Algorithm| configured.is_empty() || configured.contains(algorithm);
        let algorithms: Vec<_> = kind.algorithms().iter().filter(is_wanted).copied().collect();
        let mut rules = Validation::new(*algorithms.first()?);
        rules.algorithms = algorithms;
        rules.leeway = jwt.leeway.as_secs();
        rules.validate_nbf = true;
        // The library checks these only where the token has them, unless told that it must.
        let mut required = vec!["exp", "sub"];
        if let Some(issuer) = &jwt.issuer {
            rules.set_issuer(&[issuer]);
            required.push("iss");
        }
        if let Some(audience) = &jwt.audience {
            rules.set_audience(&[audience]);
            required.push("aud");
        }
        // Without an audience of its own it would refuse every token that has one.
        rules.validate_aud = jwt.audience.is_some();
        rules.set_required_spec_claims(&required);
        Some(Self { key, rules })
    }

    /// Narrows it to one algorithm; `None` where it is not among its own.
    pub fn only(mut self, algorithm: Algorithm) -> Option<Self> {
        self.rules.algorithms.retain(|own| *own == algorithm);
        (!self.rules.algorithms.is_empty()).then_some(self)
    }

    /// Whether tokens may be signed so.
    pub fn takes(&self, algorithm: Algorithm) -> bool {
        self.rules.algorithms.contains(&algorithm)
    }

    /// Checks a token with this header.
    ///
    /// # Errors
    /// Why it does not hold.
    pub fn verify(&self, token: &str, header: &Header) -> Result<Claims, TokenError> {
        if !self.takes(header.algorithm) {
            return Err(BAD_ALGORITHM);
        }
        let decoded =
            decode::<Strict<Given>>(token, &self.key, &self.rules).map_err(|error| refusal(&error))?;
        decoded.claims.once().ok_or(TokenError::Invalid("a claim is in it twice"))?.check()
    }
}

/// The library's errors hold values of the token; these do not.
fn refusal(error: &Error) -> TokenError {
    TokenError::Invalid(match error.kind() {
        ErrorKind::ExpiredSignature => return TokenError::Expired,
        ErrorKind::InvalidSignature => return BAD_SIGNATURE,
        ErrorKind::ImmatureSignature => "it is not valid yet: its `nbf` is to come",
        ErrorKind::InvalidIssuer => "its `iss` is not auth.jwt.issuer",
        ErrorKind::InvalidAudience => "its `aud` is not auth.jwt.audience",
        ErrorKind::MissingRequiredClaim(claim) | ErrorKind::InvalidClaimFormat(claim) => match claim.as_str()
        {
            "exp" => "its `exp` is missing, or not a number of seconds since 1970",
            "nbf" => "its `nbf` is not a number of seconds since 1970",
            "sub" => "its `sub` is missing, or not text",
            "iss" => "its `iss` is missing, or not text",
            _ => "its `aud` is missing, or not text",
        },
        ErrorKind::Base64(_) => "it is not base64url",
        ErrorKind::Json(_) | ErrorKind::Utf8(_) => "its claims are not a JSON object with each name once",
        _ => "it is not a token as RFC 7519 has it",
    })
}

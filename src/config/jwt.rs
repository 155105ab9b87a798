//! The section `[auth.jwt]`, checked: what tokens are checked by. What the key is, is found out where it is read.

use std::{fs::File, ops::RangeInclusive, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    check::{Fault, fault, within},
    raw,
    units::Time,
};

/// Beyond it, an expired token would be as good as a valid one.
const LEEWAY: RangeInclusive<Time> = Time::ZERO..=Time::secs(600);

/// What the tokens of subscribers are checked by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jwt {
    /// Where the keys are.
    pub source: KeySource,
    /// The algorithms that are taken; empty: those of the key's kind.
    pub algorithms: Vec<Algorithm>,
    /// What `aud` has to be, or to hold; `None`: any.
    pub audience: Option<String>,
    /// What `iss` has to be; `None`: any.
    pub issuer: Option<String>,
    /// How far the clocks of issuer and gateway may be apart.
    pub leeway: Duration,
}

/// Where the keys are that tokens are checked by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// An HMAC secret, or a public key in PEM.
    File(PathBuf),
    /// A JWKS at an https URL, or at an http one of this machine.
    Url(String),
}

/// How a token may be signed (RFC 7518 §3.1, RFC 8037 §3.1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize, JsonSchema)]
#[schemars(inline)]
#[allow(missing_docs, reason = "the names of the RFC")]
pub enum Algorithm {
    HS256,
    HS384,
    HS512,
    RS256,
    RS384,
    RS512,
    PS256,
    PS384,
    PS512,
    ES256,
    ES384,
    EdDSA,
}

impl Algorithm {
    /// Whether the key is a secret that signs as well.
    #[must_use]
    pub fn is_hmac(self) -> bool {
        matches!(self, Self::HS256 | Self::HS384 | Self::HS512)
    }
}

/// `None` where no key is given.
pub fn check(raw: &raw::Jwt) -> Result<Option<Jwt>, Fault> {
    let leeway = within("auth.jwt.leeway", raw.leeway, LEEWAY)?.get();
    let source = match (raw.key_file.as_str(), raw.jwks_url.as_str()) {
        ("", "") => return lonely(raw),
        (file, "") => file_source(file)?,
        ("", url) => url_source(url, &raw.algorithms)?,
        _ => {
            let sentence = "auth.jwt.key_file and auth.jwt.jwks_url are both given: remove one";
            return fault(["auth.jwt.jwks_url", "auth.jwt.key_file"], sentence.into());
        }
    };
    let given = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
    Ok(Some(Jwt {
        source,
        algorithms: raw.algorithms.clone(),
        audience: given(&raw.audience),
        issuer: given(&raw.issuer),
        leeway,
    }))
}

/// To take a rule without a key for no rule at all would leave a door open that the operator believes shut.
fn lonely(raw: &raw::Jwt) -> Result<Option<Jwt>, Fault> {
    let rules = [
        ("auth.jwt.algorithms", !raw.algorithms.is_empty()),
        ("auth.jwt.audience", !raw.audience.is_empty()),
        ("auth.jwt.issuer", !raw.issuer.is_empty()),
    ];
    match rules.iter().find(|(_, is_given)| *is_given) {
        None => Ok(None),
        Some((key, _)) => fault(
            [*key],
            format!(
                "{key} is given, but no key to check tokens by: set auth.jwt.key_file or auth.jwt.jwks_url"
            ),
        ),
    }
}

fn file_source(file: &str) -> Result<KeySource, Fault> {
    match File::open(file) {
        Ok(_) => Ok(KeySource::File(file.into())),
        Err(error) => fault(["auth.jwt.key_file"], format!("auth.jwt.key_file: cannot read {file}: {error}")),
    }
}

/// Who can change the answer can make tokens, so it comes by TLS.
fn url_source(url: &str, algorithms: &[Algorithm]) -> Result<KeySource, Fault> {
    let key = "auth.jwt.jwks_url";
    let wrong = |what: &str| fault([key], format!("{key} = {url:?} {what}"));
    let Ok(parsed) = url.parse::<http::Uri>() else {
        return wrong("is not a URL: write https://host/path");
    };
    let authority = parsed.authority().map_or("", http::uri::Authority::as_str);
    if authority.contains('@') {
        // Not to be repeated.
        return fault(
            [key],
            format!("{key} has a user or a password in it: a JWKS is public, write it without"),
        );
    }
    let host = parsed.host().unwrap_or_default();
    let is_here = host == "localhost"
        || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: std::net::IpAddr| ip.is_loopback());
    match parsed.scheme_str() {
        Some("https") if !host.is_empty() => {}
        Some("http") if is_here => {}
        _ => return wrong("is not an https:// URL, and http:// is taken of this machine alone"),
    }
    match algorithms.iter().find(|algorithm| algorithm.is_hmac()) {
        None => Ok(KeySource::Url(url.to_owned())),
        Some(hmac) => fault(
            ["auth.jwt.algorithms"],
            format!(
                "auth.jwt.algorithms has {hmac:?}, which a JWKS cannot serve: its secret would be public"
            ),
        ),
    }
}

//! Who may do what: credentials, and the grants that they bring. [`Auth`] is the one gate: every transport and every
//! path of the API asks it, by action and channel.
//!
//! While no credentials are configured, everything is allowed to who reaches a listener. As soon as any are, what none
//! of them grants is denied.

mod grant;
mod jwks;
pub mod jwt;
mod keyring;
pub mod token;

use std::{
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use arc_swap::ArcSwap;

pub use self::{
    grant::{Action, Grant},
    keyring::Key,
};
use self::{
    jwt::{KeyError, Verifier},
    keyring::Keyring,
    token::{Claims, TokenError},
};
use crate::{
    channel::Channel,
    config::{self, Access, Config, Namespaces},
    fault::{Code, Fault},
    metrics::{AuthFailure, Metrics},
};

/// No connection lasts longer than its token, nor any that a clock could not count.
const LONGEST: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// The gate; clones share it.
#[derive(Clone, Debug)]
pub struct Auth(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    is_configured: bool,
    keys: ArcSwap<Keyring>,
    verifier: Option<Verifier>,
    leeway: Duration,
    namespaces: Namespaces,
    metrics: Arc<Metrics>,
}

impl Auth {
    /// The gate of a configuration.
    ///
    /// # Errors
    /// What tokens are to be checked by cannot be read.
    pub fn new(config: &Config, metrics: &Arc<Metrics>) -> Result<Self, KeyError> {
        let jwt = config.auth.jwt.as_ref();
        Ok(Self(Arc::new(Inner {
            is_configured: config.auth.is_configured(),
            keys: ArcSwap::from_pointee(Keyring::new(&config.auth.keys)),
            verifier: jwt.map(|jwt| Verifier::new(jwt, metrics)).transpose()?,
            leeway: jwt.map_or(Duration::ZERO, |jwt| jwt.leeway),
            namespaces: config.namespaces.clone(),
            metrics: Arc::clone(metrics),
        })))
    }

    /// Takes the keys of another configuration: those of backends, and the key file of tokens. Who is connected stays.
    /// Whether credentials are needed at all, and where tokens get their keys from, stays as well.
    ///
    /// # Errors
    /// The key file of tokens cannot be used; then nothing has changed.
    pub fn reload(&self, config: &config::Auth) -> Result<(), KeyError> {
        if let (Some(verifier), Some(jwt)) = (&self.0.verifier, &config.jwt) {
            verifier.reload(&jwt.source)?;
        }
        self.0.keys.store(Arc::new(Keyring::new(&config.keys)));
        Ok(())
    }

    /// What checks tokens, where any are configured.
    #[must_use]
    pub fn verifier(&self) -> Option<&Verifier> {
        self.0.verifier.as_ref()
    }

    /// What a subscriber may do who shows this token, or none. Where no tokens are configured it is not looked at.
    ///
    /// # Errors
    /// `unauthorized` or `token_expired`; `overloaded` where the issuer's keys are away.
    pub async fn subscriber(&self, token: Option<&str>) -> Result<Grant, Fault> {
        if !self.0.is_configured {
            return Ok(Grant::All);
        }
        let claims = match token {
            Some(token) => self.claims(token).await?,
            None => None,
        };
        Ok(claims.map_or(Grant::Nothing, |claims| Grant::Token(Arc::new(claims))))
    }

    /// What a token says; `None` where no tokens are configured.
    ///
    /// # Errors
    /// As [`Auth::subscriber`].
    pub async fn claims(&self, token: &str) -> Result<Option<Claims>, Fault> {
        let Some(verifier) = &self.0.verifier else {
            return Ok(None);
        };
        let claims = verifier.verify(token).await.map_err(|error| self.token_fault(&error))?;
        // The verifier counts whole seconds: within the last one, a client would be sent away as soon as it came.
        if self.rest(&claims).is_zero() {
            return Err(self.token_fault(&TokenError::Expired));
        }
        Ok(Some(claims))
    }

    fn token_fault(&self, error: &TokenError) -> Fault {
        let (code, reason) = match error {
            TokenError::Expired => (Code::TokenExpired, AuthFailure::Expired),
            TokenError::Invalid(_) => (Code::Unauthorized, AuthFailure::Invalid),
            TokenError::Unavailable => (Code::Overloaded, AuthFailure::Unavailable),
        };
        self.0.metrics.auth_failed(reason);
        Fault::new(code, error.to_string())
    }

    /// What a backend may do who shows this key.
    ///
    /// # Errors
    /// `unauthorized`.
    pub fn backend(&self, key: Option<&str>) -> Result<Grant, Fault> {
        if !self.0.is_configured {
            return Ok(Grant::All);
        }
        let Some(key) = key else {
            self.0.metrics.auth_failed(AuthFailure::Missing);
            let detail = "a key is needed here: send it as `Authorization: Bearer <key>`";
            return Err(Fault::new(Code::Unauthorized, detail));
        };
        self.0.keys.load().find(key).map(Grant::Key).ok_or_else(|| {
            self.0.metrics.auth_failed(AuthFailure::Invalid);
            Fault::new(Code::Unauthorized, "the key is none of those that are configured (auth.keys)")
        })
    }

    /// Whether a grant allows an action on a channel.
    #[must_use]
    pub fn allows(&self, grant: &Grant, action: Action, channel: &Channel) -> bool {
        grant.allows(action, channel, self.0.namespaces.of(channel.as_str()))
    }

    /// The same, with the fault to answer with. Neither that nor its words depend on whether the channel exists.
    ///
    /// # Errors
    /// `unauthorized` where no credential was shown, `forbidden` where it does not grant it.
    pub fn authorize(&self, grant: &Grant, action: Action, channel: &Channel) -> Result<(), Fault> {
        if self.allows(grant, action, channel) { Ok(()) } else { Err(self.denied(grant, action)) }
    }

    /// Whether a grant allows an action on every channel there may be: what is done to whole connections is done to
    /// all of their channels.
    ///
    /// # Errors
    /// As [`Auth::authorize`].
    pub fn authorize_everywhere(&self, grant: &Grant, action: Action) -> Result<(), Fault> {
        if grant.allows_everywhere(action) { Ok(()) } else { Err(self.denied(grant, action)) }
    }

    /// The fault of what is not allowed.
    #[must_use]
    pub fn denied(&self, grant: &Grant, action: Action) -> Fault {
        let (code, reason) = match grant {
            Grant::Nothing => (Code::Unauthorized, AuthFailure::Missing),
            Grant::All | Grant::Token(_) | Grant::Key(_) => (Code::Forbidden, AuthFailure::Forbidden),
        };
        self.0.metrics.auth_failed(reason);
        Fault::new(code, grant.denial(action, self.0.verifier.is_some()))
    }

    /// Whether who is connected without a token has yet to show one.
    #[must_use]
    pub fn awaits_token(&self, grant: &Grant) -> bool {
        let all_open = || self.0.namespaces.iter().all(|namespace| namespace.subscribe == Access::Anyone);
        matches!(grant, Grant::Nothing) && self.0.verifier.is_some() && !all_open()
    }

    /// How long a grant holds; `None`: for ever.
    #[must_use]
    pub fn holds_for(&self, grant: &Grant) -> Option<Duration> {
        match grant {
            Grant::Token(claims) => Some(self.rest(claims)),
            Grant::All | Grant::Nothing | Grant::Key(_) => None,
        }
    }

    /// How long a token holds. One that only the leeway keeps alive lasts as long as that does.
    fn rest(&self, claims: &Claims) -> Duration {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let end = Duration::from_secs(claims.expires_at);
        let end = if end > now { end } else { end.saturating_add(self.0.leeway) };
        end.saturating_sub(now).min(LONGEST)
    }
}

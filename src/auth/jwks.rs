//! The keys of an issuer, from a URL (RFC 7517): fetched before the first client is served, kept, and fetched anew
//! every few minutes, or when a token names a key that is not among them. Whoever sends tokens can cause one
//! fetch in 30 s and no more. While the issuer is away the keys serve on for an hour.

mod fetch;
mod set;

use std::{fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::time::{Instant, sleep, timeout_at};

use self::{
    fetch::{Fetch, Trouble},
    set::KeySet,
};
use super::{
    jwt::{Header, KeyError},
    token::{Claims, TokenError},
};
use crate::{
    config::Jwt,
    metrics::{JwksRefresh, Metrics},
};

/// How long the first fetch may take, with all its attempts.
const FIRST: Duration = Duration::from_secs(5);
/// Between two attempts of the first fetch.
const ATTEMPT: Duration = Duration::from_millis(250);
/// Between fetches that nobody asked for.
const REFRESH: Duration = Duration::from_secs(300);
/// The same after one that failed.
const RETRY: Duration = Duration::from_secs(30);
/// Between fetches that tokens ask for.
const ASKED: Duration = Duration::from_secs(30);
/// How long keys hold that cannot be refreshed. Longer, and a key that the issuer gave up would live on.
const STALE: Duration = Duration::from_secs(3600);

/// The keys of one issuer.
pub struct Jwks {
    url: Box<str>,
    fetch: Fetch,
    jwt: Jwt,
    metrics: Arc<Metrics>,
    kept: Mutex<Option<Kept>>,
    /// Held while a fetch runs: whoever asks meanwhile waits for its outcome. When a token asked last.
    asked: tokio::sync::Mutex<Option<Instant>>,
}

#[derive(Clone)]
struct Kept {
    keys: Arc<KeySet>,
    since: Instant,
}

impl Jwks {
    /// Nothing is fetched yet.
    ///
    /// # Errors
    /// No URL to fetch keys from, or nothing to check its certificate against.
    pub fn new(url: &str, jwt: &Jwt, metrics: Arc<Metrics>) -> Result<Self, KeyError> {
        Ok(Self {
            url: url.into(),
            fetch: Fetch::new(url).map_err(|trouble| named(url, &trouble))?,
            jwt: jwt.clone(),
            metrics,
            kept: Mutex::default(),
            asked: tokio::sync::Mutex::default(),
        })
    }

    /// The first fetch. An issuer that starts beside this gateway has a moment to be there.
    ///
    /// # Errors
    /// Why there are no keys.
    pub async fn first(&self) -> Result<(), KeyError> {
        let deadline = Instant::now() + FIRST;
        loop {
            let trouble = match timeout_at(deadline, self.refresh()).await {
                Ok(Ok(())) => return Ok(()),
                Ok(Err(trouble)) => trouble,
                Err(_) => Trouble::Away("no answer within 5 s".into()),
            };
            if matches!(trouble, Trouble::Bad(_)) || Instant::now() + ATTEMPT > deadline {
                return Err(named(&self.url, &trouble));
            }
            sleep(ATTEMPT).await;
        }
    }

    /// Fetches again and again, for ever.
    pub async fn keep_fresh(&self) {
        let mut pause = REFRESH;
        loop {
            // Gateways that started together do not ask together.
            sleep(pause.mul_f64(0.9 + 0.2 * fastrand::f64())).await;
            let asked = self.asked.lock().await;
            let outcome = self.refresh().await;
            drop(asked);
            pause = match outcome {
                Ok(()) => REFRESH,
                Err(trouble) => {
                    self.warn(&trouble);
                    RETRY
                }
            };
        }
    }

    /// Checks a token by the key that it names, after a fetch where that is none of ours.
    ///
    /// # Errors
    /// Why it does not hold, or `Unavailable`.
    pub async fn verify(&self, token: &str, header: &Header) -> Result<Claims, TokenError> {
        let keys = self.keys()?;
        if let Some(outcome) = keys.verify(token, header) {
            return outcome;
        }
        self.ask(&keys).await;
        self.keys()?
            .verify(token, header)
            .unwrap_or(Err(TokenError::Invalid("it is signed by a key that its issuer does not list")))
    }

    fn keys(&self) -> Result<Arc<KeySet>, TokenError> {
        match &*self.kept.lock() {
            Some(kept) if kept.since.elapsed() < STALE => Ok(Arc::clone(&kept.keys)),
            _ => Err(TokenError::Unavailable),
        }
    }

    /// Fetches because a token named a key that is not in `known`: at most one fetch in a while, whatever comes.
    async fn ask(&self, known: &Arc<KeySet>) {
        let mut asked = self.asked.lock().await;
        let is_known = self.kept.lock().as_ref().is_none_or(|kept| Arc::ptr_eq(&kept.keys, known));
        let is_soon = asked.is_some_and(|last| last.elapsed() < ASKED);
        if !is_known || is_soon {
            return;
        }
        *asked = Some(Instant::now());
        if let Err(trouble) = self.refresh().await {
            self.warn(&trouble);
        }
    }

    async fn refresh(&self) -> Result<(), Trouble> {
        let fetched = self.fetch.get().await.and_then(|document| KeySet::parse(&document, &self.jwt));
        let result = match fetched {
            Ok(keys) => {
                *self.kept.lock() = Some(Kept { keys: Arc::new(keys), since: Instant::now() });
                Ok(())
            }
            Err(trouble) => Err(trouble),
        };
        self.metrics.jwks_refreshed(match &result {
            Ok(()) => JwksRefresh::Ok,
            Err(Trouble::Away(_)) => JwksRefresh::Away,
            Err(Trouble::Bad(_)) => JwksRefresh::Bad,
        });
        result
    }

    /// Those who are connected stay, and the keys that are there serve on.
    fn warn(&self, trouble: &Trouble) {
        let age = self.kept.lock().as_ref().map_or(0, |kept| kept.since.elapsed().as_secs());
        let left = STALE.as_secs().saturating_sub(age);
        tracing::warn!(
            jwks.age_seconds = age,
            "the issuer's keys cannot be refreshed, and those that are there serve for {left} s more: {}: {trouble}",
            self.url
        );
    }
}

fn named(url: &str, trouble: &Trouble) -> KeyError {
    KeyError(format!("auth.jwt.jwks_url: {url}: {trouble}"))
}

impl fmt::Debug for Jwks {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Jwks").field("url", &self.url).finish_non_exhaustive()
    }
}

//! The keys of backends, of which only digests are kept.

use std::{sync::Arc, time::Instant};

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use subtle::ConstantTimeEq as _;

use crate::{
    config::{ApiKey, Operation},
    fault::{Code, Fault},
    pattern::Patterns,
    rate::{Bucket, Rate},
};

/// A key that is configured.
#[derive(Debug)]
pub struct Key {
    sha256: [u8; 32],
    pub(super) channels: Patterns,
    pub(super) operations: Vec<Operation>,
    rate: Option<u32>,
    bucket: Mutex<Bucket>,
}

/// All of them.
#[derive(Debug)]
pub(super) struct Keyring(Vec<Arc<Key>>);

impl Keyring {
    pub(super) fn new(keys: &[ApiKey]) -> Self {
        let key = |key: &ApiKey| {
            Arc::new(Key {
                sha256: key.sha256,
                channels: key.channels.clone(),
                operations: key.operations.clone(),
                rate: key.rate,
                bucket: Mutex::default(),
            })
        };
        Self(keys.iter().map(key).collect())
    }

    /// The key with this text. All are compared, each in constant time, so that the time tells nothing of any.
    pub(super) fn find(&self, text: &str) -> Option<Arc<Key>> {
        let digest: [u8; 32] = Sha256::digest(text).into();
        let mut found = None;
        for key in &self.0 {
            if bool::from(key.sha256.ct_eq(&digest)) {
                found = Some(key);
            }
        }
        found.cloned()
    }
}

impl Key {
    /// Counts a publish.
    ///
    /// # Errors
    /// `rate_limited`.
    pub fn charge(&self, now: Instant) -> Result<(), Fault> {
        match self.rate {
            Some(rate) if !self.bucket.lock().take(Rate::per_second(rate), now) => {
                let detail = format!("this key may publish {rate} messages a second (auth.keys.rate)");
                Err(Fault::new(Code::RateLimited, detail).limit(rate as usize))
            }
            _ => Ok(()),
        }
    }
}

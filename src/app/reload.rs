//! A new configuration while everything runs: what may change does, what needs a restart is named, and one that is
//! bad changes nothing.

use super::Running;
use crate::{
    config::{Auth, Change, Config, KeySource, Loaded, Sources},
    telemetry::Level,
};

/// The keys that change at once. Connections stay as they are; who comes next meets the new values.
const AT_ONCE: [&str; 10] = [
    "public.allowed_origins",
    "public.tls_cert_file",
    "public.tls_key_file",
    "internal.tls_cert_file",
    "internal.tls_key_file",
    "internal.client_ca_file",
    "auth.keys",
    "auth.keys_file",
    "auth.jwt.key_file",
    "log.level",
];

/// Reads the configuration anew, from where it came at the start.
#[derive(Debug)]
pub struct Reload {
    sources: Sources,
    /// What the parts were built with.
    started: Loaded,
    /// What was read last.
    last: Loaded,
    level: Level,
}

impl Reload {
    /// `loaded` is in force, and came from `sources`.
    #[must_use]
    pub fn new(sources: Sources, loaded: Loaded, level: Level) -> Self {
        Self { sources, started: loaded.clone(), last: loaded, level }
    }

    /// Reads and applies it, and logs how that went.
    pub async fn run(&mut self, running: &Running) {
        let sources = self.sources.clone();
        match tokio::task::spawn_blocking(move || Config::load(&sources)).await {
            Ok(Ok(new)) => self.apply(new, running),
            Ok(Err(fault)) => tracing::error!("the configuration before stays in force: {fault}"),
            Err(error) => tracing::error!(%error, "reading the configuration failed"),
        }
    }

    fn apply(&mut self, new: Loaded, running: &Running) {
        if let Err(error) = running.reload(&new.config) {
            // The files were good a moment ago.
            tracing::error!("the configuration before stays in force: {error}");
            return;
        }
        if let Err(error) = self.level.set(&new.config.log) {
            tracing::error!(%error, "the level of the log stays as it was");
        }
        let (old, now) = (&self.started.config, &new.config);
        // What is turned on or off, and not only changed, is another gateway.
        let turned = [
            ("public.tls_", old.public.tls.is_some() != now.public.tls.is_some()),
            ("internal.tls_", old.internal.tls.is_some() != now.internal.tls.is_some()),
            ("internal.client_ca_", old.internal.tls.is_some() != now.internal.tls.is_some()),
            ("auth.", !old.auth.is_configured()),
            ("auth.jwt.", kind(&old.auth) != kind(&now.auth)),
        ];
        let at_once = |change: &Change| {
            let is_turned = |(keys, turned): &(&str, bool)| *turned && change.key.starts_with(keys);
            AT_ONCE.contains(&change.key.as_str()) && !turned.iter().any(is_turned)
        };
        for Change { key, place } in self.started.changes(&new).iter().filter(|change| !at_once(change)) {
            tracing::warn!(
                "{place}: {key} is not what it was at the start: the new value counts after a restart"
            );
        }
        if old.auth.is_configured() && !now.auth.is_configured() {
            tracing::warn!(
                "no credentials are configured any more: until a restart opens it, everything is denied"
            );
        }
        let changes = self.last.changes(&new);
        let keys: Vec<_> =
            changes.iter().filter(|change| at_once(change)).map(|change| &*change.key).collect();
        tracing::info!(changed = keys.join(", "), "the configuration was read anew");
        self.last = new;
    }
}

/// Where the keys of tokens come from.
fn kind(auth: &Auth) -> Option<std::mem::Discriminant<KeySource>> {
    auth.jwt.as_ref().map(|jwt| std::mem::discriminant(&jwt.source))
}

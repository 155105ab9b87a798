//! Whether the gateway may be ready, and if not, why: said in the log once, and on `/ready` for as long as it holds.

use std::{fmt, sync::Arc};

use super::{Inner, Redis};

/// Different sentences of what is in the way that are said only once.
const SAID: usize = 32;

/// Whether the gateway may be ready.
#[derive(Debug)]
pub(super) struct Health {
    /// All links were up once: from then on a lost one is a pause, and no reason to leave a load balancer.
    was_up: bool,
    /// An attempt failed.
    has_failed: bool,
    /// It must not serve this Redis.
    refused: bool,
    why: String,
    /// What was said in the log since all was up.
    said: Vec<String>,
}

impl Health {
    pub(super) fn unknown() -> Self {
        Self {
            was_up: false,
            has_failed: false,
            refused: false,
            why: "Redis has not answered yet".into(),
            said: Vec::new(),
        }
    }
}

impl Redis {
    /// Whether clients may be sent here.
    ///
    /// # Errors
    /// Why not, in a sentence.
    pub fn state(&self) -> Result<(), String> {
        let health = self.0.health.borrow();
        if health.was_up && !health.refused { Ok(()) } else { Err(health.why.clone()) }
    }

    /// Waits until the first attempt to reach Redis has ended, one way or the other.
    ///
    /// # Errors
    /// This gateway must not serve this Redis: why, in a sentence.
    pub async fn first_word(&self) -> Result<(), String> {
        let mut health = self.0.health.subscribe();
        let patience = self.0.config.broker.command_timeout * 2;
        let spoke = health.wait_for(|health| health.was_up || health.refused || health.has_failed);
        match tokio::time::timeout(patience, spoke).await {
            Ok(Ok(health)) if health.refused => Err(health.why.clone()),
            _ => Ok(()),
        }
    }
}

impl Inner {
    /// A link is up; the gateway is ready once all are.
    pub(super) fn is_up(&self) {
        let topology = Arc::clone(&self.topology.read());
        let links = self.links.read();
        let proved = self.proved.lock();
        let is_up = |server| links.contains_key(server) && proved.contains(server);
        let all = !topology.primaries.is_empty() && topology.primaries.iter().all(is_up);
        if !all {
            return;
        }
        self.health.send_if_modified(|health| {
            if !health.was_up {
                tracing::info!(primaries = topology.primaries.len(), "Redis is up");
            } else if !health.why.is_empty() {
                tracing::info!("Redis is back");
            }
            let changes = !health.was_up || !health.why.is_empty();
            health.was_up = true;
            health.why.clear();
            health.said.clear();
            changes
        });
    }

    /// Something is in the way; said once until all is up again, though several things take turns.
    pub(super) fn is_down(&self, why: &dyn fmt::Display) {
        let why = why.to_string();
        self.health.send_if_modified(|health| {
            let is_new = health.why != why;
            if is_new && !health.said.contains(&why) {
                tracing::warn!("{why}");
                if health.said.len() < SAID {
                    health.said.push(why.clone());
                }
            }
            health.why = why;
            !std::mem::replace(&mut health.has_failed, true) || is_new
        });
    }

    /// This gateway must not serve this Redis.
    pub(super) fn refuse(&self, why: String) -> String {
        self.health.send_modify(|health| {
            health.refused = true;
            health.why.clone_from(&why);
        });
        why
    }
}

//! The rules of a namespace, found by a channel's name.

use std::{collections::HashMap, sync::Arc, time::Duration};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::RedisChannel;
use crate::channel::namespace_of;

/// The namespace for names without a colon and for namespaces that are not listed.
pub const DEFAULT: &str = "default";

/// The rules for a family of channels.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespace {
    /// What stands before the first `:` of the channel's name.
    pub name: String,
    /// What is kept for each channel.
    pub history: History,
    /// Who may subscribe, once credentials are configured.
    pub subscribe: Access,
    /// Whether clients may publish with a grant, once credentials are configured.
    pub client_publish: bool,
    /// What a reader gets that is too slow.
    pub slow: Slow,
    /// Where the messages come from.
    pub source: Source,
}

/// Where a namespace's messages come from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// Published through Tidegate.
    Tidegate,
    /// Fed by other programs' `PUBLISH`.
    Redis(RedisChannel),
}

/// How much of a channel is kept; what is over any of the three bounds is forgotten.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct History {
    /// At most so many messages; 0 is no history at all.
    pub messages: usize,
    /// At most so many bytes.
    pub bytes: usize,
    /// None older than this.
    pub age: Duration,
}

impl History {
    /// Whether anything is kept: without it delivery is at most once.
    pub fn is_kept(&self) -> bool {
        self.messages > 0
    }
}

/// Who may subscribe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Access {
    /// Everybody who reaches the public listener.
    Anyone,
    /// Whose token grants it.
    Token,
}

/// What a reader gets that is too slow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Slow {
    /// Its connection ends; it comes back with its position and loses nothing.
    Disconnect,
    /// It skips to the newest message.
    Latest,
}

/// All namespaces; `default` is always among them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Namespaces {
    default: Arc<Namespace>,
    others: HashMap<String, Arc<Namespace>>,
}

impl Namespaces {
    /// `listed` have distinct names; the one named `default` takes the place of `default`.
    pub(super) fn new(default: Namespace, listed: Vec<Namespace>) -> Self {
        let listed = listed.into_iter().map(|namespace| (namespace.name.clone(), Arc::new(namespace)));
        let mut others: HashMap<_, _> = listed.collect();
        let default = others.remove(DEFAULT).unwrap_or_else(|| Arc::new(default));
        Self { default, others }
    }

    /// The namespace of a channel.
    pub fn of(&self, channel: &str) -> &Arc<Namespace> {
        namespace_of(channel).and_then(|name| self.others.get(name)).unwrap_or(&self.default)
    }

    /// All of them, `default` first, the others in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<Namespace>> {
        std::iter::once(&self.default).chain(self.others.values())
    }
}

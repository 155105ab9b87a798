//! What a credential, or its absence, allows.

use std::sync::Arc;

use super::{keyring::Key, token::Claims};
use crate::{
    channel::Channel,
    config::{Access, Namespace, Operation},
    pattern::Patterns,
};

/// What somebody wants to do to a channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Action {
    /// Hear its messages.
    Subscribe,
    /// Publish to it.
    Publish,
    /// Read its history and what is known of it.
    Read,
    /// Delete its history, end its connections.
    Manage,
}

/// What a caller may do. Clones share it.
#[derive(Clone, Debug)]
pub enum Grant {
    /// Everything: no credentials are configured.
    All,
    /// What is open to anyone: no credential was shown.
    Nothing,
    /// What a subscriber's token says.
    Token(Arc<Claims>),
    /// What a backend's key is for.
    Key(Arc<Key>),
}

impl Grant {
    /// Whose it is, for who may be disconnected by name.
    #[must_use]
    pub fn subject(&self) -> Option<&str> {
        match self {
            Self::Token(claims) => Some(&claims.subject),
            Self::All | Self::Nothing | Self::Key(_) => None,
        }
    }

    pub(super) fn allows(&self, action: Action, channel: &Channel, namespace: &Namespace) -> bool {
        match (self, action) {
            (Self::All, _) => true,
            (Self::Nothing | Self::Token(_), Action::Subscribe) if namespace.subscribe == Access::Anyone => {
                true
            }
            (Self::Token(claims), Action::Subscribe) => claims.channels.matches(channel),
            (Self::Token(claims), Action::Publish) => {
                namespace.client_publish && claims.publish.matches(channel)
            }
            (Self::Key(_), _) => self.patterns(action).is_some_and(|patterns| patterns.matches(channel)),
            (Self::Nothing, _) | (Self::Token(_), Action::Read | Action::Manage) => false,
        }
    }

    pub(super) fn allows_everywhere(&self, action: Action) -> bool {
        matches!(self, Self::All) || self.patterns(action).is_some_and(Patterns::match_all)
    }

    /// The channels on which a key allows an action; `None` where it allows it on none, and where there is no key.
    #[must_use]
    pub fn patterns(&self, action: Action) -> Option<&Patterns> {
        let operation = match action {
            Action::Publish => Operation::Publish,
            Action::Read => Operation::Read,
            Action::Manage => Operation::Manage,
            Action::Subscribe => return None,
        };
        match self {
            Self::Key(key) if key.operations.contains(&operation) => Some(&key.channels),
            _ => None,
        }
    }

    /// Why an action is denied, in words that do not depend on the channel.
    pub(super) fn denial(&self, action: Action, tokens: bool) -> &'static str {
        match (self, action) {
            (Self::Nothing, _) if !tokens => {
                "only namespaces with subscribe = \"anyone\" are served here, since no tokens are configured (auth.jwt)"
            }
            (Self::Nothing, _) => {
                "a token is needed here: send it as `Authorization: Bearer <token>`, as `?token=`, as the subprotocol \
                 `tidegate.token.<token>`, or over a WebSocket in the command `authenticate`"
            }
            (Self::Token(_), Action::Publish) => {
                "the token's claim `publish` does not grant it, or the namespace does not let clients publish"
            }
            (Self::Token(_), _) => "the token's claim `channels` does not grant it",
            (Self::Key(_), Action::Publish) => "the key is not for publishing to this channel",
            (Self::Key(_), Action::Read) => "the key is not for reading this channel",
            (Self::Key(_), Action::Manage) => {
                "the key is not for managing this channel; to end connections by subject or by id it must be for \
                 managing \"*\""
            }
            (Self::Key(_), Action::Subscribe) | (Self::All, _) => "this is not allowed",
        }
    }
}

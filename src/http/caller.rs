//! Who calls the API: what the key of a request to the internal listener allows. A handler that takes a [`Caller`] is
//! reached by nobody without one, once any credentials are configured.

use std::time::Instant;

use axum::extract::FromRequestParts;
use http::{header, request::Parts};

use super::{State, handover::Peer, headers};
use crate::{
    auth::{Action, Grant},
    channel::Channel,
    fault::{Code, Fault},
    gateway::Gateway,
    metrics::RateScope,
};

/// See the module.
#[derive(Clone, Debug)]
pub struct Caller {
    grant: Grant,
    gateway: Gateway,
}

impl FromRequestParts<State> for Caller {
    type Rejection = Fault;

    async fn from_request_parts(head: &mut Parts, state: &State) -> Result<Self, Fault> {
        Self::of(head, state)
    }
}

impl Caller {
    /// Whose request it is.
    ///
    /// # Errors
    /// `unauthorized`; `rate_limited` where many wrong keys come from one address.
    pub fn of(head: &Parts, state: &State) -> Result<Self, Fault> {
        let key = headers::single(&head.headers, header::AUTHORIZATION)?.and_then(headers::bearer);
        let gateway = state.gateway.clone();
        match gateway.auth().backend(key) {
            Ok(grant) => Ok(Self { grant, gateway }),
            Err(fault) if key.is_none() => Err(fault),
            Err(fault) => {
                let address = head.extensions.get::<Peer>().and_then(|peer| peer.address);
                if state.admission.may_fail(address) {
                    return Err(fault);
                }
                state.metrics.rate_limited(RateScope::Keys);
                Err(Fault::new(Code::RateLimited, "too many wrong keys have come from this address"))
            }
        }
    }

    /// What it may do.
    #[must_use]
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Whether it may do something to a channel.
    ///
    /// # Errors
    /// `forbidden`.
    pub fn authorize(&self, action: Action, channel: &Channel) -> Result<(), Fault> {
        self.gateway.auth().authorize(&self.grant, action, channel)
    }

    /// Whether it may publish to a channel, and now.
    ///
    /// # Errors
    /// `forbidden`, and `rate_limited` over the rate of its key.
    pub fn publishes(&self, channel: &Channel) -> Result<(), Fault> {
        self.authorize(Action::Publish, channel)?;
        let Grant::Key(key) = &self.grant else {
            return Ok(());
        };
        key.charge(Instant::now()).inspect_err(|_| self.gateway.metrics().rate_limited(RateScope::Publishes))
    }
}

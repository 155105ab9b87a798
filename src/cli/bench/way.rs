//! How subscribers receive: over one of the gateway's transports, or not from a gateway at all.

use std::fmt;

use clap::{ValueEnum, builder::PossibleValue};

use crate::transport_name::Transport;

/// The argument of `--transport`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    /// As any client of the gateway does.
    Gateway(Transport),
    /// Bare HTTP requests to `tidegate-floor echo`.
    Echo,
}

impl Way {
    fn name(self) -> &'static str {
        match self {
            Self::Gateway(transport) => transport.as_str(),
            Self::Echo => "echo",
        }
    }
}

impl ValueEnum for Way {
    fn value_variants<'a>() -> &'a [Self] {
        &[
            Self::Gateway(Transport::WebSocket),
            Self::Gateway(Transport::Sse),
            Self::Gateway(Transport::Ndjson),
            Self::Gateway(Transport::Poll),
            Self::Echo,
        ]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        let value = PossibleValue::new(self.name());
        Some(match self {
            Self::Gateway(_) => value,
            Self::Echo => value.help("Bare HTTP requests to `tidegate-floor echo`"),
        })
    }
}

impl fmt::Display for Way {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        to.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_transport_of_the_gateway_can_be_loaded() {
        for transport in Transport::ALL {
            assert_eq!(Way::from_str(transport.as_str(), false), Ok(Way::Gateway(*transport)));
        }
        assert_eq!(Way::from_str("echo", false), Ok(Way::Echo));
        assert_eq!(Way::value_variants().len(), Transport::ALL.len() + 1);
    }
}

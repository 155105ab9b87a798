//! The four ways in which messages reach a client, as a closed set with their names.

use std::{fmt, str::FromStr};

/// How a client is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Transport {
    /// RFC 6455, two-way.
    WebSocket,
    /// Server-Sent Events.
    Sse,
    /// One JSON object a line, for as long as the client stays.
    Ndjson,
    /// One JSON document for each request.
    Poll,
}

/// A text that names no transport.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a transport is one of websocket, sse, ndjson, poll")]
pub struct TransportError;

impl Transport {
    /// Every transport.
    pub const ALL: &'static [Self] = &[Self::WebSocket, Self::Sse, Self::Ndjson, Self::Poll];

    /// The name in `?transport=` and in metric labels.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::WebSocket => "websocket",
            Self::Sse => "sse",
            Self::Ndjson => "ndjson",
            Self::Poll => "poll",
        }
    }
}

impl FromStr for Transport {
    type Err = TransportError;

    fn from_str(text: &str) -> Result<Self, TransportError> {
        let named = Self::ALL.iter().find(|t| t.as_str() == text);
        named.copied().ok_or(TransportError)
    }
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn transports_read_as_they_are_written() {
        for transport in Transport::ALL {
            assert_eq!(transport.as_str().parse(), Ok(*transport));
        }
        assert_eq!("WebSocket".parse::<Transport>(), Err(TransportError));
    }
}

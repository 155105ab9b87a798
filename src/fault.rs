//! What is wrong with a request: the closed set of codes, used by HTTP problems and WebSocket errors alike.
//! Which status a code has on HTTP is [`crate::http::problem`]'s to say.

use std::fmt;

/// Defines the closed set: variant, code on the wire, title.
macro_rules! codes {
    ($($variant:ident $code:literal $title:literal,)*) => {
        /// A stable code, the same on every transport.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the title says it")]
        pub enum Code { $(#[doc = $title] $variant,)* }

        impl Code {
            /// Every code, in the order of the table.
            pub const ALL: &'static [Code] = &[$(Code::$variant,)*];

            /// The code as it stands on the wire and in the docs.
            #[must_use]
            pub fn as_str(self) -> &'static str {
                match self { $(Code::$variant => $code,)* }
            }

            /// A short title that never varies.
            #[must_use]
            pub fn title(self) -> &'static str {
                match self { $(Code::$variant => $title,)* }
            }
        }
    };
}

codes! {
    InvalidChannel "invalid_channel" "The channel name is not valid",
    ChannelRequired "channel_required" "A channel is required",
    TooManyChannels "too_many_channels" "Too many channels",
    DuplicateChannel "duplicate_channel" "A channel is named twice",
    InvalidSince "invalid_since" "The position to start from is not valid",
    UnknownParameter "unknown_parameter" "The parameter is not known",
    InvalidParameter "invalid_parameter" "The parameter is not valid",
    InvalidJson "invalid_json" "The body is not valid JSON",
    InvalidBody "invalid_body" "The body is not valid",
    InvalidHeader "invalid_header" "A header is not valid",
    InvalidCommand "invalid_command" "The frame is not a command",
    AlreadySubscribed "already_subscribed" "The channel is already subscribed",
    NotSubscribed "not_subscribed" "The channel is not subscribed",
    Unauthorized "unauthorized" "A credential is required",
    TokenExpired "token_expired" "The token has expired",
    Forbidden "forbidden" "This is not allowed",
    OriginRefused "origin_refused" "The origin or host is not allowed",
    NotFound "not_found" "There is nothing here",
    MethodNotAllowed "method_not_allowed" "The method is not allowed here",
    NotAcceptable "not_acceptable" "None of the accepted types is served",
    Timeout "timeout" "The request took too long to arrive",
    MessageTooLarge "message_too_large" "The message is too large",
    BatchTooLarge "batch_too_large" "The batch is too large",
    UnsupportedMediaType "unsupported_media_type" "The media type or encoding is not supported",
    IdempotencyKeyReused "idempotency_key_reused" "The idempotency key was used for another message",
    UpgradeRequired "upgrade_required" "A WebSocket upgrade is required",
    RateLimited "rate_limited" "Too many requests",
    HeadersTooLarge "headers_too_large" "The request head is too large",
    Internal "internal" "The server failed",
    TooManyConnections "too_many_connections" "Too many connections",
    Overloaded "overloaded" "The server is overloaded",
    BrokerUnavailable "broker_unavailable" "The broker is away; the message was not accepted",
    BrokerUncertain "broker_uncertain" "The broker's answer was lost; retry with the same idempotency key",
    ShuttingDown "shutting_down" "The server is shutting down",
}

impl Code {
    /// Whether the server failed, rather than the request: the same request may do later. On HTTP it is a 5xx.
    #[must_use]
    pub fn is_the_servers(self) -> bool {
        matches!(
            self,
            Self::Internal
                | Self::TooManyConnections
                | Self::Overloaded
                | Self::BrokerUnavailable
                | Self::BrokerUncertain
                | Self::ShuttingDown
        )
    }
}

/// One thing that is wrong, with what a person needs to mend it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What kind of thing.
    pub code: Code,
    /// A sentence that names the value and the limit.
    pub detail: String,
    /// The limit that was passed, where there is one.
    pub limit: Option<u64>,
    /// The byte at which the value goes wrong, from 0.
    pub position: Option<usize>,
    /// The parameter, header or field that is wrong.
    pub parameter: Option<String>,
}

impl Fault {
    /// A fault with its sentence.
    pub fn new(code: Code, detail: impl Into<String>) -> Self {
        Self { code, detail: detail.into(), limit: None, position: None, parameter: None }
    }

    /// Names the limit that was passed.
    #[must_use]
    pub fn limit(mut self, limit: usize) -> Self {
        self.limit = Some(limit as u64);
        self
    }

    /// Names the byte, from 0.
    #[must_use]
    pub fn position(mut self, position: Option<usize>) -> Self {
        self.position = position;
        self
    }

    /// Names the parameter, header or field.
    #[must_use]
    pub fn parameter(mut self, name: impl Into<String>) -> Self {
        self.parameter = Some(name.into());
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.code.as_str(), self.detail)
    }
}

impl std::error::Error for Fault {}

impl From<crate::channel::ChannelError> for Fault {
    fn from(error: crate::channel::ChannelError) -> Self {
        let position = error.position();
        Self::new(Code::InvalidChannel, error.to_string()).position(position)
    }
}

//! Why a connection ends: one row for each reason, with its close code, its name on the wire, its metric
//! label and whether the client may come back.

use std::time::Duration;

/// Whether, and when, a client may come back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Return {
    /// It would be refused again.
    Never,
    /// After a delay drawn for each client, so that they do not all come at once.
    Jittered,
}

/// Defines the closed set: variant, close code, name, metric label, return.
macro_rules! disconnects {
    ($($(#[$doc:meta])* $variant:ident $code:literal $name:literal $label:literal $return:ident,)*) => {
        /// Why a connection ends.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        pub enum Disconnect { $($(#[$doc])* $variant,)* }

        impl Disconnect {
            /// Every reason, in the order of the table.
            pub const ALL: &'static [Disconnect] = &[$(Disconnect::$variant,)*];

            /// The WebSocket close code (RFC 6455 section 7.4; 4000 and up are ours).
            #[must_use]
            pub fn close_code(self) -> u16 {
                match self { $(Disconnect::$variant => $code,)* }
            }

            /// The name in `goodbye` and in the close reason.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Disconnect::$variant => $name,)* }
            }

            /// The `reason` label of `tidegate_connections_closed_total`.
            #[must_use]
            pub fn label(self) -> &'static str {
                match self { $(Disconnect::$variant => $label,)* }
            }

            /// Whether the client may come back.
            #[must_use]
            pub fn comes_back(self) -> Return {
                match self { $(Disconnect::$variant => Return::$return,)* }
            }
        }
    };
}

disconnects! {
    /// The client closed, or its socket ended.
    Client 1000 "client" "client" Jittered,
    /// The server is being restarted.
    Shutdown 1001 "shutdown" "shutdown" Jittered,
    /// The connection reached `sessions.max_age`; to the client a restart like any other.
    MaxAge 1001 "shutdown" "max_age" Jittered,
    /// A frame that RFC 6455 does not allow.
    ProtocolError 1002 "protocol_error" "protocol_error" Never,
    /// A binary frame where only text is understood.
    UnwantedData 1003 "unwanted_data" "unwanted_data" Never,
    /// Text that is not UTF-8.
    BadUtf8 1007 "bad_utf8" "bad_utf8" Never,
    /// A message over `limits.frame`.
    TooBig 1009 "too_big" "too_big" Never,
    /// Twenty frames within a minute that were no commands.
    BadRequest 4400 "bad_request" "bad_request" Never,
    /// No credential, or a bad one.
    Unauthorized 4401 "unauthorized" "unauthorized" Never,
    /// The token ran out and was not refreshed.
    TokenExpired 4401 "token_expired" "token_expired" Jittered,
    /// The credential does not grant it.
    Forbidden 4403 "forbidden" "forbidden" Never,
    /// Neither a pong nor any other byte came in time.
    Unresponsive 4408 "unresponsive" "unresponsive" Jittered,
    /// Raw format only: messages are missing, and there is no object to say it with.
    Gap 4409 "gap" "gap" Jittered,
    /// Ended by `POST /v1/disconnect`.
    Revoked 4410 "revoked" "revoked" Never,
    /// Far over `limits.commands_per_second`, for long.
    RateLimited 4429 "rate_limited" "rate_limited" Jittered,
    /// A fault of ours.
    Internal 4500 "internal" "internal" Jittered,
    /// No room for the connection.
    Overloaded 4503 "overloaded" "overloaded" Jittered,
    /// The client reads more slowly than its channels are published to.
    Slow 4508 "slow" "slow" Jittered,
}

impl Disconnect {
    /// The milliseconds to wait before coming back; `None`: do not come back.
    #[must_use]
    pub fn reconnect_after(self) -> Option<Duration> {
        match self.comes_back() {
            Return::Never => None,
            Return::Jittered => Some(Duration::from_millis(fastrand::u64(200..=2000))),
        }
    }

    /// Whether a `goodbye` object goes before the close: not where the peer broke the protocol, nor where
    /// it closed itself.
    #[must_use]
    pub fn says_goodbye(self) -> bool {
        !matches!(self.close_code(), 1000 | 1002 | 1003 | 1007 | 1009)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_unique_and_only_restarts_share_a_code_with_a_name() {
        for (i, a) in Disconnect::ALL.iter().enumerate() {
            for b in &Disconnect::ALL[i + 1..] {
                assert_ne!(a.label(), b.label());
                if (a.close_code(), a.name()) == (b.close_code(), b.name()) {
                    assert_eq!(a.close_code(), 1001, "{a:?} and {b:?}");
                }
            }
        }
    }

    #[test]
    fn a_client_that_may_come_back_waits_between_200_and_2000_ms() {
        for _ in 0..1000 {
            let wait = Disconnect::Shutdown.reconnect_after().unwrap();
            assert!((200..=2000).contains(&wait.as_millis()), "{wait:?}");
        }
        assert_eq!(Disconnect::Revoked.reconnect_after(), None);
    }
}

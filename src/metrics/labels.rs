//! The closed sets of labels, each value with what it means.

#[cfg(test)]
use super::family::Words;
use super::family::{Label, label_of, labels};
use crate::{
    config::{self, Namespace},
    disconnect::Disconnect,
    gap::GapReason,
    transport_name::Transport,
};

label_of!(Transport, "transport", Transport::as_str);
label_of!(Disconnect, "reason", Disconnect::label);
label_of!(GapReason, "reason", GapReason::as_str);

labels! {
    /// Why a connection was refused.
    Rejection "reason" {
        /// `limits.connections` is reached.
        Total "total",
        /// `limits.connections_per_address` is reached.
        Address "address",
        /// `limits.connects_per_second` is passed.
        Rate "rate",
        /// `limits.connections_per_subject` is reached.
        Subject "subject",
        /// The gateway is shutting down.
        Draining "draining",
    }

    /// By which way a publish came in.
    Route "route" {
        /// `POST /v1/channels/{channel}/messages`.
        Message "message",
        /// `POST /v1/messages`.
        Batch "batch",
        /// A WebSocket's well-formed command, or its raw frame.
        WebSocket "websocket",
    }

    /// Who published a message.
    Source "source" {
        /// A client or backend of Tidegate's.
        Tidegate "tidegate",
        /// Another program, by its own PUBLISH.
        Redis "redis",
    }

    /// What a link to Redis is for.
    RedisRole "role" {
        /// Commands.
        Command "command",
        /// Messages.
        Pubsub "pubsub",
    }

    /// Why a link to Redis was made anew.
    RedisEnd "reason" {
        /// The connection ended.
        Closed "closed",
        /// It no longer answered, or probes no longer came back.
        Silent "silent",
        /// It is not subscribed though it should be.
        Deaf "deaf",
        /// What it carried has moved to another server.
        Moved "moved",
    }

    /// What keeps the messages.
    BrokerKind "kind" {
        /// This process.
        Memory "memory",
        /// A Redis, by any of its URLs.
        Redis "redis",
    }

    /// Which listener.
    ListenerName "listener" {
        /// Where clients connect.
        Public "public",
        /// Where backends connect.
        Internal "internal",
    }

    /// What Redis was asked to do.
    RedisCommand "op" {
        /// Store and hand out a message.
        Publish "publish",
        /// Read a channel's log.
        Read "read",
        /// Compare the newest positions of channels.
        Tops "tops",
        /// Anything else.
        Other "other",
    }

    /// Why a channel goes on in another epoch.
    EpochChange "reason" {
        /// The primary changed, or started again.
        Failover "failover",
        /// Redis no longer knows the channel, or knows another life of it.
        Reset "reset",
        /// A link was away, and what passed meanwhile cannot be read back.
        Link "link",
    }

    /// What came of a fetch of the issuer's keys.
    JwksRefresh "result" {
        /// They are there.
        Ok "ok",
        /// The issuer is away.
        Away "unreachable",
        /// What it answers is no JWKS that tokens can be checked by.
        Bad "invalid",
    }

    /// How a request was answered.
    StatusClass "code" {
        /// Accepted.
        Success "2xx",
        /// Refused.
        ClientError "4xx",
        /// Failed.
        ServerError "5xx",
    }

    /// What became of the position that a subscriber came with.
    Resume "result" {
        /// All after it followed.
        Recovered "recovered",
        /// Some after it was missing.
        Gap "gap",
        /// It came with none.
        Fresh "fresh",
    }

    /// Why a message that was on its way to a client did not reach it.
    Dropped "reason" {
        /// A newer message of its channel took its place.
        Conflated "conflated",
        /// The connection ended while it waited. Its client may come back for it.
        Ended "ended",
    }

    /// What was done about a client that reads too slowly.
    SlowAction "action" {
        /// Its connection was ended.
        Disconnect "disconnect",
        /// It got the newest message of each channel only.
        Conflate "conflate",
    }

    /// What a rate limit held back.
    RateScope "scope" {
        /// New connections.
        Connects "connects",
        /// Commands of a WebSocket.
        Commands "commands",
        /// Publishes with a key, by its `rate`.
        Publishes "publishes",
        /// Wrong keys from one address.
        Keys "keys",
    }

    /// Why a credential did not do.
    AuthFailure "reason" {
        /// There was none.
        Missing "missing",
        /// It never held.
        Invalid "invalid",
        /// It held once.
        Expired "expired",
        /// It does not grant what was asked for.
        Forbidden "forbidden",
        /// The issuer's keys could not be had.
        Unavailable "unavailable",
    }
}

impl Source {
    /// Of a namespace's messages.
    #[must_use]
    pub fn of(namespace: &Namespace) -> Self {
        match namespace.source {
            config::Source::Tidegate => Self::Tidegate,
            config::Source::Redis(_) => Self::Redis,
        }
    }
}

impl StatusClass {
    /// The class of an HTTP status.
    #[must_use]
    pub fn of(status: u16) -> Self {
        match status {
            0..400 => Self::Success,
            400..500 => Self::ClientError,
            _ => Self::ServerError,
        }
    }
}

//! Why a server cannot be used, in one sentence that names what and where; and what became of a command.

use std::{io, time::Duration};

use fred::rustls;

use super::server::Server;

/// A server, or a set of Sentinels, that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("Redis at {place}: {problem}")]
pub struct ConnectError {
    /// Which server, as the operator would write it.
    pub place: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a server.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// Nobody listens.
    #[error("the connection is refused")]
    Refused,
    /// No answer came in time.
    #[error("no answer within {}", seconds(.0))]
    TimedOut(Duration),
    /// No answer came in time, with TLS.
    #[error("no answer within {} (a server that speaks no TLS at this port is silent too: redis://)", seconds(.0))]
    Silent(Duration),
    /// The name has no address.
    #[error("the host name cannot be resolved: {0}")]
    Unresolved(String),
    /// The network, or the socket's file.
    #[error("{0}")]
    Network(String),
    /// The connection ended during the first exchange.
    #[error("the connection was closed before the first answer (a server that wants TLS does so: rediss://)")]
    Closed,
    /// TLS was refused by one side.
    #[error("TLS failed: {0}")]
    Tls(String),
    /// The user or the password is wrong; the keys that give them.
    #[error("the user name or the password is wrong: see {0}")]
    WrongLogin(&'static str),
    /// It wants a password; the key that gives it.
    #[error("a password is needed: give {0}")]
    NeedsLogin(&'static str),
    /// The ACL does not allow it.
    #[error("the ACL forbids it: {0}")]
    Denied(String),
    /// Older than Functions and sharded pub/sub.
    #[error("its version is {0}: Redis 7.0 or newer is needed, or Valkey")]
    TooOld(String),
    /// It follows another server.
    #[error("this is a replica, not the primary")]
    NotPrimary,
    /// No Sentinel watches it.
    #[error("the Sentinel knows no service {0:?}: see the last part of broker.url")]
    UnknownService(String),
    /// A node of a Cluster where one server was asked for.
    #[error("this is a node of a Redis Cluster: write redis-cluster:// in broker.url")]
    IsCluster,
    /// One server where a Cluster was asked for.
    #[error("this is not a node of a Redis Cluster: write redis:// in broker.url")]
    NotCluster,
    /// A Sentinel where a server was asked for.
    #[error("this is a Sentinel: write redis-sentinel://host:port,…/service in broker.url")]
    IsSentinel,
    /// A server where a Sentinel was asked for.
    #[error("this is not a Sentinel: see broker.url")]
    NotSentinel,
    /// It reads its data from disk.
    #[error("it is loading its data")]
    Loading,
    /// Nobody serves all of the Cluster's slots.
    #[error("the node knows no owner of any slot")]
    NoSlots,
    /// Something else.
    #[error("unexpected answer: {0}")]
    Answer(String),
}

fn seconds(duration: &Duration) -> String {
    format!("{} s", duration.as_secs_f32())
}

impl ConnectError {
    /// The problem of this server.
    #[must_use]
    pub fn new(server: &Server, problem: Problem) -> Self {
        Self { place: server.to_string(), problem }
    }

    /// Whether time alone will not cure it: somebody has to change the configuration, here or there.
    #[must_use]
    pub fn is_misconfigured(&self) -> bool {
        match self.problem {
            Problem::Refused
            | Problem::TimedOut(_)
            | Problem::Silent(_)
            | Problem::Unresolved(_)
            | Problem::Network(_)
            | Problem::Closed
            | Problem::NotPrimary
            | Problem::Loading
            | Problem::NoSlots
            | Problem::Answer(_) => false,
            Problem::Tls(_)
            | Problem::WrongLogin(_)
            | Problem::NeedsLogin(_)
            | Problem::Denied(_)
            | Problem::TooOld(_)
            | Problem::UnknownService(_)
            | Problem::IsCluster
            | Problem::NotCluster
            | Problem::IsSentinel
            | Problem::NotSentinel => true,
        }
    }
}

impl From<io::Error> for Problem {
    fn from(error: io::Error) -> Self {
        // With TLS 1.3 a server refuses the client's certificate only after the handshake.
        if let Some(tls) = error.get_ref().and_then(|error| error.downcast_ref::<rustls::Error>()) {
            return match tls {
                rustls::Error::AlertReceived(rustls::AlertDescription::CertificateRequired) => Self::Tls(
                    "the server wants a client certificate: give broker.cert_file and broker.key_file".into(),
                ),
                _ => Self::Tls(tls.to_string()),
            };
        }
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::UnexpectedEof | io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe => {
                Self::Closed
            }
            io::ErrorKind::NotFound => Self::Network("there is no such socket".into()),
            io::ErrorKind::PermissionDenied => {
                Self::Network("the socket may not be opened by this user".into())
            }
            _ => Self::Network(error.to_string()),
        }
    }
}

/// What became of a command that has no result.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    /// It was surely not executed: not sent, or refused by the server before it began.
    #[error("Redis is away")]
    Unavailable,
    /// It was sent, and its answer was lost or late.
    #[error("the answer of Redis was lost")]
    Uncertain,
    /// The slot belongs to another server.
    #[error("slot {slot} moved to {server}")]
    Moved {
        /// The slot.
        slot: u16,
        /// Its owner.
        server: Server,
    },
    /// The key is already on the server that the slot moves to; see [`CommandLink::ask`](super::command::CommandLink::ask).
    #[error("slot {slot} is moving to {server}")]
    Ask {
        /// The slot.
        slot: u16,
        /// Where the key is.
        server: Server,
    },
    /// Some keys of the command are here and some are where the slot moves to.
    #[error("the slot is half moved")]
    TryAgain,
    /// It was not done: the server takes no writes, since it lacks a replica or could not save.
    #[error("Redis takes no writes")]
    NoWrites,
    /// The Function or the script is not there: not loaded yet, or flushed.
    #[error("the Function is not loaded")]
    NoFunction,
    /// The ACL forbids it.
    #[error("the ACL of Redis forbids it: {0}")]
    Denied(String),
    /// Any other error reply, as it came: ours begin with `TG`.
    #[error("{0}")]
    Other(String),
}

/// What a server refuses before it begins: nothing of the command was done.
const REFUSED: [&str; 6] = ["LOADING", "MASTERDOWN", "READONLY", "CLUSTERDOWN", "OOM", "BUSY"];

impl CommandError {
    /// What an error reply says. `asked` is the server that sent it: a redirection may leave its host out.
    #[must_use]
    pub fn from_reply(text: &str, asked: &Server) -> Self {
        let mut words = text.split(' ');
        let code = words.next().unwrap_or_default();
        let in_script = is_from_within(text);
        match code {
            "MOVED" | "ASK" => {
                redirection(code, words, asked).unwrap_or_else(|| Self::Other(text.to_owned()))
            }
            "TRYAGAIN" => Self::TryAgain,
            "NOSCRIPT" => Self::NoFunction,
            "NOPERM" | "NOAUTH" | "WRONGPASS" => Self::Denied(text.to_owned()),
            "ERR" if text.starts_with("ERR Function not found") => Self::NoFunction,
            "MISCONF" | "NOREPLICAS" if !in_script => Self::NoWrites,
            _ if REFUSED.contains(&code) && !in_script => Self::Unavailable,
            _ => Self::Other(text.to_owned()),
        }
    }

    /// Whether it says nothing of what the server allows or knows: it may be otherwise in a moment.
    #[must_use]
    pub fn is_passing(&self) -> bool {
        matches!(self, Self::Unavailable | Self::NoWrites | Self::Uncertain)
    }

    /// Whether it was raised by a step of a function, not before it began.
    #[must_use]
    pub fn is_from_within(&self) -> bool {
        matches!(self, Self::Denied(text) | Self::Other(text) if is_from_within(text))
    }
}

/// An error from within a function or a script comes after some of it was done.
fn is_from_within(text: &str) -> bool {
    text.contains(" script: ")
}

fn redirection<'a>(
    code: &str,
    mut words: impl Iterator<Item = &'a str>,
    asked: &Server,
) -> Option<CommandError> {
    let slot = words.next()?.parse().ok()?;
    let server = asked.beside(words.next()?)?;
    Some(match code {
        "MOVED" => CommandError::Moved { slot, server },
        _ => CommandError::Ask { slot, server },
    })
}

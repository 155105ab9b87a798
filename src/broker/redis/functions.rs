//! What is asked of `tidegate.lua`, typed: one method for each of its functions. It runs as a library of functions,
//! or as a script where those are refused. Knows no connection: whoever can send a command is a [`Call`].

mod publish;
mod read;
mod reply;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        LazyLock,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use fred::types::Value;

pub use self::read::Read;
use self::reply::Reply;
use super::{
    command::CommandError,
    names::{Names, Partition},
    track::Seen,
};
use crate::{channel::Channel, clock::millis};

/// The one file that writes to Redis.
const LIBRARY: &str = include_str!("tidegate.lua");

/// The format of all that is kept: part of the library's name.
const FORMAT: u64 = 1;

/// Larger numbers are not exact in Lua; nothing counts so far.
const LARGEST: u64 = (1 << 53) - 1;

/// Names that one call of `tidegate_1_list` is asked for at most.
const NAMES_AT_ONCE: usize = 1000;

/// The library as a script, which has no first line, and its SHA-1.
static SCRIPT: LazyLock<(&str, String)> = LazyLock::new(|| {
    let body = LIBRARY.split_once('\n').map_or(LIBRARY, |(_, body)| body);
    (body, fred::util::sha1_hash(body))
});

/// Something that carries a command to a server and brings its answer.
pub trait Call {
    /// Sends a command.
    ///
    /// # Errors
    /// What became of it.
    fn call(
        &self,
        command: &'static str,
        arguments: Vec<Value>,
    ) -> impl Future<Output = Result<Value, CommandError>> + Send;

    /// Whether the server is asked for a slot that is still on its way to it: what it lacks may be elsewhere.
    fn is_asking(&self) -> bool {
        false
    }
}

/// The calls of one deployment.
#[derive(Debug)]
pub struct Functions {
    names: Names,
    sharded: bool,
    /// Functions are refused, so the library runs as a script.
    scripts: AtomicBool,
}

/// How the library runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loaded {
    /// As it should.
    Functions,
    /// As a script, which is slower.
    Scripts,
}

/// What a partition vouches for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opened {
    /// Milliseconds since 1970 by the clock of Redis.
    pub now_ms: u64,
    /// From this second on, it would know of a message.
    pub born: u64,
}

/// What became of a probe.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Probed {
    /// Whether the partition's state is there; where not, Redis was emptied, and it is to be opened again.
    pub has_state: bool,
    /// Milliseconds since 1970 by the clock of Redis.
    pub now_ms: u64,
    /// The second that the position of an empty channel bears now.
    pub second: u64,
    /// Another one after each start and promotion; empty where it may not be read.
    pub identity: String,
    /// Connections that got it, of those that the server knows.
    pub receivers: u64,
}

/// What Redis holds under a prefix.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Held {
    /// The number of partitions.
    pub partitions: u64,
    /// The format.
    pub format: u64,
}

impl Held {
    /// Whether this release can work with it: a release has to run beside the one before and the one after.
    #[must_use]
    pub fn is_readable(&self) -> bool {
        self.format.abs_diff(FORMAT) <= 1
    }
}

impl Functions {
    /// `sharded`: the server is a node of a Cluster.
    #[must_use]
    pub fn new(names: Names, sharded: bool) -> Self {
        Self { names, sharded, scripts: AtomicBool::new(false) }
    }

    /// Loads the library, or the script where functions are refused.
    ///
    /// # Errors
    /// Both are refused, or the server is away.
    pub async fn load(&self, link: &impl Call) -> Result<Loaded, CommandError> {
        let library = link.call("FUNCTION", vec!["LOAD".into(), "REPLACE".into(), LIBRARY.into()]).await;
        // Where it may not be loaded, somebody else may have done so.
        let refused = match library.map(|_| ()) {
            Ok(()) => self.version(link, "FCALL", "tidegate_1_version".into()).await,
            // Nor while Redis is full, or lacks a replica that it must have.
            Err(error) if error != CommandError::Uncertain => {
                self.version(link, "FCALL", "tidegate_1_version".into()).await.map_err(|_| error)
            }
            Err(error) => Err(error),
        };
        let refused = match refused {
            Ok(()) => {
                self.scripts.store(false, Relaxed);
                return Ok(Loaded::Functions);
            }
            Err(error) if error.is_passing() => return Err(error),
            Err(error) => error,
        };
        match self.version(link, "EVAL", SCRIPT.0.into()).await {
            Ok(()) => {
                self.scripts.store(true, Relaxed);
                Ok(Loaded::Scripts)
            }
            Err(error) if error.is_passing() => Err(error),
            Err(_) => Err(refused),
        }
    }

    async fn version(&self, link: &impl Call, how: &'static str, what: Value) -> Result<(), CommandError> {
        let mut arguments = vec![what, Value::Integer(0)];
        if how == "EVAL" {
            arguments.push("tidegate_1_version".into());
        }
        link.call(how, arguments).await.map(|_| ())
    }

    /// Calls a function, or the script in its place.
    async fn ask(
        &self,
        link: &impl Call,
        function: &'static str,
        keys: Vec<Bytes>,
        arguments: Vec<Value>,
    ) -> Result<Reply, CommandError> {
        let count = Value::Integer(i64::try_from(keys.len()).unwrap_or(i64::MAX));
        let mut all = Vec::with_capacity(keys.len() + arguments.len() + 3);
        let command = match self.scripts.load(Relaxed) {
            false => {
                all.extend([function.into(), count]);
                all.extend(keys.into_iter().map(Value::Bytes));
                "FCALL"
            }
            true => {
                all.extend([SCRIPT.1.as_str().into(), count]);
                all.extend(keys.into_iter().map(Value::Bytes));
                all.push(function.into());
                "EVALSHA"
            }
        };
        all.extend(arguments);
        // A script is not refused as a whole.
        let read_only = read_only(function).filter(|_| command == "FCALL").map(|instead| {
            let mut all = all.clone();
            all[0] = instead.into();
            all
        });
        let answer = match (link.call(command, all).await, read_only) {
            (Err(CommandError::NoWrites), Some(all)) => {
                let answer = link.call(command, all).await;
                // Not there yet, in the library of a gateway one version back; or it would have to write after all.
                answer.map_err(|error| match error == CommandError::NoFunction || error.is_from_within() {
                    true => CommandError::NoWrites,
                    false => error,
                })?
            }
            (answer, _) => answer?,
        };
        Ok(Reply::new(function, answer))
    }

    /// `P`, or `S` for sharded pub/sub.
    fn mode(&self) -> Value {
        if self.sharded { "S".into() } else { "P".into() }
    }

    fn database(&self) -> Value {
        number(u64::from(self.names.database()))
    }

    /// The newest positions of channels of one partition, at one moment, in their order.
    ///
    /// # Errors
    /// What became of the command.
    pub async fn tops(
        &self,
        link: &impl Call,
        partition: Partition,
        channels: &[Channel],
    ) -> Result<Vec<Seen>, CommandError> {
        let mut keys = vec![self.names.state(partition)];
        keys.extend(channels.iter().map(|channel| self.names.meta(partition, channel)));
        let mut reply = self.ask(link, "tidegate_1_tops", keys, Vec::new()).await?;
        let (second, vouch_from) = (reply.number()?, reply.number()?);
        let mut seen = Vec::with_capacity(channels.len());
        for _ in channels {
            let (epoch, top) = (reply.epoch()?, reply.number()?);
            seen.push(Seen { top: epoch.map(|epoch| (epoch, top)), second, vouch_from });
        }
        Ok(seen)
    }

    /// Removes the channel's messages, and tells those who listen.
    ///
    /// # Errors
    /// What became of the command.
    pub async fn forget(&self, link: &impl Call, channel: &Channel) -> Result<(), CommandError> {
        let partition = self.names.partition(channel);
        let keys = vec![
            self.names.meta(partition, channel),
            self.names.log(partition, channel),
            self.names.names(partition),
        ];
        let arguments = vec![channel.as_str().into(), self.database(), self.mode()];
        self.ask(link, "tidegate_1_forget", keys, arguments).await.map(|_| ())
    }

    /// The first channels of a partition that keep a message, begin with `prefix` and sort after `after`.
    ///
    /// # Errors
    /// What became of the command.
    pub async fn list(
        &self,
        link: &impl Call,
        partition: Partition,
        prefix: &str,
        after: Option<&str>,
        limit: usize,
    ) -> Result<Vec<Channel>, CommandError> {
        let mut from = match after {
            Some(after) if after >= prefix => format!("({after}"),
            _ => format!("[{prefix}"),
        };
        // Names are ASCII below DEL, so that is after all that begin with the prefix.
        let to = if prefix.is_empty() { "+".to_owned() } else { format!("({prefix}\u{7f}") };
        let mut found: Vec<Channel> = Vec::new();
        while found.len() < limit {
            let wanted = (limit - found.len()).min(NAMES_AT_ONCE);
            let arguments = vec![
                Value::Bytes(self.names.logs(partition)),
                from.into(),
                to.as_str().into(),
                number(wanted as u64),
                number(u64::from(!link.is_asking())),
            ];
            let keys = vec![self.names.names(partition)];
            let mut reply = self.ask(link, "tidegate_1_list", keys, arguments).await?;
            from = reply.text()?;
            while !reply.is_over() {
                found.extend(reply.text()?.parse::<Channel>().ok());
            }
            if from.is_empty() {
                break;
            }
        }
        Ok(found)
    }

    /// Makes a partition's state where it is missing or out of date.
    ///
    /// # Errors
    /// What became of the command.
    pub async fn open(&self, link: &impl Call, partition: Partition) -> Result<Opened, CommandError> {
        let keys = vec![self.names.state(partition)];
        let mut reply = self.ask(link, "tidegate_1_open", keys, Vec::new()).await?;
        let now_ms = reply.number()?;
        reply.text()?;
        Ok(Opened { now_ms, born: reply.number()? })
    }

    /// Sends `"<now ms> <payload>"` to a channel of pub/sub in the partition's slot.
    ///
    /// # Errors
    /// What became of the command.
    pub async fn probe(
        &self,
        link: &impl Call,
        partition: Partition,
        channel: &Bytes,
        payload: &str,
    ) -> Result<Probed, CommandError> {
        let keys = vec![self.names.state(partition)];
        let arguments = vec![Value::Bytes(channel.clone()), payload.into(), self.mode()];
        let mut reply = self.ask(link, "tidegate_1_probe", keys, arguments).await?;
        Ok(Probed {
            has_state: reply.flag()?,
            now_ms: reply.number()?,
            second: reply.number()?,
            identity: reply.text()?,
            receivers: reply.number()?,
        })
    }

    /// Leaves how many subscribers a node has of channels of one partition, for as long as `lease`.
    ///
    /// # Errors
    /// What became of the command.
    pub async fn count(
        &self,
        link: &impl Call,
        partition: Partition,
        node: &str,
        lease: Duration,
        counts: &[(Channel, usize)],
    ) -> Result<(), CommandError> {
        let keys = counts.iter().map(|(channel, _)| self.names.subscribers(partition, channel)).collect();
        let mut arguments = vec![node.into(), number(millis(lease))];
        arguments.extend(counts.iter().map(|(_, count)| number(*count as u64)));
        self.ask(link, "tidegate_1_count", keys, arguments).await.map(|_| ())
    }

    /// How many subscribers other nodes have of a channel, and the age of the oldest of their figures in ms.
    ///
    /// # Errors
    /// What became of the command.
    pub async fn counted(
        &self,
        link: &impl Call,
        channel: &Channel,
        node: &str,
        lease: Duration,
    ) -> Result<(usize, u64), CommandError> {
        let keys = vec![self.names.subscribers(self.names.partition(channel), channel)];
        let arguments = vec![number(millis(lease)), node.into()];
        let mut reply = self.ask(link, "tidegate_1_counted", keys, arguments).await?;
        Ok((usize::try_from(reply.number()?).unwrap_or(usize::MAX), reply.number()?))
    }

    /// What Redis holds under this prefix: what this deployment is configured for, where it holds nothing.
    ///
    /// # Errors
    /// What became of the command.
    pub async fn format(&self, link: &impl Call) -> Result<Held, CommandError> {
        let arguments = vec![number(u64::from(self.names.partitions())), number(FORMAT)];
        let mut reply = self.ask(link, "tidegate_1_format", vec![self.names.format()], arguments).await?;
        Ok(Held { partitions: reply.number()?, format: reply.number()? })
    }
}

/// The form of a function that is let through where Redis takes no writes.
fn read_only(function: &str) -> Option<&'static str> {
    match function {
        "tidegate_1_read" => Some("tidegate_1_read_ro"),
        "tidegate_1_tops" => Some("tidegate_1_tops_ro"),
        "tidegate_1_list" => Some("tidegate_1_list_ro"),
        "tidegate_1_open" => Some("tidegate_1_open_ro"),
        "tidegate_1_format" => Some("tidegate_1_format_ro"),
        _ => None,
    }
}

/// A number as Lua can hold it.
fn number(n: u64) -> Value {
    Value::Integer(n.min(LARGEST) as i64)
}

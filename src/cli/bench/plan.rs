//! Arguments as typed → a plan that can be carried out, or the reason why not. Nothing is connected before.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, ToSocketAddrs},
    time::Duration,
};

use super::{Bench, stamp::STAMP_LENGTH, way::Way};

/// Descriptors beside the connections: the publishers, the runtime's own, standard streams.
const RESERVE: u64 = 32;

/// A run, checked.
pub struct Plan {
    /// Where subscribers connect.
    pub public: Endpoint,
    /// Where publishers connect.
    pub internal: Endpoint,
    /// How subscribers receive.
    pub way: Way,
    /// Subscribers.
    pub connections: u32,
    /// Channels that they are spread over.
    pub channels: u32,
    /// What the channels' names begin with.
    pub prefix: String,
    /// Bytes of a payload.
    pub size: usize,
    /// When the next message goes out.
    pub pace: Pace,
    /// Connections that publish.
    pub publishers: usize,
    /// How long to publish, or to hold idle connections.
    pub duration: Duration,
    /// How many messages at most.
    pub messages: Option<u64>,
    /// Only connect and hold.
    pub idle: bool,
    /// The server's processes.
    pub server: Vec<u32>,
    /// The first address to connect from.
    pub source: Option<Ipv4Addr>,
}

/// When the next message goes out.
#[derive(Clone, Copy)]
pub enum Pace {
    /// At fixed times, so many a second, whatever the server does.
    Open(f64),
    /// When one of so many is answered.
    Closed(usize),
    /// When every subscriber has the one before.
    OneAtATime,
}

/// One of the server's listeners.
pub struct Endpoint {
    /// For the `Host` header.
    pub authority: String,
    /// Where to connect.
    pub address: SocketAddr,
}

/// Why there is nothing to run.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("{url}: {reason}; an address like http://127.0.0.1:8000 is needed")]
    Url { url: String, reason: String },
    #[error("--size {0}: a message needs {STAMP_LENGTH} bytes for its number and time")]
    Size(usize),
    #[error("--rate {0}: more than 0 messages a second are needed")]
    Rate(f64),
    #[error("--channels and --publishers: at least one of each is needed")]
    Nothing,
    #[error(
        "--transport echo drives `tidegate-floor echo` as fast as it answers, for --duration: \
         it takes no pace, no --messages and no --idle"
    )]
    Echo,
    #[error(
        "{needed} descriptors are needed and this process may open {limit}: raise the limit (`ulimit -n {needed}`), \
         or run several of `tidegate bench`, each with fewer --connections and its own --source"
    )]
    Descriptors { needed: u64, limit: u64 },
    #[error("--server-pid {pid}: {source}")]
    Server { pid: u32, source: std::io::Error },
}

impl Plan {
    /// Checks the arguments.
    pub fn check(arguments: &Bench) -> Result<Self, Refused> {
        if arguments.size < STAMP_LENGTH {
            return Err(Refused::Size(arguments.size));
        }
        if arguments.channels == 0 || arguments.publishers == Some(0) || arguments.in_flight == Some(0) {
            return Err(Refused::Nothing);
        }
        let pace = pace(arguments)?;
        let publishers = arguments.publishers.or(arguments.in_flight).unwrap_or(1);
        descriptors(u64::from(arguments.connections) + publishers as u64 + RESERVE)?;
        for pid in &arguments.server_pid {
            super::server::cpu(&[*pid]).map_err(|source| Refused::Server { pid: *pid, source })?;
        }
        Ok(Self {
            public: Endpoint::parse(&arguments.url)?,
            internal: Endpoint::parse(&arguments.internal_url)?,
            way: arguments.transport,
            connections: arguments.connections,
            channels: arguments.channels,
            prefix: arguments.channel.clone(),
            size: arguments.size,
            pace,
            publishers,
            duration: Duration::from_secs_f64(arguments.duration.clamp(0.0, 1e6)),
            messages: arguments.messages,
            idle: arguments.idle,
            server: arguments.server_pid.clone(),
            source: arguments.source,
        })
    }

    /// The channel of a connection: subscribers are spread evenly.
    pub fn channel_of(&self, connection: u32) -> u32 {
        connection % self.channels
    }

    /// How many connections listen to a channel.
    pub fn subscribers(&self, channel: u32) -> u64 {
        let (each, rest) = (self.connections / self.channels, self.connections % self.channels);
        u64::from(each) + u64::from(channel < rest)
    }

    /// The name of a channel.
    pub fn channel_name(&self, channel: u32) -> String {
        format!("{}-{channel}", self.prefix)
    }
}

impl Endpoint {
    fn parse(url: &str) -> Result<Self, Refused> {
        let refused = |reason: &str| Refused::Url { url: url.to_owned(), reason: reason.to_owned() };
        let uri: http::Uri =
            url.parse().map_err(|error: http::uri::InvalidUri| refused(&error.to_string()))?;
        if uri.scheme_str() != Some("http") {
            return Err(refused("not http://"));
        }
        let (Some(authority), Some(host)) = (uri.authority(), uri.host()) else {
            return Err(refused("no host"));
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let mut addresses = (host, uri.port_u16().unwrap_or(80))
            .to_socket_addrs()
            .map_err(|error| refused(&error.to_string()))?;
        let address = addresses.next().ok_or_else(|| refused("no address"))?;
        Ok(Self { authority: authority.to_string(), address })
    }
}

fn pace(arguments: &Bench) -> Result<Pace, Refused> {
    let paced = arguments.rate.is_some() || arguments.in_flight.is_some() || arguments.one_at_a_time;
    if arguments.transport == Way::Echo && (paced || arguments.idle || arguments.messages.is_some()) {
        return Err(Refused::Echo);
    }
    match (arguments.rate, arguments.in_flight) {
        (Some(rate), _) if !(rate > 0.0 && rate.is_finite()) => Err(Refused::Rate(rate)),
        (Some(rate), _) => Ok(Pace::Open(rate)),
        (None, Some(in_flight)) => Ok(Pace::Closed(in_flight)),
        (None, None) if arguments.one_at_a_time => Ok(Pace::OneAtATime),
        (None, None) => Ok(Pace::Closed(arguments.publishers.unwrap_or(1))),
    }
}

/// Better said before than found as the 19,969th connection fails.
fn descriptors(needed: u64) -> Result<(), Refused> {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    // No number: no limit, or no way to know.
    match soft.and_then(|soft| soft.parse().ok()) {
        Some(limit) if needed > limit => Err(Refused::Descriptors { needed, limit }),
        _ => Ok(()),
    }
}

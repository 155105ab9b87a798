//! Arguments as typed → a plan that can be carried out, or the reason why not. Nothing is connected before.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr, ToSocketAddrs},
    ops::Range,
    time::Duration,
};

use super::{
    Bench, requests,
    stamp::STAMP_LENGTH,
    template::{BadTemplate, Blank, Template},
    way::Way,
};
use crate::{cli::client::Credential, transport_name::Transport};

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
    /// How a stream is opened.
    pub subscribe: Template,
    /// How a message is published.
    pub publish: Template,
    /// Subscribers, in all processes.
    pub connections: u32,
    /// Which of them are this process's own.
    pub seats: Range<u32>,
    /// Processes that subscribe; of several this one only publishes, unless it is one of them.
    pub processes: u32,
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
    /// The value of `Authorization`, where there is one to show.
    authorization: Option<String>,
}

/// Why there is nothing to run.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    #[error("{0}")]
    Credential(String),
    #[error("{url}: {reason}; an address like http://127.0.0.1:8000 is needed")]
    Url { url: String, reason: String },
    #[error("--size {0}: a message needs {STAMP_LENGTH} bytes for its number and time")]
    Size(usize),
    #[error("--rate {0}: more than 0 messages a second are needed")]
    Rate(f64),
    #[error("--channels, --publishers and --processes: at least one of each is needed")]
    Nothing,
    #[error("--{option}: {source}")]
    Template { option: &'static str, source: BadTemplate },
    #[error("--subscribe-request is for streams: other servers' polls have other cursors")]
    Polls,
    #[error(
        "--transport echo drives `tidegate-floor echo` as fast as it answers, for --duration: \
         it takes no pace, no --messages, no --idle, no templates and no --processes"
    )]
    Echo,
    #[error(
        "{needed} descriptors are needed and this process may open {limit}: raise the limit (`ulimit -n {needed}`), \
         or share the connections out over --processes {processes}"
    )]
    Descriptors { needed: u64, limit: u64, processes: u64 },
    #[error("--server-pid {pid}: {source}")]
    Server { pid: u32, source: std::io::Error },
}

impl Plan {
    /// Checks the arguments.
    pub fn check(arguments: &Bench) -> Result<Self, Refused> {
        if arguments.size < STAMP_LENGTH {
            return Err(Refused::Size(arguments.size));
        }
        let none = [Some(arguments.channels), Some(arguments.processes)].contains(&Some(0));
        if none || arguments.publishers == Some(0) || arguments.in_flight == Some(0) {
            return Err(Refused::Nothing);
        }
        let (subscribe, publish) = templates(arguments)?;
        let pace = pace(arguments)?;
        let publishers = arguments.publishers.or(arguments.in_flight).unwrap_or(1);
        let seats = seats(arguments);
        descriptors(seats.len() as u64 + publishers as u64 + RESERVE)?;
        for pid in &arguments.server_pid {
            super::server::cpu(&[*pid]).map_err(|source| Refused::Server { pid: *pid, source })?;
        }
        Ok(Self {
            public: Endpoint::parse(&arguments.url, &arguments.token.clone().credential())?,
            internal: Endpoint::parse(&arguments.internal_url, &arguments.api_key.clone().credential())?,
            way: arguments.transport,
            subscribe,
            publish,
            connections: arguments.connections,
            seats,
            processes: arguments.processes,
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
    fn parse(url: &str, credential: &Credential) -> Result<Self, Refused> {
        let refused = |reason: &str| Refused::Url { url: url.to_owned(), reason: reason.to_owned() };
        let uri: http::Uri =
            url.parse().map_err(|error: http::uri::InvalidUri| refused(&error.to_string()))?;
        if uri.scheme_str() != Some("http") {
            return Err(refused("not http:// (with TLS this side would be measured too)"));
        }
        let (Some(authority), Some(host)) = (uri.authority(), uri.host()) else {
            return Err(refused("no host"));
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let mut addresses = (host, uri.port_u16().unwrap_or(80))
            .to_socket_addrs()
            .map_err(|error| refused(&error.to_string()))?;
        let address = addresses.next().ok_or_else(|| refused("no address"))?;
        let shown = credential.header().map_err(Refused::Credential)?;
        let authorization = shown.and_then(|value| value.to_str().ok().map(str::to_owned));
        Ok(Self { authority: authority.to_string(), address, authorization })
    }

    /// The header that lets in, where there is one.
    pub fn authorization(&self) -> Option<(&'static str, &str)> {
        self.authorization.as_deref().map(|value| ("Authorization", value))
    }
}

fn pace(arguments: &Bench) -> Result<Pace, Refused> {
    let paced = arguments.rate.is_some() || arguments.in_flight.is_some() || arguments.one_at_a_time;
    let templates = arguments.subscribe_request.is_some() || arguments.publish_request.is_some();
    let more = arguments.idle || arguments.messages.is_some() || arguments.processes > 1;
    if arguments.transport == Way::Echo && (paced || templates || more) {
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

/// Both templates, with the blanks that they need. One channel needs no blank: it may be in the text.
fn templates(arguments: &Bench) -> Result<(Template, Template), Refused> {
    let poll = arguments.transport == Way::Gateway(Transport::Poll);
    if poll && arguments.subscribe_request.is_some() {
        return Err(Refused::Polls);
    }
    let read = |option, given: Option<&str>, own: &str| {
        let read = given.map_or_else(|| Template::parse(own), Template::read);
        let read = read.and_then(|template| match arguments.channels {
            1 => Ok(template),
            _ => template.needs(Blank::Channel),
        });
        read.map_err(|source| Refused::Template { option, source })
    };
    let subscribe = read("subscribe-request", arguments.subscribe_request.as_deref(), requests::SUBSCRIBE)?;
    let publish = read("publish-request", arguments.publish_request.as_deref(), requests::PUBLISH)?;
    let publish = publish.needs(Blank::Payload);
    let publish = publish.map_err(|source| Refused::Template { option: "publish-request", source })?;
    Ok((subscribe, publish))
}

/// The connections that are this process's own: all, its share, or none where others have them.
fn seats(arguments: &Bench) -> Range<u32> {
    let (all, processes) = (u64::from(arguments.connections), u64::from(arguments.processes));
    let share = |process: u64| (all * process / processes) as u32;
    match arguments.share {
        Some(process) => share(process.into())..share(u64::from(process) + 1),
        None if arguments.processes > 1 => 0..0,
        None => 0..arguments.connections,
    }
}

/// Better said before than found as the 19,969th connection fails.
fn descriptors(needed: u64) -> Result<(), Refused> {
    let limits = fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let soft = limits.lines().find_map(|line| line.strip_prefix("Max open files")?.split_whitespace().next());
    // No number: no limit, or no way to know.
    match soft.and_then(|soft| soft.parse().ok()) {
        Some(limit) if needed > limit => {
            Err(Refused::Descriptors { needed, limit, processes: needed.div_ceil(limit.max(1)) + 1 })
        }
        _ => Ok(()),
    }
}

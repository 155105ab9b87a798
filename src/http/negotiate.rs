//! What a `GET /v1/subscribe` asks for: by its parameters, its headers and nothing else. Pure.
//!
//! Whether the client may have it is decided after this, and serving it is the transports' work.

mod accept;
#[cfg(test)]
mod tests;
mod upgrade;

use std::{collections::HashSet, time::Duration};

use http::{HeaderMap, header, request::Parts};

pub use self::upgrade::{Handshake, PROTOCOL};
use super::{
    headers,
    query::{self, Query, shown},
};
use crate::{
    channel::Channel,
    fault::{Code, Fault},
    position::{CLOCK_SKEW, Since},
    transport_name::Transport,
};

/// Every parameter. `_` is what old libraries add to get past caches; it is ignored.
const PARAMETERS: &[&str] =
    &["channel", "since", "transport", "format", "wait", "limit", "token", "lastEventId", "_"];

/// The longest wait of a poll, in seconds: under the 60 s at which proxies cut what is silent.
const MAX_WAIT: u64 = 55;

/// The wait of a poll that names none.
const DEFAULT_WAIT: u64 = 25;

/// The most messages in the answer to one poll.
pub const MAX_LIMIT: u64 = 1000;

/// The messages in the answer to a poll that names no limit.
pub const DEFAULT_LIMIT: u64 = 100;

/// A subscriber's request, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SubscribeRequest {
    /// How to serve it.
    pub transport: Transport,
    /// Each named once; empty only for a WebSocket.
    pub channels: Vec<Channel>,
    /// Where to start, one for each channel.
    pub since: Vec<Since>,
    /// Payloads alone, without objects around them.
    pub raw: bool,
    /// How long a poll may be held.
    pub wait: Duration,
    /// The most messages in the answer to a poll.
    pub limit: usize,
    /// The credential: from `Authorization`, else `token`, else a subprotocol.
    pub token: Option<String>,
    /// For a WebSocket, and only for one.
    pub websocket: Option<Handshake>,
}

impl SubscribeRequest {
    /// Reads the head of a request. `max_channels` is `limits.channels_per_connection`, `now` the broker's
    /// clock in seconds since 1970.
    ///
    /// # Errors
    /// A fault for the first thing that is wrong, whatever the transport: it is told before any upgrade.
    pub fn read(head: &Parts, max_channels: usize, now: u64) -> Result<Self, Fault> {
        let query = Query::parse(head.uri.query(), PARAMETERS)?;
        let transport = transport(&query, &head.headers)?;
        let websocket = match transport {
            Transport::WebSocket => Some(upgrade::read(head)?),
            _ => None,
        };
        let raw = raw(&query, transport)?;
        let poll = Poll::read(&query, transport)?;
        let channels = channels(&query, max_channels)?;
        fits(channels.len(), transport, raw)?;
        let since = since(&query, &head.headers, channels.len(), now)?;
        let token = token(&query, &head.headers, websocket.as_ref())?;
        Ok(Self { transport, channels, since, raw, wait: poll.wait, limit: poll.limit, token, websocket })
    }
}

/// What only a poll may ask for.
struct Poll {
    wait: Duration,
    limit: usize,
}

impl Poll {
    fn read(query: &Query<'_>, transport: Transport) -> Result<Self, Fault> {
        if transport != Transport::Poll {
            useless(query, &["wait", "limit"], transport)?;
        }
        let wait = query.number("wait", 0..=MAX_WAIT)?.unwrap_or(DEFAULT_WAIT);
        Ok(Self { wait: Duration::from_secs(wait), limit: limit(query)? })
    }
}

/// `limit` as polls and the reading of history have it: 1 to 1000 messages, 100 where nothing is said.
///
/// # Errors
/// `invalid_parameter`.
pub fn limit(query: &Query<'_>) -> Result<usize, Fault> {
    let limit = query.number("limit", 1..=MAX_LIMIT)?.unwrap_or(DEFAULT_LIMIT);
    Ok(usize::try_from(limit).unwrap_or(usize::MAX))
}

/// By `transport`, else by `Upgrade`, else by `Accept`.
fn transport(query: &Query<'_>, headers: &HeaderMap) -> Result<Transport, Fault> {
    match query.one("transport")? {
        Some(name) => {
            name.parse().map_err(|error| query::invalid("transport", format!("{error}, not {}", shown(name))))
        }
        None if upgrade::is_asked(headers) => Ok(Transport::WebSocket),
        None => accept::transport(headers),
    }
}

fn raw(query: &Query<'_>, transport: Transport) -> Result<bool, Fault> {
    if transport == Transport::Poll {
        useless(query, &["format"], transport)?;
    }
    match query.one("format")? {
        None | Some("json") => Ok(false),
        Some("raw") => Ok(true),
        Some(other) => {
            Err(query::invalid("format", format!("`format` is json or raw, not {}", shown(other))))
        }
    }
}

/// Refuses parameters that would change nothing: who gives one expects that it does.
fn useless(query: &Query<'_>, names: &[&str], transport: Transport) -> Result<(), Fault> {
    match names.iter().find(|name| query.all(name).next().is_some()) {
        None => Ok(()),
        Some(name) => Err(query::invalid(name, format!("`{name}` has no use for the transport {transport}"))),
    }
}

fn channels(query: &Query<'_>, max: usize) -> Result<Vec<Channel>, Fault> {
    let count = query.all("channel").count();
    if count > max {
        return Err(too_many(count, max));
    }
    let mut seen = HashSet::new();
    let mut channels = Vec::with_capacity(count);
    for name in query.all("channel") {
        let channel = query::channel(name)?;
        if count > 1 && !seen.insert(name) {
            let detail = format!("the channel {channel} is named more than once");
            return Err(Fault::new(Code::DuplicateChannel, detail).parameter("channel"));
        }
        channels.push(channel);
    }
    Ok(channels)
}

fn too_many(count: usize, max: usize) -> Fault {
    let detail = format!("{count} channels are asked for, this connection takes {max}");
    Fault::new(Code::TooManyChannels, detail).limit(max).parameter("channel")
}

/// A WebSocket may name its channels later; a raw one never can, and its frames do not say whose they are.
fn fits(channels: usize, transport: Transport, raw: bool) -> Result<(), Fault> {
    match (transport, raw, channels) {
        (Transport::WebSocket, true, 2..) => Err(too_many(channels, 1)),
        (Transport::WebSocket, false, 0) | (_, _, 1..) => Ok(()),
        (_, _, 0) => {
            let detail = "name at least one channel, as in `?channel=orders`";
            Err(Fault::new(Code::ChannelRequired, detail).parameter("channel"))
        }
    }
}

/// By `Last-Event-ID`, else by `lastEventId`, else by `since`; what is empty counts as absent.
fn since(query: &Query<'_>, headers: &HeaderMap, channels: usize, now: u64) -> Result<Vec<Since>, Fault> {
    let given = [
        ("Last-Event-ID", headers::single(headers, super::LAST_EVENT_ID)?),
        ("lastEventId", query.one("lastEventId")?),
        ("since", query.one("since")?),
    ];
    let first = given.iter().find_map(|(name, text)| Some((*name, text.filter(|text| !text.is_empty())?)));
    match first {
        None => Ok(vec![Since::Latest; channels]),
        Some((name, text)) => since_list(name, text, channels, now),
    }
}

/// A list with an entry for each of so many channels, or a keyword that stands for them all.
///
/// # Errors
/// `invalid_since`, naming the parameter or header `name`.
pub fn since_list(name: &str, text: &str, channels: usize, now: u64) -> Result<Vec<Since>, Fault> {
    let entries = text.split(',').enumerate().map(|(index, entry)| {
        entry.parse().map_err(|error| {
            let detail = format!("entry {} of `{name}` is {}: {error}", index + 1, shown(entry));
            bad_since(name, detail)
        })
    });
    let entries = entries.collect::<Result<Vec<Since>, Fault>>()?;
    match entries.as_slice() {
        [keyword @ (Since::Latest | Since::Earliest | Since::Last(_))] => {
            return Ok(vec![*keyword; channels]);
        }
        entries if entries.len() == channels => {}
        entries => {
            let detail = format!(
                "`{name}` has {} entries for {channels} channels: it takes one for each, or a keyword for all",
                entries.len()
            );
            return Err(bad_since(name, detail));
        }
    }
    match entries.iter().find(|entry| entry.is_to_come(now)) {
        None => Ok(entries),
        Some(_) => {
            let detail = format!("`{name}` names a second more than {CLOCK_SKEW} s from now, which is {now}");
            Err(bad_since(name, detail))
        }
    }
}

fn bad_since(name: &str, detail: String) -> Fault {
    Fault::new(Code::InvalidSince, detail).parameter(name)
}

fn token(
    query: &Query<'_>,
    headers: &HeaderMap,
    websocket: Option<&Handshake>,
) -> Result<Option<String>, Fault> {
    let parameter = query.one("token")?.filter(|token| !token.is_empty());
    let bearer = headers::single(headers, header::AUTHORIZATION)?.and_then(headers::bearer);
    let protocol = websocket.and_then(|handshake| handshake.token.as_deref());
    Ok(bearer.or(parameter).or(protocol).map(str::to_owned))
}

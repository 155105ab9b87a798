//! Where the broker is: the URL of `broker.url`, which may hold a password. No sentence repeats any part of it
//! that could be one.

use std::{borrow::Cow, fmt, path::PathBuf, str::FromStr};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use toml::Value;

use super::secret::{MASK, Secret};

const REDIS_PORT: u16 = 6379;
const SENTINEL_PORT: u16 = 26379;
/// What the schema can say of it; the rest is told by [`BrokerUrl::from_str`].
const PATTERN: &str =
    r"^(memory:|rediss?(-sentinel|-cluster)?://.+|redis\+(unix|socket)://.*/.+|unix:(//.*)?/.+)$";

/// Which broker holds the messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "String")]
pub enum BrokerUrl {
    /// One node, no Redis.
    Memory,
    /// Redis or Valkey.
    Redis(RedisUrl),
}

/// Which Redis, and as whom.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisUrl {
    /// How its servers are found.
    pub deployment: Deployment,
    /// Whether every connection is encrypted, those to Sentinels too.
    pub tls: bool,
    /// The database's number; 0 in a Cluster.
    pub database: u32,
    /// As whom, where the URL says so.
    pub login: Login,
}

/// As whom to connect.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Login {
    /// The ACL user; the user `default` without one.
    pub username: Option<String>,
    /// The password; without one nobody logs in.
    pub password: Option<Secret>,
}

/// How the servers of a Redis are found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Deployment {
    /// One server.
    Standalone(HostPort),
    /// One server of this machine, by its socket.
    Unix(PathBuf),
    /// The primary that Sentinels name.
    Sentinel {
        /// The Sentinels, at least one.
        sentinels: Vec<HostPort>,
        /// What they call the primary and its replicas.
        service: String,
    },
    /// A Cluster.
    Cluster {
        /// Some of its nodes, at least one.
        seeds: Vec<HostPort>,
    },
}

/// A host, by name or address without brackets, and a port.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct HostPort {
    /// A name or an address.
    pub host: String,
    /// The port.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// The parts of a URL, cut but not yet decoded.
struct Parts<'a> {
    user: Option<&'a str>,
    hosts: &'a str,
    path: &'a str,
    query: Option<&'a str>,
}

impl<'a> Parts<'a> {
    /// `rest` is what follows `scheme://`. A user's name ends at the last `@`, so that a password may have one.
    fn cut(rest: &'a str) -> Self {
        let (rest, query) = rest.split_once('?').map_or((rest, None), |(rest, query)| (rest, Some(query)));
        let authority = rest.find('/').unwrap_or(rest.len());
        let (authority, path) = rest.split_at(authority);
        let (user, hosts) =
            authority.rsplit_once('@').map_or((None, authority), |(user, hosts)| (Some(user), hosts));
        Self { user, hosts, path, query }
    }

    fn login(&self) -> Result<Login, String> {
        let Some(user) = self.user else {
            return Ok(Login::default());
        };
        let (name, password) = user.split_once(':').map_or((user, None), |(name, pass)| (name, Some(pass)));
        let name = Some(decoded(name)?).filter(|name| !name.is_empty());
        let password = password.map(decoded).transpose()?.filter(|password| !password.is_empty());
        Ok(Login { username: name, password: password.map(Secret::new) })
    }

    /// `/2` or `?db=2`.
    fn database(&self, path: &str) -> Result<u32, String> {
        let sentence = || "the database is not a number: write it as in redis://host:6379/2".to_owned();
        let number = |text: &str| number(text).ok_or_else(sentence);
        let path = path.trim_matches('/');
        let in_path = if path.is_empty() { None } else { Some(number(path)?) };
        let in_query = match self.query {
            None | Some("") => None,
            Some(query) => match query.strip_prefix("db=") {
                Some(text) => Some(number(text)?),
                None => return Err("after the ? only db=NUMBER may stand".into()),
            },
        };
        match (in_path, in_query) {
            (Some(_), Some(_)) => Err("the database is given twice".into()),
            (path, query) => Ok(path.or(query).unwrap_or(0)),
        }
    }

    fn hosts(&self, port: u16) -> Result<Vec<HostPort>, String> {
        self.hosts.split(',').map(|host| host_port(host.trim(), port)).collect()
    }
}

impl FromStr for BrokerUrl {
    type Err = String;

    fn from_str(url: &str) -> Result<Self, String> {
        if url == "memory:" {
            return Ok(Self::Memory);
        }
        // `unix:/path` has no authority; with one it is written as any URL.
        if let Some(path) = url.strip_prefix("unix:").filter(|rest| !rest.starts_with("//")) {
            return unix(path).map(Self::Redis);
        }
        let unknown = || {
            "no broker has this URL: write \"memory:\", or one that begins with redis://, rediss://, \
             redis-sentinel://, redis-cluster:// or unix:/"
                .to_owned()
        };
        let (scheme, rest) = url.split_once("://").ok_or_else(unknown)?;
        let parts = Parts::cut(rest);
        let tls = scheme.starts_with("rediss");
        match scheme {
            "redis" | "rediss" => standalone(&parts, tls),
            "redis-sentinel" | "rediss-sentinel" => sentinel(&parts, tls),
            "redis-cluster" | "rediss-cluster" => cluster(&parts, tls),
            "unix" | "redis+unix" | "redis+socket" => unix(rest),
            _ => return Err(unknown()),
        }
        .map(Self::Redis)
    }
}

fn standalone(parts: &Parts<'_>, tls: bool) -> Result<RedisUrl, String> {
    let hosts = parts.hosts(REDIS_PORT)?;
    let [host] = <[HostPort; 1]>::try_from(hosts).map_err(|_| {
        "redis:// has one host: several need redis-sentinel:// or redis-cluster://".to_owned()
    })?;
    let login = parts.login()?;
    let database = parts.database(parts.path)?;
    Ok(RedisUrl { deployment: Deployment::Standalone(host), tls, database, login })
}

fn sentinel(parts: &Parts<'_>, tls: bool) -> Result<RedisUrl, String> {
    let path = parts.path.trim_start_matches('/');
    let (service, database) = path.split_once('/').unwrap_or((path, ""));
    let service = decoded(service)?;
    if service.is_empty() {
        return Err(
            "the name of the service is missing: write redis-sentinel://host:26379,host:26379/service".into(),
        );
    }
    let login = parts.login()?;
    let database = parts.database(database)?;
    let deployment = Deployment::Sentinel { sentinels: parts.hosts(SENTINEL_PORT)?, service };
    Ok(RedisUrl { deployment, tls, database, login })
}

fn cluster(parts: &Parts<'_>, tls: bool) -> Result<RedisUrl, String> {
    if parts.database(parts.path)? != 0 {
        return Err("a Redis Cluster has database 0 only".into());
    }
    let login = parts.login()?;
    let deployment = Deployment::Cluster { seeds: parts.hosts(REDIS_PORT)? };
    Ok(RedisUrl { deployment, tls, database: 0, login })
}

/// `/path?db=N`, with `user:password@` before it where there was a `//`.
fn unix(rest: &str) -> Result<RedisUrl, String> {
    let parts = Parts::cut(rest);
    let path = decoded(parts.path)?;
    if !parts.hosts.is_empty() || path.len() < 2 {
        return Err("a socket needs an absolute path, as in unix:/run/redis.sock?db=0".into());
    }
    let login = parts.login()?;
    let database = parts.database("")?;
    Ok(RedisUrl { deployment: Deployment::Unix(path.into()), tls: false, database, login })
}

/// `host`, `host:port`, `[::1]` or `[::1]:port`.
fn host_port(text: &str, default_port: u16) -> Result<HostPort, String> {
    let missing = || "a host is missing: write it as in redis://host:6379".to_owned();
    let (host, rest) = match text.strip_prefix('[') {
        Some(bracketed) => bracketed.split_once(']').ok_or("a [ has no ]: write an IPv6 address as [::1]")?,
        None => text.split_at(text.find(':').unwrap_or(text.len())),
    };
    // What fails to be a port may be half of a password with a `/` in it.
    let port = match rest.strip_prefix(':') {
        Some(port) => number(port).filter(|port| *port != 0).ok_or(
            "a port is not a number from 1 to 65535; in a password, write / as %2F, ? as %3F and % as %25",
        )?,
        None if rest.is_empty() => default_port,
        None => return Err("after a ] only :port may stand".into()),
    };
    let host = decoded(host)?;
    let is_host = |b: u8| b.is_ascii_graphic() && !b"/@[]\\\"'<>".contains(&b);
    if host.is_empty() {
        return Err(missing());
    }
    if !host.bytes().all(is_host) {
        return Err("a host has a character that no host has".into());
    }
    Ok(HostPort { host, port })
}

/// Digits only: Rust would take a sign too.
fn number<T: FromStr>(text: &str) -> Option<T> {
    text.bytes().all(|b| b.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

fn decoded(text: &str) -> Result<String, String> {
    let sentence = || "a % is not followed by two hexadecimal digits: write % itself as %25".to_owned();
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, tail @ ..] = rest {
        rest = tail;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let (digits, tail) = tail.split_at_checked(2).ok_or_else(sentence)?;
        let digit = |b: u8| char::from(b).to_digit(16).ok_or_else(sentence);
        bytes.push((digit(digits[0])? * 16 + digit(digits[1])?) as u8);
        rest = tail;
    }
    String::from_utf8(bytes).map_err(|_| "what the % stand for is not UTF-8".into())
}

/// The opposite of [`decoded`], for everything that could be read as something else.
fn encoded(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-._~".contains(c);
    let mut encoded = String::with_capacity(text.len());
    for c in text.chars() {
        if plain(c) {
            encoded.push(c);
        } else {
            let mut buffer = [0; 4];
            let bytes = c.encode_utf8(&mut buffer).bytes();
            encoded.extend(bytes.map(|byte| format!("%{byte:02X}")));
        }
    }
    encoded
}

impl TryFrom<Value> for BrokerUrl {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match value {
            Value::String(text) => text.parse(),
            _ => Err("this is not text: write it in quotes".into()),
        }
    }
}

/// What can be read again, but for the password, which is `***`.
impl fmt::Display for BrokerUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Memory => f.write_str("memory:"),
            Self::Redis(url) => url.fmt(f),
        }
    }
}

impl fmt::Display for RedisUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let s = if self.tls { "s" } else { "" };
        let user = match (&self.login.username, &self.login.password) {
            (None, None) => String::new(),
            (name, None) => format!("{}@", encoded(name.as_deref().unwrap_or_default())),
            (name, Some(_)) => format!("{}:{MASK}@", encoded(name.as_deref().unwrap_or_default())),
        };
        let list = |hosts: &[HostPort]| hosts.iter().map(HostPort::to_string).collect::<Vec<_>>().join(",");
        let database = if self.database == 0 { String::new() } else { format!("/{}", self.database) };
        match &self.deployment {
            Deployment::Standalone(host) => write!(f, "redis{s}://{user}{host}{database}"),
            Deployment::Sentinel { sentinels, service } => {
                write!(f, "redis{s}-sentinel://{user}{}/{}{database}", list(sentinels), encoded(service))
            }
            Deployment::Cluster { seeds } => write!(f, "redis{s}-cluster://{user}{}", list(seeds)),
            Deployment::Unix(path) => {
                let path = path.to_string_lossy();
                let path = path.split('/').map(encoded).collect::<Vec<_>>().join("/");
                let slashes = if user.is_empty() { "" } else { "//" };
                write!(f, "unix:{slashes}{user}{path}")?;
                if self.database != 0 { write!(f, "?db={}", self.database) } else { Ok(()) }
            }
        }
    }
}

impl From<BrokerUrl> for String {
    fn from(url: BrokerUrl) -> Self {
        url.to_string()
    }
}

impl JsonSchema for BrokerUrl {
    fn schema_name() -> Cow<'static, str> {
        "BrokerUrl".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": PATTERN })
    }
}

#[cfg(test)]
mod tests;

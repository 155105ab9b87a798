//! Raw → Config: every rule about a value, and about values together.

use std::{collections::HashSet, fmt::Display, ops::RangeInclusive};

use super::{
    AllowedOrigins, BrokerUrl, Config, ConfigError, Drain, History, Internal, Limits, Listen, Log, Namespace,
    Namespaces, Places, Public, RedisChannel, Sessions, Source, TrustedProxies, auth, broker, certificates,
    namespaces,
    raw::{self, Raw},
    redis_channel::{CHANNEL, Fed},
    tracing,
    units::{Count, Size, Time},
};

/// A rule that a value breaks.
#[derive(Debug)]
pub struct Fault {
    /// The keys that it speaks of: the first that was given tells the place.
    pub keys: Vec<String>,
    /// What is wrong, with key and value.
    pub sentence: String,
}

impl Fault {
    /// With the place of the first of its keys that was given.
    pub fn at(self, places: &Places) -> ConfigError {
        ConfigError::Invalid { place: places.first_given(&self.keys).clone(), sentence: self.sentence }
    }
}

/// No limit in bytes is larger: what one connection or channel may hold must stay far below memory.
const ANY_SIZE: RangeInclusive<Size> = Size::bytes(1)..=Size::mib(1024);
pub(super) const ANY_TIME: RangeInclusive<Time> = Time::ZERO..=Time::MAX;
const SOME_TIME: RangeInclusive<Time> = Time::millis(1)..=Time::MAX;
/// hyper takes twice as much, so that a head which is too long is answered and not cut off; less
/// than the lower bound would refuse what browsers send.
const HEADERS: RangeInclusive<Size> = Size::kib(4)..=Size::kib(128);
const CHANNELS: RangeInclusive<Count> = Count(1)..=Count(65_536);
const LEVELS: [&str; 6] = ["off", "error", "warn", "info", "debug", "trace"];

pub fn check(raw: &Raw, insecure: bool) -> Result<Config, Fault> {
    let auth = auth::check(&raw.auth)?;
    listeners(raw, insecure || auth.is_configured())?;
    Ok(Config {
        public: Public {
            listen: raw.public.listen.0.clone(),
            tls: certificates::public(&raw.public)?,
            allowed_origins: allowed_origins(&raw.public)?,
            trusted_proxies: TrustedProxies::new(&raw.public.trusted_proxies.0),
            proxy_protocol: raw.public.proxy_protocol,
        },
        internal: Internal {
            listen: raw.internal.listen.0.clone(),
            tls: certificates::internal(&raw.internal)?,
        },
        broker: broker::check(&raw.broker)?,
        limits: limits(&raw.limits)?,
        sessions: sessions(&raw.sessions)?,
        drain: Drain {
            notice: within("drain.notice", raw.drain.notice, ANY_TIME)?.get(),
            period: within("drain.period", raw.drain.period, ANY_TIME)?.get(),
        },
        auth,
        namespaces: all_namespaces(raw)?,
        log: Log { format: raw.log.format, level: level(&raw.log)? },
        tracing: tracing::check(&raw.tracing)?,
        insecure,
    })
}

/// `anywhere`: not this machine alone may reach them.
fn listeners(raw: &Raw, anywhere: bool) -> Result<(), Fault> {
    let mut seen: Vec<(&str, &Listen)> = Vec::new();
    let listeners = [("public.listen", &raw.public.listen.0), ("internal.listen", &raw.internal.listen.0)];
    for (key, list) in listeners {
        if list.is_empty() {
            return fault([key], format!("{key} is empty: name at least one address"));
        }
        for listen in list {
            if !anywhere && !listen.is_local() {
                return fault([key], reachable(key, listen));
            }
            if let Some((other_key, other)) = seen.iter().find(|taken| collide(**taken, (key, listen))) {
                let sentence = format!("{key} = {listen} is taken: {other_key} = {other} binds it already");
                return fault([key, other_key], sentence);
            }
            seen.push((key, listen));
        }
    }
    Ok(())
}

fn reachable(key: &str, listen: &Listen) -> String {
    format!(
        "{key} = {listen} is reachable from other machines and no credentials are configured: \
         set auth.keys (who publishes) and auth.jwt (who subscribes), bind 127.0.0.1, or pass --insecure to serve \
         anyone who can reach it"
    )
}

/// One listener may well have 0.0.0.0 beside [::]; the two listeners must not meet at all.
fn collide((key, listen): (&str, &Listen), (other_key, other): (&str, &Listen)) -> bool {
    listen.collides_with(other) && (key != other_key || listen == other)
}

fn allowed_origins(raw: &raw::Public) -> Result<AllowedOrigins, Fault> {
    let key = "public.allowed_origins";
    AllowedOrigins::parse(&raw.allowed_origins.0).or_else(|problem| fault([key], format!("{key} {problem}")))
}

fn limits(raw: &raw::Limits) -> Result<Limits, Fault> {
    if raw.message > raw.batch {
        let (message, batch) = (raw.message, raw.batch);
        let sentence = format!("limits.message = {message} is over limits.batch = {batch}");
        return fault(["limits.message", "limits.batch"], sentence);
    }
    let connections = |count: Count| count.limit().map(|_| count.get());
    Ok(Limits {
        message: within("limits.message", raw.message, ANY_SIZE)?.get(),
        batch: within("limits.batch", raw.batch, ANY_SIZE)?.get(),
        channels_per_connection: within(
            "limits.channels_per_connection",
            raw.channels_per_connection,
            CHANNELS,
        )?
        .get(),
        frame: within("limits.frame", raw.frame, ANY_SIZE)?.get(),
        headers: within("limits.headers", raw.headers, HEADERS)?.get(),
        header_timeout: within("limits.header_timeout", raw.header_timeout, SOME_TIME)?.get(),
        body_timeout: within("limits.body_timeout", raw.body_timeout, SOME_TIME)?.get(),
        connections: connections(raw.connections),
        connections_per_address: connections(raw.connections_per_address),
        connections_per_subject: connections(raw.connections_per_subject),
        connects_per_second: raw.connects_per_second.limit(),
        commands_per_second: raw.commands_per_second.limit(),
        outbox: within("limits.outbox", raw.outbox, ANY_SIZE)?.get(),
    })
}

fn sessions(raw: &raw::Sessions) -> Result<Sessions, Fault> {
    Ok(Sessions {
        heartbeat: within("sessions.heartbeat", raw.heartbeat, SOME_TIME)?.get(),
        pong_timeout: within("sessions.pong_timeout", raw.pong_timeout, SOME_TIME)?.get(),
        max_age: within("sessions.max_age", raw.max_age, ANY_TIME)?.limit(),
    })
}

fn all_namespaces(raw: &Raw) -> Result<Namespaces, Fault> {
    let broker = &raw.broker;
    let mut names = HashSet::new();
    let mut listed = Vec::new();
    for (index, raw) in raw.namespaces.iter().enumerate() {
        let namespace = namespace(raw, broker, &format!("namespaces[{index}]"))?;
        if !names.insert(namespace.name.clone()) {
            return fault(
                [format!("namespaces[{index}].name")],
                format!("namespace {:?} is listed twice", raw.name),
            );
        }
        listed.push(namespace);
    }
    apart(&listed, &mut names)?;
    let default = namespace(&raw::Namespace::built_in(), broker, namespaces::DEFAULT)?;
    Ok(Namespaces::new(default, listed))
}

/// A Redis channel feeds one channel, so no two namespaces may mean the same one. `names` are all.
fn apart(listed: &[Namespace], names: &mut HashSet<String>) -> Result<(), Fault> {
    names.remove(namespaces::DEFAULT);
    let mut others: Vec<(&Namespace, Fed)> = Vec::new();
    for (index, namespace) in listed.iter().enumerate() {
        let Source::Redis(channel) = &namespace.source else { continue };
        let but = (namespace.name == namespaces::DEFAULT).then_some(&*names);
        let fed = Fed::new(channel, &namespace.name, but);
        if let Some((other, _)) = others.iter().find(|(_, other)| other.meets(&fed)) {
            return fault(
                [format!("namespaces[{index}].redis_channel"), format!("namespaces[{index}].name")],
                format!(
                    "namespace {:?}: redis_channel = {:?} can mean the same Redis channel as that of namespace {:?}, and \
                     each feeds one channel only: begin them differently, as in \"{}.{CHANNEL}\"",
                    namespace.name,
                    channel.of(CHANNEL),
                    other.name,
                    namespace.name
                ),
            );
        }
        others.push((namespace, fed));
    }
    Ok(())
}

/// `path` is where the namespace stands in the file.
fn namespace(raw: &raw::Namespace, broker: &raw::Broker, path: &str) -> Result<Namespace, Fault> {
    let name = &raw.name;
    if name.is_empty() {
        return fault([format!("{path}.name")], "namespaces.name is missing".into());
    }
    let is_name = |b: u8| b.is_ascii_alphanumeric() || b"_.~@-".contains(&b);
    if name.len() > 200 || !name.bytes().all(is_name) {
        let sentence =
            format!("namespaces.name = {name:?} is not a name: write 1 to 200 of A-Z a-z 0-9 _ . ~ @ -");
        return fault([format!("{path}.name")], sentence);
    }
    let of_this = |fault: Fault| Fault {
        keys: fault.keys.iter().map(|key| key.replacen("namespaces", path, 1)).collect(),
        sentence: format!("namespace {name:?}: {}", fault.sentence),
    };
    Ok(Namespace {
        name: name.clone(),
        history: History {
            messages: raw.history_messages.get(),
            bytes: within("namespaces.history_bytes", raw.history_bytes, ANY_SIZE).map_err(of_this)?.get(),
            age: within("namespaces.history_age", raw.history_age, SOME_TIME).map_err(of_this)?.get(),
        },
        subscribe: raw.subscribe,
        client_publish: raw.client_publish,
        slow: raw.slow,
        source: source(raw, broker, path)?,
    })
}

fn source(raw: &raw::Namespace, broker: &raw::Broker, path: &str) -> Result<Source, Fault> {
    let (name, pattern) = (&raw.name, &raw.redis_channel);
    let wrong = |what: &str| {
        fault(
            [format!("{path}.redis_channel")],
            format!("namespace {name:?}: redis_channel = {pattern:?} {what}"),
        )
    };
    if raw.source == raw::Source::Tidegate {
        return match pattern == CHANNEL {
            true => Ok(Source::Tidegate),
            false => wrong("has no effect without source = \"redis\""),
        };
    }
    if broker.url == BrokerUrl::Memory {
        let sentence =
            format!("namespace {name:?} has source = \"redis\", which broker.url = \"memory:\" cannot serve");
        return fault([format!("{path}.source")], sentence);
    }
    let Some(channel) = RedisChannel::parse(pattern) else {
        return wrong("must have {channel} exactly once, as in \"app.{channel}\"");
    };
    if pattern.len() > 256 || pattern.contains(char::is_control) {
        return wrong("is longer than 256 bytes or has a control character");
    }
    if channel.before().strip_prefix(broker.prefix.as_str()).is_some_and(|rest| rest.starts_with(":{")) {
        return wrong("is where Tidegate keeps its own messages: choose another, or another broker.prefix");
    }
    Ok(Source::Redis(channel))
}

/// Levels and `target=level`, the part of the filter syntax that every reader of it shares.
fn level(raw: &raw::Log) -> Result<String, Fault> {
    let is_target = |target: &str| {
        !target.is_empty() && target.bytes().all(|b| b.is_ascii_alphanumeric() || b"_:-".contains(&b))
    };
    let is_directive = |directive: &str| match directive.split_once('=') {
        Some((target, level)) => is_target(target) && LEVELS.contains(&level),
        None => LEVELS.contains(&directive),
    };
    if raw.level.split(',').all(is_directive) {
        return Ok(raw.level.clone());
    }
    let sentence = format!(
        "log.level = {:?} is not a level: write {}, or with commas also target=level",
        raw.level,
        LEVELS.join(", ")
    );
    fault(["log.level"], sentence)
}

pub(super) fn within<T: PartialOrd + Display>(
    key: &str,
    value: T,
    range: RangeInclusive<T>,
) -> Result<T, Fault> {
    if range.contains(&value) {
        return Ok(value);
    }
    fault([key], format!("{key} = {value} is out of range: {} to {}", range.start(), range.end()))
}

pub(super) fn fault<T, K: Into<String>>(
    keys: impl IntoIterator<Item = K>,
    sentence: String,
) -> Result<T, Fault> {
    let keys = keys.into_iter().map(Into::into).collect();
    Err(Fault { keys, sentence })
}

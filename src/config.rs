//! The configuration: what an operator wrote, checked once, before a port is bound.
//!
//! Defaults < file < environment < flags: `layers` lays them over one another, `raw` is the list
//! of keys, `check` makes a [`Config`] of them. A new key is a line in `raw` and a line in
//! `check`. The environment of the process is read in this file only.

mod allowed_origins;
mod auth;
mod broker;
mod broker_url;
mod certificates;
mod changes;
mod check;
mod digest;
mod error;
mod jwt;
mod keys;
mod layers;
mod listen;
mod namespaces;
mod print;
mod proxies;
mod raw;
mod redis_channel;
mod secret;
#[cfg(test)]
mod tests;
mod tracing;
mod units;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use arc_swap::ArcSwap;

pub use self::{
    allowed_origins::AllowedOrigins,
    auth::{ApiKey, Auth, Operation},
    broker::{Broker, RedisTls},
    broker_url::{BrokerUrl, Deployment, HostPort, Login, RedisUrl},
    changes::Change,
    error::{ConfigError, Place, Places},
    jwt::{Algorithm, Jwt, KeySource},
    listen::Listen,
    namespaces::{Access, History, Namespace, Namespaces, Slow, Source},
    proxies::TrustedProxies,
    raw::{LogFormat, schema},
    redis_channel::RedisChannel,
    secret::Secret,
    tracing::Tracing,
};
use self::{layers::Layers, raw::Raw, units::Size};
use crate::tls::TlsFiles;

/// Everything that may be configured, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Where clients connect.
    pub public: Public,
    /// Where backends and operators connect.
    pub internal: Internal,
    /// Where messages and their history are held.
    pub broker: Broker,
    /// What a client, a request and a connection may use.
    pub limits: Limits,
    /// How long a connection lives and how its end is noticed.
    pub sessions: Sessions,
    /// What happens between the signal to stop and the exit.
    pub drain: Drain,
    /// Who may do what.
    pub auth: Auth,
    /// The rules for families of channels.
    pub namespaces: Namespaces,
    /// What is logged and how.
    pub log: Log,
    /// Where spans go.
    pub tracing: Tracing,
    /// `--insecure`: without credentials, anyone who can reach a listener is served.
    pub insecure: bool,
}

/// Where clients connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Public {
    /// The addresses, at least one.
    pub listen: Vec<Listen>,
    /// The files of TLS; `None`: plain.
    pub tls: Option<TlsFiles>,
    /// The browser pages that may connect.
    pub allowed_origins: AllowedOrigins,
    /// Whose `X-Forwarded-For` counts.
    pub trusted_proxies: TrustedProxies,
    /// Whether each connection begins with a header of the PROXY protocol.
    pub proxy_protocol: bool,
}

/// Where backends and operators connect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Internal {
    /// The addresses, at least one, none of them the public listener's.
    pub listen: Vec<Listen>,
    /// The files of TLS; `None`: plain.
    pub tls: Option<TlsFiles>,
}

/// What a client, a request and a connection may use. Sizes are in bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest message.
    pub message: usize,
    /// The largest body of a batch; at least `message`.
    pub batch: usize,
    /// Channels that one connection may subscribe to.
    pub channels_per_connection: usize,
    /// The largest WebSocket frame from a client.
    pub frame: usize,
    /// The largest head of a request, 4 to 128 KiB.
    pub headers: usize,
    /// From the connection to the end of a request's head.
    pub header_timeout: Duration,
    /// From the head to the end of a request's body.
    pub body_timeout: Duration,
    /// Sockets, and HTTP/2 streams that subscribe; `None`: what the descriptor limit allows.
    pub connections: Option<usize>,
    /// Connections from one address; `None`: no limit.
    pub connections_per_address: Option<usize>,
    /// Connections of one subject; `None`: no limit.
    pub connections_per_subject: Option<usize>,
    /// New connections in a second; `None`: no limit.
    pub connects_per_second: Option<u32>,
    /// WebSocket commands in a second, for each connection; `None`: no limit.
    pub commands_per_second: Option<u32>,
    /// Bytes that may wait for one connection.
    pub outbox: usize,
}

/// How long a connection lives and how its end is noticed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sessions {
    /// Between heartbeats, before jitter.
    pub heartbeat: Duration,
    /// How long a WebSocket ping may stay unanswered.
    pub pong_timeout: Duration,
    /// A connection is ended at this age, before jitter; `None`: for ever.
    pub max_age: Option<Duration>,
}

/// What happens between the signal to stop and the exit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Drain {
    /// Not ready, still serving: time for load balancers.
    pub notice: Duration,
    /// Clients are sent away evenly over this time.
    pub period: Duration,
}

/// What is logged and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// How a line looks.
    pub format: LogFormat,
    /// A level, or with commas `target=level` as well.
    pub level: String,
}

/// A value that reading the configuration anew may change while it is in use.
pub type Live<T> = Arc<ArcSwap<T>>;

/// Where values come from, above the defaults.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// `--config`; without it the variable `TIDEGATE_CONFIG` in `env` counts.
    pub file: Option<PathBuf>,
    /// Environment variables; those that do not begin with `TIDEGATE_` are passed over.
    pub env: Vec<(String, String)>,
    /// Each `section.key=value` of `--set`.
    pub set: Vec<String>,
    /// `--insecure`.
    pub insecure: bool,
}

/// A configuration and where its values came from.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What is in force.
    pub config: Config,
    /// The file that was read.
    pub file: Option<PathBuf>,
    /// Where each key that was given got its value.
    pub places: Places,
    raw: Raw,
}

impl Sources {
    /// The flags, and the environment of this process.
    pub fn with_environment(
        file: Option<PathBuf>,
        set: Vec<String>,
        insecure: bool,
    ) -> Result<Self, ConfigError> {
        let mut env = Vec::new();
        for (name, value) in std::env::vars_os() {
            let Some(name) = name.to_str().filter(|name| name.starts_with("TIDEGATE_")) else {
                continue;
            };
            let variable = name.to_owned();
            match value.into_string() {
                Ok(value) => env.push((variable, value)),
                Err(_) => return Err(ConfigError::NotUnicode { variable }),
            }
        }
        Ok(Self { file, env, set, insecure })
    }

    /// The file and what names it.
    fn file(&self) -> Option<(&'static str, PathBuf)> {
        let from_flag = self.file.clone().map(|path| ("--config", path));
        // Where a deployment leaves it empty, it names no file.
        let names_file = |(name, path): &&(String, String)| name == layers::FILE_VARIABLE && !path.is_empty();
        let variable = self.env.iter().find(names_file);
        from_flag.or_else(|| variable.map(|(_, path)| (layers::FILE_VARIABLE, path.into())))
    }
}

impl Config {
    /// Reads every source and checks the outcome.
    pub fn load(sources: &Sources) -> Result<Loaded, ConfigError> {
        let mut layers = Layers::new();
        let file = sources.file();
        if let Some((named_by, path)) = &file {
            let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Unreadable {
                named_by,
                path: path.clone(),
                source,
            })?;
            layers.add_file(&text, path)?;
        }
        layers.add_environment(&sources.env)?;
        layers.add_flags(&sources.set)?;
        Loaded::new(layers, file.map(|(_, path)| path), sources.insecure)
    }

    /// Checks the text of a file alone, without environment and flags.
    pub fn from_toml(text: &str) -> Result<Self, ConfigError> {
        let mut layers = Layers::new();
        layers.add_file(text, Path::new("configuration"))?;
        Loaded::new(layers, None, false).map(|loaded| loaded.config)
    }

    /// What is allowed but may surprise, a sentence each.
    pub fn warnings(&self) -> Vec<String> {
        self.small_histories()
            .chain(self.open_listeners())
            .chain(self.half_of_the_credentials().map(str::to_owned))
            .chain(self.believed_clients())
            .collect()
    }

    /// A reader that is cut off as slow must find in the history what waited for it, and what came
    /// while it reconnected.
    fn small_histories(&self) -> impl Iterator<Item = String> {
        let outbox = self.limits.outbox;
        let size = |bytes: usize| Size::bytes(bytes as u64);
        let resumes =
            |namespace: &Namespace| namespace.history.is_kept() && namespace.slow == Slow::Disconnect;
        let is_small = move |namespace: &Namespace| outbox > namespace.history.bytes / 2;
        let small = self.namespaces.iter().filter(move |namespace| resumes(namespace) && is_small(namespace));
        small.map(move |namespace| {
            format!(
                "limits.outbox = {} is over half of history_bytes = {} of namespace {:?}: \
                 a slow reader that comes back may find a gap",
                size(outbox),
                size(namespace.history.bytes),
                namespace.name
            )
        })
    }

    /// Clients that may say themselves what their address is.
    fn believed_clients(&self) -> impl Iterator<Item = String> {
        let Public { listen, trusted_proxies, proxy_protocol, .. } = &self.public;
        let everybody = trusted_proxies.everybody().map(|network| {
            format!("public.trusted_proxies has {network}: every client may say what its address is")
        });
        let open = listen.iter().find(|listen| !listen.is_local());
        let anybody = open.filter(|_| *proxy_protocol && trusted_proxies.is_empty()).map(|listen| {
            format!(
                "public.proxy_protocol without public.trusted_proxies: whoever can reach public.listen = {listen} \
                 may say what its address is"
            )
        });
        everybody.into_iter().chain(anybody)
    }

    fn open_listeners(&self) -> impl Iterator<Item = String> {
        let public = self.public.listen.iter().map(|listen| ("public.listen", listen, "subscribe"));
        let internal =
            self.internal.listen.iter().map(|listen| ("internal.listen", listen, "publish and manage"));
        let is_open = |listen: &Listen| !self.auth.is_configured() && !listen.is_local();
        let open = public.chain(internal).filter(move |(_, listen, _)| is_open(listen));
        open.map(|(key, listen, what)| {
            format!("--insecure: anyone who can reach {key} = {listen} may {what}")
        })
    }

    /// With one kind of credential alone, a listener may refuse whoever comes.
    fn half_of_the_credentials(&self) -> Option<&'static str> {
        let is_open = |namespace: &Arc<Namespace>| namespace.subscribe == Access::Anyone;
        match (self.auth.keys.is_empty(), &self.auth.jwt) {
            (true, Some(_)) => Some(
                "auth.jwt is configured and auth.keys is not: the internal listener serves nothing but \
                 /live, /ready and /metrics",
            ),
            (false, None) if !self.namespaces.iter().any(is_open) => Some(
                "auth.keys is configured and auth.jwt is not: nobody may subscribe but to namespaces with \
                 subscribe = \"anyone\", and there is none",
            ),
            _ => None,
        }
    }
}

impl Loaded {
    fn new(layers: Layers, file: Option<PathBuf>, insecure: bool) -> Result<Self, ConfigError> {
        let (raw, places) = layers.finish()?;
        let config = check::check(&raw, insecure).map_err(|fault| fault.at(&places))?;
        Ok(Self { config, file, places, raw })
    }

    /// Everything in force as TOML, with a comment at each key that says where it came from.
    pub fn to_toml(&self) -> Result<String, ConfigError> {
        Ok(print::print(&self.raw, &self.places)?)
    }
}

/// A length of time as the command line has it: `90s`, `1h30m`.
///
/// # Errors
/// What would be one.
pub fn duration(text: &str) -> Result<Duration, String> {
    units::Time::try_from(toml::Value::from(text)).map(units::Time::get)
}

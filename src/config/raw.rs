//! Every key as typed, with its default: the one list of what may be configured.
//!
//! A new key is a line here and a line in `check`. Its name, type, text and default reach the
//! JSON Schema, the environment, `--set`, `config print` and the nearest-name hint from here.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    auth::Operation,
    broker_url::BrokerUrl,
    digest::Digest,
    jwt::Algorithm,
    listen::{List, Listen},
    namespaces::{self, Access, Slow},
    proxies::Network,
    redis_channel,
    secret::Secret,
    units::{Count, Ratio, Size, Time},
};

/// Declares a table of keys with their defaults beside them.
macro_rules! table {
    (
        $(#[$meta:meta])*
        $table:ident { $($(#[$key_meta:meta])* $key:ident: $type:ty = $default:expr,)* }
    ) => {
        #[derive(Clone, Debug, Serialize, Deserialize, JsonSchema)]
        #[serde(default, deny_unknown_fields)]
        #[schemars(inline)]
        $(#[$meta])*
        pub struct $table { $($(#[$key_meta])* pub $key: $type,)* }

        impl Default for $table {
            fn default() -> Self {
                Self { $($key: $default,)* }
            }
        }
    };
}

/// The configuration of Tidegate.
#[derive(Clone, Debug, Default, Serialize, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "Tidegate configuration")]
pub struct Raw {
    pub public: Public,
    pub internal: Internal,
    pub broker: Broker,
    pub limits: Limits,
    pub sessions: Sessions,
    pub drain: Drain,
    pub auth: Auth,
    pub namespaces: Vec<Namespace>,
    pub log: Log,
    pub tracing: Tracing,
}

table! {
    /// Where clients connect.
    Public {
        /// An address or a list of them: `127.0.0.1:8000`, `[::1]:8000`, `unix:/path`.
        listen: List<Listen> = List(vec![Listen::Tcp(([127, 0, 0, 1], 8000).into())]),
        /// The PEM certificate of TLS, and after it those up to its root; with `tls_key_file`. Read again when it
        /// changes.
        tls_cert_file: String = String::new(),
        /// The key of `tls_cert_file`.
        tls_key_file: String = String::new(),
        /// Browser pages that may connect: exact origins, or `*`. Empty: the own host, and
        /// loopback to loopback.
        allowed_origins: List<String> = List(Vec::new()),
        /// Addresses and networks of proxies, as in `10.0.0.0/8`: their `X-Forwarded-For` tells a client's address.
        trusted_proxies: List<Network> = List(Vec::new()),
        /// Whether each connection begins with a header of the PROXY protocol (version 1 or 2), which tells the
        /// client's address. Where there are `trusted_proxies`, nobody else is served then.
        proxy_protocol: bool = false,
    }
}

table! {
    /// Publish, manage, metrics: never to the internet.
    Internal {
        /// An address or a list of them: `127.0.0.1:9000`, `[::1]:9000`, `unix:/path`.
        listen: List<Listen> = List(vec![Listen::Tcp(([127, 0, 0, 1], 9000).into())]),
        /// The PEM certificate of TLS, and after it those up to its root; with `tls_key_file`. Read again when it
        /// changes.
        tls_cert_file: String = String::new(),
        /// The key of `tls_cert_file`.
        tls_key_file: String = String::new(),
        /// PEM certificates: only clients with a certificate of theirs are served. Needs `tls_cert_file`.
        client_ca_file: String = String::new(),
    }
}

table! {
    /// Where messages and their history are held. All but `url` and `linger` are for Redis.
    Broker {
        /// `memory:`, one node without Redis; or `redis://[user:password@]host:port[/db]`,
        /// `redis-sentinel://host:port,…/service[/db]`, `redis-cluster://host:port,…`, all with
        /// `rediss` for TLS; or `unix:/path[?db=N]`.
        url: BrokerUrl = BrokerUrl::Memory,
        /// The ACL user, where the URL does not name one.
        username: String = String::new(),
        /// The password, where the URL does not hold one.
        password: Secret = Secret::default(),
        /// A file with the password.
        password_file: String = String::new(),
        /// PEM certificates that the servers' are checked against. Empty: those of the system.
        ca_file: String = String::new(),
        /// A PEM client certificate, with `key_file`.
        cert_file: String = String::new(),
        /// The key of `cert_file`.
        key_file: String = String::new(),
        /// The ACL user of the Sentinels.
        sentinel_username: String = String::new(),
        /// The password of the Sentinels. They are not sent the one of the servers.
        sentinel_password: Secret = Secret::default(),
        /// A file with the password of the Sentinels.
        sentinel_password_file: String = String::new(),
        /// Before every key and channel in Redis: 1 to 64 bytes of `A-Z a-z 0-9 _ . : ~ @ / -`.
        #[schemars(extend("pattern" = r"^[A-Za-z0-9_.:~@/-]{1,64}$"))]
        prefix: String = "tidegate".into(),
        /// Over how many hash tags the channels are spread, 1 to 4096; fixed for the life of a deployment.
        #[schemars(extend("minimum" = 1, "maximum" = 4096))]
        partitions: Count = Count(256),
        /// How long an answer may take.
        command_timeout: Time = Time::secs(2),
        /// How long a channel stays subscribed after its last local client.
        linger: Time = Time::secs(30),
    }
}

table! {
    /// What a client, a request and a connection may use.
    Limits {
        /// The largest message.
        message: Size = Size::kib(256),
        /// The largest body of a batch; at least `message`.
        batch: Size = Size::mib(8),
        /// Channels that one connection may subscribe to.
        channels_per_connection: Count = Count(128),
        /// The largest WebSocket frame from a client.
        frame: Size = Size::kib(64),
        /// The largest head of a request, 4KiB to 128KiB.
        headers: Size = Size::kib(64),
        /// From the connection to the end of a request's head.
        header_timeout: Time = Time::secs(10),
        /// From the head to the end of a request's body.
        body_timeout: Time = Time::secs(10),
        /// Sockets, and HTTP/2 streams that subscribe. 0: what the descriptor limit allows, less
        /// a reserve.
        connections: Count = Count(0),
        /// Connections from one address. 0: no limit.
        connections_per_address: Count = Count(0),
        /// Connections of one subject, which is the `sub` of a token. 0: no limit.
        connections_per_subject: Count = Count(0),
        /// New connections in a second. 0: no limit.
        connects_per_second: Count = Count(0),
        /// WebSocket commands in a second, for each connection. 0: no limit.
        commands_per_second: Count = Count(50),
        /// Bytes that may wait for one connection.
        outbox: Size = Size::kib(256),
    }
}

table! {
    /// How long a connection lives and how its end is noticed.
    Sessions {
        /// Between heartbeats, ± 10 %.
        heartbeat: Time = Time::secs(25),
        /// How long a WebSocket ping may stay unanswered.
        pong_timeout: Time = Time::secs(10),
        /// A connection is ended at this age, ± 10 %. 0s: for ever.
        max_age: Time = Time::ZERO,
    }
}

table! {
    /// What happens between the signal to stop and the exit.
    Drain {
        /// Not ready, still serving: time for load balancers.
        notice: Time = Time::secs(5),
        /// Clients are sent away evenly over this time.
        period: Time = Time::secs(20),
    }
}

table! {
    /// Who may do what. While neither keys nor tokens are configured, whoever reaches a listener may do everything.
    Auth {
        /// A TOML file with `[[auth.keys]]` entries and nothing else, so that a Secret can be mounted.
        keys_file: String = String::new(),
        /// Keys of backends.
        keys: Vec<Key> = Vec::new(),
        /// What the tokens of subscribers are checked by.
        jwt: Jwt = Jwt::default(),
    }
}

table! {
    /// The key of a backend: what it may do, and where. `tidegate key` makes one and prints such an entry.
    #[schemars(extend("required" = ["name", "sha256"]))]
    Key {
        /// What the logs call it: 1 to 200 bytes. Old and new key of a rotation may share a name.
        #[serde(skip_serializing_if = "String::is_empty")]
        #[schemars(extend("minLength" = 1, "maxLength" = 200))]
        name: String = String::new(),
        /// The SHA-256 of the key, 64 hex digits; the key itself is kept nowhere.
        #[serde(skip_serializing_if = "Digest::is_missing")]
        sha256: Digest = Digest::default(),
        /// Channels, or beginnings of their names with a `*` behind: `orders:42`, `orders:*`, `*`.
        channels: List<String> = List(Vec::new()),
        /// `publish`; `read`: history, information, list; `manage`: delete the history, disconnect.
        operations: Vec<Operation> = Vec::new(),
        /// Publishes in a second. 0: no limit.
        rate: Count = Count(0),
    }
}

table! {
    /// What the tokens of subscribers are checked by. Either `key_file` or `jwks_url` makes it count.
    Jwt {
        /// An HMAC secret, or a public key in PEM.
        key_file: String = String::new(),
        /// Where the issuer's keys are: `https://…`.
        jwks_url: String = String::new(),
        /// The algorithms that are taken. Empty: those of the key's kind.
        algorithms: Vec<Algorithm> = Vec::new(),
        /// What `aud` has to be, or to hold. Empty: any.
        audience: String = String::new(),
        /// What `iss` has to be. Empty: any.
        issuer: String = String::new(),
        /// How far the clocks of issuer and gateway may be apart, at most 10m.
        leeway: Time = Time::secs(10),
    }
}

table! {
    /// Rules for the channels whose name begins with `<name>:`. `default` is for names without a
    /// colon and for namespaces that are not listed.
    #[schemars(extend("required" = ["name"]))]
    Namespace {
        /// 1 to 200 bytes of `A-Z a-z 0-9 _ . ~ @ -`.
        #[serde(skip_serializing_if = "String::is_empty")]
        #[schemars(extend("pattern" = r"^[A-Za-z0-9_.~@-]{1,200}$"))]
        name: String = String::new(),
        /// Messages kept for each channel. 0: no history, delivery is at most once.
        history_messages: Count = Count(1000),
        /// Bytes kept for each channel.
        history_bytes: Size = Size::mib(1),
        /// How long a message is kept.
        history_age: Time = Time::secs(600),
        /// Who may subscribe; anyone while no credentials are configured.
        subscribe: Access = Access::Token,
        /// Whether clients may publish, with a grant; open while no credentials are configured.
        client_publish: bool = false,
        /// What a reader gets that is too slow.
        slow: Slow = Slow::Disconnect,
        /// Where the messages come from.
        source: Source = Source::Tidegate,
        /// For `source = "redis"`: the Redis channel of a channel, with `{channel}` for its name.
        #[schemars(extend("pattern" = r"\{channel\}"))]
        redis_channel: String = redis_channel::CHANNEL.into(),
    }
}

impl Namespace {
    /// The namespace `default` where the file does not list it.
    pub fn built_in() -> Self {
        Self { name: namespaces::DEFAULT.into(), ..Self::default() }
    }
}

table! {
    /// What is logged and how.
    Log {
        /// How a line looks.
        format: LogFormat = LogFormat::Auto,
        /// `off`, `error`, `warn`, `info`, `debug` or `trace`; with commas, `target=level` for
        /// single modules.
        level: String = "info".into(),
    }
}

table! {
    /// Spans of publishing and of fan-out, for a collector.
    Tracing {
        /// A collector that takes OTLP over HTTP: `http://collector:4318`. Empty: no spans are made.
        otlp_endpoint: String = String::new(),
        /// Of the messages that come without a `traceparent` so many are traced, 0 to 1.
        sample_ratio: Ratio = Ratio(0.01),
    }
}

/// Where a namespace's messages come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Source {
    /// Published through Tidegate.
    Tidegate,
    /// Fed by other programs' PUBLISH; needs a Redis `broker.url`.
    Redis,
}

/// How a log line looks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum LogFormat {
    /// `human` on a terminal, `json` otherwise.
    Auto,
    /// For people.
    Human,
    /// One JSON object a line.
    Json,
}

/// The JSON Schema (draft 2020-12) of the file.
pub fn schema() -> serde_json::Value {
    let mut schema = schemars::schema_for!(Raw).to_value();
    // Each key says its own default; a section would only say them all again.
    drop_defaults_of_sections(&mut schema);
    schema
}

fn drop_defaults_of_sections(table: &mut serde_json::Value) {
    let Some(keys) = table.get_mut("properties").and_then(serde_json::Value::as_object_mut) else {
        return;
    };
    for key in
        keys.values_mut().filter(|key| key.get("properties").or(key["items"].get("properties")).is_some())
    {
        key.as_object_mut().and_then(|section| section.remove("default"));
        drop_defaults_of_sections(key);
    }
}

//! What a value may be: defaults, ranges, and values together.

use std::sync::Arc;

use super::*;

#[test]
fn defaults_are_those_of_the_design() {
    let config = Config::from_toml("").unwrap();
    let default = Arc::clone(config.namespaces.of("orders:1"));
    let seconds = Duration::from_secs;
    assert_eq!(
        config.public,
        Public {
            listen: vec![tcp("127.0.0.1:8000")],
            tls: None,
            allowed_origins: AllowedOrigins::SameHost,
            trusted_proxies: TrustedProxies::default(),
            proxy_protocol: false,
        }
    );
    assert_eq!(config.internal, Internal { listen: vec![tcp("127.0.0.1:9000")], tls: None });
    assert_eq!(
        config.broker,
        Broker {
            url: BrokerUrl::Memory,
            login: Login::default(),
            sentinel_login: Login::default(),
            tls: RedisTls::default(),
            prefix: "tidegate".into(),
            partitions: 256,
            command_timeout: seconds(2),
            linger: seconds(30),
        }
    );
    assert_eq!(
        config.limits,
        Limits {
            message: 256 << 10,
            batch: 8 << 20,
            channels_per_connection: 128,
            frame: 64 << 10,
            headers: 64 << 10,
            header_timeout: seconds(10),
            body_timeout: seconds(10),
            connections: None,
            connections_per_address: None,
            connections_per_subject: None,
            connects_per_second: None,
            commands_per_second: Some(50),
            outbox: 256 << 10,
        }
    );
    assert_eq!(
        config.sessions,
        Sessions { heartbeat: seconds(25), pong_timeout: seconds(10), max_age: None }
    );
    assert_eq!(config.drain, Drain { notice: seconds(5), period: seconds(20) });
    assert_eq!(config.auth, Auth { keys: Vec::new(), jwt: None });
    assert!(!config.auth.is_configured());
    assert_eq!(
        *default,
        Namespace {
            name: "default".into(),
            history: History { messages: 1000, bytes: 1 << 20, age: seconds(600) },
            subscribe: Access::Token,
            client_publish: false,
            slow: Slow::Disconnect,
            source: Source::Tidegate,
        }
    );
    assert_eq!(config.namespaces.iter().count(), 1);
    assert_eq!(config.log, Log { format: LogFormat::Auto, level: "info".into() });
    assert_eq!(config.tracing, Tracing { otlp_endpoint: None, sample_ratio: 0.01 });
    assert!(!config.insecure);
    assert_eq!(config.warnings(), Vec::<String>::new());
}

#[test]
fn every_key_reaches_the_configuration() {
    let config = Config::from_toml(EVERYTHING).unwrap();
    let seconds = Duration::from_secs;
    assert_eq!(config.public.listen, [tcp("[::1]:1"), Listen::Unix("/run/t.sock".into())]);
    assert_eq!(config.public.allowed_origins, AllowedOrigins::Exact(vec!["https://a.example".into()]));
    let proxies = &config.public.trusted_proxies;
    assert!(proxies.has("10.9.9.9".parse().ok()) && proxies.has("::1".parse().ok()));
    assert!(config.public.proxy_protocol);
    assert_eq!(config.internal.listen, [tcp("127.0.0.1:2")]);
    let login = |name: &str, password: &str| Login {
        username: Some(name.into()),
        password: Some(Secret::new(password)),
    };
    assert_eq!(
        config.broker,
        Broker {
            url: "redis-sentinel://s1:26379,[::1]:7/main/3".parse().unwrap(),
            login: login("app", "hunter2"),
            sentinel_login: login("watch", "hunter3"),
            tls: RedisTls::default(),
            prefix: "a:b".into(),
            partitions: 8,
            command_timeout: seconds(9),
            linger: seconds(10),
        }
    );
    assert_eq!(
        config.limits,
        Limits {
            message: 1000,
            batch: 2048,
            channels_per_connection: 3,
            frame: 4,
            headers: 5 << 10,
            header_timeout: seconds(6),
            body_timeout: seconds(7),
            connections: Some(8),
            connections_per_address: Some(9),
            connections_per_subject: Some(21),
            connects_per_second: Some(10),
            commands_per_second: None,
            outbox: 12,
        }
    );
    assert_eq!(
        config.sessions,
        Sessions {
            heartbeat: seconds(13),
            pong_timeout: Duration::from_millis(14),
            max_age: Some(seconds(5400))
        }
    );
    assert_eq!(config.drain, Drain { notice: seconds(0), period: seconds(15) });
    assert_eq!(
        config.auth,
        Auth {
            keys: vec![ApiKey {
                name: "orders-service".into(),
                sha256: [0x33; 32],
                channels: ["orders:*", "news"].iter().map(|pattern| pattern.parse().unwrap()).collect(),
                operations: vec![Operation::Publish, Operation::Manage],
                rate: Some(18),
            }],
            jwt: Some(Jwt {
                source: KeySource::Url("https://id.example/keys".into()),
                algorithms: vec![Algorithm::ES256, Algorithm::EdDSA],
                audience: Some("push".into()),
                issuer: Some("https://id.example".into()),
                leeway: seconds(19),
            }),
        }
    );
    assert_eq!(config.log, Log { format: LogFormat::Json, level: "warn,tidegate::hub=debug".into() });
    let endpoint = "http://collector:4318/v1/traces".parse().ok();
    assert_eq!(config.tracing, Tracing { otlp_endpoint: endpoint, sample_ratio: 0.5 });
    let prices = config.namespaces.of("prices:eur");
    assert_eq!(
        **prices,
        Namespace {
            name: "prices".into(),
            history: History { messages: 0, bytes: 16, age: seconds(17) },
            subscribe: Access::Anyone,
            client_publish: true,
            slow: Slow::Latest,
            source: Source::Redis(RedisChannel::parse("x.{channel}.y").unwrap()),
        }
    );
    assert!(!prices.history.is_kept());
}

#[test]
fn a_channel_finds_its_namespace() {
    let text = "[[namespaces]]\nname = 'orders'\nslow = 'latest'\n[[namespaces]]\nname = 'default'\nhistory_messages = 7";
    let namespaces = Config::from_toml(text).unwrap().namespaces;
    let table = [
        ("orders:42", "orders"),
        ("orders:a:b", "orders"),
        ("orders", "default"),
        ("other:1", "default"),
        (":x", "default"),
        ("default:1", "default"),
    ];
    for (channel, expected) in table {
        assert_eq!(namespaces.of(channel).name, expected, "{channel}");
    }
    assert_eq!(namespaces.of("x").history.messages, 7);
    assert_eq!(
        namespaces.of("orders:1").history.messages,
        1000,
        "unset keys are the built-in ones, not those of default"
    );
    assert_eq!(namespaces.iter().map(|n| n.name.as_str()).collect::<Vec<_>>(), ["default", "orders"]);
}

#[test]
fn a_value_out_of_its_range_is_refused_with_the_range() {
    let table = [
        ("limits.message=0", "limits.message = 0B is out of range: 1B to 1GiB"),
        ("limits.batch=2GiB", "limits.batch = 2GiB is out of range: 1B to 1GiB"),
        (
            "limits.channels_per_connection=0",
            "limits.channels_per_connection = 0 is out of range: 1 to 65536",
        ),
        ("limits.frame=0", "limits.frame = 0B is out of range: 1B to 1GiB"),
        ("limits.headers=129KiB", "limits.headers = 129KiB is out of range: 4KiB to 128KiB"),
        ("limits.headers=4095", "limits.headers = 4095B is out of range: 4KiB to 128KiB"),
        ("limits.header_timeout=0s", "limits.header_timeout = 0s is out of range: 1ms to 8760h"),
        ("limits.body_timeout=0s", "limits.body_timeout = 0s is out of range: 1ms to 8760h"),
        ("limits.outbox=0", "limits.outbox = 0B is out of range: 1B to 1GiB"),
        ("sessions.heartbeat=0s", "sessions.heartbeat = 0s is out of range: 1ms to 8760h"),
        ("sessions.pong_timeout=0s", "sessions.pong_timeout = 0s is out of range: 1ms to 8760h"),
        ("sessions.max_age=9000h", "sessions.max_age = 9000h is out of range: 0s to 8760h"),
        ("drain.notice=9000h", "drain.notice = 9000h is out of range: 0s to 8760h"),
        ("drain.period=9000h", "drain.period = 9000h is out of range: 0s to 8760h"),
        ("auth.jwt.leeway=601s", "auth.jwt.leeway = 10m1s is out of range: 0s to 10m"),
        ("broker.partitions=0", "broker.partitions = 0 is out of range: 1 to 4096"),
        ("broker.partitions=4097", "broker.partitions = 4097 is out of range: 1 to 4096"),
        ("broker.command_timeout=9ms", "broker.command_timeout = 9ms is out of range: 10ms to 1m"),
        ("broker.command_timeout=61s", "broker.command_timeout = 1m1s is out of range: 10ms to 1m"),
        ("broker.linger=9000h", "broker.linger = 9000h is out of range: 0s to 8760h"),
        (
            "public.trusted_proxies=10.0.0.0/8,proxy",
            "public.trusted_proxies: \"proxy\" is not a network: write an address, and after a slash how many of its \
             bits count, as in \"10.0.0.0/8\" or \"fd00::/8\"",
        ),
        ("tracing.sample_ratio=2", "tracing.sample_ratio: 2 is not a number from 0 to 1"),
        (
            "tracing.otlp_endpoint=collector",
            "tracing.otlp_endpoint is not a URL: write http:// or https:// and a host, as in \"http://collector:4318\"",
        ),
        ("limits.message=9MiB", "limits.message = 9MiB is over limits.batch = 8MiB"),
        ("limits.batch=1KiB", "limits.message = 256KiB is over limits.batch = 1KiB"),
    ];
    for (setting, expected) in table {
        let (key, _) = setting.split_once('=').unwrap();
        assert_eq!(set(&[setting]).unwrap_err().to_string(), format!("--set {key}: {expected}"));
    }
    let namespace = "[[namespaces]]\nname = 'a'\nhistory_bytes = '0'";
    assert_eq!(
        fault(namespace),
        "configuration:3: namespace \"a\": namespaces.history_bytes = 0B is out of range: 1B to 1GiB"
    );
    for good in [
        "limits.headers=128KiB",
        "limits.headers=4KiB",
        "drain.notice=0s",
        "sessions.max_age=8760h",
        "limits.batch=256KiB",
    ] {
        set(&[good]).unwrap();
    }
}

#[test]
fn beyond_loopback_needs_credentials_or_insecure() {
    let sentence = |key, listen| {
        format!(
            "--set {key}: {key} = {listen} is reachable from other machines and no credentials are configured: \
             set auth.keys (who publishes) and auth.jwt (who subscribes), bind 127.0.0.1, or pass --insecure to \
             serve anyone who can reach it"
        )
    };
    for (key, listen) in [
        ("public.listen", "0.0.0.0:8000"),
        ("internal.listen", "[::]:9000"),
        ("public.listen", "10.1.2.3:80"),
    ] {
        let error = set(&[&format!("{key}={listen}")]).unwrap_err().to_string();
        assert_eq!(error, sentence(key, listen));
        let sources = Sources { set: vec![format!("{key}={listen}")], insecure: true, ..Sources::default() };
        let config = Config::load(&sources).unwrap().config;
        assert!(config.insecure);
        let warnings = config.warnings();
        assert_eq!(warnings.len(), 1);
        assert!(warnings[0].starts_with(&format!("--insecure: anyone who can reach {key} = {listen} may ")));
    }
    set(&["public.listen=127.1.2.3:1,[::1]:1,localhost:2,unix:/x"]).unwrap();
    let local = Sources { insecure: true, ..Sources::default() };
    assert!(Config::load(&local).unwrap().config.warnings().is_empty());
}

#[test]
fn two_listeners_never_share_an_address() {
    let error = |settings: &[&str]| set(settings).unwrap_err().to_string();
    assert_eq!(
        error(&["public.listen=127.0.0.1:9000"]),
        "--set public.listen: internal.listen = 127.0.0.1:9000 is taken: public.listen = 127.0.0.1:9000 binds it already"
    );
    assert!(error(&["public.listen=unix:/x", "internal.listen=unix:/x"]).contains("is taken"));
    assert!(error(&["public.listen=127.0.0.1:1,127.0.0.1:1"]).contains("is taken"));
    set(&["public.listen=127.0.0.1:0", "internal.listen=127.0.0.1:0"]).unwrap();
    let open = |internal: &str| {
        Config::load(&Sources {
            set: vec!["public.listen=0.0.0.0:1,[::]:1".into(), format!("internal.listen={internal}")],
            insecure: true,
            ..Sources::default()
        })
    };
    open("127.0.0.1:2").unwrap();
    assert!(open("127.0.0.1:1").unwrap_err().to_string().contains("is taken"));
}

#[test]
fn an_outbox_over_half_of_a_history_is_warned_of() {
    let warnings = |keys: &str| {
        let text = format!("[limits]\noutbox = '100'\n[[namespaces]]\nname = 'a'\n{keys}");
        Config::from_toml(&text).unwrap().warnings()
    };
    assert_eq!(
        warnings("history_bytes = '199'"),
        ["limits.outbox = 100B is over half of history_bytes = 199B of namespace \"a\": \
          a slow reader that comes back may find a gap"]
    );
    for fine in [
        "history_bytes = '200'",
        "history_bytes = '1'\nslow = 'latest'",
        "history_bytes = '1'\nhistory_messages = 0",
    ] {
        assert!(warnings(fine).is_empty(), "{fine}");
    }
}

//! File, environment and flags: which one counts, and how a misspelt name is told.

use super::*;

#[test]
fn flags_stand_above_the_environment_and_that_above_the_file() {
    let file = TempFile::new(
        "precedence",
        "[limits]\nconnections = 1\nconnects_per_second = 1\nconnections_per_address = 1\n",
    );
    let mut sources = Sources {
        file: Some(file.0.clone()),
        env: vec![
            ("TIDEGATE_LIMITS__CONNECTIONS".into(), "2".into()),
            ("TIDEGATE_LIMITS__CONNECTS_PER_SECOND".into(), "2".into()),
        ],
        set: vec!["limits.connections=3".into()],
        insecure: false,
    };
    let loaded = Config::load(&sources).unwrap();
    let limits = &loaded.config.limits;
    assert_eq!(
        (limits.connections, limits.connects_per_second, limits.connections_per_address),
        (Some(3), Some(2), Some(1))
    );
    assert_eq!(loaded.file, Some(file.0.clone()));
    assert_eq!(loaded.places.of("limits.connections").to_string(), "--set limits.connections");
    assert_eq!(
        loaded.places.of("limits.connects_per_second").to_string(),
        "TIDEGATE_LIMITS__CONNECTS_PER_SECOND"
    );
    assert_eq!(
        *loaded.places.of("limits.connections_per_address"),
        Place::File { path: file.0.clone(), line: 4 }
    );
    assert_eq!(*loaded.places.of("limits.outbox"), Place::Default);

    sources.env.push((layers::FILE_VARIABLE.into(), "/nowhere/at/all".into()));
    Config::load(&sources).unwrap();
    sources.file = None;
    let error = Config::load(&sources).unwrap_err().to_string();
    assert!(error.starts_with("TIDEGATE_CONFIG: cannot read /nowhere/at/all: "), "{error}");
    assert_eq!(env(&[(layers::FILE_VARIABLE, "")]).unwrap().file, None);
}

#[test]
fn the_environment_gives_every_type() {
    let loaded = env(&[
        ("TIDEGATE_PUBLIC__LISTEN", "127.0.0.1:1, unix:/x"),
        ("TIDEGATE_PUBLIC__ALLOWED_ORIGINS", "https://a.example,https://b.example"),
        ("TIDEGATE_AUTH__JWT__JWKS_URL", "https://id.example/keys"),
        ("TIDEGATE_AUTH__JWT__ALGORITHMS", "RS256, PS256"),
        ("TIDEGATE_PUBLIC__TRUSTED_PROXIES", "10.0.0.0/8, ::1"),
        ("TIDEGATE_PUBLIC__PROXY_PROTOCOL", "true"),
        ("TIDEGATE_TRACING__SAMPLE_RATIO", "0.5"),
        ("TIDEGATE_BROKER__LINGER", "1m30s"),
        ("TIDEGATE_LIMITS__BATCH", "2MiB"),
        ("TIDEGATE_LIMITS__MESSAGE", "1000"),
        ("TIDEGATE_LIMITS__COMMANDS_PER_SECOND", "7"),
        ("TIDEGATE_DRAIN__NOTICE", "1s"),
        ("TIDEGATE_LOG__LEVEL", "info,hyper=warn"),
        ("PATH", "/bin"),
    ]);
    let config = loaded.unwrap().config;
    assert_eq!(config.public.listen, [tcp("127.0.0.1:1"), Listen::Unix("/x".into())]);
    assert_eq!(
        config.public.allowed_origins,
        AllowedOrigins::Exact(vec!["https://a.example".into(), "https://b.example".into()])
    );
    assert_eq!(config.auth.jwt.unwrap().algorithms, [Algorithm::RS256, Algorithm::PS256]);
    assert!(config.public.trusted_proxies.has("10.1.2.3".parse().ok()) && config.public.proxy_protocol);
    assert_eq!(config.tracing.sample_ratio, 0.5);
    assert_eq!(config.broker.linger, Duration::from_secs(90));
    assert_eq!((config.limits.batch, config.limits.message), (2 << 20, 1000));
    assert_eq!(config.limits.commands_per_second, Some(7));
    assert_eq!(config.drain.notice, Duration::from_secs(1));
    assert_eq!(config.log.level, "info,hyper=warn");
    let empty = env(&[("TIDEGATE_PUBLIC__ALLOWED_ORIGINS", "")]).unwrap();
    assert_eq!(empty.config.public.allowed_origins, AllowedOrigins::SameHost);
}

#[test]
fn a_misspelt_variable_is_refused() {
    let table = [
        ("TIDEGATE_PUBLIC__LISEN", "unknown key `public.lisen`; did you mean `TIDEGATE_PUBLIC__LISTEN`?"),
        ("TIDEGATE_PUBLIC_LISTEN", "unknown key `public_listen`; did you mean `TIDEGATE_PUBLIC__LISTEN`?"),
        ("TIDEGATE_public__listen", "unknown key `public.listen`; did you mean `TIDEGATE_PUBLIC__LISTEN`?"),
        ("TIDEGATE_LISTEN", "unknown key `listen`; did you mean `TIDEGATE_PUBLIC__LISTEN`?"),
        (
            "TIDEGATE_PUBLIC_TLS_KEY_FILE",
            "unknown key `public_tls_key_file`; did you mean `TIDEGATE_PUBLIC__TLS_KEY_FILE`?",
        ),
        ("TIDEGATE_CONFG", "unknown key `confg`; did you mean `TIDEGATE_CONFIG`?"),
        ("TIDEGATE_NOTHING__LIKE_IT", "unknown key `nothing.like_it`"),
        ("TIDEGATE_PUBLIC__", "unknown key `public.`"),
        ("TIDEGATE_NAMESPACES__ORDERS__SLOW", "namespaces are given in the file only, as [[namespaces]]"),
        ("TIDEGATE_AUTH__KEYS", "auth.keys are given in the file only, as [[auth.keys]]"),
        ("TIDEGATE_AUTH__KEYS__NAME", "auth.keys are given in the file only, as [[auth.keys]]"),
        ("TIDEGATE_AUTH_KEYS_FILE", "unknown key `auth_keys_file`; did you mean `TIDEGATE_AUTH__KEYS_FILE`?"),
        ("TIDEGATE_NAMESPACES", "namespaces are given in the file only, as [[namespaces]]"),
        (
            "TIDEGATE_LIMITS__CONNECTIONS",
            "limits.connections: \"many\" is not a whole number from 0 to 4294967295",
        ),
    ];
    for (name, expected) in table {
        assert_eq!(env(&[(name, "many")]).unwrap_err().to_string(), format!("{name}: {expected}"));
    }
}

#[test]
fn variables_of_others_are_left_alone() {
    // The first four are read by the client commands; Kubernetes sets the rest by itself for
    // services with names such as `tidegate` and `tidegate-public`.
    let names = [
        "TIDEGATE_URL",
        "TIDEGATE_INTERNAL_URL",
        "TIDEGATE_API_KEY",
        "TIDEGATE_TOKEN",
        "TIDEGATE_PORT",
        "TIDEGATE_SERVICE_HOST",
        "TIDEGATE_SERVICE_PORT",
        "TIDEGATE_SERVICE_PORT_HTTP",
        "TIDEGATE_PORT_8000_TCP",
        "TIDEGATE_PORT_8000_TCP_ADDR",
        "TIDEGATE_PUBLIC_PORT",
        "TIDEGATE_PUBLIC_SERVICE_HOST",
        "TIDEGATE_PUBLIC_PORT_8000_TCP_PROTO",
        "TIDEGATE_INTERNAL_SERVICE_PORT",
        "TIDEGATE_INTERNAL_PORT",
        "TIDEGATE_METRICS_PORT_9000_TCP_PORT",
    ];
    for name in names {
        env(&[(name, "tcp://10.0.0.1:8000")]).unwrap();
    }
}

#[test]
fn a_bad_flag_is_refused() {
    let table = [
        ("limits.message", "--set limits.message: write --set section.key=value"),
        (
            "limits.mesage=1",
            "--set limits.mesage: unknown key `limits.mesage`; did you mean `limits.message`?",
        ),
        ("limits=1", "--set limits: unknown key `limits`"),
        ("=1", "--set : unknown key ``"),
        (
            "namespaces.slow=latest",
            "--set namespaces.slow: namespaces are given in the file only, as [[namespaces]]",
        ),
        ("limits.message=much", "--set limits.message: limits.message: \"much\" is not a size"),
    ];
    for (setting, expected) in table {
        let sentence = set(&[setting]).unwrap_err().to_string();
        assert!(sentence.starts_with(expected), "{sentence}");
    }
}

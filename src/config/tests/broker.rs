//! The section `[broker]`: URLs, secrets, files, and namespaces that Redis feeds.

use super::*;

fn broker(keys: &str) -> Broker {
    Config::from_toml(&format!("[broker]\n{keys}")).unwrap().broker
}

fn redis(url: &str) -> Broker {
    broker(&format!("url = '{url}'"))
}

fn login(username: Option<&str>, password: &str) -> Login {
    Login { username: username.map(str::to_owned), password: Some(Secret::new(password)) }
}

#[test]
fn who_logs_in_is_said_by_the_url_or_by_keys() {
    assert_eq!(redis("redis://h").login, Login::default());
    assert_eq!(redis("redis://:p%40%2F@h").login, login(None, "p@/"));
    assert_eq!(redis("redis://u:p@h").login, login(Some("u"), "p"));
    let mixed = broker("url = 'redis://u@h'\npassword = 'p'");
    assert_eq!(mixed.login, login(Some("u"), "p"));
    let keys =
        broker("url = 'redis-sentinel://h/s'\nusername = 'u'\npassword = 'p'\nsentinel_password = 'q'");
    assert_eq!((keys.login, keys.sentinel_login), (login(Some("u"), "p"), login(None, "q")));
}

#[test]
fn a_password_may_be_in_a_file() {
    for (text, password) in [("p", "p"), ("p\n", "p"), ("p \r\n", "p "), ("a\nb\n\n", "a\nb")] {
        let file = TempFile::new("password", text);
        let keys = format!("url = 'redis://h'\npassword_file = '{}'", file.0.display());
        assert_eq!(broker(&keys).login, login(None, password), "{text:?}");
    }
    let file = TempFile::new("password-given-by-environment", "from file");
    let path = file.0.display().to_string();
    let config = env(&[
        ("TIDEGATE_BROKER__URL", "redis-sentinel://h/s"),
        ("TIDEGATE_BROKER__PASSWORD_FILE", &path),
        ("TIDEGATE_BROKER__SENTINEL_PASSWORD_FILE", &path),
    ]);
    let broker = config.unwrap().config.broker;
    assert_eq!((broker.login, broker.sentinel_login), (login(None, "from file"), login(None, "from file")));
}

#[test]
fn what_is_wrong_with_the_broker_is_told_without_the_password() {
    let empty = TempFile::new("empty", "\n");
    let binary = TempFile::new("binary", "");
    std::fs::write(&binary.0, b"hunter2\xff").unwrap();
    let (empty, binary) = (empty.0.display(), binary.0.display());
    let table = [
        (
            "url = 'hunter2'".into(),
            "configuration:2: broker.url: no broker has this URL: write \"memory:\", or ",
        ),
        ("url = 12345".into(), "configuration:2: broker.url: this is not text: write it in quotes"),
        (
            "url = 'redis://:hunter2'".into(),
            "configuration:2: broker.url: a port is not a number from 1 to 65535",
        ),
        ("url = 'redis://:hunter2@h:x'".into(), "configuration:2: broker.url: a port is not a number"),
        ("url = 'redis://:hunter2%zz@h'".into(), "configuration:2: broker.url: a % is not followed by two"),
        ("url = 'redis://:hunter2/x@h'".into(), "configuration:2: broker.url: a port is not a number"),
        (
            "url = 'redis://hunter2@h'".into(),
            "configuration:2: broker.username has no password: give broker.password",
        ),
        ("url = 'redis://h'\nusername = 'u'".into(), "configuration:3: broker.username has no password"),
        ("url = 'redis://h'\npassword = 12345".into(), "configuration:3: broker.password: this is not text"),
        (
            "url = 'redis://:hunter2@h'\npassword = 'hunter2'".into(),
            "configuration:3: broker.url has a password and broker.password is given too: remove one",
        ),
        (
            "url = 'redis://u:hunter2@h'\nusername = 'u'".into(),
            "configuration:3: broker.url has a user name and broker.username is given too: remove one",
        ),
        (
            "url = 'redis://h'\npassword = 'hunter2'\npassword_file = '/x'".into(),
            "configuration:4: broker.password and broker.password_file are both given: remove one",
        ),
        (
            "url = 'redis://h'\npassword_file = '/no/such'".into(),
            "configuration:3: broker.password_file: cannot read /no/such: No such file",
        ),
        (format!("url = 'redis://h'\npassword_file = '{empty}'"), "configuration:3: broker.password_file: "),
        (
            format!("url = 'redis://h'\npassword_file = '{binary}'"),
            "configuration:3: broker.password_file: cannot read ",
        ),
        (
            "url = 'redis://h'\nca_file = '/no/such'".into(),
            "configuration:3: broker.ca_file is given, but broker.url asks for no TLS: write rediss://",
        ),
        (
            "url = 'rediss://h'\nca_file = '/no/such'".into(),
            "configuration:3: broker.ca_file: cannot read /no/such: No such file",
        ),
        (
            format!("url = 'rediss://h'\ncert_file = '{empty}'"),
            "configuration:3: broker.cert_file and broker.key_file need each other: one is missing",
        ),
        ("prefix = ''".into(), "configuration:2: broker.prefix = \"\" is not a prefix: write 1 to 64 of"),
        ("prefix = 'a{b}'".into(), "configuration:2: broker.prefix = \"a{b}\" is not a prefix"),
        ("prefix = 'a*'".into(), "configuration:2: broker.prefix = \"a*\" is not a prefix"),
        ("prefix = 'a b'".into(), "configuration:2: broker.prefix = \"a b\" is not a prefix"),
        (format!("prefix = '{}'", "x".repeat(65)), "configuration:2: broker.prefix = \"xxx"),
    ];
    for (keys, expected) in table {
        let sentence = fault(&format!("[broker]\n{keys}"));
        assert!(sentence.starts_with(expected), "{keys}\n  is: {sentence}\n not: {expected}");
        assert!(!sentence.contains("hunter2") && !sentence.contains("12345"), "{sentence}");
        assert!(!sentence.contains('\n'), "{sentence}");
    }
}

#[test]
fn with_memory_nothing_else_of_the_broker_is_looked_at() {
    let memory = broker("password = 'a'\npassword_file = '/no/such'\nca_file = '/no/such'");
    assert_eq!((memory.url, memory.login), (BrokerUrl::Memory, Login::default()));
}

#[test]
fn secrets_are_printed_as_stars() {
    let settings = [
        "broker.url=redis://u:hunter2@h/1",
        "broker.sentinel_password=hunter2",
        "broker.sentinel_username=watch",
    ];
    let loaded = set(&settings).unwrap();
    let printed = loaded.to_toml().unwrap();
    for line in [
        "url = \"redis://u:***@h:6379/1\" # --set broker.url",
        "password = \"\" # default",
        "sentinel_password = \"***\" # --set broker.sentinel_password",
        "sentinel_username = \"watch\" # --set broker.sentinel_username",
        "password_file = \"\" # default",
    ] {
        assert!(printed.lines().any(|printed| printed == line), "{line}\n{printed}");
    }
    assert!(!printed.contains("hunter2") && !format!("{loaded:?}").contains("hunter2"));
    Config::from_toml(&printed).unwrap();
}

#[test]
fn tls_is_asked_for_by_the_url() {
    let file = TempFile::new("pem", "");
    let path = file.0.display();
    let keys =
        format!("url = 'rediss-cluster://h'\nca_file = '{path}'\ncert_file = '{path}'\nkey_file = '{path}'");
    let tls = broker(&keys).tls;
    assert_eq!(tls, RedisTls { ca: Some(file.0.clone()), client: Some((file.0.clone(), file.0.clone())) });
}

#[test]
fn a_namespace_may_be_fed_by_redis() {
    let source = |keys: &str| {
        let text = format!("[broker]\nurl = 'redis://h'\n[[namespaces]]\nname = 'n'\n{keys}");
        Config::from_toml(&text).map(|config| config.namespaces.of("n:1").source.clone())
    };
    let channel = |keys: &str| match source(keys).unwrap() {
        Source::Redis(channel) => channel,
        Source::Tidegate => panic!("{keys}"),
    };
    let plain = channel("source = 'redis'");
    assert_eq!(plain.of("n:1"), "n:1");
    let named = channel("source = 'redis'\nredis_channel = 'app.{channel}!'");
    assert_eq!(named.of("n:1"), "app.n:1!");
    assert_eq!(source("").unwrap(), Source::Tidegate);
    let table = [
        ("redis_channel = 'x.{channel}'", "\"x.{channel}\" has no effect without source = \"redis\""),
        ("source = 'redis'\nredis_channel = 'x'", "\"x\" must have {channel} exactly once"),
        ("source = 'redis'\nredis_channel = ''", "\"\" must have {channel} exactly once"),
        (
            "source = 'redis'\nredis_channel = '{channel}{channel}'",
            "\"{channel}{channel}\" must have {channel}",
        ),
        (
            "source = 'redis'\nredis_channel = \"a\\n{channel}\"",
            "\"a\\n{channel}\" is longer than 256 bytes or has",
        ),
        (
            "source = 'redis'\nredis_channel = 'tidegate:{1}:live:0:{channel}'",
            "is where Tidegate keeps its own",
        ),
    ];
    for (keys, expected) in table {
        let sentence = source(keys).unwrap_err().to_string();
        assert!(sentence.contains("namespace \"n\": redis_channel = "), "{sentence}");
        assert!(sentence.contains(expected), "{sentence}");
    }
}

#[test]
fn two_namespaces_that_may_mean_one_redis_channel_are_refused() {
    let both = |one: &str, other: &str| {
        let entry = |(name, pattern)| {
            format!("[[namespaces]]\nname = '{name}'\nsource = 'redis'\nredis_channel = '{pattern}'\n")
        };
        let text = format!("[broker]\nurl = 'redis://h'\n{}{}", entry(("a", one)), entry(("b", other)));
        Config::from_toml(&text).map(|_| ())
    };
    both("x.{channel}", "x.{channel}").unwrap();
    let sentence = both("{channel}", "a:{channel}").unwrap_err().to_string();
    let expected = "namespace \"b\": redis_channel = \"a:{channel}\" can mean the same Redis channel as that of \
                    namespace \"a\", and each feeds one channel only: begin them differently, as in \"b.{channel}\"";
    assert!(sentence.contains(expected), "{sentence}");
    assert!(sentence.contains(":10"), "the place is told: {sentence}");
}

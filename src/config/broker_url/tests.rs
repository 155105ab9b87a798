//! Every form of the URL, and what is none.

use super::*;

fn parse(url: &str) -> RedisUrl {
    match url.parse() {
        Ok(BrokerUrl::Redis(url)) => url,
        other => panic!("{url}: {other:?}"),
    }
}

fn host(host: &str, port: u16) -> HostPort {
    HostPort { host: host.into(), port }
}

#[test]
fn one_server_by_tcp() {
    let table = [
        ("redis://h", "redis://h:6379", host("h", 6379), false, 0),
        ("redis://h:7/", "redis://h:7", host("h", 7), false, 0),
        ("redis://h/2", "redis://h:6379/2", host("h", 6379), false, 2),
        ("redis://h?db=300", "redis://h:6379/300", host("h", 6379), false, 300),
        ("rediss://10.0.0.1:7/0", "rediss://10.0.0.1:7", host("10.0.0.1", 7), true, 0),
        ("redis://[::1]", "redis://[::1]:6379", host("::1", 6379), false, 0),
        ("redis://[fe80::1]:7/1", "redis://[fe80::1]:7/1", host("fe80::1", 7), false, 1),
    ];
    for (url, printed, address, tls, database) in table {
        let parsed = parse(url);
        assert_eq!(parsed.deployment, Deployment::Standalone(address), "{url}");
        assert_eq!((parsed.tls, parsed.database, &parsed.login), (tls, database, &Login::default()), "{url}");
        assert_eq!(parsed.to_string(), printed);
        assert_eq!(parse(printed), parsed);
    }
}

#[test]
fn a_login_is_decoded_and_never_printed_whole() {
    let table = [
        ("redis://u:p@h", Some("u"), Some("p"), "redis://u:***@h:6379"),
        ("redis://:p@h", None, Some("p"), "redis://:***@h:6379"),
        ("redis://u@h", Some("u"), None, "redis://u@h:6379"),
        ("redis://a%20b:p%3A%40%2F%25@h", Some("a b"), Some("p:@/%"), "redis://a%20b:***@h:6379"),
        ("redis://u:p@q@h", Some("u"), Some("p@q"), "redis://u:***@h:6379"),
        ("redis://u:p:q@h", Some("u"), Some("p:q"), "redis://u:***@h:6379"),
        ("redis://u:%C3%A9@h", Some("u"), Some("\u{e9}"), "redis://u:***@h:6379"),
        ("redis://:@h", None, None, "redis://h:6379"),
        ("redis-cluster://u:p@a,b", Some("u"), Some("p"), "redis-cluster://u:***@a:6379,b:6379"),
        ("redis-sentinel://u:p@a/s", Some("u"), Some("p"), "redis-sentinel://u:***@a:26379/s"),
        ("unix://u:p@/s", Some("u"), Some("p"), "unix://u:***@/s"),
    ];
    for (url, username, password, printed) in table {
        let parsed = parse(url);
        assert_eq!(parsed.login.username.as_deref(), username, "{url}");
        assert_eq!(parsed.login.password.as_ref().map(Secret::reveal), password, "{url}");
        assert_eq!(parsed.to_string(), printed);
    }
}

#[test]
fn several_servers() {
    let sentinel = parse("redis-sentinel://a,b:7,[::1]/my%20main/3");
    let sentinels = vec![host("a", 26379), host("b", 7), host("::1", 26379)];
    assert_eq!(sentinel.deployment, Deployment::Sentinel { sentinels, service: "my main".into() });
    assert_eq!((sentinel.database, sentinel.tls), (3, false));
    assert_eq!(sentinel.to_string(), "redis-sentinel://a:26379,b:7,[::1]:26379/my%20main/3");
    assert_eq!(parse(&sentinel.to_string()), sentinel);
    assert_eq!(parse("rediss-sentinel://a/s?db=4").database, 4);
    assert!(parse("rediss-sentinel://a/s").tls);

    let cluster = parse("rediss-cluster://a:1, b:2/0");
    assert_eq!(cluster.deployment, Deployment::Cluster { seeds: vec![host("a", 1), host("b", 2)] });
    assert!(cluster.tls);
    assert_eq!(parse(&cluster.to_string()), cluster);
}

#[test]
fn a_socket() {
    for url in [
        "unix:/run/r.sock?db=2",
        "unix:///run/r.sock?db=2",
        "redis+unix:///run/r.sock?db=2",
        "redis+socket:///run/r.sock?db=2",
    ] {
        let parsed = parse(url);
        assert_eq!(
            (&parsed.deployment, parsed.database),
            (&Deployment::Unix("/run/r.sock".into()), 2),
            "{url}"
        );
        assert_eq!(parsed.to_string(), "unix:/run/r.sock?db=2");
    }
    let spaced = parse("unix:/run/a%20b.sock");
    assert_eq!(spaced.deployment, Deployment::Unix("/run/a b.sock".into()));
    assert_eq!(spaced.to_string(), "unix:/run/a%20b.sock");
}

#[test]
fn what_is_no_url_is_refused() {
    let table = [
        ("", "no broker has this URL"),
        ("memory", "no broker has this URL"),
        ("redis", "no broker has this URL"),
        ("redis:", "no broker has this URL"),
        ("redis:/h", "no broker has this URL"),
        ("http://h", "no broker has this URL"),
        ("redisx://h", "no broker has this URL"),
        ("rediss+unix:///x", "no broker has this URL"),
        ("Redis://h", "no broker has this URL"),
        ("redis://", "a host is missing"),
        ("redis://:7", "a host is missing"),
        ("redis:///1", "a host is missing"),
        ("redis://u:p@", "a host is missing"),
        ("redis-cluster://a,,b", "a host is missing"),
        ("redis://a,b", "redis:// has one host"),
        ("redis://h:0", "a port is not a number"),
        ("redis://h:65536", "a port is not a number"),
        ("redis://h:+1", "a port is not a number"),
        ("redis://::1", "a port is not a number"),
        ("redis://[::1", "a [ has no ]"),
        ("redis://[::1]7", "after a ] only :port may stand"),
        ("redis://a b", "a host has a character"),
        ("redis://h/x", "the database is not a number"),
        ("redis://h/-1", "the database is not a number"),
        ("redis://h/1/2", "the database is not a number"),
        ("redis://h/1?db=1", "the database is given twice"),
        ("redis://h?timeout=1", "after the ? only db=NUMBER may stand"),
        ("redis://%zz:p@h", "a % is not followed"),
        ("redis://%ff:p@h", "what the % stand for is not UTF-8"),
        ("redis://%4:p@h", "a % is not followed"),
        ("redis-sentinel://a", "the name of the service is missing"),
        ("redis-sentinel://a/", "the name of the service is missing"),
        ("redis-sentinel://a/s/x", "the database is not a number"),
        ("redis-cluster://a/1", "a Redis Cluster has database 0 only"),
        ("unix:run/x", "a socket needs an absolute path"),
        ("unix:/", "a socket needs an absolute path"),
        ("unix://run/x", "a socket needs an absolute path"),
    ];
    for (url, expected) in table {
        let sentence = url.parse::<BrokerUrl>().unwrap_err();
        assert!(sentence.starts_with(expected), "{url}: {sentence}");
    }
}

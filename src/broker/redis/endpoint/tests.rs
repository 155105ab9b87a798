//! Every way in, and the sentence for every way that is shut: for both kinds of connection.

use std::{path::Path, process::Command};

use fred::types::Value;

use super::*;
use crate::{
    broker::redis::{
        command::CommandLink,
        error::{ConnectError, Problem},
        subscriber::{Push, Subscriber},
        tests::{LIMIT, Redis, cli, endpoint, free_port},
    },
    config::Config,
};

/// Both connections work, and reach the same server.
async fn works(endpoint: &Endpoint, server: &Server) {
    let link = CommandLink::connect(endpoint, server, LIMIT).await.unwrap();
    let (handle, mut stream) = Subscriber::connect(endpoint, server, LIMIT).await.unwrap();
    handle.subscribe(&["a".into()]);
    assert!(matches!(stream.next().await, Some(Ok(Push::Subscribed { .. }))));
    let receivers = link.call("PUBLISH", vec!["a".into(), "x".into()]).await;
    // The one before may not have been gone yet.
    assert!(matches!(receivers, Ok(Value::Integer(1..))), "{receivers:?}");
    assert!(matches!(stream.next().await, Some(Ok(Push::Message { .. }))));
}

/// Both connections fail for the same reason.
async fn fails(endpoint: &Endpoint, server: &Server) -> Problem {
    let by_fred: ConnectError = CommandLink::connect(endpoint, server, LIMIT).await.unwrap_err();
    let by_us: ConnectError = Subscriber::connect(endpoint, server, LIMIT).await.map(|_| ()).unwrap_err();
    assert_eq!(by_fred, by_us);
    assert!(by_us.to_string().starts_with(&format!("Redis at {server}: ")), "{by_us}");
    assert!(!by_us.to_string().contains('\n'), "{by_us}");
    by_us.problem
}

#[test]
fn servers_are_written_as_they_are_read() {
    let asked = Server::tcp("h", 1);
    for (text, expected) in [
        ("a:2", Some("a:2")),
        ("[::1]:2", Some("[::1]:2")),
        ("::1:2", Some("[::1]:2")),
        (":2", Some("h:2")),
        ("?:2", Some("h:2")),
        ("a", None),
        ("a:", None),
        ("a:0", None),
        ("a:65536", None),
    ] {
        assert_eq!(asked.beside(text).map(|server| server.to_string()).as_deref(), expected, "{text}");
    }
    assert_eq!(Server::Unix(Path::new("/s").into()).beside(":2"), None);
}

#[tokio::test]
async fn users_and_passwords() {
    let redis = Redis::start(&["--requirepass", "se cret/@"]);
    cli(redis.port, &["-a", "se cret/@", "ACL", "SETUSER", "app", "on", ">pass", "~*", "&*", "+@all"]);
    let url = |login: &str| format!("redis://{login}127.0.0.1:{}", redis.port);
    let server = redis.server();
    works(&endpoint(&url(":se%20cret%2F%40@"), ""), &server).await;
    works(&endpoint(&url("default:se%20cret%2F%40@"), ""), &server).await;
    works(&endpoint(&url("app:pass@"), ""), &server).await;
    works(&endpoint(&url(""), "username = 'app'\npassword = 'pass'"), &server).await;
    let keys = "broker.username and broker.password";
    assert_eq!(fails(&endpoint(&url(""), ""), &server).await, Problem::NeedsLogin(keys));
    assert_eq!(fails(&endpoint(&url(":wrong@"), ""), &server).await, Problem::WrongLogin(keys));
    assert_eq!(fails(&endpoint(&url("app:wrong@"), ""), &server).await, Problem::WrongLogin(keys));
    assert_eq!(fails(&endpoint(&url("nobody:pass@"), ""), &server).await, Problem::WrongLogin(keys));
    // A server without a password takes any.
    let open = Redis::start(&[]);
    works(&endpoint(&format!("redis://:pass@127.0.0.1:{}", open.port), ""), &open.server()).await;
}

#[tokio::test]
async fn a_user_with_few_rights_connects_and_is_told_what_is_missing() {
    let redis = Redis::start(&[]);
    redis.cli(&["ACL", "SETUSER", "few", "on", ">pass", "~t:*", "&t:*", "-@all", "+get", "+subscribe"]);
    let with = |database: &str| endpoint(&format!("redis://few:pass@127.0.0.1:{}{database}", redis.port), "");
    let link = CommandLink::connect(&with(""), &redis.server(), LIMIT).await.unwrap();
    assert!(link.call("GET", vec!["t:a".into()]).await.is_ok());
    for (command, key) in [("GET", "other"), ("SET", "t:a")] {
        let denied = link.call(command, vec![key.into(), "1".into()]).await;
        let denied = if command == "GET" { link.call(command, vec![key.into()]).await } else { denied };
        assert!(matches!(&denied, Err(super::super::error::CommandError::Denied(_))), "{denied:?}");
    }
    redis.cli(&["ACL", "SETUSER", "default", "-ping"]);
    let plain = CommandLink::connect(&endpoint(&redis.url(), ""), &redis.server(), LIMIT).await.unwrap_err();
    assert!(matches!(&plain.problem, Problem::Denied(text) if text.contains("'ping'")), "{plain}");
    let error = CommandLink::connect(&with("/1"), &redis.server(), LIMIT).await.unwrap_err();
    assert!(matches!(&error.problem, Problem::Denied(text) if text.contains("'select'")), "{error}");
    assert!(error.is_misconfigured());
}

#[tokio::test]
async fn a_socket_is_a_server_too() {
    let path = std::env::temp_dir().join(format!("tidegate-{}-redis.sock", std::process::id()));
    let _redis = Redis::start(&["--unixsocket", path.to_str().unwrap()]);
    let url = format!("unix:{}?db=3", path.display());
    let server = Server::Unix(path.as_path().into());
    works(&endpoint(&url, ""), &server).await;
    let gone = Server::Unix(Path::new("/no/such.sock").into());
    let problem = fails(&endpoint("unix:/no/such.sock", ""), &gone).await;
    assert_eq!(problem, Problem::Network("there is no such socket".into()));
}

#[tokio::test]
async fn addresses_of_every_kind() {
    let redis = Redis::start(&[]);
    works(&endpoint(&redis.url(), ""), &Server::tcp("localhost", redis.port)).await;
    let six = Redis::start(&["--bind", "127.0.0.1 ::1"]);
    works(&endpoint(&six.url(), ""), &Server::tcp("::1", six.port)).await;
    let unknown = Server::tcp("no-such-host.invalid", 6379);
    assert!(matches!(fails(&endpoint(&redis.url(), ""), &unknown).await, Problem::Unresolved(_)));
    let dead = Server::tcp("127.0.0.1", free_port());
    let problem = fails(&endpoint(&redis.url(), ""), &dead).await;
    assert_eq!(problem, Problem::Refused);
    assert_eq!(
        ConnectError::new(&dead, problem).to_string(),
        format!("Redis at {dead}: the connection is refused")
    );
}

#[tokio::test]
async fn the_wrong_kind_of_server() {
    let primary = Redis::start(&[]);
    let replica = Redis::start(&["--replicaof", &format!("127.0.0.1 {}", primary.port)]);
    let node = Redis::start(&["--cluster-enabled", "yes"]);
    let sentinel = Redis::sentinel("main", primary.port);
    let plain = |redis: &Redis| endpoint(&redis.url(), "");
    let cluster = |redis: &Redis| endpoint(&redis.url().replace("redis:", "redis-cluster:"), "");
    assert_eq!(fails(&plain(&replica), &replica.server()).await, Problem::NotPrimary);
    assert_eq!(fails(&plain(&node), &node.server()).await, Problem::IsCluster);
    assert_eq!(fails(&cluster(&primary), &primary.server()).await, Problem::NotCluster);
    assert_eq!(fails(&plain(&sentinel), &sentinel.server()).await, Problem::IsSentinel);
    let none = endpoint(&format!("redis-sentinel://127.0.0.1:{}/main", primary.port), "");
    let error = super::super::topology::discover(&none, &[0], &[]).await.unwrap_err();
    assert_eq!(error.problem, Problem::NotSentinel);
    assert_eq!(
        ConnectError::new(&node.server(), Problem::IsCluster).to_string(),
        format!(
            "Redis at {}: this is a node of a Redis Cluster: write redis-cluster:// in broker.url",
            node.server()
        )
    );
}

/// A server that answers everything with one line.
async fn answers(line: &'static str) -> Server {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let server = Server::tcp("127.0.0.1", listener.local_addr().unwrap().port());
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut read = [0; 1024];
                while socket.read(&mut read).await.is_ok_and(|read| read > 0) {
                    socket.write_all(line.as_bytes()).await.unwrap();
                }
            });
        }
    });
    server
}

#[tokio::test]
async fn old_busy_and_foreign_servers() {
    let endpoint = endpoint("redis://h", "");
    let five = answers("-ERR unknown command `HELLO`, with args beginning with: `3`, \r\n").await;
    assert_eq!(fails(&endpoint, &five).await, Problem::TooOld("5 or older".into()));
    let six = "%3\r\n+version\r\n+6.2.14\r\n+mode\r\n+standalone\r\n+role\r\n+master\r\n";
    assert_eq!(fails(&endpoint, &answers(six).await).await, Problem::TooOld("6.2.14".into()));
    let loading = answers("-LOADING Redis is loading the dataset in memory\r\n").await;
    assert_eq!(fails(&endpoint, &loading).await, Problem::Loading);
    let full = answers("-ERR max number of clients reached\r\n").await;
    assert_eq!(fails(&endpoint, &full).await, Problem::Answer("ERR max number of clients reached".into()));
    let web = answers("HTTP/1.1 400 Bad Request\r\n\r\n").await;
    assert!(matches!(fails(&endpoint, &web).await, Problem::Network(_)));
}

/// A CA, a certificate for localhost and one for a client.
fn certificates(dir: &Path) {
    let script = "
        openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=ca \
            -addext basicConstraints=critical,CA:TRUE -keyout ca.key -out ca.pem
        for name in server client; do
            openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=$name -keyout $name.key -out $name.csr
            echo 'subjectAltName=DNS:localhost,IP:127.0.0.1' > ext
            openssl x509 -req -in $name.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 -extfile ext -out $name.pem
        done";
    let made = Command::new("sh").args(["-ec", script]).current_dir(dir).output().unwrap();
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
}

#[tokio::test]
async fn tls_both_ways() {
    let dir = std::env::temp_dir().join(format!("tidegate-{}-tls", std::process::id()));
    std::fs::create_dir_all(&dir).unwrap();
    certificates(&dir);
    let file = |name: &str| dir.join(name).display().to_string();
    let tls_port = free_port().to_string();
    let options = [
        ["--tls-port", &tls_port],
        ["--tls-cert-file", &file("server.pem")],
        ["--tls-key-file", &file("server.key")],
        ["--tls-ca-cert-file", &file("ca.pem")],
        ["--bind", "127.0.0.1 127.0.0.2"],
    ];
    let redis = Redis::start(&options.concat());
    let url = format!("rediss://localhost:{tls_port}");
    let server = Server::tcp("localhost", tls_port.parse().unwrap());
    let ca = format!("ca_file = '{}'\n", file("ca.pem"));
    let client = format!("{ca}cert_file = '{}'\nkey_file = '{}'", file("client.pem"), file("client.key"));
    works(&endpoint(&url, &client), &server).await;
    works(&endpoint(&url, &client), &Server::tcp("127.0.0.1", tls_port.parse().unwrap())).await;

    let tls = async |keys: &str, server: &Server| match fails(&endpoint(&url, keys), server).await {
        Problem::Tls(text) => text,
        other => panic!("{other:?}"),
    };
    let stranger = format!("ca_file = '{}'", file("client.pem"));
    let sentence = tls(&stranger, &server).await;
    assert!(sentence.contains("UnknownIssuer") || sentence.contains("CaUsedAsEndEntity"), "{sentence}");
    let renamed = tls(&client, &Server::tcp("127.0.0.2", tls_port.parse().unwrap())).await;
    assert!(renamed.contains("not valid for name"), "{renamed}");
    // The server wants to know who asks.
    let sentence = tls(&ca, &server).await;
    assert!(sentence.to_lowercase().contains("certificate"), "{sentence}");
    // TLS to the plain port, and none to the other.
    let silent = fails(&endpoint(&url, &ca), &redis.server()).await;
    // Redis waits for the end of a line, which the first bytes of TLS may have by chance.
    assert!(matches!(silent, Problem::Silent(LIMIT) | Problem::Tls(_)), "{silent:?}");
    let plain = fails(&endpoint(&redis.url(), ""), &server).await;
    assert!(matches!(plain, Problem::Closed | Problem::Network(_)), "{plain:?}");

    let sentence = |keys: &str| {
        let config = Config::from_toml(&format!("[broker]\nurl = '{url}'\n{keys}")).unwrap();
        Endpoint::new(&config.broker, 1).unwrap_err()
    };
    let bad = sentence(&format!("ca_file = '{}'", file("ca.key")));
    assert_eq!(bad, format!("broker.ca_file: {}: there is no PEM certificate in it", file("ca.key")));
    let bad =
        sentence(&format!("{ca}cert_file = '{}'\nkey_file = '{}'", file("client.pem"), file("client.pem")));
    assert!(
        bad.starts_with(&format!("broker.key_file: {}: there is no PEM key in it", file("client.pem"))),
        "{bad}"
    );
    let bad =
        sentence(&format!("{ca}cert_file = '{}'\nkey_file = '{}'", file("client.pem"), file("server.key")));
    assert!(bad.starts_with("broker.cert_file and broker.key_file: "), "{bad}");
    std::fs::remove_dir_all(dir).unwrap();
}

//! The binary as a person meets it: started, configured wrongly, stopped by signals, publishing and
//! subscribing from a shell.

use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::objects::{Message, Object};
use crate::support::process::{Process, Proxy, Served, free_port, run, tidegate};
use crate::support::{Client, Conn, Options, Transport, eventually};

/// A file of the test's own.
fn file(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("tidegate-{}-{name}", std::process::id()));
    std::fs::write(&path, text).expect("writes");
    path
}

/// The outcome of `tidegate` with these arguments.
async fn tidegate_with(arguments: &[&str]) -> (i32, String) {
    let mut command = tidegate();
    command.args(arguments);
    run(command).await
}

fn shell(line: &str) -> Process {
    let mut command = Command::new("bash");
    command.args(["-c", &format!("exec {line}")]).stdin(Stdio::null());
    Process::spawn(command)
}

/// The rest of the line that begins with this.
fn line_with(text: &str, start: &str) -> String {
    text.lines()
        .find_map(|line| line.find(start).map(|at| line[at..].trim().to_owned()))
        .unwrap_or_else(|| panic!("no {start:?} in:\n{text}"))
}

#[tokio::test]
async fn the_three_commands_that_it_prints_work_as_they_are() {
    let served = Served::start(&[], &[]).await;
    let page = format!("http://{}/", served.internal);
    let said = eventually("the commands are printed", async || {
        let said = served.process.said();
        (said.contains("curl -N") && said.contains("curl -d") && said.contains(&page)).then_some(said)
    })
    .await;
    let subscriber = shell(&format!("timeout 20 {}", line_with(&said, "curl -N")));
    // The channel that it listens to, from its own words.
    let channel = line_with(&said, "curl -N")
        .split("channel=")
        .nth(1)
        .expect("a channel")
        .split(['&', '\'', '"', ' '])
        .next()
        .expect("a name")
        .to_owned();
    served.until_subscribers(&channel, 1).await;
    let (code, said_by_publisher) = {
        let mut command = Command::new("bash");
        command.args(["-c", &line_with(&said, "curl -d")]).stdin(Stdio::null());
        run(command).await
    };
    assert_eq!(code, 0, "{said_by_publisher}");
    assert!(said_by_publisher.contains("\"id\""), "{said_by_publisher}");
    eventually("the subscriber sees it", async || subscriber.printed().contains("message").then_some(()))
        .await;
    let console = Conn::open(served.internal).await.get("/", &[]).await.expect(200);
    assert!(console.header("content-type").is_some_and(|media| media.starts_with("text/html")));
}

#[tokio::test]
async fn help_and_version_are_answered() {
    let (code, help) = tidegate_with(&["--help"]).await;
    assert_eq!(code, 0);
    for word in ["publish", "subscribe", "config", "bench", "doctor", "--config", "--insecure"] {
        assert!(help.contains(word), "{word} is not in\n{help}");
    }
    for command in ["publish", "subscribe", "config", "doctor"] {
        let (code, help) = tidegate_with(&[command, "--help"]).await;
        assert_eq!(code, 0, "{help}");
        assert!(help.to_lowercase().contains("usage"), "{help}");
    }
    let (code, version) = tidegate_with(&["--version"]).await;
    assert_eq!(code, 0);
    assert!(version.contains(env!("CARGO_PKG_VERSION")), "{version}");
}

#[tokio::test]
async fn wrong_usage_is_64() {
    for arguments in [
        &["dance"][..],
        &["--dance"],
        &["publish"],
        &["subscribe"],
        &["subscribe", "a", "--transport", "smoke"],
        &["subscribe", "a", "--since", "yesterday"],
        &["subscribe", "a", "--since", ""],
        &["subscribe", "a", "b", "--since", "aaaaaa-1"],
        &["subscribe", "a", "a"],
        &["publish", "a b", "x"],
        &["--config", "tidegate.toml", "publish", "a", "x"],
        &["config"],
        &["config", "dance"],
        &["doctor", "dance"],
        &["doctor", "--set", "limits.outbox=0"],
    ] {
        let (code, said) = tidegate_with(arguments).await;
        assert_eq!(code, 64, "{arguments:?}: {said}");
        assert!(!said.is_empty());
    }
}

#[tokio::test]
async fn a_bad_configuration_names_file_line_key_and_the_nearest_key() {
    for (name, text, line, words) in [
        (
            "unknown.toml",
            "[public]\nlisten = '127.0.0.1:0'\n\n[limits]\nmesage = '1KiB'\n",
            5,
            &["limits.mesage", "limits.message"][..],
        ),
        ("section.toml", "\n[limit]\nmessage = '1KiB'\n", 2, &["limit", "limits"]),
        ("value.toml", "[sessions]\nheartbeat = 'soon'\n", 2, &["sessions.heartbeat", "soon"]),
        ("size.toml", "[limits]\nmessage = '1 potato'\n", 2, &["limits.message", "1 potato"]),
        ("kind.toml", "[limits]\nconnections = 'many'\n", 2, &["limits.connections"]),
        ("address.toml", "[public]\nlisten = 'here'\n", 2, &["public.listen", "here"]),
        (
            "choice.toml",
            "[[namespaces]]\nname = 'a'\nslow = 'discard'\n",
            3,
            &["slow", "discard", "disconnect"],
        ),
        (
            "namespace.toml",
            "[[namespaces]]\nname = 'a'\nhistroy_age = '1m'\n",
            3,
            &["histroy_age", "history_age"],
        ),
        ("broken.toml", "[limits\n", 1, &[]),
    ] {
        let path = file(name, text);
        let shown = path.to_str().expect("UTF-8").to_owned();
        let mut by_flag = tidegate();
        by_flag.args(["config", "check", "--config", &shown]);
        let mut by_environment = tidegate();
        by_environment.args(["config", "check"]).env("TIDEGATE_CONFIG", &shown);
        let mut serving = tidegate();
        serving.args(["--config", &shown]);
        for command in [by_flag, by_environment, serving] {
            let (code, said) = run(command).await;
            assert_eq!(code, 64, "{name}: {said}");
            assert!(said.contains(name), "{name} is not named: {said}");
            assert!(
                said.contains(&format!(":{line}")) || said.contains(&format!("line {line}")),
                "line {line} is not named: {said}"
            );
            for word in words {
                assert!(said.contains(word), "{word} is not named: {said}");
            }
        }
    }
}

#[tokio::test]
async fn a_bad_key_in_the_environment_is_named_too() {
    for (name, value, words) in [
        ("TIDEGATE_LIMITS__MESAGE", "1KiB", &["TIDEGATE_LIMITS__MESAGE", "MESSAGE"][..]),
        ("TIDEGATE_LIMITS__MESSAGE", "much", &["TIDEGATE_LIMITS__MESSAGE", "much"]),
        ("TIDEGATE_CONFIG", "/nowhere/at/all.toml", &["/nowhere/at/all.toml"]),
    ] {
        let mut command = tidegate();
        command.args(["config", "check"]).env(name, value);
        let (code, said) = run(command).await;
        assert_eq!(code, 64, "{name}: {said}");
        for word in words {
            assert!(said.contains(word), "{word} is not named: {said}");
        }
    }
}

#[tokio::test]
async fn a_good_configuration_passes_and_is_printed_with_its_origins() {
    let path = file(
        "good.toml",
        "[limits]\nmessage = '100KiB'\n[[namespaces]]\nname = 'orders'\nhistory_messages = 5\n",
    );
    let shown = path.to_str().expect("UTF-8").to_owned();
    for arguments in [["config", "check", "--config", &shown], ["--config", &shown, "config", "check"]] {
        let (code, said) = tidegate_with(&arguments).await;
        assert_eq!(code, 0, "{said}");
        assert!(said.contains("good.toml"), "{said}");
    }
    let mut command = tidegate();
    command.args(["config", "print", "--config", &shown]).env("TIDEGATE_SESSIONS__HEARTBEAT", "20s");
    let (code, said) = run(command).await;
    assert_eq!(code, 0, "{said}");
    for word in ["100KiB", "good.toml", "20s", "TIDEGATE_SESSIONS__HEARTBEAT", "orders", "pong_timeout"] {
        assert!(said.contains(word), "{word} is not in\n{said}");
    }
    // The environment wins over the file.
    let mut command = tidegate();
    command.args(["config", "print", "--config", &shown]).env("TIDEGATE_LIMITS__MESSAGE", "77KiB");
    let (_, said) = run(command).await;
    assert!(said.contains("77KiB") && !said.contains("100KiB"), "{said}");
}

#[tokio::test]
async fn the_schema_is_json_and_knows_the_keys() {
    let (code, said) = tidegate_with(&["config", "schema"]).await;
    assert_eq!(code, 0);
    let schema: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert!(jsonschema::meta::is_valid(&schema), "a JSON Schema");
    for key in ["public", "allowed_origins", "outbox", "pong_timeout", "history_age", "client_publish"] {
        assert!(said.contains(&format!("\"{key}\"")), "{key}");
    }
    let validator = jsonschema::validator_for(&schema).expect("compiles");
    assert!(validator.is_valid(&serde_json::json!({"limits": {"message": "1KiB"}})));
    assert!(
        !validator.is_valid(&serde_json::json!({"limits": {"mesage": "1KiB"}})),
        "unknown keys are refused"
    );
}

#[tokio::test]
async fn beyond_loopback_it_does_not_start_without_credentials() {
    for (key, port) in [("TIDEGATE_PUBLIC__LISTEN", free_port()), ("TIDEGATE_INTERNAL__LISTEN", free_port())]
    {
        for host in ["0.0.0.0", "[::]"] {
            let mut command = tidegate();
            let (public, internal) = (free_port(), free_port());
            command.env("TIDEGATE_PUBLIC__LISTEN", format!("127.0.0.1:{public}"));
            command.env("TIDEGATE_INTERNAL__LISTEN", format!("127.0.0.1:{internal}"));
            command.env(key, format!("{host}:{port}"));
            let (code, said) = run(command).await;
            assert_eq!(code, 64, "{said}");
            let named = if key.contains("PUBLIC") { "public.listen" } else { "internal.listen" };
            assert!(said.contains("--insecure") && said.contains(named), "{said}");
        }
    }
}

#[tokio::test]
async fn insecure_starts_it_and_waives_the_host() {
    let served = Served::start(&[], &["--insecure"]).await;
    let mut conn = Conn::open(served.public).await;
    conn.get("/v1/subscribe?channel=a&wait=0", &[("Host", "push.example")]).await.expect(200);
    let mut conn = Conn::open(served.public).await;
    let foreign = [("Host", "push.example"), ("Origin", "https://evil.example")];
    conn.get("/v1/subscribe?channel=a&wait=0", &foreign).await.problem(403, "origin_refused");
}

#[tokio::test]
async fn a_port_in_use_is_a_failure_that_names_it() {
    let served = Served::start(&[], &[]).await;
    let mut command = tidegate();
    command.env("TIDEGATE_PUBLIC__LISTEN", served.public.to_string());
    command.env("TIDEGATE_INTERNAL__LISTEN", format!("127.0.0.1:{}", free_port()));
    let (code, said) = run(command).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains(&served.public.to_string()), "{said}");
}

fn url(address: std::net::SocketAddr) -> String {
    format!("http://{address}")
}

/// The numbers of the message objects that a subscriber printed, each on its line.
fn numbers(printed: &str) -> Vec<u64> {
    let whole = printed.rfind('\n').map_or("", |end| &printed[..end]);
    whole.lines().map(|line| Message::of(&Object::parse(line)).number()).collect()
}

each_transport! {
    async fn subscribe_follows_a_channel_over_a_connection_that_is_cut(transport) {
        let served = Served::start(&[], &[]).await;
        let proxy = Proxy::to(served.public).await;
        let mut command = tidegate();
        command.args(["subscribe", "a", "--since", "earliest", "--transport", transport.name(), "--url", &url(proxy.address)]);
        served.publish("a", "1").await;
        let subscriber = Process::spawn(command);
        let until = async |wanted: u64| {
            eventually(&format!("{wanted} messages"), async || {
                (numbers(&subscriber.printed()).len() as u64 >= wanted).then_some(())
            })
            .await;
            assert_eq!(numbers(&subscriber.printed()), (1..=wanted).collect::<Vec<_>>(), "{}", subscriber.said());
        };
        until(1).await;
        for round in 0..3 {
            let first = round * 4 + 2;
            for number in first..first + 2 {
                served.publish("a", &number.to_string()).await;
            }
            proxy.cut();
            for number in first + 2..first + 4 {
                served.publish("a", &number.to_string()).await;
            }
            until(first + 3).await;
        }
    }
}

#[tokio::test]
async fn subscribe_takes_several_channels_and_says_nothing_but_messages() {
    let served = Served::start(&[], &[]).await;
    let mut command = tidegate();
    command.args(["subscribe", "a", "b", "--url", &url(served.public)]);
    let subscriber = Process::spawn(command);
    served.until_subscribers("b", 1).await;
    served.publish("a", "1").await;
    served.publish("b", "2").await;
    eventually("both arrive", async || (subscriber.printed().lines().count() == 2).then_some(())).await;
    let mut seen = numbers(&subscriber.printed());
    seen.sort_unstable();
    assert_eq!(seen, [1, 2]);
}

#[tokio::test]
async fn publish_takes_an_argument_or_standard_input() {
    let served = Served::start(&[], &[]).await;
    let internal = url(served.internal);
    let (code, said) = tidegate_with(&["publish", "a", "{\"n\": 1}", "--url", &internal]).await;
    assert_eq!(code, 0, "{said}");
    for arguments in [&["publish", "a", "-"][..], &["publish", "a"]] {
        let mut child = tidegate()
            .args(arguments)
            .args(["--url", &internal])
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .spawn()
            .expect("starts");
        child.stdin.take().expect("piped").write_all(b"from a pipe").expect("writes");
        assert!(child.wait().expect("ends").success());
    }
    let mut client = Client::connect_with(
        served.public,
        Transport::Ndjson,
        "channel=a&since=earliest",
        Options::default(),
    )
    .await;
    assert_eq!(client.message().await.data.as_deref(), Some("{\"n\": 1}"));
    assert_eq!(client.message().await.string().trim_end(), "from a pipe");
    assert_eq!(client.message().await.string().trim_end(), "from a pipe");
}

#[tokio::test]
async fn publish_fails_with_1_where_it_is_not_accepted_and_64_where_it_cannot_be() {
    let served = Served::start(&[], &[]).await;
    let (code, said) = tidegate_with(&["publish", "a b", "x", "--url", &url(served.internal)]).await;
    assert_eq!(code, 64, "what is wrong is seen before anything is sent: {said}");
    let not_json =
        ["publish", "a", "{", "--content-type", "application/json", "--url", &url(served.internal)];
    let (code, said) = tidegate_with(&not_json).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("line 1"), "{said}");
    let nobody = format!("http://127.0.0.1:{}", free_port());
    let (code, said) = tidegate_with(&["publish", "a", "x", "--url", &nobody]).await;
    assert_eq!(code, 1, "{said}");
    assert!(!said.is_empty());
}

const QUICK: &[(&str, &str)] = &[("TIDEGATE_DRAIN__NOTICE", "1s"), ("TIDEGATE_DRAIN__PERIOD", "2s")];

#[tokio::test]
async fn sigterm_drains_and_exits_0_in_time() {
    let mut served = Served::start(QUICK, &[]).await;
    let mut clients = Vec::new();
    for transport in Transport::STREAMS {
        clients.push(Client::connect_with(served.public, transport, "channel=a", Options::default()).await);
    }
    let begun = Instant::now();
    served.process.signal("TERM");
    for client in &mut clients {
        let (goodbye, _) = client.end().await;
        assert_eq!(goodbye.expect("a goodbye").0, "shutdown");
    }
    let status = served.process.exit(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0), "{}", served.process.said());
    assert!(
        (Duration::from_millis(950)..Duration::from_secs(6)).contains(&begun.elapsed()),
        "{:?}",
        begun.elapsed()
    );
}

#[tokio::test]
async fn sigint_exits_0_within_a_second() {
    let mut served = Served::start(&[], &[]).await;
    let mut client =
        Client::connect_with(served.public, Transport::Sse, "channel=a", Options::default()).await;
    let begun = Instant::now();
    served.process.signal("INT");
    assert_eq!(client.end().await.0.expect("a goodbye").0, "shutdown");
    let status = served.process.exit(Duration::from_secs(10)).await;
    assert_eq!(status.code(), Some(0), "{}", served.process.said());
    assert!(begun.elapsed() < Duration::from_millis(2500), "{:?}", begun.elapsed());
}

#[tokio::test]
async fn a_second_signal_exits_at_once() {
    for (signal, code) in [("TERM", 143), ("INT", 130)] {
        let mut served = Served::start(&[("TIDEGATE_DRAIN__NOTICE", "30s")], &[]).await;
        served.process.signal("TERM");
        let public = served.public;
        eventually("the drain begins", async || {
            (Conn::open(public).await.get("/ready", &[]).await.status() == 503).then_some(())
        })
        .await;
        let begun = Instant::now();
        served.process.signal(signal);
        let status = served.process.exit(Duration::from_secs(10)).await;
        assert_eq!(status.code(), Some(code), "{}", served.process.said());
        assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
    }
}

#[tokio::test]
async fn logs_are_json_where_nobody_looks_and_hold_no_payloads() {
    let mut served =
        Served::start(&[("TIDEGATE_LOG__LEVEL", "debug"), ("TIDEGATE_DRAIN__NOTICE", "0s")], &[]).await;
    served.publish("a", "\"planted-secret\"").await;
    let target = "/v1/subscribe?channel=a&wait=0&token=planted-token";
    Conn::open(served.public)
        .await
        .get(target, &[("Authorization", "Bearer planted-bearer")])
        .await
        .expect(200);
    served.process.signal("TERM");
    served.process.exit(Duration::from_secs(10)).await;
    let said = served.process.said();
    assert!(!said.contains("planted"), "{said}");
    let lines = said.lines().filter(|line| line.starts_with('{'));
    let events: Vec<serde_json::Value> = lines
        .map(|line| serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}")))
        .collect();
    let of = |message: &str| {
        let found = events.iter().find(|event| event["message"] == message);
        found.unwrap_or_else(|| panic!("no {message:?} in {said}"))
    };
    assert_eq!(of("serving")["public"], served.public.to_string());
    assert_eq!(of("serving")["internal"], served.internal.to_string());
    assert_eq!(of("a client is gone")["transport"], "poll");
    assert_eq!(of("a client is gone")["connection.id"], of("a client connected")["connection.id"]);
}

#[tokio::test]
async fn logs_are_for_people_where_they_are_asked_for_and_as_much_as_is_asked_for() {
    for (level, expected) in [("info", true), ("off", false)] {
        let mut served = Served::start(
            &[
                ("TIDEGATE_LOG__LEVEL", level),
                ("TIDEGATE_LOG__FORMAT", "human"),
                ("TIDEGATE_DRAIN__NOTICE", "0s"),
            ],
            &[],
        )
        .await;
        served.process.signal("TERM");
        served.process.exit(Duration::from_secs(10)).await;
        let said = served.process.said();
        assert_eq!(said.contains("INFO serving version="), expected, "{said}");
        assert!(!said.contains("\"message\""), "{said}");
    }
}

#[tokio::test]
async fn it_listens_on_unix_sockets_and_takes_their_files_along() {
    let path = std::env::temp_dir().join(format!("tidegate-{}-public.sock", std::process::id()));
    let listen = format!("unix:{}", path.display());
    let internal = free_port();
    let mut command = tidegate();
    command.env("TIDEGATE_PUBLIC__LISTEN", &listen);
    command.env("TIDEGATE_INTERNAL__LISTEN", format!("127.0.0.1:{internal}"));
    let mut process = Process::spawn(command);
    eventually("it says where it listens", async || process.said().contains(&listen).then_some(())).await;
    let mut curl = Command::new("curl");
    curl.args(["-s", "--unix-socket"]).arg(&path).arg("http://localhost/v1/subscribe?channel=a&wait=0");
    let (code, said) = run(curl).await;
    assert!(code == 0 && said.contains("\"cursor\""), "{code}: {said}");
    process.signal("INT");
    assert_eq!(process.exit(Duration::from_secs(10)).await.code(), Some(0));
    assert!(!path.exists());
}

//! `tidegate selftest`, and the command line's clients over TLS: what a person sees of a gateway that works, and of
//! one that does not.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::process::{Process, Served, free_port, run, tidegate};
use crate::support::tls::{Folder, Setup};
use crate::support::{TestGateway, Transport, eventually};

async fn tidegate_with(arguments: &[&str]) -> (i32, String) {
    let mut command = tidegate();
    command.args(arguments);
    run(command).await
}

/// The line of a part of the table.
fn row<'a>(said: &'a str, part: &str) -> &'a str {
    said.lines().find(|line| line.starts_with(part)).unwrap_or_else(|| panic!("no {part} in:\n{said}"))
}

#[tokio::test]
async fn it_says_of_each_transport_that_it_works_and_how_long_that_took() {
    let gateway = TestGateway::start().run().await;
    let (public, internal) = (format!("http://{}", gateway.public), format!("http://{}", gateway.internal));
    let (code, said) = tidegate_with(&["selftest", &public, &internal, "--channel", "tested"]).await;
    assert_eq!(code, 0, "{said}");
    for transport in Transport::ALL {
        let row = row(&said, transport.name());
        assert!(row.contains(" ok ") && row.matches(" ms").count() == 2, "{said}");
    }
    assert!(row(&said, "publish").contains(" ok "), "{said}");
    // One of its own, and two for each transport.
    assert_eq!(gateway.get("/v1/channels/tested").await["messages"], 9);
    gateway.finish(()).await;
}

#[tokio::test]
async fn over_tls_the_authority_is_named_and_where_it_is_not_the_advice_is_to_name_it() {
    let tls = Setup::new();
    let gateway = TestGateway::start().with(&tls.keys("public")).run().await;
    let ca = tls.folder.write("ca.pem", &tls.authority.cert);
    let public = format!("https://localhost:{}", gateway.public.port());
    let internal = format!("http://{}", gateway.internal);
    let (code, said) = tidegate_with(&["selftest", &public, &internal, "--ca-file", &ca]).await;
    assert_eq!(code, 0, "{said}");
    let other = tls.folder.write("other.pem", &Setup::new().authority.cert);
    let (code, said) = tidegate_with(&["selftest", &public, &internal, "--ca-file", &other]).await;
    assert_eq!(code, 1, "{said}");
    assert!(row(&said, "connect").contains("--ca-file"), "{said}");
    // The name in the certificate counts.
    let (code, said) = tidegate_with(&["selftest", "https://127.0.0.2:1", &internal, "--ca-file", &ca]).await;
    assert_eq!(code, 1, "{said}");
    // TLS spoken to who does not, and the other way round.
    let (secret, open) = (public.replace("https", "http"), internal.replace("http", "https"));
    let (code, said) = tidegate_with(&["selftest", &secret, &open, "--ca-file", &ca]).await;
    assert_eq!(code, 1, "{said}");
    assert!(row(&said, "publish").contains("is it http://?"), "{said}");
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_ca_file_that_is_none_is_wrong_usage_and_named() {
    let folder = Setup::new().folder;
    let empty = folder.write("empty.pem", "");
    let damaged =
        folder.write("damaged.pem", "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n");
    for path in [empty.as_str(), &damaged, "/nowhere/ca.pem"] {
        for command in [
            &["publish", "a", "x", "--url", "https://127.0.0.1:1"][..],
            &["subscribe", "a", "--url", "https://127.0.0.1:1"],
            &["selftest", "https://127.0.0.1:1", "http://127.0.0.1:1"],
        ] {
            let (code, said) = tidegate_with(&[command, &["--ca-file", path]].concat()).await;
            assert_eq!(code, 64, "{command:?}: {said}");
            assert!(said.contains("--ca-file") && said.contains(path), "{command:?}: {said}");
        }
    }
}

each_transport! {
    async fn publish_and_subscribe_speak_tls(transport) {
        let tls = Setup::new();
        let gateway = TestGateway::start().with(&tls.keys("public")).run().await;
        let ca = tls.folder.write("ca.pem", &tls.authority.cert);
        let mut command = tidegate();
        let url = format!("https://localhost:{}", gateway.public.port());
        command.args(["subscribe", "a", "--transport", transport.name(), "--url", &url, "--ca-file", &ca]);
        let subscriber = Process::spawn(command);
        gateway.until_subscribers("a", 1).await;
        gateway.publish("a", "{\"over\":\"tls\"}").await;
        eventually("it arrives", async || subscriber.printed().contains("over").then_some(())).await;
        drop(subscriber);
        gateway.finish(()).await;
    }
}

#[tokio::test]
async fn publish_speaks_tls() {
    let tls = Setup::new();
    let gateway = TestGateway::start().with(&tls.keys("internal")).run().await;
    let ca = tls.folder.write("ca.pem", &tls.authority.cert);
    let url = format!("https://localhost:{}", gateway.internal.port());
    let (code, said) = tidegate_with(&["publish", "a", "x", "--url", &url, "--ca-file", &ca]).await;
    assert_eq!(code, 0, "{said}");
    let mut command = tidegate();
    command.args(["publish", "a", "x", "--url", &url]).env("TIDEGATE_CA_FILE", &ca);
    let (code, said) = run(command).await;
    assert!(code == 0 && said.contains("-2\""), "{said}");
    gateway.finish(()).await;
}

/// A proxy as they are found: it does not pass an upgrade on.
async fn without_upgrades(target: std::net::SocketAddr) -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut server = TcpStream::connect(target).await.expect("connects");
                let mut head = vec![0; 4096];
                let count = client.read(&mut head).await.expect("reads");
                let head = String::from_utf8_lossy(&head[..count]).replace("upgrade: websocket\r\n", "");
                server.write_all(head.as_bytes()).await.expect("writes");
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    address
}

#[tokio::test]
async fn what_does_not_work_is_told_with_what_to_do() {
    let gateway = TestGateway::start().namespace("short", "history_messages = 0").run().await;
    let (public, internal) = (format!("http://{}", gateway.public), format!("http://{}", gateway.internal));
    let proxy = format!("http://{}", without_upgrades(gateway.public).await);
    let (code, said) = tidegate_with(&["selftest", &proxy, &internal]).await;
    assert_eq!(code, 1, "{said}");
    assert!(row(&said, "websocket").contains("Upgrade: websocket"), "{said}");
    assert!(row(&said, "sse").contains(" ok ") && row(&said, "poll").contains(" ok "), "{said}");

    let (code, said) = tidegate_with(&["selftest", &public, &internal, "--channel", "short:1"]).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("history_messages") && said.contains("--channel"), "{said}");

    let (code, said) = tidegate_with(&["selftest", &internal, &public]).await;
    assert_eq!(code, 1, "{said}");
    assert!(said.contains("the second of the two addresses"), "{said}");

    let nobody = format!("http://127.0.0.1:{}", free_port());
    let (code, said) = tidegate_with(&["selftest", &nobody, &nobody]).await;
    assert_eq!(code, 1, "{said}");
    assert!(row(&said, "publish").contains(&nobody) && row(&said, "connect").contains(&nobody), "{said}");
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_credential_is_in_no_output() {
    let folder = Setup::new().folder;
    let two_lines = folder.write("key", "planted-secret\nplanted-too\n");
    for arguments in [
        &["publish", "a b", "x", "--api-key", "planted-secret"][..],
        &["publish", "a", "x", "--api-key", "planted-secret", "--api-key-file", "planted"],
        &["publish", "a", "x", "--api-key", "planted-secret\n1"],
        &["publish", "a", "x", "--api-key-file", &two_lines],
        &["publish", "a", "x", "--url", "http://127.0.0.1:1", "--api-key", "planted-secret"],
        &["subscribe", "a", "--token", "planted-secret", "--since", "never"],
        &["selftest", "http://127.0.0.1:1", "http://127.0.0.1:1", "--token", "planted-secret"],
        &["selftest", "--token", "planted-secret"],
        &["publish", "--help"],
    ] {
        let mut command = tidegate();
        command
            .args(arguments)
            .env("TIDEGATE_API_KEY", "planted-secret")
            .env("TIDEGATE_TOKEN", "planted-secret");
        let (code, said) = run(command).await;
        assert!(code != 0 || arguments.contains(&"--help"), "{arguments:?}: {said}");
        assert!(!said.contains("planted-secret") && !said.contains("planted-too"), "{arguments:?}: {said}");
    }
}

/// A gateway that asks everybody who he is, and what lets in.
struct Guarded {
    served: Served,
    folder: Folder,
    key: String,
    secret: String,
}

impl Guarded {
    async fn start() -> Self {
        let folder = Folder::new();
        let secret = folder.write("secret", "a secret of these tests, which is long enough for all");
        let (code, entry) =
            tidegate_with(&["key", "test", "--channels", "*", "--operations", "publish,read"]).await;
        assert_eq!(code, 0, "{entry}");
        let key = entry.split_whitespace().find(|word| word.starts_with("tgk_")).expect("a key").to_owned();
        let keys = folder.write("keys.toml", &entry);
        let variables = [
            ("TIDEGATE_AUTH__KEYS_FILE", keys.as_str()),
            ("TIDEGATE_AUTH__JWT__KEY_FILE", &secret),
            ("TIDEGATE_AUTH__JWT__LEEWAY", "0s"),
        ];
        let served = Served::start(&variables, &[]).await;
        Self { served, folder, key, secret }
    }

    /// A token for the channel `a` and the one of the selftest.
    async fn token(&self, expires: &str) -> String {
        let arguments = [
            "token",
            "--key-file",
            &self.secret,
            "--sub",
            "somebody",
            "--channels",
            "a,selftest",
            "--expires",
            expires,
        ];
        let (code, token) = tidegate_with(&arguments).await;
        assert_eq!(code, 0, "{token}");
        token.trim().to_owned()
    }

    fn public(&self) -> String {
        format!("http://{}", self.served.public)
    }

    fn internal(&self) -> String {
        format!("http://{}", self.served.internal)
    }

    async fn publish(&self, data: &str) {
        let (code, said) =
            tidegate_with(&["publish", "a", data, "--url", &self.internal(), "--api-key", &self.key]).await;
        assert_eq!(code, 0, "{said}");
    }

    fn subscribe(&self, transport: Transport, token: &[&str]) -> Process {
        let mut command = tidegate();
        command.args([
            "subscribe",
            "a",
            "--since",
            "earliest",
            "--transport",
            transport.name(),
            "--url",
            &self.public(),
        ]);
        command.args(token);
        Process::spawn(command)
    }
}

#[tokio::test]
async fn a_key_is_given_by_flag_file_or_environment_and_where_none_is_the_ways_are_named() {
    let gateway = Guarded::start().await;
    let internal = gateway.internal();
    let publish = ["publish", "a", "x", "--url", &internal];
    let file = gateway.folder.write("key", &format!("{}\n", gateway.key));
    for flags in [["--api-key", &gateway.key], ["--api-key-file", &file]] {
        let (code, said) = tidegate_with(&[&publish[..], &flags].concat()).await;
        assert_eq!(code, 0, "{said}");
    }
    for (name, value) in [("TIDEGATE_API_KEY", &gateway.key), ("TIDEGATE_API_KEY_FILE", &file)] {
        let mut command = tidegate();
        command.args(publish).env(name, value);
        let (code, said) = run(command).await;
        assert_eq!(code, 0, "{name}: {said}");
    }
    let (code, said) = tidegate_with(&publish).await;
    assert!(code == 1 && said.contains("--api-key-file") && said.contains("TIDEGATE_API_KEY"), "{said}");
    let wrong = format!("{}x", gateway.key);
    let (code, said) = tidegate_with(&[&publish[..], &["--api-key", &wrong]].concat()).await;
    assert!(code == 1 && !said.contains(&wrong), "{said}");
}

#[tokio::test]
async fn the_selftest_shows_both_credentials_and_says_which_is_missing() {
    let gateway = Guarded::start().await;
    let (public, internal) = (gateway.public(), gateway.internal());
    let (code, said) = tidegate_with(&["selftest", &public, &internal]).await;
    assert_eq!(code, 1, "{said}");
    assert_eq!(said.matches("--token-file").count(), 4, "{said}");
    assert_eq!(said.matches("--api-key-file").count(), 1, "{said}");
    let mut command = tidegate();
    let token = gateway.token("1h").await;
    command.args(["selftest", &public, &internal]);
    command.env("TIDEGATE_API_KEY", &gateway.key).env("TIDEGATE_TOKEN", &token);
    let (code, said) = run(command).await;
    assert_eq!(code, 0, "{said}");
    assert!(!said.contains(&token) && !said.contains(&gateway.key), "{said}");
}

each_transport! {
    async fn a_token_in_a_file_is_followed_by_the_next_one_and_one_in_a_flag_by_the_end(transport) {
        let gateway = Guarded::start().await;
        let nobody = gateway.subscribe(transport, &[]).outcome().await;
        assert!(nobody.0 == 1 && nobody.1.contains("--token-file"), "{nobody:?}");
        let wrong = gateway.subscribe(transport, &["--token", "a.b.c"]).outcome().await;
        assert!(wrong.0 == 1 && !wrong.1.contains("a.b.c"), "{wrong:?}");

        // Long enough for two processes to start on a busy machine.
        let short = gateway.token("8s").await;
        let file = gateway.folder.write("token", &short);
        let once = gateway.subscribe(transport, &["--token", &short]);
        let on = gateway.subscribe(transport, &["--token-file", &file]);
        gateway.publish("1").await;
        for subscriber in [&once, &on] {
            eventually("the first", async || (subscriber.printed().lines().count() == 1).then_some(())).await;
        }
        let (code, said) = once.outcome().await;
        assert!(code == 1 && said.contains("--token-file") && said.contains("expired"), "{said}");
        eventually("it waits for another token", async || on.said().contains(&file).then_some(())).await;
        gateway.publish("2").await;
        gateway.folder.write("token", &gateway.token("1h").await);
        eventually("the second", async || (on.printed().lines().count() == 2).then_some(())).await;
        assert!(!on.said().contains(&short), "{}", on.said());
    }
}

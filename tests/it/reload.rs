//! SIGHUP: what changes at once, what waits for a restart, and a bad file that changes nothing.

use std::process::{Command, Stdio};

use tokio::net::TcpStream;

use crate::support::credentials::{bearer, entry};
use crate::support::forge::{Issuer, claims};
use crate::support::process::{Process, Served, free_port};
use crate::support::tls::{Folder, Setup, client, connect};
use crate::support::{Conn, eventually};

/// A gateway whose file can be written again.
struct Reloaded {
    served: Served,
    folder: Folder,
    path: String,
    runs: usize,
}

impl Reloaded {
    async fn start(text: &str) -> Self {
        let folder = Folder::new();
        let path = folder.write("tidegate.toml", text);
        let served = Served::start(&[("TIDEGATE_LIMITS__FRAME", "32KiB")], &["--config", &path]).await;
        Self { served, folder, path, runs: 0 }
    }

    /// Writes the file, sends the signal, and gives the log's lines from then on up to the one about its outcome.
    async fn with(&mut self, text: &str) -> String {
        let before = self.served.process.said().len();
        self.folder.write("tidegate.toml", text);
        self.served.process.signal("HUP");
        self.runs += 1;
        eventually("a line about the configuration", async || {
            let said = self.served.process.said();
            let new = &said[before..];
            let is_over = new.contains("the configuration was read anew") || new.contains("stays in force");
            is_over.then(|| new.to_owned())
        })
        .await
    }

    /// The status of a publish with this key.
    async fn status_with(&self, key: &str) -> u16 {
        let mut conn = Conn::open(self.served.internal).await;
        let headers = [("Authorization", &*bearer(key)), ("Content-Type", "application/json")];
        conn.request("POST", "/v1/channels/news/messages", &headers, Some(b"1")).await.status()
    }

    /// The status of a poll with this token.
    async fn status_of(&self, token: &str) -> u16 {
        let mut conn = Conn::open(self.served.public).await;
        conn.get("/v1/subscribe?channel=news&wait=0", &[("Authorization", token)]).await.status()
    }

    async fn status_from(&self, origin: &str) -> u16 {
        let mut conn = Conn::open(self.served.public).await;
        conn.get("/v1/subscribe?channel=a&wait=0", &[("Origin", origin)]).await.status()
    }
}

#[tokio::test]
async fn pages_and_the_level_of_the_log_change_at_once() {
    let first = "[public]\nallowed_origins = 'https://a.example'\n[log]\nlevel = 'info'\n";
    let mut gateway = Reloaded::start(first).await;
    assert_eq!(gateway.status_from("https://a.example").await, 200);
    assert_eq!(gateway.status_from("https://b.example").await, 403);
    let said =
        gateway.with("[public]\nallowed_origins = 'https://b.example'\n[log]\nlevel = 'debug'\n").await;
    assert!(said.contains("\"changed\":\"public.allowed_origins, log.level\""), "{said}");
    assert_eq!(gateway.status_from("https://a.example").await, 403);
    assert_eq!(gateway.status_from("https://b.example").await, 200);
    assert_eq!(gateway.served.process.said().matches("a client connected").count(), 1, "since it is `debug`");
    let said = gateway.with("").await;
    assert!(said.contains("\"changed\":\"public.allowed_origins, log.level\""), "{said}");
    assert_eq!(gateway.status_from("https://b.example").await, 403);
    let said = gateway.with("").await;
    assert!(said.contains("\"changed\":\"\""), "{said}");
}

#[tokio::test]
async fn a_bad_file_changes_nothing_and_is_named_with_line_and_key() {
    let mut gateway = Reloaded::start("[public]\nallowed_origins = 'https://a.example'\n").await;
    let path = gateway.path.clone();
    for (text, fault) in [
        (
            "[public]\nalowed_origins = '*'\n",
            ":2: unknown key `public.alowed_origins`; did you mean `public.allowed",
        ),
        ("[public]\nallowed_origins = 'https://b.example'\n[log]\nlevel = 'loud'\n", ":4: log.level = "),
        ("[public\n", ":1: "),
    ] {
        let said = gateway.with(text).await;
        assert!(said.contains(&format!("the configuration before stays in force: {path}{fault}")), "{said}");
        assert!(said.contains("\"level\":\"ERROR\""), "{said}");
        assert_eq!(gateway.status_from("https://a.example").await, 200);
        assert_eq!(gateway.status_from("https://b.example").await, 403);
    }
    std::fs::remove_file(&path).unwrap();
    gateway.served.process.signal("HUP");
    eventually("a word on the missing file", async || {
        gateway.served.process.said().contains(&format!("cannot read {path}")).then_some(())
    })
    .await;
    assert_eq!(gateway.status_from("https://a.example").await, 200);
}

#[tokio::test]
async fn a_key_that_needs_a_restart_is_named_each_time_and_waits() {
    let mut gateway = Reloaded::start("").await;
    let text =
        "[limits]\nmessage = 3\nframe = '1KiB'\n[broker]\npassword = 'hunter2'\n[[namespaces]]\nname = 'a'\n";
    for _ in 0..2 {
        let said = gateway.with(text).await;
        for (line, key) in [(2, "limits.message"), (5, "broker.password"), (6, "namespaces")] {
            let warning = format!("{}:{line}: {key} is not what it was at the start", gateway.path);
            assert!(said.contains(&warning), "{warning}\n{said}");
        }
        // The environment stands above the file.
        assert!(!said.contains("limits.frame") && !said.contains("hunter2"), "{said}");
        assert!(said.contains("\"changed\":\"\""), "{said}");
    }
    gateway.served.publish("news", "\"more than 3 bytes\"").await;
}

#[tokio::test]
async fn a_terminal_that_is_closed_ends_it() {
    let (public, internal) = (free_port(), free_port());
    let line = format!(
        "exec {} --set public.listen=127.0.0.1:{public} --set internal.listen=127.0.0.1:{internal}",
        env!("CARGO_BIN_EXE_tidegate")
    );
    // What gives it a terminal, and takes that along when it dies.
    let mut command = Command::new("script");
    command.args(["-qec", &line, "/dev/null"]).stdin(Stdio::null());
    let process = Process::spawn(command);
    let serves = async || TcpStream::connect(("127.0.0.1", public)).await.is_ok();
    eventually("it serves", async || serves().await.then_some(())).await;
    process.signal("KILL");
    eventually("it has ended", async || (!serves().await).then_some(())).await;
}

#[tokio::test]
async fn a_listener_takes_the_files_that_are_named_now() {
    let tls = Setup::new();
    let first = tls.keys("public");
    let mut gateway = Reloaded::start(&first).await;
    let (one, other) = (tls.client(&[]), crate::support::tls::Authority::new());
    assert!(connect(gateway.served.public, &one).await.is_ok());
    let pair = other.certify("the second");
    let (cert, key) = (tls.folder.write("second.crt", &pair.cert), tls.folder.write("second.key", &pair.key));
    let second = format!("public.tls_cert_file = '{cert}'\npublic.tls_key_file = '{key}'\n");
    let said = gateway.with(&second).await;
    assert!(said.contains("\"changed\":\"public.tls_cert_file, public.tls_key_file\""), "{said}");
    let two = client(&other, None, &[], &[&tokio_rustls::rustls::version::TLS13]);
    assert!(connect(gateway.served.public, &two).await.is_ok());
    assert!(connect(gateway.served.public, &one).await.is_err());
    // Without TLS it would be another listener.
    let said = gateway.with("").await;
    assert!(said.contains("public.tls_cert_file is not what it was at the start"), "{said}");
    assert!(connect(gateway.served.public, &two).await.is_ok());
}

/// The entry of a key that publishes everywhere.
fn publisher(key: &str) -> String {
    entry(key, &["*"], &["publish"], "")
}

#[tokio::test]
async fn the_keys_of_backends_change_at_once() {
    let mut gateway = Reloaded::start(&publisher("old")).await;
    let statuses = async |gateway: &Reloaded| {
        let mut statuses = Vec::new();
        for key in ["old", "new", "filed"] {
            statuses.push(gateway.status_with(key).await);
        }
        statuses
    };
    assert_eq!(statuses(&gateway).await, [202, 401, 401]);
    // Rotation: both for a while, and then the new one alone.
    let said = gateway.with(&(publisher("old") + &publisher("new"))).await;
    assert!(said.contains("\"changed\":\"auth.keys\""), "{said}");
    assert_eq!(statuses(&gateway).await, [202, 202, 401]);
    gateway.with(&publisher("new")).await;
    assert_eq!(statuses(&gateway).await, [401, 202, 401]);
    // The same of a file, which keeps its name.
    let filed = |gateway: &Reloaded, text: &str| {
        format!("auth.keys_file = '{}'\n", gateway.folder.write("keys.toml", text))
    };
    let text = filed(&gateway, &publisher("old"));
    gateway.with(&text).await;
    assert_eq!(statuses(&gateway).await, [202, 401, 401]);
    filed(&gateway, &publisher("filed"));
    let said = gateway.with(&text).await;
    assert!(said.contains("\"changed\":\"auth.keys_file\""), "{said}");
    assert_eq!(statuses(&gateway).await, [401, 401, 202]);
    filed(&gateway, "");
    assert!(gateway.with(&text).await.contains("has no [[auth.keys]] in it"));
    assert_eq!(gateway.status_with("filed").await, 202);
    // Without any credentials it would be another gateway.
    let said = gateway.with("").await;
    assert!(said.contains("no credentials are configured any more"), "{said}");
    assert_eq!(gateway.status_with("filed").await, 401, "it stays shut");
}

#[tokio::test]
async fn keys_where_none_were_wait_for_a_restart() {
    let mut gateway = Reloaded::start("").await;
    let said = gateway.with(&publisher("new")).await;
    assert!(said.contains("auth.keys is not what it was at the start"), "{said}");
    assert_eq!(gateway.status_with("any").await, 202);
}

#[tokio::test]
async fn the_key_file_of_tokens_is_read_again_and_who_is_connected_stays() {
    let (old, new) = (Issuer::secret(), Issuer::p256());
    let tokens = [old.token("HS256", &claims()), new.token("ES256", &claims())].map(|token| bearer(&token));
    let folder = Folder::new();
    let text = format!("auth.jwt.key_file = '{}'\n", old.key_file(&folder)) + &publisher("backend");
    let mut gateway = Reloaded::start(&text).await;
    let statuses =
        async |gateway: &Reloaded| (gateway.status_of(&tokens[0]).await, gateway.status_of(&tokens[1]).await);
    assert_eq!(statuses(&gateway).await, (200, 401));
    let conn = Conn::open(gateway.served.public).await;
    let target = "/v1/subscribe?channel=news&format=raw";
    let (mut connected, _) = conn.upgrade(target, &[("Authorization", &tokens[0])]).await.expect("upgraded");
    new.key_file(&folder);
    gateway.with(&text).await;
    assert_eq!(statuses(&gateway).await, (401, 200));
    assert_eq!(gateway.status_with("backend").await, 202);
    assert_eq!(connected.data_frame().await.expect("a message").text(), "1");
    // A file that no token can be checked by changes nothing.
    folder.write("key", "short");
    assert!(gateway.with(&text).await.contains("auth.jwt.key_file: "));
    assert_eq!(statuses(&gateway).await, (401, 200));
}

//! Real `redis-server` processes on free ports, in directories of their own, that end with the test.
//!
//! What a test asks of them goes through the `redis` crate, never through the gateway's own client:
//! what one wrote is checked with the other. A server whose test process dies dies with it.

pub mod cluster;
pub mod sentinel;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{LazyLock, Mutex, mpsc};
use std::time::{Duration, Instant};

use ::redis::{AsyncConnectionConfig, FromRedisValue, RedisResult, Value};
use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::process::free_port;

pub use cluster::Cluster;
pub use sentinel::Replicated;

/// How long a server may take to start, a replica to follow, a cluster to agree.
pub const DEADLINE: Duration = Duration::from_secs(30);

/// A directory that goes with its owner.
#[derive(Debug)]
pub struct Directory(PathBuf);

impl Directory {
    pub fn new() -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        static SWEPT: LazyLock<()> = LazyLock::new(sweep);
        LazyLock::force(&SWEPT);
        let name = format!("tidegate-it-{}-{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed));
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir_all(&path).expect("a directory of our own");
        Self(path)
    }

    pub fn path(&self) -> &Path {
        &self.0
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// Removes what earlier runs left that were killed.
fn sweep() {
    for entry in std::fs::read_dir(std::env::temp_dir()).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let owner =
            name.to_str().and_then(|name| name.strip_prefix("tidegate-it-")?.split('-').next()?.parse().ok());
        if owner.is_some_and(|owner: u32| !Path::new(&format!("/proc/{owner}")).exists()) {
            let _ = std::fs::remove_dir_all(entry.path());
        }
    }
}

/// The same command, ended by the kernel when the thread that starts it ends.
pub fn bound_to_us(command: &Command) -> Command {
    static SETPRIV: LazyLock<bool> =
        LazyLock::new(|| Command::new("setpriv").arg("--version").stdout(Stdio::null()).status().is_ok());
    let mut bound = if *SETPRIV {
        let mut bound = Command::new("setpriv");
        bound.args(["--pdeathsig", "KILL", "--"]).arg(command.get_program());
        bound
    } else {
        Command::new(command.get_program())
    };
    bound.args(command.get_args());
    for (name, value) in command.get_envs() {
        match value {
            Some(value) => bound.env(name, value),
            None => bound.env_remove(name),
        };
    }
    bound.stdin(Stdio::null());
    bound
}

/// Starts a process from a thread that lives as long as this program: servers are shared by tests.
fn spawn(command: &Command) -> Child {
    type Order = (Command, mpsc::Sender<std::io::Result<Child>>);
    static KEEPER: LazyLock<mpsc::Sender<Order>> = LazyLock::new(|| {
        let (orders, queue) = mpsc::channel::<Order>();
        std::thread::spawn(move || {
            for (mut command, answer) in queue {
                let _ = answer.send(command.spawn());
            }
        });
        orders
    });
    let (answer, child) = mpsc::channel();
    KEEPER.send((bound_to_us(command), answer)).expect("the keeper lives");
    child.recv().expect("the keeper answers").expect("redis-server is installed (tests/run does)")
}

/// What a server is told beyond its port.
#[derive(Debug, Clone, Default)]
pub struct Settings {
    lines: Vec<String>,
    user: Option<(String, String)>,
    sentinel: bool,
}

impl Settings {
    /// One line of redis.conf.
    pub fn with(mut self, line: impl Into<String>) -> Self {
        self.lines.push(line.into());
        self
    }

    /// An append-only file, written before each answer: a restart has everything.
    pub fn aof(self) -> Self {
        self.with("appendonly yes").with("appendfsync always")
    }

    /// A password for everybody.
    pub fn password(mut self, password: &str) -> Self {
        self.user = Some(("default".into(), password.into()));
        self.with(format!("requirepass {password}"))
    }

    /// A user with these rules, `~* &* +@all`; tests go on as the default user.
    pub fn user(self, name: &str, password: &str, rules: &str) -> Self {
        self.with(format!("user {name} on >{password} {rules}"))
    }

    /// A Sentinel that watches this primary by itself.
    pub fn watching(mut self, service: &str, primary: SocketAddr, password: &str) -> Self {
        self.sentinel = true;
        self.with(format!("sentinel monitor {service} {} {} 1", primary.ip(), primary.port()))
            .with(format!("sentinel auth-pass {service} {password}"))
    }

    /// A Unix socket beside the port.
    pub fn socket(self) -> Self {
        self.with("unixsocket {dir}/s").with("unixsocketperm 700")
    }
}

/// One redis-server; killed when dropped.
pub struct Server {
    pub port: u16,
    directory: Directory,
    settings: Settings,
    child: Mutex<Option<Child>>,
}

impl Server {
    /// Starts one and waits until it answers.
    pub async fn start(settings: Settings) -> Self {
        let server = Self::prepare(free_port(), settings);
        server.run().await;
        server
    }

    /// One that keeps nothing on disk.
    pub async fn plain() -> Self {
        Self::start(Settings::default()).await
    }

    /// Writes its files; [`Server::run`] starts it.
    pub fn prepare(port: u16, settings: Settings) -> Self {
        let server = Self { port, directory: Directory::new(), settings, child: Mutex::new(None) };
        server.write_configuration();
        server
    }

    fn write_configuration(&self) {
        let dir = self.directory().display().to_string();
        let mut text = format!("port {}\nbind 127.0.0.1\ndir {dir}\nlogfile {dir}/log\n", self.port);
        if !self.settings.sentinel {
            text += "save \"\"\nrepl-diskless-sync-delay 0\nrepl-ping-replica-period 1\n";
        }
        for line in &self.settings.lines {
            text += &line.replace("{dir}", &dir);
            text.push('\n');
        }
        self.write_file("redis.conf", &text);
    }

    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub fn address(&self) -> SocketAddr {
        SocketAddr::from(([127, 0, 0, 1], self.port))
    }

    /// What it wrote into its log.
    pub fn log(&self) -> String {
        // A crash report has bytes of any kind.
        let log = std::fs::read(self.directory().join("log")).unwrap_or_default();
        String::from_utf8_lossy(&log).into_owned()
    }

    /// Its Unix socket.
    pub fn socket(&self) -> PathBuf {
        self.directory().join("s")
    }

    /// `redis://…` as a gateway's `broker.url` without credentials.
    pub fn url(&self) -> String {
        format!("redis://{}", self.address())
    }

    /// Starts the process and waits until it answers.
    pub async fn run(&self) {
        // Valkey's `valkey-server` takes the same words.
        let program = std::env::var("TEST_REDIS_SERVER").unwrap_or_else(|_| "redis-server".to_owned());
        let mut command = Command::new(program);
        command.arg(self.directory().join("redis.conf"));
        if self.settings.sentinel {
            command.arg("--sentinel");
        }
        let begun = Instant::now();
        command.stdout(Stdio::null()).stderr(Stdio::null());
        let child = spawn(&command);
        *self.child.lock().expect("no panic under the lock") = Some(child);
        while !self.answers().await {
            let ended = {
                let mut child = self.child.lock().expect("no panic under the lock");
                child.as_mut().expect("just started").try_wait().expect("may be waited for")
            };
            let late = begun.elapsed() > DEADLINE;
            assert!(ended.is_none() && !late, "redis-server did not start ({ended:?}):\n{}", self.log());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Whether it answers a PING, or at least asks who is there.
    pub async fn answers(&self) -> bool {
        let ask = async {
            let mut stream = TcpStream::connect(self.address()).await?;
            stream.write_all(b"PING\r\n").await?;
            let mut answer = [0; 64];
            let count = stream.read(&mut answer).await?;
            std::io::Result::Ok(
                answer[..count].starts_with(b"+PONG") || answer[..count].starts_with(b"-NOAUTH"),
            )
        };
        matches!(tokio::time::timeout(Duration::from_secs(1), ask).await, Ok(Ok(true)))
    }

    /// Ends it as a crash does, and waits until it is gone.
    pub fn kill9(&self) {
        let child = self.child.lock().expect("no panic under the lock").take();
        let mut child = child.expect("it runs");
        child.kill().expect("may be killed");
        child.wait().expect("may be waited for");
    }

    /// It stands still: its sockets stay open and say nothing.
    pub fn stop(&self) {
        self.signal(Signal::STOP);
    }

    /// It goes on.
    pub fn cont(&self) {
        self.signal(Signal::CONT);
    }

    fn signal(&self, signal: Signal) {
        let child = self.child.lock().expect("no panic under the lock");
        let id = child.as_ref().expect("it runs").id();
        let pid = Pid::from_raw(i32::try_from(id).expect("a process id")).expect("a process id");
        kill_process(pid, signal).expect("may be signalled");
    }

    /// Kills it and starts it with what is on its disk: everything with `aof`, else nothing.
    pub async fn restart(&self) {
        if self.is_running() {
            self.kill9();
        }
        self.run().await;
    }

    /// Kills it and starts it with nothing.
    pub async fn restart_empty(&self) {
        if self.is_running() {
            self.kill9();
        }
        let _ = std::fs::remove_dir_all(self.directory().join("appendonlydir"));
        let _ = std::fs::remove_file(self.directory().join("dump.rdb"));
        self.run().await;
    }

    pub fn is_running(&self) -> bool {
        self.child.lock().expect("no panic under the lock").is_some()
    }

    /// A connection of the `redis` crate, past every proxy.
    pub async fn connection(&self) -> RedisResult<::redis::aio::MultiplexedConnection> {
        let credentials = self
            .settings
            .user
            .as_ref()
            .map(|(user, password)| format!("{user}:{password}@"))
            .unwrap_or_default();
        let client = ::redis::Client::open(format!("redis://{credentials}{}", self.address()))?;
        let config = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(DEADLINE))
            .set_response_timeout(Some(DEADLINE));
        client.get_multiplexed_async_connection_with_config(&config).await
    }

    /// One command; its answer or its error.
    pub async fn try_command(&self, words: &[&str]) -> RedisResult<Value> {
        let mut command = ::redis::cmd(words[0]);
        for word in &words[1..] {
            command.arg(word);
        }
        command.query_async(&mut self.connection().await?).await
    }

    /// One command that must be answered without an error.
    pub async fn command(&self, words: &[&str]) -> Value {
        self.try_command(words)
            .await
            .unwrap_or_else(|error| panic!("{words:?} on {}: {error}\nits log:\n{}", self.port, self.log()))
    }

    /// The same, the answer as `T`.
    pub async fn ask<T: FromRedisValue>(&self, words: &[&str]) -> T {
        ::redis::from_redis_value(self.command(words).await)
            .unwrap_or_else(|error| panic!("{words:?}: {error}"))
    }

    /// Publishes bytes as any other program would; gives the number of receivers.
    pub async fn publish(&self, channel: &[u8], payload: &[u8]) -> u64 {
        let mut connection = self.connection().await.expect("connects");
        let mut command = ::redis::cmd("PUBLISH");
        command.arg(channel).arg(payload);
        command.query_async(&mut connection).await.expect("publishes")
    }

    /// The keys whose names match, found by SCAN.
    pub async fn keys(&self, pattern: &str) -> Vec<String> {
        let (mut cursor, mut keys) = ("0".to_owned(), Vec::new());
        loop {
            let (next, page): (String, Vec<String>) =
                self.ask(&["SCAN", &cursor, "MATCH", pattern, "COUNT", "1000"]).await;
            keys.extend(page);
            if next == "0" {
                keys.sort();
                keys.dedup();
                return keys;
            }
            cursor = next;
        }
    }

    /// One line of `INFO`.
    pub async fn info(&self, section: &str, field: &str) -> String {
        let text: String = self.ask(&["INFO", section]).await;
        let line = text.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        line.unwrap_or_else(|| panic!("no {field} in {text}")).to_owned()
    }

    /// Waits until it follows its primary and has all that was there.
    pub async fn until_following(&self) {
        until("the replica follows", async || {
            let text: String =
                ::redis::from_redis_value(self.try_command(&["INFO", "replication"]).await.ok()?).ok()?;
            text.contains("master_link_status:up").then_some(())
        })
        .await;
    }

    /// Waits until it sends everything to so many replicas, without delay.
    pub async fn until_followed(&self, count: usize) {
        until("the primary has its replicas", async || {
            let text: String =
                ::redis::from_redis_value(self.try_command(&["INFO", "replication"]).await.ok()?).ok()?;
            (text.matches("state=online").count() >= count).then_some(())
        })
        .await;
    }

    /// A file in its directory, before its first start.
    fn write_file(&self, name: &str, text: &str) {
        std::fs::write(self.directory().join(name), text).expect("writes the file");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Ok(child) = self.child.get_mut()
            && let Some(mut child) = child.take()
        {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// Asks again and again, as long as real servers may take.
pub async fn until<T, F: Future<Output = Option<T>>>(what: &str, mut check: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

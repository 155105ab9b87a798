//! Real redis-server processes for the tests of these modules.

use std::{
    net::TcpListener,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
    time::{Duration, Instant},
};

use super::{command::CommandLink, endpoint::Endpoint, server::Server};
use crate::config::Config;

pub(super) const LIMIT: Duration = Duration::from_secs(2);

/// As it was when this was built: cargo builds anew where it changes. `valkey-server` takes the same words.
pub(super) const SERVER: &str = match option_env!("TEST_REDIS_SERVER") {
    Some(program) => program,
    None => "redis-server",
};

/// A redis-server of its own, killed when it is dropped, with a directory that goes with it.
pub(super) struct Redis {
    pub(super) port: u16,
    pub(super) dir: PathBuf,
    options: Vec<String>,
    child: Child,
}

static NUMBER: AtomicU32 = AtomicU32::new(0);

/// Free now; with the port of a Cluster's bus, 10,000 above, still below the range that the kernel hands out.
pub(super) fn free_port() -> u16 {
    let first = 12_000 + std::process::id() as u16 % 5000;
    loop {
        let port = first + (NUMBER.fetch_add(1, Ordering::Relaxed) % 5_000) as u16;
        if TcpListener::bind(("127.0.0.1", port)).is_ok()
            && TcpListener::bind(("127.0.0.1", port + 10_000)).is_ok()
        {
            return port;
        }
    }
}

impl Redis {
    pub(super) fn start(options: &[&str]) -> Self {
        // Somebody else may have taken the port meanwhile.
        (0..5).find_map(|_| Self::try_start(options)).expect("redis-server does not start")
    }

    fn try_start(options: &[&str]) -> Option<Self> {
        let port = free_port();
        let dir = Self::dir(port);
        let mut all: Vec<String> = options.iter().map(ToString::to_string).collect();
        let (number, place) = (port.to_string(), dir.display().to_string());
        for (name, value) in
            [("--port", &*number), ("--dir", &place), ("--bind", "127.0.0.1"), ("--save", "")]
        {
            if !options.contains(&name) {
                all.extend([name.to_owned(), value.to_owned()]);
            }
        }
        let child = Self::spawn(&all, &dir);
        let mut redis = Self { port, dir, options: all, child };
        redis.wait().then_some(redis)
    }

    /// A Sentinel that watches the primary at `port`, to be agreed upon by two.
    pub(super) fn sentinel(service: &str, port: u16) -> Self {
        let own = free_port();
        let dir = Self::dir(own);
        let file = dir.join("sentinel.conf");
        let config = format!(
            "port {own}\nbind 127.0.0.1\nsentinel monitor {service} 127.0.0.1 {port} 2\n\
             sentinel down-after-milliseconds {service} 1000\nsentinel failover-timeout {service} 3000\n"
        );
        std::fs::write(&file, config).unwrap();
        let options = vec![file.display().to_string(), "--sentinel".to_owned()];
        let child = Self::spawn(&options, &dir);
        let mut redis = Self { port: own, dir, options, child };
        assert!(redis.wait());
        redis
    }

    fn dir(port: u16) -> PathBuf {
        let dir = std::env::temp_dir().join(format!("tidegate-redis-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&dir).unwrap();
        dir
    }

    fn spawn(options: &[String], dir: &Path) -> Child {
        let log = std::fs::File::create(dir.join("log")).unwrap();
        Command::new(SERVER).args(options).stdout(log).stderr(Stdio::null()).spawn().unwrap()
    }

    /// Until it answers anything, an error too; `false` where it ended instead.
    fn wait(&mut self) -> bool {
        let begin = Instant::now();
        loop {
            if self.child.try_wait().unwrap().is_some() {
                return false;
            }
            if !self.cli(&["PING"]).is_empty() {
                return self.child.try_wait().unwrap().is_none();
            }
            assert!(begin.elapsed() < Duration::from_secs(20), "redis-server does not answer");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    pub(super) fn restart(&mut self) {
        self.child = Self::spawn(&self.options, &self.dir);
        assert!(self.wait());
    }

    pub(super) fn cli(&self, args: &[&str]) -> String {
        cli(self.port, args)
    }

    pub(super) fn server(&self) -> Server {
        Server::tcp("127.0.0.1", self.port)
    }

    pub(super) fn url(&self) -> String {
        format!("redis://127.0.0.1:{}", self.port)
    }

    pub(super) fn signal(&self, signal: &str) {
        Command::new("kill").args([signal, &self.child.id().to_string()]).status().unwrap();
    }

    pub(super) fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Redis {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

pub(super) fn cli(port: u16, args: &[&str]) -> String {
    let output = Command::new("redis-cli").args(["-p", &port.to_string()]).args(args).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().to_owned()
}

pub(super) fn endpoint(url: &str, more: &str) -> Endpoint {
    let text = format!("[broker]\nurl = '{url}'\n{more}");
    Endpoint::new(&Config::from_toml(&text).unwrap().broker, 4 << 20).unwrap()
}

pub(super) async fn link(redis: &Redis) -> CommandLink {
    CommandLink::connect(&endpoint(&redis.url(), ""), &redis.server(), LIMIT).await.unwrap()
}

/// Three primaries without replicas that share the slots.
pub(super) fn cluster(options: &[&str]) -> Vec<Redis> {
    let mut all = vec!["--cluster-enabled", "yes", "--cluster-node-timeout", "1500"];
    all.extend(options);
    let nodes: Vec<Redis> = (0..3).map(|_| Redis::start(&all)).collect();
    for (index, node) in nodes.iter().enumerate() {
        let (from, to) = (index * 16_384 / 3, (index + 1) * 16_384 / 3 - 1);
        let range = [from.to_string(), to.to_string()];
        assert_eq!(node.cli(&["CLUSTER", "ADDSLOTSRANGE", &range[0], &range[1]]), "OK");
        node.cli(&["CLUSTER", "SET-CONFIG-EPOCH", &(index + 1).to_string()]);
        node.cli(&["CLUSTER", "MEET", "127.0.0.1", &nodes[0].port.to_string()]);
    }
    let begin = Instant::now();
    let whole = |node: &Redis| {
        let info = node.cli(&["CLUSTER", "INFO"]);
        info.contains("cluster_state:ok") && info.contains("cluster_known_nodes:3")
    };
    while !nodes.iter().all(whole) {
        assert!(begin.elapsed() < Duration::from_secs(30), "the Cluster does not come together");
        std::thread::sleep(Duration::from_millis(50));
    }
    nodes
}

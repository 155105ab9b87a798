//! The `tidegate` binary as a process, and a proxy whose connections can be cut.

use std::io::Read;
use std::net::{SocketAddr, TcpListener as Reservation};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{Conn, PATIENCE, eventually};

/// A command with nothing of the environment that could configure it.
pub fn tidegate() -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    for (name, _) in std::env::vars().filter(|(name, _)| name.starts_with("TIDEGATE_")) {
        command.env_remove(name);
    }
    command.stdin(Stdio::null());
    command
}

/// A port that is free now, never given twice, and not among those that the system gives to
/// outgoing connections: other tests open thousands of them.
pub fn free_port() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let first = u16::try_from(std::process::id() % 97).expect("small") * 100;
    loop {
        let port = 20_000 + (first + NEXT.fetch_add(1, Ordering::Relaxed)) % 12_000;
        if Reservation::bind(("127.0.0.1", port)).is_ok() {
            return port;
        }
    }
}

/// A process, ended with the test, and all that it said.
pub struct Process {
    child: Child,
    said: Arc<Mutex<String>>,
    /// Standard output alone.
    printed: Arc<Mutex<String>>,
}

impl Process {
    pub fn spawn(mut command: Command) -> Self {
        let mut child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().expect("starts");
        let (said, printed) = (Arc::default(), Arc::default());
        let (stdout, stderr) = (child.stdout.take().expect("piped"), child.stderr.take().expect("piped"));
        listen(stdout, vec![Arc::clone(&said), Arc::clone(&printed)]);
        listen(stderr, vec![Arc::clone(&said)]);
        Self { child, said, printed }
    }

    /// All output so far.
    pub fn said(&self) -> String {
        self.said.lock().expect("no panic under the lock").clone()
    }

    /// Standard output so far.
    pub fn printed(&self) -> String {
        self.printed.lock().expect("no panic under the lock").clone()
    }

    pub fn signal(&self, name: &str) {
        let status = Command::new("kill").args([format!("-{name}"), self.child.id().to_string()]).status();
        assert!(status.expect("kill runs").success());
    }

    /// The exit code, where it has ended; -1 by a signal.
    pub fn ended(&mut self) -> Option<i32> {
        let status = self.child.try_wait().expect("may be waited for");
        status.map(|status| status.code().unwrap_or(-1))
    }

    /// Waits for the end.
    pub async fn exit(&mut self, limit: Duration) -> ExitStatus {
        let deadline = Instant::now() + limit;
        loop {
            if let Some(status) = self.child.try_wait().expect("may be waited for") {
                return status;
            }
            assert!(Instant::now() < deadline, "still running after {limit:?}; it said:\n{}", self.said());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Waits for the end, then gives the exit code and all output.
    pub async fn outcome(mut self) -> (i32, String) {
        let status = self.exit(PATIENCE).await;
        // The pipes are read to their end shortly after.
        let said =
            eventually("the output ends", async || (Arc::strong_count(&self.said) == 1).then(|| self.said()))
                .await;
        (status.code().unwrap_or(-1), said)
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn listen(mut pipe: impl Read + Send + 'static, sinks: Vec<Arc<Mutex<String>>>) {
    std::thread::spawn(move || {
        let mut buffer = [0; 4096];
        while let Ok(count @ 1..) = pipe.read(&mut buffer) {
            let text = String::from_utf8_lossy(&buffer[..count]);
            for sink in &sinks {
                sink.lock().expect("no panic under the lock").push_str(&text);
            }
        }
    });
}

/// Runs a command to its end.
pub async fn run(command: Command) -> (i32, String) {
    Process::spawn(command).outcome().await
}

/// A started gateway process.
pub struct Served {
    pub process: Process,
    pub public: SocketAddr,
    pub internal: SocketAddr,
}

impl Served {
    /// Starts one on free ports with these keys in its environment, and waits until it is ready.
    pub async fn start(keys: &[(&str, &str)], arguments: &[&str]) -> Self {
        let (public, internal) = (free_port(), free_port());
        let mut command = tidegate();
        command.env("TIDEGATE_PUBLIC__LISTEN", format!("127.0.0.1:{public}"));
        command.env("TIDEGATE_INTERNAL__LISTEN", format!("127.0.0.1:{internal}"));
        command.envs(keys.iter().copied()).args(arguments);
        let mut process = Process::spawn(command);
        let (public, internal) =
            (SocketAddr::from(([127, 0, 0, 1], public)), SocketAddr::from(([127, 0, 0, 1], internal)));
        let deadline = Instant::now() + PATIENCE;
        while TcpStream::connect(public).await.is_err() || TcpStream::connect(internal).await.is_err() {
            let ended = process.child.try_wait().expect("may be waited for");
            assert!(ended.is_none() && Instant::now() < deadline, "it did not start:\n{}", process.said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Self { process, public, internal }
    }

    pub async fn publish(&self, channel: &str, body: &str) {
        let mut conn = Conn::open(self.internal).await;
        let headers = [("Content-Type", "application/json")];
        let target = format!("/v1/channels/{channel}/messages");
        conn.request("POST", &target, &headers, Some(body.as_bytes())).await.expect(202);
    }

    /// Waits until so many listen to a channel.
    pub async fn until_subscribers(&self, channel: &str, wanted: u64) {
        eventually(&format!("{wanted} subscribers of {channel}"), async || {
            let mut conn = Conn::open(self.internal).await;
            let info = conn.get(&format!("/v1/channels/{channel}"), &[]).await.json();
            (info["subscribers"] == wanted).then_some(())
        })
        .await;
    }
}

/// Passes connections on to a target until they are cut.
pub struct Proxy {
    pub address: SocketAddr,
    cut: watch::Sender<u64>,
}

impl Proxy {
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("an address");
        let (cut, watched) = watch::channel(0);
        tokio::spawn(async move {
            while let Ok((mut client, _)) = listener.accept().await {
                let mut watched = watched.clone();
                watched.mark_unchanged();
                tokio::spawn(async move {
                    let Ok(mut server) = TcpStream::connect(target).await else { return };
                    tokio::select! {
                        _ = tokio::io::copy_bidirectional(&mut client, &mut server) => {}
                        _ = watched.changed() => {}
                    }
                });
            }
        });
        Self { address, cut }
    }

    /// Ends every connection that passes now.
    pub fn cut(&self) {
        self.cut.send_modify(|cuts| *cuts += 1);
    }
}

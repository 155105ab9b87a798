//! A TCP proxy that does what networks do, at the test's word: slow, thin, half open, cut, cut in the
//! middle of something, refused. It may be pointed elsewhere, as an address that moves with a failover.
//!
//! Bytes that are held are not lost: who lets them pass again has a network that was away, as TCP sees it.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::{OwnedReadHalf, OwnedWriteHalf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::raw::find;

/// What happens to the bytes of a connection.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mode {
    Pass,
    /// Everything comes so much later, in each direction.
    Delay(Duration),
    /// So many bytes a second, in each direction.
    Throttle(u32),
    /// Connections are accepted and stay open, and nothing comes through.
    HalfOpen,
    /// New connections are reset; those that are there pass.
    Refuse,
}

/// Which connections of a Redis client: those that ever subscribed, or the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    Subscribers,
    Commands,
    All,
}

impl Class {
    fn holds(self, subscriber: bool) -> bool {
        match self {
            Self::All => true,
            Self::Subscribers => subscriber,
            Self::Commands => !subscriber,
        }
    }
}

#[derive(Debug, Clone, Copy)]
struct Modes {
    subscribers: Mode,
    commands: Mode,
    /// Connections of this class that are older than this number say nothing more.
    frozen: (u64, Class),
}

/// A reset to come, in the middle of what the server says.
#[derive(Debug, Clone)]
struct Trap {
    class: Class,
    needle: Vec<u8>,
    /// Passed on, counted from the needle's first byte.
    keep: usize,
    /// How often it still snaps.
    left: u32,
}

struct Shared {
    target: Mutex<SocketAddr>,
    modes: watch::Sender<Modes>,
    cuts: watch::Sender<(u64, Class)>,
    trap: Mutex<Option<Trap>>,
    accepted: AtomicU64,
    snapped: AtomicU64,
}

/// The proxy; gone when dropped, with its connections.
pub struct FaultProxy {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    accepting: tokio::task::JoinHandle<()>,
}

impl FaultProxy {
    /// Passes everything on to `target`.
    pub async fn to(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("an address");
        let modes = Modes { subscribers: Mode::Pass, commands: Mode::Pass, frozen: (0, Class::All) };
        let shared = Arc::new(Shared {
            target: Mutex::new(target),
            modes: watch::channel(modes).0,
            cuts: watch::channel((0, Class::All)).0,
            trap: Mutex::new(None),
            accepted: AtomicU64::new(0),
            snapped: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&shared)));
        Self { address, shared, accepting }
    }

    /// From now on, also for connections that are there.
    pub fn set(&self, class: Class, mode: Mode) {
        self.shared.modes.send_modify(|modes| {
            if class != Class::Commands {
                modes.subscribers = mode;
            }
            if class != Class::Subscribers {
                modes.commands = mode;
            }
        });
    }

    /// The connections that are there now never say anything again, as when a firewall forgot them; new
    /// ones pass.
    pub fn freeze(&self, class: Class) {
        let next = self.accepted();
        self.shared.modes.send_modify(|modes| modes.frozen = (next, class));
    }

    /// Resets every connection of this class.
    pub fn cut(&self, class: Class) {
        self.shared.cuts.send_modify(|cuts| *cuts = (cuts.0 + 1, class));
    }

    /// Resets the next connections of this class on which the server says `needle`, after `keep` of
    /// its bytes; `times` times.
    pub fn cut_within(&self, class: Class, needle: &[u8], keep: usize, times: u32) {
        *self.shared.trap.lock().expect("no panic under the lock") =
            Some(Trap { class, needle: needle.to_vec(), keep, left: times });
    }

    /// How many connections were cut in the middle of something.
    pub fn snapped(&self) -> u64 {
        self.shared.snapped.load(Ordering::Relaxed)
    }

    /// Where new connections go.
    pub fn retarget(&self, target: SocketAddr) {
        *self.shared.target.lock().expect("no panic under the lock") = target;
    }

    /// How many connections were accepted so far.
    pub fn accepted(&self) -> u64 {
        self.shared.accepted.load(Ordering::Relaxed)
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.accepting.abort();
        self.cut(Class::All);
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    while let Ok((client, _)) = listener.accept().await {
        let number = shared.accepted.fetch_add(1, Ordering::Relaxed);
        if shared.modes.borrow().commands == Mode::Refuse {
            reset(&client);
            continue;
        }
        let link = Link {
            number,
            subscriber: Arc::new(AtomicBool::new(false)),
            cuts: shared.cuts.subscribe(),
            shared: Arc::clone(&shared),
        };
        tokio::spawn(link.carry(client));
    }
}

/// An abortive close: what was not sent is thrown away, the other end sees a reset.
fn reset(stream: &TcpStream) {
    let _ = socket2::SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// A connection whose kernel holds little: what the proxy does not take waits at the server.
async fn connect(target: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = if target.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
    socket.set_recv_buffer_size(64 * 1024)?;
    socket.connect(target).await
}

/// One connection through the proxy.
struct Link {
    number: u64,
    shared: Arc<Shared>,
    subscriber: Arc<AtomicBool>,
    cuts: watch::Receiver<(u64, Class)>,
}

/// Why a direction ended.
#[derive(PartialEq)]
enum Ended {
    /// One side said so.
    Closed,
    /// The trap snapped.
    Cut,
}

impl Link {
    async fn carry(mut self, client: TcpStream) {
        self.until_open().await;
        let target = *self.shared.target.lock().expect("no panic under the lock");
        let Ok(server) = connect(target).await else { return reset(&client) };
        let _ = (client.set_nodelay(true), server.set_nodelay(true));
        let subscriber = Arc::clone(&self.subscriber);
        let mut cuts = self.cuts.clone();
        let (mut client_read, mut client_write) = client.into_split();
        let (mut server_read, mut server_write) = server.into_split();
        let cut = async {
            loop {
                if cuts.changed().await.is_err() {
                    return Ended::Cut;
                }
                let class = cuts.borrow_and_update().1;
                if class.holds(subscriber.load(Ordering::Relaxed)) {
                    return Ended::Cut;
                }
            }
        };
        let ended = tokio::select! {
            ended = self.pump(&mut client_read, &mut server_write, true) => ended,
            ended = self.pump(&mut server_read, &mut client_write, false) => ended,
            ended = cut => ended,
        };
        if ended == Ended::Cut {
            reset(client_read.as_ref());
            reset(server_read.as_ref());
            // Else a polite end would go before the reset.
            client_write.forget();
            server_write.forget();
        }
    }

    /// While the link is half open nobody is connected through, though everybody is accepted.
    async fn until_open(&mut self) {
        let mut modes = self.shared.modes.subscribe();
        let _ = modes.wait_for(|modes| modes.commands != Mode::HalfOpen).await;
    }

    fn mode(&self, modes: &watch::Receiver<Modes>) -> Mode {
        let modes = *modes.borrow();
        let (before, class) = modes.frozen;
        if self.number < before && class.holds(self.subscriber.load(Ordering::Relaxed)) {
            return Mode::HalfOpen;
        }
        if self.subscriber.load(Ordering::Relaxed) { modes.subscribers } else { modes.commands }
    }

    /// Reads on one side and writes on the other, late and thin as the mode says.
    async fn pump(&self, from: &mut OwnedReadHalf, to: &mut OwnedWriteHalf, from_client: bool) -> Ended {
        let (queue, mut waiting) = mpsc::channel::<(Instant, Vec<u8>)>(16);
        let reading = async {
            loop {
                let mut buffer = vec![0; 16 * 1024];
                let Ok(count @ 1..) = from.read(&mut buffer).await else { break };
                buffer.truncate(count);
                if from_client && subscribes(&buffer) {
                    self.subscriber.store(true, Ordering::Relaxed);
                }
                let due = match self.mode(&self.shared.modes.subscribe()) {
                    Mode::Delay(delay) => Instant::now() + delay,
                    _ => Instant::now(),
                };
                if queue.send((due, buffer)).await.is_err() {
                    break;
                }
            }
            drop(queue);
        };
        // What was read before the end is written before the end.
        let writing = async {
            while let Some((due, bytes)) = waiting.recv().await {
                tokio::time::sleep_until(due).await;
                let (bytes, ended) = if from_client { (bytes, false) } else { self.trapped(bytes) };
                if self.write(to, &bytes).await.is_err() {
                    return Ended::Closed;
                }
                if ended {
                    return Ended::Cut;
                }
            }
            Ended::Closed
        };
        tokio::pin!(writing);
        tokio::select! {
            ended = &mut writing => ended,
            () = reading => writing.await,
        }
    }

    async fn write(&self, to: &mut OwnedWriteHalf, bytes: &[u8]) -> std::io::Result<()> {
        let mut modes = self.shared.modes.subscribe();
        let mut rest = bytes;
        while !rest.is_empty() {
            match self.mode(&modes) {
                Mode::HalfOpen => {
                    let _ = modes.changed().await;
                }
                Mode::Throttle(rate) => {
                    let piece = rest.len().min(usize::try_from(rate / 20).unwrap_or(1).max(1));
                    to.write_all(&rest[..piece]).await?;
                    rest = &rest[piece..];
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
                Mode::Pass | Mode::Delay(_) | Mode::Refuse => {
                    to.write_all(rest).await?;
                    rest = &[];
                }
            }
        }
        Ok(())
    }

    /// What may still pass of what the server said, and whether the connection ends there.
    fn trapped(&self, mut bytes: Vec<u8>) -> (Vec<u8>, bool) {
        let mut trap = self.shared.trap.lock().expect("no panic under the lock");
        if let Some(armed) = trap.as_mut()
            && armed.left > 0
            && armed.class.holds(self.subscriber.load(Ordering::Relaxed))
            && let Some(place) = find(&bytes, &armed.needle)
        {
            armed.left -= 1;
            self.shared.snapped.fetch_add(1, Ordering::Relaxed);
            bytes.truncate(place + armed.keep);
            return (bytes, true);
        }
        (bytes, false)
    }
}

/// Whether a client's bytes hold a command that subscribes.
fn subscribes(bytes: &[u8]) -> bool {
    let upper = bytes.to_ascii_uppercase();
    find(&upper, b"\r\nSUBSCRIBE\r\n").is_some() || find(&upper, b"\r\nSSUBSCRIBE\r\n").is_some()
}

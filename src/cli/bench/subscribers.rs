//! The subscribers: connected some hundreds at a time, then each followed by a task of its own until the run is over.

use std::{net::Ipv4Addr, sync::Arc, time::Duration};

use tokio::{
    net::{TcpSocket, TcpStream},
    sync::{Semaphore, mpsc, watch},
    task::JoinSet,
    time::timeout,
};

use super::{
    echo,
    plan::Plan,
    poller::Poller,
    stamp::Ledger,
    stream::Stream,
    tally::{Subscription, Tally},
    way::Way,
};
use crate::transport_name::Transport;

/// Handshakes under way at once: enough to keep a server busy, fewer than its backlog holds.
const HANDSHAKES: usize = 256;
/// For one handshake.
const PATIENCE: Duration = Duration::from_secs(30);
/// Connections from one loopback address. The kernel has 28,000 ports for each and looks for a free one among half of
/// them first: near 14,000 every connect becomes a long search.
const PORTS: u32 = 10_000;

/// All connected subscribers. They end with this.
pub struct Subscribers {
    _tasks: JoinSet<()>,
    /// Starts an echo load, which lasts until the time given.
    pub echo_until: watch::Sender<u64>,
}

/// What every subscriber is made of, whatever its transport.
#[derive(Clone)]
pub struct Seat {
    /// The run.
    pub plan: Arc<Plan>,
    /// The account.
    pub tally: Arc<Tally>,
    /// The number of the connection.
    pub index: u32,
}

impl Subscribers {
    /// Connects all of them. The first that fails is the error: figures of half a field would mean nothing.
    /// `step` is called for each.
    pub async fn connect(plan: &Arc<Plan>, tally: &Arc<Tally>, step: impl Fn()) -> Result<Self, String> {
        let (echo_until, start) = watch::channel(0);
        let (opened, mut results) = mpsc::unbounded_channel();
        let mut tasks = JoinSet::new();
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
        for index in plan.seats.clone() {
            let seat = Seat { plan: plan.clone(), tally: tally.clone(), index };
            let (handshakes, opened, start) = (handshakes.clone(), opened.clone(), start.clone());
            tasks.spawn(async move {
                let permit = handshakes.acquire().await;
                let subscriber = timeout(PATIENCE, Subscriber::open(seat.clone())).await;
                drop(permit);
                match subscriber.unwrap_or_else(|_| Err("no answer for 30 s".to_owned())) {
                    Ok(subscriber) => {
                        // The other end only goes away with the whole run.
                        let _ = opened.send(Ok(()));
                        seat.tally.end(subscriber.follow(start).await);
                    }
                    Err(reason) => _ = opened.send(Err(format!("connection {}: {reason}", index + 1))),
                }
            });
        }
        for _ in plan.seats.clone() {
            results.recv().await.unwrap_or_else(|| Err("a connection was given up".to_owned()))?;
            step();
        }
        Ok(Self { _tasks: tasks, echo_until })
    }
}

impl Seat {
    /// A connection to the public listener.
    pub async fn connect(&self) -> Result<TcpStream, String> {
        let address = self.plan.public.address;
        let connect = async {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            if let Some(source) = self.source() {
                socket.bind((source, 0).into())?;
            }
            let stream = socket.connect(address).await?;
            stream.set_nodelay(true)?;
            Ok(stream)
        };
        connect.await.map_err(|error: std::io::Error| format!("{address}: {error}"))
    }

    /// What it listens to.
    pub fn subscription(&self) -> Subscription {
        Subscription { channel: self.plan.channel_of(self.index), ledger: Ledger::default() }
    }

    /// The kernel's choice, until one address has no ports left.
    fn source(&self) -> Option<Ipv4Addr> {
        let step = self.index / PORTS;
        let first = match self.plan.source {
            Some(first) => first,
            None if step > 0 && self.plan.public.address.ip().is_loopback() => Ipv4Addr::LOCALHOST,
            None => return None,
        };
        Some(Ipv4Addr::from_bits(first.to_bits() + step))
    }
}

/// One subscriber, by transport.
enum Subscriber {
    Stream(Stream),
    Poller(Poller),
    Echo(Seat, TcpStream),
}

impl Subscriber {
    async fn open(seat: Seat) -> Result<Self, String> {
        match seat.plan.way {
            Way::Gateway(Transport::WebSocket | Transport::Sse | Transport::Ndjson) => {
                Stream::open(seat).await.map(Self::Stream)
            }
            Way::Gateway(Transport::Poll) => Poller::open(seat).await.map(Self::Poller),
            Way::Echo => seat.connect().await.map(|socket| Self::Echo(seat, socket)),
        }
    }

    /// Receives until the connection ends; returns why it did.
    async fn follow(self, start: watch::Receiver<u64>) -> String {
        let ended = match self {
            Self::Stream(stream) => stream.follow().await,
            Self::Poller(poller) => poller.follow().await,
            Self::Echo(seat, socket) => echo::drive(seat, socket, start).await,
        };
        match ended {
            Ok(never) => match never {},
            Err(reason) => reason,
        }
    }
}

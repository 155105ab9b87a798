//! Publishers that number what they say, and remember what they were told.
//!
//! One for each channel: a number follows when the one before it is settled. Each try may go to
//! another gateway, with the number's own `Idempotency-Key`.

use std::collections::HashMap;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::verdict::{Entry, Ledger, Outcome};
use super::wire::{Head, Pipe, timed};

/// How long one try may take, longer than the gateway's own patience with Redis.
const ANSWER: Duration = Duration::from_secs(10);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(50);

/// What follows a try whose answer was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unsure {
    /// The same key again, until it is certain: where the broker's memory outlives the fault.
    Retry,
    /// The next number; this one may be seen, at most once.
    Leave,
}

/// What is published.
#[derive(Debug, Clone)]
pub struct Plan {
    pub channels: Vec<String>,
    /// Messages a second to each channel.
    pub rate: u32,
    /// Internal addresses.
    pub doors: Vec<SocketAddr>,
    pub unsure: Unsure,
    /// Whether each number has its own `Idempotency-Key`.
    pub keys: bool,
}

/// What a message carries beside its number: told by the number, so that damage shows.
pub fn pad(number: u64) -> String {
    "0123456789".chars().cycle().skip((number % 10) as usize).take((number * 7 % 60) as usize).collect()
}

/// Figures beside the ledger.
#[derive(Debug, Default, Clone)]
pub struct Figures {
    pub tries: u64,
    pub refused: u64,
    /// Answers that were lost, or said that they might be.
    pub lost: u64,
    /// The longest time in which a refusal (503) came.
    pub slowest_refusal: Duration,
    /// The longest time from a number's first try to its settling.
    pub longest_pause: Duration,
    /// Answers that should never come.
    pub faults: Vec<String>,
}

struct Shared {
    plan: Plan,
    ledger: Mutex<Ledger>,
    figures: Mutex<Figures>,
    stop: AtomicBool,
}

/// Running publishers; they stop when dropped.
pub struct Publisher {
    shared: Arc<Shared>,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

impl Publisher {
    pub fn start(plan: Plan) -> Self {
        let shared = Arc::new(Shared {
            ledger: Mutex::new(plan.channels.iter().map(|channel| (channel.clone(), Vec::new())).collect()),
            figures: Mutex::default(),
            stop: AtomicBool::new(false),
            plan,
        });
        let channels = shared.plan.channels.iter().enumerate();
        let tasks = channels
            .map(|(index, channel)| {
                let one = One {
                    shared: Arc::clone(&shared),
                    channel: channel.clone(),
                    door: index,
                    pipes: HashMap::new(),
                };
                tokio::spawn(one.run())
            })
            .collect();
        Self { shared, tasks }
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        self.shared.ledger.lock().expect("no panic under the lock")
    }

    pub fn figures(&self) -> Figures {
        self.shared.figures.lock().expect("no panic under the lock").clone()
    }

    /// The highest number of each channel that was accepted.
    pub fn accepted(&self) -> HashMap<String, u64> {
        let highest = |entries: &Vec<Entry>| {
            entries.iter().filter(|entry| entry.id().is_some()).map(|entry| entry.n).max().unwrap_or(0)
        };
        self.ledger().iter().map(|(channel, entries)| (channel.clone(), highest(entries))).collect()
    }

    /// Lets each channel end with a number that was accepted.
    pub async fn finish(&mut self, limit: Duration) {
        self.shared.stop.store(true, Ordering::Relaxed);
        for task in &mut self.tasks {
            let ended = tokio::time::timeout(limit, task).await;
            assert!(
                ended.is_ok(),
                "the last numbers are not accepted within {limit:?}: {:?}",
                self.shared.figures
            );
        }
    }
}

impl Drop for Publisher {
    fn drop(&mut self) {
        self.tasks.iter().for_each(tokio::task::JoinHandle::abort);
    }
}

/// What a try came to.
enum Try {
    Accepted(String),
    /// Surely not done.
    Refused,
    /// Perhaps done.
    Lost,
}

/// The publisher of one channel.
struct One {
    shared: Arc<Shared>,
    channel: String,
    door: usize,
    pipes: HashMap<SocketAddr, Pipe>,
}

impl One {
    async fn run(mut self) {
        let mut pace = tokio::time::interval(Duration::from_secs(1) / self.shared.plan.rate.max(1));
        pace.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        for n in 1.. {
            pace.tick().await;
            let last = self.shared.stop.load(Ordering::Relaxed);
            let outcome = self.settle(n).await;
            let certain = matches!(outcome, Outcome::Accepted(_));
            let mut ledger = self.shared.ledger.lock().expect("no panic under the lock");
            ledger.entry(self.channel.clone()).or_default().push(Entry { n, outcome });
            if last && certain {
                return;
            }
        }
    }

    async fn settle(&mut self, n: u64) -> Outcome {
        let begun = Instant::now();
        let outcome = loop {
            let address = self.shared.plan.doors[self.door % self.shared.plan.doors.len()];
            self.door += 1;
            match self.attempt(address, n).await {
                Try::Accepted(id) => break Outcome::Accepted(id),
                Try::Lost if self.shared.plan.unsure == Unsure::Leave => break Outcome::Uncertain,
                Try::Refused | Try::Lost => {}
            }
            tokio::time::sleep(PAUSE).await;
        };
        let mut figures = self.shared.figures.lock().expect("no panic under the lock");
        figures.longest_pause = figures.longest_pause.max(begun.elapsed());
        outcome
    }

    async fn attempt(&mut self, address: SocketAddr, n: u64) -> Try {
        let begun = Instant::now();
        let mut pipe = match self.pipes.remove(&address) {
            Some(pipe) => pipe,
            None => match Pipe::open(address).await {
                Ok(pipe) => pipe,
                Err(_) => return Try::Refused,
            },
        };
        let answer = timed(ANSWER, "a publish", self.exchange(&mut pipe, address, n)).await;
        let took = begun.elapsed();
        let shared = Arc::clone(&self.shared);
        let mut figures = shared.figures.lock().expect("no panic under the lock");
        figures.tries += 1;
        let (head, body) = match answer {
            Ok(answer) => answer,
            // A kept connection may have ended before we wrote; nobody can tell.
            Err(_) => {
                figures.lost += 1;
                return Try::Lost;
            }
        };
        if !head.closes() {
            self.pipes.insert(address, pipe);
        }
        match (head.status, body["id"].as_str(), body["code"].as_str()) {
            (202, Some(id), _) => Try::Accepted(id.to_owned()),
            (503, _, Some("broker_uncertain")) => {
                figures.lost += 1;
                Try::Lost
            }
            (503, _, Some(_)) => {
                figures.refused += 1;
                figures.slowest_refusal = figures.slowest_refusal.max(took);
                if head.header("retry-after").is_none() {
                    figures.faults.push(format!("a 503 without Retry-After: {body}"));
                }
                Try::Refused
            }
            (status, _, _) => {
                figures.faults.push(format!("{status} {body}"));
                Try::Lost
            }
        }
    }

    async fn exchange(&self, pipe: &mut Pipe, address: SocketAddr, n: u64) -> io::Result<(Head, Value)> {
        let (channel, body) = (&self.channel, format!("{{\"n\":{n},\"pad\":\"{}\"}}", pad(n)));
        let length = body.len();
        let key =
            if self.shared.plan.keys { format!("Idempotency-Key: {channel}.{n}\r\n") } else { String::new() };
        let request = format!(
            "POST /v1/channels/{channel}/messages HTTP/1.1\r\nHost: {address}\r\n{key}\
             Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
        );
        pipe.send(request.as_bytes()).await?;
        let head = pipe.head().await?;
        let body = pipe.body(&head).await?;
        Ok((head, serde_json::from_slice(&body).unwrap_or(Value::Null)))
    }
}

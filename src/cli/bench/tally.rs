//! The one account of a run: what is due, what has come, how late it was. Shared by all connections of the process.

use std::time::Duration;

use hdrhistogram::{CreationError, Histogram};
use parking_lot::{Mutex, MutexGuard};
use serde::{Deserialize, Serialize};
use tokio::{sync::Notify, time::timeout};

use super::stamp::{Clock, Ledger, Marker, Scanner, Stamp};

/// Without a single delivery for so long, what is still missing counts as lost.
const PATIENCE: Duration = Duration::from_secs(10);
/// What one read takes at most. One buffer serves all connections: thousands of their own would not fit the cache.
const SCRATCH: usize = 256 * 1024;

/// The account, behind one lock that nobody holds over an await.
pub struct Tally {
    /// The clock of all stamps.
    pub clock: Clock,
    books: Mutex<Books>,
    /// Rung when no more than `Books::bell` is outstanding.
    enough: Notify,
}

/// What the lock protects.
pub struct Books {
    /// The buffer to read into, empty while nobody reads.
    pub scratch: Vec<u8>,
    /// The counts.
    pub counts: Counts,
    /// Finds stamps.
    pub marker: Marker,
    bell: Option<u64>,
}

/// Figures of a run; read when it is over.
#[derive(Clone)]
pub struct Counts {
    /// Messages sent to the server.
    pub asked: u64,
    /// Deliveries that are owed for them.
    pub due: u64,
    /// Deliveries seen, each once.
    pub received: u64,
    /// Deliveries seen again.
    pub duplicates: u64,
    /// Deliveries on a connection that never asked for the channel.
    pub misrouted: u64,
    /// Publishes answered with an acceptance.
    pub accepted: u64,
    /// Publishes answered with anything else.
    pub refused: u64,
    /// Connections that ended before the run did.
    pub ended: u64,
    /// The first few reasons for failures, for a person to read.
    pub reasons: Vec<String>,
    /// Intended time of sending to delivery, in nanoseconds.
    pub delivery: Histogram<u64>,
    /// Intended time of sending to the publisher's answer, in nanoseconds.
    pub answer: Histogram<u64>,
    /// When the last delivery or answer came.
    pub last: u64,
}

/// One connection's view: its channel, and what it has seen.
pub struct Subscription {
    /// The number of the channel.
    pub channel: u32,
    /// What has come.
    pub ledger: Ledger,
}

/// What subscribers in another process have seen.
#[derive(Debug, Serialize, Deserialize)]
pub struct Seen {
    /// See [`Counts`], as all that follows.
    pub received: u64,
    duplicates: u64,
    misrouted: u64,
    ended: u64,
    reasons: Vec<String>,
    last: u64,
    /// Latencies with how often each occurred.
    delivery: Vec<(u64, u64)>,
}

impl Tally {
    /// Nothing due, nothing come.
    pub fn new() -> Result<Self, CreationError> {
        // Up to 100 s; three digits are finer than any two runs agree.
        let latency = Histogram::new_with_bounds(1, 100_000_000_000, 3)?;
        let counts = Counts {
            asked: 0,
            due: 0,
            received: 0,
            duplicates: 0,
            misrouted: 0,
            accepted: 0,
            refused: 0,
            ended: 0,
            reasons: Vec::new(),
            delivery: latency.clone(),
            answer: latency,
            last: 0,
        };
        let books = Books { scratch: vec![0; SCRATCH], counts, marker: Marker::new(), bell: None };
        Ok(Self { clock: Clock::start(), books: Mutex::new(books), enough: Notify::new() })
    }

    /// The books, for one read of one connection; `settle` afterwards.
    pub fn open(&self) -> MutexGuard<'_, Books> {
        self.books.lock()
    }

    /// Books the messages of a whole document.
    pub fn book(&self, document: &[u8], subscription: &mut Subscription) {
        let now = self.clock.now();
        let mut books = self.books.lock();
        let Books { counts, marker, .. } = &mut *books;
        Scanner::default().scan(marker, document, |stamp| counts.deliver(subscription, stamp, now));
        self.settle(&mut books);
    }

    /// The counts as they are now.
    pub fn counts(&self) -> Counts {
        self.books.lock().counts.clone()
    }

    /// A message goes out that so many subscribers are to receive.
    pub fn ask(&self, subscribers: u64) {
        let counts = &mut self.books.lock().counts;
        counts.asked += 1;
        counts.due += subscribers;
    }

    /// So many deliveries are owed that nobody publishes.
    pub fn owe(&self, deliveries: u64) {
        self.books.lock().counts.due += deliveries;
    }

    /// So many deliveries were seen in another process.
    pub fn receive(&self, deliveries: u64) {
        let mut books = self.books.lock();
        books.counts.received += deliveries;
        self.settle(&mut books);
    }

    /// All deliveries so far, once there are more than `received`. Something must be owed.
    pub async fn received_after(&self, received: u64) -> u64 {
        loop {
            {
                let mut books = self.books.lock();
                if books.counts.received > received {
                    return books.counts.received;
                }
                books.bell = Some(books.counts.outstanding().saturating_sub(1));
            }
            self.enough.notified().await;
        }
    }

    /// What was seen, for another process.
    pub fn seen(&self) -> Seen {
        let Counts { received, duplicates, misrouted, ended, reasons, last, delivery, .. } = self.counts();
        let delivery =
            delivery.iter_recorded().map(|v| (v.value_iterated_to(), v.count_at_value())).collect();
        Seen { received, duplicates, misrouted, ended, reasons, last, delivery }
    }

    /// Adds what another process saw, but for the deliveries, which were added as they came.
    pub fn add(&self, seen: Seen) {
        let counts = &mut self.books.lock().counts;
        counts.duplicates += seen.duplicates;
        counts.misrouted += seen.misrouted;
        counts.ended += seen.ended;
        counts.last = counts.last.max(seen.last);
        seen.reasons.into_iter().for_each(|reason| counts.note(reason));
        for (latency, times) in seen.delivery {
            counts.delivery.saturating_record_n(latency, times);
        }
    }

    /// A message was accepted.
    pub fn accept(&self, sent: u64) {
        let now = self.clock.now();
        let mut books = self.books.lock();
        let counts = &mut books.counts;
        counts.accepted += 1;
        counts.last = now;
        counts.answer.saturating_record(now.saturating_sub(sent));
        self.settle(&mut books);
    }

    /// A message was refused, so nobody is owed it.
    pub fn refuse(&self, subscribers: u64, reason: String) {
        let mut books = self.books.lock();
        books.counts.refused += 1;
        books.counts.due -= subscribers;
        books.counts.note(reason);
        self.settle(&mut books);
    }

    /// A connection is over before its time.
    pub fn end(&self, reason: String) {
        let counts = &mut self.books.lock().counts;
        counts.ended += 1;
        counts.note(reason);
    }

    /// Rings the bell if it is time.
    pub fn settle(&self, books: &mut Books) {
        if books.bell.is_some_and(|bell| books.counts.outstanding() <= bell) {
            books.bell = None;
            self.enough.notify_one();
        }
    }

    /// Waits until at most so many deliveries and answers are outstanding; `false` when nothing has come for too long.
    pub async fn wait(&self, outstanding: u64) -> bool {
        let mut before = None;
        loop {
            {
                let mut books = self.books.lock();
                if books.counts.outstanding() <= outstanding {
                    return true;
                }
                if before == Some(books.counts.outstanding()) {
                    return false;
                }
                before = Some(books.counts.outstanding());
                books.bell = Some(outstanding);
            }
            if timeout(PATIENCE, self.enough.notified()).await.is_ok() {
                before = None;
            }
        }
    }
}

impl Counts {
    /// Deliveries and answers still to come.
    pub fn outstanding(&self) -> u64 {
        self.lost() + self.asked.saturating_sub(self.accepted + self.refused)
    }

    /// Deliveries still to come, or lost when the run is over.
    pub fn lost(&self) -> u64 {
        self.due.saturating_sub(self.received)
    }

    /// Books one delivery.
    pub fn deliver(&mut self, subscription: &mut Subscription, stamp: Stamp, now: u64) {
        if stamp.channel != subscription.channel {
            self.misrouted += 1;
        } else if subscription.ledger.admit(stamp.sequence) {
            self.received += 1;
            self.last = now;
            self.delivery.saturating_record(now.saturating_sub(stamp.sent));
        } else {
            self.duplicates += 1;
        }
    }

    fn note(&mut self, reason: String) {
        if self.reasons.len() < 5 && !self.reasons.contains(&reason) {
            self.reasons.push(reason);
        }
    }
}

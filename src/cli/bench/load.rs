//! Publishes at the pace of the plan and waits until everybody has everything.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::mpsc::{UnboundedReceiver, unbounded_channel},
    task::yield_now,
    time::sleep,
};

use super::{
    plan::{Pace, Plan},
    progress::Progress,
    publisher::{Publish, Publisher},
    requests,
    stamp::Stamp,
    tally::Tally,
};

/// The timer's grain. The rest of a wait is spent asking the time: a fast open loop must not send by the millisecond.
const GRAIN: Duration = Duration::from_millis(2);
/// A closed loop runs at most so many times its messages in flight ahead of the slowest subscriber, so that a server
/// which answers before it delivers is measured by its work and not by the depth of its queues.
const BACKLOG: u64 = 4;

/// The state of one load.
pub struct Load {
    plan: Arc<Plan>,
    tally: Arc<Tally>,
    publishers: Vec<Publisher>,
    /// Numbers of publishers, once for each message that they may still send.
    free: UnboundedReceiver<usize>,
    /// The next sequence number of each channel.
    sequences: Vec<u32>,
    dice: fastrand::Rng,
}

impl Load {
    /// Connects the publishers.
    pub async fn prepare(plan: &Arc<Plan>, tally: &Arc<Tally>) -> Result<Self, String> {
        let (free_again, free) = unbounded_channel();
        let mut publishers = Vec::new();
        for number in 0..plan.publishers {
            publishers.push(Publisher::connect(plan, tally.clone(), number, free_again.clone()).await?);
        }
        if let Pace::Closed(in_flight) = plan.pace {
            for slot in 0..in_flight {
                // The receiver is right here.
                let _ = free_again.send(slot % plan.publishers);
            }
        }
        Ok(Self {
            plan: plan.clone(),
            tally: tally.clone(),
            publishers,
            free,
            sequences: vec![0; plan.channels as usize],
            // The same channels in the same order every time: runs are there to be compared.
            dice: fastrand::Rng::with_seed(1),
        })
    }

    /// Publishes until time or messages are over. Returns when it began; what is outstanding at the end is lost.
    pub async fn run(&mut self, progress: &Progress) -> u64 {
        let began = self.tally.clock.now();
        let end = began + self.plan.duration.as_nanos() as u64;
        for number in 0..self.plan.messages.unwrap_or(u64::MAX) {
            let Some((sent, publisher)) = self.turn(number, began).await else {
                break;
            };
            if sent >= end {
                break;
            }
            self.publish(sent, publisher);
            progress.set(number + 1, sent - began);
        }
        self.tally.wait(0).await;
        began
    }

    /// Waits for the next message's turn: its intended time and its publisher, or `None` where the server is stuck.
    async fn turn(&mut self, number: u64, began: u64) -> Option<(u64, usize)> {
        let next = number as usize % self.publishers.len();
        match self.plan.pace {
            Pace::Open(rate) => {
                let due = began + (number as f64 * 1e9 / rate) as u64;
                self.wait_until(due).await;
                Some((due, next))
            }
            Pace::Closed(in_flight) => {
                // Answers count as outstanding too: without subscribers they are all there is, and `free` bounds them.
                let ahead = BACKLOG * in_flight as u64 * self.plan.subscribers(0).max(1);
                let free = self.free.recv().await?;
                self.tally.wait(ahead).await.then(|| (self.tally.clock.now(), free))
            }
            Pace::OneAtATime => self.tally.wait(0).await.then(|| (self.tally.clock.now(), next)),
        }
    }

    async fn wait_until(&self, due: u64) {
        loop {
            let left = Duration::from_nanos(due.saturating_sub(self.tally.clock.now()));
            match left.checked_sub(GRAIN) {
                _ if left.is_zero() => return,
                Some(coarse) => sleep(coarse).await,
                None => yield_now().await,
            }
        }
    }

    fn publish(&mut self, sent: u64, publisher: usize) {
        let channel = self.dice.u32(..self.plan.channels);
        let sequence = &mut self.sequences[channel as usize];
        let stamp = Stamp { channel, sequence: *sequence, sent };
        *sequence += 1;
        let subscribers = self.plan.subscribers(channel);
        let request = requests::publish(&self.plan, channel, &stamp.payload(self.plan.size));
        self.tally.ask(subscribers);
        self.publishers[publisher].send(Publish { request, sent, subscribers });
    }
}

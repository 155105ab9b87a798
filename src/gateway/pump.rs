//! The pump: what the broker returned goes to the hub, in order. It takes all that waits and, where writing takes long,
//! what is about to come, so that the messages of a channel that came together leave together: one write for each
//! member, not one a message.

use std::time::{Duration, Instant};

use tokio::sync::mpsc;

use super::Gateway;
use crate::{
    broker::{BrokerEvent, Target},
    channel::{Channel, ChannelMap},
    gap::Gap,
    hub::{Batch, Topic},
    metrics::Source,
    telemetry::Reached,
    wire::Prepared,
};

/// Events taken in one pass.
const PASS: usize = 1024;

/// Payload bytes that leave in one batch. A healthy reader must be able to take one before the next comes:
/// it is a quarter of the default bound of an outbox.
const BATCH_BYTES: usize = 64 * 1024;

/// A pass may be waited for as long as this part of what one channel took in the last one: company saves writing to a
/// channel's subscribers once more. So a message to few waits for microseconds, one to thousands for less than its writes take.
const PATIENCE: u32 = 4;

/// And no longer than this, whatever the last pass took: some round trips to Redis.
const MOST_PATIENCE: Duration = Duration::from_millis(4);

/// What came of one channel in a pass, in order.
enum Piece {
    /// Messages, with the oldest offset that the history keeps after them.
    Messages { messages: Vec<Prepared>, floor: u64 },
    /// Here some are missing.
    Gap(Gap),
}

/// Runs until the broker is gone. To be spawned: as a task of its own it is scheduled fairly.
pub async fn run(gateway: Gateway, mut events: mpsc::Receiver<BrokerEvent>) {
    let mut pass = Vec::with_capacity(PASS);
    let mut patience = Duration::ZERO;
    while events.recv_many(&mut pass, PASS).await > 0 {
        gather(&mut events, &mut pass, patience, || gateway.is_publishing()).await;
        let begun = Instant::now();
        let groups = grouped(&mut pass, |target, before| gateway.end(&target, before));
        let channels = u32::try_from(groups.len().max(1)).unwrap_or(u32::MAX);
        for (channel, pieces) in groups {
            let topic = gateway.hub().topic(&channel);
            for piece in pieces {
                match piece {
                    Piece::Messages { messages, floor } => {
                        gateway.metrics().received(Source::of(gateway.namespace(&channel)), messages.len());
                        if let Some(topic) = &topic {
                            broadcast(&gateway, topic, messages).await;
                            topic.trimmed_to(floor);
                        }
                    }
                    Piece::Gap(gap) => topic.iter().for_each(|topic| topic.tell(gap, gateway.metrics())),
                }
            }
        }
        patience = (begun.elapsed() / channels / PATIENCE).min(MOST_PATIENCE);
    }
}

/// Adds to a pass what is about to come, for as long as something is and `patience` lasts: the messages of publishers that
/// run next, who are answered first, and those that are on their way through the broker. They leave in the same writes;
/// without them they would wait until this pass is over.
async fn gather(
    events: &mut mpsc::Receiver<BrokerEvent>,
    pass: &mut Vec<BrokerEvent>,
    patience: Duration,
    is_publishing: impl Fn() -> bool,
) {
    let begun = Instant::now();
    loop {
        let before = pass.len();
        tokio::task::yield_now().await;
        while pass.len() < PASS
            && let Ok(event) = events.try_recv()
        {
            pass.push(event);
        }
        let is_more_to_come = pass.len() > before || is_publishing();
        if !is_more_to_come || pass.len() == PASS || begun.elapsed() >= patience {
            return;
        }
    }
}

/// By channel, in the order in which they came, and each in order; what concerns no channel's messages is done at once.
fn grouped(pass: &mut Vec<BrokerEvent>, end: impl Fn(Target, u64)) -> Vec<(Channel, Vec<Piece>)> {
    let mut groups: Vec<(Channel, Vec<Piece>)> = Vec::new();
    let mut places = ChannelMap::<usize>::default();
    let mut place = |groups: &mut Vec<(Channel, Vec<Piece>)>, channel: &Channel| {
        *places.entry(channel.clone()).or_insert_with(|| {
            groups.push((channel.clone(), Vec::new()));
            groups.len() - 1
        })
    };
    for event in pass.drain(..) {
        match event {
            BrokerEvent::Published { publication, floor: newest } => {
                let place = place(&mut groups, &publication.channel);
                let pieces = &mut groups[place].1;
                let message = Prepared::new(publication);
                match pieces.last_mut() {
                    Some(Piece::Messages { messages, floor }) => {
                        messages.push(message);
                        *floor = newest;
                    }
                    _ => pieces.push(Piece::Messages { messages: vec![message], floor: newest }),
                }
            }
            BrokerEvent::Gap { channel, gap } => {
                let place = place(&mut groups, &channel);
                groups[place].1.push(Piece::Gap(gap));
            }
            BrokerEvent::Disconnect { target, before } => end(target, before),
        }
    }
    groups
}

async fn broadcast(gateway: &Gateway, topic: &Topic, messages: Vec<Prepared>) {
    let metrics = gateway.metrics();
    let mut rest = messages.into_iter().peekable();
    while rest.peek().is_some() {
        let mut size = 0;
        let mut messages = Vec::with_capacity(rest.len());
        while let Some(message) = rest.next_if(|m| size == 0 || size + m.publication().size() <= BATCH_BYTES)
        {
            size += message.publication().size().max(1);
            messages.push(message);
        }
        let traces = messages.iter().filter_map(|m| m.publication().trace.as_deref().copied());
        let span = gateway.tracer().fan_out(topic.channel(), traces);
        let batch = Batch::new(messages);
        let subscribers = topic.broadcast(&batch, metrics);
        metrics.fanned_out(subscribers);
        if let Some(span) = span {
            let messages = batch.messages();
            let bytes = messages.iter().map(|m| m.publication().size()).sum();
            let oldest = messages.first().map_or(u64::MAX, |m| m.publication().time);
            let max_lag_ms = gateway.now().saturating_sub(oldest);
            span.end(Reached { subscribers, messages: messages.len(), bytes, max_lag_ms });
        }
        if rest.peek().is_some() {
            // Readers and connection tasks take this batch before the next comes.
            tokio::task::yield_now().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::{
        future::pending,
        sync::{
            Arc,
            atomic::{AtomicBool, Ordering::Relaxed},
        },
    };

    use tokio::{task::yield_now, time::timeout};

    use super::*;

    const LONG: Duration = Duration::from_secs(60);

    fn event() -> BrokerEvent {
        BrokerEvent::Disconnect { target: Target::Subject("a".into()), before: 0 }
    }

    /// How many events a pass gets that began with one, while `come` sends more of them.
    async fn gathered<F: Future<Output = ()> + Send + 'static>(
        patience: Duration,
        publishing: &AtomicBool,
        come: impl FnOnce(mpsc::Sender<BrokerEvent>) -> F,
    ) -> usize {
        let (sender, mut events) = mpsc::channel(PASS * 2);
        let mut pass = vec![event()];
        let coming = tokio::spawn(come(sender));
        let gather = gather(&mut events, &mut pass, patience, || publishing.load(Relaxed));
        timeout(Duration::from_secs(10), gather).await.expect("it ends by itself");
        coming.abort();
        pass.len()
    }

    async fn one_a_turn(sender: mpsc::Sender<BrokerEvent>, count: usize) {
        for _ in 0..count {
            sender.send(event()).await.expect("somebody listens");
            yield_now().await;
        }
        pending().await
    }

    #[tokio::test]
    async fn what_comes_one_after_another_leaves_together() {
        let nobody = AtomicBool::new(false);
        assert_eq!(gathered(LONG, &nobody, |sender| one_a_turn(sender, 5)).await, 6);
        assert_eq!(gathered(Duration::ZERO, &nobody, |sender| one_a_turn(sender, 5)).await, 2, "one turn");
        assert_eq!(gathered(LONG, &nobody, |sender| one_a_turn(sender, PASS * 2)).await, PASS);
    }

    #[tokio::test]
    async fn what_is_on_its_way_is_waited_for_as_long_as_patience_lasts() {
        let publishing = Arc::new(AtomicBool::new(true));
        let answered = Arc::clone(&publishing);
        let late = |sender: mpsc::Sender<BrokerEvent>| async move {
            tokio::time::sleep(Duration::from_millis(20)).await;
            sender.send(event()).await.expect("somebody listens");
            answered.store(false, Relaxed);
            pending().await
        };
        assert_eq!(gathered(LONG, &publishing, late).await, 2);
        publishing.store(true, Relaxed);
        let never = |sender: mpsc::Sender<BrokerEvent>| async move {
            sender.closed().await;
        };
        assert_eq!(gathered(Duration::from_millis(20), &publishing, never).await, 1);
    }
}

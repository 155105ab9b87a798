//! The pump: what the broker returned goes to the hub, in order. It takes all that waits, so that the
//! messages of a channel that came together leave together: one write for each member, not one a message.

use tokio::sync::mpsc;

use super::Gateway;
use crate::{
    broker::{BrokerEvent, Target},
    channel::ChannelMap,
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
    while events.recv_many(&mut pass, PASS).await > 0 {
        // Publishers that are about to run answer first and add to this pass.
        tokio::task::yield_now().await;
        while pass.len() < PASS
            && let Ok(event) = events.try_recv()
        {
            pass.push(event);
        }
        for (channel, pieces) in grouped(&mut pass, |target, before| gateway.end(&target, before)) {
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
    }
}

/// By channel, each in order; what concerns no channel's messages is done at once.
fn grouped(pass: &mut Vec<BrokerEvent>, end: impl Fn(Target, u64)) -> ChannelMap<Vec<Piece>> {
    let mut groups = ChannelMap::<Vec<Piece>>::default();
    for event in pass.drain(..) {
        match event {
            BrokerEvent::Published { publication, floor: newest } => {
                let pieces = groups.entry(publication.channel.clone()).or_default();
                let message = Prepared::new(publication);
                match pieces.last_mut() {
                    Some(Piece::Messages { messages, floor }) => {
                        messages.push(message);
                        *floor = newest;
                    }
                    _ => pieces.push(Piece::Messages { messages: vec![message], floor: newest }),
                }
            }
            BrokerEvent::Gap { channel, gap } => groups.entry(channel).or_default().push(Piece::Gap(gap)),
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

//! The pump: what the broker returned goes to the hub, in order. It takes all that waits, so that the
//! messages of a channel that came together leave together: one write for each member, not one a message.

use std::collections::HashMap;

use tokio::sync::mpsc;

use super::Gateway;
use crate::{broker::BrokerEvent, channel::Channel, hub::Batch, metrics::Source, wire::Prepared};

/// Events taken in one pass.
const PASS: usize = 1024;

/// Payload bytes that leave in one batch. A healthy reader must be able to take one before the next comes:
/// it is a quarter of the default bound of an outbox.
const BATCH_BYTES: usize = 64 * 1024;

/// The messages of one channel in a pass, with the oldest offset that its history keeps after them.
#[derive(Default)]
struct Group {
    messages: Vec<Prepared>,
    floor: u64,
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
        for (channel, group) in grouped(&mut pass) {
            broadcast(&gateway, &channel, group).await;
        }
    }
}

/// By channel, each in order.
fn grouped(pass: &mut Vec<BrokerEvent>) -> HashMap<Channel, Group> {
    let mut groups: HashMap<Channel, Group> = HashMap::new();
    for BrokerEvent::Published { publication, floor } in pass.drain(..) {
        let group = groups.entry(publication.channel.clone()).or_default();
        group.messages.push(Prepared::new(publication));
        group.floor = floor;
    }
    groups
}

async fn broadcast(gateway: &Gateway, channel: &Channel, group: Group) {
    let metrics = gateway.metrics();
    metrics.received(Source::Tidegate, group.messages.len());
    let Some(topic) = gateway.hub().topic(channel) else {
        return;
    };
    let mut rest = group.messages.into_iter().peekable();
    while rest.peek().is_some() {
        let mut size = 0;
        let mut messages = Vec::with_capacity(rest.len());
        while let Some(message) = rest.next_if(|m| size == 0 || size + m.publication().size() <= BATCH_BYTES)
        {
            size += message.publication().size().max(1);
            messages.push(message);
        }
        let reached = topic.broadcast(&Batch::new(messages), metrics);
        metrics.fanned_out(reached);
        if rest.peek().is_some() {
            // Readers and connection tasks take this batch before the next comes.
            tokio::task::yield_now().await;
        }
    }
    topic.trimmed_to(group.floor);
}

//! Long polling: a session that is asked for one batch.

use std::{sync::Arc, task::Poll, time::Duration};

use bytes::Bytes;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::{
    fault::Fault,
    gateway::ANSWER_BYTES,
    hub::Seam,
    publication::Publication,
    session::{CatchUp, Session},
    wire::{self, Encoding, Framing, Object, Prepared},
};

/// The answers that may be made for one connection while none of them has left.
pub type Turns = Arc<Semaphore>;

/// The poll document, and its turn, which is over when the client has it.
pub struct Answer {
    /// The document.
    pub document: Bytes,
    /// One of the [`Turns`], where the connection has them and there is something to deliver.
    pub turn: Option<OwnedSemaphorePermit>,
}

/// Answers with what the history holds after the cursor, or else waits for the first message, at most
/// `wait`. Before it makes the document it waits for a turn, if there are `turns`.
///
/// # Errors
/// The broker's.
pub async fn answer(
    session: &Session,
    mut channels: Vec<CatchUp>,
    wait: Duration,
    limit: usize,
    turns: Option<&Turns>,
) -> Result<Answer, Fault> {
    loop {
        if channels.iter().any(|c| c.page().start.gap.is_some() || !c.page().messages.is_empty()) {
            let turn = turn(turns).await;
            return Ok(Answer { document: from_history(session, &mut channels, limit), turn });
        }
        let outbox = session.outbox();
        for channel in &channels {
            outbox.set_position(channel.slot(), channel.page().start.after);
        }
        // All must go live, and each that cannot must be read anew; `any` would stop at the first.
        let overrun: Vec<bool> = channels.iter().map(|c| c.go_live() == Seam::ReadOn).collect();
        if !overrun.contains(&true) {
            break;
        }
        for (channel, _) in channels.iter_mut().zip(overrun).filter(|(_, overrun)| *overrun) {
            channel.read_again().await?;
        }
    }
    Ok(live(session, wait, limit, turns).await)
}

/// A document may have a mebibyte, and a client of HTTP/2 may ask for a hundred and read none.
async fn turn(turns: Option<&Turns>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(turns?).acquire_owned().await.ok()
}

async fn live(session: &Session, wait: Duration, limit: usize, turns: Option<&Turns>) -> Answer {
    let outbox = session.outbox();
    let first = std::future::poll_fn(|cx| {
        outbox.watch(cx);
        match outbox.is_empty() && outbox.ending().is_none() {
            true => Poll::Pending,
            false => Poll::Ready(()),
        }
    });
    let _ = tokio::time::timeout(wait, first).await;
    let turn = if outbox.is_empty() { None } else { turn(turns).await };
    let messages = outbox.take_messages(limit, ANSWER_BYTES, session.metrics());
    Answer { document: wire::document(&messages, &[], &outbox.cursor(), None), turn }
}

/// Shares the answer fairly: one message of each channel in turn, starting at a random one. (Started at the
/// first, a busy channel would starve those behind it.)
fn from_history(session: &Session, channels: &mut [CatchUp], limit: usize) -> Bytes {
    let (outbox, metrics) = (session.outbox(), session.metrics());
    let mut gaps = Vec::new();
    let mut queues: Vec<std::vec::IntoIter<Arc<Publication>>> = Vec::new();
    for channel in channels.iter_mut() {
        outbox.set_position(channel.slot(), channel.page().start.after);
        if let Some(gap) = channel.page().start.gap {
            metrics.gap(gap.reason);
            gaps.push(Object::Gap { channel: channel.channel(), gap }.to_json());
        }
        queues.push(channel.take_messages().into_iter());
    }
    let mut messages: Vec<Bytes> = Vec::new();
    let mut size = 0;
    let mut open: Vec<usize> = (0..channels.len()).collect();
    open.rotate_left(fastrand::usize(..channels.len()));
    while !open.is_empty() && messages.len() < limit && size < ANSWER_BYTES {
        open.retain(|&index| {
            if messages.len() == limit {
                return false;
            }
            let Some(publication) = queues[index].next() else {
                return false;
            };
            let (position, time) = (publication.position(), publication.time);
            let bytes = Prepared::new(publication).bytes(Encoding::Object, Framing::Plain);
            if !messages.is_empty() && size + bytes.len() > ANSWER_BYTES {
                // The next poll begins with it.
                return false;
            }
            size += bytes.len();
            outbox.set_position(channels[index].slot(), position);
            metrics.delivered(outbox.style().transport, 1, bytes.len(), time);
            messages.push(bytes);
            true
        });
    }
    wire::document(&messages, &gaps, &outbox.cursor(), None)
}

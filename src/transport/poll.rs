//! Long polling: a session that is asked for one batch. Most of its life it waits, and then it is small: on
//! HTTP/1 the socket is taken from the HTTP library for as long as that lasts.

use std::{
    future::poll_fn,
    io,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{Instant, Sleep, timeout_at},
};

use super::alarm;
use crate::{
    fault::Fault,
    gateway::ANSWER_BYTES,
    hub::Seam,
    publication::Publication,
    session::{CatchUp, Session},
    socket::Socket,
    wire::{self, Encoding, Framing, Object, Prepared},
};

/// The answers that may be made for one connection while none of them has left.
pub type Turns = Arc<Semaphore>;

/// The poll document, and its turn, which is over when the client has it.
#[derive(Debug)]
pub struct Answer {
    /// The document.
    pub document: Bytes,
    /// One of the [`Turns`], where the connection has them and there is something to deliver.
    pub turn: Option<OwnedSemaphorePermit>,
}

/// What a poll comes to.
#[derive(Debug)]
pub enum Outcome {
    /// There is something to say, or no wait for it.
    Answer(Answer),
    /// There is nothing so far.
    Waiting(Waiting),
}

/// A poll that waits for its first message.
#[derive(Debug)]
pub struct Waiting {
    session: Session,
    until: Instant,
    limit: usize,
}

/// Answers with what the history holds after the cursor, or else with what came meanwhile, or else waits.
/// Before it makes a document it waits for a turn, if there are `turns`.
///
/// # Errors
/// The broker's.
pub async fn ask(
    session: Session,
    mut channels: Vec<CatchUp>,
    wait: Duration,
    limit: usize,
    turns: Option<&Turns>,
) -> Result<Outcome, Fault> {
    loop {
        if channels.iter().any(CatchUp::answers) {
            let turn = turn(turns).await;
            let document = from_history(&session, &mut channels, limit);
            return Ok(Outcome::Answer(Answer { document, turn }));
        }
        for channel in &channels {
            channel.begin_waiting();
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
    // A client whose token ends meanwhile is to come back with another one.
    let wait = session.gateway().auth().holds_for(session.grant()).map_or(wait, |rest| rest.min(wait));
    let waiting = Waiting { session, until: Instant::now() + wait, limit };
    Ok(match wait.is_zero() || waiting.is_over() {
        true => Outcome::Answer(waiting.answer_now(turns).await),
        false => Outcome::Waiting(waiting),
    })
}

impl Waiting {
    /// Waits for the first message, and says what came. For where an HTTP library watches the client.
    pub async fn answer(&self, turns: Option<&Turns>) -> Answer {
        let _ = timeout_at(self.until, poll_fn(|cx| self.poll_over(cx))).await;
        self.answer_now(turns).await
    }

    async fn answer_now(&self, turns: Option<&Turns>) -> Answer {
        let has_messages = !self.session.outbox().is_empty();
        let turn = if has_messages { turn(turns).await } else { None };
        Answer { document: self.document(), turn }
    }

    /// The same on the plain socket. `None`: the client is gone. What it sends ahead of the answer is added
    /// to `ahead`.
    pub async fn answer_on(
        &self,
        socket: &Socket,
        ahead: &mut Vec<u8>,
        mut timer: Pin<&mut Sleep>,
    ) -> Option<Bytes> {
        let over = poll_fn(|cx| match self.poll_over(cx) {
            Poll::Ready(()) => Poll::Ready(true),
            Poll::Pending if poll_gone(cx, socket, ahead).is_ready() => Poll::Ready(false),
            Poll::Pending => alarm::poll_past(timer.as_mut(), self.until, cx).map(|()| true),
        });
        over.await.then(|| self.document())
    }

    fn poll_over(&self, cx: &Context<'_>) -> Poll<()> {
        self.session.outbox().watch(cx);
        match self.is_over() {
            true => Poll::Ready(()),
            false => Poll::Pending,
        }
    }

    fn is_over(&self) -> bool {
        let outbox = self.session.outbox();
        outbox.has_answer() || outbox.ending().is_some()
    }

    fn document(&self) -> Bytes {
        let outbox = self.session.outbox();
        let room = wire::room(ANSWER_BYTES, self.session.subscriptions().len());
        let (messages, gaps) = outbox.take_messages(self.limit, room, self.session.metrics());
        wire::document(&messages, &gaps, &outbox.cursor(), None)
    }
}

/// A document may have a mebibyte, and a client of HTTP/2 may ask for a hundred and read none.
async fn turn(turns: Option<&Turns>) -> Option<OwnedSemaphorePermit> {
    Arc::clone(turns?).acquire_owned().await.ok()
}

/// Ready when the client is gone. Once it has sent ahead, nothing more is read: what follows waits in the
/// kernel, and an end behind it is seen after the answer.
fn poll_gone(cx: &mut Context<'_>, socket: &Socket, ahead: &mut Vec<u8>) -> Poll<()> {
    while ahead.is_empty() {
        if ready!(socket.poll_read_ready(cx)).is_err() {
            return Poll::Ready(());
        }
        let mut scratch = [0; 4096];
        match socket.try_read(&mut scratch) {
            Ok(n) if n > 0 => ahead.extend_from_slice(&scratch[..n]),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => return Poll::Ready(()),
        }
    }
    Poll::Pending
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
    let room = wire::room(ANSWER_BYTES, channels.len());
    let mut messages: Vec<Bytes> = Vec::new();
    let mut size = gaps.iter().map(|gap: &Bytes| gap.len() + 1).sum::<usize>();
    let mut open: Vec<usize> = (0..channels.len()).collect();
    open.rotate_left(fastrand::usize(..channels.len()));
    while !open.is_empty() && messages.len() < limit && size < room {
        open.retain(|&index| {
            if messages.len() == limit {
                return false;
            }
            let Some(publication) = queues[index].next() else {
                return false;
            };
            let position = publication.position();
            let bytes = Prepared::new(publication).bytes(Encoding::Object, Framing::Plain);
            if !messages.is_empty() && size + bytes.len() >= room {
                // The next poll begins with it.
                return false;
            }
            size += bytes.len() + 1;
            outbox.set_position(channels[index].slot(), position);
            metrics.delivered(outbox.style().transport, 1, bytes.len(), None);
            messages.push(bytes);
            true
        });
    }
    wire::document(&messages, &gaps, &outbox.cursor(), None)
}

//! A streaming connection after its head: one small task that flushes the outbox, reads the client, keeps
//! time, and says goodbye. What differs between WebSocket, SSE and NDJSON is in their files; a poll is one
//! answer and has its own.

pub mod alarm;
pub mod ndjson;
pub mod poll;
mod pulse;
pub mod sse;
pub mod websocket;

use std::{
    future::{Future, poll_fn},
    io,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::Bytes;
use tokio::time::{Instant, Sleep, sleep_until};

use self::{pulse::Pulse, websocket::Dialogue};
use crate::{
    auth::token::Claims,
    disconnect::Disconnect,
    fault::Fault,
    gateway::Subscription,
    hub::Style,
    position::Position,
    session::{CatchUp, Session},
    socket::Socket,
    wire::{self, Object, Reference},
};

/// How long the last bytes may take to leave. As long as the kernel waits for a silent peer.
const LAST_WRITE: Duration = Duration::from_secs(10);

/// How long the peer may take to close after us.
const LINGER: Duration = Duration::from_secs(2);

/// How long a client may take to show its token, where neither its head nor a channel that is open to anyone has said
/// what it is here for.
const TOKEN_DUE: Duration = Duration::from_secs(5);

/// What a connection is busy with.
type Work = Pin<Box<dyn Future<Output = Result<Done, Disconnect>> + Send>>;

/// What came of the work.
enum Done {
    /// Nothing more is to do.
    Nothing,
    /// A subscription, which is kept.
    Subscribed(Subscription),
    /// A token was looked at, for the command with this `ref`.
    Verified(Result<Option<Claims>, Fault>, Option<Reference>),
}

/// A streaming connection.
pub struct Connection {
    session: Session,
    protocol: Protocol,
    pulse: Pulse,
    /// Commands are answered in order: while one is under way, no further input is read.
    work: Option<Work>,
}

/// What the client speaks.
pub enum Protocol {
    /// Two-way.
    WebSocket(Dialogue),
    /// One-way events.
    Sse,
    /// One-way lines.
    Ndjson,
}

impl Connection {
    /// A connection that begins by catching up on the channels of its URL.
    #[must_use]
    pub fn new(session: Session, protocol: Protocol, opening: Vec<CatchUp>) -> Self {
        let work: Option<Work> = (!opening.is_empty()).then(|| Box::pin(catch_up(opening)) as Work);
        let pulse = Pulse::new(&session.gateway().config().sessions);
        let mut connection = Self { session, protocol, pulse, work };
        connection.heed_credential();
        connection
    }

    /// A connection ends with its token; without one it soon needs something that it may do.
    fn heed_credential(&mut self) {
        let (session, auth) = (&self.session, self.session.gateway().auth());
        let is_due = session.subscriptions().is_empty() && auth.awaits_token(session.grant());
        let due = is_due.then_some((TOKEN_DUE, Disconnect::Unauthorized));
        let expires = auth.holds_for(session.grant()).map(|rest| (rest, Disconnect::TokenExpired));
        self.pulse.ends_in(expires.or(due));
    }

    /// The session.
    pub fn session_mut(&mut self) -> &mut Session {
        &mut self.session
    }

    /// Takes the socket, with what the client sent beyond its request.
    pub fn connect(&mut self, socket: Socket, read_ahead: &[u8]) {
        self.session.outbox().connect(socket);
        if let Protocol::WebSocket(dialogue) = &mut self.protocol {
            dialogue.stash(read_ahead);
        }
    }

    /// Serves until the end.
    pub async fn run(mut self) {
        let mut sleep = pin!(sleep_until(self.pulse.next()));
        let reason = poll_fn(|cx| self.poll_end(cx, sleep.as_mut())).await;
        // Boxed: a connection spends its life above, and the end must not make that larger.
        Box::pin(self.finish(reason)).await;
    }

    fn poll_end(&mut self, cx: &mut Context<'_>, mut sleep: Pin<&mut Sleep>) -> Poll<Disconnect> {
        self.session.outbox().watch(cx);
        loop {
            let flushed = self.poll_flush(cx);
            if let Poll::Ready(Err(_)) = flushed {
                return Poll::Ready(Disconnect::Client);
            }
            if let Some(reason) = self.session.outbox().ending() {
                return Poll::Ready(reason);
            }
            let mut progress = self.poll_work(cx);
            if progress.is_pending() {
                progress = self.poll_input(cx);
            }
            if let Poll::Ready(outcome) = progress {
                match outcome {
                    Ok(()) => continue,
                    Err(reason) => return Poll::Ready(reason),
                }
            }
            // What the work has queued since must find its way out.
            let outbox = self.session.outbox();
            let queued = flushed.is_ready() && outbox.socket().is_some() && !outbox.is_empty();
            if queued && self.poll_flush(cx).is_ready() {
                continue;
            }
            self.pulse.waiting(!self.session.outbox().is_empty());
            if sleep.deadline() != self.pulse.next() {
                sleep.as_mut().reset(self.pulse.next());
            }
            ready!(sleep.as_mut().poll(cx));
            if let Err(reason) = self.tick() {
                return Poll::Ready(reason);
            }
        }
    }

    fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.session.outbox().poll_flush(cx, self.session.metrics())
    }

    fn poll_work(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Disconnect>> {
        let Some(work) = &mut self.work else {
            return Poll::Pending;
        };
        let outcome = ready!(work.as_mut().poll(cx));
        self.work = None;
        match outcome? {
            Done::Nothing => {}
            Done::Subscribed(subscription) => {
                self.session.keep(subscription);
                self.heed_credential();
            }
            Done::Verified(verified, reference) => {
                if websocket::authenticate(&mut self.session, verified, reference.as_ref())? {
                    self.heed_credential();
                }
            }
        }
        Poll::Ready(Ok(()))
    }

    fn poll_input(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Disconnect>> {
        if let Protocol::WebSocket(dialogue) = &mut self.protocol {
            if self.work.is_some() || self.pulse.is_paused() {
                return Poll::Pending;
            }
            if let Some(stash) = dialogue.take_stash() {
                return Poll::Ready(self.input(&stash));
            }
        }
        loop {
            let Some(socket) = self.session.outbox().socket() else {
                return Poll::Pending;
            };
            if ready!(socket.poll_read_ready(cx)).is_err() {
                return Poll::Ready(Err(Disconnect::Client));
            }
            let mut scratch = [0; 4096];
            match socket.try_read(&mut scratch) {
                Ok(n) if n > 0 => {
                    self.pulse.heard();
                    return Poll::Ready(self.input(&scratch[..n]));
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
                Ok(_) | Err(_) => return Poll::Ready(Err(Disconnect::Client)),
            }
        }
    }

    /// What the client sent. A stream's client has nothing to say.
    fn input(&mut self, bytes: &[u8]) -> Result<(), Disconnect> {
        match &mut self.protocol {
            Protocol::WebSocket(dialogue) => {
                let work = dialogue.input(bytes, &mut self.session, &mut self.pulse)?;
                self.work = work;
                Ok(())
            }
            Protocol::Sse | Protocol::Ndjson => Ok(()),
        }
    }

    fn tick(&mut self) -> Result<(), Disconnect> {
        let now = Instant::now();
        let (session, outbox) = (&self.session, self.session.outbox());
        if self.pulse.stalled(now) {
            outbox.outlived(session.gateway().now(), session.metrics());
        }
        match self.pulse.beat(now) {
            Ok(true) => {}
            Ok(false) => return Ok(()),
            // What it is due is on its way.
            Err(reason @ Disconnect::Unauthorized) if self.work.is_some() => {
                self.pulse.ends_in(Some((TOKEN_DUE, reason)));
                return Ok(());
            }
            Err(reason) => return Err(reason),
        }
        match &self.protocol {
            Protocol::WebSocket(_) => {
                // Behind bytes that wait, a ping says nothing about the client: the kernel watches it.
                if outbox.is_empty() && self.work.is_none() {
                    self.pulse.pinged(now);
                }
                websocket::heartbeat(session);
            }
            Protocol::Sse if self.work.is_none() => {
                self.work = sse::renewal(session);
                if self.work.is_none() {
                    sse::heartbeat(session);
                }
            }
            Protocol::Sse => sse::heartbeat(session),
            Protocol::Ndjson => ndjson::heartbeat(session),
        }
        Ok(())
    }

    /// Says goodbye, waits until the last bytes are out, and closes without losing them.
    async fn finish(mut self, reason: Disconnect) {
        self.work = None;
        self.session.close(reason);
        let (outbox, metrics) = (self.session.outbox(), self.session.metrics());
        outbox.finish(reason, |position| self.farewell(reason, position), metrics);
        let out = poll_fn(|cx| {
            outbox.watch(cx);
            match outbox.socket() {
                Some(_) => outbox.poll_flush(cx, metrics),
                None if outbox.is_empty() || reason == Disconnect::Client => Poll::Ready(Ok(())),
                None => Poll::Pending,
            }
        });
        let written = tokio::time::timeout(LAST_WRITE, out).await;
        if let (Some(socket), Ok(Ok(()))) = (outbox.socket(), written)
            && socket.half_close().is_ok()
        {
            socket.linger(LINGER).await;
        }
    }

    fn farewell(&self, reason: Disconnect, position: Option<Position>) -> Vec<Bytes> {
        match &self.protocol {
            Protocol::WebSocket(dialogue) => {
                dialogue.farewell(reason, position, self.session.outbox().style())
            }
            Protocol::Sse => sse::farewell(reason, self.session.outbox().style()),
            Protocol::Ndjson => ndjson::farewell(reason, self.session.outbox().style()),
        }
    }
}

async fn catch_up(opening: Vec<CatchUp>) -> Result<Done, Disconnect> {
    for channel in opening {
        channel.run().await?;
    }
    Ok(Done::Nothing)
}

/// The `goodbye` object, where the format has one.
fn goodbye(disconnect: Disconnect, after: Option<Duration>, style: Style) -> Option<Bytes> {
    let goodbye = Object::Goodbye { disconnect, reconnect_after_ms: after.map(|d| d.as_millis() as u64) };
    wire::control(&goodbye, style.encoding, style.framing, None)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn size<A, F: Future>(_: impl Fn(A) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn the_steady_task_of_a_stream_is_small() {
        // There is one for each client: 848 bytes when this was written. Its end and its work are boxed for its sake.
        let size = size(Connection::run);
        assert!(size <= 1024, "{size} bytes");
    }
}

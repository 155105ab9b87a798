//! One connection's outbox: what waits for the client, in order, and the only door through which bytes
//! reach its socket. Where nothing waits, a message goes straight into the socket; where something waits, it
//! queues, and all that waits leaves in one write. `queue` holds what waits, `write` lets it out.

mod queue;
mod write;

use std::{
    sync::{Arc, OnceLock},
    task::Context,
};

use bytes::{Buf, Bytes};
use parking_lot::Mutex;

use self::{
    queue::{Break, Mark, Meaning, State},
    write::write_all_now,
};
use crate::{
    channel::Channel,
    config::Namespace,
    disconnect::Disconnect,
    gap::{Gap, GapReason},
    hub::Batch,
    metrics::{Dropped, Metrics},
    position::{Advance, Position},
    socket::Socket,
    transport_name::Transport,
    wire::{self, Encoding, Framing, Object, Prepared},
};

/// How one connection wants its bytes.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    /// For the metrics.
    pub transport: Transport,
    /// How a message is written down.
    pub encoding: Encoding,
    /// Whether we write HTTP chunks ourselves.
    pub framing: Framing,
    /// An SSE stream of several channels: each message bears the cursor over all of them.
    pub many: bool,
}

/// See the module.
#[derive(Debug)]
pub struct Outbox {
    style: Style,
    /// Bytes that may wait; over it the client is slow.
    bound: usize,
    opened: u64,
    /// Empty until the connection is taken over, and for ever where an HTTP library writes.
    socket: OnceLock<Socket>,
    state: Mutex<State>,
}

/// A channel's seat in the outbox, by its index in its list of channels.
pub type Slot = usize;

/// Messages that one channel of the connection is given: those of `batch` after the first `skip`.
struct Offer<'a> {
    slot: Slot,
    batch: &'a Batch,
    skip: usize,
    floor: u64,
}

/// A message did not follow on what the connection has: it must be led there again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Hole;

/// Bytes below which a replay goes on.
fn room_below(bound: usize) -> usize {
    bound / 2
}

impl Outbox {
    /// An empty one.
    #[must_use]
    pub fn new(style: Style, bound: usize, opened: u64) -> Self {
        Self { style, bound, opened, socket: OnceLock::new(), state: Mutex::default() }
    }

    /// When the connection came, in ms since 1970 by the broker's clock.
    #[must_use]
    pub fn opened(&self) -> u64 {
        self.opened
    }

    /// How this connection wants its bytes.
    #[must_use]
    pub fn style(&self) -> Style {
        self.style
    }

    /// From now on bytes go to `socket`.
    pub fn connect(&self, socket: Socket) {
        let _ = self.socket.set(socket);
    }

    /// The socket, once there is one.
    #[must_use]
    pub fn socket(&self) -> Option<&Socket> {
        self.socket.get()
    }

    /// Gives a channel of `namespace` a seat.
    pub fn seat(&self, namespace: Arc<Namespace>) -> Slot {
        self.state.lock().seat(namespace)
    }

    /// Frees a channel's seat.
    pub fn unseat(&self, slot: Slot) {
        self.state.lock().unseat(slot);
    }

    /// Leads a channel to `position`, over a gap or at its start.
    pub fn set_position(&self, slot: Slot, position: Position) {
        self.state.lock().advance(slot, position);
    }

    /// Where a channel stands.
    #[must_use]
    pub fn position(&self, slot: Slot) -> Option<Position> {
        self.state.lock().position(slot)
    }

    /// The positions of all channels, in order, with commas: what the client can come back with.
    #[must_use]
    pub fn cursor(&self) -> String {
        self.state.lock().cursor()
    }

    /// Whether a channel has no message so far, as far as the client knows.
    #[must_use]
    pub fn is_unused(&self, slot: Slot) -> bool {
        matches!(self.position(slot), Some(Position::Empty(_)))
    }

    /// Says of a channel without a message that it was still empty at `second`, so that a long-idle client
    /// gets no false gap.
    pub fn still_empty(&self, slot: Slot, second: u64) {
        self.state.lock().still_empty(slot, second);
    }

    /// Hands over messages of one channel. `floor` is the oldest offset that the history keeps (0: it keeps
    /// nothing to come back for).
    ///
    /// # Errors
    /// [`Hole`]: nothing was taken.
    pub fn offer(&self, slot: Slot, batch: &Batch, floor: u64, metrics: &Metrics) -> Result<(), Hole> {
        let mut state = self.state.lock();
        if state.sealed || state.ending.is_some() {
            return Ok(());
        }
        let Some(position) = state.position(slot) else {
            return Ok(());
        };
        let known = |m: &&Prepared| position.advance(&m.publication().position()) == Advance::Duplicate;
        let skip = batch.messages().iter().take_while(known).count();
        let Some(first) = batch.messages().get(skip) else {
            return Ok(());
        };
        if position.advance(&first.publication().position()) != Advance::Next {
            return Err(Hole);
        }
        self.accept(&mut state, &Offer { slot, batch, skip, floor }, metrics);
        Ok(())
    }

    fn accept(&self, state: &mut State, offer: &Offer<'_>, metrics: &Metrics) {
        let Offer { slot, batch, skip, floor } = *offer;
        let transport = self.style.transport;
        let shared = skip == 0 && !self.style.many;
        let mut sent = 0;
        if shared && let Some(socket) = self.socket.get().filter(|_| state.queue.is_empty()) {
            let bytes = batch.joined(self.style.encoding, self.style.framing);
            match write_all_now(socket, bytes) {
                Ok(n) if n == bytes.len() => {
                    state.advance(slot, batch.last_position());
                    metrics.delivered(transport, batch.messages().len(), n, batch.published());
                    return state.left(socket.try_flush());
                }
                Ok(n) => sent = n,
                Err(_) => return state.end(Disconnect::Client),
            }
        }
        let over = state.waiting > self.bound;
        if over && transport == Transport::Poll {
            // The answer is on its way and its cursor says where to go on.
            return;
        }
        self.queue(state, offer, sent, metrics);
        state.settle(slot, over, floor, self.bound, metrics);
        if self.socket.get().is_some() && sent == 0 && !shared {
            let attempt = self.write_now(state, metrics);
            return state.left(attempt);
        }
        if !state.queue.is_empty() {
            state.wake();
        }
    }

    /// Queues each message on its own, less the `sent` bytes that are out.
    fn queue(&self, state: &mut State, offer: &Offer<'_>, mut sent: usize, metrics: &Metrics) {
        let Offer { slot, batch, .. } = *offer;
        for message in &batch.messages()[offer.skip..] {
            let publication = message.publication();
            let mark = Mark {
                slot,
                position: publication.position(),
                time: publication.time,
                live: batch.is_live(),
            };
            state.advance(slot, mark.position);
            let mut bytes = match self.style.encoding {
                Encoding::Sse { raw } if self.style.many => {
                    wire::sse::with_cursor(message, raw, &state.cursor(), self.style.framing)
                }
                encoding => message.bytes(encoding, self.style.framing),
            };
            if sent >= bytes.len() {
                sent -= bytes.len();
                metrics.delivered(self.style.transport, 1, bytes.len(), mark.published());
                continue;
            }
            if sent > 0 {
                state.torn = true;
                bytes.advance(sent);
                sent = 0;
            }
            state.push(bytes, Meaning::Message(mark));
        }
    }

    /// Hands over a control object, where this format has a way to say it. `with_cursor` gives an SSE event
    /// its `id:`.
    pub fn say(&self, object: &Object<'_>, with_cursor: bool, metrics: &Metrics) {
        let mut state = self.state.lock();
        let cursor = (with_cursor && self.style.transport == Transport::Sse).then(|| state.cursor());
        let Style { encoding, framing, .. } = self.style;
        if let Some(bytes) = wire::control(object, encoding, framing, cursor.as_deref()) {
            self.write_or_queue(&mut state, bytes, Meaning::Control, metrics);
        }
    }

    /// Says that messages of a channel are missing, unless the client stands behind them already, and leads
    /// the channel to the end of the gap. A format that cannot say it ends instead.
    pub fn tell(&self, slot: Slot, channel: &Channel, gap: Gap, metrics: &Metrics) {
        let mut state = self.state.lock();
        let Some(from) = state.position(slot).filter(|from| !from.is_at_or_after(&gap.to)) else {
            return;
        };
        metrics.gap(gap.reason);
        state.advance(slot, gap.to);
        let Style { encoding, framing, transport, .. } = self.style;
        let cursor = (transport == Transport::Sse).then(|| state.cursor());
        let object = Object::Gap { channel, gap: Gap { from, ..gap } };
        match wire::control(&object, encoding, framing, cursor.as_deref()) {
            Some(bytes) => {
                let answers = gap.reason != GapReason::Link;
                let meaning = Meaning::Gap(Break { slot, from, answers });
                self.write_or_queue(&mut state, bytes, meaning, metrics);
            }
            None => state.end(Disconnect::Gap),
        }
    }

    /// Hands over bytes that are no message: a ping, a comment.
    pub fn send(&self, bytes: Bytes, metrics: &Metrics) {
        self.write_or_queue(&mut self.state.lock(), bytes, Meaning::Control, metrics);
    }

    fn write_or_queue(&self, state: &mut State, bytes: Bytes, meaning: Meaning, metrics: &Metrics) {
        if state.sealed {
            return;
        }
        state.push(bytes, meaning);
        match self.socket.get() {
            Some(_) => {
                let attempt = self.write_now(state, metrics);
                state.left(attempt);
            }
            None => state.wake(),
        }
    }

    /// Orders the connection's task to end it. The first reason counts.
    pub fn end(&self, reason: Disconnect) {
        self.state.lock().end(reason);
    }

    /// Why the connection must end, if it must.
    #[must_use]
    pub fn ending(&self) -> Option<Disconnect> {
        self.state.lock().ending
    }

    /// Takes the last bytes; nothing follows them. A slow client's waiting messages are dropped first
    /// (it comes back for them), but for the one whose first bytes are out.
    pub fn finish(
        &self,
        reason: Disconnect,
        last: impl FnOnce(Option<Position>) -> Vec<Bytes>,
        metrics: &Metrics,
    ) {
        let mut state = self.state.lock();
        if state.sealed {
            return;
        }
        if reason == Disconnect::Slow {
            metrics.dropped(Dropped::Ended, state.drop_waiting());
        }
        for bytes in last(state.first_position()) {
            state.push(bytes, Meaning::Control);
        }
        state.sealed = true;
        if self.socket.get().is_some() {
            let _ = self.write_now(&mut state, metrics);
        }
        state.wake();
    }

    /// The connection is over: what still waits leaves no more, and is counted.
    pub fn abandon(&self, metrics: &Metrics) {
        let waited = self.state.lock().abandon();
        // The cursor of a poll's answer stands before what it did not take.
        if self.style.transport != Transport::Poll {
            metrics.dropped(Dropped::Ended, waited);
        }
    }

    /// A message that waits has outlived the history, so that the client could not come back for it.
    pub fn outlived(&self, now: u64, metrics: &Metrics) {
        let mut state = self.state.lock();
        if let Some(mark) = state.outlived(now) {
            state.settle(mark.slot, false, mark.position.offset() + 1, self.bound, metrics);
        }
    }

    /// Whether a replay may hand over more.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.state.lock().waiting <= room_below(self.bound)
    }

    /// Bytes that wait.
    #[must_use]
    pub fn waiting(&self) -> usize {
        self.state.lock().waiting
    }

    /// Whether anything waits.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.state.lock().queue.is_empty()
    }

    /// Who is woken when there is something to write, to take, or when the connection must end.
    pub fn watch(&self, cx: &Context<'_>) {
        let task = &mut self.state.lock().task;
        if !task.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            *task = Some(cx.waker().clone());
        }
    }
}

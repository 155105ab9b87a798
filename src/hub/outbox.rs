//! One connection's outbox: what waits for the client, in order, and the only door through which bytes
//! reach its socket. Where nothing waits, a message goes straight into the socket; where something waits, it
//! queues, and all that waits leaves in one write.

use std::{
    collections::VecDeque,
    io::{self, IoSlice},
    sync::{Arc, OnceLock},
    task::{Context, Poll, Waker},
};

use bytes::{Buf, Bytes};
use parking_lot::Mutex;

use crate::{
    config::{Namespace, Slow},
    disconnect::Disconnect,
    hub::Batch,
    metrics::Metrics,
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
    /// Empty until the connection is taken over, and for ever where an HTTP library writes.
    socket: OnceLock<Socket>,
    state: Mutex<State>,
}

/// A channel's seat in the outbox, by its index in its list of channels.
pub type Slot = usize;

#[derive(Debug, Default)]
struct State {
    queue: VecDeque<Entry>,
    /// Bytes in the queue.
    waiting: usize,
    /// Some bytes of the front entry are out: it must be finished or the client reads garbage.
    torn: bool,
    slots: Vec<Option<Seat>>,
    ending: Option<Disconnect>,
    /// Only what [`Outbox::finish`] hands in is still taken.
    sealed: bool,
    /// The connection's task.
    task: Option<Waker>,
    /// Who takes from the queue where an HTTP library writes.
    taker: Option<Waker>,
}

#[derive(Debug)]
struct Seat {
    /// All up to here was handed over.
    position: Position,
    namespace: Arc<Namespace>,
}

#[derive(Debug)]
struct Entry {
    bytes: Bytes,
    message: Option<Mark>,
}

/// Which message an entry is.
#[derive(Clone, Copy, Debug)]
struct Mark {
    slot: Slot,
    position: Position,
    time: u64,
}

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
    pub fn new(style: Style, bound: usize) -> Self {
        Self { style, bound, socket: OnceLock::new(), state: Mutex::default() }
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
        let mut state = self.state.lock();
        let seat = Some(Seat { position: Position::Empty(0), namespace });
        match state.slots.iter().position(Option::is_none) {
            Some(free) => {
                state.slots[free] = seat;
                free
            }
            None => {
                state.slots.reserve_exact(1);
                state.slots.push(seat);
                state.slots.len() - 1
            }
        }
    }

    /// Frees a channel's seat.
    pub fn unseat(&self, slot: Slot) {
        self.state.lock().slots[slot] = None;
    }

    /// Leads a channel to `position`, over a gap or at its start.
    pub fn set_position(&self, slot: Slot, position: Position) {
        if let Some(seat) = &mut self.state.lock().slots[slot] {
            seat.position = position;
        }
    }

    /// Where a channel stands.
    #[must_use]
    pub fn position(&self, slot: Slot) -> Option<Position> {
        let state = self.state.lock();
        state.slots.get(slot)?.as_ref().map(|seat| seat.position)
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
        if let Some(Some(Seat { position: Position::Empty(at), .. })) = self.state.lock().slots.get_mut(slot)
        {
            *at = second.max(*at);
        }
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
        let Some(Some(seat)) = state.slots.get_mut(slot) else {
            return Ok(());
        };
        let known = |m: &&Prepared| seat.position.advance(&m.publication().position()) == Advance::Duplicate;
        let skip = batch.messages().iter().take_while(known).count();
        let Some(first) = batch.messages().get(skip) else {
            return Ok(());
        };
        if seat.position.advance(&first.publication().position()) != Advance::Next {
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
                    metrics.delivered(transport, batch.messages().len(), n, batch.oldest_time());
                    return;
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
            let _ = self.write_now(state, metrics);
        }
        if !state.queue.is_empty() {
            state.wake();
        }
    }

    /// Queues each message on its own, less the `sent` bytes that are out.
    fn queue(&self, state: &mut State, offer: &Offer<'_>, mut sent: usize, metrics: &Metrics) {
        let slot = offer.slot;
        for message in &offer.batch.messages()[offer.skip..] {
            let publication = message.publication();
            let position = publication.position();
            state.advance(slot, position);
            let mut bytes = match self.style.encoding {
                Encoding::Sse { raw } if self.style.many => {
                    wire::sse::with_cursor(message, raw, &state.cursor(), self.style.framing)
                }
                encoding => message.bytes(encoding, self.style.framing),
            };
            if sent >= bytes.len() {
                sent -= bytes.len();
                metrics.delivered(self.style.transport, 1, bytes.len(), publication.time);
                continue;
            }
            if sent > 0 {
                state.torn = true;
                bytes.advance(sent);
                sent = 0;
            }
            state.push(bytes, Some(Mark { slot, position, time: publication.time }));
        }
    }

    /// Hands over a control object, where this format has a way to say it. `with_cursor` gives an SSE event
    /// its `id:`.
    pub fn say(&self, object: &Object<'_>, with_cursor: bool, metrics: &Metrics) {
        let mut state = self.state.lock();
        let cursor = (with_cursor && self.style.transport == Transport::Sse).then(|| state.cursor());
        let Style { encoding, framing, .. } = self.style;
        if let Some(bytes) = wire::control(object, encoding, framing, cursor.as_deref()) {
            self.write_or_queue(&mut state, bytes, metrics);
        }
    }

    /// Hands over bytes that are no message: a ping, a comment.
    pub fn send(&self, bytes: Bytes, metrics: &Metrics) {
        self.write_or_queue(&mut self.state.lock(), bytes, metrics);
    }

    fn write_or_queue(&self, state: &mut State, bytes: Bytes, metrics: &Metrics) {
        if state.sealed {
            return;
        }
        state.push(bytes, None);
        if self.socket.get().is_some() && self.write_now(state, metrics).is_err() {
            state.end(Disconnect::Client);
        }
        if !state.queue.is_empty() {
            state.wake();
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
            state.drop_waiting();
        }
        let position = state.slots.iter().flatten().next().map(|seat| seat.position);
        for bytes in last(position) {
            state.push(bytes, None);
        }
        state.sealed = true;
        if self.socket.get().is_some() {
            let _ = self.write_now(&mut state, metrics);
        }
        state.wake();
    }

    /// A message that waits has outlived the history, so that the client could not come back for it.
    pub fn outlived(&self, now: u64, metrics: &Metrics) {
        let mut state = self.state.lock();
        let old = state.queue.iter().find_map(|entry| {
            let mark = entry.message?;
            let seat = state.slots.get(mark.slot)?.as_ref()?;
            let history = &seat.namespace.history;
            let gone = mark.time + history.age.as_millis() as u64 <= now;
            (history.messages > 0 && gone).then_some(mark)
        });
        if let Some(mark) = old {
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

    /// Writes what waits; ready once nothing waits. For the task of a connection with a socket.
    pub fn poll_flush(&self, cx: &mut Context<'_>, metrics: &Metrics) -> Poll<io::Result<()>> {
        let Some(socket) = self.socket.get() else {
            return Poll::Ready(Ok(()));
        };
        loop {
            if self.write_now(&mut self.state.lock(), metrics)? {
                return Poll::Ready(Ok(()));
            }
            std::task::ready!(socket.poll_write_ready(cx))?;
        }
    }

    /// Writes what the kernel takes of what waits, in one call where it can. Whether that was all.
    fn write_now(&self, state: &mut State, metrics: &Metrics) -> io::Result<bool> {
        const PIECES: usize = 64;
        let Some(socket) = self.socket.get() else {
            return Ok(true);
        };
        while !state.queue.is_empty() {
            let mut pieces = [IoSlice::new(&[]); PIECES];
            let mut count = 0;
            for (piece, entry) in pieces.iter_mut().zip(&state.queue) {
                *piece = IoSlice::new(&entry.bytes);
                count += 1;
            }
            match socket.try_write_vectored(&pieces[..count]) {
                Ok(n) => state.written(n, self.style.transport, metrics),
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return Ok(false),
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(true)
    }

    /// Takes what waits, up to about 64 KiB. For an HTTP library's body; `None` after the last.
    pub fn poll_take(&self, cx: &Context<'_>, metrics: &Metrics) -> Poll<Option<Bytes>> {
        const PIECE: usize = 64 * 1024;
        let mut state = self.state.lock();
        if state.queue.is_empty() {
            if state.sealed {
                return Poll::Ready(None);
            }
            state.taker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        let mut count = 0;
        let mut size = 0;
        for entry in &state.queue {
            size += entry.bytes.len();
            count += 1;
            if size >= PIECE {
                break;
            }
        }
        let bytes = if count == 1 {
            state.queue[0].bytes.clone()
        } else {
            let mut joined = Vec::with_capacity(size);
            state.queue.iter().take(count).for_each(|e| joined.extend_from_slice(&e.bytes));
            joined.into()
        };
        state.written(size, self.style.transport, metrics);
        if let Some(task) = &state.task {
            task.wake_by_ref();
        }
        Poll::Ready(Some(bytes))
    }

    /// Takes up to `limit` messages and `most` bytes (at least one message), for one answer. The cursor
    /// then stands after the last one taken of each channel.
    pub fn take_messages(&self, limit: usize, most: usize, metrics: &Metrics) -> Vec<Bytes> {
        let mut state = self.state.lock();
        let mut taken = Vec::new();
        let mut size = 0;
        while let Some(entry) = state.queue.front() {
            size += entry.bytes.len();
            if taken.len() == limit || (size > most && !taken.is_empty()) {
                break;
            }
            let n = entry.bytes.len();
            taken.push(entry.bytes.clone());
            state.written(n, self.style.transport, metrics);
        }
        state.drop_waiting();
        state.sealed = true;
        taken
    }
}

/// Writes until the socket takes no more; the bytes that it took.
fn write_all_now(socket: &Socket, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match socket.try_write(&bytes[sent..]) {
            Ok(n) => sent += n,
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => return Err(e),
        }
    }
    Ok(sent)
}

impl State {
    fn cursor(&self) -> String {
        let mut cursor = String::new();
        for seat in self.slots.iter().flatten() {
            use std::fmt::Write as _;
            let comma = if cursor.is_empty() { "" } else { "," };
            let _ = write!(cursor, "{comma}{}", seat.position);
        }
        cursor
    }

    fn advance(&mut self, slot: Slot, position: Position) {
        if let Some(Some(seat)) = self.slots.get_mut(slot) {
            seat.position = position;
        }
    }

    fn push(&mut self, bytes: Bytes, message: Option<Mark>) {
        self.waiting += bytes.len();
        self.queue.push_back(Entry { bytes, message });
    }

    fn end(&mut self, reason: Disconnect) {
        self.ending.get_or_insert(reason);
        if let Some(task) = &self.task {
            task.wake_by_ref();
        }
    }

    fn wake(&self) {
        for waker in self.task.iter().chain(&self.taker) {
            waker.wake_by_ref();
        }
    }

    /// `n` bytes are out.
    fn written(&mut self, mut n: usize, transport: Transport, metrics: &Metrics) {
        self.waiting -= n;
        while let Some(front) = self.queue.front_mut() {
            if n < front.bytes.len() {
                front.bytes.advance(n);
                self.torn |= n > 0;
                return;
            }
            let size = front.bytes.len();
            n -= size;
            if let Some(mark) = front.message {
                metrics.delivered(transport, 1, size, mark.time);
            }
            self.torn = false;
            self.queue.pop_front();
            if n == 0 {
                break;
            }
        }
        if self.queue.is_empty() {
            // An idle connection holds no buffer.
            self.queue = VecDeque::new();
        }
    }

    /// Applies the slow-reader rules after `slot` was given more: `over`, that too much waited already, and
    /// `floor`, the oldest offset that the history keeps.
    fn settle(&mut self, slot: Slot, over: bool, floor: u64, bound: usize, metrics: &Metrics) {
        let first = self.queue.iter().filter_map(|e| e.message).find(|m| m.slot == slot);
        let lost = first.is_some_and(|m| m.position.offset() < floor);
        if !over && !lost {
            return;
        }
        self.conflate(|s| over || s == slot, metrics);
        let keeps_newest = |seat: &Seat| seat.namespace.slow == Slow::Latest;
        let spared = self.slots[slot].as_ref().is_some_and(keeps_newest);
        if (over && self.waiting > bound) || (lost && !spared) {
            metrics.slow_disconnected();
            self.end(Disconnect::Slow);
        }
    }

    /// Keeps only the newest waiting message of each channel whose namespace says so.
    fn conflate(&mut self, chosen: impl Fn(Slot) -> bool, metrics: &Metrics) {
        let conflated = |slot: Slot| {
            let seat = self.slots.get(slot).and_then(Option::as_ref);
            chosen(slot) && seat.is_some_and(|seat| seat.namespace.slow == Slow::Latest)
        };
        let mut newest = vec![false; self.slots.len()];
        let torn = self.torn;
        let mut kept = VecDeque::with_capacity(self.queue.len());
        let (mut dropped, mut freed) = (0, 0);
        while let Some(entry) = self.queue.pop_back() {
            let is_front = self.queue.is_empty();
            let superseded = entry
                .message
                .is_some_and(|mark| conflated(mark.slot) && std::mem::replace(&mut newest[mark.slot], true));
            if superseded && !(is_front && torn) {
                dropped += 1;
                freed += entry.bytes.len();
            } else {
                kept.push_front(entry);
            }
        }
        self.queue = kept;
        self.waiting -= freed;
        if dropped > 0 {
            metrics.conflated(dropped);
        }
    }

    /// Drops the messages that wait and leads the channels back to before them.
    fn drop_waiting(&mut self) {
        let keep = usize::from(self.torn);
        while self.queue.len() > keep {
            let Some(entry) = self.queue.pop_back() else { break };
            self.waiting -= entry.bytes.len();
            if let Some(mark) = entry.message
                && let Position::At(epoch, offset) = mark.position
            {
                self.advance(mark.slot, Position::At(epoch, offset - 1));
            }
        }
    }
}

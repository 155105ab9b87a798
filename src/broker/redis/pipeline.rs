//! The connection that publishes go through: ours, one life, on the same parts as the subscriber's.
//!
//! Not fred's: there each command has a write of its own (about 32 µs against 12, measured alone and not within a
//! gateway), and an answer waits behind the pages of history that others read. Here one task writes together what waits, and
//! hands the answers out in their order.

use std::{
    collections::VecDeque,
    fmt, io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::BytesMut;
use fred::types::Value;
use parking_lot::Mutex;
use redis_protocol::resp3::types::BytesFrame;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

use super::{
    error::CommandError,
    resp::{Connection, READ, Stream, decode, encode_values},
};

/// KiB of commands on their way; beyond, a command is refused at once. Fewer would not fill a fast link, more would only
/// be late.
pub(super) const ROOM: u32 = 64 << 10;

/// Written at once, about; a larger buffer is given back.
const TOGETHER: usize = 256 << 10;

/// Sends commands and gives each its answer. It ends with the connection, with `closed`, and when it is dropped.
pub(super) struct Pipeline {
    requests: mpsc::UnboundedSender<Request>,
    room: Arc<Semaphore>,
    /// A command that timed out while this stood still was sent to a server that is away.
    answers: Arc<AtomicU64>,
    closed: CancellationToken,
    limit: Duration,
}

struct Request {
    command: &'static str,
    args: Vec<Value>,
    asked: Asked,
}

/// Who waits for an answer.
struct Asked {
    answer: oneshot::Sender<Result<BytesFrame, CommandError>>,
    /// Given back with the answer, though nobody may wait for that any more.
    _room: OwnedSemaphorePermit,
}

impl Asked {
    fn tell(self, answer: Result<BytesFrame, CommandError>) {
        let _ = self.answer.send(answer);
    }
}

impl Pipeline {
    /// Begins on a connection that has said HELLO; an answer may take as long as `limit`. The end of the
    /// connection cancels `closed`.
    pub(super) fn begin(connection: Connection, limit: Duration, closed: CancellationToken) -> Self {
        let (requests, queue) = mpsc::unbounded_channel();
        let answers = Arc::new(AtomicU64::new(0));
        tokio::spawn(live(connection, queue, Arc::clone(&answers), closed.clone()));
        Self { requests, room: Arc::new(Semaphore::new(ROOM as usize)), answers, closed, limit }
    }

    /// Sends a command and waits for its answer, an error reply being one. Commands of one task are sent in the order
    /// of the calls.
    ///
    /// # Errors
    /// What became of the command.
    pub(super) async fn call(
        &self,
        command: &'static str,
        args: Vec<Value>,
    ) -> Result<BytesFrame, CommandError> {
        let room = Arc::clone(&self.room).try_acquire_many_owned(weight(&args));
        let (answer, answered) = oneshot::channel();
        let asked = Asked { answer, _room: room.map_err(|_| CommandError::Unavailable)? };
        let before = self.answers.load(Relaxed);
        let sent = self.requests.send(Request { command, args, asked });
        sent.map_err(|_| CommandError::Unavailable)?;
        match timeout(self.limit, answered).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(_)) => Err(CommandError::Uncertain),
            Err(_) => {
                if self.answers.load(Relaxed) == before {
                    self.closed.cancel();
                }
                Err(CommandError::Uncertain)
            }
        }
    }
}

impl fmt::Debug for Pipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pipeline")
    }
}

/// What a command takes of the room; one that is larger than all the room takes all of it.
pub(super) fn weight(args: &[Value]) -> u32 {
    let size: usize = args.iter().map(|arg| arg.as_bytes().map_or(0, <[u8]>::len)).sum();
    u32::try_from(1 + size / 1024).unwrap_or(ROOM).min(ROOM)
}

/// The life of the connection. What was not written when it ends was surely not executed.
async fn live(
    connection: Connection,
    mut queue: mpsc::UnboundedReceiver<Request>,
    answers: Arc<AtomicU64>,
    closed: CancellationToken,
) {
    let Connection { stream, input } = connection;
    let (read, write) = tokio::io::split(stream);
    let waiting = Mutex::new(VecDeque::new());
    let ended = tokio::select! {
        biased;
        () = closed.cancelled() => Ok(()),
        ended = hand_out(read, input, &waiting, &answers) => ended,
        ended = write_all(write, &mut queue, &waiting) => ended,
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "a link for publishes broke");
    }
    closed.cancel();
    for asked in waiting.into_inner() {
        asked.tell(Err(CommandError::Uncertain));
    }
    queue.close();
    while let Ok(request) = queue.try_recv() {
        request.asked.tell(Err(CommandError::Unavailable));
    }
}

/// Writes what waits, together; ends when nobody can send any more.
async fn write_all(
    mut stream: WriteHalf<Box<dyn Stream>>,
    queue: &mut mpsc::UnboundedReceiver<Request>,
    waiting: &Mutex<VecDeque<Asked>>,
) -> io::Result<()> {
    let mut output = BytesMut::new();
    while let Some(mut request) = queue.recv().await {
        // Those who are about to publish too go with it.
        tokio::task::yield_now().await;
        loop {
            encode_values(&mut output, request.command, &request.args);
            waiting.lock().push_back(request.asked);
            if output.len() >= TOGETHER {
                break;
            }
            match queue.try_recv() {
                Ok(next) => request = next,
                Err(_) => break,
            }
        }
        stream.write_all_buf(&mut output).await?;
        stream.flush().await?;
        if output.capacity() > TOGETHER {
            output = BytesMut::new();
        }
    }
    Ok(())
}

/// Gives each answer to who waits longest.
async fn hand_out(
    mut stream: ReadHalf<Box<dyn Stream>>,
    mut input: BytesMut,
    waiting: &Mutex<VecDeque<Asked>>,
    answers: &AtomicU64,
) -> io::Result<()> {
    loop {
        while let Some(frame) = decode(&mut input)? {
            if matches!(frame, BytesFrame::Push { .. }) {
                continue;
            }
            answers.fetch_add(1, Relaxed);
            let asked = waiting.lock().pop_front();
            asked.ok_or_else(|| io::Error::other("an answer that nobody asked for"))?.tell(Ok(frame));
        }
        input.reserve(READ);
        if stream.read_buf(&mut input).await? == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
    }
}

#[cfg(test)]
mod tests;

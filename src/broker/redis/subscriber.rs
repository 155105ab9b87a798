//! The connection that messages come through: ours, one life, on the codec of fred's own parser crate.
//!
//! Not fred's: it calls SUBSCRIBE done without the confirmation, drops a `sunsubscribe` that nobody asked for (a slot
//! that left), and loses the order of its answers where one SSUBSCRIBE has many names. Here every name is confirmed by
//! itself, errors come in their place, and the socket is read by the caller's own task: while it does not read, the
//! kernel's buffers fill and the server holds the rest.

use std::{fmt, io, sync::Arc, time::Duration};

use bytes::{Buf, Bytes, BytesMut};
use redis_protocol::resp3::types::BytesFrame;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt, ReadHalf, WriteHalf},
    sync::mpsc,
};
use tokio_util::sync::CancellationToken;

use super::{
    endpoint::{Endpoint, Role},
    error::{ConnectError, Problem},
    resp::{Connection, Hello, READ, Stream, bytes, decode, encode, error_text},
    server::Server,
};

/// What a frame needs beside its payload: the names, the lengths.
const FRAME_SLACK: usize = 4096;
/// Once a burst is over, a larger buffer is given back.
const KEEP: usize = 256 << 10;

/// What comes through a subscriber's connection. Channels are slices of the buffer that was read, to be looked up and
/// dropped; payloads are their own.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Push {
    /// A message.
    Message {
        /// The Redis channel.
        channel: Bytes,
        /// What was published.
        payload: Bytes,
        /// By SPUBLISH.
        sharded: bool,
    },
    /// A message over the largest payload that is read; it is skipped, not kept in memory.
    TooLarge {
        /// The Redis channel.
        channel: Bytes,
        /// The size of the payload.
        size: usize,
    },
    /// From here on the channel's messages come.
    Subscribed {
        /// The Redis channel.
        channel: Bytes,
        /// By SSUBSCRIBE.
        sharded: bool,
    },
    /// The channel's messages come no more: asked for, or because its slot left the server.
    Unsubscribed {
        /// The Redis channel.
        channel: Bytes,
        /// By SUNSUBSCRIBE, or as that would do.
        sharded: bool,
    },
    /// An error reply to one whole command: no name of it is subscribed, whichever it was. `MOVED slot host:port`, NOPERM.
    Refused(String),
    /// The answer to a PING.
    Pong,
}

/// Where a subscriber's connection begins.
pub struct Subscriber;

/// Sends commands to the connection; clones share it. When the last one is dropped, the connection ends.
#[derive(Clone)]
pub struct SubscriberHandle {
    commands: mpsc::UnboundedSender<Bytes>,
    closed: CancellationToken,
    server: Arc<Server>,
}

/// What comes through the connection. When it is dropped, the connection ends.
pub struct SubscriberStream {
    input: BytesMut,
    stream: ReadHalf<Box<dyn Stream>>,
    closed: CancellationToken,
    largest_payload: usize,
    /// Bytes of a message too large that are still to be thrown away.
    skip: usize,
    ended: bool,
}

impl Subscriber {
    /// Connects, logs in and looks whether this is the primary that is wanted, within `limit`.
    ///
    /// # Errors
    /// One sentence that names what is wrong, and where.
    pub async fn connect(
        endpoint: &Endpoint,
        server: &Server,
        limit: Duration,
    ) -> Result<(SubscriberHandle, SubscriberStream), ConnectError> {
        let (connection, hello) = Connection::open(endpoint, server, Role::Primary, limit).await?;
        primary(server, &hello)?;
        let Connection { stream, input } = connection;
        let (read, write) = tokio::io::split(stream);
        let (commands, queue) = mpsc::unbounded_channel();
        let closed = CancellationToken::new();
        tokio::spawn(write_all(write, queue, closed.clone()));
        let handle = SubscriberHandle { commands, closed: closed.clone(), server: Arc::new(server.clone()) };
        let largest_payload = endpoint.largest_payload();
        Ok((handle, SubscriberStream { input, stream: read, closed, largest_payload, skip: 0, ended: false }))
    }
}

fn primary(server: &Server, hello: &Hello) -> Result<(), ConnectError> {
    if hello.is_primary() { Ok(()) } else { Err(ConnectError::new(server, Problem::NotPrimary)) }
}

/// Writes what waits, together; ends with the connection.
async fn write_all(
    mut stream: WriteHalf<Box<dyn Stream>>,
    mut queue: mpsc::UnboundedReceiver<Bytes>,
    closed: CancellationToken,
) {
    let writing = async {
        let mut output = BytesMut::new();
        while let Some(command) = queue.recv().await {
            output.extend_from_slice(&command);
            while output.len() < KEEP
                && let Ok(command) = queue.try_recv()
            {
                output.extend_from_slice(&command);
            }
            stream.write_all_buf(&mut output).await?;
            stream.flush().await?;
        }
        io::Result::Ok(())
    };
    // A failed write is a failed connection, which the reader will find out by itself, but maybe late.
    tokio::select! {
        _ = writing => closed.cancel(),
        () = closed.cancelled() => {}
    }
}

impl SubscriberHandle {
    /// Subscribes to channels by SUBSCRIBE. Each is confirmed by [`Push::Subscribed`].
    pub fn subscribe(&self, channels: &[Bytes]) {
        self.send(b"SUBSCRIBE", channels);
    }

    /// Subscribes to channels of one slot by SSUBSCRIBE. Each is confirmed by [`Push::Subscribed`], or all are
    /// [`Push::Refused`].
    pub fn ssubscribe(&self, channels: &[Bytes]) {
        self.send(b"SSUBSCRIBE", channels);
    }

    /// Ends what [`SubscriberHandle::subscribe`] began.
    pub fn unsubscribe(&self, channels: &[Bytes]) {
        self.send(b"UNSUBSCRIBE", channels);
    }

    /// Ends what [`SubscriberHandle::ssubscribe`] began, for channels of one slot.
    pub fn sunsubscribe(&self, channels: &[Bytes]) {
        self.send(b"SUNSUBSCRIBE", channels);
    }

    /// Asks for [`Push::Pong`]: it comes after the confirmations of all that was sent before.
    pub fn ping(&self) {
        self.write(&[b"PING"]);
    }

    /// Where the connection leads.
    #[must_use]
    pub fn server(&self) -> &Server {
        &self.server
    }

    /// Whether the connection has ended.
    #[must_use]
    pub fn is_closed(&self) -> bool {
        self.closed.is_cancelled()
    }

    /// Waits for the end of the connection.
    pub async fn closed(&self) {
        self.closed.cancelled().await;
    }

    /// Ends the connection.
    pub fn close(&self) {
        self.closed.cancel();
    }

    /// A command without names means all of them to Redis, and nothing here.
    fn send(&self, command: &'static [u8], channels: &[Bytes]) {
        if !channels.is_empty() {
            let parts: Vec<&[u8]> =
                std::iter::once(command).chain(channels.iter().map(Bytes::chunk)).collect();
            self.write(&parts);
        }
    }

    fn write(&self, parts: &[&[u8]]) {
        let mut output = BytesMut::new();
        encode(&mut output, parts);
        // Nobody takes it once the connection has ended.
        let _ = self.commands.send(output.freeze());
    }
}

impl fmt::Debug for SubscriberHandle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubscriberHandle({})", self.server)
    }
}

impl SubscriberStream {
    /// The next event; `None` after the end or after an error. May be dropped and called again.
    pub async fn next(&mut self) -> Option<io::Result<Push>> {
        loop {
            if let Some(event) = self.try_next() {
                return Some(event);
            }
            if self.ended || self.closed.is_cancelled() {
                return None;
            }
            let read = tokio::select! {
                biased;
                () = self.closed.cancelled() => return None,
                read = self.stream.read_buf(&mut self.input) => read,
            };
            match read {
                Ok(0) => return Some(Err(self.end(io::ErrorKind::UnexpectedEof.into()))),
                Ok(_) => {}
                Err(error) => return Some(Err(self.end(error))),
            }
        }
    }

    /// The next event that was already read, without waiting.
    pub fn try_next(&mut self) -> Option<io::Result<Push>> {
        while !self.ended {
            let skipped = self.skip.min(self.input.len());
            self.input.advance(skipped);
            self.skip -= skipped;
            match decode(&mut self.input) {
                Ok(Some(frame)) => match push(frame) {
                    Some(push) => return Some(Ok(self.bounded(push))),
                    None => continue,
                },
                Ok(None) => return self.make_room().map(|event| event.map_err(|error| self.end(error))),
                Err(error) => return Some(Err(self.end(error))),
            }
        }
        None
    }

    /// A frame that came whole is reported by the same rule as one that was skipped.
    fn bounded(&self, push: Push) -> Push {
        match push {
            Push::Message { channel, payload, .. } if payload.len() > self.largest_payload => {
                Push::TooLarge { channel, size: payload.len() }
            }
            other => other,
        }
    }

    /// The frame is not whole yet: room for more of it, or, where it is too large, its end is skipped.
    fn make_room(&mut self) -> Option<io::Result<Push>> {
        if self.input.len() > self.largest_payload + FRAME_SLACK {
            let Some((channel, size, start)) = message_head(&self.input) else {
                return Some(Err(io::Error::new(io::ErrorKind::InvalidData, "a frame is too large")));
            };
            let whole = start + size + 2;
            let skipped = whole.min(self.input.len());
            self.input.advance(skipped);
            self.skip = whole - skipped;
            return Some(Ok(Push::TooLarge { channel, size }));
        }
        if self.input.is_empty() && self.input.capacity() > KEEP {
            self.input = BytesMut::new();
        }
        self.input.reserve(READ);
        None
    }

    fn end(&mut self, error: io::Error) -> io::Error {
        self.ended = true;
        self.closed.cancel();
        error
    }
}

impl Drop for SubscriberStream {
    fn drop(&mut self) {
        self.closed.cancel();
    }
}

impl fmt::Debug for SubscriberStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SubscriberStream")
    }
}

/// What a frame means; `None` for what is of no interest, such as the push of another feature.
fn push(frame: BytesFrame) -> Option<Push> {
    let parts = match frame {
        BytesFrame::Push { data, .. } => data,
        other => {
            return error_text(&other).map(Push::Refused).or_else(|| {
                let pong = bytes(&other).is_some_and(|text| **text == b"PONG"[..]);
                pong.then_some(Push::Pong)
            });
        }
    };
    let kind = bytes(parts.first()?)?;
    let channel = || bytes(parts.get(1)?).cloned();
    let (name, sharded) = match kind.strip_prefix(b"s") {
        // `subscribe` itself begins with an s.
        Some(rest) if **kind != b"subscribe"[..] => (rest, true),
        _ => (kind.chunk(), false),
    };
    match name {
        b"message" => {
            let payload = bytes(parts.get(2)?)?;
            // A slice would keep the whole buffer that it was read with for as long as the message is kept.
            Some(Push::Message { channel: channel()?, payload: Bytes::copy_from_slice(payload), sharded })
        }
        b"subscribe" => Some(Push::Subscribed { channel: channel()?, sharded }),
        b"unsubscribe" => Some(Push::Unsubscribed { channel: channel()?, sharded }),
        _ => None,
    }
}

/// The channel of a message that is not whole yet, the size of its payload and where that begins.
fn message_head(input: &[u8]) -> Option<(Bytes, usize, usize)> {
    let line = |at: usize, prefix: u8| {
        let rest = input.get(at..)?.strip_prefix(&[prefix])?;
        let end = rest.windows(2).take(32).position(|two| two == b"\r\n")?;
        let number: usize = std::str::from_utf8(rest.get(..end)?).ok()?.parse().ok()?;
        Some((number, at + 1 + end + 2))
    };
    let (parts, at) = line(0, b'>')?;
    let (kind_length, at) = line(at, b'$')?;
    let kind = input.get(at..at.checked_add(kind_length)?)?;
    if parts != 3 || !matches!(kind, b"message" | b"smessage") {
        return None;
    }
    let (channel_length, at) = line(at + kind_length + 2, b'$')?;
    let channel = input.get(at..at.checked_add(channel_length)?)?;
    let (size, start) = line(at + channel_length + 2, b'$')?;
    // No payload of Redis is larger than 512 MiB, unless somebody asked for it.
    (size < usize::MAX / 4).then(|| (Bytes::copy_from_slice(channel), size, start))
}

#[cfg(test)]
mod tests;

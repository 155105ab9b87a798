//! One subscriber on a stream: WebSocket, SSE or NDJSON, which differ in their framing alone.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::{
    io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf},
    net::TcpStream,
};

use super::{
    answers::{self, Body},
    framing::{self, Framing},
    requests,
    stamp::Scanner,
    subscribers::Seat,
    tally::{Books, Subscription},
    way::Way,
};
use crate::transport_name::Transport;

/// An accepted stream.
pub struct Stream {
    seat: Seat,
    socket: TcpStream,
    framing: Framing,
    scanner: Scanner,
    subscription: Subscription,
}

impl Stream {
    /// Connects and waits for the head of the answer, which says that the subscription stands; or, where a server
    /// wants to be told more on a WebSocket, for its first word on that.
    pub async fn open(seat: Seat) -> Result<Self, String> {
        let mut socket = seat.connect().await?;
        let subscription = seat.subscription();
        let (request, words) = requests::subscribe(&seat.plan, subscription.channel);
        let failed = |error: std::io::Error| error.to_string();
        socket.write_all(&request).await.map_err(failed)?;
        let mut bytes = Vec::with_capacity(1024);
        let head = loop {
            if let Some(head) = answers::head(&bytes)? {
                break head;
            }
            if socket.read_buf(&mut bytes).await.map_err(failed)? == 0 {
                return Err("closed without an answer".to_owned());
            }
        };
        let mut framing = match (seat.plan.way, head.status, head.body) {
            (Way::Gateway(Transport::WebSocket), 101, _) => Framing::websocket(),
            (Way::Gateway(Transport::Sse | Transport::Ndjson), 200, Body::Chunked) => Framing::chunked(),
            (Way::Gateway(Transport::Sse | Transport::Ndjson), 200, Body::Length(_)) => Framing::Plain,
            (_, status, _) => return Err(answers::unwanted(status, &bytes[head.length..])),
        };
        // Nothing is published before all are connected: only the server's own words can follow the head.
        let mut heard = false;
        let reply = framing.feed(&bytes[head.length..], |_| heard = true)?;
        socket.write_all(&reply).await.map_err(failed)?;
        let words: Vec<u8> = words.lines().flat_map(framing::text_frame).collect();
        socket.write_all(&words).await.map_err(failed)?;
        while !words.is_empty() && !heard {
            bytes.clear();
            if socket.read_buf(&mut bytes).await.map_err(failed)? == 0 {
                return Err("closed without an answer to the frames of --subscribe-request".to_owned());
            }
            let reply = framing.feed(&bytes, |_| heard = true)?;
            socket.write_all(&reply).await.map_err(failed)?;
        }
        Ok(Self { seat, socket, framing, scanner: Scanner::default(), subscription })
    }

    /// Receives until the stream ends; returns why it did.
    pub async fn follow(mut self) -> Result<Infallible, String> {
        loop {
            let reply = poll_fn(|context| self.poll_read(context)).await?;
            if !reply.is_empty() {
                self.socket.write_all(&reply).await.map_err(|error| error.to_string())?;
            }
        }
    }

    /// One read into the common buffer; returns what is to be written back.
    fn poll_read(&mut self, context: &mut Context<'_>) -> Poll<Result<Vec<u8>, String>> {
        let Self { seat, socket, framing, scanner, subscription } = self;
        let mut books = seat.tally.open();
        let Books { scratch, counts, marker, .. } = &mut *books;
        let mut buffer = ReadBuf::new(scratch);
        match ready!(Pin::new(socket).poll_read(context, &mut buffer)) {
            Err(error) => return Poll::Ready(Err(error.to_string())),
            Ok(()) if buffer.filled().is_empty() => {
                return Poll::Ready(Err("the server closed the connection".to_owned()));
            }
            Ok(()) => {}
        }
        let now = seat.tally.clock.now();
        let reply = framing.feed(buffer.filled(), |piece| {
            scanner.scan(marker, piece, |stamp| counts.deliver(subscription, stamp, now));
        });
        seat.tally.settle(&mut books);
        Poll::Ready(reply)
    }
}

//! One long-polling subscriber: it asks, waits, books what came, and asks again from the cursor that it was given.

use std::convert::Infallible;

use memchr::memmem;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::{answers, requests, subscribers::Seat, tally::Subscription};

const CURSOR: &[u8] = br#""cursor":""#;

/// A poller that knows where it stands.
pub struct Poller {
    seat: Seat,
    socket: TcpStream,
    /// The answer so far.
    answer: Vec<u8>,
    cursor: String,
    subscription: Subscription,
}

impl Poller {
    /// Connects and asks for the present cursor: from then on no message can be missed, held or not.
    pub async fn open(seat: Seat) -> Result<Self, String> {
        let socket = seat.connect().await?;
        let subscription = seat.subscription();
        let mut poller = Self { seat, socket, answer: Vec::new(), cursor: String::new(), subscription };
        poller.poll().await?;
        Ok(poller)
    }

    /// Polls until a poll fails; returns why it did.
    pub async fn follow(mut self) -> Result<Infallible, String> {
        loop {
            self.poll().await?;
        }
    }

    async fn poll(&mut self) -> Result<(), String> {
        let request = requests::poll(&self.seat.plan, self.subscription.channel, &self.cursor);
        let body = exchange(&mut self.socket, &request, &mut self.answer).await?;
        let at = memmem::rfind(body, CURSOR).ok_or("an answer without a cursor")? + CURSOR.len();
        let cursor = body[at..].split(|&byte| byte == b'"').next().unwrap_or_default();
        self.cursor = String::from_utf8_lossy(cursor).into_owned();
        self.seat.tally.book(body, &mut self.subscription);
        Ok(())
    }
}

/// Sends a request and returns the body of its answer, which must be a 200.
pub async fn exchange<'a>(
    socket: &mut TcpStream,
    request: &[u8],
    answer: &'a mut Vec<u8>,
) -> Result<&'a [u8], String> {
    answer.clear();
    let failed = |error: std::io::Error| error.to_string();
    socket.write_all(request).await.map_err(failed)?;
    loop {
        if socket.read_buf(answer).await.map_err(failed)? == 0 {
            return Err("the server closed the connection".to_owned());
        }
        match answers::document(answer)? {
            Some((200, body)) => return Ok(&answer[body]),
            Some((status, body)) => return Err(answers::unwanted(status, &answer[body])),
            None => {}
        }
    }
}

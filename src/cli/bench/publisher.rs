//! One publishing connection: requests go out as they come, pipelined, and the answers are matched in order.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel},
};

use super::{answers, plan::Plan, tally::Tally};

/// A message on its way out.
pub struct Publish {
    /// The request.
    pub request: Vec<u8>,
    /// The intended time of sending.
    pub sent: u64,
    /// How many are to receive it.
    pub subscribers: u64,
}

/// The near end of a publishing connection, served by two tasks.
pub struct Publisher {
    outgoing: UnboundedSender<Publish>,
}

/// Time and subscribers of the requests that have no answer yet.
type Unanswered = Arc<Mutex<VecDeque<(u64, u64)>>>;

/// Called by its number when a publisher has got an answer.
pub type Free = UnboundedSender<usize>;

impl Publisher {
    /// Connects; from then on `free` is told of each answer.
    pub async fn connect(plan: &Plan, tally: Arc<Tally>, number: usize, free: Free) -> Result<Self, String> {
        let address = plan.internal.address;
        let failed = |error: std::io::Error| format!("publisher to {address}: {error}");
        let socket = TcpStream::connect(address).await.map_err(failed)?;
        socket.set_nodelay(true).map_err(failed)?;
        let (reader, writer) = socket.into_split();
        let (outgoing, requests) = unbounded_channel();
        let unanswered = Unanswered::default();
        let pending = unanswered.clone();
        // A failed write shows on the reading side as well, which tells of it.
        tokio::spawn(async move { write(writer, requests, &pending).await });
        tokio::spawn(async move {
            if let Err(reason) = read(reader, &unanswered, &tally, || free.send(number).is_ok()).await {
                tally.end(format!("publisher: {reason}"));
            }
        });
        Ok(Self { outgoing })
    }

    /// Sends without waiting.
    pub fn send(&self, publish: Publish) {
        // Fails only when the connection has ended, which is on record.
        let _ = self.outgoing.send(publish);
    }
}

async fn write(
    mut socket: OwnedWriteHalf,
    mut requests: UnboundedReceiver<Publish>,
    unanswered: &Unanswered,
) -> std::io::Result<()> {
    let mut bytes = Vec::new();
    while let Some(first) = requests.recv().await {
        let mut next = Some(first);
        while let Some(publish) = next {
            bytes.extend_from_slice(&publish.request);
            unanswered.lock().push_back((publish.sent, publish.subscribers));
            next = requests.try_recv().ok();
        }
        socket.write_all(&bytes).await?;
        bytes.clear();
    }
    Ok(())
}

/// Books answers until the run is over, which `free` tells by refusing.
async fn read(
    mut socket: OwnedReadHalf,
    unanswered: &Unanswered,
    tally: &Tally,
    free: impl Fn() -> bool,
) -> Result<(), String> {
    let mut bytes = Vec::with_capacity(4096);
    loop {
        if socket.read_buf(&mut bytes).await.map_err(|error| error.to_string())? == 0 {
            return Err("the server closed the connection".to_owned());
        }
        let mut start = 0;
        while let Some((status, body)) = answers::document(&bytes[start..])? {
            let Some((sent, subscribers)) = unanswered.lock().pop_front() else {
                return Err(answers::unwanted(status, &bytes[start..][body]));
            };
            if (200..300).contains(&status) {
                tally.accept(sent);
            } else {
                tally.refuse(subscribers, answers::unwanted(status, &bytes[start..][body.clone()]));
            }
            start += body.end;
            if !free() {
                return Ok(());
            }
        }
        bytes.drain(..start);
    }
}

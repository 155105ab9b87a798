//! The send loop: subscribers are sockets in a list, a publish is one `send(2)` for each of them.

use std::{cell::RefCell, collections::HashMap, io::Write, rc::Rc};

use anyhow::Context;
use tokio::{
    io::AsyncWriteExt,
    net::{TcpListener, TcpStream},
    task::LocalSet,
};
use tungstenite::handshake::derive_accept_key;

use crate::{
    frame::{self, Transport},
    head::{Request, Requests},
};

/// Everyone who listens, by channel.
type Hub = Rc<RefCell<HashMap<String, Channel>>>;

#[derive(Default)]
struct Channel {
    offset: u64,
    subscribers: HashMap<Transport, Vec<std::net::TcpStream>>,
}

/// Serves subscribers and publishers on one port until the process ends.
pub async fn serve(listener: TcpListener) -> anyhow::Result<()> {
    let hub = Hub::default();
    LocalSet::new()
        .run_until(async {
            loop {
                let (socket, _) = listener.accept().await?;
                socket.set_nodelay(true)?;
                // A client that went away is no concern of a yardstick.
                tokio::task::spawn_local(connection(socket, hub.clone()));
            }
        })
        .await
}

async fn connection(mut socket: TcpStream, hub: Hub) -> anyhow::Result<()> {
    let mut requests = Requests::new();
    while let Some(request) = requests.next(&mut socket).await? {
        if request.method == "POST" {
            let receipt = publish(&hub, &request)?;
            let head = format!(
                "HTTP/1.1 202 Accepted\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n{receipt}",
                receipt.len()
            );
            socket.write_all(head.as_bytes()).await?;
        } else {
            return subscribe(&hub, &request, socket).await;
        }
    }
    Ok(())
}

/// Answers with the stream's head and hands the socket to the list; nothing polls it from then on.
async fn subscribe(hub: &Hub, request: &Request, mut socket: TcpStream) -> anyhow::Result<()> {
    let (_, channel) = request.target.split_once("channel=").context("no channel")?;
    let channel = channel.split('&').next().unwrap_or(channel).to_owned();
    let (transport, head) = stream_head(request);
    socket.write_all(head.as_bytes()).await?;
    let socket = socket.into_std()?;
    // A full socket then holds the loop until the client has read, so that nothing needs a queue.
    socket.set_nonblocking(false)?;
    hub.borrow_mut().entry(channel).or_default().subscribers.entry(transport).or_default().push(socket);
    Ok(())
}

fn stream_head(request: &Request) -> (Transport, String) {
    if let Some(key) = &request.websocket_key {
        let accept = derive_accept_key(key.as_bytes());
        let head = format!(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {accept}\r\n\r\n"
        );
        return (Transport::WebSocket, head);
    }
    let (transport, kind) = if request.accept.contains("text/event-stream") {
        (Transport::Sse, "text/event-stream")
    } else {
        (Transport::Ndjson, "application/x-ndjson")
    };
    (transport, format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nTransfer-Encoding: chunked\r\n\r\n"))
}

/// The loop itself. Returns the receipt.
fn publish(hub: &Hub, request: &Request) -> anyhow::Result<String> {
    let name = request.target.strip_prefix("/v1/channels/").context("not a publish")?;
    let name = name.split('/').next().unwrap_or(name);
    let payload = std::str::from_utf8(&request.body)?;
    let mut hub = hub.borrow_mut();
    let channel = hub.entry(name.to_owned()).or_default();
    channel.offset += 1;
    for (transport, subscribers) in &mut channel.subscribers {
        let frame = frame::encode(*transport, name, channel.offset, payload);
        subscribers.retain_mut(|subscriber| subscriber.write_all(&frame).is_ok());
    }
    Ok(format!(r#"{{"channel":"{name}","id":"floor0-{}","duplicate":false}}"#, channel.offset))
}

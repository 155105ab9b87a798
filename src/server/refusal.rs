//! Answers to what hyper never sees: a head that it would answer without a body, and plain HTTP where TLS is spoken.

use std::{future::poll_fn, io, time::Duration};

use axum::response::IntoResponse as _;
use http_body_util::BodyExt as _;

use crate::{
    fault::{Code, Fault},
    http::framing::Oversize,
    socket::Socket,
};

/// Says what is wrong, and that no more is to come. The client may take `time` to read it.
pub(super) async fn tell(socket: &Socket, oversize: Oversize, time: Duration) {
    let fault = Fault::new(Code::HeadersTooLarge, oversize.to_string()).limit(oversize.limit());
    let (head, body) = fault.into_response().into_parts();
    // It is in memory: nothing that could fail.
    let body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let mut answer = format!("HTTP/1.1 {}\r\ncontent-length: {}\r\n", head.status, body.len()).into_bytes();
    for (name, value) in &head.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            answer.extend_from_slice(part);
        }
    }
    answer.extend_from_slice(b"\r\n");
    answer.extend_from_slice(&body);
    send(socket, &answer, time).await;
}

/// Says what this port is for to a client that speaks plain HTTP. What it sent is not read, so it is no problem of
/// a request.
pub(super) async fn tell_plain(socket: &Socket, sentence: &str, time: Duration) {
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n{sentence}",
        sentence.len()
    );
    send(socket, answer.as_bytes(), time).await;
}

async fn send(socket: &Socket, answer: &[u8], time: Duration) {
    if let Ok(Ok(())) = tokio::time::timeout(time, write(socket, answer)).await {
        let _ = socket.half_close();
    }
}

async fn write(socket: &Socket, mut bytes: &[u8]) -> io::Result<()> {
    while !bytes.is_empty() {
        poll_fn(|cx| socket.poll_write_ready(cx)).await?;
        match socket.try_write(bytes) {
            Ok(n) => bytes = &bytes[n..],
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    while !socket.try_flush()? {
        poll_fn(|cx| socket.poll_write_ready(cx)).await?;
    }
    Ok(())
}

//! Answers to what hyper never sees: a head that it would answer without a body, and plain HTTP where TLS is spoken.

use std::time::Duration;

use axum::response::IntoResponse as _;
use http_body_util::BodyExt as _;

use super::answer;
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
    send(socket, &answer::written(&head, false, body.len()), &body, time).await;
}

/// Says what this port is for to a client that speaks plain HTTP. What it sent is not read, so it is no problem of
/// a request.
pub(super) async fn tell_plain(socket: &Socket, sentence: &str, time: Duration) {
    let head = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\nconnection: close\r\n\
         content-length: {}\r\n\r\n",
        sentence.len()
    );
    send(socket, head.as_bytes(), sentence.as_bytes(), time).await;
}

async fn send(socket: &Socket, head: &[u8], body: &[u8], time: Duration) {
    if let Ok(Ok(())) = tokio::time::timeout(time, answer::send(socket, head, body)).await {
        let _ = socket.half_close();
    }
}

//! An answer of HTTP/1 on a plain socket, where no HTTP library holds it: to a poll that waited, and to a head that
//! hyper does not take. Its whole body is there.

use std::{
    future::poll_fn,
    io::{self, IoSlice, Write as _},
    time::SystemTime,
};

use http::{Version, header, response};
use httpdate::HttpDate;

use crate::socket::Socket;

/// The head of an answer as it is written, with the length of the body, the date and, where that does not go without
/// saying, whether the connection goes on.
pub(super) fn written(head: &response::Parts, keeps_alive: bool, length: usize) -> Vec<u8> {
    let mut written = Vec::with_capacity(512);
    let version = if head.version == Version::HTTP_10 { "1.0" } else { "1.1" };
    let date = HttpDate::from(SystemTime::now());
    // Into memory: nothing that could fail.
    let _ = write!(written, "HTTP/{version} {}\r\ncontent-length: {length}\r\ndate: {date}\r\n", head.status);
    for (name, value) in &head.headers {
        for part in [name.as_str().as_bytes(), b": ", value.as_bytes(), b"\r\n"] {
            written.extend_from_slice(part);
        }
    }
    let connection: &[u8] = match (head.version, keeps_alive) {
        _ if head.headers.contains_key(header::CONNECTION) => b"",
        (Version::HTTP_10, true) => b"connection: keep-alive\r\n",
        (Version::HTTP_11, false) => b"connection: close\r\n",
        _ => b"",
    };
    written.extend_from_slice(connection);
    written.extend_from_slice(b"\r\n");
    written
}

/// Writes a head and a body, in one write if they fit, at the pace of the client.
pub(super) async fn send(socket: &Socket, head: &[u8], body: &[u8]) -> io::Result<()> {
    let mut pieces = [head, body].map(IoSlice::new);
    let mut rest = &mut pieces[..];
    // This also passes over what is empty.
    IoSlice::advance_slices(&mut rest, 0);
    while !rest.is_empty() {
        poll_fn(|cx| socket.poll_write_ready(cx)).await?;
        match socket.try_write_vectored(rest) {
            Ok(n) => IoSlice::advance_slices(&mut rest, n),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    while !socket.try_flush()? {
        poll_fn(|cx| socket.poll_write_ready(cx)).await?;
    }
    Ok(())
}

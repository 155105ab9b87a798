//! The outermost layers: what holds for each request whatever its path.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    task::Poll,
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};

use crate::fault::{Code, Fault};

/// A layer: refuses heads over `limits.headers`. hyper is given more and would answer without a body.
pub async fn limit(State(limit): State<usize>, request: Request, next: Next) -> Response {
    let size = size(&request);
    if size > limit {
        let detail = format!("the request's head has {size} bytes, {limit} are allowed (`limits.headers`)");
        return Fault::new(Code::HeadersTooLarge, detail).limit(limit).into_response();
    }
    next.run(request).await
}

/// The bytes of the head as HTTP/1.1 writes it: request line, header lines, empty line.
fn size(request: &Request) -> usize {
    let uri = request.uri();
    let target = uri.path_and_query().map_or(0, |target| target.as_str().len())
        + uri.authority().map_or(0, |authority| authority.as_str().len());
    let line = request.method().as_str().len() + target + "  HTTP/1.1\r\n".len();
    let headers = request.headers().iter();
    let headers: usize = headers.map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum();
    line + headers + "\r\n".len()
}

/// A layer: a handler that panics costs its own request, not the connection. The panic hook has logged it.
pub async fn catch_panics(request: Request, next: Next) -> Response {
    let mut answer = pin!(next.run(request));
    poll_fn(|context| {
        // After a panic the future is not polled again, so nobody sees what it left half done.
        catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(context))).unwrap_or_else(|_| {
            let fault = Fault::new(Code::Internal, "the request met a fault in the server; it is in the server's log");
            Poll::Ready(fault.into_response())
        })
    })
    .await
}

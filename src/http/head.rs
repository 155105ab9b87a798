//! What stands before every handler, whatever its path. One layer, since axum clones what is inside a layer
//! for each request, and layers within layers that many times more.

use std::{
    future::poll_fn,
    panic::{AssertUnwindSafe, catch_unwind},
    pin::pin,
    sync::Arc,
    task::Poll,
};

use axum::{
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};

use super::origin::{self, Rules};
use crate::fault::{Code, Fault};

/// What the layer holds requests to.
#[derive(Clone, Debug)]
pub struct Gate {
    /// `limits.headers`.
    pub head: usize,
    /// Which hosts and pages are served; `None`: all.
    pub rules: Option<Rules>,
}

/// The layer. In order: panics, the size of the head, host and origin.
pub async fn pass(State(gate): State<Arc<Gate>>, request: Request, next: Next) -> Response {
    catch_panics(async {
        if let Err(fault) = check_size(&request, gate.head) {
            return fault.into_response();
        }
        match &gate.rules {
            Some(rules) => origin::guard(rules, request, next).await,
            None => next.run(request).await,
        }
    })
    .await
}

/// A handler that panics costs its own request, not the connection. The panic hook has logged it.
async fn catch_panics(answer: impl Future<Output = Response>) -> Response {
    let mut answer = pin!(answer);
    poll_fn(|context| {
        // After a panic the future is not polled again, so nobody sees what it left half done.
        catch_unwind(AssertUnwindSafe(|| answer.as_mut().poll(context))).unwrap_or_else(|_| {
            let detail = "the request met a fault in the server; it is in the server's log";
            Poll::Ready(Fault::new(Code::Internal, detail).into_response())
        })
    })
    .await
}

/// hyper is given more, since it would answer without a body.
fn check_size(request: &Request, limit: usize) -> Result<(), Fault> {
    let size = size(request);
    if size <= limit {
        return Ok(());
    }
    let detail = format!("the request's head has {size} bytes, {limit} are allowed (`limits.headers`)");
    Err(Fault::new(Code::HeadersTooLarge, detail).limit(limit))
}

/// The bytes of the head as HTTP/1.1 writes it: request line, header lines, empty line.
fn size(request: &Request) -> usize {
    let uri = request.uri();
    let target = uri.path_and_query().map_or(0, |target| target.as_str().len())
        + uri.authority().map_or(0, |authority| authority.as_str().len());
    let line = request.method().as_str().len() + target + "  HTTP/1.1\r\n".len();
    let headers = request.headers().iter();
    let headers: usize =
        headers.map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum();
    line + headers + "\r\n".len()
}

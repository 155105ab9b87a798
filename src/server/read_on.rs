//! The body of an HTTP/2 request that reads on for a moment after its handler let go of it. A stream whose
//! request is dropped half read is reset, and its answer (a 413, say) would be lost with it.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use axum::body::Bytes;
use http_body::{Body, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use super::LINGER;

/// What is read and dropped at most.
const MOST: usize = 16 * 1024 * 1024;

pub(super) struct ReadOn(Option<Incoming>);

impl ReadOn {
    pub(super) fn new(body: Incoming) -> Self {
        Self(Some(body))
    }
}

impl Body for ReadOn {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut self.0 {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.0.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.0.as_ref().map_or_else(SizeHint::default, Body::size_hint)
    }
}

impl Drop for ReadOn {
    fn drop(&mut self) {
        let Some(mut body) = self.0.take().filter(|body| !body.is_end_stream()) else {
            return;
        };
        let rest = async move {
            let mut total = 0;
            while total < MOST
                && let Some(Ok(frame)) = body.frame().await
            {
                total += frame.data_ref().map_or(0, Bytes::len);
            }
        };
        tokio::spawn(tokio::time::timeout(LINGER, rest));
    }
}

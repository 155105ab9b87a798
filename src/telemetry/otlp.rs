//! The way of spans to a collector: a POST now and then, over HTTP/1.1. The exporter has a thread of its own and no
//! runtime; its requests run on that of the gateway.

use std::{
    sync::atomic::{AtomicBool, Ordering::Relaxed},
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::{BodyExt as _, Limited};
use opentelemetry_http::{HttpClient, HttpError};
use tokio::{runtime::Handle, time::timeout};

use crate::outgoing::Outgoing;

/// How long a request may take.
const TIME: Duration = Duration::from_secs(10);

/// What is read of an answer: it tells in a sentence what was refused.
const ANSWER: usize = 64 * 1024;

/// Posts to a collector, and logs when that begins to fail and when it is over.
pub(super) struct Poster {
    runtime: Handle,
    outgoing: Outgoing,
    fails: AtomicBool,
}

impl Poster {
    /// For this endpoint, on the runtime that this is called in.
    ///
    /// # Errors
    /// Nothing to check the collector's certificate against.
    pub(super) fn new(endpoint: &Uri) -> Result<Self, String> {
        Ok(Self {
            runtime: Handle::current(),
            outgoing: Outgoing::to(endpoint)?,
            fails: AtomicBool::new(false),
        })
    }

    fn tell(&self, outcome: &Result<Response<Bytes>, HttpError>) {
        let problem = match outcome {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("the answer is {}", answer.status())),
            Err(error) => Some(error.to_string()),
        };
        match (problem, self.fails.load(Relaxed)) {
            (Some(problem), false) => tracing::warn!("spans do not reach tracing.otlp_endpoint: {problem}"),
            (None, true) => tracing::info!("spans reach tracing.otlp_endpoint again"),
            (Some(_), true) | (None, false) => return,
        }
        self.fails.fetch_not(Relaxed);
    }
}

impl std::fmt::Debug for Poster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Poster")
    }
}

#[async_trait]
impl HttpClient for Poster {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let outgoing = self.outgoing.clone();
        // The timer is of the runtime too.
        let posted = self.runtime.spawn(async move { timeout(TIME, post(request, outgoing)).await });
        let outcome = match posted.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(format!("no answer within {} s", TIME.as_secs()).into()),
            Err(ended) => Err(ended.into()),
        };
        self.tell(&outcome);
        outcome
    }
}

async fn post(request: Request<Bytes>, outgoing: Outgoing) -> Result<Response<Bytes>, HttpError> {
    let (head, body) = outgoing.send(request).await?.into_parts();
    let body = Limited::new(body, ANSWER).collect().await?.to_bytes();
    Ok(Response::from_parts(head, body))
}

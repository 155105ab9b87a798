//! The routers from request to answer, without a socket.

mod layers;
mod manage;
mod post;

use std::{
    collections::VecDeque,
    convert::Infallible,
    pin::Pin,
    task::{Context, Poll},
};

use arc_swap::ArcSwap;
use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, Request};
use http_body::Frame;
use http_body_util::BodyExt;
use serde_json::Value;
use tokio::sync::mpsc;

use super::*;
use crate::{
    admission::{self, Admission},
    auth::Auth,
    broker::{Broker, BrokerEvent, memory::Memory},
    clock::Clock,
    gateway::Gateway,
    telemetry::Tracer,
};

/// Both listeners over a memory broker.
struct Fixture {
    public: Edge,
    internal: Edge,
    /// Where it is dropped, the broker is away.
    events: Option<mpsc::Receiver<BrokerEvent>>,
}

/// An answer, read to its end.
#[derive(Debug)]
struct Answer {
    status: u16,
    headers: HeaderMap,
    body: String,
}

impl Fixture {
    fn new(toml: &str) -> Self {
        let (state, events) = state(toml);
        Self { public: public(state.clone()), internal: internal(state), events: Some(events) }
    }

    /// Sends `METHOD target` to the internal listener.
    async fn send(&self, line: &str, headers: &[(&str, &str)], body: impl Into<Body>) -> Answer {
        ask(&self.internal, line, headers, body.into()).await
    }

    async fn get(&self, target: &str) -> Answer {
        self.send(&format!("GET {target}"), &[], Body::empty()).await
    }

    /// Posts a body of a type to a target.
    async fn post(&self, target: &str, content_type: &str, body: impl Into<Body>) -> Answer {
        self.send(&format!("POST {target}"), &[("content-type", content_type)], body).await
    }
}

/// What the handlers share, over a memory broker.
fn state(toml: &str) -> (State, mpsc::Receiver<BrokerEvent>) {
    let config = Arc::new(Config::from_toml(toml).unwrap());
    let metrics = Arc::new(Metrics::new().unwrap());
    let (memory, events) = Memory::new(16, Clock::system());
    let gateway = Gateway::new(
        Arc::clone(&config),
        Auth::new(&config, &metrics).unwrap(),
        Broker::Memory(memory),
        Arc::clone(&metrics),
        Tracer::default(),
    );
    let allowed_origins = Arc::new(ArcSwap::from_pointee(config.public.allowed_origins.clone()));
    let state = State {
        gateway,
        config,
        metrics,
        admission: Admission::new(admission::Limits::default()),
        readiness: Readiness::default(),
        allowed_origins,
        public_url: "http://127.0.0.1:8000".into(),
    };
    (state, events)
}

async fn ask(edge: &Edge, line: &str, headers: &[(&str, &str)], body: Body) -> Answer {
    let (method, target) = line.split_once(' ').unwrap();
    let mut request = Request::builder().method(method).uri(target);
    if !headers.iter().any(|(name, _)| *name == "host") {
        request = request.header("host", "127.0.0.1:9000");
    }
    for (name, value) in headers.iter().filter(|(_, value)| *value != "(none)") {
        request = request.header(*name, *value);
    }
    let response = edge.answer(request.body(body).unwrap()).await;
    let (head, body) = response.into_parts();
    let body = body.collect().await.unwrap().to_bytes();
    Answer {
        status: head.status.as_u16(),
        headers: head.headers,
        body: String::from_utf8(body.to_vec()).unwrap(),
    }
}

impl Answer {
    fn json(&self) -> Value {
        serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// The status and the code of a problem.
    fn problem(&self) -> (u16, String) {
        assert_eq!(self.header("content-type"), "application/problem+json", "{self:?}");
        let problem = self.json();
        assert_eq!(problem["status"], self.status);
        (self.status, problem["code"].as_str().unwrap().to_owned())
    }

    /// A header; empty where it is absent.
    fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", |value| value.to_str().unwrap())
    }
}

/// A body in pieces whose length nobody declared; after them it ends, or stalls for ever.
struct Pieces {
    pieces: VecDeque<Bytes>,
    stalls: bool,
}

impl Pieces {
    fn body(pieces: &[&[u8]], stalls: bool) -> Body {
        let pieces = pieces.iter().map(|piece| Bytes::copy_from_slice(piece)).collect();
        Body::new(Self { pieces, stalls })
    }
}

impl http_body::Body for Pieces {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        match self.pieces.pop_front() {
            Some(piece) => Poll::Ready(Some(Ok(Frame::data(piece)))),
            None if self.stalls => Poll::Pending,
            None => Poll::Ready(None),
        }
    }
}

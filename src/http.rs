//! The HTTP edge: which path is whose, and everything that stands before the handlers, in order.
//!
//! What a handler does is in its own file; how a connection is accepted, and how a stream is written once
//! its head is out, is not of this room.

pub mod admin;
pub mod batch;
pub mod body;
pub mod caller;
pub mod client;
pub mod edge;
pub mod forwarded;
pub mod framing;
pub mod handover;
pub mod head;
pub mod headers;
pub mod json;
pub mod negotiate;
pub mod ops;
pub mod origin;
pub mod problem;
pub mod publish;
pub mod query;
pub mod subscribe;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use axum::{
    Router,
    response::{IntoResponse, Response},
    routing::{MethodRouter, get, post},
};
use http::{HeaderName, HeaderValue, Method, StatusCode, Uri, header};

use self::{
    edge::{Busiest, Edge},
    origin::Rules,
    query::shown,
};
use crate::{
    admission::Admission,
    config::{AllowedOrigins, Config, Live},
    drain::Readiness,
    fault::{Code, Fault},
    gateway::Gateway,
    metrics::Metrics,
};

/// The position to resume from, as a browser's EventSource sends it.
pub const LAST_EVENT_ID: HeaderName = HeaderName::from_static("last-event-id");

/// What the handlers share. Clones cheaply.
#[derive(Clone, Debug)]
pub struct State {
    /// The way to the broker and to who is connected.
    pub gateway: Gateway,
    /// What is configured.
    pub config: Arc<Config>,
    /// What is counted.
    pub metrics: Arc<Metrics>,
    /// Who may come in.
    pub admission: Admission,
    /// Whether new connections may come.
    pub readiness: Readiness,
    /// The pages that may connect to the public listener.
    pub allowed_origins: Live<AllowedOrigins>,
    /// Where clients connect, as the console tells its visitor.
    pub public_url: Arc<str>,
}

/// What is served where clients connect.
pub fn public(state: State) -> Edge {
    // A GET is known to the edge. A HEAD would open a stream and throw it away.
    let routes = common()
        .route("/v1/subscribe", taking("GET, OPTIONS", MethodRouter::new()))
        .route("/client.js", read(get(client::script)))
        .route("/client.d.ts", read(get(client::types)));
    let rules = Rules::public(&state.config, Arc::clone(&state.allowed_origins));
    Edge::new(routes, Busiest::Subscribe, rules, state)
}

/// What is served where backends and operators connect.
pub fn internal(state: State) -> Edge {
    let write = |methods| taking("POST, OPTIONS", methods);
    // A POST is known to the edge.
    let messages = get(admin::history).delete(admin::forget);
    let routes = common()
        .route("/v1/channels/{channel}/messages", taking("GET, HEAD, POST, DELETE, OPTIONS", messages))
        .route("/v1/messages", write(post(batch::messages)))
        .route("/v1/channels/{channel}", read(get(admin::info)))
        .route("/v1/channels", read(get(admin::channels)))
        .route("/v1/disconnect", write(post(admin::disconnect)))
        .route("/openapi.yaml", read(get(ops::openapi)))
        .route("/", read(get(ops::console)))
        .route("/metrics", read(get(ops::metrics)));
    let rules = Rules::internal(&state.config);
    Edge::new(routes, Busiest::Publish, rules, state)
}

/// What both listeners serve.
fn common() -> Router<State> {
    Router::new()
        .route("/live", read(get(ops::live)))
        .route("/ready", read(get(ops::ready)))
        .fallback(not_found)
}

fn read(methods: MethodRouter<State>) -> MethodRouter<State> {
    taking("GET, HEAD, OPTIONS", methods)
}

/// A path that takes the methods of `allow` and tells so who comes with another one, or asks.
fn taking(allow: &'static str, methods: MethodRouter<State>) -> MethodRouter<State> {
    methods.fallback(move |method: Method, uri: Uri| other_method(allow, method, uri))
}

async fn other_method(allow: &'static str, method: Method, uri: Uri) -> Response {
    if method != Method::OPTIONS {
        return problem::method_not_allowed(&method, &shown(uri.path()), allow);
    }
    let allow = (header::ALLOW, HeaderValue::from_static(allow));
    (StatusCode::NO_CONTENT, [allow]).into_response()
}

async fn not_found(method: Method, uri: Uri) -> Fault {
    let detail = format!(
        "nothing is at {method} {}; subscribing is on the public listener, publishing and managing on the internal one",
        shown(uri.path())
    );
    Fault::new(Code::NotFound, detail)
}

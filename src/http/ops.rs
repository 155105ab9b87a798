//! What operators and their tools ask for: probes, metrics, the contract and the console.

use axum::{
    extract,
    response::{IntoResponse, Response},
};
use http::{HeaderValue, Uri, header};

use super::{State, query};
use crate::fault::{Code, Fault};

const OPENAPI: &str = include_str!("../../openapi.yaml");

const CONSOLE: &str = include_str!("console.html");

/// `GET /live`: the process is there and its runtime turns.
pub async fn live() -> &'static str {
    "ok\n"
}

/// `GET /ready`: new connections may come here.
///
/// # Errors
/// `shutting_down`, with what the readiness says.
pub async fn ready(extract::State(state): extract::State<State>) -> Result<&'static str, Fault> {
    state.gateway.broker_state().map_err(|why| Fault::new(Code::BrokerUnavailable, why))?;
    match state.readiness.state() {
        Ok(()) => Ok("ok\n"),
        Err(why) => Err(Fault::new(Code::ShuttingDown, why)),
    }
}

/// `GET /metrics`, in Prometheus' text format 0.0.4.
///
/// # Errors
/// `internal` where a metric cannot be written.
pub async fn metrics(extract::State(state): extract::State<State>) -> Result<Response, Fault> {
    let connections = state.gateway.registry().all();
    state.metrics.queued(connections.iter().map(|outbox| outbox.waiting()).sum());
    state.metrics.admitted(state.admission.held(), state.admission.limit());
    state.metrics.runtime(&tokio::runtime::Handle::current().metrics());
    let text = state.metrics.render().map_err(|error| Fault::new(Code::Internal, error.to_string()))?;
    Ok(typed("text/plain; version=0.0.4; charset=utf-8", text))
}

/// `GET /openapi.yaml`: the contract.
///
/// # Errors
/// `unknown_parameter`.
pub async fn openapi(uri: Uri) -> Result<Response, Fault> {
    query::refuse_all(uri.query())?;
    Ok(typed("application/yaml", OPENAPI))
}

/// `GET /`: a page that publishes, and shows what arrives over three transports.
///
/// # Errors
/// `unknown_parameter`.
pub async fn console(extract::State(state): extract::State<State>, uri: Uri) -> Result<Response, Fault> {
    query::refuse_all(uri.query())?;
    Ok(typed("text/html; charset=utf-8", CONSOLE.replace("{{public_url}}", &state.public_url)))
}

fn typed(content_type: &'static str, body: impl IntoResponse) -> Response {
    let mut response = body.into_response();
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    response
}

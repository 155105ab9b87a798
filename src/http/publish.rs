//! `POST /v1/channels/{channel}/messages`: one message. The busiest path of the internal listener.

use std::str::FromStr;

use axum::{
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, StatusCode};

use super::{
    State,
    body::{self, Bound},
    caller::Caller,
    headers, json, query,
};
use crate::{
    channel::Channel,
    config::Limits,
    fault::{Code, Fault},
    metrics::{Route, StatusClass},
    payload::ContentType,
    publication::{Draft, Receipt},
    trace_parent::TraceParent,
};

const IDEMPOTENCY_KEY: HeaderName = HeaderName::from_static("idempotency-key");
const TIDEGATE_EVENT: HeaderName = HeaderName::from_static("tidegate-event");
/// W3C Trace Context.
const TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");

/// Publishes the body, and counts how that went.
pub async fn message(state: &State, request: Request) -> Response {
    let response = publish(state, request).await.into_response();
    count(state, Route::Message, &response);
    response
}

/// Counts a publish request of either kind.
pub(super) fn count(state: &State, route: Route, response: &Response) {
    let class = StatusClass::of(response.status().as_u16());
    state.metrics.publish_answered(route, class);
}

async fn publish(state: &State, request: Request) -> Result<Response, Fault> {
    let (head, body) = request.into_parts();
    let caller = Caller::of(&head, state)?;
    query::refuse_all(head.uri.query())?;
    let channel = query::channel_of_path(&head.uri)?;
    caller.publishes(&channel)?;
    let content_type = body::content_type(&head.headers)?;
    let event = parsed(&head.headers, TIDEGATE_EVENT)?;
    let idempotency_key = parsed(&head.headers, IDEMPOTENCY_KEY)?;
    let trace = trace(&head.headers)?;
    let limits = &state.config.limits;
    let body = body::read(body, bound(content_type, limits), limits.body_timeout).await?;
    let draft = Draft { payload: content_type.payload(body)?, event, idempotency_key, trace };
    let receipt = state.gateway.publish(&channel, draft).await?;
    let mut answer = String::with_capacity(96 + channel.as_str().len());
    answer.push('{');
    write_receipt(&mut answer, &channel, &receipt);
    answer.push('}');
    Ok(json::answer(StatusCode::ACCEPTED, answer))
}

/// `limits.message` is of the payload as stored, and white space around JSON is not: so more of it may come.
fn bound(content_type: ContentType, limits: &Limits) -> Bound {
    let bytes = match content_type {
        ContentType::Json | ContentType::Form => limits.batch,
        ContentType::Text | ContentType::Bytes => limits.message,
    };
    Bound { bytes, code: Code::MessageTooLarge, limit: limits.message }
}

/// The caller's trace. One that cannot be read is as none (Trace Context, section 4.3): what a caller's library writes
/// wrong must cost him no message.
pub(super) fn trace(headers: &HeaderMap) -> Result<Option<TraceParent>, Fault> {
    Ok(headers::single(headers, TRACEPARENT)?.and_then(|text| text.trim().parse().ok()))
}

/// A header that may be given once, as what it means.
fn parsed<T>(headers: &HeaderMap, name: HeaderName) -> Result<Option<T>, Fault>
where
    T: FromStr<Err: std::fmt::Display>,
{
    let value = headers::single(headers, &name)?.map(str::parse).transpose();
    value.map_err(|error| headers::invalid(&name, &format!("is not valid: {error}")))
}

/// The fields of a receipt. Neither a channel nor a position has anything that JSON escapes.
pub(super) fn write_receipt(out: &mut String, channel: &Channel, receipt: &Receipt) {
    let Receipt { position, duplicate } = receipt;
    out.push_str("\"channel\":\"");
    out.push_str(channel.as_str());
    out.push_str("\",\"id\":\"");
    // Writing to a `String` cannot fail.
    let _ = position.write_to(out);
    out.push_str(if *duplicate { "\",\"duplicate\":true" } else { "\",\"duplicate\":false" });
}

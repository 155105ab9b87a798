//! `POST /v1/messages`: many messages, with an outcome for each channel of each item.

use std::{borrow::Cow, fmt::Write};

use axum::{
    extract::{self, Request},
    response::{IntoResponse, Response},
};
use http::StatusCode;
use serde::Deserialize;
use serde_json::value::RawValue;

use super::{
    State,
    body::{self, Bound},
    caller::Caller,
    json::{self, Bounded, present},
    problem,
    publish::{count, trace, write_receipt},
    query,
};
use crate::{
    channel::Channel,
    fault::{Code, Fault},
    gateway::Gateway,
    metrics::Route,
    payload,
    publication::{Draft, Receipt},
    trace_parent::TraceParent,
};

/// The most outcomes of one batch.
const MAX_OUTCOMES: usize = 1000;

/// The body. Its items are read one by one, so that a bad one spoils no other.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Batch<'a> {
    #[serde(borrow)]
    messages: Bounded<&'a RawValue, MAX_OUTCOMES>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Item<'a> {
    channel: Option<String>,
    channels: Option<Bounded<String, MAX_OUTCOMES>>,
    #[serde(borrow, default, deserialize_with = "present")]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    data_base64: Option<Cow<'a, str>>,
    event: Option<String>,
    idempotency_key: Option<String>,
}

/// An item of which nothing but its channels can be wrong.
struct Posting {
    channels: Vec<String>,
    draft: Draft,
}

/// Publishes each item to each of its channels, and counts how that went.
pub async fn messages(
    extract::State(state): extract::State<State>,
    caller: Result<Caller, Fault>,
    request: Request,
) -> Response {
    let answer = match caller {
        Ok(caller) => answer(&state, &caller, request).await,
        Err(fault) => Err(fault),
    };
    let response = answer.into_response();
    count(&state, Route::Batch, &response);
    response
}

/// A fault where the request is wrong as a whole, or the broker was away before anything was accepted.
async fn answer(state: &State, caller: &Caller, request: Request) -> Result<Response, Fault> {
    let (head, body) = request.into_parts();
    query::refuse_all(head.uri.query())?;
    body::expect_json(&head.headers)?;
    let trace = trace(&head.headers)?;
    let limits = &state.config.limits;
    let bound = Bound { bytes: limits.batch, code: Code::BatchTooLarge, limit: limits.batch };
    let body = body::read(body, bound, limits.body_timeout).await?;
    let items = read(&body, trace)?;
    drop(body);
    publish(&state.gateway, caller, items).await.map(Outcomes::into_response)
}

/// The items, in memory of their own, all of one trace.
fn read(body: &[u8], trace: Option<TraceParent>) -> Result<Vec<Result<Posting, Fault>>, Fault> {
    let Batch { messages } = json::parse(body)?;
    let mut outcomes = messages.count;
    let mut items = Vec::with_capacity(messages.kept.len());
    for raw in messages.kept {
        let item = Item::read(raw.get());
        // All but the first channel of an item are outcomes beyond its own.
        let channels = item.as_ref().ok().and_then(|item| item.channels.as_ref());
        outcomes += channels.map_or(0, |channels| channels.count.saturating_sub(1));
        if outcomes > MAX_OUTCOMES {
            let detail =
                format!("the batch has more than {MAX_OUTCOMES} outcomes, one for each channel of an item");
            return Err(Fault::new(Code::BatchTooLarge, detail).limit(MAX_OUTCOMES));
        }
        items.push(item.and_then(|item| item.check(trace)));
    }
    Ok(items)
}

impl<'a> Item<'a> {
    fn read(text: &'a str) -> Result<Self, Fault> {
        if !json::is_object(text.as_bytes()) {
            return Err(Fault::new(Code::InvalidBody, "the item is no object"));
        }
        serde_json::from_str(text).map_err(|error| Fault::new(Code::InvalidBody, json::reason(&error)))
    }

    fn check(self, trace: Option<TraceParent>) -> Result<Posting, Fault> {
        let channels = match (self.channel, self.channels) {
            (Some(channel), None) => vec![channel],
            (None, Some(Bounded { kept, .. })) if !kept.is_empty() => kept,
            (Some(_), Some(_)) => {
                let detail = "`channel` and `channels` are both given; a message has one of them";
                return Err(Fault::new(Code::InvalidBody, detail));
            }
            (None, _) => {
                let detail = "a message needs `channel`, or `channels` with at least one";
                return Err(Fault::new(Code::InvalidBody, detail));
            }
        };
        let draft = Draft {
            payload: payload::from_raw(self.data, self.data_base64.as_deref())?,
            event: parsed(self.event.as_deref(), "event")?,
            idempotency_key: parsed(self.idempotency_key.as_deref(), "idempotency_key")?,
            trace,
        };
        Ok(Posting { channels, draft })
    }
}

fn parsed<T>(text: Option<&str>, field: &str) -> Result<Option<T>, Fault>
where
    T: std::str::FromStr<Err: std::fmt::Display>,
{
    let value = text.map(str::parse).transpose();
    value.map_err(|error| {
        Fault::new(Code::InvalidBody, format!("`{field}` is not valid: {error}")).parameter(field)
    })
}

/// One after the other, so that the messages to one channel keep their order.
async fn publish(
    gateway: &Gateway,
    caller: &Caller,
    items: Vec<Result<Posting, Fault>>,
) -> Result<Outcomes, Fault> {
    let mut outcomes = Outcomes::default();
    let mut is_away = false;
    for (index, item) in items.into_iter().enumerate() {
        let Posting { channels, draft } = match item {
            Ok(posting) => posting,
            Err(fault) => {
                outcomes.failed(index, None, &fault);
                continue;
            }
        };
        for name in channels {
            let channel =
                query::channel(&name).and_then(|channel| caller.publishes(&channel).map(|()| channel));
            let result = match channel {
                Err(fault) => Err(fault),
                // Each further try could take as long as the broker's timeout.
                Ok(_) if is_away => Err(not_tried()),
                Ok(channel) => {
                    gateway.publish(&channel, draft.clone()).await.map(|receipt| (channel, receipt))
                }
            };
            match result {
                Ok((channel, receipt)) => outcomes.accepted(index, &channel, &receipt),
                Err(fault) => {
                    let is_broker = problem::status(fault.code) == StatusCode::SERVICE_UNAVAILABLE;
                    if is_broker && outcomes.accepted == 0 {
                        return Err(fault);
                    }
                    is_away |= is_broker;
                    outcomes.failed(index, Some(&name), &fault);
                }
            }
        }
    }
    Ok(outcomes)
}

fn not_tried() -> Fault {
    let detail = "not tried, since the broker was away for an item before it; nothing was stored";
    Fault::new(Code::BrokerUnavailable, detail)
}

/// The outcomes as they are written, and their count.
#[derive(Default)]
struct Outcomes {
    json: String,
    accepted: usize,
    failed: usize,
}

impl Outcomes {
    fn accepted(&mut self, item: usize, channel: &Channel, receipt: &Receipt) {
        self.accepted += 1;
        self.begin(item);
        self.json.push(',');
        write_receipt(&mut self.json, channel, receipt);
        self.json.push('}');
    }

    fn failed(&mut self, item: usize, channel: Option<&str>, fault: &Fault) {
        self.failed += 1;
        self.begin(item);
        if let Some(channel) = channel {
            // Not checked: it may be what is wrong.
            let quoted = serde_json::Value::from(channel);
            let _ = write!(self.json, r#","channel":{quoted}"#);
        }
        let _ = write!(self.json, r#","problem":{}}}"#, problem::to_json(fault));
    }

    fn begin(&mut self, item: usize) {
        if !self.json.is_empty() {
            self.json.push(',');
        }
        let _ = write!(self.json, r#"{{"item":{item}"#);
    }

    fn into_response(self) -> Response {
        let Self { json, accepted, failed } = self;
        let status = match failed {
            0 => StatusCode::ACCEPTED,
            _ => StatusCode::MULTI_STATUS,
        };
        json::answer(status, format!(r#"{{"accepted":{accepted},"failed":{failed},"outcomes":[{json}]}}"#))
    }
}

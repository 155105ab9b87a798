//! The management of channels and connections on the internal listener: history, state, list, forgetting,
//! disconnecting.

use axum::{
    extract::{self, Request},
    response::{IntoResponse, Response},
};
use http::{StatusCode, Uri};
use serde::{Deserialize, Serialize};

use super::{
    State,
    body::{self, Bound},
    caller::Caller,
    json, negotiate,
    query::{self, Query, shown},
};
use crate::{
    auth::{Action, Grant},
    channel::Channel,
    fault::{Code, Fault},
    gateway::Target,
    pattern::Patterns,
    position::Since,
    wire,
};

/// `GET /v1/channels/{channel}/messages`: a page of the history, from its beginning where nothing is said.
///
/// # Errors
/// What is wrong with the path or the parameters, and what the broker refuses.
pub async fn history(
    extract::State(state): extract::State<State>,
    caller: Caller,
    uri: Uri,
) -> Result<Response, Fault> {
    let query = Query::parse(uri.query(), &["since", "limit"])?;
    let channel = query::channel_of_path(&uri)?;
    caller.authorize(Action::Read, &channel)?;
    let since = match query.one("since")?.filter(|text| !text.is_empty()) {
        Some(text) => negotiate::since_list("since", text, 1, state.gateway.now_seconds())?,
        None => Vec::new(),
    };
    let since = since.first().copied().unwrap_or(Since::Earliest);
    let page = state.gateway.history(&channel, since, negotiate::limit(&query)?).await?;
    let document = wire::document(&page.messages, &page.gaps, &page.cursor, Some(page.more));
    Ok(json::answer(StatusCode::OK, document))
}

/// `DELETE /v1/channels/{channel}/messages`: forgets the history.
///
/// # Errors
/// What is wrong with the path or the parameters, and what the broker refuses.
pub async fn forget(
    extract::State(state): extract::State<State>,
    caller: Caller,
    uri: Uri,
) -> Result<Response, Fault> {
    query::refuse_all(uri.query())?;
    let channel = query::channel_of_path(&uri)?;
    caller.authorize(Action::Manage, &channel)?;
    state.gateway.forget(&channel).await?;
    Ok(StatusCode::NO_CONTENT.into_response())
}

/// `GET /v1/channels/{channel}`: what is known of a channel.
///
/// # Errors
/// What is wrong with the path or the parameters, and what the broker refuses.
pub async fn info(
    extract::State(state): extract::State<State>,
    caller: Caller,
    uri: Uri,
) -> Result<Response, Fault> {
    query::refuse_all(uri.query())?;
    let channel = query::channel_of_path(&uri)?;
    caller.authorize(Action::Read, &channel)?;
    let info = state.gateway.info(&channel).await?;
    let body = format!(
        r#"{{"channel":"{channel}","position":"{}","messages":{},"subscribers":{},"subscribers_age_ms":{}}}"#,
        info.position, info.messages, info.subscribers, info.subscribers_age_ms
    );
    Ok(json::answer(StatusCode::OK, body))
}

/// A page of the list of channels.
#[derive(Serialize)]
struct List<'a> {
    channels: Vec<&'a str>,
    /// To come back with; opaque to clients.
    cursor: Option<&'a str>,
}

/// `GET /v1/channels`: the channels that keep a message and that the caller may read, sorted by bytes.
///
/// # Errors
/// What is wrong with the parameters, and what the broker refuses.
pub async fn channels(
    extract::State(state): extract::State<State>,
    caller: Caller,
    uri: Uri,
) -> Result<Response, Fault> {
    let query = Query::parse(uri.query(), &["prefix", "limit", "cursor"])?;
    let prefix = optional(&query, "prefix")?;
    let cursor = optional(&query, "cursor")?;
    let limit = negotiate::limit(&query)?;
    let patterns = readable(&state, &caller)?;
    let (channels, more) =
        state.gateway.channels(&patterns, prefix.unwrap_or_default(), cursor, limit).await?;
    let names: Vec<&str> = channels.iter().map(Channel::as_str).collect();
    let cursor = names.last().copied().filter(|_| more);
    let list = List { channels: names, cursor };
    Ok(json::answer(StatusCode::OK, serde_json::to_string(&list).unwrap_or_default()))
}

/// What the caller may read.
fn readable(state: &State, caller: &Caller) -> Result<Patterns, Fault> {
    match (caller.grant(), caller.grant().patterns(Action::Read)) {
        (Grant::All, _) => Ok(Patterns::all()),
        (_, Some(patterns)) => Ok(patterns.clone()),
        (grant, None) => Err(state.gateway.auth().denied(grant, Action::Read)),
    }
}

/// A parameter that is a channel name or the beginning of one; what is empty counts as absent. Dots alone
/// begin names, though they are none.
fn optional<'a>(query: &'a Query<'_>, name: &str) -> Result<Option<&'a str>, Fault> {
    let Some(text) = query.one(name)?.filter(|text| !text.is_empty()) else {
        return Ok(None);
    };
    match query::channel(text) {
        Err(fault) if !text.bytes().all(|b| b == b'.') => {
            let detail = format!("`{name}` is no beginning of a channel name: {}", shown(text));
            Err(query::invalid(name, detail).position(fault.position))
        }
        _ => Ok(Some(text)),
    }
}

/// Whose connections are to end: exactly one of the three.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Disconnect {
    subject: Option<String>,
    connection: Option<String>,
    channel: Option<String>,
}

/// `POST /v1/disconnect`: ends whole connections.
///
/// # Errors
/// What is wrong with the body, and what the broker refuses.
pub async fn disconnect(
    extract::State(state): extract::State<State>,
    caller: Caller,
    request: Request,
) -> Result<Response, Fault> {
    let (head, body) = request.into_parts();
    query::refuse_all(head.uri.query())?;
    body::expect_json(&head.headers)?;
    let limits = &state.config.limits;
    let bound = Bound { bytes: limits.message, code: Code::MessageTooLarge, limit: limits.message };
    let body = body::read(body, bound, limits.body_timeout).await?;
    let target = json::parse::<Disconnect>(&body)?.target()?;
    match &target {
        Target::Channel(channel) => caller.authorize(Action::Manage, channel)?,
        // It may listen to any channel.
        Target::Subject(_) | Target::Connection(_) => {
            state.gateway.auth().authorize_everywhere(caller.grant(), Action::Manage)?;
        }
    }
    state.gateway.disconnect(target).await?;
    Ok(json::answer(StatusCode::ACCEPTED, r#"{"requested":true}"#))
}

impl Disconnect {
    fn target(self) -> Result<Target, Fault> {
        let target = match (self.subject, self.connection, self.channel) {
            (Some(subject), None, None) => Target::Subject(named("subject", subject)?),
            (None, Some(connection), None) => Target::Connection(named("connection", connection)?),
            (None, None, Some(channel)) => Target::Channel(query::channel(&channel)?),
            _ => {
                let detail = "name exactly one of `subject`, `connection`, `channel`";
                return Err(Fault::new(Code::InvalidBody, detail));
            }
        };
        Ok(target)
    }
}

fn named(field: &str, value: String) -> Result<String, Fault> {
    match value.is_empty() {
        false => Ok(value),
        true => Err(Fault::new(Code::InvalidBody, format!("`{field}` is empty")).parameter(field)),
    }
}

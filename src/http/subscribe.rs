//! `GET /v1/subscribe`: everything that can be refused is refused here, before the head of an answer; then
//! the connection is the transport's.

use axum::{
    body::Body,
    extract::Request,
    response::{IntoResponse, Response},
};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, Version, header};
use http_body::Body as _;

use super::{
    State,
    handover::{Handover, Hold, InTurn, OutboxBody, Peer, Takeover},
    negotiate::{Handshake, SubscribeRequest},
};
use crate::{
    admission::Permit,
    auth::{Action, Grant},
    config::Limits,
    disconnect::Disconnect,
    fault::{Code, Fault},
    hub::Style,
    metrics::Rejection,
    session::{CatchUp, Session, says_gaps},
    transport::{Connection, Protocol, ndjson, poll, sse, websocket},
    transport_name::Transport,
    wire::{Encoding, Framing},
};

/// Names the connection for `POST /v1/disconnect`.
const CONNECTION: HeaderName = HeaderName::from_static("tidegate-connection");

/// Serves a subscriber.
///
/// # Errors
/// Everything that is wrong with the request; that there is no room, or no broker, for all but SSE.
pub async fn handle(state: &State, request: Request) -> Result<Response, Fault> {
    let (head, body) = request.into_parts();
    let limit = state.config.limits.channels_per_connection;
    let request = SubscribeRequest::read(&head, limit, state.gateway.now_seconds())?;
    let transport = request.transport;
    let (version, peer) = (head.version, head.extensions.get::<Peer>().cloned());
    // A connection is lent only where nothing of this request is left in it to be taken for the next one.
    let lender = peer.as_ref().and_then(|peer| peer.handover.as_ref()).filter(|_| body.is_end_stream());
    // A poll may be held for long, and so would be its request.
    drop((head, body));
    match serve(state, version, peer.as_ref(), lender, request).await {
        Err(fault) if transport == Transport::Sse && is_for_later(fault.code) => Ok(later()),
        answer => answer,
    }
}

/// Whether the same request may be served later. A browser's EventSource must not hear of it by a status.
fn is_for_later(code: Code) -> bool {
    matches!(
        code,
        Code::TooManyConnections
            | Code::Overloaded
            | Code::ShuttingDown
            | Code::BrokerUnavailable
            | Code::BrokerUncertain
            | Code::RateLimited
    )
}

async fn serve(
    state: &State,
    version: Version,
    peer: Option<&Peer>,
    lender: Option<&Handover>,
    mut request: SubscribeRequest,
) -> Result<Response, Fault> {
    let permit = admit(state, peer)?;
    let style = style(&request, version, peer);
    let grant = match granted(state, &mut request).await {
        Ok(grant) => grant,
        Err(fault) => {
            let from_page = request.websocket.as_ref().is_some_and(|handshake| handshake.from_page);
            let reason = closing(fault.code).filter(|_| from_page).ok_or(fault)?;
            let session = Session::open(&state.gateway, style, permit, Grant::Nothing)?;
            session.outbox().end(reason);
            return stream(state, peer, session, Vec::new(), request);
        }
    };
    let mut session = Session::open(&state.gateway, style, permit, grant)?;
    tracing::debug!(
        connection.id = %session.id(),
        transport = request.transport.as_str(),
        client.address = peer.and_then(|peer| peer.address).map(tracing::field::display),
        "a client connected"
    );
    let channels = session.attach_all(&request.channels, &request.since).await?;
    if request.transport == Transport::Poll {
        let turns = peer.and_then(|peer| peer.turns.as_ref());
        return poll(lender, turns, session, channels, request).await;
    }
    stream(state, peer, session, channels, request)
}

/// What the token grants, if that is all the channels of the request.
async fn granted(state: &State, request: &mut SubscribeRequest) -> Result<Grant, Fault> {
    let auth = state.gateway.auth();
    let grant = auth.subscriber(request.token.take().as_deref()).await?;
    for (index, channel) in request.channels.iter().enumerate() {
        auth.authorize(&grant, Action::Subscribe, channel).map_err(|fault| {
            let which = format!("entry {} of `channel`: {}", index + 1, fault.detail);
            Fault::new(fault.code, which).parameter("channel")
        })?;
    }
    Ok(grant)
}

/// Why a WebSocket is closed that a page's script opened without the right to: it could not read a status.
fn closing(code: Code) -> Option<Disconnect> {
    match code {
        Code::Unauthorized => Some(Disconnect::Unauthorized),
        Code::TokenExpired => Some(Disconnect::TokenExpired),
        Code::Forbidden => Some(Disconnect::Forbidden),
        _ => None,
    }
}

async fn poll(
    lender: Option<&Handover>,
    turns: Option<&poll::Turns>,
    session: Session,
    channels: Vec<CatchUp>,
    request: SubscribeRequest,
) -> Result<Response, Fault> {
    let mut headers = HeaderMap::new();
    name(&mut headers, &session);
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    let asked = poll::ask(session, channels, request.wait, request.limit, turns).await?;
    let body = match (asked, lender) {
        (poll::Outcome::Answer(answer), _) => in_turn(answer),
        (poll::Outcome::Waiting(waiting), Some(lender)) => {
            lender.leave(Takeover::Poll(waiting));
            Body::new(Hold)
        }
        (poll::Outcome::Waiting(waiting), None) => in_turn(waiting.answer(turns).await),
    };
    let mut answer = Response::new(body);
    *answer.headers_mut() = headers;
    Ok(answer)
}

fn in_turn(answer: poll::Answer) -> Body {
    match answer.turn {
        Some(turn) => Body::new(InTurn::new(answer.document, turn)),
        None => answer.document.into(),
    }
}

/// Looks for room. A connection has its permit already; an HTTP/2 stream needs one of its own, and so do the clients
/// of a proxy.
fn admit(state: &State, peer: Option<&Peer>) -> Result<Option<Permit>, Fault> {
    if state.readiness.is_leaving() {
        state.metrics.rejected(Rejection::Draining);
        return Err(Fault::new(
            Code::ShuttingDown,
            "this server is shutting down; another one may serve you",
        ));
    }
    let Some(peer) = peer else {
        return Ok(None);
    };
    if let Some(refused) = peer.refused {
        return Err(no_room(refused, &state.config.limits));
    }
    let admitted = match (peer.handover.is_some(), peer.is_proxy) {
        (true, false) => return Ok(None),
        (true, true) => state.admission.try_admit_client(peer.address),
        (false, _) => state.admission.try_admit(peer.address),
    };
    match admitted {
        Ok(permit) => Ok(Some(permit)),
        Err(refusal) => {
            state.metrics.rejected(refusal.into());
            Err(no_room(refusal.into(), &state.config.limits))
        }
    }
}

fn no_room(reason: Rejection, limits: &Limits) -> Fault {
    let (code, detail, limit) = match reason {
        Rejection::Total => {
            let detail = "the limit of connections is reached (limits.connections)";
            (Code::TooManyConnections, detail, limits.connections)
        }
        Rejection::Address => {
            let detail =
                "the limit of connections from this address is reached (limits.connections_per_address)";
            (Code::TooManyConnections, detail, limits.connections_per_address)
        }
        Rejection::Rate => {
            let detail = "connections come too fast (limits.connects_per_second)";
            (Code::RateLimited, detail, limits.connects_per_second.map(|n| n as usize))
        }
        // By `Session::open`, which knows the subject.
        Rejection::Subject => (Code::TooManyConnections, "this subject has too many connections", None),
        Rejection::Draining => (Code::ShuttingDown, "this server is shutting down", None),
    };
    let fault = Fault::new(code, detail);
    match limit {
        Some(limit) => fault.limit(limit),
        None => fault,
    }
}

fn style(request: &SubscribeRequest, version: Version, peer: Option<&Peer>) -> Style {
    let raw = request.raw;
    let takes_over = peer.is_some_and(|peer| peer.handover.is_some());
    Style {
        transport: request.transport,
        encoding: match request.transport {
            Transport::WebSocket => Encoding::WebSocket { raw },
            Transport::Sse => Encoding::Sse { raw },
            Transport::Ndjson => Encoding::Ndjson { raw },
            Transport::Poll => Encoding::Object,
        },
        framing: match takes_over && version == Version::HTTP_11 {
            true => Framing::Chunked,
            false => Framing::Plain,
        },
        many: request.transport == Transport::Sse && request.channels.len() > 1,
    }
}

fn stream(
    state: &State,
    peer: Option<&Peer>,
    session: Session,
    channels: Vec<CatchUp>,
    request: SubscribeRequest,
) -> Result<Response, Fault> {
    let encoding = session.outbox().style().encoding;
    let mut headers = HeaderMap::new();
    name(&mut headers, &session);
    let (status, protocol) = match (request.transport, &request.websocket) {
        (Transport::WebSocket, Some(handshake)) => {
            upgrade(&mut headers, handshake);
            websocket::open(&channels);
            let rate = state.config.limits.commands_per_second;
            (
                StatusCode::SWITCHING_PROTOCOLS,
                Protocol::WebSocket(websocket::Dialogue::new(request.raw, rate)),
            )
        }
        (Transport::Sse, _) => {
            streaming(&mut headers, "text/event-stream");
            sse::open(&session, &channels);
            (StatusCode::OK, Protocol::Sse)
        }
        _ => {
            if !says_gaps(encoding) {
                refuse_gaps(&channels)?;
            }
            streaming(&mut headers, "application/x-ndjson");
            ndjson::open(&channels);
            (StatusCode::OK, Protocol::Ndjson)
        }
    };
    let body = match peer.and_then(|peer| peer.handover.as_ref()) {
        Some(handover) => {
            if status == StatusCode::OK {
                headers.insert(header::CONNECTION, HeaderValue::from_static("close"));
            }
            handover.leave(Takeover::Stream(Box::new(Connection::new(session, protocol, channels))));
            Body::new(Hold)
        }
        None => {
            let body = OutboxBody::new(&state.gateway, session.outbox());
            tokio::spawn(Connection::new(session, protocol, channels).run());
            Body::new(body)
        }
    };
    let body = if status == StatusCode::OK { body } else { Body::empty() };
    Ok((status, headers, body).into_response())
}

/// Raw NDJSON has no line to say it with. What to come back with is for all channels of the request.
fn refuse_gaps(channels: &[CatchUp]) -> Result<(), Fault> {
    let gap =
        channels.iter().find_map(|channel| channel.page().start.gap.map(|gap| (channel.channel(), gap)));
    let Some((channel, gap)) = gap else {
        return Ok(());
    };
    let positions: Vec<String> = channels.iter().map(|c| c.page().start.after.to_string()).collect();
    let detail = format!(
        "messages of `{channel}` after {} are missing ({}); come back with since={}",
        gap.from,
        gap.reason.as_str(),
        positions.join(",")
    );
    Err(Fault::new(Code::InvalidSince, detail).parameter("since"))
}

fn name(headers: &mut HeaderMap, session: &Session) {
    if let Ok(id) = HeaderValue::from_str(&session.id().to_string()) {
        headers.insert(CONNECTION, id);
    }
}

fn streaming(headers: &mut HeaderMap, content_type: &'static str) {
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, no-transform"));
    headers.insert(HeaderName::from_static("x-accel-buffering"), HeaderValue::from_static("no"));
}

fn upgrade(headers: &mut HeaderMap, handshake: &Handshake) {
    headers.insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(header::UPGRADE, HeaderValue::from_static("websocket"));
    if let Ok(accept) = HeaderValue::from_str(&handshake.accept) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, accept);
    }
    if let Some(protocol) = handshake.protocol {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol));
    }
}

/// What a browser's EventSource is told instead of a 503: come back, after a delay of its own.
fn later() -> Response {
    let mut headers = HeaderMap::new();
    streaming(&mut headers, "text/event-stream");
    let id = crate::hub::ConnectionId::random().to_string();
    if let Ok(id) = HeaderValue::from_str(&id) {
        headers.insert(CONNECTION, id);
    }
    (headers, sse::come_back_later()).into_response()
}

//! How a fault looks on HTTP: the one place that knows which status a code has (RFC 9457).
//!
//! What is wrong is [`crate::fault`]'s to say; a WebSocket says the same codes without a status.

use axum::response::{IntoResponse, Response};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use serde::Serialize;

use crate::fault::{Code, Fault};

/// The media type of every problem.
pub const CONTENT_TYPE: HeaderValue = HeaderValue::from_static("application/problem+json");

/// Seconds within which clients that were told to come back are spread.
const RETRY_WITHIN: u64 = 4;

/// The document, in the order in which its fields are sent.
#[derive(Serialize)]
struct Problem<'a> {
    r#type: String,
    title: &'static str,
    status: u16,
    detail: &'a str,
    code: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    limit: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    position: Option<usize>,
    #[serde(skip_serializing_if = "Option::is_none")]
    parameter: Option<&'a str>,
}

/// The status of a code.
#[must_use]
pub fn status(code: Code) -> StatusCode {
    match code {
        Code::InvalidChannel
        | Code::ChannelRequired
        | Code::TooManyChannels
        | Code::DuplicateChannel
        | Code::InvalidSince
        | Code::UnknownParameter
        | Code::InvalidParameter
        | Code::InvalidJson
        | Code::InvalidBody
        | Code::InvalidHeader
        | Code::InvalidCommand
        | Code::AlreadySubscribed
        | Code::NotSubscribed => StatusCode::BAD_REQUEST,
        Code::Unauthorized | Code::TokenExpired => StatusCode::UNAUTHORIZED,
        Code::Forbidden | Code::OriginRefused => StatusCode::FORBIDDEN,
        Code::NotFound => StatusCode::NOT_FOUND,
        Code::MethodNotAllowed => StatusCode::METHOD_NOT_ALLOWED,
        Code::NotAcceptable => StatusCode::NOT_ACCEPTABLE,
        Code::Timeout => StatusCode::REQUEST_TIMEOUT,
        Code::MessageTooLarge | Code::BatchTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        Code::UnsupportedMediaType => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        Code::IdempotencyKeyReused => StatusCode::UNPROCESSABLE_ENTITY,
        Code::UpgradeRequired => StatusCode::UPGRADE_REQUIRED,
        Code::RateLimited => StatusCode::TOO_MANY_REQUESTS,
        Code::HeadersTooLarge => StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
        Code::Internal => StatusCode::INTERNAL_SERVER_ERROR,
        Code::TooManyConnections
        | Code::Overloaded
        | Code::BrokerUnavailable
        | Code::BrokerUncertain
        | Code::ShuttingDown => StatusCode::SERVICE_UNAVAILABLE,
    }
}

/// The fault as a problem document.
#[must_use]
pub fn to_json(fault: &Fault) -> String {
    let problem = Problem {
        r#type: format!("/problems/{}", fault.code.as_str()),
        title: fault.code.title(),
        status: status(fault.code).as_u16(),
        detail: &fault.detail,
        code: fault.code.as_str(),
        limit: fault.limit,
        position: fault.position,
        parameter: fault.parameter.as_deref(),
    };
    serde_json::to_string(&problem).unwrap_or_default()
}

/// A delay for `Retry-After`, in whole seconds, drawn for each answer so that clients do not come back at once.
#[must_use]
pub fn retry_after() -> HeaderValue {
    HeaderValue::from(fastrand::u64(1..=RETRY_WITHIN))
}

impl IntoResponse for Fault {
    fn into_response(self) -> Response {
        let status = status(self.code);
        let mut response = Response::new(to_json(&self).into());
        *response.status_mut() = status;
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, CONTENT_TYPE);
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
        advise(headers, status);
        response
    }
}

/// The headers that a status demands (RFC 9110, sections 10.2.3, 11.6.1 and 15.5.22).
fn advise(headers: &mut HeaderMap, status: StatusCode) {
    let mut say = |name: HeaderName, value: &'static str| {
        headers.insert(name, HeaderValue::from_static(value));
    };
    match status {
        // Most of the request may still be on its way; reading it only to keep the connection is not worth it.
        StatusCode::REQUEST_TIMEOUT
        | StatusCode::PAYLOAD_TOO_LARGE
        | StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE => say(header::CONNECTION, "close"),
        StatusCode::UNAUTHORIZED => say(header::WWW_AUTHENTICATE, "Bearer"),
        StatusCode::UPGRADE_REQUIRED => {
            say(header::SEC_WEBSOCKET_VERSION, "13");
            say(header::UPGRADE, "websocket");
            say(header::CONNECTION, "upgrade");
        }
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE => {
            headers.insert(header::RETRY_AFTER, retry_after());
        }
        _ => {}
    }
}

/// 405, with what the path does take.
#[must_use]
pub fn method_not_allowed(method: &http::Method, path: &str, allow: &'static str) -> Response {
    let detail = format!("{method} is not served at {path}; it takes {allow}");
    let mut response = Fault::new(Code::MethodNotAllowed, detail).into_response();
    let allow = HeaderValue::from_static(allow);
    response.headers_mut().insert(header::ALLOW, allow);
    response
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    /// The closed set of docs/problems.md.
    const TABLE: &[(u16, &str)] = &[
        (
            400,
            "invalid_channel channel_required too_many_channels duplicate_channel invalid_since unknown_parameter \
             invalid_parameter invalid_json invalid_body invalid_header invalid_command already_subscribed not_subscribed",
        ),
        (401, "unauthorized token_expired"),
        (403, "forbidden origin_refused"),
        (404, "not_found"),
        (405, "method_not_allowed"),
        (406, "not_acceptable"),
        (408, "timeout"),
        (413, "message_too_large batch_too_large"),
        (415, "unsupported_media_type"),
        (422, "idempotency_key_reused"),
        (426, "upgrade_required"),
        (429, "rate_limited"),
        (431, "headers_too_large"),
        (500, "internal"),
        (503, "too_many_connections overloaded broker_unavailable broker_uncertain shutting_down"),
    ];

    #[test]
    fn every_code_has_the_status_of_the_contract() {
        let written: HashSet<(u16, &str)> = TABLE
            .iter()
            .flat_map(|(status, codes)| codes.split_whitespace().map(|code| (*status, code)))
            .collect();
        let ours: HashSet<(u16, &str)> =
            Code::ALL.iter().map(|code| (status(*code).as_u16(), code.as_str())).collect();
        assert_eq!(ours, written);
        for code in Code::ALL {
            assert_eq!(code.is_the_servers(), status(*code).is_server_error(), "{code:?}");
        }
    }

    #[test]
    fn the_fields_stand_in_the_order_of_the_contract() {
        let fault = Fault::new(Code::InvalidChannel, "byte 1 is \"bad\"")
            .limit(200)
            .position(Some(1))
            .parameter("channel");
        assert_eq!(
            to_json(&fault),
            r#"{"type":"/problems/invalid_channel","title":"The channel name is not valid","status":400,"detail":"byte 1 is \"bad\"","code":"invalid_channel","limit":200,"position":1,"parameter":"channel"}"#
        );
        assert_eq!(
            to_json(&Fault::new(Code::NotFound, "no")),
            r#"{"type":"/problems/not_found","title":"There is nothing here","status":404,"detail":"no","code":"not_found"}"#
        );
    }

    #[test]
    fn every_problem_says_what_its_status_demands() {
        for code in Code::ALL {
            let response = Fault::new(*code, "").into_response();
            let said = |name: HeaderName| response.headers().get(name);
            assert_eq!(said(header::CONTENT_TYPE), Some(&CONTENT_TYPE));
            assert_eq!(said(header::CACHE_CONTROL).unwrap(), "no-store");
            let status = response.status().as_u16();
            let retry = said(header::RETRY_AFTER).map(|v| v.to_str().unwrap().parse::<u64>().unwrap());
            assert_eq!(retry.is_some_and(|s| (1..=RETRY_WITHIN).contains(&s)), [429, 503].contains(&status));
            assert_eq!(said(header::SEC_WEBSOCKET_VERSION).is_some(), status == 426);
            assert_eq!(said(header::WWW_AUTHENTICATE).is_some(), status == 401);
        }
    }

    #[test]
    fn a_wrong_method_hears_the_right_ones() {
        let response = method_not_allowed(&http::Method::PUT, "/v1/subscribe", "GET, OPTIONS");
        assert_eq!(response.status(), 405);
        assert_eq!(response.headers()[header::ALLOW], "GET, OPTIONS");
    }
}

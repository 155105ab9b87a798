//! Reading a request's body: within a bound, within a time, and into memory of its own.

use std::{pin::pin, time::Duration};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, header};
use http_body::Body as _;
use http_body_util::BodyExt;

use super::{headers, query::shown};
use crate::{
    fault::{Code, Fault},
    payload::{self, ContentType},
};

/// How much may come, and what is said where more does.
#[derive(Clone, Copy, Debug)]
pub struct Bound {
    /// Bytes that are read at most.
    pub bytes: usize,
    /// `message_too_large` or `batch_too_large`.
    pub code: Code,
    /// The limit that the client hears; less than `bytes` where a part of them will not count.
    pub limit: usize,
}

/// How the body is to be read.
///
/// # Errors
/// `unsupported_media_type` for a `Content-Encoding`, for a `Transfer-Encoding` that is not `chunked` alone, and
/// for a type that [`payload::content_type`] refuses; `invalid_header` where the type is given twice.
pub fn content_type(headers: &HeaderMap) -> Result<ContentType, Fault> {
    if let Some(encoding) = headers.get(header::CONTENT_ENCODING) {
        let detail = format!("Content-Encoding {encoding:?} is not supported; send the body as it is");
        return Err(Fault::new(Code::UnsupportedMediaType, detail).parameter("Content-Encoding"));
    }
    // hyper undoes the chunks, and would hand on what is inside as it is.
    let codings: Vec<&str> = headers::list(headers, header::TRANSFER_ENCODING).collect();
    if !codings.is_empty() && !matches!(codings[..], [one] if one.eq_ignore_ascii_case("chunked")) {
        let detail = format!("Transfer-Encoding {} is not supported, chunked is", shown(&codings.join(", ")));
        return Err(Fault::new(Code::UnsupportedMediaType, detail).parameter("Transfer-Encoding"));
    }
    payload::content_type(headers::single(headers, header::CONTENT_TYPE)?)
}

/// Refuses a body that does not say it is JSON; `curl -d` says of anything that it is a form.
///
/// # Errors
/// `unsupported_media_type`.
pub fn expect_json(headers: &HeaderMap) -> Result<(), Fault> {
    match content_type(headers)? {
        ContentType::Json | ContentType::Form => Ok(()),
        ContentType::Text | ContentType::Bytes => {
            let detail = "this takes JSON: send `Content-Type: application/json`";
            Err(Fault::new(Code::UnsupportedMediaType, detail).parameter("Content-Type"))
        }
    }
}

/// The whole body.
///
/// # Errors
/// The bound's code, at once where the declared length is over it; `timeout`; `invalid_body` where the body
/// breaks off.
pub async fn read(body: Body, bound: Bound, timeout: Duration) -> Result<Bytes, Fault> {
    match tokio::time::timeout(timeout, gather(body, bound)).await {
        Ok(read) => read,
        Err(_) => {
            let detail = format!("the body did not arrive within {timeout:?} (`limits.body_timeout`)");
            Err(Fault::new(Code::Timeout, detail))
        }
    }
}

async fn gather(body: Body, bound: Bound) -> Result<Bytes, Fault> {
    if body.size_hint().lower() > bound.bytes as u64 {
        return Err(too_large(bound));
    }
    let mut body = pin!(body);
    // Grows with what came, not with what was declared. The copy also lets go of the connection's read
    // buffer, which is far larger than most messages and would live as long as they do.
    let mut gathered = Vec::new();
    while let Some(frame) = body.frame().await {
        let frame =
            frame.map_err(|error| Fault::new(Code::InvalidBody, format!("the body broke off: {error}")))?;
        let Some(data) = frame.data_ref() else {
            continue;
        };
        if gathered.len() + data.len() > bound.bytes {
            return Err(too_large(bound));
        }
        gathered.extend_from_slice(data);
    }
    gathered.shrink_to_fit();
    Ok(gathered.into())
}

fn too_large(bound: Bound) -> Fault {
    let detail = format!("the body is larger than the {} bytes that are allowed", bound.limit);
    Fault::new(bound.code, detail).limit(bound.limit)
}

//! The client for browsers, served where it connects to: a page that may subscribe may load it.

use axum::response::{IntoResponse, Response};
use http::{HeaderValue, Uri, header};

use super::query;
use crate::fault::Fault;

const SCRIPT: &str = include_str!("client.js");

const TYPES: &str = include_str!("client.d.ts");

/// An hour: a page that was open for longer has loaded it long ago.
const CACHED: HeaderValue = HeaderValue::from_static("public, max-age=3600");

/// `GET /client.js`: an ES module.
///
/// # Errors
/// `unknown_parameter`.
pub async fn script(uri: Uri) -> Result<Response, Fault> {
    file(&uri, "text/javascript; charset=utf-8", SCRIPT)
}

/// `GET /client.d.ts`: its types.
///
/// # Errors
/// `unknown_parameter`.
pub async fn types(uri: Uri) -> Result<Response, Fault> {
    file(&uri, "text/plain; charset=utf-8", TYPES)
}

fn file(uri: &Uri, content_type: &'static str, text: &'static str) -> Result<Response, Fault> {
    query::refuse_all(uri.query())?;
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(content_type)),
        (header::CACHE_CONTROL, CACHED),
        // Without it a cache would give one page's permission to all, or the lack of it.
        (header::VARY, HeaderValue::from_static("Origin")),
    ];
    Ok((headers, text).into_response())
}

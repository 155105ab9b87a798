//! The size of a request's head.

use axum::extract::Request;

use crate::fault::{Code, Fault};

/// Holds a head to `limits.headers`. hyper is given more, since it would answer without a body.
///
/// # Errors
/// `headers_too_large`.
pub fn check_size(request: &Request, limit: usize) -> Result<(), Fault> {
    let size = size(request);
    if size <= limit {
        return Ok(());
    }
    let detail = format!("the request's head has {size} bytes, {limit} are allowed (`limits.headers`)");
    Err(Fault::new(Code::HeadersTooLarge, detail).limit(limit))
}

/// The bytes of the head as HTTP/1.1 writes it: request line, header lines, empty line.
fn size(request: &Request) -> usize {
    let uri = request.uri();
    let target = uri.path_and_query().map_or(0, |target| target.as_str().len())
        + uri.authority().map_or(0, |authority| authority.as_str().len());
    let line = request.method().as_str().len() + target + "  HTTP/1.1\r\n".len();
    let headers = request.headers().iter();
    let headers: usize =
        headers.map(|(name, value)| name.as_str().len() + value.len() + ": \r\n".len()).sum();
    line + headers + "\r\n".len()
}

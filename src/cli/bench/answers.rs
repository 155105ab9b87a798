//! Reads the server's HTTP answers: heads by httparse, bodies by `Content-Length`.

use std::ops::Range;

const MAX_HEADERS: usize = 64;

/// A status line and what the headers say of the body.
#[derive(Debug, PartialEq, Eq)]
pub struct Head {
    /// The status.
    pub status: u16,
    /// Bytes of the head.
    pub length: usize,
    /// What follows.
    pub body: Body,
}

/// How long a body is.
#[derive(Debug, PartialEq, Eq)]
pub enum Body {
    /// So many bytes, none where nothing is said.
    Length(usize),
    /// Chunks.
    Chunked,
}

/// The head at the beginning of `bytes`, once it is complete.
pub fn head(bytes: &[u8]) -> Result<Option<Head>, String> {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut response = httparse::Response::new(&mut headers);
    let length = match response.parse(bytes) {
        Ok(httparse::Status::Complete(length)) => length,
        Ok(httparse::Status::Partial) => return Ok(None),
        Err(error) => return Err(format!("no HTTP answer: {error}")),
    };
    let header = |name: &str| {
        let found = response.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name))?;
        std::str::from_utf8(found.value).ok()
    };
    let body = match header("transfer-encoding") {
        Some(_) => Body::Chunked,
        None => Body::Length(header("content-length").and_then(|length| length.parse().ok()).unwrap_or(0)),
    };
    Ok(Some(Head { status: response.code.unwrap_or(0), length, body }))
}

/// The status and the place of the body of a whole answer at the beginning of `bytes`, once it is complete.
pub fn document(bytes: &[u8]) -> Result<Option<(u16, Range<usize>)>, String> {
    let Some(head) = head(bytes)? else {
        return Ok(None);
    };
    let Body::Length(length) = head.body else {
        return Err("an answer without Content-Length".to_owned());
    };
    let end = head.length.saturating_add(length);
    Ok((bytes.len() >= end).then_some((head.status, head.length..end)))
}

/// An answer that was not hoped for, in one line.
pub fn unwanted(status: u16, body: &[u8]) -> String {
    let text: String = String::from_utf8_lossy(body).chars().take(200).collect();
    format!("answered {status}: {text}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_document_is_complete_with_its_last_byte() {
        let bytes = b"HTTP/1.1 202 Accepted\r\ncontent-length: 2\r\n\r\n{}HTTP";
        assert_eq!(document(bytes), Ok(Some((202, 44..46))));
        assert_eq!(document(&bytes[..45]), Ok(None));
        assert_eq!(document(&bytes[..20]), Ok(None));
    }

    #[test]
    fn a_stream_says_how_it_is_framed() {
        let bytes = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n";
        assert_eq!(head(bytes), Ok(Some(Head { status: 200, length: 47, body: Body::Chunked })));
        assert!(document(bytes).is_err());
        assert!(head(b"SSH-2.0-x\r\n\r\n").is_err());
    }
}

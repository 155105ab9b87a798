//! What is wrong with a head that a handler never hears of.
//!
//! It may say its body's length in two ways, which is how requests are smuggled past proxies (RFC 9112,
//! section 6.1): hyper takes `Transfer-Encoding`, removes `Content-Length` and closes after its answer. And
//! it may be larger than hyper takes, which hyper answers with a bare 414 or 431. This follows the bytes
//! beside hyper and decides nothing else; of requests that were sent ahead of an answer only the first is
//! followed, and the closing covers the rest.

const CONTENT_LENGTH: &[u8] = b"content-length:";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding:";

/// The longest request line: a longer target is none for the `http` crate, which counts in 16 bits.
const MAX_REQUEST_LINE: usize = 65_534;

/// The most fields that hyper has room for.
const MAX_FIELDS: usize = 100;

/// What is followed of a head: more than `limits.headers` allows by default, less than hyper takes.
const MAX_HEAD: usize = 192 * 1024;

/// Follows one head, in whatever pieces its bytes come.
#[derive(Debug, Default)]
pub struct HeadWatch {
    /// The beginning of the current line: as much of it as is told apart.
    line: [u8; TRANSFER_ENCODING.len()],
    len: usize,
    /// The bytes of the current line, and of the lines before it.
    line_bytes: usize,
    head_bytes: usize,
    /// The lines that are complete, the request line among them.
    lines: usize,
    has_ended: bool,
    /// Bytes came behind its end.
    has_more: bool,
    length: bool,
    encoding: bool,
    /// What comes may be the rest of a body that nobody read: nothing is made of its size.
    is_doubtful: bool,
    oversize: Option<Oversize>,
}

/// How a head is larger than can be read, whatever `limits.headers` says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Oversize {
    /// By its target, in effect.
    #[error("the request line has more than {MAX_REQUEST_LINE} bytes")]
    RequestLine,
    /// By their number.
    #[error("the request has more than {MAX_FIELDS} header fields")]
    Fields,
    /// By everything together.
    #[error("the request's head has more than {MAX_HEAD} bytes")]
    Head,
}

impl Oversize {
    /// How much there may be.
    #[must_use]
    pub fn limit(self) -> usize {
        match self {
            Self::RequestLine => MAX_REQUEST_LINE,
            Self::Fields => MAX_FIELDS,
            Self::Head => MAX_HEAD,
        }
    }
}

impl HeadWatch {
    /// Of a head that was not followed.
    #[must_use]
    pub fn unseen() -> Self {
        Self { has_ended: true, length: true, ..Self::default() }
    }

    /// Of the head after this one.
    #[must_use]
    pub fn next(&self) -> Self {
        Self { is_doubtful: self.length || self.encoding, ..Self::default() }
    }

    /// Takes the bytes that came; what follows on the end of the head is passed over.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.has_ended && self.oversize.is_none() {
            let end = memchr::memchr(b'\n', bytes);
            let line = &bytes[..end.unwrap_or(bytes.len())];
            let take = line.len().min(self.line.len() - self.len);
            self.line[self.len..self.len + take].copy_from_slice(&line[..take]);
            self.len += take;
            self.line_bytes += line.len();
            bytes = match end {
                Some(end) => &bytes[end + 1..],
                None => &[],
            };
            self.measure();
            if end.is_some() {
                self.end_line();
            }
        }
        self.has_more |= self.has_ended && bytes.iter().any(|byte| !b"\r\n".contains(byte));
    }

    /// Whether the next head has begun, as far as that can be told: where this one has no body.
    #[must_use]
    pub fn is_followed(&self) -> bool {
        self.has_more && !self.length && !self.encoding
    }

    /// Whether both were said so far.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        self.length && self.encoding
    }

    /// Whether it is larger than can be read, and how.
    #[must_use]
    pub fn oversize(&self) -> Option<Oversize> {
        self.oversize
    }

    fn measure(&mut self) {
        if self.is_doubtful {
            return;
        }
        // The request line and the empty one are no fields.
        let is_field = self.lines > MAX_FIELDS && !matches!(&self.line[..self.len], b"" | b"\r");
        if self.lines == 0 && self.line_bytes > MAX_REQUEST_LINE {
            self.oversize = Some(Oversize::RequestLine);
        } else if is_field {
            self.oversize = Some(Oversize::Fields);
        } else if self.head_bytes + self.line_bytes > MAX_HEAD {
            self.oversize = Some(Oversize::Head);
        }
    }

    fn end_line(&mut self) {
        let line = &self.line[..self.len];
        let says = |name: &[u8]| line.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name));
        match line {
            // Empty lines before a request are passed over (RFC 9112, section 2.2).
            b"" | b"\r" => self.has_ended = self.lines > 0,
            _ => {
                self.lines += 1;
                self.length |= says(CONTENT_LENGTH);
                self.encoding |= says(TRANSFER_ENCODING);
            }
        }
        self.len = 0;
        self.head_bytes += self.line_bytes + 1;
        self.line_bytes = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_are_found_in_whatever_pieces_they_come() {
        for (head, expected) in [
            ("POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", true),
            ("\r\nPOST / HTTP/1.1\ntransfer-encoding:chunked\nX: y\nCONTENT-LENGTH:5\n\n", true),
            ("POST / HTTP/1.1\r\nContent-Length: 5\r\n\r\nTransfer-Encoding: chunked\r\n\r\n", false),
            ("POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\nContent-Length: 5\r\n", false),
            ("POST / HTTP/1.1\r\nX-Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", false),
            ("GET /content-length: HTTP/1.1\r\nTransfer-Encodings: a\r\nTransfer-Encoding: b\r\n\r\n", false),
            ("POST / HTTP/1.1\r\nContent-Length: 5\r\nTransfer-Encoding", false),
        ] {
            for size in 1..=head.len() {
                let mut watch = HeadWatch::default();
                head.as_bytes().chunks(size).for_each(|piece| watch.feed(piece));
                assert_eq!(watch.is_ambiguous(), expected, "{head} in pieces of {size}");
            }
        }
    }

    #[test]
    fn the_next_head_is_seen_where_it_has_begun() {
        for (bytes, expected) in [
            ("GET / HTTP/1.1\r\n\r\n", false),
            ("GET / HTTP/1.1\r\n\r\n\r\n", false),
            ("GET / HTTP/1.1\r\n\r\nG", true),
            ("POST / HTTP/1.1\r\nContent-Length: 1\r\n\r\nG", false),
        ] {
            for size in 1..=bytes.len() {
                let mut watch = HeadWatch::default();
                bytes.as_bytes().chunks(size).for_each(|piece| watch.feed(piece));
                assert_eq!(watch.is_followed(), expected, "{bytes} in pieces of {size}");
            }
        }
    }

    #[test]
    fn what_is_too_large_is_found_before_it_is_complete() {
        let fields = |count: usize| {
            let lines: String = (0..count).map(|n| format!("x{n}: y\r\n")).collect();
            format!("GET / HTTP/1.1\r\n{lines}\r\nand: a body\r\n")
        };
        for (head, expected) in [
            (fields(100), None),
            (fields(101), Some(Oversize::Fields)),
            (format!("GET /{}", "x".repeat(65_529)), None),
            (format!("GET /{}", "x".repeat(65_530)), Some(Oversize::RequestLine)),
            (format!("GET / HTTP/1.1\r\nx: {}", "x".repeat(190_000)), None),
            (format!("GET / HTTP/1.1\r\nx: {}", "x".repeat(200_000)), Some(Oversize::Head)),
            (format!("GET / HTTP/1.1\r\n\r\n{}", "x".repeat(200_000)), None),
        ] {
            for size in [1, 7, 4096, head.len()] {
                let mut watch = HeadWatch::default();
                head.as_bytes().chunks(size).for_each(|piece| watch.feed(piece));
                assert_eq!(watch.oversize(), expected, "{} bytes in pieces of {size}", head.len());
            }
        }
    }
}

//! Whether a head says its body's length in two ways, which is how requests are smuggled past proxies
//! (RFC 9112, section 6.1).
//!
//! hyper takes `Transfer-Encoding`, removes `Content-Length` and closes after its answer, so that a handler
//! cannot see that both were there. This follows the bytes beside hyper and decides nothing but that; of
//! requests that were sent ahead of an answer only the first is followed, and the closing covers the rest.

const CONTENT_LENGTH: &[u8] = b"content-length:";
const TRANSFER_ENCODING: &[u8] = b"transfer-encoding:";

/// Follows one head, in whatever pieces its bytes come.
#[derive(Debug, Default)]
pub struct HeadWatch {
    /// The beginning of the current line: as much of it as is told apart.
    line: [u8; TRANSFER_ENCODING.len()],
    len: usize,
    has_begun: bool,
    has_ended: bool,
    length: bool,
    encoding: bool,
}

impl HeadWatch {
    /// Takes the bytes that came; what follows on the end of the head is passed over.
    pub fn feed(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() && !self.has_ended {
            let end = memchr::memchr(b'\n', bytes);
            let line = &bytes[..end.unwrap_or(bytes.len())];
            let take = line.len().min(self.line.len() - self.len);
            self.line[self.len..self.len + take].copy_from_slice(&line[..take]);
            self.len += take;
            bytes = match end {
                Some(end) => &bytes[end + 1..],
                None => &[],
            };
            if end.is_some() {
                self.end_line();
            }
        }
    }

    /// Whether both were said so far.
    #[must_use]
    pub fn is_ambiguous(&self) -> bool {
        self.length && self.encoding
    }

    fn end_line(&mut self) {
        let line = &self.line[..self.len];
        let says = |name: &[u8]| line.get(..name.len()).is_some_and(|begin| begin.eq_ignore_ascii_case(name));
        match line {
            // Empty lines before a request are passed over (RFC 9112, section 2.2).
            b"" | b"\r" => self.has_ended = self.has_begun,
            _ => {
                self.has_begun = true;
                self.length |= says(CONTENT_LENGTH);
                self.encoding |= says(TRANSFER_ENCODING);
            }
        }
        self.len = 0;
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
}

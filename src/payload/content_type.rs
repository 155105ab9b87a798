//! What a `Content-Type` (RFC 9110 section 8.3) says about a body.

use bytes::Bytes;

use crate::{
    fault::{Code, Fault},
    publication::Payload,
};

/// How a body is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ContentType {
    /// `application/json` and `*+json`.
    Json,
    /// `text/*`.
    Text,
    /// `application/x-www-form-urlencoded`, which is what `curl -d` says of anything.
    Form,
    /// Everything else.
    Bytes,
}

impl ContentType {
    /// A body of this type as a payload.
    ///
    /// # Errors
    /// Those of [`json`](super::json()), [`text`](super::text) and [`form`](super::form).
    pub fn payload(self, body: Bytes) -> Result<Payload, Fault> {
        match self {
            Self::Json => super::json(body),
            Self::Text => super::text(body),
            Self::Form => super::form(body),
            Self::Bytes => Ok(super::binary(body)),
        }
    }
}

/// Reads a `Content-Type`; a body without one is bytes.
///
/// # Errors
/// `unsupported_media_type` where it is malformed, or names a `charset` other than UTF-8 for JSON or text.
pub fn content_type(value: Option<&str>) -> Result<ContentType, Fault> {
    let Some(value) = value else {
        return Ok(ContentType::Bytes);
    };
    let refuse = |why: &str| {
        Fault::new(Code::UnsupportedMediaType, format!("Content-Type `{value}` {why}"))
            .parameter("Content-Type")
    };
    let malformed =
        || refuse("is malformed; expected `type/subtype`, and after `;` parameters as `name=value`");
    let (essence, parameters) = value.split_once(';').unwrap_or((value, ""));
    let (kind, subtype) = essence.trim_matches(SPACE).split_once('/').ok_or_else(malformed)?;
    if !is_token(kind) || !is_token(subtype) {
        return Err(malformed());
    }
    let content_type = classify(&kind.to_ascii_lowercase(), &subtype.to_ascii_lowercase());
    let utf8 = charset_is_utf8(parameters).ok_or_else(malformed)?;
    if !utf8 && matches!(content_type, ContentType::Json | ContentType::Text) {
        return Err(refuse("names a charset other than UTF-8"));
    }
    Ok(content_type)
}

/// Optional white space.
const SPACE: [char; 2] = [' ', '\t'];

fn classify(kind: &str, subtype: &str) -> ContentType {
    match (kind, subtype) {
        ("application", "json") => ContentType::Json,
        ("application", "x-www-form-urlencoded") => ContentType::Form,
        (_, subtype) if subtype.ends_with("+json") => ContentType::Json,
        ("text", _) => ContentType::Text,
        _ => ContentType::Bytes,
    }
}

/// Whether `charset` is UTF-8 or not given; `None` where the parameters are malformed.
fn charset_is_utf8(mut rest: &str) -> Option<bool> {
    let mut utf8 = true;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ';']);
        if rest.is_empty() {
            return Some(utf8);
        }
        let (name, after) = rest.split_once('=')?;
        let (value, after) = match after.strip_prefix('"') {
            Some(quoted) => unquote(quoted)?,
            None => {
                let end = after.find([' ', '\t', ';']).unwrap_or(after.len());
                let (value, after) = after.split_at(end);
                is_token(value).then(|| (value.to_owned(), after))?
            }
        };
        rest = after.trim_start_matches(SPACE);
        if !is_token(name) || !(rest.is_empty() || rest.starts_with(';')) {
            return None;
        }
        if name.eq_ignore_ascii_case("charset") {
            utf8 &= matches!(value.to_ascii_lowercase().as_str(), "utf-8" | "utf8");
        }
    }
}

/// A quoted string (RFC 9110 section 5.6.4) behind its first quote, and what follows it.
fn unquote(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut characters = text.char_indices();
    while let Some((at, c)) = characters.next() {
        match c {
            '"' => return Some((value, &text[at + 1..])),
            '\\' => value.push(characters.next()?.1),
            c => value.push(c),
        }
    }
    None
}

/// A token (RFC 9110 section 5.6.2).
fn is_token(text: &str) -> bool {
    let fine = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_type_decides_how_a_body_is_read() {
        for (value, expected) in [
            ("application/json", ContentType::Json),
            ("Application/JSON; Charset=\"UTF-8\"", ContentType::Json),
            ("application/cloudevents+json ; charset=utf-8", ContentType::Json),
            ("text/vnd.x+json", ContentType::Json),
            ("application/json;", ContentType::Json),
            ("application/json; ; profile=\"a;\\\"b=c\";charset=utf8", ContentType::Json),
            ("text/plain", ContentType::Text),
            ("text/plain;charset=utf-8", ContentType::Text),
            ("TEXT/HTML", ContentType::Text),
            ("application/x-www-form-urlencoded; charset=latin1", ContentType::Form),
            ("multipart/form-data; boundary=x", ContentType::Bytes),
            ("application/octet-stream", ContentType::Bytes),
            ("image/png; charset=latin1", ContentType::Bytes),
            ("application/jsonx", ContentType::Bytes),
        ] {
            assert_eq!(content_type(Some(value)), Ok(expected), "{value}");
        }
        assert_eq!(content_type(None), Ok(ContentType::Bytes));
    }

    #[test]
    fn malformed_types_and_other_charsets_are_unsupported() {
        for value in [
            "",
            "json",
            "/",
            "text/",
            "/plain",
            "text/plain/x",
            "te xt/plain",
            "text/plain; charset",
            "text/plain; =utf-8",
            "text/plain; charset=",
            "text/plain; charset =utf-8",
            "text/plain; charset=\"utf-8",
            "text/plain; charset=\"utf-8\"x",
            "text/plain; charset=utf-8 x",
            "text/plain, text/html",
            "text/plain; charset=latin1",
            "application/json; charset=utf-16",
            "application/json; charset=utf-8; charset=latin1",
            "application/json; charset=latin1; charset=utf-8",
            "application/json; charset=\"\"",
            "a/b+json; charset='utf-8'",
        ] {
            let fault = content_type(Some(value)).unwrap_err();
            assert_eq!(fault.code, Code::UnsupportedMediaType, "{value}");
        }
    }
}

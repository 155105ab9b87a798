//! Reading request headers: those that may stand once, and those that are lists.

use http::{HeaderMap, HeaderName};

use crate::fault::{Code, Fault};

/// The value of a header that may be given once.
///
/// # Errors
/// `invalid_header` where it is given twice, or is not UTF-8.
pub fn single(headers: &HeaderMap, name: impl Into<HeaderName>) -> Result<Option<&str>, Fault> {
    let name = name.into();
    let mut values = headers.get_all(&name).iter();
    let Some(value) = values.next() else {
        return Ok(None);
    };
    if values.next().is_some() {
        return Err(invalid(&name, "is given more than once"));
    }
    match std::str::from_utf8(value.as_bytes()) {
        Ok(text) => Ok(Some(text)),
        Err(_) => Err(invalid(&name, "is not UTF-8")),
    }
}

/// The elements of a header that is a list, over all its lines (RFC 9110, section 5.6.1).
pub fn list(headers: &HeaderMap, name: impl Into<HeaderName>) -> impl Iterator<Item = &str> {
    let lines = headers.get_all(name.into());
    let texts = lines.into_iter().filter_map(|line| std::str::from_utf8(line.as_bytes()).ok());
    texts.flat_map(|text| text.split(',')).map(str::trim).filter(|element| !element.is_empty())
}

/// The credential of an `Authorization: Bearer …` (RFC 6750, section 2.1).
#[must_use]
pub fn bearer(value: &str) -> Option<&str> {
    let (scheme, credential) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| credential.trim())
}

/// A header that is not what it must be; `what` follows on its name.
#[must_use]
pub fn invalid(name: &HeaderName, what: &str) -> Fault {
    Fault::new(Code::InvalidHeader, format!("the header `{name}` {what}")).parameter(name.as_str())
}

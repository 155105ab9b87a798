//! Query strings and percent-encoding, read by hand so that each bad byte has its name and its place.
//!
//! What a parameter means is its reader's matter; here it is split, decoded, and refused where nobody
//! knows it or where it is given twice.

use std::borrow::Cow;

use http::Uri;

use crate::{
    channel::{Channel, ChannelError, MAX_LEN},
    fault::{Code, Fault},
};

/// Longer values are cut where a fault shows them: an answer must not grow with what was sent.
const SHOWN: usize = 64;

/// The parameters of a request, decoded, each of them known.
#[derive(Debug)]
pub struct Query<'a>(Vec<(Cow<'a, str>, Cow<'a, str>)>);

/// Percent-encoding that is broken, or that hides what is not UTF-8, and the byte where it begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct BadEncoding(usize);

impl<'a> Query<'a> {
    /// Splits and decodes; refuses what is not in `known`.
    ///
    /// # Errors
    /// `invalid_parameter` for a broken encoding, `unknown_parameter` with the nearest known name.
    pub fn parse(query: Option<&'a str>, known: &[&str]) -> Result<Self, Fault> {
        let Some(query) = query else {
            return Ok(Self(Vec::new()));
        };
        let mut pairs = Vec::new();
        let mut rest = query;
        while !rest.is_empty() {
            let pair;
            (pair, rest) = split(rest, b'&');
            if pair.is_empty() {
                continue;
            }
            let (raw_name, raw_value) = split(pair, b'=');
            let name = decode(raw_name, true).map_err(|bad| broken(raw_name, bad))?;
            if !known.contains(&name.as_ref()) {
                return Err(unknown(&name, known));
            }
            let value = decode(raw_value, true).map_err(|bad| broken(&name, bad))?;
            pairs.push((name, value));
        }
        Ok(Self(pairs))
    }

    /// The value of a parameter that may be given once.
    ///
    /// # Errors
    /// `invalid_parameter` where it is given twice.
    pub fn one(&self, name: &str) -> Result<Option<&str>, Fault> {
        let mut values = self.all(name);
        let first = values.next();
        match values.next() {
            None => Ok(first),
            Some(_) => Err(invalid(name, format!("`{name}` is given more than once"))),
        }
    }

    /// The values of a parameter that may be repeated, in their order.
    pub fn all(&self, name: &str) -> impl Iterator<Item = &str> {
        self.0.iter().filter(move |(given, _)| given == name).map(|(_, value)| value.as_ref())
    }

    /// A number from `range`; `None` where the parameter is absent.
    ///
    /// # Errors
    /// `invalid_parameter` where it is no decimal number, or outside, or given twice.
    pub fn number(&self, name: &str, range: std::ops::RangeInclusive<u64>) -> Result<Option<u64>, Fault> {
        let Some(text) = self.one(name)? else {
            return Ok(None);
        };
        // `parse` alone would take a sign.
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        let number = text.parse().ok().filter(|n| digits && range.contains(n));
        number.map(Some).ok_or_else(|| {
            let (low, high) = range.into_inner();
            invalid(name, format!("`{name}` is a number from {low} to {high}, not {}", shown(text)))
        })
    }
}

/// Refuses every parameter: for paths that take none.
///
/// # Errors
/// `unknown_parameter`.
pub fn refuse_all(query: Option<&str>) -> Result<(), Fault> {
    Query::parse(query, &[]).map(drop)
}

/// The channel in a path below `/v1/channels/`.
///
/// # Errors
/// `invalid_channel`, for a broken encoding too.
pub fn channel_of_path(uri: &Uri) -> Result<Channel, Fault> {
    let (segment, _) = split(uri.path().strip_prefix("/v1/channels/").unwrap_or_default(), b'/');
    let name = decode(segment, false).map_err(|BadEncoding(at)| {
        let detail =
            format!("the percent-encoding of the channel name {} is broken at byte {at}", shown(segment));
        Fault::new(Code::InvalidChannel, detail).position(Some(at)).parameter("channel")
    })?;
    channel(&name)
}

/// The channel that a decoded text names.
///
/// # Errors
/// `invalid_channel`, with the byte.
pub fn channel(name: &str) -> Result<Channel, Fault> {
    name.parse::<Channel>().map_err(|error| {
        let fault = Fault::from(error.clone()).parameter("channel");
        let fault = match error {
            ChannelError::TooLong(_) => fault.limit(MAX_LEN),
            _ => fault,
        };
        Fault { detail: format!("{} names no channel: {}", shown(name), fault.detail), ..fault }
    })
}

/// A text as a fault shows it: quoted, escaped, and cut.
#[must_use]
pub fn shown(text: &str) -> String {
    let beginning = cut(text);
    let more = if beginning.len() < text.len() { "…" } else { "" };
    format!("{beginning:?}{more}")
}

/// As much of a text as is worth repeating.
fn cut(text: &str) -> &str {
    text.char_indices().nth(SHOWN).map_or(text, |(end, _)| &text[..end])
}

/// A parameter that is not what it must be.
#[must_use]
pub fn invalid(name: &str, detail: String) -> Fault {
    Fault::new(Code::InvalidParameter, detail).parameter(cut(name))
}

fn broken(name: &str, BadEncoding(at): BadEncoding) -> Fault {
    let detail = format!("the percent-encoding of the parameter {} is broken at byte {at}", shown(name));
    invalid(name, detail).position(Some(at))
}

fn unknown(name: &str, known: &[&str]) -> Fault {
    let typed = cut(name).to_ascii_lowercase();
    let distance = |candidate: &&&str| strsim::damerau_levenshtein(&typed, &candidate.to_ascii_lowercase());
    // `_`, the cache breaker of old libraries, is known but advised to nobody.
    let candidates = known.iter().filter(|candidate| **candidate != "_");
    let advice = match candidates.min_by_key(distance) {
        Some(nearest) => format!("the nearest known here is `{nearest}`"),
        None => "none is known here".to_owned(),
    };
    let detail = format!("the parameter {} is not known; {advice}", shown(name));
    Fault::new(Code::UnknownParameter, detail).parameter(cut(name))
}

/// What stands before and behind the first `separator`. (`str::split` calls a search for each that is made for longer
/// texts than these.)
fn split(text: &str, separator: u8) -> (&str, &str) {
    match text.bytes().position(|byte| byte == separator) {
        Some(at) => (&text[..at], &text[at + 1..]),
        None => (text, ""),
    }
}

/// Undoes percent-encoding, and `+` for a space where `form`, as query strings have it.
fn decode(text: &str, form: bool) -> Result<Cow<'_, str>, BadEncoding> {
    let is_plain = |b: u8| b != b'%' && !(form && b == b'+');
    if text.bytes().all(is_plain) {
        return Ok(Cow::Borrowed(text));
    }
    let bytes = text.as_bytes();
    let mut decoded = Vec::with_capacity(bytes.len());
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            b'%' => {
                decoded.push(hex_pair(bytes.get(at + 1..at + 3)).ok_or(BadEncoding(at))?);
                at += 2;
            }
            b'+' if form => decoded.push(b' '),
            byte => decoded.push(byte),
        }
        at += 1;
    }
    String::from_utf8(decoded).map(Cow::Owned).map_err(|error| BadEncoding(error.utf8_error().valid_up_to()))
}

fn hex_pair(pair: Option<&[u8]>) -> Option<u8> {
    let digit = |b: u8| char::from(b).to_digit(16);
    let &[high, low] = pair? else { return None };
    u8::try_from(digit(high)? * 16 + digit(low)?).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KNOWN: &[&str] = &["channel", "since", "transport", "limit", "lastEventId"];

    #[test]
    fn parameters_are_split_and_decoded() {
        for (query, name, values) in [
            ("channel=a&channel=b", "channel", vec!["a", "b"]),
            ("channel=a%3Ab&&since=", "channel", vec!["a:b"]),
            ("since=a+b%2Bc", "since", vec!["a b+c"]),
            ("since", "since", vec![""]),
            ("since=a=b", "since", vec!["a=b"]),
            ("s%69nce=%E2%82%AC", "since", vec!["€"]),
            ("", "since", vec![]),
        ] {
            let parsed = Query::parse(Some(query), KNOWN).unwrap();
            assert_eq!(parsed.all(name).collect::<Vec<_>>(), values, "{query}");
        }
    }

    #[test]
    fn broken_encodings_name_the_parameter_and_the_byte() {
        for (query, name, at) in [
            ("since=%", "since", 0),
            ("since=ab%4", "since", 2),
            ("since=%zz", "since", 0),
            ("since=%+1", "since", 0),
            ("since=a%FFb", "since", 1),
            ("since=%C3%28", "since", 0),
            ("since=%ED%A0%80", "since", 0),
            ("%zz=1", "%zz", 0),
        ] {
            let fault = Query::parse(Some(query), KNOWN).unwrap_err();
            assert_eq!(fault.code, Code::InvalidParameter, "{query}");
            assert_eq!((fault.parameter.as_deref(), fault.position), (Some(name), Some(at)), "{query}");
        }
    }

    #[test]
    fn an_unknown_parameter_hears_the_nearest() {
        for (name, nearest) in [
            ("chanel", "channel"),
            ("channels", "channel"),
            ("Since", "since"),
            ("last_event_id", "lastEventId"),
            ("transports", "transport"),
            ("", "since"),
        ] {
            let fault = Query::parse(Some(&format!("{name}=1")), KNOWN).unwrap_err();
            assert_eq!(fault.code, Code::UnknownParameter);
            assert_eq!(fault.parameter.as_deref(), Some(name));
            assert!(fault.detail.ends_with(&format!("nearest known here is `{nearest}`")), "{fault}");
        }
        let long = "x".repeat(60_000);
        let fault = refuse_all(Some(&long)).unwrap_err();
        assert!(fault.to_string().len() < 200 && fault.parameter.is_some_and(|name| name.len() == SHOWN));
    }

    #[test]
    fn once_is_once_and_numbers_are_in_their_range() {
        let parsed = |query| Query::parse(Some(query), KNOWN).unwrap();
        assert_eq!(parsed("limit=7").number("limit", 1..=1000), Ok(Some(7)));
        assert_eq!(parsed("").number("limit", 1..=1000), Ok(None));
        for bad in [
            "limit=",
            "limit=0",
            "limit=1001",
            "limit=%2B1",
            "limit=-1",
            "limit=1.0",
            "limit=99999999999999999999",
        ] {
            let fault = parsed(bad).number("limit", 1..=1000).unwrap_err();
            assert_eq!(
                (fault.code, fault.parameter.as_deref()),
                (Code::InvalidParameter, Some("limit")),
                "{bad}"
            );
        }
        assert_eq!(parsed("limit=1&limit=1").one("limit").unwrap_err().code, Code::InvalidParameter);
    }

    #[test]
    fn a_path_names_its_channel() {
        let of_path =
            |segment: &str| channel_of_path(&format!("/v1/channels/{segment}/messages").parse().unwrap());
        assert_eq!(of_path("a%3Ab").unwrap().as_str(), "a:b");
        for (segment, at) in
            [("a+b", 1), ("a%2Fb", 1), ("a%", 1), ("%C3", 0), ("a%00", 1), ("..", 0), ("caf%C3%A9", 3)]
        {
            let fault = of_path(segment).unwrap_err();
            assert_eq!((fault.code, fault.position), (Code::InvalidChannel, Some(at)), "{segment}");
        }
    }
}

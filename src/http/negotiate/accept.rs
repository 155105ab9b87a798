//! `Accept`: which of the three transports that need no upgrade a client prefers.

use std::cmp::Reverse;

use http::{HeaderMap, header};

use crate::{
    fault::{Code, Fault},
    http::{headers, query::shown},
    transport_name::Transport,
};

/// What each range stands for, and how specific it is. A wildcard stands for one transport only: clients
/// that say `*/*` (curl, fetch) want a plain answer, not a stream.
const RANGES: &[(&str, Transport, u8)] = &[
    ("text/event-stream", Transport::Sse, 2),
    ("application/x-ndjson", Transport::Ndjson, 2),
    ("application/json", Transport::Poll, 2),
    ("text/*", Transport::Sse, 1),
    ("application/*", Transport::Poll, 1),
    ("*/*", Transport::Poll, 0),
    // Older Java clients abbreviate it.
    ("*", Transport::Poll, 0),
];

/// In this order where a client likes several alike.
const ORDER: [Transport; 3] = [Transport::Sse, Transport::Ndjson, Transport::Poll];

/// How much a client wants a transport.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Preference {
    /// Thousandths.
    quality: u16,
    specificity: u8,
}

/// The transport by `Accept`; a poll where the header is absent or empty.
///
/// # Errors
/// `not_acceptable`.
pub(super) fn transport(headers: &HeaderMap) -> Result<Transport, Fault> {
    let mut wanted: [Option<Preference>; 3] = [None; 3];
    let mut is_absent = true;
    for element in headers::list(headers, header::ACCEPT) {
        is_absent = false;
        let Some((transport, preference)) = preference(element) else {
            continue;
        };
        for (candidate, best) in ORDER.iter().zip(&mut wanted) {
            // The most specific range decides about a transport (RFC 9110, section 12.5.1), so that
            // `application/json;q=0` is a refusal beside `*/*`.
            let rank = |p: &Preference| (p.specificity, p.quality);
            if *candidate == transport && best.is_none_or(|best| rank(&preference) > rank(&best)) {
                *best = Some(preference);
            }
        }
    }
    if is_absent {
        return Ok(Transport::Poll);
    }
    let acceptable = ORDER.into_iter().zip(wanted).filter_map(|(transport, preference)| {
        let preference = preference.filter(|p| p.quality > 0)?;
        Some((transport, preference))
    });
    // `min_by_key` keeps the first of equals.
    let best = acceptable.min_by_key(|(_, preference)| Reverse(*preference));
    best.map(|(transport, _)| transport).ok_or_else(|| refused(headers))
}

/// What one element of the list asks for; `None` where it is none of ours, or malformed.
fn preference(element: &str) -> Option<(Transport, Preference)> {
    let mut parts = element.split(';').map(str::trim);
    let range = parts.next()?;
    let (_, transport, specificity) = RANGES.iter().find(|(name, ..)| name.eq_ignore_ascii_case(range))?;
    let quality = parts.find_map(|parameter| {
        let (name, value) = parameter.split_once('=')?;
        name.trim().eq_ignore_ascii_case("q").then(|| thousandths(value.trim()))
    });
    let preference = Preference { quality: quality.unwrap_or(Some(1000))?, specificity: *specificity };
    Some((*transport, preference))
}

/// A weight from 0 to 1; without the leading zero too, as Java writes it.
fn thousandths(text: &str) -> Option<u16> {
    let weight = text.parse::<f32>().ok().filter(|weight| (0.0..=1.0).contains(weight))?;
    Some((weight * 1000.0).round() as u16)
}

fn refused(headers: &HeaderMap) -> Fault {
    let accept = headers::list(headers, header::ACCEPT).collect::<Vec<_>>().join(", ");
    let detail = format!(
        "nothing in `Accept: {}` is served here: text/event-stream, application/x-ndjson and application/json are",
        shown(&accept).trim_matches('"')
    );
    Fault::new(Code::NotAcceptable, detail).parameter("accept")
}

//! Of which trace a publish is a part, as W3C Trace Context writes it (version 00): 55 characters in the header
//! `traceparent`, and on the way through Redis.

use std::{fmt, str::FromStr};

/// A span of a trace, elsewhere or here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TraceParent {
    /// The trace.
    pub trace: [u8; 16],
    /// The span in it.
    pub span: [u8; 8],
    /// Whether somebody records the trace.
    pub sampled: bool,
}

/// A text that is no trace parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a trace parent is 00-<32 hex digits>-<16 hex digits>-<2 hex digits>")]
pub struct TraceParentError;

impl FromStr for TraceParent {
    type Err = TraceParentError;

    /// Of a later version what this one has is read (section 4.3.1).
    fn from_str(text: &str) -> Result<Self, TraceParentError> {
        let fields = |text: &str| {
            let (version, rest) = text.split_once('-')?;
            let (trace, rest) = rest.split_once('-')?;
            let (span, rest) = rest.split_once('-')?;
            let (flags, more) =
                rest.split_once('-').map_or((rest, None), |(flags, more)| (flags, Some(more)));
            let [version] = hex(version)?;
            let [flags] = hex(flags)?;
            let parent = Self { trace: hex(trace)?, span: hex(span)?, sampled: flags & 1 == 1 };
            let is_known = version != 0xff && (version != 0 || more.is_none());
            (is_known && parent.trace != [0; 16] && parent.span != [0; 8]).then_some(parent)
        };
        fields(text).ok_or(TraceParentError)
    }
}

/// Lowercase digits alone.
fn hex<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.as_bytes();
    let mut bytes = [0; N];
    if digits.len() != 2 * N {
        return None;
    }
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        for digit in pair {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return None,
            };
            *byte = *byte << 4 | value;
        }
    }
    Some(bytes)
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("00-")?;
        self.trace.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        f.write_str("-")?;
        self.span.iter().try_for_each(|byte| write!(f, "{byte:02x}"))?;
        write!(f, "-{:02x}", u8::from(self.sampled))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";

    #[test]
    fn what_is_read_is_written() {
        for (flags, sampled, written) in
            [("00", false, "00"), ("01", true, "01"), ("03", true, "01"), ("fe", false, "00")]
        {
            let parent: TraceParent = format!("00-{TRACE}-{SPAN}-{flags}").parse().unwrap();
            assert_eq!(parent.sampled, sampled, "{flags}");
            assert_eq!(parent.to_string(), format!("00-{TRACE}-{SPAN}-{written}"));
        }
        let later = format!("01-{TRACE}-{SPAN}-01");
        assert_eq!(later.parse(), format!("{later}-more").parse::<TraceParent>());
        assert!(later.parse::<TraceParent>().is_ok());
    }

    #[test]
    fn what_is_none_is_told() {
        let zeros = "0".repeat(32);
        for text in [
            String::new(),
            "a".into(),
            format!("00-{TRACE}-{SPAN}"),
            format!("00-{TRACE}-{SPAN}-"),
            format!("00-{TRACE}-{SPAN}-1"),
            format!("00-{TRACE}-{SPAN}-001"),
            format!("00-{TRACE}-{SPAN}-01-"),
            format!("00-{TRACE}-{SPAN}-01-more"),
            format!("ff-{TRACE}-{SPAN}-01"),
            format!("0-{TRACE}-{SPAN}-01"),
            format!("00-{zeros}-{SPAN}-01"),
            format!("00-{TRACE}-{}-01", &zeros[..16]),
            format!("00-{}-{SPAN}-01", TRACE.to_uppercase()),
            format!("00-{}-{SPAN}-01", &TRACE[1..]),
            format!("00-{TRACE}-{}z-01", &SPAN[1..]),
            format!("00-{TRACE}-+{}-01", &SPAN[1..]),
            format!("00 {TRACE} {SPAN} 01"),
            format!(" 00-{TRACE}-{SPAN}-01"),
        ] {
            assert_eq!(text.parse::<TraceParent>(), Err(TraceParentError), "{text:?}");
        }
    }
}

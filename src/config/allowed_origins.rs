//! Which browser pages may connect, as `public.allowed_origins` says.
//!
//! Only the list is read here; how a request's `Origin` and `Host` are judged is the edge's matter.

use std::net::Ipv6Addr;

/// The pages that may connect to the public listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AllowedOrigins {
    /// The list is empty: the request's own host, and loopback to loopback.
    SameHost,
    /// `*`: every page.
    Any,
    /// These alone, as browsers write them: lowercase, without the scheme's default port.
    Exact(Vec<String>),
}

impl AllowedOrigins {
    pub(super) fn parse(list: &[String]) -> Result<Self, String> {
        match list {
            [] => Ok(Self::SameHost),
            [any] if any == "*" => Ok(Self::Any),
            many if many.iter().any(|origin| origin == "*") => {
                Err("has \"*\" beside others: write \"*\" alone to serve every page".into())
            }
            many => many.iter().map(|origin| normal(origin)).collect::<Result<_, _>>().map(Self::Exact),
        }
    }
}

/// The origin as a browser writes it (RFC 6454, section 6.2).
fn normal(text: &str) -> Result<String, String> {
    parts(text)
        .map(|(scheme, host, port)| match (scheme.as_str(), port) {
            (_, None) | ("http", Some(80)) | ("https", Some(443)) => format!("{scheme}://{host}"),
            (_, Some(port)) => format!("{scheme}://{host}:{port}"),
        })
        .ok_or_else(|| {
            format!(
                "has {text:?}, which is not an origin: write scheme://host or scheme://host:port \
                 without a path, as in \"https://app.example.org\", or \"*\" alone"
            )
        })
}

fn parts(text: &str) -> Option<(String, String, Option<u16>)> {
    let text = text.to_ascii_lowercase();
    let (scheme, authority) = text.split_once("://")?;
    let scheme_is_good = scheme.starts_with(|c: char| c.is_ascii_lowercase())
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(&b));
    // The colons of an IPv6 address stand before its bracket.
    let (host, port) = match authority.rsplit_once(':') {
        Some((host, port)) if !port.ends_with(']') => (host, Some(number(port)?)),
        _ => (authority, None),
    };
    let host = match host.strip_prefix('[') {
        Some(rest) => format!("[{}]", rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?),
        None => name(host)?.to_owned(),
    };
    scheme_is_good.then(|| (scheme.to_owned(), host, port))
}

/// `parse` alone would take a sign.
fn number(port: &str) -> Option<u16> {
    let port = port.bytes().all(|b| b.is_ascii_digit()).then_some(port)?;
    port.parse().ok().filter(|port| *port != 0)
}

fn name(host: &str) -> Option<&str> {
    let is_good = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
    (!host.is_empty() && host.bytes().all(is_good)).then_some(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(list: &[&str]) -> Result<AllowedOrigins, String> {
        AllowedOrigins::parse(&list.iter().map(ToString::to_string).collect::<Vec<_>>())
    }

    #[test]
    fn origins_are_written_as_browsers_write_them() {
        let table = [
            ("https://app.example.org", "https://app.example.org"),
            ("HTTPS://App.Example.ORG:443", "https://app.example.org"),
            ("http://localhost:80", "http://localhost"),
            ("http://localhost:443", "http://localhost:443"),
            ("https://localhost:80", "https://localhost:80"),
            ("http://127.0.0.1:3000", "http://127.0.0.1:3000"),
            ("http://[::1]:3000", "http://[::1]:3000"),
            ("http://[0:0:0:0:0:0:0:1]", "http://[::1]"),
            ("capacitor://localhost", "capacitor://localhost"),
            ("chrome-extension://abcdef", "chrome-extension://abcdef"),
        ];
        for (text, expected) in table {
            assert_eq!(parse(&[text]), Ok(AllowedOrigins::Exact(vec![expected.into()])), "{text}");
        }
    }

    #[test]
    fn what_is_not_an_origin_is_refused() {
        let table = [
            "",
            "null",
            "example.org",
            "//example.org",
            "https://",
            "https://example.org/",
            "https://example.org/x",
            "https://user@example.org",
            "https://*.example.org",
            "https://example.org:0",
            "https://example.org:+80",
            "https://example.org:",
            "https://example.org:65536",
            "https://a:b:80",
            "https://[::1",
            "https://[::1]x",
            "https://[x]",
            "https://bücher.example",
            "1http://example.org",
            "https://example.org?x",
            " https://example.org",
        ];
        for text in table {
            let error = parse(&[text]).unwrap_err();
            assert!(error.starts_with(&format!("has {text:?}, which is not an origin")), "{error}");
        }
    }

    #[test]
    fn an_empty_list_is_the_own_host_and_a_star_is_every_page() {
        assert_eq!(parse(&[]), Ok(AllowedOrigins::SameHost));
        assert_eq!(parse(&["*"]), Ok(AllowedOrigins::Any));
        assert!(parse(&["https://a", "*"]).unwrap_err().contains("beside others"));
    }
}

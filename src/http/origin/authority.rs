//! Hosts and origins as they are compared: without regard to case, to how an address is spelled, or to a
//! port that is the scheme's default. Reading one allocates nothing, since it is done for each request.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// What stands in `Host`: a host and perhaps a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Authority<'a> {
    pub(super) host: Host<'a>,
    pub(super) port: Option<u16>,
}

/// A host, by name or by address.
#[derive(Clone, Copy, Debug)]
pub(super) enum Host<'a> {
    Address(IpAddr),
    Name(&'a str),
}

/// What stands in `Origin`, where it is not `null` (RFC 6454, section 6.2).
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin<'a> {
    scheme: &'a str,
    authority: Authority<'a>,
}

impl<'a> Authority<'a> {
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        // The colons of an IPv6 address stand before its bracket.
        let (host, port) = match text.rsplit_once(':') {
            Some((host, port)) if !port.ends_with(']') => (host, number(port)?),
            _ => (text, None),
        };
        Some(Self { host: Host::parse(host)?, port })
    }

    fn without_default_port(self, default: Option<u16>) -> Self {
        let port = self.port.filter(|port| Some(*port) != default);
        Self { port, ..self }
    }
}

impl<'a> Host<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        if let Some(rest) = text.strip_prefix('[') {
            let address = rest.strip_suffix(']')?.parse::<Ipv6Addr>().ok()?;
            return Some(Self::Address(address.into()));
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Some(Self::Address(address.into()));
        }
        let is_good = |b: u8| b.is_ascii_alphanumeric() || b"-._".contains(&b);
        (!text.is_empty() && text.bytes().all(is_good)).then_some(Self::Name(text))
    }

    /// The three spellings of this machine that browsers use, and no name that merely resolves to it.
    pub(super) fn is_loopback(&self) -> bool {
        match self {
            Self::Name(name) => name.eq_ignore_ascii_case("localhost"),
            Self::Address(address) => {
                [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()].contains(address)
            }
        }
    }

    pub(super) fn is_address(&self) -> bool {
        matches!(self, Self::Address(_))
    }
}

impl PartialEq for Host<'_> {
    fn eq(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Address(one), Self::Address(two)) => one == two,
            (Self::Name(one), Self::Name(two)) => one.eq_ignore_ascii_case(two),
            _ => false,
        }
    }
}

impl Eq for Host<'_> {}

impl<'a> Origin<'a> {
    pub(super) fn parse(text: &'a str) -> Option<Self> {
        let (scheme, authority) = text.split_once("://")?;
        let authority = Authority::parse(authority)?.without_default_port(default_port(scheme));
        Some(Self { scheme, authority })
    }

    /// Whether a page of this origin came from `host`, or both are this machine.
    pub(super) fn is_of(&self, host: &Authority<'_>) -> bool {
        let same = self.authority == host.without_default_port(default_port(self.scheme));
        same || (self.authority.host.is_loopback() && host.host.is_loopback())
    }
}

impl PartialEq for Origin<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.scheme.eq_ignore_ascii_case(other.scheme) && self.authority == other.authority
    }
}

fn default_port(scheme: &str) -> Option<u16> {
    let is = |name: &str| scheme.eq_ignore_ascii_case(name);
    match () {
        () if is("http") || is("ws") => Some(80),
        () if is("https") || is("wss") => Some(443),
        () => None,
    }
}

/// A port; an empty one is none (RFC 3986, section 3.2.3). `parse` alone would take a sign.
fn number(text: &str) -> Option<Option<u16>> {
    if text.is_empty() {
        return Some(None);
    }
    let digits = text.bytes().all(|b| b.is_ascii_digit()).then_some(text)?;
    digits.parse().ok().map(Some)
}

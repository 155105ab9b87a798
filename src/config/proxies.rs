//! Whose word on a client's address counts, as `public.trusted_proxies` says.

use std::{fmt, net::IpAddr, str::FromStr, sync::Arc};

use ipnet::IpNet;
use schemars::JsonSchema;

/// A network, or one address.
#[derive(Clone, Copy, Debug, PartialEq, Eq, JsonSchema)]
#[schemars(inline, with = "String", extend("pattern" = r"^[0-9A-Fa-f:.]+(/[0-9]{1,3})?$"))]
pub struct Network(IpNet);

impl FromStr for Network {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let address = || text.parse().ok().map(|address: IpAddr| IpNet::from(address.to_canonical()));
        text.parse().ok().map(canonical).or_else(address).map(Self).ok_or_else(|| {
            format!(
                "{text:?} is not a network: write an address, and after a slash how many of its bits count, as in \
                 \"10.0.0.0/8\" or \"fd00::/8\""
            )
        })
    }
}

/// Peers are told by their IPv4 address where they have one.
fn canonical(network: IpNet) -> IpNet {
    let mapped = network.prefix_len().checked_sub(96);
    match (network.addr().to_canonical(), mapped) {
        (IpAddr::V4(address), Some(bits)) if matches!(network, IpNet::V6(_)) => {
            IpNet::new(address.into(), bits).unwrap_or(network)
        }
        _ => network.trunc(),
    }
}

impl fmt::Display for Network {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The networks of the proxies. Clones share them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrustedProxies(Arc<[IpNet]>);

impl TrustedProxies {
    pub(super) fn new(networks: &[Network]) -> Self {
        Self(networks.iter().map(|network| network.0).collect())
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether `peer` is one of them. A peer without an address is on a Unix socket of this machine: it is one
    /// where there are any.
    #[must_use]
    pub fn has(&self, peer: Option<IpAddr>) -> bool {
        match peer {
            None => !self.is_empty(),
            Some(address) => self.0.iter().any(|network| network.contains(&address)),
        }
    }

    /// The network that is everybody, where there is such a one.
    pub(super) fn everybody(&self) -> Option<IpNet> {
        self.0.iter().copied().find(|network| network.prefix_len() == 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn networks_are_read_and_printed() {
        let table = [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("127.0.0.1", "127.0.0.1/32"),
            ("::1", "::1/128"),
            ("FD00::/8", "fd00::/8"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:10.0.0.1", "10.0.0.1/32"),
            ("0.0.0.0/0", "0.0.0.0/0"),
        ];
        for (text, printed) in table {
            let network: Network = text.parse().unwrap();
            assert_eq!(network.to_string(), printed, "{text}");
            assert_eq!(printed.parse(), Ok(network));
        }
    }

    #[test]
    fn what_is_not_a_network_is_refused() {
        for text in
            ["", "10.0.0.0/33", "10.0.0/8", "::/129", "10.0.0.0/", "10.0.0.0/-1", "proxy", "10.0.0.1:80", "*"]
        {
            let error = text.parse::<Network>().unwrap_err();
            assert!(error.starts_with(&format!("{text:?} is not a network: ")), "{error}");
        }
    }

    #[test]
    fn a_peer_is_a_proxy_by_its_network() {
        let networks = ["10.0.0.0/8", "::1", "fd00::/8"].map(|text| text.parse().unwrap());
        let (some, none) = (TrustedProxies::new(&networks), TrustedProxies::default());
        for (peer, is_one) in [
            ("10.255.0.1", true),
            ("11.0.0.1", false),
            ("::1", true),
            ("::2", false),
            ("fdff::1", true),
            ("fe80::1", false),
        ] {
            assert_eq!(some.has(Some(peer.parse().unwrap())), is_one, "{peer}");
            assert!(!none.has(Some(peer.parse().unwrap())), "{peer}");
        }
        assert!(some.has(None) && !none.has(None));
    }
}

//! Who a client is behind proxies: what `X-Forwarded-For` says, as far as it can be believed. `Forwarded`
//! (RFC 7239) is not read: a proxy that writes the one passes the other on as the client sent it.

use std::net::{IpAddr, SocketAddr};

use http::{HeaderMap, HeaderName};

use crate::config::TrustedProxies;

const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");

/// The client's address, where `peer` is connected. Each proxy adds at the end whom it serves, so the list is read
/// from there: as long as a proxy speaks, the address before it is believed. What cannot be read ends it, and then
/// the one who sent that is the client.
#[must_use]
pub fn client(headers: &HeaderMap, peer: Option<IpAddr>, proxies: &TrustedProxies) -> Option<IpAddr> {
    let lines = headers.get_all(X_FORWARDED_FOR);
    let mut hops = lines.iter().rev().flat_map(|line| line.as_bytes().rsplit(|byte| *byte == b','));
    let mut client = peer;
    while proxies.has(client)
        && let Some(hop) = hops.find(|hop| !hop.trim_ascii().is_empty()).and_then(address)
    {
        client = Some(hop);
    }
    client
}

/// `192.0.2.1`, `2001:db8::1` or `[2001:db8::1]`, and some proxies add the port.
fn address(hop: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(hop.trim_ascii()).ok()?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let with_port = || text.parse().ok().map(|address: SocketAddr| address.ip());
    bare.parse().ok().or_else(with_port).map(|address: IpAddr| address.to_canonical())
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;
    use crate::config::Config;

    /// Who it is that `peer` serves, where 10.0.0.0/8, 127.0.0.1 and fd00::/8 are the proxies'.
    fn told(peer: &str, lines: &[&[u8]]) -> String {
        let keys = "public.trusted_proxies = ['10.0.0.0/8', '127.0.0.1', 'fd00::/8']";
        let proxies = Config::from_toml(keys).unwrap().public.trusted_proxies;
        let mut headers = HeaderMap::new();
        for line in lines {
            headers.append(X_FORWARDED_FOR, HeaderValue::from_bytes(line).unwrap());
        }
        let client = client(&headers, peer.parse().ok(), &proxies);
        client.map_or("unix".to_owned(), |address| address.to_string())
    }

    #[test]
    fn nobody_takes_an_address_that_is_not_his() {
        let proxy = "10.0.0.1";
        let table: &[(&str, &[&[u8]], &str)] = &[
            // Who is no proxy says what he wants.
            ("192.0.2.9", &[], "192.0.2.9"),
            ("192.0.2.9", &[b"198.51.100.1"], "192.0.2.9"),
            ("192.0.2.9", &[b"10.0.0.1"], "192.0.2.9"),
            ("2001:db8::9", &[b"198.51.100.1"], "2001:db8::9"),
            // A proxy's word, in each of its forms.
            (proxy, &[], proxy),
            (proxy, &[b"198.51.100.1"], "198.51.100.1"),
            (proxy, &[b" 198.51.100.1\t"], "198.51.100.1"),
            (proxy, &[b"198.51.100.1:4711"], "198.51.100.1"),
            (proxy, &[b"2001:db8::1"], "2001:db8::1"),
            (proxy, &[b"[2001:db8::1]"], "2001:db8::1"),
            (proxy, &[b"[2001:DB8::1]:4711"], "2001:db8::1"),
            (proxy, &[b"::ffff:198.51.100.1"], "198.51.100.1"),
            ("fd00::1", &[b"198.51.100.1"], "198.51.100.1"),
            ("unix", &[b"198.51.100.1"], "198.51.100.1"),
            ("unix", &[], "unix"),
            // What the client wrote before it stands further left.
            (proxy, &[b"203.0.113.7, 198.51.100.1"], "198.51.100.1"),
            (proxy, &[b"10.0.0.2, 198.51.100.1"], "198.51.100.1"),
            (proxy, &[b"127.0.0.1, 198.51.100.1"], "198.51.100.1"),
            (proxy, &[b"203.0.113.7", b"198.51.100.1"], "198.51.100.1"),
            (proxy, &[b"203.0.113.7, 198.51.100.1", b"10.0.0.3"], "198.51.100.1"),
            (proxy, &[b"203.0.113.7", b"198.51.100.1, 10.0.0.3, fd00::9"], "198.51.100.1"),
            (proxy, &[b"203.0.113.7,,198.51.100.1, ,"], "198.51.100.1"),
            (proxy, &[b"garbage, 198.51.100.1"], "198.51.100.1"),
            (proxy, &[b"\xff\xfe, 198.51.100.1"], "198.51.100.1"),
            (proxy, &[b"\"203.0.113.7\", 198.51.100.1, 10.0.0.3"], "198.51.100.1"),
            // All of them proxies: the first is whom the last one serves.
            (proxy, &[b"10.0.0.7, 127.0.0.1, 10.0.0.3"], "10.0.0.7"),
            // What cannot be read is not stepped over.
            (proxy, &[b"unknown"], proxy),
            (proxy, &[b"203.0.113.7, unknown"], proxy),
            (proxy, &[b"203.0.113.7, _hidden, 10.0.0.3"], "10.0.0.3"),
            (proxy, &[b"203.0.113.7", b"\xff"], proxy),
            (proxy, &[b"203.0.113.7, \"198.51.100.1\""], proxy),
            (proxy, &[b"for=198.51.100.1"], proxy),
            (proxy, &[b"198.51.100.1:99999"], proxy),
            (proxy, &[b"198.51.100.256"], proxy),
            (proxy, &[b"0306.063.0144.01"], proxy),
            (proxy, &[b"[2001:db8::1"], proxy),
            (proxy, &[b"fe80::1%eth0"], proxy),
            (proxy, &[b"203.0.113.7;198.51.100.1"], proxy),
            (proxy, &[b"localhost"], proxy),
            (proxy, &[b""], proxy),
            (proxy, &[b", ,,"], proxy),
        ];
        for (peer, lines, expected) in table {
            let lines_shown: Vec<_> = lines.iter().map(|line| String::from_utf8_lossy(line)).collect();
            assert_eq!(told(peer, lines), *expected, "{peer} {lines_shown:?}");
        }
    }

    #[test]
    fn the_header_forwarded_is_not_read() {
        let proxies =
            Config::from_toml("public.trusted_proxies = '10.0.0.1'").unwrap().public.trusted_proxies;
        let mut headers = HeaderMap::new();
        headers.insert(http::header::FORWARDED, HeaderValue::from_static("for=198.51.100.1"));
        let peer = "10.0.0.1".parse().ok();
        assert_eq!(client(&headers, peer, &proxies), peer);
    }
}

//! The header of the PROXY protocol, versions 1 and 2, with which a proxy begins each connection to say for whom
//! it is (`public.proxy_protocol`; haproxy.org/download/3.2/doc/proxy-protocol.txt).

use std::{future::poll_fn, io, net::IpAddr, time::Duration};

use proxy_header::{Error, ParseConfig, ProxyHeader};

use super::{LINGER, refusal};
use crate::socket::Socket;

/// How long the header may take: proxies send it with their first packet.
const TIME: Duration = Duration::from_secs(5);

/// The most that a version 1 header has (section 2.1).
const MOST_OF_1: usize = 107;

/// What is taken of a version 2 header. Its length could be 64 KiB; the extensions in use need a few hundred bytes.
const MOST_OF_2: usize = 4096;

/// The bytes up to the length of a version 2 header, and those of the length.
const FIXED_OF_2: usize = 16;

/// The client's address as the proxy tells it; `None` where it tells none (a health check of its own, a client on a
/// Unix socket).
type Source = Option<IpAddr>;

/// What came is no header.
#[derive(Debug, PartialEq, Eq)]
struct NoHeader;

/// Reads the header: whom the proxy at `peer` serves, or else itself, and what was read beyond it. `None`: the
/// connection is over.
pub(super) async fn read(socket: &Socket, peer: Option<IpAddr>) -> Option<(Option<IpAddr>, Vec<u8>)> {
    let mut bytes = Vec::new();
    let problem = match tokio::time::timeout(TIME, header(socket, &mut bytes)).await {
        Ok(Ok(source)) => return Some((source.or(peer), bytes)),
        Ok(Err(problem)) => problem,
        Err(_) => io::ErrorKind::TimedOut.into(),
    };
    let address = peer.map(tracing::field::display);
    tracing::debug!(client.address = address, error = %problem, "a connection without a PROXY header");
    // Whoever has a person before him who can read it.
    if bytes.first().is_some_and(u8::is_ascii_uppercase) && !bytes.starts_with(b"PROXY") {
        const SENTENCE: &str =
            "this port is for a proxy that speaks the PROXY protocol (public.proxy_protocol)\n";
        refusal::tell_plain(socket, SENTENCE, LINGER).await;
        socket.linger(LINGER).await;
    }
    None
}

/// Leaves in `bytes` what comes behind it.
async fn header(socket: &Socket, bytes: &mut Vec<u8>) -> io::Result<Source> {
    loop {
        let mut more = [0; 1024];
        match poll_fn(|cx| socket.poll_read_some(cx, &mut more)).await? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            n => bytes.extend_from_slice(&more[..n]),
        }
        match decode(bytes) {
            Ok(Some((source, length))) => {
                bytes.drain(..length);
                return Ok(source);
            }
            Ok(None) => {}
            Err(NoHeader) => {
                return Err(io::Error::new(io::ErrorKind::InvalidData, "no header of the PROXY protocol"));
            }
        }
    }
}

/// The header that `bytes` begin with, and its length; `None` where more of it is to come.
fn decode(bytes: &[u8]) -> Result<Option<(Source, usize)>, NoHeader> {
    const VERSION_1: &[u8] = b"PROXY ";
    let is_version_1 = bytes.first() == VERSION_1.first();
    let begun = bytes.len().min(VERSION_1.len());
    if is_version_1 && bytes[..begun] != VERSION_1[..begun] {
        return Err(NoHeader);
    }
    let most = if is_version_1 { Some(MOST_OF_1) } else { length_of_2(bytes) };
    if most.is_some_and(|most| most > MOST_OF_2) {
        return Err(NoHeader);
    }
    match ProxyHeader::parse(bytes, ParseConfig::default()) {
        Ok((_, length)) if most.is_some_and(|most| length > most) => Err(NoHeader),
        Ok((header, length)) => {
            let source = header.proxied_address().map(|address| address.source.ip().to_canonical());
            Ok(Some((source, length)))
        }
        // The parser waits too where the addresses do not fit into a header that is all there.
        Err(Error::BufferTooShort) if most.is_none_or(|most| bytes.len() < most) => Ok(None),
        Err(_) => Err(NoHeader),
    }
}

/// The length of a version 2 header, once it is there.
fn length_of_2(bytes: &[u8]) -> Option<usize> {
    let [high, low] = *bytes.get(FIXED_OF_2 - 2..FIXED_OF_2)? else {
        return None;
    };
    Some(FIXED_OF_2 + usize::from(u16::from_be_bytes([high, low])))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

    fn version_2(command: u8, family: u8, rest: &[u8]) -> Vec<u8> {
        let length = (rest.len() as u16).to_be_bytes();
        [SIGNATURE, &[command, family], &length, rest].concat()
    }

    fn ipv4(extensions: usize) -> Vec<u8> {
        let addresses = [192, 0, 2, 1, 10, 0, 0, 1, 0x12, 0x34, 0x01, 0xbb];
        version_2(0x21, 0x11, &[&addresses[..], &vec![4; extensions]].concat())
    }

    fn ipv6() -> Vec<u8> {
        let source: std::net::Ipv6Addr = "2001:db8::1".parse().unwrap();
        version_2(0x21, 0x21, &[&source.octets()[..], &[0; 16], &[0; 4]].concat())
    }

    fn unix() -> Vec<u8> {
        version_2(0x21, 0x31, &[0; 216])
    }

    #[test]
    fn a_header_tells_the_clients_address() {
        let some = |text: &str| Some(text.parse().unwrap());
        let table: &[(&[u8], Source)] = &[
            (b"PROXY TCP4 192.0.2.1 10.0.0.1 4711 443\r\n", some("192.0.2.1")),
            (b"PROXY TCP6 2001:db8::1 ::1 4711 443\r\n", some("2001:db8::1")),
            (b"PROXY TCP6 ::ffff:192.0.2.1 ::1 4711 443\r\n", some("192.0.2.1")),
            (b"PROXY UNKNOWN\r\n", None),
            (b"PROXY UNKNOWN ::1 ::1 1 2\r\n", None),
            (&ipv4(0), some("192.0.2.1")),
            (&ipv4(500), some("192.0.2.1")),
            (&ipv4(4068), some("192.0.2.1")),
            (&ipv6(), some("2001:db8::1")),
            (&unix(), None),
            (&version_2(0x20, 0, &[]), None),
            (&version_2(0x20, 0x11, &[192, 0, 2, 1, 10, 0, 0, 1, 0, 1, 0, 2]), None),
            (&version_2(0x21, 0, &[]), None),
        ];
        for (header, source) in table {
            let sent = [*header, b"GET / HTTP/1.1\r\n"].concat();
            let shown = String::from_utf8_lossy(header);
            assert_eq!(decode(&sent), Ok(Some((*source, header.len()))), "{shown}");
            for end in 0..header.len() {
                assert_eq!(decode(&header[..end]), Ok(None), "{end} bytes of {shown}");
            }
        }
    }

    #[test]
    fn what_is_no_header_is_refused() {
        let long = format!("PROXY UNKNOWN {}\r\n", "x".repeat(100));
        let endless = format!("PROXY TCP4 {}", "1".repeat(100));
        let bad = [
            b"GET / HTTP/1.1\r\n".to_vec(),
            b"POST / HTTP/1.1\r\n".to_vec(),
            b"\x16\x03\x01\x02\x00".to_vec(),
            b"PROXYTCP4 192.0.2.1 10.0.0.1 1 2\r\n".to_vec(),
            b"PROXY TCP5 192.0.2.1 10.0.0.1 1 2\r\n".to_vec(),
            b"PROXY TCP4 2001:db8::1 10.0.0.1 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.256 10.0.0.1 1 2\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 1 70000\r\n".to_vec(),
            b"PROXY TCP4 192.0.2.1 10.0.0.1 1 2\rX".to_vec(),
            b"proxy UNKNOWN\r\n".to_vec(),
            long.into_bytes(),
            endless.into_bytes(),
            b"\r\n\r\n\0\r\nQUIX\n\x21\x11\0\x0c".to_vec(),
            version_2(0x11, 0x11, &[0; 12]),
            version_2(0x22, 0x11, &[0; 12]),
            version_2(0x21, 0x41, &[0; 12]),
            version_2(0x21, 0x11, &[0; 11]),
            version_2(0x21, 0x31, &[0; 12]),
            ipv4(4069)[..FIXED_OF_2].to_vec(),
        ];
        for bytes in bad {
            assert_eq!(decode(&bytes), Err(NoHeader), "{}", String::from_utf8_lossy(&bytes));
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_fail(bytes in prop::collection::vec(any::<u8>(), 0..300), kind in 0..3) {
            let begin = [&b""[..], b"PROXY TCP", SIGNATURE][kind as usize];
            let _ = decode(&[begin, &bytes].concat());
        }
    }
}

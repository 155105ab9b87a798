//! Proxies in front: whose connection it is, by `X-Forwarded-For` and by the PROXY protocol, and whom nobody believes.

use std::net::{Ipv4Addr, SocketAddr};

use bytes::Bytes;
use http_body_util::Empty;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::ServerName;

use crate::support::client::Options;
use crate::support::process::{Served, run, tidegate};
use crate::support::tls::Setup;
use crate::support::{Answer, Client, Conn, PATIENCE, TestGateway, Transport, eventually, within};

const FORWARDED: &str = "X-Forwarded-For";

/// A gateway behind a proxy on this machine, where an address may have one connection.
async fn behind_a_proxy() -> TestGateway {
    TestGateway::start()
        .with("public.trusted_proxies = '127.0.0.1'")
        .with("limits.connections_per_address = 1")
        .run()
        .await
}

/// One poll that does not wait, on a connection of its own; its status.
async fn poll(address: SocketAddr, forwarded: &[&str]) -> u16 {
    let headers: Vec<_> = forwarded.iter().map(|value| (FORWARDED, *value)).collect();
    let mut conn = Conn::open(address).await;
    conn.get("/v1/subscribe?channel=a&wait=0", &headers).await.status()
}

async fn until_free(address: SocketAddr, forwarded: &[&str]) {
    eventually("the place is free again", async || (poll(address, forwarded).await == 200).then_some(()))
        .await;
}

/// A connection from another address of this machine.
async fn conn_from(source: Ipv4Addr, target: SocketAddr) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind((source, 0).into()).expect("binds");
    socket.connect(target).await.expect("connects")
}

/// All that comes until the connection ends.
async fn said_to(mut stream: TcpStream, bytes: &[u8]) -> String {
    let mut said = Vec::new();
    // The server may have closed it by then.
    let _ = stream.write_all(bytes).await;
    let _ = within(PATIENCE, "the end of the connection", stream.read_to_end(&mut said)).await;
    String::from_utf8_lossy(&said).into_owned()
}

each_stream! {
    async fn each_client_of_a_proxy_has_the_places_of_its_own_address(transport) {
        let gateway = behind_a_proxy().await;
        let open = async |address: &str| {
            let options = Options { headers: vec![(FORWARDED, address)], ..Options::default() };
            Client::open(gateway.public, transport, "channel=a", options).await
        };
        let first = open("198.51.100.1").await.expect("has a place");
        let refused: Answer = open("203.0.113.7, 198.51.100.1").await.err().expect("its address has no more");
        if transport == Transport::Sse {
            assert!(String::from_utf8_lossy(&refused.body).starts_with("retry:"));
        } else {
            refused.problem(503, "too_many_connections");
        }
        let second = open("198.51.100.2").await.expect("another address has a place");
        // The client's /64.
        let third = open("2001:db8::1").await.expect("another address has a place");
        assert!(open("[2001:db8::ffff]:4711").await.is_err());
        drop(first);
        until_free(gateway.public, &["198.51.100.1"]).await;
        gateway.finish((second, third)).await;
    }
}

#[tokio::test]
async fn nobody_takes_the_place_of_another_by_a_header() {
    let gateway = behind_a_proxy().await;
    let options = Options { headers: vec![(FORWARDED, "198.51.100.1")], ..Options::default() };
    let victim = Client::connect_with(gateway.public, Transport::Sse, "channel=a", options).await;
    // The proxy adds the address of whom it serves at the end; what stands before it, the client wrote.
    for (forwarded, status) in [
        (&["198.51.100.1"][..], 503),
        (&["203.0.113.7, 198.51.100.1"], 503),
        (&["203.0.113.7", "198.51.100.1"], 503),
        (&["198.51.100.1, 127.0.0.1"], 503),
        (&["198.51.100.1:5000"], 503),
        (&["198.51.100.1, 203.0.113.7"], 200),
        (&["198.51.100.1", "203.0.113.7"], 200),
        (&["198.51.100.1, garbage"], 200),
        (&["for=198.51.100.1"], 200),
        (&[], 200),
    ] {
        assert_eq!(poll(gateway.public, forwarded).await, status, "{forwarded:?}");
    }
    // Whoever is no proxy is who he is.
    let mut stranger = conn_from(Ipv4Addr::new(127, 0, 0, 2), gateway.public).await;
    let request = "GET /v1/subscribe?channel=a&wait=0 HTTP/1.1\r\nHost: localhost\r\n\
                   X-Forwarded-For: 198.51.100.1\r\nConnection: close\r\n\r\n";
    stranger.write_all(request.as_bytes()).await.expect("sends");
    assert!(said_to(stranger, b"").await.starts_with("HTTP/1.1 200 "));
    gateway.finish(victim).await;
}

#[tokio::test]
async fn polls_of_many_clients_on_one_connection_of_a_proxy_are_counted_while_they_are_held() {
    let gateway = behind_a_proxy().await;
    let mut shared = Conn::open(gateway.public).await;
    let target = "/v1/subscribe?channel=a&wait=55";
    let held = shared.encode("GET", target, &[(FORWARDED, "198.51.100.1")], None);
    shared.send(held).await;
    gateway.until_subscribers("a", 1).await;
    assert_eq!(poll(gateway.public, &["198.51.100.1"]).await, 503);
    assert_eq!(poll(gateway.public, &["198.51.100.2"]).await, 200);
    gateway.publish("a", "1").await;
    shared.answer("GET").await.expect(200);
    assert_eq!(poll(gateway.public, &["198.51.100.1"]).await, 200);
    let options = Options { headers: vec![(FORWARDED, "198.51.100.2")], ..Options::default() };
    let other = Client::connect_with(gateway.public, Transport::Ndjson, "channel=a", options).await;
    for (address, status) in [("198.51.100.1", 200), ("198.51.100.2", 503), ("198.51.100.3", 200)] {
        let answer = shared.get("/v1/subscribe?channel=a&wait=0", &[(FORWARDED, address)]).await;
        assert_eq!(answer.status(), status, "{address}");
    }
    gateway.finish((shared, other)).await;
}

#[tokio::test]
async fn streams_of_one_http_2_connection_of_a_proxy_are_their_clients() {
    let gateway = behind_a_proxy().await;
    let stream = TcpStream::connect(gateway.public).await.expect("connects");
    let (mut sender, connection) = hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(
        TokioExecutor::new(),
        TokioIo::new(stream),
    )
    .await
    .expect("speaks HTTP/2");
    tokio::spawn(async move { drop(connection.await) });
    let mut answers = Vec::new();
    for (address, status) in [("198.51.100.1", 200), ("198.51.100.1", 503), ("198.51.100.2", 200)] {
        let request = hyper::Request::get(format!("http://{}/v1/subscribe?channel=a", gateway.public))
            .header("accept", "application/x-ndjson")
            .header(FORWARDED, address)
            .body(Empty::new())
            .expect("a request");
        let answer = within(PATIENCE, "an answer", sender.send_request(request)).await.expect("an answer");
        assert_eq!(answer.status(), status, "{address}");
        answers.push(answer);
    }
    gateway.finish((answers, sender)).await;
}

#[tokio::test]
async fn without_trusted_proxies_the_header_is_anybodys() {
    let gateway = TestGateway::start().with("limits.connections_per_address = 1").run().await;
    let client = Client::connect(&gateway, Transport::Sse, "channel=a").await;
    assert_eq!(poll(gateway.public, &["198.51.100.1"]).await, 503);
    gateway.finish(client).await;
}

const VERSION_1: &[u8] = b"PROXY TCP4 198.51.100.1 192.0.2.1 4711 443\r\n";

/// A header of version 2 for a client at this IPv4 address, or of the proxy's own.
fn version_2(client: Option<[u8; 4]>) -> Vec<u8> {
    let signature = b"\r\n\r\n\0\r\nQUIT\n";
    match client {
        Some(address) => {
            [&signature[..], b"\x21\x11\0\x0c", &address, &[192, 0, 2, 1], b"\x12\x67\x01\xbb"].concat()
        }
        None => [&signature[..], b"\x20\0\0\0"].concat(),
    }
}

async fn speaking_proxy(keys: &str) -> TestGateway {
    TestGateway::start().with("public.proxy_protocol = true").with(keys).run().await
}

#[tokio::test]
async fn the_proxy_protocol_tells_whose_connection_it_is() {
    let gateway = speaking_proxy("limits.connections_per_address = 1").await;
    let mut held = Vec::new();
    for (header, status) in [
        (VERSION_1.to_vec(), 200),
        (VERSION_1.to_vec(), 503),
        (version_2(Some([198, 51, 100, 1])), 503),
        (version_2(Some([198, 51, 100, 2])), 200),
        (b"PROXY TCP6 2001:db8::1 2001:db8::2 1 2\r\n".to_vec(), 200),
        // A proxy that asks for itself.
        (version_2(None), 200),
        (b"PROXY UNKNOWN\r\n".to_vec(), 503),
    ] {
        let mut conn = Conn::open(gateway.public).await;
        let request =
            conn.encode("GET", "/v1/subscribe?channel=a", &[("Accept", "application/x-ndjson")], None);
        // In pieces, and the request behind the header at once.
        let (begin, rest) = header.split_at(7);
        conn.send(begin).await;
        tokio::task::yield_now().await;
        conn.send([rest, &request].concat()).await;
        assert_eq!(conn.head().await.status, status, "{}", String::from_utf8_lossy(&header));
        held.push(conn);
    }
    gateway.finish(held).await;
}

#[tokio::test]
async fn the_header_stands_before_tls_and_before_http_2() {
    let tls = Setup::new();
    let gateway =
        speaking_proxy(&format!("limits.connections_per_address = 1\n{}", tls.keys("public"))).await;
    let mut held = Vec::new();
    for (alpn, status) in [("http/1.1", 200), ("http/1.1", 503)] {
        let mut stream = TcpStream::connect(gateway.public).await.expect("connects");
        stream.write_all(VERSION_1).await.expect("sends");
        let name = ServerName::try_from("localhost").expect("a name");
        let connecting = TlsConnector::from(tls.client(&[alpn])).connect(name, stream);
        let mut stream = within(PATIENCE, "a handshake", connecting).await.expect("a handshake");
        let request = "GET /v1/subscribe?channel=a&transport=ndjson HTTP/1.1\r\nHost: localhost\r\n\r\n";
        stream.write_all(request.as_bytes()).await.expect("sends");
        let mut head = [0; 12];
        within(PATIENCE, "an answer", stream.read_exact(&mut head)).await.expect("an answer");
        assert_eq!(&head[9..], status.to_string().as_bytes());
        held.push(stream);
    }
    let mut stream = TcpStream::connect(gateway.public).await.expect("connects");
    stream.write_all(&version_2(Some([198, 51, 100, 2]))).await.expect("sends");
    let name = ServerName::try_from("localhost").expect("a name");
    let connecting = TlsConnector::from(tls.client(&["h2"])).connect(name, stream);
    let stream = within(PATIENCE, "a handshake", connecting).await.expect("a handshake");
    let (mut sender, connection) = hyper::client::conn::http2::handshake::<_, _, Empty<Bytes>>(
        TokioExecutor::new(),
        TokioIo::new(stream),
    )
    .await
    .expect("speaks HTTP/2");
    tokio::spawn(async move { drop(connection.await) });
    let request = hyper::Request::get("https://localhost/live").body(Empty::new()).expect("a request");
    let answer = within(PATIENCE, "an answer", sender.send_request(request)).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    gateway.finish((held, sender, answer)).await;
}

#[tokio::test]
async fn a_connection_without_a_proxy_header_is_not_served() {
    let gateway = speaking_proxy("limits.header_timeout = '1s'").await;
    let request = b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n";
    let said = said_to(TcpStream::connect(gateway.public).await.expect("connects"), request).await;
    assert!(said.starts_with("HTTP/1.1 400 ") && said.contains("public.proxy_protocol"), "{said}");
    let oversize = [version_2(None)[..14].to_vec(), b"\xff\xff".to_vec(), vec![0; 3000]].concat();
    for bytes in [
        &b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03"[..],
        b"PROXY NONSENSE\r\nGET /live HTTP/1.1\r\n\r\n",
        &[b"PROXY TCP4 ".to_vec(), vec![b'1'; 200]].concat(),
        &oversize,
        // No more comes: closed when the time is up.
        b"PROXY TCP4 198.51.100.1",
        b"",
    ] {
        let said = said_to(TcpStream::connect(gateway.public).await.expect("connects"), bytes).await;
        assert_eq!(said, "", "{}", String::from_utf8_lossy(bytes));
    }
    // Backends need none.
    gateway.internal("GET", "/live", &[], None).await.expect(200);
    gateway.finish(()).await;
}

#[tokio::test]
async fn where_proxies_are_named_nobody_else_sends_the_header() {
    let gateway = speaking_proxy(
        "public.trusted_proxies = ['127.0.0.2', '10.0.0.0/8']\nlimits.connections_per_address = 1",
    )
    .await;
    let live = b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n";
    let (proxy, stranger) = (Ipv4Addr::new(127, 0, 0, 2), Ipv4Addr::LOCALHOST);
    let ask = async |source, header: &[u8], request: &[u8]| {
        said_to(conn_from(source, gateway.public).await, &[header, request].concat()).await
    };
    assert!(ask(proxy, VERSION_1, live).await.starts_with("HTTP/1.1 200 "));
    assert_eq!(ask(stranger, VERSION_1, live).await, "");
    assert_eq!(ask(stranger, b"", live).await, "");
    // A client that stands in the header as a proxy is asked for whom; any other one is not.
    let mut held = Conn::on(conn_from(proxy, gateway.public).await);
    held.send(VERSION_1).await;
    held.send("GET /v1/subscribe?channel=a&transport=ndjson HTTP/1.1\r\nHost: localhost\r\n\r\n").await;
    assert_eq!(held.head().await.status, 200);
    let poll = |address: &str| {
        format!(
            "GET /v1/subscribe?channel=a&wait=0 HTTP/1.1\r\nHost: localhost\r\nX-Forwarded-For: {address}\r\n\
             Connection: close\r\n\r\n"
        )
    };
    let nested = version_2(Some([10, 0, 0, 9]));
    for (header, address, status) in
        [(&nested[..], "198.51.100.1", 503), (&nested, "198.51.100.2", 200), (VERSION_1, "198.51.100.2", 503)]
    {
        let said = ask(proxy, header, poll(address).as_bytes()).await;
        assert!(said.starts_with(&format!("HTTP/1.1 {status} ")), "{address}: {said}");
    }
    gateway.finish(held).await;
}

#[tokio::test]
async fn the_log_names_the_client_and_not_the_proxy() {
    let keys = [("TIDEGATE_PUBLIC__TRUSTED_PROXIES", "127.0.0.1,fd00::/8"), ("TIDEGATE_LOG__LEVEL", "debug")];
    let served = Served::start(&keys, &[]).await;
    assert_eq!(poll(served.public, &["198.51.100.1"]).await, 200);
    eventually("a line with the client's address", async || {
        let said = served.process.said();
        let line = said.lines().find(|line| line.contains("a client connected"))?;
        assert!(line.contains("\"client.address\":\"198.51.100.1\""), "{line}");
        Some(())
    })
    .await;
}

#[tokio::test]
async fn keys_of_proxies_that_are_no_good_are_named() {
    for (key, value, said) in [
        ("public.trusted_proxies", "10.0.0.0/33", "\"10.0.0.0/33\" is not a network"),
        ("public.proxy_protocol", "yes", "public.proxy_protocol"),
    ] {
        let mut command = tidegate();
        command.args(["config", "check", "--set", &format!("{key}={value}")]);
        let (code, output) = run(command).await;
        assert_eq!(code, 64, "{output}");
        assert!(output.contains(&format!("--set {key}: ")) && output.contains(said), "{output}");
    }
    let mut command = tidegate();
    command.args(["config", "check", "--insecure", "--set", "public.trusted_proxies=0.0.0.0/0"]);
    let (code, output) = run(command).await;
    assert!(code == 0 && output.contains("warning: public.trusted_proxies has 0.0.0.0/0"), "{output}");
    let mut command = tidegate();
    command.args(["config", "check", "--insecure", "--set", "public.proxy_protocol=true"]);
    command.args(["--set", "public.listen=0.0.0.0:8000"]);
    let (code, output) = run(command).await;
    assert!(code == 0 && output.contains("warning: public.proxy_protocol without"), "{output}");
}

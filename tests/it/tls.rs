//! TLS on the listeners: every transport through it, the certificate and its change, and those who do not get in.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::{SinkExt, StreamExt};
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::rustls::{ClientConfig, HandshakeKind, version};
use tokio_tungstenite::tungstenite::Message as Frame;

use crate::support::client::Options;
use crate::support::process::{Served, run, tidegate};
use crate::support::tls::{Authority, Folder, Setup, bridge, client, connect};
use crate::support::{Client, Conn, End, Event, TestGateway, Transport, eventually, within};

const LONG: &str = "history_messages = 100000\nhistory_bytes = '64MiB'";

/// Publishes this many messages of this size, each a number and a filling.
async fn publish_large(gateway: &TestGateway, count: u64, size: usize) {
    let mut conn = Conn::open(gateway.internal).await;
    let filling = "x".repeat(size);
    for number in 1..=count {
        let body = format!("{{\"n\":{number},\"x\":\"{filling}\"}}");
        let headers = [("Content-Type", "application/json")];
        conn.request("POST", "/v1/channels/a/messages", &headers, Some(body.as_bytes())).await.expect(202);
    }
}

async fn assert_numbered(client: &mut Client, wanted: std::ops::RangeInclusive<u64>) {
    for number in wanted {
        let message = client.message().await;
        let data: serde_json::Value = serde_json::from_str(message.data.as_deref().unwrap()).unwrap();
        assert_eq!(data["n"], number);
    }
}

each_transport! {
    async fn messages_small_and_large_come_whole_and_in_order_and_a_position_resumes(transport) {
        let tls = Setup::new();
        let gateway = TestGateway::start().with(&tls.keys("public")).namespace("default", LONG).run().await;
        let address = bridge(gateway.public, &tls.client(&["http/1.1"])).await;
        let mut client = Client::connect_with(address, transport, "channel=a", Options::default()).await;
        // From less than a record to many records a message.
        for size in [0, 100, 16_300, 16_384, 200_000] {
            publish_large(&gateway, 3, size).await;
            assert_numbered(&mut client, 1..=3).await;
        }
        let read = assert_numbered(&mut client, 1..=500);
        tokio::join!(publish_large(&gateway, 500, 3000), read);
        let mut client = client.resume_on(transport).await;
        gateway.publish("a", "{\"n\":1}").await;
        assert_numbered(&mut client, 1..=1).await;
        gateway.finish(client).await;
    }
}

each_stream! {
    async fn a_stalled_reader_is_cut_off_and_loses_nothing(transport) {
        let tls = Setup::new();
        let gateway = TestGateway::start()
            .with(&tls.keys("public"))
            .with("limits.outbox = '64KiB'")
            .namespace("default", LONG)
            .run()
            .await;
        let address = bridge(gateway.public, &tls.client(&["http/1.1"])).await;
        let mut slow = Client::connect_with(
            address, transport, "channel=a", Options { narrow: true, ..Options::default() }
        ).await;
        let mut fast = Client::connect_with(address, transport, "channel=a", Options::default()).await;
        let total = 400;
        tokio::join!(publish_large(&gateway, total, 8192), assert_numbered(&mut fast, 1..=total));
        gateway.until_subscribers("a", 1).await;
        let mut seen = 0;
        loop {
            match slow.next().await {
                Event::Message(_) => seen += 1,
                Event::Goodbye { code, .. } => assert_eq!(code, "slow"),
                Event::End(_) => break,
                other => panic!("{other:?}"),
            }
        }
        assert!(seen < total, "it was never slow");
        let mut back = slow.resume_on(transport).await;
        assert_numbered(&mut back, seen + 1..=total).await;
        gateway.finish((fast, back)).await;
    }

    async fn a_stream_ends_with_its_goodbye_and_an_end_that_is_no_cut(transport) {
        let tls = Setup::new();
        let gateway = TestGateway::start().with(&tls.keys("public"))
            .with("drain.notice = '0s'").with("drain.period = '1s'").run().await;
        let address = bridge(gateway.public, &tls.client(&["http/1.1"])).await;
        let mut client = Client::connect_with(address, transport, "channel=a", Options::default()).await;
        let mut raw = connect(gateway.public, &tls.client(&["http/1.1"])).await.unwrap();
        let head = format!("GET /v1/subscribe?channel=a&transport=ndjson HTTP/1.1\r\nHost: {}\r\n\r\n", gateway.public);
        raw.write_all(head.as_bytes()).await.unwrap();
        gateway.until_subscribers("a", 2).await;
        gateway.running.drain();
        let (goodbye, end) = client.end().await;
        assert_eq!(goodbye.expect("a goodbye").0, "shutdown");
        assert!(matches!(end, End::Close(1001, _) | End::Body), "{end:?}");
        // An error here is an end without `close_notify`.
        let mut all = Vec::new();
        raw.read_to_end(&mut all).await.expect("the end is told");
        assert!(String::from_utf8(all).unwrap().ends_with("\r\n0\r\n\r\n"));
        drop((client, raw));
        gateway.stopped(Duration::from_secs(10)).await;
    }
}

/// A message whose last record the kernel takes a part of only: nothing waits in the outbox, and nothing follows.
#[tokio::test]
async fn the_rest_of_a_record_leaves_as_soon_as_there_is_room() {
    let tls = Setup::new();
    let gateway = TestGateway::start().with(&tls.keys("public")).with("limits.message = '1MiB'").run().await;
    let mut readers = Vec::new();
    for size in (100_000..400_000).step_by(5000) {
        let channel = format!("a{size}");
        let mut stream = connect(gateway.public, &tls.client(&["http/1.1"])).await.unwrap();
        let target = format!("/v1/subscribe?channel={channel}&transport=ndjson&format=raw");
        stream
            .write_all(format!("GET {target} HTTP/1.1\r\nHost: localhost\r\n\r\n").as_bytes())
            .await
            .unwrap();
        gateway.until_subscribers(&channel, 1).await;
        gateway.publish(&channel, format!("\"{}END\"", "x".repeat(size))).await;
        readers.push((size, stream));
    }
    for (size, stream) in &mut readers {
        let mut said = Vec::new();
        let whole = async {
            while !said.ends_with(b"END\"\n\r\n") {
                assert!(stream.read_buf(&mut said).await.unwrap() > 0);
            }
        };
        within(Duration::from_secs(5), &format!("a message of {size}"), whole).await;
    }
    gateway.finish(readers).await;
}

#[tokio::test]
async fn a_websocket_library_with_rustls_talks_both_ways() {
    let tls = Setup::new();
    let gateway = TestGateway::start().with(&tls.keys("public")).run().await;
    for alpn in [&["http/1.1"][..], &[]] {
        let stream = connect(gateway.public, &tls.client(alpn)).await.unwrap();
        let url = format!("wss://{}/v1/subscribe?channel=a", gateway.public);
        let (mut socket, _) = tokio_tungstenite::client_async(url, stream).await.expect("upgrades");
        let hello = socket.next().await.unwrap().unwrap();
        assert!(hello.to_text().unwrap().starts_with(r#"{"type":"subscribed""#));
        let data = "y".repeat(50_000);
        let publish = format!(r#"{{"type":"publish","channel":"a","data":"{data}","ref":1}}"#);
        socket.send(Frame::text(publish)).await.unwrap();
        let mut kinds = Vec::new();
        for _ in 0..2 {
            let text = within(Duration::from_secs(10), "an answer", socket.next()).await.unwrap().unwrap();
            let object: serde_json::Value = serde_json::from_str(text.to_text().unwrap()).unwrap();
            assert!(object["type"] != "message" || object["data"] == data.as_str());
            kinds.push(object["type"].as_str().unwrap().to_owned());
        }
        kinds.sort();
        assert_eq!(kinds, ["message", "published"]);
        socket.close(None).await.unwrap();
        while let Some(Ok(_)) = socket.next().await {}
    }
    gateway.finish(()).await;
}

/// Both listeners with TLS, curl on both sides.
#[tokio::test]
async fn curl_publishes_and_receives_over_http_1_and_2() {
    let tls = Setup::new();
    let gateway = TestGateway::start().with(&tls.keys("public")).with(&tls.keys("internal")).run().await;
    let ca = tls.folder.write("ca.crt", &tls.authority.cert);
    let curl = |arguments: &[&str], url: String| {
        let mut command = std::process::Command::new("curl");
        command
            .args(["--silent", "--show-error", "--max-time", "15", "--cacert", &ca])
            .args(arguments)
            .arg(url);
        async move { run(command).await.1 }
    };
    let (public, internal) = (gateway.public.port(), gateway.internal.port());
    for version in ["--http1.1", "--http2"] {
        let post = [version, "-d", "\"hello\"", "-w", " %{http_version} %{http_code}"];
        let said = curl(&post, format!("https://localhost:{internal}/v1/channels/a/messages")).await;
        let wanted = if version == "--http2" { " 2 202" } else { " 1.1 202" };
        assert!(said.ends_with(wanted), "{version}: {said}");
        for transport in ["poll", "sse", "ndjson"] {
            let query = format!("channel=a&since=earliest&transport={transport}");
            let url = format!("https://localhost:{public}/v1/subscribe?{query}");
            // A stream has no end: curl gives up after a second, having said what came.
            let patience: &[&str] = if transport == "poll" { &[] } else { &["--max-time", "1"] };
            let said = curl(&[&[version][..], patience].concat(), url).await;
            assert!(said.contains(r#""data":"hello""#), "{version} {transport}: {said}");
        }
    }
    gateway.finish(()).await;
}

type Sender = hyper::client::conn::http2::SendRequest<Empty<Bytes>>;

async fn http2(address: SocketAddr, config: &Arc<ClientConfig>) -> Sender {
    let stream = connect(address, config).await.expect("a handshake");
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(async move { drop(connection.await) });
    sender
}

async fn subscribe(sender: &mut Sender, address: SocketAddr, query: &str) -> Incoming {
    let request = hyper::Request::get(format!("https://{address}/v1/subscribe?{query}"));
    let answer = sender.send_request(request.body(Empty::new()).unwrap()).await.expect("an answer");
    assert_eq!(answer.status(), 200);
    answer.into_body()
}

async fn until_said(body: &mut Incoming, wanted: &str) {
    let mut said = String::new();
    while !said.contains(wanted) {
        let frame = within(Duration::from_secs(10), wanted, body.frame()).await.expect("more").unwrap();
        said += std::str::from_utf8(frame.data_ref().expect("data")).unwrap();
    }
}

#[tokio::test]
async fn one_http_2_connection_with_tls_carries_streams_and_polls() {
    let tls = Setup::new();
    let gateway = TestGateway::start().with(&tls.keys("public")).namespace("default", LONG).run().await;
    let mut sender = http2(gateway.public, &tls.client(&["h2", "http/1.1"])).await;
    let mut sse = subscribe(&mut sender, gateway.public, "channel=a&transport=sse").await;
    let mut ndjson = subscribe(&mut sender, gateway.public, "channel=a&transport=ndjson").await;
    let mut poller = sender.clone();
    let address = gateway.public;
    let poll = tokio::spawn(async move {
        let body = subscribe(&mut poller, address, "channel=a&wait=55").await;
        String::from_utf8(body.collect().await.unwrap().to_bytes().to_vec()).unwrap()
    });
    gateway.until_subscribers("a", 3).await;
    publish_large(&gateway, 1, 100_000).await;
    let end = "xxx\"}}\n";
    until_said(&mut sse, "xxx\"}}\n\n").await;
    until_said(&mut ndjson, end).await;
    assert!(poll.await.unwrap().contains("\"n\":1"));
    for stream in [&mut sse, &mut ndjson] {
        gateway.publish("a", "\"still there\"").await;
        until_said(stream, "still there").await;
    }
    drop((sse, ndjson, sender));
    gateway.finish(()).await;
}

#[tokio::test]
async fn both_versions_and_every_offer_of_protocols_are_served() {
    let tls = Setup::new();
    let gateway = TestGateway::start().with(&tls.keys("public")).run().await;
    for version in [&version::TLS12, &version::TLS13] {
        for (offered, chosen) in [
            (&["h2", "http/1.1"][..], Some("h2")),
            (&["http/1.1", "h2"], Some("h2")),
            (&["http/1.1"], Some("http/1.1")),
            (&[], None),
        ] {
            let config = client(&tls.authority, None, offered, &[version]);
            let stream = connect(gateway.public, &config).await.expect("a handshake");
            assert_eq!(stream.get_ref().1.alpn_protocol(), chosen.map(str::as_bytes), "{offered:?}");
            assert_eq!(stream.get_ref().1.protocol_version(), Some(version.version));
        }
        let config = client(&tls.authority, None, &["spdy/3"], &[version]);
        let refused = connect(gateway.public, &config).await.expect_err("nothing in common");
        assert!(refused.to_string().contains("ApplicationProtocol"), "{refused}");
        // Who comes back is known by his ticket.
        let config = client(&tls.authority, None, &["http/1.1"], &[version]);
        let address = bridge(gateway.public, &config).await;
        Conn::open(address).await.get("/live", &[]).await.expect(200);
        let stream = connect(gateway.public, &config).await.expect("a handshake");
        assert_eq!(stream.get_ref().1.handshake_kind(), Some(HandshakeKind::Resumed));
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn plain_http_to_a_port_with_tls_is_told_so() {
    let tls = Setup::new();
    let gateway = TestGateway::start().with(&tls.keys("public")).with(&tls.keys("internal")).run().await;
    for address in [gateway.public, gateway.internal] {
        for request in ["GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"] {
            let mut conn = Conn::open(address).await;
            conn.send(request).await;
            let answer = conn.answer("GET").await.expect(400);
            assert_eq!(answer.text(), "this port speaks TLS: use https:// or wss://\n");
            assert!(answer.head.closes() && conn.closed_within(Duration::from_secs(5)).await);
        }
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_handshake_that_stalls_or_is_none_is_ended_and_costs_nobody() {
    let tls = Setup::new();
    let gateway = TestGateway::start().with(&tls.keys("public")).run().await;
    let config = tls.client(&["http/1.1"]);
    let hello = client_hello(&config);
    let begun = Instant::now();
    let mut stalled = Vec::new();
    for sent in [0, 1, 5, 6, hello.len() / 2, hello.len() - 1, hello.len()] {
        let mut conn = Conn::open(gateway.public).await;
        conn.send(&hello[..sent]).await;
        stalled.push((sent, conn));
    }
    let mut garbage = Conn::open(gateway.public).await;
    garbage.send([&[22, 3, 1, 0, 200][..], &[0xff; 200]].concat()).await;
    assert!(garbage.closed_within(Duration::from_secs(2)).await);
    let address = bridge(gateway.public, &config).await;
    Conn::open(address).await.get("/live", &[]).await.expect(200);
    for (sent, conn) in &mut stalled {
        assert!(conn.closed_within(Duration::from_secs(7)).await, "{sent} bytes of a handshake");
    }
    assert!(begun.elapsed() > Duration::from_secs(4), "given up too early");
    gateway.finish(()).await;
}

/// The first flight of a client.
fn client_hello(config: &Arc<ClientConfig>) -> Vec<u8> {
    let name = "localhost".try_into().unwrap();
    let mut session = tokio_rustls::rustls::ClientConnection::new(Arc::clone(config), name).unwrap();
    let mut hello = Vec::new();
    session.write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test]
async fn a_place_is_taken_before_the_handshake() {
    let tls = Setup::new();
    let gateway = TestGateway::start().with(&tls.keys("public")).with("limits.connections = 1").run().await;
    let idle = Conn::open(gateway.public).await;
    let address = bridge(gateway.public, &tls.client(&["http/1.1"])).await;
    eventually("the idle one is accepted", async || {
        let answer = Conn::open(address).await.get("/v1/subscribe?channel=a&wait=0", &[]).await;
        (answer.status() == 503).then(|| answer.problem(503, "too_many_connections"))
    })
    .await;
    drop(idle);
    eventually("its place is given back", async || {
        let answer = Conn::open(address).await.get("/v1/subscribe?channel=a&wait=0", &[]).await;
        (answer.status() == 200).then_some(())
    })
    .await;
    gateway.finish(()).await;
}

#[tokio::test]
async fn who_has_no_certificate_of_the_client_ca_is_not_served() {
    let tls = Setup::new();
    let (clients, others) = (Authority::new(), Authority::new());
    let ca = tls.folder.write("clients.crt", &clients.cert);
    let gateway = TestGateway::start()
        .with(&tls.keys("internal"))
        .with(&format!("internal.client_ca_file = '{ca}'"))
        .run()
        .await;
    let (good, wrong) = (clients.certify("a backend"), others.certify("somebody"));
    for version in [&version::TLS12, &version::TLS13] {
        for (who, identity, served) in
            [("nobody", None, false), ("another CA's", Some(&wrong), false), ("ours", Some(&good), true)]
        {
            let config = client(&tls.authority, identity, &["http/1.1"], &[version]);
            let live = async {
                let mut stream = connect(gateway.internal, &config).await?;
                stream
                    .write_all(b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
                    .await?;
                let mut said = String::new();
                stream.read_to_string(&mut said).await.map(|_| said)
            };
            let said = within(Duration::from_secs(10), who, live).await;
            match said {
                Ok(said) => assert!(served && said.starts_with("HTTP/1.1 200"), "{who}: {said}"),
                Err(error) => assert!(!served, "{who}: {error}"),
            }
        }
    }
    gateway.finish(()).await;
}

/// The subject of the certificate that a listener shows.
async fn shown(address: SocketAddr, config: &Arc<ClientConfig>) -> Option<String> {
    let stream = connect(address, config).await.ok()?;
    let certificate = stream.get_ref().1.peer_certificates()?.first()?.as_ref().to_vec();
    let text = String::from_utf8_lossy(&certificate).into_owned();
    ["the first", "the second", "the third"].into_iter().find(|name| text.contains(name)).map(str::to_owned)
}

async fn until_shown(address: SocketAddr, config: &Arc<ClientConfig>, wanted: &str) {
    eventually(wanted, async || (shown(address, config).await.as_deref() == Some(wanted)).then_some(()))
        .await;
}

#[tokio::test]
async fn a_new_certificate_is_used_and_a_bad_one_is_not_and_connections_stay() {
    let tls = Setup::new();
    let [cert, key] = [&tls.cert, &tls.key].map(String::as_str);
    let keys = [("TIDEGATE_PUBLIC__TLS_CERT_FILE", cert), ("TIDEGATE_PUBLIC__TLS_KEY_FILE", key)];
    let served = Served::start(&keys, &[]).await;
    let config = tls.client(&["http/1.1"]);
    let address = bridge(served.public, &config).await;
    let mut subscriber = Client::connect_with(address, Transport::Sse, "channel=a", Options::default()).await;
    assert_eq!(shown(served.public, &config).await.as_deref(), Some("the first"));

    let second = tls.authority.certify("the second");
    tls.folder.write("tls.crt", &second.cert);
    // Now the key does not fit.
    let told = |wanted: String| {
        let process = &served.process;
        async move {
            eventually(&wanted, async || process.said().contains(&wanted).then_some(())).await;
        }
    };
    told(format!(
        "the public listener stays with the certificate that it has: {key} is not the key of the certificate in {cert}"
    ))
    .await;
    assert_eq!(shown(served.public, &config).await.as_deref(), Some("the first"));
    tls.folder.write("tls.key", &second.key);
    until_shown(served.public, &config, "the second").await;
    told("the public listener uses the new certificate".to_owned()).await;

    std::fs::remove_file(cert).unwrap();
    told(format!("the public listener stays with the certificate that it has: cannot read {cert}: ")).await;
    tls.folder.write("tls.crt", "no certificate");
    told(format!("there is no PEM certificate in {cert}")).await;
    assert_eq!(shown(served.public, &config).await.as_deref(), Some("the second"));
    let third = tls.authority.certify("the third");
    tls.folder.write("tls.crt", &third.cert);
    tls.folder.write("tls.key", &third.key);
    until_shown(served.public, &config, "the third").await;
    assert!(!served.process.said().contains("PRIVATE KEY"));

    served.publish("a", "1").await;
    assert_eq!(subscriber.numbers(1).await, [1], "who was connected stays");
}

#[tokio::test]
async fn when_the_certificate_in_use_ends_is_a_metric() {
    let tls = Setup::new();
    let renewed = tls.authority.certify_until("the second", 2030);
    let gateway = TestGateway::start().with(&tls.keys("public")).run().await;
    let ends = async |listener, wanted| {
        eventually(listener, async || {
            let labels = [("listener", listener)];
            let ends = gateway.metric("tidegate_certificate_expiry_timestamp_seconds", &labels).await;
            (ends == wanted).then_some(())
        })
        .await;
    };
    ends("public", 67_090_118_400.0).await;
    ends("internal", 0.0).await;
    tls.folder.write("tls.crt", &renewed.cert);
    tls.folder.write("tls.key", &renewed.key);
    ends("public", 1_893_456_000.0).await;
    gateway.finish(()).await;
}

#[tokio::test]
async fn a_secret_of_kubernetes_is_swapped_by_its_symbolic_link() {
    let (authority, folder) = (Authority::new(), Folder::new());
    let version = |number: u8, name: &str| {
        let pair = authority.certify(name);
        let path = folder.path().join(format!("..{number}"));
        std::fs::create_dir(&path).unwrap();
        std::fs::write(path.join("tls.crt"), pair.cert).unwrap();
        std::fs::write(path.join("tls.key"), pair.key).unwrap();
        std::os::unix::fs::symlink(format!("..{number}"), folder.path().join("..data_tmp")).unwrap();
        std::fs::rename(folder.path().join("..data_tmp"), folder.path().join("..data")).unwrap();
    };
    version(1, "the first");
    let files = ["tls.crt", "tls.key"].map(|name| {
        let path = folder.path().join(name);
        std::os::unix::fs::symlink(format!("..data/{name}"), &path).unwrap();
        path.display().to_string()
    });
    let gateway = TestGateway::start()
        .with(&format!("public.tls_cert_file = '{}'\npublic.tls_key_file = '{}'", files[0], files[1]))
        .run()
        .await;
    let config = client(&authority, None, &["http/1.1"], &[&version::TLS13]);
    assert_eq!(shown(gateway.public, &config).await.as_deref(), Some("the first"));
    version(2, "the second");
    std::fs::remove_dir_all(folder.path().join("..1")).unwrap();
    until_shown(gateway.public, &config, "the second").await;
    gateway.finish(()).await;
}

#[tokio::test]
async fn files_that_cannot_be_used_are_named_at_the_start() {
    let tls = Setup::new();
    let other = tls.authority.certify("another");
    let (other_key, empty) = (tls.folder.write("other.key", &other.key), tls.folder.write("empty", ""));
    let (cert, key) = (&*tls.cert, &*tls.key);
    for (cert, key, ca, sentence) in [
        (
            cert,
            "",
            "",
            "internal.tls_cert_file and internal.tls_key_file need each other: one is missing".into(),
        ),
        ("/nowhere", key, "", "internal.tls_cert_file: cannot read /nowhere: No such file".into()),
        (cert, "/nowhere", "", "internal.tls_key_file: cannot read /nowhere: No such file".into()),
        (&*empty, key, "", format!("internal.tls_cert_file: there is no PEM certificate in {empty}")),
        (key, key, "", format!("internal.tls_cert_file: there is no PEM certificate in {key}")),
        (cert, cert, "", format!("internal.tls_key_file: there is no PEM private key in {cert}")),
        (
            cert,
            &*other_key,
            "",
            format!("internal.tls_key_file: {other_key} is not the key of the certificate in {cert}"),
        ),
        (cert, key, "/nowhere", "internal.client_ca_file: cannot read /nowhere: No such file".into()),
        (cert, key, &*empty, format!("internal.client_ca_file: there is no PEM certificate in {empty}")),
        (
            "",
            "",
            cert,
            "internal.client_ca_file asks for certificates of clients, and there is no TLS".into(),
        ),
    ] {
        let mut command = tidegate();
        command.env("TIDEGATE_INTERNAL__TLS_CERT_FILE", cert);
        command.env("TIDEGATE_INTERNAL__TLS_KEY_FILE", key);
        command.env("TIDEGATE_INTERNAL__CLIENT_CA_FILE", ca);
        let (code, said) = run(command).await;
        assert_eq!(code, 64, "{said}");
        assert!(said.starts_with("tidegate: TIDEGATE_INTERNAL__"), "{said}");
        assert!(said.contains(&sentence), "wanted {sentence}, got {said}");
        assert_eq!(said.trim_end().lines().count(), 1, "{said}");
    }
}

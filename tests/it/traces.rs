//! Traces: whose a publish is, what each node says of its fan-out, and what travels with the message. A small
//! collector decodes what the exporter really sends.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::{KeyValue, any_value::Value};
use opentelemetry_proto::tonic::trace::v1::{Span, span::SpanKind};
use prost::Message as _;
use serde_json::json;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

use crate::redis::table::until_ready;
use crate::support::process::{Served, free_port};
use crate::support::redis::Server;
use crate::support::tls::Setup;
use crate::support::{Client, TestGateway, Transport, eventually};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const CALLER: &str = "b7ad6b7169203331";

fn parent(flags: &str) -> String {
    format!("00-{TRACE}-{CALLER}-{flags}")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// A collector, and every span that it was sent.
struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
    /// Attributes of who sent them.
    resource: Arc<Mutex<Vec<KeyValue>>>,
    /// What stood in the heads.
    headers: Arc<Mutex<Vec<http::HeaderMap>>>,
}

impl Collector {
    async fn start(tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let collector = Self {
            address: listener.local_addr().expect("an address"),
            spans: Arc::default(),
            resource: Arc::default(),
            headers: Arc::default(),
        };
        let (spans, resource, headers) =
            (Arc::clone(&collector.spans), Arc::clone(&collector.resource), Arc::clone(&collector.headers));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (spans, resource, headers, tls) =
                    (Arc::clone(&spans), Arc::clone(&resource), Arc::clone(&headers), tls.clone());
                let take = move |request: Request<Incoming>| {
                    let (spans, resource, headers) =
                        (Arc::clone(&spans), Arc::clone(&resource), Arc::clone(&headers));
                    async move {
                        assert_eq!((request.method().as_str(), request.uri().path()), ("POST", "/v1/traces"));
                        headers.lock().expect("no panic").push(request.headers().clone());
                        let body = request.into_body().collect().await.expect("a body").to_bytes();
                        let sent = ExportTraceServiceRequest::decode(body).expect("it is protobuf");
                        for group in sent.resource_spans {
                            *resource.lock().expect("no panic") =
                                group.resource.expect("a resource").attributes;
                            let found = group.scope_spans.into_iter().flat_map(|scope| scope.spans);
                            spans.lock().expect("no panic").extend(found);
                        }
                        Ok::<_, Infallible>(Response::new(Empty::<Bytes>::new()))
                    }
                };
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, take).await,
                        Some(tls) => serve(tls.accept(stream).await.expect("a handshake"), take).await,
                    }
                });
            }
        });
        collector
    }

    fn endpoint(&self) -> String {
        format!("tracing.otlp_endpoint = 'http://{}'", self.address)
    }

    /// Waits for so many spans, and gives those of publishing and those of fan-out.
    async fn spans(&self, count: usize) -> (Vec<Span>, Vec<Span>) {
        let spans = eventually(&format!("{count} spans"), async || {
            let spans = self.spans.lock().expect("no panic").clone();
            (spans.len() >= count).then_some(spans)
        })
        .await;
        assert_eq!(spans.len(), count, "{spans:#?}");
        spans.into_iter().partition(|span| span.name == "publish")
    }
}

async fn serve<S, F, A>(stream: S, take: F)
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: Fn(Request<Incoming>) -> A,
    A: Future<Output = Result<Response<Empty<Bytes>>, Infallible>>,
{
    let _ = hyper::server::conn::http1::Builder::new()
        .serve_connection(TokioIo::new(stream), service_fn(take))
        .await;
}

fn text(attributes: &[KeyValue], name: &str) -> String {
    let found =
        attributes.iter().find(|attribute| attribute.key == name).and_then(|a| a.value.clone()?.value);
    match found {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => panic!("{name} is {other:?} in {attributes:#?}"),
    }
}

fn linked(fan_out: &Span) -> Vec<(String, String)> {
    fan_out.links.iter().map(|link| (hex(&link.trace_id), hex(&link.span_id))).collect()
}

fn own(span: &Span) -> (String, String) {
    (hex(&span.trace_id), hex(&span.span_id))
}

async fn publish(gateway: &TestGateway, channel: &str, traceparent: Option<&str>) -> String {
    let headers: Vec<_> = traceparent.iter().map(|value| ("traceparent", *value)).collect();
    let answer =
        gateway.post(channel, &[&[("Content-Type", "application/json")], &headers[..]].concat(), "[1]").await;
    answer.expect(202).json()["id"].as_str().expect("an id").to_owned()
}

#[tokio::test]
async fn a_traced_message_has_a_span_at_its_publish_and_one_at_its_fan_out() {
    let collector = Collector::start(None).await;
    let gateway =
        TestGateway::start().with(&collector.endpoint()).with("tracing.sample_ratio = 0").run().await;
    let mut clients = Vec::new();
    for transport in Transport::ALL {
        clients.push(Client::connect(&gateway, transport, "channel=a").await);
    }
    gateway.until_subscribers("a", 3).await;
    let id = publish(&gateway, "a", Some(&parent("01"))).await;
    let (published, fanned_out) = collector.spans(2).await;
    let (published, fan_out) = (&published[0], &fanned_out[0]);
    assert_eq!(
        (hex(&published.trace_id), hex(&published.parent_span_id)),
        (TRACE.to_owned(), CALLER.to_owned())
    );
    assert_eq!(published.kind, SpanKind::Producer as i32);
    for (name, value) in [
        ("messaging.system", "tidegate"),
        ("messaging.operation.type", "send"),
        ("messaging.destination.name", "a"),
        ("messaging.message.id", id.as_str()),
        ("messaging.message.body.size", "3"),
    ] {
        assert_eq!(text(&published.attributes, name), value);
    }
    assert_eq!(fan_out.name, "fan-out");
    assert_eq!(fan_out.kind, SpanKind::Consumer as i32);
    assert!(
        fan_out.parent_span_id.is_empty() && fan_out.trace_id != published.trace_id,
        "linked, not a child"
    );
    assert_eq!(linked(fan_out), [own(published)]);
    for (name, value) in [
        ("messaging.destination.name", "a"),
        ("messaging.batch.message_count", "1"),
        ("tidegate.subscribers", "3"),
        ("tidegate.bytes", "3"),
    ] {
        assert_eq!(text(&fan_out.attributes, name), value);
    }
    let lag: u64 = text(&fan_out.attributes, "tidegate.max_lag_ms").parse().expect("a number");
    assert!(lag < 15_000, "{lag}");
    assert_eq!(text(&collector.resource.lock().unwrap(), "service.name"), "tidegate");
    let headers = collector.headers.lock().unwrap()[0].clone();
    assert_eq!(headers["content-type"], "application/x-protobuf");
    gateway.finish(clients).await;
}

#[tokio::test]
async fn what_is_traced_is_the_callers_choice_and_else_a_matter_of_chance() {
    for (ratio, without_caller) in [("0", 0), ("1", 3)] {
        let collector = Collector::start(None).await;
        let keys = format!("{}\ntracing.sample_ratio = {ratio}", collector.endpoint());
        let gateway = TestGateway::start().with(&keys).run().await;
        publish(&gateway, "a", None).await;
        // What cannot be read is as none: a caller's library must cost no message.
        publish(&gateway, "a", Some("not a trace parent")).await;
        publish(&gateway, "a", Some(&parent("01").replace(TRACE, &"0".repeat(32)))).await;
        publish(&gateway, "a", Some(&parent("00"))).await;
        publish(&gateway, "a", Some(&parent("01"))).await;
        let (published, fanned_out) = collector.spans(without_caller + 1).await;
        assert!(fanned_out.is_empty(), "nobody listens");
        let of_caller = published.iter().filter(|span| hex(&span.trace_id) == TRACE).count();
        assert_eq!((published.len(), of_caller), (without_caller + 1, 1), "{ratio}");
        let roots = published.iter().filter(|span| span.parent_span_id.is_empty()).count();
        assert_eq!(roots, without_caller);
        gateway.finish(()).await;
    }
}

#[tokio::test]
async fn the_messages_of_a_batch_are_spans_of_one_trace() {
    let collector = Collector::start(None).await;
    let gateway = TestGateway::start().with(&collector.endpoint()).run().await;
    let client = Client::connect(&gateway, Transport::Sse, "channel=a&channel=b").await;
    let body =
        json!({"messages": [{"channels": ["a", "b"], "data": 1}, {"channel": "a", "data": 2}]}).to_string();
    let traced = parent("01");
    let headers = [("Content-Type", "application/json"), ("traceparent", traced.as_str())];
    gateway.internal("POST", "/v1/messages", &headers, Some(body.as_bytes())).await.expect(202);
    let all = eventually("the spans of three messages", async || {
        let spans = collector.spans.lock().expect("no panic").clone();
        let links: usize = spans.iter().map(|span| span.links.len()).sum();
        (links == 3).then_some(spans)
    })
    .await;
    let (published, fanned_out): (Vec<_>, Vec<_>) = all.iter().partition(|span| span.name == "publish");
    assert_eq!(published.len(), 3);
    assert!(published.iter().all(|span| hex(&span.trace_id) == TRACE && hex(&span.parent_span_id) == CALLER));
    let mut found: Vec<_> = fanned_out.into_iter().flat_map(linked).collect();
    let mut wanted: Vec<_> = published.into_iter().map(own).collect();
    found.sort();
    wanted.sort();
    assert_eq!(found, wanted);
    let twice = [headers[0], headers[1], ("traceparent", "x")];
    gateway
        .internal("POST", "/v1/messages", &twice, Some(body.as_bytes()))
        .await
        .problem(400, "invalid_header");
    gateway.finish(client).await;
}

/// What Redis keeps of a channel's newest message.
async fn stored(redis: &Server) -> Vec<u8> {
    let keys = redis.keys("*:log:a").await;
    let entries: Vec<(String, Vec<Vec<u8>>)> =
        redis.ask(&["XREVRANGE", &keys[0], "+", "-", "COUNT", "1"]).await;
    entries[0].1[1].clone()
}

#[tokio::test]
async fn every_gateway_links_its_fan_out_to_the_one_publish() {
    let (redis, collector) = (Server::plain().await, Collector::start(None).await);
    let keys = format!("broker.url = '{}'\n{}\ntracing.sample_ratio = 0", redis.url(), collector.endpoint());
    let (one, other) =
        (TestGateway::start().with(&keys).run().await, TestGateway::start().with(&keys).run().await);
    until_ready(&one).await;
    until_ready(&other).await;
    let [first, second] = [
        Client::connect(&one, Transport::Websocket, "channel=a").await,
        Client::connect(&other, Transport::Sse, "channel=a").await,
    ];
    publish(&one, "a", Some(&parent("00"))).await;
    assert!(
        stored(&redis).await.windows(7).all(|bytes| bytes != &TRACE.as_bytes()[..7]),
        "nobody records it"
    );
    publish(&one, "a", Some(&parent("01"))).await;
    let (published, fanned_out) = collector.spans(3).await;
    assert_eq!(fanned_out.len(), 2);
    for fan_out in &fanned_out {
        assert_eq!(linked(fan_out), [own(&published[0])]);
    }
    let carried = format!("\0\x3700-{TRACE}-{}-01[1]", hex(&published[0].span_id));
    assert!(stored(&redis).await.ends_with(carried.as_bytes()), "55 bytes after their length");
    one.finish(first).await;
    other.finish(second).await;
}

#[tokio::test]
async fn without_an_endpoint_the_callers_trace_is_passed_on() {
    let redis = Server::plain().await;
    let gateway = TestGateway::start().with(&format!("broker.url = '{}'", redis.url())).run().await;
    until_ready(&gateway).await;
    for (flags, carried) in [("01", true), ("00", false)] {
        publish(&gateway, "a", Some(&parent(flags))).await;
        let stored = stored(&redis).await;
        let found = stored.windows(55).any(|bytes| bytes == parent(flags).as_bytes());
        assert_eq!(found, carried, "{flags}");
    }
    gateway.finish(()).await;
}

#[tokio::test]
async fn spans_go_over_tls_with_the_headers_of_the_environment_and_leave_before_the_end() {
    let setup = Setup::new();
    let pem = |path: &str| std::fs::read(path).expect("a file");
    let chain = vec![CertificateDer::from_pem_slice(&pem(&setup.cert)).expect("a certificate")];
    let key = PrivateKeyDer::from_pem_slice(&pem(&setup.key)).expect("a key");
    let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_no_client_auth()
        .with_single_cert(chain, key)
        .expect("a configuration");
    let collector = Collector::start(Some(TlsAcceptor::from(Arc::new(config)))).await;
    let roots = setup.folder.write("roots.pem", &setup.authority.cert);
    let endpoint = format!("https://localhost:{}", collector.address.port());
    let keys = [
        ("TIDEGATE_TRACING__OTLP_ENDPOINT", endpoint.as_str()),
        ("TIDEGATE_TRACING__SAMPLE_RATIO", "1"),
        ("TIDEGATE_DRAIN__NOTICE", "0s"),
        ("SSL_CERT_FILE", &roots),
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-team=blue"),
        ("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test"),
    ];
    let mut served = Served::start(&keys, &[]).await;
    served.publish("a", "1").await;
    served.process.signal("TERM");
    assert_eq!(served.process.exit(Duration::from_secs(15)).await.code(), Some(0));
    let (published, _) = collector.spans(1).await;
    assert_eq!(text(&published[0].attributes, "messaging.destination.name"), "a");
    assert_eq!(collector.headers.lock().unwrap()[0]["x-team"], "blue");
    assert_eq!(text(&collector.resource.lock().unwrap(), "deployment.environment.name"), "test");
}

#[tokio::test]
async fn a_collector_that_is_away_costs_a_line_in_the_log_and_nothing_else() {
    let endpoint = format!("http://127.0.0.1:{}", free_port());
    let keys = [
        ("TIDEGATE_TRACING__OTLP_ENDPOINT", endpoint.as_str()),
        ("TIDEGATE_TRACING__SAMPLE_RATIO", "1"),
        ("TIDEGATE_DRAIN__NOTICE", "0s"),
    ];
    let mut served = Served::start(&keys, &[]).await;
    served.publish("a", "1").await;
    eventually("a word on the collector", async || {
        served.process.said().contains("spans do not reach tracing.otlp_endpoint").then_some(())
    })
    .await;
    served.publish("a", "2").await;
    served.process.signal("TERM");
    assert_eq!(served.process.exit(Duration::from_secs(15)).await.code(), Some(0));
    assert_eq!(served.process.said().matches("spans do not reach").count(), 1, "{}", served.process.said());
}

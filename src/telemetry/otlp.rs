//! The way of spans to a collector: a POST now and then, over HTTP/1.1. The exporter has a thread of its own and no
//! runtime; its requests run on that of the gateway.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header, uri::Scheme};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::client::conn::http1::handshake;
use hyper_util::rt::TokioIo;
use opentelemetry_http::{HttpClient, HttpError};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    runtime::Handle,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName},
};

/// How long a request may take.
const TIME: Duration = Duration::from_secs(10);

/// What is read of an answer: it tells in a sentence what was refused.
const ANSWER: usize = 64 * 1024;

/// Posts to a collector, and logs when that begins to fail and when it is over.
pub(super) struct Poster {
    runtime: Handle,
    tls: Option<TlsConnector>,
    fails: AtomicBool,
}

impl Poster {
    /// For this endpoint, on the runtime that this is called in.
    ///
    /// # Errors
    /// Nothing to check the collector's certificate against.
    pub(super) fn new(endpoint: &Uri) -> Result<Self, String> {
        let tls = (endpoint.scheme() == Some(&Scheme::HTTPS)).then(connector).transpose()?;
        Ok(Self { runtime: Handle::current(), tls, fails: AtomicBool::new(false) })
    }

    fn tell(&self, outcome: &Result<Response<Bytes>, HttpError>) {
        let problem = match outcome {
            Ok(answer) if answer.status().is_success() => None,
            Ok(answer) => Some(format!("the answer is {}", answer.status())),
            Err(error) => Some(error.to_string()),
        };
        match (problem, self.fails.load(Relaxed)) {
            (Some(problem), false) => tracing::warn!("spans do not reach tracing.otlp_endpoint: {problem}"),
            (None, true) => tracing::info!("spans reach tracing.otlp_endpoint again"),
            (Some(_), true) | (None, false) => return,
        }
        self.fails.fetch_not(Relaxed);
    }
}

impl std::fmt::Debug for Poster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Poster")
    }
}

#[async_trait]
impl HttpClient for Poster {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let tls = self.tls.clone();
        // The timer is of the runtime too.
        let posted = self.runtime.spawn(async move { timeout(TIME, post(request, tls)).await });
        let outcome = match posted.await {
            Ok(Ok(outcome)) => outcome,
            Ok(Err(_)) => Err(format!("no answer within {} s", TIME.as_secs()).into()),
            Err(ended) => Err(ended.into()),
        };
        self.tell(&outcome);
        outcome
    }
}

async fn post(request: Request<Bytes>, tls: Option<TlsConnector>) -> Result<Response<Bytes>, HttpError> {
    let host = request.uri().host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
    let port = request.uri().port_u16().unwrap_or(if tls.is_some() { 443 } else { 80 });
    let stream = TcpStream::connect((host.as_str(), port)).await?;
    match tls {
        None => exchange(request, stream).await,
        Some(connector) => {
            let stream = connector.connect(ServerName::try_from(host)?, stream).await?;
            exchange(request, stream).await
        }
    }
}

async fn exchange<S>(mut request: Request<Bytes>, stream: S) -> Result<Response<Bytes>, HttpError>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let host = request.uri().authority().map_or("", |authority| authority.as_str());
    let host = HeaderValue::from_str(host)?;
    request.headers_mut().insert(header::HOST, host);
    // On the wire it is the path alone.
    *request.uri_mut() = request.uri().path().parse()?;
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    // Ends with the answer, or with the sender.
    tokio::spawn(connection);
    let (head, body) = sender.send_request(request.map(Full::new)).await?.into_parts();
    let body = Limited::new(body, ANSWER).collect().await?.to_bytes();
    Ok(Response::from_parts(head, body))
}

/// What the system trusts, or what SSL_CERT_FILE names.
fn connector() -> Result<TlsConnector, String> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        let cure = "this system has no trusted certificates: install ca-certificates, or name a file of them in \
                    SSL_CERT_FILE";
        return Err(cure.into());
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

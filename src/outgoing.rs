//! Requests that the gateway itself makes: to who issues tokens, to who collects spans. Each has a connection of its
//! own: they come minutes or seconds apart, and need no pool and no client library beside hyper.

use std::{io, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, Request, Response, Uri, header, uri::Scheme};
use http_body_util::Full;
use hyper::{body::Incoming, client::conn::http1::handshake};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName},
};

/// What is needed to ask at URLs of one scheme. Clones share it.
#[derive(Clone)]
pub struct Outgoing {
    /// Where the scheme is https.
    tls: Option<TlsConnector>,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum Unanswered {
    /// Nobody is there.
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    /// The host of the URL.
    #[error("its host is no name that a certificate could have")]
    Name,
    /// Somebody else is there, or nobody who speaks TLS.
    #[error("TLS fails: {0}")]
    Tls(io::Error),
    /// The URL, as a request has it.
    #[error("this URL cannot be asked for")]
    Url,
    /// The connection broke off.
    #[error("no answer: {0}")]
    Http(#[from] hyper::Error),
}

impl Outgoing {
    /// For URLs of the same scheme as this one.
    ///
    /// # Errors
    /// The system trusts nobody; with the cure.
    pub fn to(uri: &Uri) -> Result<Self, String> {
        let tls = match uri.scheme() == Some(&Scheme::HTTP) {
            true => None,
            false => Some(Arc::new(trusting(system_roots()?)?).into()),
        };
        Ok(Self { tls })
    }

    /// Sends a request to its URL, and gives the answer's head. It takes as long as it takes.
    ///
    /// # Errors
    /// Why there is no answer.
    pub async fn send(&self, request: Request<Bytes>) -> Result<Response<Incoming>, Unanswered> {
        let host = request.uri().host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
        let port = request.uri().port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let stream = TcpStream::connect((host.as_str(), port)).await.map_err(Unanswered::Connect)?;
        match &self.tls {
            None => exchange(request, stream).await,
            Some(connector) => {
                let name = ServerName::try_from(host).map_err(|_| Unanswered::Name)?;
                exchange(request, connector.connect(name, stream).await.map_err(Unanswered::Tls)?).await
            }
        }
    }
}

async fn exchange<S>(mut request: Request<Bytes>, stream: S) -> Result<Response<Incoming>, Unanswered>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let uri = request.uri();
    let host = uri.authority().and_then(|authority| HeaderValue::from_str(authority.as_str()).ok());
    // On the wire the target has no host.
    let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str).parse();
    *request.uri_mut() = target.map_err(|_| Unanswered::Url)?;
    request.headers_mut().insert(header::HOST, host.ok_or(Unanswered::Url)?);
    let agent = HeaderValue::from_static(concat!("tidegate/", env!("CARGO_PKG_VERSION")));
    request.headers_mut().entry(header::USER_AGENT).or_insert(agent);
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await?;
    // Ends with the answer, or with the sender.
    tokio::spawn(connection);
    Ok(sender.send_request(request.map(Full::new)).await?)
}

/// What the system trusts, or the file that SSL_CERT_FILE names: so who is within a company is known by the company's
/// own authority.
///
/// # Errors
/// Nobody is trusted; with the cure.
pub fn system_roots() -> Result<RootCertStore, String> {
    let mut roots = RootCertStore::empty();
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    match roots.is_empty() {
        true => Err(
            "this system has no trusted certificates: install ca-certificates, or name a file of them in \
                     SSL_CERT_FILE"
                .into(),
        ),
        false => Ok(roots),
    }
}

/// A client's side of TLS that trusts these authorities.
///
/// # Errors
/// A fault of the library.
pub fn trusting(roots: RootCertStore) -> Result<ClientConfig, String> {
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

//! `GET` of a small document, over TLS, for as long as 5 s. A request in minutes needs no pool and no client library
//! beside hyper.

use std::{fmt, io, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Empty, Limited};
use hyper::{body::Incoming, client::conn::http1::handshake};
use hyper_util::rt::TokioIo;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{ClientConfig, RootCertStore, crypto::aws_lc_rs, pki_types::ServerName},
};

/// An issuer that takes longer is away.
const PATIENCE: Duration = Duration::from_secs(5);
/// A JWKS has some kilobytes.
const LARGEST: usize = 64 * 1024;
/// Redirects that are followed, on one host.
const REDIRECTS: usize = 3;

/// Why there is no document.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// Nobody answers, or with a fault of their own: it may be better in a moment.
    Away(String),
    /// The answer, or who gives it, is not what the configuration means.
    Bad(String),
}

impl fmt::Display for Trouble {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Away(what) | Self::Bad(what)) = self;
        f.write_str(what)
    }
}

/// Who fetches, and from where.
pub struct Fetch {
    uri: Uri,
    /// Where the URL asks for TLS.
    tls: Option<TlsConnector>,
}

impl Fetch {
    /// For an `https` URL, or an `http` one of this machine, as the configuration has checked.
    pub fn new(url: &str) -> Result<Self, Trouble> {
        let uri: Uri = url.parse().map_err(|_| Trouble::Bad("this is not a URL".into()))?;
        let tls = (uri.scheme_str() != Some("http")).then(connector).transpose()?;
        Ok(Self { uri, tls })
    }

    /// The document.
    ///
    /// # Errors
    /// Why there is none.
    pub async fn get(&self) -> Result<Bytes, Trouble> {
        let fetched = timeout(PATIENCE, self.follow()).await;
        fetched.unwrap_or_else(|_| Err(Trouble::Away("no answer within 5 s".into())))
    }

    async fn follow(&self) -> Result<Bytes, Trouble> {
        let mut uri = self.uri.clone();
        for _ in 0..=REDIRECTS {
            let response = self.ask(&uri).await?;
            if !response.status().is_redirection() {
                return body(response).await;
            }
            uri = self.next(&uri, &response)?;
        }
        Err(Trouble::Bad(format!("it redirects more than {REDIRECTS} times")))
    }

    /// Where a redirect leads: on the same host, since that is whom the configuration trusts.
    fn next(&self, from: &Uri, response: &Response<Incoming>) -> Result<Uri, Trouble> {
        let location = response.headers().get(header::LOCATION).and_then(|value| value.to_str().ok());
        let location = location.unwrap_or_default();
        let parsed = location.parse::<Uri>().ok();
        let next = match parsed.as_ref().map(|to| (to, to.authority())) {
            Some((to, Some(_))) if to.scheme() == from.scheme() && to.authority() == from.authority() => {
                to.clone()
            }
            Some((to, None)) if location.starts_with('/') && !location.starts_with("//") => {
                let mut parts = from.clone().into_parts();
                parts.path_and_query = to.path_and_query().cloned();
                Uri::from_parts(parts).map_err(|_| Trouble::Bad("it redirects to nowhere".into()))?
            }
            _ => {
                return Err(Trouble::Bad(format!(
                    "it redirects to {location:?}, which is not on the same host and is not followed: if it is \
                     right, write that URL"
                )));
            }
        };
        Ok(next)
    }

    async fn ask(&self, uri: &Uri) -> Result<Response<Incoming>, Trouble> {
        let host = uri.host().unwrap_or_default().trim_matches(['[', ']']);
        let port = uri.port_u16().unwrap_or(if self.tls.is_some() { 443 } else { 80 });
        let stream = TcpStream::connect((host, port))
            .await
            .map_err(|error| Trouble::Away(format!("cannot connect: {error}")))?;
        match &self.tls {
            None => exchange(stream, uri).await,
            Some(connector) => {
                let name = ServerName::try_from(host.to_owned())
                    .map_err(|_| Trouble::Bad("its host is no name that a certificate could have".into()))?;
                let stream =
                    connector.connect(name, stream).await.map_err(|error| handshake_failed(&error))?;
                exchange(stream, uri).await
            }
        }
    }
}

/// A certificate that is not trusted stays so; everything else of a handshake may pass.
fn handshake_failed(error: &io::Error) -> Trouble {
    match error.kind() {
        io::ErrorKind::InvalidData => Trouble::Bad(format!(
            "TLS fails: {error} (trusted are the system's certificates, or those that SSL_CERT_FILE names)"
        )),
        _ => Trouble::Away(format!("TLS fails: {error}")),
    }
}

/// What the system trusts, so that an issuer within a company is known by the company's own authority.
fn connector() -> Result<TlsConnector, Trouble> {
    let mut roots = RootCertStore::empty();
    let (added, _) = roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if added == 0 {
        let cure = "this system has no trusted certificates: install ca-certificates, or name a file of them in \
                    SSL_CERT_FILE";
        return Err(Trouble::Bad(cure.into()));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Trouble::Bad(format!("TLS cannot be set up: {error}")))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn exchange<S>(stream: S, uri: &Uri) -> Result<Response<Incoming>, Trouble>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let away = |error: hyper::Error| Trouble::Away(format!("no answer: {error}"));
    let (mut sender, connection) = handshake(TokioIo::new(stream)).await.map_err(away)?;
    // Ends with the answer, or when the sender is dropped.
    tokio::spawn(connection);
    let target = uri.path_and_query().map_or("/", http::uri::PathAndQuery::as_str);
    let request = Request::get(target)
        .header(header::HOST, uri.authority().map_or("", http::uri::Authority::as_str))
        .header(header::ACCEPT, "application/jwk-set+json, application/json")
        .header(header::USER_AGENT, concat!("tidegate/", env!("CARGO_PKG_VERSION")))
        .body(Empty::<Bytes>::new())
        .map_err(|_| Trouble::Bad("this URL cannot be asked for".into()))?;
    sender.send_request(request).await.map_err(away)
}

async fn body(response: Response<Incoming>) -> Result<Bytes, Trouble> {
    let status = response.status();
    if status.is_server_error()
        || matches!(status, StatusCode::TOO_MANY_REQUESTS | StatusCode::REQUEST_TIMEOUT)
    {
        return Err(Trouble::Away(format!("the answer is {status}")));
    }
    if status != StatusCode::OK {
        return Err(Trouble::Bad(format!("the answer is {status}")));
    }
    match Limited::new(response.into_body(), LARGEST).collect().await {
        Ok(body) => Ok(body.to_bytes()),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            Err(Trouble::Bad("the answer is larger than 64 KiB".into()))
        }
        Err(error) => Err(Trouble::Away(format!("the answer breaks off: {error}"))),
    }
}

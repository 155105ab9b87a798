//! What the commands that talk to a gateway share: its URL, what they show to be let in, a connection, and what a
//! refusal says.

mod credential;
mod trust;

use std::{fmt, str::FromStr, time::Duration};

use anyhow::Context as _;
use bytes::Bytes;
use http::{Request, Response, Uri, header, request, uri::Authority};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::{
    body::Incoming,
    client::conn::http1::{SendRequest, handshake},
};
use hyper_util::rt::TokioIo;
use serde::Deserialize;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::TcpStream,
    time::timeout,
};
use tokio_rustls::TlsConnector;

pub(super) use self::{
    credential::{ApiKey, Credential, Token},
    trust::Trust,
};

/// How long a connection may take to come about, and a head to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// A problem is a few sentences.
const PROBLEM_BYTES: usize = 64 * 1024;

/// Where a listener is: `http://host:port` or `https://…`, with a path before ours where a proxy wants one.
#[derive(Clone, Debug)]
pub(super) struct Url {
    is_https: bool,
    authority: Authority,
    prefix: String,
}

/// A text that is no URL of ours.
#[derive(Debug, thiserror::Error)]
#[error("expected a URL such as http://127.0.0.1:8000 or https://push.example.org")]
pub(super) struct UrlError;

/// One listener of a gateway, and how to be let in.
#[derive(Clone)]
pub(super) struct Client {
    url: Url,
    tls: Option<TlsConnector>,
    credential: Credential,
}

/// An answer other than the one hoped for.
#[derive(Debug, Default)]
pub(super) struct Refusal {
    pub status: u16,
    /// Title and detail of the problem, or what there is.
    pub sentence: String,
    pub retry_after: Option<Duration>,
}

/// The parts of a problem that a person wants.
#[derive(Deserialize)]
struct Problem {
    title: String,
    detail: Option<String>,
}

impl FromStr for Url {
    type Err = UrlError;

    fn from_str(text: &str) -> Result<Self, UrlError> {
        let parts = text.parse::<Uri>().map_err(|_| UrlError)?.into_parts();
        let is_https = match parts.scheme.as_ref().map(http::uri::Scheme::as_str) {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(UrlError),
        };
        let path = parts.path_and_query.as_ref().map_or("", |path| path.path());
        let authority = parts.authority.filter(|authority| !authority.as_str().contains('@'));
        Ok(Self {
            is_https,
            authority: authority.ok_or(UrlError)?,
            prefix: path.trim_end_matches('/').to_owned(),
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.is_https { "https" } else { "http" };
        write!(f, "{scheme}://{}{}", self.authority, self.prefix)
    }
}

impl Url {
    /// The host as a resolver and a certificate know it, and the port.
    fn place(&self) -> (&str, u16) {
        let port = self.authority.port_u16().unwrap_or(if self.is_https { 443 } else { 80 });
        (self.authority.host().trim_matches(['[', ']']), port)
    }
}

impl Client {
    /// A client that connects to nobody yet.
    ///
    /// # Errors
    /// Certificates that cannot be used, and a credential that cannot be read, as a sentence.
    pub(super) fn new(url: Url, trust: &Trust, credential: Credential) -> Result<Self, String> {
        let tls = if url.is_https { Some(trust.connector()?) } else { None };
        credential.header()?;
        Ok(Self { url, tls, credential })
    }

    /// Where it connects to.
    pub(super) fn url(&self) -> &Url {
        &self.url
    }

    /// What it shows.
    pub(super) fn credential(&self) -> &Credential {
        &self.credential
    }

    /// A request for a path below the URL, with the credential as it is now.
    ///
    /// # Errors
    /// A file that cannot be read any more.
    pub(super) fn request(&self, path: &str) -> anyhow::Result<request::Builder> {
        let request = Request::builder()
            .uri(format!("{}{path}", self.url.prefix))
            .header(header::HOST, self.url.authority.as_str())
            .header(header::USER_AGENT, concat!("tidegate/", env!("CARGO_PKG_VERSION")));
        Ok(match self.credential.header().map_err(anyhow::Error::msg)? {
            Some(authorization) => request.header(header::AUTHORIZATION, authorization),
            None => request,
        })
    }

    /// Opens a connection for requests one after the other, or one upgrade.
    pub(super) async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let connecting = timeout(PATIENCE, self.open()).await;
        let opened = connecting.unwrap_or_else(|_| Err(anyhow::anyhow!("nobody answered in time")));
        opened.with_context(|| format!("cannot connect to {}", self.url))
    }

    async fn open(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let stream = TcpStream::connect(self.url.place()).await?;
        stream.set_nodelay(true)?;
        match &self.tls {
            None => speak(stream).await,
            Some(tls) => speak(trust::handshake(tls, self.url.place().0, stream).await?).await,
        }
    }
}

/// Begins HTTP/1.1 on a stream.
async fn speak<S>(stream: S) -> anyhow::Result<SendRequest<Full<Bytes>>>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (sender, connection) = handshake(TokioIo::new(stream)).await?;
    // It ends with the sender and the last body; what goes wrong shows there.
    tokio::spawn(connection.with_upgrades());
    Ok(sender)
}

/// Sends a request; the head of the answer must come within `wait` and a little.
pub(super) async fn send(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
    wait: Duration,
) -> anyhow::Result<Response<Incoming>> {
    sender.ready().await?;
    let answer = timeout(PATIENCE + wait, sender.send_request(request)).await;
    let answer = answer.context("no answer came in time")?;
    answer.map_err(|error| match error.is_parse() {
        true => anyhow::anyhow!(
            "the answer is not HTTP: does it speak TLS there? Then the URL begins with https://"
        ),
        false => error.into(),
    })
}

impl Refusal {
    /// Reads why.
    pub(super) async fn read(response: Response<Incoming>) -> Self {
        let (head, body) = response.into_parts();
        let seconds =
            head.headers.get(header::RETRY_AFTER).and_then(|value| value.to_str().ok()?.parse().ok());
        let body = timeout(PATIENCE, Limited::new(body, PROBLEM_BYTES).collect()).await;
        let body = body.ok().and_then(Result::ok).map(|body| body.to_bytes()).unwrap_or_default();
        Self {
            status: head.status.as_u16(),
            sentence: match serde_json::from_slice(&body) {
                Ok(Problem { title, detail: None }) => title,
                Ok(Problem { title, detail: Some(detail) }) => format!("{title}: {detail}"),
                Err(_) => format!("the answer was {}, and not in Tidegate's words: a proxy's?", head.status),
            },
            retry_after: seconds.map(Duration::from_secs),
        }
    }

    /// Whether the same request may succeed later.
    pub(super) fn may_pass(&self) -> bool {
        matches!(self.status, 408 | 429 | 500..)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn urls_keep_their_path_and_other_schemes_are_refused() {
        for (text, printed, place) in [
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000", ("127.0.0.1", 8000)),
            ("http://[::1]:8000/", "http://[::1]:8000", ("::1", 8000)),
            ("http://example.org/push/", "http://example.org/push", ("example.org", 80)),
            ("https://example.org", "https://example.org", ("example.org", 443)),
        ] {
            let url: Url = text.parse().unwrap();
            assert_eq!((url.to_string().as_str(), url.place()), (printed, place));
        }
        for text in ["", "127.0.0.1:8000", "/x", "ws://a", "http://", "http://key@a"] {
            assert!(text.parse::<Url>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_request_has_the_path_before_ours_and_the_credential() {
        let url = "http://example.org/push/".parse().unwrap();
        let credential = Credential::Text("abc".to_owned().into());
        let client = Client::new(url, &Trust::default(), credential).unwrap();
        let request = client.request("/v1/subscribe").unwrap().body(()).unwrap();
        assert_eq!(request.uri(), "/push/v1/subscribe");
        assert_eq!(request.headers()[header::AUTHORIZATION], "Bearer abc");
    }
}

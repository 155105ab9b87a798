//! What the commands that talk to a gateway share: its URL, a connection, and what a refusal says.

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
use tokio::{net::TcpStream, time::timeout};

/// How long a connection may take to come about, and a head to arrive.
const PATIENCE: Duration = Duration::from_secs(10);

/// A problem is a few sentences.
const PROBLEM_BYTES: usize = 64 * 1024;

/// Where a listener is: `http://host:port`, with a path before ours where a proxy wants one.
#[derive(Clone, Debug)]
pub(super) struct Url {
    authority: Authority,
    prefix: String,
}

/// A text that is no URL of ours.
#[derive(Debug, thiserror::Error)]
pub(super) enum UrlError {
    #[error("expected a URL such as http://127.0.0.1:8000")]
    Malformed,
    #[error("only http:// is spoken here; end TLS before it")]
    Scheme,
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
        let parts = text.parse::<Uri>().map_err(|_| UrlError::Malformed)?.into_parts();
        let scheme = parts.scheme.ok_or(UrlError::Malformed)?;
        if scheme != http::uri::Scheme::HTTP {
            return Err(UrlError::Scheme);
        }
        let path = parts.path_and_query.as_ref().map_or("", |path| path.path());
        Ok(Self {
            authority: parts.authority.ok_or(UrlError::Malformed)?,
            prefix: path.trim_end_matches('/').to_owned(),
        })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "http://{}{}", self.authority, self.prefix)
    }
}

impl Url {
    /// A request for a path below this URL.
    pub(super) fn request(&self, path: &str) -> request::Builder {
        Request::builder()
            .uri(format!("{}{path}", self.prefix))
            .header(header::HOST, self.authority.as_str())
            .header(header::USER_AGENT, concat!("tidegate/", env!("CARGO_PKG_VERSION")))
    }

    /// Opens a connection for requests one after the other, or one upgrade.
    pub(super) async fn connect(&self) -> anyhow::Result<SendRequest<Full<Bytes>>> {
        let host = self.authority.host().trim_matches(['[', ']']);
        let port = self.authority.port_u16().unwrap_or(80);
        let stream = timeout(PATIENCE, TcpStream::connect((host, port))).await;
        let stream = stream.map_err(anyhow::Error::from).and_then(|stream| Ok(stream?));
        let stream = stream.with_context(|| format!("cannot connect to {self}"))?;
        stream.set_nodelay(true)?;
        let (sender, connection) = handshake(TokioIo::new(stream)).await?;
        // It ends with the sender and the last body; what goes wrong shows there.
        tokio::spawn(connection.with_upgrades());
        Ok(sender)
    }
}

/// Sends a request; the head of the answer must come within `wait` and a little.
pub(super) async fn send(
    sender: &mut SendRequest<Full<Bytes>>,
    request: Request<Full<Bytes>>,
    wait: Duration,
) -> anyhow::Result<Response<Incoming>> {
    sender.ready().await?;
    let answer = timeout(PATIENCE + wait, sender.send_request(request)).await;
    Ok(answer.context("no answer came in time")??)
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
                Err(_) => format!("the answer was {}", head.status),
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
        for (text, printed) in [
            ("http://127.0.0.1:8000", "http://127.0.0.1:8000"),
            ("http://[::1]:8000/", "http://[::1]:8000"),
            ("http://example.org/push/", "http://example.org/push"),
        ] {
            assert_eq!(text.parse::<Url>().unwrap().to_string(), printed);
        }
        for text in ["", "127.0.0.1:8000", "/x", "https://a", "ws://a", "http://"] {
            assert!(text.parse::<Url>().is_err(), "{text}");
        }
        let url: Url = "http://example.org/push/".parse().unwrap();
        let request = url.request("/v1/subscribe").body(()).unwrap();
        assert_eq!(request.uri(), "/push/v1/subscribe");
    }
}

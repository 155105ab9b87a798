//! `GET` of a small document, over TLS, for as long as 5 s.

use std::{fmt, io, time::Duration};

use bytes::Bytes;
use http::{Request, Response, StatusCode, Uri, header};
use http_body_util::{BodyExt as _, Limited};
use hyper::body::Incoming;
use tokio::time::timeout;

use crate::outgoing::{Outgoing, Unanswered};

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
    outgoing: Outgoing,
}

impl Fetch {
    /// For an `https` URL, or an `http` one of this machine, as the configuration has checked.
    pub fn new(url: &str) -> Result<Self, Trouble> {
        let uri: Uri = url.parse().map_err(|_| Trouble::Bad("this is not a URL".into()))?;
        let outgoing = Outgoing::to(&uri).map_err(Trouble::Bad)?;
        Ok(Self { uri, outgoing })
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
        let request = Request::get(uri.clone())
            .header(header::ACCEPT, "application/jwk-set+json, application/json")
            .body(Bytes::new())
            .map_err(|_| Trouble::Bad("this URL cannot be asked for".into()))?;
        self.outgoing.send(request).await.map_err(Trouble::from)
    }
}

impl From<Unanswered> for Trouble {
    /// A certificate that is not trusted stays so; everything else of a handshake may pass.
    fn from(why: Unanswered) -> Self {
        match &why {
            Unanswered::Tls(error) if error.kind() == io::ErrorKind::InvalidData => Self::Bad(format!(
                "{why} (trusted are the system's certificates, or those that SSL_CERT_FILE names)"
            )),
            Unanswered::Name | Unanswered::Url => Self::Bad(why.to_string()),
            Unanswered::Connect(_) | Unanswered::Tls(_) | Unanswered::Http(_) => Self::Away(why.to_string()),
        }
    }
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

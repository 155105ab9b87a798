//! Which pages and which hosts are served: the rules for `Origin` and `Host`, and the CORS headers that
//! tell a browser of them.
//!
//! They stand against pages that use a visitor's browser to reach a gateway behind his firewall: by a
//! plain cross-origin request, or by a name of their own that resolves to its address (DNS rebinding).

mod authority;
#[cfg(test)]
mod tests;

use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::extract::Request;
use http::{HeaderMap, HeaderName, HeaderValue, Method, Version, header};

use self::authority::{Authority, Origin};
use super::{headers, query::shown};
use crate::{
    config::{AllowedOrigins, Config, Live},
    fault::{Code, Fault},
};

/// What a page's script may read beside the body.
const EXPOSED: HeaderValue = HeaderValue::from_static("tidegate-connection, retry-after");

/// Seconds for which a browser need not ask again.
const PREFLIGHT_AGE: HeaderValue = HeaderValue::from_static("600");

/// The rules of one listener.
#[derive(Clone, Debug)]
pub struct Rules {
    origins: Live<AllowedOrigins>,
    /// Whether a `Host` may be a name that is not `localhost`.
    names: bool,
    /// What helps a page that was refused.
    cure: &'static str,
}

impl Rules {
    /// Those of the public listener, which serves the pages of `origins`.
    #[must_use]
    pub fn public(config: &Config, origins: Live<AllowedOrigins>) -> Self {
        Self {
            origins,
            names: serves_names(config),
            cure: "add the origin to `public.allowed_origins`, or where a proxy stands between let it pass the host \
                   on (nginx: `proxy_set_header Host $host`)",
        }
    }

    /// Those of the internal listener.
    #[must_use]
    pub fn internal(config: &Config) -> Self {
        Self {
            origins: Arc::new(ArcSwap::from_pointee(AllowedOrigins::SameHost)),
            names: serves_names(config),
            cure: "open the page from this host, or where a proxy stands between let it pass the host on (nginx: \
                   `proxy_set_header Host $host`); `public.allowed_origins` counts for the public listener only",
        }
    }

    /// Whether a request is served, and the page that it comes from, if any.
    ///
    /// # Errors
    /// As [`Rules::judge`]; `invalid_header` where a host or an origin is given twice, or no host.
    pub fn admit(&self, request: &Request) -> Result<Option<Page>, Fault> {
        let (host, origin) = named(request)?;
        self.judge(host, origin)?;
        Ok(Page::of(request))
    }

    /// Whether a request to `host` from a page of `origin` is served. `host` is `None` only where the
    /// protocol allows it (HTTP/1.0), `origin` where no page asks.
    ///
    /// # Errors
    /// `origin_refused`, with both values and the cure; `invalid_header` for a malformed host.
    pub fn judge(&self, host: Option<&str>, origin: Option<&str>) -> Result<(), Fault> {
        let authority = host.map(|text| Authority::parse(text).ok_or_else(|| malformed(text))).transpose()?;
        if let Some(authority) = &authority
            && !self.names
            && !authority.host.is_loopback()
            && !authority.host.is_address()
        {
            return Err(host_refused(host, origin));
        }
        match origin {
            Some(origin) if !self.allows(origin, authority.as_ref()) => {
                Err(self.origin_refused(host, origin))
            }
            _ => Ok(()),
        }
    }

    fn allows(&self, origin: &str, host: Option<&Authority<'_>>) -> bool {
        match &**self.origins.load() {
            AllowedOrigins::Any => true,
            AllowedOrigins::Exact(list) => Origin::parse(origin).is_some_and(|origin| {
                list.iter().any(|allowed| Origin::parse(allowed).is_some_and(|allowed| allowed == origin))
            }),
            AllowedOrigins::SameHost => match (Origin::parse(origin), host) {
                (Some(origin), Some(host)) => origin.is_of(host),
                _ => false,
            },
        }
    }

    fn origin_refused(&self, host: Option<&str>, origin: &str) -> Fault {
        let detail = format!(
            "the origin {} is not allowed at the host {}: {}",
            shown(origin),
            host.map_or("(none)".to_owned(), shown),
            self.cure
        );
        Fault::new(Code::OriginRefused, detail).parameter("origin")
    }
}

/// A page that reaches this gateway by a name of its own has no credentials to show.
fn serves_names(config: &Config) -> bool {
    config.insecure || config.auth.is_configured()
}

fn host_refused(host: Option<&str>, origin: Option<&str>) -> Fault {
    let detail = format!(
        "the host {} (asked for by the origin {}) is neither loopback nor an address, and no credentials are \
         configured: use the address, where a proxy stands between let it pass the host on (nginx: \
         `proxy_set_header Host $host`), configure credentials, or start with --insecure",
        host.map_or("(none)".to_owned(), shown),
        origin.map_or("(none)".to_owned(), shown),
    );
    Fault::new(Code::OriginRefused, detail).parameter("host")
}

fn malformed(host: &str) -> Fault {
    headers::invalid(&header::HOST, &format!("is not a host with an optional port: {}", shown(host)))
}

/// The host and the origin that a request names.
fn named(request: &Request) -> Result<(Option<&str>, Option<&str>), Fault> {
    let origin = headers::single(request.headers(), header::ORIGIN)?;
    // HTTP/2 says `:authority`; in HTTP/1.1 an absolute target wins over the header (RFC 9112, section 3.2.2).
    let host = match request.uri().authority() {
        Some(authority) => Some(authority.as_str()),
        None => headers::single(request.headers(), header::HOST)?,
    };
    if host.is_none() && request.version() >= Version::HTTP_11 {
        return Err(headers::invalid(&header::HOST, "is missing"));
    }
    Ok((host, origin))
}

/// A page that may read the answer to its request.
#[derive(Debug)]
pub struct Page {
    origin: HeaderValue,
    /// It asks before it sends the request itself, with these headers.
    preflight: Option<Option<HeaderValue>>,
}

impl Page {
    fn of(request: &Request) -> Option<Self> {
        let headers = request.headers();
        let origin = headers.get(header::ORIGIN)?.clone();
        let is_preflight = request.method() == Method::OPTIONS;
        let preflight = is_preflight.then(|| headers.get(header::ACCESS_CONTROL_REQUEST_HEADERS).cloned());
        Some(Self { origin, preflight })
    }

    /// Tells the browser that the page may read the answer.
    pub fn tell(self, headers: &mut HeaderMap) {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, self.origin);
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
        headers.insert(header::VARY, HeaderValue::from_static("Origin"));
        if let Some(wanted) = self.preflight {
            answer_preflight(headers, wanted);
        }
    }
}

/// The methods are those of `Allow`, which the route has said; the headers those that were asked for.
fn answer_preflight(headers: &mut HeaderMap, wanted: Option<HeaderValue>) {
    let mut say = |name: HeaderName, value: Option<HeaderValue>| {
        if let Some(value) = value {
            headers.insert(name, value);
        }
    };
    say(header::ACCESS_CONTROL_ALLOW_HEADERS, wanted);
    say(header::ACCESS_CONTROL_MAX_AGE, Some(PREFLIGHT_AGE));
    let methods = headers.get(header::ALLOW).cloned();
    if let Some(methods) = methods {
        headers.insert(header::ACCESS_CONTROL_ALLOW_METHODS, methods);
    }
}

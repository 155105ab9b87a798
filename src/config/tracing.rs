//! The section `[tracing]`, checked.

use http::Uri;

use super::{
    check::{Fault, fault},
    raw,
};

/// Where a collector takes traces, below its endpoint.
const PATH: &str = "/v1/traces";

/// Where spans go, and how many.
#[derive(Clone, Debug, PartialEq)]
pub struct Tracing {
    /// Where spans are posted; `None`: none are made.
    pub otlp_endpoint: Option<Uri>,
    /// Of the messages without a caller's trace so many are traced, 0 to 1.
    pub sample_ratio: f64,
}

/// A ratio is a number.
impl Eq for Tracing {}

pub fn check(raw: &raw::Tracing) -> Result<Tracing, Fault> {
    let otlp_endpoint = match &*raw.otlp_endpoint {
        "" => None,
        text => {
            let endpoint = endpoint(text);
            Some(endpoint.or_else(|problem| {
                fault(["tracing.otlp_endpoint"], format!("tracing.otlp_endpoint {problem}"))
            })?)
        }
    };
    Ok(Tracing { otlp_endpoint, sample_ratio: raw.sample_ratio.0 })
}

/// The URL that is posted to. What is wrong is told without it, since it may hold a password.
fn endpoint(text: &str) -> Result<Uri, &'static str> {
    const NO_URL: &str =
        "is not a URL: write http:// or https:// and a host, as in \"http://collector:4318\"";
    let mut parts = text.parse::<Uri>().map_err(|_| NO_URL)?.into_parts();
    let is_http = parts.scheme.as_ref().is_some_and(|scheme| matches!(scheme.as_str(), "http" | "https"));
    let authority = parts.authority.as_ref().filter(|_| is_http).ok_or(NO_URL)?;
    if authority.as_str().contains('@') {
        return Err("holds a login: give it as a header, in the variable OTEL_EXPORTER_OTLP_HEADERS");
    }
    let path = parts.path_and_query.as_ref().map_or("", |path| path.as_str());
    if path.contains('?') {
        return Err("has a query: write the URL without it");
    }
    let path = path.trim_end_matches('/');
    let path = if path.ends_with(PATH) { path.to_owned() } else { format!("{path}{PATH}") };
    parts.path_and_query = Some(path.parse().map_err(|_| NO_URL)?);
    Uri::from_parts(parts).map_err(|_| NO_URL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn traces_are_posted_below_the_endpoint() {
        for (text, posted) in [
            ("http://collector:4318", "http://collector:4318/v1/traces"),
            ("http://collector:4318/", "http://collector:4318/v1/traces"),
            ("https://otlp.example.org/a", "https://otlp.example.org/a/v1/traces"),
            ("https://otlp.example.org/a/v1/traces", "https://otlp.example.org/a/v1/traces"),
            ("http://[::1]:4318", "http://[::1]:4318/v1/traces"),
        ] {
            assert_eq!(endpoint(text).unwrap().to_string(), posted, "{text}");
        }
    }

    #[test]
    fn what_is_no_endpoint_is_refused_without_its_password() {
        for (text, problem) in [
            ("collector", "is not a URL"),
            ("collector:4318", "is not a URL"),
            ("grpc://collector:4317", "is not a URL"),
            ("http://", "is not a URL"),
            ("/v1/traces", "is not a URL"),
            ("http://a b", "is not a URL"),
            ("http://user:hunter2@collector:4318", "holds a login"),
            ("http://collector:4318/?a=b", "has a query"),
        ] {
            let error = endpoint(text).unwrap_err();
            assert!(error.starts_with(problem) && !error.contains("hunter2"), "{text}: {error}");
        }
    }
}

//! The opening handshake of a WebSocket (RFC 6455, section 4.2.1), checked before anything is answered.

use http::{HeaderMap, Version, header, request::Parts};

use crate::{
    fault::{Code, Fault},
    http::{headers, query::shown},
    wire::websocket::accept_key,
};

/// The subprotocol that is echoed where it is offered.
pub const PROTOCOL: &str = "tidegate.v1";

/// Browsers can set no header but this one, so a token may travel in the name of a subprotocol.
const TOKEN_PROTOCOL: &str = "tidegate.token.";

/// What a client offered, checked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Handshake {
    /// `Sec-WebSocket-Accept`: what the client's key is to be answered with.
    pub accept: String,
    /// [`PROTOCOL`], where it was offered and so must be echoed.
    pub protocol: Option<&'static str>,
    /// Whether a page's script opens it, which would learn nothing from a status.
    pub from_page: bool,
    /// A token that came as a subprotocol.
    pub(super) token: Option<String>,
}

/// Whether the request asks for a WebSocket, well or badly.
pub(super) fn is_asked(headers: &HeaderMap) -> bool {
    contains(headers, header::UPGRADE, "websocket")
}

/// The handshake.
///
/// # Errors
/// `upgrade_required` where the request cannot be upgraded, `invalid_header` for a body, the key and the
/// subprotocols.
pub(super) fn read(head: &Parts) -> Result<Handshake, Fault> {
    upgradable(head)?;
    bodiless(&head.headers)?;
    let (protocol, token) = protocols(&head.headers)?;
    let from_page = head.headers.contains_key(header::ORIGIN);
    Ok(Handshake { accept: accept(&head.headers)?, protocol, from_page, token })
}

/// Each refusal names its own cause: behind a proxy this is the first thing that goes wrong.
fn upgradable(head: &Parts) -> Result<(), Fault> {
    let required = |detail: &str| Err(Fault::new(Code::UpgradeRequired, detail));
    if head.version != Version::HTTP_11 {
        return required("a WebSocket is opened over HTTP/1.1 only");
    }
    if !is_asked(&head.headers) {
        return required(
            "a WebSocket needs the header `Upgrade: websocket`; proxies remove it unless told otherwise",
        );
    }
    if !contains(&head.headers, header::CONNECTION, "upgrade") {
        return required(
            "a WebSocket needs the header `Connection: Upgrade`; proxies remove it unless told otherwise",
        );
    }
    match headers::single(&head.headers, header::SEC_WEBSOCKET_VERSION)? {
        Some("13") => Ok(()),
        Some(other) => required(&format!("the WebSocket version {} is not served, 13 is", shown(other))),
        None => required("the header `Sec-WebSocket-Version: 13` is missing"),
    }
}

/// What follows the head is frames. A proxy that reads a body there would see another conversation.
fn bodiless(headers: &HeaderMap) -> Result<(), Fault> {
    let length = headers::single(headers, header::CONTENT_LENGTH)?;
    let announced = match length.filter(|length| *length != "0") {
        Some(_) => header::CONTENT_LENGTH,
        None if headers.contains_key(header::TRANSFER_ENCODING) => header::TRANSFER_ENCODING,
        None => return Ok(()),
    };
    Err(headers::invalid(&announced, "announces a body; the opening of a WebSocket has none"))
}

fn accept(headers: &HeaderMap) -> Result<String, Fault> {
    let name = header::SEC_WEBSOCKET_KEY;
    let Some(key) = headers::single(headers, &name)? else {
        return Err(headers::invalid(&name, "is missing"));
    };
    let refused = || headers::invalid(&name, &format!("is not 16 bytes in base64: {}", shown(key)));
    accept_key(key).ok_or_else(refused)
}

/// The subprotocol to echo and the token. A browser fails a connection that echoes none of what it offered,
/// and the token must not be echoed: so a token alone cannot work.
fn protocols(headers: &HeaderMap) -> Result<(Option<&'static str>, Option<String>), Fault> {
    let name = header::SEC_WEBSOCKET_PROTOCOL;
    let mut protocol = None;
    let mut token = None;
    for offer in headers::list(headers, &name) {
        if offer == PROTOCOL {
            protocol = Some(PROTOCOL);
        } else if let Some(text) = offer.strip_prefix(TOKEN_PROTOCOL)
            && token.replace(text.to_owned()).is_some()
        {
            return Err(headers::invalid(&name, "offers more than one token"));
        }
    }
    if token.is_some() && protocol.is_none() {
        return Err(headers::invalid(&name, "offers a token alone; offer `tidegate.v1` beside it"));
    }
    Ok((protocol, token))
}

fn contains(headers: &HeaderMap, name: http::HeaderName, token: &str) -> bool {
    headers::list(headers, name).any(|element| element.eq_ignore_ascii_case(token))
}

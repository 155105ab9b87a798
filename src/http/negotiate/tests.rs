//! Tables over everything that a request's head can say.

use http::{Request, Version};
use proptest::prelude::*;

use super::*;

const NOW: u64 = 1_790_000_000;

/// A valid handshake, to which cases add.
const WEBSOCKET: &[(&str, &str)] = &[
    ("upgrade", "websocket"),
    ("connection", "Upgrade"),
    ("sec-websocket-version", "13"),
    ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
];

fn read(query: &str, headers: &[(&str, &str)]) -> Result<SubscribeRequest, Fault> {
    let mut request = Request::get(format!("/v1/subscribe?{query}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    SubscribeRequest::read(&request.body(()).unwrap().into_parts().0, 128, NOW)
}

fn served(query: &str, headers: &[(&str, &str)]) -> SubscribeRequest {
    read(query, headers).unwrap_or_else(|fault| panic!("{query} {headers:?}: {fault}"))
}

/// The code and the parameter of a refusal.
fn refused(query: &str, headers: &[(&str, &str)]) -> (Code, String) {
    let fault = read(query, headers).expect_err(query);
    (fault.code, fault.parameter.unwrap_or_default())
}

/// The handshake without the headers of these names, and with others.
fn websocket<'a>(without: &[&str], with: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    let kept = WEBSOCKET.iter().filter(|(name, _)| !without.contains(name));
    kept.chain(with).copied().collect()
}

#[test]
fn without_a_word_it_is_a_poll_with_the_defaults() {
    let request = served("channel=a", &[]);
    let expected = SubscribeRequest {
        transport: Transport::Poll,
        channels: vec!["a".parse().unwrap()],
        since: vec![Since::Latest],
        raw: false,
        wait: Duration::from_secs(25),
        limit: 100,
        token: None,
        websocket: None,
    };
    assert_eq!(request, expected);
}

#[test]
fn accept_decides_by_quality_then_specificity_then_order() {
    let table = [
        ("", Some(Transport::Poll)),
        ("*/*", Some(Transport::Poll)),
        ("*", Some(Transport::Poll)),
        ("application/json", Some(Transport::Poll)),
        ("application/*", Some(Transport::Poll)),
        ("text/event-stream", Some(Transport::Sse)),
        ("TEXT/Event-Stream; charset=utf-8", Some(Transport::Sse)),
        ("text/*", Some(Transport::Sse)),
        ("application/x-ndjson", Some(Transport::Ndjson)),
        ("application/x-ndjson, */*", Some(Transport::Ndjson)),
        ("*/*, text/event-stream", Some(Transport::Sse)),
        ("application/json, text/event-stream", Some(Transport::Sse)),
        ("application/json, application/x-ndjson", Some(Transport::Ndjson)),
        ("application/x-ndjson, text/event-stream", Some(Transport::Sse)),
        ("text/*, application/json", Some(Transport::Poll)),
        ("text/*, application/*", Some(Transport::Sse)),
        ("text/event-stream;q=0.5, */*", Some(Transport::Poll)),
        ("text/event-stream;q=0.5, */*;q=0.1", Some(Transport::Sse)),
        ("text/event-stream;q=0.5, application/x-ndjson;q=0.501", Some(Transport::Ndjson)),
        ("application/json;q=0, text/event-stream;q=0.001", Some(Transport::Sse)),
        ("application/json;q=0, */*", None),
        ("text/event-stream;q=0, text/*", None),
        ("text/html;level=1, text/*;q=0.3", Some(Transport::Sse)),
        ("text/event-stream;q=0.2;x=1, application/json;x=1;q=0.3", Some(Transport::Poll)),
        ("text/event-stream; Q=0.2, application/json; q=0.3", Some(Transport::Poll)),
        ("text/html, image/gif, image/jpeg, *; q=.2, */*; q=.2", Some(Transport::Poll)),
        ("text/event-stream;q=2, application/json;q=0.1", Some(Transport::Poll)),
        ("text/event-stream;q=NaN, application/json;q=0.1", Some(Transport::Poll)),
        ("text/event-stream;q=high", None),
        ("text/html", None),
        ("application/xml;q=0.9, image/webp", None),
        ("text/event-stream;q=0", None),
        ("text", None),
        (",", Some(Transport::Poll)),
    ];
    for (accept, transport) in table {
        let outcome = read("channel=a", &[("accept", accept)]).map(|request| request.transport);
        match transport {
            Some(transport) => assert_eq!(outcome, Ok(transport), "{accept}"),
            None => assert_eq!(outcome.unwrap_err().code, Code::NotAcceptable, "{accept}"),
        }
    }
    let lines = [("accept", "text/html"), ("accept", "application/x-ndjson")];
    assert_eq!(served("channel=a", &lines).transport, Transport::Ndjson);
}

#[test]
fn the_parameter_wins_over_upgrade_and_upgrade_over_accept() {
    let sse = ("accept", "text/event-stream");
    assert_eq!(served("channel=a&transport=ndjson", &[sse]).transport, Transport::Ndjson);
    assert_eq!(served("channel=a&transport=poll", WEBSOCKET).transport, Transport::Poll);
    assert_eq!(served("channel=a&transport=sse", &[("accept", "image/png")]).transport, Transport::Sse);
    assert_eq!(served("channel=a", &websocket(&[], &[sse])).transport, Transport::WebSocket);
    assert_eq!(served("channel=a&transport=websocket", WEBSOCKET).transport, Transport::WebSocket);
    for bad in ["WebSocket", "", "tcp", "sse "] {
        let query = format!("channel=a&transport={bad}").replace(' ', "+");
        assert_eq!(refused(&query, &[]), (Code::InvalidParameter, "transport".into()), "{bad}");
    }
}

#[test]
fn lists_in_the_handshake_are_read_whatever_their_case() {
    for headers in [
        websocket(&["upgrade"], &[("upgrade", "WebSocket")]),
        websocket(&["upgrade"], &[("upgrade", "h2c, WEBSOCKET")]),
        websocket(&["connection"], &[("connection", "keep-alive, upgrade")]),
        websocket(&["connection"], &[("connection", "keep-alive"), ("connection", "UPGRADE")]),
    ] {
        let request = served("", &headers);
        assert_eq!(request.transport, Transport::WebSocket, "{headers:?}");
        assert_eq!(request.websocket.unwrap().accept, "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
    }
}

#[test]
fn what_cannot_be_upgraded_is_told_so() {
    for headers in [
        vec![],
        vec![("accept", "text/event-stream")],
        websocket(&["upgrade"], &[]),
        websocket(&["upgrade"], &[("upgrade", "h2c")]),
        websocket(&["connection"], &[]),
        websocket(&["connection"], &[("connection", "keep-alive")]),
        websocket(&["sec-websocket-version"], &[]),
        websocket(&["sec-websocket-version"], &[("sec-websocket-version", "8")]),
        websocket(&["sec-websocket-version"], &[("sec-websocket-version", "13, 8")]),
    ] {
        let code = refused("channel=a&transport=websocket", &headers).0;
        assert_eq!(code, Code::UpgradeRequired, "{headers:?}");
    }
    // Without `transport`, `Upgrade` alone says what was meant.
    assert_eq!(refused("", &websocket(&["connection"], &[])).0, Code::UpgradeRequired);
    for version in [Version::HTTP_10, Version::HTTP_2] {
        let request = Request::get("/v1/subscribe?transport=websocket").version(version);
        let head = request.body(()).unwrap().into_parts().0;
        assert_eq!(SubscribeRequest::read(&head, 128, NOW).unwrap_err().code, Code::UpgradeRequired);
    }
}

#[test]
fn a_bad_key_is_an_invalid_header() {
    let key = "sec-websocket-key";
    for value in [
        "",
        "x",
        "dGhlIHNhbXBsZSBub25jZQ",
        "dGhlIHNhbXBsZSBub25jZQ=",
        "dGhlIHNhbXBsZSBub25j!Q==",
        "dGhlIHNhbXBsZSBub25jZTEyMzQ=",
    ] {
        let outcome = refused("", &websocket(&[key], &[(key, value)]));
        assert_eq!(outcome, (Code::InvalidHeader, key.into()), "{value}");
    }
    assert_eq!(refused("", &websocket(&[key], &[])).0, Code::InvalidHeader);
    assert_eq!(refused("", &websocket(&[], &[(key, "dGhlIHNhbXBsZSBub25jZQ==")])).0, Code::InvalidHeader);
}

#[test]
fn subprotocols_are_echoed_and_may_carry_the_token() {
    let name = "sec-websocket-protocol";
    for (offers, protocol, token) in [
        (vec!["tidegate.v1"], Some(PROTOCOL), None),
        (vec!["graphql-ws"], None, None),
        (vec!["tidegate.v1, tidegate.token.a.b.c"], Some(PROTOCOL), Some("a.b.c")),
        (vec!["tidegate.token.x", "other,tidegate.v1"], Some(PROTOCOL), Some("x")),
    ] {
        let headers: Vec<_> = offers.iter().map(|offer| (name, *offer)).collect();
        let request = served("", &websocket(&[], &headers));
        assert_eq!(request.token.as_deref(), token, "{offers:?}");
        assert_eq!(request.websocket.unwrap().protocol, protocol, "{offers:?}");
    }
    for offer in [
        "tidegate.token.x",
        "tidegate.token.x, graphql-ws",
        "tidegate.v1, tidegate.token.x, tidegate.token.y",
    ] {
        let outcome = refused("", &websocket(&[], &[(name, offer)]));
        assert_eq!(outcome, (Code::InvalidHeader, name.into()), "{offer}");
    }
}

#[test]
fn the_token_comes_from_the_header_then_the_parameter() {
    let bearer = ("authorization", "bearer abc");
    assert_eq!(served("channel=a&token=xyz", &[bearer]).token.as_deref(), Some("abc"));
    assert_eq!(
        served("channel=a&token=xyz", &[("authorization", "Basic eDp5")]).token.as_deref(),
        Some("xyz")
    );
    assert_eq!(served("channel=a&token=", &[]).token, None);
}

#[test]
fn parameters_are_known_given_once_and_of_use() {
    let ndjson = "transport=ndjson&channel=a";
    let sse = "transport=sse&channel=a";
    let invalid = |name: &str| (Code::InvalidParameter, name.to_owned());
    for (query, outcome) in [
        ("chanel=a".to_owned(), (Code::UnknownParameter, "chanel".to_owned())),
        ("channel=a&Since=latest".into(), (Code::UnknownParameter, "Since".into())),
        ("channel=a&x".into(), (Code::UnknownParameter, "x".into())),
        ("channel=a&since=latest&since=latest".into(), invalid("since")),
        ("channel=a&lastEventId=latest&lastEventId=".into(), invalid("lastEventId")),
        (format!("{sse}&transport=sse"), invalid("transport")),
        (format!("{sse}&format=raw&format=raw"), invalid("format")),
        ("channel=a&wait=1&wait=1".into(), invalid("wait")),
        ("channel=a&limit=1&limit=1".into(), invalid("limit")),
        ("channel=a&token=1&token=1".into(), invalid("token")),
        (format!("{sse}&wait=5"), invalid("wait")),
        (format!("{sse}&limit=5"), invalid("limit")),
        (format!("{ndjson}&wait=5"), invalid("wait")),
        (format!("{ndjson}&limit=x"), invalid("limit")),
        ("channel=a&format=raw".into(), invalid("format")),
        ("channel=a&format=json".into(), invalid("format")),
        (format!("{sse}&format=xml"), invalid("format")),
        (format!("{sse}&format="), invalid("format")),
        ("channel=a&wait=56".into(), invalid("wait")),
        ("channel=a&wait=-1".into(), invalid("wait")),
        ("channel=a&wait=1.5".into(), invalid("wait")),
        ("channel=a&wait=".into(), invalid("wait")),
        ("channel=a&limit=0".into(), invalid("limit")),
        ("channel=a&limit=1001".into(), invalid("limit")),
        ("channel=%zz".into(), invalid("channel")),
        ("channel=%FF".into(), invalid("channel")),
        ("channel=a&since=%".into(), invalid("since")),
    ] {
        assert_eq!(refused(&query, &[]), outcome, "{query}");
    }
    for useless in ["wait=5", "limit=5"] {
        assert_eq!(refused(&format!("channel=a&{useless}"), WEBSOCKET).0, Code::InvalidParameter);
    }
    let request = served("channel=a&wait=0&limit=1000&_=1&_=2", &[]);
    assert_eq!((request.wait, request.limit), (Duration::ZERO, 1000));
    assert_eq!(served("channel=a&wait=55", &[]).wait, Duration::from_secs(55));
    assert!(served(&format!("{ndjson}&format=raw"), &[]).raw);
    assert!(!served(&format!("{sse}&format=json"), &[]).raw);
}

#[test]
fn channels_are_named_once_and_not_too_many() {
    let many = |n: usize| (0..n).map(|i| format!("channel=c{i}")).collect::<Vec<_>>().join("&");
    assert_eq!(served(&many(128), &[]).channels.len(), 128);
    let fault = read(&many(129), &[]).unwrap_err();
    assert_eq!((fault.code, fault.limit), (Code::TooManyChannels, Some(128)));
    for (query, code) in [
        ("", Code::ChannelRequired),
        ("transport=sse", Code::ChannelRequired),
        ("transport=ndjson&since=latest", Code::ChannelRequired),
        ("channel=", Code::InvalidChannel),
        ("channel", Code::InvalidChannel),
        ("channel=a&channel=", Code::InvalidChannel),
        ("channel=a+b", Code::InvalidChannel),
        ("channel=..", Code::InvalidChannel),
        ("channel=a&channel=b&channel=a", Code::DuplicateChannel),
        ("channel=a&channel=%61", Code::DuplicateChannel),
    ] {
        assert_eq!(refused(query, &[]), (code, "channel".into()), "{query}");
    }
    let long = read(&format!("channel={}", "x".repeat(201)), &[]).unwrap_err();
    assert_eq!((long.code, long.limit, long.position), (Code::InvalidChannel, Some(200), Some(200)));
}

#[test]
fn a_websocket_may_come_without_a_channel_and_a_raw_one_has_one() {
    assert!(served("", WEBSOCKET).channels.is_empty());
    assert_eq!(served("since=earliest", WEBSOCKET).since, []);
    assert_eq!(served("channel=a&channel=b", WEBSOCKET).channels.len(), 2);
    assert!(served("channel=a&format=raw", WEBSOCKET).raw);
    assert_eq!(refused("format=raw", WEBSOCKET).0, Code::ChannelRequired);
    let fault = read("format=raw&channel=a&channel=b", WEBSOCKET).unwrap_err();
    assert_eq!((fault.code, fault.limit), (Code::TooManyChannels, Some(1)));
    assert_eq!(served("transport=sse&format=raw&channel=a&channel=b", &[]).channels.len(), 2);
}

#[test]
fn since_is_a_list_or_a_keyword_for_all() {
    let at = |text: &str| text.parse::<Since>().unwrap();
    for (since, expected) in [
        ("", vec![Since::Latest, Since::Latest]),
        ("latest", vec![Since::Latest, Since::Latest]),
        ("earliest", vec![Since::Earliest, Since::Earliest]),
        ("last:7", vec![at("last:7"), at("last:7")]),
        ("k3x9q0-42,latest", vec![at("k3x9q0-42"), Since::Latest]),
        ("k3x9q0-42%2Clast:1", vec![at("k3x9q0-42"), at("last:1")]),
        ("earliest,0-1790000060", vec![Since::Earliest, at("0-1790000060")]),
        ("0-0,k3x9q0-9223372036854775807", vec![at("0-0"), at("k3x9q0-9223372036854775807")]),
    ] {
        assert_eq!(served(&format!("channel=a&channel=b&since={since}"), &[]).since, expected, "{since}");
    }
    assert_eq!(served("channel=a&since=k3x9q0-42", &[]).since, [at("k3x9q0-42")]);
    for since in [
        "k3x9q0-42",
        "latest,latest,latest",
        "latest,",
        ",latest",
        ",",
        "latest,,latest",
        "k3x9q0-042,latest",
        "k3x9q0-9223372036854775808,latest",
        "last:0,latest",
        "last:0",
        "now",
        "LATEST",
        "k3x9q0-1+,latest",
        "0-1790000061,latest",
        "latest,0-9223372036854775807",
        "last:01",
    ] {
        let outcome = refused(&format!("channel=a&channel=b&since={since}"), &[]);
        assert_eq!(outcome, (Code::InvalidSince, "since".into()), "{since}");
    }
    assert_eq!(refused("since=k3x9q0-42", WEBSOCKET).0, Code::InvalidSince);
}

#[test]
fn last_event_id_wins_unless_it_is_empty() {
    let at = |n: u64| format!("k3x9q0-{n}").parse::<Since>().unwrap();
    let header = |value| ("last-event-id", value);
    for (query, headers, expected) in [
        ("since=k3x9q0-1", vec![header("k3x9q0-3")], at(3)),
        ("since=k3x9q0-1&lastEventId=k3x9q0-2", vec![header("k3x9q0-3")], at(3)),
        ("since=k3x9q0-1&lastEventId=k3x9q0-2", vec![header("")], at(2)),
        ("since=k3x9q0-1&lastEventId=k3x9q0-2", vec![], at(2)),
        ("since=k3x9q0-1&lastEventId=", vec![header("")], at(1)),
        ("since=&lastEventId=", vec![header("")], Since::Latest),
        ("since=nonsense", vec![header("k3x9q0-3")], at(3)),
        ("transport=sse", vec![header("earliest")], Since::Earliest),
    ] {
        assert_eq!(served(&format!("channel=a&{query}"), &headers).since, [expected], "{query}");
    }
    let bad = |headers: &[(&str, &str)]| refused("channel=a", headers);
    assert_eq!(bad(&[header("nonsense")]), (Code::InvalidSince, "Last-Event-ID".into()));
    assert_eq!(refused("channel=a&lastEventId=x", &[]), (Code::InvalidSince, "lastEventId".into()));
    assert_eq!(bad(&[header("latest"), header("latest")]), (Code::InvalidHeader, "last-event-id".into()));
    assert_eq!(bad(&[header(""), header("")]).0, Code::InvalidHeader);
}

proptest! {
    /// What is accepted fits together, whatever was sent; nothing panics.
    #[test]
    fn a_request_that_is_accepted_fits_together(
        query in "(&channel=[a-c]{1,2}|&since=(latest|k3x9q0-[0-9]|last:[0-9]|,)*|&format=(raw|json)|&transport=(sse|ndjson|poll|websocket)|&wait=[0-9]{1,2}|&[a-z%+=]{0,6}){0,6}",
        accept in "[ -~]{0,20}",
    ) {
        if let Ok(request) = read(&query, &[("accept", accept.as_str())]) {
            prop_assert_eq!(request.channels.len(), request.since.len());
            prop_assert_eq!(request.websocket.is_some(), request.transport == Transport::WebSocket);
            prop_assert!(!request.channels.is_empty() || request.websocket.is_some());
            prop_assert!(!(request.raw && request.transport == Transport::Poll));
        }
    }
}

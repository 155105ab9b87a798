//! Tables of hosts and origins, for both listeners.

use super::*;

fn rules(origins: AllowedOrigins, names: bool) -> Rules {
    Rules { origins: Arc::new(ArcSwap::from_pointee(origins)), names, cure: "the cure" }
}

/// Those of the public listener, as configured.
fn public(config: &Config) -> Rules {
    Rules::public(config, Arc::new(ArcSwap::from_pointee(config.public.allowed_origins.clone())))
}

fn exact(list: &[&str]) -> AllowedOrigins {
    AllowedOrigins::Exact(list.iter().map(ToString::to_string).collect())
}

#[test]
fn without_a_list_a_page_is_served_by_its_own_host_and_loopback_by_loopback() {
    let rules = rules(AllowedOrigins::SameHost, true);
    let table = [
        // The own host, with the default port of the page's scheme.
        ("example.org", "http://example.org", true),
        ("example.org", "https://example.org", true),
        ("example.org:8000", "http://example.org:8000", true),
        ("example.org:80", "http://example.org", true),
        ("example.org", "http://example.org:80", true),
        ("example.org:443", "https://example.org", true),
        ("EXAMPLE.org", "https://Example.ORG", true),
        ("example.org:", "https://example.org", true),
        ("192.168.1.5:8000", "http://192.168.1.5:8000", true),
        ("[2001:db8::1]:8000", "http://[2001:DB8:0::1]:8000", true),
        ("xn--bcher-kva.example", "https://xn--bcher-kva.example", true),
        ("my_host", "http://my_host", true),
        // Another port or host.
        ("example.org:443", "http://example.org", false),
        ("example.org:80", "https://example.org", false),
        ("example.org:8000", "http://example.org", false),
        ("example.org:8000", "http://example.org:8001", false),
        ("example.org", "http://example.org.evil.com", false),
        ("example.org", "http://evil-example.org", false),
        ("example.org", "http://www.example.org", false),
        ("example.org", "http://example.org.", false),
        ("good.com", "https://evil-good.com", false),
        ("good.com", "https://good.com.evil", false),
        ("192.168.1.5", "http://192.168.1.6", false),
        ("[2001:db8::1]", "http://[2001:db8::2]", false),
        // Loopback to loopback, any port.
        ("localhost:8000", "http://localhost:3000", true),
        ("127.0.0.1:8000", "http://localhost:5173", true),
        ("[::1]:8000", "https://127.0.0.1", true),
        ("LOCALHOST:8000", "http://[0:0:0:0:0:0:0:1]:1", true),
        ("localhost:8000", "capacitor://localhost", true),
        ("example.org", "http://localhost", false),
        ("127.0.0.1:8000", "http://example.org", false),
        ("127.0.0.1:8000", "http://127.0.0.2:8000", false),
        ("127.0.0.1:8000", "http://localhost.evil.com", false),
        ("127.0.0.1:8000", "http://127.0.0.1.nip.io", false),
        ("127.0.0.1:8000", "http://foo.localhost", false),
        ("127.0.0.1:8000", "http://localhost.", false),
        // No origin at all.
        ("localhost:8000", "null", false),
        ("localhost:8000", "NULL", false),
        ("localhost:8000", "", false),
        ("localhost:8000", "file://", false),
        ("localhost:8000", "localhost", false),
        ("localhost:8000", "http:localhost", false),
        ("localhost:8000", "http://localhost/", false),
        ("localhost:8000", "http://localhost/path", false),
        ("localhost:8000", "http://user@localhost", false),
        ("localhost:8000", "http://localhost:x", false),
        ("localhost:8000", "http://localhost:99999", false),
        ("localhost:8000", "http://localhost http://localhost", false),
        ("localhost:8000", "http://evil.com#localhost", false),
        ("localhost:8000", "http://bücher.example", false),
    ];
    for (host, origin, is_served) in table {
        let outcome = rules.judge(Some(host), Some(origin));
        assert_eq!(outcome.is_ok(), is_served, "{origin} at {host}: {outcome:?}");
        if let Err(fault) = outcome {
            assert_eq!(fault.code, Code::OriginRefused);
        }
    }
}

#[test]
fn a_list_replaces_the_rule() {
    let rules = rules(exact(&["https://app.example.org", "http://localhost:3000", "http://[::1]"]), true);
    for (origin, is_served) in [
        ("https://app.example.org", true),
        ("HTTPS://APP.example.org:443", true),
        ("http://localhost:3000", true),
        ("http://[0:0::1]:80", true),
        ("http://app.example.org", false),
        ("https://app.example.org:8443", false),
        ("https://app.example.org.evil.com", false),
        ("https://evil-app.example.org", false),
        ("https://example.org", false),
        ("http://localhost:3001", false),
        ("http://gateway:8000", false),
        ("null", false),
    ] {
        let outcome = rules.judge(Some("gateway:8000"), Some(origin));
        assert_eq!(outcome.is_ok(), is_served, "{origin}: {outcome:?}");
    }
}

#[test]
fn a_star_serves_every_page() {
    let rules = rules(AllowedOrigins::Any, true);
    for origin in ["https://example.org", "null", "file://", "chrome-extension://abcdef"] {
        assert_eq!(rules.judge(Some("gateway"), Some(origin)), Ok(()), "{origin}");
    }
}

#[test]
fn without_credentials_the_host_is_loopback_or_an_address() {
    for (host, is_served) in [
        ("localhost", true),
        ("LocalHost:8000", true),
        ("127.0.0.1:8000", true),
        ("[::1]:8000", true),
        ("10.1.2.3", true),
        ("[fe80::1]:8000", true),
        ("gateway", false),
        ("example.org:8000", false),
        ("localhost.evil.com", false),
        ("foo.localhost", false),
        ("localhost.", false),
        ("127.0.0.1.nip.io", false),
        ("127.1", false),
        ("2130706433", false),
        ("0x7f.0.0.1", false),
    ] {
        for origins in [AllowedOrigins::SameHost, AllowedOrigins::Any] {
            let outcome = rules(origins.clone(), false).judge(Some(host), None).map_err(|fault| fault.code);
            let expected = if is_served { Ok(()) } else { Err(Code::OriginRefused) };
            assert_eq!(outcome, expected, "{host}");
            assert_eq!(rules(origins, true).judge(Some(host), None), Ok(()), "{host}");
        }
    }
    // A name that was bound to our address, with a page of its own: the attack that the rule is for.
    let rebound =
        rules(AllowedOrigins::SameHost, false).judge(Some("evil.com:8000"), Some("http://evil.com:8000"));
    let fault = rebound.unwrap_err();
    assert_eq!(fault.code, Code::OriginRefused);
    for said in ["\"evil.com:8000\"", "\"http://evil.com:8000\"", "--insecure"] {
        assert!(fault.detail.contains(said), "{fault}");
    }
}

#[test]
fn malformed_hosts_are_no_hosts() {
    for host in [
        "",
        "a b",
        "user@localhost",
        "localhost/",
        "localhost:x",
        "localhost:99999",
        "localhost:+80",
        "[::1",
        "::1",
        "[x]",
        "a:1:2",
        "é",
    ] {
        let fault = rules(AllowedOrigins::SameHost, true).judge(Some(host), None).unwrap_err();
        assert_eq!(fault.code, Code::InvalidHeader, "{host}");
    }
}

#[test]
fn an_absent_host_has_no_page_of_its_own() {
    let rules = rules(AllowedOrigins::SameHost, false);
    assert_eq!(rules.judge(None, None), Ok(()));
    assert!(rules.judge(None, Some("http://localhost")).is_err());
}

#[test]
fn a_refusal_names_both_values_and_the_cure() {
    let config = Config::from_toml("").unwrap();
    for (rules, cure) in [
        (public(&config), "`public.allowed_origins`"),
        (Rules::internal(&config), "proxy_set_header Host $host"),
    ] {
        let fault = rules.judge(Some("127.0.0.1:8000"), Some("https://evil.com")).unwrap_err();
        for said in ["\"127.0.0.1:8000\"", "\"https://evil.com\"", cure] {
            assert!(fault.detail.contains(said), "{fault}");
        }
    }
    let config = Config::from_toml("[public]\nallowed_origins = [\"https://app.example.org\"]").unwrap();
    let page = Some("https://app.example.org");
    assert_eq!(public(&config).judge(Some("127.0.0.1"), page), Ok(()));
    assert!(Rules::internal(&config).judge(Some("127.0.0.1"), page).is_err());
}

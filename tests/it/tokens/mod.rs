//! Tokens: those that hold, and all that do not, each by the rule that it breaks.

mod door;
mod forged;
mod keys;

use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};
use tidegate::auth::jwt::Verifier;
use tidegate::auth::token::{Claims, TokenError};
use tidegate::config::{Config, Jwt};
use tidegate::metrics::Metrics;

use crate::support::forge::{Issuer, claims, now};
use crate::support::tls::Folder;

pub const AUDIENCE: &str = "tidegate";
pub const ISSUER: &str = "https://issuer.example/";

/// The claims of the tests, for this audience and from this issuer.
pub fn addressed() -> Value {
    let mut claims = claims();
    claims["aud"] = json!(AUDIENCE);
    claims["iss"] = json!(ISSUER);
    claims
}

pub fn configured(lines: &str) -> Jwt {
    let config = Config::from_toml(&format!("[auth.jwt]\n{lines}"));
    config.unwrap_or_else(|error| panic!("{error}")).auth.jwt.expect("a key is configured")
}

/// Someone who checks tokens by this issuer's key in a file.
pub struct Checker {
    verifier: Verifier,
    _folder: Folder,
}

impl Checker {
    pub fn of(issuer: &Issuer) -> Self {
        Self::with(issuer, "")
    }

    /// With further lines of `[auth.jwt]`.
    pub fn with(issuer: &Issuer, lines: &str) -> Self {
        let folder = Folder::new();
        let jwt = configured(&format!("key_file = '{}'\n{lines}", issuer.key_file(&folder)));
        let metrics = Arc::new(Metrics::new().expect("metrics"));
        Self { verifier: Verifier::new(&jwt, &metrics).expect("a key"), _folder: folder }
    }

    pub fn check(&self, token: &str) -> Result<Claims, TokenError> {
        use futures_util::FutureExt;
        // A key from a file waits for nothing.
        self.verifier.verify(token).now_or_never().expect("an answer at once")
    }
}

fn patterns(patterns: &tidegate::pattern::Patterns) -> Vec<String> {
    patterns.iter().map(ToString::to_string).collect()
}

#[test]
fn a_token_of_each_algorithm_holds_and_says_who_it_is() {
    let expires_at = now() + 3600;
    for (issuer, algorithms) in Issuer::all() {
        let checker = Checker::of(&issuer);
        for algorithm in algorithms {
            let claims = checker.check(&issuer.token(algorithm, &claims())).expect(algorithm);
            assert_eq!(&*claims.subject, "alice", "{algorithm}");
            assert!(claims.expires_at.abs_diff(expires_at) < 60);
            assert_eq!(patterns(&claims.channels), ["news", "orders:*"]);
            assert_eq!(patterns(&claims.publish), ["chat:7"]);
        }
    }
}

#[test]
fn claims_that_are_not_ours_are_passed_over_and_grants_may_be_missing() {
    let issuer = Issuer::secret();
    let checker = Checker::of(&issuer);
    let keycloak = json!({
        "exp": now() + 60, "iat": now(), "jti": "1", "iss": "x", "aud": ["account", "web"], "sub": "b7e1…é",
        "typ": "Bearer", "azp": "web", "realm_access": {"roles": ["a", "b"]}, "scope": "openid", "nbf": 0,
    });
    let claims = checker.check(&issuer.token("HS256", &keycloak)).unwrap();
    assert_eq!(&*claims.subject, "b7e1…é");
    assert_eq!(patterns(&claims.channels), [""; 0]);
    assert_eq!(patterns(&claims.publish), [""; 0]);
}

#[test]
fn a_header_that_brings_its_own_key_changes_nothing() {
    let issuer = Issuer::secret();
    let header = json!({
        "alg": "HS256", "typ": "at+jwt", "kid": "../../etc/passwd", "jku": "https://evil.example/jwks",
        "x5u": "https://evil.example/x5u", "x5t": "AAAA", "x5c": ["AAAA"], "jwk": Issuer::p256().jwk("evil"),
    });
    let token = issuer.text("HS256", &header.to_string(), &claims().to_string());
    assert!(Checker::of(&issuer).check(&token).is_ok());
}

#[test]
fn times_are_taken_with_the_leeway_and_parts_of_seconds_are_dropped() {
    let issuer = Issuer::secret();
    let checker = Checker::with(&issuer, "leeway = '100s'");
    let check = |name: &str, value: Value| {
        let mut claims = claims();
        claims[name] = value;
        checker.check(&issuer.token("HS256", &claims))
    };
    let now = now();
    assert!(check("exp", json!(now - 50)).is_ok());
    assert_eq!(check("exp", json!(now - 150)), Err(TokenError::Expired));
    assert!(check("nbf", json!(now + 50)).is_ok());
    assert!(matches!(check("nbf", json!(now + 150)), Err(TokenError::Invalid(why)) if why.contains("nbf")));
    assert_eq!(check("exp", json!(now as f64 + 60.9)).unwrap().expires_at, now + 60);
    assert_eq!(check("exp", json!(253_402_300_799_u64)).unwrap().expires_at, 253_402_300_799);
    let milliseconds = check("exp", json!((now + 3600) * 1000)).unwrap_err();
    assert!(milliseconds.to_string().contains("in seconds, not in milliseconds"), "{milliseconds}");
}

#[test]
fn audience_and_issuer_count_where_they_are_configured() {
    let issuer = Issuer::secret();
    let checker = Checker::with(&issuer, &format!("audience = '{AUDIENCE}'\nissuer = '{ISSUER}'"));
    let check = |claims: &Value| checker.check(&issuer.token("HS256", claims));
    assert!(check(&addressed()).is_ok());
    let mut several = addressed();
    several["aud"] = json!(["account", AUDIENCE]);
    assert!(check(&several).is_ok());
    assert!(Checker::of(&issuer).check(&issuer.token("HS256", &addressed())).is_ok());
}

#[test]
fn the_configured_algorithms_narrow_those_of_the_key() {
    let issuer = Issuer::rsa();
    let checker = Checker::with(&issuer, "algorithms = ['PS256', 'RS512']");
    for (algorithm, holds) in [("PS256", true), ("RS512", true), ("RS256", false), ("PS512", false)] {
        assert_eq!(checker.check(&issuer.token(algorithm, &claims())).is_ok(), holds, "{algorithm}");
    }
}

/// A change at one place of a token.
#[derive(Clone, Debug)]
enum Change {
    Replace(usize, char),
    Insert(usize, char),
    Remove(usize),
    Cut(usize),
    Swap(usize, usize),
}

fn change() -> impl Strategy<Value = Change> {
    let letter = prop_oneof![
        8 => prop::char::ranges(vec!['a'..='z', 'A'..='Z', '0'..='9', '-'..='-', '_'..='_'].into()),
        1 => prop::sample::select(vec!['.', '=', '+', '/', ' ', '\n', '\0', 'é']),
    ];
    prop_oneof![
        (any::<usize>(), letter.clone()).prop_map(|(at, letter)| Change::Replace(at, letter)),
        (any::<usize>(), letter).prop_map(|(at, letter)| Change::Insert(at, letter)),
        any::<usize>().prop_map(Change::Remove),
        any::<usize>().prop_map(Change::Cut),
        (any::<usize>(), any::<usize>()).prop_map(|(one, other)| Change::Swap(one, other)),
    ]
}

fn changed(token: &str, changes: &[Change]) -> String {
    let mut text: Vec<char> = token.chars().collect();
    for change in changes {
        let len = text.len().max(1);
        match *change {
            _ if text.is_empty() => {}
            Change::Replace(at, letter) => text[at % len] = letter,
            Change::Insert(at, letter) => text.insert(at % len, letter),
            Change::Remove(at) => drop(text.remove(at % len)),
            Change::Cut(at) => text.truncate(at % len),
            Change::Swap(one, other) => text.swap(one % len, other % len),
        }
    }
    text.into_iter().collect()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn a_token_that_was_changed_never_holds(
        kind in 0_usize..4, changes in prop::collection::vec(change(), 1..4)
    ) {
        thread_local! {
            static HONEST: Vec<(Checker, String)> = Issuer::all()
                .into_iter()
                .map(|(issuer, algorithms)| {
                    (Checker::of(&issuer), issuer.token(algorithms[0], &claims()))
                })
                .collect();
        }
        HONEST.with(|honest| {
            let (checker, token) = &honest[kind];
            let changed = changed(token, &changes);
            prop_assume!(changed != *token);
            prop_assert!(checker.check(&changed).is_err(), "{changed}");
            prop_assert!(checker.check(token).is_ok());
            Ok(())
        })?;
    }

    #[test]
    fn no_text_at_all_makes_it_stumble(text in "\\PC{0,300}", parts in "([A-Za-z0-9_-]{0,40}\\.){2}[A-Za-z0-9_-]{0,90}") {
        thread_local! { static CHECKER: Checker = Checker::of(&Issuer::ed25519()); }
        CHECKER.with(|checker| {
            prop_assert!(checker.check(&text).is_err());
            prop_assert!(checker.check(&parts).is_err());
            Ok(())
        })?;
    }
}

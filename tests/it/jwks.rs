//! Keys from an issuer's URL: fetched, kept, changed, and what an issuer may do wrong meanwhile.

use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use futures_util::future::join_all;
use serde_json::json;
use tidegate::auth::jwt::Verifier;
use tidegate::auth::token::TokenError;
use tidegate::metrics::Metrics;

use crate::support::eventually;
use crate::support::forge::{Issuer, claims};
use crate::support::gateway::series;
use crate::support::issuer::{Answer, KeyServer, jwks};
use crate::tokens::configured;

/// Someone who checks tokens by the keys of a server.
struct Checker {
    verifier: Verifier,
    metrics: Arc<Metrics>,
}

impl Checker {
    fn new(url: &str, lines: &str) -> Self {
        let metrics = Arc::new(Metrics::new().unwrap());
        let jwt = configured(&format!("jwks_url = '{url}'\n{lines}"));
        Self { verifier: Verifier::new(&jwt, &metrics).unwrap(), metrics }
    }

    /// With the keys of the server, which has been asked once.
    async fn of(server: &KeyServer) -> Self {
        let checker = Self::new(&server.url(), "");
        checker.verifier.first_keys().await.unwrap();
        checker
    }

    async fn check(&self, token: &str) -> Result<(), TokenError> {
        self.verifier.verify(token).await.map(drop)
    }

    /// Why a fetch at the start fails.
    async fn fault(url: &str) -> String {
        let checker = Self::new(url, "");
        let said = checker.verifier.first_keys().await.unwrap_err().to_string();
        assert!(said.starts_with(&format!("auth.jwt.jwks_url: {url}: ")), "{said}");
        assert_eq!(
            checker.check(&Issuer::p256().token("ES256", &claims())).await,
            Err(TokenError::Unavailable)
        );
        said
    }

    fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        series(&self.metrics.render().unwrap(), name, labels).unwrap()
    }

    fn fetches(&self, result: &str) -> f64 {
        self.metric("tidegate_jwks_refresh_total", &[("result", result)])
    }
}

/// Time passes, and nothing happens in it.
async fn pass(time: Duration) {
    tokio::time::pause();
    tokio::time::advance(time).await;
    tokio::time::resume();
}

fn is_invalid(outcome: &Result<(), TokenError>) -> bool {
    matches!(outcome, Err(TokenError::Invalid(_)))
}

#[tokio::test]
async fn a_token_is_checked_by_the_key_that_it_names_and_by_its_algorithms_alone() {
    let issuers = Issuer::all();
    let [_, (rsa, _), (p256, _), (p384, _), (ed25519, _)] = &issuers[..] else { unreachable!("five") };
    let keys = [(rsa, "rsa"), (p256, "p256"), (p384, "p384"), (ed25519, "ed")];
    let server = KeyServer::start(Answer::Body(jwks(&keys))).await;
    let checker = Checker::of(&server).await;
    for (issuer, kid, algorithm) in [
        (rsa, "rsa", "RS256"),
        (rsa, "rsa", "PS512"),
        (p256, "p256", "ES256"),
        (p384, "p384", "ES384"),
        (ed25519, "ed", "EdDSA"),
    ] {
        assert_eq!(
            checker.check(&issuer.named_token(algorithm, kid, &claims())).await,
            Ok(()),
            "{algorithm}"
        );
        // Without a name any of them may be meant.
        assert_eq!(checker.check(&issuer.token(algorithm, &claims())).await, Ok(()), "{algorithm}");
        // The name of another key.
        for (_, other) in keys.iter().filter(|(_, other)| *other != kid) {
            let outcome = checker.check(&issuer.named_token(algorithm, other, &claims())).await;
            assert!(is_invalid(&outcome), "{algorithm} as {other}");
        }
    }
    for (secret, kid) in
        [(rsa.public_der(), "rsa"), (rsa.key_text().into_bytes(), "rsa"), (p256.public_der(), "p256")]
    {
        let outcome = checker.check(&Issuer::Secret(secret).named_token("HS256", kid, &claims())).await;
        assert!(is_invalid(&outcome));
    }
    assert_eq!(server.hits(), 1);
    assert_eq!(server.paths(), ["/jwks.json"]);
    assert_eq!(checker.fetches("ok"), 1.0);
}

#[tokio::test]
async fn keys_of_no_use_are_passed_over() {
    let (good, narrow, other) = (Issuer::p256(), Issuer::rsa(), Issuer::p256());
    let with = |issuer: &Issuer, kid: &str, name: &str, value: serde_json::Value| {
        let mut jwk = issuer.jwk(kid);
        jwk[name] = value;
        jwk
    };
    let small =
        json!({"kty": "RSA", "kid": "small", "n": crate::support::forge::b64([0xff; 128]), "e": "AQAB"});
    let set = json!({"keys": [
        Issuer::secret().jwk("secret"),
        with(&other, "for encryption", "use", json!("enc")),
        with(&other, "for wrapping", "key_ops", json!(["wrapKey"])),
        with(&other, "off its curve", "crv", json!("secp256k1")),
        with(&other, "of no kind", "kty", json!("XYZ")),
        with(&narrow, "for encryption too", "alg", json!("RSA-OAEP")),
        with(&other, "by its word", "alg", json!("RS256")),
        small, json!({}), json!("x"), json!(null), json!([1]),
        with(&narrow, "narrow", "alg", json!("RS512")),
        with(&good, "good", "key_ops", json!(["verify"])),
    ], "x": 1});
    let server = KeyServer::start(Answer::Body(set.to_string())).await;
    let checker = Checker::of(&server).await;
    assert_eq!(checker.check(&good.named_token("ES256", "good", &claims())).await, Ok(()));
    assert_eq!(checker.check(&narrow.named_token("RS512", "narrow", &claims())).await, Ok(()));
    assert!(is_invalid(&checker.check(&narrow.named_token("RS256", "narrow", &claims())).await));
    for kid in ["for encryption", "for wrapping", "off its curve", "of no kind", "by its word"] {
        assert!(is_invalid(&checker.check(&other.named_token("ES256", kid, &claims())).await), "{kid}");
    }
    let configured = Checker::new(&server.url(), "algorithms = ['RS512']");
    configured.verifier.first_keys().await.unwrap();
    assert!(is_invalid(&configured.check(&good.token("ES256", &claims())).await));
    assert_eq!(configured.check(&narrow.token("RS512", &claims())).await, Ok(()));
}

#[tokio::test]
async fn what_an_issuer_does_wrong_at_the_start_is_said_with_its_url() {
    let server = KeyServer::start(Answer::Noise).await;
    let endless = "larger than 64 KiB";
    for (answer, sentence) in [
        (Answer::Status(404), "the answer is 404"),
        (Answer::Status(401), "the answer is 401"),
        (Answer::Status(204), "the answer is 204"),
        (Answer::Body(String::new()), "not a JWKS"),
        (Answer::Body("<html>".into()), "not a JWKS"),
        (Answer::Body("[]".into()), "not a JWKS"),
        (Answer::Body(r#"{"issuer":"https://issuer.example"}"#.into()), "not a JWKS"),
        (Answer::Body(r#"{"keys":{}}"#.into()), "not a JWKS"),
        (Answer::Body(r#"{"keys":[]}"#.into()), "none of its 0 keys"),
        (Answer::Body(jwks(&[(&Issuer::secret(), "s")])), "none of its 1 keys"),
        (Answer::Body(format!("{{\"keys\":[]{}}}", " ".repeat(64 * 1024))), endless),
        (Answer::Endless, endless),
        (
            Answer::Redirect("https://evil.example/jwks".into()),
            "\"https://evil.example/jwks\", which is not on the same host",
        ),
        (
            Answer::Redirect(format!("http://127.0.0.1:{}/", server.address.port() ^ 1)),
            "not on the same host",
        ),
        (Answer::Redirect(format!("https://{}/", server.address)), "not on the same host"),
        (Answer::Redirect("//evil.example/jwks".into()), "not on the same host"),
        (Answer::Redirect("file:///etc/passwd".into()), "not on the same host"),
        (Answer::Redirect("/jwks.json".into()), "redirects more than 3 times"),
    ] {
        server.answer(answer.clone());
        let started = Instant::now();
        let said = Checker::fault(&server.url()).await;
        assert!(said.contains(sentence), "{answer:?}: {said}");
        // Such a fault does not pass: nobody waits for it to.
        assert!(started.elapsed() < Duration::from_secs(4), "{answer:?}");
    }
}

/// What may pass is tried for 5 s; here all of them at once.
#[tokio::test]
async fn an_issuer_that_is_away_at_the_start_is_waited_for_and_then_named() {
    let away = [
        (Answer::Status(500), "the answer is 500"),
        (Answer::Status(503), "the answer is 503"),
        (Answer::Status(429), "the answer is 429"),
        (Answer::Held, "no answer within 5 s"),
        (Answer::Broken, "the answer breaks off"),
        (Answer::Noise, "no answer"),
    ];
    let faults = away.map(|(answer, sentence)| async move {
        let server = KeyServer::start(answer).await;
        let said = Checker::fault(&server.url()).await;
        assert!(said.contains(sentence), "{said}");
    });
    join_all(faults).await;
    // Nobody listens at its port.
    let port = crate::support::process::free_port();
    let said = Checker::fault(&format!("http://127.0.0.1:{port}/jwks")).await;
    assert!(said.contains("cannot connect"), "{said}");
}

#[tokio::test]
async fn an_issuer_that_comes_up_meanwhile_is_found() {
    let issuer = Issuer::p256();
    let server = KeyServer::start(Answer::Status(503)).await;
    let checker = Checker::new(&server.url(), "");
    let found = async {
        eventually("it was asked", async || (server.hits() > 0).then_some(())).await;
        server.answer(Answer::Body(jwks(&[(&issuer, "a")])));
    };
    let (first, ()) = tokio::join!(checker.verifier.first_keys(), found);
    first.unwrap();
    assert_eq!(checker.check(&issuer.named_token("ES256", "a", &claims())).await, Ok(()));
    assert!(checker.fetches("unreachable") >= 1.0);
}

#[tokio::test]
async fn a_redirect_on_the_same_host_is_followed() {
    let issuer = Issuer::p256();
    let server = KeyServer::start(Answer::Held).await;
    let absolute = format!("http://{}/keys", server.address);
    for (location, path) in [("/keys?of=all", "/keys?of=all"), (&absolute, "/keys")] {
        server.answer(Answer::Redirect(location.to_owned()));
        server.answer_at(path, jwks(&[(&issuer, "a")]));
        let checker = Checker::of(&server).await;
        assert_eq!(checker.check(&issuer.named_token("ES256", "a", &claims())).await, Ok(()));
        assert_eq!(server.paths().split_off(server.hits() - 2), ["/jwks.json", path]);
    }
}

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it() {
    let (old, new, newer) = (Issuer::p256(), Issuer::rsa(), Issuer::ed25519());
    let server = KeyServer::start(Answer::Body(jwks(&[(&old, "old")]))).await;
    let checker = Checker::of(&server).await;
    assert_eq!(checker.check(&old.named_token("ES256", "old", &claims())).await, Ok(()));
    server.answer(Answer::Body(jwks(&[(&old, "old"), (&new, "new")])));
    assert_eq!(checker.check(&new.named_token("RS256", "new", &claims())).await, Ok(()));
    assert_eq!(server.hits(), 2);
    // The one before holds until the issuer drops it.
    assert_eq!(checker.check(&old.named_token("ES256", "old", &claims())).await, Ok(()));
    server.answer(Answer::Body(jwks(&[(&newer, "newer")])));
    assert!(is_invalid(&checker.check(&newer.named_token("EdDSA", "newer", &claims())).await), "too soon");
    assert_eq!(server.hits(), 2);
    pass(Duration::from_secs(31)).await;
    assert_eq!(checker.check(&newer.named_token("EdDSA", "newer", &claims())).await, Ok(()));
    assert!(is_invalid(&checker.check(&old.named_token("ES256", "old", &claims())).await));
    assert_eq!((server.hits(), checker.fetches("ok")), (3, 3.0));
}

#[tokio::test]
async fn ten_thousand_names_that_nobody_has_cost_the_issuer_one_request() {
    let issuer = Issuer::p256();
    let server = KeyServer::start(Answer::Body(jwks(&[(&issuer, "a")]))).await;
    let checker = Checker::of(&server).await;
    server.answer(Answer::Held);
    let evil = Issuer::ed25519();
    let checks = (0..10_000).map(|number| {
        let token = evil.named_token("EdDSA", &format!("{number}"), &claims());
        let checker = &checker;
        async move { checker.check(&token).await }
    });
    let release = async {
        eventually("it is asked", async || (server.hits() == 2).then_some(())).await;
        // Meanwhile those whose key is there wait for nobody.
        let honest = checker.verifier.verify(&issuer.named_token("ES256", "a", &claims())).now_or_never();
        assert!(honest.expect("at once").is_ok());
        server.answer(Answer::Body(jwks(&[(&issuer, "a")])));
        server.release();
    };
    let (outcomes, ()) = tokio::join!(join_all(checks), release);
    assert!(outcomes.iter().all(is_invalid));
    assert_eq!(server.hits(), 2);
}

#[tokio::test]
async fn keys_serve_on_while_the_issuer_is_away_for_an_hour() {
    let issuer = Issuer::p256();
    let good = Answer::Body(jwks(&[(&issuer, "a")]));
    let server = KeyServer::start(good.clone()).await;
    let checker = Checker::of(&server).await;
    let fresh = tokio::spawn(checker.verifier.clone().keep_fresh());
    let far = || {
        let mut claims = claims();
        claims["exp"] = json!(claims["exp"].as_u64().unwrap() + 100_000);
        issuer.named_token("ES256", "a", &claims)
    };
    let until = async |hits: usize| {
        eventually("it is asked again", async || (server.hits() >= hits).then_some(())).await;
    };
    // Of itself, after five minutes.
    tokio::task::yield_now().await;
    pass(Duration::from_secs(331)).await;
    until(2).await;
    eventually("it is counted", async || (checker.fetches("ok") == 2.0).then_some(())).await;
    for (round, answer) in
        [Answer::Status(500), Answer::Body("<html>".into()), Answer::Endless, Answer::Status(404)]
            .into_iter()
            .enumerate()
    {
        server.answer(answer);
        let hits = server.hits();
        pass(Duration::from_secs(331)).await;
        until(hits + 1).await;
        let failed = || checker.fetches("unreachable") + checker.fetches("invalid");
        eventually("it is counted", async || (failed() >= round as f64 + 1.0).then_some(())).await;
        assert_eq!(checker.check(&far()).await, Ok(()));
    }
    pass(Duration::from_secs(3600)).await;
    assert_eq!(checker.check(&far()).await, Err(TokenError::Unavailable));
    // And back.
    server.answer(good);
    pass(Duration::from_secs(40)).await;
    eventually("the issuer is back", async || checker.check(&far()).await.is_ok().then_some(())).await;
    fresh.abort();
}

#[tokio::test]
async fn without_a_url_the_age_is_zero_and_all_results_are_there() {
    let issuer = Issuer::secret();
    let server = KeyServer::start(Answer::Body(jwks(&[(&Issuer::p256(), "a")]))).await;
    let checker = Checker::of(&server).await;
    assert!(checker.metric("tidegate_jwks_age_seconds", &[]) < 60.0);
    assert!(is_invalid(&checker.check(&issuer.named_token("HS256", "a", &claims())).await));
    let idle = Metrics::new().unwrap().render().unwrap();
    assert_eq!(series(&idle, "tidegate_jwks_age_seconds", &[]), Some(0.0));
    for result in ["ok", "unreachable", "invalid"] {
        assert_eq!(series(&idle, "tidegate_jwks_refresh_total", &[("result", result)]), Some(0.0));
    }
}

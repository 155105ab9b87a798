//! The forged tokens at the door: on every transport and by every way of showing one, over HTTP and HTTPS keys.

use serde_json::json;

use super::forged::{PLANTED, for_secret, settings};
use super::{AUDIENCE, ISSUER, addressed};
use crate::support::forge::{Issuer, claims};
use crate::support::issuer::{Answer as Keys, KeyServer, jwks};
use crate::support::process::{Served, run, tidegate};
use crate::support::raw::{TEXT, frame};
use crate::support::tls::{Authority, Folder};
use crate::support::{Answer, Conn, TestGateway, eventually};

/// Every byte as `%XX`, so that nothing but the token's own check refuses it.
fn encoded(token: &str) -> String {
    token.bytes().map(|byte| format!("%{byte:02X}")).collect()
}

/// Refused with 401, and not a word of what was in the token.
fn assert_refused(answer: &Answer, how: &str, name: &str) {
    assert_eq!(answer.status(), 401, "{how}: {name}: {}", answer.text());
    let code = answer.json()["code"].as_str().expect("a code").to_owned();
    assert!(["unauthorized", "token_expired"].contains(&code.as_str()), "{how}: {name}: {code}");
    assert!(!answer.text().contains(PLANTED) && !answer.text().contains("alice"), "{how}: {name}");
}

/// A client that shows its token once it is connected, and what becomes of it.
async fn authenticated(gateway: &TestGateway, token: &str) -> (u16, String) {
    let (mut conn, _) = Conn::open(gateway.public).await.upgrade("/v1/subscribe", &[]).await.expect("101");
    let command = json!({"type": "authenticate", "token": token, "ref": 1}).to_string();
    conn.send(frame(true, TEXT, command.as_bytes())).await;
    conn.close_frame().await
}

#[tokio::test]
async fn no_forged_token_passes_on_any_transport() {
    let folder = Folder::new();
    let issuer = Issuer::secret();
    let gateway = TestGateway::start()
        .with(&format!("auth.jwt.key_file = '{}'", issuer.key_file(&folder)))
        .with(&format!("auth.jwt.audience = '{AUDIENCE}'\nauth.jwt.issuer = '{ISSUER}'"))
        .run()
        .await;
    let forged = for_secret(&issuer);
    assert!(!settings().is_empty() && forged.len() > 150);
    let small = forged.iter().filter(|(_, token)| token.len() < 16 * 1024);
    for (number, (name, token)) in small.enumerate() {
        let query = encoded(token);
        // Each token on one of them by its URL, and on the next by the header.
        let target = |step: usize| {
            let how = ["poll&wait=0", "sse", "ndjson"][(number + step) % 3];
            format!("/v1/subscribe?channel=news&transport={how}")
        };
        let answer = gateway.get_public(&format!("{}&token={query}", target(0))).await;
        assert_refused(&answer, &target(0), name);
        // An empty one is none, and one with spaces is no header's.
        if !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()) {
            let bearer = format!("Bearer {token}");
            let answer = gateway.public("GET", &target(1), &[("Authorization", &bearer)], None).await;
            assert_refused(&answer, &format!("{}, header", target(1)), name);
        }
        let target = format!("/v1/subscribe?channel=news&token={query}");
        match Conn::open(gateway.public).await.upgrade(&target, &[]).await {
            Ok(_) => panic!("upgraded: {name}"),
            Err(answer) => assert_refused(&answer, "websocket", name),
        }
        // The ways that take seconds each, for some.
        if number % 40 == 0 {
            let origin = format!("http://{}", gateway.public);
            let upgraded = Conn::open(gateway.public).await.upgrade(&target, &[("Origin", &origin)]).await;
            let (mut conn, _) = upgraded.unwrap_or_else(|answer| panic!("{name}: {}", answer.text()));
            let (code, reason) = conn.close_frame().await;
            assert_eq!(code, 4401, "{name}");
            assert!(["unauthorized", "token_expired"].contains(&reason.as_str()), "{name}: {reason}");
            if token.len() < 4096 && !token.is_empty() {
                assert_eq!(authenticated(&gateway, token).await.0, 4401, "{name}");
            }
        }
    }
    let good = issuer.token("HS256", &addressed());
    gateway.get_public(&format!("/v1/subscribe?channel=news&wait=0&token={good}")).await.expect(200);
    gateway.finish(()).await;
}

/// The gateway as a process, which trusts the authority of the issuer's certificate by SSL_CERT_FILE.
#[tokio::test]
async fn keys_come_over_https_from_an_issuer_whose_certificate_is_trusted() {
    let (folder, authority, issuer) = (Folder::new(), Authority::new(), Issuer::p256());
    let server = KeyServer::with_tls(Keys::Body(jwks(&[(&issuer, "a")])), &authority.certify("issuer")).await;
    let url = format!("https://localhost:{}/jwks.json", server.address.port());
    let roots = folder.write("ca.pem", &authority.cert);
    let keys = [("TIDEGATE_AUTH__JWT__JWKS_URL", url.as_str()), ("SSL_CERT_FILE", &roots)];
    let served = Served::start(&keys, &[]).await;
    let poll = async |issuer: &Issuer, kid: &str| {
        let bearer = format!("Bearer {}", issuer.named_token("ES256", kid, &claims()));
        let mut conn = Conn::open(served.public).await;
        conn.get("/v1/subscribe?channel=news&wait=0", &[("Authorization", &bearer)]).await.status()
    };
    assert_eq!(poll(&issuer, "a").await, 200);
    assert_eq!(poll(&Issuer::p256(), "a").await, 401);
    let rotated = Issuer::p256();
    server.answer(Keys::Body(jwks(&[(&rotated, "b")])));
    assert_eq!(poll(&rotated, "b").await, 200);
    // What the system trusts knows nothing of that authority.
    let other = folder.write("other.pem", &Authority::new().cert);
    let mut command = tidegate();
    command.env("TIDEGATE_AUTH__JWT__JWKS_URL", &url).env("SSL_CERT_FILE", other);
    let (code, said) = run(command).await;
    assert_eq!(code, 64, "{said}");
    assert!(said.contains(&url) && said.contains("TLS fails") && said.contains("SSL_CERT_FILE"), "{said}");
}

#[tokio::test]
async fn a_key_that_is_none_ends_the_start_with_64_and_its_place() {
    let folder = Folder::new();
    let short = folder.write("short", "secret");
    let server = KeyServer::start(Keys::Body("<html>".into())).await;
    for (key, value, word) in [
        ("TIDEGATE_AUTH__JWT__KEY_FILE", short.as_str(), "6 bytes"),
        ("TIDEGATE_AUTH__JWT__KEY_FILE", "/nowhere/key", "cannot read"),
        ("TIDEGATE_AUTH__JWT__JWKS_URL", &server.url(), "not a JWKS"),
    ] {
        let mut command = tidegate();
        command.env(key, value).args([
            "--set",
            "public.listen=127.0.0.1:0",
            "--set",
            "internal.listen=127.0.0.1:0",
        ]);
        let (code, said) = run(command).await;
        assert_eq!(code, 64, "{said}");
        assert!(said.contains(value) && said.contains(word), "{said}");
    }
}

/// Who is connected stays, whatever becomes of the issuer.
#[tokio::test]
async fn who_is_connected_stays_while_the_issuer_is_away() {
    let issuer = Issuer::p256();
    let server = KeyServer::start(Keys::Body(jwks(&[(&issuer, "a")]))).await;
    let gateway = TestGateway::start().with(&format!("auth.jwt.jwks_url = '{}'", server.url())).run().await;
    let token = issuer.named_token("ES256", "a", &claims());
    let target = format!("/v1/subscribe?channel=news&token={token}");
    let (mut conn, _) = Conn::open(gateway.public).await.upgrade(&target, &[]).await.expect("101");
    for answer in [Keys::Status(503), Keys::Body("{}".into())] {
        server.answer(answer);
        // Only one of these asks the issuer.
        let stranger = Issuer::p256().named_token("ES256", "b", &claims());
        let refused =
            gateway.get_public(&format!("/v1/subscribe?channel=news&wait=0&token={stranger}")).await;
        assert_refused(&refused, "poll", "an unknown key");
    }
    eventually("the issuer was asked", async || (server.hits() == 2).then_some(())).await;
    conn.send(frame(true, TEXT, br#"{"type":"ping","ref":1}"#)).await;
    while !conn.data_frame().await.expect("still there").text().contains("pong") {}
    gateway.finish(conn).await;
}

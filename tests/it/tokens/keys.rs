//! Key files: what is one, what is none, and what the sentence says then.

use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P521_SHA512};
use tidegate::auth::jwt::{self, Verifier};
use tidegate::metrics::Metrics;

use super::configured;
use crate::support::forge::{Issuer, claims, pem};
use crate::support::tls::Folder;

/// An RSA key of 1024 bits.
const SMALL_RSA: &str = "-----BEGIN PUBLIC KEY-----
MIGfMA0GCSqGSIb3DQEBAQUAA4GNADCBiQKBgQCmZ4m2DOK4m4UERnziTJ1z2isn
hRfaAkgcrFnYnvlW9oAFk3XxREARql0EoB4+UMe7zCUIkXLgFghBDik1/rZIhCNy
x3nudGZJX/VqIUxt62bN3YQHh/wOuh7l7EZyS1bD1gR6/OCAdRLpmOyJB0ZMju9w
pLeCkz/Mh7ccDgaqMwIDAQAB
-----END PUBLIC KEY-----
";

fn fault(content: &[u8], lines: &str) -> String {
    let folder = Folder::new();
    let path = folder.path().join("key");
    std::fs::write(&path, content).unwrap();
    let path = path.to_str().unwrap();
    let jwt = configured(&format!("key_file = '{path}'\n{lines}"));
    let checked = jwt::check(&jwt).expect_err("refused").to_string();
    let metrics = Arc::new(Metrics::new().unwrap());
    let new = Verifier::new(&jwt, &metrics).expect_err("refused").to_string();
    assert_eq!(checked, new);
    assert!(checked.starts_with("auth.jwt.") && checked.contains(path), "{checked}");
    checked.replace(path, "FILE")
}

#[test]
fn what_is_no_key_is_refused_with_the_path_and_a_cure() {
    let (rsa, p256) = (Issuer::rsa(), Issuer::p256());
    let public = rsa.key_text();
    let solid: String = public.lines().filter(|line| !line.starts_with('-')).collect();
    let jwks = serde_json::json!({"keys": [rsa.jwk("a")]}).to_string();
    let p521 = KeyPair::generate_for(&PKCS_ECDSA_P521_SHA512).unwrap();
    let damaged = public.replace("MII", "!!!");
    for (content, sentence) in [
        (&b""[..], "a secret of 0 bytes"),
        (b"\n", "a secret of 0 bytes"),
        (
            b"secret\n",
            "a secret of 6 bytes, and HS256 needs 32 at least: make one with `openssl rand -hex 32 > FILE`",
        ),
        (&[b'x'; 31], "a secret of 31 bytes"),
        (&[b'x'; 70_000], "larger than 64 KiB"),
        (rsa.private_pem().as_bytes(), "a private key, which must stay with whoever signs"),
        (p256.private_pem().as_bytes(), "`openssl pkey -in FILE -pubout`"),
        (
            b"-----BEGIN ENCRYPTED PRIVATE KEY-----\nAAAA\n-----END ENCRYPTED PRIVATE KEY-----\n",
            "a private key",
        ),
        (b"-----BEGIN EC PRIVATE KEY-----\nAAAA\n-----END EC PRIVATE KEY-----\n", "a private key"),
        (b"-----BEGIN RSA PUBLIC KEY-----\nAAAA\n-----END RSA PUBLIC KEY-----\n", "-RSAPublicKey_in"),
        (
            b"-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n",
            "none of RSA, P-256, P-384 and Ed25519",
        ),
        (
            b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n",
            "a certificate that cannot be read",
        ),
        (b"-----BEGIN PUBLIC KEY-----\nAAAA\n", "damaged"),
        (damaged.as_bytes(), "damaged"),
        (b"-----BEGIN X509 CRL-----\nAAAA\n-----END X509 CRL-----\n", "no -----BEGIN PUBLIC KEY-----"),
        (format!("{public}{}", p256.key_text()).as_bytes(), "several public keys"),
        (p521.public_key_pem().as_bytes(), "none of RSA, P-256, P-384 and Ed25519"),
        (SMALL_RSA.as_bytes(), "2048 to 8192 bits"),
        // Public things, which would be taken for a secret that everybody knows.
        (&rsa.public_der(), "is a key without PEM around it"),
        (&p256.public_der(), "is a key without PEM around it"),
        (solid.as_bytes(), "without its -----BEGIN PUBLIC KEY-----"),
        (
            public.lines().filter(|line| !line.starts_with('-')).collect::<Vec<_>>().join("\n").as_bytes(),
            "without its",
        ),
        (b"ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIE/x alice@example\n", "an SSH key"),
        (b"ecdsa-sha2-nistp256 AAAAE2VjZHNhLXNoYTItbmlzdHAyNTYAAAA alice\n", "an SSH key"),
        (jwks.as_bytes(), "a JWK"),
    ] {
        let said = fault(content, "");
        assert!(said.contains(sentence), "{said}\nsays not: {sentence}");
    }
}

#[test]
fn algorithms_that_the_key_cannot_are_refused() {
    let said = fault(Issuer::rsa().key_text().as_bytes(), "algorithms = ['ES256', 'HS256']");
    assert!(said.contains("[ES256, HS256]") && said.contains("an RSA key, which is for [RS256"), "{said}");
    let said = fault(&[b'x'; 32], "algorithms = ['RS256']");
    assert!(said.contains("an HMAC secret"), "{said}");
}

#[test]
fn a_secret_may_end_with_a_lines_end_and_a_key_may_be_a_certificate() {
    let folder = Folder::new();
    let metrics = Arc::new(Metrics::new().unwrap());
    let check = |path: &str, token: &str| {
        use futures_util::FutureExt;
        let verifier = Verifier::new(&configured(&format!("key_file = '{path}'")), &metrics).unwrap();
        verifier.verify(token).now_or_never().unwrap().unwrap();
    };
    let secret = Issuer::secret();
    for end in ["", "\n", "\r\n"] {
        check(
            &folder.write("secret", &format!("{}{end}", secret.key_text())),
            &secret.token("HS256", &claims()),
        );
    }
    // Bytes of any kind, of which only one line's end is not meant.
    let bytes = Issuer::Secret([&[0xff, 0, 10, 13].repeat(10)[..], b"\n"].concat());
    let Issuer::Secret(content) = &bytes else { unreachable!("it is one") };
    let path = folder.path().join("bytes");
    std::fs::write(&path, [content, &b"\n"[..]].concat()).unwrap();
    check(path.to_str().unwrap(), &bytes.token("HS512", &claims()));
    let p256 = Issuer::p256();
    let key = KeyPair::from_pem(&p256.private_pem()).unwrap();
    let certificate =
        CertificateParams::new(vec!["issuer.example".into()]).unwrap().self_signed(&key).unwrap();
    let token = p256.token("ES256", &claims());
    check(&folder.write("cert", &certificate.pem()), &token);
    check(&folder.write("both", &format!("{}{}", certificate.pem(), p256.key_text())), &token);
    check(&folder.write("text", &format!("Issuer: x\n{}", pem("PUBLIC KEY", &p256.public_der()))), &token);
}

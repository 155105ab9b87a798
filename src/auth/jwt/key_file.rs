//! `auth.jwt.key_file`: an HMAC secret, or a public key in PEM. What is public must never be taken for a secret:
//! whoever has read it could sign.

use std::{fs, path::Path};

use aws_lc_rs::{
    rsa::PublicEncryptingKey,
    signature::{
        ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, ED25519, ParsedPublicKey,
        RSA_PKCS1_2048_8192_SHA256,
    },
};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use jsonwebtoken::DecodingKey;
use tokio_rustls::rustls::{
    pki_types::{
        CertificateDer,
        pem::{PemObject as _, SectionKind},
    },
    server::ParsedCertificate,
};

use super::{
    KeyError,
    key::{Key, Kind, algorithm},
};
use crate::config::Jwt;

/// RFC 7518 §3.2: a secret of 256 bits at least. Shorter ones are found by trying, with one token at hand.
pub const SHORTEST_SECRET: usize = 32;
/// No key is larger; a wrong path may name anything.
const LONGEST: usize = 64 * 1024;

/// What a file holds.
pub enum Found {
    /// Bytes that sign and check.
    Secret(Vec<u8>),
    /// A SubjectPublicKeyInfo.
    Public(Kind, Vec<u8>),
}

/// Reads a key file for these rules.
///
/// # Errors
/// What is wrong, with the path.
pub fn read(path: &Path, jwt: &Jwt) -> Result<Key, KeyError> {
    let file = path.display();
    let wrong = |what: &str| KeyError(format!("auth.jwt.key_file: {file} {what}"));
    let content = fs::read(path)
        .map_err(|error| KeyError(format!("auth.jwt.key_file: cannot read {file}: {error}")))?;
    let (kind, key) = match find(&content).map_err(|what| wrong(&what.replace("FILE", &file.to_string())))? {
        Found::Secret(secret) => {
            let key = DecodingKey::from_secret(&secret).map_err(|_| wrong("is empty"))?;
            (Kind::Secret, key)
        }
        Found::Public(kind, der) => {
            let key = match kind {
                Kind::P256 | Kind::P384 => DecodingKey::from_ec_der(&der),
                Kind::Ed25519 => DecodingKey::from_ed_der(&der),
                Kind::Rsa | Kind::Secret => DecodingKey::from_rsa_der(&der),
            };
            (kind, key)
        }
    };
    Key::new(kind, key, jwt).ok_or_else(|| {
        let configured: Vec<_> = jwt.algorithms.iter().copied().map(algorithm).collect();
        let name = kind.name();
        let own = kind.algorithms();
        KeyError(format!(
            "auth.jwt.algorithms is {configured:?}, and auth.jwt.key_file: {file} holds {name}, which is for {own:?}"
        ))
    })
}

/// What the bytes are; or what is wrong with them, with FILE where its name belongs.
pub fn find(content: &[u8]) -> Result<Found, String> {
    if content.len() > LONGEST {
        return Err("is larger than 64 KiB, so it is no key".into());
    }
    if contains(content, b"-----BEGIN ") {
        return pem(content);
    }
    if let Some(what) = public_in_disguise(content) {
        return Err(format!("is {what}, which is no secret"));
    }
    // Editors and `echo` end a file with a line's end that is not meant.
    let secret = content.strip_suffix(b"\n").unwrap_or(content);
    let secret = secret.strip_suffix(b"\r").unwrap_or(secret);
    if secret.len() < SHORTEST_SECRET {
        let bytes = secret.len();
        return Err(format!(
            "holds a secret of {bytes} bytes, and HS256 needs {SHORTEST_SECRET} at least: make one with \
             `openssl rand -hex 32 > FILE`"
        ));
    }
    Ok(Found::Secret(secret.to_vec()))
}

fn pem(content: &[u8]) -> Result<Found, String> {
    let sections: Result<Vec<(SectionKind, Vec<u8>)>, _> =
        <(SectionKind, Vec<u8>)>::pem_slice_iter(content).collect();
    let Ok(sections) = sections else {
        return Err("has a damaged PEM section in it".into());
    };
    let is_private = |(kind, _): &(SectionKind, _)| {
        matches!(kind, SectionKind::PrivateKey | SectionKind::RsaPrivateKey | SectionKind::EcPrivateKey)
    };
    if sections.iter().any(is_private) || contains(content, b"ENCRYPTED PRIVATE KEY-----") {
        return Err("holds a private key, which must stay with whoever signs: give the public one, from \
                    `openssl pkey -in FILE -pubout`"
            .into());
    }
    let is_public = |(kind, _): &&(SectionKind, _)| *kind == SectionKind::PublicKey;
    if sections.iter().filter(is_public).count() > 1 {
        return Err("holds several public keys: one counts, or a JWKS at auth.jwt.jwks_url".into());
    }
    if let Some((_, der)) = sections.iter().find(is_public) {
        return public(der.clone());
    }
    // Those after the first vouch for it.
    if let Some((_, der)) = sections.into_iter().find(|(kind, _)| *kind == SectionKind::Certificate) {
        let certificate = CertificateDer::from(der);
        let Ok(certificate) = ParsedCertificate::try_from(&certificate) else {
            return Err("holds a certificate that cannot be read: give its public key, from \
                        `openssl x509 -in FILE -noout -pubkey`"
                .into());
        };
        return public(certificate.subject_public_key_info().to_vec());
    }
    Err(match contains(content, b"BEGIN RSA PUBLIC KEY") {
        true => "holds a PKCS #1 key: convert it with `openssl rsa -RSAPublicKey_in -in FILE -pubout`".into(),
        false => "has no -----BEGIN PUBLIC KEY----- in it".into(),
    })
}

fn public(der: Vec<u8>) -> Result<Found, String> {
    let kind = kind_of(&der).ok_or("holds a public key that is none of RSA, P-256, P-384 and Ed25519")?;
    if kind == Kind::Rsa {
        match PublicEncryptingKey::from_der(&der).map(|key| key.key_size_bits()) {
            Ok(2048..=8192) => {}
            _ => return Err("holds an RSA key that has not 2048 to 8192 bits".into()),
        }
    }
    Ok(Found::Public(kind, der))
}

/// The kind of a SubjectPublicKeyInfo.
fn kind_of(der: &[u8]) -> Option<Kind> {
    // A bare Ed25519 key is any 32 bytes, a bare point nearly any 33: only what is a SEQUENCE says what it is.
    if der.len() <= SHORTEST_SECRET || der.first() != Some(&0x30) {
        return None;
    }
    if ParsedPublicKey::new(&ED25519, der).is_ok() {
        Some(Kind::Ed25519)
    } else if ParsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, der).is_ok() {
        Some(Kind::P256)
    } else if ParsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, der).is_ok() {
        Some(Kind::P384)
    } else {
        ParsedPublicKey::new(&RSA_PKCS1_2048_8192_SHA256, der).is_ok().then_some(Kind::Rsa)
    }
}

/// What is no secret though it is no PEM either.
fn public_in_disguise(content: &[u8]) -> Option<&'static str> {
    const CURE: &str =
        "a key without PEM around it: convert it with `openssl pkey -pubin -inform DER -in FILE -pubout`";
    let is_public = |der: &[u8]| {
        kind_of(der).is_some() || ParsedCertificate::try_from(&CertificateDer::from(der)).is_ok()
    };
    let text = content.trim_ascii();
    if text.starts_with(b"ssh-") || text.starts_with(b"ecdsa-sha2-") {
        return Some("an SSH key: convert it with `ssh-keygen -e -m pkcs8 -f FILE`");
    }
    if text.starts_with(b"{") && contains(text, b"\"kty\"") {
        return Some("a JWK: serve it as a JWKS for auth.jwt.jwks_url, or convert it to PEM");
    }
    if is_public(content) {
        return Some(CURE);
    }
    let solid: Vec<u8> = text.iter().copied().filter(|byte| !byte.is_ascii_whitespace()).collect();
    // As issuers show it on their pages.
    match STANDARD.decode(solid) {
        Ok(der) if is_public(&der) => {
            Some("a public key without its -----BEGIN PUBLIC KEY----- and -----END PUBLIC KEY----- lines")
        }
        _ => None,
    }
}

fn contains(content: &[u8], needle: &[u8]) -> bool {
    memchr::memmem::find(content, needle).is_some()
}

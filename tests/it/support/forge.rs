//! Tokens made byte by byte, with no JWT library in the way: as an issuer signs them, and as nobody should.

use std::sync::LazyLock;
use std::time::{SystemTime, UNIX_EPOCH};

use aws_lc_rs::encoding::{AsDer, PublicKeyX509Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{self as sig, EcdsaKeyPair, Ed25519KeyPair, KeyPair, RsaKeyPair};
use aws_lc_rs::{hmac, rsa};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use serde_json::{Value, json};

use super::tls::Folder;

/// Who signs, and with what.
pub enum Issuer {
    Secret(Vec<u8>),
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    P384(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

/// What a test's tokens say unless it says otherwise.
pub fn claims() -> Value {
    json!({"sub": "alice", "exp": now() + 3600, "channels": ["news", "orders:*"], "publish": ["chat:7"]})
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs()
}

pub fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// Making an RSA key takes a while, and one is as good as another.
static RSA_KEYS: LazyLock<[Vec<u8>; 2]> = LazyLock::new(|| {
    [(); 2].map(|()| {
        let pair = RsaKeyPair::generate(KeySize::Rsa2048).expect("a key");
        let der: aws_lc_rs::encoding::Pkcs8V1Der = pair.as_der().expect("PKCS #8");
        der.as_ref().to_vec()
    })
});

impl Issuer {
    pub fn secret() -> Self {
        let mut secret = vec![0; 32];
        aws_lc_rs::rand::fill(&mut secret).expect("random bytes");
        // Never the end of a line, which is not the secret's.
        Self::Secret(b64(secret).into_bytes())
    }

    pub fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::from_pkcs8(&RSA_KEYS[0]).expect("a key"))
    }

    /// Another RSA key than [`Issuer::rsa`]'s.
    pub fn other_rsa() -> Self {
        Self::Rsa(RsaKeyPair::from_pkcs8(&RSA_KEYS[1]).expect("a key"))
    }

    pub fn p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&sig::ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"))
    }

    pub fn p384() -> Self {
        Self::P384(EcdsaKeyPair::generate(&sig::ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key"))
    }

    pub fn ed25519() -> Self {
        Self::Ed25519(Ed25519KeyPair::generate().expect("a key"))
    }

    /// One of each kind, with the algorithms that it signs by.
    pub fn all() -> Vec<(Self, &'static [&'static str])> {
        vec![
            (Self::secret(), &["HS256", "HS384", "HS512"]),
            (Self::rsa(), &["RS256", "RS384", "RS512", "PS256", "PS384", "PS512"]),
            (Self::p256(), &["ES256"]),
            (Self::p384(), &["ES384"]),
            (Self::ed25519(), &["EdDSA"]),
        ]
    }

    /// The SubjectPublicKeyInfo.
    pub fn public_der(&self) -> Vec<u8> {
        fn der<K: AsDer<PublicKeyX509Der<'static>>>(key: &K) -> Vec<u8> {
            key.as_der().expect("DER").as_ref().to_vec()
        }
        match self {
            Self::Secret(_) => panic!("a secret has no public half"),
            Self::Rsa(pair) => der(pair.public_key()),
            Self::P256(pair) | Self::P384(pair) => der(pair.public_key()),
            Self::Ed25519(pair) => der(pair.public_key()),
        }
    }

    /// What a gateway is given of it: the secret, or the public key in PEM.
    pub fn key_text(&self) -> String {
        match self {
            Self::Secret(secret) => String::from_utf8(secret.clone()).expect("text"),
            _ => pem("PUBLIC KEY", &self.public_der()),
        }
    }

    /// The same in a file.
    pub fn key_file(&self, folder: &Folder) -> String {
        folder.write("key", &self.key_text())
    }

    /// The private key in PEM, as `openssl genpkey` writes it.
    pub fn private_pem(&self) -> String {
        fn pkcs8<K: AsDer<aws_lc_rs::encoding::Pkcs8V1Der<'static>>>(key: &K) -> Vec<u8> {
            key.as_der().expect("PKCS #8").as_ref().to_vec()
        }
        let der = match self {
            Self::Secret(_) => panic!("a secret is no PEM"),
            Self::Rsa(pair) => pkcs8(pair),
            Self::P256(pair) | Self::P384(pair) => pair.to_pkcs8v1().expect("PKCS #8").as_ref().to_vec(),
            Self::Ed25519(pair) => pkcs8(pair),
        };
        pem("PRIVATE KEY", &der)
    }

    /// The public key as a JWK.
    pub fn jwk(&self, kid: &str) -> Value {
        let point = |curve: &str, pair: &EcdsaKeyPair| {
            let bytes = pair.public_key().as_ref();
            let (x, y) = bytes[1..].split_at((bytes.len() - 1) / 2);
            json!({"kty": "EC", "crv": curve, "x": b64(x), "y": b64(y), "kid": kid, "use": "sig"})
        };
        match self {
            Self::Secret(secret) => json!({"kty": "oct", "k": b64(secret), "kid": kid, "use": "sig"}),
            Self::Rsa(pair) => {
                let public: &rsa::PublicKey = pair.public_key();
                let (n, e) = (public.modulus(), public.exponent());
                json!({
                    "kty": "RSA", "kid": kid, "use": "sig",
                    "n": b64(n.big_endian_without_leading_zero()), "e": b64(e.big_endian_without_leading_zero()),
                })
            }
            Self::P256(pair) => point("P-256", pair),
            Self::P384(pair) => point("P-384", pair),
            Self::Ed25519(pair) => {
                json!({"kty": "OKP", "crv": "Ed25519", "x": b64(pair.public_key()), "kid": kid, "use": "sig"})
            }
        }
    }

    /// A signature by this algorithm, whatever the key.
    pub fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        match self {
            Self::Secret(secret) => hmac(secret, algorithm, message),
            Self::Rsa(pair) => {
                let padding: &'static dyn sig::RsaEncoding = match algorithm {
                    "RS384" => &sig::RSA_PKCS1_SHA384,
                    "RS512" => &sig::RSA_PKCS1_SHA512,
                    "PS256" => &sig::RSA_PSS_SHA256,
                    "PS384" => &sig::RSA_PSS_SHA384,
                    "PS512" => &sig::RSA_PSS_SHA512,
                    _ => &sig::RSA_PKCS1_SHA256,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &SystemRandom::new(), message, &mut signature).expect("signs");
                signature
            }
            Self::P256(pair) | Self::P384(pair) => {
                pair.sign(&SystemRandom::new(), message).expect("signs").as_ref().to_vec()
            }
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
        }
    }

    /// A token with this header and these claims, signed by this algorithm, which need not be the header's.
    pub fn text(&self, algorithm: &str, header: &str, claims: &str) -> String {
        self.seal(algorithm, format!("{}.{}", b64(header), b64(claims)))
    }

    /// Puts the signature behind the two parts.
    pub fn seal(&self, algorithm: &str, parts: String) -> String {
        let signature = b64(self.sign(algorithm, parts.as_bytes()));
        format!("{parts}.{signature}")
    }

    /// An honest token.
    pub fn token(&self, algorithm: &str, claims: &Value) -> String {
        self.text(algorithm, &json!({"alg": algorithm, "typ": "JWT"}).to_string(), &claims.to_string())
    }

    /// An honest token that names its key.
    pub fn named_token(&self, algorithm: &str, kid: &str, claims: &Value) -> String {
        self.text(algorithm, &json!({"alg": algorithm, "kid": kid}).to_string(), &claims.to_string())
    }
}

pub fn hmac(secret: &[u8], algorithm: &str, message: &[u8]) -> Vec<u8> {
    let algorithm = match algorithm {
        "HS384" => hmac::HMAC_SHA384,
        "HS512" => hmac::HMAC_SHA512,
        _ => hmac::HMAC_SHA256,
    };
    hmac::sign(&hmac::Key::new(algorithm, secret), message).as_ref().to_vec()
}

pub fn pem(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let lines: Vec<_> =
        text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", lines.join("\n"))
}

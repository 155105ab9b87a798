//! Signs tokens, for `tidegate token`: the gateway itself never does.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use aws_lc_rs::{
    rand::SystemRandom,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair,
        RSA_PKCS1_SHA256, RSA_PKCS1_SHA384, RSA_PKCS1_SHA512, RSA_PSS_SHA256, RSA_PSS_SHA384, RSA_PSS_SHA512,
        RsaEncoding, RsaKeyPair,
    },
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use jsonwebtoken::{Algorithm, EncodingKey, Header, encode};
use serde::Serialize;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, pem::PemObject as _};

use super::{
    key::{Kind, algorithm},
    key_file::{self, Found},
};
use crate::config::{Jwt, KeySource};

/// A key that signs.
pub struct Signer {
    pair: Pair,
    algorithm: Algorithm,
}

enum Pair {
    Other(EncodingKey),
    /// The library takes PKCS #1 alone, which no tool writes any more.
    Rsa(RsaKeyPair),
}

/// What a token is to say.
#[derive(Clone, Debug, Serialize)]
pub struct Wanted {
    /// `sub`.
    pub sub: String,
    /// `channels`, as patterns.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub channels: Vec<String>,
    /// `publish`, as patterns.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub publish: Vec<String>,
    /// `aud`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub aud: Option<String>,
    /// `iss`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub iss: Option<String>,
}

#[derive(Serialize)]
struct Timed<'a> {
    #[serde(flatten)]
    wanted: &'a Wanted,
    iat: u64,
    exp: u64,
}

impl Signer {
    /// The key of this file, or else the one that the configuration's tokens are checked by, where that is a secret.
    ///
    /// # Errors
    /// Why there is none, and what to do.
    pub fn find(file: Option<&Path>, jwt: Option<&Jwt>) -> Result<Self, String> {
        let configured: Vec<_> = jwt.iter().flat_map(|jwt| &jwt.algorithms).copied().map(algorithm).collect();
        let private = "pass the private key with --key-file";
        match (file, jwt.map(|jwt| &jwt.source)) {
            (Some(path), _) => Self::read(path, &configured),
            (None, Some(KeySource::File(path))) => {
                let content = read(path)?;
                match key_file::find(&content) {
                    Ok(Found::Public(..)) => {
                        let file = path.display();
                        Err(format!(
                            "auth.jwt.key_file = {file} holds a public key, which cannot sign: {private}"
                        ))
                    }
                    _ => Self::read(path, &configured),
                }
            }
            (None, Some(KeySource::Url(url))) => {
                Err(format!("tokens are signed by the issuer whose keys are at {url}: {private}"))
            }
            (None, None) => {
                Err("no key is configured: set auth.jwt.key_file, or pass --key-file FILE with a secret \
                                 of 32 bytes or more (`openssl rand -hex 32 > FILE`)"
                    .into())
            }
        }
    }

    /// A secret, or a private key in PEM; signs by the first algorithm of these that fits, or by its kind's own.
    fn read(path: &Path, configured: &[Algorithm]) -> Result<Self, String> {
        let file = path.display().to_string();
        let content = read(path)?;
        let named = |what: &str| format!("{file} {}", what.replace("FILE", &file));
        let (kind, pair) = match PrivateKeyDer::from_pem_slice(&content) {
            Ok(der) => private(&der).map_err(named)?,
            Err(_) => match key_file::find(&content).map_err(|what| named(&what))? {
                Found::Public(..) => return Err(named("holds a public key, which cannot sign")),
                Found::Secret(secret) => {
                    let key = EncodingKey::from_secret(&secret).map_err(|_| named("is empty"))?;
                    (Kind::Secret, Pair::Other(key))
                }
            },
        };
        let own = kind.algorithms();
        let fits = configured.iter().find(|algorithm| own.contains(algorithm));
        match (fits, own.first()) {
            (Some(algorithm), _) => Ok(Self { pair, algorithm: *algorithm }),
            (None, Some(first)) if configured.is_empty() => Ok(Self { pair, algorithm: *first }),
            _ => Err(format!("{file} holds {}, and auth.jwt.algorithms is {configured:?}", kind.name())),
        }
    }

    /// A token that says this, and expires so long from now.
    ///
    /// # Errors
    /// The key does not sign.
    pub fn sign(&self, wanted: &Wanted, lives: Duration) -> Result<String, String> {
        let iat = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let timed = Timed { wanted, iat, exp: iat.saturating_add(lives.as_secs()) };
        let header = Header::new(self.algorithm);
        match &self.pair {
            Pair::Other(key) => encode(&header, &timed, key).map_err(|error| error.to_string()),
            Pair::Rsa(pair) => rsa(pair, &header, &timed),
        }
        .map_err(|error| format!("the token cannot be signed: {error}"))
    }
}

fn rsa(pair: &RsaKeyPair, header: &Header, claims: &Timed<'_>) -> Result<String, String> {
    let padding: &'static dyn RsaEncoding = match header.alg {
        Algorithm::RS384 => &RSA_PKCS1_SHA384,
        Algorithm::RS512 => &RSA_PKCS1_SHA512,
        Algorithm::PS256 => &RSA_PSS_SHA256,
        Algorithm::PS384 => &RSA_PSS_SHA384,
        Algorithm::PS512 => &RSA_PSS_SHA512,
        _ => &RSA_PKCS1_SHA256,
    };
    let header = serde_json::to_vec(header).map_err(|error| error.to_string())?;
    let claims = serde_json::to_vec(claims).map_err(|error| error.to_string())?;
    let message = format!("{}.{}", URL_SAFE_NO_PAD.encode(header), URL_SAFE_NO_PAD.encode(claims));
    let mut signature = vec![0; pair.public_modulus_len()];
    pair.sign(padding, &SystemRandom::new(), message.as_bytes(), &mut signature)
        .map_err(|error| error.to_string())?;
    Ok(format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature)))
}

fn read(path: &Path) -> Result<Vec<u8>, String> {
    fs::read(path).map_err(|error| format!("cannot read {}: {error}", path.display()))
}

fn private(der: &PrivateKeyDer<'_>) -> Result<(Kind, Pair), &'static str> {
    let unknown = "holds a private key that is none of RSA (2048 bits or more), P-256, P-384 and Ed25519";
    match der {
        PrivateKeyDer::Pkcs8(key) => {
            let der = key.secret_pkcs8_der();
            let is_on = |curve| EcdsaKeyPair::from_pkcs8(curve, der).is_ok();
            if Ed25519KeyPair::from_pkcs8(der).is_ok() {
                Ok((Kind::Ed25519, Pair::Other(EncodingKey::from_ed_der(der))))
            } else if is_on(&ECDSA_P256_SHA256_FIXED_SIGNING) {
                Ok((Kind::P256, Pair::Other(EncodingKey::from_ec_der(der))))
            } else if is_on(&ECDSA_P384_SHA384_FIXED_SIGNING) {
                Ok((Kind::P384, Pair::Other(EncodingKey::from_ec_der(der))))
            } else {
                Ok((Kind::Rsa, Pair::Rsa(RsaKeyPair::from_pkcs8(der).map_err(|_| unknown)?)))
            }
        }
        PrivateKeyDer::Pkcs1(key) => {
            Ok((Kind::Rsa, Pair::Rsa(RsaKeyPair::from_der(key.secret_pkcs1_der()).map_err(|_| unknown)?)))
        }
        _ => Err("is not PKCS #8: convert it with `openssl pkcs8 -topk8 -nocrypt -in FILE`"),
    }
}

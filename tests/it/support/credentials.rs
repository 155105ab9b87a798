//! Keys and tokens for gateways that ask for them. Tokens are made by hand, so that no library is its own witness.

use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use super::gateway::{Builder, TestGateway};
use super::{Answer, Conn};

/// What tokens are signed with.
pub const SECRET: &str = "a secret of the tests alone, 0123456789 and more than 64 bytes long";

/// A file that holds [`SECRET`].
pub fn secret_file() -> &'static PathBuf {
    static FILE: OnceLock<PathBuf> = OnceLock::new();
    FILE.get_or_init(|| {
        let name = format!("secret-{}.key", std::process::id());
        let path = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(name);
        std::fs::write(&path, SECRET).expect("writes the secret");
        path
    })
}

/// Seconds since 1970.
pub fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs_f64()
}

/// A token (RFC 7515, HS256) with these claims.
pub fn sign(claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let signed = format!("{}.{}", part(&json!({"alg": "HS256", "typ": "JWT"})), part(claims));
    format!("{signed}.{}", URL_SAFE_NO_PAD.encode(hmac(SECRET.as_bytes(), signed.as_bytes())))
}

/// RFC 2104 over SHA-256.
fn hmac(key: &[u8], text: &[u8]) -> [u8; 32] {
    let mut block = [0; 64];
    if key.len() > block.len() {
        block[..32].copy_from_slice(&Sha256::digest(key));
    } else {
        block[..key.len()].copy_from_slice(key);
    }
    let padded = |byte: u8| block.map(|b| b ^ byte);
    let inner = Sha256::new().chain_update(padded(0x36)).chain_update(text).finalize();
    Sha256::new().chain_update(padded(0x5c)).chain_update(inner).finalize().into()
}

/// A token of `subject` for an hour.
pub fn token(subject: &str, channels: &[&str], publish: &[&str]) -> String {
    let expires_at = now() as u64 + 3600;
    sign(&json!({"sub": subject, "exp": expires_at, "channels": channels, "publish": publish}))
}

/// A token that ends at a second.
pub fn token_until(subject: &str, channels: &[&str], expires_at: u64) -> String {
    sign(&json!({"sub": subject, "exp": expires_at, "channels": channels}))
}

/// The value of `Authorization`.
pub fn bearer(credential: &str) -> String {
    format!("Bearer {credential}")
}

/// An entry of `auth.keys`; `rest` are further keys as lines of TOML.
pub fn entry(key: &str, channels: &[&str], operations: &[&str], rest: &str) -> String {
    let digest: String = Sha256::digest(key).iter().map(|byte| format!("{byte:02x}")).collect();
    format!(
        "[[auth.keys]]\nname = 'test'\nsha256 = '{digest}'\nchannels = {channels:?}\noperations = {operations:?}\n{rest}\n"
    )
}

impl Builder {
    /// A key of a backend.
    pub fn key(self, key: &str, channels: &[&str], operations: &[&str]) -> Self {
        self.table(&entry(key, channels, operations, ""))
    }

    /// Tokens that [`sign`] makes.
    pub fn tokens(self) -> Self {
        self.table(&format!("[auth.jwt]\nkey_file = '{}'\nleeway = '0s'\n", secret_file().display()))
    }
}

impl TestGateway {
    /// A request to the internal listener with a key.
    pub async fn by(&self, key: &str, method: &str, target: &str, body: Option<&Value>) -> Answer {
        let bearer = bearer(key);
        let headers = [("Authorization", bearer.as_str()), ("Content-Type", "application/json")];
        let body = body.map(Value::to_string);
        let mut conn = Conn::open(self.internal).await;
        conn.request(method, target, &headers, body.as_deref().map(str::as_bytes)).await
    }
}

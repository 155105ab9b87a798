//! The files of the listeners' TLS: both or neither of a pair, and such as a handshake can use.

use super::{
    check::{Fault, fault},
    raw,
};
use crate::tls::{Part, TlsFiles};

/// The keys of one listener.
struct Keys {
    cert: &'static str,
    key: &'static str,
    client_ca: &'static str,
}

pub fn public(raw: &raw::Public) -> Result<Option<TlsFiles>, Fault> {
    let keys = Keys { cert: "public.tls_cert_file", key: "public.tls_key_file", client_ca: "" };
    check(&keys, &raw.tls_cert_file, &raw.tls_key_file, "")
}

pub fn internal(raw: &raw::Internal) -> Result<Option<TlsFiles>, Fault> {
    let keys = Keys {
        cert: "internal.tls_cert_file",
        key: "internal.tls_key_file",
        client_ca: "internal.client_ca_file",
    };
    check(&keys, &raw.tls_cert_file, &raw.tls_key_file, &raw.client_ca_file)
}

fn check(keys: &Keys, cert: &str, key: &str, client_ca: &str) -> Result<Option<TlsFiles>, Fault> {
    match (cert, key) {
        ("", "") if client_ca.is_empty() => return Ok(None),
        ("", "") => {
            let sentence = format!(
                "{} asks for certificates of clients, and there is no TLS to ask in: give {} and {} too",
                keys.client_ca, keys.cert, keys.key
            );
            return fault([keys.client_ca], sentence);
        }
        ("", _) | (_, "") => {
            let sentence = format!("{} and {} need each other: one is missing", keys.cert, keys.key);
            return fault([keys.cert, keys.key], sentence);
        }
        _ => {}
    }
    let client_ca = (!client_ca.is_empty()).then(|| client_ca.into());
    let files = TlsFiles { cert: cert.into(), key: key.into(), client_ca };
    match files.check() {
        Ok(()) => Ok(Some(files)),
        Err(error) => {
            let at_fault = match error.part {
                Part::Cert => keys.cert,
                Part::Key => keys.key,
                Part::ClientCa => keys.client_ca,
            };
            fault([at_fault], format!("{at_fault}: {error}"))
        }
    }
}

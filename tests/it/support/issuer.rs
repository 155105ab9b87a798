//! An issuer's server: it answers every request for its keys as the test says, and counts them.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

use super::forge::Issuer;
use super::tls::Pair;

/// How it answers.
#[derive(Clone, Debug)]
pub enum Answer {
    /// 200 with this body.
    Body(String),
    /// This status, and a body that would be good.
    Status(u16),
    /// 302 to this place.
    Redirect(String),
    /// Nothing, until told to go on.
    Held,
    /// A body that breaks off.
    Broken,
    /// A body without end.
    Endless,
    /// No HTTP at all.
    Noise,
}

#[derive(Clone)]
pub struct KeyServer {
    pub address: SocketAddr,
    shared: Arc<Shared>,
}

struct Shared {
    answer: Mutex<Answer>,
    hits: AtomicUsize,
    paths: Mutex<Vec<String>>,
    /// Bodies of single paths, before `answer`.
    bodies: Mutex<HashMap<String, String>>,
    release: Notify,
}

/// A JWKS of these keys.
pub fn jwks(keys: &[(&Issuer, &str)]) -> String {
    json!({"keys": keys.iter().map(|(issuer, kid)| issuer.jwk(kid)).collect::<Vec<Value>>()}).to_string()
}

impl KeyServer {
    pub async fn start(answer: Answer) -> Self {
        Self::listen(answer, None).await
    }

    /// With TLS by this certificate.
    pub async fn with_tls(answer: Answer, pair: &Pair) -> Self {
        let chain = CertificateDer::pem_slice_iter(pair.cert.as_bytes()).collect::<Result<Vec<_>, _>>();
        let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
            .with_safe_default_protocol_versions()
            .expect("versions")
            .with_no_client_auth()
            .with_single_cert(chain.expect("a chain"), key)
            .expect("a certificate");
        Self::listen(answer, Some(TlsAcceptor::from(Arc::new(config)))).await
    }

    async fn listen(answer: Answer, tls: Option<TlsAcceptor>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
        let address = listener.local_addr().expect("an address");
        let shared = Arc::new(Shared {
            answer: Mutex::new(answer),
            hits: AtomicUsize::new(0),
            paths: Mutex::default(),
            bodies: Mutex::default(),
            release: Notify::new(),
        });
        let server = Self { address, shared: Arc::clone(&shared) };
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (shared, tls) = (Arc::clone(&shared), tls.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, &shared).await,
                        Some(acceptor) => match acceptor.accept(stream).await {
                            Ok(stream) => serve(stream, &shared).await,
                            Err(_) => None,
                        },
                    }
                });
            }
        });
        server
    }

    /// From now on.
    pub fn answer(&self, answer: Answer) {
        *self.shared.answer.lock().expect("no panic under the lock") = answer;
    }

    /// From now on, where this path is asked for.
    pub fn answer_at(&self, path: &str, body: String) {
        self.shared.bodies.lock().expect("no panic under the lock").insert(path.to_owned(), body);
    }

    /// Requests so far.
    pub fn hits(&self) -> usize {
        self.shared.hits.load(Ordering::SeqCst)
    }

    /// The paths that were asked for.
    pub fn paths(&self) -> Vec<String> {
        self.shared.paths.lock().expect("no panic under the lock").clone()
    }

    /// Lets those go on that are held.
    pub fn release(&self) {
        self.shared.release.notify_waiters();
    }

    /// Where its keys are.
    pub fn url(&self) -> String {
        format!("http://{}/jwks.json", self.address)
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(mut stream: S, shared: &Shared) -> Option<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        (stream.read_buf(&mut head).await.ok()? > 0).then_some(())?;
    }
    let head = String::from_utf8(head).expect("UTF-8");
    let path = head.split(' ').nth(1)?.to_owned();
    let body = shared.bodies.lock().expect("no panic under the lock").get(&path).cloned();
    shared.paths.lock().expect("no panic under the lock").push(path);
    shared.hits.fetch_add(1, Ordering::SeqCst);
    let released = shared.release.notified();
    let usual = || shared.answer.lock().expect("no panic under the lock").clone();
    let mut answer = body.map_or_else(usual, Answer::Body);
    if matches!(answer, Answer::Held) {
        released.await;
        answer = usual();
    }
    let bytes = match answer {
        Answer::Body(body) => response("200 OK", "", &body),
        Answer::Status(status) => response(&format!("{status} Whatever"), "", r#"{"keys":[]}"#),
        Answer::Redirect(location) => response("302 Found", &format!("Location: {location}\r\n"), ""),
        Answer::Held => return None,
        Answer::Broken => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n{\"keys\":[".into(),
        Answer::Noise => "SSH-2.0-OpenSSH_9.9\r\n".into(),
        Answer::Endless => {
            stream.write_all(b"HTTP/1.1 200 OK\r\n\r\n{\"keys\":[").await.ok()?;
            loop {
                stream.write_all(&[b' '; 4096]).await.ok()?;
            }
        }
    };
    stream.write_all(bytes.as_bytes()).await.ok()?;
    stream.shutdown().await.ok()
}

fn response(status: &str, headers: &str, body: &str) -> String {
    format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/json\r\n{headers}Content-Length: {}\r\n\r\n{body}",
        body.len()
    )
}

//! The certificate of a listener: its PEM files as the configuration that handshakes need, and a new one in its
//! place when the files change. A file is told changed by what is in it, so that it does not matter how it was
//! replaced: written over, renamed, or by the symbolic link above it, as a Kubernetes Secret is.

use std::{fmt, fs, path::PathBuf, sync::Arc, time::Duration};

use parking_lot::Mutex;
use sha2::{Digest as _, Sha256};
use tokio_rustls::rustls::{
    Error as RustlsError, RootCertStore, ServerConfig,
    crypto::aws_lc_rs::{self, Ticketer},
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
    server::WebPkiClientVerifier,
};

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(2);

/// The PEM files of a listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The certificate, and after it those between it and its root.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Whose client certificates are demanded; `None`: none are.
    pub client_ca: Option<PathBuf>,
}

/// Which of the files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// [`TlsFiles::cert`].
    Cert,
    /// [`TlsFiles::key`].
    Key,
    /// [`TlsFiles::client_ca`].
    ClientCa,
}

/// Files that no listener can use.
#[derive(Debug, thiserror::Error)]
#[error("{sentence}")]
pub struct TlsError {
    /// The file at fault.
    pub part: Part,
    sentence: String,
}

/// What the files hold.
struct Pem {
    cert: Vec<u8>,
    key: Vec<u8>,
    client_ca: Option<Vec<u8>>,
}

/// What the files hold, or why they cannot be read, in a form that shows no key.
type Fingerprint = [u8; 32];

/// The certificate of one listener, the newest that is good.
pub struct Certificate {
    current: Mutex<Current>,
    files: Mutex<Watched>,
}

/// What handshakes use.
#[derive(Clone)]
struct Current {
    config: Arc<ServerConfig>,
    /// When the first certificate of the chain ends, in seconds since 1970.
    ends: i64,
}

struct Watched {
    files: TlsFiles,
    /// What was seen last.
    seen: Fingerprint,
    /// What was seen last is bad, and nobody was told so far: the other file of the pair may be on its way.
    untold: Option<TlsError>,
}

impl TlsFiles {
    /// Reads the files and checks that they belong together.
    ///
    /// # Errors
    /// What is wrong, with the path.
    pub fn check(&self) -> Result<(), TlsError> {
        self.read().and_then(|pem| self.build(&pem)).map(drop)
    }

    fn read(&self) -> Result<Pem, TlsError> {
        let read = |part, path: &PathBuf| {
            let text = fs::read(path);
            text.map_err(|error| part_fault(part, format!("cannot read {}: {error}", path.display())))
        };
        Ok(Pem {
            cert: read(Part::Cert, &self.cert)?,
            key: read(Part::Key, &self.key)?,
            client_ca: self.client_ca.as_ref().map(|path| read(Part::ClientCa, path)).transpose()?,
        })
    }

    fn build(&self, pem: &Pem) -> Result<Current, TlsError> {
        let (cert, key) = (self.cert.display(), self.key.display());
        let chain = certificates(&pem.cert)
            .map_err(|problem| part_fault(Part::Cert, format!("{problem} in {cert}")))?;
        let ends = ends(&chain);
        let private_key = PrivateKeyDer::from_pem_slice(&pem.key)
            .map_err(|_| part_fault(Part::Key, format!("there is no PEM private key in {key}")))?;
        let provider = Arc::new(aws_lc_rs::default_provider());
        let cannot =
            |error: &dyn fmt::Display| part_fault(Part::Cert, format!("TLS cannot be set up: {error}"));
        let builder = ServerConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| cannot(&error))?;
        let builder = match (&self.client_ca, &pem.client_ca) {
            (Some(path), Some(text)) => {
                let ca_fault = |problem: &dyn fmt::Display| {
                    part_fault(Part::ClientCa, format!("{problem} in {}", path.display()))
                };
                let mut roots = RootCertStore::empty();
                for certificate in certificates(text).map_err(|problem| ca_fault(&problem))? {
                    roots
                        .add(certificate)
                        .map_err(|error| ca_fault(&format_args!("a certificate is unusable ({error})")))?;
                }
                let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider).build();
                builder.with_client_cert_verifier(verifier.map_err(|error| ca_fault(&error))?)
            }
            _ => builder.with_no_client_auth(),
        };
        let mut config = builder.with_single_cert(chain, private_key).map_err(|error| match error {
            RustlsError::InconsistentKeys(_) => {
                part_fault(Part::Key, format!("{key} is not the key of the certificate in {cert}"))
            }
            RustlsError::InvalidCertificate(_) => {
                part_fault(Part::Cert, format!("the certificate in {cert} is damaged: {error}"))
            }
            _ => part_fault(Part::Key, format!("the key in {key} cannot be used: {error}")),
        })?;
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        // Who comes back skips the costly part of the handshake, and nothing is kept here for it. With the
        // configuration its keys go too: a client that the new CA does not know is not let in by an old ticket.
        config.ticketer = Ticketer::new().map_err(|error| cannot(&error))?;
        Ok(Current { config: Arc::new(config), ends })
    }
}

fn certificates(pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, &'static str> {
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(pem).collect();
    match read {
        Ok(certificates) if certificates.is_empty() => Err("there is no PEM certificate"),
        Ok(certificates) => Ok(certificates),
        Err(_) => Err("there is a damaged PEM certificate"),
    }
}

/// What rustls reads of a certificate does not say when it ends.
fn ends(chain: &[CertificateDer<'_>]) -> i64 {
    let parsed = chain.iter().filter_map(|der| x509_parser::parse_x509_certificate(der).ok());
    parsed.map(|(_, certificate)| certificate.validity().not_after.timestamp()).min().unwrap_or(0)
}

fn part_fault(part: Part, sentence: String) -> TlsError {
    TlsError { part, sentence }
}

/// Each piece with its length, so that no byte moves from one to the next.
fn fingerprint(read: &Result<Pem, TlsError>) -> Fingerprint {
    let mut digest = Sha256::new();
    let mut add = |piece: &[u8]| {
        digest.update((piece.len() as u64).to_be_bytes());
        digest.update(piece);
    };
    match read {
        Ok(pem) => [&pem.cert, &pem.key].into_iter().chain(&pem.client_ca).for_each(|piece| add(piece)),
        Err(error) => add(error.sentence.as_bytes()),
    }
    digest.finalize().into()
}

impl Certificate {
    /// Reads the files.
    ///
    /// # Errors
    /// What is wrong, with the path.
    pub fn load(files: TlsFiles) -> Result<Self, TlsError> {
        let read = files.read();
        let seen = fingerprint(&read);
        let current = Mutex::new(files.build(&read?)?);
        Ok(Self { current, files: Mutex::new(Watched { files, seen, untold: None }) })
    }

    /// What a handshake that begins now uses.
    #[must_use]
    pub fn current(&self) -> Arc<ServerConfig> {
        Arc::clone(&self.current.lock().config)
    }

    /// When the first certificate of the chain ends, in seconds since 1970.
    #[must_use]
    pub fn ends(&self) -> i64 {
        self.current.lock().ends
    }

    /// Looks at the files. `None`: nothing has changed that is to be told. A pair that does not fit is told
    /// when it is seen for the second time.
    pub fn look(&self) -> Option<Result<(), TlsError>> {
        let mut watched = self.files.lock();
        let read = watched.files.read();
        let seen = fingerprint(&read);
        if seen == watched.seen {
            return watched.untold.take().map(Err);
        }
        watched.seen = seen;
        watched.untold = None;
        match read.and_then(|pem| watched.files.build(&pem)) {
            Ok(current) => {
                *self.current.lock() = current;
                Some(Ok(()))
            }
            Err(error) => {
                watched.untold = Some(error);
                None
            }
        }
    }

    /// Uses other files from now on.
    ///
    /// # Errors
    /// What is wrong with them; those before stay.
    pub fn replace(&self, files: TlsFiles) -> Result<(), TlsError> {
        let new = Self::load(files)?;
        *self.current.lock() = new.current.into_inner();
        *self.files.lock() = new.files.into_inner();
        Ok(())
    }
}

impl fmt::Debug for Certificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Certificate").field("files", &self.files.lock().files).finish_non_exhaustive()
    }
}

/// Looks at the files of a listener, again and again; `listener` is its name in the log. `ends` is told each time
/// when the certificate in use ends.
pub async fn watch(certificate: Arc<Certificate>, listener: &'static str, ends: impl Fn(i64)) {
    let mut looks = tokio::time::interval(LOOK);
    loop {
        ends(certificate.ends());
        looks.tick().await;
        let looked = Arc::clone(&certificate);
        // Files may be on a disk that is slow today.
        match tokio::task::spawn_blocking(move || looked.look()).await {
            Ok(Some(told)) => tell(listener, told),
            Ok(None) => {}
            Err(error) => tracing::error!(%error, "looking at the certificate failed"),
        }
    }
}

fn tell(listener: &str, told: Result<(), TlsError>) {
    match told {
        Ok(()) => tracing::info!("the {listener} listener uses the new certificate"),
        Err(error) => {
            tracing::warn!("the {listener} listener stays with the certificate that it has: {error}");
        }
    }
}

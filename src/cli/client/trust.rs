//! TLS from the client's side: whom to trust, and what to do where a handshake fails.

use std::{fs, path::PathBuf, sync::Arc};

use tokio::net::TcpStream;
use tokio_rustls::{
    TlsConnector,
    client::TlsStream,
    rustls::{
        CertificateError, Error, RootCertStore,
        pki_types::{CertificateDer, ServerName, pem::PemObject as _},
    },
};

use crate::outgoing;

/// The flag for whom to trust.
#[derive(Clone, Debug, Default, clap::Args)]
pub(in crate::cli) struct Trust {
    /// Certificates (PEM) to trust for https:// instead of the system's
    #[arg(long, value_name = "FILE", env = "TIDEGATE_CA_FILE")]
    ca_file: Option<PathBuf>,
}

impl Trust {
    /// What handshakes need.
    ///
    /// # Errors
    /// Certificates that cannot be read or used, as a sentence with the path.
    pub(super) fn connector(&self) -> Result<TlsConnector, String> {
        let mut config = outgoing::trusting(self.roots()?)?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(Arc::new(config).into())
    }

    fn roots(&self) -> Result<RootCertStore, String> {
        let Some(path) = &self.ca_file else {
            return outgoing::system_roots().map_err(|trouble| format!("{trouble}, or in --ca-file"));
        };
        let mut roots = RootCertStore::empty();
        let shown = path.display();
        let text = fs::read(path).map_err(|error| format!("--ca-file: cannot read {shown}: {error}"))?;
        for certificate in CertificateDer::pem_slice_iter(&text) {
            let added =
                certificate.map_err(|_| ()).and_then(|certificate| roots.add(certificate).map_err(|_| ()));
            added.map_err(|()| format!("--ca-file: there is a damaged certificate in {shown}"))?;
        }
        match roots.is_empty() {
            true => Err(format!("--ca-file: there is no PEM certificate in {shown}")),
            false => Ok(roots),
        }
    }
}

/// Makes a connection to `host` private.
///
/// # Errors
/// Why not, and what to do about it.
pub(super) async fn handshake(
    tls: &TlsConnector,
    host: &str,
    stream: TcpStream,
) -> anyhow::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(host.to_owned())?;
    tls.connect(name, stream).await.map_err(|error| {
        let cause = error.get_ref().and_then(|cause| cause.downcast_ref::<Error>());
        let advice = match cause {
            // The latter: signed by another authority of the same name.
            Some(Error::InvalidCertificate(
                CertificateError::UnknownIssuer | CertificateError::BadSignature,
            )) => "nobody trusted has signed the certificate: name its authority with --ca-file",
            Some(Error::InvalidMessage(_)) => "no TLS is spoken there: is it http://?",
            _ => return error.into(),
        };
        anyhow::Error::new(error).context(advice)
    })
}

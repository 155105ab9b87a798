//! `tidegate ready`: asks the gateway of this configuration whether it is ready.

use std::{
    io::{self, Write as _},
    process::ExitCode,
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, bail};
use http::Response;
use hyper::body::Incoming;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};
use tokio_rustls::{
    TlsConnector,
    rustls::{
        ClientConfig, DigitallySignedStruct, Error as RustlsError, SignatureScheme,
        client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
        crypto::{CryptoProvider, aws_lc_rs, verify_tls12_signature, verify_tls13_signature},
        pki_types::{CertificateDer, ServerName, UnixTime},
    },
};

use super::{USAGE, client::Refusal, config::ConfigFlags, probe};
use crate::config::{Config, Listen};

/// A gateway that has not said so by then is not ready.
const PATIENCE: Duration = Duration::from_secs(2);

/// Ask the gateway that runs here whether it is ready: the health check of a container.
///
/// Run it where the gateway runs, with the same --config and environment. It asks the internal listener for /ready; the
/// public one where the internal demands certificates of its clients.
#[derive(Clone, Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    flags: ConfigFlags,
}

const EXAMPLES: &str = "Examples:
  tidegate ready
  until tidegate ready --config tidegate.toml; do sleep 1; done

Exit codes: 0 ready, 1 not ready or not there, 64 usage or configuration.";

/// Says so. `before` are the flags before the command's name.
pub(super) fn run(args: Args, before: ConfigFlags) -> ExitCode {
    // Whether the gateway was started with --insecure is nothing to whoever only asks.
    let flags = ConfigFlags { insecure: true, ..before.and(args.flags) };
    let config = match flags.load() {
        Ok(loaded) => loaded.config,
        Err(fault) => {
            eprintln!("tidegate: {fault}");
            return USAGE.into();
        }
    };
    super::run_client(async move {
        match timeout(PATIENCE, ask(&config)).await {
            Ok(answer) => answer.map(|()| drop(writeln!(io::stdout(), "ready"))),
            Err(_) => bail!("not ready: no answer within {} s", PATIENCE.as_secs()),
        }
    })
}

async fn ask(config: &Config) -> anyhow::Result<()> {
    let (public, internal) = (&config.public, &config.internal);
    let demands_certificates = internal.tls.as_ref().is_some_and(|tls| tls.client_ca.is_some());
    let (key, listen, tls) = match demands_certificates {
        true => ("public.listen", &public.listen, public.tls.is_some()),
        false => ("internal.listen", &internal.listen, internal.tls.is_some()),
    };
    let listen = listen.first().with_context(|| format!("{key} is empty"))?;
    let place = || format!("not ready: nobody answers at {key} = {listen}");
    let answer = match listen {
        Listen::Tcp(address) => {
            let stream = TcpStream::connect(probe::reached(*address)).await.with_context(place)?;
            get(stream, tls).await
        }
        Listen::Unix(path) => get(UnixStream::connect(path).await.with_context(place)?, tls).await,
    };
    let answer = answer.with_context(place)?;
    if !answer.status().is_success() {
        bail!("not ready: {}", Refusal::read(answer).await.sentence);
    }
    Ok(())
}

async fn get(
    stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    tls: bool,
) -> anyhow::Result<Response<Incoming>> {
    if !tls {
        return probe::get(stream, "/ready").await;
    }
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(Arc::clone(&provider))
        .with_safe_default_protocol_versions()?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(Own(provider)))
        .with_no_client_auth();
    let name = ServerName::try_from("localhost")?;
    probe::get(TlsConnector::from(Arc::new(config)).connect(name, stream).await?, "/ready").await
}

/// Takes any certificate. The one that is shown is for the name by which clients come, which is unknown here; and who
/// stands at our own address has nothing to gain from one GET without a secret.
#[derive(Debug)]
struct Own(Arc<CryptoProvider>);

impl ServerCertVerifier for Own {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, RustlsError> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls12_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        cert: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, RustlsError> {
        verify_tls13_signature(message, cert, signed, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}

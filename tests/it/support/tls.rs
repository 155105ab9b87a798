//! TLS from the client's side: certificates made for the test, connections, and a bridge that puts TLS under a
//! client who has none.

use std::io;
use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use rcgen::{BasicConstraints, CertificateParams, DnType, IsCa, Issuer, KeyPair};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore, SupportedProtocolVersion, version};

use super::redis::Directory;
use super::{PATIENCE, within};

/// A certificate and its key, as PEM.
pub struct Pair {
    pub cert: String,
    pub key: String,
}

/// Who vouches for certificates.
pub struct Authority {
    /// Its own certificate, as PEM.
    pub cert: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let key = KeyPair::generate().expect("a key");
        let mut params = CertificateParams::new(Vec::<String>::new()).expect("no names");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(DnType::CommonName, "an authority of these tests");
        let cert = params.self_signed(&key).expect("signs itself").pem();
        Self { cert, issuer: Issuer::new(params, key) }
    }

    /// A certificate for `localhost` and 127.0.0.1, whose subject is `name`.
    pub fn certify(&self, name: &str) -> Pair {
        self.certify_until(name, 4096)
    }

    /// One that ends as this year begins.
    pub fn certify_until(&self, name: &str, year: i32) -> Pair {
        let key = KeyPair::generate().expect("a key");
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let mut params = CertificateParams::new(names).expect("names");
        params.distinguished_name.push(DnType::CommonName, name);
        params.not_after = rcgen::date_time_ymd(year, 1, 1);
        let cert = params.signed_by(&key, &self.issuer).expect("signs").pem();
        Pair { cert, key: key.serialize_pem() }
    }
}

/// A folder of its own for each, gone with the test.
pub struct Folder(Directory);

impl Folder {
    pub fn new() -> Self {
        Self(Directory::new())
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes a file; its path.
    pub fn write(&self, name: &str, text: &str) -> String {
        let path = self.path().join(name);
        std::fs::write(&path, text).expect("writes");
        path.to_str().expect("UTF-8").to_owned()
    }
}

/// A listener's certificate in files, and who trusts it.
pub struct Setup {
    pub authority: Authority,
    pub folder: Folder,
    pub cert: String,
    pub key: String,
}

impl Setup {
    pub fn new() -> Self {
        let (authority, folder) = (Authority::new(), Folder::new());
        let pair = authority.certify("the first");
        let (cert, key) = (folder.write("tls.crt", &pair.cert), folder.write("tls.key", &pair.key));
        Self { authority, folder, cert, key }
    }

    /// The lines of configuration of a listener, `public` or `internal`.
    pub fn keys(&self, listener: &str) -> String {
        format!("{listener}.tls_cert_file = '{}'\n{listener}.tls_key_file = '{}'", self.cert, self.key)
    }

    /// Clients that trust it and offer these protocols.
    pub fn client(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        client(&self.authority, None, alpn, &[&version::TLS13, &version::TLS12])
    }
}

/// A client's configuration: whom it trusts, who it is, what it offers.
pub fn client(
    authority: &Authority,
    identity: Option<&Pair>,
    alpn: &[&str],
    versions: &[&'static SupportedProtocolVersion],
) -> Arc<ClientConfig> {
    let certificate = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).expect("a certificate");
    let mut roots = RootCertStore::empty();
    roots.add(certificate(&authority.cert)).expect("a root");
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_protocol_versions(versions)
        .expect("versions")
        .with_root_certificates(roots);
    let mut config = match identity {
        None => builder.with_no_client_auth(),
        Some(pair) => {
            let key = PrivateKeyDer::from_pem_slice(pair.key.as_bytes()).expect("a key");
            builder.with_client_auth_cert(vec![certificate(&pair.cert)], key).expect("an identity")
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Arc::new(config)
}

/// Connects; an error is the handshake's.
pub async fn connect(address: SocketAddr, config: &Arc<ClientConfig>) -> io::Result<TlsStream<TcpStream>> {
    let socket = TcpSocket::new_v4().expect("a socket");
    // So that a reader who stops reading is soon felt.
    socket.set_recv_buffer_size(64 * 1024).expect("sets the receive buffer");
    let stream = socket.connect(address).await.expect("connects");
    stream.set_nodelay(true).expect("sets nodelay");
    let name = ServerName::try_from("localhost").expect("a name");
    let connecting = TlsConnector::from(Arc::clone(config)).connect(name, stream);
    within(PATIENCE, "a handshake", connecting).await
}

/// An address without TLS whose connections are passed on with TLS.
pub async fn bridge(target: SocketAddr, config: &Arc<ClientConfig>) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("an address");
    let config = Arc::clone(config);
    tokio::spawn(async move {
        while let Ok((mut client, _)) = listener.accept().await {
            let config = Arc::clone(&config);
            tokio::spawn(async move {
                let Ok(mut server) = connect(target, &config).await else { return };
                let _ = tokio::io::copy_bidirectional(&mut client, &mut server).await;
            });
        }
    });
    address
}

//! How to reach one server: as whom, by TLS or a socket, how long to wait. From here come the configuration of fred
//! and the streams of our own connections, so that both reach the same servers in the same way.

use std::{fmt, io::BufReader, path::PathBuf, sync::Arc, time::Duration};

use fred::{
    rustls::{
        ClientConfig, RootCertStore,
        crypto::aws_lc_rs,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
    },
    rustls_native_certs::load_native_certs,
    socket2::TcpKeepalive,
    types::{
        RespVersion,
        config::{self as fred_config, ServerConfig, TcpConfig, TlsConnector},
    },
};

use super::{error::Problem, server::Server};
use crate::config::{Broker, BrokerUrl, Deployment, Login, RedisTls};

/// What a connection is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Commands and messages.
    Primary,
    /// The question who the primary is.
    Sentinel,
}

/// How to reach the servers of one Redis. Clones cheaply.
#[derive(Clone, Debug)]
pub struct Endpoint(Arc<Inner>);

struct Inner {
    deployment: Deployment,
    database: u32,
    login: Login,
    sentinel_login: Login,
    tls: Option<Arc<ClientConfig>>,
    command_timeout: Duration,
    largest_payload: usize,
}

impl Endpoint {
    /// How `broker` says it. A message over `largest_payload` bytes is reported by its size alone.
    ///
    /// # Errors
    /// A sentence that names the key: it is `memory:`, or a PEM file is damaged.
    pub fn new(broker: &Broker, largest_payload: usize) -> Result<Self, String> {
        let BrokerUrl::Redis(url) = &broker.url else {
            return Err("broker.url = \"memory:\" is no Redis".into());
        };
        let tls = url.tls.then(|| tls(&broker.tls)).transpose()?;
        Ok(Self(Arc::new(Inner {
            deployment: url.deployment.clone(),
            database: url.database,
            login: broker.login.clone(),
            sentinel_login: broker.sentinel_login.clone(),
            tls,
            command_timeout: broker.command_timeout,
            largest_payload,
        })))
    }

    /// How the servers are found.
    #[must_use]
    pub fn deployment(&self) -> &Deployment {
        &self.0.deployment
    }

    /// Whether the servers form a Cluster.
    #[must_use]
    pub fn is_cluster(&self) -> bool {
        matches!(self.0.deployment, Deployment::Cluster { .. })
    }

    /// Whether Sentinels say who is the primary.
    #[must_use]
    pub fn is_sentinel(&self) -> bool {
        matches!(self.0.deployment, Deployment::Sentinel { .. })
    }

    /// The number of the database.
    #[must_use]
    pub fn database(&self) -> u32 {
        self.0.database
    }

    /// How long an answer may take.
    #[must_use]
    pub fn command_timeout(&self) -> Duration {
        self.0.command_timeout
    }

    /// The largest payload that is read from a channel.
    #[must_use]
    pub fn largest_payload(&self) -> usize {
        self.0.largest_payload
    }

    /// The configuration of TLS, where it is asked for.
    pub(super) fn tls(&self) -> Option<&Arc<ClientConfig>> {
        self.0.tls.as_ref()
    }

    /// What it means that no answer came.
    pub(super) fn timed_out(&self, limit: Duration) -> Problem {
        if self.0.tls.is_some() { Problem::Silent(limit) } else { Problem::TimedOut(limit) }
    }

    /// As whom, and the keys that say so.
    pub(super) fn login(&self, role: Role) -> (&Login, &'static str) {
        match role {
            Role::Primary => (&self.0.login, "broker.username and broker.password"),
            Role::Sentinel => {
                (&self.0.sentinel_login, "broker.sentinel_username and broker.sentinel_password")
            }
        }
    }

    /// fred's configuration for one connection to `server` that ends with its first fault.
    pub(super) fn fred(&self, server: &Server, timeout: Duration) -> Fred {
        let mut config = fred_config::Config {
            fail_fast: true,
            // With RESP3 fred writes the login as a line, where a space or a quote in a password would end it.
            version: RespVersion::RESP2,
            server: match server {
                Server::Tcp { host, port } => {
                    // fred resolves the text `host:port`.
                    let bare = host.to_string();
                    let host = if bare.contains(':') { format!("[{bare}]") } else { bare.clone() };
                    let name = self.0.tls.is_some().then_some(bare);
                    ServerConfig::Centralized { server: fred_config::Server::new_with_tls(host, *port, name) }
                }
                Server::Unix(path) => ServerConfig::Unix { path: path.to_path_buf() },
            },
            // The database is chosen by the link: fred knows 256 of them only.
            database: None,
            username: self.0.login.username.clone(),
            password: self.0.login.password.as_ref().map(|password| password.reveal().to_owned()),
            ..fred_config::Config::default()
        };
        config.tls = self
            .0
            .tls
            .as_ref()
            .map(|tls| TlsConnector::Rustls(tokio_rustls::TlsConnector::from(Arc::clone(tls))).into());
        let performance = fred_config::PerformanceConfig {
            default_command_timeout: self.0.command_timeout,
            ..fred_config::PerformanceConfig::default()
        };
        let connection = fred_config::ConnectionConfig {
            connection_timeout: timeout,
            internal_command_timeout: timeout,
            max_command_attempts: 1,
            max_redirections: 0,
            // The link has its own bound: fred miscounts once its queue was full, and then flushes every 200 commands only.
            max_command_buffer_len: 0,
            tcp: TcpConfig { nodelay: Some(true), keepalive: Some(keepalive()), ..TcpConfig::default() },
            ..fred_config::ConnectionConfig::default()
        };
        Fred { config, performance, connection }
    }
}

/// What a fred client is made of.
pub(super) struct Fred {
    pub(super) config: fred_config::Config,
    pub(super) performance: fred_config::PerformanceConfig,
    pub(super) connection: fred_config::ConnectionConfig,
}

impl fmt::Debug for Inner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Endpoint")
            .field("deployment", &self.deployment)
            .field("tls", &self.tls.is_some())
            .finish_non_exhaustive()
    }
}

/// A peer that vanished is noticed by the kernel within a minute, should nobody else notice.
pub(super) fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(Duration::from_secs(15)).with_interval(Duration::from_secs(5))
}

/// The one configuration of TLS, for fred and for our own connections.
fn tls(files: &RedisTls) -> Result<Arc<ClientConfig>, String> {
    let mut roots = RootCertStore::empty();
    match &files.ca {
        Some(path) => {
            for certificate in certificates("broker.ca_file", path)? {
                let added = roots.add(certificate);
                added.map_err(|error| format!("broker.ca_file: {}: {error}", path.display()))?;
            }
        }
        None => {
            let (added, _) = roots.add_parsable_certificates(load_native_certs().certs);
            if added == 0 {
                return Err("this system has no trusted certificates: give broker.ca_file".into());
            }
        }
    }
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| format!("TLS cannot be set up: {error}"))?
        .with_root_certificates(roots);
    let config = match &files.client {
        None => builder.with_no_client_auth(),
        Some((cert, key)) => {
            let chain = certificates("broker.cert_file", cert)?;
            let key = private_key(key)?;
            builder
                .with_client_auth_cert(chain, key)
                .map_err(|error| format!("broker.cert_file and broker.key_file: {error}"))?
        }
    };
    Ok(Arc::new(config))
}

fn certificates(key: &str, path: &PathBuf) -> Result<Vec<CertificateDer<'static>>, String> {
    let problem = |what: &dyn fmt::Display| format!("{key}: {}: {what}", path.display());
    let file = std::fs::File::open(path).map_err(|error| problem(&error))?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_reader_iter(BufReader::new(file)).collect();
    let certificates = read.map_err(|error| problem(&error))?;
    if certificates.is_empty() {
        Err(problem(&"there is no PEM certificate in it"))
    } else {
        Ok(certificates)
    }
}

fn private_key(path: &PathBuf) -> Result<PrivateKeyDer<'static>, String> {
    PrivateKeyDer::from_pem_file(path)
        .map_err(|error| format!("broker.key_file: {}: there is no PEM key in it: {error}", path.display()))
}

#[cfg(test)]
mod tests;

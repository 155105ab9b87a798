//! `tidegate doctor`: looks at machine, configuration and Redis, and says a sentence of each.

use std::{
    io::{self, ErrorKind, Write as _},
    process::ExitCode,
    time::Duration,
};

use http_body_util::{BodyExt as _, Limited};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    net::{TcpStream, UnixStream},
    time::timeout,
};

use super::{USAGE, config::ConfigFlags, probe};
use crate::{
    app::Descriptors,
    broker::redis::checkup::{self, Finding, Severity},
    config::{BrokerUrl, Config, Listen, Loaded},
    server::Listener,
};

/// How long whoever listens at our address may take to say who it is.
const PATIENCE: Duration = Duration::from_secs(2);

/// No answer to `/live` is longer.
const ANSWER: usize = 4096;

/// Examine this machine, the configuration and Redis, and say what will surprise one day.
///
/// Run it where the gateway runs, as the same user and with the same flags and environment. It prints a sentence a line:
///
///   ok    as it should be
///   warn  it works, and will surprise one day; or the server does not say (an ACL, a managed Redis)
///   fail  it does not work
///
/// It looks at the descriptor limit, the listen addresses, the configuration, and for a Redis or Valkey at each primary:
/// version, Functions, ACL, eviction, output buffers, replicas, persistence, clock; at the Sentinels' view; and at
/// what of a Cluster is served. It writes nothing to Redis and may be run beside a gateway that serves.
#[derive(Clone, Debug, clap::Args)]
#[command(verbatim_doc_comment, after_help = EXAMPLES)]
pub(super) struct Args {
    #[command(flatten)]
    flags: ConfigFlags,
}

const EXAMPLES: &str = "Examples:
  tidegate doctor --config tidegate.toml
  tidegate doctor --set broker.url=redis://127.0.0.1:6379
  tidegate doctor | grep -v ^ok

Exit codes: 0 nothing failed (warnings or not), 1 something failed, 64 usage or configuration.";

/// Prints the findings. `before` are the flags before the command's name.
pub(super) fn run(args: Args, before: ConfigFlags) -> ExitCode {
    let loaded = match before.and(args.flags).load() {
        Ok(loaded) => loaded,
        Err(fault) => {
            eprintln!("tidegate: {fault}");
            return USAGE.into();
        }
    };
    let runtime = match tokio::runtime::Builder::new_current_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            eprintln!("tidegate: {error}");
            return ExitCode::FAILURE;
        }
    };
    let worst = runtime.block_on(async {
        let first = said(here(&loaded));
        let second = said(listeners(&loaded.config).await);
        first.max(second).max(said(broker(&loaded.config).await))
    });
    runtime.shutdown_background();
    if worst == Severity::Failure { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// Prints findings as they are known, since Redis may take its time; gives the worst.
fn said(findings: Vec<Finding>) -> Severity {
    let mut worst = Severity::Good;
    for Finding { severity, sentence } in findings {
        let word = match severity {
            Severity::Good => "ok",
            Severity::Unchecked | Severity::Warning => "warn",
            Severity::Failure => "fail",
        };
        // Who pipes into `head` has read enough.
        let _ = writeln!(io::stdout(), "{word:<5} {sentence}");
        worst = worst.max(severity);
    }
    worst
}

/// The configuration, and what the system grants.
fn here(loaded: &Loaded) -> Vec<Finding> {
    let mut findings = vec![Finding::good(match &loaded.file {
        Some(path) => format!("the configuration is good: {}", path.display()),
        None => "the configuration is good: no file, so defaults, environment and flags alone".into(),
    })];
    findings.extend(loaded.config.warnings().into_iter().map(Finding::warning));
    let descriptors = Descriptors::raised();
    findings.push(match descriptors.are_enough(loaded.config.limits.connections) {
        Err(shortage) => Finding::warning(shortage),
        Ok(()) => Finding::good(format!(
            "this process may open {} descriptors, enough for {} clients",
            descriptors.count,
            descriptors.clients()
        )),
    });
    findings
}

async fn broker(config: &Config) -> Vec<Finding> {
    match &config.broker.url {
        BrokerUrl::Memory => vec![Finding::good(
            "broker.url is memory: there is one node only, and a restart loses every history: a Redis shares them \
             among many",
        )],
        BrokerUrl::Redis(_) => checkup::examine(config).await,
    }
}

async fn listeners(config: &Config) -> Vec<Finding> {
    let (public, internal) = (&config.public, &config.internal);
    let outer = public.listen.iter().map(|listen| ("public.listen", listen, public.tls.is_some()));
    let inner = internal.listen.iter().map(|listen| ("internal.listen", listen, internal.tls.is_some()));
    let mut findings = Vec::new();
    for (key, listen, is_plain) in outer.chain(inner).map(|(key, listen, tls)| (key, listen, !tls)) {
        findings.push(listener(key, listen, is_plain).await);
    }
    findings
}

/// Whether an address is free, or a gateway's, which can be asked only where it speaks plain HTTP.
async fn listener(key: &'static str, listen: &Listen, is_plain: bool) -> Finding {
    let place = format!("{key} = {listen}");
    let refused = match listen {
        // Another file, or nobody behind it, is judged by binding, which would take over a dead socket.
        Listen::Unix(path) => match UnixStream::connect(path).await {
            Ok(stream) if is_plain => return used(&place, is_gateway(stream).await),
            Ok(_) => return unasked(&place),
            Err(error) if error.kind() == ErrorKind::ConnectionRefused && path.exists() => {
                return Finding::good(format!(
                    "{place}: nobody listens, and the socket that is left is taken over"
                ));
            }
            Err(_) => Listener::bind(listen, key).await.err(),
        },
        Listen::Tcp(_) => Listener::bind(listen, key).await.err(),
    };
    let Some(refused) = refused else {
        return Finding::good(format!("{place} is free"));
    };
    match listen {
        Listen::Tcp(address) if refused.is_taken() => {
            match TcpStream::connect(probe::reached(*address)).await {
                Ok(stream) if is_plain => used(&place, is_gateway(stream).await),
                Ok(_) => unasked(&place),
                Err(_) => used(&place, false),
            }
        }
        _ => Finding::failure(format!("{refused}: choose another address, or see who may use this one")),
    }
}

fn unasked(place: &str) -> Finding {
    Finding::unchecked(format!(
        "{place} is used, by a gateway or by another program: it is not asked which, since it speaks TLS"
    ))
}

fn used(place: &str, by_gateway: bool) -> Finding {
    match by_gateway {
        true => Finding::good(format!("{place} is used by a gateway that serves")),
        false => Finding::failure(format!(
            "{place} is used by another program: end that one, or choose another address"
        )),
    }
}

/// Whether who listens answers `/live` as a gateway does at both of its listeners.
async fn is_gateway(stream: impl AsyncRead + AsyncWrite + Send + Unpin + 'static) -> bool {
    let asked = async {
        let response = probe::get(stream, "/live").await.ok()?;
        let is_fine = response.status().is_success();
        let body = Limited::new(response.into_body(), ANSWER).collect().await.ok()?.to_bytes();
        Some(is_fine && body == "ok\n")
    };
    timeout(PATIENCE, asked).await.ok().flatten().unwrap_or(false)
}

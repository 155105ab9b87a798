//! `tidegate` alone: serves until a signal. SIGHUP has it read its configuration anew.

use std::{
    io::{self, IsTerminal as _, Write as _},
    process::ExitCode,
};

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::{USAGE, config::ConfigFlags};
use crate::{
    app::{self, Reload, Running, StartError},
    config::{Config, Listen},
    drain::Pace,
    telemetry,
};

/// Serves as configured; the exit code is 0 after a drain, 64 for a bad configuration.
pub(super) fn run(flags: ConfigFlags) -> ExitCode {
    let loaded = flags.sources().and_then(|sources| Ok((Config::load(&sources)?, sources)));
    let (loaded, sources) = match loaded {
        Ok(loaded) => loaded,
        Err(fault) => {
            eprintln!("tidegate: {fault}");
            return USAGE.into();
        }
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build();
    let served = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let level = telemetry::start(&loaded.config.log)?;
        let served = runtime.block_on(async {
            // A task of its own: what runs in the outermost future is scheduled worse.
            tokio::spawn(serve(loaded.config.clone(), Reload::new(sources, loaded, level))).await?
        });
        runtime.shutdown_background();
        served
    });
    match served {
        Ok(code) => code,
        Err(error) => {
            eprintln!("tidegate: {error}");
            // Keys that no token can be checked by are a configuration that is bad.
            match error.downcast_ref() {
                Some(StartError::Key(_)) => USAGE.into(),
                _ => ExitCode::FAILURE,
            }
        }
    }
}

async fn serve(config: Config, mut reload: Reload) -> anyhow::Result<ExitCode> {
    // Before anything is promised, so that a signal is never the system's to answer.
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut hangup = signal(SignalKind::hangup())?;
    let has_terminal = io::stderr().is_terminal();
    for warning in config.warnings() {
        tracing::warn!("{warning}");
    }
    let broker = config.broker.url.to_string();
    let is_open = !config.auth.is_configured();
    let schemes = [config.public.tls.is_some(), config.internal.tls.is_some()].map(scheme);
    let mut running = app::start(config).await?;
    let (public, internal) = running.addresses();
    tracing::info!(
        version = env!("CARGO_PKG_VERSION"),
        public = list(public),
        internal = list(internal),
        broker,
        "serving"
    );
    if is_open {
        greet(schemes, public, internal);
    }
    let pace = loop {
        tokio::select! {
            _ = terminate.recv() => break Pace::Configured,
            _ = interrupt.recv() => break Pace::Hasty,
            // A terminal that is closed sends it too, and takes along what runs in it.
            _ = hangup.recv() => match has_terminal && !io::stderr().is_terminal() {
                true => break Pace::Hasty,
                false => reload.run(&running).await,
            },
        }
    };
    running.end(pace);
    Ok(stop(&mut running, &mut terminate, &mut interrupt).await)
}

/// Drains; a second signal ends at once, with the code that the signal itself would have given.
async fn stop(running: &mut Running, terminate: &mut Signal, interrupt: &mut Signal) -> ExitCode {
    tokio::select! {
        () = running.stopped() => ExitCode::SUCCESS,
        _ = terminate.recv() => ExitCode::from(143),
        _ = interrupt.recv() => ExitCode::from(130),
    }
}

fn scheme(tls: bool) -> &'static str {
    if tls { "https" } else { "http" }
}

fn list(addresses: &[Listen]) -> String {
    addresses.iter().map(Listen::to_string).collect::<Vec<_>>().join(", ")
}

/// Three commands to try, on standard output; they need a TCP address of each listener.
fn greet([outer, inner]: [&str; 2], public: &[Listen], internal: &[Listen]) {
    let is_tcp = |address: &&Listen| matches!(address, Listen::Tcp(_));
    let (Some(public), Some(internal)) = (public.iter().find(is_tcp), internal.iter().find(is_tcp)) else {
        return;
    };
    let text = format!(
        "Tidegate serves clients on {outer}://{public} and backends on {inner}://{internal}. To try it:\n\n  \
         curl -N -H 'Accept: text/event-stream' '{outer}://{public}/v1/subscribe?channel=news'\n  \
         curl -d 'Hello' {inner}://{internal}/v1/channels/news/messages\n  \
         xdg-open {inner}://{internal}/    # three transports side by side in a browser\n"
    );
    // Without a reader of standard output there is nobody to greet.
    let _ = writeln!(io::stdout(), "{text}");
}

//! `tidegate bench`: loads a gateway with subscribers and publishers and says what came, how late, and at what cost.
//!
//! One thread, raw sockets, one scan of the bytes that arrive: the load must cost far less than the server under it.
//! Every message carries its number and the time at which it should have been sent, so that losses, doubles and waits
//! (those before sending as well) are seen by connection. Figures of the server are read from outside, by process id.

mod answers;
mod echo;
mod framing;
mod load;
mod plan;
mod poller;
mod progress;
mod publisher;
mod report;
mod requests;
mod server;
mod stamp;
mod stream;
mod subscribers;
mod tally;
mod way;

use std::{
    net::Ipv4Addr,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use self::{
    load::Load,
    plan::Plan,
    progress::Progress,
    report::{Idle, Phase, Report},
    server::Usage,
    subscribers::Subscribers,
    tally::Tally,
    way::Way,
};
use super::USAGE;
use crate::transport_name::Transport;

/// For the server to come to rest between two phases.
const REST: Duration = Duration::from_millis(300);

/// Load a gateway and measure it
///
/// Connects subscribers, publishes, and waits until everyone has everything. A delivery that is lost, doubled or
/// refused makes the exit code 1. Latency counts from the time at which a message should have been sent.
#[derive(Debug, clap::Args)]
pub struct Bench {
    /// Where subscribers connect
    #[arg(long, default_value = "http://127.0.0.1:8000")]
    url: String,
    /// Where messages are published
    #[arg(long, default_value = "http://127.0.0.1:9000")]
    internal_url: String,
    /// How subscribers receive
    #[arg(long, value_enum, default_value_t = Way::Gateway(Transport::WebSocket))]
    transport: Way,
    /// Subscribers
    #[arg(long, value_name = "N", default_value_t = 1000)]
    connections: u32,
    /// Channels that subscribers are spread over and messages are published to at random
    #[arg(long, value_name = "N", default_value_t = 1)]
    channels: u32,
    /// What the channels' names begin with
    #[arg(long, value_name = "PREFIX", default_value = "bench")]
    channel: String,
    /// Bytes of a message
    #[arg(long, value_name = "BYTES", default_value_t = 100)]
    size: usize,
    /// Publish so many messages a second, however the server does
    #[arg(long, value_name = "PER_SECOND", conflicts_with_all = ["in_flight", "one_at_a_time"])]
    rate: Option<f64>,
    /// Publish the next message when one of so many is answered [default: one for each publisher]
    #[arg(long, value_name = "N", conflicts_with = "one_at_a_time")]
    in_flight: Option<usize>,
    /// Publish the next message when every subscriber has the one before
    #[arg(long)]
    one_at_a_time: bool,
    /// Connections that publish [default: as many as messages in flight, else 1]
    #[arg(long, value_name = "N")]
    publishers: Option<usize>,
    /// Publish so long, or hold idle connections so long
    #[arg(long, value_name = "SECONDS", default_value_t = 10.0)]
    duration: f64,
    /// Publish at most so many messages
    #[arg(long, value_name = "N")]
    messages: Option<u64>,
    /// Only connect and hold: what does a connection cost that nobody sends to?
    #[arg(long, conflicts_with_all = ["rate", "in_flight", "one_at_a_time", "publishers", "messages"])]
    idle: bool,
    /// The server's process on this machine, for its CPU time and memory; may be repeated
    #[arg(long, value_name = "PID")]
    server_pid: Vec<u32>,
    /// First address to connect from; each 10,000 connections take the next
    #[arg(long, value_name = "ADDRESS")]
    source: Option<Ipv4Addr>,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
}

impl Bench {
    /// Runs on a runtime of its own, with one thread.
    pub fn run(&self) -> ExitCode {
        let plan = match Plan::check(self) {
            Ok(plan) => Arc::new(plan),
            Err(refused) => {
                eprintln!("tidegate bench: {refused}");
                return ExitCode::from(USAGE);
            }
        };
        let report = match measure(plan) {
            Ok(report) => report,
            Err(failure) => {
                eprintln!("tidegate bench: {failure:#}");
                return ExitCode::FAILURE;
            }
        };
        match serde_json::to_string_pretty(&report) {
            Ok(json) if self.json => println!("{json}"),
            _ => println!("{report}"),
        }
        if report.is_clean() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
    }
}

fn measure(plan: Arc<Plan>) -> anyhow::Result<Report> {
    let tally = Arc::new(Tally::new()?);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // The main future is woken by a slower way than tasks are, and the load should send on time.
    runtime.block_on(async { tokio::spawn(phases(plan, tally)).await })?
}

/// Connect, then load or hold.
async fn phases(plan: Arc<Plan>, tally: Arc<Tally>) -> anyhow::Result<Report> {
    let watch = Watch::start(&plan)?;
    let empty = watch.before;
    let subscribers = Subscribers::connect(&plan, &tally, &Progress::connections(&plan))
        .await
        .map_err(anyhow::Error::msg)?;
    let connecting = watch.stop(&plan, None)?;
    let mut report = Report::new(&plan, &connecting);
    tokio::time::sleep(REST).await;

    let watch = Watch::start(&plan)?;
    if plan.idle {
        Progress::load(&plan).hold(plan.duration).await;
        report.idle = Some(Idle::new(plan.connections, empty, &watch.stop(&plan, None)?));
    } else {
        let began = match plan.way {
            Way::Echo => echo::run(&plan, &tally, &subscribers).await,
            Way::Gateway(_) => {
                Load::prepare(&plan, &tally)
                    .await
                    .map_err(anyhow::Error::msg)?
                    .run(&Progress::load(&plan))
                    .await
            }
        };
        let counts = tally.counts();
        let elapsed = Duration::from_nanos(counts.last.saturating_sub(began));
        report.load = Some(report::Load::new(&counts, &watch.stop(&plan, Some(elapsed))?));
    }
    let counts = tally.counts();
    report.ended = counts.ended;
    report.reasons = counts.reasons;
    Ok(report)
}

/// Measures one phase.
struct Watch {
    started: Instant,
    before: Option<Usage>,
    client: Duration,
}

impl Watch {
    fn start(plan: &Plan) -> std::io::Result<Self> {
        let before = server_usage(plan)?;
        Ok(Self { started: Instant::now(), before, client: client_cpu()? })
    }

    /// Ends the phase, which took as long as the clock says unless it is known better.
    fn stop(self, plan: &Plan, elapsed: Option<Duration>) -> std::io::Result<Phase> {
        let elapsed = elapsed.unwrap_or_else(|| self.started.elapsed());
        let client = client_cpu()?.saturating_sub(self.client);
        Ok(Phase { elapsed, server: self.before.zip(server_usage(plan)?), client })
    }
}

fn server_usage(plan: &Plan) -> std::io::Result<Option<Usage>> {
    if plan.server.is_empty() { Ok(None) } else { server::usage(&plan.server).map(Some) }
}

fn client_cpu() -> std::io::Result<Duration> {
    server::cpu(&[std::process::id()])
}

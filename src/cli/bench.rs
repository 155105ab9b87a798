//! `tidegate bench`: loads a gateway with subscribers and publishers and says what came, how late, and at what cost.
//!
//! One thread (or `--processes`), raw sockets, one scan of the bytes that arrive: the load must cost far less than the server under it.
//! Every message carries its number and the time at which it should have been sent, so that losses, doubles and waits
//! (those before sending as well) are seen by connection. Figures of the server are read from outside, by process id.

mod answers;
mod crew;
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
mod template;
mod way;

use std::{
    net::Ipv4Addr,
    process::ExitCode,
    sync::Arc,
    time::{Duration, Instant},
};

use self::{
    crew::Crew,
    load::Load,
    plan::Plan,
    progress::Progress,
    report::{Idle, Phase, Report},
    server::Usage,
    subscribers::Subscribers,
    tally::Tally,
    way::Way,
};
use super::{
    USAGE,
    client::{ApiKey, Token},
};
use crate::transport_name::Transport;

const EXAMPLES: &str = r#"Examples:
  What does a delivery cost, and how late is it? (the server's process is found by its id)
    tidegate bench --connections 5000 --one-at-a-time --server-pid $(pidof tidegate)
  Does it hold 50 messages a second to 2,000 Server-Sent Event streams?
    tidegate bench --transport sse --connections 2000 --rate 50 --duration 60
  As many messages as it takes, over 16 publishing connections, to nobody:
    tidegate bench --connections 0 --in-flight 16
  What does an idle connection cost? More than 20,000 of them come from several processes:
    tidegate bench --connections 60000 --processes 4 --idle --server-pid $(pidof tidegate)
  Another server, here nchan in nginx:
    tidegate bench --url http://127.0.0.1:8080 --internal-url http://127.0.0.1:8080 \
      --subscribe-request 'GET /sub/{channel}' --publish-request $'POST /pub/{channel}\n\n{payload}'
  One that takes JSON, from a file: method and target, headers, an empty line, the body. What stands behind the
  empty line of --subscribe-request is sent on the WebSocket, each line as a frame, and an answer awaited:
    printf 'POST /api\nX-API-Key: k\n\n{"channel":"{channel}","data":"{payload}"}' > publish.http
    tidegate bench --publish-request @publish.http --subscribe-request $'GET /ws\n\n{"join":"{channel}"}'
"#;

/// For the server to come to rest between two phases.
const REST: Duration = Duration::from_millis(300);

/// Load a gateway and measure it
///
/// Connects subscribers, publishes, and waits until everyone has everything. A delivery that is lost, doubled or
/// refused makes the exit code 1. Latency counts from the time at which a message should have been sent.
#[derive(Debug, clap::Args)]
#[command(after_long_help = EXAMPLES)]
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
    /// How another server is subscribed to: method and target, headers on lines of their own; or @FILE
    #[arg(long, value_name = "REQUEST")]
    subscribe_request: Option<String>,
    /// How another server is published to, with {channel} and {payload}; or @FILE
    #[arg(long, value_name = "REQUEST")]
    publish_request: Option<String>,
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
    /// Processes that subscribers are shared out over, each with a core and descriptors of its own
    #[arg(long, value_name = "N", default_value_t = 1)]
    processes: u32,
    /// Which of the processes this is; for the first one to say
    #[arg(long, value_name = "N", hide = true)]
    share: Option<u32>,
    /// Print the figures as JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    token: Token,
    #[command(flatten)]
    api_key: ApiKey,
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
        let measured = match self.share {
            None => run(|tally| phases(plan, tally)).map(Some),
            Some(_) => run(|tally| crew::serve(plan, tally)).map(|()| None),
        };
        let report = match measured {
            Ok(Some(report)) => report,
            Ok(None) => return ExitCode::SUCCESS,
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

/// Runs a future over a new account.
fn run<T, F>(work: impl FnOnce(Arc<Tally>) -> F) -> anyhow::Result<T>
where
    T: Send + 'static,
    F: Future<Output = anyhow::Result<T>> + Send + 'static,
{
    let work = work(Arc::new(Tally::new()?));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    // The main future is woken by a slower way than tasks are, and the load should send on time.
    runtime.block_on(async { tokio::spawn(work).await })?
}

/// Who subscribes.
enum Field {
    Own(Subscribers),
    Crew(Crew),
}

impl Field {
    async fn connect(plan: &Arc<Plan>, tally: &Arc<Tally>) -> anyhow::Result<Self> {
        let progress = Progress::connections(plan);
        if plan.processes > 1 {
            return Crew::connect(plan, tally, &progress).await.map(Self::Crew);
        }
        let subscribers = Subscribers::connect(plan, tally, || progress.step()).await;
        subscribers.map(Self::Own).map_err(anyhow::Error::msg)
    }
}

/// Connect, then load or hold.
async fn phases(plan: Arc<Plan>, tally: Arc<Tally>) -> anyhow::Result<Report> {
    let watch = Watch::start(&plan, None)?;
    let empty = watch.before;
    let field = Field::connect(&plan, &tally).await?;
    let connecting = watch.stop(&plan, None)?;
    let mut report = Report::new(&plan, &connecting);
    tokio::time::sleep(REST).await;

    // Kept to the end: a publisher that is let go of looks like one that the server has closed.
    let mut load = None;
    let watch = Watch::start(&plan, Some(&field))?;
    let began = match (&field, plan.way) {
        _ if plan.idle => {
            Progress::load(&plan).hold(plan.duration).await;
            report.idle = Some(Idle::new(plan.connections, empty, &watch.stop(&plan, None)?));
            None
        }
        (Field::Own(subscribers), Way::Echo) => Some(echo::run(&plan, &tally, subscribers).await),
        _ => {
            let prepared = Load::prepare(&plan, &tally).await.map_err(anyhow::Error::msg)?;
            Some(load.insert(prepared).run(&Progress::load(&plan)).await)
        }
    };
    let phase = watch.stop(&plan, Some(&field))?;
    if let Field::Crew(crew) = field {
        crew.end(&tally).await?;
    }
    let counts = tally.counts();
    if let Some(began) = began {
        let elapsed = Duration::from_nanos(counts.last.saturating_sub(began));
        report.load = Some(report::Load::new(&counts, &Phase { elapsed, ..phase }));
    }
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
    fn start(plan: &Plan, field: Option<&Field>) -> std::io::Result<Self> {
        let before = server_usage(plan)?;
        Ok(Self { started: Instant::now(), before, client: client_cpu(field)? })
    }

    /// Ends the phase.
    fn stop(&self, plan: &Plan, field: Option<&Field>) -> std::io::Result<Phase> {
        let client = client_cpu(field)?.saturating_sub(self.client);
        let server = self.before.zip(server_usage(plan)?);
        Ok(Phase { elapsed: self.started.elapsed(), server, client })
    }
}

fn server_usage(plan: &Plan) -> std::io::Result<Option<Usage>> {
    if plan.server.is_empty() { Ok(None) } else { server::usage(&plan.server).map(Some) }
}

/// Of this process, and of those who subscribe for it.
fn client_cpu(field: Option<&Field>) -> std::io::Result<Duration> {
    let own = server::cpu(&[std::process::id()])?;
    match field {
        Some(Field::Crew(crew)) => Ok(own + crew.cpu()?),
        Some(Field::Own(_)) | None => Ok(own),
    }
}

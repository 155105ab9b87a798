//! The figures of a run, for people and for programs. Anything lost, doubled or refused makes a run a failure.

use std::{fmt, time::Duration};

use hdrhistogram::Histogram;
use serde::Serialize;

use super::{
    plan::{Pace, Plan},
    server::Usage,
    tally::Counts,
    way::Way,
};

/// A finished run. Times are in microseconds, memory in bytes, rates by second.
#[derive(Serialize)]
pub struct Report {
    /// As asked for.
    pub transport: String,
    /// Subscribers.
    pub connections: u32,
    /// Channels.
    pub channels: u32,
    /// Bytes of a payload.
    pub size: usize,
    /// In words.
    pub pace: String,
    /// Getting connected.
    pub connects: Connects,
    /// The load, unless the run was idle.
    pub load: Option<Load>,
    /// The hold of an idle run.
    pub idle: Option<Idle>,
    /// Connections that ended before the run did.
    pub ended: u64,
    /// The first few reasons of failures.
    pub reasons: Vec<String>,
}

/// How connecting went.
#[derive(Serialize)]
pub struct Connects {
    /// From the first to the last.
    pub seconds: f64,
    /// Handshakes a second.
    pub per_second: f64,
    /// The server's CPU time for each.
    pub server_cpu_us: Option<f64>,
}

/// How publishing and delivering went.
#[derive(Serialize)]
pub struct Load {
    /// From the first publish to the last delivery or answer.
    pub seconds: f64,
    /// Publishes accepted.
    pub accepted: u64,
    /// Publishes refused.
    pub refused: u64,
    /// Publishes accepted a second.
    pub publishes_per_second: f64,
    /// Deliveries owed.
    pub due: u64,
    /// Deliveries seen.
    pub received: u64,
    /// Due and never seen.
    pub lost: u64,
    /// Seen again.
    pub duplicates: u64,
    /// On a connection that never asked for the channel.
    pub misrouted: u64,
    /// Deliveries a second.
    pub deliveries_per_second: f64,
    /// The server's CPU time for each delivery.
    pub server_cpu_us_per_delivery: Option<f64>,
    /// The server's CPU time for each publish.
    pub server_cpu_us_per_publish: Option<f64>,
    /// The server's CPU time, in cores.
    pub server_cores: Option<f64>,
    /// This client's CPU time for each delivery, to see that it is not what is measured.
    pub client_cpu_us_per_delivery: f64,
    /// Intended time of sending to delivery.
    pub delivery: Percentiles,
    /// Intended time of sending to the publisher's answer.
    pub answer: Percentiles,
}

/// What connections cost that nobody sends to.
#[derive(Serialize)]
pub struct Idle {
    /// How long they were held.
    pub seconds: f64,
    /// Resident memory for each connection.
    pub rss_per_connection: Option<f64>,
    /// The same with shared pages counted by share.
    pub pss_per_connection: Option<f64>,
    /// The server's CPU time while nothing happened, in cores.
    pub server_cores: Option<f64>,
}

/// Latency in microseconds.
#[derive(Serialize)]
pub struct Percentiles {
    p50: f64,
    p90: f64,
    p99: f64,
    p999: f64,
    max: f64,
}

/// What one phase took: time, the server's usage at its two ends, this client's CPU time.
pub struct Phase {
    /// How long.
    pub elapsed: Duration,
    /// The server before and after, where it can be seen.
    pub server: Option<(Usage, Usage)>,
    /// This process.
    pub client: Duration,
}

impl Report {
    /// The head of a report, with the first phase in it.
    pub fn new(plan: &Plan, connecting: &Phase) -> Self {
        Self {
            transport: plan.way.to_string(),
            connections: plan.connections,
            channels: plan.channels,
            size: plan.size,
            pace: match plan.pace {
                _ if plan.idle => "idle".to_owned(),
                _ if plan.way == Way::Echo => "as fast as it answers".to_owned(),
                Pace::Open(rate) => format!("{rate} messages a second"),
                Pace::Closed(in_flight) => format!("{in_flight} messages in flight"),
                Pace::OneAtATime => "one message at a time".to_owned(),
            },
            connects: Connects {
                seconds: connecting.elapsed.as_secs_f64(),
                per_second: per_second(plan.connections.into(), connecting.elapsed),
                server_cpu_us: connecting.cpu_us_each(plan.connections.into()),
            },
            load: None,
            idle: None,
            ended: 0,
            reasons: Vec::new(),
        }
    }

    /// Whether everything due came, once, and nobody was turned away.
    pub fn is_clean(&self) -> bool {
        let clean = |load: &Load| load.lost + load.duplicates + load.misrouted + load.refused == 0;
        self.ended == 0 && self.load.as_ref().is_none_or(clean)
    }
}

impl Load {
    /// From the counts at the end.
    pub fn new(counts: &Counts, phase: &Phase) -> Self {
        Self {
            seconds: phase.elapsed.as_secs_f64(),
            accepted: counts.accepted,
            refused: counts.refused,
            publishes_per_second: per_second(counts.accepted, phase.elapsed),
            due: counts.due,
            received: counts.received,
            lost: counts.lost(),
            duplicates: counts.duplicates,
            misrouted: counts.misrouted,
            deliveries_per_second: per_second(counts.received, phase.elapsed),
            server_cpu_us_per_delivery: phase.cpu_us_each(counts.received),
            server_cpu_us_per_publish: phase.cpu_us_each(counts.accepted),
            server_cores: phase.cores(),
            client_cpu_us_per_delivery: phase.client.as_secs_f64() * 1e6 / counts.received.max(1) as f64,
            delivery: Percentiles::of(&counts.delivery),
            answer: Percentiles::of(&counts.answer),
        }
    }
}

impl Idle {
    /// From the server before anybody was connected, and the phase in which they were held.
    pub fn new(connections: u32, empty: Option<Usage>, hold: &Phase) -> Self {
        let each = |amount: fn(&Usage) -> u64| {
            let (empty, (_, full)) = (empty?, hold.server?);
            Some((amount(&full) as f64 - amount(&empty) as f64) / f64::from(connections.max(1)))
        };
        Self {
            seconds: hold.elapsed.as_secs_f64(),
            rss_per_connection: each(|usage| usage.rss),
            pss_per_connection: each(|usage| usage.pss),
            server_cores: hold.cores(),
        }
    }
}

impl Percentiles {
    fn of(nanoseconds: &Histogram<u64>) -> Self {
        let at = |quantile| nanoseconds.value_at_quantile(quantile) as f64 / 1e3;
        Self {
            p50: at(0.5),
            p90: at(0.9),
            p99: at(0.99),
            p999: at(0.999),
            max: nanoseconds.max() as f64 / 1e3,
        }
    }
}

impl Phase {
    fn cpu(&self) -> Option<Duration> {
        self.server.map(|(before, after)| after.cpu.saturating_sub(before.cpu))
    }

    fn cpu_us_each(&self, count: u64) -> Option<f64> {
        (count > 0).then_some(self.cpu()?.as_secs_f64() * 1e6 / count as f64)
    }

    fn cores(&self) -> Option<f64> {
        Some(self.cpu()?.as_secs_f64() / self.elapsed.as_secs_f64().max(1e-9))
    }
}

fn per_second(count: u64, elapsed: Duration) -> f64 {
    count as f64 / elapsed.as_secs_f64().max(1e-9)
}

impl fmt::Display for Report {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { transport, connections, channels, size, pace, connects, .. } = self;
        writeln!(to, "{transport}, connections: {connections}, channels: {channels}, {size} bytes, {pace}")?;
        write!(to, "connects    {:.2} s, {:.0}/s", connects.seconds, connects.per_second)?;
        optional(to, connects.server_cpu_us, |us| format!(", {us:.1} µs of server CPU each"))?;
        if let Some(load) = &self.load {
            write!(to, "\n{load}")?;
        }
        if let Some(idle) = &self.idle {
            write!(to, "\n{idle}")?;
        }
        if self.ended > 0 {
            write!(to, "\nENDED       {} connections before the run did", self.ended)?;
        }
        self.reasons.iter().try_for_each(|reason| write!(to, "\n            {reason}"))
    }
}

impl fmt::Display for Load {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { seconds, accepted, refused, publishes_per_second, .. } = self;
        writeln!(
            to,
            "messages    {accepted} accepted, {refused} refused, in {seconds:.2} s, {publishes_per_second:.0}/s"
        )?;
        let Self { due, received, lost, duplicates, misrouted, deliveries_per_second, .. } = self;
        writeln!(
            to,
            "deliveries  {due} due, {received} received, {lost} lost, {duplicates} doubled, {misrouted} misrouted, {deliveries_per_second:.0}/s"
        )?;
        optional(to, self.server_cpu_us_per_delivery, |us| {
            format!("server      {us:.2} µs of CPU a delivery")
        })?;
        optional(to, self.server_cpu_us_per_publish, |us| format!(", {us:.1} µs a publish"))?;
        optional(to, self.server_cores, |cores| format!(", {cores:.2} cores\n"))?;
        writeln!(to, "client      {:.2} µs of CPU a delivery", self.client_cpu_us_per_delivery)?;
        write!(to, "delivery    {}\nanswer      {}", self.delivery, self.answer)
    }
}

impl fmt::Display for Idle {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "idle        {:.1} s", self.seconds)?;
        optional(to, self.rss_per_connection, |bytes| format!(", {bytes:.0} bytes RSS"))?;
        optional(to, self.pss_per_connection, |bytes| format!(" and {bytes:.0} bytes PSS a connection"))?;
        optional(to, self.server_cores, |cores| format!(", {:.2} % of a core", cores * 100.0))
    }
}

impl fmt::Display for Percentiles {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { p50, p90, p99, p999, max } = self;
        write!(to, "p50 {p50:.0} µs, p90 {p90:.0}, p99 {p99:.0}, p99.9 {p999:.0}, max {max:.0}")
    }
}

fn optional(to: &mut fmt::Formatter<'_>, value: Option<f64>, text: impl Fn(f64) -> String) -> fmt::Result {
    value.map_or(Ok(()), |value| to.write_str(&text(value)))
}

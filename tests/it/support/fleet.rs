//! Gateways as processes, and a run over them: publishers and recorders, a fault, a verdict.
//!
//! ```ignore
//! let redis = Server::plain().await;
//! let fleet = Fleet::behind_proxies(redis.address(), 3).await;
//! let mut run = Run::start(&fleet, Load::new(Unsure::Retry)).await;
//! redis.stop(); …; redis.cont();      // the fault
//! run.flowing("after the fault").await; // everybody sees what is published from now on
//! run.end(Gaps::True).await;
//! ```

use std::collections::HashMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::net::TcpStream;

use super::process::{Process, free_port, tidegate};
use super::proxy::FaultProxy;
use super::recorder::{Gaps, Ledger, Plan, Publisher, Recording, Roam, Spec, Unsure, Verdict, Way, judge};
use super::redis::{bound_to_us, until};
use super::{Answer, Conn};

/// How long all may take to be well again after a fault.
pub const RECOVERY: Duration = Duration::from_secs(60);

/// A gateway process; its addresses outlive it.
pub struct Node {
    pub public: SocketAddr,
    pub internal: SocketAddr,
    keys: Vec<(String, String)>,
    process: Option<Process>,
}

impl Node {
    /// One with these keys of its environment, not started.
    pub fn new(keys: &[(&str, &str)]) -> Self {
        let address = || SocketAddr::from(([127, 0, 0, 1], free_port()));
        let keys = keys.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        Self { public: address(), internal: address(), keys, process: None }
    }

    /// Starts it (again); does not wait.
    pub fn spawn(&mut self) {
        let mut command = tidegate();
        command.env("TIDEGATE_PUBLIC__LISTEN", self.public.to_string());
        command.env("TIDEGATE_INTERNAL__LISTEN", self.internal.to_string());
        command.envs(self.keys.iter().map(|(name, value)| (name, value)));
        self.process = Some(Process::spawn(bound_to_us(&command)));
    }

    /// Starts it and waits until it is ready.
    pub async fn start(&mut self) {
        self.spawn();
        self.until_ready().await;
    }

    /// `GET` of the internal listener, without a word where nobody listens.
    pub async fn get(&self, target: &str) -> Option<Answer> {
        TcpStream::connect(self.internal).await.ok()?;
        Some(Conn::open(self.internal).await.get(target, &[]).await)
    }

    /// Its readiness and what it says of it; 0 where nobody listens.
    pub async fn ready(&self) -> (u16, String) {
        match self.get("/ready").await {
            Some(answer) => (answer.status(), answer.text().to_owned()),
            None => (0, String::new()),
        }
    }

    pub async fn until_ready(&self) {
        let deadline = Instant::now() + RECOVERY;
        loop {
            let (status, text) = self.ready().await;
            if status == 200 {
                return;
            }
            assert!(Instant::now() < deadline, "not ready: {status} {text}; it said:\n{}", self.said());
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }

    pub fn said(&self) -> String {
        self.process.as_ref().map(Process::said).unwrap_or_default()
    }

    pub fn process(&mut self) -> &mut Process {
        self.process.as_mut().expect("it was started")
    }

    pub fn kill9(&mut self) {
        drop(self.process.take().expect("it was started"));
    }

    pub fn stop(&self) {
        self.process.as_ref().expect("it was started").signal("STOP");
    }

    pub fn cont(&self) {
        self.process.as_ref().expect("it was started").signal("CONT");
    }

    /// One request to the internal listener.
    pub async fn internal(&self, method: &str, target: &str, body: Option<&Value>) -> Answer {
        let body = body.map(Value::to_string);
        let headers = [("Content-Type", "application/json")];
        let mut conn = Conn::open(self.internal).await;
        conn.request(method, target, &headers, body.as_ref().map(String::as_bytes)).await
    }

    /// The sum of a metric's series whose labels contain all of these; 0 where there is none.
    pub async fn metric(&self, name: &str, labels: &[&str]) -> f64 {
        let answer = self.internal("GET", "/metrics", None).await.expect(200);
        let series = answer.text().lines().filter_map(|line| line.rsplit_once(' '));
        let matching = series.filter(|(series, _)| {
            series.split('{').next() == Some(name) && labels.iter().all(|label| series.contains(label))
        });
        matching.filter_map(|(_, value)| value.parse::<f64>().ok()).sum()
    }
}

/// Gateways over one broker.
pub struct Fleet {
    pub nodes: Vec<Node>,
    /// One for each gateway, where they go to Redis through proxies.
    pub links: Vec<FaultProxy>,
}

impl Fleet {
    /// Starts so many gateways over this broker.
    pub async fn over(url: &str, count: usize) -> Self {
        Self::with(&vec![url.to_owned(); count], &[]).await
    }

    /// Each with a proxy of its own between it and the server.
    pub async fn behind_proxies(server: SocketAddr, count: usize) -> Self {
        Self::behind_proxies_with(server, count, &[]).await
    }

    pub async fn behind_proxies_with(server: SocketAddr, count: usize, keys: &[(&str, &str)]) -> Self {
        let mut links = Vec::new();
        for _ in 0..count {
            links.push(FaultProxy::to(server).await);
        }
        let urls: Vec<String> = links.iter().map(|link| format!("redis://{}", link.address)).collect();
        Self { links, ..Self::with(&urls, keys).await }
    }

    /// One gateway for each broker's URL, with more keys of the environment.
    pub async fn with(urls: &[String], keys: &[(&str, &str)]) -> Self {
        let mut nodes: Vec<Node> = urls
            .iter()
            .map(|url| {
                let mut all = vec![
                    ("TIDEGATE_BROKER__URL", url.as_str()),
                    ("TIDEGATE_DRAIN__NOTICE", "500ms"),
                    ("TIDEGATE_DRAIN__PERIOD", "1s"),
                    ("TIDEGATE_LOG__LEVEL", "warn"),
                ];
                all.extend(keys);
                Node::new(&all)
            })
            .collect();
        nodes.iter_mut().for_each(Node::spawn);
        for node in &nodes {
            node.until_ready().await;
        }
        Self { nodes, links: Vec::new() }
    }

    /// Every public address, beginning with that of the gateway `first`.
    pub fn public(&self, first: usize) -> Vec<SocketAddr> {
        (0..self.nodes.len()).map(|index| self.nodes[(first + index) % self.nodes.len()].public).collect()
    }

    pub fn internal(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.internal).collect()
    }
}

/// How much goes on while the fault happens.
#[derive(Debug, Clone)]
pub struct Load {
    pub channels: Vec<String>,
    /// Messages a second to each channel.
    pub rate: u32,
    pub unsure: Unsure,
    /// Whether publishers send an `Idempotency-Key`.
    pub keys: bool,
    pub roam: Roam,
    /// The clients' public addresses, where they are not the gateways' own (proxies).
    pub doors: Option<Vec<Vec<SocketAddr>>>,
}

impl Load {
    /// A few channels, 20 messages a second each; four clients at each gateway.
    pub fn new(unsure: Unsure) -> Self {
        let channels = (0..3).map(|index| format!("c{index}")).collect();
        Self { channels, rate: 20, unsure, keys: true, roam: Roam::Home, doors: None }
    }

    pub fn rate(self, rate: u32) -> Self {
        Self { rate, ..self }
    }

    pub fn without_keys(self) -> Self {
        assert_eq!(self.unsure, Unsure::Leave, "what is tried again without a key may be there twice");
        Self { keys: false, ..self }
    }

    pub fn roaming(self) -> Self {
        Self { roam: Roam::Always, ..self }
    }
}

/// Publishers and recorders at work.
pub struct Run {
    pub publisher: Publisher,
    pub clients: Vec<Recording>,
    load: Load,
    /// From [`Run::flowing`] being asked until everybody saw something new, the longest.
    pub longest_recovery: Duration,
}

impl Run {
    /// A client of each transport at each gateway, then publishers at all of them; waits until everything
    /// that is published arrives everywhere.
    pub async fn start(fleet: &Fleet, load: Load) -> Self {
        let doors = match &load.doors {
            Some(doors) => doors.clone(),
            None => (0..fleet.nodes.len()).map(|index| fleet.public(index)).collect(),
        };
        let mut clients = Vec::new();
        for (index, doors) in doors.into_iter().enumerate() {
            for way in Way::ALL {
                clients.push(Recording::start(Spec {
                    name: format!("{way:?} at {index}"),
                    way,
                    channels: load.channels.clone(),
                    doors: doors.clone(),
                    roam: load.roam,
                    since: "latest",
                }));
            }
        }
        for client in &clients {
            until(&format!("{} is subscribed", client.spec.name), async || client.is_ready().then_some(()))
                .await;
        }
        let publisher = Publisher::start(Plan {
            channels: load.channels.clone(),
            rate: load.rate,
            doors: fleet.internal(),
            unsure: load.unsure,
            keys: load.keys,
        });
        let mut run = Self { publisher, clients, load, longest_recovery: Duration::ZERO };
        run.flowing("at the start").await;
        run.longest_recovery = Duration::ZERO;
        run
    }

    /// Adds a client that is told everything from the oldest message on.
    pub fn join_from_the_start(&mut self, way: Way, doors: Vec<SocketAddr>) {
        self.clients.push(Recording::start(Spec {
            name: format!("{way:?} that came late"),
            way,
            channels: self.load.channels.clone(),
            doors,
            roam: Roam::Home,
            since: "earliest",
        }));
    }

    /// Waits until every client has seen, of every channel, something that was accepted after this call.
    pub async fn flowing(&mut self, when: &str) {
        let begun = Instant::now();
        let before = self.publisher.accepted();
        let fresh = async || {
            let now = self.publisher.accepted();
            now.iter().all(|(channel, n)| *n > before[channel]).then_some(())
        };
        self.patiently(&format!("{when}: every channel can be published to"), fresh).await;
        let wanted: HashMap<String, u64> = before.into_iter().map(|(channel, n)| (channel, n + 1)).collect();
        self.caught_up(when, &wanted).await;
        self.longest_recovery = self.longest_recovery.max(begun.elapsed());
    }

    /// Waits until so many more messages were accepted, all channels together.
    pub async fn published(&self, more: usize) {
        let count = || self.publisher.ledger().values().map(Vec::len).sum::<usize>();
        let wanted = count() + more;
        self.patiently(&format!("{more} more messages"), async || (count() >= wanted).then_some(())).await;
    }

    async fn caught_up(&self, when: &str, wanted: &HashMap<String, u64>) {
        for client in &self.clients {
            let what = format!("{when}: {} sees {wanted:?}", client.spec.name);
            let seen = async || wanted.iter().all(|(channel, n)| client.highest(channel) >= *n).then_some(());
            self.patiently(&what, seen).await;
        }
    }

    async fn patiently<F: Future<Output = Option<()>>>(&self, what: &str, mut check: impl FnMut() -> F) {
        let deadline = Instant::now() + RECOVERY;
        while check().await.is_none() {
            assert!(Instant::now() < deadline, "never happened: {what}\n{}", self.state());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Where everybody is, for a test that fails.
    fn state(&self) -> String {
        let mut text = format!("accepted {:?}\n{:?}\n", self.publisher.accepted(), self.publisher.figures());
        for client in &self.clients {
            let notes = client.notes();
            let (name, highest, last) = (&client.spec.name, &notes.highest, notes.ends.iter().rev().take(3));
            text += &format!(
                "{name}: {highest:?}, {} reconnects {:?}\n",
                notes.reconnects,
                last.collect::<Vec<_>>()
            );
        }
        text
    }

    /// Ends each channel with a message that everybody must see, and judges; fails where the promise is broken.
    pub async fn end(mut self, gaps: Gaps) -> Report {
        self.publisher.finish(RECOVERY).await;
        let wanted = self.publisher.accepted();
        self.caught_up("at the end", &wanted).await;
        let ledger: Ledger = self.publisher.ledger().clone();
        let mut verdict = Verdict::default();
        let (mut faults, mut reconnects) = (self.publisher.figures().faults, 0);
        for client in &self.clients {
            let notes = client.notes();
            verdict.add(judge(&client.spec.name, &ledger, &notes.seen));
            faults.extend(notes.faults.iter().map(|fault| format!("{}: {fault}", client.spec.name)));
            reconnects += notes.reconnects;
        }
        if let Err(text) = verdict.check(gaps) {
            panic!("{text}{}", self.state());
        }
        assert!(faults.is_empty(), "answers that should never come: {faults:#?}");
        let entries = ledger.values().flatten();
        let accepted = entries.clone().filter(|entry| entry.id().is_some()).count();
        Report {
            verdict,
            accepted,
            uncertain: entries.count() - accepted,
            reconnects,
            clients: self.clients.len(),
            recovery: self.longest_recovery,
        }
    }
}

/// What a run came to.
#[derive(Debug)]
pub struct Report {
    pub verdict: Verdict,
    pub accepted: usize,
    pub uncertain: usize,
    pub reconnects: usize,
    pub clients: usize,
    pub recovery: Duration,
}

impl Report {
    /// Leaves a row for docs/reliability.md (`just faults`) where that is asked for.
    pub fn write(&self, name: &str, form: &str, over: &str) {
        let Some(directory) = std::env::var_os("TIDEGATE_FAULTS") else { return };
        let verdict = &self.verdict;
        let row = serde_json::json!({
            "name": name, "form": form, "over": over, "accepted": self.accepted, "uncertain": self.uncertain,
            "clients": self.clients, "deliveries": verdict.seen, "losses": verdict.losses.len(),
            "doubles": verdict.doubles.len(), "inversions": verdict.inversions.len(),
            "gaps": verdict.gaps, "false_gaps": verdict.false_gaps.len(), "missing_in_gaps": verdict.told_missing,
            "reconnects": self.reconnects, "recovery_ms": u64::try_from(self.recovery.as_millis()).unwrap_or(u64::MAX),
        });
        let file = std::path::Path::new(&directory).join(format!("{name}-{form}-{over}.json"));
        std::fs::create_dir_all(&directory).expect("makes the directory");
        std::fs::write(file, row.to_string()).expect("writes the row");
    }
}

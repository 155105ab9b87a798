//! Subscribers in processes of their own, where one has too few descriptors, ports or cores for them.
//!
//! The first process publishes and keeps the account; the others are started by it with the same arguments and their
//! share of the connections. They say in lines of JSON how many are connected and how many deliveries they have, so
//! that the first one knows when everybody has everything, and at the end what else they saw. Latencies are taken
//! where a message arrives: the processes of one machine share a clock.

use std::{
    io::{BufReader, Read as _},
    process::{Child, Command, Stdio},
    sync::Arc,
    thread,
    time::Duration,
};

use anyhow::{Context as _, anyhow};
use serde::{Deserialize, Serialize};
use tokio::sync::{mpsc, oneshot};

use super::{
    plan::Plan,
    progress::Progress,
    server,
    subscribers::Subscribers,
    tally::{Seen, Tally},
};

/// What a process of the crew says, in a line.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Word {
    /// One connection more.
    Connected,
    /// All deliveries so far.
    Received(u64),
    /// All there is to know, at the end.
    Seen(Box<Seen>),
}

/// The other processes. They end with this.
pub struct Crew {
    members: Vec<Child>,
    /// What they have said and nobody has read: connections, then what was seen.
    words: mpsc::UnboundedReceiver<anyhow::Result<Option<Box<Seen>>>>,
}

impl Crew {
    /// Starts the processes and waits until all their subscribers are connected.
    pub async fn connect(plan: &Plan, tally: &Arc<Tally>, progress: &Progress) -> anyhow::Result<Self> {
        let (said, words) = mpsc::unbounded_channel();
        let mut crew = Self { members: Vec::new(), words };
        for process in 0..plan.processes {
            let mut member = Command::new(std::env::current_exe()?)
                .args(std::env::args_os().skip(1))
                .args(["--share", &process.to_string()])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .spawn()
                .context("cannot start another process")?;
            let output = member.stdout.take().context("no standard output")?;
            crew.members.push(member);
            let (said, tally) = (said.clone(), Arc::clone(tally));
            thread::spawn(move || listen(BufReader::new(output), &tally, &said));
        }
        for _ in 0..plan.connections {
            crew.next().await?;
            progress.step();
        }
        Ok(crew)
    }

    /// The CPU time of all of them.
    pub fn cpu(&self) -> std::io::Result<Duration> {
        server::cpu(&self.members.iter().map(Child::id).collect::<Vec<_>>())
    }

    /// Ends them, and adds to the account what they saw.
    pub async fn end(mut self, tally: &Tally) -> anyhow::Result<()> {
        for member in &mut self.members {
            drop(member.stdin.take());
        }
        let mut left = self.members.len();
        while left > 0 {
            if let Some(seen) = self.next().await? {
                tally.add(*seen);
                left -= 1;
            }
        }
        Ok(())
    }

    async fn next(&mut self) -> anyhow::Result<Option<Box<Seen>>> {
        self.words.recv().await.unwrap_or_else(|| Err(anyhow!("a process of --processes has ended")))
    }
}

impl Drop for Crew {
    fn drop(&mut self) {
        for member in &mut self.members {
            // Without its standard input it ends by itself.
            drop(member.stdin.take());
            let _ = member.wait();
        }
    }
}

/// Books what one process says until it ends, which it must not do before it has said all.
fn listen(
    output: impl std::io::BufRead,
    tally: &Tally,
    said: &mpsc::UnboundedSender<anyhow::Result<Option<Box<Seen>>>>,
) {
    let mut received = 0;
    for line in output.lines() {
        let word = line.map_err(anyhow::Error::from).and_then(|line| {
            serde_json::from_str(&line).with_context(|| format!("a process of --processes said {line:?}"))
        });
        // Nobody listens any more where the run has failed.
        let _ = match word {
            Ok(Word::Connected) => said.send(Ok(None)),
            Ok(Word::Received(all)) => {
                tally.receive(all - received);
                received = all;
                Ok(())
            }
            Ok(Word::Seen(seen)) => {
                tally.receive(seen.received - received);
                _ = said.send(Ok(Some(seen)));
                return;
            }
            Err(error) => said.send(Err(error)),
        };
    }
    _ = said.send(Err(anyhow!("a process of --processes has ended before the run did")));
}

/// Is one of the crew: connects its share, and tells of it until standard input ends.
pub async fn serve(plan: Arc<Plan>, tally: Arc<Tally>) -> anyhow::Result<()> {
    let (over, mut ended) = oneshot::channel();
    thread::spawn(move || {
        let _ = std::io::stdin().read(&mut [0]);
        let _ = over.send(());
    });
    let connected = || say(&Word::Connected);
    let _subscribers = Subscribers::connect(&plan, &tally, connected).await.map_err(anyhow::Error::msg)?;
    // Only the first process knows how many, so this one waits for the next as long as it is let.
    tally.owe(u64::MAX);
    let mut received = 0;
    loop {
        tokio::select! {
            more = tally.received_after(received) => {
                received = more;
                say(&Word::Received(received));
            }
            _ = &mut ended => break,
        }
    }
    say(&Word::Seen(Box::new(tally.seen())));
    Ok(())
}

fn say(word: &Word) {
    if let Ok(line) = serde_json::to_string(word) {
        println!("{line}");
    }
}

//! The progress bar on standard error; silent where that is no terminal.

use std::time::Duration;

use indicatif::{ProgressBar, ProgressStyle};

use super::plan::Plan;

/// The bar of one phase of a run.
pub struct Progress {
    bar: ProgressBar,
    by_messages: bool,
}

impl Progress {
    /// Counts connections.
    pub fn connections(plan: &Plan) -> Self {
        Self {
            bar: bar(plan.connections.into(), "connecting {bar:40} {pos}/{len} {per_sec}"),
            by_messages: false,
        }
    }

    /// Counts messages where their number is given, else time.
    pub fn load(plan: &Plan) -> Self {
        match plan.messages {
            Some(messages) => {
                Self { bar: bar(messages, "publishing {bar:40} {pos}/{len} {per_sec}"), by_messages: true }
            }
            None => Self {
                bar: bar(plan.duration.as_millis() as u64, "publishing {bar:40} {elapsed} {msg}"),
                by_messages: false,
            },
        }
    }

    /// One connection more.
    pub fn step(&self) {
        self.bar.inc(1);
    }

    /// So many messages, so many nanoseconds.
    pub fn set(&self, messages: u64, nanoseconds: u64) {
        self.bar.set_position(if self.by_messages { messages } else { nanoseconds / 1_000_000 });
    }

    /// Lets time pass visibly.
    pub async fn hold(&self, duration: Duration) {
        let started = std::time::Instant::now();
        while let Some(left) = duration.checked_sub(started.elapsed()).filter(|left| !left.is_zero()) {
            tokio::time::sleep(left.min(Duration::from_millis(200))).await;
            self.set(0, started.elapsed().as_nanos() as u64);
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}

fn bar(length: u64, template: &str) -> ProgressBar {
    let bar = ProgressBar::new(length);
    match ProgressStyle::with_template(template) {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

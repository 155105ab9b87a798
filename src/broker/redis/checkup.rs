//! What an operator should know of a Redis before it matters: a sentence for each thing that is looked at.
//! Nothing is written. What the server refuses to tell could not be checked, and is no fault.

mod deployment;
mod judge;
mod rights;
#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use fred::types::Value;

pub use self::deployment::examine;
use super::{
    command::{CommandError, CommandLink},
    endpoint::Endpoint,
    functions::Held,
    names::{Names, Partition},
};
use crate::config::Namespaces;

/// How much a finding matters.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// As it should be.
    Good,
    /// The server does not say.
    Unchecked,
    /// It works, and will surprise one day.
    Warning,
    /// It does not work.
    Failure,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// How much it matters.
    pub severity: Severity,
    /// What was found, and what to do about it.
    pub sentence: String,
}

impl Finding {
    /// As it should be.
    pub fn good(sentence: impl Into<String>) -> Self {
        Self { severity: Severity::Good, sentence: sentence.into() }
    }

    /// The server does not say.
    pub fn unchecked(sentence: impl Into<String>) -> Self {
        Self { severity: Severity::Unchecked, sentence: sentence.into() }
    }

    /// It works, and will surprise one day.
    pub fn warning(sentence: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, sentence: sentence.into() }
    }

    /// It does not work.
    pub fn failure(sentence: impl Into<String>) -> Self {
        Self { severity: Severity::Failure, sentence: sentence.into() }
    }
}

/// Why a question has no answer.
enum NoAnswer {
    /// The server does not want to say.
    Refused,
    /// It was lost, or the server cannot say now.
    Lost(String),
}

/// What a server tells of itself: `None` where it does not.
#[derive(Debug, Default)]
struct Facts {
    info: Option<HashMap<String, String>>,
    config: Option<HashMap<String, String>>,
}

impl Facts {
    fn info(&self, field: &str) -> Option<&str> {
        self.info.as_ref()?.get(field).map(String::as_str)
    }

    fn config(&self, key: &str) -> Option<&str> {
        self.config.as_ref()?.get(key).map(String::as_str)
    }

    /// A number among the first, or else among the second.
    fn number(&self, field: &str, key: &str) -> Option<u64> {
        self.info(field).or_else(|| self.config(key))?.parse().ok()
    }
}

/// What is asked of CONFIG.
const KEYS: [&str; 6] = [
    "client-output-buffer-limit",
    "maxmemory",
    "maxmemory-policy",
    "min-replicas-to-write",
    "save",
    "appendonly",
];

/// Looks at the primary behind `link`. `partition` is one that it owns, the first.
pub async fn look(
    link: &CommandLink,
    endpoint: &Endpoint,
    names: &Names,
    namespaces: &Namespaces,
    partition: Option<Partition>,
) -> Vec<Finding> {
    let hello = link.hello();
    let name = if hello.server == "valkey" { "Valkey" } else { "Redis" };
    let mut findings = vec![Finding::good(format!("{name} {}", hello.version))];
    findings.push(rights::functions(link).await);
    if let Some(partition) = partition {
        findings.extend(rights::acl(link, names, namespaces, partition, endpoint.is_cluster()).await);
        if partition == Partition(0) {
            findings.extend(partitions(link, names).await);
        }
    }
    let mut facts = Facts::default();
    match ask(link, "INFO", Vec::new()).await {
        Ok(value) => {
            facts.info = text(&value).map(|text| info(&text));
            findings.push(Finding::good("INFO is allowed: a failover is noticed"));
        }
        Err(NoAnswer::Refused) => findings.push(Finding::warning(
            "INFO is refused: a failover that loses messages cannot be told from one that loses none, and they \
             may go missing without a gap: allow the user +info",
        )),
        Err(NoAnswer::Lost(why)) => findings.push(lost("what INFO says", &why)),
    }
    let keys = std::iter::once("GET").chain(KEYS).map(Value::from).collect();
    match ask(link, "CONFIG", keys).await {
        Ok(value) => facts.config = Some(pairs(value)),
        Err(NoAnswer::Refused) => findings.push(Finding::unchecked(
            "CONFIG is refused: the output buffer limit, min-replicas-to-write and the save points could not be \
             checked: allow the user +config|get for this, or look yourself",
        )),
        Err(NoAnswer::Lost(why)) => findings.push(lost("what CONFIG says", &why)),
    }
    findings.extend(judge::all(&facts, endpoint.largest_payload()));
    if endpoint.is_cluster() {
        findings.extend(cluster(link).await);
    }
    findings.push(clock(link).await);
    findings
}

/// Whether what is kept here was written with as many partitions as are configured, in a format that can be read.
async fn partitions(link: &CommandLink, names: &Names) -> Option<Finding> {
    let held = ask(link, "GET", vec![Value::Bytes(names.format())]).await.ok()?;
    let held = text(&held)?;
    let (held, format) = held.split_once(' ')?;
    let (held, ours) = (held.parse::<u16>().ok()?, names.partitions());
    let held_here = Held { partitions: held.into(), format: format.parse().ok()? };
    if !held_here.is_readable() {
        let format = held_here.format;
        return Some(Finding::failure(format!(
            "it holds format {format} under this prefix, which this release cannot read: run the release that wrote it, \
             or set another broker.prefix"
        )));
    }
    Some(match held == ours {
        true => Finding::good(format!("it holds {held} partitions under this prefix, as configured")),
        false => Finding::failure(format!(
            "it holds {held} partitions under this prefix and broker.partitions is {ours}, which are fixed for the \
             life of a deployment: set broker.partitions = {held}, or another broker.prefix"
        )),
    })
}

/// Whether this node believes that the Cluster serves.
async fn cluster(link: &CommandLink) -> Option<Finding> {
    match ask(link, "CLUSTER", vec!["INFO".into()]).await {
        Ok(value) => match info(&text(&value)?).get("cluster_state")?.as_str() {
            "ok" => Some(Finding::good("cluster_state is ok")),
            state => Some(Finding::failure(format!(
                "cluster_state is {state}: it serves nothing until every slot has an owner that is up (redis-cli \
                 --cluster check)"
            ))),
        },
        Err(NoAnswer::Refused) => {
            Some(Finding::unchecked("CLUSTER INFO is refused: cluster_state could not be checked"))
        }
        Err(NoAnswer::Lost(why)) => Some(lost("cluster_state", &why)),
    }
}

async fn clock(link: &CommandLink) -> Finding {
    let (began, here) = (Instant::now(), SystemTime::now());
    match ask(link, "TIME", Vec::new()).await {
        Ok(Value::Array(time)) => {
            let taken = began.elapsed();
            let part = |index| time.get(index).and_then(text)?.parse::<u64>().ok();
            let there =
                part(0).zip(part(1)).map(|(s, us)| Duration::from_secs(s) + Duration::from_micros(us));
            // The server looked somewhere between question and answer.
            let here = here.duration_since(UNIX_EPOCH).unwrap_or_default() + taken / 2;
            match there {
                Some(there) => judge::clock(there.as_secs_f64() - here.as_secs_f64(), taken.as_secs_f64()),
                None => lost("the clock", "TIME has another form"),
            }
        }
        Ok(_) => lost("the clock", "TIME has another form"),
        Err(NoAnswer::Refused) => Finding::unchecked("TIME is refused: the clock could not be checked"),
        Err(NoAnswer::Lost(why)) => lost("the clock", &why),
    }
}

async fn ask(link: &CommandLink, command: &'static str, args: Vec<Value>) -> Result<Value, NoAnswer> {
    link.call(command, args).await.map_err(|error| match error {
        CommandError::Denied(_) => NoAnswer::Refused,
        // Who offers Redis as a service takes commands away by renaming them.
        CommandError::Other(text) if is_unknown(&text) => NoAnswer::Refused,
        error => NoAnswer::Lost(error.to_string()),
    })
}

fn is_unknown(error: &str) -> bool {
    let error = error.to_ascii_lowercase();
    error.starts_with("err unknown command") || error.starts_with("err unknown subcommand")
}

fn lost(what: &str, why: &str) -> Finding {
    Finding::unchecked(format!("{what} could not be checked: {why}"))
}

fn text(value: &Value) -> Option<String> {
    value.as_bytes().map(|bytes| String::from_utf8_lossy(bytes).into_owned())
}

/// The lines `field:value` of INFO.
fn info(text: &str) -> HashMap<String, String> {
    let lines = text.lines().filter_map(|line| line.split_once(':'));
    lines.map(|(field, value)| (field.to_owned(), value.trim().to_owned())).collect()
}

/// A map, which RESP2 writes as a list.
fn pairs(value: Value) -> HashMap<String, String> {
    let mut words = value.into_array().into_iter().map(|value| text(&value).unwrap_or_default());
    std::iter::from_fn(|| words.next().zip(words.next())).collect()
}

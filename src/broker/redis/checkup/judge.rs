//! What the figures of a server mean. Pure.

use super::{Facts, Finding};

const MIB: u64 = 1 << 20;

/// A burst below this must never end a pub/sub link.
const SMALLEST_HARD: u64 = 8 * MIB;

/// What a link may have waiting for a minute, so that a slow moment of a gateway is none of Redis' business.
const SMALLEST_SOFT: u64 = MIB;

/// Messages of the largest size that a pub/sub link must be able to have waiting.
const LARGEST_WAITING: u64 = 4;

/// Replicas acknowledge once a second.
const LONGEST_LAG: u64 = 10;

/// Bytes that a replica may be behind.
const FARTHEST: u64 = 16 * MIB;

/// Seconds.
const CLOCK: f64 = 1.0;

pub(super) fn all(facts: &Facts, largest_payload: usize) -> Vec<Finding> {
    let mut findings = Vec::new();
    findings.push(eviction(facts));
    findings.extend(room(facts));
    findings.extend(facts.config("client-output-buffer-limit").map(|limit| buffers(limit, largest_payload)));
    findings.extend(replication(facts));
    findings.extend(persistence(facts));
    findings.extend(connections(facts));
    findings
}

fn eviction(facts: &Facts) -> Finding {
    let policy = facts.info("maxmemory_policy").or_else(|| facts.config("maxmemory-policy"));
    let (Some(limit), Some(policy)) = (facts.number("maxmemory", "maxmemory"), policy) else {
        return Finding::unchecked("maxmemory and maxmemory-policy could not be checked");
    };
    if limit == 0 {
        return Finding::good("maxmemory is not set: nothing is evicted");
    }
    let size = size(limit);
    match policy {
        "noeviction" => Finding::good(format!("maxmemory is {size}, maxmemory-policy noeviction")),
        _ if policy.starts_with("volatile-") => Finding::good(format!(
            "maxmemory is {size}, maxmemory-policy {policy}: a full memory costs histories, and readers are told by \
             gaps; with noeviction it refuses publishes"
        )),
        _ => Finding::warning(format!(
            "maxmemory is {size} and maxmemory-policy {policy}: a full memory evicts the counting of channels, and \
             readers see gaps: set maxmemory-policy noeviction"
        )),
    }
}

/// Whether publishes are about to be refused.
fn room(facts: &Facts) -> Option<Finding> {
    let limit = facts.number("maxmemory", "maxmemory")?;
    let used: u64 = facts.info("used_memory")?.parse().ok()?;
    (limit > 0 && used / 9 >= limit / 10).then(|| {
        Finding::warning(format!(
            "{} of maxmemory {} are used: beyond it publishes are refused or histories evicted: give it more, or \
             keep shorter histories",
            size(used),
            size(limit)
        ))
    })
}

/// `limits` is the value of client-output-buffer-limit, of all classes.
pub(super) fn buffers(limits: &str, largest_payload: usize) -> Finding {
    let mut words = limits.split_ascii_whitespace().skip_while(|word| *word != "pubsub").skip(1);
    let mut next = || words.next().and_then(|word| word.parse::<u64>().ok());
    let (Some(hard), Some(soft), Some(seconds)) = (next(), next(), next()) else {
        return Finding::unchecked("the output buffer limit of pub/sub could not be checked");
    };
    let needed = SMALLEST_HARD.max(LARGEST_WAITING * largest_payload as u64);
    let limit = format!("client-output-buffer-limit pubsub is {hard} {soft} {seconds}");
    let advice = format!("set it to pubsub {} {} 60", size_word(needed.max(32 * MIB)), size_word(8 * MIB));
    if hard == 0 && soft == 0 {
        return Finding::warning(format!(
            "{limit}: a gateway that stands still takes memory without end: {advice}"
        ));
    }
    if hard != 0 && hard < needed {
        return Finding::warning(format!(
            "{limit}: a burst of more than {} ends a gateway's pub/sub link: {advice}",
            size(hard)
        ));
    }
    if soft != 0 && soft < SMALLEST_SOFT {
        return Finding::warning(format!(
            "{limit}: a gateway that is {} behind for {seconds} s loses its pub/sub link: {advice}",
            size(soft)
        ));
    }
    Finding::good(limit)
}

fn replication(facts: &Facts) -> Vec<Finding> {
    let Some(count) = facts.info("connected_slaves").and_then(|count| count.parse::<usize>().ok()) else {
        return vec![Finding::unchecked("replication could not be checked")];
    };
    let least = facts.config("min-replicas-to-write").and_then(|least| least.parse::<usize>().ok());
    let good: Option<usize> = facts.info("min_slaves_good_slaves").and_then(|good| good.parse().ok());
    let mut findings = Vec::new();
    // INFO names the replicas that are good only where a number of them is asked for.
    if let (Some(least), Some(good)) = (least, good)
        && good < least
    {
        findings.push(Finding::failure(format!(
            "min-replicas-to-write is {least} and {good} of its replicas are in time: it refuses to publish: bring the \
             replicas back, or lower it"
        )));
    }
    if count == 0 {
        findings.push(Finding::warning(
            "it has no replica: a failover is not possible, and nothing is published until it is back: add one",
        ));
        return findings;
    }
    let behind: Vec<Finding> = (0..count).filter_map(|index| replica(facts, index)).collect();
    if behind.is_empty() {
        let replicas = if count == 1 { "1 replica".to_owned() } else { format!("{count} replicas") };
        findings.push(Finding::good(format!("{replicas}, in sync")));
    }
    findings.extend(behind);
    match least {
        Some(0) => findings.push(Finding::good(
            "min-replicas-to-write is 0: a primary that is cut off takes messages that its failover loses, and readers \
             are told by a gap; with 1 it refuses them",
        )),
        Some(least) => findings.push(Finding::good(format!("min-replicas-to-write is {least}"))),
        None => {}
    }
    findings
}

/// What is wrong with a replica.
fn replica(facts: &Facts, index: usize) -> Option<Finding> {
    let line = facts.info(&format!("slave{index}"))?;
    let field = |name: &str| line.split(',').find_map(|part| part.strip_prefix(name)?.strip_prefix('='));
    let place = format!("its replica {}:{}", field("ip").unwrap_or("?"), field("port").unwrap_or("?"));
    let number = |name: &str| field(name).and_then(|number| number.parse::<u64>().ok());
    let state = field("state").unwrap_or("unknown");
    if state != "online" {
        return Some(Finding::warning(format!(
            "{place} is not in sync (state {state}): until it is, a failover loses what it has not got"
        )));
    }
    if let Some(lag) = number("lag").filter(|lag| *lag > LONGEST_LAG) {
        return Some(Finding::warning(format!(
            "{place} has said nothing for {lag} s: a failover loses what it has not got: look at it and its network"
        )));
    }
    let here = facts.info("master_repl_offset").and_then(|offset| offset.parse::<u64>().ok());
    let behind = here.zip(number("offset")).map(|(here, there)| here.saturating_sub(there));
    behind.filter(|behind| *behind > FARTHEST).map(|behind| {
        Finding::warning(format!(
            "{place} is {} behind: a failover now loses them: look at it and its network",
            size(behind)
        ))
    })
}

fn persistence(facts: &Facts) -> Vec<Finding> {
    let mut findings = Vec::new();
    let aof = match facts.info("aof_enabled") {
        Some(enabled) => Some(enabled == "1"),
        None => facts.config("appendonly").map(|enabled| enabled == "yes"),
    };
    let alone = facts.info("connected_slaves") == Some("0");
    if alone && aof == Some(false) && facts.config("save") == Some("") {
        findings.push(Finding::warning(
            "it has neither a replica nor persistence: a restart loses every history, and readers are told by gaps: \
             set appendonly yes, or add a replica",
        ));
    }
    for (field, what) in [
        ("aof_last_write_status", "its append-only file cannot be written"),
        ("rdb_last_bgsave_status", "its last snapshot failed"),
    ] {
        if facts.info(field).is_some_and(|status| status != "ok") {
            findings.push(Finding::warning(format!(
                "{what}: Redis refuses publishes while it is so: see its log, and the space on its disk"
            )));
        }
    }
    findings
}

/// Whether the server is about to refuse connections.
fn connections(facts: &Facts) -> Option<Finding> {
    let number = |field| facts.info(field)?.parse::<u64>().ok();
    let (now, most) = (number("connected_clients")?, number("maxclients")?);
    (now.saturating_mul(10) >= most.saturating_mul(8)).then(|| {
        Finding::warning(format!(
            "{now} of maxclients {most} connections are open: beyond it gateways are refused: raise maxclients"
        ))
    })
}

/// `ahead`: seconds that the server's clock is ahead of ours; `taken`: how long the question took.
pub(super) fn clock(ahead: f64, taken: f64) -> Finding {
    let differs = ahead.abs();
    // Half of the way is the most that the measure can be wrong.
    if differs <= CLOCK + taken / 2.0 {
        return Finding::good(format!("its clock differs from this machine's by less than {CLOCK} s"));
    }
    let side = if ahead > 0.0 { "ahead of" } else { "behind" };
    Finding::warning(format!(
        "its clock is {differs:.1} s {side} this machine's: times of messages and of logs will not agree: run NTP on both"
    ))
}

fn size(bytes: u64) -> String {
    match bytes {
        0..1024 => format!("{bytes} bytes"),
        1024..MIB => format!("{} KiB", bytes / 1024),
        _ => format!("{} MiB", bytes / MIB),
    }
}

/// As redis.conf writes it.
fn size_word(bytes: u64) -> String {
    format!("{}mb", bytes.div_ceil(MIB))
}

//! What was published against what was seen: losses without a gap, doubles, inversions, and gaps
//! where nothing was lost. Pure.
//!
//! - Of what was accepted, a client sees each message once, in order, or it lies inside a gap that the
//!   client was told **in that place**. A gap covers the ids of its own epochs between `from` and `to`;
//!   where the epoch changes, all of the old one after `from`.
//! - The order is that of the publisher within one epoch. While a failover is under way two servers may
//!   take themselves for the primary, and what they accepted has no order among itself.
//! - What is uncertain is seen at most once, or not.
//! - Ids of one epoch go up by one; the epoch changes only with a gap.
//! - A gap is false where neither an accepted nor an uncertain message is missing in it.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

/// What became of a number.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// 202, with this id.
    Accepted(String),
    /// The answer was lost, or said so.
    Uncertain,
}

/// One number of a channel.
#[derive(Debug, Clone)]
pub struct Entry {
    pub n: u64,
    pub outcome: Outcome,
}

impl Entry {
    pub fn id(&self) -> Option<&str> {
        match &self.outcome {
            Outcome::Accepted(id) => Some(id),
            Outcome::Uncertain => None,
        }
    }
}

/// All numbers, by channel, in order.
pub type Ledger = BTreeMap<String, Vec<Entry>>;

/// What a client saw.
#[derive(Debug, Clone)]
pub enum Seen {
    Message { channel: String, id: String, n: u64 },
    Gap { channel: String, reason: String, from: String, to: String },
}

impl Seen {
    fn channel(&self) -> &str {
        match self {
            Self::Message { channel, .. } | Self::Gap { channel, .. } => channel,
        }
    }
}

/// How many gaps a client may be told of a channel where nothing was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Gaps {
    /// None: the fault is none of those that the promise excepts.
    True,
    /// So many: a restart of Redis, a failover, a moved slot, a changed replica set.
    Excused(usize),
}

/// The four figures, each as sentences.
#[derive(Debug, Default, Clone)]
pub struct Verdict {
    pub losses: Vec<String>,
    pub doubles: Vec<String>,
    pub inversions: Vec<String>,
    pub false_gaps: Vec<String>,
    /// The most false gaps that one client was told of one channel.
    pub worst: usize,
    /// All gaps that were told.
    pub gaps: usize,
    /// Messages seen, by all clients together.
    pub seen: usize,
    /// Accepted messages that some client did not see, all of them inside a gap.
    pub told_missing: usize,
}

impl Verdict {
    /// Adds another client's.
    pub fn add(&mut self, other: Self) {
        self.losses.extend(other.losses);
        self.doubles.extend(other.doubles);
        self.inversions.extend(other.inversions);
        self.false_gaps.extend(other.false_gaps);
        self.worst = self.worst.max(other.worst);
        self.gaps += other.gaps;
        self.seen += other.seen;
        self.told_missing += other.told_missing;
    }

    /// `Err` with all that is wrong.
    pub fn check(&self, gaps: Gaps) -> Result<(), String> {
        let too_many = match gaps {
            Gaps::True => !self.false_gaps.is_empty(),
            Gaps::Excused(most) => self.worst > most,
        };
        if self.losses.is_empty() && self.doubles.is_empty() && self.inversions.is_empty() && !too_many {
            return Ok(());
        }
        let mut text = format!(
            "losses without a gap {}, doubles {}, inversions {}, false gaps {} ({gaps:?})\n",
            self.losses.len(),
            self.doubles.len(),
            self.inversions.len(),
            self.false_gaps.len()
        );
        let false_gaps: &[String] = if too_many { &self.false_gaps } else { &[] };
        for list in [&self.losses[..], &self.doubles, &self.inversions, false_gaps] {
            for line in list.iter().take(8) {
                text += &format!("  {line}\n");
            }
        }
        Err(text)
    }
}

/// A position's two halves; `0-<second>` too.
fn split(position: &str) -> (&str, u64) {
    let (epoch, offset) = position.split_once('-').unwrap_or((position, ""));
    (epoch, offset.parse().unwrap_or(0))
}

/// A gap as it was told, and whether it turned out to hide something.
#[derive(Debug)]
struct Told<'a> {
    reason: &'a str,
    from: &'a str,
    to: &'a str,
    needed: bool,
}

impl Told<'_> {
    /// Whether this id lies inside, as far as its epoch can be compared.
    fn covers(&self, id: &str) -> bool {
        let ((epoch, offset), (from, first), (to, last)) = (split(id), split(self.from), split(self.to));
        match (epoch == from, epoch == to) {
            (true, true) => first < offset && offset <= last,
            (true, false) => offset > first,
            (false, true) => offset <= last,
            (false, false) => false,
        }
    }

    /// Whether it leads from one epoch to another, past an epoch that the client never heard of.
    fn passes(&self, id: &str) -> bool {
        let (epoch, from, to) = (split(id).0, split(self.from).0, split(self.to).0);
        from != to && epoch != from && epoch != to
    }
}

/// Judges what one client saw of every channel; `name` is its own in the sentences. It was there
/// from the first number on.
pub fn judge(name: &str, ledger: &Ledger, seen: &[Seen]) -> Verdict {
    let mut verdict = Verdict::default();
    for (channel, entries) in ledger {
        let own: Vec<&Seen> = seen.iter().filter(|seen| seen.channel() == channel).collect();
        verdict.add(Walk::new(format!("{name} {channel}"), entries).go(&own));
    }
    verdict
}

struct Walk<'a> {
    name: String,
    /// The ids of what was accepted, by number.
    accepted: BTreeMap<u64, &'a str>,
    uncertain: BTreeSet<u64>,
    ids: HashSet<&'a str>,
    numbers: HashMap<u64, &'a str>,
    gaps: Vec<Told<'a>>,
    /// Gaps before this one stand before the last message.
    settled: usize,
    position: Option<&'a str>,
    /// For each epoch, up to which of its numbers everything was seen or is accounted for.
    done: HashMap<&'a str, u64>,
    /// The highest number seen.
    highest: u64,
    verdict: Verdict,
}

impl<'a> Walk<'a> {
    fn new(name: String, entries: &'a [Entry]) -> Self {
        let accepted = entries.iter().filter_map(|entry| Some((entry.n, entry.id()?))).collect();
        let uncertain = entries.iter().filter(|entry| entry.id().is_none()).map(|entry| entry.n).collect();
        Self {
            name,
            accepted,
            uncertain,
            ids: HashSet::new(),
            numbers: HashMap::new(),
            gaps: Vec::new(),
            settled: 0,
            position: None,
            done: HashMap::new(),
            highest: 0,
            verdict: Verdict::default(),
        }
    }

    fn go(mut self, seen: &[&'a Seen]) -> Verdict {
        for seen in seen {
            match seen {
                Seen::Gap { reason, from, to, .. } => {
                    self.gaps.push(Told { reason, from, to, needed: false });
                    self.position = Some(to);
                }
                Seen::Message { id, n, .. } => self.message(id, *n),
            }
        }
        let epochs: HashSet<&str> = self.accepted.values().map(|id| split(id).0).collect();
        for epoch in epochs {
            self.missing_before(u64::MAX, epoch);
        }
        self.excuse_before(u64::MAX);
        let unseen = self.uncertain.iter().any(|n| !self.numbers.contains_key(n));
        let false_gaps = self.gaps.iter().filter(|gap| {
            let crosses = split(gap.from).0 != split(gap.to).0;
            !(gap.needed || crosses && unseen)
        });
        self.verdict.false_gaps = false_gaps
            .map(|gap| format!("{}: {} {} to {}", self.name, gap.reason, gap.from, gap.to))
            .collect();
        self.verdict.worst = self.verdict.false_gaps.len();
        self.verdict.gaps = self.gaps.len();
        self.verdict
    }

    fn message(&mut self, id: &'a str, n: u64) {
        self.verdict.seen += 1;
        if !self.ids.insert(id) {
            return self.verdict.doubles.push(format!("{}: {id} (n={n}) twice", self.name));
        }
        if let Some(first) = self.numbers.insert(n, id) {
            return self.verdict.doubles.push(format!("{}: n={n} as {first} and as {id}", self.name));
        }
        self.follows(id, n);
        self.position = Some(id);
        if let Some(told) = self.accepted.get(&n).copied() {
            let epoch = split(told).0;
            let done = self.done.get(epoch).copied().unwrap_or(0);
            if n <= done {
                self.verdict.inversions.push(format!("{}: n={n} ({id}) after n={done}", self.name));
            } else {
                self.missing_before(n, epoch);
                self.done.insert(epoch, n);
            }
        }
        // What is uncertain may have been done late.
        self.excuse_before(n);
        self.highest = self.highest.max(n);
        self.settled = self.gaps.len();
    }

    /// Holds an id against the position before it.
    fn follows(&mut self, id: &str, n: u64) {
        let (epoch, offset) = split(id);
        let Some((before, last)) = self.position.map(split) else { return };
        let place = format!("{}: {id} (n={n}) after {before}-{last}", self.name);
        if before == "0" {
            return;
        }
        if before != epoch {
            self.verdict.losses.push(format!("{place}: another epoch without a gap"));
        } else if offset <= last {
            self.verdict.inversions.push(place.clone());
        } else if offset > last + 1 {
            self.verdict.losses.push(format!("{place}: a hole without a gap"));
        }
        if let Some(told) = self.accepted.get(&n)
            && split(told).0 == epoch
            && *told != id
        {
            self.verdict.losses.push(format!("{place}, but the publisher was told {told}"));
        }
    }

    /// Accounts for what was accepted in this epoch between its last number and this one.
    fn missing_before(&mut self, n: u64, epoch: &str) {
        let done = self.done.get(epoch).copied().unwrap_or(0);
        let between = self.accepted.range(done + 1..n).map(|(n, id)| (*n, *id));
        let missing: Vec<(u64, &str)> = between
            .filter(|(number, id)| split(id).0 == epoch && !self.numbers.contains_key(number))
            .collect();
        for (number, id) in missing {
            let mut inside = false;
            for gap in self.gaps.iter_mut().filter(|gap| gap.covers(id) || gap.passes(id)) {
                gap.needed = true;
                inside = true;
            }
            if inside {
                self.verdict.told_missing += 1;
            } else {
                self.verdict.losses.push(format!("{}: n={number} ({id}) was never seen", self.name));
            }
        }
    }

    /// The gaps since the last message may hide what is uncertain.
    fn excuse_before(&mut self, n: u64) {
        let between = self.highest + 1..n.max(self.highest + 1);
        if self.uncertain.range(between).any(|n| !self.numbers.contains_key(n)) {
            self.gaps[self.settled..].iter_mut().for_each(|gap| gap.needed = true);
        }
    }
}

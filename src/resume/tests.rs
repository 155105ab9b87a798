//! The rules of docs/subscribing.md, "Gaps", case by case, then any history against a model that keeps everything.

use proptest::prelude::*;

use super::*;

const NONE_SINCE: &dyn Fn(u64) -> u64 = &|_| u64::MAX;

fn at(text: &str) -> Position {
    text.parse().unwrap()
}

fn epoch(text: &str) -> Epoch {
    text.parse().unwrap()
}

/// Offsets 1 to 10, of which 4 to 10 are kept; began in second 100.
fn used() -> LogView<'static> {
    LogView {
        epoch: Some(epoch("aaaaaa")),
        top: 10,
        floor: 4,
        deleted_to: 0,
        past: &[],
        now: 500,
        began: 100,
        vouch_from: 50,
        removed: 103,
        oldest_since: NONE_SINCE,
    }
}

fn unused() -> LogView<'static> {
    LogView { epoch: None, top: 0, floor: 1, ..used() }
}

/// `after` and the reason of the gap, having checked that the parts of a start agree.
fn start(since: &str, log: &LogView<'_>) -> (String, Option<GapReason>) {
    let since: Since = since.parse().unwrap();
    let start = resume(&since, log);
    assert_eq!(start.gap.is_some(), start.recovery == Recovery::Gap);
    if let Some(gap) = start.gap {
        assert_eq!((gap.from, gap.to), (start.position, start.after));
        assert_eq!(since, Since::Position(gap.from));
    }
    (start.after.to_string(), start.gap.map(|gap| gap.reason))
}

#[test]
fn each_case_of_the_table_starts_where_it_says() {
    use GapReason::*;
    let past = [(epoch("old111"), 7), (epoch("old222"), 2)];
    let deleted = LogView { deleted_to: 2, ..used() };
    let failed_over = LogView { past: &past, ..used() };
    for (since, log, after, reason) in [
        ("latest", used(), "aaaaaa-10", None),
        ("earliest", used(), "aaaaaa-3", None),
        ("last:2", used(), "aaaaaa-8", None),
        ("last:100", used(), "aaaaaa-3", None),
        ("aaaaaa-10", used(), "aaaaaa-10", None),
        ("aaaaaa-3", used(), "aaaaaa-3", None),
        ("aaaaaa-2", used(), "aaaaaa-3", Some(Trimmed)),
        ("aaaaaa-0", used(), "aaaaaa-3", Some(Trimmed)),
        ("aaaaaa-11", used(), "aaaaaa-10", Some(Reset)),
        ("zzzzzz-5", used(), "aaaaaa-3", Some(Reset)),
        ("aaaaaa-1", deleted, "aaaaaa-3", Some(Deleted)),
        ("aaaaaa-2", deleted, "aaaaaa-3", Some(Trimmed)),
        ("0-100", deleted, "aaaaaa-3", Some(Deleted)),
        ("old111-5", failed_over, "aaaaaa-5", Some(Failover)),
        ("old111-9", failed_over, "aaaaaa-7", Some(Failover)),
        ("old222-9", failed_over, "aaaaaa-3", Some(Failover)),
        ("0-100", failed_over, "aaaaaa-3", Some(Failover)),
        ("latest", unused(), "0-500", None),
        ("earliest", unused(), "0-500", None),
        ("last:3", unused(), "0-500", None),
        ("0-50", unused(), "0-500", None),
        ("0-49", unused(), "0-500", Some(Expired)),
        ("zzzzzz-5", unused(), "0-500", Some(Reset)),
    ] {
        let found = start(since, &log);
        assert_eq!(found, (after.to_string(), reason), "{since}");
    }
}

#[test]
fn an_empty_channels_second_is_complete_while_all_since_is_kept() {
    let whole = LogView { floor: 1, removed: 0, ..used() };
    assert_eq!(start("0-100", &whole), ("aaaaaa-0".into(), None));
    assert_eq!(start("0-50", &whole), ("aaaaaa-0".into(), None));
    let expired = Some(GapReason::Expired);
    assert_eq!(start("0-49", &whole), ("aaaaaa-0".into(), expired));
    assert_eq!(start("0-100", &used()), ("aaaaaa-3".into(), expired));
}

#[test]
fn a_second_after_the_channel_began_selects_by_time() {
    let oldest_since = |second: u64| if second <= 200 { 6 } else { 11 };
    let log = LogView { oldest_since: &oldest_since, ..used() };
    assert_eq!(start("0-103", &log), ("aaaaaa-3".into(), Some(GapReason::Expired)));
    assert_eq!(start("0-104", &log), ("aaaaaa-5".into(), None));
    assert_eq!(start("0-201", &log), ("aaaaaa-10".into(), None));
    assert_eq!(start("0-501", &log), ("aaaaaa-10".into(), None), "a clock ahead of ours");
}

#[test]
fn what_subscribed_says_is_the_position_as_given() {
    let given = Since::Position(at("aaaaaa-1"));
    assert_eq!(resume(&given, &used()).position, at("aaaaaa-1"));
    let latest = resume(&Since::Latest, &used());
    assert_eq!((latest.position, latest.recovery), (at("aaaaaa-10"), Recovery::None));
}

/// One thing that happens to a channel.
#[derive(Clone, Copy, Debug)]
enum Step {
    Publish,
    Trim(u64),
    Delete,
    Wait(u64),
}

/// A channel that forgets nothing of what happened to it.
struct Model {
    now: u64,
    began: u64,
    /// The second of each message; its offset is its place, from 1.
    times: Vec<u64>,
    floor: u64,
    deleted: Vec<u64>,
}

impl Model {
    fn new() -> Self {
        Self { now: 10, began: 0, times: Vec::new(), floor: 1, deleted: Vec::new() }
    }

    fn top(&self) -> u64 {
        self.times.len() as u64
    }

    fn step(&mut self, step: Step) {
        match step {
            Step::Publish => {
                if self.times.is_empty() {
                    self.began = self.now;
                }
                self.times.push(self.now);
            }
            Step::Trim(n) => self.floor = (self.floor + n).min(self.top() + 1),
            Step::Delete => {
                self.deleted.extend(self.floor..=self.top());
                self.floor = self.top() + 1;
            }
            Step::Wait(n) => self.now += n,
        }
    }

    fn time(&self, offset: u64) -> u64 {
        self.times[offset as usize - 1]
    }

    fn resume(&self, since: Since) -> Start {
        let oldest_since =
            |second| (self.floor..=self.top()).find(|o| self.time(*o) >= second).unwrap_or(self.top() + 1);
        resume(
            &since,
            &LogView {
                epoch: (!self.times.is_empty()).then(|| epoch("aaaaaa")),
                top: self.top(),
                floor: self.floor,
                deleted_to: self.deleted.last().copied().unwrap_or(0),
                past: &[],
                now: self.now,
                began: self.began,
                vouch_from: 10,
                removed: if self.floor == 1 { 0 } else { self.time(self.floor - 1) },
                oldest_since: &oldest_since,
            },
        )
    }

    /// Holds a start to the messages that its owner is still to have.
    fn check(&self, since: Since, wanted: &[u64]) {
        let start = self.resume(since);
        let delivered: Vec<u64> = (self.floor..=self.top()).filter(|o| *o > start.after.offset()).collect();
        let missing: Vec<u64> = wanted.iter().copied().filter(|o| !delivered.contains(o)).collect();
        assert!(delivered.iter().all(|o| wanted.contains(o)), "{since:?} doubles {delivered:?} {wanted:?}");
        assert!(missing.iter().all(|o| *o < self.floor), "{since:?} loses what is kept: {missing:?}");
        assert_eq!(start.gap.is_some(), !missing.is_empty(), "{since:?} {start:?} misses {missing:?}");
        let by_delete = missing.iter().any(|o| self.deleted.contains(o));
        if let (Some(gap), Since::Position(Position::At(..))) = (start.gap, since) {
            assert_eq!(gap.reason == GapReason::Deleted, by_delete, "{since:?} {gap:?}");
        }
    }
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => Just(Step::Publish),
        2 => (1..4u64).prop_map(Step::Trim),
        1 => Just(Step::Delete),
        2 => (1..4u64).prop_map(Step::Wait),
    ];
    prop::collection::vec(step, 0..40)
}

proptest! {
    #[test]
    fn every_earlier_position_gets_the_rest_or_is_told_what_is_missing(steps in steps()) {
        let mut model = Model::new();
        let mut handed_out = Vec::new();
        for step in steps {
            handed_out.push((model.resume(Since::Latest).position, model.top()));
            model.step(step);
            for (position, top) in &handed_out {
                let wanted: Vec<u64> = (top + 1..=model.top()).collect();
                model.check(Since::Position(*position), &wanted);
            }
        }
    }

    #[test]
    fn a_second_made_by_hand_gets_what_was_published_since(steps in steps(), second in 10..60u64) {
        let mut model = Model::new();
        steps.into_iter().for_each(|step| model.step(step));
        let second = second.min(model.now);
        let wanted: Vec<u64> = (1..=model.top()).filter(|o| model.time(*o) >= second).collect();
        model.check(Since::Position(Position::Empty(second)), &wanted);
    }
}

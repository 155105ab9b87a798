//! Everything that can happen to a channel, many thousand times over: nodes with their own tracks, clients
//! that stop on one node and go on at another, nodes that drain, and a model of Redis that is flushed, evicted, killed, moved
//! and failed over with and without its tail. What each client got is held against what was accepted:
//! every message once and in order, or within a gap that it was told; and no gap where nothing was lost,
//! but for those that the rules list.
//!
//! A run is a function of its seed. `SEED=… cargo test --lib simulation` runs one, makes it smaller where it
//! fails, and prints it; `SEEDS=…` runs so many. A seed that failed is kept in [`KEPT`].

mod client;
mod redis;
mod script;
mod world;

use std::panic::{AssertUnwindSafe, catch_unwind};

use self::script::{Act, Setting, script};

/// Seeds that found a fault once.
const KEPT: &[u64] = &[];

const SEEDS: u64 = 10_000;

/// A number of the environment, as it was when this was built: cargo builds anew where it changes.
fn number(text: Option<&str>) -> Option<u64> {
    text.map(|text| text.parse().expect("a number"))
}

/// What went wrong in a run.
fn fault(setting: &Setting, acts: &[Act]) -> Option<String> {
    let outcome = catch_unwind(AssertUnwindSafe(|| world::run(setting, acts)));
    match outcome {
        Ok(outcome) => outcome.err(),
        Err(_) => Some("it panicked".into()),
    }
}

/// Leaves out what is not needed to fail.
fn shrink(setting: &Setting, mut acts: Vec<Act>) -> Vec<Act> {
    let mut size = acts.len() / 2;
    while size > 0 {
        let mut from = 0;
        while from < acts.len() {
            let mut fewer = acts.clone();
            fewer.drain(from..acts.len().min(from + size));
            if fault(setting, &fewer).is_some() {
                acts = fewer;
            } else {
                from += size;
            }
        }
        size /= 2;
    }
    acts
}

fn check(seed: u64) {
    let (setting, acts) = script(seed);
    if fault(&setting, &acts).is_none() {
        return;
    }
    let acts = shrink(&setting, acts);
    let steps: Vec<_> = acts.iter().enumerate().map(|(at, act)| format!("  {at}: {act:?}")).collect();
    panic!(
        "{}\n{setting:?}\n{}\nSEED={seed} cargo test --lib simulation",
        fault(&setting, &acts).unwrap_or_default(),
        steps.join("\n")
    );
}

#[test]
fn nothing_is_lost_in_silence_whatever_happens() {
    if let Some(seed) = number(option_env!("SEED")) {
        return check(seed);
    }
    KEPT.iter().copied().for_each(check);
    (0..number(option_env!("SEEDS")).unwrap_or(SEEDS)).for_each(check);
}

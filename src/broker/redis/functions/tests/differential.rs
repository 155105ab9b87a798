//! The memory broker and Redis, asked the same at the same time, answer the same.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::Relaxed},
};

use super::*;
use crate::{broker::memory::Memory, clock::Clock, gap::Gap};

/// Beyond the life of the test, so that Redis drops no key by itself.
fn start() -> u64 {
    Clock::system().now() + 30 * 24 * 3600 * 1000
}

struct Both {
    redis: Fixture,
    memory: Memory,
    now: Arc<AtomicU64>,
    name: String,
    /// The pairs of positions that were handed out.
    known: Vec<(Position, Position)>,
    random: fastrand::Rng,
}

/// What does not depend on the name of an epoch.
fn plain(position: Position, top: Position) -> (u8, u64) {
    match (position, top) {
        (Position::Empty(second), _) => (0, second),
        (Position::At(epoch, offset), Position::At(current, _)) if epoch == current => (1, offset),
        (Position::At(_, offset), _) => (2, offset),
    }
}

impl Both {
    async fn wait(&self, ms: u64) {
        let now = self.now.fetch_add(ms, Relaxed) + ms;
        self.redis.set_clock(now).await;
    }

    async fn publish(&mut self, history: &History) {
        let size = if self.random.bool() { self.random.usize(..12) } else { self.random.usize(..150) };
        let mut draft = draft(&"x".repeat(size), None);
        if self.random.u8(..4) == 0 {
            draft.event = Some("event".parse().unwrap());
        }
        let ours = self.redis.try_publish(&self.name, history, &draft).await.unwrap().position;
        let theirs = self.memory.publish(&channel(&self.name), history, draft).await.unwrap().position;
        assert_eq!(ours.offset(), theirs.offset());
        self.known.push((ours, theirs));
    }

    fn since(&mut self) -> (Since, Since) {
        let second = self.now.load(Relaxed) / 1000 + 2;
        let same = |since| (since, since);
        match self.random.u8(..8) {
            0 => same(Since::Latest),
            1 => same(Since::Earliest),
            2 => same(Since::Last(NonZeroU64::new(self.random.u64(1..12)).unwrap())),
            3 => same(Since::Position(Position::Empty(second - self.random.u64(..40)))),
            4 => same(Since::Position("unknown1-3".parse().unwrap())),
            _ if self.known.is_empty() => same(Since::Earliest),
            other => {
                let (ours, theirs) = self.known[self.random.usize(..self.known.len())];
                let beyond = |position| match position {
                    Position::At(epoch, offset) if other == 5 => Position::At(epoch, offset * 2),
                    position => position,
                };
                (Since::Position(beyond(ours)), Since::Position(beyond(theirs)))
            }
        }
    }

    async fn read(&mut self, history: &History) {
        let (ours, theirs) = self.since();
        let limits = [0, 1, 2, 5, usize::MAX];
        let page = Page { messages: limits[self.random.usize(..5)], bytes: self.random.usize(..300) };
        let read = self.redis.read_as(&self.name, history, ours, page).await;
        let expected = self.memory.read(&channel(&self.name), history, &theirs, page);
        let info = self.memory.info(&channel(&self.name), history);
        let replay = &read.replay;
        let what = format!("{} {ours:?} {history:?} {page:?}\n{replay:?}\n{expected:?}", self.name);
        assert_eq!(read.damaged, 0, "{what}");
        assert_eq!(plain(replay.top, replay.top), plain(expected.top, expected.top), "{what}");
        if info.position.offset() > 0 {
            assert_eq!(read.floor, info.position.offset() + 1 - info.messages, "{what}");
        }
        // The second of what was removed is known to the second of the oldest that is kept.
        let gap =
            |gap: Option<Gap>, top| gap.map(|gap| (gap.reason, plain(gap.from, top), plain(gap.to, top)));
        let vague =
            matches!(ours, Since::Position(Position::Empty(_))) && replay.start.gap != expected.start.gap;
        if vague && expected.start.gap.is_none() {
            assert!(replay.start.after.offset() <= expected.start.after.offset(), "{what}");
            return;
        }
        assert_eq!(gap(replay.start.gap, replay.top), gap(expected.start.gap, expected.top), "{what}");
        assert_eq!(replay.start.recovery, expected.start.recovery, "{what}");
        assert_eq!(
            plain(replay.start.position, replay.top),
            plain(expected.start.position, expected.top),
            "{what}"
        );
        assert_eq!(
            plain(replay.start.after, replay.top),
            plain(expected.start.after, expected.top),
            "{what}"
        );
        assert_eq!(replay.more, expected.more, "{what}");
        assert_eq!(replay.messages.len(), expected.messages.len(), "{what}");
        for (ours, theirs) in replay.messages.iter().zip(&expected.messages) {
            assert_eq!((ours.offset, ours.time), (theirs.offset, theirs.time), "{what}");
            assert_eq!((&ours.payload, &ours.event), (&theirs.payload, &theirs.event), "{what}");
        }
    }
}

#[tokio::test]
async fn it_answers_as_the_memory_broker() {
    let seeds = std::env::var("TIDEGATE_SEEDS").ok().and_then(|n| n.parse().ok()).unwrap_or(150);
    let mut redis = Fixture::with_clock().await;
    let now = Arc::new(AtomicU64::new(start()));
    for seed in 0..seeds {
        let mut random = fastrand::Rng::with_seed(seed);
        redis.run::<()>(&["FLUSHALL"]).await;
        now.fetch_add(random.u64(1..5000), Relaxed);
        redis.set_clock(now.load(Relaxed)).await;
        let hand = now.clone();
        let (memory, _events) = Memory::new(1024, Clock::from_fn(move || hand.load(Relaxed)));
        let name = format!("seed{seed}");
        let partition = redis.functions.names.partition(&channel(&name));
        redis.functions.open(&redis.link, partition).await.unwrap();
        let age = Duration::from_millis([500, 5_000, 30_000][random.usize(..3)]);
        let mut both = Both { redis, memory, now: now.clone(), name, known: Vec::new(), random };
        let mut history = History { messages: 5, bytes: 200, age };
        for _ in 0..80 {
            match both.random.u8(..20) {
                0..9 => both.publish(&history).await,
                9..16 => both.read(&history).await,
                16..18 => {
                    let ms = both.random.u64(..12_000);
                    both.wait(ms).await;
                }
                18 => {
                    // Redis drops an expired log by its own clock, which is not this one.
                    let deleted = channel(&both.name);
                    if both.memory.info(&deleted, &history).messages == 0 {
                        continue;
                    }
                    both.redis.functions.forget(&both.redis.link, &deleted).await.unwrap();
                    both.memory.forget(&deleted);
                }
                _ => {
                    // The memory broker trims as it reads, Redis as it is written to.
                    history.messages = [0, 1, 4, 20, 1000][both.random.usize(..5)];
                    history.bytes = [0, 60, 200, 5000][both.random.usize(..4)];
                    both.publish(&history).await;
                }
            }
        }
        redis = both.redis;
    }
}

//! Any history against an observer that forgets nothing.

use proptest::prelude::*;

use super::*;
use crate::publication::Publication;

/// One thing that happens, to one of two channels.
#[derive(Clone, Copy, Debug)]
enum Step {
    Publish { size: usize },
    Forget,
    Wait(u64),
    Sweep,
    Listen,
    Unlisten,
}

fn steps() -> impl Strategy<Value = Vec<(bool, Step)>> {
    let step = prop_oneof![
        6 => (0..120usize).prop_map(|size| Step::Publish { size }),
        1 => Just(Step::Forget),
        3 => (0..40 * SECOND).prop_map(Step::Wait),
        1 => (DAY..DAY + 100 * SECOND).prop_map(Step::Wait),
        2 => Just(Step::Sweep),
        1 => Just(Step::Listen),
        1 => Just(Step::Unlisten),
    ];
    prop::collection::vec((any::<bool>(), step), 0..60)
}

/// A channel as a careful observer has seen it.
#[derive(Default)]
struct Seen {
    /// Every message ever published: place, time, size; across all epochs.
    published: Vec<(Position, u64, usize)>,
    /// Positions that were handed out, with how many messages had been published then.
    handed_out: Vec<(Position, usize)>,
    listened: bool,
    forgotten: usize,
}

impl Seen {
    /// Reads from every position that was handed out, in small pages, and holds the answer to the promise.
    /// Where the broker may have forgotten a channel (any: they share what it vouches for), a gap is fair.
    fn check(&mut self, broker: &Fixture, name: &str, forgetful: bool) {
        let top = broker.read(name, "latest").top;
        self.handed_out.push((top, self.published.len()));
        for (position, before) in &self.handed_out {
            let (messages, gap) = read_all(broker, name, *position);
            let wanted: Vec<Position> = self.published[*before..].iter().map(|(at, ..)| *at).collect();
            let got: Vec<Position> = messages.iter().map(|message| message.position()).collect();
            assert!(wanted.ends_with(&got), "from {position}: {got:?} of {wanted:?}");
            if gap.is_none() {
                assert_eq!(got, wanted, "from {position} without a gap");
            }
            if wanted == got && !forgetful {
                assert_eq!(gap, None, "from {position} nothing is missing");
            }
        }
        self.check_kept(broker, name);
    }

    /// What is kept is the longest run of the newest messages that fits, no more and no less, but that
    /// once gone is gone.
    fn check_kept(&self, broker: &Fixture, name: &str) {
        let now = broker.memory.now();
        let kept = broker.texts(name, "earliest").len();
        let mut floor = self.forgotten;
        for end in 0..=self.published.len() {
            let fits = |from: usize| {
                let run = &self.published[from..end];
                run.len() <= HISTORY.messages
                    && run.iter().map(|(.., size)| size).sum::<usize>() <= HISTORY.bytes
            };
            floor = (floor.min(end)..=end).find(|from| fits(*from)).unwrap_or(end).max(floor);
        }
        let young = self.published[floor..].iter().filter(|(_, time, _)| time + 60 * SECOND > now);
        assert_eq!(kept, young.count(), "kept");
    }
}

fn read_all(broker: &Fixture, name: &str, from: Position) -> (Vec<Arc<Publication>>, Option<GapReason>) {
    let page = Page { messages: 2, bytes: 50 };
    let first = broker.memory.read(&channel(name), &HISTORY, &Since::Position(from), page);
    let gap = first.start.gap.map(|gap| gap.reason);
    let (mut messages, mut more) = (first.messages, first.more);
    while more {
        let at = messages.last().unwrap().position();
        let next = broker.memory.read(&channel(name), &HISTORY, &Since::Position(at), page);
        assert_eq!(next.start.gap, None);
        messages.extend(next.messages);
        more = next.more;
    }
    (messages, gap)
}

proptest! {
    #[test]
    fn whatever_happens_every_position_gets_the_rest_or_a_gap(steps in steps()) {
        let mut broker = broker();
        let mut seen = [Seen::default(), Seen::default()];
        for (which, step) in steps {
            let name = if which { "a" } else { "b" };
            let times = seen.iter().flat_map(|seen| &seen.published).map(|(_, time, _)| *time);
            let oldest = times.min().unwrap_or(u64::MAX);
            let seen = &mut seen[usize::from(which)];
            match step {
                Step::Publish { size } => {
                    let position = broker.publish(name, &"x".repeat(size));
                    let heard = broker.heard();
                    assert_eq!(heard.len(), usize::from(seen.listened));
                    assert!(heard.iter().all(|(offset, floor)| *offset == position.offset() && *floor <= offset + 1));
                    seen.published.push((position, broker.memory.now(), size));
                }
                Step::Forget => {
                    broker.memory.forget(&channel(name));
                    seen.forgotten = seen.published.len();
                }
                Step::Wait(ms) => broker.wait(ms),
                Step::Sweep => now(broker.memory.sweep()),
                Step::Listen => {
                    let position = broker.memory.listen(&channel(name));
                    seen.handed_out.push((position, seen.published.len()));
                    seen.listened = true;
                }
                Step::Unlisten => {
                    broker.memory.unlisten(&channel(name));
                    seen.listened = false;
                }
            }
            let forgetful = oldest.saturating_add(DAY) <= broker.memory.now();
            seen.check(&broker, name, forgetful);
        }
        ["a", "b"].iter().for_each(|name| broker.memory.unlisten(&channel(name)));
        broker.wait(2 * DAY);
        now(broker.memory.sweep());
        assert_eq!(broker.sizes(), [0; 4]);
    }
}

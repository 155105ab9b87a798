//! Case by case, with a clock that stands still.

mod model;

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use bytes::Bytes;

use super::*;
use crate::{
    broker::idempotency::LIFE,
    gap::GapReason,
    publication::{IdempotencyKey, Kind, Payload, Publication},
};

const SECOND: u64 = 1000;
const DAY: u64 = 24 * 60 * 60 * SECOND;
/// The moment at which every broker here starts: within a second.
const START: u64 = 1_790_000_000_300;

const WHOLE: Page = Page { messages: usize::MAX, bytes: usize::MAX };

const HISTORY: History = History { messages: 5, bytes: 100, age: Duration::from_secs(60) };

struct Fixture {
    memory: Memory,
    events: mpsc::Receiver<BrokerEvent>,
    now: Arc<AtomicU64>,
}

fn published(event: BrokerEvent) -> (Arc<Publication>, u64) {
    match event {
        BrokerEvent::Published { publication, floor } => (publication, floor),
        BrokerEvent::Gap { .. } | BrokerEvent::Disconnect { .. } => panic!("{event:?}"),
    }
}

fn broker() -> Fixture {
    let now = Arc::new(AtomicU64::new(START));
    let hand = now.clone();
    let (memory, events) = Memory::new(1024, Clock::from_fn(move || hand.load(Ordering::Relaxed)));
    Fixture { memory, events, now }
}

fn channel(name: &str) -> Channel {
    name.parse().unwrap()
}

fn draft(text: &str, key: Option<&str>) -> Draft {
    Draft {
        payload: Payload::new(Kind::Text, Bytes::copy_from_slice(text.as_bytes())),
        event: None,
        idempotency_key: key.map(|key| key.parse::<IdempotencyKey>().unwrap()),
        trace: None,
    }
}

/// Polls once: nothing here may have to wait.
fn now<T>(future: impl Future<Output = T>) -> T {
    let mut future = std::pin::pin!(future);
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    match future.as_mut().poll(&mut context) {
        std::task::Poll::Ready(value) => value,
        std::task::Poll::Pending => panic!("it waits"),
    }
}

impl Fixture {
    fn wait(&self, ms: u64) {
        self.now.fetch_add(ms, Ordering::Relaxed);
    }

    fn publish(&self, name: &str, text: &str) -> Position {
        let receipt = now(self.memory.publish(&channel(name), &HISTORY, draft(text, None)));
        receipt.unwrap().position
    }

    fn keyed(&self, name: &str, text: &str, key: &str) -> Result<Receipt, BrokerError> {
        now(self.memory.publish(&channel(name), &HISTORY, draft(text, Some(key))))
    }

    fn read(&self, name: &str, since: &str) -> Replay {
        self.memory.read(&channel(name), &HISTORY, &since.parse().unwrap(), WHOLE)
    }

    fn texts(&self, name: &str, since: &str) -> Vec<String> {
        let messages = self.read(name, since).messages;
        messages.iter().map(|message| message.payload.as_str().to_owned()).collect()
    }

    fn gap(&self, name: &str, since: Position) -> Option<GapReason> {
        let replay = self.read(name, &since.to_string());
        replay.start.gap.map(|gap| gap.reason)
    }

    fn heard(&mut self) -> Vec<(u64, u64)> {
        let events = std::iter::from_fn(|| self.events.try_recv().ok());
        events.map(published).map(|(publication, floor)| (publication.offset, floor)).collect()
    }

    /// Sweeps once a minute for so long.
    fn sweep_for(&self, ms: u64) {
        for _ in 0..ms.div_ceil(60 * SECOND) {
            self.wait(60 * SECOND);
            now(self.memory.sweep());
        }
    }

    /// Logs, listeners, keys and looks that are held.
    fn sizes(&self) -> [usize; 4] {
        let mut all = [0; 4];
        for shard in &self.memory.0.shards {
            let sizes = shard.lock().sizes();
            all.iter_mut().zip(sizes).for_each(|(all, size)| *all += size);
        }
        all
    }
}

#[test]
fn offsets_count_from_one_and_the_newest_messages_are_kept() {
    let broker = broker();
    for i in 1..=7 {
        assert_eq!(broker.publish("a", &i.to_string()).offset(), i);
    }
    assert_eq!(broker.texts("a", "earliest"), ["3", "4", "5", "6", "7"]);
    assert_eq!(broker.texts("a", "last:2"), ["6", "7"]);
    assert!(broker.texts("a", "latest").is_empty());
    let info = broker.memory.info(&channel("a"), &HISTORY);
    assert_eq!((info.position.offset(), info.messages), (7, 5));
}

#[test]
fn bytes_and_age_trim_too_and_what_is_too_large_is_not_kept() {
    let broker = broker();
    let forty = "x".repeat(40);
    let first = broker.publish("a", &forty);
    broker.publish("a", &forty);
    broker.publish("a", &forty);
    assert_eq!(broker.texts("a", "earliest").len(), 2);
    let large = broker.publish("a", &"x".repeat(101));
    assert!(broker.texts("a", "earliest").is_empty());
    assert_eq!(broker.gap("a", first), Some(GapReason::Trimmed));
    assert_eq!(broker.gap("a", large), None);
    broker.publish("a", "old");
    broker.wait(59_999);
    assert_eq!(broker.texts("a", "earliest"), ["old"]);
    broker.wait(1);
    assert!(broker.texts("a", "earliest").is_empty());
    assert_eq!(broker.gap("a", large), Some(GapReason::Trimmed));
}

#[test]
fn without_history_messages_are_counted_and_heard_only() {
    let mut broker = broker();
    let off = History { messages: 0, ..HISTORY };
    let _ = broker.memory.listen(&channel("a"));
    for i in 1..=3 {
        let receipt = now(broker.memory.publish(&channel("a"), &off, draft("x", None))).unwrap();
        assert_eq!(receipt.position.offset(), i);
    }
    assert_eq!(broker.heard(), [(1, 2), (2, 3), (3, 4)]);
    assert_eq!(broker.memory.info(&channel("a"), &off).messages, 0);
}

#[test]
fn a_page_has_one_message_however_large_and_says_whether_more_follow() {
    let broker = broker();
    for text in ["12345", "6", "7"] {
        broker.publish("a", text);
    }
    let read = |since: &str, messages, bytes| {
        let page = Page { messages, bytes };
        let replay = broker.memory.read(&channel("a"), &HISTORY, &since.parse().unwrap(), page);
        (replay.messages.len(), replay.more)
    };
    assert_eq!(read("earliest", 10, 1), (1, true));
    assert_eq!(read("earliest", 10, 6), (2, true));
    assert_eq!(read("earliest", 10, 7), (3, false));
    assert_eq!(read("earliest", 2, 100), (2, true));
    assert_eq!(read("last:1", 1, 0), (1, false));
    assert_eq!(read("latest", 1, 0), (0, false));
}

#[test]
fn only_channels_that_are_listened_to_are_heard() {
    let mut broker = broker();
    broker.publish("a", "1");
    assert_eq!(broker.memory.listen(&channel("a")).offset(), 1);
    broker.publish("a", "2");
    broker.publish("b", "1");
    broker.memory.unlisten(&channel("a"));
    broker.publish("a", "3");
    assert_eq!(broker.heard(), [(2, 1)]);
}

#[test]
fn asking_for_an_unused_channel_creates_nothing() {
    let broker = broker();
    let second = START / SECOND + 1;
    assert_eq!(broker.memory.listen(&channel("a")), Position::Empty(second));
    broker.memory.unlisten(&channel("a"));
    let replay = broker.read("a", "latest");
    assert_eq!((replay.top, replay.messages.len()), (Position::Empty(second), 0));
    assert_eq!(broker.memory.info(&channel("a"), &HISTORY).position, Position::Empty(second));
    broker.memory.forget(&channel("a"));
    assert_eq!(broker.sizes(), [0; 4]);
}

#[test]
fn an_empty_channels_position_is_complete_from_the_first_second_on() {
    let broker = broker();
    let empty = broker.read("a", "latest").top;
    broker.publish("a", "1");
    assert_eq!(broker.gap("a", empty), None);
    assert_eq!(broker.texts("a", &empty.to_string()), ["1"]);
    broker.wait(5 * SECOND);
    let later = broker.read("b", "latest").top;
    broker.publish("b", "1");
    assert_eq!((broker.gap("b", empty), broker.gap("b", later)), (None, None));
}

#[test]
fn what_an_earlier_life_handed_out_in_the_second_of_the_start_is_not_vouched_for() {
    let broker = broker();
    let earlier = Position::Empty(START / SECOND);
    assert_eq!(broker.gap("a", earlier), Some(GapReason::Expired));
    broker.publish("a", "1");
    assert_eq!(broker.gap("a", earlier), Some(GapReason::Expired));
    assert_eq!(broker.texts("a", &earlier.to_string()), ["1"]);
}

#[test]
fn a_delete_keeps_the_counting_and_is_told() {
    let broker = broker();
    let first = broker.publish("a", "1");
    let second = broker.publish("a", "2");
    broker.memory.forget(&channel("a"));
    assert_eq!(broker.gap("a", first), Some(GapReason::Deleted));
    assert_eq!(broker.gap("a", second), None);
    assert_eq!(broker.publish("a", "3").offset(), 3);
    assert_eq!(broker.gap("a", first), Some(GapReason::Deleted));
    assert_eq!(broker.texts("a", &first.to_string()), ["3"]);
}

#[test]
fn a_key_gives_its_first_receipt_for_five_minutes_in_its_channel() {
    let broker = broker();
    let first = broker.keyed("a", "x", "k").unwrap();
    broker.wait(LIFE - 1);
    let again = broker.keyed("a", "x", "k").unwrap();
    assert_eq!((again.position, again.duplicate), (first.position, true));
    assert_eq!(broker.keyed("a", "y", "k"), Err(BrokerError::KeyReused));
    assert_eq!(broker.keyed("b", "y", "k").map(|r| r.duplicate), Ok(false));
    let mut other = draft("x", Some("k"));
    other.event = Some("e".parse().unwrap());
    let reused = now(broker.memory.publish(&channel("a"), &HISTORY, other));
    assert_eq!(reused, Err(BrokerError::KeyReused));
    broker.wait(1);
    let anew = broker.keyed("a", "y", "k").unwrap();
    assert_eq!((anew.position.offset(), anew.duplicate), (2, false));
    broker.sweep_for(LIFE);
    assert_eq!(broker.sizes()[2], 0);
}

#[test]
fn channels_with_a_message_are_listed_in_order_page_by_page() {
    let broker = broker();
    for name in ["b:2", "a", "b:1", "b:3", "c", "gone", "B"] {
        broker.publish(name, "x");
    }
    broker.memory.forget(&channel("gone"));
    let list = |prefix: &str, after: Option<&str>, limit| {
        let page = broker.memory.channels(prefix, after, limit);
        (page.names.iter().map(ToString::to_string).collect::<Vec<_>>().join(" "), page.more)
    };
    assert_eq!(list("", None, 10), ("B a b:1 b:2 b:3 c".into(), false));
    assert_eq!(list("", None, 2), ("B a".into(), true));
    assert_eq!(list("", Some("a"), 4), ("b:1 b:2 b:3 c".into(), false));
    assert_eq!(list("b:", Some("b:1"), 1), ("b:2".into(), true));
    assert_eq!(list("b:", Some("b:2"), 1), ("b:3".into(), false));
    assert_eq!(list("z", None, 1), (String::new(), false));
    broker.wait(60 * SECOND);
    assert_eq!(list("", None, 10), (String::new(), false));
}

#[test]
fn an_idle_channel_keeps_its_counting_for_a_day_and_is_then_forgotten() {
    let broker = broker();
    let empty = broker.read("a", "latest").top;
    let first = broker.publish("a", "1");
    broker.sweep_for(DAY);
    assert_eq!(broker.publish("a", "2").offset(), 2);
    assert_eq!(broker.gap("a", first), None);
    broker.sweep_for(DAY + 3 * 60 * SECOND);
    assert_eq!(broker.sizes(), [0; 4]);
    assert_eq!(broker.gap("a", first), Some(GapReason::Reset));
    assert_eq!(broker.gap("a", empty), Some(GapReason::Expired));
    let since = broker.read("a", "latest").top;
    assert_eq!(broker.publish("a", "3").offset(), 1);
    assert_eq!(broker.gap("a", since), None);
}

#[test]
fn a_channel_that_somebody_listens_to_is_not_forgotten() {
    let broker = broker();
    let first = broker.publish("a", "1");
    let _ = broker.memory.listen(&channel("a"));
    broker.sweep_for(2 * DAY);
    assert_eq!(broker.gap("a", first), None);
    broker.memory.unlisten(&channel("a"));
    broker.sweep_for(2 * 60 * SECOND);
    assert_eq!(broker.sizes(), [0; 4]);
}

#[test]
fn a_message_after_a_silence_is_let_go_without_being_asked_for() {
    let broker = broker();
    broker.publish("a", "1");
    broker.sweep_for(3600 * SECOND);
    broker.publish("a", "2");
    broker.sweep_for(180 * SECOND);
    let kept = broker.memory.0.shards.iter().map(|s| s.lock().bytes()).sum::<usize>();
    assert_eq!(kept, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishers_at_once_are_heard_in_the_order_of_offsets_and_none_is_lost() {
    let (memory, mut events) = Memory::new(8, Clock::system());
    let name = channel("a");
    let _ = memory.listen(&name);
    for _ in 0..8 {
        let (memory, name) = (memory.clone(), name.clone());
        tokio::spawn(async move {
            for _ in 0..500 {
                memory.publish(&name, &HISTORY, draft("x", None)).await.unwrap();
            }
        });
    }
    let mut last = 0;
    for offset in 1..=4000 {
        let (publication, floor) = published(events.recv().await.unwrap());
        assert_eq!(publication.offset, offset);
        assert!(floor <= offset && publication.time >= last);
        last = publication.time;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_same_key_at_once_is_stored_once() {
    let (memory, _events) = Memory::new(8, Clock::system());
    let mut tasks = tokio::task::JoinSet::new();
    for _ in 0..16 {
        let memory = memory.clone();
        tasks.spawn(
            async move { memory.publish(&channel("a"), &HISTORY, draft("x", Some("k"))).await.unwrap() },
        );
    }
    let receipts = tasks.join_all().await;
    assert_eq!(receipts.iter().filter(|receipt| !receipt.duplicate).count(), 1);
    assert!(receipts.iter().all(|receipt| receipt.position == receipts[0].position));
}

#[tokio::test]
async fn while_the_queue_is_full_publishers_wait_and_nothing_is_stored() {
    let (memory, mut events) = Memory::new(1, Clock::system());
    let name = channel("a");
    let _ = memory.listen(&name);
    memory.publish(&name, &HISTORY, draft("1", None)).await.unwrap();
    let second = tokio::spawn({
        let (memory, name) = (memory.clone(), name.clone());
        async move { memory.publish(&name, &HISTORY, draft("2", None)).await }
    });
    tokio::task::yield_now().await;
    assert_eq!(memory.info(&name, &HISTORY).messages, 1);
    assert!(events.recv().await.is_some());
    assert_eq!(second.await.unwrap().unwrap().position.offset(), 2);
    drop(events);
    let refused = memory.publish(&name, &HISTORY, draft("3", None)).await;
    assert_eq!(refused, Err(BrokerError::Unavailable));
}

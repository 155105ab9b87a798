//! The reader: one task through which everything passes that comes from Redis for subscribers, so that the
//! messages of a channel have one order, whichever link they came by. It keeps what this node listens to
//! subscribed, and leads each channel's [`Track`](super::track::Track) through doubts: subscribe, wait for
//! the confirmation, compare tops, read what is missing, go on.

mod input;

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
    time::{Duration, Instant},
};

use bytes::Bytes;
use tokio::{sync::mpsc, task::JoinHandle};

pub(super) use self::input::{Input, Wish};
use super::{
    Inner, Listened, Tracked,
    functions::Read,
    names::Partition,
    server::Server,
    subscriber::{Push, SubscriberHandle},
    topology::Topology,
    track::{Step, Ticket, Track},
};
use crate::{
    broker::BrokerEvent,
    position::{Position, Since},
    wire::envelope::{self, Kind},
};

/// How often what is not yet subscribed, idle, or in a partition that moves is looked at.
const TICK: Duration = Duration::from_millis(250);

/// A subscription that is not confirmed after this long is asked for again.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// In doubt for longer than this is worth a line in the log.
const LONG_DOUBT: Duration = Duration::from_secs(30);

/// Channels whose tops are compared by one call.
const TOPS: usize = 256;

/// What the reader knows of a channel beside its track.
struct Feed {
    listened: Arc<Listened>,
    /// Whose link it is subscribed on, or asked for.
    server: Option<Server>,
    confirmed: bool,
    asked: Instant,
}

/// A channel of which nothing is certain until it was compared with Redis.
struct Doubt {
    since: Instant,
    /// A line in the log told of it.
    told: bool,
}

impl Doubt {
    fn begin() -> Self {
        Self { since: Instant::now(), told: false }
    }
}

/// See the module.
pub(super) struct Reader {
    inner: Arc<Inner>,
    events: mpsc::Sender<BrokerEvent>,
    answers: mpsc::Sender<Input>,
    topology: Arc<Topology>,
    links: HashMap<Server, SubscriberHandle>,
    feeds: HashMap<Bytes, Feed>,
    idle: VecDeque<(Instant, Arc<Listened>)>,
    /// Subscribed since the last look: their tops are compared next.
    confirmed: Vec<Bytes>,
    doubtful: HashMap<Bytes, Doubt>,
    /// The comparisons of partitions that move.
    moving: HashMap<u16, Vec<JoinHandle<()>>>,
}

impl Reader {
    pub(super) fn new(
        inner: Arc<Inner>,
        events: mpsc::Sender<BrokerEvent>,
        answers: mpsc::Sender<Input>,
    ) -> Self {
        Self {
            inner,
            events,
            answers,
            topology: Arc::default(),
            links: HashMap::new(),
            feeds: HashMap::new(),
            idle: VecDeque::new(),
            confirmed: Vec::new(),
            doubtful: HashMap::new(),
            moving: HashMap::new(),
        }
    }

    /// Runs until nobody takes its events.
    pub(super) async fn run(
        mut self,
        mut inputs: mpsc::Receiver<Input>,
        mut wishes: mpsc::UnboundedReceiver<Wish>,
    ) {
        let mut ticks = tokio::time::interval(TICK);
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        let mut many = Vec::new();
        while !self.events.is_closed() {
            tokio::select! {
                Some(input) = inputs.recv() => self.take(input).await,
                count = wishes.recv_many(&mut many, 1024) => {
                    if count == 0 {
                        return;
                    }
                    self.grant(&mut many);
                }
                _ = ticks.tick() => self.tick(),
            }
            self.settle();
        }
    }

    async fn take(&mut self, input: Input) {
        match input {
            Input::Up(server, handle) => {
                self.links.insert(server.clone(), handle);
                let lost = self.live_names(|feed| feed.server.as_ref() == Some(&server));
                self.doubt(&lost);
                let wanted = self.live_names(|feed| feed.server.is_none());
                self.subscribe(&wanted);
            }
            Input::Down(server) => {
                self.links.remove(&server);
                let lost = self.live_names(|feed| feed.server.as_ref() == Some(&server));
                self.doubt(&lost);
            }
            Input::Pushes(server, pushes) => {
                for push in pushes {
                    self.push(&server, push).await;
                }
            }
            Input::Topology(topology) => self.move_to(topology),
            Input::Compare(server) => {
                let names = self.live_names(|feed| feed.confirmed && feed.server.as_ref() == Some(&server));
                self.confirmed.extend(names);
            }
            Input::Tops(tops) => {
                for (listened, ticket, seen) in tops {
                    self.step(&listened, |track, steps| track.settled(ticket, &seen, steps)).await;
                    listened.joined.cancel();
                }
            }
            Input::Read(listened, ticket, read) => {
                let Read { replay, floor, .. } = &*read;
                self.step(&listened, |track, steps| track.replayed(ticket, replay, *floor, steps)).await;
            }
        }
    }

    fn live_names(&self, which: impl Fn(&Feed) -> bool) -> Vec<Bytes> {
        self.feeds.iter().filter(|(_, feed)| which(feed)).map(|(live, _)| live.clone()).collect()
    }

    /// From now on nothing of these channels is certain, and they are not subscribed.
    fn doubt(&mut self, names: &[Bytes]) {
        for live in names {
            let Some(feed) = self.feeds.get_mut(live) else { continue };
            feed.server = None;
            feed.confirmed = false;
            feed.listened.doubt();
            self.doubtful.entry(live.clone()).or_insert_with(Doubt::begin);
        }
    }

    fn owner(&self, partition: Partition) -> Option<&Server> {
        self.topology.owner_of(partition)
    }

    /// Asks for these channels on the links of their owners: one command for each partition.
    fn subscribe(&mut self, names: &[Bytes]) {
        let mut wanted: HashMap<(Partition, bool), Vec<Bytes>> = HashMap::new();
        for live in names {
            let Some(feed) = self.feeds.get(live) else { continue };
            let sharded = self.topology.sharded && !feed.listened.is_plain();
            wanted.entry((feed.listened.partition, sharded)).or_default().push(live.clone());
        }
        for ((partition, sharded), names) in wanted {
            let Some(server) = self.owner(partition).cloned() else { continue };
            let Some(link) = self.links.get(&server) else { continue };
            for live in &names {
                if let Some(feed) = self.feeds.get_mut(live) {
                    feed.server = Some(server.clone());
                    feed.confirmed = false;
                    feed.asked = Instant::now();
                }
            }
            match sharded {
                true => link.ssubscribe(&names),
                false => link.subscribe(&names),
            }
        }
    }

    /// Follows partitions that have a new owner.
    fn move_to(&mut self, topology: Arc<Topology>) {
        self.topology = topology;
        let moved = self.live_names(|feed| {
            feed.server.is_some() && feed.server.as_ref() != self.owner(feed.listened.partition)
        });
        self.unsubscribe(&moved);
        self.doubt(&moved);
        let wanted = self.live_names(|feed| feed.server.is_none());
        self.subscribe(&wanted);
    }

    fn unsubscribe(&self, names: &[Bytes]) {
        for live in names {
            let Some(feed) = self.feeds.get(live) else { continue };
            let link = feed.server.as_ref().and_then(|server| self.links.get(server));
            match (link, self.topology.sharded && !feed.listened.is_plain()) {
                (Some(link), true) => link.sunsubscribe(std::slice::from_ref(live)),
                (Some(link), false) => link.unsubscribe(std::slice::from_ref(live)),
                (None, _) => {}
            }
        }
    }

    async fn push(&mut self, server: &Server, push: Push) {
        match push {
            Push::Message { channel, payload, .. } => self.message(server, &channel, payload).await,
            Push::Subscribed { channel, .. } => {
                if let Some(feed) = self.feeds.get_mut(&channel)
                    && feed.server.as_ref() == Some(server)
                {
                    feed.confirmed = true;
                    let listened = Arc::clone(&feed.listened);
                    self.confirm(&listened).await;
                } else {
                    self.inner.is_heard(server, &channel);
                }
            }
            Push::Unsubscribed { channel, .. } => {
                // Not asked for where the channel is still wanted here: its slot is gone.
                if self.feeds.get(&channel).is_some_and(|feed| feed.server.as_ref() == Some(server)) {
                    self.doubt(&[channel]);
                    self.inner.rediscover.notify_one();
                }
            }
            Push::TooLarge { channel, .. } => {
                self.inner.metrics.redis_damaged();
                // It may be a message of a gateway whose limit is larger.
                if let Some(listened) = self.feeds.get(&channel).map(|feed| Arc::clone(&feed.listened)) {
                    self.step(&listened, |track, steps| track.skipped(steps)).await;
                }
            }
            Push::Refused(answer) => self.inner.is_refused(server, &answer),
            Push::Pong => {}
        }
    }

    /// From now on a channel's messages come. What other programs feed has no top: it goes on at once.
    async fn confirm(&mut self, listened: &Arc<Listened>) {
        let mut steps = Vec::new();
        match &mut *listened.track.lock() {
            Tracked::Log(track) => {
                track.confirmed();
                self.confirmed.push(listened.live.clone());
            }
            Tracked::Plain(plain) => {
                plain.confirmed(&mut steps);
                self.doubtful.remove(&listened.live);
            }
        }
        if listened.is_plain() {
            self.emit(listened, steps).await;
            listened.joined.cancel();
        }
    }

    async fn message(&mut self, server: &Server, live: &Bytes, payload: Bytes) {
        let Some(feed) = self.feeds.get(live) else {
            if let Some(second) = self.inner.probed(server, live, &payload) {
                for (partition, certain) in self.inner.certain.iter().enumerate() {
                    if self.owner(Partition(partition as u16)) == Some(server) {
                        certain.store(second, std::sync::atomic::Ordering::Relaxed);
                    }
                }
            }
            return;
        };
        let listened = Arc::clone(&feed.listened);
        let steps = self.heard(&listened, payload);
        self.emit(&listened, steps).await;
    }

    fn heard(&self, listened: &Listened, payload: Bytes) -> Vec<Step> {
        let mut steps = Vec::new();
        match &mut *listened.track.lock() {
            Tracked::Plain(plain) => match self.inner.foreign(payload) {
                Some(payload) => plain.message(payload, self.inner.now(), listened.history(), &mut steps),
                None => self.inner.metrics.redis_damaged(),
            },
            Tracked::Log(track) => match envelope::decode(payload) {
                Ok(envelope) => match envelope.kind {
                    Kind::Message => {
                        let floor = envelope.floor;
                        track.message(envelope.into_publication(&listened.channel), floor, &mut steps);
                    }
                    Kind::Forgotten => track.forgotten(envelope.epoch, envelope.offset, &mut steps),
                },
                Err(_) => self.inner.metrics.redis_damaged(),
            },
        }
        steps
    }

    /// Does something with a channel's track.
    async fn step(&mut self, listened: &Arc<Listened>, what: impl FnOnce(&mut Track, &mut Vec<Step>)) {
        let mut steps = Vec::new();
        let mut is_live = false;
        if let Tracked::Log(track) = &mut *listened.track.lock() {
            what(track, &mut steps);
            is_live = track.is_live();
        }
        if is_live {
            self.doubtful.remove(&listened.live);
        }
        self.emit(listened, steps).await;
    }

    /// Hands on what a track says, and reads what it wants to have read.
    async fn emit(&mut self, listened: &Arc<Listened>, steps: Vec<Step>) {
        for step in steps {
            let event = match step {
                Step::Deliver { publication, floor } => BrokerEvent::Published { publication, floor },
                Step::Gap(gap) => {
                    self.inner.metrics.epoch_changed(gap.reason);
                    BrokerEvent::Gap { channel: listened.channel.clone(), gap }
                }
                Step::Read { ticket, from } => {
                    self.read(Arc::clone(listened), ticket, from);
                    continue;
                }
            };
            if self.events.send(event).await.is_err() {
                return;
            }
        }
    }

    /// Reads what a channel misses, until it is read or a new doubt makes it pointless.
    fn read(&self, listened: Arc<Listened>, ticket: Ticket, from: Position) {
        let (inner, answers) = (Arc::clone(&self.inner), self.answers.clone());
        inner.metrics.redis_repair();
        tokio::spawn(async move {
            while listened.wants(ticket) && !answers.is_closed() {
                match inner.read_log(&listened, &Since::Position(from)).await {
                    Ok(read) => {
                        let _ = answers.send(Input::Read(listened, ticket, Box::new(read))).await;
                        return;
                    }
                    Err(_) => tokio::time::sleep(super::RETRY).await,
                }
            }
        });
    }

    /// Compares the tops of what was confirmed.
    fn settle(&mut self) {
        let mut groups: HashMap<Partition, Vec<(Arc<Listened>, Ticket)>> = HashMap::new();
        for live in std::mem::take(&mut self.confirmed) {
            let Some(feed) = self.feeds.get(&live) else { continue };
            let listened = Arc::clone(&feed.listened);
            if let Some(ticket) = listened.ticket() {
                groups.entry(listened.partition).or_default().push((listened, ticket));
            }
        }
        for (partition, channels) in groups {
            let comparisons = channels.chunks(TOPS).map(|some| self.compare(partition, some.to_vec()));
            let comparisons = comparisons.collect();
            if self.topology.migrating.contains(&partition.0) {
                self.moving.entry(partition.0).or_default().extend::<Vec<_>>(comparisons);
            }
        }
    }

    fn compare(&self, partition: Partition, mut channels: Vec<(Arc<Listened>, Ticket)>) -> JoinHandle<()> {
        let (inner, answers) = (Arc::clone(&self.inner), self.answers.clone());
        tokio::spawn(async move {
            loop {
                // One that nobody wants to know of any more must not keep the others from an answer.
                channels.retain(|(listened, ticket)| listened.ticket() == Some(*ticket));
                if channels.is_empty() || answers.is_closed() {
                    return;
                }
                let names: Vec<_> = channels.iter().map(|(listened, _)| listened.channel.clone()).collect();
                let Ok(seen) = inner.tops(partition, &names).await else {
                    tokio::time::sleep(super::RETRY).await;
                    continue;
                };
                let tops = channels.into_iter().zip(seen).map(|((listened, t), seen)| (listened, t, seen));
                let _ = answers.send(Input::Tops(tops.collect())).await;
                return;
            }
        })
    }
}

impl Reader {
    /// Begins and ends what sessions ask for.
    fn grant(&mut self, wishes: &mut Vec<Wish>) {
        let mut wanted = Vec::new();
        for wish in wishes.drain(..) {
            match wish {
                Wish::Listen(listened) => {
                    let live = listened.live.clone();
                    let feed = Feed { listened, server: None, confirmed: false, asked: Instant::now() };
                    self.feeds.insert(live.clone(), feed);
                    self.doubtful.insert(live.clone(), Doubt::begin());
                    wanted.push(live);
                }
                Wish::Idle(listened) => self.idle.push_back((Instant::now(), listened)),
            }
        }
        self.subscribe(&wanted);
    }

    fn tick(&mut self) {
        self.let_go();
        self.ask_again();
        self.moving.retain(|_, comparisons| comparisons.iter().any(|comparison| !comparison.is_finished()));
        let migrating = &self.topology.migrating;
        if !migrating.is_empty() {
            // One after another: while Redis has no answer they would pile up.
            let is_due =
                |partition: u16| migrating.contains(&partition) && !self.moving.contains_key(&partition);
            let names = self.live_names(|feed| feed.confirmed && is_due(feed.listened.partition.0));
            self.confirmed.extend(names);
        }
    }

    /// Unsubscribes what nobody has wanted for the time to linger.
    fn let_go(&mut self) {
        let linger = self.inner.config.broker.linger;
        while let Some((_, listened)) = self.idle.pop_front_if(|(since, _)| since.elapsed() >= linger) {
            let Some(feed) = self.feeds.get(&listened.live) else { continue };
            if feed.server.is_some() && !feed.confirmed {
                // Its confirmation would be taken for that of the next subscription.
                self.idle.push_back((Instant::now(), listened));
                continue;
            }
            if self.inner.let_go(&listened) {
                // No question about it is worth an answer any more.
                listened.doubt();
                self.unsubscribe(std::slice::from_ref(&listened.live));
                self.feeds.remove(&listened.live);
                self.doubtful.remove(&listened.live);
            }
        }
    }

    /// What is long unconfirmed is asked for again, and a long doubt is told of.
    fn ask_again(&mut self) {
        let mut again = Vec::new();
        let mut told = 0;
        for (live, doubt) in &mut self.doubtful {
            let Some(feed) = self.feeds.get(live) else { continue };
            if !feed.confirmed && (feed.server.is_none() || feed.asked.elapsed() > ASK_AGAIN) {
                again.push(live.clone());
            }
            if !doubt.told && doubt.since.elapsed() > LONG_DOUBT {
                doubt.told = true;
                told += 1;
            }
        }
        if told > 0 {
            tracing::warn!(
                channels = told,
                "channels have been in doubt for 30 s: their subscribers wait until Redis answers"
            );
        }
        self.inner.metrics.redis_doubtful(self.doubtful.len());
        self.subscribe(&again);
    }
}

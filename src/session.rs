//! A connection's life, whatever carries it: it subscribes (hub first, broker confirmed second, history
//! third), catches up from the history at the pace of its reader, hears live messages, and ends with a
//! [`Disconnect`]. Knows no sockets and no HTTP.

use std::{
    sync::Arc,
    task::Poll,
    time::{Duration, Instant},
};

use futures_util::future::join_all;
use tokio::time::sleep;

use crate::{
    admission::Permit,
    auth::{Action, Grant, token::Claims},
    broker::Replay,
    channel::Channel,
    config::Slow,
    disconnect::Disconnect,
    fault::{Code, Fault},
    gap::{Gap, GapReason},
    gateway::{Gateway, Subscription},
    hub::{Batch, ConnectionId, Crowded, Hole, Key, Outbox, Seam, Slot, Style, Topic},
    metrics::{Metrics, Rejection},
    position::{Position, Since},
    publication::Publication,
    wire::{Encoding, Object, Prepared, Reference},
};

/// Between two attempts to read on where the broker is away.
const AGAIN: Duration = Duration::from_millis(250);

/// One connection. Dropping it takes it out of everything it entered.
#[derive(Debug)]
pub struct Session {
    gateway: Gateway,
    outbox: Arc<Outbox>,
    id: ConnectionId,
    grant: Grant,
    subscriptions: Vec<Subscription>,
    opened: Instant,
    reason: Disconnect,
    /// Held for as long as the connection lives.
    permit: Option<Permit>,
}

impl Session {
    /// Enters a connection that wants its bytes in `style`.
    ///
    /// # Errors
    /// `too_many_connections` of the grant's subject.
    pub fn open(
        gateway: &Gateway,
        style: Style,
        permit: Option<Permit>,
        grant: Grant,
    ) -> Result<Self, Fault> {
        let outbox = Arc::new(Outbox::new(style, gateway.config().limits.outbox, gateway.now()));
        gateway.metrics().opened(style.transport);
        let id = gateway.registry().enter(&outbox);
        let session = Self {
            id,
            grant,
            gateway: gateway.clone(),
            outbox,
            subscriptions: Vec::new(),
            opened: Instant::now(),
            reason: Disconnect::Client,
            permit,
        };
        session.name()?;
        Ok(session)
    }

    /// Lets the connection be found by its subject.
    fn name(&self) -> Result<(), Fault> {
        let Some(subject) = self.grant.subject() else {
            return Ok(());
        };
        let limit = self.gateway.config().limits.connections_per_subject;
        self.gateway.registry().name(self.id, subject, limit).map_err(|Crowded| {
            self.metrics().rejected(Rejection::Subject);
            let detail =
                "the limit of connections of this subject is reached (limits.connections_per_subject)";
            Fault::new(Code::TooManyConnections, detail).limit(limit.unwrap_or_default())
        })
    }

    /// What it may do.
    #[must_use]
    pub fn grant(&self) -> &Grant {
        &self.grant
    }

    /// Whether it may do something to a channel.
    ///
    /// # Errors
    /// `unauthorized` or `forbidden`.
    pub fn authorize(&self, action: Action, channel: &Channel) -> Result<(), Fault> {
        self.gateway.auth().authorize(&self.grant, action, channel)
    }

    /// Takes another token, of the same subject where there was one. What it does not grant is left: those channels
    /// are returned.
    ///
    /// # Errors
    /// `forbidden` for the token of another subject, `too_many_connections` of this one; all stays as it was.
    pub fn authenticate(&mut self, claims: Claims) -> Result<Vec<Channel>, Fault> {
        let before = std::mem::replace(&mut self.grant, Grant::Token(Arc::new(claims)));
        let is_another = before.subject().is_some_and(|subject| Some(subject) != self.grant.subject());
        let refused = match is_another {
            true => {
                let detail = "the token is of another subject than this connection: open another one for it";
                Err(Fault::new(Code::Forbidden, detail))
            }
            false => self.name(),
        };
        if let Err(fault) = refused {
            self.grant = before;
            return Err(fault);
        }
        let auth = self.gateway.auth();
        let lost = self.subscriptions.iter().map(Subscription::channel);
        let lost = lost.filter(|channel| !auth.allows(&self.grant, Action::Subscribe, channel));
        let lost: Vec<Channel> = lost.cloned().collect();
        lost.iter().for_each(|channel| _ = self.leave(channel));
        Ok(lost)
    }

    /// The id that `POST /v1/disconnect` takes.
    #[must_use]
    pub fn id(&self) -> ConnectionId {
        self.id
    }

    /// The gateway.
    #[must_use]
    pub fn gateway(&self) -> &Gateway {
        &self.gateway
    }

    /// The metrics.
    #[must_use]
    pub fn metrics(&self) -> &Metrics {
        self.gateway.metrics()
    }

    /// The outbox.
    #[must_use]
    pub fn outbox(&self) -> &Arc<Outbox> {
        &self.outbox
    }

    /// What it listens to.
    #[must_use]
    pub fn subscriptions(&self) -> &[Subscription] {
        &self.subscriptions
    }

    /// Holds the permit of the socket too, once the session has the socket.
    pub fn hold(&mut self, socket: Option<Permit>) {
        self.permit = match (self.permit.take(), socket) {
            (Some(client), Some(socket)) => Some(client.and(socket)),
            (client, socket) => client.or(socket),
        };
    }

    /// Attaches to channels, all at once, each after its `since`. What is published meanwhile is held until
    /// [`CatchUp::run`] is through.
    ///
    /// # Errors
    /// The broker's.
    pub async fn attach_all(&mut self, channels: &[Channel], since: &[Since]) -> Result<Vec<CatchUp>, Fault> {
        let pairs = channels.iter().zip(since);
        // Each takes its seat before it waits for the broker: so the seats are in the order of the request.
        let attached = pairs.map(|(channel, since)| attach(&self.gateway, &self.outbox, channel, since));
        let mut catching_up = Vec::with_capacity(channels.len());
        for attached in join_all(attached).await {
            let (subscription, catch_up) = attached?;
            self.subscriptions.push(subscription);
            catching_up.push(catch_up);
        }
        Ok(catching_up)
    }

    /// Keeps a subscription that [`attach`] made.
    pub fn keep(&mut self, subscription: Subscription) {
        self.subscriptions.push(subscription);
    }

    /// Leaves a channel; whether it listened to it.
    pub fn leave(&mut self, channel: &Channel) -> bool {
        let Some(index) = self.subscriptions.iter().position(|s| s.channel() == channel) else {
            return false;
        };
        let subscription = self.subscriptions.remove(index);
        let slot = subscription.slot();
        drop(subscription);
        self.outbox.unseat(slot);
        true
    }

    /// Hears no more messages, since it ends.
    pub fn close(&mut self, reason: Disconnect) {
        self.reason = reason;
        self.subscriptions = Vec::new();
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        self.subscriptions = Vec::new();
        self.gateway.registry().leave(self.id);
        self.outbox.abandon(self.metrics());
        let (transport, lasted) = (self.outbox.style().transport, self.opened.elapsed());
        self.metrics().closed(transport, self.reason, lasted);
        tracing::debug!(
            connection.id = %self.id,
            transport = transport.as_str(),
            reason = self.reason.label(),
            ?lasted,
            "a client is gone"
        );
    }
}

/// Seats an outbox in a channel.
///
/// # Errors
/// The broker's.
pub async fn attach(
    gateway: &Gateway,
    outbox: &Arc<Outbox>,
    channel: &Channel,
    since: &Since,
) -> Result<(Subscription, CatchUp), Fault> {
    let (subscription, page) = gateway.attach(outbox, channel, since).await?;
    outbox.set_position(subscription.slot(), page.start.position);
    gateway.metrics().resumed(page.start.recovery);
    let catch_up = CatchUp {
        gateway: gateway.clone(),
        outbox: Arc::clone(outbox),
        topic: Arc::clone(subscription.topic()),
        key: subscription.key(),
        slot: subscription.slot(),
        page,
    };
    Ok((subscription, catch_up))
}

/// The way of a new subscription from its position to what is live.
#[derive(Debug)]
pub struct CatchUp {
    gateway: Gateway,
    outbox: Arc<Outbox>,
    topic: Arc<Topic>,
    key: Key,
    slot: Slot,
    page: Replay,
}

impl CatchUp {
    /// The first page of the history, and where it starts.
    #[must_use]
    pub fn page(&self) -> &Replay {
        &self.page
    }

    /// The channel.
    #[must_use]
    pub fn channel(&self) -> &Channel {
        self.topic.channel()
    }

    /// The channel's seat.
    #[must_use]
    pub fn slot(&self) -> Slot {
        self.slot
    }

    /// Says `subscribed`. `with_cursor` on the last one of a request.
    pub fn announce(&self, reference: Option<&Reference>, with_cursor: bool) {
        let start = &self.page.start;
        let object = Object::Subscribed {
            channel: self.channel(),
            position: start.position,
            recovery: start.recovery,
            reference,
        };
        self.outbox.say(&object, with_cursor, self.gateway.metrics());
    }

    /// Hands over what the history holds, page by page as the reader takes them, and then what was held.
    ///
    /// # Errors
    /// Why the connection must end.
    pub async fn run(mut self) -> Result<(), Disconnect> {
        let _in_flight = InFlight::new(&self.gateway);
        let mut first = true;
        loop {
            self.outbox.set_position(self.slot, self.page.start.after);
            if let Some(gap) = self.page.start.gap {
                self.tell(gap, first)?;
            }
            first = false;
            if !room(&self.outbox).await {
                return Ok(());
            }
            self.hand_over()?;
            if !self.page.more && self.go_live() == Seam::Live {
                return Ok(());
            }
            // A reader that takes all at once must not keep everybody else waiting.
            tokio::task::yield_now().await;
            while self.read_again().await.is_err() {
                // A link that is away is a pause, in a replay as well.
                sleep(AGAIN).await;
                if self.outbox.ending().is_some() {
                    return Ok(());
                }
            }
        }
    }

    /// Whether the page is an answer to a poll. That a link to Redis was away is none by itself: polls that
    /// change nodes would spin.
    #[must_use]
    pub fn answers(&self) -> bool {
        let says_more = |gap: Gap| gap.reason != GapReason::Link;
        !self.page.messages.is_empty() || self.page.start.gap.is_some_and(says_more)
    }

    /// Leads the channel to where the page ends that has no messages; a gap waits for what answers the poll.
    pub fn begin_waiting(&self) {
        let start = &self.page.start;
        match start.gap {
            Some(gap) => {
                self.outbox.set_position(self.slot, gap.from);
                self.outbox.tell(self.slot, self.channel(), gap, self.gateway.metrics());
            }
            None => self.outbox.set_position(self.slot, start.after),
        }
    }

    /// Hears live messages from now on, if the page was the last one.
    pub fn go_live(&self) -> Seam {
        self.topic.go_live(self.key, self.gateway.metrics())
    }

    /// Reads a page from where the channel stands.
    ///
    /// # Errors
    /// The broker's.
    pub async fn read_again(&mut self) -> Result<(), Fault> {
        let after = self.outbox.position(self.slot).unwrap_or(self.page.top);
        let since = Since::Position(after);
        self.page = self.gateway.read_on(&self.outbox, &self.topic, &since).await?;
        Ok(())
    }

    /// The messages of the first page, for who writes them itself.
    pub fn take_messages(&mut self) -> Vec<Arc<Publication>> {
        std::mem::take(&mut self.page.messages)
    }

    fn hand_over(&mut self) -> Result<(), Disconnect> {
        let messages = self.take_messages();
        if messages.is_empty() {
            return Ok(());
        }
        self.gateway.metrics().replayed(messages.len());
        let batch = Batch::replayed(messages.into_iter().map(Prepared::new).collect());
        let offered = self.outbox.offer(self.slot, &batch, 0, self.gateway.metrics());
        offered.map_err(|Hole| Disconnect::Internal)
    }

    /// Says that messages are missing. One that opens between two pages of a replay was made by the reader:
    /// what it had yet to read has left the history.
    fn tell(&self, gap: Gap, first: bool) -> Result<(), Disconnect> {
        let metrics = self.gateway.metrics();
        let too_slow = !first && gap.reason == GapReason::Trimmed;
        if too_slow && self.topic.namespace().slow == Slow::Disconnect {
            self.outbox.set_position(self.slot, gap.from);
            metrics.slow_disconnected();
            return Err(Disconnect::Slow);
        }
        metrics.gap(gap.reason);
        if says_gaps(self.outbox.style().encoding) {
            let channel = self.channel();
            self.outbox.say(&Object::Gap { channel, gap }, true, metrics);
            Ok(())
        } else {
            Err(Disconnect::Gap)
        }
    }
}

/// Counts a catch-up for as long as it lives.
struct InFlight(Arc<Metrics>);

impl InFlight {
    fn new(gateway: &Gateway) -> Self {
        gateway.metrics().catching_up().inc();
        Self(Arc::clone(gateway.metrics()))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.catching_up().dec();
    }
}

/// Whether a format can say that messages are missing; where it cannot, the connection ends.
#[must_use]
pub fn says_gaps(encoding: Encoding) -> bool {
    !matches!(encoding, Encoding::WebSocket { raw: true } | Encoding::Ndjson { raw: true })
}

/// Waits until a replay may hand over more. `false`: the connection ends first.
async fn room(outbox: &Outbox) -> bool {
    std::future::poll_fn(|cx| {
        outbox.watch(cx);
        if outbox.ending().is_some() {
            Poll::Ready(false)
        } else if outbox.has_room() {
            Poll::Ready(true)
        } else {
            Poll::Pending
        }
    })
    .await
}

/// The position that a closing raw connection comes back with.
#[must_use]
pub fn resume_hint(position: Option<Position>) -> String {
    position.map_or_else(String::new, |p| p.to_string())
}

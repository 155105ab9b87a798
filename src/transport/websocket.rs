//! The WebSocket dialogue: commands in, answers in their order; in raw format a plain two-way socket.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::time::Instant;

use super::{Done, Work, goodbye, pulse::Pulse};
use crate::{
    auth::{Action, token::Claims},
    channel::Channel,
    disconnect::Disconnect,
    fault::{Code, Fault},
    gateway::Gateway,
    hub::{Outbox, Style},
    metrics::{RateScope, Route, StatusClass},
    payload,
    position::{CLOCK_SKEW, Position, Since},
    publication::{Draft, Payload, Receipt},
    session::{self, CatchUp, Session, resume_hint},
    wire::{
        Command, Object, Reference, Refusal, UnsubscribedCode, command,
        websocket::{self, Incoming, Reader},
    },
};

/// So many frames within [`BAD_WINDOW`] that were no commands, and the client is taken for broken.
const BAD_FRAMES: usize = 20;
const BAD_WINDOW: Duration = Duration::from_secs(60);

/// A client that is held back for so long without a break is sent away.
const HELD_BACK: Duration = Duration::from_secs(10);

/// What the server remembers of what a client said. Small while the client is silent.
#[derive(Debug)]
pub struct Dialogue {
    raw: bool,
    reader: Reader,
    /// Bytes that came while a command was under way.
    stash: Vec<u8>,
    /// When frames came that were no commands.
    bad: VecDeque<Instant>,
    pace: Pace,
    /// The client's close code, to be echoed.
    closed: Option<u16>,
}

/// Where each channel of the URL starts.
pub fn open(channels: &[CatchUp]) {
    channels.iter().for_each(|channel| channel.announce(None, false));
}

/// A ping.
pub fn heartbeat(session: &Session) {
    session.outbox().send(websocket::ping(), session.metrics());
}

impl Dialogue {
    /// A new one, at `rate` commands a second.
    #[must_use]
    pub fn new(raw: bool, rate: Option<u32>) -> Self {
        Self {
            raw,
            reader: Reader::default(),
            stash: Vec::new(),
            bad: VecDeque::new(),
            pace: Pace::new(rate),
            closed: None,
        }
    }

    /// Keeps bytes for later.
    pub fn stash(&mut self, bytes: &[u8]) {
        self.stash.extend_from_slice(bytes);
    }

    /// The bytes that were kept, if any.
    pub fn take_stash(&mut self) -> Option<Vec<u8>> {
        (!self.stash.is_empty()).then(|| std::mem::take(&mut self.stash))
    }

    /// Obeys what the client sent, up to the first command that takes time: its work is returned, and what
    /// follows it is stashed.
    pub(super) fn input(
        &mut self,
        mut bytes: &[u8],
        session: &mut Session,
        pulse: &mut Pulse,
    ) -> Result<Option<Work>, Disconnect> {
        let limit = session.gateway().config().limits.frame;
        let mut work = None;
        while work.is_none() && !pulse.is_paused() {
            let Some(incoming) = self.reader.read(&mut bytes, limit)? else {
                return Ok(None);
            };
            if let Some(until) = self.pace.charge(Instant::now())? {
                session.metrics().rate_limited(RateScope::Commands);
                pulse.pause(until);
            }
            work = self.obey(incoming, session)?;
        }
        self.stash(bytes);
        Ok(work)
    }

    fn obey(&mut self, incoming: Incoming, session: &mut Session) -> Result<Option<Work>, Disconnect> {
        match incoming {
            Incoming::Text(text) if self.raw => raw_publish(session, payload::from_socket_text(text)),
            Incoming::Binary(bytes) if self.raw => raw_publish(session, payload::binary(bytes)),
            Incoming::Binary(_) => Err(Disconnect::UnwantedData),
            Incoming::Text(text) => match command::parse(&text) {
                Ok((command, reference)) => Ok(self.command(command, reference, session)),
                Err(refusal) => self.refuse(&refusal, session).map(|()| None),
            },
            Incoming::Ping(bytes) => {
                session.outbox().send(websocket::pong(&bytes), session.metrics());
                Ok(None)
            }
            Incoming::Pong => Ok(None),
            Incoming::Close(code) => {
                self.closed = code.map(|(code, _)| code);
                Err(Disconnect::Client)
            }
        }
    }

    fn refuse(&mut self, refusal: &Refusal, session: &Session) -> Result<(), Disconnect> {
        if refusal.malformed {
            let now = Instant::now();
            self.bad.retain(|then| now.duration_since(*then) < BAD_WINDOW);
            self.bad.push_back(now);
            if self.bad.len() >= BAD_FRAMES {
                return Err(Disconnect::BadRequest);
            }
        }
        error(session, &refusal.fault, refusal.reference.as_ref());
        Ok(())
    }

    fn command(
        &mut self,
        command: Command,
        reference: Option<Reference>,
        session: &mut Session,
    ) -> Option<Work> {
        let reference_ = reference.as_ref();
        match command {
            Command::Subscribe { channel, since } => match may_subscribe(session, &channel, &since) {
                Ok(()) => return Some(subscribe(session, channel, since, reference)),
                Err(fault) => error(session, &fault, reference_),
            },
            Command::Unsubscribe { channel } => {
                if session.leave(&channel) {
                    let code = UnsubscribedCode::Requested;
                    say(session, &Object::Unsubscribed { channel: &channel, code, reference: reference_ });
                } else {
                    let fault = Fault::new(
                        Code::NotSubscribed,
                        format!("this connection does not listen to `{channel}`"),
                    );
                    error(session, &fault, reference_);
                }
            }
            Command::Publish { channel, payload, event, idempotency_key } => {
                let draft = Draft { payload, event, idempotency_key, trace: None };
                match session.authorize(Action::Publish, &channel) {
                    Ok(()) => return Some(publish(session, channel, draft, reference)),
                    Err(fault) => {
                        session.metrics().publish_answered(Route::WebSocket, StatusClass::ClientError);
                        error(session, &fault, reference_);
                    }
                }
            }
            Command::Authenticate { token } => return Some(verify(session, token, reference)),
            Command::Ping => say(session, &Object::Pong { reference: reference_ }),
        }
        None
    }

    /// Why the connection ends, in an object where the format has one, and in the close frame.
    #[must_use]
    pub fn farewell(&self, reason: Disconnect, position: Option<Position>, style: Style) -> Vec<Bytes> {
        if reason == Disconnect::Client {
            return vec![
                self.closed
                    .map_or_else(websocket::empty_close_frame, |code| websocket::close_frame(code, "")),
            ];
        }
        let mut last = Vec::new();
        let after = reason.reconnect_after();
        if reason.says_goodbye() {
            last.extend(goodbye(reason, after, style));
        }
        let name = reason.name();
        let text = match (reason, after) {
            (Disconnect::Gap, _) => format!("{name} {}", resume_hint(position)),
            (Disconnect::Slow, _) if self.raw => format!("{name} {}", resume_hint(position)),
            (_, Some(after)) => format!("{name} {}", after.as_millis()),
            (_, None) => name.to_owned(),
        };
        last.push(websocket::close_frame(reason.close_code(), &text));
        last
    }
}

fn say(session: &Session, object: &Object<'_>) {
    session.outbox().say(object, false, session.metrics());
}

fn error(session: &Session, fault: &Fault, reference: Option<&Reference>) {
    say(session, &Object::Error { fault, reference });
}

fn may_subscribe(session: &Session, channel: &Channel, since: &Since) -> Result<(), Fault> {
    let limit = session.gateway().config().limits.channels_per_connection;
    if session.subscriptions().iter().any(|s| s.channel() == channel) {
        let detail = format!("this connection listens to `{channel}` already");
        return Err(Fault::new(Code::AlreadySubscribed, detail));
    }
    if session.subscriptions().len() >= limit {
        let detail = format!("a connection may have {limit} channels (limits.channels_per_connection)");
        return Err(Fault::new(Code::TooManyChannels, detail).limit(limit));
    }
    let now = session.gateway().now_seconds();
    if since.is_to_come(now) {
        let detail = format!("`since` names a second more than {CLOCK_SKEW} s from now, which is {now}");
        return Err(Fault::new(Code::InvalidSince, detail).parameter("since"));
    }
    session.authorize(Action::Subscribe, channel)
}

/// The work of a `subscribe`: attach, say so, catch up.
fn subscribe(session: &Session, channel: Channel, since: Since, reference: Option<Reference>) -> Work {
    let (gateway, outbox) = (session.gateway().clone(), Arc::clone(session.outbox()));
    Box::pin(async move {
        match session::attach(&gateway, &outbox, &channel, &since).await {
            Ok((subscription, catch_up)) => {
                catch_up.announce(reference.as_ref(), false);
                catch_up.run().await?;
                Ok(Done::Subscribed(subscription))
            }
            Err(fault) => {
                answer(&gateway, &outbox, &Object::Error { fault: &fault, reference: reference.as_ref() });
                Ok(Done::Nothing)
            }
        }
    })
}

/// The work of an `authenticate`: whether the token holds. What follows from it is done by [`authenticate`].
fn verify(session: &Session, token: String, reference: Option<Reference>) -> Work {
    let auth = session.gateway().auth().clone();
    Box::pin(async move { Ok(Done::Verified(auth.claims(&token).await, reference)) })
}

/// Takes a token that holds, and leaves the channels that it does not grant. One that does not hold is answered by an
/// error, and the one before it counts on. Whether it was taken.
pub(super) fn authenticate(
    session: &mut Session,
    verified: Result<Option<Claims>, Fault>,
    reference: Option<&Reference>,
) -> Result<bool, Disconnect> {
    let claims = match verified {
        Ok(Some(claims)) => claims,
        // There is nobody to be.
        Ok(None) => {
            say(session, &Object::Authenticated { subject: None, expires_at: None, reference });
            return Ok(false);
        }
        Err(fault) => {
            error(session, &fault, reference);
            return Ok(false);
        }
    };
    let (subject, expires_at) = (claims.subject.clone(), claims.expires_at.saturating_mul(1000));
    match session.authenticate(claims) {
        Ok(lost) => {
            let (subject, expires_at) = (Some(&*subject), Some(expires_at));
            say(session, &Object::Authenticated { subject, expires_at, reference });
            for channel in &lost {
                let code = UnsubscribedCode::Forbidden;
                say(session, &Object::Unsubscribed { channel, code, reference: None });
            }
            Ok(true)
        }
        Err(fault) => {
            error(session, &fault, reference);
            match fault.code {
                Code::TooManyConnections => Err(Disconnect::Overloaded),
                _ => Ok(false),
            }
        }
    }
}

fn publish(session: &Session, channel: Channel, draft: Draft, reference: Option<Reference>) -> Work {
    let (gateway, outbox) = (session.gateway().clone(), Arc::clone(session.outbox()));
    Box::pin(async move {
        let reference = reference.as_ref();
        match counted_publish(&gateway, &channel, draft).await {
            Ok(receipt) => {
                let (id, duplicate) = (receipt.position, receipt.duplicate);
                answer(&gateway, &outbox, &Object::Published { channel: &channel, id, duplicate, reference });
            }
            Err(fault) => answer(&gateway, &outbox, &Object::Error { fault: &fault, reference }),
        }
        Ok(Done::Nothing)
    })
}

async fn counted_publish(gateway: &Gateway, channel: &Channel, draft: Draft) -> Result<Receipt, Fault> {
    let outcome = gateway.publish(channel, draft).await;
    let class = match &outcome {
        Ok(_) => StatusClass::Success,
        Err(fault) if fault.code.is_the_servers() => StatusClass::ServerError,
        Err(_) => StatusClass::ClientError,
    };
    gateway.metrics().publish_answered(Route::WebSocket, class);
    outcome
}

fn answer(gateway: &Gateway, outbox: &Outbox, object: &Object<'_>) {
    outbox.say(object, false, gateway.metrics());
}

/// A raw socket publishes to its one channel. It has no object to be told an error with.
fn raw_publish(session: &Session, payload: Payload) -> Result<Option<Work>, Disconnect> {
    let Some(subscription) = session.subscriptions().first() else {
        return Err(Disconnect::Internal);
    };
    let (gateway, channel) = (session.gateway().clone(), subscription.channel().clone());
    if session.authorize(Action::Publish, &channel).is_err() {
        session.metrics().publish_answered(Route::WebSocket, StatusClass::ClientError);
        return Err(Disconnect::Forbidden);
    }
    let draft = Draft { payload, event: None, idempotency_key: None, trace: None };
    Ok(Some(Box::pin(async move {
        match counted_publish(&gateway, &channel, draft).await {
            Ok(_) => Ok(Done::Nothing),
            Err(fault) => Err(match fault.code {
                Code::MessageTooLarge => Disconnect::TooBig,
                // Others feed this channel.
                Code::Forbidden => Disconnect::Forbidden,
                _ => Disconnect::Overloaded,
            }),
        }
    })))
}

/// The rate of a client's frames: one second's worth at once, then evenly (GCRA).
#[derive(Debug)]
struct Pace {
    /// Between two frames; `None`: as fast as they come.
    interval: Option<Duration>,
    /// When the frames so far would have come at the even rate.
    due: Instant,
    /// Held back without a break since then.
    held_back: Option<Instant>,
}

impl Pace {
    const BURST: Duration = Duration::from_secs(1);

    fn new(rate: Option<u32>) -> Self {
        Self {
            interval: rate.map(|rate| Duration::from_secs(1) / rate),
            due: Instant::now(),
            held_back: None,
        }
    }

    /// Counts a frame, and says when the next may be read, where that is not at once.
    fn charge(&mut self, now: Instant) -> Result<Option<Instant>, Disconnect> {
        let Some(interval) = self.interval else {
            return Ok(None);
        };
        self.due = self.due.max(now) + interval;
        let ahead = self.due - now;
        if ahead <= Self::BURST / 2 {
            self.held_back = None;
        }
        if ahead <= Self::BURST {
            return Ok(None);
        }
        let since = *self.held_back.get_or_insert(now);
        if now.duration_since(since) >= HELD_BACK {
            return Err(Disconnect::RateLimited);
        }
        Ok(Some(self.due - Self::BURST))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_burst_is_read_at_the_even_rate_and_refused_nothing() {
        let mut pace = Pace::new(Some(50));
        let mut now = Instant::now();
        let start = now;
        for _ in 0..300 {
            if let Some(until) = pace.charge(now).unwrap() {
                now = until;
            }
        }
        let took = (now - start).as_secs_f64();
        assert!((4.9..=5.1).contains(&took), "{took}");
        assert_eq!(pace.charge(now + Duration::from_secs(2)), Ok(None));
        assert_eq!(pace.held_back, None);
    }

    #[tokio::test(start_paused = true)]
    async fn who_never_slows_down_for_10_s_is_sent_away() {
        let mut pace = Pace::new(Some(50));
        let mut now = Instant::now();
        let start = now;
        let end = loop {
            match pace.charge(now) {
                Ok(Some(until)) => now = until,
                Ok(None) => {}
                Err(reason) => break reason,
            }
        };
        assert_eq!(end, Disconnect::RateLimited);
        assert!((now - start) >= HELD_BACK);
    }
}

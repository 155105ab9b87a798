//! Reading a log. Redis says what it knows of it and sends what follows; where reading starts, and what is
//! missing, is for [`resume`] to say, as for every broker.

use std::sync::Arc;

use bytes::Bytes;

use super::{Call, Functions, LARGEST, number, reply::Reply};
use crate::{
    broker::{Page, Replay, redis::command::CommandError},
    channel::Channel,
    config::History,
    gap::{Gap, GapReason, Recovery},
    position::{Epoch, Position, Since},
    publication::Publication,
    resume::{LogView, Start, resume},
    wire::envelope::{self, Kind},
};

/// A piece of a history, and what Redis said with it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Read {
    /// The piece.
    pub replay: Replay,
    /// The offset of the oldest message kept; the next one where none is.
    pub floor: u64,
    /// Milliseconds since 1970 by the clock of Redis.
    pub now_ms: u64,
    /// Entries that are none of Tidegate's or are missing. What they were is a gap.
    pub damaged: usize,
}

/// What Redis knows of a log, and the entries that it sent.
struct Answer {
    epoch: Option<Epoch>,
    top: u64,
    floor: u64,
    deleted_to: u64,
    past: Vec<(Epoch, u64)>,
    now_ms: u64,
    second: u64,
    began: u64,
    vouch_from: u64,
    removed: u64,
    oldest_since: u64,
    more: bool,
    entries: Vec<Bytes>,
}

impl Functions {
    /// What is kept from `since` on, at one moment.
    ///
    /// # Errors
    /// What became of the command.
    pub async fn read(
        &self,
        link: &impl Call,
        channel: &Channel,
        history: &History,
        since: &Since,
        page: Page,
    ) -> Result<Read, CommandError> {
        let answer = self.fetch(link, channel, history, since, page).await?;
        let mut pieces = Pieces::of(channel, answer, since);
        // Entries may be damaged for longer than a page.
        while pieces.is_lost() {
            let from = Since::Position(pieces.read.replay.start.after);
            pieces.go_on(channel, self.fetch(link, channel, history, &from, page).await?);
        }
        Ok(pieces.read)
    }

    async fn fetch(
        &self,
        link: &impl Call,
        channel: &Channel,
        history: &History,
        since: &Since,
        page: Page,
    ) -> Result<Answer, CommandError> {
        let partition = self.names.partition(channel);
        let keys = vec![
            self.names.meta(partition, channel),
            self.names.log(partition, channel),
            self.names.state(partition),
        ];
        let (kind, one, two) = match since {
            Since::Latest => ("latest", "".into(), number(0)),
            Since::Earliest => ("earliest", "".into(), number(0)),
            Since::Last(n) => ("last", number(n.get()), number(0)),
            Since::Position(Position::At(epoch, offset)) => {
                ("position", epoch.as_str().into(), number(*offset))
            }
            Since::Position(Position::Empty(second)) => ("second", "".into(), number(*second)),
        };
        let arguments = vec![
            number(history.messages as u64),
            number(history.bytes as u64),
            number(crate::clock::millis(history.age)),
            kind.into(),
            one,
            two,
            number(page.messages as u64),
            number(page.bytes as u64),
        ];
        Answer::parse(self.ask(link, "tidegate_1_read", keys, arguments).await?)
    }
}

impl Answer {
    fn parse(mut reply: Reply) -> Result<Self, CommandError> {
        let mut answer = Self {
            epoch: reply.epoch()?,
            top: reply.number()?,
            floor: reply.number()?,
            deleted_to: reply.number()?,
            past: past(&reply.text()?),
            now_ms: reply.number()?,
            second: reply.number()?,
            began: reply.number()?,
            vouch_from: reply.number()?,
            removed: reply.number()?,
            oldest_since: reply.number()?,
            more: reply.flag()?,
            entries: Vec::new(),
        };
        if answer.top > LARGEST || answer.floor == 0 || answer.floor > answer.top + 1 {
            return Err(reply.strange());
        }
        while !reply.is_over() {
            answer.entries.push(reply.bytes()?);
        }
        Ok(answer)
    }

    fn start(&self, since: &Since) -> (Start, Position) {
        let oldest_since = |_| self.oldest_since.max(self.floor);
        let view = LogView {
            epoch: self.epoch,
            top: self.top,
            floor: self.floor,
            deleted_to: self.deleted_to,
            past: &self.past,
            now: self.second,
            began: self.began,
            vouch_from: self.vouch_from,
            removed: self.removed,
            oldest_since: &oldest_since,
        };
        (resume(since, &view), view.top())
    }
}

/// Earlier epochs: `epoch:end,epoch:end,`.
fn past(text: &str) -> Vec<(Epoch, u64)> {
    let parse = |one: &str| {
        let (epoch, end) = one.split_once(':')?;
        Some((epoch.parse().ok()?, end.parse().ok()?))
    };
    text.split(',').filter_map(parse).collect()
}

/// A read in the making: entries are taken while each is the next one.
struct Pieces {
    read: Read,
    keyword: bool,
    /// Only damage was found so far, and more is kept.
    lost: bool,
}

impl Pieces {
    fn of(channel: &Channel, answer: Answer, since: &Since) -> Self {
        let (start, top) = answer.start(since);
        let replay = Replay { start, messages: Vec::new(), more: false, top };
        let read = Read { replay, floor: answer.floor, now_ms: answer.now_ms, damaged: 0 };
        let keyword = !matches!(since, Since::Position(_));
        let mut pieces = Self { read, keyword, lost: false };
        pieces.take(channel, answer);
        pieces
    }

    fn is_lost(&self) -> bool {
        self.lost
    }

    fn go_on(&mut self, channel: &Channel, answer: Answer) {
        let (start, top) = answer.start(&Since::Position(self.read.replay.start.after));
        self.lost = false;
        self.read.replay.top = top;
        if start.after != self.read.replay.start.after {
            self.skip_to(start.after);
        }
        self.take(channel, answer);
    }

    fn take(&mut self, channel: &Channel, answer: Answer) {
        let Some(epoch) = answer.epoch else { return };
        let count = answer.entries.len() as u64;
        let from = self.read.replay.start.after.offset();
        let mut at = from;
        for entry in answer.entries {
            let message = open(channel, epoch, entry);
            match message {
                Some(message) if message.offset <= at => {}
                Some(message) if message.offset == at + 1 => {
                    at += 1;
                    self.read.replay.messages.push(Arc::new(message));
                }
                // What comes after a hole is for the next read, which begins with it.
                _ if at > from => {
                    self.read.replay.more = true;
                    return;
                }
                Some(message) => {
                    self.read.damaged += usize::try_from(message.offset - at - 1).unwrap_or(usize::MAX);
                    at = message.offset;
                    self.skip_to(Position::At(epoch, at - 1));
                    self.read.replay.messages.push(Arc::new(message));
                    self.read.replay.more = at < answer.top;
                    return;
                }
                None => {}
            }
        }
        self.read.replay.more = at < answer.top;
        if at > from || from >= answer.top {
            return;
        }
        // Nothing but damage, or less than Redis said there is.
        let to = if answer.more { (from + count.max(1)).min(answer.top) } else { answer.top };
        self.read.damaged += usize::try_from(to - from).unwrap_or(usize::MAX);
        self.skip_to(Position::At(epoch, to));
        self.lost = to < answer.top;
        self.read.replay.more = false;
    }

    /// Goes on after `to`; what is left out is told, where somebody gave a position.
    fn skip_to(&mut self, to: Position) {
        let start = &mut self.read.replay.start;
        start.after = to;
        if self.keyword {
            start.position = to;
        } else {
            let reason = start.gap.map_or(GapReason::Trimmed, |gap| gap.reason);
            start.gap = Some(Gap { reason, from: start.position, to });
            start.recovery = Recovery::Gap;
        }
    }
}

/// The message in an entry of a log that counts in `epoch`.
fn open(channel: &Channel, epoch: Epoch, entry: Bytes) -> Option<Publication> {
    let envelope = envelope::decode(entry).ok().filter(|envelope| envelope.kind == Kind::Message)?;
    Some(envelope.in_epoch(channel, epoch))
}

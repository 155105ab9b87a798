//! A subscriber: where it stands, the seam between what it read and what it hears, and the oracle that holds
//! what it got against what was accepted.

use super::{
    super::Step,
    redis::{Redis, Uid, uid_of},
};
use crate::{
    broker::Replay,
    gap::{Gap, GapReason},
    position::{Advance, Position, Since},
    publication::Publication,
};

/// Where it is.
pub(super) enum Place {
    Away,
    /// It waits until the node has the channel.
    Waiting {
        node: usize,
    },
    /// A page was asked for; what comes meanwhile is held for it.
    Reading {
        node: usize,
        held: Vec<Step>,
    },
    Live {
        node: usize,
    },
}

/// What was told between two messages.
struct Told {
    gap: Gap,
    /// Nothing need be missing: the rules list what happened.
    is_excused: bool,
    /// What a read would have found then.
    kept: Vec<Uid>,
}

pub(super) struct Client {
    pub(super) place: Place,
    pub(super) since: Since,
    position: Option<Position>,
    /// The last message that it got; none after it was told to begin anew.
    last: Uid,
    /// All up to here it has got, was told of, or never asked for.
    through: Uid,
    /// What was accepted when its life began may come or not.
    accepted: Uid,
    /// Since `through`.
    told: Vec<Told>,
    /// What a change of epoch took away: all before the first, but for these that were kept.
    taken: (Uid, Vec<Uid>),
}

/// What it must do next.
#[must_use]
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Next {
    Nothing,
    /// Read from its position.
    Read,
}

type Outcome = Result<Next, String>;

impl Client {
    pub(super) fn new() -> Self {
        Self {
            place: Place::Away,
            since: Since::Latest,
            position: None,
            last: 0,
            through: 0,
            accepted: 0,
            told: Vec::new(),
            taken: (0, Vec::new()),
        }
    }

    pub(super) fn node(&self) -> Option<usize> {
        match self.place {
            Place::Away => None,
            Place::Waiting { node } | Place::Reading { node, .. } | Place::Live { node } => Some(node),
        }
    }

    pub(super) fn is_live(&self) -> bool {
        matches!(self.place, Place::Live { .. })
    }

    /// It goes, with its position.
    pub(super) fn leave(&mut self) {
        self.place = Place::Away;
    }

    /// The heartbeat of an event stream says of an empty channel that it still is.
    pub(super) fn renew(&mut self, position: Option<Position>) {
        if let (Some(Position::Empty(at)), Some(Position::Empty(second))) = (&mut self.position, position) {
            *at = second.max(*at);
            self.since = Since::Position(Position::Empty(*at));
        }
    }

    fn stand(&mut self, position: Position) {
        self.position = Some(position);
        self.since = Since::Position(position);
    }

    /// A page came, from the node or from the broker.
    pub(super) fn page(&mut self, replay: &Replay, redis: &Redis) -> Outcome {
        if self.position.is_none() {
            self.accepted = redis.accepted;
            self.through = redis.uid(replay.start.after).unwrap_or(0);
        }
        match replay.start.gap {
            Some(gap) => self.tell(gap, redis),
            None => self.stand(replay.start.after),
        }
        for message in &replay.messages {
            if self.position.map(|p| p.advance(&message.position())) != Some(Advance::Next) {
                return Err(format!("page: {:?} does not follow {:?}", message.position(), self.position));
            }
            self.receive(message, redis)?;
        }
        if replay.more {
            return Ok(Next::Read);
        }
        let Place::Reading { node, held } = std::mem::replace(&mut self.place, Place::Away) else {
            return Err("a page for who did not ask".into());
        };
        self.place = Place::Live { node };
        for step in held {
            if self.hear(&step, redis)? == Next::Read {
                return Ok(Next::Read);
            }
        }
        Ok(Next::Nothing)
    }

    /// The node handed something on.
    pub(super) fn hear(&mut self, step: &Step, redis: &Redis) -> Outcome {
        match &mut self.place {
            Place::Reading { held, .. } => {
                held.push(step.clone());
                return Ok(Next::Nothing);
            }
            Place::Away | Place::Waiting { .. } => return Ok(Next::Nothing),
            Place::Live { .. } => {}
        }
        let Some(position) = self.position else {
            return Err("live without a position".into());
        };
        match step {
            Step::Deliver { publication, .. } => match position.advance(&publication.position()) {
                Advance::Duplicate => {}
                Advance::Next => self.receive(publication, redis)?,
                Advance::Gap | Advance::NewEpoch => return Ok(Next::Read),
            },
            Step::Gap(gap) if gap.from == position => self.tell(*gap, redis),
            // It read beyond it already.
            Step::Gap(gap) if gap.to == position || position.advance(&gap.to) == Advance::Duplicate => {}
            Step::Gap(_) => return Ok(Next::Read),
            Step::Read { .. } => {}
        }
        Ok(Next::Nothing)
    }

    fn tell(&mut self, gap: Gap, redis: &Redis) {
        let is_excused = match (gap.from, gap.to) {
            (Position::At(left, _), Position::At(epoch, _)) => left != epoch,
            (Position::At(..), Position::Empty(_)) => true,
            (Position::Empty(second), _) => redis.is_disturbed_since(second),
        };
        if gap.reason == GapReason::Reset {
            // Everything kept follows, what it has already too.
            self.last = 0;
        }
        if is_excused {
            // The gap stands before what was kept, what is lost may have come after it.
            self.taken = (redis.before_epoch(gap.to), redis.kept());
        }
        self.told.push(Told { gap, is_excused, kept: redis.kept() });
        self.stand(gap.to);
    }

    fn receive(&mut self, message: &Publication, redis: &Redis) -> Result<(), String> {
        let uid = uid_of(message);
        let id = message.position();
        if redis.uid(id) != Some(uid) {
            return Err(format!("{id} is {:?}, not {uid}", redis.uid(id)));
        }
        if uid <= self.last {
            return Err(format!("{uid} ({id}) came after {}: twice, or out of order", self.last));
        }
        self.last = uid;
        self.stand(id);
        if uid > self.through {
            self.account(uid, redis)?;
            self.through = uid;
        }
        Ok(())
    }

    /// Everything before `uid` that it did not get must be missing in truth, and have been told.
    fn account(&mut self, uid: Uid, redis: &Redis) -> Result<(), String> {
        let all = (self.through + 1..uid).filter(|uid| !redis.void.contains(uid));
        let is_taken = |uid: &Uid| *uid <= self.taken.0 && !self.taken.1.contains(uid);
        let missing: Vec<Uid> = all.clone().filter(|uid| !is_taken(uid)).collect();
        let told = std::mem::take(&mut self.told);
        let Some(last) = told.last() else {
            return match missing.iter().any(|uid| *uid > self.accepted) {
                false => Ok(()),
                true => Err(format!("{missing:?} lost in silence before {uid} at {:?}", self.position)),
            };
        };
        let is_excused = told.iter().any(|told| told.is_excused) || !redis.void.is_empty();
        if all.count() == 0 && !is_excused {
            return Err(format!("{:?} before {uid}, but nothing is missing", last.gap));
        }
        match missing.iter().find(|uid| last.kept.contains(uid)) {
            Some(kept) => Err(format!("{:?}, but {kept} was kept", last.gap)),
            None => Ok(()),
        }
    }

    /// Nothing more comes: it must have got, or been told of, all.
    pub(super) fn finish(&mut self, redis: &Redis) -> Result<(), String> {
        self.account(redis.accepted + 1, redis)?;
        self.through = redis.accepted;
        Ok(())
    }
}

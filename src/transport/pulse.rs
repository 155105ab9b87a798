//! A connection's clock: heartbeats, the wait for a sign of life, its age, a pause in reading, and a look
//! at what waits. One timer serves them all.

use std::time::Duration;

use tokio::time::Instant;

use crate::{config::Sessions, disconnect::Disconnect};

/// How often a connection with something waiting is looked at.
const LOOK: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Pulse {
    heartbeat: Duration,
    pong_timeout: Duration,
    beat: Instant,
    /// A ping is out; a byte must come before this.
    pong: Option<Instant>,
    /// The connection is ended at this moment.
    age: Option<Instant>,
    /// So long it may go on with the credential that it has shown, or has not, and why no longer.
    credential: Option<(Instant, Disconnect)>,
    /// No input is read before this.
    pause: Option<Instant>,
    /// Something waits for the client: look at it then.
    look: Option<Instant>,
}

/// A duration 10 % shorter or longer, so that connections that came together do not act together.
fn jittered(duration: Duration) -> Duration {
    duration.mul_f64(0.9 + 0.2 * fastrand::f64())
}

impl Pulse {
    pub(super) fn new(sessions: &Sessions) -> Self {
        let now = Instant::now();
        Self {
            heartbeat: sessions.heartbeat,
            pong_timeout: sessions.pong_timeout,
            beat: now + jittered(sessions.heartbeat),
            pong: None,
            credential: None,
            age: sessions.max_age.map(|age| now + jittered(age)),
            pause: None,
            look: None,
        }
    }

    /// When something is due.
    pub(super) fn next(&self) -> Instant {
        let credential = self.credential.map(|(end, _)| end);
        let others = [self.pong, self.age, credential, self.pause, self.look];
        others.into_iter().flatten().fold(self.beat, Instant::min)
    }

    /// Any byte is a sign of life.
    pub(super) fn heard(&mut self) {
        self.pong = None;
    }

    /// A ping is out.
    pub(super) fn pinged(&mut self, now: Instant) {
        self.pong.get_or_insert(now + self.pong_timeout);
    }

    /// No input is read before `until`.
    pub(super) fn pause(&mut self, until: Instant) {
        self.pause = Some(until);
        // What is not read cannot be heard.
        self.pong = None;
    }

    pub(super) fn is_paused(&self) -> bool {
        self.pause.is_some()
    }

    /// Ends the connection for a reason when so much time is over; `None`: its credential ends it no longer.
    pub(super) fn ends_in(&mut self, rest: Option<(Duration, Disconnect)>) {
        self.credential = rest.map(|(rest, reason)| (Instant::now() + rest, reason));
    }

    /// Whether something waits for the client.
    pub(super) fn waiting(&mut self, waits: bool) {
        match waits {
            true => _ = self.look.get_or_insert_with(|| Instant::now() + LOOK),
            false => self.look = None,
        }
    }

    /// Whether it is time to look at what waits.
    pub(super) fn stalled(&mut self, now: Instant) -> bool {
        let due = self.look.is_some_and(|look| look <= now);
        if due {
            self.look = Some(now + LOOK);
        }
        due
    }

    /// Whether a heartbeat is due, or the connection's time is over.
    pub(super) fn beat(&mut self, now: Instant) -> Result<bool, Disconnect> {
        let past = |moment: Option<Instant>| moment.is_some_and(|m| m <= now);
        if past(self.pause) {
            self.pause = None;
        }
        if past(self.pong) {
            return Err(Disconnect::Unresponsive);
        }
        match self.credential {
            Some((end, reason)) if end <= now => return Err(reason),
            _ => {}
        }
        if past(self.age) {
            return Err(Disconnect::MaxAge);
        }
        let due = self.beat <= now;
        if due {
            self.beat = now + jittered(self.heartbeat);
        }
        Ok(due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pulse(max_age: Option<Duration>) -> Pulse {
        Pulse::new(&Sessions {
            heartbeat: Duration::from_secs(25),
            pong_timeout: Duration::from_secs(10),
            max_age,
        })
    }

    #[tokio::test(start_paused = true)]
    async fn heartbeats_come_every_25_s_within_10_percent() {
        for _ in 0..100 {
            let mut pulse = pulse(None);
            let wait = pulse.next() - Instant::now();
            assert!((22.5..=27.5).contains(&wait.as_secs_f64()), "{wait:?}");
            let due = pulse.next();
            assert_eq!(pulse.beat(due - Duration::from_millis(1)), Ok(false));
            assert_eq!(pulse.beat(due), Ok(true));
            assert!(pulse.next() > due);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_unanswered_ping_ends_the_connection_and_any_byte_saves_it() {
        let mut pulse = pulse(None);
        let now = Instant::now();
        pulse.pinged(now);
        let late = now + Duration::from_secs(10);
        assert_eq!(pulse.next(), late);
        pulse.heard();
        assert_eq!(pulse.beat(late), Ok(false));
        pulse.pinged(now);
        assert_eq!(pulse.beat(late), Err(Disconnect::Unresponsive));
    }

    #[tokio::test(start_paused = true)]
    async fn a_connection_ends_with_its_credential_unless_that_is_renewed() {
        let now = Instant::now();
        let mut pulse = pulse(None);
        pulse.ends_in(Some((Duration::from_secs(5), Disconnect::Unauthorized)));
        assert_eq!(pulse.next(), now + Duration::from_secs(5));
        assert_eq!(pulse.beat(now + Duration::from_secs(5)), Err(Disconnect::Unauthorized));
        pulse.ends_in(Some((Duration::from_secs(60), Disconnect::TokenExpired)));
        pulse.beat(now + Duration::from_secs(59)).unwrap();
        assert_eq!(pulse.beat(now + Duration::from_secs(60)), Err(Disconnect::TokenExpired));
        pulse.ends_in(None);
        pulse.beat(now + Duration::from_secs(61)).unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn an_old_connection_ends_within_10_percent_of_the_limit() {
        let now = Instant::now();
        let mut pulse = pulse(Some(Duration::from_secs(10)));
        assert_eq!(pulse.beat(now + Duration::from_secs(9)), Ok(false));
        assert_eq!(pulse.beat(now + Duration::from_secs(11)), Err(Disconnect::MaxAge));
    }
}

//! The time of day that messages are stamped with: milliseconds since 1970 that never go back.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Instant, SystemTime, UNIX_EPOCH},
};

/// A clock, cheap to clone. Tests hand in their own, so that nobody waits for one.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> u64 + Send + Sync>);

impl Clock {
    /// The machine's clock. It follows a step forwards (a laptop that slept); a step backwards leaves it
    /// ahead until the process ends, since positions of empty channels are compared by it.
    #[must_use]
    pub fn system() -> Self {
        let started = Instant::now();
        let offset = AtomicU64::new(0);
        Self(Arc::new(move || {
            let elapsed = millis(started.elapsed());
            let wall = millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default());
            let ahead = wall.saturating_sub(elapsed);
            elapsed + offset.fetch_max(ahead, Ordering::Relaxed).max(ahead)
        }))
    }

    /// A clock that says what `now` says: milliseconds since 1970, never going back.
    #[must_use]
    pub fn from_fn(now: impl Fn() -> u64 + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Milliseconds since 1970.
    #[must_use]
    pub fn now(&self) -> u64 {
        (self.0)()
    }
}

/// A duration in whole milliseconds, at most `u64::MAX`.
#[must_use]
pub fn millis(duration: std::time::Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Clock({})", self.now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_system_clock_is_near_the_machines_and_never_goes_back() {
        let clock = Clock::system();
        let wall = millis(SystemTime::now().duration_since(UNIX_EPOCH).unwrap());
        assert!(clock.now().abs_diff(wall) < 1000);
        let mut last = 0;
        for _ in 0..10_000 {
            let now = clock.now();
            assert!(now >= last);
            last = now;
        }
    }
}

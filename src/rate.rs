//! How often something may happen: a bucket that fills evenly, kept as one instant, so that it loses no fraction (GCRA).

use std::time::{Duration, Instant};

/// An even rate, and how far one may run ahead of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Between two.
    pub interval: Duration,
    /// So many intervals' worth may come at once.
    pub burst: Duration,
}

/// What is left of a [`Rate`]; full at first.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bucket {
    /// When it will be full again; `None`: it is.
    full_at: Option<Instant>,
}

impl Rate {
    /// So many a second, and as many at once.
    #[must_use]
    pub fn per_second(count: u32) -> Self {
        let second = Duration::from_secs(1);
        Self { interval: second / count.max(1), burst: second }
    }
}

impl Bucket {
    /// Takes one out; `false` where there is none, and then nothing is taken.
    pub fn take(&mut self, rate: Rate, now: Instant) -> bool {
        let full_at = self.full_at.map_or(now, |at| at.max(now)) + rate.interval;
        let is_there = full_at <= now + rate.burst;
        if is_there {
            self.full_at = Some(full_at);
        }
        is_there
    }

    /// Whether it is as if nothing had ever been taken.
    #[must_use]
    pub fn is_full(&self, now: Instant) -> bool {
        self.full_at.is_none_or(|at| at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn over_time_the_rate_is_kept_and_a_burst_is_a_burst() {
        let start = Instant::now();
        for (rate, tries_a_second) in [(1, 50), (7, 1000), (100, 333), (1000, 5000)] {
            let mut bucket = Bucket::default();
            let seconds = 60;
            let taken = (0..seconds * tries_a_second)
                .filter(|i| {
                    let now = start + Duration::from_secs(1) * *i / tries_a_second;
                    bucket.take(Rate::per_second(rate), now)
                })
                .count();
            let fair = (rate * seconds) as usize..=(rate * (seconds + 1)) as usize;
            assert!(fair.contains(&taken), "{rate}/s: {taken} in {seconds} s");
        }
        let rate = Rate { interval: Duration::from_secs(1), burst: Duration::from_secs(10) };
        let mut bucket = Bucket::default();
        assert_eq!((0..100).filter(|_| bucket.take(rate, start)).count(), 10);
        assert!(!bucket.is_full(start + Duration::from_millis(9_999)));
        assert!(bucket.is_full(start + Duration::from_secs(10)));
        assert!(!bucket.take(rate, start + Duration::from_millis(999)));
        assert!(bucket.take(rate, start + Duration::from_secs(1)));
    }
}

//! How many descriptors this process may have, and for how many clients they are enough.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors that are not clients': files, internal connections, those that are told there is no room.
const RESERVE: std::ops::RangeInclusive<usize> = 64..=1000;

/// Fewer are a default that nobody chose.
const FEW: usize = 4096;

/// The limit of this process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// How many there may be.
    pub count: usize,
}

impl Descriptors {
    /// After the soft limit was raised to the hard one.
    #[must_use]
    pub fn raised() -> Self {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        let granted = match setrlimit(Resource::Nofile, raised) {
            Ok(()) => limit.maximum,
            Err(_) => limit.current,
        };
        Self { count: granted.map_or(usize::MAX >> 8, |n| n as usize) }
    }

    /// How many are kept from clients.
    #[must_use]
    pub fn reserve(self) -> usize {
        (self.count / 20).clamp(*RESERVE.start(), *RESERVE.end())
    }

    /// For how many clients there is room.
    #[must_use]
    pub fn clients(self) -> usize {
        self.count.saturating_sub(self.reserve()).max(1)
    }

    /// Whether there are enough for `limits.connections`, or, without it, for a crowd.
    ///
    /// # Errors
    /// How many are missing, and what to do, in a sentence.
    pub fn are_enough(self, wanted: Option<usize>) -> Result<(), String> {
        let (count, clients) = (self.count, self.clients());
        let advice = "raise ulimit -n, or LimitNOFILE= of systemd";
        match wanted {
            Some(wanted) if wanted > clients => Err(format!(
                "this process may open {count} descriptors, enough for {clients} clients, and limits.connections is \
                 {wanted}: {advice}"
            )),
            None if count < FEW => Err(format!(
                "this process may open {count} descriptors, enough for {clients} clients: {advice}, or set \
                 limits.connections if they are enough"
            )),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn few_are_told_unless_fewer_are_wanted() {
        for (count, wanted, enough) in [
            (1024, None, false),
            (1024, Some(500), true),
            (1024, Some(1000), false),
            (65_536, None, true),
            (65_536, Some(70_000), false),
        ] {
            assert_eq!(Descriptors { count }.are_enough(wanted).is_ok(), enough, "{count} {wanted:?}");
        }
    }
}

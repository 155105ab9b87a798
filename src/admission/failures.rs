//! How many wrong keys have come from where.

use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use super::Address;
use crate::rate::{Bucket, Rate};

/// Somebody who mistypes a key, or forgets it in one of several services, stays under it.
const RATE: Rate = Rate { interval: Duration::from_secs(1), burst: Duration::from_secs(10) };

/// Addresses that are remembered at once: who has more of them could else fill the memory.
const ADDRESSES: usize = 4096;

/// See the module. Who has no address (a Unix socket) is one more.
#[derive(Debug, Default)]
pub(super) struct Failures(HashMap<Option<Address>, Bucket>);

impl Failures {
    /// Counts one; whether it is within the rate.
    pub(super) fn count(&mut self, address: Option<Address>, now: Instant) -> bool {
        if self.0.len() >= ADDRESSES {
            self.0.retain(|_, bucket| !bucket.is_full(now));
        }
        if self.0.len() >= ADDRESSES {
            self.0.clear();
        }
        self.0.entry(address).or_default().take(RATE, now)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use super::*;

    fn address(number: u32) -> Option<Address> {
        Some(IpAddr::from(Ipv4Addr::from_bits(number)).into())
    }

    #[test]
    fn an_address_may_fail_ten_times_at_once_and_then_once_a_second() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        let mut failed = |address, seconds| failures.count(address, start + Duration::from_secs(seconds));
        assert_eq!((0..100).filter(|_| failed(address(1), 0)).count(), 10);
        assert!(failed(address(2), 0), "it is another's");
        assert!(failed(None, 0));
        assert_eq!((0..100).filter(|_| failed(address(1), 3)).count(), 3);
    }

    #[test]
    fn the_memory_of_addresses_is_bounded() {
        let (mut failures, start) = (Failures::default(), Instant::now());
        for number in 0..20_000 {
            failures.count(address(number), start);
            assert!(failures.0.len() <= ADDRESSES);
        }
        failures.count(address(0), start + Duration::from_secs(3600));
        assert!(failures.0.len() <= ADDRESSES);
    }
}

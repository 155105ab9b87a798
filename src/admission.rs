//! Who may come in: connections in all, for each address, and how many a second. A [`Permit`] is held by
//! what it admits (an accepted socket, an HTTP/2 stream that subscribes) and gives its place back when
//! dropped. Also whether an address may show one more wrong key.

mod failures;

use std::{
    collections::{HashMap, hash_map::Entry},
    net::{IpAddr, Ipv6Addr},
    sync::Arc,
    time::Instant,
};

use parking_lot::Mutex;

use self::failures::Failures;
use crate::{
    metrics::Rejection,
    rate::{Bucket, Rate},
};

/// The limits; `None`: no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// Permits in all.
    pub total: Option<usize>,
    /// Permits for each IPv4 address or IPv6 /64.
    pub per_address: Option<usize>,
    /// Permits given out a second. As many may come at once.
    pub per_second: Option<u32>,
}

/// Why nobody else is let in now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// [`Limits::total`] is reached.
    Total,
    /// [`Limits::per_address`] is reached.
    Address,
    /// [`Limits::per_second`] is passed.
    Rate,
}

/// The door; clones share it.
#[derive(Clone, Debug)]
pub struct Admission(Arc<Inner>);

/// A place inside. It is given back on drop.
#[derive(Debug)]
pub struct Permit {
    admission: Admission,
    /// Whether it is one of [`Limits::total`].
    counts: bool,
    address: Option<Address>,
}

#[derive(Debug)]
struct Inner {
    limits: Limits,
    state: Mutex<State>,
    failures: Mutex<Failures>,
}

/// Bounded by the permits: an address without one has no entry.
#[derive(Debug, Default)]
struct State {
    total: usize,
    addresses: HashMap<Address, usize>,
    /// What is left of [`Limits::per_second`].
    bucket: Bucket,
}

/// What counts as one address: an IPv6 host has a /64 to itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Address(IpAddr);

impl From<IpAddr> for Address {
    fn from(address: IpAddr) -> Self {
        Self(match address.to_canonical() {
            IpAddr::V6(v6) => Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64).into(),
            v4 => v4,
        })
    }
}

impl Admission {
    /// A door with these limits.
    #[must_use]
    pub fn new(limits: Limits) -> Self {
        Self(Arc::new(Inner { limits, state: Mutex::default(), failures: Mutex::default() }))
    }

    /// Lets one in. A peer on a Unix socket has no address.
    ///
    /// # Errors
    /// Which limit stands against it. Who is refused costs the others nothing of their rate.
    pub fn try_admit(&self, address: Option<IpAddr>) -> Result<Permit, Refusal> {
        self.admit_at(address, Instant::now())
    }

    /// Lets in a client on the connection of a proxy, which was let in without an address: only the client's own
    /// limit stands against it.
    ///
    /// # Errors
    /// [`Refusal::Address`].
    pub fn try_admit_client(&self, address: Option<IpAddr>) -> Result<Permit, Refusal> {
        let address = self.counted(address);
        let mut state = self.0.state.lock();
        state.look(address, &self.0.limits)?;
        Ok(self.permit(&mut state, false, address))
    }

    fn admit_at(&self, address: Option<IpAddr>, now: Instant) -> Result<Permit, Refusal> {
        let Limits { total, per_second, .. } = self.0.limits;
        let address = self.counted(address);
        let mut state = self.0.state.lock();
        if total.is_some_and(|limit| state.total >= limit) {
            return Err(Refusal::Total);
        }
        state.look(address, &self.0.limits)?;
        if per_second.is_some_and(|rate| !state.bucket.take(Rate::per_second(rate), now)) {
            return Err(Refusal::Rate);
        }
        Ok(self.permit(&mut state, true, address))
    }

    fn counted(&self, address: Option<IpAddr>) -> Option<Address> {
        address.map(Address::from).filter(|_| self.0.limits.per_address.is_some())
    }

    fn permit(&self, state: &mut State, counts: bool, address: Option<Address>) -> Permit {
        state.total += usize::from(counts);
        if let Some(address) = address {
            *state.addresses.entry(address).or_default() += 1;
        }
        Permit { admission: self.clone(), counts, address }
    }

    /// [`Limits::total`], as a number.
    #[must_use]
    pub fn limit(&self) -> usize {
        self.0.limits.total.unwrap_or(usize::MAX)
    }

    /// Whether an address that has just shown a wrong key is told so. Else it has shown too many, and is told to wait;
    /// who shows a right one from there is served all the same.
    #[must_use]
    pub fn may_fail(&self, address: Option<IpAddr>) -> bool {
        self.0.failures.lock().count(address.map(Address::from), Instant::now())
    }

    /// Permits that are held now.
    #[must_use]
    pub fn held(&self) -> usize {
        let state = self.0.state.lock();
        state.total.max(state.addresses.values().sum())
    }
}

impl State {
    /// Whether there is room for the address.
    fn look(&self, address: Option<Address>, limits: &Limits) -> Result<(), Refusal> {
        let held = address.map_or(0, |address| self.addresses.get(&address).copied().unwrap_or(0));
        match limits.per_address {
            Some(limit) if address.is_some() && held >= limit => Err(Refusal::Address),
            _ => Ok(()),
        }
    }
}

impl Permit {
    /// One permit of two: of a proxy's connection, and of the client that it serves.
    #[must_use]
    pub fn and(mut self, mut other: Self) -> Self {
        // What both have stays with `other`, which gives it back now.
        if !self.counts {
            self.counts = std::mem::take(&mut other.counts);
        }
        if self.address.is_none() {
            self.address = other.address.take();
        }
        self
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        let mut state = self.admission.0.state.lock();
        state.total -= usize::from(self.counts);
        if let Some(address) = self.address
            && let Entry::Occupied(mut held) = state.addresses.entry(address)
        {
            *held.get_mut() -= 1;
            if *held.get() == 0 {
                held.remove();
            }
        }
    }
}

impl From<Refusal> for Rejection {
    fn from(refusal: Refusal) -> Self {
        match refusal {
            Refusal::Total => Self::Total,
            Refusal::Address => Self::Address,
            Refusal::Rate => Self::Rate,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn door(total: usize, per_address: usize, per_second: u32) -> Admission {
        Admission::new(Limits {
            total: Some(total).filter(|n| *n > 0),
            per_address: Some(per_address).filter(|n| *n > 0),
            per_second: Some(per_second).filter(|n| *n > 0),
        })
    }

    fn ip(text: &str) -> Option<IpAddr> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn a_place_that_is_given_back_can_be_taken_again() {
        let door = door(2, 0, 0);
        let first = door.try_admit(ip("10.0.0.1")).unwrap();
        let _second = door.try_admit(None).unwrap();
        assert_eq!(door.try_admit(None).unwrap_err(), Refusal::Total);
        drop(first);
        assert!(door.try_admit(None).is_ok());
        assert_eq!(door.held(), 1);
    }

    #[test]
    fn each_address_has_its_own_places_and_an_ipv6_host_is_a_64() {
        let door = door(0, 1, 0);
        let mut inside = Vec::new();
        for (address, refused) in [
            ("10.0.0.1", false),
            ("10.0.0.1", true),
            ("::ffff:10.0.0.1", true),
            ("10.0.0.2", false),
            ("2001:db8::1", false),
            ("2001:db8::ffff:1", true),
            ("2001:db8:0:1::1", false),
        ] {
            let admitted = door.try_admit(ip(address));
            assert_eq!(admitted.as_ref().err().is_some(), refused, "{address}");
            inside.extend(admitted);
        }
        inside.extend((0..5).map(|_| door.try_admit(None).unwrap()));
        drop(inside);
        assert_eq!(door.held(), 0);
        assert!(door.0.state.lock().addresses.is_empty());
    }

    #[test]
    fn clients_of_a_proxy_share_its_connections_and_not_its_address() {
        let door = door(2, 1, 0);
        let socket = door.try_admit(None).unwrap();
        let client = door.try_admit_client(ip("10.0.0.1")).unwrap();
        assert_eq!(door.try_admit_client(ip("10.0.0.1")).unwrap_err(), Refusal::Address);
        assert_eq!(door.try_admit(ip("10.0.0.1")).unwrap_err(), Refusal::Address);
        let other = door.try_admit_client(ip("10.0.0.2")).unwrap();
        assert_eq!(door.held(), 2);
        let both = client.and(socket);
        let second = door.try_admit(None).unwrap();
        assert_eq!(door.try_admit(None).unwrap_err(), Refusal::Total);
        drop(both);
        door.try_admit(ip("10.0.0.1")).unwrap();
        drop((other, second));
        assert_eq!(door.held(), 0);
        assert!(door.0.state.lock().addresses.is_empty());
    }

    #[test]
    fn after_a_silence_only_a_seconds_worth_comes_at_once() {
        let door = door(0, 0, 10);
        let start = Instant::now();
        for wait in [0, 3600] {
            let now = start + Duration::from_secs(wait);
            let admitted = (0..100).filter(|_| door.admit_at(None, now).is_ok()).count();
            assert_eq!(admitted, 10);
        }
    }

    #[test]
    fn who_is_refused_takes_no_token() {
        let door = door(1, 0, 2);
        let now = Instant::now();
        let permit = door.admit_at(None, now).unwrap();
        for _ in 0..10 {
            assert_eq!(door.admit_at(None, now).unwrap_err(), Refusal::Total);
        }
        drop(permit);
        assert!(door.admit_at(None, now).is_ok());
        assert_eq!(door.admit_at(None, now).unwrap_err(), Refusal::Rate);
    }
}

//! What a benchmark message carries, and how it is found again whatever a server wraps around it.
//!
//! A stamp is plain text that no framing has to escape, so one scan for its marker finds messages in WebSocket frames,
//! events, lines and documents alike, in any server's envelope. Pure; the framing itself is `framing`'s.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use memchr::memmem::Finder;

const MARKER: &str = "~bench~";
/// Marker, channel, sequence and time, the last three in hexadecimal of fixed width.
pub const STAMP_LENGTH: usize = MARKER.len() + 8 + 8 + 16;
/// Sequence numbers remembered beyond a hole, for each connection; past this the hole counts as lost for good.
const AHEAD: usize = 4096;

/// Identifies one message and says when it should have been sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Number of the channel.
    pub channel: u32,
    /// Number of the message within its channel, from 0.
    pub sequence: u32,
    /// The intended time of sending, in nanoseconds since 1970.
    pub sent: u64,
}

/// Nanoseconds since 1970 that never step back within a process, comparable between the processes of one machine.
#[derive(Clone, Copy)]
pub struct Clock {
    origin: Instant,
    since_1970: u64,
}

/// The search for the marker, prepared once: its tables would be most of what a connection weighs.
pub struct Marker(Finder<'static>);

/// Finds stamps in a connection's bytes, also those that are cut by the end of a read.
#[derive(Default)]
pub struct Scanner {
    cut: Vec<u8>,
}

/// The sequence numbers that one subscription has seen. Publishers run side by side, so small disorder is allowed.
#[derive(Default)]
pub struct Ledger {
    /// Everything below was seen.
    next: u32,
    /// Seen beyond `next`, sorted.
    ahead: Vec<u32>,
}

impl Stamp {
    /// A payload of `size` bytes that begins with this stamp; a stamp alone where `size` is less.
    pub fn payload(&self, size: usize) -> String {
        let Self { channel, sequence, sent } = self;
        format!("{:.<size$}", format!("{MARKER}{channel:08x}{sequence:08x}{sent:016x}"))
    }

    fn parse(digits: &[u8]) -> Option<Self> {
        let number = |range: std::ops::Range<usize>| {
            let text = std::str::from_utf8(digits.get(range)?).ok()?;
            u64::from_str_radix(text, 16).ok()
        };
        Some(Self { channel: number(0..8)? as u32, sequence: number(8..16)? as u32, sent: number(16..32)? })
    }
}

impl Clock {
    /// Starts from the system's clock.
    pub fn start() -> Self {
        let since_1970 = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { origin: Instant::now(), since_1970: since_1970.as_nanos() as u64 }
    }

    /// Now.
    pub fn now(&self) -> u64 {
        self.since_1970 + self.origin.elapsed().as_nanos() as u64
    }
}

impl Marker {
    /// The one there is.
    pub fn new() -> Self {
        Self(Finder::new(MARKER))
    }
}

impl Scanner {
    /// Calls `found` for each stamp that is complete with these bytes.
    pub fn scan(&mut self, marker: &Marker, bytes: &[u8], mut found: impl FnMut(Stamp)) {
        if self.cut.is_empty() {
            let cut = scan(marker, bytes, &mut found);
            self.cut.extend_from_slice(cut);
        } else {
            let mut joined = std::mem::take(&mut self.cut);
            joined.extend_from_slice(bytes);
            self.cut = scan(marker, &joined, &mut found).to_vec();
        }
    }
}

/// Scans all of `bytes` and returns the end of it that may be the beginning of a stamp.
fn scan<'a>(marker: &Marker, bytes: &'a [u8], found: &mut impl FnMut(Stamp)) -> &'a [u8] {
    let mut rest = bytes;
    while let Some(at) = marker.0.find(rest) {
        let Some((stamp, after)) = rest[at..].split_at_checked(STAMP_LENGTH) else {
            return &rest[at..];
        };
        if let Some(stamp) = Stamp::parse(&stamp[MARKER.len()..]) {
            found(stamp);
        }
        rest = after;
    }
    let marker = MARKER.as_bytes();
    let cut = (1..marker.len()).rev().find(|&length| rest.ends_with(&marker[..length])).unwrap_or(0);
    &rest[rest.len() - cut..]
}

impl Ledger {
    /// Whether this number is seen for the first time.
    pub fn admit(&mut self, sequence: u32) -> bool {
        if sequence == self.next {
            self.next += 1;
            self.close_up();
            return true;
        }
        let Err(place) = self.ahead.binary_search(&sequence) else {
            return false;
        };
        if sequence < self.next {
            return false;
        }
        self.ahead.insert(place, sequence);
        if self.ahead.len() > AHEAD {
            self.next = self.ahead[0];
            self.close_up();
        }
        true
    }

    fn close_up(&mut self) {
        let run = self.ahead.iter().zip(self.next..).take_while(|(seen, next)| *seen == next).count();
        self.ahead.drain(..run);
        self.next += run as u32;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamps(count: u32) -> Vec<Stamp> {
        (0..count).map(|sequence| Stamp { channel: 7, sequence, sent: 1_790_000_000_123_456_789 }).collect()
    }

    #[test]
    fn a_payload_has_the_size_asked_for_and_never_less_than_its_stamp() {
        let stamp = stamps(1)[0];
        assert_eq!(stamp.payload(100).len(), 100);
        assert_eq!(stamp.payload(0).len(), STAMP_LENGTH);
    }

    #[test]
    fn stamps_are_found_wherever_the_reads_are_cut() {
        let (marker, sent) = (Marker::new(), stamps(3));
        let text: String = sent.iter().map(|stamp| format!("data: {}~b\n\n", stamp.payload(60))).collect();
        for cut in 0..text.len() {
            let mut scanner = Scanner::default();
            let mut seen = Vec::new();
            scanner.scan(&marker, &text.as_bytes()[..cut], |stamp| seen.push(stamp));
            scanner.scan(&marker, &text.as_bytes()[cut..], |stamp| seen.push(stamp));
            assert_eq!(seen, sent, "cut at {cut}");
        }
        let mut scanner = Scanner::default();
        let mut seen = Vec::new();
        text.as_bytes().iter().for_each(|byte| scanner.scan(&marker, &[*byte], |stamp| seen.push(stamp)));
        assert_eq!(seen, sent);
    }

    #[test]
    fn a_ledger_admits_each_number_once_in_any_order() {
        let mut ledger = Ledger::default();
        let order = [0, 2, 1, 2, 0, 5, 3, 3, 4, 5, 6];
        let admitted: Vec<bool> = order.iter().map(|&number| ledger.admit(number)).collect();
        assert_eq!(admitted, [true, true, true, false, false, true, true, false, true, false, true]);
        assert_eq!((ledger.next, ledger.ahead.len()), (7, 0));
    }

    #[test]
    fn a_hole_that_never_fills_does_not_grow_the_ledger_for_ever() {
        let mut ledger = Ledger::default();
        assert!((1..100_000).all(|number| ledger.admit(number)));
        assert!(ledger.ahead.len() <= AHEAD);
    }
}

//! Where a subscriber stands in a channel: epochs, offsets, positions, and the `since` that names them.

use std::{fmt, num::NonZeroU64, str::FromStr};

/// The largest offset or second that is accepted: 2^63 - 1, so that every language can hold it signed.
pub const MAX_NUMBER: u64 = i64::MAX as u64;

/// How far a client's clock may be ahead of the broker's, in seconds, in a position `0-<seconds>`.
pub const CLOCK_SKEW: u64 = 60;

/// One run of a channel's counting: 6 to 12 of `a-z 0-9`, drawn at random, so that a position of
/// another channel or of an earlier life is an unknown epoch and never looks complete.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Epoch {
    bytes: [u8; 12],
    len: u8,
}

/// A place between two messages of a channel.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub enum Position {
    /// After the message with this offset (0: before the first one).
    At(Epoch, u64),
    /// The channel had no message and no memory of one at this second since 1970, by the broker's clock.
    Empty(u64),
}

/// How a message follows on a position.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Advance {
    /// It is the next one.
    Next,
    /// It is at or before the position.
    Duplicate,
    /// Messages between are missing.
    Gap,
    /// It was counted in another epoch.
    NewEpoch,
}

/// Where a subscription starts, as the client says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Since {
    /// After this position.
    Position(Position),
    /// With what is published from now on.
    Latest,
    /// With the oldest message kept.
    Earliest,
    /// With the newest so many messages.
    Last(NonZeroU64),
}

/// A text that is no position, or no `since`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("expected a position such as k3x9q0-42, or latest, earliest, last:N (N from 1)")]
pub struct SinceError;

impl Epoch {
    /// A fresh one, of eight characters: 36^8 of them make a clash within a channel a matter of millennia.
    #[must_use]
    pub fn random() -> Self {
        let mut bytes = [0; 12];
        for byte in &mut bytes[..8] {
            *byte = b"abcdefghijklmnopqrstuvwxyz0123456789"[fastrand::usize(..36)];
        }
        Self { bytes, len: 8 }
    }

    /// The text.
    #[must_use]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.bytes[..usize::from(self.len)]).unwrap_or_default()
    }
}

impl FromStr for Epoch {
    type Err = SinceError;

    fn from_str(text: &str) -> Result<Self, SinceError> {
        let fine = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        if !(6..=12).contains(&text.len()) || !text.bytes().all(fine) {
            return Err(SinceError);
        }
        let mut bytes = [0; 12];
        bytes[..text.len()].copy_from_slice(text.as_bytes());
        Ok(Self { bytes, len: text.len() as u8 })
    }
}

impl Position {
    /// How the message that bears `other` as its id follows on this position.
    #[must_use]
    pub fn advance(&self, other: &Position) -> Advance {
        match (self, other) {
            (Self::At(mine, at), Self::At(theirs, next)) if mine == theirs => match next {
                next if *next <= *at => Advance::Duplicate,
                next if *next == *at + 1 => Advance::Next,
                _ => Advance::Gap,
            },
            (Self::Empty(_), Self::At(_, 1)) => Advance::Next,
            (Self::Empty(_), Self::At(..)) => Advance::Gap,
            _ => Advance::NewEpoch,
        }
    }

    /// Whether both are of one counting and this one is not before `other`.
    #[must_use]
    pub fn is_at_or_after(&self, other: &Position) -> bool {
        match (self, other) {
            (Self::At(mine, at), Self::At(theirs, other)) => mine == theirs && at >= other,
            (Self::Empty(at), Self::Empty(other)) => at >= other,
            _ => false,
        }
    }

    /// The offset; 0 where the channel was empty.
    #[must_use]
    pub fn offset(&self) -> u64 {
        match self {
            Self::At(_, offset) => *offset,
            Self::Empty(_) => 0,
        }
    }

    /// Writes the text. (`write!` costs four times as much, and every answer to a poll has a cursor.)
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write_to(&self, out: &mut impl fmt::Write) -> fmt::Result {
        let (epoch, at) = match self {
            Self::At(epoch, offset) => (epoch.as_str(), offset),
            Self::Empty(second) => ("0", second),
        };
        out.write_str(epoch)?;
        out.write_char('-')?;
        out.write_str(itoa::Buffer::new().format(*at))
    }
}

impl Since {
    /// Whether it names a second that is still to come at `now`, by more than [`CLOCK_SKEW`].
    #[must_use]
    pub fn is_to_come(&self, now: u64) -> bool {
        matches!(self, Self::Position(Position::Empty(second)) if *second > now.saturating_add(CLOCK_SKEW))
    }
}

/// Decimal digits without a sign or leading zeros, at most [`MAX_NUMBER`].
fn number(text: &str) -> Result<u64, SinceError> {
    let canonical = text == "0" || !text.starts_with('0');
    if !canonical || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(SinceError);
    }
    text.parse().ok().filter(|n| *n <= MAX_NUMBER).ok_or(SinceError)
}

impl FromStr for Position {
    type Err = SinceError;

    fn from_str(text: &str) -> Result<Self, SinceError> {
        let (epoch, at) = text.split_once('-').ok_or(SinceError)?;
        let at = number(at)?;
        match epoch {
            "0" => Ok(Self::Empty(at)),
            epoch => Ok(Self::At(epoch.parse()?, at)),
        }
    }
}

impl FromStr for Since {
    type Err = SinceError;

    fn from_str(text: &str) -> Result<Self, SinceError> {
        match text {
            "latest" => Ok(Self::Latest),
            "earliest" => Ok(Self::Earliest),
            _ => match text.strip_prefix("last:") {
                Some(n) => NonZeroU64::new(number(n)?).map(Self::Last).ok_or(SinceError),
                None => text.parse().map(Self::Position),
            },
        }
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Display for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.write_to(f)
    }
}

impl fmt::Debug for Position {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_read_as_they_are_written() {
        for text in ["k3x9q0-42", "0-1790000000", "abcdefabcdef-0", "k3x9q0-9223372036854775807"] {
            assert_eq!(text.parse::<Position>().unwrap().to_string(), text);
        }
        let epoch = Epoch::random();
        assert_eq!(epoch.as_str().parse(), Ok(epoch));
    }

    #[test]
    fn what_is_no_since_is_refused() {
        for text in [
            "",
            "-",
            "a-1",
            "k3x9q0",
            "k3x9q0-",
            "k3x9q0-01",
            "k3x9q0-+1",
            "k3x9q0-9223372036854775808",
            "K3X9Q0-1",
            "abcdefabcdefa-1",
            "00-1",
            "last:",
            "last:0",
            "last:01",
            "last:-1",
            "Latest",
            "0--1",
            "k3x9q0-1 ",
        ] {
            assert_eq!(text.parse::<Since>(), Err(SinceError), "{text}");
        }
        assert_eq!("last:3".parse(), Ok(Since::Last(NonZeroU64::new(3).unwrap())));
    }

    #[test]
    fn a_message_follows_duplicates_or_leaves_a_gap() {
        let at = |text: &str| text.parse::<Position>().unwrap();
        let here = at("k3x9q0-5");
        for (other, advance) in [
            ("k3x9q0-6", Advance::Next),
            ("k3x9q0-5", Advance::Duplicate),
            ("k3x9q0-1", Advance::Duplicate),
            ("k3x9q0-7", Advance::Gap),
            ("zzzzzz-6", Advance::NewEpoch),
        ] {
            assert_eq!(here.advance(&at(other)), advance);
        }
        assert_eq!(at("0-7").advance(&at("k3x9q0-1")), Advance::Next);
        assert_eq!(at("0-7").advance(&at("k3x9q0-2")), Advance::Gap);
    }
}

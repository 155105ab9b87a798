//! Which channels a credential is for: exact names, and prefixes that end in `*`.

use std::{fmt, str::FromStr};

use crate::channel::{Channel, ChannelError};

/// One channel, or all whose names begin alike: `orders:42`, `orders:*`, `*`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Pattern {
    /// This channel.
    Exact(Channel),
    /// Every channel whose name begins so; the star is not kept.
    Prefix(Box<str>),
}

/// Any of several patterns; none matches nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Patterns(Box<[Pattern]>);

/// Why a text is no pattern.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// A star anywhere but at the end.
    #[error("a * may stand at the end of a channel pattern only")]
    Star,
    /// What stands before the star, or the whole, can be in no channel name.
    #[error(transparent)]
    Channel(#[from] ChannelError),
}

impl Pattern {
    /// Whether a channel is meant.
    #[must_use]
    pub fn matches(&self, channel: &Channel) -> bool {
        match self {
            Self::Exact(name) => name == channel,
            Self::Prefix(prefix) => channel.as_str().starts_with(&**prefix),
        }
    }
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let Some(prefix) = text.strip_suffix('*') else {
            return if text.contains('*') { Err(PatternError::Star) } else { Ok(Self::Exact(text.parse()?)) };
        };
        match prefix.parse::<Channel>() {
            // Dots alone are the beginning of a name, though none themselves.
            Ok(_) | Err(ChannelError::Empty | ChannelError::DotsOnly) => Ok(Self::Prefix(prefix.into())),
            Err(ChannelError::BadByte { .. }) if prefix.contains('*') => Err(PatternError::Star),
            Err(error) => Err(error.into()),
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Exact(name) => name.fmt(f),
            Self::Prefix(prefix) => write!(f, "{prefix}*"),
        }
    }
}

impl Patterns {
    /// Whether a channel is meant by one of them.
    #[must_use]
    pub fn matches(&self, channel: &Channel) -> bool {
        self.0.iter().any(|pattern| pattern.matches(channel))
    }

    /// The patterns, in the order in which they were given.
    pub fn iter(&self) -> impl Iterator<Item = &Pattern> {
        self.0.iter()
    }
}

impl FromIterator<Pattern> for Patterns {
    fn from_iter<I: IntoIterator<Item = Pattern>>(patterns: I) -> Self {
        Self(patterns.into_iter().collect())
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use crate::channel::MAX_LEN;

    #[test]
    fn a_pattern_is_a_name_or_the_beginning_of_names() {
        for (pattern, channel, matches) in [
            ("orders:42", "orders:42", true),
            ("orders:42", "orders:421", false),
            ("orders:42", "orders:4", false),
            ("orders:*", "orders:42", true),
            ("orders:*", "orders:", true),
            ("orders:*", "orders", false),
            ("orders:*", "Orders:42", false),
            ("orders:*", "my-orders:42", false),
            ("*", "anything:at.all", true),
            ("..*", "..a", true),
        ] {
            let patterns: Patterns = [pattern.parse::<Pattern>().unwrap()].into_iter().collect();
            assert_eq!(patterns.matches(&channel.parse().unwrap()), matches, "{pattern} {channel}");
            assert_eq!(patterns.iter().next().unwrap().to_string(), pattern);
        }
        assert!(!Patterns::default().matches(&"a".parse().unwrap()));
    }

    #[test]
    fn what_can_match_no_channel_is_refused() {
        let long = "a".repeat(MAX_LEN + 1);
        for text in
            ["", "a*b", "**", "*a", "a b", "a{b}*", "a?", "ä*", "..", "a/*", &long, &format!("{long}*")]
        {
            assert!(text.parse::<Pattern>().is_err(), "{text}");
        }
        assert_eq!("a*b*".parse::<Pattern>(), Err(PatternError::Star));
    }
}

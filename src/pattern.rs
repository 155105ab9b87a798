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

    /// Whether one channel alone is meant.
    #[must_use]
    pub fn is_exact(&self) -> bool {
        matches!(self, Self::Exact(_))
    }

    /// What the names begin with that are meant and begin with `prefix`; `None` where none do both.
    #[must_use]
    pub fn beginning<'a>(&'a self, prefix: &'a str) -> Option<&'a str> {
        match self {
            Self::Exact(name) => Some(name.as_str()).filter(|name| name.starts_with(prefix)),
            Self::Prefix(own) if prefix.starts_with(&**own) => Some(prefix),
            Self::Prefix(own) => Some(&**own).filter(|own| own.starts_with(prefix)),
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
    /// Every channel.
    #[must_use]
    pub fn all() -> Self {
        Self([Pattern::Prefix("".into())].into())
    }

    /// Whether a channel is meant by one of them.
    #[must_use]
    pub fn matches(&self, channel: &Channel) -> bool {
        self.0.iter().any(|pattern| pattern.matches(channel))
    }

    /// Whether every channel there may be is meant.
    #[must_use]
    pub fn match_all(&self) -> bool {
        self.0.iter().any(|pattern| matches!(pattern, Pattern::Prefix(prefix) if prefix.is_empty()))
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
        for (patterns, all) in [("*", true), ("a *", true), ("a* .*", false), ("", false)] {
            let patterns: Patterns =
                patterns.split_whitespace().map(|pattern| pattern.parse().unwrap()).collect();
            assert_eq!(patterns.match_all(), all, "{patterns:?}");
        }
    }

    #[test]
    fn a_pattern_meets_a_prefix_in_the_longer_of_both() {
        for (pattern, prefix, beginning) in [
            ("orders:*", "", Some("orders:")),
            ("orders:*", "ord", Some("orders:")),
            ("orders:*", "orders:4", Some("orders:4")),
            ("orders:*", "news", None),
            ("*", "news", Some("news")),
            ("orders:42", "orders:", Some("orders:42")),
            ("orders:42", "orders:421", None),
        ] {
            let pattern: Pattern = pattern.parse().unwrap();
            assert_eq!(pattern.beginning(prefix), beginning, "{pattern} {prefix}");
        }
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

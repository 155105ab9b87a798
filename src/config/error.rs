//! What is wrong with a configuration, as one sentence that says where and what to do.

use std::{collections::BTreeMap, fmt, io, path::PathBuf};

/// Where a value was given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// Nowhere: it is built in.
    Default,
    /// In the file.
    File {
        /// The file as it was named.
        path: PathBuf,
        /// Its line, from 1.
        line: usize,
    },
    /// In this environment variable.
    Environment(String),
    /// In this flag.
    Flag(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Default => f.write_str("default"),
            Self::File { path, line } => write!(f, "{}:{line}", path.display()),
            Self::Environment(name) | Self::Flag(name) => f.write_str(name),
        }
    }
}

/// Where each key got its value; `namespaces[0].slow` is a key of the first namespace.
#[derive(Clone, Debug, Default)]
pub struct Places(BTreeMap<String, Place>);

impl Places {
    pub(super) fn set(&mut self, key: String, place: Place) {
        self.0.insert(key, place);
    }

    /// The place of the key, or else of what encloses it.
    pub fn nearest<'a>(&'a self, key: &'a str) -> &'a Place {
        let outer = |key: &&'a str| key.rfind(['.', '[']).and_then(|end| key.get(..end));
        let mut enclosing = std::iter::successors(Some(key), outer);
        enclosing.find_map(|key| self.0.get(key)).unwrap_or(&Place::Default)
    }

    /// The place of the first key that was given, where one was.
    pub(super) fn first_given<'a>(&'a self, keys: &'a [String]) -> &'a Place {
        let mut places = keys.iter().map(|key| self.nearest(key));
        places.find(|place| **place != Place::Default).unwrap_or(&Place::Default)
    }

    /// Each key that was given.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&str, &Place)> {
        self.0.iter().map(|(key, place)| (key.as_str(), place))
    }

    /// The place of the key itself.
    pub fn of(&self, key: &str) -> &Place {
        self.0.get(key).unwrap_or(&Place::Default)
    }
}

/// Why a configuration is refused.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file cannot be read.
    #[error("{named_by}: cannot read {}: {source}", path.display())]
    Unreadable {
        /// The flag or variable that names the file.
        named_by: &'static str,
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// The file is not TOML.
    #[error("{place}: {problem}")]
    Syntax {
        /// The line where reading stopped.
        place: Place,
        /// What was wrong there.
        problem: String,
    },
    /// No key has this name.
    #[error("{place}: unknown key `{key}`{}", hint(nearest.as_deref()))]
    UnknownKey {
        /// Where it was given.
        place: Place,
        /// The name as given.
        key: String,
        /// The name that may have been meant.
        nearest: Option<String>,
    },
    /// The tables of a list have no names in the environment and in flags.
    #[error("{place}: {list} are given in the file only, as [[{list}]]")]
    FileOnly {
        /// Where it was given.
        place: Place,
        /// The list.
        list: &'static str,
    },
    /// A key has a value that it cannot have.
    #[error("{place}: {sentence}")]
    Invalid {
        /// Where the value was given.
        place: Place,
        /// The key, the value and what would be right.
        sentence: String,
    },
    /// `--set` without a value.
    #[error("--set {given}: write --set section.key=value")]
    MalformedSet {
        /// What followed the flag.
        given: String,
    },
    /// An environment variable is not UTF-8.
    #[error("{variable}: the value is not valid UTF-8")]
    NotUnicode {
        /// Its name.
        variable: String,
    },
    /// The configuration cannot be written as TOML.
    #[error("the configuration cannot be written as TOML: {0}")]
    Unprintable(#[from] toml::ser::Error),
}

fn hint(nearest: Option<&str>) -> String {
    nearest.map(|name| format!("; did you mean `{name}`?")).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_without_a_place_takes_the_one_around_it() {
        let mut places = Places::default();
        let place = |line| Place::File { path: "f".into(), line };
        places.set("namespaces".into(), place(1));
        places.set("namespaces[1].slow".into(), place(5));
        assert_eq!(places.nearest("namespaces[1].slow"), &place(5));
        assert_eq!(places.nearest("namespaces[0].name"), &place(1));
        assert_eq!(places.nearest("public.listen[3]"), &Place::Default);
        assert_eq!(places.of("namespaces[0].name"), &Place::Default);
    }
}

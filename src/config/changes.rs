//! How one configuration differs from the one before it, for who reads the file anew.

use toml::{Table, Value};

use super::{Loaded, error::Place};

/// A key that has another value than before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key; of a list of tables the list.
    pub key: String,
    /// Where the new value was given.
    pub place: Place,
}

impl Loaded {
    /// The keys that have another value in `new`, in the order of their sections.
    #[must_use]
    pub fn changes(&self, new: &Self) -> Vec<Change> {
        // What was printed before can be written again.
        let table = |loaded: &Self| Table::try_from(&loaded.raw).unwrap_or_default();
        let mut keys = Vec::new();
        compare(&table(self), &table(new), "", &mut keys);
        // As text, every secret is like the other.
        let (old_broker, new_broker) = (&self.config.broker, &new.config.broker);
        let secrets = [
            ("broker.password", old_broker.login == new_broker.login),
            ("broker.sentinel_password", old_broker.sentinel_login == new_broker.sentinel_login),
        ];
        let broker_is_named = keys.iter().any(|key| key.starts_with("broker."));
        keys.extend(
            secrets.iter().filter(|(_, same)| !same && !broker_is_named).map(|(key, _)| (*key).to_owned()),
        );
        // The file of keys may keep its name.
        let keys_are_named = keys.iter().any(|key| key.starts_with("auth.keys"));
        if !keys_are_named && self.config.auth.keys != new.config.auth.keys {
            keys.push("auth.keys_file".to_owned());
        }
        let place = |key: &str| new.places.nearest(key).clone();
        keys.into_iter().map(|key| Change { place: place(&key), key }).collect()
    }
}

fn compare(old: &Table, new: &Table, section: &str, changed: &mut Vec<String>) {
    for (name, value) in new {
        let key = if section.is_empty() { name.clone() } else { format!("{section}.{name}") };
        match (old.get(name), value) {
            (Some(Value::Table(old)), Value::Table(new)) => compare(old, new, &key, changed),
            (Some(old), new) if old == new => {}
            _ => changed.push(key),
        }
    }
}

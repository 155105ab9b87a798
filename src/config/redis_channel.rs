//! How channels are called in Redis where other programs feed them, and whether two namespaces could mean the same
//! Redis channel.

use std::collections::HashSet;

use crate::channel;

/// What stands for a channel's name in `redis_channel`.
pub(super) const CHANNEL: &str = "{channel}";

/// How a channel is called in Redis where others feed it: its name between two texts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisChannel {
    before: String,
    after: String,
}

impl RedisChannel {
    /// `None` unless `{channel}` stands in `pattern` exactly once.
    pub(super) fn parse(pattern: &str) -> Option<Self> {
        let (before, after) = pattern.split_once(CHANNEL)?;
        let once = !after.contains(CHANNEL);
        once.then(|| Self { before: before.to_owned(), after: after.to_owned() })
    }

    /// What stands before the channel's name.
    pub(super) fn before(&self) -> &str {
        &self.before
    }

    /// The Redis channel of a channel.
    #[must_use]
    pub fn of(&self, channel: &str) -> String {
        [&self.before, channel, &self.after].concat()
    }
}

/// The Redis channels of one namespace.
pub(super) struct Fed<'a> {
    before: String,
    after: &'a str,
    /// Of the default namespace: the others, whose channels it has not.
    but: Option<&'a HashSet<String>>,
}

impl<'a> Fed<'a> {
    /// Those of the namespace `name`; `but` are all that are listed where it is the default one.
    pub(super) fn new(channel: &'a RedisChannel, name: &str, but: Option<&'a HashSet<String>>) -> Self {
        let before = match but {
            Some(_) => channel.before.clone(),
            None => format!("{}{name}:", channel.before),
        };
        Self { before, after: &channel.after, but }
    }

    /// Whether a Redis channel can be of both: `before w after` with some `w` of each.
    pub(super) fn meets(&self, other: &Self) -> bool {
        let (short, long) =
            if self.before.len() <= other.before.len() { (self, other) } else { (other, self) };
        let Some(rest) = long.before.strip_prefix(&short.before) else { return false };
        // The name of one goes on where that of the other begins: both may be as long as it takes.
        let meets_at_the_end = || {
            let ends = [(short.after, long.after), (long.after, short.after)];
            ends.iter().any(|(one, other)| one.strip_suffix(other).is_some_and(is_part_of_a_name))
        };
        if short.holds(rest) && meets_at_the_end() {
            return true;
        }
        // It ends before.
        rest.char_indices().any(|(at, _)| {
            let name = short.after.strip_prefix(&rest[at..]).and_then(|rest| rest.strip_suffix(long.after));
            short.holds(&rest[..at]) && name.is_some_and(|name| long.holds(name))
        })
    }

    /// Whether a channel of this namespace may go on so.
    fn holds(&self, name: &str) -> bool {
        let of_another =
            |but: &HashSet<String>| name.split_once(':').is_some_and(|(name, _)| but.contains(name));
        is_part_of_a_name(name) && !self.but.is_some_and(of_another)
    }
}

fn is_part_of_a_name(text: &str) -> bool {
    text.bytes().all(channel::is_fine)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Whether these two, of all that are listed, may mean the same Redis channel.
    fn meet(one: (&str, &str), other: (&str, &str)) -> bool {
        let listed: HashSet<String> =
            [one.0, other.0].into_iter().filter(|name| *name != "default").map(str::to_owned).collect();
        let parse = |pattern: &str| RedisChannel::parse(pattern).unwrap();
        let (first, second) = (parse(one.1), parse(other.1));
        let but = |name: &str| (name == "default").then_some(&listed);
        let (a, b) = (Fed::new(&first, one.0, but(one.0)), Fed::new(&second, other.0, but(other.0)));
        assert_eq!(a.meets(&b), b.meets(&a), "{one:?} {other:?}");
        a.meets(&b)
    }

    #[test]
    fn namespaces_whose_patterns_keep_them_apart() {
        for (one, other) in [
            (("a", "{channel}"), ("b", "{channel}")),
            (("a", "x.{channel}"), ("b", "x.{channel}")),
            (("a", "{channel}"), ("ab", "{channel}")),
            (("a", "{channel}"), ("default", "{channel}")),
            (("a", "x.{channel}"), ("default", "x.{channel}")),
            (("a", "{channel}/1"), ("b", "a:{channel}/2")),
            // No name has a slash.
            (("a", "{channel}"), ("b", "a:/{channel}")),
            (("a", "/{channel}"), ("default", "{channel}")),
            (("a", "{channel}"), ("default", "x.{channel}")),
        ] {
            assert!(!meet(one, other), "{one:?} {other:?}");
        }
    }

    #[test]
    fn namespaces_that_could_mean_one_redis_channel() {
        for (one, other) in [
            // a:b:1 and b:1
            (("a", "{channel}"), ("b", "a:{channel}")),
            // a:1.x and 1
            (("a", "{channel}"), ("default", "a:{channel}.x")),
            // a:1 and x.a:1
            (("a", "x.{channel}"), ("default", "{channel}")),
            // a:b:1 and b:1.b
            (("a", "{channel}.b"), ("b", "a:{channel}")),
            // a:q and b:z
            (("a", "{channel}/b:z"), ("b", "a:q/{channel}")),
        ] {
            assert!(meet(one, other), "{one:?} {other:?}");
        }
    }
}

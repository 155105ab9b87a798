//! JSON objects in which no name may come twice (RFC 7515 §4, RFC 7519 §4): two readers that disagree on which
//! of two values counts are two opinions of who somebody is.

use std::{collections::HashSet, fmt, marker::PhantomData};

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};

/// What is kept of an object.
pub trait Members: Default {
    /// Takes the value of this name, or passes over it.
    ///
    /// # Errors
    /// The reader's, for a value that is no JSON.
    fn take<'de, A: MapAccess<'de>>(&mut self, name: &str, map: &mut A) -> Result<(), A::Error>;
}

/// An object, and whether a name is in it twice. The second value counts for nothing, as the first.
pub struct Strict<M> {
    members: M,
    twice: bool,
}

impl<M> Strict<M> {
    /// What was kept; `None` where a name came twice.
    pub fn once(self) -> Option<M> {
        (!self.twice).then_some(self.members)
    }
}

struct Reader<M>(PhantomData<M>);

impl<'de, M: Members> Visitor<'de> for Reader<M> {
    type Value = Strict<M>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let (mut members, mut twice) = (M::default(), false);
        let mut names = HashSet::new();
        // Names are compared as they are meant: `\u0061lg` is `alg`.
        while let Some(name) = map.next_key::<String>()? {
            members.take(&name, &mut map)?;
            twice |= !names.insert(name);
        }
        Ok(Strict { members, twice })
    }
}

impl<'de, M: Members> Deserialize<'de> for Strict<M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(Reader(PhantomData))
    }
}

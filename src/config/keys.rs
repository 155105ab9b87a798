//! Which keys there are, read from the JSON Schema, and which one a misspelt name meant.

use serde_json::Value as Json;

use super::raw;

/// Every key, `namespaces.slow` and its like included.
pub struct Keys {
    schema: Json,
    names: Vec<String>,
}

/// What the schema says of a key, a section, or the whole file.
#[derive(Clone, Copy)]
pub struct Node<'a>(&'a Json);

impl Keys {
    pub fn new() -> Self {
        let schema = raw::schema();
        let mut names = Vec::new();
        collect(Node(&schema), "", &mut names);
        Self { schema, names }
    }

    pub fn root(&self) -> Node<'_> {
        Node(&self.schema)
    }

    /// The key of a dotted name; `None` for sections and for what is not known.
    pub fn key(&self, name: &str) -> Option<Node<'_>> {
        let node = name.split('.').try_fold(self.root(), |node, part| node.child(part))?;
        node.table().is_none().then_some(node)
    }

    /// The known key most like `name`, where one is like it.
    pub fn nearest(&self, name: &str) -> Option<&str> {
        closest(name, self.names.iter().map(String::as_str))
    }

    /// The section most like `name`, where one is like it.
    pub fn nearest_section(&self, name: &str) -> Option<&str> {
        let sections = self.root().table()?.keys();
        closest(name, sections.map(String::as_str))
    }
}

/// Like is what is a few letters off, or has the right last word in the wrong section.
fn closest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let allowed = (name.len() / 3).min(3);
    let scored = known.filter_map(|key| {
        let distance = strsim::damerau_levenshtein(name, key);
        let is_like = distance <= allowed || last_word(name) == last_word(key);
        is_like.then_some((distance, key))
    });
    let (_, key) = scored.min_by_key(|(distance, _)| *distance)?;
    Some(key)
}

fn last_word(name: &str) -> &str {
    name.rsplit_once('.').map_or(name, |(_, last)| last)
}

impl<'a> Node<'a> {
    /// The schema of the key `name` in this section; of a list of tables, in each of them.
    pub fn child(self, name: &str) -> Option<Self> {
        self.table()?.get(name).map(Self)
    }

    /// The keys of a section or of a list of tables.
    pub fn table(self) -> Option<&'a serde_json::Map<String, Json>> {
        let items = self.0.get("items").unwrap_or(self.0);
        items.get("properties")?.as_object()
    }

    /// Whether this is a list of tables, such as `[[namespaces]]`.
    pub fn is_list(self) -> bool {
        self.0.get("items").is_some()
    }

    /// Whether a value of this JSON type may stand here.
    pub fn takes(self, kind: &str) -> bool {
        match self.0.get("type") {
            Some(Json::Array(kinds)) => kinds.iter().any(|k| k == kind),
            Some(one) => one == kind,
            None => false,
        }
    }
}

fn collect(node: Node<'_>, path: &str, names: &mut Vec<String>) {
    let Some(table) = node.table() else {
        names.push(path.to_owned());
        return;
    };
    for (name, child) in table {
        let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        collect(Node(child), &path, names);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_misspelt_key_is_recognised() {
        let keys = Keys::new();
        let table = [
            ("public.lisen", Some("public.listen")),
            ("public_listen", Some("public.listen")),
            ("limits.conections", Some("limits.connections")),
            ("limit.outbox", Some("limits.outbox")),
            ("limits.heartbeat", Some("sessions.heartbeat")),
            ("heartbeat", Some("sessions.heartbeat")),
            ("namespaces.histroy_age", Some("namespaces.history_age")),
            ("public_tls_cert_file", Some("public.tls_cert_file")),
            ("auth_jwt_key_file", Some("auth.jwt.key_file")),
            ("entirely.different", None),
            ("port", None),
        ];
        for (name, expected) in table {
            assert_eq!(keys.nearest(name), expected, "{name}");
        }
    }
}

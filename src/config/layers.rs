//! File, environment and flags, laid over one another, each value with its place.
//!
//! Unknown names are refused here, where their place is known; values are judged in `check`.

use std::path::{Path, PathBuf};

use toml::{
    Spanned, Table, Value,
    de::{DeTable, DeValue},
};

use super::{
    error::{ConfigError, Place, Places},
    keys::{Keys, Node},
    raw::Raw,
};

/// Names that begin with `TIDEGATE_` and are not keys: the file, and what the client commands read.
pub const FILE_VARIABLE: &str = "TIDEGATE_CONFIG";
const OTHER_VARIABLES: [&str; 8] = [
    FILE_VARIABLE,
    "TIDEGATE_URL",
    "TIDEGATE_INTERNAL_URL",
    "TIDEGATE_TOKEN",
    "TIDEGATE_TOKEN_FILE",
    "TIDEGATE_API_KEY",
    "TIDEGATE_API_KEY_FILE",
    "TIDEGATE_CA_FILE",
];
const PREFIX: &str = "TIDEGATE_";
/// Lists of tables.
const LISTS: [&str; 2] = ["namespaces", "auth.keys"];

/// The values given so far.
pub struct Layers {
    keys: Keys,
    table: Table,
    places: Places,
}

impl Layers {
    pub fn new() -> Self {
        Self { keys: Keys::new(), table: Table::new(), places: Places::default() }
    }

    /// Lays the text of a file over what is there.
    pub fn add_file(&mut self, text: &str, path: &Path) -> Result<(), ConfigError> {
        let syntax = |error: toml::de::Error| ConfigError::Syntax {
            place: place_in(text, path, error.span().map_or(0, |span| span.start)),
            problem: error.message().to_owned(),
        };
        self.table = text.parse().map_err(syntax)?;
        let spans = DeTable::parse(text).map_err(syntax)?;
        let places = &mut self.places;
        FileWalk { keys: &self.keys, text, path, places }.table(spans.get_ref(), self.keys.root(), "", "")
    }

    /// Lays the variables that begin with `TIDEGATE_` over what is there.
    pub fn add_environment(&mut self, variables: &[(String, String)]) -> Result<(), ConfigError> {
        for (name, value) in variables {
            let Some(rest) = name.strip_prefix(PREFIX) else {
                continue;
            };
            if OTHER_VARIABLES.contains(&name.as_str()) {
                continue;
            }
            let place = Place::Environment(name.clone());
            let key = rest.to_ascii_lowercase().replace("__", ".");
            let looks_like_key = rest.contains("__") || key == "namespaces";
            if looks_like_key && variable(&key) == *name {
                self.set(&key, value, place, variable)?;
                continue;
            }
            // Orchestrators set names such as TIDEGATE_PORT by themselves: without `__` only what
            // resembles a key is refused.
            let nearest = self.nearest_variable(&key);
            if looks_like_key || nearest.is_some() {
                return Err(ConfigError::UnknownKey { place, key, nearest });
            }
        }
        Ok(())
    }

    /// Lays `section.key=value` over what is there.
    pub fn add_flags(&mut self, settings: &[String]) -> Result<(), ConfigError> {
        for setting in settings {
            let Some((key, value)) = setting.split_once('=') else {
                return Err(ConfigError::MalformedSet { given: setting.clone() });
            };
            self.set(key, value, Place::Flag(format!("--set {key}")), str::to_owned)?;
        }
        Ok(())
    }

    /// The values with their types, not yet judged.
    pub fn finish(self) -> Result<(Raw, Places), ConfigError> {
        let raw = serde_path_to_error::deserialize(self.table).map_err(|error| {
            let key = error.path().to_string();
            ConfigError::Invalid {
                place: self.places.nearest(&key).clone(),
                sentence: format!("{}: {}", without_index(&key), error.inner().message()),
            }
        })?;
        Ok((raw, self.places))
    }

    /// `spell` writes a key as this layer does.
    fn set(
        &mut self,
        key: &str,
        text: &str,
        place: Place,
        spell: fn(&str) -> String,
    ) -> Result<(), ConfigError> {
        let is_of =
            |list: &&str| key.strip_prefix(list).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'));
        if let Some(list) = LISTS.into_iter().find(is_of) {
            return Err(ConfigError::FileOnly { place, list });
        }
        let Some(node) = self.keys.key(key) else {
            let nearest = self.keys.nearest(key).map(spell);
            return Err(ConfigError::UnknownKey { place, key: key.to_owned(), nearest });
        };
        let value = typed(text, node);
        let (sections, name) = key.rsplit_once('.').unwrap_or(("", key));
        let mut table = &mut self.table;
        for section in sections.split('.') {
            let inner = table.entry(section).or_insert_with(|| Value::Table(Table::new()));
            // The file's walk has refused anything but a table here.
            let Value::Table(inner) = inner else {
                return Ok(());
            };
            table = inner;
        }
        table.insert(name.to_owned(), value);
        self.places.set(key.to_owned(), place);
        Ok(())
    }

    fn nearest_variable(&self, key: &str) -> Option<String> {
        if strsim::damerau_levenshtein(key, "config") <= 1 {
            return Some(FILE_VARIABLE.to_owned());
        }
        self.keys.nearest(key).map(variable)
    }
}

/// Finds each key of a file in the schema and notes its line.
struct FileWalk<'a> {
    keys: &'a Keys,
    text: &'a str,
    path: &'a Path,
    places: &'a mut Places,
}

impl FileWalk<'_> {
    /// `name` is what an operator calls the section, `path` counts the tables of a list as well.
    fn table(
        &mut self,
        table: &DeTable<'_>,
        node: Node<'_>,
        name: &str,
        path: &str,
    ) -> Result<(), ConfigError> {
        for (key, value) in table {
            let place = place_in(self.text, self.path, key.span().start);
            let (name, path) = (join(name, key.get_ref()), join(path, key.get_ref()));
            let Some(child) = node.child(key.get_ref()) else {
                let nearest = self.keys.nearest(&name);
                let nearest = nearest.or_else(|| self.keys.nearest_section(&name));
                return Err(ConfigError::UnknownKey {
                    place,
                    nearest: nearest.map(str::to_owned),
                    key: name,
                });
            };
            self.places.set(path.clone(), place);
            if child.table().is_some() {
                self.section(value, child, &name, &path)?;
            }
        }
        Ok(())
    }

    fn section(
        &mut self,
        value: &Spanned<DeValue<'_>>,
        node: Node<'_>,
        name: &str,
        path: &str,
    ) -> Result<(), ConfigError> {
        match value.get_ref() {
            DeValue::Table(table) if !node.is_list() => self.table(table, node, name, path),
            DeValue::Array(list) if node.is_list() => {
                for (index, item) in list.iter().enumerate() {
                    let place = place_in(self.text, self.path, item.span().start);
                    let path = format!("{path}[{index}]");
                    self.places.set(path.clone(), place);
                    let DeValue::Table(table) = item.get_ref() else {
                        return Err(self.not_a_section(node, name, &path));
                    };
                    self.table(table, node, name, &path)?;
                }
                Ok(())
            }
            _ => Err(self.not_a_section(node, name, path)),
        }
    }

    fn not_a_section(&self, node: Node<'_>, name: &str, path: &str) -> ConfigError {
        let (open, close) = if node.is_list() { ("[[", "]]") } else { ("[", "]") };
        ConfigError::Invalid {
            place: self.places.nearest(path).clone(),
            sentence: format!("{name} is a section: write {open}{name}{close}"),
        }
    }
}

fn place_in(text: &str, path: &Path, offset: usize) -> Place {
    let before = text.as_bytes().iter().take(offset);
    Place::File { path: PathBuf::from(path), line: 1 + before.filter(|byte| **byte == b'\n').count() }
}

/// The text of a variable or flag as the type that the key has in a file. What does not fit stays
/// text, and is refused as such with the key's name.
fn typed(text: &str, node: Node<'_>) -> Value {
    if node.takes("array") {
        let items = text.split(',').map(str::trim).filter(|item| !item.is_empty());
        return items.map(Value::from).collect::<Vec<_>>().into();
    }
    let is_bare =
        ["integer", "number", "boolean"].iter().any(|kind| node.takes(kind)) && !node.takes("string");
    let bare = is_bare.then(|| text.parse().ok()).flatten();
    bare.unwrap_or_else(|| Value::from(text))
}

/// The environment variable of a key.
fn variable(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase().replace('.', "__"))
}

fn join(section: &str, key: &str) -> String {
    if section.is_empty() { key.to_owned() } else { format!("{section}.{key}") }
}

/// `namespaces[0].slow` as an operator calls it.
fn without_index(key: &str) -> String {
    key.split('[').map(|part| part.split_once(']').map_or(part, |(_, rest)| rest)).collect()
}

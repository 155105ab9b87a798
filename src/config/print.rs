//! What is in force, written as a file that says of each key where its value came from.

use toml::{Table, Value};

use super::{
    error::{Place, Places},
    namespaces,
    raw::{self, Raw},
};

/// TOML that `config check` accepts and that gives the same configuration.
pub fn print(raw: &Raw, places: &Places) -> Result<String, toml::ser::Error> {
    let mut raw = raw.clone();
    if !raw.namespaces.iter().any(|namespace| namespace.name == namespaces::DEFAULT) {
        raw.namespaces.push(raw::Namespace::built_in());
    }
    let mut printed = String::new();
    write_table(&mut printed, &Table::try_from(raw)?, "", "", places);
    Ok(printed.trim_start().to_owned())
}

/// `header` names the table as TOML does, `path` counts the tables of a list as well. A table's
/// own keys must stand before its sections, as they do in `raw`.
fn write_table(printed: &mut String, table: &Table, header: &str, path: &str, places: &Places) {
    for (name, value) in table {
        let dot = if header.is_empty() { "" } else { "." };
        let (header, path) = (format!("{header}{dot}{name}"), format!("{path}{dot}{name}"));
        match value {
            Value::Table(section) => {
                printed.push_str(&format!("\n[{header}]\n"));
                write_table(printed, section, &header, &path, places);
            }
            Value::Array(items) if items.iter().any(Value::is_table) => {
                for (index, item) in items.iter().filter_map(Value::as_table).enumerate() {
                    printed.push_str(&format!("\n[[{header}]]\n"));
                    write_table(printed, item, &header, &format!("{path}[{index}]"), places);
                }
            }
            value => printed.push_str(&format!("{name} = {value} # {}\n", comment(places.of(&path)))),
        }
    }
}

/// A control character in a file's name must not end the comment.
fn comment(place: &Place) -> String {
    place.to_string().replace(char::is_control, "?")
}

//! The section `[auth]`, checked: the keys of backends, and whether anybody must show a credential.

use std::{fs, path::Path};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::{
    check::{Fault, fault},
    jwt::{self, Jwt},
    layers::Layers,
    raw,
};
use crate::pattern::{Pattern, Patterns};

/// Who may do what.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Auth {
    /// The keys of backends, those of `auth.keys_file` behind those of the file.
    pub keys: Vec<ApiKey>,
    /// What the tokens of subscribers are checked by.
    pub jwt: Option<Jwt>,
}

/// The key of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ApiKey {
    /// What the logs call it.
    pub name: String,
    /// The SHA-256 of the key.
    pub sha256: [u8; 32],
    /// Where it may do it.
    pub channels: Patterns,
    /// What it may do.
    pub operations: Vec<Operation>,
    /// Publishes in a second; `None`: no limit.
    pub rate: Option<u32>,
}

/// What the key of a backend may be for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum Operation {
    /// Publish messages.
    Publish,
    /// Read history and information, list channels.
    Read,
    /// Delete the history, disconnect clients.
    Manage,
}

impl Auth {
    /// Whether any credential is: from then on, what none grants is denied.
    #[must_use]
    pub fn is_configured(&self) -> bool {
        self.jwt.is_some() || !self.keys.is_empty()
    }
}

pub fn check(raw: &raw::Auth) -> Result<Auth, Fault> {
    let mut keys = Vec::new();
    for (index, entry) in raw.keys.iter().enumerate() {
        keys.push(api_key(entry, &format!("auth.keys[{index}]"))?);
    }
    if !raw.keys_file.is_empty() {
        let of_file = |sentence| fault(["auth.keys_file"], format!("auth.keys_file: {sentence}"));
        keys.extend(keys_of(&raw.keys_file).or_else(of_file)?);
    }
    for (index, key) in keys.iter().enumerate() {
        if let Some(other) = keys.iter().take(index).find(|other| other.sha256 == key.sha256) {
            let sentence =
                format!("auth.keys has one key twice, as {:?} and as {:?}: remove one", other.name, key.name);
            return fault([format!("auth.keys[{index}]"), "auth.keys_file".into()], sentence);
        }
    }
    Ok(Auth { keys, jwt: jwt::check(&raw.jwt)? })
}

/// The entries of `auth.keys_file`, or what is wrong with it, told by its own lines.
fn keys_of(file: &str) -> Result<Vec<ApiKey>, String> {
    let text = fs::read_to_string(file).map_err(|error| format!("cannot read {file}: {error}"))?;
    let mut layers = Layers::new();
    layers.add_file(&text, Path::new(file)).map_err(|error| error.to_string())?;
    let (raw, places) = layers.finish().map_err(|error| error.to_string())?;
    let is_entry = |key: &str| key == "auth" || key == "auth.keys" || key.starts_with("auth.keys[");
    if let Some((key, place)) = places.iter().find(|(key, _)| !is_entry(key)) {
        return Err(format!("{place}: {key} is not for this file: it has [[auth.keys]] and nothing else"));
    }
    if raw.auth.keys.is_empty() {
        // An empty mount must not open what it was to shut.
        return Err(format!("{file} has no [[auth.keys]] in it"));
    }
    let keys = raw.auth.keys.iter().enumerate();
    let keys = keys.map(|(index, key)| api_key(key, &format!("auth.keys[{index}]")));
    keys.collect::<Result<_, _>>().map_err(|fault| fault.at(&places).to_string())
}

/// `path` is where the entry stands in its file.
fn api_key(raw: &raw::Key, path: &str) -> Result<ApiKey, Fault> {
    let name = &raw.name;
    let here = |key: &str| [format!("{path}.{key}")];
    if name.is_empty() {
        return fault(here("name"), "auth.keys.name is missing".into());
    }
    if name.len() > 200 || name.contains(char::is_control) {
        let sentence = "auth.keys.name is no name: write 1 to 200 bytes without control characters";
        return fault(here("name"), sentence.into());
    }
    let missing =
        |key: &str, cure: &str| fault(here(key), format!("auth.keys.{key} of {name:?} is missing: {cure}"));
    let Some(sha256) = raw.sha256.get() else {
        return missing("sha256", "`tidegate key` makes a key and prints its entry")?;
    };
    if raw.channels.0.is_empty() {
        return missing("channels", "name the channels it is for; \"*\" is all of them")?;
    }
    if raw.operations.is_empty() {
        return missing("operations", "name some of publish, read, manage")?;
    }
    let pattern = |text: &String| {
        let wrong = |error| format!("auth.keys.channels of {name:?} has {text:?}: {error}");
        text.parse::<Pattern>().or_else(|error| fault(here("channels"), wrong(error)))
    };
    Ok(ApiKey {
        name: name.clone(),
        sha256,
        channels: raw.channels.0.iter().map(pattern).collect::<Result<Patterns, _>>()?,
        operations: raw.operations.clone(),
        rate: raw.rate.limit(),
    })
}

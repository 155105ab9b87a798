//! What a command shows to be let in: a subscriber's token, a backend's key. Given as it is, in a file, or in the
//! environment, and shown to nobody but the gateway.

use std::{env, fs, path::PathBuf};

use http::HeaderValue;

use crate::config::Secret;

/// The flags for a subscriber's token.
#[derive(Clone, Debug, Default, clap::Args)]
pub(in crate::cli) struct Token {
    /// The token of a subscriber; also TIDEGATE_TOKEN, which others on this machine do not see
    #[arg(long, value_name = "TOKEN", conflicts_with = "token_file")]
    token: Option<Secret>,
    /// A file with the token, read anew for each connection; also TIDEGATE_TOKEN_FILE
    #[arg(long, value_name = "FILE")]
    token_file: Option<PathBuf>,
}

/// The flags for a backend's key.
#[derive(Clone, Debug, Default, clap::Args)]
pub(in crate::cli) struct ApiKey {
    /// The key of a backend; also TIDEGATE_API_KEY, which others on this machine do not see
    #[arg(long, value_name = "KEY", conflicts_with = "api_key_file")]
    api_key: Option<Secret>,
    /// A file with the key; also TIDEGATE_API_KEY_FILE
    #[arg(long, value_name = "FILE")]
    api_key_file: Option<PathBuf>,
}

/// A credential, or where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) enum Credential {
    None,
    Text(Secret),
    File(PathBuf),
}

impl Token {
    /// The flags, else the environment.
    pub(in crate::cli) fn credential(self) -> Credential {
        choose(self.token, self.token_file, "TIDEGATE_TOKEN")
    }

    /// How to give one.
    pub(in crate::cli) const ADVICE: &str =
        "give a token with --token-file, --token or TIDEGATE_TOKEN (`tidegate token` makes one to try)";
}

impl ApiKey {
    /// The flags, else the environment.
    pub(in crate::cli) fn credential(self) -> Credential {
        choose(self.api_key, self.api_key_file, "TIDEGATE_API_KEY")
    }

    /// How to give one.
    pub(in crate::cli) const ADVICE: &str = "give the key of a backend with --api-key-file, --api-key or TIDEGATE_API_KEY (`tidegate key` makes one)";
}

fn choose(text: Option<Secret>, file: Option<PathBuf>, variable: &str) -> Credential {
    let given = |name: &str| env::var(name).ok().filter(|value| !value.is_empty());
    if let Some(text) = text {
        Credential::Text(text)
    } else if let Some(path) = file {
        Credential::File(path)
    } else if let Some(text) = given(variable) {
        Credential::Text(text.into())
    } else {
        given(&format!("{variable}_FILE")).map_or(Credential::None, |path| Credential::File(path.into()))
    }
}

impl Credential {
    /// The value of `Authorization`, if there is a credential. A file is read now.
    ///
    /// # Errors
    /// A file that cannot be read, and a text that no header can carry; the text is not in the sentence.
    pub(in crate::cli) fn header(&self) -> Result<Option<HeaderValue>, String> {
        let text = match self {
            Self::None => return Ok(None),
            Self::Text(text) => text.reveal().to_owned(),
            Self::File(path) => fs::read_to_string(path)
                .map_err(|error| format!("cannot read the credential in {}: {error}", path.display()))?,
        };
        let text = text.trim();
        if text.is_empty() {
            return Err(format!("the credential{} is empty", self.place()));
        }
        let value = HeaderValue::try_from(format!("Bearer {text}"));
        let mut value = value
            .map_err(|_| format!("the credential{} has characters that no header can carry", self.place()))?;
        value.set_sensitive(true);
        Ok(Some(value))
    }

    fn place(&self) -> String {
        match self {
            Self::File(path) => format!(" in {}", path.display()),
            Self::None | Self::Text(_) => String::new(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_credential_becomes_a_header_and_is_in_no_error() {
        let folder = env::temp_dir();
        let path = folder.join(format!("tidegate-credential-{}", std::process::id()));
        fs::write(&path, "hunter2\n").unwrap();
        let read = Credential::File(path.clone()).header().unwrap().unwrap();
        assert_eq!(read, "Bearer hunter2");
        assert!(!format!("{read:?}").contains("hunter2"));
        fs::write(&path, "hunter2\nand more").unwrap();
        let fault = Credential::File(path.clone()).header().unwrap_err();
        assert!(fault.contains(path.to_str().unwrap()) && !fault.contains("hunter2"), "{fault}");
        fs::write(&path, " \n").unwrap();
        assert!(Credential::File(path.clone()).header().unwrap_err().ends_with("is empty"));
        fs::remove_file(&path).unwrap();
        assert!(Credential::File(path).header().unwrap_err().contains("cannot read"));
        let text = Credential::Text("hunter2\0".to_owned().into());
        assert!(!text.header().unwrap_err().contains("hunter2"));
        assert_eq!(format!("{text:?}"), "Text(***)");
        assert_eq!(Credential::None.header(), Ok(None));
    }

    #[test]
    fn flags_win_over_the_environment() {
        let (text, file) = (Some(Secret::from("a".to_owned())), Some(PathBuf::from("b")));
        // No other test knows of this name.
        let choose = |text, file| choose(text, file, "PATH");
        assert_eq!(choose(text.clone(), None), Credential::Text("a".to_owned().into()));
        assert_eq!(choose(None, file), Credential::File("b".into()));
        assert_eq!(choose(None, None), Credential::Text(env::var("PATH").unwrap().into()));
    }
}

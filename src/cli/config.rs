//! `tidegate config check | print | schema`, and the flags that every configured command takes.

use std::{
    io::{self, Write},
    path::PathBuf,
    process::ExitCode,
};

use super::USAGE;
use crate::{
    auth::jwt,
    config::{self, Config, ConfigError, Loaded, Sources},
};

/// Where the configuration comes from.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ConfigFlags {
    /// The TOML file; also TIDEGATE_CONFIG
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Set one key, above file and environment; may be repeated
    #[arg(long, value_name = "SECTION.KEY=VALUE")]
    pub set: Vec<String>,
    /// Without credentials in the configuration, serve anyone who can reach a listener
    #[arg(long)]
    pub insecure: bool,
}

impl ConfigFlags {
    /// Whether any of them is.
    pub fn are_given(&self) -> bool {
        self.config.is_some() || !self.set.is_empty() || self.insecure
    }

    /// These, which stand before the command, and those behind it, which count for more.
    pub fn and(mut self, behind: Self) -> Self {
        self.set.extend(behind.set);
        Self {
            config: behind.config.or(self.config),
            set: self.set,
            insecure: self.insecure || behind.insecure,
        }
    }

    /// These and the environment.
    pub fn sources(self) -> Result<Sources, ConfigError> {
        Sources::with_environment(self.config, self.set, self.insecure)
    }

    /// The configuration of these flags, the environment and the file.
    pub fn load(self) -> Result<Loaded, ConfigError> {
        Config::load(&self.sources()?)
    }
}

/// Look at the configuration without starting anything.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum ConfigCommand {
    /// Say whether the configuration is good; exit code 64 where it is not
    Check(ConfigFlags),
    /// Print what is in force and where each value came from, as TOML
    Print(ConfigFlags),
    /// Print the JSON Schema of the file
    Schema,
}

/// Runs the command and reports a fault on standard error. `before` are the flags before its name.
pub fn run(command: ConfigCommand, before: ConfigFlags) -> ExitCode {
    match output(command, before) {
        // Who pipes into `head` has read enough; there is nobody to tell.
        Ok(text) => match writeln!(io::stdout(), "{}", text.trim_end()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(fault) => {
            eprintln!("tidegate: {fault}");
            USAGE.into()
        }
    }
}

fn output(command: ConfigCommand, before: ConfigFlags) -> anyhow::Result<String> {
    match command {
        ConfigCommand::Check(flags) => check(before.and(flags)),
        ConfigCommand::Print(flags) => print(&before.and(flags).load()?),
        ConfigCommand::Schema => Ok(format!("{:#}", config::schema())),
    }
}

fn check(flags: ConfigFlags) -> anyhow::Result<String> {
    let loaded = flags.load()?;
    if let Some(jwt) = &loaded.config.auth.jwt {
        jwt::check(jwt)
            .map_err(|error| anyhow::anyhow!("{}: {error}", loaded.places.nearest("auth.jwt.key_file")))?;
    }
    for warning in loaded.config.warnings() {
        eprintln!("warning: {warning}");
    }
    Ok(match loaded.file {
        Some(path) => format!("ok: {}", path.display()),
        None => "ok: no file, so defaults, environment and flags alone".into(),
    })
}

/// `--insecure` is no key of the file, so a comment tells of it.
fn print(loaded: &Loaded) -> anyhow::Result<String> {
    let note = match (loaded.config.insecure, loaded.config.auth.is_configured()) {
        (true, false) => "# --insecure is given: no credentials are asked for\n",
        (true, true) => "# --insecure is given, but credentials are configured, and so asked for\n",
        (false, _) => "",
    };
    Ok(format!("{note}{}", loaded.to_toml()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn flags(set: &[&str], insecure: bool) -> ConfigFlags {
        let set = set.iter().map(ToString::to_string).collect();
        ConfigFlags { config: None, set, insecure }
    }

    #[test]
    fn check_says_ok_or_the_fault() {
        let good = output(ConfigCommand::Check(flags(&[], false)), ConfigFlags::default()).unwrap();
        assert!(good.starts_with("ok: no file"), "{good}");
        let fault = output(ConfigCommand::Check(flags(&["limits.outbox=0"], false)), ConfigFlags::default())
            .unwrap_err();
        assert!(fault.to_string().starts_with("--set limits.outbox: "), "{fault}");
        let missing = ConfigFlags { config: Some("/nowhere/at/all".into()), ..ConfigFlags::default() };
        let fault = output(ConfigCommand::Check(missing), ConfigFlags::default()).unwrap_err().to_string();
        assert!(fault.starts_with("--config: cannot read /nowhere/at/all: "), "{fault}");
    }

    #[test]
    fn flags_may_stand_before_the_command_and_behind_it() {
        let before = flags(&["limits.outbox=1KiB", "limits.frame=2KiB"], true);
        let behind = ConfigCommand::Print(flags(&["limits.frame=3KiB"], false));
        let config = Config::from_toml(&output(behind, before).unwrap()).unwrap();
        assert_eq!((config.limits.outbox, config.limits.frame), (1024, 3072));
        let named = |name: &str| ConfigFlags { config: Some(name.into()), ..ConfigFlags::default() };
        for (before, behind) in [(named("/x"), flags(&[], false)), (named("/y"), named("/x"))] {
            let fault = output(ConfigCommand::Check(behind), before).unwrap_err().to_string();
            assert!(fault.starts_with("--config: cannot read /x: "), "{fault}");
        }
    }

    #[test]
    fn print_is_toml_and_tells_of_insecure() {
        let printed =
            output(ConfigCommand::Print(flags(&["limits.outbox=1KiB"], true)), ConfigFlags::default())
                .unwrap();
        assert!(printed.starts_with("# --insecure is given"), "{printed}");
        let config = Config::from_toml(&printed).unwrap();
        assert_eq!(config.limits.outbox, 1024);
    }

    #[test]
    fn schema_is_json() {
        let schema: serde_json::Value =
            serde_json::from_str(&output(ConfigCommand::Schema, ConfigFlags::default()).unwrap()).unwrap();
        assert_eq!(schema["$schema"], "https://json-schema.org/draft/2020-12/schema");
    }
}

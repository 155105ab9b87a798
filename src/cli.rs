//! The command line: `tidegate` serves, its subcommands publish, follow, make credentials, check, examine and measure.

mod bench;
mod client;
mod config;
mod doctor;
mod feed;
mod key;
mod probe;
mod publish;
mod ready;
mod selftest;
mod serve;
mod subscribe;
mod token;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser, error::ErrorKind};

use self::{
    config::{ConfigCommand, ConfigFlags},
    selftest::Selftest,
    subscribe::Follower,
};
use crate::pattern::{Pattern, PatternError};

/// Exit code of a bad command line or configuration (`EX_USAGE`).
const USAGE: u8 = 64;

/// A pub/sub push gateway: publish with one HTTP POST, receive over WebSocket, Server-Sent Events,
/// NDJSON or long polling.
///
/// Without a subcommand it serves. Without configuration it keeps messages in memory, listens on loopback
/// only (clients on 127.0.0.1:8000, backends on 127.0.0.1:9000) and prints three commands to try.
#[derive(Debug, Parser)]
#[command(version, after_help = EXAMPLES)]
struct Cli {
    #[command(flatten)]
    flags: ConfigFlags,
    #[command(subcommand)]
    command: Option<Command>,
}

const EXAMPLES: &str = "Examples:
  tidegate                                         serve, with a first message in a minute
  tidegate --config tidegate.toml                  serve as configured
  tidegate --set public.listen=127.0.0.1:8080      one key, above file and environment
  TIDEGATE_LIMITS__MESSAGE=1MiB tidegate           the same from the environment
  tidegate config print                            what is in force, and where it came from
  tidegate doctor --config tidegate.toml           what may be wrong with machine and Redis
  tidegate key orders --channels 'orders:*' --operations publish
                                                   a key for a backend
  tidegate token --sub alice --channels news       a token for a subscriber, for development
  tidegate publish news 'Hello'                    publish a message
  tidegate subscribe news --transport websocket    follow a channel
  tidegate selftest URL INTERNAL_URL               whether messages come through, over each transport

Signals: SIGTERM drains, SIGINT ends within a second, SIGHUP reads the configuration anew.
Exit codes: 0, 1 failure, 64 usage or configuration.";

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Check, print or describe the configuration
    #[command(subcommand)]
    Config(ConfigCommand),
    // The help of the others is that of their arguments.
    Doctor(doctor::Args),
    Key(key::Args),
    Token(token::Args),
    Ready(ready::Args),
    Publish(publish::Args),
    Subscribe(subscribe::Args),
    Selftest(selftest::Args),
    Bench(bench::Bench),
}

/// Runs the command of this process.
#[must_use]
pub fn main() -> ExitCode {
    let cli = match Cli::try_parse() {
        Ok(cli) => cli,
        Err(error) => {
            let _ = error.print();
            return if error.use_stderr() { USAGE.into() } else { ExitCode::SUCCESS };
        }
    };
    let command = match cli.command {
        None => return serve::run(cli.flags),
        Some(Command::Config(command)) => return config::run(command, cli.flags),
        Some(Command::Doctor(args)) => return doctor::run(args, cli.flags),
        Some(Command::Token(args)) => return token::run(args, cli.flags),
        Some(Command::Ready(args)) => return ready::run(args, cli.flags),
        Some(client) => client,
    };
    if cli.flags.are_given() {
        return refuse(
            "--config, --set and --insecure are for the gateway, `tidegate config`, `tidegate doctor`, `tidegate ready` and \
             `tidegate token`",
        );
    }
    match command {
        Command::Config(command) => config::run(command, ConfigFlags::default()),
        Command::Doctor(args) => doctor::run(args, ConfigFlags::default()),
        Command::Token(args) => token::run(args, ConfigFlags::default()),
        Command::Key(args) => key::run(&args),
        Command::Ready(args) => ready::run(args, ConfigFlags::default()),
        Command::Publish(args) => match args.client() {
            Ok(client) => run_client(publish::run(args, client)),
            Err(sentence) => refuse(&sentence),
        },
        Command::Subscribe(args) => match Follower::new(args) {
            Ok(follower) => run_client(follower.follow()),
            Err(sentence) => refuse(&sentence),
        },
        Command::Selftest(args) => match Selftest::new(args) {
            Ok(selftest) => run_client(selftest.run()),
            Err(sentence) => refuse(&sentence),
        },
        Command::Bench(bench) => bench.run(),
    }
}

/// A channel pattern, as it was written.
fn parse_pattern(text: &str) -> Result<String, PatternError> {
    text.parse::<Pattern>().map(|pattern| pattern.to_string())
}

/// An operation of an API key, as it was written.
fn parse_operation(text: &str) -> Result<String, &'static str> {
    match text {
        "publish" | "read" | "manage" => Ok(text.into()),
        _ => Err("it is publish, read or manage"),
    }
}

/// Says what is wrong with the command line, as clap does.
fn refuse(sentence: &str) -> ExitCode {
    let _ = Cli::command().error(ErrorKind::ValueValidation, sentence).print();
    USAGE.into()
}

/// Runs a client to its end, or until a person has seen enough.
fn run_client(client: impl Future<Output = anyhow::Result<()>>) -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.map_err(anyhow::Error::from).and_then(|runtime| {
        let outcome = runtime.block_on(async {
            tokio::select! {
                outcome = client => outcome,
                _ = tokio::signal::ctrl_c() => Ok(()),
            }
        });
        // A read of standard input that nobody ends must not hold the exit.
        runtime.shutdown_background();
        outcome
    });
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(command: &clap::Command) {
        let name = command.get_name();
        assert!(command.get_about().is_some(), "{name} says nothing of itself");
        for argument in command.get_arguments() {
            assert!(argument.get_help().is_some(), "{name} {} has no help", argument.get_id());
        }
        command.get_subcommands().for_each(check);
    }

    #[test]
    fn every_command_and_argument_has_its_help() {
        let command = Cli::command();
        command.clone().debug_assert();
        check(&command);
    }
}

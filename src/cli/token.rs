//! `tidegate token`: a token for development, as an issuer would sign it.

use std::{
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use super::{USAGE, config::ConfigFlags, parse_pattern, refuse};
use crate::{
    auth::jwt::{Signer, Wanted},
    config,
};

/// Make a token for a subscriber, for development
///
/// It is signed with the secret at auth.jwt.key_file of the configuration, or with --key-file, and says what
/// auth.jwt.audience and auth.jwt.issuer ask for. In production tokens come from your application or its identity
/// provider, which knows who somebody is; the claims are the same.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// Who it is: the claim `sub`
    #[arg(long, value_name = "SUBJECT")]
    sub: String,
    /// What may be subscribed to, with commas: names, or beginnings with a * behind them
    #[arg(long, value_name = "PATTERNS", value_delimiter = ',', value_parser = parse_pattern)]
    channels: Vec<String>,
    /// What may be published to, with commas
    #[arg(long, value_name = "PATTERNS", value_delimiter = ',', value_parser = parse_pattern)]
    publish: Vec<String>,
    /// How long it holds
    #[arg(long, value_name = "TIME", default_value = "1h", value_parser = config::duration)]
    expires: Duration,
    /// A secret, or a private key in PEM; else auth.jwt.key_file of the configuration
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
    #[command(flatten)]
    flags: ConfigFlags,
}

const EXAMPLES: &str = "Examples:
  openssl rand -hex 32 > secret                                        a secret, once
  tidegate token --key-file secret --sub alice --channels 'orders:*'
  tidegate token --config tidegate.toml --sub alice --channels news,chat:7 --publish chat:7 --expires 8h

It is shown with:
  curl -H \"Authorization: Bearer $TOKEN\" 'http://127.0.0.1:8000/v1/subscribe?channel=news'
  new EventSource('http://127.0.0.1:8000/v1/subscribe?channel=news&token=' + token)";

/// Prints a token. `before` are the flags before the command's name.
pub(super) fn run(args: Args, before: ConfigFlags) -> ExitCode {
    if args.channels.is_empty() && args.publish.is_empty() {
        return refuse("a token without grants is good for nothing: give --channels, --publish, or both");
    }
    if args.sub.is_empty() || args.sub.len() > 256 || args.sub.contains(char::is_control) {
        return refuse("--sub has 1 to 256 bytes without control characters");
    }
    if args.expires < Duration::from_secs(1) {
        return refuse("--expires is a second at least");
    }
    match token(args, before) {
        Ok(token) => match writeln!(io::stdout(), "{token}") {
            Ok(()) => ExitCode::SUCCESS,
            Err(_) => ExitCode::FAILURE,
        },
        Err(sentence) => {
            eprintln!("tidegate: {sentence}");
            USAGE.into()
        }
    }
}

fn token(args: Args, before: ConfigFlags) -> Result<String, String> {
    let loaded = before.and(args.flags).load().map_err(|fault| fault.to_string())?;
    let jwt = loaded.config.auth.jwt.as_ref();
    let wanted = Wanted {
        sub: args.sub,
        channels: args.channels,
        publish: args.publish,
        aud: jwt.and_then(|jwt| jwt.audience.clone()),
        iss: jwt.and_then(|jwt| jwt.issuer.clone()),
    };
    Signer::find(args.key_file.as_deref(), jwt)?.sign(&wanted, args.expires)
}

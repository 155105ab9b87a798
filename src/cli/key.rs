//! `tidegate key`: a key for a backend, and its entry for the configuration.

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Serialize;
use sha2::{Digest as _, Sha256};

use super::{parse_operation, parse_pattern, refuse};

/// Tells what it is where one is found that was lost.
const PREFIX: &str = "tgk_";

/// Make an API key for a backend
///
/// Prints the key, which is shown this once and kept nowhere, and the entry for the gateway's configuration, which
/// holds its SHA-256 alone. Several keys work at once: to change one, add the new entry, give the backend its
/// new key, and then remove the old entry.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// What the logs call it
    name: String,
    /// The channels it is for, with commas: names, or beginnings with a * behind them
    #[arg(long, value_name = "PATTERNS", value_delimiter = ',', required = true, value_parser = parse_pattern)]
    channels: Vec<String>,
    /// What it may do, with commas: publish, read, manage
    #[arg(long, value_name = "LIST", value_delimiter = ',', required = true, value_parser = parse_operation)]
    operations: Vec<String>,
    /// Publishes in a second; nothing: no limit
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
    rate: Option<u32>,
}

const EXAMPLES: &str = "Examples:
  tidegate key orders-service --channels 'orders:*' --operations publish,read
  tidegate key ops --channels '*' --operations publish,read,manage --rate 100

The backend sends it so:
  curl -H 'Authorization: Bearer tgk_…' -d 'Hello' http://127.0.0.1:9000/v1/channels/orders:42/messages";

/// An entry of `[[auth.keys]]`.
#[derive(Serialize)]
struct Entry<'a> {
    name: &'a str,
    sha256: String,
    channels: &'a [String],
    operations: &'a [String],
    #[serde(skip_serializing_if = "Option::is_none")]
    rate: Option<u32>,
}

/// Prints a new key and its entry.
pub(super) fn run(args: &Args) -> ExitCode {
    if args.name.is_empty() || args.name.len() > 200 || args.name.contains(char::is_control) {
        return refuse("NAME has 1 to 200 bytes without control characters");
    }
    match text(args).and_then(|text| Ok(io::stdout().write_all(text.as_bytes())?)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("tidegate: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// TOML as a whole, so that what is pasted with the entry does no harm to the file.
fn text(args: &Args) -> anyhow::Result<String> {
    let mut secret = [0; 32];
    aws_lc_rs::rand::fill(&mut secret).map_err(|_| anyhow::anyhow!("the system gives no random bytes"))?;
    let key = format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(secret));
    let entry = toml::to_string(&Entry {
        name: &args.name,
        sha256: Sha256::digest(&key).iter().map(|byte| format!("{byte:02x}")).collect(),
        channels: &args.channels,
        operations: &args.operations,
        rate: args.rate,
    })?;
    Ok(format!(
        "# The key, shown this once. It belongs to the backend, and not into the gateway's configuration:\n\
         #   {key}\n\
         # Its entry, which does:\n\
         [[auth.keys]]\n{entry}"
    ))
}

//! `tidegate publish`: one message by one POST; the receipt on standard output.

use std::{
    io::{self, Read as _, Write as _},
    time::Duration,
};

use bytes::Bytes;
use http::{Method, StatusCode, header};
use http_body_util::{BodyExt as _, Full};

use super::client::{ApiKey, Client, Credential, Refusal, Trust, Url, send};
use crate::{
    channel::Channel,
    publication::{EventName, IdempotencyKey},
};

/// How long the broker may take beyond what the network does.
const WAIT: Duration = Duration::from_secs(20);

/// Publish a message and print its receipt
///
/// What parses as JSON is published as JSON, other text as text, anything else as bytes; `--content-type`
/// says otherwise.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The channel: 1 to 200 of A-Z a-z 0-9 _ . : ~ @ -
    channel: Channel,
    /// The message; - or nothing: read from standard input
    data: Option<String>,
    /// The gateway's internal listener
    #[arg(long, value_name = "URL", env = "TIDEGATE_INTERNAL_URL", default_value = "http://127.0.0.1:9000")]
    url: Url,
    /// The name of the SSE event
    #[arg(long, value_name = "NAME")]
    event: Option<EventName>,
    /// Makes a repeated publish harmless for 5 minutes
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<IdempotencyKey>,
    /// application/json, text/plain, application/octet-stream…
    #[arg(long, value_name = "TYPE")]
    content_type: Option<String>,
    #[command(flatten)]
    api_key: ApiKey,
    #[command(flatten)]
    trust: Trust,
}

const EXAMPLES: &str = "Examples:
  tidegate publish orders '{\"id\":42}'
  tidegate publish orders --event created < order.json
  tidegate publish orders 'Hello' --url https://tidegate-internal:9000 --api-key-file key

Exit codes: 0 accepted, 1 not accepted, 64 usage.";

impl Args {
    /// The way to the gateway.
    ///
    /// # Errors
    /// What of the flags cannot be used, as a sentence.
    pub(super) fn client(&self) -> Result<Client, String> {
        Client::new(self.url.clone(), &self.trust, self.api_key.clone().credential())
    }
}

/// Publishes.
///
/// # Errors
/// No connection, or the title and detail of the gateway's problem.
pub(super) async fn run(args: Args, client: Client) -> anyhow::Result<()> {
    let data = match args.data {
        Some(text) if text != "-" => Bytes::from(text),
        _ => tokio::task::spawn_blocking(standard_input).await??,
    };
    let guess = match std::str::from_utf8(&data) {
        // The one type that the gateway takes as JSON where it parses, and as text otherwise.
        Ok(_) => "application/x-www-form-urlencoded",
        Err(_) => "application/octet-stream",
    };
    let mut request = client
        .request(&format!("/v1/channels/{}/messages", args.channel))?
        .method(Method::POST)
        .header(header::CONTENT_TYPE, args.content_type.as_deref().unwrap_or(guess));
    if let Some(event) = &args.event {
        request = request.header("tidegate-event", event.as_str());
    }
    if let Some(key) = &args.idempotency_key {
        request = request.header("idempotency-key", key.as_str());
    }
    let mut connection = client.connect().await?;
    let response = send(&mut connection, request.body(Full::new(data))?, WAIT).await?;
    if response.status() != StatusCode::ACCEPTED {
        let refusal = Refusal::read(response).await;
        if refusal.status == 401 && *client.credential() == Credential::None {
            anyhow::bail!("{}; {}", refusal.sentence, ApiKey::ADVICE);
        }
        anyhow::bail!(refusal.sentence);
    }
    let receipt = response.into_body().collect().await?.to_bytes();
    let mut out = io::stdout().lock();
    out.write_all(receipt.trim_ascii())?;
    Ok(out.write_all(b"\n")?)
}

fn standard_input() -> io::Result<Bytes> {
    let mut data = Vec::new();
    io::stdin().lock().read_to_end(&mut data)?;
    Ok(data.into())
}

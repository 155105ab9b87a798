//! `tidegate subscribe`: follows channels over any transport, one message a line on standard output. Comes
//! back with its cursor when the connection ends, as the gateway asks it to; gaps and states go to
//! standard error.

use std::{
    io::{self, Write as _},
    time::Duration,
};

use http::HeaderValue;
use tokio::time::sleep;

use super::{
    client::{Client, Credential, Token, Trust, Url},
    feed::{End, Feed, Heard, Object},
};
use crate::{
    channel::Channel,
    position::{Since, SinceError},
    transport_name::Transport,
};

/// The first wait before coming back where the gateway did not say how long; doubled each time.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// How often the file of a token that was refused is looked at.
const LOOK: Duration = Duration::from_secs(1);

/// The longest of these waits.
const LONGEST_WAIT: Duration = Duration::from_secs(15);

/// Follow channels; one message a line
///
/// Reconnects with its position, so that nothing is lost or doubled; where messages are missing, a line on
/// standard error says so. A token in a file is read anew for each connection, so that who writes a new one there
/// before the old one ends keeps it going.
#[derive(Debug, clap::Args)]
#[command(after_help = EXAMPLES)]
pub(super) struct Args {
    /// The channels, 1 to 128
    #[arg(required = true, value_name = "CHANNEL")]
    channels: Vec<Channel>,
    /// websocket, sse, ndjson or poll
    #[arg(long, default_value = "websocket")]
    transport: Transport,
    /// latest, earliest, last:N or a position; a list with commas gives one for each channel
    #[arg(long, value_delimiter = ',', value_parser = since, default_value = "latest")]
    since: Vec<String>,
    /// The gateway's public listener
    #[arg(long, value_name = "URL", env = "TIDEGATE_URL", default_value = "http://127.0.0.1:8000")]
    url: Url,
    /// What a line is
    #[arg(long, value_enum, default_value_t = Format::Json)]
    format: Format,
    #[command(flatten)]
    token: Token,
    #[command(flatten)]
    trust: Trust,
}

const EXAMPLES: &str = "Examples:
  tidegate subscribe orders
  tidegate subscribe orders chat:42 --since last:10 --transport sse
  tidegate subscribe orders --since earliest --format raw | jq .id
  tidegate subscribe orders --url https://push.example.org --token-file token

Exit codes: 0 ended by Ctrl-C or by who reads, 1 refused for good, 64 usage.";

/// What is printed of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Format {
    /// The message object
    Json,
    /// The payload alone
    Raw,
}

/// What outlives a connection.
pub(super) struct Follower {
    client: Client,
    transport: Transport,
    format: Format,
    channels: Vec<Channel>,
    /// Where each channel stands: a keyword until the gateway names a position.
    cursor: Vec<String>,
    /// Connections in a row that brought nothing.
    failures: u32,
    /// Whether the gateway ever let it in.
    was_served: bool,
}

/// An entry of `--since` as it was given, if it is one.
fn since(entry: &str) -> Result<String, SinceError> {
    entry.parse::<Since>().map(|_| entry.to_owned())
}

impl Follower {
    /// What these arguments ask for.
    ///
    /// # Errors
    /// What the gateway would refuse, as a sentence.
    pub(super) fn new(args: Args) -> Result<Self, String> {
        let count = args.channels.len();
        if let Some(twice) = (1..count).find(|&n| args.channels[..n].contains(&args.channels[n])) {
            return Err(format!("the channel {} is named twice", args.channels[twice]));
        }
        let is_keyword = |entry: &String| !matches!(entry.parse(), Ok(Since::Position(_)));
        let cursor = match args.since.as_slice() {
            [one] if is_keyword(one) => vec![one.clone(); count],
            list if list.len() == count => args.since,
            list => return Err(format!("--since has {} entries for {count} channels", list.len())),
        };
        Ok(Self {
            client: Client::new(args.url, &args.trust, args.token.credential())?,
            transport: args.transport,
            format: args.format,
            channels: args.channels,
            cursor,
            failures: 0,
            was_served: false,
        })
    }

    /// Follows until nobody reads standard output, or until the gateway says not to come back.
    ///
    /// # Errors
    /// The gateway's refusal.
    pub(super) async fn follow(mut self) -> anyhow::Result<()> {
        loop {
            let shown = self.client.credential().header().ok().flatten();
            match self.connection().await {
                Err(End::Unread) => return Ok(()),
                Err(End::Refused(sentence)) => anyhow::bail!(sentence),
                Err(End::Unauthorized(why, after)) => self.wait_for_token(why, shown.as_ref(), after).await?,
                Ok(()) => self.wait("the connection ended", None).await,
                Err(End::Lost(why, after)) => self.wait(&why, after).await,
            }
        }
    }

    /// One connection, or for long polling one after the other for as long as all goes well.
    async fn connection(&mut self) -> Result<(), End> {
        let mut feed = Feed::open(&self.client, self.transport, &self.query()).await?;
        // What an SSE stream said last about coming back; it counts once the stream is over.
        let mut retry = None;
        loop {
            let heard = match feed.next().await {
                Ok(Some(heard)) => heard,
                Ok(None) if self.transport == Transport::Poll => {
                    feed.poll(&self.client, &self.query()).await?;
                    self.served();
                    continue;
                }
                Ok(None) => return Err(End::Lost("the stream ended".into(), retry)),
                Err(End::Lost(why, None)) => return Err(End::Lost(why, retry)),
                Err(end) => return Err(end),
            };
            match heard {
                Heard::Object(text) => self.take(&text)?,
                Heard::Cursor(cursor) => self.move_to(&cursor),
                Heard::Retry(after) => retry = Some(after),
            }
        }
    }

    /// The path and query of a subscription from where all channels stand. No character of a channel or a
    /// position needs escaping.
    fn query(&self) -> String {
        let channels: String = self.channels.iter().map(|channel| format!("channel={channel}&")).collect();
        let (transport, since) = (self.transport, self.cursor.join(","));
        format!("/v1/subscribe?{channels}transport={transport}&since={since}")
    }

    fn take(&mut self, text: &str) -> Result<(), End> {
        let object: Object<'_> = serde_json::from_str(text)?;
        let channel = object.channel.as_deref().unwrap_or_default();
        match object.kind.as_ref() {
            "message" => {
                self.print(text, &object)?;
                self.stand(channel, object.id.as_deref());
            }
            "subscribed" => {
                self.served();
                let position = object.position.as_deref().unwrap_or_default();
                say(&format!("{channel}: subscribed at {position}"));
                self.stand(channel, object.position.as_deref());
            }
            "gap" => {
                say(&object.gap());
                self.stand(channel, object.to.as_deref());
            }
            "goodbye" => return Err(object.goodbye()),
            "error" => say(&object.error()),
            _ => {}
        }
        Ok(())
    }

    fn print(&self, text: &str, object: &Object<'_>) -> Result<(), End> {
        let mut line = match self.format {
            Format::Json => text.as_bytes().to_vec(),
            Format::Raw => object.payload(),
        };
        line.push(b'\n');
        let mut out = io::stdout().lock();
        let written = out.write_all(&line).and_then(|()| out.flush());
        written.map_err(|_| End::Unread)
    }

    fn stand(&mut self, channel: &str, at: Option<&str>) {
        let index = self.channels.iter().position(|c| c.as_str() == channel);
        if let (Some(index), Some(at)) = (index, at) {
            at.clone_into(&mut self.cursor[index]);
        }
    }

    /// Takes over a cursor that names all channels.
    fn move_to(&mut self, cursor: &str) {
        let entries: Vec<String> = cursor.split(',').map(str::to_owned).collect();
        if entries.len() == self.cursor.len() {
            self.cursor = entries;
        }
    }

    fn served(&mut self) {
        self.failures = 0;
        self.was_served = true;
    }

    /// Comes back once the file has another token. Without a file there is no other, and what never let anybody in
    /// is not a token that has ended.
    async fn wait_for_token(
        &mut self,
        why: String,
        shown: Option<&HeaderValue>,
        asked: Option<Duration>,
    ) -> anyhow::Result<()> {
        match self.client.credential() {
            Credential::None => anyhow::bail!("{why}; {}", Token::ADVICE),
            _ if !self.was_served => anyhow::bail!(why),
            Credential::Text(_) => {
                anyhow::bail!("{why}; a token in a file (--token-file) can be replaced by a new one in time")
            }
            Credential::File(path) => {
                let why = format!("{why}; {} is read for another token", path.display());
                self.wait(&why, asked).await;
            }
        }
        while self.client.credential().header().ok().flatten().as_ref() == shown {
            sleep(LOOK).await;
        }
        Ok(())
    }

    async fn wait(&mut self, why: &str, asked: Option<Duration>) {
        let wait = asked.unwrap_or_else(|| backoff(self.failures));
        self.failures = self.failures.saturating_add(1);
        say(&format!("{why}; back in {:.1} s", wait.as_secs_f64()));
        sleep(wait).await;
    }
}

/// A jittered wait after so many failures, so that clients do not come back all at once.
fn backoff(failures: u32) -> Duration {
    let wait = FIRST_WAIT.saturating_mul(1 << failures.min(10)).min(LONGEST_WAIT);
    wait.mul_f64(fastrand::f64().mul_add(0.5, 0.5))
}

/// A line for the person.
fn say(line: &str) {
    // Where standard error is closed nobody wants to know.
    let _ = writeln!(io::stderr(), "tidegate: {line}");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn follower(channels: &str, since: &str) -> Result<Follower, String> {
        Follower::new(Args {
            channels: channels.split(' ').map(|name| name.parse().unwrap()).collect(),
            transport: Transport::Sse,
            since: since.split(',').map(str::to_owned).collect(),
            url: "http://127.0.0.1:8000".parse().unwrap(),
            format: Format::Json,
            token: Token::default(),
            trust: Trust::default(),
        })
    }

    #[test]
    fn it_comes_back_from_where_each_channel_stands() {
        let mut follower = follower("a b:1", "latest").unwrap();
        for text in [
            r#"{"type":"subscribed","channel":"a","position":"aaaaaa-3","recovery":"none"}"#,
            r#"{"type":"message","channel":"a","id":"aaaaaa-4","time":1,"data":"x"}"#,
            r#"{"type":"gap","channel":"b:1","reason":"trimmed","from":"bbbbbb-1","to":"bbbbbb-9"}"#,
            r#"{"type":"heartbeat","time":5,"new_field":[]}"#,
        ] {
            follower.take(text).unwrap();
        }
        assert_eq!(
            follower.query(),
            "/v1/subscribe?channel=a&channel=b:1&transport=sse&since=aaaaaa-4,bbbbbb-9"
        );
        follower.move_to("aaaaaa-5,0-7");
        assert!(follower.query().ends_with("since=aaaaaa-5,0-7"));
        follower.move_to("zzzzzz-1");
        assert!(follower.query().ends_with("since=aaaaaa-5,0-7"));
    }

    #[test]
    fn what_the_gateway_would_refuse_is_wrong_usage() {
        for (channels, since, accepted) in [
            ("a b", "latest,aaaaaa-1", true),
            ("a b", "last:3", true),
            ("a", "aaaaaa-1", true),
            ("a b", "aaaaaa-1,aaaaaa-2,latest", false),
            ("a b", "aaaaaa-1", false),
            ("a", "latest,latest", false),
            ("a b a", "latest", false),
        ] {
            assert_eq!(follower(channels, since).is_ok(), accepted, "{channels} {since}");
        }
    }

    #[test]
    fn a_goodbye_says_whether_and_when_to_come_back() {
        let mut follower = follower("a", "latest").unwrap();
        let end = follower.take(r#"{"type":"goodbye","code":"shutdown","reconnect_after_ms":1200}"#);
        assert!(matches!(end, Err(End::Lost(_, Some(after))) if after.as_millis() == 1200));
        let end = follower.take(r#"{"type":"goodbye","code":"revoked","reconnect_after_ms":null}"#);
        assert!(matches!(end, Err(End::Refused(why)) if why.contains("revoked")));
    }

    #[test]
    fn waits_grow_to_fifteen_seconds_and_are_jittered() {
        for failures in 0..40 {
            let longest = LONGEST_WAIT.min(FIRST_WAIT * 2u32.pow(failures.min(10)));
            let wait = backoff(failures);
            assert!(wait <= longest && wait >= longest / 2, "{failures}: {wait:?}");
        }
    }
}

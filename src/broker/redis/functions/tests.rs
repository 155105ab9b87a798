//! Against a real redis-server; what is in it is looked at with another client.

mod arguments;
mod counting;
mod damage;
mod differential;
mod places;
mod server;

use std::{num::NonZeroU64, time::Duration};

use bytes::Bytes;

use self::server::Fixture;
use super::*;
use crate::{
    broker::{Page, Replay},
    config::History,
    gap::GapReason,
    payload,
    position::{Position, Since},
    publication::{Draft, Receipt},
};

const WHOLE: Page = Page { messages: usize::MAX, bytes: usize::MAX };

const HISTORY: History = History { messages: 5, bytes: 100, age: Duration::from_secs(60) };

fn channel(name: &str) -> Channel {
    name.parse().unwrap()
}

fn draft(text: &str, key: Option<&str>) -> Draft {
    let payload = payload::text(Bytes::copy_from_slice(text.as_bytes())).unwrap();
    Draft { payload, event: None, idempotency_key: key.map(|key| key.parse().unwrap()), trace: None }
}

impl Fixture {
    async fn publish(&self, name: &str, text: &str) -> Position {
        self.try_publish(name, &HISTORY, &draft(text, None)).await.unwrap().position
    }

    async fn try_publish(
        &self,
        name: &str,
        history: &History,
        draft: &Draft,
    ) -> Result<Receipt, CommandError> {
        self.functions.publish(&self.link, &channel(name), history, draft).await
    }

    async fn keyed(&self, name: &str, text: &str, key: &str) -> Result<Receipt, CommandError> {
        self.try_publish(name, &HISTORY, &draft(text, Some(key))).await
    }

    async fn read_as(&self, name: &str, history: &History, since: Since, page: Page) -> Read {
        self.functions.read(&self.link, &channel(name), history, &since, page).await.unwrap()
    }

    async fn read(&self, name: &str, since: &str) -> Replay {
        self.read_as(name, &HISTORY, since.parse().unwrap(), WHOLE).await.replay
    }

    async fn texts(&self, name: &str, since: &str) -> Vec<String> {
        let messages = self.read(name, since).await.messages;
        messages.iter().map(|message| message.payload.as_str().to_owned()).collect()
    }

    async fn gap(&self, name: &str, since: Position) -> Option<GapReason> {
        self.read(name, &since.to_string()).await.start.gap.map(|gap| gap.reason)
    }

    fn key(&self, kind: &str, name: &str) -> String {
        let names = &self.functions.names;
        let partition = names.partition(&channel(name));
        match kind {
            "names" | "state" => format!("tidegate:{{{partition}}}:{kind}"),
            kind => format!("tidegate:{{{partition}}}:{kind}:{name}"),
        }
    }
}

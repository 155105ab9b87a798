//! Disconnects, for every node: a short stream in Redis that each node reads once a second. So a node whose
//! links were away obeys too, as soon as they are back.

use std::{sync::Arc, time::Duration};

use fred::types::Value;
use tokio::{sync::mpsc, time::sleep};

use super::{Inner, calls::Way, command::CommandError, functions::Call as _, names::Partition};
use crate::{
    broker::{BrokerError, BrokerEvent, Target},
    metrics::RedisCommand,
};

/// Between two looks: a disconnect is obeyed within 5 s by every node.
const LOOK: Duration = Duration::from_secs(1);

/// Entries that are kept; a node that was away for longer than so many has lost its clients meanwhile.
const KEPT: &str = "10000";

/// How long they are kept after the last one: 1 h, in ms.
const LIFE: &str = "3600000";

/// Entries read at once; where there are more, the next follow without a pause.
const AT_ONCE: usize = 256;

/// How far the first look goes back, in ms: longer than a start takes.
const BACK: u64 = 60_000;

/// Where the reading stands: the id of the newest entry known.
type Id = String;

impl Inner {
    /// Tells every node.
    ///
    /// # Errors
    /// Redis is away.
    pub(super) async fn tell(&self, target: &Target) -> Result<(), BrokerError> {
        let (kind, name) = target.parts();
        let key = self.names.control();
        let key = &key;
        self.on(RedisCommand::Other, Partition(0), |way: Way| async move {
            let entry = ["MAXLEN", "~", KEPT, "*", "node", &self.node, kind, name];
            let mut arguments = vec![key.clone().into()];
            arguments.extend(entry.iter().map(|word| (*word).into()));
            way.call("XADD", arguments).await?;
            way.call("PEXPIRE", vec![key.clone().into(), LIFE.into()]).await.map(|_| ())
        })
        .await
    }

    async fn after(&self, id: &str) -> Result<Vec<Entry>, BrokerError> {
        let key = self.names.control();
        let key = &key;
        let ask = |way: Way| async move {
            let from = format!("({id}");
            let count = AT_ONCE.to_string();
            let arguments = vec![
                key.clone().into(),
                from.as_str().into(),
                "+".into(),
                "COUNT".into(),
                count.as_str().into(),
            ];
            entries(way.call("XRANGE", arguments).await?)
        };
        self.on(RedisCommand::Other, Partition(0), ask).await
    }
}

/// One disconnect.
struct Entry {
    id: Id,
    node: String,
    target: Option<Target>,
}

/// What XRANGE answers: `[[id, [field, value, …]], …]`.
fn entries(value: Value) -> Result<Vec<Entry>, CommandError> {
    let strange = || CommandError::Other("the stream of disconnects is not what it should be".into());
    let Value::Array(rows) = value else {
        return if value.is_null() { Ok(Vec::new()) } else { Err(strange()) };
    };
    rows.into_iter().map(|row| entry(row).ok_or_else(strange)).collect()
}

fn entry(row: Value) -> Option<Entry> {
    let mut row = row.into_array().into_iter();
    let id = row.next()?.into_string()?;
    let words: Vec<String> = row.next()?.into_array().into_iter().filter_map(Value::into_string).collect();
    let mut pairs = words.chunks_exact(2);
    let node = pairs.next().filter(|pair| pair[0] == "node").map(|pair| pair[1].clone());
    let target = pairs.next().and_then(|pair| Target::from_parts(&pair[0], &pair[1]));
    Some(Entry { id, node: node.unwrap_or_default(), target })
}

/// Hands on what other nodes were told, until nobody listens.
pub(super) async fn follow(inner: Arc<Inner>, events: mpsc::Sender<BrokerEvent>) {
    let mut at: Option<Id> = None;
    let mut more = false;
    while !events.is_closed() {
        if !std::mem::take(&mut more) {
            sleep(LOOK).await;
        }
        if inner.link(Partition(0)).is_none() {
            continue;
        }
        // What is older than a connection does not concern it: so the first look may go back.
        let id = at.get_or_insert_with(|| format!("{}-0", inner.now().saturating_sub(BACK)));
        let Ok(entries) = inner.after(id).await else { continue };
        more = entries.len() == AT_ONCE;
        for entry in entries {
            // The id begins with the time, by Redis' clock.
            let before = entry.id.split('-').next().and_then(|ms| ms.parse().ok()).unwrap_or(0);
            at = Some(entry.id);
            if entry.node == inner.node {
                continue;
            }
            if let Some(target) = entry.target
                && events.send(BrokerEvent::Disconnect { target, before }).await.is_err()
            {
                return;
            }
        }
    }
}

//! Storing a message.

use fred::types::Value;

use super::{Call, Functions, number};
use crate::{
    broker::{
        idempotency::{Digest, LIFE},
        redis::command::CommandError,
    },
    channel::Channel,
    clock::millis,
    config::History,
    position::Position,
    publication::{Draft, Kind, Receipt},
};

impl Functions {
    /// Stores a message and hands it to all who are subscribed. An idempotency key that was used for another
    /// message is [`CommandError::Other`] with `TGKEYREUSED`.
    ///
    /// # Errors
    /// What became of the command.
    pub async fn publish(
        &self,
        link: &impl Call,
        channel: &Channel,
        history: &History,
        draft: &Draft,
    ) -> Result<Receipt, CommandError> {
        let names = &self.names;
        let partition = names.partition(channel);
        let mut keys = vec![
            names.meta(partition, channel),
            names.log(partition, channel),
            names.names(partition),
            names.state(partition),
        ];
        let kind = match draft.payload.kind() {
            Kind::Json => "json",
            Kind::Text => "text",
            Kind::Bytes => "bytes",
        };
        let mut arguments = vec![
            channel.as_str().into(),
            self.database(),
            self.mode(),
            number(history.messages as u64),
            number(history.bytes as u64),
            number(millis(history.age)),
            Value::from_static_str(kind),
            draft.event.as_ref().map_or("", |event| event.as_str()).into(),
            Value::Bytes(draft.payload.bytes().clone()),
        ];
        if let Some(key) = &draft.idempotency_key {
            keys.push(names.idempotency(partition, channel, key));
            let digest = Digest::of(draft).0;
            arguments.extend([Value::Bytes(digest.to_vec().into()), number(LIFE)]);
        }
        if let Some(trace) = &draft.trace {
            arguments.resize(11, Value::from_static_str(""));
            arguments.push(trace.to_string().into());
        }
        let mut reply = self.ask(link, "tidegate_1_publish", keys, arguments).await?;
        let epoch = reply.epoch()?.ok_or_else(|| reply.strange())?;
        let position = Position::At(epoch, reply.number()?);
        reply.number()?;
        Ok(Receipt { position, duplicate: reply.flag()? })
    }
}

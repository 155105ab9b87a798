//! The answer of a function, taken apart field by field. One that is not as it should be is an error that
//! names the function: another library of the same name may be loaded.

use std::vec;

use bytes::Bytes;
use fred::types::Value;

use crate::{broker::redis::command::CommandError, position::Epoch};

/// The fields that are left of an answer.
pub(super) struct Reply {
    function: &'static str,
    fields: vec::IntoIter<Value>,
}

impl Reply {
    pub(super) fn new(function: &'static str, value: Value) -> Self {
        let fields = match value {
            Value::Array(fields) => fields,
            one => vec![one],
        };
        Self { function, fields: fields.into_iter() }
    }

    /// Whether no field is left.
    pub(super) fn is_over(&self) -> bool {
        self.fields.len() == 0
    }

    pub(super) fn number(&mut self) -> Result<u64, CommandError> {
        match self.fields.next() {
            Some(Value::Integer(n)) => u64::try_from(n).map_err(|_| self.strange()),
            _ => Err(self.strange()),
        }
    }

    pub(super) fn flag(&mut self) -> Result<bool, CommandError> {
        Ok(self.number()? != 0)
    }

    pub(super) fn bytes(&mut self) -> Result<Bytes, CommandError> {
        match self.fields.next() {
            Some(Value::Bytes(bytes)) => Ok(bytes),
            Some(Value::String(text)) => Ok(text.into_inner()),
            _ => Err(self.strange()),
        }
    }

    pub(super) fn text(&mut self) -> Result<String, CommandError> {
        String::from_utf8(self.bytes()?.into()).map_err(|_| self.strange())
    }

    /// An epoch; `None` where it is empty.
    pub(super) fn epoch(&mut self) -> Result<Option<Epoch>, CommandError> {
        let text = self.text()?;
        if text.is_empty() {
            return Ok(None);
        }
        text.parse().map(Some).map_err(|_| self.strange())
    }

    pub(super) fn strange(&self) -> CommandError {
        CommandError::Other(format!("{} of Redis does not answer as it should", self.function))
    }
}

//! What a server's object says, as far as a follower wants to know.

use std::{borrow::Cow, time::Duration};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use serde::Deserialize;
use serde_json::value::RawValue;

use super::End;

/// Any object from the server; fields that are not known are ignored.
#[derive(Debug, Deserialize)]
pub(in crate::cli) struct Object<'a> {
    #[serde(rename = "type", borrow)]
    pub kind: Cow<'a, str>,
    #[serde(borrow)]
    pub channel: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub id: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub position: Option<Cow<'a, str>>,
    #[serde(borrow)]
    pub to: Option<Cow<'a, str>>,
    #[serde(borrow)]
    from: Option<Cow<'a, str>>,
    #[serde(borrow)]
    reason: Option<Cow<'a, str>>,
    #[serde(borrow)]
    code: Option<Cow<'a, str>>,
    #[serde(borrow)]
    title: Option<Cow<'a, str>>,
    #[serde(borrow)]
    detail: Option<Cow<'a, str>>,
    reconnect_after_ms: Option<u64>,
    #[serde(borrow)]
    data: Option<&'a RawValue>,
    #[serde(borrow)]
    data_base64: Option<Cow<'a, str>>,
}

impl Object<'_> {
    /// A message's payload as it was posted.
    pub(in crate::cli) fn payload(&self) -> Vec<u8> {
        match (self.data, &self.data_base64) {
            (Some(data), _) => match serde_json::from_str::<String>(data.get()) {
                Ok(text) => text.into_bytes(),
                Err(_) => data.get().as_bytes().to_vec(),
            },
            (None, Some(base64)) => BASE64_STANDARD.decode(base64.as_bytes()).unwrap_or_default(),
            // A message has one of them: JSON's null reads as neither.
            (None, None) => b"null".to_vec(),
        }
    }

    /// A line that says what is missing.
    pub(in crate::cli) fn gap(&self) -> String {
        let text = |field: &Option<Cow<'_, str>>| field.as_deref().unwrap_or("?").to_owned();
        let (channel, reason) = (text(&self.channel), text(&self.reason));
        format!("{channel}: gap ({reason}) from {} to {}", text(&self.from), text(&self.to))
    }

    /// A line that says what was wrong.
    pub(in crate::cli) fn error(&self) -> String {
        let title = self.title.as_deref().or(self.code.as_deref()).unwrap_or("error");
        let detail = self.detail.as_deref().unwrap_or_default();
        format!("{title}: {detail}")
    }

    /// How the server ends the connection.
    pub(in crate::cli) fn goodbye(&self) -> End {
        let code = self.code.as_deref().unwrap_or("goodbye");
        let why = format!("the gateway ended the connection ({code})");
        let after = self.reconnect_after_ms.map(Duration::from_millis);
        match after {
            _ if matches!(code, "unauthorized" | "token_expired") => End::Unauthorized(why, after),
            Some(_) => End::Lost(why, after),
            None => End::Refused(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_payload_comes_out_as_it_was_posted() {
        for (field, payload) in [
            (r#""data":{"a": 1e3}"#, &b"{\"a\": 1e3}"[..]),
            (r#""data":"x\ny""#, b"x\ny"),
            (r#""data":null"#, b"null"),
            (r#""data_base64":"AP8=""#, b"\x00\xff"),
        ] {
            let text = format!(r#"{{"type":"message",{field}}}"#);
            let object: Object<'_> = serde_json::from_str(&text).unwrap();
            assert_eq!(object.payload(), payload, "{field}");
        }
    }
}

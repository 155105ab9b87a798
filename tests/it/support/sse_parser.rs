//! A reader of `text/event-stream` written from the WHATWG rules, not from the server.

/// One thing that an event stream says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum SseItem {
    /// A line that begins with a colon.
    Comment(String),
    /// The delay before a reconnect, in milliseconds.
    Retry(u64),
    /// An event that a browser would dispatch.
    Event { name: String, data: String, id: Option<String> },
    /// An `id:` that came without data: it counts, but nothing is dispatched.
    Id(String),
}

/// Takes bytes, gives items.
#[derive(Debug, Default)]
pub struct SseParser {
    line: Vec<u8>,
    after_return: bool,
    name: String,
    data: Option<String>,
    id: Option<String>,
    /// What a browser would send as `Last-Event-ID`.
    pub last_event_id: String,
}

impl SseParser {
    pub fn push(&mut self, bytes: &[u8]) -> Vec<SseItem> {
        let mut items = Vec::new();
        for &byte in bytes {
            let was_return = std::mem::replace(&mut self.after_return, byte == b'\r');
            match byte {
                b'\n' if was_return => {}
                b'\n' | b'\r' => self.end_line(&mut items),
                other => self.line.push(other),
            }
        }
        items
    }

    fn end_line(&mut self, items: &mut Vec<SseItem>) {
        let line = String::from_utf8(std::mem::take(&mut self.line)).expect("the stream is UTF-8");
        if line.is_empty() {
            self.dispatch(items);
            return;
        }
        let (field, value) = match line.split_once(':') {
            Some((field, value)) => (field, value.strip_prefix(' ').unwrap_or(value)),
            None => (line.as_str(), ""),
        };
        match field {
            "" => items.push(SseItem::Comment(value.to_owned())),
            "event" => value.clone_into(&mut self.name),
            "data" => {
                let data = self.data.get_or_insert_default();
                data.push_str(value);
                data.push('\n');
            }
            "id" if !value.contains('\0') => {
                self.last_event_id = value.to_owned();
                self.id = Some(value.to_owned());
            }
            "retry" => items.push(SseItem::Retry(value.parse().expect("a number for retry"))),
            other => panic!("a field that no browser knows: {other:?} in {line:?}"),
        }
    }

    fn dispatch(&mut self, items: &mut Vec<SseItem>) {
        let id = self.id.take();
        let name = std::mem::take(&mut self.name);
        match (self.data.take(), id) {
            (Some(mut data), id) => {
                data.pop();
                let name = if name.is_empty() { "message".to_owned() } else { name };
                items.push(SseItem::Event { name, data, id });
            }
            (None, Some(id)) => items.push(SseItem::Id(id)),
            (None, None) => {}
        }
    }
}

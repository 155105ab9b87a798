//! Requests as a person writes them down, for this gateway and for any other server of the kind.
//!
//! `GET /sub/{channel}`, further headers on lines of their own, behind an empty line the body. What every request
//! needs besides (the version, `Host`, `Content-Length`) is added when it is written out.

use std::{fmt::Write as _, fs};

/// A request with blanks in it.
#[derive(Debug)]
pub struct Template {
    line: Text,
    headers: Vec<(String, Text)>,
    body: Text,
}

/// What the blanks are filled with.
#[derive(Clone, Copy)]
pub struct Blanks<'a> {
    /// `{channel}`.
    pub channel: &'a str,
    /// `{payload}`.
    pub payload: &'a str,
}

/// Why a text is no template.
#[derive(Debug, thiserror::Error)]
pub enum BadTemplate {
    #[error("cannot read {path}: {source}")]
    File { path: String, source: std::io::Error },
    #[error("its first line is {0:?}; a method and a target are needed, as in `GET /sub/{{channel}}`")]
    Line(String),
    #[error("{0:?} is no header; an empty line begins the body")]
    Header(String),
    #[error("{0} is not in it")]
    Blank(&'static str),
}

/// Literal text with a blank behind each piece but the last.
#[derive(Debug, Default)]
struct Text {
    pieces: Vec<(String, Blank)>,
    rest: String,
}

/// A place that is filled for each request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blank {
    /// `{channel}`: the name of a channel.
    Channel,
    /// `{payload}`: what is published, which nothing has to escape.
    Payload,
}

impl Template {
    /// Reads a text, or the file that is named after an `@`.
    pub fn read(text: &str) -> Result<Self, BadTemplate> {
        match text.strip_prefix('@') {
            None => Self::parse(text),
            Some(path) => {
                let text = fs::read_to_string(path)
                    .map_err(|source| BadTemplate::File { path: path.to_owned(), source })?;
                Self::parse(text.trim_end_matches('\n'))
            }
        }
    }

    /// Reads a text.
    pub fn parse(text: &str) -> Result<Self, BadTemplate> {
        let text = text.replace("\r\n", "\n");
        let (head, body) = text.split_once("\n\n").unwrap_or((&text, ""));
        let mut lines = head.lines();
        let line = lines.next().unwrap_or_default();
        let words: Vec<&str> = line.split_whitespace().collect();
        if words.len() != 2 {
            return Err(BadTemplate::Line(line.to_owned()));
        }
        let header = |line: &str| match line.split_once(':') {
            Some((name, value)) if !name.trim().is_empty() => {
                Ok((name.trim().to_owned(), Text::parse(value.trim())))
            }
            _ => Err(BadTemplate::Header(line.to_owned())),
        };
        let headers = lines.map(header).collect::<Result<_, _>>()?;
        Ok(Self { line: Text::parse(&words.join(" ")), headers, body: Text::parse(body) })
    }

    /// Refuses a template without a blank that it needs.
    pub fn needs(self, blank: Blank) -> Result<Self, BadTemplate> {
        let headers = self.headers.iter().map(|(_, text)| text);
        let has = [&self.line, &self.body].into_iter().chain(headers).any(|text| text.has(blank));
        if has { Ok(self) } else { Err(BadTemplate::Blank(blank.name())) }
    }

    /// Writes the request out for a host, with headers that it does not name itself.
    pub fn request(&self, blanks: Blanks<'_>, host: &str, headers: &[(&str, &str)]) -> Vec<u8> {
        let body = self.body(blanks);
        let mut out = self.head(blanks, host, headers, body.len());
        out.push_str(&body);
        out.into_bytes()
    }

    /// Its head alone, and its body for other uses.
    pub fn apart(&self, blanks: Blanks<'_>, host: &str, headers: &[(&str, &str)]) -> (Vec<u8>, String) {
        (self.head(blanks, host, headers, 0).into_bytes(), self.body(blanks))
    }

    fn head(&self, blanks: Blanks<'_>, host: &str, headers: &[(&str, &str)], length: usize) -> String {
        let mut out = String::with_capacity(256 + length);
        self.line.fill(blanks, &mut out);
        out.push_str(" HTTP/1.1\r\n");
        for (name, value) in &self.headers {
            // Writing to a `String` cannot fail.
            let _ = write!(out, "{name}: ");
            value.fill(blanks, &mut out);
            out.push_str("\r\n");
        }
        let size = length.to_string();
        let length = (length > 0).then_some(("Content-Length", size.as_str()));
        for (name, value) in [("Host", host)].into_iter().chain(length).chain(headers.iter().copied()) {
            if !self.headers.iter().any(|(own, _)| own.eq_ignore_ascii_case(name)) {
                let _ = write!(out, "{name}: {value}\r\n");
            }
        }
        out.push_str("\r\n");
        out
    }

    fn body(&self, blanks: Blanks<'_>) -> String {
        let mut body = String::new();
        self.body.fill(blanks, &mut body);
        body
    }
}

impl Blank {
    const ALL: [Self; 2] = [Self::Channel, Self::Payload];

    fn name(self) -> &'static str {
        match self {
            Self::Channel => "{channel}",
            Self::Payload => "{payload}",
        }
    }
}

impl Text {
    fn parse(mut text: &str) -> Self {
        let mut pieces = Vec::new();
        let next = |text: &str| {
            let found = Blank::ALL.into_iter().filter_map(|blank| Some((text.find(blank.name())?, blank)));
            found.min_by_key(|(at, _)| *at)
        };
        while let Some((at, blank)) = next(text) {
            pieces.push((text[..at].to_owned(), blank));
            text = &text[at + blank.name().len()..];
        }
        Self { pieces, rest: text.to_owned() }
    }

    fn has(&self, blank: Blank) -> bool {
        self.pieces.iter().any(|(_, found)| *found == blank)
    }

    fn fill(&self, blanks: Blanks<'_>, out: &mut String) {
        for (literal, blank) in &self.pieces {
            out.push_str(literal);
            out.push_str(match blank {
                Blank::Channel => blanks.channel,
                Blank::Payload => blanks.payload,
            });
        }
        out.push_str(&self.rest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLANKS: Blanks<'_> = Blanks { channel: "bench-0", payload: "~bench~" };

    fn text(bytes: Vec<u8>) -> String {
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn blanks_are_filled_and_what_a_request_needs_is_added() {
        let template = Template::parse(
            "POST /pub?id={channel}\nX-Of: {channel}\n\n{\"c\":\"{channel}\",\"d\":\"{payload}\"}",
        )
        .unwrap();
        assert_eq!(
            text(template.request(BLANKS, "h:1", &[("Accept", "a/b")])),
            "POST /pub?id=bench-0 HTTP/1.1\r\nX-Of: bench-0\r\nHost: h:1\r\nContent-Length: 29\r\nAccept: a/b\r\n\r\n\
             {\"c\":\"bench-0\",\"d\":\"~bench~\"}"
        );
        let (head, body) = template.apart(BLANKS, "h", &[]);
        assert!(!text(head).contains("Content-Length") && body.starts_with('{'));
    }

    #[test]
    fn a_header_of_the_template_wins() {
        let template = Template::parse("GET /sub\r\nHost: other\r\naccept: */*").unwrap();
        let request = text(template.request(BLANKS, "h", &[("Accept", "text/event-stream")]));
        assert_eq!(request, "GET /sub HTTP/1.1\r\nHost: other\r\naccept: */*\r\n\r\n");
    }

    #[test]
    fn what_is_no_template_is_told() {
        for (template, words) in [
            ("", "a method and a target"),
            ("/sub/{channel}", "a method and a target"),
            ("GET /sub HTTP/1.1", "a method and a target"),
            ("GET /sub\nAccept", "is no header"),
            ("@/nowhere/at/all", "cannot read /nowhere/at/all"),
        ] {
            let refused = Template::read(template).unwrap_err().to_string();
            assert!(refused.contains(words), "{template}: {refused}");
        }
        let template = Template::parse("POST /pub/{channel}\n\n{payload}").unwrap();
        let template = template.needs(Blank::Payload).unwrap().needs(Blank::Channel).unwrap();
        assert_eq!(text(template.request(BLANKS, "h", &[])).matches("~bench~").count(), 1);
        let refused = Template::parse("POST /pub/{channels}").unwrap().needs(Blank::Channel).unwrap_err();
        assert_eq!(refused.to_string(), "{channel} is not in it");
    }
}

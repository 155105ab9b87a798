//! Checks JSON (RFC 8259) without building it, and drops the line breaks between its tokens. It does not
//! recurse, and it counts depth itself: what serde_json skips over, it skips without a limit.

use std::ops::Range;

/// How deeply arrays and objects may be nested.
pub(super) const MAX_DEPTH: u32 = 128;

const BYTE_ORDER_MARK: &[u8] = b"\xef\xbb\xbf";

/// Valid JSON as it is to be kept.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// This part of the text as it is.
    Slice(Range<usize>),
    /// A copy, without line breaks.
    Copy(Vec<u8>),
}

/// Where a text stops being JSON, and what is wrong there.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) at: usize,
    pub(super) what: &'static str,
}

/// Checks that `text` is one JSON value with nothing but white space around it.
pub(super) fn check(text: &str) -> Result<Kept, Wrong> {
    let text = text.as_bytes();
    if text.starts_with(BYTE_ORDER_MARK) {
        return Err(Wrong { at: 0, what: "a byte order mark is not part of JSON" });
    }
    let start = text.iter().take_while(|b| is_space(**b)).count();
    let mut scan = Scan { text, at: start, kept: Vec::new(), copied: start, nesting: Nesting::default() };
    scan.document()?;
    let end = scan.at;
    let rest = &text[end..];
    if let Some(extra) = rest.iter().position(|b| !is_space(*b)) {
        return Err(Wrong { at: end + extra, what: "expected nothing more after the value" });
    }
    if scan.copied == start {
        return Ok(Kept::Slice(start..end));
    }
    scan.kept.extend_from_slice(&text[scan.copied..end]);
    Ok(Kept::Copy(scan.kept))
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\r' | b'\n')
}

/// A walk over the tokens.
struct Scan<'a> {
    text: &'a [u8],
    at: usize,
    /// What is kept of `text[..copied]`, once a line break had to go.
    kept: Vec<u8>,
    copied: usize,
    nesting: Nesting,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Container {
    Array,
    Object,
}

/// The arrays and objects that are open, one bit each: set for an object, the innermost lowest.
#[derive(Default)]
struct Nesting {
    objects: u128,
    depth: u32,
}

impl Nesting {
    fn innermost(&self) -> Option<Container> {
        match (self.depth, self.objects & 1) {
            (0, _) => None,
            (_, 0) => Some(Container::Array),
            _ => Some(Container::Object),
        }
    }

    /// Whether there was room for it.
    fn open(&mut self, container: Container) -> bool {
        self.objects = self.objects << 1 | u128::from(container == Container::Object);
        self.depth += 1;
        self.depth <= MAX_DEPTH
    }

    fn close(&mut self) {
        self.objects >>= 1;
        self.depth -= 1;
    }
}

impl Scan<'_> {
    /// One value, with all that it contains.
    fn document(&mut self) -> Result<(), Wrong> {
        loop {
            self.value()?;
            while self.closes()? {}
            if self.nesting.depth == 0 {
                return Ok(());
            }
        }
    }

    /// A string, number or literal, or an empty container; or the beginnings of containers up to the first
    /// of these.
    fn value(&mut self) -> Result<(), Wrong> {
        loop {
            let begin = self.at;
            match self.peek() {
                Some(b'"') => return self.string(),
                Some(b'-' | b'0'..=b'9') => return self.number(),
                Some(b't') => return self.literal(b"true"),
                Some(b'f') => return self.literal(b"false"),
                Some(b'n') => return self.literal(b"null"),
                Some(b'[') => self.open(Container::Array)?,
                Some(b'{') => self.open(Container::Object)?,
                _ => return Err(self.wrong("expected a value")),
            }
            match (self.text[begin], self.peek()) {
                (b'[', Some(b']')) | (b'{', Some(b'}')) => {
                    self.at += 1;
                    self.nesting.close();
                    return Ok(());
                }
                (b'{', _) => self.key()?,
                _ => {}
            }
        }
    }

    /// After a value: whether its container closes here. If not, the next value begins here, or all is done.
    fn closes(&mut self) -> Result<bool, Wrong> {
        let Some(container) = self.nesting.innermost() else {
            return Ok(false);
        };
        self.space();
        let next = self.peek();
        match (container, next) {
            (_, Some(b',')) => {
                self.at += 1;
                self.space();
                if container == Container::Object {
                    self.key()?;
                }
                Ok(false)
            }
            (Container::Array, Some(b']')) | (Container::Object, Some(b'}')) => {
                self.at += 1;
                self.nesting.close();
                Ok(true)
            }
            (Container::Array, _) => Err(self.wrong("expected `,` or `]`")),
            (Container::Object, _) => Err(self.wrong("expected `,` or `}`")),
        }
    }

    fn open(&mut self, container: Container) -> Result<(), Wrong> {
        if !self.nesting.open(container) {
            return Err(self.wrong("arrays and objects are nested deeper than 128"));
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    /// A key and its colon, up to its value.
    fn key(&mut self) -> Result<(), Wrong> {
        if self.peek() != Some(b'"') {
            return Err(self.wrong("expected a key in double quotes"));
        }
        self.string()?;
        self.space();
        if self.peek() != Some(b':') {
            return Err(self.wrong("expected `:`"));
        }
        self.at += 1;
        self.space();
        Ok(())
    }

    fn string(&mut self) -> Result<(), Wrong> {
        self.at += 1;
        loop {
            let rest = &self.text[self.at..];
            let plain = rest.iter().position(|b| matches!(b, b'"' | b'\\' | 0..0x20));
            self.at += plain.unwrap_or(rest.len());
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(());
                }
                Some(b'\\') => self.escape()?,
                Some(_) => {
                    return Err(self.wrong("a control character in a string must be escaped"));
                }
                None => return Err(self.wrong("the string does not end")),
            }
        }
    }

    /// Half of a surrogate pair passes: RFC 8259 section 8.2 leaves it to who reads the string.
    fn escape(&mut self) -> Result<(), Wrong> {
        let length = match self.text.get(self.at + 1) {
            Some(b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't') => 2,
            Some(b'u') => 6,
            _ => 0,
        };
        let hex = self.text.get(self.at + 2..self.at + length);
        match hex {
            Some(hex) if hex.iter().all(u8::is_ascii_hexdigit) => {
                self.at += length;
                Ok(())
            }
            _ => Err(self.wrong("this is not an escape")),
        }
    }

    fn number(&mut self) -> Result<(), Wrong> {
        if self.peek() == Some(b'-') {
            self.at += 1;
        }
        match self.peek() {
            Some(b'0') => self.at += 1,
            _ => self.digits()?,
        }
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
        }
        if let Some(b'e' | b'E') = self.peek() {
            self.at += 1;
            if let Some(b'+' | b'-') = self.peek() {
                self.at += 1;
            }
            self.digits()?;
        }
        Ok(())
    }

    /// At least one digit.
    fn digits(&mut self) -> Result<(), Wrong> {
        let rest = &self.text[self.at..];
        let digits = rest.iter().take_while(|b| b.is_ascii_digit()).count();
        self.at += digits;
        match digits {
            0 => Err(self.wrong("expected a digit")),
            _ => Ok(()),
        }
    }

    fn literal(&mut self, word: &'static [u8]) -> Result<(), Wrong> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.wrong("expected a value"));
        }
        self.at += word.len();
        Ok(())
    }

    /// White space between tokens: spaces and tabs stay, line breaks go.
    fn space(&mut self) {
        while let Some(byte) = self.peek().filter(|b| is_space(*b)) {
            if matches!(byte, b'\r' | b'\n') {
                self.kept.extend_from_slice(&self.text[self.copied..self.at]);
                self.copied = self.at + 1;
            }
            self.at += 1;
        }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn wrong(&self, what: &'static str) -> Wrong {
        Wrong { at: self.at, what }
    }
}

//! Sizes, times and counts as an operator writes them.
//!
//! Each type accepts exactly what its JSON Schema says and prints a form that it accepts. Which
//! values make sense for which key is decided in `check`.

use std::{borrow::Cow, fmt, str::FromStr, time::Duration};

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};
use toml::Value;

const KIB: u64 = 1024;

/// A number of bytes: `256KiB`, `64KB`, `1000`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "String")]
pub struct Size(u64);

impl Size {
    /// The unit and its bytes; larger and binary ones first, for `Display`.
    const UNITS: [(&str, u64); 8] = [
        ("GiB", KIB * KIB * KIB),
        ("MiB", KIB * KIB),
        ("KiB", KIB),
        ("GB", 1_000_000_000),
        ("MB", 1_000_000),
        ("KB", 1_000),
        ("B", 1),
        ("", 1),
    ];

    pub const fn bytes(bytes: u64) -> Self {
        Self(bytes)
    }

    pub const fn kib(kib: u64) -> Self {
        Self(kib * KIB)
    }

    pub const fn mib(mib: u64) -> Self {
        Self(mib * KIB * KIB)
    }

    /// In bytes. `check` admits at most 1 GiB, which every `usize` that Tidegate runs on holds.
    pub const fn get(self) -> usize {
        self.0 as usize
    }
}

impl FromStr for Size {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (number, unit) = text.split_at(digits(text));
        let factor = Self::UNITS.iter().find(|(name, _)| *name == unit);
        factor
            .and_then(|(_, factor)| number.parse::<u64>().ok()?.checked_mul(*factor))
            .map(Self)
            .ok_or_else(|| format!("{text:?} {}", Self::problem()))
    }
}

impl Size {
    fn problem() -> &'static str {
        r#"is not a size: write a whole number and B, KB, MB, GB, KiB, MiB or GiB, as in "256KiB""#
    }
}

impl TryFrom<Value> for Size {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match &value {
            Value::String(text) => text.parse(),
            Value::Integer(bytes) => {
                u64::try_from(*bytes).map(Self).map_err(|_| format!("{bytes} {}", Self::problem()))
            }
            _ => Err(format!("{value} {}", Self::problem())),
        }
    }
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let fits = |factor: u64| self.0 >= factor && self.0.is_multiple_of(factor);
        match Self::UNITS.iter().find(|(_, factor)| fits(*factor)) {
            Some((unit, factor)) => write!(f, "{}{unit}", self.0 / factor),
            None => f.write_str("0B"),
        }
    }
}

impl From<Size> for String {
    fn from(size: Size) -> Self {
        size.to_string()
    }
}

impl JsonSchema for Size {
    fn schema_name() -> Cow<'static, str> {
        "Size".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": ["string", "integer"],
            "pattern": "^[0-9]+(B|KB|MB|GB|KiB|MiB|GiB)?$",
            "minimum": 0,
        })
    }
}

/// A length of time: `25s`, `1h30m`, `500ms`. A bare number is refused: its unit would be a guess.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Value", into = "String")]
pub struct Time(Duration);

impl Time {
    pub const ZERO: Self = Self(Duration::ZERO);
    /// A year. `Instant + Duration` panics where it overflows, so no time may be without a bound.
    pub const MAX: Self = Self(Duration::from_secs(365 * 24 * 3600));

    /// The unit and its milliseconds, in the order of `Display`.
    const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

    pub const fn secs(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub const fn millis(milliseconds: u64) -> Self {
        Self(Duration::from_millis(milliseconds))
    }

    pub const fn get(self) -> Duration {
        self.0
    }

    /// The time, or `None` where zero stands for "for ever".
    pub fn limit(self) -> Option<Duration> {
        (self != Self::ZERO).then_some(self.0)
    }

    fn parse(text: &str) -> Option<Self> {
        let mut rest = text;
        let mut total: u64 = 0;
        while !rest.is_empty() {
            let (number, tail) = rest.split_at(digits(rest));
            let letters = tail.find(|c: char| c.is_ascii_digit()).unwrap_or(tail.len());
            let (unit, tail) = tail.split_at(letters);
            let (_, factor) = Self::UNITS.iter().find(|(name, _)| *name == unit)?;
            total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(*factor)?)?;
            rest = tail;
        }
        (!text.is_empty()).then_some(Self::millis(total))
    }
}

impl TryFrom<Value> for Time {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        value.as_str().and_then(Self::parse).ok_or_else(|| {
            format!(r#"{value} is not a time: write a number and h, m, s or ms, as in "1h30m""#)
        })
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_zero() {
            return f.write_str("0s");
        }
        let mut rest = self.0.as_millis();
        for (unit, factor) in Self::UNITS {
            let (count, remainder) = (rest / u128::from(factor), rest % u128::from(factor));
            if count > 0 {
                write!(f, "{count}{unit}")?;
            }
            rest = remainder;
        }
        Ok(())
    }
}

impl From<Time> for String {
    fn from(time: Time) -> Self {
        time.to_string()
    }
}

impl JsonSchema for Time {
    fn schema_name() -> Cow<'static, str> {
        "Time".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "string", "pattern": "^([0-9]+(h|m|s|ms))+$" })
    }
}

/// How many of something.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "Value")]
pub struct Count(pub u32);

impl Count {
    /// The number for a comparison with the length of a collection.
    pub const fn get(self) -> usize {
        self.0 as usize
    }

    /// The number, or `None` where zero stands for "no limit".
    pub fn limit(self) -> Option<u32> {
        (self.0 != 0).then_some(self.0)
    }
}

impl TryFrom<Value> for Count {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let count = value.as_integer().and_then(|n| u32::try_from(n).ok());
        count.map(Self).ok_or_else(|| format!("{value} is not a whole number from 0 to {}", u32::MAX))
    }
}

impl fmt::Display for Count {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl JsonSchema for Count {
    fn schema_name() -> Cow<'static, str> {
        "Count".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "integer", "minimum": 0, "maximum": u32::MAX })
    }
}

/// A part of a whole.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Value")]
pub struct Ratio(pub f64);

impl TryFrom<Value> for Ratio {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let number = match value {
            Value::Float(number) => Some(number),
            Value::Integer(number) => Some(number as f64),
            _ => None,
        };
        let ratio = number.filter(|number| (0.0..=1.0).contains(number));
        ratio.map(Self).ok_or_else(|| format!("{value} is not a number from 0 to 1"))
    }
}

impl JsonSchema for Ratio {
    fn schema_name() -> Cow<'static, str> {
        "Ratio".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({ "type": "number", "minimum": 0, "maximum": 1 })
    }
}

/// How many bytes of ASCII digits `text` begins with.
fn digits(text: &str) -> usize {
    text.bytes().take_while(u8::is_ascii_digit).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn time(text: &str) -> Result<Time, String> {
        Time::try_from(Value::from(text))
    }

    #[test]
    fn sizes_are_read_and_printed() {
        let table = [
            ("256KiB", 262_144, "256KiB"),
            ("1MiB", 1_048_576, "1MiB"),
            ("1GiB", 1_073_741_824, "1GiB"),
            ("64KB", 64_000, "64KB"),
            ("2MB", 2_000_000, "2MB"),
            ("3GB", 3_000_000_000, "3GB"),
            ("1000", 1000, "1KB"),
            ("1001B", 1001, "1001B"),
            ("0", 0, "0B"),
            ("1024KiB", 1_048_576, "1MiB"),
        ];
        for (text, bytes, printed) in table {
            let size: Size = text.parse().unwrap();
            assert_eq!(size, Size::bytes(bytes), "{text}");
            assert_eq!(size.to_string(), printed, "{text}");
            assert_eq!(printed.parse(), Ok(size), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_size_is_refused() {
        for text in [
            "",
            "KiB",
            "-1",
            "1.5MiB",
            "1 KiB",
            "1kib",
            "1K",
            "1TiB",
            "+1",
            "12apples",
            "٣KB",
            "99999999999GiB",
        ] {
            let error = text.parse::<Size>().unwrap_err();
            assert!(error.starts_with(&format!("{text:?} is not a size")), "{error}");
        }
        assert!(Size::try_from(Value::from(-1)).unwrap_err().starts_with("-1 is not a size"));
        assert!(Size::try_from(Value::from(true)).is_err());
        assert_eq!(Size::try_from(Value::from(1024)), Ok(Size::kib(1)));
    }

    #[test]
    fn times_are_read_and_printed() {
        let table = [
            ("25s", 25_000, "25s"),
            ("10m", 600_000, "10m"),
            ("500ms", 500, "500ms"),
            ("1h", 3_600_000, "1h"),
            ("1h30m", 5_400_000, "1h30m"),
            ("90s", 90_000, "1m30s"),
            ("0s", 0, "0s"),
            ("1s1ms", 1001, "1s1ms"),
        ];
        for (text, milliseconds, printed) in table {
            assert_eq!(time(text), Ok(Time::millis(milliseconds)), "{text}");
            assert_eq!(Time::millis(milliseconds).to_string(), printed, "{text}");
            assert_eq!(time(printed), time(text), "{text}");
        }
    }

    #[test]
    fn what_is_not_a_time_is_refused() {
        for text in [
            "",
            "25",
            "s",
            "-1s",
            "1.5s",
            "1 s",
            "1d",
            "1S",
            "10 minutes",
            "1h30",
            "s5",
            "1é",
            "99999999999999h",
            "18446744073709551615ms1s",
        ] {
            let error = time(text).unwrap_err();
            assert!(error.contains("is not a time"), "{error}");
        }
        let error = Time::try_from(Value::from(25)).unwrap_err();
        assert!(error.starts_with("25 is not a time"), "{error}");
    }

    #[test]
    fn ratios_are_from_0_to_1() {
        for (value, ratio) in [(Value::from(0), 0.0), (Value::from(1), 1.0), (Value::from(0.25), 0.25)] {
            assert_eq!(Ratio::try_from(value), Ok(Ratio(ratio)));
        }
        for value in
            [Value::from(1.01), Value::from(-0.1), Value::from(2), Value::from(f64::NAN), Value::from("1")]
        {
            let error = Ratio::try_from(value).unwrap_err();
            assert!(error.ends_with(" is not a number from 0 to 1"), "{error}");
        }
    }

    #[test]
    fn counts_are_whole_and_not_negative() {
        assert_eq!(Count::try_from(Value::from(50)), Ok(Count(50)));
        for value in [Value::from(-1), Value::from(1_i64 << 32), Value::from("5"), Value::from(1.0)] {
            let error = Count::try_from(value).unwrap_err();
            assert!(error.ends_with("is not a whole number from 0 to 4294967295"), "{error}");
        }
    }
}

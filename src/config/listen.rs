//! Where a listener binds, and the lists that a key may hold.

use std::{
    borrow::Cow,
    fmt::{self, Display},
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    str::FromStr,
};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Serialize};
use serde_json::json;
use toml::Value;

/// An address that a listener binds: `127.0.0.1:8000`, `[::1]:8000`, `localhost:8000` (which is
/// 127.0.0.1) or `unix:/path`. Other names are refused: what they resolve to may change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(try_from = "String", into = "String")]
#[schemars(inline, extend("pattern" = r"^(unix:/.+|.+:[0-9]{1,5})$"))]
pub enum Listen {
    /// A TCP socket; port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// A Unix socket at an absolute path.
    Unix(PathBuf),
}

impl Listen {
    /// Whether only this machine can connect.
    pub fn is_local(&self) -> bool {
        match self {
            Self::Tcp(address) => address.ip().to_canonical().is_loopback(),
            Self::Unix(_) => true,
        }
    }

    /// Whether both cannot be bound at once, or would hide one another.
    pub(super) fn collides_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Tcp(a), Self::Tcp(b)) => {
                let same_host = a.ip() == b.ip() || a.ip().is_unspecified() || b.ip().is_unspecified();
                a.port() != 0 && a.port() == b.port() && same_host
            }
            (Self::Unix(a), Self::Unix(b)) => a == b,
            _ => false,
        }
    }
}

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return match path {
                "/" => Err(format!("{text:?} names no socket: write \"unix:/run/tidegate.sock\"")),
                _ if path.starts_with('/') => Ok(Self::Unix(path.into())),
                _ => Err(format!("{text:?} needs an absolute path, as in \"unix:/run/tidegate.sock\"")),
            };
        }
        let local = text.strip_prefix("localhost:").and_then(|port| port.parse().ok());
        local
            .map(|port: u16| SocketAddr::from((Ipv4Addr::LOCALHOST, port)))
            .or_else(|| text.parse().ok())
            .map(Self::Tcp)
            .ok_or_else(|| {
                format!(
                    "{text:?} is not an address: write an IP address and a port, as in \
                     \"127.0.0.1:8000\", \"[::1]:8000\" or \"0.0.0.0:8000\", or \"unix:/path\""
                )
            })
    }
}

impl TryFrom<String> for Listen {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        text.parse()
    }
}

impl Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => address.fmt(f),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl From<Listen> for String {
    fn from(listen: Listen) -> Self {
        listen.to_string()
    }
}

/// One value or a list of them: an operator with one address need not write brackets.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(
    try_from = "Value",
    into = "Value",
    bound(deserialize = "T: FromStr, T::Err: Display", serialize = "T: Clone + Display")
)]
pub struct List<T>(pub Vec<T>);

impl<T> TryFrom<Value> for List<T>
where
    T: FromStr,
    T::Err: Display,
{
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        let items = match value {
            Value::Array(items) => items,
            one => vec![one],
        };
        let parse = |item: Value| match &item {
            Value::String(text) => text.parse().map_err(|e: T::Err| e.to_string()),
            other => Err(format!("{other} is not text: write it in quotes")),
        };
        items.into_iter().map(parse).collect::<Result<_, _>>().map(Self)
    }
}

impl<T: Display> From<List<T>> for Value {
    fn from(list: List<T>) -> Self {
        match list.0.as_slice() {
            [one] => one.to_string().into(),
            many => many.iter().map(T::to_string).collect::<Vec<_>>().into(),
        }
    }
}

impl<T: JsonSchema> JsonSchema for List<T> {
    fn schema_name() -> Cow<'static, str> {
        format!("ListOf{}", T::schema_name()).into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let item = T::json_schema(generator);
        // `pattern` speaks of strings only and `items` of arrays only, so one schema says both.
        let mut schema = item.clone();
        schema.insert("type".into(), json!(["string", "array"]));
        schema.insert("items".into(), item.into());
        schema
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_and_printed() {
        let table = [
            ("127.0.0.1:8000", "127.0.0.1:8000", true),
            ("127.9.9.9:0", "127.9.9.9:0", true),
            ("[::1]:8000", "[::1]:8000", true),
            ("[::ffff:127.0.0.1]:80", "[::ffff:127.0.0.1]:80", true),
            ("localhost:8000", "127.0.0.1:8000", true),
            ("unix:/run/tidegate.sock", "unix:/run/tidegate.sock", true),
            ("0.0.0.0:8000", "0.0.0.0:8000", false),
            ("[::]:8000", "[::]:8000", false),
            ("[::ffff:10.0.0.1]:80", "[::ffff:10.0.0.1]:80", false),
            ("10.0.0.1:8000", "10.0.0.1:8000", false),
        ];
        for (text, printed, local) in table {
            let listen: Listen = text.parse().unwrap();
            assert_eq!(listen.to_string(), printed);
            assert_eq!(listen.is_local(), local, "{text}");
            assert_eq!(printed.parse(), Ok(listen));
        }
    }

    #[test]
    fn what_is_not_an_address_is_refused() {
        for text in [
            "",
            "8000",
            ":8000",
            "127.0.0.1",
            "example.org:80",
            "localhost",
            "localhost:99999",
            "::1:80",
            "[::1]",
            "http://127.0.0.1:80",
            "unix:",
            "unix:/",
            "unix:run/x",
            "/run/x",
        ] {
            let error = text.parse::<Listen>().unwrap_err();
            assert!(error.starts_with(&format!("{text:?} ")), "{error}");
        }
    }

    #[test]
    fn a_list_may_be_one_value() {
        let list = |value: Value| List::<Listen>::try_from(value).map(|list| list.0.len());
        assert_eq!(list("127.0.0.1:1".into()), Ok(1));
        assert_eq!(list(vec!["127.0.0.1:1", "unix:/x"].into()), Ok(2));
        assert!(list(8000.into()).unwrap_err().starts_with("8000 is not text"));
        assert!(list(vec!["127.0.0.1:1", "x"].into()).unwrap_err().starts_with("\"x\" is not an address"));
    }

    #[test]
    fn addresses_collide_by_port_and_host() {
        let table = [
            ("127.0.0.1:80", "127.0.0.1:80", true),
            ("0.0.0.0:80", "127.0.0.1:80", true),
            ("127.0.0.1:80", "[::]:80", true),
            ("127.0.0.1:0", "127.0.0.1:0", false),
            ("127.0.0.1:80", "127.0.0.1:81", false),
            ("127.0.0.1:80", "127.0.0.2:80", false),
            ("unix:/a", "unix:/a", true),
            ("unix:/a", "unix:/b", false),
            ("unix:/a", "127.0.0.1:80", false),
        ];
        for (a, b, expected) in table {
            let (a, b): (Listen, Listen) = (a.parse().unwrap(), b.parse().unwrap());
            assert_eq!(a.collides_with(&b), expected, "{a} {b}");
        }
    }
}

//! The configuration from end to end: what an operator writes, and what comes of it.

mod auth;
mod broker;
mod faults;
mod output;
mod sources;
mod values;

use std::path::PathBuf;

use super::*;

/// A file that stays as long as the test.
struct TempFile(PathBuf);

impl TempFile {
    fn new(name: &str, text: &str) -> Self {
        let path = std::env::temp_dir().join(format!("tidegate-{}-{name}.toml", std::process::id()));
        std::fs::write(&path, text).unwrap();
        Self(path)
    }
}

impl Drop for TempFile {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.0);
    }
}

fn fault(text: &str) -> String {
    Config::from_toml(text).unwrap_err().to_string()
}

fn env(variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let env = variables.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
    Config::load(&Sources { env, ..Sources::default() })
}

fn set(settings: &[&str]) -> Result<Loaded, ConfigError> {
    let set = settings.iter().map(ToString::to_string).collect();
    Config::load(&Sources { set, ..Sources::default() })
}

fn tcp(text: &str) -> Listen {
    Listen::Tcp(text.parse().unwrap())
}

/// No key has its default here.
const EVERYTHING: &str = r#"
[public]
listen = ["[::1]:1", "unix:/run/t.sock"]
allowed_origins = "HTTPS://a.example:443"
trusted_proxies = ["10.0.0.0/8", "::1"]
proxy_protocol = true
[internal]
listen = "localhost:2"
[broker]
url = "redis-sentinel://s1,[::1]:7/main/3"
username = "app"
password = "hunter2"
sentinel_username = "watch"
sentinel_password = "hunter3"
prefix = "a:b"
partitions = 8
command_timeout = "9s"
linger = "10s"
[limits]
message = 1000
batch = "2KiB"
channels_per_connection = 3
frame = "4B"
headers = "5KiB"
header_timeout = "6s"
body_timeout = "7s"
connections = 8
connections_per_address = 9
connections_per_subject = 21
connects_per_second = 10
commands_per_second = 0
outbox = "12"
[sessions]
heartbeat = "13s"
pong_timeout = "14ms"
max_age = "1h30m"
[drain]
notice = "0s"
period = "15s"
[[auth.keys]]
name = "orders-service"
sha256 = "3333333333333333333333333333333333333333333333333333333333333333"
channels = ["orders:*", "news"]
operations = ["publish", "manage"]
rate = 18
[auth.jwt]
jwks_url = "https://id.example/keys"
algorithms = ["ES256", "EdDSA"]
audience = "push"
issuer = "https://id.example"
leeway = "19s"
[[namespaces]]
name = "prices"
history_messages = 0
history_bytes = "16"
history_age = "17s"
subscribe = "anyone"
client_publish = true
slow = "latest"
source = "redis"
redis_channel = "x.{channel}.y"
[log]
format = "json"
level = "warn,tidegate::hub=debug"
[tracing]
otlp_endpoint = "http://collector:4318"
sample_ratio = 0.5
"#;

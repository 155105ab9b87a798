//! What the tests stand on: gateways in the process, clients of four transports, bare sockets.

pub mod client;
pub mod credentials;
pub mod fleet;
pub mod forge;
pub mod gateway;
pub mod issuer;
pub mod objects;
pub mod openapi;
pub mod process;
pub mod proxy;
pub mod raw;
pub mod recorder;
pub mod redis;
pub mod sse_parser;
pub mod tls;

use std::future::Future;
use std::time::{Duration, Instant};

pub use client::{Client, End, Event, Options, Transport};
pub use gateway::TestGateway;
pub use objects::Message;
pub use raw::{Answer, Conn};

/// How long a test waits for something that should come at once. Generous, since machines are slow.
pub const PATIENCE: Duration = Duration::from_secs(15);

/// Waits until `check` gives something, asking again and again; for what has no event to wait for.
pub async fn eventually<T, F: Future<Output = Option<T>>>(what: &str, mut check: impl FnMut() -> F) -> T {
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = check().await {
            return found;
        }
        assert!(Instant::now() < deadline, "never happened: {what}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// `future`, or a failure that names what was waited for.
pub async fn within<F: Future>(limit: Duration, what: &str, future: F) -> F::Output {
    match tokio::time::timeout(limit, future).await {
        Ok(output) => output,
        Err(_) => panic!("not within {limit:?}: {what}"),
    }
}

/// Seconds since 1970.
pub fn now_seconds() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("a clock after 1970").as_secs()
}

/// Writes one test for each transport out of one body.
macro_rules! each_transport {
    ($($(#[$meta:meta])* async fn $name:ident($transport:ident) $body:block)+) => {$(
        each_transport!(@one $(#[$meta])* async fn $name($transport) $body);
    )+};
    (@one $(#[$meta:meta])* async fn $name:ident($transport:ident) $body:block) => {
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            async fn case($transport: crate::support::Transport) $body

            #[tokio::test]
            async fn over_websocket() {
                case(crate::support::Transport::Websocket).await;
            }

            #[tokio::test]
            async fn over_sse() {
                case(crate::support::Transport::Sse).await;
            }

            #[tokio::test]
            async fn over_ndjson() {
                case(crate::support::Transport::Ndjson).await;
            }

            #[tokio::test]
            async fn over_poll() {
                case(crate::support::Transport::Poll).await;
            }
        }
    };
}

/// The same for the three transports that stay connected.
macro_rules! each_stream {
    ($($(#[$meta:meta])* async fn $name:ident($transport:ident) $body:block)+) => {$(
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports)]
            use super::*;

            async fn case($transport: crate::support::Transport) $body

            #[tokio::test]
            async fn over_websocket() {
                case(crate::support::Transport::Websocket).await;
            }

            #[tokio::test]
            async fn over_sse() {
                case(crate::support::Transport::Sse).await;
            }

            #[tokio::test]
            async fn over_ndjson() {
                case(crate::support::Transport::Ndjson).await;
            }
        }
    )+};
}

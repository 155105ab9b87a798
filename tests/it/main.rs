//! The integration tests: one binary, through the front door, a file for each behaviour.
//!
//! What holds for every transport is written once with `each_transport!` and runs as a table over
//! WebSocket, SSE, NDJSON and long poll. `support` starts gateways inside the process and holds the
//! clients; it shares no code with the server, and it checks every answer it sees against
//! `openapi.yaml`.

// A test says what it expects by failing.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

#[macro_use]
mod support;

mod admin;
mod age;
mod architecture;
mod auth;
mod batch;
mod bench;
mod cli;
mod contract;
mod credentials;
mod delivery;
mod drain;
mod gaps;
mod heartbeat;
mod held;
mod http2;
mod jwks;
mod keys;
mod limits;
mod metrics;
mod ndjson;
mod negotiation;
mod origins;
mod poll;
mod proxies;
mod publish;
mod ready;
mod recorder;
mod redis;
mod reload;
mod resume;
mod selftest;
mod slow;
mod sse;
mod tls;
mod tokens;
mod traces;
mod websocket;

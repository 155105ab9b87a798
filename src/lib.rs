//! Tidegate, a pub/sub push gateway: backends publish with one HTTP POST, clients receive over WebSocket,
//! Server-Sent Events, NDJSON or long polling.
//!
//! The rooms, from the words to the edge; each imports only those above it (ARCHITECTURE.md has the map):
//!
//! - words: [`channel`], [`position`], [`publication`], [`gap`], [`resume`], [`fault`], [`disconnect`],
//!   [`payload`], [`pattern`], [`rate`], [`transport_name`], [`trace_parent`], [`clock`]
//! - how it is written down: [`wire`]
//! - engines: [`hub`] (who listens here), [`broker`] (where messages are), [`admission`], [`auth`]
//! - the gateway: [`gateway`] (joins hub and broker), [`session`] (a connection's life)
//! - edges: [`socket`], [`transport`], [`http`], [`server`], [`cli`]
//! - beside all: [`tls`], [`outgoing`], [`config`], [`metrics`], [`telemetry`], [`drain`]; above all: [`app`]

pub mod admission;
pub mod app;
pub mod auth;
pub mod broker;
pub mod channel;
pub mod cli;
pub mod clock;
pub mod config;
pub mod disconnect;
pub mod drain;
pub mod fault;
pub mod gap;
pub mod gateway;
pub mod http;
pub mod hub;
pub mod metrics;
pub mod outgoing;
pub mod pattern;
pub mod payload;
pub mod position;
pub mod publication;
pub mod rate;
pub mod resume;
pub mod server;
pub mod session;
pub mod socket;
pub mod telemetry;
pub mod tls;
pub mod trace_parent;
pub mod transport;
pub mod transport_name;
pub mod wire;

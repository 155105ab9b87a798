//! The recorder: clients and publishers that know nothing of Tidegate's code, and a verdict.
//!
//! Everything here was written from the wire's description alone: sockets, HTTP, frames, JSON. Clients
//! come back by themselves, as ours or a browser's would, with the cursor that they hold; they judge
//! nothing. They write down what they saw, publishers write down what they were told, and
//! [`verdict`] compares the two.

pub mod client;
pub mod publisher;
pub mod verdict;
mod wire;

pub use client::{Recording, Roam, Spec, Way};
pub use publisher::{Plan, Publisher, Unsure};
pub use verdict::{Entry, Gaps, Ledger, Outcome, Seen, Verdict, judge};

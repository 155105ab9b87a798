//! Faults under load: three gateways as processes, a client of each transport at each, publishers at all
//! of them, the fault, and the recorder's verdict: losses without a gap 0, doubles 0, inversions 0, and no
//! gap where nothing was lost, but for the few faults that the promise excepts.
//!
//! A scenario in its short form runs with every other test. The long forms repeat the fault under more
//! load, over each kind of Redis where it makes sense; `just faults` runs them and writes their table.

mod clients;
mod cluster;
mod failover;
mod gateways;
mod link;
mod server;
mod stage;

/// Writes the short and the long form of a fault out of one body, over one Redis.
macro_rules! faults {
    ($($(#[$meta:meta])* async fn $name:ident($form:ident) $body:block)+) => {$(
        $(#[$meta])*
        mod $name {
            use super::*;
            use crate::redis::faults::stage::Form;

            async fn case($form: &Form) $body

            #[tokio::test]
            async fn short_form() {
                case(&Form::short(module_path!())).await;
            }

            #[tokio::test]
            #[ignore = "long: just faults"]
            async fn long_form() {
                case(&Form::long(module_path!())).await;
            }
        }
    )+};
}

/// The same over each kind of Redis; the short form over one server alone.
macro_rules! faults_over_all {
    ($($(#[$meta:meta])* async fn $name:ident($form:ident, $over:ident) $body:block)+) => {$(
        $(#[$meta])*
        mod $name {
            use super::*;
            use crate::redis::faults::stage::Form;
            use crate::redis::table::Backend;

            async fn case($form: &Form, $over: Backend) $body

            #[tokio::test]
            async fn short_form() {
                case(&Form::short(module_path!()), Backend::Standalone).await;
            }

            #[tokio::test]
            #[ignore = "long: just faults"]
            async fn long_form_over_one_redis() {
                case(&Form::long(module_path!()), Backend::Standalone).await;
            }

            #[tokio::test]
            #[ignore = "long: just faults"]
            async fn long_form_over_sentinel() {
                case(&Form::long(module_path!()), Backend::Sentinel).await;
            }

            #[tokio::test]
            #[ignore = "long: just faults"]
            async fn long_form_over_a_cluster() {
                case(&Form::long(module_path!()), Backend::Cluster).await;
            }
        }
    )+};
}

use {faults, faults_over_all};

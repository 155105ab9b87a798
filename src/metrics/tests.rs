//! The names are a promise, the rules are Prometheus', and nothing appears later than at the start.

mod document;

use std::collections::{BTreeMap, BTreeSet};

use super::{family::Label, *};

/// What dashboards and alerts rely on; `process_*` apart.
const NAMES: &[&str] = &[
    "tidegate_auth_failures_total counter",
    "tidegate_broker_info gauge",
    "tidegate_build_info gauge",
    "tidegate_catchup_coalesced_total counter",
    "tidegate_catchup_inflight gauge",
    "tidegate_certificate_expiry_timestamp_seconds gauge",
    "tidegate_channels gauge",
    "tidegate_connection_duration_seconds histogram",
    "tidegate_connections gauge",
    "tidegate_connections_admitted gauge",
    "tidegate_connections_closed_total counter",
    "tidegate_connections_limit gauge",
    "tidegate_connections_opened_total counter",
    "tidegate_connections_rejected_total counter",
    "tidegate_delivered_bytes_total counter",
    "tidegate_deliveries_total counter",
    "tidegate_delivery_latency_seconds histogram",
    "tidegate_drain_state gauge",
    "tidegate_epoch_changes_total counter",
    "tidegate_fanout_size histogram",
    "tidegate_gap_signals_total counter",
    "tidegate_jwks_age_seconds gauge",
    "tidegate_jwks_refresh_total counter",
    "tidegate_messages_dropped_total counter",
    "tidegate_publications_received_total counter",
    "tidegate_publications_total counter",
    "tidegate_publish_deduplicated_total counter",
    "tidegate_publish_duration_seconds histogram",
    "tidegate_publish_requests_total counter",
    "tidegate_rate_limited_total counter",
    "tidegate_redis_command_duration_seconds histogram",
    "tidegate_redis_damaged_messages_total counter",
    "tidegate_redis_doubtful_channels gauge",
    "tidegate_redis_probe_seconds histogram",
    "tidegate_redis_reconnects_total counter",
    "tidegate_redis_repairs_total counter",
    "tidegate_redis_up gauge",
    "tidegate_resume_messages histogram",
    "tidegate_resumes_total counter",
    "tidegate_send_queue_bytes gauge",
    "tidegate_slow_consumers_total counter",
    "tidegate_subscriptions gauge",
    "tidegate_tokio_alive_tasks gauge",
    "tidegate_tokio_busy_seconds_total counter",
    "tidegate_tokio_global_queue_depth gauge",
    "tidegate_tokio_workers gauge",
];

fn series(text: &str) -> BTreeSet<String> {
    let lines = text.lines().filter(|line| !line.starts_with('#'));
    lines.filter_map(|line| line.rsplit_once(' ')).map(|(name, _)| name.to_owned()).collect()
}

#[test]
fn the_names_and_types_are_the_promised_ones() {
    let text = Metrics::new().unwrap().render().unwrap();
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE "));
    let ours: Vec<_> = types.filter(|line| line.starts_with("tidegate_")).collect();
    assert_eq!(ours, NAMES);
    assert!(!cfg!(target_os = "linux") || text.contains("\nprocess_open_fds "));
}

#[test]
fn names_keep_to_base_units_and_counters_end_in_total() {
    for line in NAMES {
        let (name, kind) = line.split_once(' ').unwrap();
        assert_eq!(name.ends_with("_total"), kind == "counter", "{name}");
        for unit in ["_ms", "_milliseconds", "_minutes", "_kb", "_kilobytes", "_count", "_sum", "_bucket"] {
            assert!(!name.contains(unit), "{name}");
        }
    }
}

#[test]
fn every_help_is_a_sentence() {
    let text = Metrics::new().unwrap().render().unwrap();
    for line in text.lines().filter(|line| line.starts_with("# HELP tidegate_")) {
        assert!(line.ends_with('.') && !line.contains("  "), "{line}");
    }
}

#[test]
fn nothing_appears_that_was_not_there_at_zero() {
    let metrics = Metrics::new().unwrap();
    let before = series(&metrics.render().unwrap());
    assert!(before.len() < 400, "{} series", before.len());
    let second = Duration::from_secs(1);
    for transport in Transport::ALL.iter().copied() {
        metrics.opened(transport);
        Disconnect::ALL.iter().for_each(|reason| metrics.closed(transport, *reason, second));
        metrics.delivered(transport, 2, 300, Some(0));
    }
    for route in Route::ALL {
        StatusClass::ALL.iter().for_each(|class| metrics.publish_answered(*route, *class));
    }
    Rejection::ALL.iter().for_each(|reason| metrics.rejected(*reason));
    GapReason::ALL.iter().for_each(|reason| metrics.gap(*reason));
    Dropped::ALL.iter().for_each(|reason| metrics.dropped(*reason, 3));
    metrics.slow_disconnected();
    metrics.conflated(3);
    RateScope::ALL.iter().for_each(|scope| metrics.rate_limited(*scope));
    for recovery in [Recovery::None, Recovery::Complete, Recovery::Gap] {
        metrics.resumed(recovery);
    }
    for duplicate in [true, false] {
        let position = "aaaaaa-1".parse().unwrap();
        let receipt = Receipt { position, duplicate };
        metrics.published(&receipt, metrics.publish_timer());
    }
    metrics.replayed(1_000_000);
    metrics.catching_up().inc();
    Source::ALL.iter().for_each(|source| metrics.received(*source, 1));
    metrics.fanned_out(1_000_000);
    metrics.subscriptions().inc();
    metrics.topics().inc();
    metrics.queued(1);
    metrics.draining(DrainState::Leaving);
    metrics.admitted(1, 2);
    BrokerKind::ALL.iter().for_each(|kind| metrics.broker(*kind));
    ListenerName::ALL.iter().for_each(|listener| metrics.certificate(*listener, 1));
    for role in RedisRole::ALL {
        metrics.redis_up(*role, true);
        RedisEnd::ALL.iter().for_each(|reason| metrics.redis_ended(*role, *reason));
    }
    RedisCommand::ALL.iter().for_each(|command| metrics.redis_answered(*command, second));
    metrics.redis_probed(second);
    metrics.redis_repair();
    metrics.redis_damaged();
    metrics.redis_doubtful(3);
    metrics.coalesced();
    JwksRefresh::ALL.iter().for_each(|result| metrics.jwks_refreshed(*result));
    GapReason::ALL.iter().for_each(|reason| metrics.epoch_changed(*reason));
    assert_eq!(series(&metrics.render().unwrap()), before);
}

#[test]
fn what_happens_is_counted_where_it_belongs() {
    let metrics = Metrics::new().unwrap();
    metrics.opened(Transport::Sse);
    metrics.opened(Transport::Sse);
    metrics.closed(Transport::Sse, Disconnect::Slow, Duration::from_millis(2));
    metrics.publish_answered(Route::Batch, StatusClass::of(503));
    metrics.resumed(Recovery::Complete);
    metrics.replayed(7);
    metrics.rejected(Rejection::Rate);
    metrics.rejected(Rejection::Total);
    metrics.received(Source::Tidegate, 3);
    metrics.delivered(Transport::Poll, 3, 300, None);
    let text = metrics.render().unwrap();
    for line in [
        concat!(r#"tidegate_build_info{commit="unknown",version=""#, env!("CARGO_PKG_VERSION"), r#""} 1"#),
        r#"tidegate_publications_received_total{source="tidegate"} 3"#,
        r#"tidegate_connections{transport="sse"} 1"#,
        r#"tidegate_connections{transport="poll"} 0"#,
        r#"tidegate_connections_closed_total{reason="slow",transport="sse"} 1"#,
        r#"tidegate_connection_duration_seconds_bucket{le="0.0025"} 1"#,
        r#"tidegate_publish_requests_total{code="5xx",route="batch"} 1"#,
        r#"tidegate_resumes_total{result="recovered"} 1"#,
        "tidegate_resume_messages_sum 7",
        // What is read from the history was not on the way since it was published.
        r#"tidegate_deliveries_total{transport="poll"} 3"#,
        r#"tidegate_delivery_latency_seconds_count{transport="poll"} 0"#,
        r#"tidegate_connections_rejected_total{reason="rate"} 1"#,
        r#"tidegate_rate_limited_total{scope="connects"} 1"#,
    ] {
        assert!(text.contains(&format!("{line}\n")), "{line} is not in\n{text}");
    }
    assert_eq!(metrics.connected(), 1);
}

#[tokio::test]
async fn the_runtime_is_looked_at_again_with_each_scrape() {
    let metrics = Metrics::new().unwrap();
    let runtime = tokio::runtime::Handle::current().metrics();
    let task = tokio::spawn(std::future::pending::<()>());
    metrics.runtime(&runtime);
    assert_eq!((metrics.workers.get(), metrics.tasks.get()), (1, 1));
    task.abort();
    assert!(task.await.is_err());
    metrics.runtime(&runtime);
    assert_eq!(metrics.tasks.get(), 0);
    assert!(metrics.busy.get() <= runtime.worker_total_busy_duration(0).as_secs_f64());
}

#[test]
fn each_label_value_stands_at_its_index() {
    fn check<L: Label + PartialEq + std::fmt::Debug>() {
        for (i, label) in L::ALL.iter().enumerate() {
            assert_eq!(label.index(), i, "{label:?}");
        }
    }
    check::<Transport>();
    check::<Disconnect>();
    check::<GapReason>();
    check::<BrokerKind>();
    check::<ListenerName>();
    check::<Rejection>();
    check::<Route>();
    check::<StatusClass>();
    check::<Resume>();
    check::<Dropped>();
    check::<SlowAction>();
    check::<RateScope>();
    check::<RedisRole>();
    check::<RedisEnd>();
    check::<RedisCommand>();
    check::<EpochChange>();
    check::<JwksRefresh>();
}

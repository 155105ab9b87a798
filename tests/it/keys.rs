//! Every key of the configuration has a test that fails when the key does nothing. The table names it; a new key
//! needs a line here. (Defaults, ranges and refusals are tables in `src/config/tests`.)

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::Value;

/// The key, the file in this folder, and the test in it.
const TESTS: &[(&str, &str, &str)] = &[
    ("public.listen", "cli", "it_listens_on_unix_sockets_and_takes_their_files_along"),
    (
        "public.tls_cert_file",
        "tls",
        "messages_small_and_large_come_whole_and_in_order_and_a_position_resumes",
    ),
    ("public.tls_key_file", "tls", "files_that_cannot_be_used_are_named_at_the_start"),
    ("public.allowed_origins", "origins", "a_list_of_origins_replaces_the_rule_and_is_exact"),
    ("public.trusted_proxies", "proxies", "each_client_of_a_proxy_has_the_places_of_its_own_address"),
    ("public.proxy_protocol", "proxies", "the_proxy_protocol_tells_whose_connection_it_is"),
    ("internal.listen", "cli", "logs_are_json_where_nobody_looks_and_hold_no_payloads"),
    ("internal.tls_cert_file", "tls", "who_has_no_certificate_of_the_client_ca_is_not_served"),
    ("internal.tls_key_file", "tls", "who_has_no_certificate_of_the_client_ca_is_not_served"),
    ("internal.client_ca_file", "tls", "who_has_no_certificate_of_the_client_ca_is_not_served"),
    ("broker.url", "redis/start", "databases_prefixes_and_sockets_keep_to_themselves"),
    ("broker.username", "redis/access", "a_wrong_or_missing_password_is_told_in_a_sentence"),
    ("broker.password", "redis/access", "a_wrong_or_missing_password_is_told_in_a_sentence"),
    (
        "broker.password_file",
        "redis/start",
        "sentinels_have_a_login_of_their_own_and_passwords_may_be_in_files",
    ),
    (
        "broker.ca_file",
        "redis/tls",
        "a_server_with_a_certificate_of_our_ca_is_used_by_its_name_and_by_its_address",
    ),
    ("broker.cert_file", "redis/tls", "a_client_certificate_is_shown_where_the_server_asks_for_one"),
    ("broker.key_file", "redis/tls", "a_client_certificate_is_shown_where_the_server_asks_for_one"),
    (
        "broker.sentinel_username",
        "redis/start",
        "sentinels_have_a_login_of_their_own_and_passwords_may_be_in_files",
    ),
    (
        "broker.sentinel_password",
        "redis/start",
        "sentinels_have_a_login_of_their_own_and_passwords_may_be_in_files",
    ),
    (
        "broker.sentinel_password_file",
        "redis/start",
        "sentinels_have_a_login_of_their_own_and_passwords_may_be_in_files",
    ),
    ("broker.prefix", "redis/start", "databases_prefixes_and_sockets_keep_to_themselves"),
    ("broker.partitions", "redis/start", "a_second_gateway_with_other_partitions_refuses_to_start"),
    (
        "broker.command_timeout",
        "redis/start",
        "a_publish_with_a_key_is_made_once_though_redis_fell_silent_meanwhile",
    ),
    (
        "broker.linger",
        "redis/interest",
        "a_node_follows_a_channel_from_its_first_subscriber_until_some_time_after_its_last",
    ),
    ("limits.message", "publish", "a_message_may_have_as_many_bytes_as_configured_and_no_more"),
    ("limits.batch", "batch", "a_batch_may_have_as_many_bytes_as_configured"),
    (
        "limits.channels_per_connection",
        "websocket",
        "a_connection_has_as_many_channels_as_configured_and_no_more",
    ),
    ("limits.frame", "websocket", "the_limit_of_a_frame_is_configured"),
    ("limits.headers", "limits", "the_limit_of_a_head_is_configured"),
    ("limits.header_timeout", "limits", "an_incomplete_head_is_closed_in_time"),
    ("limits.body_timeout", "limits", "a_body_that_does_not_come_is_a_timeout"),
    ("limits.connections", "limits", "one_connection_too_many_is_told_to_come_back"),
    ("limits.connections_per_address", "limits", "one_connection_too_many_is_told_to_come_back"),
    ("limits.connects_per_second", "limits", "connections_that_come_too_fast_are_told_to_come_back"),
    ("limits.commands_per_second", "websocket", "too_many_commands_are_read_more_slowly_and_all_answered"),
    ("limits.outbox", "slow", "a_stalled_reader_is_cut_off_and_loses_nothing"),
    ("sessions.heartbeat", "heartbeat", "a_silent_stream_has_heartbeats"),
    ("sessions.pong_timeout", "heartbeat", "a_websocket_that_answers_no_ping_is_dropped"),
    ("sessions.max_age", "age", "an_old_connection_is_sent_away_and_comes_back"),
    ("drain.notice", "drain", "during_the_notice_everything_is_served_but_ready"),
    ("drain.period", "drain", "clients_are_sent_away_evenly"),
    ("namespaces.name", "gaps", "a_gap_concerns_its_channel_alone"),
    ("namespaces.history_messages", "gaps", "what_was_trimmed_by_count_is_a_gap"),
    ("namespaces.history_bytes", "gaps", "what_was_trimmed_by_bytes_is_a_gap"),
    ("namespaces.history_age", "gaps", "what_grew_too_old_is_a_gap"),
    ("namespaces.slow", "slow", "with_latest_a_stalled_reader_stays_and_gets_the_newest"),
    ("namespaces.source", "redis/foreign", "a_plain_publish_reaches_the_channel_as_it_is"),
    ("namespaces.redis_channel", "redis/foreign", "a_plain_publish_reaches_the_channel_as_it_is"),
    ("auth.jwt.key_file", "auth/subscribe", "every_transport_serves_what_is_granted_and_nothing_else"),
    ("auth.jwt.jwks_url", "tokens/door", "keys_come_over_https_from_an_issuer_whose_certificate_is_trusted"),
    ("auth.jwt.algorithms", "tokens/mod", "the_configured_algorithms_narrow_those_of_the_key"),
    ("auth.jwt.audience", "tokens/mod", "audience_and_issuer_count_where_they_are_configured"),
    ("auth.jwt.issuer", "tokens/mod", "audience_and_issuer_count_where_they_are_configured"),
    ("auth.jwt.leeway", "tokens/mod", "times_are_taken_with_the_leeway_and_parts_of_seconds_are_dropped"),
    ("auth.keys.name", "credentials", "a_key_comes_with_its_entry_and_the_whole_is_a_configuration"),
    ("auth.keys.sha256", "auth/api", "every_path_asks_for_a_key_that_grants_it"),
    ("auth.keys.channels", "auth/api", "every_path_asks_for_a_key_that_grants_it"),
    ("auth.keys.operations", "auth/api", "every_path_asks_for_a_key_that_grants_it"),
    ("auth.keys.rate", "auth/keys", "a_key_publishes_at_its_rate_and_no_faster"),
    ("auth.keys_file", "auth/keys", "old_and_new_key_work_side_by_side_from_two_files"),
    (
        "limits.connections_per_subject",
        "auth/subjects",
        "a_subject_has_so_many_connections_over_all_transports",
    ),
    (
        "namespaces.subscribe",
        "auth/subscribe",
        "without_tokens_only_what_is_open_is_served_and_credentials_are_not_looked_at",
    ),
    ("namespaces.client_publish", "auth/subscribe", "a_client_publishes_where_token_and_namespace_say_so"),
    ("log.format", "cli", "logs_are_for_people_where_they_are_asked_for_and_as_much_as_is_asked_for"),
    ("log.level", "cli", "logs_are_for_people_where_they_are_asked_for_and_as_much_as_is_asked_for"),
    ("tracing.otlp_endpoint", "traces", "a_traced_message_has_a_span_at_its_publish_and_one_at_its_fan_out"),
    ("tracing.sample_ratio", "traces", "what_is_traced_is_the_callers_choice_and_else_a_matter_of_chance"),
];

fn collect(section: &Value, path: &str, keys: &mut BTreeSet<String>) {
    let table = section.get("items").unwrap_or(section).get("properties").and_then(Value::as_object);
    let Some(table) = table else {
        keys.insert(path.to_owned());
        return;
    };
    for (name, inner) in table {
        collect(inner, &if path.is_empty() { name.clone() } else { format!("{path}.{name}") }, keys);
    }
}

#[test]
fn every_key_has_a_test_that_fails_when_it_does_nothing() {
    let mut keys = BTreeSet::new();
    collect(&tidegate::config::schema(), "", &mut keys);
    assert!(keys.len() < 100, "under 100 keys in all, for ever");
    let named: BTreeSet<String> = TESTS.iter().map(|(key, ..)| (*key).to_owned()).collect();
    assert_eq!(keys, named);
    let folder = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it"));
    for (key, file, test) in TESTS {
        let text = std::fs::read_to_string(folder.join(format!("{file}.rs"))).expect("a file");
        assert!(text.contains(&format!("fn {test}(")), "{key}: {file}.rs has no test {test}");
    }
}

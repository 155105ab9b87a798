//! `docs/metrics.md` is made of the metrics and their labels; `just metrics` writes it anew.

use std::fmt::Write as _;

use prometheus::proto::{MetricFamily, MetricType};

use super::super::{family::Words, labels};
use super::*;

const HEAD: &str = "\
# Metrics

<!-- Made by `just metrics` of src/metrics.rs; a test holds it against the code. -->

`GET /metrics` on the internal listener, in Prometheus' text format 0.0.4:

```bash
curl http://127.0.0.1:9000/metrics
```

Durations are in seconds and sizes in bytes. Every series is there from the start, at 0, so that `rate()` sees the first event too. Labels have
few, fixed values: a channel, a client or an address is never one, and the number of series does not grow.

Each gateway counts for itself: `sum` over them. With [Redis](redis.md) a message that is published once is received by every gateway that
has a subscriber of its channel, so that `tidegate_publications_total` counts messages, and `tidegate_publications_received_total` the work
that they made. [Rules](../deploy/prometheus/tidegate.rules.yaml), each with what to do in the [runbook](runbook.md), and a
[dashboard](../deploy/grafana/tidegate.json) are made of these metrics.

";

/// The labels, each with the page that explains its values where they do not themselves.
fn sets() -> Vec<(Words, &'static str)> {
    let mut sets = vec![
        (Words::of::<Transport>(), "See [subscribing](subscribing.md)."),
        (
            Words::of::<Disconnect>(),
            "See [close codes](protocol.md#close-codes); `client`: it closed by itself.",
        ),
        (Words::of::<GapReason>(), "See [gaps](subscribing.md#gaps)."),
    ];
    sets.extend(labels::sets().into_iter().map(|set| (set, "")));
    sets
}

/// The labels of a metric, each with its values as they are in the series.
fn labels_of(family: &MetricFamily) -> BTreeMap<String, BTreeSet<String>> {
    let mut labels: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    for pair in family.get_metric().iter().flat_map(|metric| metric.get_label()) {
        labels.entry(pair.name().to_owned()).or_default().insert(pair.value().to_owned());
    }
    labels
}

fn row(document: &mut String, family: &MetricFamily) {
    let kind = match family.get_field_type() {
        MetricType::COUNTER => "counter",
        MetricType::GAUGE => "gauge",
        MetricType::HISTOGRAM => "histogram",
        MetricType::SUMMARY | MetricType::UNTYPED => panic!("{} has another type", family.name()),
    };
    let labels: Vec<String> = labels_of(family).into_keys().collect();
    let labels = if labels.is_empty() { String::new() } else { format!("{{{}}}", labels.join(",")) };
    writeln!(document, "| `{}{labels}` | {kind} | {} |", family.name(), family.help()).unwrap();
}

/// What the values of `set` mean, and whose label it is.
fn section(document: &mut String, set: &Words, page: &str, metrics: &[String]) {
    writeln!(document, "\n### `{}` of {}\n", set.label, metrics.join(", ")).unwrap();
    if page.is_empty() {
        document.push_str("| value | |\n|---|---|\n");
        for (value, meaning) in &set.values {
            writeln!(document, "| `{value}` | {meaning} |").unwrap();
        }
    } else {
        let values: Vec<String> = set.values.iter().map(|(value, _)| format!("`{value}`")).collect();
        writeln!(document, "{}. {page}", values.join(", ")).unwrap();
    }
}

fn document() -> String {
    let metrics = Metrics::new().unwrap();
    let families = metrics.registry.gather();
    let (ours, process): (Vec<_>, Vec<_>) = families.iter().partition(|f| f.name().starts_with("tidegate_"));
    let mut document = HEAD.to_owned();
    let table = "| metric | type | |\n|---|---|---|\n";
    document.push_str(table);
    ours.iter().for_each(|family| row(&mut document, family));
    document.push_str("\nOn Linux also, of the process:\n\n");
    document.push_str(table);
    process.iter().for_each(|family| row(&mut document, family));
    document.push_str("\n## Labels\n");
    for (set, page) in sets() {
        let values: BTreeSet<String> = set.values.iter().map(|(value, _)| (*value).to_owned()).collect();
        let has = |family: &&&MetricFamily| labels_of(family).get(set.label) == Some(&values);
        let metrics: Vec<_> = ours.iter().filter(has).map(|family| format!("`{}`", family.name())).collect();
        assert!(!metrics.is_empty(), "no metric has the label {}: {values:?}", set.label);
        section(&mut document, &set, page, &metrics);
    }
    document
}

#[test]
#[cfg(target_os = "linux")]
fn the_document_says_what_the_metrics_are() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/docs/metrics.md");
    let document = document();
    if std::env::var_os("WRITE_DOCS").is_some() {
        std::fs::write(path, &document).unwrap();
    }
    let written = std::fs::read_to_string(path).unwrap_or_default();
    assert!(
        written == document,
        "docs/metrics.md is of another state of the code: WRITE_DOCS=1 cargo test --lib the_document, or `just metrics`"
    );
}

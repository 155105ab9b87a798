//! `tidegate bench`: what it counts, what it says, and what it takes for a failure.

use std::time::Duration;

use serde_json::Value;

use crate::support::process::{Process, Served, run, tidegate};

/// Runs a load on a gateway; the exit code and the figures.
async fn load(served: &Served, arguments: &[&str]) -> (i32, Value) {
    let mut command = tidegate();
    command.args(["bench", "--json", "--url", &format!("http://{}", served.public)]);
    command.args(["--internal-url", &format!("http://{}", served.internal)]).args(arguments);
    let mut process = Process::spawn(command);
    // It waits for 10 s itself before it takes a delivery for lost.
    process.exit(Duration::from_secs(60)).await;
    let (code, said) = process.outcome().await;
    (code, serde_json::from_str(&said).unwrap_or_else(|error| panic!("{error}: {said}")))
}

/// How many deliveries were owed and seen, and whether all else is as it should be.
fn counts(figures: &Value) -> (u64, u64, bool) {
    let load = &figures["load"];
    let none = |name: &str| load[name] == 0;
    let clean = none("lost") && none("duplicates") && none("misrouted") && none("refused");
    (load["due"].as_u64().unwrap(), load["received"].as_u64().unwrap(), clean && figures["ended"] == 0)
}

#[tokio::test]
async fn deliveries_due_and_received_are_told_for_every_transport() {
    let served = Served::start(&[], &[]).await;
    for transport in ["websocket", "sse", "ndjson", "poll"] {
        let arguments =
            ["--transport", transport, "--connections", "12", "--messages", "10", "--channel", transport];
        let (code, figures) = load(&served, &arguments).await;
        assert_eq!((code, counts(&figures)), (0, (120, 120, true)), "{figures}");
        let quantiles = ["p50", "p90", "p99", "p999", "max"].map(|name| &figures["load"]["delivery"][name]);
        let quantiles = quantiles.map(|value| value.as_f64().expect("microseconds"));
        assert!(quantiles[0] > 0.0 && quantiles.is_sorted(), "{figures}");
        assert_eq!(figures["transport"], transport);
    }
}

#[tokio::test]
async fn other_requests_are_made_from_templates() {
    let served = Served::start(&[], &[]).await;
    let file = std::env::temp_dir().join(format!("tidegate-{}-publish.http", std::process::id()));
    let publish = "POST /v1/messages\nContent-Type: application/json\n\n\
                   {\"messages\":[{\"channel\":\"{channel}\",\"data\":\"{payload}\"}]}\n";
    std::fs::write(&file, publish).expect("writes");
    let publish = format!("@{}", file.display());
    let subscribe = "GET /v1/subscribe\n\n{\"type\":\"subscribe\",\"channel\":\"{channel}\"}";
    let templates = ["--subscribe-request", subscribe, "--publish-request", &publish];
    let arguments = ["--connections", "8", "--channels", "4", "--messages", "12"];
    let (code, figures) = load(&served, &[&templates[..], &arguments].concat()).await;
    std::fs::remove_file(file).expect("removes");
    assert_eq!((code, counts(&figures)), (0, (24, 24, true)), "{figures}");
}

#[tokio::test]
async fn several_processes_share_the_subscribers_out() {
    let served = Served::start(&[], &[]).await;
    let shared = ["--connections", "10", "--processes", "3", "--channels", "2"];
    let (code, figures) =
        load(&served, &[&shared[..], &["--messages", "20", "--one-at-a-time"]].concat()).await;
    assert_eq!((code, counts(&figures)), (0, (100, 100, true)), "{figures}");
    assert!(figures["load"]["delivery"]["p50"].as_f64().expect("microseconds") > 0.0, "{figures}");

    let (code, figures) = load(&served, &[&shared[..], &["--idle", "--duration", "0.1"]].concat()).await;
    assert_eq!((code, &figures["connections"], &figures["ended"]), (0, &10.into(), &0.into()), "{figures}");
}

#[tokio::test]
async fn what_is_lost_or_refused_makes_the_run_a_failure() {
    let served = Served::start(&[], &[]).await;
    // Nobody subscribes there.
    let elsewhere = "POST /v1/channels/elsewhere/messages\nContent-Type: text/plain\n\n{payload}";
    let few = ["--connections", "2", "--messages", "1", "--publish-request"];
    let (code, figures) = load(&served, &[&few[..], &[elsewhere]].concat()).await;
    assert_eq!((code, &figures["load"]["lost"]), (1, &2.into()), "{figures}");

    let nowhere = "POST /nowhere\n\n{payload}";
    let (code, figures) = load(&served, &[&few[..], &[nowhere]].concat()).await;
    assert_eq!((code, &figures["load"]["refused"]), (1, &1.into()), "{figures}");
    let reason = figures["reasons"][0].as_str().expect("a reason");
    assert!(reason.contains("404"), "{reason}");
}

#[tokio::test]
async fn a_load_that_makes_no_sense_is_refused_before_anything_is_connected() {
    for (arguments, words) in [
        (&["--publish-request", "POST /pub"][..], "--publish-request: {payload} is not in it"),
        (
            &["--channels", "2", "--subscribe-request", "GET /sub"],
            "--subscribe-request: {channel} is not in it",
        ),
        (&["--subscribe-request", "/sub"], "a method and a target"),
        (&["--transport", "poll", "--subscribe-request", "GET /sub"], "is for streams"),
        (&["--processes", "0"], "--processes"),
        (&["--size", "10"], "--size 10"),
        (&["--url", "ftp://127.0.0.1"], "not http://"),
    ] {
        let mut command = tidegate();
        command.arg("bench").args(arguments);
        let (code, said) = run(command).await;
        assert_eq!(code, 64, "{said}");
        assert!(said.contains(words), "{words:?} is not in {said}");
    }
    let mut command = tidegate();
    command.args(["bench", "--help"]);
    let (code, help) = Process::spawn(command).outcome().await;
    assert_eq!(code, 0);
    for words in ["Examples:", "--subscribe-request", "--publish-request", "--processes", "nchan"] {
        assert!(help.contains(words), "{words} is not in {help}");
    }
}

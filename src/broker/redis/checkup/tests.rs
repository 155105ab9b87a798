//! The judgements, each by the figures on both sides of its line.

use super::*;

fn facts(info_text: &str, config: &[(&str, &str)]) -> Facts {
    let config = config.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
    Facts { info: Some(info(info_text)), config: Some(config) }
}

/// The worst that is said where `word` is mentioned.
fn worst(findings: &[Finding], word: &str) -> Option<Severity> {
    findings.iter().filter(|finding| finding.sentence.contains(word)).map(|finding| finding.severity).max()
}

#[test]
fn the_clock_may_differ_by_a_second_and_half_the_way() {
    for (ahead, taken, severity) in [
        (0.9, 0.0, Severity::Good),
        (-0.9, 0.0, Severity::Good),
        (1.2, 0.6, Severity::Good),
        (1.2, 0.1, Severity::Warning),
        (-3.0, 0.1, Severity::Warning),
    ] {
        assert_eq!(judge::clock(ahead, taken).severity, severity, "{ahead} {taken}");
    }
    assert!(judge::clock(2.5, 0.0).sentence.contains("2.5 s ahead of"));
    assert!(judge::clock(-2.5, 0.0).sentence.contains("2.5 s behind"));
}

#[test]
fn output_buffers_are_neither_small_nor_endless() {
    let normal = "normal 0 0 0 slave 268435456 67108864 60 pubsub";
    for (limit, severity) in [
        ("33554432 8388608 60", Severity::Good),
        ("8388608 8388608 60", Severity::Good),
        ("8388607 8388608 60", Severity::Warning),
        ("0 0 0", Severity::Warning),
        ("0 8388608 60", Severity::Good),
        ("33554432 0 0", Severity::Good),
        ("33554432 1024 60", Severity::Warning),
        ("soon", Severity::Unchecked),
    ] {
        assert_eq!(judge::buffers(&format!("{normal} {limit}"), 1024).severity, severity, "{limit}");
    }
    // Large messages need larger buffers.
    assert_eq!(
        judge::buffers(&format!("{normal} 33554432 8388608 60"), 16 << 20).severity,
        Severity::Warning
    );
}

#[test]
fn replicas_are_there_and_near() {
    for (lines, severity) in [
        ("connected_slaves:1\nslave0:ip=::1,port=1,state=online,offset=10,lag=0", Severity::Good),
        ("connected_slaves:1\nslave0:ip=::1,port=1,state=wait_bgsave,offset=0,lag=0", Severity::Warning),
        ("connected_slaves:1\nslave0:ip=::1,port=1,state=online,offset=10,lag=11", Severity::Warning),
        (
            "connected_slaves:1\nslave0:ip=::1,port=1,state=online,offset=1,lag=0\nmaster_repl_offset:99999999",
            Severity::Warning,
        ),
        ("connected_slaves:0", Severity::Warning),
    ] {
        assert_eq!(worst(&judge::all(&facts(lines, &[]), 0), "replica"), Some(severity), "{lines}");
    }
    let lacking = facts("connected_slaves:0\nmin_slaves_good_slaves:0", &[("min-replicas-to-write", "1")]);
    assert_eq!(worst(&judge::all(&lacking, 0), "min-replicas-to-write"), Some(Severity::Failure));
}

#[test]
fn a_full_server_is_told() {
    for (used, severity) in [(89, None), (91, Some(Severity::Warning))] {
        let facts =
            facts(&format!("maxmemory:1000\nused_memory:{}\nmaxmemory_policy:noeviction", used * 10), &[]);
        assert_eq!(worst(&judge::all(&facts, 0), "are used"), severity, "{used}");
    }
    let facts = facts("connected_clients:80\nmaxclients:100\naof_last_write_status:err", &[]);
    assert_eq!(worst(&judge::all(&facts, 0), "maxclients"), Some(Severity::Warning));
    assert_eq!(worst(&judge::all(&facts, 0), "append-only file"), Some(Severity::Warning));
}

#[test]
fn what_is_not_told_is_not_judged() {
    let findings = judge::all(&Facts::default(), 0);
    assert!(findings.iter().all(|finding| finding.severity == Severity::Unchecked), "{findings:?}");
}

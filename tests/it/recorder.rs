//! The tools of the Redis tests, tested: a recorder that overlooks something would prove nothing.

use std::time::{Duration, Instant};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::support::fleet::{Fleet, Load, Run};
use crate::support::proxy::{Class, FaultProxy, Mode};
use crate::support::recorder::{Entry, Gaps, Ledger, Outcome, Seen, Unsure, Verdict, judge};
use crate::support::within;

/// Accepted numbers from 1 on, as epoch and offset; `?` is uncertain.
fn ledger(ids: &[&str]) -> Ledger {
    let outcome = |id: &str| if id == "?" { Outcome::Uncertain } else { Outcome::Accepted(id.to_owned()) };
    let entries = ids.iter().zip(1..).map(|(id, n)| Entry { n, outcome: outcome(id) }).collect();
    [("c".to_owned(), entries)].into()
}

/// `4=aaaaaa-4` is a message, `failover aaaaaa-4 bbbbbb-4` a gap.
fn judged(ids: &[&str], seen: &[&str]) -> Verdict {
    let seen: Vec<Seen> = seen
        .iter()
        .map(|text| match text.split_once('=') {
            Some((n, id)) => {
                Seen::Message { channel: "c".into(), id: id.into(), n: n.parse().expect("a number") }
            }
            None => {
                let words: Vec<&str> = text.split(' ').collect();
                let [reason, from, to] = words[..] else { panic!("{text}") };
                Seen::Gap { channel: "c".into(), reason: reason.into(), from: from.into(), to: to.into() }
            }
        })
        .collect();
    judge("it", &ledger(ids), &seen)
}

/// Losses, doubles, inversions, false gaps.
fn figures(ids: &[&str], seen: &[&str]) -> [usize; 4] {
    let verdict = judged(ids, seen);
    [verdict.losses.len(), verdict.doubles.len(), verdict.inversions.len(), verdict.false_gaps.len()]
}

const A: [&str; 5] = ["aaaaaa-1", "aaaaaa-2", "aaaaaa-3", "aaaaaa-4", "aaaaaa-5"];

#[test]
fn what_is_whole_is_praised() {
    assert_eq!(figures(&A, &["1=aaaaaa-1", "2=aaaaaa-2", "3=aaaaaa-3", "4=aaaaaa-4", "5=aaaaaa-5"]), [0; 4]);
    assert_eq!(figures(&[], &[]), [0; 4]);
}

#[test]
fn a_message_that_is_missing_is_a_loss_wherever_it_is() {
    // In the middle the ids tell it too.
    assert_eq!(figures(&A, &["1=aaaaaa-1", "2=aaaaaa-2", "4=aaaaaa-4", "5=aaaaaa-5"]), [2, 0, 0, 0]);
    assert_eq!(figures(&A, &["2=aaaaaa-2", "3=aaaaaa-3", "4=aaaaaa-4", "5=aaaaaa-5"]), [1, 0, 0, 0]);
    assert_eq!(figures(&A, &["1=aaaaaa-1", "2=aaaaaa-2", "3=aaaaaa-3", "4=aaaaaa-4"]), [1, 0, 0, 0]);
    assert_eq!(figures(&A, &[]), [5, 0, 0, 0]);
}

#[test]
fn a_hole_in_the_ids_is_a_loss_though_nobody_knows_what_was_there() {
    let ids = ["aaaaaa-1", "?", "aaaaaa-3"];
    assert_eq!(figures(&ids, &["1=aaaaaa-1", "3=aaaaaa-3"]), [1, 0, 0, 0]);
    assert_eq!(figures(&["aaaaaa-1", "?", "aaaaaa-2"], &["1=aaaaaa-1", "3=aaaaaa-2"]), [0; 4]);
}

#[test]
fn a_gap_excuses_what_lies_inside_it_and_nothing_else() {
    let seen = ["1=aaaaaa-1", "trimmed aaaaaa-1 aaaaaa-3", "4=aaaaaa-4", "5=aaaaaa-5"];
    assert_eq!(figures(&A, &seen), [0; 4]);
    assert_eq!(judged(&A, &seen).told_missing, 2);
    // It says 2 to 3 and 4 is missing too.
    assert_eq!(figures(&A, &["1=aaaaaa-1", "trimmed aaaaaa-1 aaaaaa-3", "5=aaaaaa-5"]), [2, 0, 0, 0]);
    // It is told elsewhere.
    assert_eq!(
        figures(&A, &["1=aaaaaa-1", "2=aaaaaa-2", "trimmed aaaaaa-2 aaaaaa-3", "4=aaaaaa-4"]),
        [1, 0, 0, 0],
        "the last is missing, after the gap"
    );
    // Too late: the hole was passed in silence.
    let late = ["1=aaaaaa-1", "4=aaaaaa-4", "trimmed aaaaaa-1 aaaaaa-3", "5=aaaaaa-5"];
    assert!(figures(&A, &late)[0] >= 2);
}

#[test]
fn a_gap_where_nothing_was_lost_is_false() {
    let seen =
        ["1=aaaaaa-1", "2=aaaaaa-2", "reset aaaaaa-2 bbbbbb-2", "3=bbbbbb-3", "4=bbbbbb-4", "5=bbbbbb-5"];
    assert_eq!(figures(&["aaaaaa-1", "aaaaaa-2", "bbbbbb-3", "bbbbbb-4", "bbbbbb-5"], &seen), [0, 0, 0, 1]);
    let verdict = judged(&["aaaaaa-1", "aaaaaa-2", "bbbbbb-3", "bbbbbb-4", "bbbbbb-5"], &seen);
    assert!(verdict.check(Gaps::True).is_err());
    assert!(verdict.check(Gaps::Excused(1)).is_ok());
    assert!(verdict.check(Gaps::Excused(0)).is_err());
    // At the end as well.
    let end = ["1=aaaaaa-1", "link aaaaaa-1 bbbbbb-0"];
    assert_eq!(figures(&["aaaaaa-1"], &end), [0, 0, 0, 1]);
}

#[test]
fn a_gap_over_something_uncertain_is_not_false() {
    let ids = ["aaaaaa-1", "?", "bbbbbb-2"];
    assert_eq!(figures(&ids, &["1=aaaaaa-1", "failover aaaaaa-1 bbbbbb-1", "3=bbbbbb-2"]), [0; 4]);
    // But where the uncertain one was seen, it is.
    let ids = ["aaaaaa-1", "?", "bbbbbb-3"];
    let seen = ["1=aaaaaa-1", "2=aaaaaa-2", "failover aaaaaa-2 bbbbbb-2", "3=bbbbbb-3"];
    assert_eq!(figures(&ids, &seen), [0, 0, 0, 1]);
}

#[test]
fn a_lost_tail_lies_inside_the_gap_of_the_failover() {
    let ids = ["aaaaaa-1", "aaaaaa-2", "aaaaaa-3", "aaaaaa-4", "bbbbbb-3", "bbbbbb-4"];
    let behind = ["1=aaaaaa-1", "2=aaaaaa-2", "failover aaaaaa-2 bbbbbb-2", "5=bbbbbb-3", "6=bbbbbb-4"];
    assert_eq!(figures(&ids, &behind), [0; 4]);
    // Further behind: what was kept bears the new epoch, and the gap stands before it.
    let far = ["1=aaaaaa-1", "failover aaaaaa-1 bbbbbb-1", "2=bbbbbb-2", "5=bbbbbb-3", "6=bbbbbb-4"];
    assert_eq!(figures(&ids, &far), [0; 4]);
    // Who saw the tail lost nothing.
    let ahead = [
        "1=aaaaaa-1",
        "2=aaaaaa-2",
        "3=aaaaaa-3",
        "4=aaaaaa-4",
        "failover aaaaaa-4 bbbbbb-2",
        "5=bbbbbb-3",
        "6=bbbbbb-4",
    ];
    assert_eq!(figures(&ids, &ahead), [0, 0, 0, 1]);
    // The same offsets again, taken for the old ones: the classic silent loss.
    let silent = ["1=aaaaaa-1", "2=aaaaaa-2", "3=aaaaaa-3", "4=aaaaaa-4"];
    assert_eq!(figures(&ids, &silent)[0], 2);
}

#[test]
fn two_primaries_at_once_have_no_order_among_themselves() {
    // 2 and 4 went to the new one while this client's gateway was still with the old one.
    let ids = ["aaaaaa-1", "bbbbbb-2", "aaaaaa-2", "bbbbbb-3", "aaaaaa-3", "bbbbbb-4"];
    let old = [
        "1=aaaaaa-1",
        "3=aaaaaa-2",
        "5=aaaaaa-3",
        "failover aaaaaa-3 bbbbbb-1",
        "2=bbbbbb-2",
        "4=bbbbbb-3",
        "6=bbbbbb-4",
    ];
    assert_eq!(figures(&ids, &old), [0, 0, 0, 1]);
    let new = ["1=aaaaaa-1", "failover aaaaaa-1 bbbbbb-1", "2=bbbbbb-2", "4=bbbbbb-3", "6=bbbbbb-4"];
    assert_eq!(figures(&ids, &new), [0; 4]);
    // But within each there is one, and nothing may be missing.
    assert_eq!(
        figures(&ids, &["1=aaaaaa-1", "failover aaaaaa-1 bbbbbb-1", "2=bbbbbb-2", "6=bbbbbb-4"])[0],
        2
    );
    let wrong = ["1=aaaaaa-1", "failover aaaaaa-1 bbbbbb-1", "4=bbbbbb-3", "2=bbbbbb-2", "6=bbbbbb-4"];
    assert!(figures(&ids, &wrong)[2] > 0);
}

#[test]
fn a_whole_epoch_that_a_client_never_heard_of_needs_a_gap_that_passes_it() {
    let ids = ["aaaaaa-1", "bbbbbb-1", "cccccc-1"];
    assert_eq!(figures(&ids, &["1=aaaaaa-1", "reset aaaaaa-1 cccccc-0", "3=cccccc-1"]), [0; 4]);
    assert!(figures(&ids, &["1=aaaaaa-1", "3=cccccc-1"])[0] >= 2);
}

#[test]
fn another_epoch_without_a_gap_is_a_loss() {
    assert_eq!(figures(&["aaaaaa-1", "bbbbbb-2"], &["1=aaaaaa-1", "2=bbbbbb-2"]), [1, 0, 0, 0]);
}

#[test]
fn the_same_again_is_a_double_by_id_and_by_number() {
    assert_eq!(figures(&A[..2], &["1=aaaaaa-1", "1=aaaaaa-1", "2=aaaaaa-2"]), [0, 1, 0, 0]);
    assert_eq!(figures(&["aaaaaa-1", "?"], &["1=aaaaaa-1", "2=aaaaaa-2", "2=aaaaaa-3"]), [0, 1, 0, 0]);
}

#[test]
fn what_comes_in_the_wrong_order_is_an_inversion() {
    let wrong = figures(&A[..3], &["1=aaaaaa-1", "3=aaaaaa-3", "2=aaaaaa-2"]);
    assert!(wrong[2] >= 1 && wrong[0] >= 1, "{wrong:?}: and a hole when it was passed");
    // Uncertain ones may have been done late, but their ids go up all the same.
    assert_eq!(figures(&["aaaaaa-1", "?", "aaaaaa-2"], &["1=aaaaaa-1", "3=aaaaaa-2", "2=aaaaaa-3"]), [0; 4]);
}

#[test]
fn an_id_that_is_not_the_publishers_is_told() {
    assert_eq!(figures(&A[..2], &["1=aaaaaa-1", "2=aaaaaa-3"])[0], 2, "a hole, and another place");
}

/// Three names for one gateway without Redis: the whole machinery, and nothing may be wrong.
#[tokio::test]
async fn a_run_over_one_gateway_is_whole_over_all_transports() {
    let mut fleet = Fleet::over("memory:", 1).await;
    let mut run = Run::start(&fleet, Load::new(Unsure::Retry).rate(100).roaming()).await;
    run.published(100).await;
    run.flowing("in the middle").await;
    let report = run.end(Gaps::True).await;
    assert!(report.accepted > 100 && report.verdict.seen >= report.accepted * 4, "{report:?}");
    assert_eq!((report.verdict.gaps, report.uncertain), (0, 0));
    fleet.nodes[0].kill9();
}

/// A memory broker that is killed loses all: clients must be told, and the recorder must see that they were.
#[tokio::test]
async fn a_run_over_a_gateway_that_forgets_is_told_so() {
    let mut fleet = Fleet::over("memory:", 1).await;
    let mut run = Run::start(&fleet, Load::new(Unsure::Leave)).await;
    fleet.nodes[0].kill9();
    fleet.nodes[0].start().await;
    run.flowing("after the restart").await;
    let report = run.end(Gaps::Excused(1)).await;
    assert!(report.verdict.gaps >= 4 * 3, "each client, each channel: {report:?}");
    assert!(report.reconnects >= 4);
}

/// Clients whose network goes away and comes back, over a broker that forgets nothing.
#[tokio::test]
async fn a_run_through_bad_networks_is_whole_over_all_transports() {
    let fleet = Fleet::over("memory:", 1).await;
    let network = FaultProxy::to(fleet.nodes[0].public).await;
    let load = Load { doors: Some(vec![vec![network.address]]), ..Load::new(Unsure::Retry).rate(100) };
    let mut run = Run::start(&fleet, load).await;
    for round in 0..6 {
        network.set(Class::All, Mode::HalfOpen);
        run.published(100).await;
        if round % 2 == 0 {
            network.cut(Class::All);
        }
        network.set(Class::All, Mode::Pass);
        run.published(100).await;
    }
    run.flowing("with a network").await;
    let report = run.end(Gaps::True).await;
    assert_eq!(report.verdict.seen, report.accepted * report.clients, "{report:?}");
    assert!(report.reconnects >= 4 * 3, "{report:?}");
}

/// A server that answers each byte with itself.
async fn echo() -> std::net::SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut read, mut write) = stream.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    });
    address
}

async fn round_trip(stream: &mut TcpStream, bytes: &[u8]) -> std::io::Result<Vec<u8>> {
    stream.write_all(bytes).await?;
    let mut back = vec![0; bytes.len()];
    stream.read_exact(&mut back).await?;
    Ok(back)
}

#[tokio::test]
async fn the_proxy_passes_delays_holds_and_cuts() {
    let proxy = FaultProxy::to(echo().await).await;
    let mut stream = TcpStream::connect(proxy.address).await.expect("connects");
    assert_eq!(round_trip(&mut stream, b"one").await.expect("passes"), b"one");

    proxy.set(Class::All, Mode::Delay(Duration::from_millis(100)));
    let begun = Instant::now();
    assert_eq!(round_trip(&mut stream, b"two").await.expect("passes"), b"two");
    assert!(begun.elapsed() >= Duration::from_millis(200), "each way: {:?}", begun.elapsed());

    proxy.set(Class::All, Mode::Throttle(1000));
    let begun = Instant::now();
    round_trip(&mut stream, &[7; 300]).await.expect("passes");
    assert!(begun.elapsed() >= Duration::from_millis(250), "{:?}", begun.elapsed());

    proxy.set(Class::All, Mode::HalfOpen);
    let held = tokio::time::timeout(Duration::from_millis(200), round_trip(&mut stream, b"three")).await;
    assert!(held.is_err(), "nothing comes through");
    let mut late = TcpStream::connect(proxy.address).await.expect("is accepted all the same");
    assert!(tokio::time::timeout(Duration::from_millis(200), round_trip(&mut late, b"x")).await.is_err());
    proxy.set(Class::All, Mode::Pass);
    let mut back = [0; 5];
    within(Duration::from_secs(5), "what was held", stream.read_exact(&mut back)).await.expect("comes");
    assert_eq!(&back, b"three");

    proxy.freeze(Class::All);
    let forgotten = tokio::time::timeout(Duration::from_millis(200), round_trip(&mut stream, b"four")).await;
    assert!(forgotten.is_err(), "an old connection says nothing");
    let mut fresh = TcpStream::connect(proxy.address).await.expect("connects");
    round_trip(&mut fresh, b"a new one passes").await.expect("passes");
    proxy.cut(Class::All);
    let end = within(Duration::from_secs(5), "the reset", stream.read(&mut back)).await;
    assert_eq!(end.map_err(|error| error.kind()), Err(std::io::ErrorKind::ConnectionReset));

    proxy.set(Class::All, Mode::Refuse);
    let mut refused = TcpStream::connect(proxy.address).await.expect("connects");
    assert!(round_trip(&mut refused, b"x").await.is_err());
    proxy.set(Class::All, Mode::Pass);
    let elsewhere = echo().await;
    proxy.retarget(elsewhere);
    let mut stream = TcpStream::connect(proxy.address).await.expect("connects");
    assert_eq!(round_trip(&mut stream, b"there").await.expect("passes"), b"there");
}

#[tokio::test]
async fn the_proxy_tells_subscribers_from_commands_and_cuts_in_the_middle() {
    let proxy = FaultProxy::to(echo().await).await;
    let subscribe = b"*2\r\n$9\r\nSUBSCRIBE\r\n$1\r\na\r\n";
    let mut subscriber = TcpStream::connect(proxy.address).await.expect("connects");
    round_trip(&mut subscriber, subscribe).await.expect("passes");
    let mut commands = TcpStream::connect(proxy.address).await.expect("connects");
    round_trip(&mut commands, b"PING").await.expect("passes");

    proxy.cut_within(Class::Subscribers, b"needle", 3, 1);
    round_trip(&mut commands, b"a needle").await.expect("not this one");
    subscriber.write_all(b"a needle").await.expect("writes");
    let mut got = Vec::new();
    let end = within(Duration::from_secs(5), "the cut", subscriber.read_to_end(&mut got)).await;
    assert!(end.is_err() && b"a nee".starts_with(&got[..]), "{end:?} {:?}", String::from_utf8_lossy(&got));
    assert_eq!(proxy.snapped(), 1);

    let mut subscriber = TcpStream::connect(proxy.address).await.expect("connects");
    round_trip(&mut subscriber, subscribe).await.expect("passes");
    round_trip(&mut subscriber, b"a needle").await.expect("the trap snapped once");
    proxy.cut(Class::Subscribers);
    assert!(within(Duration::from_secs(5), "the reset", round_trip(&mut subscriber, b"x")).await.is_err());
    round_trip(&mut commands, b"still here").await.expect("only subscribers were cut");
}

//! Commands against real servers: what comes of them when the server or the connection ends, and how fast they are.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::time::{sleep, timeout};

use super::*;
use crate::broker::redis::tests::{LIMIT, Redis, cluster, endpoint, link};

fn args(args: &[&str]) -> Vec<Value> {
    args.iter().map(|arg| Value::from(*arg)).collect()
}

/// The two connections of a link.
#[derive(Clone, Copy, Debug)]
enum Line {
    Fred,
    Pipeline,
}

impl Line {
    const BOTH: [Self; 2] = [Self::Fred, Self::Pipeline];

    async fn call(
        self,
        link: &CommandLink,
        command: &'static str,
        args: Vec<Value>,
    ) -> Result<Value, CommandError> {
        match self {
            Self::Fred => link.call(command, args).await,
            Self::Pipeline => link.pipelined(command, args).await,
        }
    }
}

#[tokio::test]
async fn commands_are_answered_and_errors_are_told_apart() {
    for line in Line::BOTH {
        answers_and_errors(line).await;
    }
}

async fn answers_and_errors(line: Line) {
    let redis = Redis::start(&[]);
    let link = link(&redis).await;
    assert_eq!(link.hello().version.split('.').next().map(|major| major >= "7"), Some(true));
    assert_eq!(line.call(&link, "SET", args(&["a", "1"])).await.unwrap().as_str().as_deref(), Some("OK"));
    assert_eq!(line.call(&link, "GET", args(&["a"])).await.unwrap().as_str().as_deref(), Some("1"));
    let bytes = Value::Bytes(vec![0, 255, 13, 10].into());
    line.call(&link, "SET", vec!["b".into(), bytes.clone()]).await.unwrap();
    assert_eq!(line.call(&link, "GET", args(&["b"])).await.unwrap(), bytes);
    assert!(line.call(&link, "GET", args(&["none"])).await.unwrap().is_null());
    assert_eq!(line.call(&link, "FCALL", args(&["f", "0"])).await, Err(CommandError::NoFunction));
    assert_eq!(
        line.call(&link, "EVALSHA", args(&["ffffffffffffffffffffffffffffffffffffffff", "0"])).await,
        Err(CommandError::NoFunction)
    );
    let wrong = line.call(&link, "LPUSH", args(&["a", "1"])).await;
    assert!(matches!(&wrong, Err(CommandError::Other(text)) if text.starts_with("WRONGTYPE")), "{wrong:?}");
    let own = line.call(&link, "EVAL", args(&["return redis.error_reply('TGKEYREUSED no')", "0"])).await;
    assert_eq!(own, Err(CommandError::Other("TGKEYREUSED no".into())));
    redis.cli(&["CONFIG", "SET", "maxmemory", "1"]);
    assert_eq!(line.call(&link, "SET", args(&["a", "2"])).await, Err(CommandError::Unavailable));
    redis.cli(&["CONFIG", "SET", "maxmemory", "0"]);
    redis.cli(&["REPLICAOF", "127.0.0.1", "1"]);
    assert_eq!(line.call(&link, "SET", args(&["a", "2"])).await, Err(CommandError::Unavailable));
    assert!(!link.is_closed());
}

#[tokio::test]
async fn a_database_of_any_number_is_chosen() {
    let redis = Redis::start(&["--databases", "400"]);
    let link =
        CommandLink::connect(&endpoint(&format!("{}/300", redis.url()), ""), &redis.server(), LIMIT).await;
    let link = link.unwrap();
    for line in Line::BOTH {
        line.call(&link, "INCR", args(&["a"])).await.unwrap();
    }
    assert_eq!(redis.cli(&["-n", "300", "GET", "a"]), "2");
    let beyond =
        CommandLink::connect(&endpoint(&format!("{}/400", redis.url()), ""), &redis.server(), LIMIT).await;
    let sentence = beyond.unwrap_err().to_string();
    assert!(
        sentence.ends_with("unexpected answer: database 400: ERR DB index is out of range"),
        "{sentence}"
    );
}

/// All calls of `pending` are over within `within`; gives their results.
async fn all_end(
    pending: Vec<tokio::task::JoinHandle<Result<Value, CommandError>>>,
    within: Duration,
) -> Vec<Result<Value, CommandError>> {
    let begin = Instant::now();
    let mut results = Vec::new();
    for call in pending {
        results.push(timeout(Duration::from_secs(10), call).await.unwrap().unwrap());
    }
    assert!(begin.elapsed() < within, "{:?}", begin.elapsed());
    results
}

fn calls(
    link: &Arc<CommandLink>,
    line: Line,
    count: usize,
) -> Vec<tokio::task::JoinHandle<Result<Value, CommandError>>> {
    let call = |_| {
        let link = Arc::clone(link);
        tokio::spawn(async move { line.call(&link, "INCR", args(&["count"])).await })
    };
    (0..count).map(call).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_server_is_killed_all_calls_fail_at_once() {
    for line in Line::BOTH {
        when_the_server_is_killed_all_calls_fail_at_once_over(line).await;
    }
}

async fn when_the_server_is_killed_all_calls_fail_at_once_over(line: Line) {
    let mut redis = Redis::start(&[]);
    let link = Arc::new(link(&redis).await);
    redis.signal("-STOP");
    let pending = calls(&link, line, 100);
    sleep(Duration::from_millis(300)).await;
    redis.kill();
    let results = all_end(pending, Duration::from_millis(500)).await;
    assert!(results.iter().all(|result| *result == Err(CommandError::Uncertain)), "{results:?}");
    timeout(Duration::from_millis(500), link.closed()).await.unwrap();
    for line in Line::BOTH {
        assert_eq!(line.call(&link, "INCR", args(&["count"])).await, Err(CommandError::Unavailable));
    }
    assert!(link.is_closed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_connection_ends_the_link_whichever_it_is() {
    let redis = Redis::start(&[]);
    for line in Line::BOTH {
        let link = Arc::new(link(&redis).await);
        link.ping().await.unwrap();
        let id = line.call(&link, "CLIENT", args(&["ID"])).await.unwrap().as_i64().unwrap().to_string();
        assert_eq!(redis.cli(&["CLIENT", "KILL", "ID", &id]), "1");
        timeout(Duration::from_millis(500), link.closed()).await.unwrap();
        let begin = Instant::now();
        for line in Line::BOTH {
            assert_eq!(line.call(&link, "PING", Vec::new()).await, Err(CommandError::Unavailable));
        }
        assert_eq!(link.ping().await, Err(CommandError::Unavailable));
        assert!(begin.elapsed() < Duration::from_millis(50));
    }
}

/// In the moment of the end no call may be taken for surely not executed that was.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_called_unavailable_was_not_executed() {
    for line in Line::BOTH {
        what_is_called_unavailable_was_not_executed_over(line).await;
    }
}

async fn what_is_called_unavailable_was_not_executed_over(line: Line) {
    let redis = Redis::start(&[]);
    for round in 0..30 {
        redis.cli(&["DEL", "count"]);
        let link = Arc::new(link(&redis).await);
        let mut pending = Vec::new();
        for _ in 0..20 {
            pending.extend(calls(&link, line, 50));
            if pending.len() == 500 {
                redis.cli(&["CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes"]);
            }
            tokio::task::yield_now().await;
        }
        let results = all_end(pending, Duration::from_secs(3)).await;
        let count = |wanted: &dyn Fn(&Result<Value, CommandError>) -> bool| {
            results.iter().filter(|r| wanted(r)).count()
        };
        let done = count(&|result| result.is_ok());
        let uncertain = count(&|result| *result == Err(CommandError::Uncertain));
        let executed: usize = redis.cli(&["GET", "count"]).parse().unwrap_or(0);
        assert!((done..=done + uncertain).contains(&executed), "{round}: {executed} of {done} + {uncertain}");
        assert_eq!(done + uncertain + count(&|result| *result == Err(CommandError::Unavailable)), 1000);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_is_given_up() {
    for line in Line::BOTH {
        a_server_that_stands_still_is_given_up_over(line).await;
    }
}

async fn a_server_that_stands_still_is_given_up_over(line: Line) {
    let redis = Redis::start(&[]);
    let endpoint = endpoint(&redis.url(), "command_timeout = '300ms'");
    let link = Arc::new(CommandLink::connect(&endpoint, &redis.server(), LIMIT).await.unwrap());
    redis.signal("-STOP");
    let begin = Instant::now();
    let pending = calls(&link, line, 50);
    sleep(Duration::from_millis(150)).await;
    let late = calls(&link, line, 50);
    let results = all_end(pending, Duration::from_millis(600)).await;
    assert!(results.iter().all(|result| *result == Err(CommandError::Uncertain)), "{results:?}");
    // Those that came later do not wait their own time out.
    all_end(late, Duration::from_millis(50)).await;
    assert!(begin.elapsed() < Duration::from_millis(450), "{:?}", begin.elapsed());
    assert!(link.is_closed());
    let connected = CommandLink::connect(&endpoint, &redis.server(), Duration::from_millis(300)).await;
    assert_eq!(connected.unwrap_err().problem, Problem::TimedOut(Duration::from_millis(300)));
    redis.signal("-CONT");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_on_its_way_is_bounded_and_the_bound_is_given_back() {
    for line in Line::BOTH {
        what_is_on_its_way_is_bounded_and_the_bound_is_given_back_over(line).await;
    }
}

async fn what_is_on_its_way_is_bounded_and_the_bound_is_given_back_over(line: Line) {
    let redis = Redis::start(&[]);
    let link = Arc::new(link(&redis).await);
    redis.signal("-STOP");
    let set = |size: usize| {
        let link = Arc::clone(&link);
        let args = vec!["a".into(), Value::Bytes(vec![0; size].into())];
        tokio::spawn(async move { line.call(&link, "SET", args).await })
    };
    let large: Vec<_> = (0..80).map(|_| set(1 << 20)).collect();
    sleep(Duration::from_millis(500)).await;
    let (refused, waiting): (Vec<_>, Vec<_>) = large.into_iter().partition(|call| call.is_finished());
    assert_eq!(refused.len(), 80 - 63);
    assert_eq!(set(2 << 20).await.unwrap(), Err(CommandError::Unavailable));
    redis.signal("-CONT");
    for call in waiting {
        call.await.unwrap().unwrap();
    }
    for call in refused {
        assert_eq!(call.await.unwrap(), Err(CommandError::Unavailable));
    }
    // One larger than the bound is alone on its way.
    set(65 << 20).await.unwrap().unwrap();
    let begin = Instant::now();
    for _ in 0..20 {
        link.call("PING", Vec::new()).await.unwrap();
    }
    assert!(begin.elapsed() < Duration::from_millis(500), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn closing_ends_what_waits() {
    for line in Line::BOTH {
        closing_ends_what_waits_over(line).await;
    }
}

async fn closing_ends_what_waits_over(line: Line) {
    let redis = Redis::start(&[]);
    let link = Arc::new(link(&redis).await);
    redis.signal("-STOP");
    let pending = calls(&link, line, 10);
    sleep(Duration::from_millis(50)).await;
    link.close();
    let results = all_end(pending, Duration::from_millis(100)).await;
    assert!(results.iter().all(|result| *result == Err(CommandError::Uncertain)), "{results:?}");
    redis.signal("-CONT");
    sleep(Duration::from_millis(200)).await;
    // The connection itself is gone too, not only given up.
    assert!(!redis.cli(&["CLIENT", "LIST"]).contains("name=tidegate"));
}

#[tokio::test]
async fn a_slot_that_moves_is_told_untouched() {
    let nodes = cluster(&[]);
    let url = format!("redis-cluster://127.0.0.1:{}", nodes[0].port);
    let endpoint = endpoint(&url, "");
    let mut links = Vec::new();
    for node in &nodes {
        links.push(CommandLink::connect(&endpoint, &node.server(), LIMIT).await.unwrap());
    }
    // CRC16("foo") % 16384 = 12182, the last third.
    let (slot, from, to) = (12_182, 2, 0);
    let moved = CommandError::Moved { slot, server: nodes[from].server() };
    for line in Line::BOTH {
        assert_eq!(line.call(&links[to], "GET", args(&["{foo}a"])).await, Err(moved.clone()));
    }
    assert_eq!(links[to].call("SSUBSCRIBE", args(&["{foo}a"])).await, Err(moved));
    links[from].call("SET", args(&["{foo}a", "1"])).await.unwrap();
    links[from].call("SET", args(&["{foo}b", "2"])).await.unwrap();
    let id = |node: &Redis| node.cli(&["CLUSTER", "MYID"]);
    nodes[to].cli(&["CLUSTER", "SETSLOT", "12182", "IMPORTING", &id(&nodes[from])]);
    nodes[from].cli(&["CLUSTER", "SETSLOT", "12182", "MIGRATING", &id(&nodes[to])]);
    let port = nodes[to].port.to_string();
    nodes[from].cli(&["MIGRATE", "127.0.0.1", &port, "{foo}a", "0", "1000"]);
    let ask = CommandError::Ask { slot, server: nodes[to].server() };
    for line in Line::BOTH {
        assert_eq!(line.call(&links[from], "GET", args(&["{foo}a"])).await, Err(ask.clone()));
        let half = line.call(&links[from], "MGET", args(&["{foo}a", "{foo}b"])).await;
        assert_eq!(half, Err(CommandError::TryAgain));
    }
    assert_eq!(links[to].ask("GET", args(&["{foo}a"])).await.unwrap().as_str().as_deref(), Some("1"));
    assert_eq!(links[to].ask("MGET", args(&["{foo}a", "{foo}b"])).await, Err(CommandError::TryAgain));
    let wrong = links[to].ask("LPUSH", args(&["{foo}a", "x"])).await;
    assert!(matches!(&wrong, Err(CommandError::Other(text)) if text.starts_with("WRONGTYPE")), "{wrong:?}");
    let crossed = links[from].call("MGET", args(&["{foo}a", "{bar}b"])).await;
    assert!(
        matches!(&crossed, Err(CommandError::Other(text)) if text.starts_with("CROSSSLOT")),
        "{crossed:?}"
    );
    // ASKING is for the next command only, whoever else uses the link.
    let moved = CommandError::Moved { slot, server: nodes[from].server() };
    assert_eq!(links[to].call("GET", args(&["{foo}a"])).await, Err(moved));
    let link = Arc::new(links.remove(to));
    let calls: Vec<_> = (0..200)
        .map(|number| {
            let link = Arc::clone(&link);
            tokio::spawn(async move {
                match number % 2 {
                    0 => link.ask("GET", args(&["{foo}a"])).await.is_ok(),
                    _ => matches!(link.call("GET", args(&["{foo}a"])).await, Err(CommandError::Moved { .. })),
                }
            })
        })
        .collect();
    for call in calls {
        assert!(call.await.unwrap());
    }
}

/// To fred this is the end of the connection; see the head of the module.
#[tokio::test]
async fn a_cluster_that_is_down_refuses_and_ends_freds_connection() {
    let node = Redis::start(&["--cluster-enabled", "yes"]);
    let endpoint = endpoint(&format!("redis-cluster://127.0.0.1:{}", node.port), "");
    let link = CommandLink::connect(&endpoint, &node.server(), LIMIT).await.unwrap();
    assert_eq!(link.pipelined("GET", args(&["a"])).await, Err(CommandError::Unavailable));
    assert!(!link.is_closed());
    let result = link.call("GET", args(&["a"])).await;
    assert!(matches!(result, Err(CommandError::Uncertain | CommandError::Unavailable)), "{result:?}");
    timeout(Duration::from_millis(500), link.closed()).await.unwrap();
}

/// `cargo test --release --lib many_commands -- --ignored --nocapture`
#[tokio::test(flavor = "multi_thread", worker_threads = 1)]
#[ignore = "a measurement"]
async fn many_commands_at_once_are_fast() {
    let redis = Redis::start(&[]);
    redis.cli(&[
        "FUNCTION",
        "LOAD",
        "#!lua name=m\nredis.register_function('m', function(k, a) return {'abcdefgh', 1, 2, 0, 1, 1} end)",
    ]);
    let link = Arc::new(link(&redis).await);
    let payload = bytes::Bytes::from(vec![b'x'; 200]);
    for line in Line::BOTH.repeat(3) {
        let begin = Instant::now();
        let tasks: Vec<_> = (0..64)
            .map(|_| {
                let (link, payload) = (Arc::clone(&link), payload.clone());
                tokio::spawn(async move {
                    for _ in 0..2000 {
                        let mut all = args(&[
                            "m", "4", "{1}a", "{1}b", "{1}c", "{1}d", "x", "y", "P", "1000", "1048576",
                        ]);
                        all.push(Value::Bytes(payload.clone()));
                        line.call(&link, "FCALL", all).await.unwrap();
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        println!("{line:?}: {:.0} a second", 128_000.0 / begin.elapsed().as_secs_f64());
    }
}

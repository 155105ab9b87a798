//! Against a real server. What becomes of commands at the end of a connection is in the tests of the link.

use futures_util::future::join_all;
use tokio::io::duplex;

use super::*;
use crate::broker::redis::{
    endpoint::Role,
    tests::{LIMIT, Redis, endpoint},
};

async fn pipeline(redis: &Redis) -> Pipeline {
    let endpoint = endpoint(&redis.url(), "");
    let opened = Connection::open(&endpoint, &redis.server(), Role::Primary, LIMIT).await;
    Pipeline::begin(opened.unwrap().0, LIMIT, CancellationToken::new())
}

fn integer(frame: &BytesFrame) -> i64 {
    match frame {
        BytesFrame::Number { data, .. } => *data,
        other => panic!("{other:?}"),
    }
}

/// How often the server has read from any connection.
fn reads(redis: &Redis) -> u64 {
    let stats = redis.cli(&["INFO", "stats"]);
    let line = stats.lines().find_map(|line| line.strip_prefix("total_reads_processed:"));
    line.unwrap().trim().parse().unwrap()
}

#[tokio::test]
async fn commands_that_come_together_leave_together_and_each_has_its_answer() {
    let redis = Redis::start(&[]);
    let pipeline = pipeline(&redis).await;
    let before = reads(&redis);
    let calls = (0..500_i64).map(|_| pipeline.call("INCRBY", vec!["count".into(), Value::Integer(1)]));
    for (number, answer) in (1..).zip(join_all(calls).await) {
        assert_eq!(integer(&answer.unwrap()), number, "in the order of the calls");
    }
    // The two questions are among them.
    assert!(reads(&redis) - before < 10, "{} reads", reads(&redis) - before);
}

#[tokio::test]
async fn large_and_small_commands_keep_their_order() {
    let redis = Redis::start(&[]);
    let pipeline = pipeline(&redis).await;
    let sizes: Vec<usize> = (0..40).map(|number| if number % 3 == 0 { 300_000 } else { number }).collect();
    let calls = sizes.iter().map(|size| {
        let bytes = Value::Bytes(vec![b'x'; *size].into());
        pipeline.call("APPEND", vec!["all".into(), bytes])
    });
    let mut length = 0;
    for (size, answer) in sizes.iter().zip(join_all(calls).await) {
        length += size;
        assert_eq!(integer(&answer.unwrap()), length as i64);
    }
}

#[tokio::test]
async fn who_goes_away_leaves_the_answers_of_the_others_in_place() {
    let redis = Redis::start(&[]);
    let pipeline = pipeline(&redis).await;
    for number in 1..=50 {
        // Asked, and not waited for.
        tokio::select! {
            biased;
            _ = pipeline.call("INCR", vec!["count".into()]) => panic!("answered before it was sent"),
            () = std::future::ready(()) => {}
        }
        let answer = pipeline.call("INCR", vec!["count".into()]).await.unwrap();
        assert_eq!(integer(&answer), 2 * number);
    }
    assert_eq!(pipeline.room.available_permits(), ROOM as usize, "all room is given back");
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_ends_the_connection() {
    let (here, mut there) = duplex(1024);
    let closed = CancellationToken::new();
    let connection = Connection { stream: Box::new(here), input: BytesMut::new() };
    let pipeline = Pipeline::begin(connection, LIMIT, closed.clone());
    there.write_all(b"+OK\r\n").await.unwrap();
    closed.cancelled().await;
    assert_eq!(pipeline.call("PING", Vec::new()).await, Err(CommandError::Unavailable));
}

#[tokio::test(start_paused = true)]
async fn a_silent_server_is_given_up_and_a_slow_one_is_not() {
    let (here, mut there) = duplex(1 << 16);
    let closed = CancellationToken::new();
    let connection = Connection { stream: Box::new(here), input: BytesMut::new() };
    let pipeline = Pipeline::begin(connection, LIMIT, closed.clone());
    let slow = async {
        for _ in 0..3 {
            tokio::time::sleep(LIMIT / 2).await;
            there.write_all(b"+OK\r\n").await.unwrap();
        }
    };
    let calls = join_all((0..4).map(|_| pipeline.call("PING", Vec::new())));
    let (answers, ()) = tokio::join!(calls, slow);
    // One a second, and two seconds of patience.
    let late = answers.iter().filter(|answer| **answer == Err(CommandError::Uncertain)).count();
    assert!((1..=3).contains(&late), "{answers:?}");
    assert!(!closed.is_cancelled(), "somebody was answered meanwhile");
    // The last answer has come too.
    tokio::time::sleep(LIMIT).await;
    assert_eq!(pipeline.call("PING", Vec::new()).await, Err(CommandError::Uncertain));
    assert!(closed.is_cancelled());
    assert_eq!(pipeline.call("PING", Vec::new()).await, Err(CommandError::Unavailable));
}

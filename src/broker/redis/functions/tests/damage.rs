//! What is lost or changed in Redis alone is told.

use super::*;

/// A channel with five messages, and its last position.
async fn five(redis: &Fixture) -> Position {
    for i in 1..5 {
        redis.publish("a", &i.to_string()).await;
    }
    redis.publish("a", "5").await
}

#[tokio::test]
async fn meta_lost_or_garbled_while_the_log_lives_begins_anew() {
    let redis = Fixture::new().await;
    let (meta, log) = (redis.key("meta", "a"), redis.key("log", "a"));
    let partition = redis.functions.names.partition(&channel("a"));
    redis.functions.open(&redis.link, partition).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let empty = redis.read("a", "latest").await.top;
    for how in ["lost", "list", "garbage", "short", "version"] {
        let five = five(&redis).await;
        match how {
            "list" => {
                redis.run::<()>(&["DEL", &meta]).await;
                redis.run::<()>(&["RPUSH", &meta, "x"]).await;
            }
            "garbage" => redis.run::<()>(&["SET", &meta, "\u{1}garbage"]).await,
            "short" => redis.run::<()>(&["SET", &meta, ""]).await,
            "version" => redis.run::<()>(&["SETRANGE", &meta, "0", "\u{3}"]).await,
            _ => redis.run::<()>(&["DEL", &meta]).await,
        }
        assert_eq!(redis.gap("a", five).await, Some(GapReason::Reset), "{how}");
        assert_eq!(redis.gap("a", empty).await, Some(GapReason::Expired), "{how}");
        assert!(redis.texts("a", "earliest").await.is_empty());
        let anew = redis.publish("a", "anew").await;
        assert_eq!(anew.offset(), 1, "{how}");
        assert_eq!(redis.gap("a", five).await, Some(GapReason::Reset), "{how}");
        assert_eq!(redis.gap("a", empty).await, Some(GapReason::Expired), "{how}");
        assert_eq!(redis.texts("a", &five.to_string()).await, ["anew"]);
        redis.run::<()>(&["DEL", &meta, &log]).await;
    }
}

/// A gateway that is brought up to date may be brought back: what the next version adds is at the end.
#[tokio::test]
async fn counting_of_the_next_version_goes_on() {
    let redis = Fixture::new().await;
    let meta = redis.key("meta", "a");
    let five = five(&redis).await;
    redis.run::<()>(&["SETRANGE", &meta, "0", "\u{2}"]).await;
    redis.run::<()>(&["APPEND", &meta, "what is new"]).await;
    assert_eq!(redis.gap("a", five).await, None);
    let six = redis.publish("a", "6").await;
    assert!(
        matches!((five, six), (Position::At(old, 5), Position::At(new, 6)) if old == new),
        "{five} {six}"
    );
    assert_eq!(redis.texts("a", &five.to_string()).await, ["6"]);
}

#[tokio::test]
async fn a_delete_does_not_hide_that_the_meta_was_lost() {
    let redis = Fixture::new().await;
    let partition = redis.functions.names.partition(&channel("a"));
    redis.functions.open(&redis.link, partition).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let empty = redis.read("a", "latest").await.top;
    five(&redis).await;
    redis.run::<()>(&["DEL", &redis.key("meta", "a")]).await;
    redis.functions.forget(&redis.link, &channel("a")).await.unwrap();
    assert_eq!(redis.run::<u64>(&["XLEN", &redis.key("log", "a")]).await, 0);
    assert_eq!(redis.gap("a", empty).await, Some(GapReason::Expired));
    redis.publish("a", "1").await;
    assert_eq!(redis.gap("a", empty).await, Some(GapReason::Expired));
}

#[tokio::test]
async fn a_log_that_is_lost_alone_is_trimmed() {
    let redis = Fixture::new().await;
    let log = redis.key("log", "a");
    let first = redis.publish("a", "1").await;
    let last = redis.publish("a", "2").await;
    redis.run::<()>(&["DEL", &log]).await;
    assert_eq!(redis.gap("a", first).await, Some(GapReason::Trimmed));
    assert_eq!(redis.gap("a", last).await, None);
    assert_eq!(redis.publish("a", "3").await.offset(), 3);
    let read = redis.read_as("a", &HISTORY, Since::Position(first), WHOLE).await;
    assert_eq!((read.floor, read.replay.start.gap.unwrap().reason), (3, GapReason::Trimmed));
    assert_eq!(redis.texts("a", &last.to_string()).await, ["3"]);
    assert_eq!(redis.gap("a", last).await, None);
}

#[tokio::test]
async fn both_lost_is_an_unknown_epoch() {
    let redis = Fixture::new().await;
    let five = five(&redis).await;
    redis.run::<()>(&["DEL", &redis.key("log", "a"), &redis.key("meta", "a")]).await;
    assert_eq!(redis.gap("a", five).await, Some(GapReason::Reset));
    assert_eq!(redis.publish("a", "1").await.offset(), 1);
    assert_eq!(redis.gap("a", five).await, Some(GapReason::Reset));
}

#[tokio::test]
async fn a_log_that_is_not_of_this_counting_is_thrown_away() {
    let redis = Fixture::new().await;
    let log = redis.key("log", "a");
    let first = redis.publish("a", "1").await;
    redis.run::<()>(&["DEL", &log]).await;
    redis.run::<()>(&["SET", &log, "x"]).await;
    assert_eq!(redis.gap("a", first).await, None);
    let second = redis.publish("a", "2").await;
    assert_eq!(redis.gap("a", first).await, Some(GapReason::Failover));
    assert_eq!(redis.texts("a", "earliest").await, ["2"]);
    // One that is ahead: the meta is of a backup, say.
    redis.run::<()>(&["XADD", &log, "77-0", "m", "x", "s", "0"]).await;
    let third = redis.publish("a", "3").await;
    assert_eq!(third.offset(), 3);
    assert_eq!(redis.gap("a", second).await, Some(GapReason::Failover));
    assert_eq!(redis.texts("a", "earliest").await, ["3"]);
}

#[tokio::test]
async fn entries_that_are_missing_or_foreign_are_a_gap_and_never_the_end() {
    let redis = Fixture::new().await;
    let history = History { messages: 100, bytes: 100_000, age: Duration::from_secs(60) };
    let log = redis.key("log", "a");
    let mut at = Vec::new();
    for i in 1..=20 {
        let draft = draft(&i.to_string(), None);
        at.push(redis.try_publish("a", &history, &draft).await.unwrap().position);
    }
    redis.run::<()>(&["XDEL", &log, "3-0", "4-0", "9-0", "10-0", "11-0", "12-0", "20-0"]).await;
    for (messages, bytes) in [(100, 100_000), (1, 100_000), (2, 3), (3, 0)] {
        let page = Page { messages, bytes };
        let (mut since, mut got, mut gaps) = (at[0], vec![1], Vec::new());
        loop {
            let read = redis.read_as("a", &history, Since::Position(since), page).await;
            let replay = read.replay;
            if let Some(gap) = replay.start.gap {
                assert_eq!((gap.reason, gap.from, gap.to), (GapReason::Trimmed, since, replay.start.after));
                gaps.push((gap.from.offset(), gap.to.offset()));
                assert!(read.damaged > 0);
            }
            got.extend(replay.messages.iter().map(|message| message.offset));
            since = replay.messages.last().map_or(replay.start.after, |message| message.position());
            if !replay.more {
                assert_eq!(since, replay.top);
                break;
            }
        }
        assert_eq!(gaps, [(2, 4), (8, 12), (19, 20)], "{page:?}");
        assert_eq!(got, [1, 2, 5, 6, 7, 8, 13, 14, 15, 16, 17, 18, 19], "{page:?}");
    }
    // All that follows is foreign.
    redis.run::<()>(&["DEL", &log]).await;
    for i in 1..=20 {
        redis.run::<()>(&["XADD", &log, &format!("{i}-0"), "x", "y"]).await;
    }
    let page = Page { messages: 2, bytes: 100 };
    let read = redis.read_as("a", &history, Since::Position(at[4]), page).await;
    assert_eq!((read.replay.start.after, read.replay.more, read.damaged), (at[19], false, 15));
    let read = redis.read_as("a", &history, Since::Earliest, page).await;
    assert_eq!((read.replay.start.position, read.replay.start.gap), (at[19], None));
    let draft = draft("21", None);
    redis.try_publish("a", &history, &draft).await.unwrap();
    assert_eq!(redis.texts("a", &at[19].to_string()).await, ["21"]);
}

#[tokio::test]
async fn without_its_replica_nothing_is_stored_and_reads_go_on() {
    let redis = Fixture::new().await;
    let five = five(&redis).await;
    let replicas = async |least: &str| {
        redis.run::<()>(&["CONFIG", "SET", "min-replicas-to-write", least]).await;
    };
    let partition = redis.functions.names.partition(&channel("a"));
    replicas("1").await;
    assert_eq!(redis.try_publish("a", &HISTORY, &draft("6", None)).await, Err(CommandError::NoWrites));
    assert_eq!(redis.texts("a", "last:2").await, ["4", "5"]);
    assert_eq!(redis.read("a", "latest").await.top, five);
    assert!(matches!(redis.read("new", "latest").await.top, Position::Empty(_)));
    redis.functions.tops(&redis.link, partition, &[channel("a")]).await.unwrap();
    redis.functions.open(&redis.link, partition).await.unwrap();
    let listed = redis.functions.list(&redis.link, partition, "", None, 10).await;
    assert_eq!(listed, Ok(vec![channel("a")]));
    // It would have to be written first.
    assert_eq!(redis.functions.format(&redis.link).await, Err(CommandError::NoWrites));
    // A failover meanwhile: all who ask hear of the same epoch.
    redis.fail_over().await;
    let top = redis.read("a", "latest").await.top;
    assert_ne!(top, five);
    assert_eq!(redis.read("a", "latest").await.top, top);
    replicas("0").await;
    assert_eq!(redis.publish("a", "6").await.offset(), 6);
    assert_eq!(redis.gap("a", top).await, None);
    // Nor is the script taken instead, which would then be asked for everywhere.
    redis.run::<()>(&["FUNCTION", "FLUSH"]).await;
    replicas("1").await;
    assert_eq!(redis.functions.load(&redis.link).await, Err(CommandError::NoWrites));
    assert!(!redis.functions.scripts.load(Relaxed));
}

#[tokio::test]
async fn out_of_memory_nothing_is_stored_and_reads_go_on() {
    let redis = Fixture::new().await;
    let five = five(&redis).await;
    for scripts in [false, true] {
        redis.functions.scripts.store(scripts, Relaxed);
        if scripts {
            redis.run::<String>(&["SCRIPT", "LOAD", SCRIPT.0]).await;
        }
        redis.run::<()>(&["CONFIG", "SET", "maxmemory-policy", "noeviction", "maxmemory", "1mb"]).await;
        for name in ["a", "new"] {
            let refused = redis.try_publish(name, &HISTORY, &draft("6", None)).await;
            assert_eq!(refused, Err(CommandError::Unavailable), "{scripts} {name}");
        }
        assert_eq!(redis.texts("a", "last:2").await, ["4", "5"]);
        assert_eq!(redis.read("a", "latest").await.top, five);
        let top = redis.read("new", "latest").await.top;
        assert!(matches!(top, Position::Empty(_)));
        let partition = redis.functions.names.partition(&channel("a"));
        redis.functions.tops(&redis.link, partition, &[channel("a")]).await.unwrap();
        redis.functions.open(&redis.link, partition).await.unwrap();
        redis.functions.probe(&redis.link, partition, &"x".into(), "1").await.unwrap();
        redis.run::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    }
    // A failover meanwhile: all who ask hear of the same epoch.
    redis.run::<()>(&["CONFIG", "SET", "maxmemory", "1mb"]).await;
    redis.fail_over().await;
    let top = redis.read("a", "latest").await.top;
    assert_ne!(top, five);
    assert_eq!(redis.read("a", "latest").await.top, top);
    redis.functions.forget(&redis.link, &channel("a")).await.unwrap();
    redis.run::<()>(&["CONFIG", "SET", "maxmemory", "0"]).await;
    assert_eq!(redis.publish("a", "6").await.offset(), 6);
    assert_eq!(redis.gap("a", top).await, None);
}

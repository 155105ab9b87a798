//! Offsets, epochs, histories.

use redis::AsyncCommands as _;

use super::*;

#[tokio::test]
async fn messages_come_back_as_they_were_published() {
    let redis = Fixture::new().await;
    let history = History { messages: 100, bytes: 10_000_000, age: Duration::from_secs(60) };
    let large: Vec<u8> = (0..256 * 1024).map(|i| (i * 7 % 256) as u8).collect();
    let drafts = [
        Draft {
            payload: payload::json(Bytes::from_static(b"{\"a\":1}")).unwrap(),
            event: Some("created".parse().unwrap()),
            idempotency_key: None,
            trace: None,
        },
        draft("h\u{e9}llo\r\n", None),
        Draft {
            payload: payload::binary(Bytes::from(large)),
            event: None,
            idempotency_key: None,
            trace: None,
        },
        Draft { payload: payload::binary(Bytes::new()), event: None, idempotency_key: None, trace: None },
    ];
    let mut last = 0;
    for (i, draft) in drafts.iter().enumerate() {
        let receipt = redis.try_publish("a", &history, draft).await.unwrap();
        assert_eq!((receipt.position.offset(), receipt.duplicate), (i as u64 + 1, false));
    }
    let read = redis.read_as("a", &history, Since::Earliest, WHOLE).await;
    assert_eq!((read.floor, read.damaged, read.replay.more), (1, 0, false));
    assert_eq!(read.replay.messages.len(), drafts.len());
    for (message, draft) in read.replay.messages.iter().zip(&drafts) {
        assert_eq!((&message.payload, &message.event), (&draft.payload, &draft.event));
        assert!(message.time >= last && message.time.abs_diff(read.now_ms) < 5000);
        last = message.time;
    }
}

#[tokio::test]
async fn the_history_is_bounded_as_it_says() {
    let redis = Fixture::new().await;
    for i in 1..=300 {
        assert_eq!(redis.publish("a", &i.to_string()).await.offset(), i);
    }
    assert_eq!(redis.texts("a", "earliest").await, ["296", "297", "298", "299", "300"]);
    assert_eq!(redis.texts("a", "last:2").await, ["299", "300"]);
    assert!(redis.texts("a", "latest").await.is_empty());
    let kept: u64 = redis.run(&["XLEN", &redis.key("log", "a")]).await;
    assert!(kept <= 5 + 100 + 16, "{kept}");

    let off = History { messages: 0, ..HISTORY };
    let receipt = redis.try_publish("a", &off, &draft("x", None)).await.unwrap();
    assert_eq!(receipt.position.offset(), 301);
    assert!(!redis.run::<bool>(&["EXISTS", &redis.key("log", "a")]).await);
    assert_eq!(redis.gap("a", receipt.position).await, None);

    redis.publish("a", "small").await;
    let large = redis.publish("a", &"x".repeat(101)).await;
    assert!(redis.texts("a", "earliest").await.is_empty());
    assert_eq!(redis.gap("a", large).await, None);
    assert_eq!(redis.gap("a", receipt.position).await, Some(GapReason::Trimmed));
}

#[tokio::test]
async fn offsets_and_sizes_are_exact_as_far_as_lua_can_count() {
    let redis = Fixture::new().await;
    redis.publish("a", "1").await;
    // Top and total are the second and third field of meta.
    const FAR: u64 = (1 << 53) - 100;
    let script = "local t = redis.call('GET', KEYS[1]) \
                  redis.call('DEL', KEYS[2]) \
                  local far = struct.pack('>I8I8', ARGV[1], ARGV[1] - 1000) \
                  return redis.call('SET', KEYS[1], t:sub(1, 1) .. far .. t:sub(18))";
    let (meta, log) = (redis.key("meta", "a"), redis.key("log", "a"));
    redis.run::<()>(&["EVAL", script, "2", &meta, &log, &FAR.to_string()]).await;
    let mut last = None;
    for i in 1..=40 {
        let at = redis.publish("a", "123").await;
        assert_eq!(at.offset(), FAR + i);
        if let Some(last) = last.replace(at) {
            assert_eq!(redis.gap("a", last).await, None);
        }
    }
    let read = redis.read_as("a", &HISTORY, Since::Earliest, Page { messages: 3, bytes: 7 }).await;
    let offsets: Vec<u64> = read.replay.messages.iter().map(|message| message.offset).collect();
    assert_eq!((read.floor, offsets, read.replay.more), (FAR + 36, vec![FAR + 36, FAR + 37], true));
    redis.fail_over().await;
    let gap = redis.read("a", &last.unwrap().to_string()).await.start.gap.unwrap();
    assert_eq!((gap.reason, gap.to.offset()), (GapReason::Failover, FAR + 40));
}

#[tokio::test]
async fn keys_outlive_what_they_hold_by_what_is_promised() {
    let redis = Fixture::new().await;
    let short = History { age: Duration::from_millis(300), ..HISTORY };
    let first = redis.try_publish("a", &short, &draft("1", Some("k"))).await.unwrap().position;
    let ttl = async |key: &str| redis.run::<i64>(&["PTTL", key]).await;
    assert!((1..=300).contains(&ttl(&redis.key("log", "a")).await));
    assert!((86_399_000..=86_400_300).contains(&ttl(&redis.key("meta", "a")).await));
    let idem = format!("{}/k", redis.key("meta", "a").replace("meta", "idem"));
    assert!((299_000..=300_000).contains(&ttl(&idem).await));
    tokio::time::sleep(Duration::from_millis(350)).await;
    assert!(!redis.run::<bool>(&["EXISTS", &redis.key("log", "a")]).await);
    let read = redis.read_as("a", &short, Since::Position(first), WHOLE).await;
    assert_eq!((read.floor, read.replay.start.gap), (2, None));
    let second = redis.try_publish("a", &short, &draft("2", None)).await.unwrap().position;
    assert_eq!(second.offset(), 2);
    let read = redis.read_as("a", &short, Since::Earliest, WHOLE).await;
    assert_eq!((read.floor, read.replay.messages.len()), (2, 1));
}

#[tokio::test]
async fn a_key_gives_its_first_receipt_in_its_channel() {
    let redis = Fixture::new().await;
    let first = redis.keyed("a", "x", "k").await.unwrap();
    let again = redis.keyed("a", "x", "k").await.unwrap();
    assert_eq!((again.position, again.duplicate), (first.position, true));
    let reused = redis.keyed("a", "y", "k").await.unwrap_err();
    assert!(reused.to_string().starts_with("TGKEYREUSED"), "{reused}");
    assert!(!redis.keyed("b", "y", "k").await.unwrap().duplicate);
    assert_eq!(redis.texts("a", "earliest").await, ["x"]);
    // Not even after a failover.
    redis.fail_over().await;
    assert!(redis.keyed("a", "x", "k").await.unwrap().duplicate);
    // What cannot be read is no key.
    let partition = redis.functions.names.partition(&channel("a"));
    let key = redis.functions.names.idempotency(partition, &channel("a"), &"k".parse().unwrap());
    let key = std::str::from_utf8(&key).unwrap();
    redis.run::<()>(&["SET", key, "garbage"]).await;
    assert!(!redis.keyed("a", "x", "k").await.unwrap().duplicate);
    redis.run::<()>(&["DEL", key]).await;
    redis.run::<()>(&["RPUSH", key, "garbage"]).await;
    assert!(!redis.keyed("a", "x", "k").await.unwrap().duplicate);
}

#[tokio::test]
async fn another_server_begins_an_epoch_and_four_are_remembered() {
    let redis = Fixture::new().await;
    let mut seen = Vec::new();
    for i in 1..=6 {
        seen.push(redis.publish("a", &i.to_string()).await);
        redis.fail_over().await;
    }
    // Reads pass the fence too, and all of them say the same.
    let top = redis.read("a", "latest").await.top;
    let tops = redis.functions.tops(&redis.link, Partition(0), &[]).await.unwrap();
    assert!(tops.is_empty());
    assert_eq!(redis.read("a", "latest").await.top, top);
    let epochs: std::collections::HashSet<_> = seen.iter().map(|at| at.to_string()[..8].to_owned()).collect();
    assert_eq!(epochs.len(), 6);
    for (i, at) in seen.iter().enumerate() {
        let replay = redis.read("a", &at.to_string()).await;
        let gap = replay.start.gap.unwrap();
        let texts: Vec<_> = replay.messages.iter().map(|m| m.payload.as_str().parse().unwrap()).collect();
        assert!(replay.messages.iter().all(|m| m.position().to_string()[..8] == top.to_string()[..8]));
        if i < 2 {
            assert_eq!((gap.reason, texts), (GapReason::Reset, vec![2, 3, 4, 5, 6]));
        } else {
            assert_eq!((gap.reason, gap.to.offset()), (GapReason::Failover, i as u64 + 1));
            assert_eq!(texts, (i + 2..=6).collect::<Vec<usize>>());
        }
    }
    assert_eq!(redis.publish("a", "7").await.offset(), 7);
    assert_eq!(redis.gap("a", top).await, None);
}

#[tokio::test]
async fn a_lost_tail_is_told_though_its_offsets_are_used_again() {
    let redis = Fixture::new().await;
    redis.publish("a", "1").await;
    let meta: Vec<u8> = redis.redis.clone().get(redis.key("meta", "a")).await.unwrap();
    let two = redis.publish("a", "2").await;
    let three = redis.publish("a", "3").await;
    // The replica that is promoted has the first message only.
    redis.redis.clone().set::<_, _, ()>(redis.key("meta", "a"), meta).await.unwrap();
    redis.run::<()>(&["XDEL", &redis.key("log", "a"), "2-0", "3-0"]).await;
    redis.run::<()>(&["XSETID", &redis.key("log", "a"), "1-0"]).await;
    redis.fail_over().await;
    for i in 2..=4 {
        assert_eq!(redis.publish("a", &format!("new {i}")).await.offset(), i);
    }
    for position in [two, three] {
        assert_eq!(redis.gap("a", position).await, Some(GapReason::Failover));
        assert_eq!(redis.texts("a", &position.to_string()).await, ["new 2", "new 3", "new 4"]);
    }
}

#[tokio::test]
async fn a_delete_keeps_the_counting_and_is_told() {
    let redis = Fixture::new().await;
    let name = channel("a");
    redis.functions.forget(&redis.link, &name).await.unwrap();
    let first = redis.publish("a", "1").await;
    let second = redis.publish("a", "2").await;
    redis.functions.forget(&redis.link, &name).await.unwrap();
    assert_eq!(redis.gap("a", first).await, Some(GapReason::Deleted));
    assert_eq!(redis.gap("a", second).await, None);
    assert_eq!(redis.publish("a", "3").await.offset(), 3);
    assert_eq!(redis.gap("a", first).await, Some(GapReason::Deleted));
    assert_eq!(redis.texts("a", &first.to_string()).await, ["3"]);
}

#[tokio::test]
async fn a_page_has_one_message_however_large_and_says_whether_more_follow() {
    let redis = Fixture::new().await;
    for text in ["12345", "6", "7"] {
        redis.publish("a", text).await;
    }
    let read = async |since: Since, messages, bytes| {
        let replay = redis.read_as("a", &HISTORY, since, Page { messages, bytes }).await.replay;
        (replay.messages.len(), replay.more)
    };
    assert_eq!(read(Since::Earliest, 10, 1).await, (1, true));
    assert_eq!(read(Since::Earliest, 10, 6).await, (2, true));
    assert_eq!(read(Since::Earliest, 10, 7).await, (3, false));
    assert_eq!(read(Since::Earliest, 2, 100).await, (2, true));
    assert_eq!(read(Since::Last(NonZeroU64::MIN), 1, 0).await, (1, false));
    assert_eq!(read(Since::Latest, 1, 0).await, (0, false));
}

#[tokio::test]
async fn an_empty_channels_second_is_complete_unless_redis_may_have_lost_something() {
    let mut redis = Fixture::new().await;
    // Nobody opened the partition yet: nothing is vouched for, and reading makes no key.
    let before = redis.read("a", "latest").await.top;
    assert!(redis.run::<Vec<String>>(&["KEYS", "*"]).await.is_empty());
    let partition = redis.functions.names.partition(&channel("a"));
    let opened = redis.functions.open(&redis.link, partition).await.unwrap();
    let empty = redis.read("a", "latest").await.top;
    assert!(matches!(empty, Position::Empty(second) if second >= opened.born));
    assert!(matches!(before, Position::Empty(second) if second <= opened.born));
    assert_eq!(redis.gap("a", Position::Empty(opened.born - 1)).await, Some(GapReason::Expired));
    redis.publish("a", "1").await;
    assert_eq!(redis.gap("a", empty).await, None);
    assert_eq!(redis.texts("a", &empty.to_string()).await, ["1"]);
    assert_eq!(redis.gap("a", Position::Empty(opened.born - 1)).await, Some(GapReason::Expired));

    // Restarted empty: the second from before is not vouched for, whether or not there is a message again.
    let partition = redis.functions.names.partition(&channel("b"));
    redis.functions.open(&redis.link, partition).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let empty = redis.read("b", "latest").await.top;
    redis.server.restart(&[]);
    redis.redis = redis.server.redis().await;
    redis.link = redis.server.link(None).await;
    redis.functions.load(&redis.link).await.unwrap();
    assert_eq!(redis.gap("b", empty).await, Some(GapReason::Expired));
    redis.publish("b", "1").await;
    assert_eq!(redis.gap("b", empty).await, Some(GapReason::Expired));

    // A failover may have lost the first message, and so may an eviction.
    let unopened = redis.read("c", "latest").await.top;
    let partition = redis.functions.names.partition(&channel("c"));
    tokio::time::sleep(Duration::from_millis(1100)).await;
    assert_eq!(redis.gap("c", unopened).await, Some(GapReason::Expired));
    redis.functions.open(&redis.link, partition).await.unwrap();
    tokio::time::sleep(Duration::from_millis(1100)).await;
    let empty = redis.read("c", "latest").await.top;
    assert_eq!(redis.gap("c", empty).await, None);
    redis.fail_over().await;
    assert_eq!(redis.gap("c", empty).await, Some(GapReason::Expired));
    tokio::time::sleep(Duration::from_millis(2100)).await;
    let empty = redis.read("c", "latest").await.top;
    assert_eq!(redis.gap("c", empty).await, None);
    let state = redis.key("state", "c");
    let text: String = redis.run(&["GET", &state]).await;
    redis.run::<()>(&["SET", &state, &text.replace(" 0", " 7")]).await;
    assert_eq!(redis.gap("c", empty).await, Some(GapReason::Expired));
    assert_eq!(redis.read("c", "latest").await.start.gap, None);
}

#[tokio::test]
async fn tops_say_what_is_known_without_reading() {
    let redis = Fixture::new().await;
    let same: Vec<Channel> = {
        let names = &redis.functions.names;
        let partition = names.partition(&channel("c0"));
        let all = (0..).map(|i| channel(&format!("c{i}")));
        all.filter(|c| names.partition(c) == partition).take(3).collect()
    };
    let partition = redis.functions.names.partition(&same[0]);
    let at = redis.publish(same[1].as_str(), "1").await;
    let seen = redis.functions.tops(&redis.link, partition, &same).await.unwrap();
    assert_eq!(seen.len(), 3);
    assert_eq!((seen[0].top, seen[2].top), (None, None));
    assert!(seen[0].vouch_from <= seen[0].second + 1);
    assert_eq!(seen[1].top.map(|(epoch, top)| Position::At(epoch, top)), Some(at));
    redis.fail_over().await;
    let after = redis.functions.tops(&redis.link, partition, &same).await.unwrap();
    let (epoch, top) = after[1].top.unwrap();
    assert_ne!(Position::At(epoch, top), at);
    assert_eq!(redis.read(same[1].as_str(), "latest").await.top, Position::At(epoch, 1));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn publishers_at_once_get_offsets_without_holes_and_pubsub_has_their_order() {
    let redis = Fixture::new().await;
    let history = History { messages: 100_000, bytes: 100_000_000, age: Duration::from_secs(600) };
    let live = redis.functions.names.live(redis.functions.names.partition(&channel("a")), &channel("a"));
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", redis.server.port)).unwrap();
    let mut pubsub = client.get_async_pubsub().await.unwrap();
    pubsub.subscribe(&live[..]).await.unwrap();
    let functions = std::sync::Arc::new(Functions::new(redis.functions.names.clone(), false));
    let mut tasks = tokio::task::JoinSet::new();
    for task in 0..20 {
        let (functions, link, history) = (functions.clone(), redis.link.clone(), history);
        tasks.spawn(async move {
            for i in 0..500 {
                let draft = draft(&format!("{task} {i}"), None);
                functions.publish(&link, &channel("a"), &history, &draft).await.unwrap();
            }
        });
    }
    let heard = tokio::spawn(async move {
        let mut stream = pubsub.into_on_message();
        let mut payloads = Vec::new();
        while payloads.len() < 10_000 {
            let message = std::future::poll_fn(|context| {
                futures_util::Stream::poll_next(std::pin::Pin::new(&mut stream), context)
            });
            payloads.push(Bytes::from(message.await.unwrap().get_payload::<Vec<u8>>().unwrap()));
        }
        payloads
    });
    tasks.join_all().await;
    let heard = tokio::time::timeout(Duration::from_secs(20), heard).await.unwrap().unwrap();
    let read = redis.read_as("a", &history, Since::Earliest, WHOLE).await;
    assert_eq!((read.replay.messages.len(), read.damaged), (10_000, 0));
    let mut next = std::collections::HashMap::new();
    for (i, (message, heard)) in read.replay.messages.iter().zip(heard).enumerate() {
        let heard = crate::wire::envelope::decode(heard).unwrap();
        assert_eq!((message.offset, heard.floor), (i as u64 + 1, 1));
        assert_eq!(**message, heard.into_publication(&channel("a")));
        let (task, number) = message.payload.as_str().split_once(' ').unwrap();
        let next: &mut u64 = next.entry(task.to_owned()).or_default();
        assert_eq!(number.parse(), Ok(*next));
        *next += 1;
    }
}

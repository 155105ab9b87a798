//! Where it runs: as a script, in a Cluster, for users who may do less; and what is asked beside messages.

use super::{server::Server, *};

#[tokio::test]
async fn where_functions_are_refused_it_runs_as_a_script() {
    let redis = Fixture::new().await;
    let flushed = async |scripts: bool| {
        let command = if scripts { "SCRIPT" } else { "FUNCTION" };
        redis.run::<()>(&[command, "FLUSH"]).await;
        let refused = redis.try_publish("a", &HISTORY, &draft("x", None)).await;
        assert_eq!(refused, Err(CommandError::NoFunction));
    };
    flushed(false).await;
    assert_eq!(redis.functions.load(&redis.link).await, Ok(Loaded::Functions));
    let first = redis.publish("a", "1").await;

    redis
        .run::<()>(&["ACL", "SETUSER", "limited", "on", ">pw", "~*", "&*", "+@all", "-function", "-fcall"])
        .await;
    let limited = Fixture {
        redis: redis.server.redis().await,
        link: redis.server.link(Some(("limited", "pw"))).await,
        functions: Functions::new(redis.functions.names.clone(), false),
        server: Server::start(&[]),
    };
    assert_eq!(limited.functions.load(&limited.link).await, Ok(Loaded::Scripts));
    let second = limited.publish("a", "2").await;
    assert_eq!(second.offset(), 2);
    assert_eq!(limited.texts("a", &first.to_string()).await, ["2"]);
    assert_eq!(limited.gap("a", first).await, None);
    assert!(limited.keyed("a", "x", "k").await.is_ok());
    assert!(limited.keyed("a", "x", "k").await.unwrap().duplicate);
    limited.functions.forget(&limited.link, &channel("a")).await.unwrap();
    redis.run::<()>(&["SCRIPT", "FLUSH"]).await;
    let refused = limited.try_publish("a", &HISTORY, &draft("x", None)).await;
    assert_eq!(refused, Err(CommandError::NoFunction));
    assert_eq!(limited.functions.load(&limited.link).await, Ok(Loaded::Scripts));
    assert_eq!(limited.publish("a", "4").await.offset(), 4);

    redis.run::<()>(&["ACL", "SETUSER", "barred", "on", ">pw", "~*", "&*", "+@all", "-@scripting"]).await;
    let barred = redis.server.link(Some(("barred", "pw"))).await;
    assert!(matches!(limited.functions.load(&barred).await, Err(CommandError::Denied(_))));
}

#[tokio::test]
async fn who_may_not_ask_for_the_servers_identity_has_no_fence() {
    let redis = Fixture::new().await;
    redis.run::<()>(&["ACL", "SETUSER", "limited", "on", ">pw", "~*", "&*", "+@all", "-info"]).await;
    let link = redis.server.link(Some(("limited", "pw"))).await;
    let publish = async |text: &str| {
        let draft = draft(text, None);
        redis.functions.publish(&link, &channel("a"), &HISTORY, &draft).await.unwrap().position
    };
    tokio::time::sleep(Duration::from_millis(15)).await;
    let partition = redis.functions.names.partition(&channel("a"));
    let probed = redis.functions.probe(&link, partition, &"x".into(), "1").await.unwrap();
    assert_eq!(probed.identity, "");
    let first = publish("1").await;
    redis.fail_over().await;
    publish("2").await;
    // One who may ask only learns it now.
    assert_eq!(redis.gap("a", first).await, None);
    assert_eq!(redis.texts("a", &first.to_string()).await, ["2"]);
    redis.fail_over().await;
    publish("3").await;
    assert_eq!(redis.gap("a", first).await, Some(GapReason::Failover));
}

#[tokio::test]
async fn in_a_cluster_keys_and_channels_share_a_slot() {
    let redis = Fixture::with(&["--cluster-enabled", "yes"]).await;
    redis.run::<()>(&["CLUSTER", "ADDSLOTSRANGE", "0", "16383"]).await;
    for _ in 0..500 {
        if redis.run::<String>(&["CLUSTER", "INFO"]).await.contains("cluster_state:ok") {
            break;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    for name in ["a", "orders:42", "x.y~z@-"] {
        let partition = redis.functions.names.partition(&channel(name));
        let slot: u16 = redis.run(&["CLUSTER", "KEYSLOT", &redis.key("meta", name)]).await;
        assert_eq!(redis.functions.names.slot(partition), slot);
        let first = redis.publish(name, "1").await;
        assert!(redis.keyed(name, "2", "k").await.is_ok());
        assert_eq!(redis.texts(name, &first.to_string()).await, ["2"]);
        let seen = redis.functions.tops(&redis.link, partition, &[channel(name)]).await.unwrap();
        assert_eq!(seen[0].top.unwrap().1, 2);
        redis.functions.open(&redis.link, partition).await.unwrap();
        let probe = redis.functions.names.probe(partition, "n1");
        assert!(redis.functions.probe(&redis.link, partition, &probe, "1").await.unwrap().has_state);
        let listed = redis.functions.list(&redis.link, partition, "", None, 10).await.unwrap();
        assert_eq!(listed, [channel(name)]);
        redis
            .functions
            .count(&redis.link, partition, "n1", Duration::from_secs(1), &[(channel(name), 3)])
            .await
            .unwrap();
        redis.functions.forget(&redis.link, &channel(name)).await.unwrap();
    }
    redis.functions.format(&redis.link).await.unwrap();
}

#[tokio::test]
async fn a_probe_says_whether_the_state_is_there_and_who_answers() {
    let redis = Fixture::new().await;
    let partition = Partition(3);
    let probe = redis.functions.names.probe(partition, "n1");
    let client = redis::Client::open(format!("redis://127.0.0.1:{}", redis.server.port)).unwrap();
    let mut pubsub = client.get_async_pubsub().await.unwrap();
    pubsub.subscribe(&probe[..]).await.unwrap();
    let send = async || redis.functions.probe(&redis.link, partition, &probe, "life 7").await.unwrap();
    let first = send().await;
    assert_eq!((first.has_state, first.receivers, first.identity.len()), (false, 1, 40));
    let mut stream = pubsub.into_on_message();
    let message = std::future::poll_fn(|context| {
        futures_util::Stream::poll_next(std::pin::Pin::new(&mut stream), context)
    });
    let text: String = message.await.unwrap().get_payload().unwrap();
    assert_eq!(text, format!("{} life 7", first.now_ms));
    let opened = redis.functions.open(&redis.link, partition).await.unwrap();
    let second = send().await;
    assert!(second.has_state && second.second >= opened.born && second.identity == first.identity);
    assert_eq!(redis.functions.open(&redis.link, partition).await.unwrap().born, opened.born);
    redis.fail_over().await;
    assert_ne!(send().await.identity, first.identity);
    redis.run::<()>(&["FLUSHALL"]).await;
    assert!(!send().await.has_state);
}

#[tokio::test]
async fn names_are_listed_in_order_and_those_without_messages_are_let_go() {
    let redis = Fixture::new().await;
    let partition = Partition(0);
    let names = Names::new("tidegate", 1, 0);
    let functions = Functions::new(names.clone(), false);
    let short = History { age: Duration::from_millis(50), ..HISTORY };
    for name in ["b:2", "a", "b:1", "b:3", "c", "gone", "B"] {
        functions.publish(&redis.link, &channel(name), &HISTORY, &draft("x", None)).await.unwrap();
    }
    functions.publish(&redis.link, &channel("b:old"), &short, &draft("x", None)).await.unwrap();
    functions.forget(&redis.link, &channel("gone")).await.unwrap();
    tokio::time::sleep(Duration::from_millis(60)).await;
    let list = async |prefix: &str, after: Option<&str>, limit| {
        let page = functions.list(&redis.link, partition, prefix, after, limit).await.unwrap();
        page.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(list("", None, 10).await, "B a b:1 b:2 b:3 c");
    assert_eq!(list("", None, 2).await, "B a");
    assert_eq!(list("", Some("a"), 4).await, "b:1 b:2 b:3 c");
    assert_eq!(list("b:", Some("b:1"), 1).await, "b:2");
    assert_eq!(list("b:", Some("a"), 5).await, "b:1 b:2 b:3");
    assert_eq!(list("b:", Some("b:3"), 5).await, "");
    assert_eq!(list("z", None, 1).await, "");
    assert_eq!(redis.run::<u64>(&["ZCARD", "tidegate:{0}:names"]).await, 6);
    // Many that are gone do not end the list, and names that are none are skipped.
    for chunk in (0..5000).collect::<Vec<_>>().chunks(500) {
        let mut words = vec!["ZADD".to_owned(), "tidegate:{0}:names".to_owned()];
        words.extend(chunk.iter().flat_map(|i| ["0".to_owned(), format!("b:2dead{i}")]));
        redis.run::<()>(&words.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
    assert_eq!(list("", None, 10).await, "B a b:1 b:2 b:3 c");
    assert_eq!(redis.run::<u64>(&["ZCARD", "tidegate:{0}:names"]).await, 6);
    // What fell out of the list comes back while it is in use.
    redis.run::<()>(&["DEL", "tidegate:{0}:names"]).await;
    for _ in 0..64 {
        functions.publish(&redis.link, &channel("a"), &HISTORY, &draft("x", None)).await.unwrap();
    }
    assert_eq!(list("", None, 10).await, "a");
}

#[tokio::test]
async fn figures_of_other_nodes_count_while_they_are_renewed() {
    let redis = Fixture::new().await;
    let lease = Duration::from_millis(400);
    let name = channel("a");
    let partition = redis.functions.names.partition(&name);
    let count = async |node: &str, n: usize| {
        redis.functions.count(&redis.link, partition, node, lease, &[(name.clone(), n)]).await.unwrap();
    };
    let counted = async |node: &str| redis.functions.counted(&redis.link, &name, node, lease).await.unwrap();
    assert_eq!(counted("n1").await, (0, 0));
    count("n1", 5).await;
    count("n2", 7).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    let (others, age) = counted("n1").await;
    assert!(others == 7 && (50..400).contains(&age), "{others} {age}");
    assert_eq!(counted("n3").await.0, 12);
    count("n2", 0).await;
    assert_eq!(counted("n1").await, (0, 0));
    tokio::time::sleep(Duration::from_millis(200)).await;
    count("n3", 1).await;
    tokio::time::sleep(Duration::from_millis(250)).await;
    assert_eq!(counted("").await.0, 1, "n1 was not renewed");
    count("n4", 2).await;
    let key = redis.key("subs", "a");
    assert_eq!(redis.run::<u64>(&["HLEN", &key]).await, 2, "n1 is cleaned away");
    tokio::time::sleep(Duration::from_millis(450)).await;
    assert!(!redis.run::<bool>(&["EXISTS", &key]).await);
}

#[tokio::test]
async fn the_format_is_that_of_the_first() {
    let redis = Fixture::new().await;
    let held = redis.functions.format(&redis.link).await.unwrap();
    assert_eq!((held.partitions, held.is_readable()), (256, true));
    let other = Functions::new(Names::new("tidegate", 16, 0), false);
    assert_eq!(other.format(&redis.link).await, Ok(held));
    redis.run::<()>(&["SET", "tidegate:{0}:format", "256 2"]).await;
    assert!(redis.functions.format(&redis.link).await.unwrap().is_readable(), "one version forward");
    redis.run::<()>(&["SET", "tidegate:{0}:format", "256 3"]).await;
    assert!(!redis.functions.format(&redis.link).await.unwrap().is_readable());
    redis.run::<()>(&["SET", "tidegate:{0}:format", "x"]).await;
    let error = redis.functions.format(&redis.link).await.unwrap_err();
    assert!(error.to_string().starts_with("TGFORMAT"), "{error}");
}

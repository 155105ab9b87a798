//! Other programs on the same Redis: junk on our channels, and plain channels that we serve as they are.

use ::redis::RedisResult;

use crate::redis::table::{prefix, standalone, until_ready};
use crate::support::gateway::Builder;
use crate::support::objects::split_position;
use crate::support::proxy::{Class, FaultProxy};
use crate::support::raw::{TEXT, frame};
use crate::support::redis::Server;
use crate::support::{Client, Conn, Event, TestGateway, Transport, eventually};

/// What was counted as damaged so far.
async fn junk(gateway: &TestGateway) -> f64 {
    gateway.metric("tidegate_redis_damaged_messages_total", &[]).await
}

async fn over(redis: &Server, more: impl Fn(Builder) -> Builder) -> (TestGateway, String) {
    let prefix = prefix();
    (under(&prefix, redis, more).await, prefix)
}

async fn under(prefix: &str, redis: &Server, more: impl Fn(Builder) -> Builder) -> TestGateway {
    let builder = TestGateway::start()
        .with(&format!("broker.url = '{}'", redis.url()))
        .with(&format!("broker.prefix = '{prefix}'"));
    let gateway = more(builder).run().await;
    until_ready(&gateway).await;
    gateway
}

#[tokio::test]
async fn junk_on_our_own_channels_is_counted_and_skipped() {
    let redis = standalone().await;
    let (gateway, prefix) = over(redis, |builder| builder).await;
    let mut clients = Vec::new();
    for transport in Transport::ALL {
        clients.push(Client::connect(&gateway, transport, "channel=a&since=earliest").await);
    }
    gateway.publish("a", "1").await;
    for client in &mut clients {
        assert_eq!(client.numbers(1).await, [1]);
    }
    let live: Vec<String> = redis.ask(&["PUBSUB", "CHANNELS", &format!("{prefix}:*:a")]).await;
    assert_eq!(live.len(), 1, "one Redis channel for the one that is followed: {live:?}");
    let before = junk(&gateway).await;
    let mut blobs: Vec<Vec<u8>> =
        vec![b"hello".to_vec(), Vec::new(), vec![0], vec![1], vec![1; 40], vec![0xff; 300]];
    // Nearly right: our version, and then nothing that holds.
    blobs.extend(
        (0..200_usize)
            .map(|size| (0..size).map(|byte| if byte == 0 { 1 } else { scrambled(byte * size) }).collect()),
    );
    for blob in &blobs {
        assert_eq!(redis.publish(live[0].as_bytes(), blob).await, 1, "the gateway hears it");
    }
    gateway.publish("a", "2").await;
    for client in &mut clients {
        assert_eq!(client.numbers(1).await, [2], "and nothing of the junk");
    }
    eventually("all of it is counted", async || {
        (junk(&gateway).await - before >= blobs.len() as f64).then_some(())
    })
    .await;
    gateway.finish(clients).await;
}

/// Bytes without a pattern, the same each time.
fn scrambled(seed: usize) -> u8 {
    (seed.wrapping_mul(2_654_435_761) >> 7) as u8
}

#[tokio::test]
async fn junk_in_the_log_is_counted_and_skipped() {
    let redis = standalone().await;
    let (gateway, prefix) = over(redis, |builder| builder).await;
    gateway.publish_numbers("a", 1, 3).await;
    let logs = redis.keys(&format!("{prefix}:*log*")).await;
    assert_eq!(logs.len(), 1, "{logs:?}");
    // Nobody should, and somebody will.
    redis.command(&["XADD", &logs[0], "4-0", "m", "what is this"]).await;
    let mut client = Client::connect(&gateway, Transport::Sse, "channel=a&since=earliest").await;
    assert_eq!(client.numbers(3).await, [1, 2, 3]);
    // Its place is taken: another epoch may begin, but publishing goes on.
    gateway.publish("a", "4").await;
    loop {
        match client.next().await {
            Event::Message(message) => break assert_eq!(message.number(), 4),
            Event::Gap { .. } => {}
            other => panic!("{other:?}"),
        }
    }
    gateway.finish(client).await;
}

/// Calls our function as any client of Redis may: documented in tidegate.lua.
async fn fcall(
    redis: &Server,
    prefix: &str,
    channel: &str,
    key: Option<&str>,
    data: &str,
) -> RedisResult<Vec<String>> {
    let partition = crc32fast::hash(channel.as_bytes()) % 256;
    let name = |rest: &str| format!("{prefix}:{{{partition}}}:{rest}");
    let mut keys =
        vec![name(&format!("meta:{channel}")), name(&format!("log:{channel}")), name("names"), name("state")];
    keys.extend(key.map(|key| name(&format!("idem:{channel}/{key}"))));
    let mut words = vec!["FCALL".to_owned(), "tidegate_1_publish".to_owned(), keys.len().to_string()];
    words.extend(keys);
    words.extend([channel, "0", "P", "1000", "1048576", "600000", "json", "", data].map(str::to_owned));
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    ::redis::from_redis_value(redis.try_command(&words).await?).map_err(Into::into)
}

each_transport! {
    async fn a_function_call_of_another_program_has_the_full_promise(transport) {
        let redis = standalone().await;
        let (gateway, prefix) = over(redis, |builder| builder).await;
        let mut client = Client::connect(&gateway, transport, "channel=a&since=earliest").await;
        let first = fcall(redis, &prefix, "a", None, r#"{"n":1}"#).await.expect("publishes");
        let id = gateway.publish("a", r#"{"n":2}"#).await.id;
        let third = fcall(redis, &prefix, "a", Some("k"), r#"{"n":3}"#).await.expect("publishes");
        let again = fcall(redis, &prefix, "a", Some("k"), r#"{"n":3}"#).await.expect("the same receipt");
        assert_eq!((&first[0], &first[1], &first[3]), (&split_position(&id).0.to_owned(), &"1".to_owned(), &"0".to_owned()));
        assert_eq!((&third[1], &third[3]), (&"3".to_owned(), &"0".to_owned()));
        assert_eq!((&again[1], &again[3]), (&"3".to_owned(), &"1".to_owned()), "a duplicate");
        for (number, message) in (1..).zip(client.messages(3).await) {
            assert_eq!(message.data, Some(format!("{{\"n\":{number}}}")));
        }
        // Kept like any other, and found again from any position.
        let mut back = Client::connect(&gateway, transport, &format!("channel=a&since={id}")).await;
        assert_eq!(back.message().await.id, format!("{}-3", third[0]));
        let other = fcall(redis, &prefix, "a", Some("k"), r#"{"n":4}"#).await;
        assert!(other.is_err_and(|error| error.to_string().contains("TGKEYREUSED")), "another use of the key");
        gateway.finish((client, back)).await;
    }
}

each_transport! {
    async fn a_plain_publish_reaches_the_channel_as_it_is(transport) {
        let redis = standalone().await;
        let name = prefix();
        let namespace = name.clone();
        let (gateway, _) = over(redis, move |builder| {
            builder.namespace(&namespace, "source = 'redis'\nredis_channel = 'app.{channel}'\n")
        }).await;
        let channel = format!("{name}:news");
        let mut client = Client::connect(&gateway, transport, &format!("channel={channel}")).await;
        let there = format!("app.{channel}");
        let sent: [(&[u8], &str); 6] = [
            (b"hello", r#""data":"hello""#),
            (br#"{"a":[1, 2.50]}"#, r#""data":{"a":[1, 2.50]}"#),
            (b"42", r#""data":42"#),
            (b"{not json", r#""data":"{not json""#),
            (&[0xff, 0x00, 0x01], r#""data_base64":"/wAB""#),
            (b"", r#""data":"""#),
        ];
        // A poll is connected only while it is held; the node stays subscribed between two.
        for (payload, _) in &sent {
            assert_eq!(redis.publish(there.as_bytes(), payload).await, 1, "one gateway hears it");
        }
        let mut last = None;
        for (_, wanted) in &sent {
            let message = client.message().await;
            assert!(message.text.contains(wanted), "{wanted} in {}", message.text);
            let (epoch, offset) = split_position(&message.id);
            if let Some((before, count)) = last.replace((epoch.to_owned(), offset)) {
                assert_eq!((epoch, offset), (before.as_str(), count + 1), "counted by the node");
            }
        }
        gateway.finish(client).await;
    }

    async fn a_broken_link_under_a_plain_channel_is_told_as_a_gap(transport) {
        let redis = Server::plain().await;
        let link = FaultProxy::to(redis.address()).await;
        let gateway = TestGateway::start()
            .with(&format!("broker.url = 'redis://{}'", link.address))
            .namespace("news", "source = 'redis'")
            .run()
            .await;
        until_ready(&gateway).await;
        let mut client = Client::connect(&gateway, transport, "channel=news:a").await;
        redis.publish(b"news:a", b"1").await;
        assert_eq!(client.numbers(1).await, [1]);
        link.cut(Class::All);
        // What is said meanwhile is lost, and the first that is heard again follows the gap.
        let said = std::cell::Cell::new(1_u64);
        let speak = async {
            loop {
                said.set(said.get() + 1);
                redis.publish(b"news:a", said.get().to_string().as_bytes()).await;
                tokio::time::sleep(std::time::Duration::from_millis(50)).await;
            }
        };
        let (reason, from, to) = tokio::select! {
            gap = client.gap() => gap,
            () = speak => unreachable!("it never ends"),
        };
        assert_eq!(reason, "link");
        assert_ne!(split_position(&from).0, split_position(&to).0, "a new epoch at each doubt");
        let last = said.get() + 1;
        redis.publish(b"news:a", last.to_string().as_bytes()).await;
        while client.message().await.number() != last {}
        gateway.finish(client).await;
    }

    async fn a_plain_channel_of_another_node_is_the_same_channel(transport) {
        let redis = standalone().await;
        let name = prefix();
        let (first, second) = {
            let namespace = |builder: Builder| builder.namespace(&name, "source = 'redis'");
            (over(redis, namespace).await.0, over(redis, namespace).await.0)
        };
        let channel = format!("{name}:a");
        let mut here = Client::connect(&first, transport, &format!("channel={channel}")).await;
        let mut there = Client::connect(&second, transport, &format!("channel={channel}")).await;
        assert_eq!(redis.publish(channel.as_bytes(), b"1").await, 2, "each gateway that has somebody for it");
        assert_eq!((here.numbers(1).await, there.numbers(1).await), (vec![1], vec![1]));
        // Ids are a node's own: another one cannot vouch for what it did not count.
        let cursor = here.cursor();
        drop(here);
        let mut moved = Client::connect(&second, transport, &format!("channel={channel}&since={cursor}")).await;
        redis.publish(channel.as_bytes(), b"2").await;
        assert_eq!(moved.gap().await.0, "link");
        assert_eq!(there.numbers(1).await, [2]);
        first.finish(()).await;
        second.finish((there, moved)).await;
    }
}

#[tokio::test]
async fn a_plain_channel_takes_no_posts_and_forgets_nothing_on_demand() {
    let redis = standalone().await;
    let (gateway, _) = over(redis, |builder| builder.namespace("news", "source = 'redis'")).await;
    gateway.post("news:a", &[("Content-Type", "application/json")], "1").await.problem(403, "forbidden");
    let answer = gateway.internal("DELETE", "/v1/channels/news:a/messages", &[], None).await;
    answer.problem(403, "forbidden");
    let answer = gateway.batch(&serde_json::json!({"messages": [{"channel": "news:a", "data": 1}]})).await;
    assert_eq!(answer.expect(207).json()["outcomes"][0]["problem"]["code"], "forbidden");
    let conn = Conn::open(gateway.public).await;
    let (mut raw, _) = conn.upgrade("/v1/subscribe?channel=news:a&format=raw", &[]).await.expect("upgraded");
    raw.send(frame(true, TEXT, b"1")).await;
    assert_eq!(raw.close_frame().await, (4403, "forbidden".to_owned()), "it would come back for ever");
    gateway.finish(raw).await;
}

#[tokio::test]
async fn a_plain_message_over_the_limit_is_counted_and_skipped() {
    let redis = standalone().await;
    let name = prefix();
    let (gateway, _) =
        over(redis, |builder| builder.with("limits.message = '1KiB'").namespace(&name, "source = 'redis'"))
            .await;
    let channel = format!("{name}:a");
    let mut client = Client::connect(&gateway, Transport::Ndjson, &format!("channel={channel}")).await;
    redis.publish(channel.as_bytes(), &[b'x'; 1025]).await;
    redis.publish(channel.as_bytes(), &[b'x'; 1024]).await;
    assert_eq!(client.message().await.string().len(), 1024);
    gateway.finish(client).await;
}

#[test]
fn a_plain_namespace_needs_redis() {
    let text = "broker.url = 'memory:'\n[[namespaces]]\nname = 'news'\nsource = 'redis'\n";
    let Err(error) = tidegate::config::Config::from_toml(text) else { panic!("taken") };
    let said = error.to_string();
    assert!(said.contains("source") && said.contains("memory"), "{said}");
}

#[tokio::test]
async fn a_message_over_the_limit_of_this_gateway_is_delivered_all_the_same() {
    let redis = standalone().await;
    let prefix = prefix();
    // As in the middle of a rolling change of the limit.
    let (large, small) = (
        under(&prefix, redis, |builder| builder.with("limits.message = '1MiB'")).await,
        under(&prefix, redis, |builder| builder.with("limits.message = '1KiB'")).await,
    );
    let mut clients = Vec::new();
    for transport in Transport::ALL {
        clients.push(Client::connect(&small, transport, "channel=a&since=earliest").await);
    }
    large.publish("a", "1").await;
    for client in &mut clients {
        assert_eq!(client.numbers(1).await, [1]);
    }
    large.publish("a", format!("{{\"n\":\"{}\"}}", "x".repeat(100_000))).await;
    // Nothing comes after it that would show that it is missing.
    for client in &mut clients {
        assert!(client.message().await.text.len() > 100_000);
    }
    large.finish(()).await;
    small.finish(clients).await;
}

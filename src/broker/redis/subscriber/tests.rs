//! The subscriber against real servers: confirmations, slots that leave, floods, large messages, sudden ends.

use std::time::{Duration, Instant};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::{sleep, timeout},
};

use super::*;
use crate::broker::redis::tests::{LIMIT, Redis, cluster, endpoint};

async fn subscriber(redis: &Redis) -> (SubscriberHandle, SubscriberStream) {
    Subscriber::connect(&endpoint(&redis.url(), ""), &redis.server(), LIMIT).await.unwrap()
}

async fn next(stream: &mut SubscriberStream) -> Push {
    timeout(Duration::from_secs(10), stream.next()).await.unwrap().unwrap().unwrap()
}

fn names(names: &[&str]) -> Vec<Bytes> {
    names.iter().map(|name| Bytes::copy_from_slice(name.as_bytes())).collect()
}

fn message(channel: &str, payload: impl Into<Bytes>, sharded: bool) -> Push {
    Push::Message { channel: Bytes::copy_from_slice(channel.as_bytes()), payload: payload.into(), sharded }
}

fn subscribed(channel: &str, sharded: bool) -> Push {
    Push::Subscribed { channel: Bytes::copy_from_slice(channel.as_bytes()), sharded }
}

fn unsubscribed(channel: &str, sharded: bool) -> Push {
    Push::Unsubscribed { channel: Bytes::copy_from_slice(channel.as_bytes()), sharded }
}

#[tokio::test]
async fn names_are_confirmed_one_by_one_in_their_place() {
    let redis = Redis::start(&[]);
    let (handle, mut stream) = subscriber(&redis).await;
    assert!(redis.cli(&["CLIENT", "LIST"]).contains("name=tidegate"));
    handle.subscribe(&names(&["a", "b"]));
    handle.ssubscribe(&names(&["c"]));
    handle.ping();
    for expected in [subscribed("a", false), subscribed("b", false), subscribed("c", true), Push::Pong] {
        assert_eq!(next(&mut stream).await, expected);
    }
    redis.cli(&["PUBLISH", "b", "1"]);
    redis.cli(&["SPUBLISH", "c", "2"]);
    assert_eq!(next(&mut stream).await, message("b", "1", false));
    assert_eq!(next(&mut stream).await, message("c", "2", true));
    handle.unsubscribe(&names(&["a", "none"]));
    handle.sunsubscribe(&names(&["c"]));
    for expected in [unsubscribed("a", false), unsubscribed("none", false), unsubscribed("c", true)] {
        assert_eq!(next(&mut stream).await, expected);
    }
    // No names are no command: to Redis it would mean all of them.
    handle.unsubscribe(&[]);
    handle.ping();
    assert_eq!(next(&mut stream).await, Push::Pong);
    assert_eq!(redis.cli(&["PUBSUB", "CHANNELS"]), "b");
}

#[tokio::test]
async fn ten_thousand_names_in_a_few_commands() {
    let redis = Redis::start(&[]);
    let (handle, mut stream) = subscriber(&redis).await;
    let all: Vec<Bytes> = (0..10_000).map(|number| format!("channel-{number}").into()).collect();
    let begin = Instant::now();
    for some in all.chunks(40) {
        handle.subscribe(some);
    }
    for name in &all {
        assert_eq!(next(&mut stream).await, Push::Subscribed { channel: name.clone(), sharded: false });
    }
    // A fifth of a second, where nothing else runs.
    assert!(begin.elapsed() < Duration::from_secs(20), "{:?}", begin.elapsed());
}

#[tokio::test]
async fn a_refusal_is_an_event_and_not_the_end() {
    let redis = Redis::start(&[]);
    redis.cli(&["ACL", "SETUSER", "some", "on", ">pass", "+@all", "resetchannels", "&mine*"]);
    let url = format!("redis://some:pass@127.0.0.1:{}", redis.port);
    let (handle, mut stream) =
        Subscriber::connect(&endpoint(&url, ""), &redis.server(), LIMIT).await.unwrap();
    handle.subscribe(&names(&["mine", "other"]));
    handle.subscribe(&names(&["mine"]));
    let refused = next(&mut stream).await;
    assert!(matches!(&refused, Push::Refused(text) if text.starts_with("NOPERM")), "{refused:?}");
    assert_eq!(next(&mut stream).await, subscribed("mine", false));
}

#[tokio::test]
async fn a_slot_that_leaves_unsubscribes_and_refuses() {
    let nodes = cluster(&[]);
    let endpoint = endpoint(&format!("redis-cluster://127.0.0.1:{}", nodes[0].port), "");
    let (handle, mut stream) = Subscriber::connect(&endpoint, &nodes[2].server(), LIMIT).await.unwrap();
    let (other, mut others) = Subscriber::connect(&endpoint, &nodes[0].server(), LIMIT).await.unwrap();
    // The slot of {foo} is 12182, in the last third; that of {bar} is 5061, in the first.
    handle.ssubscribe(&names(&["{foo}a", "{foo}b", "{foo}c"]));
    for name in ["{foo}a", "{foo}b", "{foo}c"] {
        assert_eq!(next(&mut stream).await, subscribed(name, true));
    }
    other.ssubscribe(&names(&["{foo}a", "{foo}b"]));
    let moved = format!("MOVED 12182 127.0.0.1:{}", nodes[2].port);
    assert_eq!(next(&mut others).await, Push::Refused(moved));
    handle.ssubscribe(&names(&["{foo}a", "{bar}b"]));
    let crossed = next(&mut stream).await;
    assert!(matches!(&crossed, Push::Refused(text) if text.starts_with("CROSSSLOT")), "{crossed:?}");

    let id = nodes[0].cli(&["CLUSTER", "MYID"]);
    for node in [&nodes[0], &nodes[2], &nodes[1]] {
        assert_eq!(node.cli(&["CLUSTER", "SETSLOT", "12182", "NODE", &id]), "OK");
    }
    let mut left = Vec::new();
    for _ in 0..3 {
        match next(&mut stream).await {
            Push::Unsubscribed { channel, sharded: true } => left.push(channel),
            other => panic!("{other:?}"),
        }
    }
    left.sort();
    assert_eq!(left, names(&["{foo}a", "{foo}b", "{foo}c"]));
    handle.ssubscribe(&names(&["{foo}a"]));
    let moved = format!("MOVED 12182 127.0.0.1:{}", nodes[0].port);
    assert_eq!(next(&mut stream).await, Push::Refused(moved));
    other.ssubscribe(&names(&["{foo}a"]));
    assert_eq!(next(&mut others).await, subscribed("{foo}a", true));
    nodes[0].cli(&["SPUBLISH", "{foo}a", "x"]);
    assert_eq!(next(&mut others).await, message("{foo}a", "x", true));
}

#[tokio::test]
async fn the_end_of_the_server_is_an_error_and_then_nothing() {
    let mut redis = Redis::start(&[]);
    let (handle, mut stream) = subscriber(&redis).await;
    handle.subscribe(&names(&["a"]));
    next(&mut stream).await;
    redis.kill();
    let end = timeout(Duration::from_millis(500), stream.next()).await.unwrap();
    assert!(end.unwrap().is_err());
    assert!(stream.next().await.is_none());
    assert!(handle.is_closed());
    handle.subscribe(&names(&["b"]));

    redis.restart();
    let (handle, mut stream) = subscriber(&redis).await;
    handle.subscribe(&names(&["a"]));
    next(&mut stream).await;
    assert_eq!(redis.cli(&["CLIENT", "KILL", "TYPE", "pubsub"]), "1");
    assert!(timeout(Duration::from_millis(500), stream.next()).await.unwrap().unwrap().is_err());

    let (handle, mut stream) = subscriber(&redis).await;
    handle.close();
    assert!(timeout(Duration::from_millis(500), stream.next()).await.unwrap().is_none());
    drop((handle, stream));
    sleep(Duration::from_millis(100)).await;
    assert!(!redis.cli(&["CLIENT", "LIST"]).contains("name=tidegate"));
}

#[tokio::test]
async fn a_connection_ends_with_its_last_handle() {
    let redis = Redis::start(&[]);
    let (handle, mut stream) = subscriber(&redis).await;
    drop(handle.clone());
    handle.ping();
    assert_eq!(next(&mut stream).await, Push::Pong);
    drop(handle);
    assert!(timeout(Duration::from_millis(500), stream.next()).await.unwrap().is_none());
}

#[tokio::test]
async fn large_messages_come_whole_and_larger_ones_by_their_size() {
    let redis = Redis::start(&["--client-output-buffer-limit", "pubsub 0 0 0"]);
    let (handle, mut stream) = subscriber(&redis).await;
    handle.subscribe(&names(&["a"]));
    next(&mut stream).await;
    let mut publisher = redis::Client::open(redis.url()).unwrap().get_connection().unwrap();
    let mut publish =
        |payload: Vec<u8>| redis::cmd("PUBLISH").arg("a").arg(payload).exec(&mut publisher).unwrap();
    let million: Vec<u8> = (0..1 << 20).map(|number: u32| (number % 251) as u8).collect();
    // One byte over what is read, a little more, and far more; between them small ones.
    let limit = 4 << 20;
    publish(million.clone());
    publish(vec![1; limit]);
    publish(vec![2; limit + 1]);
    publish(b"small".to_vec());
    publish(vec![3; limit + 2 * FRAME_SLACK]);
    publish(vec![4; 5 * limit]);
    publish(b"last".to_vec());
    let too_large = |size| Push::TooLarge { channel: "a".into(), size };
    for expected in [
        message("a", million, false),
        message("a", vec![1; limit], false),
        too_large(limit + 1),
        message("a", "small", false),
        too_large(limit + 2 * FRAME_SLACK),
        too_large(5 * limit),
        message("a", "last", false),
    ] {
        let event = next(&mut stream).await;
        assert!(event == expected);
        assert!(stream.input.capacity() <= 2 * limit + KEEP, "{}", stream.input.capacity());
    }
    assert!(stream.try_next().is_none());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_burst_waits_in_the_kernel_while_nobody_reads() {
    const COUNT: usize = 200_000;
    let redis = Redis::start(&["--client-output-buffer-limit", "pubsub 0 0 0"]);
    let (handle, mut stream) = subscriber(&redis).await;
    handle.subscribe(&names(&["a"]));
    next(&mut stream).await;
    let url = redis.url();
    let publisher = std::thread::spawn(move || {
        let mut connection = redis::Client::open(url).unwrap().get_connection().unwrap();
        for some in (0..COUNT).collect::<Vec<_>>().chunks(2000) {
            let mut pipeline = redis::pipe();
            for number in some {
                pipeline.cmd("PUBLISH").arg("a").arg(format!("{number:0>100}")).ignore();
            }
            pipeline.exec(&mut connection).unwrap();
        }
    });
    sleep(Duration::from_millis(300)).await;
    let mut number = 0;
    while number < COUNT {
        let mut event = Some(next(&mut stream).await);
        while let Some(push) = event {
            let Push::Message { payload, .. } = push else { panic!("{push:?}") };
            assert_eq!(std::str::from_utf8(&payload).unwrap().parse(), Ok(number));
            number += 1;
            event = stream.try_next().map(Result::unwrap);
        }
    }
    publisher.join().unwrap();
    assert!(stream.input.capacity() <= KEEP, "{}", stream.input.capacity());
}

/// A server that greets, and then does as `rest` says.
async fn impostor(rest: &'static [u8]) -> SubscriberStream {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        let (mut socket, _) = listener.accept().await.unwrap();
        let mut read = [0; 1024];
        assert!(socket.read(&mut read).await.unwrap() > 0);
        let hello = b"%3\r\n$7\r\nversion\r\n$5\r\n7.0.0\r\n$4\r\nmode\r\n$10\r\nstandalone\r\n$4\r\nrole\r\n$6\r\nmaster\r\n";
        socket.write_all(hello).await.unwrap();
        for byte in rest {
            socket.write_all(&[*byte]).await.unwrap();
        }
        socket.shutdown().await.unwrap();
    });
    let endpoint = endpoint(&format!("redis://127.0.0.1:{port}"), "");
    let (handle, stream) =
        Subscriber::connect(&endpoint, &Server::tcp("127.0.0.1", port), LIMIT).await.unwrap();
    // The writer is of no interest here, and must not end the connection.
    std::mem::forget(handle);
    stream
}

#[tokio::test]
async fn a_message_that_is_cut_is_never_delivered() {
    let mut stream = impostor(
        b">3\r\n$7\r\nmessage\r\n$1\r\na\r\n$3\r\none\r\n>3\r\n$7\r\nmessage\r\n$1\r\na\r\n$3\r\ntw",
    )
    .await;
    assert_eq!(next(&mut stream).await, message("a", "one", false));
    assert!(stream.next().await.unwrap().is_err());
    assert!(stream.next().await.is_none());
}

#[tokio::test]
async fn what_is_no_resp_ends_the_connection() {
    let mut stream = impostor(b"HTTP/1.1 400 Bad Request\r\n\r\n").await;
    assert!(stream.next().await.unwrap().is_err());
    assert!(stream.next().await.is_none());
    // Pushes of other features, and answers that nobody waits for, are passed over.
    let mut stream = impostor(
        b">2\r\n$10\r\ninvalidate\r\n*1\r\n$1\r\nk\r\n+OK\r\n:1\r\n_\r\n>1\r\n$7\r\nmessage\r\n+PONG\r\n",
    )
    .await;
    assert_eq!(next(&mut stream).await, Push::Pong);
}

#[test]
fn the_head_of_a_message_is_read_from_its_beginning() {
    let head =
        |input: &[u8]| message_head(input).map(|(channel, size, start)| (channel, size, input.len() - start));
    let whole = b">3\r\n$8\r\nsmessage\r\n$2\r\nab\r\n$99999\r\nxyz";
    assert_eq!(head(whole), Some(("ab".into(), 99_999, 3)));
    for end in 0..whole.len() - 3 {
        assert_eq!(head(&whole[..end]), None, "{end}");
    }
    assert_eq!(head(b">3\r\n$9\r\nsubscribe\r\n$2\r\nab\r\n$99999\r\nxyz"), None);
    assert_eq!(head(b">3\r\n$8\r\nsmessage\r\n$2\r\nab\r\n$99999999999999999999\r\nxyz"), None);
    assert_eq!(head(b">3\r\n$99999999999999999999\r\n"), None);
    assert_eq!(head(b">3\r\n$18446744073709551615\r\nsmessage\r\n"), None);
}

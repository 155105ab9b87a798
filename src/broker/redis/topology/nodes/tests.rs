//! Answers of real servers of several versions, and what is made of them.

use std::collections::HashMap;

use super::*;

fn asked() -> Server {
    Server::tcp("seed.example", 7000)
}

fn tcp(host: &str, port: u16) -> Server {
    Server::tcp(host, port)
}

/// One slot of each third, and two more.
const SLOTS: [u16; 5] = [0, 5461, 16_383, 100, 5798];

/// Redis 7.0.15: three primaries, three replicas, one of which is the successor of a dead primary.
const REDIS_7_0: &str = "\
07c37dfeb235213a872192d90877d0cd55635b91 127.0.0.1:30004@31004,,tls-port=0,shard-id=69bc080733d1355567173199cff4a6a039a2f024 slave e7d1eecce10fd6bb5eb35b9f99a514335d9ba9ca 0 1426238317239 4 connected
67ed2db8d677e59ec4a4cefb06858cf2a1a89fa1 127.0.0.1:30002@31002,,tls-port=0,shard-id=114f6674a35b84949fe567f5dfd41415ee776261 master - 0 1426238316232 2 connected 5461-10922
292f8b365bb7edb5e285caf0b7e6ddc7265d2f4f 127.0.0.1:30003@31003,,tls-port=0,shard-id=fdb36c73e72dd027bc19811b7c219ef6e55c550e master - 0 1426238318243 3 connected 10923-16383
6ec23923021cf3ffec47632106199cb7f496ce01 127.0.0.1:30005@31005 slave 67ed2db8d677e59ec4a4cefb06858cf2a1a89fa1 0 1426238316232 5 connected
e7d1eecce10fd6bb5eb35b9f99a514335d9ba9ca 127.0.0.1:30001@31001,,tls-port=0,shard-id=69bc080733d1355567173199cff4a6a039a2f024 myself,master - 0 0 1 connected 0-5460
";

#[test]
fn a_whole_cluster_is_read() {
    let topology = Nodes::parse(REDIS_7_0, &asked()).topology(&SLOTS, &Slots::default());
    assert_eq!(
        topology,
        Topology {
            sharded: true,
            primaries: vec![tcp("127.0.0.1", 30001), tcp("127.0.0.1", 30002), tcp("127.0.0.1", 30003)],
            owner: vec![0, 1, 2, 0, 1],
            migrating: vec![],
        }
    );
    assert!(topology.is_covered());
}

#[test]
fn older_and_newer_lines_are_read() {
    let lines = "\
a :0 myself,master - 0 0 1 connected
b 10.0.0.2:7000 master - 0 1 2 connected 1 3-4
c 10.0.0.3:7000@17000,node-c.example master - 0 1 3 connected 5
d [fe80::1]:7000@17000,node-d.example,shard-id=x master,nofailover - 0 1 4 connected 6
e fe80::2:7000@17000 master - 0 1 5 connected 7
f 10.0.0.6:7000@17000 master,fail? - 1 1 6 disconnected 8
g 10.0.0.7:7000@17000 master,fail - 1 1 7 disconnected 9
h :0@0 master,noaddr - 0 1 8 disconnected 10
i 10.0.0.9:7000@17000 handshake - 0 0 0 connected
j 10.0.0.9:7000@17000 slave,noaddr b 0 0 0 connected
vars currentEpoch 6 lastVoteEpoch 0

unfinished
";
    let topology =
        Nodes::parse(lines, &asked()).topology(&[1, 2, 3, 4, 5, 6, 7, 8, 9, 10], &Slots::default());
    assert_eq!(
        topology.primaries,
        [
            tcp("10.0.0.2", 7000),
            tcp("10.0.0.3", 7000),
            tcp("fe80::1", 7000),
            tcp("fe80::2", 7000),
            tcp("10.0.0.6", 7000)
        ]
    );
    // A node that only some miss may be back; one that is given up or has no address serves nothing.
    assert_eq!(topology.owner, [0, NONE, 0, 0, 1, 2, 3, 4, NONE, NONE]);
    assert!(!topology.is_covered());
}

#[test]
fn a_node_without_a_host_is_where_it_was_asked() {
    let lines = "\
a :6380@16380 myself,master - 0 0 1 connected 0-9
b :6381@16381 master - 0 0 1 connected 10-19
";
    let topology = Nodes::parse(lines, &asked()).topology(&[0, 10], &Slots::default());
    assert_eq!((topology.primaries, topology.owner), (vec![tcp("seed.example", 6380)], vec![0, NONE]));
}

#[test]
fn slots_that_move_are_known_by_their_node() {
    let lines = "\
a 127.0.0.1:1@2 myself,master - 0 0 1 connected 0-99 [93-<-292f8b365bb7edb5e285caf0b7e6ddc7265d2f4f] [77->-e7d1eecce10fd6bb5eb35b9f99a514335d9ba9ca] [5000->-x] [oops
b 127.0.0.1:3@4 master - 0 0 1 connected 100-16383
";
    let nodes = Nodes::parse(lines, &asked());
    let slots = [77, 1, 93, 77, 5000];
    assert_eq!(nodes.migrating(&slots), [0, 2, 3, 4]);
    assert_eq!(nodes.topology(&slots, &Slots::default()).migrating, [0, 2, 3, 4]);
    assert_eq!(nodes.topology(&slots, &Slots::default()).owner, [0, 0, 0, 0, 1]);
}

fn blob(text: &str) -> BytesFrame {
    BytesFrame::BlobString { data: text.to_owned().into(), attributes: None }
}

fn number(data: i64) -> BytesFrame {
    BytesFrame::Number { data, attributes: None }
}

fn array(data: Vec<BytesFrame>) -> BytesFrame {
    BytesFrame::Array { data, attributes: None }
}

#[test]
fn nodes_are_called_as_they_want_to_be() {
    let node = |host: BytesFrame, port, id| array(vec![host, number(port), blob(id), array(vec![])]);
    let answer = array(vec![
        array(vec![number(0), number(5460), node(blob("a.example"), 1, "a"), node(blob("replica"), 9, "r")]),
        array(vec![number(5461), number(9), node(BytesFrame::Null, 2, "b")]),
        array(vec![number(9), number(9), node(blob("?"), 3, "c")]),
        array(vec![number(9), number(9), node(blob(""), 4, "d")]),
        array(vec![number(9), number(9), node(blob("zero"), 0, "e"), node(blob("large"), 65_536, "f")]),
        array(vec![number(9)]),
        number(1),
    ]);
    let slots = Slots::read(&answer, &asked());
    let expected = [
        ("a", tcp("a.example", 1)),
        ("b", tcp("seed.example", 2)),
        ("c", tcp("seed.example", 3)),
        ("d", tcp("seed.example", 4)),
    ];
    let expected: HashMap<_, _> = expected.into_iter().map(|(id, server)| (id.to_owned(), server)).collect();
    // Port 0 is none: TLS alone, or not known yet.
    assert_eq!(slots.0.get("e"), None);
    assert_eq!(slots, Slots(expected));
    assert_eq!(Slots::read(&blob("?"), &asked()), Slots::default());

    let lines = "a 10.0.0.1:1@2,a.example myself,master - 0 0 1 connected 0\nz 10.0.0.2:1@2 master - 0 0 1 connected 1\n";
    let topology = Nodes::parse(lines, &asked()).topology(&[0, 1], &slots);
    assert_eq!(topology.primaries, [tcp("a.example", 1), tcp("10.0.0.2", 1)]);
}

use std::time::Duration;

use quorate_mysql_wire::{BinlogDumpGtid, ConnectError, DUMP_NON_BLOCK, QueryError};
use tokio::time::timeout;

use super::consumer::{Consumer, Got};
use super::*;

async fn refused(consumer: &mut Consumer) -> ServerError {
    match consumer.next().await {
        Got::Error(error) => error,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn a_consumer_with_more_than_accepted_waits_for_the_barrier_then_gets_1236() {
    let log = FakeLog::new();
    log.append(epoch(1, 1), &source("binlog.000001"), &[insert(1)]);
    let feed = TestFeed::start(&log);
    let mut consumer = Consumer::attach(&feed, &set("1-2")).await;
    let error = refused(&mut consumer).await;
    assert_eq!(error.code, 1236);
    assert!(error.message.contains(&format!("{SERVER}:2")), "{error}");
    assert_eq!(log.barriers(), 1);
    assert_eq!(feed.metrics.refused.get(), 1);
    assert_eq!(feed.metrics.consumers.get(), 0);
}

#[tokio::test]
async fn a_consumer_ahead_of_this_node_is_served_once_the_node_caught_up() {
    let log = FakeLog::new();
    let one = source("binlog.000001");
    log.append(epoch(1, 1), &one, &[insert(1)]);
    log.append_elsewhere(epoch(1, 1), &one, &[insert(2)]);
    log.append_elsewhere(epoch(1, 1), &one, &[insert(3)]);
    log.lose_leader(2);
    let feed = TestFeed::start(&log);
    let mut consumer = Consumer::attach(&feed, &set("1-2")).await;
    assert_eq!(consumer.sequences(1).await, [3]);
    assert_eq!(log.barriers(), 3);
}

#[tokio::test]
async fn a_consumer_within_the_accepted_set_needs_no_leader() {
    let log = FakeLog::new();
    log.append(epoch(1, 1), &source("binlog.000001"), &[insert(1)]);
    log.lose_leader(u32::MAX);
    let feed = TestFeed::start(&log);
    let mut consumer = Consumer::attach(&feed, &set("")).await;
    assert_eq!(consumer.sequences(1).await, [1]);
    assert_eq!(log.barriers(), 0);
}

#[tokio::test]
async fn a_consumer_that_needs_purged_transactions_gets_1236() {
    let log = FakeLog::new();
    let one = source("binlog.000001");
    log.append(epoch(1, 1), &one, &[insert(1)]);
    log.append(epoch(1, 1), &one, &[insert(2)]);
    log.purge_before(2);
    let feed = TestFeed::start(&log);
    let mut consumer = Consumer::attach(&feed, &set("")).await;
    let error = refused(&mut consumer).await;
    assert_eq!(error.code, 1236);
    assert!(error.message.contains("no longer"), "{error}");
    let mut consumer = Consumer::attach(&feed, &set("1")).await;
    assert_eq!(consumer.sequences(1).await, [2]);
}

#[tokio::test]
async fn only_an_account_with_its_password_gets_in() {
    let log = FakeLog::new();
    let feed = TestFeed::start(&log);
    for (user, password) in [
        ("repl", "wrong"),
        ("root", "secret"),
        ("root", ""),
        ("repl", ""),
    ] {
        let options = ConnectOptions {
            user: user.to_owned(),
            password: Secret::new(password.to_owned()),
            ..ConnectOptions::default()
        };
        let Err(ConnectError::Server(error)) =
            Connection::connect(feed.dial(1 << 16), &options).await
        else {
            panic!("{user} got in");
        };
        assert_eq!(error.code, 1045);
    }
    feed.login().await.query("SELECT 1").await.unwrap();
    let printed = format!("{:?}", options());
    assert!(!printed.contains("secret"));
}

/// Logs in without a password by hand, to say what a decent client does not.
async fn raw(feed: &TestFeed) -> PacketStream {
    let mut stream = PacketStream::new(feed.dial(1 << 16), 1 << 20);
    stream.read().await.unwrap();
    // Protocol 4.1, secure connection, authentication by plugins.
    let mut hello = 0x0008_8200_u32.to_le_bytes().to_vec();
    hello.extend_from_slice(&[0, 0, 0, 1, 45]);
    hello.extend_from_slice(&[0; 23]);
    hello.extend_from_slice(b"open\0\0caching_sha2_password\0");
    stream.write(&hello).await.unwrap();
    assert_eq!(stream.read().await.unwrap()[0], 0, "OK");
    stream
}

async fn command(stream: &mut PacketStream, payload: &[u8]) -> Bytes {
    stream.start_command();
    stream.write(payload).await.unwrap();
    stream.read().await.unwrap()
}

fn dump_request(flags: u16, server_id: u32, executed: GtidSet) -> Vec<u8> {
    let request = BinlogDumpGtid {
        flags,
        server_id,
        file: "whatever".to_owned(),
        position: 4,
        executed,
    };
    request.to_payload()
}

/// A dump by position.
fn file_request(file: &str, position: u32, flags: u16) -> Vec<u8> {
    let mut payload = vec![0x12];
    payload.extend_from_slice(&position.to_le_bytes());
    payload.extend_from_slice(&flags.to_le_bytes());
    payload.extend_from_slice(&2_u32.to_le_bytes());
    payload.extend_from_slice(file.as_bytes());
    payload
}

/// The types of the events up to the EOF.
async fn types_to_the_end(stream: &mut PacketStream, first: Bytes) -> Vec<EventType> {
    let mut types = Vec::new();
    let mut packet = first;
    while packet[0] == 0 {
        types.push(EventType(packet[5]));
        packet = stream.read().await.unwrap();
    }
    assert_eq!(packet[0], 0xfe, "{packet:?}");
    types
}

const HEAD: [EventType; 3] = [
    EventType::ROTATE,
    EventType::FORMAT_DESCRIPTION,
    EventType::PREVIOUS_GTIDS,
];
const INSERT: [EventType; 5] = [
    EventType::GTID,
    EventType::QUERY,
    EventType::TABLE_MAP,
    EventType::WRITE_ROWS,
    EventType::XID,
];

#[tokio::test]
async fn a_dump_that_does_not_wait_ends_with_what_is_accepted() {
    let log = FakeLog::new();
    let feed = TestFeed::start(&log);
    let non_block = dump_request(DUMP_NON_BLOCK, 2, GtidSet::new());
    let mut stream = raw(&feed).await;
    let first = command(&mut stream, &non_block).await;
    assert_eq!(types_to_the_end(&mut stream, first).await, HEAD);
    log.append(epoch(1, 1), &source("binlog.000001"), &[insert(1)]);
    let nobody = dump_request(0, 0, GtidSet::new());
    let from_start = [
        non_block,
        nobody,
        file_request("", 4, DUMP_NON_BLOCK),
        file_request(START_FILE, 4, DUMP_NON_BLOCK),
    ];
    for request in from_start {
        let mut stream = raw(&feed).await;
        let first = command(&mut stream, &request).await;
        let expected: Vec<_> = HEAD.into_iter().chain(INSERT).collect();
        assert_eq!(types_to_the_end(&mut stream, first).await, expected);
    }
}

#[tokio::test]
async fn a_dump_from_a_file_and_position_is_told_to_use_gtids() {
    let log = FakeLog::new();
    log.append(epoch(1, 1), &source("binlog.000001"), &[insert(1)]);
    let feed = TestFeed::start(&log);
    let mut stream = raw(&feed).await;
    for (file, position) in [("", 5), (START_FILE, 1000), ("quorate.1-1.000001", 4)] {
        let answer = command(&mut stream, &file_request(file, position, 0)).await;
        let error = ServerError::parse(&answer).unwrap();
        assert_eq!(error.code, 1236);
        assert!(error.message.contains("GTID"), "{error}");
    }
    // The connection goes on.
    assert_eq!(command(&mut stream, b"\x0e").await[0], 0);
}

#[tokio::test]
async fn a_hostile_request_gets_an_error_and_costs_nothing() {
    let log = FakeLog::new();
    let feed = TestFeed::start(&log);
    let mut stream = raw(&feed).await;
    let mut huge_set = dump_request(0, 2, GtidSet::new());
    let len = huge_set.len();
    // As many sources as a u48 can say, and none of them there.
    huge_set[len - 8..].copy_from_slice(&[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0]);
    let mut long_name = dump_request(0, 2, GtidSet::new());
    long_name[7..11].copy_from_slice(&u32::MAX.to_le_bytes());
    let requests = [
        huge_set,
        long_name,
        vec![0x1e],
        vec![0x1e, 0, 0],
        vec![0x12, 4],
        vec![0x15],
    ];
    for request in requests {
        let answer = command(&mut stream, &request).await;
        assert_eq!(ServerError::parse(&answer).unwrap().code, 1835);
    }
    for code in [0x04_u8, 0x11, 0x16, 0xff] {
        let answer = command(&mut stream, &[code]).await;
        assert_eq!(ServerError::parse(&answer).unwrap().code, 1047);
    }
    assert_eq!(command(&mut stream, b"\x0e").await[0], 0);
}

#[tokio::test]
async fn a_consumer_that_leaves_is_noticed_while_idle() {
    let log = FakeLog::new();
    let feed = TestFeed::start(&log);
    let mut consumer = Consumer::attach(&feed, &set("")).await;
    consumer.next().await;
    assert_eq!(feed.metrics.consumers.get(), 1);
    drop(consumer);
    let gone = async {
        while feed.metrics.consumers.get() > 0 {
            tokio::task::yield_now().await;
        }
    };
    timeout(Duration::from_secs(5), gone).await.unwrap();
}

#[tokio::test]
async fn an_unknown_statement_is_an_error_and_the_session_goes_on() {
    let feed = TestFeed::start(&FakeLog::new());
    let mut connection = feed.login().await;
    let Err(QueryError::Server(error)) = connection.query("select $$").await else {
        panic!("no error");
    };
    assert_eq!(error.code, 1064);
    let version = connection.query("select version()").await.unwrap();
    assert_eq!(version.scalar().as_deref(), Some("9.7.4"));
}

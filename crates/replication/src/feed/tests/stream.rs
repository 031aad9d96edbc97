use std::time::Duration;

use quorate_mysql_wire::ChecksumRequest;
use tokio::time::timeout;

use super::consumer::{Consumer, Got, bodies};
use super::*;

#[tokio::test]
async fn every_accepted_transaction_comes_once_and_in_order_from_any_set() {
    let log = FakeLog::new();
    let one = source("binlog.000001");
    log.append(epoch(1, 1), &one, &[insert(1), insert(2)]);
    log.other();
    log.append(epoch(1, 1), &one, &[insert(3)]);
    let feed = TestFeed::start(&log);
    for (executed, expected) in [
        ("", vec![1, 2, 3, 4, 5]),
        ("1", vec![2, 3, 4, 5]),
        ("2", vec![1, 3, 4, 5]),
        ("1-3", vec![4, 5]),
        ("1:3", vec![2, 4, 5]),
    ] {
        let log = log.clone();
        let mut consumer = Consumer::attach(&feed, &set(executed)).await;
        let before = expected.len() - 2;
        if log.accepted().count() == 3 {
            assert_eq!(consumer.sequences(before).await, expected[..before]);
            log.append(epoch(1, 1), &one, &[insert(4)]);
            log.append(epoch(1, 1), &one, &[insert(5)]);
            assert_eq!(consumer.sequences(2).await, expected[before..]);
        } else {
            assert_eq!(consumer.sequences(expected.len()).await, expected);
        }
    }
}

#[tokio::test]
async fn events_are_the_source_s_but_for_position_and_checksum() {
    let log = FakeLog::new();
    let (gtid, events) = insert_of(1, 3000);
    log.append(
        epoch(1, 1),
        &source("binlog.000001"),
        &[(gtid, events.clone())],
    );
    let feed = TestFeed::start(&log);
    for checksum in [ChecksumRequest::AsSource, ChecksumRequest::None] {
        let mut consumer = Consumer::attach_as(&feed, &set(""), checksum, 30_000).await;
        let expected = bodies(events.clone(), ChecksumAlgorithm::Crc32);
        assert_eq!(consumer.transaction().await, (gtid, expected));
    }
}

#[tokio::test]
async fn a_source_without_checksums_is_served_with_them() {
    let log = FakeLog::new();
    let off = ChecksumAlgorithm::Off;
    let events = joined(&builder(off).insert(gtid(1), 1, 1, b"row"));
    log.append(
        epoch(1, 1),
        &source_of("binlog.000001", off),
        &[(gtid(1), events.clone())],
    );
    let feed = TestFeed::start(&log);
    let mut consumer = Consumer::attach(&feed, &set("")).await;
    assert_eq!(consumer.transaction().await, (gtid(1), bodies(events, off)));
}

#[tokio::test]
async fn a_new_virtual_file_begins_with_each_epoch_and_source_file() {
    let log = FakeLog::new();
    let feed = TestFeed::start(&log);
    log.append(epoch(1, 1), &source("binlog.000001"), &[insert(1)]);
    log.append(epoch(1, 1), &source("binlog.000001"), &[insert(2)]);
    log.append(epoch(1, 1), &source("binlog.000002"), &[insert(3)]);
    log.append(epoch(2, 9), &source("binlog.000002"), &[insert(4)]);
    let mut consumer = Consumer::attach(&feed, &set("2")).await;
    assert_eq!(consumer.sequences(3).await, [1, 3, 4]);
    let expected = [
        ("quorate.1-1.000001", "2"),
        ("quorate.1-1.000002", "1-2"),
        ("quorate.2-9.000002", "1-3"),
    ];
    let expected = expected.map(|(name, text)| (name.to_owned(), set(text)));
    assert_eq!(consumer.files, expected);
}

#[tokio::test]
async fn what_is_accepted_leaves_at_once() {
    let log = FakeLog::new();
    let feed = TestFeed::start(&log);
    let mut consumer = Consumer::attach(&feed, &set("")).await;
    for sequence in 1..20 {
        log.append(epoch(1, 1), &source("binlog.000001"), &[insert(sequence)]);
        let next = timeout(Duration::from_secs(5), consumer.sequences(1)).await;
        assert_eq!(next.expect("it waits"), [sequence]);
    }
    assert_eq!(feed.metrics.transactions.get(), 19);
    assert_eq!(feed.metrics.consumers.get(), 1);
}

#[tokio::test]
async fn large_backlogs_come_whole_and_in_order() {
    let log = FakeLog::new();
    for sequence in 1..=40 {
        let transaction = insert_of(sequence, 200_000);
        log.append(epoch(1, 1), &source("binlog.000001"), &[transaction]);
    }
    let feed = TestFeed::start(&log);
    let mut consumer = Consumer::attach(&feed, &set("3")).await;
    let expected: Vec<u64> = (1..=40).filter(|sequence| *sequence != 3).collect();
    assert_eq!(consumer.sequences(39).await, expected);
}

#[tokio::test]
async fn an_idle_stream_has_heartbeats_where_the_consumer_is() {
    let log = FakeLog::new();
    let feed = TestFeed::start(&log);
    let as_source = ChecksumRequest::AsSource;
    let mut consumer = Consumer::attach_as(&feed, &set(""), as_source, 20).await;
    let mut beats = async |file: &str| {
        for _ in 0..3 {
            loop {
                if let Got::Heartbeat(heartbeat) = consumer.next().await {
                    assert_eq!(heartbeat.file, file);
                    break;
                }
            }
        }
    };
    beats(START_FILE).await;
    log.append(epoch(1, 1), &source("binlog.000001"), &[insert(1)]);
    beats("quorate.1-1.000001").await;
}

#[tokio::test]
async fn a_fragmented_transaction_comes_as_one_whatever_its_parts() {
    let (gtid, events) = insert_of(1, 5000);
    for part_bytes in [1, 7, 19, 100, 4096, 1 << 20] {
        let log = FakeLog::new();
        let one = source("binlog.000001");
        log.append_parts(epoch(1, 1), &one, gtid, &events, part_bytes);
        log.append(epoch(1, 1), &one, &[insert(2)]);
        let feed = TestFeed::start(&log);
        for checksum in [ChecksumRequest::AsSource, ChecksumRequest::None] {
            let mut consumer = Consumer::attach_as(&feed, &set(""), checksum, 30_000).await;
            let expected = bodies(events.clone(), ChecksumAlgorithm::Crc32);
            assert_eq!(consumer.transaction().await, (gtid, expected));
            assert_eq!(consumer.sequences(1).await, [2]);
        }
    }
}

#[tokio::test]
async fn no_more_transactions_run_beside_each_other_than_a_replica_has_workers() {
    let builder = builder(ChecksumAlgorithm::Crc32);
    let mut events = builder.insert(gtid(1), 100, 1, b"row");
    // Its source lets it run beside all that come before it.
    events[0] = builder.gtid(gtid(1), 0, 100);
    let mut expected = bodies(joined(&events), ChecksumAlgorithm::Crc32);
    let allowed = builder.gtid(gtid(1), 100 - i64::from(options().parallel_max), 100);
    expected[0] = bodies(allowed, ChecksumAlgorithm::Crc32).remove(0);
    for part_bytes in [1, 30, 50, 1 << 20] {
        let log = FakeLog::new();
        let one = source("binlog.000001");
        log.append_parts(epoch(1, 1), &one, gtid(1), &joined(&events), part_bytes);
        let feed = TestFeed::start(&log);
        // The consumer checks the checksums.
        let mut consumer = Consumer::attach(&feed, &set("")).await;
        assert_eq!(consumer.transaction().await, (gtid(1), expected.clone()));
    }
}

#[tokio::test]
async fn an_event_over_16_mib_crosses_parts_and_packets() {
    let log = FakeLog::new();
    let (gtid, events) = insert_of(1, (33 << 20) + 5);
    let one = source("binlog.000001");
    log.append_parts(epoch(1, 1), &one, gtid, &events, 480 << 10);
    let feed = TestFeed::start(&log);
    let mut consumer = Consumer::attach(&feed, &set("")).await;
    let (found, found_bodies) = consumer.transaction().await;
    assert_eq!(found, gtid);
    assert!(found_bodies == bodies(events, ChecksumAlgorithm::Crc32));
}

#[tokio::test]
async fn a_slow_consumer_slows_nobody() {
    let log = FakeLog::new();
    for sequence in 1..=20 {
        let transaction = insert_of(sequence, 300_000);
        log.append(epoch(1, 1), &source("binlog.000001"), &[transaction]);
    }
    let feed = TestFeed::start(&log);
    // It has more than fits into its connection and reads nothing.
    let mut slow = Consumer::attach(&feed, &set("")).await;
    let mut fast = Consumer::attach(&feed, &set("")).await;
    let expected: Vec<u64> = (1..=20).collect();
    let all = timeout(Duration::from_secs(20), fast.sequences(20)).await;
    assert_eq!(all.expect("it waits for the slow one"), expected);
    assert_eq!(slow.sequences(20).await, expected);
}

#[tokio::test]
async fn damaged_events_never_reach_a_consumer_whole() {
    let log = FakeLog::new();
    let (gtid, events) = insert_of(1, 50);
    let mut damaged = events.to_vec();
    let at = damaged.len() - 60;
    damaged[at] ^= 1;
    log.append(
        epoch(1, 1),
        &source("binlog.000001"),
        &[(gtid, damaged.into())],
    );
    let feed = TestFeed::start(&log);
    let mut consumer = Consumer::attach(&feed, &set("")).await;
    let seen = tokio::spawn(async move { consumer.transaction().await });
    assert!(seen.await.unwrap_err().is_panic(), "the connection ends");
}

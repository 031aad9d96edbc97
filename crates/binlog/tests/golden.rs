//! Real events, from a MySQL 9.7.4 source.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use quorate_binlog::{
    Assembler, ChecksumAlgorithm, Checksummer, Ending, Event, EventType, FormatDescription,
    GtidEvent, Heartbeat, Query, Rotate, Step, previous_gtids, xid,
};

const DUMP: &str = include_str!("../testdata/dump-9.7.hex");

fn raw_events() -> Vec<Bytes> {
    let byte = |pair: &[u8]| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap();
    DUMP.lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.as_bytes().chunks(2).map(byte).collect())
        .collect()
}

fn events() -> Vec<Event> {
    raw_events()
        .into_iter()
        .map(|raw| Event::parse(raw, ChecksumAlgorithm::Crc32).unwrap())
        .collect()
}

fn of(event_type: EventType) -> Vec<Event> {
    let mut events = events();
    events.retain(|event| event.event_type() == event_type);
    events
}

#[test]
fn every_event_of_a_real_dump_has_a_right_checksum() {
    for event in events() {
        assert_eq!(event.verify_checksum(), Ok(()), "{event:?}");
    }
}

#[test]
fn bodies_of_a_real_dump_say_what_the_server_did() {
    let description = of(EventType::FORMAT_DESCRIPTION)[0].bytes().clone();
    let description = FormatDescription::parse(description).unwrap();
    assert_eq!(description.server_version, "9.7.4-2");
    assert_eq!(description.algorithm, ChecksumAlgorithm::Crc32);

    let rotate = Rotate::parse(&of(EventType::ROTATE)[1]).unwrap();
    assert_eq!(
        (rotate.position, rotate.file.as_str()),
        (4, "binlog.000002")
    );

    let set = previous_gtids(&of(EventType::PREVIOUS_GTIDS)[1]).unwrap();
    assert_eq!(set.to_string(), "2afd0cd9-e529-11f1-a6e9-02fc00000001:1-3");

    let gtids = of(EventType::GTID);
    let third = GtidEvent::parse(&gtids[2]).unwrap();
    assert_eq!(
        third.gtid.to_string(),
        "2afd0cd9-e529-11f1-a6e9-02fc00000001:3"
    );
    assert_eq!((third.last_committed, third.sequence_number), (2, 3));
    assert_eq!(third.transaction_length, 278);
    assert!(third.is_original());

    assert_eq!(xid(&of(EventType::XID)[0]), Ok(27));
    let heartbeat = Heartbeat::parse(&of(EventType::HEARTBEAT_V2)[0]).unwrap();
    assert_eq!(
        (heartbeat.position, heartbeat.file.as_str()),
        (745, "binlog.000002")
    );
}

#[test]
fn atomic_ddl_and_account_statements_show_their_xid() {
    let events = of(EventType::QUERY);
    let xids: Vec<_> = events
        .iter()
        .map(|event| Query::parse(event).unwrap().ddl_xid)
        .collect();
    assert_eq!(xids, [Some(0x11), Some(0x17), None, Some(0x0b), Some(0x0c)]);
    let query = Query::parse(&events[0]).unwrap();
    assert_eq!(
        (query.schema, query.text),
        (&b"t"[..], &b"create database if not exists t"[..])
    );
}

#[test]
fn transactions_of_a_real_dump_are_told_apart() {
    let (mut assembler, mut checksummer) = (Assembler::new(), Checksummer::new());
    let mut endings = Vec::new();
    for event in events() {
        match assembler.push(&event).unwrap() {
            Step::Outside => continue,
            Step::Begin(_) | Step::Within => checksummer.update(&event),
            Step::End(ending) => {
                checksummer.update(&event);
                endings.push((ending, checksummer.finish()));
            }
        }
    }
    let kinds: Vec<_> = endings.iter().map(|(ending, _)| *ending).collect();
    use Ending::{Statement, Xid};
    assert_eq!(kinds, [Statement, Statement, Xid, Statement, Statement]);
    assert!(!assembler.in_transaction());
    let mut sums: Vec<_> = endings.iter().map(|(_, sum)| *sum).collect();
    sums.sort_unstable();
    sums.dedup();
    assert_eq!(sums.len(), 5, "checksums tell transactions apart");
}

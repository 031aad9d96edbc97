//! Transactions in a stream of events: where they end, what they hash to, how they are rewritten.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use bytes::Bytes;
use proptest::prelude::*;
use quorate_binlog::build::{Column, EventBuilder};
use quorate_binlog::{
    AssembleError, Assembler, ChecksumAlgorithm, Checksummer, Ending, Event, EventError, EventType,
    FormatDescription, GtidEvent, Heartbeat, Query, Rotate, Step, XaPrepare, empty_checksum,
    empty_transaction, fake_rotate, heartbeat_v1, heartbeat_v2, previous_gtids,
    previous_gtids_event, rewrite, rewritten_len, stream_format, xid,
};
use quorate_types::{Gtid, GtidSet};

const CRC: ChecksumAlgorithm = ChecksumAlgorithm::Crc32;
const OFF: ChecksumAlgorithm = ChecksumAlgorithm::Off;

fn gtid(text: &str) -> Gtid {
    format!("2afd0cd9-e529-11f1-a6e9-02fc00000001:{text}")
        .parse()
        .unwrap()
}

fn builder() -> EventBuilder {
    EventBuilder::new(1)
}

fn parse(bytes: &Bytes) -> Event {
    Event::parse(bytes.clone(), CRC).unwrap()
}

fn checksum(events: &[Bytes]) -> u32 {
    let mut checksummer = Checksummer::new();
    for event in events {
        checksummer.update(&parse(event));
    }
    checksummer.finish()
}

/// Feeds one transaction; how it ends, which must be at its last event.
fn ending(events: &[Bytes]) -> Result<Ending, AssembleError> {
    let mut assembler = Assembler::new();
    let (last, others) = events.split_last().unwrap();
    for event in others {
        let step = assembler.push(&parse(event))?;
        assert!(
            matches!(step, Step::Begin(_) | Step::Within),
            "{step:?} too early"
        );
        assert!(assembler.in_transaction());
    }
    match assembler.push(&parse(last))? {
        Step::End(ending) => Ok(ending),
        step => panic!("{step:?} at the end"),
    }
}

#[test]
fn every_form_of_transaction_ends_at_its_last_event() {
    let b = builder();
    let head = || b.gtid(gtid("1"), 0, 1);
    let q = |text: &str| b.query("app", text, None);
    let rows = || {
        [
            b.table_map(7, "a", "t", &[Column::Int]),
            b.write_rows(7, 1, &[0, 1, 0, 0, 0], true),
        ]
    };
    let group = |middle: &[Bytes], end: Bytes| ending(&[&[head()], middle, &[end]].concat());
    let [map, write] = rows();
    let begin = q("BEGIN");
    let dml = [begin.clone(), map, write];
    assert_eq!(group(&dml, b.xid(1)), Ok(Ending::Xid));
    assert_eq!(group(&dml, q("COMMIT")), Ok(Ending::Commit));
    assert_eq!(group(&dml, q("ROLLBACK")), Ok(Ending::Rollback));
    assert_eq!(
        group(
            &[begin.clone(), q("SAVEPOINT `a`"), q("ROLLBACK TO `a`")],
            b.xid(1)
        ),
        Ok(Ending::Xid)
    );
    assert_eq!(
        group(&[], q("CREATE TABLE t (i INT)")),
        Ok(Ending::Statement)
    );
    let intvar = b.event(EventType::INTVAR, 0, &[2, 0, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(
        group(&[intvar], q("INSERT INTO t VALUES (NULL)")),
        Ok(Ending::Statement)
    );
    let xa = [
        q("XA START X'61',X'',1"),
        dml[1].clone(),
        dml[2].clone(),
        q("XA END X'61',X'',1"),
    ];
    let prepare = b.event(
        EventType::XA_PREPARE,
        0,
        &[0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, b'a'],
    );
    assert_eq!(group(&xa, prepare), Ok(Ending::XaPrepare));
    assert_eq!(
        group(&[], q("XA COMMIT X'61',X'',1")),
        Ok(Ending::Statement)
    );
    assert_eq!(
        group(&[], q("XA ROLLBACK X'61',X'',1")),
        Ok(Ending::Statement)
    );
    let payload = b.event(EventType::TRANSACTION_PAYLOAD, 0, &[1, 1, 1, 0, 9]);
    assert_eq!(group(&[], payload), Ok(Ending::Payload));
    assert_eq!(
        group(&[], b.event(EventType::INCIDENT, 0, &[1, 0, 0])),
        Ok(Ending::Incident)
    );
}

#[test]
fn what_cannot_be_a_transaction_is_an_error_and_stays_one() {
    let b = builder();
    let head = b.gtid(gtid("1"), 0, 1);
    let begin = b.query("", "BEGIN", None);
    let rows = b.write_rows(7, 1, &[0], true);
    let refuse = |events: &[&Bytes]| {
        let mut assembler = Assembler::new();
        let (last, others) = events.split_last().unwrap();
        for event in others {
            assembler.push(&parse(event)).unwrap();
        }
        let error = assembler.push(&parse(last)).unwrap_err();
        assert_eq!(assembler.push(&parse(&head)), Err(AssembleError::Broken));
        error
    };
    let anonymous = b.event(EventType::ANONYMOUS_GTID, 0, &[0; 42]);
    assert_eq!(refuse(&[&anonymous]), AssembleError::Anonymous);
    assert_eq!(
        refuse(&[&rows]),
        AssembleError::Outside(EventType::WRITE_ROWS)
    );
    assert_eq!(
        refuse(&[&head, &rows]),
        AssembleError::Outside(EventType::WRITE_ROWS)
    );
    assert_eq!(refuse(&[&begin]), AssembleError::Outside(EventType::QUERY));
    assert_eq!(
        refuse(&[&head, &begin, &begin]),
        AssembleError::Inside(EventType::QUERY)
    );
    assert_eq!(
        refuse(&[&head, &head]),
        AssembleError::Inside(EventType::GTID)
    );
    assert_eq!(
        refuse(&[&head, &b.rotate("b")]),
        AssembleError::Inside(EventType::ROTATE)
    );
    assert_eq!(
        refuse(&[&b.event(EventType(200), 0, &[])]),
        AssembleError::Unknown(200)
    );
    let mut assembler = Assembler::new();
    let ignorable = b.event(EventType(200), 0x80, &[]);
    assert_eq!(assembler.push(&parse(&ignorable)), Ok(Step::Outside));
}

#[test]
fn a_checksum_is_of_all_that_a_transaction_is_made_of_and_of_nothing_else() {
    let row = |n: u8| [0, n, 0, 0, 0];
    let b = builder();
    let events = [
        b.gtid(gtid("1"), 4, 5),
        b.query("", "BEGIN", None),
        b.table_map(7, "a", "t", &[Column::Int]),
        b.write_rows(7, 1, &[row(1), row(2)].concat(), true),
        b.xid(11),
    ];
    let moved: Vec<Bytes> = events
        .iter()
        .map(|bytes| rewrite(&parse(bytes), 77, CRC))
        .collect();
    assert_ne!(moved, events);
    assert_eq!(checksum(&moved), checksum(&events));
    let changed = [
        b.gtid(gtid("2"), 4, 5),
        b.query("a", "BEGIN", None),
        b.table_map(7, "a", "t", &[Column::BigInt]),
        b.rows(
            EventType::DELETE_ROWS,
            7,
            1,
            &[row(1), row(2)].concat(),
            true,
        ),
        b.xid(12),
    ];
    for (at, event) in changed.into_iter().enumerate() {
        let mut events = events.clone();
        events[at] = event;
        assert_ne!(checksum(&moved), checksum(&events), "event {at}");
    }
}

#[test]
fn the_checksum_of_an_empty_transaction_is_known_by_its_gtid() {
    for text in ["5", "tag:5"] {
        let events = empty_transaction(gtid(text), 1, &builder());
        assert_eq!(checksum(&events), empty_checksum(gtid(text)));
        assert_eq!(ending(&events), Ok(Ending::Commit));
    }
}

#[test]
fn events_made_for_a_stream_are_read_as_they_were_meant() {
    for algorithm in [CRC, OFF] {
        let read = |bytes: Bytes| {
            let event = Event::parse(bytes, algorithm).unwrap();
            assert_eq!(event.verify_checksum(), Ok(()));
            event
        };
        let rotate = read(fake_rotate("binlog.9", 4, 1, algorithm));
        assert_eq!(rotate.header().flags, 0x20);
        assert_eq!(Rotate::parse(&rotate).unwrap().file, "binlog.9");
        let set: GtidSet = "2afd0cd9-e529-11f1-a6e9-02fc00000001:1-3:t:4"
            .parse()
            .unwrap();
        assert_eq!(
            previous_gtids(&read(previous_gtids_event(&set, 9, 1, algorithm))),
            Ok(set)
        );
        let beat = Heartbeat::parse(&read(heartbeat_v1("b", 77, 1, algorithm))).unwrap();
        assert_eq!((beat.file.as_str(), beat.position), ("b", 77));
        let beat = Heartbeat::parse(&read(heartbeat_v2("b", 5 << 32, 1, algorithm))).unwrap();
        assert_eq!((beat.file.as_str(), beat.position), ("b", 5 << 32));
        let made = EventBuilder {
            timestamp: 3,
            ..builder()
        }
        .format_description("9.7.4", 1);
        let format = FormatDescription::parse(made).unwrap();
        for place in [None, Some(126)] {
            let sent = stream_format(&format, place, algorithm);
            assert_eq!(sent[17], 0, "not in use");
            assert_eq!(sent[71..75] == [0; 4], place.is_none(), "time of creation");
            assert_eq!(FormatDescription::parse(sent).unwrap().algorithm, algorithm);
        }
    }
}

#[test]
fn heartbeats_and_rotates_are_byte_for_byte_what_a_server_sends() {
    let dump = include_str!("../testdata/dump-9.7.hex");
    let hex = |bytes: Bytes| {
        bytes
            .iter()
            .map(|byte| format!("{byte:02x}"))
            .collect::<String>()
    };
    let has = |bytes: Bytes| dump.lines().any(|line| line == hex(bytes.clone()));
    assert!(has(heartbeat_v2("binlog.000002", 745, 1, CRC)));
    assert!(has(fake_rotate("binlog.000001", 4, 1, CRC)));
}

/// Whatever the bytes, every parser answers; what is asserted is that none of them panics.
fn parse_everything(bytes: Bytes, algorithm: ChecksumAlgorithm) {
    let _ = FormatDescription::parse(bytes.clone());
    let Ok(event) = Event::parse(bytes, algorithm) else {
        return;
    };
    let _ = event.verify_checksum();
    let _ = GtidEvent::parse(&event);
    let _ = Rotate::parse(&event);
    let _ = Query::parse(&event);
    let _ = XaPrepare::parse(&event);
    let _ = Heartbeat::parse(&event);
    let _ = previous_gtids(&event);
    let _ = xid(&event);
    let _ = Assembler::new().push(&event);
    let mut checksummer = Checksummer::new();
    checksummer.update(&event);
    let _ = checksummer.finish();
    let rewritten = rewrite(&event, 5 << 32, OFF);
    assert_eq!(rewritten.len(), rewritten_len(&event, OFF));
}

fn samples() -> Vec<Bytes> {
    let b = builder();
    let set: GtidSet = "2afd0cd9-e529-11f1-a6e9-02fc00000001:1-3:t:4"
        .parse()
        .unwrap();
    let mut samples = b.insert(gtid("1"), 1, 1, &[0, 1, 0, 0, 0, 1, b'x']);
    samples.extend([
        b.gtid(gtid("tag:200"), 1, 2),
        b.query("app", "CREATE TABLE t (i INT)", Some(1)),
        b.previous_gtids(&set),
        b.format_description("9.7.4", 1),
        b.event(
            EventType::TRANSACTION_PAYLOAD,
            0,
            &[1, 1, 2, 2, 1, 0, 3, 1, 9, 0, 9, 9],
        ),
        b.event(
            EventType::XA_PREPARE,
            0,
            &[0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, b'a'],
        ),
        heartbeat_v2("b", 5 << 32, 1, CRC),
        heartbeat_v1("b", 5, 1, CRC),
        b.rotate("binlog.2"),
    ]);
    samples
}

proptest! {
    #[test]
    fn damaged_events_never_panic(
        which in 0_usize..14,
        flips in proptest::collection::vec((0_usize..400, any::<u8>()), 1..6),
        cut in 0_usize..60,
        as_type in proptest::option::of(0_u8..45),
        crc in any::<bool>(),
    ) {
        let mut bytes = samples()[which].to_vec();
        for (at, value) in flips {
            let at = at % bytes.len();
            bytes[at] = value;
        }
        bytes.truncate(bytes.len() - cut.min(bytes.len() - 20));
        if let Some(code) = as_type {
            bytes[4] = code;
        }
        // With the right size the damage gets past the frame, to the bodies.
        let size = (bytes.len() as u32).to_le_bytes();
        bytes[9..13].copy_from_slice(&size);
        parse_everything(bytes.into(), if crc { CRC } else { OFF });
    }

    #[test]
    fn gtid_events_give_back_what_they_were_made_of(
        uuid in any::<[u8; 16]>(),
        sequence in 1..=Gtid::SEQUENCE_LAST,
        tag in "([a-z_][a-z0-9_]{0,31})?",
        clocks in (0..i64::MAX / 2, 0..i64::MAX / 2),
        commit_us in 0_u64..1 << 55,
        original_commit_us in prop::option::of(0_u64..1 << 55),
    ) {
        let mut id = Gtid { source: quorate_types::Uuid(uuid).into(), sequence };
        if !tag.is_empty() {
            id.source.tag = tag.parse().unwrap();
        }
        let made = EventBuilder { commit_us, original_commit_us, ..builder() };
        let made = made.gtid(id, clocks.0, clocks.1);
        let event = parse(&made);
        prop_assert_eq!(event.verify_checksum(), Ok(()));
        let read = GtidEvent::parse(&event).unwrap();
        prop_assert_eq!(read.gtid, id);
        prop_assert_eq!((read.last_committed, read.sequence_number), clocks);
        prop_assert_eq!(read.original_commit_us, original_commit_us.unwrap_or(commit_us));
        prop_assert_eq!(read.immediate_commit_us, commit_us);
    }

    #[test]
    fn rewriting_changes_position_and_checksum_only(which in 0_usize..14, position in any::<u64>()) {
        let event = parse(&samples()[which]);
        let without = Event::parse(rewrite(&event, position, OFF), OFF).unwrap();
        prop_assert_eq!(without.body(), event.body());
        prop_assert_eq!(without.header().log_pos, position as u32);
        let back = rewrite(&without, u64::from(event.header().log_pos), CRC);
        prop_assert_eq!(&back, event.bytes());
        let mut damaged = back.to_vec();
        let last = damaged.len() - 5;
        damaged[last] ^= 1;
        let damaged = Event::parse(damaged.into(), CRC).unwrap();
        let verdict = damaged.verify_checksum();
        let noticed = matches!(verdict, Err(EventError::Checksum { .. }));
        prop_assert!(noticed);
    }
}

#[test]
fn tagged_gtids_are_read_as_another_writer_made_them() {
    use mysql_common::binlog::events::GtidEvent as Theirs;
    use mysql_common::packets::Tag;
    use mysql_common::proto::MySerialize;
    let id = gtid("tag_1:77");
    let theirs = Theirs::new_tagged(id.source.uuid.0, Tag::new("tag_1").unwrap(), 77)
        .with_last_committed(1000)
        .with_sequence_number(1001)
        .with_immediate_commit_timestamp(1 << 50)
        .with_original_commit_timestamp(1 << 49)
        .with_tx_length(12345)
        .with_immediate_server_version(90704);
    let mut body = Vec::new();
    theirs.serialize(&mut body);
    let event = parse(&builder().event(EventType::GTID_TAGGED, 0, &body));
    let expected = GtidEvent {
        gtid: id,
        last_committed: 1000,
        sequence_number: 1001,
        original_commit_us: 1 << 49,
        immediate_commit_us: 1 << 50,
        transaction_length: 12345,
    };
    assert_eq!(GtidEvent::parse(&event), Ok(expected));
}

/// Prints a number, for scale only: `cargo test -p quorate-binlog -- --ignored --nocapture`.
#[test]
#[ignore = "a measurement, not a promise"]
fn speed_of_verifying_assembling_and_hashing() {
    #[expect(
        clippy::disallowed_types,
        reason = "a measurement outside of any simulation"
    )]
    type Clock = std::time::Instant;
    let events = builder().insert(gtid("1"), 1, 1, &[7; 60]);
    let bytes: usize = events.iter().map(Bytes::len).sum();
    let (mut assembler, mut checksummer) = (Assembler::new(), Checksummer::new());
    let start = Clock::now();
    let rounds = 200_000;
    for _ in 0..rounds {
        for event in &events {
            let event = parse(event);
            event.verify_checksum().unwrap();
            assembler.push(&event).unwrap();
            checksummer.update(&event);
        }
        checksummer.finish();
    }
    let each = start.elapsed() / rounds;
    println!(
        "{each:?} per transaction of {bytes} bytes in {} events",
        events.len()
    );
}

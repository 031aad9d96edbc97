//! What is cut from a binlog's end before its server starts.

#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::collections::BTreeMap;

use bytes::Bytes;
use proptest::prelude::*;
use quorate_binlog::build::{EventBuilder, FileBuilder};
use quorate_binlog::{
    Class, CloneReason, Cut, CutPlan, EventType, FileScanner, Form, Found, Obstacle, ScanError,
    empty_checksum, empty_transaction, parse_index, plan,
};
use quorate_types::{Gtid, GtidSet};

fn gtid(sequence: u64) -> Gtid {
    format!("2afd0cd9-e529-11f1-a6e9-02fc00000001:{sequence}")
        .parse()
        .unwrap()
}

fn builder() -> EventBuilder {
    EventBuilder::new(1)
}

fn insert(sequence: u64) -> Vec<Bytes> {
    builder().insert(gtid(sequence), 1, sequence, &[0, 1, 0, 0, 0, 1, b'x'])
}

fn statement(sequence: u64, text: &str, xid: Option<u64>) -> Vec<Bytes> {
    let builder = builder();
    vec![
        builder.gtid(gtid(sequence), 0, 1),
        builder.query("app", text, xid),
    ]
}

fn file(groups: &[Vec<Bytes>]) -> Vec<u8> {
    let mut file = FileBuilder::new(builder(), &GtidSet::new());
    for group in groups {
        file.extend(group);
    }
    file.into_bytes()
}

fn offsets(file: &[u8]) -> Vec<u64> {
    found(file)
        .iter()
        .filter_map(|found| match found {
            Found::Group(group) => Some(group.start),
            _ => None,
        })
        .collect()
}

fn found(file: &[u8]) -> Vec<Found> {
    let mut scanner = FileScanner::new(file);
    std::iter::from_fn(|| scanner.next_found().unwrap()).collect()
}

fn class(group: Vec<Bytes>) -> Class {
    match found(&file(&[group])).last() {
        Some(Found::Group(group)) => group.class,
        other => panic!("no group but {other:?}"),
    }
}

fn checksums(file: &[u8]) -> BTreeMap<Gtid, u32> {
    found(file)
        .iter()
        .filter_map(|found| match found {
            Found::Group(group) => Some((group.gtid, group.checksum)),
            _ => None,
        })
        .collect()
}

fn plan_of(files: &[&[u8]], accepted: &[u64]) -> CutPlan {
    let files = files
        .iter()
        .enumerate()
        .map(|(at, file)| (format!("binlog.{}", at + 1), *file));
    let accepted = |gtid: &Gtid| accepted.contains(&gtid.sequence);
    plan(files, &accepted, &|_| None).unwrap()
}

fn cut(plan: CutPlan) -> Cut {
    match plan {
        CutPlan::Cut(cut) => cut,
        other => panic!("not cut but {other:?}"),
    }
}

fn reason(plan: CutPlan) -> CloneReason {
    match plan {
        CutPlan::Clone { reason } => reason,
        other => panic!("not cloned but {other:?}"),
    }
}

#[test]
fn a_binlog_of_accepted_transactions_is_left_alone() {
    assert_eq!(
        plan_of(&[&file(&[insert(1), insert(2)])], &[1, 2]),
        CutPlan::Nothing
    );
}

#[test]
fn the_tail_starts_at_the_first_transaction_that_is_not_accepted_and_spans_files() {
    let first = file(&[insert(1), insert(2)]);
    let second = file(&[insert(3)]);
    let cut = cut(plan_of(&[&first, &second], &[1]));
    assert_eq!(cut.file, "binlog.1");
    assert_eq!(cut.offset, offsets(&first)[1]);
    assert_eq!(cut.drop_files, ["binlog.2"]);
    let tail: Vec<_> = cut.tail.iter().map(|one| one.group.gtid.sequence).collect();
    assert_eq!(tail, [2, 3]);
}

#[test]
fn an_accepted_transaction_behind_a_rejected_one_means_clone() {
    let file = file(&[insert(1), insert(2), insert(3)]);
    assert!(matches!(
        reason(plan_of(&[&file], &[1, 3])),
        CloneReason::AcceptedAfterRejected { accepted, .. } if accepted == gtid(3)
    ));
}

#[test]
fn inert_errant_transactions_neither_start_a_tail_nor_count_as_a_hole() {
    let flush = || statement(9, "FLUSH PRIVILEGES", None);
    let holed = file(&[insert(1), flush(), insert(2)]);
    assert_eq!(plan_of(&[&holed], &[1, 2]), CutPlan::Nothing);

    let with_tail = file(&[insert(1), flush(), insert(2)]);
    let cut = cut(plan_of(&[&with_tail], &[1]));
    assert_eq!(cut.offset, offsets(&with_tail)[2]);
}

#[test]
fn another_transaction_under_an_accepted_gtid_means_clone() {
    let file = file(&[insert(1), statement(2, "FLUSH TABLES", None)]);
    let mut index = checksums(&file);
    let go = |index: &BTreeMap<Gtid, u32>| {
        let name = "binlog.1".to_owned();
        plan([(name, &file[..])], &|_| true, &|gtid| {
            index.get(gtid).copied()
        })
        .unwrap()
    };
    assert_eq!(go(&index), CutPlan::Nothing);
    // The cluster took the FLUSH in as an empty transaction, which changes as little.
    index.insert(gtid(2), empty_checksum(gtid(2)));
    assert_eq!(go(&index), CutPlan::Nothing);
    index.insert(gtid(2), 1);
    assert!(matches!(
        reason(go(&index)),
        CloneReason::ChecksumDiffers { .. }
    ));
}

/// It may log in another form what it applied: a JSON document as a whole of which the source logged
/// a part, for one.
#[test]
fn what_a_server_applied_as_a_replica_is_known_by_its_gtid() {
    for text in ["1", "tag:1"] {
        let id = format!("2afd0cd9-e529-11f1-a6e9-02fc00000001:{text}");
        let judged = |original_commit_us| {
            let events = EventBuilder {
                original_commit_us,
                ..builder()
            };
            let mut file = FileBuilder::new(events, &GtidSet::new());
            file.extend(&events.insert(id.parse().unwrap(), 1, 1, &[0, 1, 0, 0, 0, 1, b'x']));
            let name = "binlog.1".to_owned();
            plan([(name, file.bytes())], &|_| true, &|_| Some(1)).unwrap()
        };
        assert_eq!(judged(Some(builder().commit_us - 1)), CutPlan::Nothing);
        for own in [None, Some(builder().commit_us)] {
            let why = reason(judged(own));
            assert!(matches!(why, CloneReason::ChecksumDiffers { .. }), "{why}");
        }
    }
}

#[test]
fn a_tail_that_would_not_be_rolled_back_means_clone() {
    let file = file(&[insert(1), statement(2, "CREATE SERVER s", None)]);
    assert!(matches!(
        reason(plan_of(&[&file], &[1])),
        CloneReason::NotRollbackable {
            obstacle: Obstacle::StatementWithoutXid,
            ..
        }
    ));
}

#[test]
fn a_torn_end_is_cut_at_the_last_good_transaction() {
    let whole = file(&[insert(1), insert(2)]);
    let start = offsets(&whole)[1];
    for len in start as usize + 1..whole.len() {
        let cut = cut(plan_of(&[&whole[..len]], &[1, 2]));
        assert_eq!((cut.offset, cut.tail.len()), (start, 0), "torn at {len}");
    }
    assert_eq!(
        plan_of(&[&whole[..start as usize]], &[1, 2]),
        CutPlan::Nothing
    );
}

#[test]
fn a_last_file_without_a_whole_head_is_dropped() {
    let first = file(&[insert(1)]);
    let second = file(&[]);
    // A file that ends right behind its format description is one that holds nothing yet.
    let format_end = 4 + builder().format_description("9.7.4", 0).len();
    for len in (0..second.len()).filter(|len| *len != format_end) {
        let cut = cut(plan_of(&[&first, &second[..len]], &[1]));
        assert_eq!(
            (cut.file.as_str(), cut.offset),
            ("binlog.1", first.len() as u64),
            "torn at {len}"
        );
        assert_eq!(cut.drop_files, ["binlog.2"]);
    }
    assert!(matches!(
        reason(plan_of(&[&second[..40]], &[])),
        CloneReason::NoFileToKeep { .. }
    ));
}

#[test]
fn damage_with_transactions_behind_it_means_clone() {
    let mut bytes = file(&[insert(1), insert(2), insert(3)]);
    let start = offsets(&bytes)[1] as usize;
    bytes[start + 30] ^= 1;
    assert!(matches!(
        reason(plan_of(&[&bytes], &[1, 2, 3])),
        CloneReason::AcceptedAfterRejected { accepted, .. } if accepted == gtid(3)
    ));
    assert!(matches!(
        reason(plan_of(&[&bytes], &[1])),
        CloneReason::DamageInside { offset, .. } if offset == start as u64
    ));
}

#[test]
fn classes_follow_what_the_server_rolls_back() {
    let ddl = |text: &str| class(statement(1, text, Some(7)));
    let plain = |text: &str| class(statement(1, text, None));
    let no = Class::NotRollbackable;
    assert_eq!(class(insert(1)), Class::Rollbackable(Form::Rows));
    assert_eq!(
        ddl("CREATE TABLE t (i INT)"),
        Class::Rollbackable(Form::Ddl)
    );
    assert_eq!(
        ddl("create table t (engine int) engine = 'InnoDB'"),
        Class::Rollbackable(Form::Ddl)
    );
    assert_eq!(
        ddl("CREATE TABLE t (i INT) ENGINE=MyISAM"),
        no(Obstacle::OtherEngine)
    );
    assert_eq!(
        ddl("alter table t engine memory"),
        no(Obstacle::OtherEngine)
    );
    assert_eq!(
        ddl("/* x */ ALTER TABLE t DISCARD TABLESPACE"),
        no(Obstacle::Tablespace)
    );
    assert_eq!(
        ddl("ALTER TABLE t IMPORT PARTITION p TABLESPACE"),
        no(Obstacle::Tablespace)
    );
    assert_eq!(plain("DROP TABLE t"), no(Obstacle::StatementWithoutXid));
    assert_eq!(
        plain("XA COMMIT X'61',X'',1"),
        Class::Rollbackable(Form::Xa)
    );
    for inert in [
        "FLUSH TABLES",
        "analyze table t",
        "OPTIMIZE TABLE t",
        " repair table t",
    ] {
        assert_eq!(plain(inert), Class::Inert, "{inert}");
    }
    // A server newer or older than the comment says executes only what is behind it.
    assert_eq!(
        plain("/*!99999 FLUSH */ DROP TABLE t"),
        no(Obstacle::StatementWithoutXid)
    );
    assert_eq!(
        class(empty_transaction(gtid(1), 1, &builder())),
        Class::Inert
    );
    let mut no_xid = insert(1);
    no_xid[4] = builder().query("", "COMMIT", None);
    assert_eq!(class(no_xid), no(Obstacle::NoXid));
    let mut by_statement = insert(1);
    by_statement[2] = builder().query("app", "UPDATE t SET i = 1", None);
    by_statement.remove(3);
    assert_eq!(class(by_statement), no(Obstacle::StatementFormat));
    let payload = builder().event(EventType::TRANSACTION_PAYLOAD, 0, &[1, 1, 2, 0, 9, 9]);
    assert_eq!(
        class(vec![insert(1)[0].clone(), payload]),
        Class::Rollbackable(Form::Payload)
    );
}

#[test]
fn an_event_larger_than_the_buffer_is_checked_like_any_other() {
    let mut row = vec![0; 3 << 20];
    row[2 << 20] = 7;
    let group = builder().insert(gtid(1), 1, 1, &row);
    let mut whole = quorate_binlog::Checksummer::new();
    for event in &group {
        let event = quorate_binlog::Event::parse(event.clone(), builder().algorithm).unwrap();
        whole.update(&event);
    }
    let mut bytes = file(&[group]);
    assert_eq!(checksums(&bytes)[&gtid(1)], whole.finish());
    let at = bytes.len() - (1 << 20);
    bytes[at] ^= 1;
    assert!(matches!(found(&bytes).last(), Some(Found::Damage { .. })));
}

#[test]
fn an_encrypted_binlog_is_named_as_such() {
    let mut scanner = FileScanner::new(&b"\xfdbin and more"[..]);
    assert!(matches!(scanner.next_found(), Err(ScanError::Encrypted)));
}

#[test]
fn a_flipped_checksum_algorithm_does_not_switch_checking_off() {
    let mut bytes = file(&[insert(1)]);
    let end = 4 + builder().format_description("9.7.4", 0).len();
    assert_eq!(bytes[end - 5], 1, "CRC32");
    bytes[end - 5] = 0;
    assert!(matches!(found(&bytes)[..], [Found::Damage { .. }]));
}

#[test]
fn a_binlog_without_checksums_is_read_too() {
    let events = EventBuilder {
        algorithm: quorate_binlog::ChecksumAlgorithm::Off,
        ..builder()
    };
    let mut plain = FileBuilder::new(events, &GtidSet::new());
    plain.extend(&events.insert(gtid(1), 1, 1, &[0, 1, 0, 0, 0, 1, b'x']));
    let with = file(&[insert(1)]);
    assert_eq!(checksums(plain.bytes()), checksums(&with));
}

#[test]
fn an_index_file_names_files_relative_and_absolute() {
    let names = parse_index(b"./binlog.000001\n/data/binlog.000002\r\n\n").unwrap();
    let expected = ["./binlog.000001", "/data/binlog.000002"].map(std::path::PathBuf::from);
    assert_eq!(names, expected);
    assert_eq!(parse_index(b"a\n\xff\n"), Err(2));
}

proptest! {
    #[test]
    fn damage_is_never_overlooked_and_never_panics(
        flips in proptest::collection::vec((4_usize..2000, 1_u8..), 1..4),
        len in 0_usize..2000,
    ) {
        let whole = file(&[insert(1), statement(2, "FLUSH TABLES", None), insert(3)]);
        let mut bytes = whole.clone();
        for (at, bits) in flips {
            let at = 4 + at % (whole.len() - 4);
            bytes[at] ^= bits;
        }
        bytes.truncate(4 + len % (whole.len() - 4));
        let good = found(&whole);
        let mut scanner = FileScanner::new(&bytes[..]);
        let seen: Vec<_> = std::iter::from_fn(|| scanner.next_found().unwrap()).collect();
        for one in &seen {
            // What passes for a transaction is one of the file, where it is.
            let known = good.contains(one) || matches!(one, Found::Damage { .. });
            prop_assert!(known, "{:?}", one);
        }
        let changed = bytes.iter().zip(&whole).any(|(now, then)| now != then);
        let noticed = seen.iter().any(|one| matches!(one, Found::Damage { .. }));
        // The in-use flag of the format description is the server's to change.
        let only_flag = bytes.iter().zip(&whole).enumerate().all(|(at, (now, then))| {
            now == then || at == 21 && now ^ then == 1
        });
        prop_assert!(!changed || noticed || only_flag);
    }
}

//! Damaged folders: an error, or what was written; never a panic, never something else.

use quorate_types::LogIndex;

use super::sled_in;
use crate::suite::records;
use crate::{Error, LogDisk, LogRead, MetaKey, Record, Write};

fn written(dir: &std::path::Path) -> Vec<Record> {
    let mut disk = sled_in(dir).unwrap();
    let written = [
        records(1..9, 700),
        records(9..11, 150_000),
        records(11..40, 90),
    ]
    .concat();
    for group in written.chunk_by(|a, b| a.bytes.len() == b.bytes.len()) {
        disk.write(vec![Write::Append(group.to_vec())]).unwrap();
    }
    disk.write(vec![
        Write::SetMeta(MetaKey::Vote, written[0].bytes.clone()),
        Write::SetMeta(MetaKey::Snapshot, written[8].bytes.clone()),
        Write::PutAccepted(written[5..9].to_vec()),
    ])
    .unwrap();
    disk.sync().unwrap();
    written
}

/// Reads everything there is.
fn read(dir: &std::path::Path) -> Result<(Vec<Record>, Vec<Record>), Error> {
    let disk = sled_in(dir)?;
    let reader = disk.reader();
    reader.meta(MetaKey::Vote)?;
    reader.meta(MetaKey::Snapshot)?;
    let all = LogIndex(0)..LogIndex(u64::MAX);
    let accepted = reader.read_accepted(all, usize::MAX)?;
    match reader.bounds()? {
        Some((first, last)) => Ok((reader.read(first..last.next(), usize::MAX)?, accepted)),
        None => Ok((Vec::new(), accepted)),
    }
}

/// sled as another program, which changes a value behind the store's back.
fn change(dir: &std::path::Path, tree: &str, change: impl Fn(&sled::Tree)) {
    let config = sled::Config::new().path(dir).segment_size(8 << 20);
    // sled's threads let go of a store some time after it was dropped.
    let mut opened = config.open();
    for _ in 0..250 {
        if opened.is_ok() {
            break;
        }
        std::thread::sleep(std::time::Duration::from_millis(20));
        opened = config.open();
    }
    let db = opened.unwrap();
    change(&db.open_tree(tree).unwrap());
    db.flush().unwrap();
}

#[test]
fn every_changed_or_missing_value_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    let expected = written(dir.path());
    for tree in ["log", "accepted", "meta"] {
        for number in 0.. {
            let entry = std::cell::RefCell::new(None);
            change(dir.path(), tree, |tree| {
                *entry.borrow_mut() = tree.iter().nth(number).map(Result::unwrap);
            });
            let Some((key, value)) = entry.into_inner() else {
                break;
            };
            let at = (number * 7919 + 5) % value.len();
            let mut wrong = value.to_vec();
            wrong[at] ^= 1 << (number % 8);
            let shorter = value[..value.len() - 1].to_vec();
            for wrong in [wrong, shorter, Vec::new()] {
                change(dir.path(), tree, |tree| {
                    tree.insert(&key, wrong.as_slice()).unwrap();
                });
                let refused = read(dir.path()).expect_err("a changed value");
                assert!(matches!(refused, Error::Corrupt { .. }), "{refused}");
            }
            change(dir.path(), tree, |tree| {
                tree.insert(&key, value.clone()).unwrap();
            });
        }
        assert_eq!(read(dir.path()).unwrap().0, expected);
    }
}

#[test]
fn a_hole_in_the_log_is_noticed() {
    let dir = tempfile::tempdir().unwrap();
    written(dir.path());
    for number in [1, 4] {
        let removed = std::cell::RefCell::new(None);
        change(dir.path(), "log", |tree| {
            let (key, value) = tree.iter().nth(number).unwrap().unwrap();
            tree.remove(&key).unwrap();
            *removed.borrow_mut() = Some((key, value));
        });
        let refused = read(dir.path()).expect_err("a hole");
        assert!(matches!(refused, Error::Corrupt { .. }), "{refused}");
        let (key, value) = removed.into_inner().unwrap();
        change(dir.path(), "log", |tree| {
            tree.insert(&key, value.clone()).unwrap();
        });
    }
}

#[test]
fn damage_of_the_file_is_never_a_panic_nor_another_content() {
    let dir = tempfile::tempdir().unwrap();
    let expected = written(dir.path());
    // From here on the witness knows of everything.
    drop(sled_in(dir.path()).unwrap());
    let clean = std::fs::read(dir.path().join("db")).unwrap();
    let used = clean.iter().rposition(|byte| *byte != 0).unwrap();
    let mut noticed = 0;
    for round in 0..24_usize {
        let copy = tempfile::tempdir().unwrap();
        super::copy(dir.path(), copy.path());
        let mut bytes = clean.clone();
        let at = round.wrapping_mul(0x9e37_79b9_7f4a_7c15) % used;
        match round % 3 {
            0 => bytes[at] ^= 0x10,
            1 => bytes[at..(at + 4096).min(used)].fill(0),
            _ => bytes.truncate(at),
        }
        std::fs::write(copy.path().join("db"), bytes).unwrap();
        match read(copy.path()) {
            Ok((log, _)) => assert!(log == expected, "round {round}: {} are left", log.len()),
            Err(Error::Corrupt { .. } | Error::Io { .. }) => noticed += 1,
            Err(other) => panic!("{other}"),
        }
    }
    assert!(noticed > 0, "no damage was noticed");
}

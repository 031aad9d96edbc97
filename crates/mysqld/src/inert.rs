use std::io;

use quorate_binlog::{Class, FileScanner, Found};
use quorate_types::GtidSet;

use crate::host::{BinlogFiles, Host};
use crate::repair::RepairError;

/// Those of `wanted` that this server wrote as inert transactions (FLUSH, ANALYZE, OPTIMIZE,
/// REPAIR), by the bytes in its binlog. The server may run: what it executed is in its files, and
/// an end that is just being written is only not read yet.
///
/// It counts on nothing but the server's own transactions, which it logs whatever it does with
/// those of its source. Ones whose file is gone are not recognised.
pub async fn inert_groups<H: Host>(host: &H, wanted: GtidSet) -> Result<GtidSet, RepairError> {
    host.with_binlogs(move |binlogs| find(binlogs, wanted))
        .await
}

fn find<B: BinlogFiles>(binlogs: &B, wanted: GtidSet) -> Result<GtidSet, RepairError> {
    let at = |what, file: &str, source| RepairError::Files {
        what,
        file: file.to_owned(),
        source,
    };
    let files = binlogs
        .list()
        .map_err(|source| at("list", "the binlog files", source))?;
    let (mut left, mut inert) = (wanted, GtidSet::new());
    // They are new more often than old.
    for file in files.iter().rev() {
        if left.is_empty() {
            break;
        }
        let reader = binlogs
            .open(file)
            .map_err(|source| at("open", file, source))?;
        let mut scanner = FileScanner::new(io::BufReader::with_capacity(256 << 10, reader));
        let scan = |source| RepairError::Scan {
            file: file.clone(),
            source,
        };
        while let Some(found) = scanner.next_found().map_err(scan)? {
            match found {
                // All that is looked for is in older files.
                Found::PreviousGtids(before) if before.contains_set(&left) => break,
                Found::Group(group) if left.contains(group.gtid) => {
                    let mut one = GtidSet::new();
                    one.insert(group.gtid);
                    left = left.difference(&one);
                    if group.class == Class::Inert {
                        inert.insert(group.gtid);
                    }
                }
                Found::PreviousGtids(_) | Found::Group(_) | Found::Damage { .. } => {}
            }
        }
    }
    Ok(inert)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::io::Cursor;
    use std::ops::Range;

    use quorate_binlog::build::{EventBuilder, FileBuilder};
    use quorate_types::Gtid;

    use super::*;

    struct Files(BTreeMap<String, Vec<u8>>);

    impl BinlogFiles for Files {
        type File = Cursor<Vec<u8>>;

        fn list(&self) -> io::Result<Vec<String>> {
            Ok(self.0.keys().cloned().collect())
        }

        fn open(&self, file: &str) -> io::Result<Self::File> {
            Ok(Cursor::new(self.0[file].clone()))
        }

        fn length(&self, file: &str) -> io::Result<u64> {
            Ok(self.0[file].len() as u64)
        }

        fn keep_aside(&self, _: &str, _: &str, _: Range<u64>) -> io::Result<()> {
            unreachable!("nothing is cut")
        }

        fn drop_after(&self, _: &str) -> io::Result<()> {
            unreachable!("nothing is cut")
        }

        fn truncate(&self, _: &str, _: u64) -> io::Result<()> {
            unreachable!("nothing is cut")
        }
    }

    fn gtid(sequence: u64) -> Gtid {
        format!("30b06607-e52b-11f1-b1db-02fc00000001:{sequence}")
            .parse()
            .unwrap()
    }

    fn set(sequences: &str) -> GtidSet {
        format!("30b06607-e52b-11f1-b1db-02fc00000001:{sequences}")
            .parse()
            .unwrap()
    }

    #[test]
    fn only_inert_groups_are_found_in_whatever_file_they_are() {
        let events = EventBuilder::new(1);
        let statement = |sequence, text| {
            vec![
                events.gtid(gtid(sequence), 0, 1),
                events.query("app", text, None),
            ]
        };
        let mut first = FileBuilder::new(events, &GtidSet::new());
        first.extend(&statement(1, "FLUSH TABLES"));
        first.extend(&statement(2, "CREATE TABLE t (a INT)"));
        let mut second = FileBuilder::new(events, &set("1-2"));
        second.extend(&statement(3, "ANALYZE TABLE t"));
        let end = second.bytes().len();
        second.extend(&statement(4, "FLUSH PRIVILEGES"));
        let mut second = second.into_bytes();
        // The server is just writing its last one.
        second.truncate(end + 20);
        let files = [("1", first.into_bytes()), ("2", second)];
        let files = Files(files.map(|(name, bytes)| (name.to_owned(), bytes)).into());

        assert_eq!(find(&files, set("1-5")).unwrap(), set("1:3"));
        assert_eq!(find(&files, set("2")).unwrap(), GtidSet::new());
        assert_eq!(find(&files, set("3")).unwrap(), set("3"));
    }
}

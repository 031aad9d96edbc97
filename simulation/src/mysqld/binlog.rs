//! The binlog files of a simulated server: the bytes that a real one would write.

use std::collections::BTreeMap;
use std::io::{self, Cursor};
use std::ops::Range;

use bytes::Bytes;
use quorate_binlog::build::{Column, EventBuilder, FileBuilder};
use quorate_binlog::{Event, EventHeader, EventType, FLAG_BINLOG_IN_USE, FileScanner, Found};
use quorate_mysqld::BinlogFiles;
use quorate_types::{BinlogSource, Gtid, GtidSet};

use super::engine::Change;
use super::machine::Machine;

pub(crate) const VERSION: &str = "9.7.4";
const TABLE_T: u64 = 100;
const TABLE_R: u64 = 101;
/// Bytes before the first event of a file, which is its format description.
const MAGIC: usize = 4;
/// In the format description's header.
const FLAGS_AT: usize = MAGIC + 17;

/// The files by name, which is also their order.
#[derive(Clone, Debug, Default)]
pub(crate) struct Binlogs {
    pub(crate) files: BTreeMap<String, Vec<u8>>,
    /// How much of the last file is on disk.
    synced: usize,
}

impl Binlogs {
    /// Begins the next file, as a server does when it starts.
    pub(crate) fn begin_file(&mut self, server_id: u32) {
        let previous = self.gtids();
        let number = self.files.len() + 1;
        let events = EventBuilder::new(server_id);
        let mut bytes = FileBuilder::new(events, &previous).into_bytes();
        bytes[FLAGS_AT] |= FLAG_BINLOG_IN_USE as u8;
        self.synced = bytes.len();
        self.files.insert(format!("binlog.{number:06}"), bytes);
    }

    /// Appends a transaction, by the server that `events` speak of; not synced. Where it ends.
    pub(crate) fn append(
        &mut self,
        events: &EventBuilder,
        gtid: Gtid,
        xid: u64,
        changes: &[Change],
    ) -> (String, u64) {
        let events = transaction(events, gtid, xid, changes);
        let (name, bytes) = self.last_mut();
        let mut end = bytes.len();
        for event in &events {
            end += event.len();
            bytes.extend_from_slice(&placed(event, end as u32));
        }
        (name, end as u64)
    }

    pub(crate) fn sync(&mut self) {
        self.synced = self.files.values().next_back().map_or(0, Vec::len);
    }

    /// The bytes of a file that a dump may send.
    pub(crate) fn synced_bytes(&self, file: &str) -> &[u8] {
        let Some(bytes) = self.files.get(file) else {
            return &[];
        };
        let is_last = self
            .files
            .keys()
            .next_back()
            .is_some_and(|last| last == file);
        match is_last {
            true => &bytes[..self.synced.min(bytes.len())],
            false => bytes,
        }
    }

    /// Power loss: of what was not synced `keep` bytes are left, if there are as many.
    pub(crate) fn lose_unsynced(&mut self, keep: usize) {
        let synced = self.synced;
        if let Some(bytes) = self.files.values_mut().next_back() {
            bytes.truncate((synced + keep).min(bytes.len()));
        }
        self.sync();
    }

    /// Closes the last file in good order: the next start recovers nothing.
    pub(crate) fn close(&mut self) {
        if let Some(bytes) = self.files.values_mut().next_back() {
            bytes[FLAGS_AT] &= !(FLAG_BINLOG_IN_USE as u8);
        }
    }

    /// The GTIDs of all whole transactions.
    pub(crate) fn gtids(&self) -> GtidSet {
        let mut all = GtidSet::new();
        for bytes in self.files.values() {
            for (gtid, _) in groups(bytes) {
                all.insert(gtid);
            }
        }
        all
    }

    /// What a starting server finds in the last file: its whole transactions with their xids, in
    /// order, and whether the file was left open. What is torn at its end is cut off.
    pub(crate) fn recover(&mut self) -> (Vec<(u64, Gtid)>, bool) {
        let Some(bytes) = self.files.values_mut().next_back() else {
            return (Vec::new(), false);
        };
        let in_use = bytes.get(FLAGS_AT).is_some_and(|flags| flags & 1 != 0);
        let mut xids = Vec::new();
        let mut end = None;
        for (gtid, range) in groups(bytes) {
            end = Some(range.end as usize);
            for event in events(&bytes[range.start as usize..range.end as usize]) {
                if event.event_type() == EventType::XID
                    && let Ok(xid) = <[u8; 8]>::try_from(event.body())
                {
                    xids.push((u64::from_le_bytes(xid), gtid));
                }
            }
        }
        if let Some(end) = end {
            bytes.truncate(end);
        }
        (xids, in_use)
    }

    fn last_mut(&mut self) -> (String, &mut Vec<u8>) {
        let (name, bytes) = self
            .files
            .iter_mut()
            .next_back()
            .expect("a server that runs has a binlog");
        (name.clone(), bytes)
    }
}

/// The whole transactions of a file, and where they are.
fn groups(bytes: &[u8]) -> Vec<(Gtid, Range<u64>)> {
    let mut scanner = FileScanner::new(bytes);
    let mut found = Vec::new();
    while let Ok(Some(next)) = scanner.next_found() {
        match next {
            Found::Group(group) => found.push((group.gtid, group.start..group.end)),
            Found::PreviousGtids(_) => {}
            Found::Damage { .. } => break,
        }
    }
    found
}

/// The events in bytes that begin with one and hold whole ones.
pub(crate) fn events(mut bytes: &[u8]) -> Vec<Event> {
    let mut events = Vec::new();
    while let Ok(header) = EventHeader::parse(bytes) {
        let size = header.event_size as usize;
        let Some(one) = bytes.get(..size) else { break };
        let checksum = quorate_binlog::ChecksumAlgorithm::Crc32;
        let Ok(event) = Event::parse(Bytes::copy_from_slice(one), checksum) else {
            break;
        };
        events.push(event);
        bytes = &bytes[size..];
    }
    events
}

/// The event with its end position in it.
fn placed(event: &Bytes, end: u32) -> Vec<u8> {
    let mut bytes = event.to_vec();
    bytes[13..17].copy_from_slice(&end.to_le_bytes());
    let body = bytes.len() - 4;
    let crc = crc32fast::hash(&bytes[..body]);
    bytes[body..].copy_from_slice(&crc.to_le_bytes());
    bytes
}

fn transaction(events: &EventBuilder, gtid: Gtid, xid: u64, changes: &[Change]) -> Vec<Bytes> {
    let columns = [Column::BigInt, Column::BigInt];
    let mut out = vec![
        // Each depends on the one before: the simulated applier takes them one by one anyway.
        events.gtid(gtid, xid as i64 - 1, xid as i64),
        events.query("", "BEGIN", None),
    ];
    for change in changes {
        let (table_id, table, key, value) = match *change {
            Change::Insert { key, value } => (TABLE_T, "t", key, value),
            Change::Set { key, value } => (TABLE_R, "r", key, value),
        };
        let mut row = vec![0];
        row.extend_from_slice(&key.to_le_bytes());
        row.extend_from_slice(&value.to_le_bytes());
        out.push(events.table_map(table_id, "app", table, &columns));
        out.push(events.write_rows(table_id, columns.len(), &row, true));
    }
    out.push(events.xid(xid));
    out
}

/// What a capture would propose of a transaction with one row.
pub(crate) fn captured(gtid: Gtid, row: Change) -> (BinlogSource, quorate_types::Transaction) {
    let events = EventBuilder::new(1);
    let file = FileBuilder::new(events, &GtidSet::new()).into_bytes();
    let format = self::events(&file[MAGIC..]).swap_remove(0);
    let source = BinlogSource {
        file: "binlog.000001".into(),
        format: format.bytes().clone(),
    };
    let transaction = quorate_types::Transaction {
        gtid,
        checksum: 0,
        events: transaction(&events, gtid, 1, &[row]).concat().into(),
    };
    (source, transaction)
}

/// The change in a rows event of ours; none in any other event.
pub(crate) fn change(event: &Event) -> Option<Change> {
    if event.event_type() != EventType::WRITE_ROWS {
        return None;
    }
    let body = event.body();
    // Table id, flags, extra length, number of columns, bitmap, NULL bitmap: then the two numbers.
    let number = |at: usize| Some(u64::from_le_bytes(body.get(at..at + 8)?.try_into().ok()?));
    let (table, key, value) = (*body.first()?, number(13)?, number(21)?);
    match u64::from(table) {
        TABLE_T => Some(Change::Insert { key, value }),
        TABLE_R => Some(Change::Set { key, value }),
        _ => None,
    }
}

/// The binlog files of a server that does not run, for the repair.
#[derive(Debug)]
pub struct SimulatedBinlogs {
    pub(crate) machine: Machine,
    pub(crate) folder: std::path::PathBuf,
}

impl SimulatedBinlogs {
    fn with<T>(&self, use_it: impl FnOnce(&mut Binlogs) -> io::Result<T>) -> io::Result<T> {
        self.machine.with(|state| {
            let folder = state.folders.get_mut(&self.folder);
            use_it(&mut folder.ok_or(io::ErrorKind::NotFound)?.binlogs)
        })
    }
}

impl BinlogFiles for SimulatedBinlogs {
    type File = Cursor<Vec<u8>>;

    fn list(&self) -> io::Result<Vec<String>> {
        self.with(|binlogs| Ok(binlogs.files.keys().cloned().collect()))
    }

    fn open(&self, file: &str) -> io::Result<Self::File> {
        self.with(|binlogs| {
            let bytes = binlogs.files.get(file).ok_or(io::ErrorKind::NotFound)?;
            Ok(Cursor::new(bytes.clone()))
        })
    }

    fn length(&self, file: &str) -> io::Result<u64> {
        Ok(self.open(file)?.into_inner().len() as u64)
    }

    fn keep_aside(&self, _: &str, _: &str, _: Range<u64>) -> io::Result<()> {
        Ok(())
    }

    fn drop_after(&self, last: &str) -> io::Result<()> {
        if self.machine.rules().skip_cut {
            return Ok(());
        }
        self.with(|binlogs| {
            binlogs.files.retain(|file, _| file.as_str() <= last);
            binlogs.sync();
            Ok(())
        })
    }

    fn truncate(&self, file: &str, length: u64) -> io::Result<()> {
        if self.machine.rules().skip_cut {
            return Ok(());
        }
        self.with(|binlogs| {
            let bytes = binlogs.files.get_mut(file).ok_or(io::ErrorKind::NotFound)?;
            bytes.truncate(length as usize);
            if let Some(flags) = bytes.get_mut(FLAGS_AT) {
                *flags |= FLAG_BINLOG_IN_USE as u8;
            }
            binlogs.sync();
            Ok(())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn gtid(sequence: u64) -> Gtid {
        format!("30b06607-e52b-11f1-b1db-02fc00000001:{sequence}")
            .parse()
            .expect("a GTID")
    }

    #[test]
    fn a_transaction_is_read_back_and_a_torn_one_is_not_there() {
        let mut binlogs = Binlogs::default();
        binlogs.begin_file(1);
        let changes = [
            Change::Insert { key: 7, value: 8 },
            Change::Set { key: 1, value: 9 },
        ];
        let writer = EventBuilder::new(1);
        binlogs.append(&writer, gtid(1), 11, &changes);
        binlogs.sync();
        let (_, end) = binlogs.append(&writer, gtid(2), 12, &changes[..1]);
        let bytes = binlogs.files["binlog.000001"].clone();
        assert_eq!(bytes.len() as u64, end);
        let read: Vec<_> = events(&bytes[4..]).iter().filter_map(change).collect();
        assert_eq!(read, [changes[0], changes[1], changes[0]]);

        binlogs.lose_unsynced(30);
        let (xids, in_use) = binlogs.recover();
        assert!(in_use);
        assert_eq!(xids, [(11, gtid(1))]);
        assert_eq!(binlogs.gtids().count(), 1);
    }
}

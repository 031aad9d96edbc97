use std::collections::BTreeMap;
use std::sync::Mutex;

use quorate_types::{BinlogSource, Fragment, Gtid, GtidSet, LogIndex};
use tokio::sync::watch;

use super::*;
use crate::contract::{AcceptedEntry, AcceptedTransaction, ReadBatch, ReadError, TransactionBytes};

/// A log in memory that tests write as they like.
#[derive(Clone)]
pub(crate) struct FakeLog {
    shared: Arc<Mutex<Shared>>,
    applied: watch::Sender<LogIndex>,
}

#[derive(Default)]
struct Shared {
    entries: BTreeMap<u64, AcceptedEntry>,
    parts: BTreeMap<u64, Fragment>,
    accepted: Arc<GtidSet>,
    /// What a barrier brings.
    elsewhere: Vec<AcceptedEntry>,
    barriers: u32,
    leaderless: u32,
    purged_before: u64,
}

impl FakeLog {
    pub(crate) fn new() -> Self {
        Self {
            shared: Arc::default(),
            applied: watch::channel(LogIndex(0)).0,
        }
    }

    fn next_index(&self) -> LogIndex {
        self.applied.borrow().next()
    }

    /// An entry without accepted transactions.
    pub(crate) fn other(&self) {
        self.applied.send_modify(|index| *index = index.next());
    }

    pub(crate) fn append(
        &self,
        epoch: Epoch,
        source: &BinlogSource,
        transactions: &[(Gtid, Bytes)],
    ) {
        let index = self.next_index();
        let entry = entry(index, epoch, source, transactions);
        self.add(entry);
    }

    fn add(&self, entry: AcceptedEntry) {
        let mut shared = self.shared.lock().unwrap();
        let mut accepted = GtidSet::clone(&shared.accepted);
        for transaction in &entry.transactions {
            assert!(accepted.insert(transaction.gtid), "accepted twice");
        }
        shared.accepted = Arc::new(accepted);
        let index = entry.index;
        shared.entries.insert(index.0, entry);
        drop(shared);
        self.applied.send_replace(index);
    }

    /// A transaction in parts of these sizes, with an entry of something else between them.
    pub(crate) fn append_parts(
        &self,
        epoch: Epoch,
        source: &BinlogSource,
        gtid: Gtid,
        events: &Bytes,
        part_bytes: usize,
    ) {
        let first = self.next_index();
        for (number, bytes) in events.chunks(part_bytes).enumerate() {
            let index = self.next_index();
            let fragment = Fragment {
                epoch,
                number: 1,
                gtid,
                part: number as u32 + 1,
                end: None,
                source: source.clone(),
                bytes: Bytes::copy_from_slice(bytes),
            };
            let mut shared = self.shared.lock().unwrap();
            shared.parts.insert(index.0, fragment);
            drop(shared);
            self.other();
            self.other();
        }
        let last = self.next_index();
        let mut entry = entry(last, epoch, source, &[(gtid, Bytes::new())]);
        entry.transactions[0].bytes = TransactionBytes::Parts { first, last };
        self.add(entry);
    }

    /// Is applied here with the next barrier.
    pub(crate) fn append_elsewhere(
        &self,
        epoch: Epoch,
        source: &BinlogSource,
        transactions: &[(Gtid, Bytes)],
    ) {
        let entry = entry(self.next_index(), epoch, source, transactions);
        self.shared.lock().unwrap().elsewhere.push(entry);
    }

    pub(crate) fn purge_before(&self, index: u64) {
        self.shared.lock().unwrap().purged_before = index;
    }

    pub(crate) fn barriers(&self) -> u32 {
        self.shared.lock().unwrap().barriers
    }

    pub(crate) fn lose_leader(&self, barriers: u32) {
        self.shared.lock().unwrap().leaderless = barriers;
    }

    fn check(&self, from: u64) -> Result<(), ReadError> {
        let first = self.shared.lock().unwrap().purged_before;
        if from < first {
            return Err(ReadError::Purged {
                first: LogIndex(first),
            });
        }
        Ok(())
    }
}

fn entry(
    index: LogIndex,
    epoch: Epoch,
    source: &BinlogSource,
    transactions: &[(Gtid, Bytes)],
) -> AcceptedEntry {
    AcceptedEntry {
        index,
        epoch,
        source: source.clone(),
        transactions: transactions
            .iter()
            .map(|(gtid, bytes)| AcceptedTransaction {
                gtid: *gtid,
                checksum: 0,
                bytes: TransactionBytes::Whole(bytes.clone()),
            })
            .collect(),
    }
}

impl CommittedLog for FakeLog {
    fn applied(&self) -> watch::Receiver<LogIndex> {
        self.applied.subscribe()
    }

    fn accepted(&self) -> Arc<GtidSet> {
        self.shared.lock().unwrap().accepted.clone()
    }

    async fn barrier(&self) -> Result<(), ReadError> {
        let mut shared = self.shared.lock().unwrap();
        shared.barriers += 1;
        if shared.leaderless > 0 {
            shared.leaderless -= 1;
            return Err(ReadError::NoLeader);
        }
        let elsewhere = std::mem::take(&mut shared.elsewhere);
        drop(shared);
        for mut entry in elsewhere {
            entry.index = self.next_index();
            self.add(entry);
        }
        Ok(())
    }

    async fn seek(&self, executed: &GtidSet) -> Result<LogIndex, ReadError> {
        let shared = self.shared.lock().unwrap();
        let outside = |entry: &AcceptedEntry| {
            let mut gtids = entry.transactions.iter().map(|one| one.gtid);
            gtids.any(|gtid| !executed.contains(gtid))
        };
        let first = shared.entries.values().find(|entry| outside(entry));
        let index = first.map_or(shared.purged_before, |entry| entry.index.0);
        drop(shared);
        self.check(index)?;
        Ok(LogIndex(index))
    }

    async fn read(&self, from: LogIndex, bytes_max: usize) -> Result<ReadBatch, ReadError> {
        self.check(from.0)?;
        let shared = self.shared.lock().unwrap();
        let mut batch = ReadBatch {
            entries: Vec::new(),
            next: self.applied.borrow().next(),
        };
        let mut bytes = 0;
        for entry in shared.entries.range(from.0..).map(|(_, entry)| entry) {
            for transaction in &entry.transactions {
                if let TransactionBytes::Whole(events) = &transaction.bytes {
                    bytes += events.len();
                }
            }
            if bytes > bytes_max && !batch.entries.is_empty() {
                batch.next = entry.index;
                break;
            }
            batch.entries.push(entry.clone());
        }
        Ok(batch)
    }

    async fn read_parts(
        &self,
        gtid: Gtid,
        from: LogIndex,
        last: LogIndex,
    ) -> Result<(Vec<Fragment>, LogIndex), ReadError> {
        self.check(from.0)?;
        let shared = self.shared.lock().unwrap();
        // One at a time, so that a reader must go on.
        let part = shared.parts.range(from.0..=last.0).next();
        let Some((index, part)) = part else {
            return Ok((Vec::new(), last.next()));
        };
        assert_eq!(part.gtid, gtid);
        let rest = shared.parts.range(index + 1..=last.0).next();
        let next = rest.map_or(last.next(), |(index, _)| LogIndex(*index));
        Ok((vec![part.clone()], next))
    }
}

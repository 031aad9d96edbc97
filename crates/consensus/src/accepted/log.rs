use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use openraft::EntryPayload;
use quorate_types::{
    BinlogSource, Command, Epoch, FRAGMENT_FIRST, Fragment, Gtid, GtidSet, LogIndex,
    TransactionBatch,
};

use crate::accepted::AcceptedIndex;
use crate::apply::{AcceptedRecord, Place};
use crate::log::LogReader;
use crate::machine::Published;
use crate::types::RaftEntry;

/// What is read of the log at once when transactions are looked up in it.
const READ_BYTES: usize = 1 << 20;

/// A piece of the accepted log.
#[derive(Clone, Debug, Default)]
pub struct ReadBatch {
    pub entries: Vec<AcceptedEntry>,
    /// Where to read on; at most one after the last applied index.
    pub next: LogIndex,
}

/// The accepted transactions of one log entry.
#[derive(Clone, Debug)]
pub struct AcceptedEntry {
    pub index: LogIndex,
    pub epoch: Epoch,
    pub source: BinlogSource,
    pub transactions: Vec<AcceptedTransaction>,
}

#[derive(Clone, Debug)]
pub struct AcceptedTransaction {
    pub gtid: Gtid,
    pub checksum: u32,
    pub bytes: TransactionBytes,
}

/// Where a transaction's events are.
#[derive(Clone, Debug)]
pub enum TransactionBytes {
    Whole(Bytes),
    /// In fragments of the entries `first` to `last` (inclusive), see [`AcceptedLog::read_parts`].
    Parts {
        first: LogIndex,
        last: LogIndex,
    },
}

/// Why the accepted log could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("transactions before log index {first} are no longer in this node's log")]
    Purged { first: LogIndex },
    #[error("read the log")]
    Disk(#[from] io::Error),
    #[error("the log is damaged: {0}")]
    Damaged(String),
}

/// Reads accepted transactions, in log order, up to what this node applied.
#[derive(Clone)]
pub struct AcceptedLog {
    log: LogReader,
    index: AcceptedIndex,
    published: Published,
    /// Where reads of fragmented transactions stopped, and the part and epoch that go on there.
    cursors: Arc<Mutex<Cursors>>,
}

type Cursors = BTreeMap<(Gtid, LogIndex), (u32, Epoch)>;

/// Reads of fragmented transactions that are remembered; others count the parts from the first.
const CURSORS_MAX: usize = 64;

impl AcceptedLog {
    pub(crate) fn new(log: LogReader, index: AcceptedIndex, published: Published) -> Self {
        Self {
            log,
            index,
            published,
            cursors: Arc::default(),
        }
    }

    fn applied(&self) -> LogIndex {
        *self.published.index.borrow()
    }

    /// The first entry that can be read: those before it are purged, or about to be.
    fn first(&self) -> LogIndex {
        self.log.first().max(self.index.floor())
    }

    /// Where to start reading for somebody who has `executed`: no accepted transaction before this
    /// index is outside the set.
    ///
    /// # Errors
    /// [`ReadError::Purged`] if a transaction outside `executed` can no longer be read.
    pub async fn seek(&self, executed: &GtidSet) -> Result<LogIndex, ReadError> {
        Ok(self.find_missing(executed).await?.0)
    }

    /// The first entry that somebody who has `executed` still needs. A transaction in parts is
    /// read from where its last part is, and needs the log from its first part on.
    ///
    /// # Errors
    /// As [`Self::seek`].
    pub async fn first_needed(&self, executed: &GtidSet) -> Result<LogIndex, ReadError> {
        Ok(self.find_missing(executed).await?.1)
    }

    /// Whether everything outside `executed` can still be read here.
    #[must_use]
    pub fn can_serve(&self, executed: &GtidSet) -> bool {
        executed.contains_set(&self.index.unreadable())
    }

    /// The entry where the first transaction outside `executed` ends, and where it begins.
    async fn find_missing(&self, executed: &GtidSet) -> Result<(LogIndex, LogIndex), ReadError> {
        loop {
            let first = self.first();
            if !self.can_serve(executed) {
                return Err(ReadError::Purged { first });
            }
            match self.walk(first, executed).await {
                // Something was purged meanwhile: what the walk saw may have lacked it.
                Err(ReadError::Purged { .. }) if self.first() > first => {}
                found => return found,
            }
        }
    }

    async fn walk(
        &self,
        first: LogIndex,
        executed: &GtidSet,
    ) -> Result<(LogIndex, LogIndex), ReadError> {
        let mut at = self.index.checkpoint(executed).unwrap_or(first).max(first);
        let last = self.applied();
        // From the checkpoint on, past what is known to be there entry by entry.
        while at <= last {
            let records = self.records(at, last).await?;
            let Some(end) = records.last().map(|record| record.index) else {
                return Ok((last.next(), last.next()));
            };
            let missing = |record: &Arc<AcceptedRecord>| {
                let mut items = record.transactions.iter();
                let item = items.find(|item| !executed.contains(item.gtid))?;
                let begin = match item.place {
                    Place::Parts { first, .. } => first,
                    Place::Entry { .. } | Place::Nowhere => record.index,
                };
                Some((record.index, begin))
            };
            if let Some(found) = records.iter().find_map(missing) {
                return Ok(found);
            }
            at = end.next();
        }
        Ok((at, at))
    }

    /// Accepted transactions at and after `from` in log order: at most `bytes_max` of them, but at
    /// least one entry if there is any. Never waits for more to be applied.
    ///
    /// # Errors
    /// [`ReadError::Purged`] if `from` is before what can be read.
    pub async fn read(&self, from: LogIndex, bytes_max: usize) -> Result<ReadBatch, ReadError> {
        let first = self.first();
        if from < first {
            return Err(ReadError::Purged { first });
        }
        let last = self.applied();
        let mut batch = ReadBatch {
            entries: Vec::new(),
            next: from,
        };
        let mut left = bytes_max;
        let mut entries = Window::default();
        while batch.next <= last {
            let records = self.records(batch.next, last).await?;
            if records.is_empty() {
                batch.next = last.next();
            }
            for record in records {
                let entry = entries.get(&self.log, record.index, last, left).await?;
                let accepted = accepted_entry(&record, entry)?;
                let bytes = accepted_bytes(&accepted);
                if bytes > left && !batch.entries.is_empty() {
                    return Ok(batch);
                }
                left = left.saturating_sub(bytes);
                batch.next = record.index.next();
                batch.entries.push(accepted);
                if left == 0 {
                    return Ok(batch);
                }
            }
        }
        Ok(batch)
    }

    /// The parts of an accepted transaction at and after `from`, up to `last`, in order and each
    /// once; at least one, with the index after the last one given. Rejected copies of a part,
    /// which the log may hold between them, are left out.
    ///
    /// # Errors
    /// [`ReadError::Purged`] if `from` is before what can be read.
    pub async fn read_parts(
        &self,
        gtid: Gtid,
        from: LogIndex,
        last: LogIndex,
    ) -> Result<(Vec<Fragment>, LogIndex), ReadError> {
        let first = self.first();
        if from < first {
            return Err(ReadError::Purged { first });
        }
        let records = self.records(last, last).await?;
        let place = records
            .iter()
            .flat_map(|record| &record.transactions)
            .find(|item| item.gtid == gtid)
            .map(|item| item.place);
        let Some(Place::Parts { first: begin, .. }) = place else {
            return Err(ReadError::Damaged(format!(
                "entry {last} does not end transaction {gtid}"
            )));
        };
        // Which part is next is known only from the beginning; those before `from` are counted.
        let (mut at, mut next_part, mut epoch) = match self.cursors().remove(&(gtid, from)) {
            Some((part, epoch)) => (from, part, Some(epoch)),
            None => (begin, FRAGMENT_FIRST, None),
        };
        let mut parts = Vec::new();
        while at <= last && parts.is_empty() {
            let entries = self.log.read(at.0..last.0 + 1, READ_BYTES).await?;
            let Some(end) = entries.last().map(|entry| LogIndex(entry.log_id.index)) else {
                return Err(ReadError::Damaged(format!("entry {at} is missing")));
            };
            for entry in entries {
                let index = LogIndex(entry.log_id.index);
                let Some(fragment) = part(&entry, gtid, next_part) else {
                    continue;
                };
                if *epoch.get_or_insert(fragment.epoch) != fragment.epoch {
                    continue;
                }
                next_part += 1;
                if index >= from {
                    parts.push(fragment.clone());
                }
            }
            at = end.next();
        }
        if let Some(epoch) = epoch
            && at <= last
        {
            let mut cursors = self.cursors();
            cursors.insert((gtid, at), (next_part, epoch));
            while cursors.len() > CURSORS_MAX {
                cursors.pop_first();
            }
        }
        Ok((parts, at))
    }

    fn cursors(&self) -> MutexGuard<'_, Cursors> {
        self.cursors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The checksum of every transaction that is still in the index.
    ///
    /// # Errors
    /// [`ReadError::Disk`]
    pub async fn checksums(&self) -> Result<BTreeMap<Gtid, u32>, ReadError> {
        let last = self.applied();
        let mut checksums = BTreeMap::new();
        let mut at = LogIndex::ZERO;
        while at <= last {
            let records = self.all_records(at, last).await?;
            let Some(end) = records.last().map(|record| record.index) else {
                break;
            };
            for item in records.iter().flat_map(|record| &record.transactions) {
                checksums.insert(item.gtid, item.checksum);
            }
            at = end.next();
        }
        Ok(checksums)
    }

    /// Records that can be read, from `from` on; an error if some of them went meanwhile.
    async fn records(
        &self,
        from: LogIndex,
        last: LogIndex,
    ) -> Result<Vec<Arc<AcceptedRecord>>, ReadError> {
        let records = self.all_records(from, last).await?;
        // Afterwards: what is purged disappears at once, and its absence must not be taken for
        // nothing having been there.
        let first = self.first();
        match from < first {
            true => Err(ReadError::Purged { first }),
            false => Ok(records),
        }
    }

    async fn all_records(
        &self,
        from: LogIndex,
        last: LogIndex,
    ) -> Result<Vec<Arc<AcceptedRecord>>, ReadError> {
        let index = self.index.clone();
        if let Some(records) = index.read_recent(from, last) {
            return Ok(records);
        }
        let read = self.log.on_disk(move |disk| index.read(disk, from, last));
        Ok(read.await??)
    }
}

/// Entries that were read together, so that neighbours cost one read.
#[derive(Default)]
struct Window {
    entries: BTreeMap<u64, RaftEntry>,
}

impl Window {
    async fn get(
        &mut self,
        log: &LogReader,
        index: LogIndex,
        last: LogIndex,
        bytes_max: usize,
    ) -> Result<RaftEntry, ReadError> {
        if let Some(entry) = self.entries.remove(&index.0) {
            return Ok(entry);
        }
        let bytes_max = bytes_max.min(READ_BYTES);
        let read = log.read(index.0..last.0 + 1, bytes_max).await?;
        self.entries = read
            .into_iter()
            .map(|entry| (entry.log_id.index, entry))
            .collect();
        self.entries
            .remove(&index.0)
            .ok_or_else(|| match index < log.first() {
                true => ReadError::Purged { first: log.first() },
                false => ReadError::Damaged(format!("entry {index} is missing")),
            })
    }
}

fn part(entry: &RaftEntry, gtid: Gtid, part: u32) -> Option<&Fragment> {
    let EntryPayload::Normal(command) = &entry.payload else {
        return None;
    };
    match &*command.command {
        Command::Fragment(fragment) if fragment.gtid == gtid && fragment.part == part => {
            Some(fragment)
        }
        _ => None,
    }
}

fn accepted_entry(record: &AcceptedRecord, entry: RaftEntry) -> Result<AcceptedEntry, ReadError> {
    let index = record.index;
    let damaged = || ReadError::Damaged(format!("entry {index} is not what its record says"));
    let EntryPayload::Normal(command) = entry.payload else {
        return Err(damaged());
    };
    let (epoch, source) = match &*command.command {
        Command::Transactions(batch) => (batch.epoch, &batch.source),
        Command::Fragment(fragment) => (fragment.epoch, &fragment.source),
        _ => return Err(damaged()),
    };
    let transactions = record
        .transactions
        .iter()
        .map(|item| {
            let bytes = match (item.place, &*command.command) {
                (Place::Entry { position }, Command::Transactions(batch)) => {
                    TransactionBytes::Whole(events(batch, position, item.gtid)?)
                }
                (Place::Parts { first, .. }, Command::Fragment(_)) => {
                    TransactionBytes::Parts { first, last: index }
                }
                _ => return None,
            };
            Some(AcceptedTransaction {
                gtid: item.gtid,
                checksum: item.checksum,
                bytes,
            })
        })
        .collect::<Option<Vec<_>>>()
        .ok_or_else(damaged)?;
    Ok(AcceptedEntry {
        index,
        epoch,
        source: source.clone(),
        transactions,
    })
}

fn events(batch: &TransactionBatch, position: u32, gtid: Gtid) -> Option<Bytes> {
    let transaction = batch.transactions.get(usize::try_from(position).ok()?)?;
    (transaction.gtid == gtid).then(|| transaction.events.clone())
}

fn accepted_bytes(entry: &AcceptedEntry) -> usize {
    entry
        .transactions
        .iter()
        .map(|transaction| match &transaction.bytes {
            TransactionBytes::Whole(events) => events.len(),
            TransactionBytes::Parts { .. } => 0,
        })
        .sum()
}

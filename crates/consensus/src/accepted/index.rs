use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use quorate_storage::{LogRead, Record};
use quorate_types::{GtidSet, LogIndex};

use crate::apply::AcceptedRecord;
use crate::log::DiskReader;

/// Records between two checkpoints: what a seek walks at most after it found one.
const CHECKPOINT_RECORDS: u64 = 1024;

/// Checkpoints that are kept; past it every other one goes, and seeks walk further.
const CHECKPOINTS_MAX: usize = 4096;

/// Records that stay in memory when they are on the disk too: readers are mostly at the end.
const RECENT_MAX: usize = 4096;

/// Bytes of records that are read from the disk at once.
const PAGE_BYTES: usize = 256 << 10;

/// The index of accepted transactions, shared by the state machine, which grows it, and readers.
#[derive(Clone, Default)]
pub(crate) struct AcceptedIndex(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    /// The newest records; all that are not on the disk yet.
    recent: BTreeMap<LogIndex, Arc<AcceptedRecord>>,
    on_disk: Option<LogIndex>,
    /// Accepted, but in no entry of this node's log: a baseline, what was before a snapshot that
    /// another node sent, what was purged.
    unreadable: Arc<GtidSet>,
    /// Nothing before this entry is read any more.
    floor: LogIndex,
    /// By the index before which everything in the set was accepted, and nothing else.
    checkpoints: BTreeMap<LogIndex, Arc<GtidSet>>,
    since_checkpoint: u64,
    stride: u64,
}

impl AcceptedIndex {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Learns what the disk has in the log's entries from `first`, where `accepted` is the set as
    /// of the entry `last`.
    pub(crate) fn load(
        &self,
        disk: &DiskReader,
        first: LogIndex,
        last: LogIndex,
        accepted: &GtidSet,
    ) -> io::Result<()> {
        let mut readable = GtidSet::new();
        let mut marks: Vec<(LogIndex, GtidSet)> = Vec::new();
        let mut count = 0;
        for_each_record(disk, first, last, |record| {
            if count % CHECKPOINT_RECORDS == 0 {
                marks.push((record.index, readable.clone()));
            }
            count += 1;
            for item in &record.transactions {
                if item.is_in_log_from(first) {
                    readable.insert(item.gtid);
                }
            }
        })?;
        let unreadable = accepted.difference(&readable);
        let mut inner = self.inner();
        *inner = Inner {
            on_disk: Some(last),
            unreadable: Arc::new(unreadable.clone()),
            floor: first,
            ..Inner::default()
        };
        for (index, mut before) in marks {
            before.union(&unreadable);
            inner.checkpoints.insert(index, Arc::new(before));
        }
        inner.thin_out();
        Ok(())
    }

    /// Forgets everything: `accepted` is the set of a snapshot that another node sent.
    pub(crate) fn replace(&self, accepted: &GtidSet, last: LogIndex) {
        *self.inner() = Inner {
            on_disk: Some(last),
            unreadable: Arc::new(accepted.clone()),
            floor: last.next(),
            ..Inner::default()
        };
    }

    /// Adds a record; `accepted` is the set with it.
    pub(crate) fn push(&self, record: Arc<AcceptedRecord>, accepted: &GtidSet) {
        let mut inner = self.inner();
        if inner.since_checkpoint == 0 {
            let after = record.index.next();
            inner.checkpoints.insert(after, Arc::new(accepted.clone()));
            inner.thin_out();
        }
        inner.since_checkpoint =
            (inner.since_checkpoint + 1) % inner.stride.max(CHECKPOINT_RECORDS);
        inner.recent.insert(record.index, record);
        inner.evict();
    }

    /// The disk gives every record up to this one.
    pub(crate) fn on_indexed(&self, last: LogIndex) {
        let mut inner = self.inner();
        inner.on_disk = inner.on_disk.max(Some(last));
        inner.evict();
    }

    /// `gtids` can no longer be read here, or never could; nothing at or before `upto` is asked
    /// for again.
    pub(crate) fn make_unreadable(&self, gtids: &GtidSet, upto: Option<LogIndex>) {
        let mut inner = self.inner();
        Arc::make_mut(&mut inner.unreadable).union(gtids);
        if let Some(upto) = upto {
            inner.checkpoints = inner.checkpoints.split_off(&upto.next());
            inner.recent = inner.recent.split_off(&upto.next());
            inner.floor = inner.floor.max(upto.next());
        }
    }

    /// What was accepted up to here is served to nobody any more: who lacks some of it lacks what no
    /// entry has, and a reader that is under way would pass over that. The records stay, since
    /// repairs compare their checksums.
    pub(crate) fn begin_anew(&self, accepted: &GtidSet, upto: LogIndex) {
        let mut inner = self.inner();
        inner.unreadable = Arc::new(accepted.clone());
        inner.checkpoints = inner.checkpoints.split_off(&upto.next());
        inner.floor = inner.floor.max(upto.next());
    }

    /// The first entry that may be read.
    pub(crate) fn floor(&self) -> LogIndex {
        self.inner().floor
    }

    /// What can no longer be read when the entries from `first` to `upto` are gone, where `last` is
    /// the last one: in memory or on the disk, and a transaction of which only the beginning goes.
    pub(crate) fn gtids_upto(
        &self,
        disk: &DiskReader,
        (first, upto): (LogIndex, LogIndex),
        last: LogIndex,
    ) -> io::Result<GtidSet> {
        let mut set = GtidSet::new();
        let mut at = first;
        loop {
            let records = self.read(disk, at, last)?;
            let Some(end) = records.last().map(|record| record.index) else {
                return Ok(set);
            };
            for record in records {
                let goes = record.index <= upto;
                for item in &record.transactions {
                    if goes || !item.is_in_log_from(upto.next()) {
                        set.insert(item.gtid);
                    }
                }
                // Parts are contiguous: what comes later begins later.
                if !goes {
                    return Ok(set);
                }
            }
            at = end.next();
        }
    }

    pub(crate) fn unreadable(&self) -> Arc<GtidSet> {
        self.inner().unreadable.clone()
    }

    /// The last checkpoint before which only GTIDs of `executed` were accepted.
    pub(crate) fn checkpoint(&self, executed: &GtidSet) -> Option<LogIndex> {
        // Sets only grow along the log, so it can be searched by halves.
        let marks: Vec<(LogIndex, Arc<GtidSet>)> = {
            let inner = self.inner();
            inner
                .checkpoints
                .iter()
                .map(|(index, before)| (*index, before.clone()))
                .collect()
        };
        let after = marks.partition_point(|(_, before)| executed.contains_set(before));
        after.checked_sub(1).map(|at| marks[at].0)
    }

    /// Records from `first` to `last`, inclusive, if memory has all of them: some of the first.
    pub(crate) fn read_recent(
        &self,
        first: LogIndex,
        last: LogIndex,
    ) -> Option<Vec<Arc<AcceptedRecord>>> {
        if first > last {
            return Some(Vec::new());
        }
        let inner = self.inner();
        let complete = match inner.recent.keys().next() {
            Some(from) => *from <= first,
            None => inner.on_disk.is_none(),
        };
        complete.then(|| inner.recent_from(first, last))
    }

    /// Records from `first` to `last`, inclusive: some of the first of them, at least one if there
    /// are any.
    pub(crate) fn read(
        &self,
        disk: &DiskReader,
        first: LogIndex,
        last: LogIndex,
    ) -> io::Result<Vec<Arc<AcceptedRecord>>> {
        if first > last {
            return Ok(Vec::new());
        }
        // Memory is looked at first: what leaves it meanwhile is on the disk by then.
        let (recent, end) = {
            let inner = self.inner();
            let from = inner.recent.keys().next().copied();
            let end = from.map_or(last.next(), |from| from.min(last.next()));
            (inner.recent_from(first, last), end)
        };
        if first < end {
            let records = disk
                .read_accepted(first..end, PAGE_BYTES)
                .map_err(io::Error::other)?;
            if !records.is_empty() {
                let records = records.iter().map(|record| decode(record).map(Arc::new));
                return records.collect();
            }
        }
        Ok(recent)
    }
}

impl Inner {
    fn recent_from(&self, first: LogIndex, last: LogIndex) -> Vec<Arc<AcceptedRecord>> {
        self.recent
            .range(first..=last)
            .map(|(_, record)| record.clone())
            .collect()
    }

    fn evict(&mut self) {
        while self.recent.len() > RECENT_MAX
            && let Some(first) = self.recent.first_entry()
            && Some(*first.key()) <= self.on_disk
        {
            first.remove();
        }
    }

    fn thin_out(&mut self) {
        while self.checkpoints.len() > CHECKPOINTS_MAX {
            self.stride = self.stride.max(CHECKPOINT_RECORDS) * 2;
            let mut keep = false;
            self.checkpoints.retain(|_, _| {
                keep = !keep;
                keep
            });
        }
    }
}

fn decode(record: &Record) -> io::Result<AcceptedRecord> {
    AcceptedRecord::decode(record.index, &record.bytes)
        .map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Walks the records on the disk from `first` to `last`, inclusive.
pub(crate) fn for_each_record(
    disk: &DiskReader,
    first: LogIndex,
    last: LogIndex,
    mut visit: impl FnMut(AcceptedRecord),
) -> io::Result<()> {
    let mut next = first;
    while next <= last {
        let page = disk
            .read_accepted(next..last.next(), PAGE_BYTES)
            .map_err(io::Error::other)?;
        let Some(read_to) = page.last().map(|record| record.index) else {
            break;
        };
        for record in &page {
            visit(decode(record)?);
        }
        next = read_to.next();
    }
    Ok(())
}

use std::fmt::Debug;
use std::io;
use std::ops::RangeBounds;
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::Stream;
use openraft::storage::{IOFlushed, RaftLogStorage};
use openraft::{LogState, OptionalSend, RaftLogReader};
use quorate_storage::{LogDisk, LogRead, MetaKey, Record, Write};
use quorate_types::LogIndex;
use tokio::time::Instant;

use crate::codec;
use crate::log::marks::LogMarks;
use crate::log::read_object::DiskReader;
use crate::log::reader::{LogReader, State, decode};
use crate::log::tail::Tail;
use crate::log::writer::{Done, Exec, Hooks, OnIndexed, Request, Writer};
use crate::metrics::Metrics;
use crate::types::{RaftEntry, RaftLogId, RaftVote, TypeConfig};

/// What is read of the log at once to measure it.
const MEASURE_BYTES: usize = 1 << 20;

/// The log of one node: appends return as soon as entries can be read, and are reported as flushed
/// when they are synced, in order; a vote is synced before it is given.
pub(crate) struct LogStore {
    reader: LogReader,
    writer: Writer,
    last: Option<RaftLogId>,
    committed: Option<RaftLogId>,
}

impl LogStore {
    /// Reads what the disk has and starts its writer.
    pub(crate) fn open<D: LogDisk>(
        mut disk: D,
        exec: Exec,
        on_indexed: OnIndexed,
        metrics: Metrics,
    ) -> io::Result<Self> {
        let reader = DiskReader::new(disk.reader());
        let meta = |key| reader.meta(key).map_err(io::Error::other);
        let invalid = |error| io::Error::new(io::ErrorKind::InvalidData, error);
        let vote = meta(MetaKey::Vote)?
            .map(codec::vote_from_bytes)
            .transpose()
            .map_err(invalid)?;
        let committed = meta(MetaKey::Committed)?
            .map(codec::log_id_from_bytes)
            .transpose()
            .map_err(invalid)?;
        let purged = meta(MetaKey::Purged)?
            .map(codec::log_id_from_bytes)
            .transpose()
            .map_err(invalid)?;
        let last_entry = last_entry(&reader)?;
        if let (Some(last), Some(purged)) = (last_entry, purged)
            && last.index < purged.index
        {
            // A crash may keep the mark of a purge and not the purge. After a snapshot of another
            // node nothing that comes next would follow what is left.
            let write = Write::PurgeTo(LogIndex(purged.index));
            disk.write(vec![write]).map_err(io::Error::other)?;
        }
        let last = last_entry.max(purged);
        let next = last.map_or(0, |last| last.index + 1);
        let first = purged.map_or(0, |purged| purged.index + 1);
        let state = Arc::new(Mutex::new(State {
            tail: Tail::new(next),
            vote,
            purged,
            marks: load_marks(&reader, LogIndex(first), LogIndex(next))?,
            awaited: None,
        }));
        let synced = state.clone();
        let on_synced = Box::new(move |append| {
            let mut state = synced.lock().unwrap_or_else(PoisonError::into_inner);
            state.tail.on_synced(append);
        });
        Ok(Self {
            writer: Writer::start(
                disk,
                exec,
                Hooks {
                    on_synced,
                    on_indexed,
                },
                metrics,
            )?,
            reader: LogReader::new(reader, exec, state),
            last,
            // A crash may keep the record of a commit and lose the tail after it: never more
            // than the log has.
            committed: committed.min(last),
        })
    }

    pub(crate) fn reader(&self) -> LogReader {
        self.reader.clone()
    }

    pub(crate) fn writer(&self) -> Writer {
        self.writer.clone()
    }
}

fn last_entry<R: LogRead>(reader: &R) -> io::Result<Option<RaftLogId>> {
    let Some((_, last)) = reader.bounds().map_err(io::Error::other)? else {
        return Ok(None);
    };
    let mut records = reader
        .read(last..last.next(), 1)
        .map_err(io::Error::other)?;
    match records.pop() {
        Some(record) => Ok(Some(decode(record.index, record.bytes)?.log_id)),
        None => Err(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("the log's last record, {last}, cannot be read"),
        )),
    }
}

/// What was saved, and what came after: it is read, since nothing else knows its size.
fn load_marks<R: LogRead>(reader: &R, first: LogIndex, next: LogIndex) -> io::Result<LogMarks> {
    let saved = reader.meta(MetaKey::Marks).map_err(io::Error::other)?;
    let saved = saved.and_then(|saved| LogMarks::decode(&saved, first, next));
    let mut marks = saved.unwrap_or_else(|| LogMarks::new(first));
    while marks.next() < next {
        let range = marks.next().max(first)..next;
        let records = reader
            .read(range, MEASURE_BYTES)
            .map_err(io::Error::other)?;
        if records.is_empty() {
            break;
        }
        for record in records {
            marks.append(record.index, record.bytes.len());
        }
    }
    Ok(marks)
}

impl RaftLogReader<TypeConfig> for LogStore {
    async fn try_get_log_entries<B: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: B,
    ) -> io::Result<Vec<RaftEntry>> {
        self.reader.try_get_log_entries(range).await
    }

    async fn entries_stream<B>(
        &mut self,
        range: B,
    ) -> impl Stream<Item = Result<RaftEntry, io::Error>> + OptionalSend
    where
        B: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        self.reader.entries_stream(range).await
    }

    async fn read_vote(&mut self) -> io::Result<Option<RaftVote>> {
        self.reader.read_vote().await
    }
}

impl RaftLogStorage<TypeConfig> for LogStore {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        Ok(LogState {
            last_purged_log_id: self.reader.state().purged,
            last_log_id: self.last,
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        self.reader.clone()
    }

    async fn save_vote(&mut self, vote: &RaftVote) -> io::Result<()> {
        let write = Write::SetMeta(MetaKey::Vote, codec::vote_to_bytes(vote));
        self.writer.write_synced(vec![write]).await?;
        self.reader.state().vote = Some(*vote);
        Ok(())
    }

    /// Not synced for its own sake: after a crash an older value only means that entries are
    /// applied once the leader says again that they are committed.
    async fn save_committed(&mut self, committed: Option<RaftLogId>) -> io::Result<()> {
        self.committed = committed;
        if let Some(id) = committed {
            let write = Write::SetMeta(MetaKey::Committed, codec::log_id_to_bytes(id));
            self.writer.write_lazily(vec![write]).await?;
        }
        Ok(())
    }

    async fn read_committed(&mut self) -> io::Result<Option<RaftLogId>> {
        Ok(self.committed)
    }

    async fn append<I>(&mut self, entries: I, flushed: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = RaftEntry> + OptionalSend,
        I::IntoIter: OptionalSend,
    {
        let entries: Vec<RaftEntry> = entries.into_iter().collect();
        let records: Vec<Record> = entries
            .iter()
            .map(|entry| Record {
                index: LogIndex(entry.log_id.index),
                bytes: codec::entry_to_bytes(entry),
            })
            .collect();
        // Readable before it is written: replication and the local sync go side by side.
        let append = {
            let mut state = self.reader.state();
            for record in &records {
                state.marks.append(record.index, record.bytes.len());
            }
            state.tell_size();
            state.tail.append(&entries)
        };
        self.last = entries.last().map(|entry| entry.log_id).or(self.last);
        let writes = match records.is_empty() {
            true => Vec::new(),
            false => vec![Write::Append(records)],
        };
        let done = Done::Append {
            flushed,
            append,
            at: Instant::now(),
        };
        Ok(self.writer.send(Request { writes, done }).await?)
    }

    async fn truncate_after(&mut self, last: Option<RaftLogId>) -> io::Result<()> {
        let from = last.map_or(0, |last| last.index + 1);
        {
            let mut state = self.reader.state();
            let bytes = state.tail.truncate(from);
            state.marks.truncate(LogIndex(from), bytes);
        }
        self.last = self.last.min(last).max(self.reader.state().purged);
        let write = Write::TruncateFrom(LogIndex(from));
        Ok(self.writer.write_synced(vec![write]).await?)
    }

    async fn purge(&mut self, upto: RaftLogId) -> io::Result<()> {
        self.last = self.last.max(Some(upto));
        {
            let mut state = self.reader.state();
            state.purged = state.purged.max(Some(upto));
            state.tail.purge(upto.index);
            state.marks.purge(LogIndex(upto.index + 1));
        }
        // The mark goes first: entries before it are ignored at the next start, but a missing
        // beginning without a mark would be damage.
        let writes = vec![
            Write::SetMeta(MetaKey::Purged, codec::log_id_to_bytes(upto)),
            Write::PurgeTo(LogIndex(upto.index)),
        ];
        Ok(self.writer.write_soon(writes).await?)
    }
}

#[cfg(test)]
mod tests {
    use openraft::storage::RaftLogStorageExt;
    use openraft::vote::RaftLeaderId;
    use openraft::{EntryPayload, LogId};
    use quorate_storage::MemoryDisk;

    use super::*;

    fn open(disk: MemoryDisk) -> LogStore {
        let on_indexed: OnIndexed = Box::new(|_| {});
        LogStore::open(disk, Exec::Inline, on_indexed, Metrics::default()).expect("open")
    }

    fn blank(index: u64) -> RaftEntry {
        let leader = crate::types::RaftLeaderId::new(1, 1);
        RaftEntry {
            log_id: LogId::new(leader, index),
            payload: EntryPayload::Blank,
        }
    }

    #[tokio::test]
    async fn entries_follow_a_snapshot_wherever_a_crash_came() {
        let mut torn = 0;
        for seed in 0..64 {
            let disk = MemoryDisk::new();
            let mut store = open(disk.clone());
            store.blocking_append((1..=10).map(blank)).await.unwrap();
            // As after a snapshot of another node.
            store.purge(blank(20).log_id).await.unwrap();
            drop(store);
            disk.crash(seed);
            let disk = disk.reopen();
            let reader = disk.reader();
            let marked = reader.meta(MetaKey::Purged).unwrap().is_some();
            torn += u32::from(marked && reader.bounds().unwrap().is_some());

            let mut store = open(disk);
            let state = store.get_log_state().await.unwrap();
            let last = state.last_log_id.unwrap().index;
            assert_eq!(last, if marked { 20 } else { 10 });
            let next = last + 1..last + 4;
            store
                .blocking_append(next.clone().map(blank))
                .await
                .unwrap();
            let read = store.try_get_log_entries(next.clone()).await.unwrap();
            assert!(read.iter().map(|entry| entry.log_id.index).eq(next));
        }
        assert!(torn > 0, "no crash kept the mark without the purge");
    }
}

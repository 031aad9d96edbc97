use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::{Stream, stream};
use openraft::{OptionalSend, RaftLogReader};
use quorate_storage::LogRead;
use quorate_types::LogIndex;
use tokio::sync::oneshot;

use crate::codec;
use crate::log::tail::{Tail, entry_bytes};
use crate::log::{DiskReader, Exec, LogMarks, MarkSpacing};
use crate::types::{RaftEntry, RaftLogId, RaftVote, TypeConfig};

/// One message to a follower, encoding included. Larger ones would keep the connection busy for
/// longer than a heartbeat may wait behind them on a slow link; an entry alone is at most half.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// What the store knows without asking the disk.
pub(super) struct State {
    pub(super) tail: Tail,
    pub(super) vote: Option<RaftVote>,
    pub(super) purged: Option<RaftLogId>,
    pub(super) marks: LogMarks,
    /// Whom to tell when the log takes so many bytes.
    pub(super) awaited: Option<(u64, oneshot::Sender<()>)>,
}

impl State {
    /// The first entry that is there, or would be if the log is empty.
    fn first(&self) -> LogIndex {
        LogIndex(self.purged.map_or(0, |purged| purged.index + 1))
    }

    /// To be called when the log grew.
    pub(super) fn tell_size(&mut self) {
        let first = self.first();
        let reached = self
            .awaited
            .take_if(|(bytes, _)| self.marks.retained(first) >= *bytes);
        if let Some((_, waiter)) = reached {
            // A waiter that went away no longer wants to know.
            let _ = waiter.send(());
        }
    }
}

/// Reads the log: its tail from memory, the rest from the disk.
#[derive(Clone)]
pub(crate) struct LogReader {
    disk: DiskReader,
    exec: Exec,
    state: Arc<Mutex<State>>,
}

impl LogReader {
    pub(super) fn new(disk: DiskReader, exec: Exec, state: Arc<Mutex<State>>) -> Self {
        Self { disk, exec, state }
    }

    pub(super) fn state(&self) -> MutexGuard<'_, State> {
        // Nothing in here panics half way; and if it did, values are replaced whole.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The first entry that is there, or would be if the log is empty.
    pub(crate) fn first(&self) -> LogIndex {
        self.state().first()
    }

    /// Tells when the log takes so many bytes; whoever asked before is not told any more.
    pub(crate) fn when_it_takes(&self, bytes: u64) -> oneshot::Receiver<()> {
        let (waiter, reached) = oneshot::channel();
        let mut state = self.state();
        state.awaited = Some((bytes, waiter));
        state.tell_size();
        reached
    }

    /// How large the log was when.
    pub(crate) fn marks(&self) -> LogMarks {
        self.state().marks.clone()
    }

    /// Makes a mark, if it is time; gives what is to be saved.
    pub(crate) fn mark(&self, at_ms: u64, spacing: MarkSpacing) -> Option<Vec<u8>> {
        let marks = &mut self.state().marks;
        marks.mark(at_ms, spacing).then(|| marks.encode())
    }

    pub(crate) fn disk(&self) -> &DiskReader {
        &self.disk
    }

    /// Runs a read of the disk where it stalls nobody: on a pool's thread in production, so that a
    /// follower that catches up does not delay heartbeats; in place under the simulation.
    pub(crate) async fn on_disk<T: Send + 'static>(
        &self,
        read: impl FnOnce(&DiskReader) -> T + Send + 'static,
    ) -> io::Result<T> {
        match self.exec {
            Exec::Inline | Exec::Task => Ok(read(&self.disk)),
            Exec::WriterThread => {
                let disk = self.disk.clone();
                tokio::task::spawn_blocking(move || read(&disk))
                    .await
                    .map_err(io::Error::other)
            }
        }
    }

    /// Entries from the start of `range` without gaps: at least one if it exists, and no more
    /// after `bytes_max`.
    pub(crate) async fn read(
        &self,
        range: Range<u64>,
        bytes_max: usize,
    ) -> io::Result<Vec<RaftEntry>> {
        let base = {
            let state = self.state();
            if range.start >= state.tail.base() {
                return Ok(state.tail.read(range.start, range.end, bytes_max));
            }
            state.tail.base()
        };
        // What leaves the tail meanwhile was synced before, so the disk has all of it.
        let on_disk = LogIndex(range.start)..LogIndex(range.end.min(base));
        self.on_disk(move |disk| {
            let records = disk.read(on_disk, bytes_max).map_err(io::Error::other)?;
            let mut entries = Vec::with_capacity(records.len());
            let mut bytes = 0;
            for record in records {
                let entry = decode(record.index, record.bytes)?;
                bytes += entry_bytes(&entry);
                if bytes > bytes_max && !entries.is_empty() {
                    break;
                }
                entries.push(entry);
            }
            Ok(entries)
        })
        .await?
    }

    /// Index of the first entry that can be read.
    async fn begin(&self) -> io::Result<Option<u64>> {
        let in_memory = self.state().tail.base();
        let bounds = self.on_disk(LogRead::bounds).await?;
        let on_disk = bounds.map_err(io::Error::other)?.map(|(first, _)| first.0);
        Ok(on_disk.into_iter().chain([in_memory]).min())
    }

    /// All entries of the range, however large.
    async fn read_all(&self, range: Range<u64>) -> io::Result<Vec<RaftEntry>> {
        let mut found: Vec<RaftEntry> = Vec::new();
        let mut next = range.start;
        while next < range.end {
            let more = self.read(next..range.end, MESSAGE_BYTES_MAX).await?;
            match more.last() {
                Some(last) => next = last.log_id.index + 1,
                // The log may begin anywhere.
                None => match self.begin().await? {
                    Some(begin) if begin > next => next = begin,
                    _ => break,
                },
            }
            found.extend(more);
        }
        Ok(found)
    }
}

pub(super) fn decode(index: LogIndex, bytes: bytes::Bytes) -> io::Result<RaftEntry> {
    let invalid = |error: Box<dyn std::error::Error + Send + Sync>| {
        io::Error::new(io::ErrorKind::InvalidData, error)
    };
    let entry = codec::entry_from_bytes(bytes).map_err(|error| invalid(error.into()))?;
    if entry.log_id.index != index.0 {
        let found = entry.log_id;
        return Err(invalid(
            format!("the record of log index {index} holds entry {found}").into(),
        ));
    }
    Ok(entry)
}

fn half_open(range: &impl RangeBounds<u64>) -> Range<u64> {
    let start = match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(start) => start.saturating_add(1),
        Bound::Unbounded => 0,
    };
    let end = match range.end_bound() {
        Bound::Included(end) => end.saturating_add(1),
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    };
    start..end
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<B: RangeBounds<u64> + Clone + Debug + OptionalSend>(
        &mut self,
        range: B,
    ) -> io::Result<Vec<RaftEntry>> {
        self.read_all(half_open(&range)).await
    }

    async fn limited_get_log_entries(
        &mut self,
        start: u64,
        end: u64,
    ) -> io::Result<Vec<RaftEntry>> {
        // The bound counts one entry too many, never too few: see `Tail::read`.
        self.read(start..end, MESSAGE_BYTES_MAX).await
    }

    /// In pieces: a node that starts applies everything since its snapshot, which need not fit in
    /// memory.
    async fn entries_stream<B>(
        &mut self,
        range: B,
    ) -> impl Stream<Item = Result<RaftEntry, io::Error>> + OptionalSend
    where
        B: RangeBounds<u64> + Clone + Debug + OptionalSend,
    {
        let state = (self.clone(), half_open(&range), Vec::new().into_iter());
        stream::try_unfold(state, |(reader, mut rest, mut ready)| async move {
            loop {
                if let Some(entry) = ready.next() {
                    return Ok(Some((entry, (reader, rest, ready))));
                }
                if rest.is_empty() {
                    return Ok(None);
                }
                let more: Vec<RaftEntry> = reader.read(rest.clone(), MESSAGE_BYTES_MAX).await?;
                let Some(last) = more.last() else {
                    return Ok(None);
                };
                rest.start = last.log_id.index + 1;
                ready = more.into_iter();
            }
        })
    }

    async fn read_vote(&mut self) -> io::Result<Option<RaftVote>> {
        Ok(self.state().vote)
    }
}

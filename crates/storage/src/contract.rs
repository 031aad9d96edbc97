use std::ops::Range;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;
use quorate_types::LogIndex;

/// One entry of the log, encoded; or what the index of accepted transactions has for one entry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    pub index: LogIndex,
    pub bytes: Bytes,
}

/// The small values that stand beside the log. Each is written whole; of any size up to 64 MiB
/// (the store cuts large ones into pieces itself).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum MetaKey {
    /// Format version of this folder, cluster id, node id, incarnation, start counter.
    Identity,
    /// The Raft vote.
    Vote,
    /// The log id that was known to be committed.
    Committed,
    /// The log id up to which the log was purged.
    Purged,
    /// The newest snapshot of `apply`'s state.
    Snapshot,
    /// The highest start counters that this node heard from its peers.
    PeerStarts,
    /// How large the log was when.
    Marks,
}

/// One change of the log's disk.
#[derive(Clone, Debug)]
pub enum Write {
    /// Consecutive records that follow the last one (or begin an empty log anywhere).
    Append(Vec<Record>),
    /// Drops the entries at and after this index.
    TruncateFrom(LogIndex),
    /// Drops the entries at and before this index.
    PurgeTo(LogIndex),
    SetMeta(MetaKey, Bytes),
    /// One record of the index of accepted transactions per log entry that has some; ascending, but
    /// after a restart records are written again, equal to what is there.
    PutAccepted(Vec<Record>),
    /// Drops the records of the index of accepted transactions at and before this index.
    PurgeAcceptedTo(LogIndex),
    /// Drops the whole index of accepted transactions (a snapshot replaces it).
    ClearAccepted,
}

impl Write {
    /// How many bytes of contents this write brings.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        match self {
            Self::Append(records) | Self::PutAccepted(records) => {
                records.iter().map(|record| record.bytes.len() as u64).sum()
            }
            Self::SetMeta(_, value) => value.len() as u64,
            Self::TruncateFrom(_)
            | Self::PurgeTo(_)
            | Self::PurgeAcceptedTo(_)
            | Self::ClearAccepted => 0,
        }
    }
}

/// The disk under the Raft log of one node. Calls block; one thread owns the writer.
///
/// **Order.** Writes take effect in the order given. A crash keeps a prefix of them: no later write
/// is ever there without an earlier one. (Within what was never synced, a torn group may lose more
/// than it must, never something from its middle.)
///
/// **Visibility.** What `write` took is seen by every reader once it returns, durable or not.
///
/// **Durability.** When `sync` returns, everything written before it survives kill -9 and power
/// loss. Without `sync` nothing is promised.
///
/// **Opening.** What a store finds when it is opened after a crash is durable before it is seen.
///
/// **Errors.** Every error is fatal to the node: the caller stops the process.
pub trait LogDisk: Send + 'static {
    type Reader: LogRead;

    /// Takes changes, in order, as one group.
    ///
    /// # Errors
    /// [`Error::Gap`] for an append that does not follow the last record; else the disk's.
    fn write(&mut self, writes: Vec<Write>) -> Result<(), Error>;

    /// Makes everything written so far durable.
    ///
    /// # Errors
    /// The disk's. Durability is unknown then.
    fn sync(&mut self) -> Result<(), Error>;

    /// How long a sync still takes beyond its call: whoever syncs in simulated time waits so long and
    /// asks again, until it is nothing. A real disk's call blocks.
    fn sync_wait(&mut self) -> Duration {
        Duration::ZERO
    }

    /// Does what nobody waits for, at a time when nobody waits.
    ///
    /// # Errors
    /// The disk's.
    fn tidy(&mut self) -> Result<(), Error> {
        Ok(())
    }

    /// A handle that reads what is written, at any time, from any thread.
    fn reader(&self) -> Self::Reader;

    /// Bytes that the store takes on its disk now, free space inside its files included.
    ///
    /// # Errors
    /// The disk's.
    fn disk_bytes(&self) -> Result<u64, Error>;
}

/// Reads beside the one writer.
pub trait LogRead: Clone + Send + Sync + 'static {
    /// First and last index of the log's records, if there are any.
    ///
    /// # Errors
    /// The disk's, or [`Error::Corrupt`].
    fn bounds(&self) -> Result<Option<(LogIndex, LogIndex)>, Error>;

    /// The records of `range` that exist, ascending without gaps from the range's start; as many
    /// as fit in `bytes_max`, but at least one if the first exists.
    ///
    /// # Errors
    /// The disk's, or [`Error::Corrupt`].
    fn read(&self, range: Range<LogIndex>, bytes_max: usize) -> Result<Vec<Record>, Error>;

    /// The records of the index of accepted transactions in `range`, ascending, at most
    /// `bytes_max` of them in sum but at least one.
    ///
    /// # Errors
    /// The disk's, or [`Error::Corrupt`].
    fn read_accepted(&self, range: Range<LogIndex>, bytes_max: usize)
    -> Result<Vec<Record>, Error>;

    /// # Errors
    /// The disk's, or [`Error::Corrupt`].
    fn meta(&self, key: MetaKey) -> Result<Option<Bytes>, Error>;

    /// As [`LogDisk::disk_bytes`].
    ///
    /// # Errors
    /// The disk's.
    fn disk_bytes(&self) -> Result<u64, Error>;

    /// Bytes that its file system has left for the store, if there is such a limit.
    ///
    /// # Errors
    /// The disk's.
    fn free_bytes(&self) -> Result<Option<u64>, Error> {
        Ok(None)
    }
}

/// Why the log's disk could not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("append leaves a gap: next index is {expected}, records start at {found}")]
    Gap { expected: LogIndex, found: LogIndex },
    #[error("log in {} is damaged: {what}", dir.display())]
    Corrupt { dir: PathBuf, what: String },
    #[error("log in {} is in use by another process", dir.display())]
    InUse { dir: PathBuf },
    /// Nothing that was synced is lost; it opens again when there is room.
    #[error("the disk under {} is full: make room, then start the node again", dir.display())]
    Full { dir: PathBuf },
    #[error("{action} in {}", dir.display())]
    Io {
        action: &'static str,
        dir: PathBuf,
        #[source]
        source: std::io::Error,
    },
}

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use quorate_types::{BinlogSource, Command, Epoch, Fragment, Gtid, GtidSet, LogIndex, Outcome};
use tokio::sync::{oneshot, watch};

/// What became of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It was committed and applied here; the outcome is final and the same on every node.
    Applied { index: LogIndex, outcome: Outcome },
    /// It is certain that it was never appended (no lease, not this leader): it may be proposed
    /// again while the epoch lasts.
    Refused,
    /// It may or may not come to be. The epoch is over.
    Unknown,
}

/// The fate of a proposal, as a future.
pub struct PendingFate(Pin<Box<dyn Future<Output = Fate> + Send>>);

impl PendingFate {
    pub fn new(fate: impl Future<Output = Fate> + Send + 'static) -> Self {
        Self(Box::pin(fate))
    }
}

impl std::fmt::Debug for PendingFate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PendingFate")
    }
}

/// A dropped sender says nothing about the fate.
impl From<oneshot::Receiver<Fate>> for PendingFate {
    fn from(fate: oneshot::Receiver<Fate>) -> Self {
        Self::new(async { fate.await.unwrap_or(Fate::Unknown) })
    }
}

impl Future for PendingFate {
    type Output = Fate;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Fate> {
        self.0.as_mut().poll(cx)
    }
}

/// The way into the log for one epoch: bound to the leader that began it, never forwarded.
///
/// **Order.** Entries are appended in the order in which the futures of `propose` complete; one
/// task proposes.
///
/// **Waiting.** `propose` completes when the local Raft took the entry into its queue (bounded: it
/// may wait). The fate comes when it is known, which takes as long as it takes: there is no
/// time-out, since a time-out says nothing about a transaction's fate (DESIGN 3, Proposals).
pub trait Propose: Clone + Send + Sync + 'static {
    fn propose(&self, command: Command) -> impl Future<Output = PendingFate> + Send;
}

/// The accepted part of the log, as far as it is applied on this node.
///
/// Rejected transactions are in the Raft log too; readers see transactions through this trait only,
/// which gives accepted ones, each once, in log order (DESIGN 3, A5).
pub trait CommittedLog: Clone + Send + Sync + 'static {
    /// The last applied index; changes whenever there may be more to read.
    fn applied(&self) -> watch::Receiver<LogIndex>;

    /// The accepted set as applied here. Cheap.
    fn accepted(&self) -> Arc<GtidSet>;

    /// Returns after this node applied everything that was committed when the call was made
    /// anywhere (a read index). A foreign GTID set is judged only after it (DESIGN 4, Errant).
    fn barrier(&self) -> impl Future<Output = Result<(), ReadError>> + Send;

    /// Where to start reading for somebody who has `executed`: no accepted transaction before this
    /// index is outside the set. Not necessarily the best such index.
    ///
    /// # Errors
    /// [`ReadError::Purged`] if a transaction outside `executed` can no longer be read.
    fn seek(&self, executed: &GtidSet) -> impl Future<Output = Result<LogIndex, ReadError>> + Send;

    /// Accepted transactions at and after `from` in log order: at most `bytes_max` of them, but at
    /// least one entry if there is any. Never waits for more to be applied.
    ///
    /// # Errors
    /// [`ReadError::Purged`] if `from` is before what can be read.
    fn read(
        &self,
        from: LogIndex,
        bytes_max: usize,
    ) -> impl Future<Output = Result<ReadBatch, ReadError>> + Send;

    /// The parts of a fragmented transaction at and after `from`, up to `last`, at least one;
    /// with the index after the last one given.
    ///
    /// # Errors
    /// [`ReadError::Purged`] if `from` is before what can be read.
    fn read_parts(
        &self,
        gtid: Gtid,
        from: LogIndex,
        last: LogIndex,
    ) -> impl Future<Output = Result<(Vec<Fragment>, LogIndex), ReadError>> + Send;
}

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
    /// In the fragments of the entries `first` to `last` (inclusive) that bear its GTID.
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
    #[error("this node cannot reach a leader, so what it has may not be all that is committed")]
    NoLeader,
    #[error("read the log")]
    Disk(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the node is stopping")]
    Stopped,
}

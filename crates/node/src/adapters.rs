//! Consensus as the crates beside it see it: through the traits that they define.

use std::collections::BTreeMap;
use std::sync::Arc;

use quorate_consensus::{AcceptedLog, Consensus, ProposalFate, ReadIndexError};
use quorate_mysqld::AcceptedIndex;
use quorate_replication::{
    AcceptedEntry, AcceptedTransaction, CommittedLog, Fate, PendingFate, Propose, ReadBatch,
    ReadError, TransactionBytes,
};
use quorate_types::{Command, Epoch, Fragment, Gtid, GtidSet, LogIndex};
use tokio::sync::watch;

/// Proposals of one epoch, bound to the leader that began it.
#[derive(Clone)]
pub(crate) struct EpochProposer {
    pub(crate) consensus: Consensus,
    pub(crate) epoch: Epoch,
}

impl Propose for EpochProposer {
    async fn propose(&self, command: Command) -> PendingFate {
        let answer = self.consensus.propose(self.epoch.0.leader, command).await;
        PendingFate::new(async {
            match answer.await {
                Ok(ProposalFate::Applied { index, outcome }) => Fate::Applied { index, outcome },
                Ok(ProposalFate::Refused) => Fate::Refused,
                Ok(ProposalFate::Unknown) | Err(_) => Fate::Unknown,
            }
        })
    }
}

/// What the feed reads.
#[derive(Clone)]
pub(crate) struct Log {
    consensus: Consensus,
    accepted: AcceptedLog,
}

impl Log {
    pub(crate) fn new(consensus: Consensus) -> Self {
        Self {
            accepted: consensus.accepted_log(),
            consensus,
        }
    }
}

impl CommittedLog for Log {
    fn applied(&self) -> watch::Receiver<LogIndex> {
        self.consensus.applied()
    }

    fn accepted(&self) -> Arc<GtidSet> {
        self.consensus.applied_state().borrow().accepted.clone()
    }

    async fn barrier(&self) -> Result<(), ReadError> {
        match self.consensus.barrier().await {
            Ok(_) => Ok(()),
            Err(ReadIndexError::NoLeader) => Err(ReadError::NoLeader),
            Err(ReadIndexError::Stopped) => Err(ReadError::Stopped),
        }
    }

    async fn seek(&self, executed: &GtidSet) -> Result<LogIndex, ReadError> {
        self.accepted.seek(executed).await.map_err(read_error)
    }

    async fn read(&self, from: LogIndex, bytes_max: usize) -> Result<ReadBatch, ReadError> {
        let batch = self
            .accepted
            .read(from, bytes_max)
            .await
            .map_err(read_error)?;
        Ok(ReadBatch {
            entries: batch.entries.into_iter().map(entry).collect(),
            next: batch.next,
        })
    }

    async fn read_parts(
        &self,
        gtid: Gtid,
        from: LogIndex,
        last: LogIndex,
    ) -> Result<(Vec<Fragment>, LogIndex), ReadError> {
        self.accepted
            .read_parts(gtid, from, last)
            .await
            .map_err(read_error)
    }
}

fn entry(entry: quorate_consensus::AcceptedEntry) -> AcceptedEntry {
    use quorate_consensus::TransactionBytes as Bytes;
    let transaction = |one: quorate_consensus::AcceptedTransaction| AcceptedTransaction {
        gtid: one.gtid,
        checksum: one.checksum,
        bytes: match one.bytes {
            Bytes::Whole(bytes) => TransactionBytes::Whole(bytes),
            Bytes::Parts { first, last } => TransactionBytes::Parts { first, last },
        },
    };
    AcceptedEntry {
        index: entry.index,
        epoch: entry.epoch,
        source: entry.source,
        transactions: entry.transactions.into_iter().map(transaction).collect(),
    }
}

fn read_error(error: quorate_consensus::ReadError) -> ReadError {
    match error {
        quorate_consensus::ReadError::Purged { first } => ReadError::Purged { first },
        other => ReadError::Disk(Box::new(other)),
    }
}

/// What a repair asks, as of when it was made.
pub(crate) struct Index {
    pub(crate) accepted: Arc<GtidSet>,
    pub(crate) checksums: BTreeMap<Gtid, u32>,
}

impl AcceptedIndex for Index {
    fn is_accepted(&self, gtid: &Gtid) -> bool {
        self.accepted.contains(*gtid)
    }

    fn checksum(&self, gtid: &Gtid) -> Option<u32> {
        self.checksums.get(gtid).copied()
    }
}

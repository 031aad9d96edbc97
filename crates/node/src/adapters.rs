//! Consensus as the crates beside it see it: through the traits that they define.

use std::sync::Arc;

use quorate_consensus::{Consensus, LogReadError, ProposalFate};
use quorate_replication::{
    AcceptedEntry, AcceptedTransaction, CommittedLog, Fate, Propose, ReadBatch, ReadError, TransactionBytes,
};
use quorate_types::{Command, Epoch, Fragment, Gtid, GtidSet, LogIndex};
use tokio::sync::{oneshot, watch};

/// Proposals of one epoch, bound to the leader that began it.
#[derive(Clone)]
pub(crate) struct EpochProposer {
    pub(crate) consensus: Consensus,
    pub(crate) epoch: Epoch,
}

impl Propose for EpochProposer {
    async fn propose(&self, command: Command) -> oneshot::Receiver<Fate> {
        let (tx, rx) = oneshot::channel();
        let answer = self.consensus.propose(self.epoch.0.leader, command).await;
        tokio::spawn(async move {
            let fate = match answer.await {
                Ok(ProposalFate::Applied { index, outcome }) => Fate::Applied { index, outcome },
                Ok(ProposalFate::Refused) => Fate::Refused,
                Ok(ProposalFate::Unknown) | Err(_) => Fate::Unknown,
            };
            let _ = tx.send(fate);
        });
        rx
    }
}

use openraft::raft::responder::Responder;
use openraft::{OptionalSend, alias};
use quorate_types::{LogIndex, Outcome};
use tokio::sync::oneshot;
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::types::{RaftLogId, TypeConfig};

/// What became of a proposal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ProposalFate {
    /// It was committed and applied here; the outcome is final and the same on every node.
    Applied { index: LogIndex, outcome: Outcome },
    /// It is certain that it was never appended.
    Refused,
    /// It may or may not come to be.
    Unknown,
}

type Complete<T> = Box<dyn FnOnce(T) + Send>;

/// Tells whoever proposed. Dropped without an answer, it drops the proposer's sender, which means
/// that the fate is unknown.
pub struct Answer<T> {
    complete: Complete<T>,
    committed: Option<Box<dyn FnOnce() + Send>>,
}

impl<T> Responder<TypeConfig, T> for Answer<T>
where
    T: OptionalSend + 'static,
{
    fn on_commit(&mut self, _: RaftLogId) {
        if let Some(committed) = self.committed.take() {
            committed();
        }
    }

    fn on_complete(self, result: T) {
        (self.complete)(result);
    }
}

type WriteResult = openraft::raft::ClientWriteResult<TypeConfig>;

/// The answer to one proposal, and where its fate arrives.
pub(crate) fn answer(
    metrics: &Metrics,
) -> (
    alias::WriteResponderOf<TypeConfig>,
    oneshot::Receiver<ProposalFate>,
) {
    let (sender, receiver) = oneshot::channel();
    let start = Instant::now();
    let (on_complete, on_commit) = (metrics.clone(), metrics.clone());
    let complete = move |result: WriteResult| {
        let fate = fate(result);
        if matches!(fate, ProposalFate::Applied { .. }) {
            on_complete.on_applied(start.elapsed());
        }
        // Whoever stopped waiting has ended its epoch.
        let _ = sender.send(fate);
    };
    let answer = Answer {
        complete: Box::new(complete),
        committed: Some(Box::new(move || on_commit.on_committed(start.elapsed()))),
    };
    (answer, receiver)
}

fn fate(result: WriteResult) -> ProposalFate {
    use openraft::errors::ClientWriteError as Error;
    match result {
        Ok(response) => match response.data.0 {
            Some(outcome) => ProposalFate::Applied {
                index: LogIndex(response.log_id.index),
                outcome,
            },
            None => ProposalFate::Unknown,
        },
        // Checked before the append, and only there: no leader, another one, or no lease.
        Err(Error::ForwardToLeader(_)) => ProposalFate::Refused,
        Err(
            Error::LogEntryDiscarded(_)
            | Error::ChangeMembershipError(_)
            | Error::PreconditionFailed(_),
        ) => ProposalFate::Unknown,
    }
}

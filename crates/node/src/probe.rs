use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::{AppliedState, Consensus, ProposalFate, RaftView};
use quorate_proxy::RoleWatch;
use quorate_types::{Command, Epoch};
use tokio::sync::watch;

use crate::roles::Roles;

/// A node from outside, without a part in it: for whoever checks its promises.
#[derive(Clone)]
pub struct Probe {
    pub(crate) consensus: Consensus,
    pub(crate) roles: Roles,
}

impl Probe {
    /// What this node's log says by now.
    #[must_use]
    pub fn applied_state(&self) -> Arc<AppliedState> {
        self.consensus.applied_state().borrow().clone()
    }

    #[must_use]
    pub fn raft(&self) -> Arc<RaftView> {
        self.consensus.view().borrow().clone()
    }

    /// Has this node append a command that no part of it proposed, if it leads: for whoever checks what
    /// `apply` refuses. None if it is not known what came of it.
    pub async fn propose(&self, command: Command) -> Option<ProposalFate> {
        let view = self.raft();
        let leader = view.leader.filter(|_| view.is_leader)?;
        self.consensus.propose(leader, command).await.await.ok()
    }

    /// The epoch whose chunks this node's gate passes at `now`, which is its own `Net::boot_time`.
    #[must_use]
    pub fn serves(&self, now: Duration) -> Option<Epoch> {
        let open: watch::Receiver<Option<Epoch>> = self.roles.serving();
        let epoch = (*open.borrow())?;
        self.roles.may_serve(epoch, now).then_some(epoch)
    }
}

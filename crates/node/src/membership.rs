//! How nodes come into the cluster: the leader makes whoever asks a learner, then a voter.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::{ChangeError, Consensus, ProposalFate};
use quorate_types::{Command, LeaderId, Member, Members, NodeId, Outcome};
use tokio::sync::Mutex;
use tokio::time::timeout;

/// How long one step of a change may take: it needs a quorum, and that may be gone.
const STEP_MAX: Duration = Duration::from_secs(10);

/// Why a node was not taken in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    #[error("this node does not lead")]
    NotLeader,
    #[error("node {0} is not among the peers in this node's configuration")]
    Stranger(NodeId),
    #[error(
        "the server uuid of node {node} belongs to node {owner}: give it a data folder of its own"
    )]
    SharedUuid { node: NodeId, owner: NodeId },
    #[error("change the members")]
    Change(#[from] ChangeError),
    #[error("the change took longer than {STEP_MAX:?}: is there a quorum?")]
    Late,
}

/// Changes members, one change at a time.
pub(crate) struct Membership {
    consensus: Consensus,
    /// Who may join: the nodes that the configuration names, this one among them.
    known: BTreeSet<NodeId>,
    one_at_a_time: Mutex<()>,
}

impl Membership {
    pub(crate) fn new(consensus: Consensus, known: BTreeSet<NodeId>) -> Arc<Self> {
        Arc::new(Self {
            consensus,
            known,
            one_at_a_time: Mutex::new(()),
        })
    }

    /// Makes `node` a member as it describes itself. Asking again changes nothing.
    pub(crate) async fn join(&self, node: NodeId, member: Member) -> Result<(), JoinError> {
        let _turn = self.one_at_a_time.lock().await;
        if !self.known.contains(&node) {
            return Err(JoinError::Stranger(node));
        }
        let leader = self.leader()?;
        let members = self.consensus.applied_state().borrow().members.clone();
        if let Some(owner) = shared_uuid(&members, node, &member) {
            return Err(JoinError::SharedUuid { node, owner });
        }
        let known = members.get(&node);
        let replaced = known.is_some_and(|known| known.incarnation != member.incarnation);
        if replaced {
            // Its folder is new: what the old one promised is forgotten, so it must not vote
            // until it holds the log again (DESIGN 3, Identity).
            tracing::warn!(%node, "a member came back with a new Raft folder: it is taken in anew");
            within(self.consensus.remove(node)).await?;
        }
        if known != Some(&member) {
            let mut members: Members = (*members).clone();
            members.insert(node, member.clone());
            self.propose(leader, Command::Members(members)).await?;
        }
        let view = self.consensus.view().borrow().clone();
        let listed = view.voters.contains(&node) || view.learners.contains(&node);
        if !listed {
            tracing::info!(%node, "taking a node in as a learner");
            let add =
                self.consensus
                    .add_learner(node, member.address.clone(), member.incarnation, true);
            within(add).await?;
        }
        let view = self.consensus.view().borrow().clone();
        if !view.voters.contains(&node) {
            within(self.consensus.promote(BTreeSet::from([node]))).await?;
            tracing::info!(%node, "a node became a voter");
        }
        Ok(())
    }

    fn leader(&self) -> Result<LeaderId, JoinError> {
        let view = self.consensus.view();
        let view = view.borrow();
        view.leader
            .filter(|_| view.is_leader)
            .ok_or(JoinError::NotLeader)
    }

    async fn propose(&self, leader: LeaderId, command: Command) -> Result<(), JoinError> {
        let fate = async { self.consensus.propose(leader, command).await.await };
        match timeout(STEP_MAX, fate).await {
            Ok(Ok(ProposalFate::Applied {
                outcome: Outcome::Done,
                ..
            })) => Ok(()),
            Ok(_) => Err(JoinError::NotLeader),
            Err(_) => Err(JoinError::Late),
        }
    }
}

async fn within(change: impl Future<Output = Result<(), ChangeError>>) -> Result<(), JoinError> {
    Ok(timeout(STEP_MAX, change)
        .await
        .map_err(|_| JoinError::Late)??)
}

/// Each server belongs to one node (A7): a copied data folder would repeat its GTIDs.
fn shared_uuid(
    members: &BTreeMap<NodeId, Member>,
    node: NodeId,
    member: &Member,
) -> Option<NodeId> {
    let uuid = member.server_uuid?;
    let same =
        |(other, known): &(&NodeId, &Member)| **other != node && known.server_uuid == Some(uuid);
    members.iter().find(same).map(|(owner, _)| *owner)
}

use std::collections::{BTreeMap, BTreeSet};

use openraft::ServerState;
use quorate_types::{LeaderId, LogId, LogIndex, NodeId, Term};

use crate::types::{RaftMetrics, leader_id, log_id};

/// What a node's Raft is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RaftState {
    #[default]
    Learner,
    Follower,
    Candidate,
    Leader,
    Stopped,
}

/// Raft at one moment, as this node knows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RaftView {
    pub state: RaftState,
    pub term: Term,
    /// The leader of this term that a quorum elected, as far as it is known here.
    pub leader: Option<LeaderId>,
    /// This node is that leader. It is true a while longer than anybody obeys: see the lease.
    pub is_leader: bool,
    pub last_log: Option<LogIndex>,
    /// Known to be on a quorum.
    pub committed: Option<LogId>,
    pub applied: Option<LogId>,
    pub snapshot: Option<LogId>,
    pub purged: Option<LogId>,
    pub voters: BTreeSet<NodeId>,
    pub learners: BTreeSet<NodeId>,
    /// Voters are being changed: quorums of two sets are needed.
    pub joint: bool,
    /// On the leader: up to where each node's log is known to be equal; its own is not here.
    pub matched: BTreeMap<NodeId, Option<LogIndex>>,
}

impl RaftView {
    pub(crate) fn new(metrics: &RaftMetrics) -> Self {
        let vote = metrics.vote;
        let membership = &metrics.membership_config;
        let leader = vote.committed.then(|| leader_id(vote.leader_id));
        let state = match metrics.state {
            ServerState::Learner => RaftState::Learner,
            ServerState::Follower => RaftState::Follower,
            ServerState::Candidate => RaftState::Candidate,
            ServerState::Leader => RaftState::Leader,
            ServerState::Shutdown => RaftState::Stopped,
        };
        let own = NodeId(metrics.id);
        let replication = metrics.replication.iter().flatten();
        Self {
            state,
            term: Term(metrics.current_term),
            leader,
            is_leader: state == RaftState::Leader
                && leader.is_some_and(|leader| leader.node == own),
            last_log: metrics.last_log_index.map(LogIndex),
            committed: metrics.cluster_committed.map(log_id),
            applied: metrics.last_applied.map(log_id),
            snapshot: metrics.snapshot.map(log_id),
            purged: metrics.purged.map(log_id),
            voters: membership.voter_ids().map(NodeId).collect(),
            learners: membership.membership().learner_ids().map(NodeId).collect(),
            joint: membership.get_joint_config().len() > 1,
            matched: replication
                .filter(|(node, _)| NodeId(**node) != own)
                .map(|(node, matched)| (NodeId(*node), matched.map(|id| LogIndex(id.index))))
                .collect(),
        }
    }
}

mod retention;

use std::collections::{BTreeMap, BTreeSet};

use quorate_types::{
    ClusterId, ClusterView, GtidSet, Incarnation, KeptCut, LogIndex, NodeId, NodeView, Role, Term,
    Uuid,
};

use crate::{DecodeError, required, v1};

/// A node's part in Raft.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RaftRole {
    Leader,
    #[default]
    Follower,
    Learner,
}

/// What a node says of itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeReport {
    pub cluster: Option<ClusterId>,
    pub node: NodeId,
    pub view: NodeView,
    pub raft: RaftRole,
    pub incarnation: Incarnation,
    /// None before its server was first started, and for a witness.
    pub server_uuid: Option<Uuid>,
    pub term: Term,
    pub leader: Option<NodeId>,
    /// Of its log.
    pub last: LogIndex,
    pub applied: LogIndex,
    /// The highest that it knows.
    pub apply_level: u32,
    /// Voters and learners as it knows them; empty before it is in a cluster.
    pub members: BTreeSet<NodeId>,
}

/// `view` as `node` answers it to whoever asks.
#[must_use]
pub fn status_reply(node: NodeId, view: &ClusterView) -> v1::StatusReply {
    let nodes = view.nodes.iter().map(|(id, one)| {
        let raft = match one {
            _ if view.leader == Some(*id) => RaftRole::Leader,
            one if one.learner => RaftRole::Learner,
            _ => RaftRole::Follower,
        };
        node_message(*id, one, raft)
    });
    v1::StatusReply {
        node: node.0,
        cluster_id: view.cluster.map(|id| id.0),
        term: view.term.0,
        leader: view.leader.map(|id| id.0),
        epoch: view.epoch.map(Into::into),
        primary: view.primary.map(|id| id.0),
        applied_index: view.applied.0,
        accepted_gtid_set: view.accepted.to_wire().into(),
        nodes: nodes.collect(),
        retention: Some(retention::to_wire(&view.retention)),
    }
}

/// The view that [`status_reply`] was made of.
///
/// # Errors
/// If the reply has GTID sets or roles that this version cannot read, or a node twice.
pub fn cluster_view(reply: v1::StatusReply) -> Result<ClusterView, DecodeError> {
    let mut nodes = BTreeMap::new();
    for node in reply.nodes {
        let (id, view, _) = node_from_message(node)?;
        if nodes.insert(id, view).is_some() {
            return Err(DecodeError::DuplicateNode(id));
        }
    }
    Ok(ClusterView {
        cluster: reply.cluster_id.map(ClusterId),
        term: Term(reply.term),
        leader: reply.leader.map(NodeId),
        epoch: reply.epoch.map(Into::into),
        primary: reply.primary.map(NodeId),
        applied: LogIndex(reply.applied_index),
        accepted: GtidSet::try_from_wire(&reply.accepted_gtid_set)?,
        nodes,
        retention: retention::from_wire(reply.retention.unwrap_or_default()),
    })
}

impl From<&NodeReport> for v1::NodeStatusReply {
    fn from(report: &NodeReport) -> Self {
        Self {
            cluster_id: report.cluster.map(|id| id.0),
            node: Some(node_message(report.node, &report.view, report.raft)),
            incarnation: report.incarnation.0,
            server_uuid: report.server_uuid.map(Into::into),
            term: report.term.0,
            leader: report.leader.map(|id| id.0),
            last_index: report.last.0,
            applied_index: report.applied.0,
            apply_level: report.apply_level,
            members: report.members.iter().map(|node| node.0).collect(),
        }
    }
}

impl TryFrom<v1::NodeStatusReply> for NodeReport {
    type Error = DecodeError;

    fn try_from(reply: v1::NodeStatusReply) -> Result<Self, DecodeError> {
        let (node, view, raft) = node_from_message(required(reply.node, "node")?)?;
        Ok(Self {
            cluster: reply.cluster_id.map(ClusterId),
            node,
            view,
            raft,
            incarnation: Incarnation(reply.incarnation),
            server_uuid: reply.server_uuid.map(Into::into),
            term: Term(reply.term),
            leader: reply.leader.map(NodeId),
            last: LogIndex(reply.last_index),
            applied: LogIndex(reply.applied_index),
            apply_level: reply.apply_level,
            members: reply.members.into_iter().map(NodeId).collect(),
        })
    }
}

fn node_message(id: NodeId, view: &NodeView, raft: RaftRole) -> v1::Node {
    v1::Node {
        id: id.0,
        role: v1::Role::from(view.role).into(),
        healthy: view.healthy,
        message: view.message.clone(),
        gate_address: view.gate_address.clone(),
        mysql_address: view.mysql_address.clone(),
        executed_gtid_set: view.executed.to_wire().into(),
        lag_transactions: view.lag_transactions,
        server_version: view.server_version.clone(),
        sessions: view.sessions,
        kept_cuts: view.kept_cuts.iter().map(kept_cut_message).collect(),
        differs: view.differs.clone(),
        raft: v1::RaftRole::from(raft).into(),
        log: retention::log_to_wire(&view.log),
    }
}

fn node_from_message(node: v1::Node) -> Result<(NodeId, NodeView, RaftRole), DecodeError> {
    let raft = raft_role(node.raft)?;
    let view = NodeView {
        role: role(node.role)?,
        healthy: node.healthy,
        message: node.message,
        gate_address: node.gate_address,
        mysql_address: node.mysql_address,
        executed: GtidSet::try_from_wire(&node.executed_gtid_set)?,
        lag_transactions: node.lag_transactions,
        server_version: node.server_version,
        learner: raft == RaftRole::Learner,
        sessions: node.sessions,
        kept_cuts: node.kept_cuts.into_iter().map(kept_cut).collect(),
        log: node.log.map(retention::log_from_wire).unwrap_or_default(),
        differs: node.differs,
    };
    Ok((NodeId(node.id), view, raft))
}

fn kept_cut_message(cut: &KeptCut) -> v1::KeptCut {
    v1::KeptCut {
        name: cut.name.clone(),
        bytes: cut.bytes,
        at_ms: cut.at_ms,
    }
}

fn kept_cut(cut: v1::KeptCut) -> KeptCut {
    KeptCut {
        at_ms: cut.at_ms,
        name: cut.name,
        bytes: cut.bytes,
    }
}

impl From<Role> for v1::Role {
    fn from(role: Role) -> Self {
        match role {
            Role::Primary => Self::Primary,
            Role::Replica => Self::Replica,
            Role::Promoting => Self::Promoting,
            Role::Fenced => Self::Fenced,
            Role::Demoting => Self::Demoting,
            Role::Repairing => Self::Repairing,
            Role::Cloning => Self::Cloning,
            Role::Witness => Self::Witness,
            Role::Down => Self::Down,
        }
    }
}

impl From<RaftRole> for v1::RaftRole {
    fn from(role: RaftRole) -> Self {
        match role {
            RaftRole::Leader => Self::Leader,
            RaftRole::Follower => Self::Follower,
            RaftRole::Learner => Self::Learner,
        }
    }
}

fn role(number: i32) -> Result<Role, DecodeError> {
    Ok(match v1::Role::try_from(number) {
        Ok(v1::Role::Primary) => Role::Primary,
        Ok(v1::Role::Replica) => Role::Replica,
        Ok(v1::Role::Promoting) => Role::Promoting,
        Ok(v1::Role::Fenced) => Role::Fenced,
        Ok(v1::Role::Demoting) => Role::Demoting,
        Ok(v1::Role::Repairing) => Role::Repairing,
        Ok(v1::Role::Cloning) => Role::Cloning,
        Ok(v1::Role::Witness) => Role::Witness,
        Ok(v1::Role::Down) => Role::Down,
        Ok(v1::Role::Unspecified) | Err(_) => return Err(enum_error("role", number)),
    })
}

fn raft_role(number: i32) -> Result<RaftRole, DecodeError> {
    Ok(match v1::RaftRole::try_from(number) {
        Ok(v1::RaftRole::Leader) => RaftRole::Leader,
        Ok(v1::RaftRole::Follower) => RaftRole::Follower,
        Ok(v1::RaftRole::Learner) => RaftRole::Learner,
        Ok(v1::RaftRole::Unspecified) | Err(_) => return Err(enum_error("raft", number)),
    })
}

fn enum_error(field: &'static str, number: i32) -> DecodeError {
    DecodeError::Value {
        field,
        value: u64::from(number.cast_unsigned()),
    }
}

#[cfg(test)]
mod tests;

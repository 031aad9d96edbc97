//! openraft's types as this crate uses them, and their way to and from the domain's.

use std::fmt;
use std::sync::Arc;

use bytes::Bytes;
use openraft::alias;
use quorate_types::{Command, Incarnation, LeaderId, LogId, LogIndex, NodeId, Outcome, Term};

use crate::propose::Answer;
use crate::runtime::Runtime;

/// A command with its encoding, which is made once, by the proposer: the same bytes go to every
/// disk and every follower.
#[derive(Clone, PartialEq, Eq)]
pub struct LogCommand {
    pub command: Arc<Command>,
    pub encoded: Bytes,
}

impl fmt::Debug for LogCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "command of {} bytes", self.encoded.len())
    }
}

impl fmt::Display for LogCommand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// What `apply` made of an entry; entries without a command (blank, membership) have none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Applied(pub Option<Outcome>);

impl fmt::Display for Applied {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

/// Where a node is reached.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeAddress {
    /// `HOST:PORT` of its gRPC listener.
    pub address: String,
    /// Of the Raft folder that was made a member.
    pub incarnation: Incarnation,
}

impl fmt::Display for NodeAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.address)
    }
}

/// The types of our Raft.
///
/// Leader ids are openraft's advanced ones, (term, node): a log id names the leader that appended
/// the entry, which the epoch rules need.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct TypeConfig {}

// By hand, since openraft's macro cannot set a responder.
impl openraft::RaftTypeConfig for TypeConfig {
    type D = LogCommand;
    type R = Applied;
    type NodeId = u64;
    type Node = NodeAddress;
    type Term = u64;
    type LeaderId = openraft::impls::leader_id_adv::LeaderId<u64, u64>;
    type Vote = openraft::impls::Vote<Self::LeaderId>;
    type Payload = openraft::EntryPayload<LogCommand, u64, NodeAddress>;
    type Entry = openraft::Entry<Self::LeaderId, Self::Payload>;
    type AsyncRuntime = Runtime;
    type Responder<T>
        = Answer<T>
    where
        T: openraft::OptionalSend + 'static;
    type Batch<T>
        = openraft::impls::InlineBatch<T>
    where
        T: openraft::OptionalSend + 'static;
    type ErrorSource = openraft::impls::BoxedErrorSource;
}

pub(crate) type RaftLogId = alias::LogIdOf<TypeConfig>;
pub(crate) type RaftLeaderId = alias::LeaderIdOf<TypeConfig>;
pub(crate) type RaftVote = alias::VoteOf<TypeConfig>;
pub(crate) type RaftEntry = alias::EntryOf<TypeConfig>;
pub(crate) type RaftMembership = openraft::Membership<u64, NodeAddress>;
pub(crate) type RaftStoredMembership = alias::StoredMembershipOf<TypeConfig>;
pub(crate) type RaftSnapshotMeta = alias::SnapshotMetaOf<TypeConfig>;
pub(crate) type RaftMetrics = openraft::RaftMetrics<TypeConfig>;
pub(crate) type RaftServerMetrics = openraft::metrics::RaftServerMetrics<TypeConfig>;

pub(crate) fn leader_id(id: RaftLeaderId) -> LeaderId {
    LeaderId {
        term: Term(id.term),
        node: NodeId(id.node_id),
    }
}

pub(crate) fn raft_leader_id(id: LeaderId) -> RaftLeaderId {
    RaftLeaderId {
        term: id.term.0,
        node_id: id.node.0,
    }
}

pub(crate) fn log_id(id: RaftLogId) -> LogId {
    LogId {
        leader: leader_id(id.leader_id),
        index: LogIndex(id.index),
    }
}

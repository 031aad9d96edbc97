use std::collections::BTreeMap;
use std::fmt;

use crate::gtid::Uuid;
use crate::gtid_set::GtidSet;
use crate::ids::{ClusterId, Epoch, Incarnation, LogIndex, NodeId, Term};

/// The nodes of the cluster as the log has them.
pub type Members = BTreeMap<NodeId, Member>;

/// What a node is meant to be. Raft's own membership follows it, one change at a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    #[default]
    Voter,
    /// It gets the log and serves reads, and stays without a vote until it is promoted.
    Learner,
    /// It stays listed, so that it is not taken in again because a configuration names it.
    Removed,
}

impl fmt::Display for Standing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Voter => "voter",
            Self::Learner => "learner",
            Self::Removed => "removed",
        })
    }
}

/// What the log knows of a node. Addresses are `HOST:PORT`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Member {
    /// Zero while the node was added and has not come yet.
    pub incarnation: Incarnation,
    /// Belongs to this node alone; none before its server was first started, and for a witness.
    pub server_uuid: Option<Uuid>,
    /// As `@@version` says it.
    pub server_version: String,
    /// gRPC: Raft and admin.
    pub address: String,
    /// The member-only way to its mysqld.
    pub gate_address: String,
    /// Where its mysqld listens, for people: nobody dials it.
    pub mysql_address: String,
    /// The highest apply level that it knows.
    pub apply_level: u32,
    pub standing: Standing,
    /// It has the log and no server.
    pub witness: bool,
}

/// Settings that all nodes share, changed through the log only.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Settings {
    /// Which rules of `apply` hold; raised when all members know them.
    pub apply_level: u32,
}

impl Default for Settings {
    fn default() -> Self {
        Self { apply_level: 1 }
    }
}

/// What a node's mysqld is now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    Primary,
    Replica,
    Promoting,
    /// Primary without a lease: nothing passes its gate.
    Fenced,
    Demoting,
    /// Its server is down, being cut, or waiting for what it needs to be cut or cloned.
    Repairing,
    Cloning,
    Witness,
    /// Nothing was heard of it for a while.
    #[default]
    Down,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Primary => "primary",
            Self::Replica => "replica",
            Self::Promoting => "promoting",
            Self::Fenced => "fenced",
            Self::Demoting => "demoting",
            Self::Repairing => "repairing",
            Self::Cloning => "cloning",
            Self::Witness => "witness",
            Self::Down => "down",
        })
    }
}

/// One node's knowledge of the cluster at one moment, for routing and for people.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClusterView {
    pub cluster: Option<ClusterId>,
    pub term: Term,
    pub leader: Option<NodeId>,
    /// The current epoch as applied here, and its node.
    pub epoch: Option<Epoch>,
    pub primary: Option<NodeId>,
    /// Applied here.
    pub applied: LogIndex,
    pub accepted: GtidSet,
    pub nodes: BTreeMap<NodeId, NodeView>,
    pub retention: Retention,
}

/// What is to go from the log, and who holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Retention {
    /// Up to here the log is purged, by what was agreed.
    pub purged: LogIndex,
    /// Up to here it is beyond its limits; not more than `purged` if nothing is.
    pub wanted: LogIndex,
    /// Why it is not purged as far as that, by whom it waits for.
    pub held_by: BTreeMap<NodeId, String>,
}

/// A node's Raft log as it is on its disk; all zero if nothing is known of it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LogState {
    /// The first entry that is there, and the last one.
    pub first: LogIndex,
    pub last: LogIndex,
    /// About how many bytes the entries have.
    pub bytes: u64,
    /// What the files take, free space in them included.
    pub disk_bytes: u64,
    /// Near this many bytes of entries the primary takes no writes.
    pub budget_bytes: u64,
    /// For how long the first entry is surely there; 0 if that is not known yet.
    pub age_ms: u64,
    /// It is near its budget: as the primary, this node takes no writes.
    pub is_full: bool,
}

/// What a node said of itself last.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeView {
    pub role: Role,
    /// Its mysqld answers and its replication (or its epoch) runs.
    pub healthy: bool,
    /// Why not, in words for people; empty when healthy.
    pub message: String,
    pub gate_address: String,
    pub mysql_address: String,
    pub executed: GtidSet,
    /// Accepted transactions that its mysqld has not executed.
    pub lag_transactions: u64,
    pub server_version: String,
    pub learner: bool,
    /// Open read-only sessions, for balancing.
    pub sessions: u64,
    pub log: LogState,
    /// What repairs cut off its binlog, oldest first.
    pub kept_cuts: Vec<KeptCut>,
    /// Tables that were found to differ from the primary's.
    pub differs: Vec<String>,
}

/// What a repair cut off a server's binlog, kept for people to look at.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct KeptCut {
    /// When it was kept, in milliseconds since 1970.
    pub at_ms: u64,
    /// Of its folder, in the node's folder of cuts.
    pub name: String,
    pub bytes: u64,
}

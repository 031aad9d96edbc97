use quorate_types::{ClusterView, KeptCut, LogState, NodeId, NodeView};
use serde::{Deserialize, Serialize};

/// What `/api/status` answers and `quorate status --json` prints. Scripts rely on it: fields are
/// added, never renamed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct StatusJson {
    /// The cluster id; empty before the node is in a cluster.
    pub cluster: String,
    pub term: u64,
    pub leader: Option<u64>,
    /// `TERM-INDEX` of the entry that began it.
    pub epoch: Option<String>,
    pub primary: Option<u64>,
    pub committed: Committed,
    /// By id, ascending.
    pub nodes: Vec<NodeJson>,
    /// The last changes that this node saw, oldest first.
    #[serde(default)]
    pub recent: Vec<RecentEvent>,
    #[serde(default)]
    pub retention: RetentionJson,
}

/// What is to go from the log, and who holds it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RetentionJson {
    /// Up to here the log is purged.
    pub purged: u64,
    /// Up to here it is beyond its limits.
    pub wanted: u64,
    /// For whom it is kept all the same.
    pub held_by: Vec<HolderJson>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HolderJson {
    pub id: u64,
    pub why: String,
}

/// A node's Raft log.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogJson {
    pub first: u64,
    pub last: u64,
    /// Of the entries.
    pub bytes: u64,
    /// Of the files.
    pub disk_bytes: u64,
    pub budget_bytes: u64,
    /// Of the first entry, at least.
    pub age_s: u64,
    /// As the primary, the node takes no writes.
    pub full: bool,
}

/// How far the log is, as applied by the node that answers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Committed {
    pub index: u64,
    /// The accepted transactions.
    pub gtid_set: String,
}

/// One node as it described itself last.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct NodeJson {
    pub id: u64,
    pub role: String,
    pub healthy: bool,
    /// Why it is not healthy; left out when there is nothing to say.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub message: String,
    /// Where its mysqld listens.
    pub mysql: String,
    pub executed_gtid_set: String,
    pub lag_transactions: u64,
    pub raft: RaftJson,
    /// Left out where nothing is known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub log: Option<LogJson>,
    /// What repairs cut off its binlog, oldest first; left out when there is nothing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub kept_cuts: Vec<KeptCutJson>,
    /// Tables that were found to differ from the primary's; left out when there are none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub differs: Vec<String>,
}

/// What a repair cut off a binlog, kept for people to look at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct KeptCutJson {
    /// Of its folder in `cut/` of the node.
    pub name: String,
    pub bytes: u64,
    /// Milliseconds since 1970.
    pub at_ms: u64,
}

/// A node's part in Raft.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RaftJson {
    Leader,
    #[default]
    Follower,
    Learner,
}

impl std::fmt::Display for RaftJson {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.pad(match self {
            Self::Leader => "leader",
            Self::Follower => "follower",
            Self::Learner => "learner",
        })
    }
}

/// Something that happened, for people.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RecentEvent {
    /// Milliseconds since 1970.
    pub at_ms: u64,
    /// A sentence, such as `node 2 became primary`.
    pub what: String,
}

fn kept_cut(cut: &KeptCut) -> KeptCutJson {
    KeptCutJson {
        name: cut.name.clone(),
        bytes: cut.bytes,
        at_ms: cut.at_ms,
    }
}

impl StatusJson {
    /// The view as JSON has it; `recent` is empty and for the caller to fill.
    #[must_use]
    pub fn from_view(view: &ClusterView) -> Self {
        let node = |(id, node): (&NodeId, &NodeView)| NodeJson {
            id: id.0,
            role: node.role.to_string(),
            healthy: node.healthy,
            message: node.message.clone(),
            mysql: node.mysql_address.clone(),
            executed_gtid_set: node.executed.to_string(),
            lag_transactions: node.lag_transactions,
            raft: if view.leader == Some(*id) {
                RaftJson::Leader
            } else if node.learner {
                RaftJson::Learner
            } else {
                RaftJson::Follower
            },
            kept_cuts: node.kept_cuts.iter().map(kept_cut).collect(),
            log: (node.log != LogState::default()).then_some(LogJson {
                first: node.log.first.0,
                last: node.log.last.0,
                bytes: node.log.bytes,
                disk_bytes: node.log.disk_bytes,
                budget_bytes: node.log.budget_bytes,
                age_s: node.log.age_ms / 1000,
                full: node.log.is_full,
            }),
            differs: node.differs.clone(),
        };
        let holder = |(id, why): (&NodeId, &String)| HolderJson {
            id: id.0,
            why: why.clone(),
        };
        Self {
            cluster: view.cluster.map(|id| id.to_string()).unwrap_or_default(),
            term: view.term.0,
            leader: view.leader.map(|id| id.0),
            epoch: view.epoch.map(|epoch| epoch.to_string()),
            primary: view.primary.map(|id| id.0),
            committed: Committed {
                index: view.applied.0,
                gtid_set: view.accepted.to_string(),
            },
            nodes: view.nodes.iter().map(node).collect(),
            recent: Vec::new(),
            retention: RetentionJson {
                purged: view.retention.purged.0,
                wanted: view.retention.wanted.0,
                held_by: view.retention.held_by.iter().map(holder).collect(),
            },
        }
    }
}

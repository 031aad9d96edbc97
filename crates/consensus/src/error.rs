use quorate_types::NodeId;

use crate::log::WriteError;
use crate::types::TypeConfig;

/// Why Raft could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("these timings do not fit together")]
    Config(#[source] Box<openraft::ConfigError>),
    #[error("open the log")]
    Log(#[source] std::io::Error),
    #[error("start Raft")]
    Raft(#[source] Box<openraft::errors::Fatal<TypeConfig>>),
}

/// Why the leader did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum ChangeError {
    #[error("this node does not lead; {}", match leader {
        Some(leader) => format!("node {leader} does"),
        None => "nobody is known to".to_owned(),
    })]
    NotLeader { leader: Option<NodeId> },
    /// A change before it is not committed yet, nor anything of this leader, perhaps.
    #[error("another change of members is under way")]
    InProgress,
    #[error("refused: {0}")]
    Refused(String),
    #[error("Raft has stopped")]
    Stopped,
}

impl ChangeError {
    /// Whether it may succeed later, or at the leader.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::NotLeader { .. } | Self::InProgress => true,
            Self::Refused(_) | Self::Stopped => false,
        }
    }
}

/// Why there is no read index.
#[derive(Debug, thiserror::Error)]
pub enum ReadIndexError {
    #[error("this node cannot reach a leader, so what it has may not be all that is committed")]
    NoLeader,
    #[error("the node is stopping")]
    Stopped,
}

/// Why the process must stop: this node can no longer keep its promises.
#[derive(Clone, Debug, thiserror::Error)]
pub enum FatalError {
    #[error(transparent)]
    Log(#[from] WriteError),
    #[error("Raft has stopped: {0}")]
    Raft(String),
}

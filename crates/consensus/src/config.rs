use std::sync::Arc;
use std::time::Duration;

use openraft::{Config, SnapshotPolicy};
use quorate_types::Rule;

use crate::log::Exec;
use crate::metrics::Metrics;
use crate::peer::{Dial, Identity, SecureConnect, StartIds};

/// Applied entries between two snapshots. A snapshot is small; what it saves is applying again
/// after a restart.
const SNAPSHOT_ENTRIES: u64 = 20_000;

/// Entries in one message at most; their bytes are bounded by the log's reader.
const MESSAGE_ENTRIES_MAX: u64 = 300;

/// How patient Raft is. The lease is the longest election timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timings {
    pub heartbeat: Duration,
    pub election_min: Duration,
    pub election_max: Duration,
    /// How long a leader that hears no quorum stays silent, and then tries, in turn: without it a
    /// leader that sends but does not hear would block every election.
    pub quorum_loss_probe: Duration,
}

impl Default for Timings {
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_millis(50),
            election_min: Duration::from_millis(150),
            election_max: Duration::from_millis(300),
            quorum_loss_probe: Duration::from_millis(600),
        }
    }
}

/// What a node's Raft needs to know.
#[derive(Clone)]
pub struct ConsensusConfig {
    pub identity: Identity,
    /// Of the folder's last starts.
    pub start_ids: StartIds,
    pub timings: Timings,
    /// Where to dial a node instead of its member's address.
    pub dial: Dial,
    pub secure: Option<SecureConnect>,
    pub exec: Exec,
    /// How long after its start the node neither votes nor stands: one lease, whenever its folder
    /// was used before; none at the first start of a folder.
    pub sit_out: Option<Duration>,
    pub metrics: Metrics,
    /// A rule that this node breaks, for a simulation. Production: none.
    pub left_out: Option<Rule>,
}

impl ConsensusConfig {
    /// With defaults for production: member addresses, no TLS, a writer thread.
    #[must_use]
    pub fn new(identity: Identity) -> Self {
        Self {
            identity,
            start_ids: StartIds::default(),
            timings: Timings::default(),
            dial: Arc::new(|_| None),
            secure: None,
            exec: Exec::WriterThread,
            sit_out: Some(Timings::default().election_max),
            metrics: Metrics::default(),
            left_out: None,
        }
    }

    pub(crate) fn raft(&self) -> Result<Config, openraft::ConfigError> {
        let millis = |duration: Duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let timings = &self.timings;
        Config {
            cluster_name: self.identity.cluster.to_string(),
            heartbeat_interval: millis(timings.heartbeat),
            election_timeout_min: millis(timings.election_min),
            election_timeout_max: millis(timings.election_max),
            quorum_loss_probe_interval: Some(millis(timings.quorum_loss_probe)),
            enable_pre_vote: Some(true),
            enable_elect: self.sit_out.is_none(),
            // By default a leader that restarts leads on in its old term. It has forgotten what was
            // committed, and perhaps entries that it sent before it had them on its own disk: it
            // would give read indexes that are too old, and other entries the same log ids.
            enable_leader_restore: Some(false),
            max_payload_entries: MESSAGE_ENTRIES_MAX,
            snapshot_policy: SnapshotPolicy::LogsSinceLast(SNAPSHOT_ENTRIES),
            // The log holds the transactions: what may go is decided by retention, never by a
            // snapshot.
            max_in_snapshot_log_to_keep: u64::MAX,
            ..Config::default()
        }
        .validate()
    }
}

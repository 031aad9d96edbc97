use std::time::Duration;

use quorate_types::{Epoch, LeaderId, LogId, NodeId};

/// Monotonic time since any fixed moment.
pub type Tick = Duration;

/// How long things may take.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// How long followers are bound to a leader (`election_timeout_max`).
    pub lease: Duration,
    /// The least time between two transfers of leadership that nobody asked for.
    pub transfer_interval: Duration,
    /// The same for a leader whose server is down or being mended: it cannot serve, so leadership
    /// goes to a healthy server soon, also when it came back within the longer interval.
    pub serverless_transfer_interval: Duration,
    /// How long to wait before a repair that failed is tried again.
    pub repair_retry: Duration,
    /// The same for a clone.
    pub clone_retry: Duration,
    /// How long a promotion may make no progress before a nearer node is looked for.
    pub promotion_stall: Duration,
    /// The same for a stop or a resumption of writes.
    pub limit_retry: Duration,
    /// How long to wait before a `SetPrimary` that was refused is proposed again.
    pub proposal_retry: Duration,
    /// How long a stopping node may take to hand over and to demote before it ends by force.
    pub stop_bound: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            lease: Duration::from_millis(300),
            transfer_interval: Duration::from_secs(10),
            serverless_transfer_interval: Duration::from_millis(500),
            repair_retry: Duration::from_secs(1),
            clone_retry: Duration::from_secs(2),
            promotion_stall: Duration::from_secs(2),
            limit_retry: Duration::from_secs(1),
            proposal_retry: Duration::from_millis(20),
            stop_bound: Duration::from_secs(15),
        }
    }
}

/// What the log says of primaries, as applied here.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// The last `SetPrimary` that took effect, with a node or none.
    pub set_primary: Option<LogId>,
    /// The current epoch and its node.
    pub epoch: Option<(Epoch, NodeId)>,
}

/// Major and minor version of a mysqld: its release series. What a newer one writes an older one may
/// not be able to apply.
pub type Series = (u16, u16);

/// A node that leadership could go to, by its own fresh report.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Candidate {
    pub node: NodeId,
    /// Its mysqld answers, replicates, and is of a promotable version.
    pub healthy: bool,
    /// Accepted transactions that its mysqld has not executed.
    pub behind: u64,
    /// Of its mysqld; where that is not known, of this node's.
    pub series: Series,
}

impl Candidate {
    /// Where leadership would go: the healthy one of the oldest series that is least behind.
    pub fn nearest<'c>(candidates: impl IntoIterator<Item = &'c Self>) -> Option<Self> {
        let healthy = candidates.into_iter().filter(|peer| peer.healthy);
        healthy
            .min_by_key(|peer| (peer.series, peer.behind, peer.node))
            .copied()
    }
}

/// What happened to this node's mysqld by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServerEvent {
    Exited,
    /// It does not answer within the bound, or its disk does not.
    Hung,
    /// It replicated rows only, and stopped at a transaction that was logged as statements.
    MetStatements,
    /// As a replica it answers and replicates, or no longer does.
    ReplicaHealth(bool),
}

/// Numbers jobs, so that the answer of an aborted one is known for what it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct JobId(pub u64);

/// Work on the server that takes a while. One at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Job {
    /// Make a replica of whatever is there: adopt a running safe replica (only `adopt`), else kill,
    /// wait for the end of the last epoch that this server was primary in, cut, start, follow.
    Repair { adopt: bool },
    /// All of DESIGN's promotion up to `super_read_only=OFF`.
    Promote { epoch: Epoch },
    /// Let the transactions that run now end by themselves, within a bound; then it is done.
    Drain { epoch: Epoch },
    /// Commits may be answered that the log does not know. Once the gate is closed: let what the
    /// server executed become accepted, within a bound, since clients were told so.
    Salvage { epoch: Epoch },
    /// `super_read_only=ON`: its success proves that no commit is in flight (A9).
    EndWrites { epoch: Epoch },
    /// The log has no room, or has room again: the primary stops taking writes, or takes them,
    /// within its epoch.
    LimitWrites { epoch: Epoch, stop: bool },
    /// After the epoch's end was applied: check, semi-sync off, check again, follow.
    Demote { epoch: Epoch },
    /// Replace the server's data by a copy of another's, by a permit of the log; then it starts by
    /// way of a repair. Whatever becomes of it, the data folder is the old one or the new one.
    Clone,
    /// Stop the server for good: cleanly if it is a safe replica, else by force.
    StopServer { clean: bool },
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JobResult {
    Done,
    /// It can be tried again, by way of a repair.
    Failed(String),
    /// Only a clone can mend this server.
    MustClone(Defect, String),
}

/// Why only a clone can mend a server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Defect {
    /// It executed transactions that were never accepted.
    Errant,
    /// It holds something else that it should not, or its data are somebody else's.
    Damaged,
    /// It holds nothing wrong, and what it lacks is no longer in this node's log.
    Behind,
}

/// What became of a `SetPrimary`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proposal {
    /// It took effect as this entry.
    Applied(LogId),
    /// Certainly not in the log.
    Refused,
    /// It may come or not; the log will tell.
    Unknown,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Input {
    /// Time passed.
    Tick,
    /// Who leads, as far as this node knows, and whether it is this node.
    Raft {
        leader: Option<LeaderId>,
        leading: Option<LeaderId>,
    },
    Applied(Applied),
    Proposed {
        leader: LeaderId,
        result: Proposal,
    },
    JobDone {
        id: JobId,
        result: JobResult,
    },
    /// The promotion under way came nearer to the accepted set.
    PromotionAdvanced {
        id: JobId,
    },
    /// Capture of this epoch ended, or the fate of a proposal of it is unknown, or a collision.
    CaptureStopped {
        epoch: Epoch,
    },
    Server(ServerEvent),
    /// What was found of a replica that runs, as in [`JobResult::MustClone`].
    Unmendable(Defect, String),
    /// All that a server executed which was to be cloned for having more is accepted by now.
    Absolved,
    /// Under this epoch, commits of the server are answered without waiting for the log.
    Bypassed {
        epoch: Epoch,
        why: String,
    },
    Peers(Vec<Candidate>),
    /// Of this node's mysqld.
    Series(Series),
    /// The log is near its budget, or no longer.
    LogFull(bool),
    Switchover {
        to: NodeId,
    },
    /// The process shall end: hand over, stop the server.
    Stop,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    OpenGate {
        epoch: Epoch,
    },
    /// Returns before any later effect is carried out: no byte reaches a client after it (A2).
    CloseGate,
    /// New connections wait, here and at the other nodes: the epoch is about to be given up.
    Hold {
        epoch: Epoch,
    },
    /// It is not given up after all.
    Release {
        epoch: Epoch,
    },
    Start {
        id: JobId,
        job: Job,
    },
    /// The job's future is dropped before any later effect is carried out.
    Abort {
        id: JobId,
    },
    Propose {
        leader: LeaderId,
        node: Option<NodeId>,
    },
    /// Ends the lease of this leadership for good, then asks `to` to take over.
    Transfer {
        leader: LeaderId,
        to: NodeId,
    },
    Heartbeats(bool),
    /// A promotion or a repair failed; for the log.
    Report(String),
    /// Everything that `Stop` asked for is done.
    Stopped,
}

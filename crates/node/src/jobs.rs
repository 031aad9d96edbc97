//! The effects of role control on the server: each job is one future, and one runs at a time.

mod clone;
mod demote;
mod events;
mod inert;
mod limit;
mod preflight;
mod promote;
mod repair;
mod stop;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quorate_consensus::Consensus;
use quorate_mysqld::{CheckFinding, ControlError, Host, Marker, ReplicationSource, Stream};
use quorate_net::Net;
use quorate_replication::{AckDelay, CaptureMetrics, CaptureOptions};
use quorate_role::{Defect, Input, Job, JobId, JobResult};
use quorate_types::{ClusterId, Epoch, Incarnation, NodeId, Rule, Uuid, chain};
use tokio::sync::{Mutex, mpsc, watch};

pub(crate) use clone::CloneParts;

use crate::guard::GuardSessions;
use crate::inert::OwnGroups;
use crate::server::{Logins, ServerError, ServerState};

/// What every job works with.
pub(crate) struct JobContext<N, H: Host> {
    pub(crate) net: N,
    pub(crate) consensus: Consensus,
    pub(crate) server: Arc<Mutex<ServerState<H>>>,
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) start_counter: u64,
    pub(crate) cluster: ClusterId,
    pub(crate) feed: ReplicationSource,
    /// Whether a replica met a transaction that was logged as statements; then it takes them.
    pub(crate) met_statements: Arc<AtomicBool>,
    /// Of capture, as a replica: unlike any server's.
    pub(crate) capture_server_id: u32,
    pub(crate) capture_uuid: Uuid,
    pub(crate) capture_metrics: Arc<CaptureMetrics>,
    pub(crate) ack_delay: AckDelay,
    /// Where capture runs: a commit then wakes no other thread on its way to Raft and back.
    pub(crate) raft: tokio::runtime::Handle,
    /// Of this node as primary: its log has a budget.
    pub(crate) transaction_bytes_max: u64,
    pub(crate) demote_bound: Duration,
    pub(crate) drain_bound: Duration,
    pub(crate) own_groups: OwnGroups,
    /// For what must not wait for the job that runs.
    pub(crate) logins: Logins,
    pub(crate) guard_sessions: watch::Receiver<GuardSessions>,
    pub(crate) enable_events: bool,
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) capture: CaptureOptions,
    pub(crate) left_out: Option<Rule>,
    pub(crate) clone: CloneParts,
    /// What the running job is at, for people.
    pub(crate) doing: watch::Sender<String>,
    /// What was said already of what speaks against the server.
    pub(crate) told: std::sync::Mutex<Vec<CheckFinding>>,
}

/// Why a job did not succeed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JobError {
    #[error(transparent)]
    Server(#[from] ServerError),
    #[error("repair the binlog")]
    Repair(#[from] quorate_mysqld::RepairError),
    #[error("mysqld runs with {0}")]
    Settings(String),
    #[error("this epoch is over")]
    EpochOver,
    #[error("{0}")]
    Failed(String),
    /// Not a failure of the job: what it found only a clone can mend.
    #[error("{1}")]
    MustClone(Defect, String),
}

impl From<ControlError> for JobError {
    fn from(error: ControlError) -> Self {
        Self::Server(error.into())
    }
}

impl From<quorate_mysqld::HostError> for JobError {
    fn from(error: quorate_mysqld::HostError) -> Self {
        Self::Server(error.into())
    }
}

impl<N: Net, H: Host> JobContext<N, H> {
    /// Runs a job to its end.
    pub(crate) async fn run(&self, id: JobId, job: Job) -> JobResult {
        let mut server = self.server.lock().await;
        let server = &mut *server;
        let result = match job {
            Job::Repair { adopt } => Box::pin(self.repair(server, adopt)).await,
            Job::Promote { epoch } => Box::pin(self.promote(server, id, epoch)).await,
            Job::Drain { .. } => Box::pin(self.drain(server)).await,
            Job::Salvage { .. } => Box::pin(self.salvage(server)).await,
            Job::EndWrites { .. } => Box::pin(self.end_writes(server)).await,
            Job::LimitWrites { epoch, stop } => {
                Box::pin(self.limit_writes(server, epoch, stop)).await
            }
            Job::Demote { .. } => Box::pin(self.demote(server)).await,
            Job::Clone => Box::pin(self.clone_server(server)).await,
            Job::StopServer { clean } => Box::pin(self.stop_server(server, clean)).await,
        };
        match result {
            Ok(()) => JobResult::Done,
            Err(JobError::MustClone(defect, why)) => JobResult::MustClone(defect, why),
            Err(error) => JobResult::Failed(chain(&error)),
        }
    }

    /// Whether a rule holds on this node: all do, but in a simulation.
    pub(crate) fn obeys(&self, rule: Rule) -> bool {
        self.left_out != Some(rule)
    }

    fn stream(&self) -> Stream {
        match self.met_statements.load(Ordering::Relaxed) {
            true => Stream::Any,
            false => Stream::Rows,
        }
    }

    fn accepted(&self) -> Arc<quorate_types::GtidSet> {
        self.consensus.applied_state().borrow().accepted.clone()
    }

    fn doing(&self, what: &str) {
        if !what.is_empty() {
            tracing::info!("{what}");
        }
        self.doing.send_replace(what.to_owned());
    }

    fn marker(&self, last_epoch: Option<Epoch>) -> Marker {
        Marker {
            cluster: self.cluster,
            node: self.node,
            incarnation: self.incarnation,
            start_counter: self.start_counter,
            last_epoch,
        }
    }
}

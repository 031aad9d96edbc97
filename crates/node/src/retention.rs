//! Keeps the log within its limits: what may go is agreed through the log, then each node gives it
//! back. Near the budget it has role control stop writes.

mod metrics;
mod plan;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::{
    AppliedState, Consensus, DiskUse, LogMarks, MarkSpacing, ProposalFate, RaftView, ReadError,
};
use quorate_proxy::RoleWatch;
use quorate_role::Input;
use quorate_types::{
    ClusterView, Command, LeaderId, LogIndex, LogState, NodeView, Retention, Role, Rule,
};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

pub(crate) use self::metrics::LogMetrics;
use self::plan::{Copy, Plan};
use crate::config;
use crate::recent::Recent;
use crate::roles::Roles;

const LOOK: Duration = Duration::from_millis(500);
/// The same where writes may have to stop soon, or go on.
const LOOK_NEAR: Duration = Duration::from_millis(50);
/// How long the log may take to agree: it needs a quorum, and that may be gone.
const STEP_MAX: Duration = Duration::from_secs(10);
/// A snapshot that was asked for and did not come is asked for again.
const SNAPSHOT_MAX: Duration = Duration::from_secs(30);
/// Between two looks at the files.
const MEASURE: Duration = Duration::from_secs(5);
/// A limit is kept in so many steps, so that a purge is worth its entry and its snapshot.
const STEPS: u64 = 64;
/// The shortest time between two marks of the log's age.
const MARK_MS_MIN: u64 = 1000;

/// What retention knows, for whoever shows it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Kept {
    pub(crate) log: LogState,
    pub(crate) retention: Retention,
}

pub(crate) struct Retainer {
    pub(crate) config: config::Retention,
    pub(crate) consensus: Consensus,
    pub(crate) roles: Roles,
    /// Milliseconds since 1970: ages are for people to choose, and outlive processes.
    pub(crate) wall_clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) recent: Recent,
    pub(crate) metrics: LogMetrics,
    pub(crate) kept: watch::Sender<Kept>,
    pub(crate) left_out: Option<Rule>,
}

/// What lasts from one look to the next.
#[derive(Default)]
struct Progress {
    snapshot: Option<AskedSnapshot>,
    /// When, and how many bytes the files took.
    measured: Option<(Instant, u64)>,
}

/// A snapshot that was asked for, so that the log may go up to this entry.
struct AskedSnapshot {
    upto: LogIndex,
    at: Instant,
    /// The newest one then.
    newest: Option<LogIndex>,
}

impl AskedSnapshot {
    /// Whether to wait for it still. One that is being made when another is asked for is made to its
    /// end, and the other never is: so what came may be too old.
    fn is_awaited(&self, purged: LogIndex, newest: Option<LogIndex>) -> bool {
        self.upto >= purged && self.newest == newest && self.at.elapsed() < SNAPSHOT_MAX
    }
}

impl Retainer {
    pub(crate) async fn run(self) {
        tokio::select! {
            () = self.keep_limits() => {}
            // On its own: a step of the other may wait for a quorum, while a fast primary fills a
            // small budget in a second.
            () = self.watch_budget() => {}
        }
    }

    async fn keep_limits(&self) {
        let mut progress = Progress::default();
        loop {
            let is_near = self.kept.borrow().log.bytes >= self.config.budget_bytes / 2;
            tokio::time::sleep(if is_near { LOOK_NEAR } else { LOOK }).await;
            let now_ms = (self.wall_clock)();
            if self
                .consensus
                .mark_log(now_ms, self.spacing())
                .await
                .is_err()
            {
                return;
            }
            let (marks, first) = self.consensus.marks();
            let state = self.consensus.applied_state().borrow().clone();
            let retention = self.purge(&marks, first, now_ms, &state).await;
            self.free(first, &mut progress).await;
            let log = self.measure(now_ms, &mut progress).await;
            self.kept.send_modify(|kept| {
                let is_full = kept.log.is_full;
                let log = LogState { is_full, ..log };
                self.metrics.set(&log, retention.purged);
                *kept = Kept { log, retention };
            });
        }
    }

    fn spacing(&self) -> MarkSpacing {
        let age_ms = u64::try_from(self.config.log_age.as_millis()).unwrap_or(u64::MAX);
        let limit = match self.config.log_bytes {
            0 => self.config.budget_bytes,
            limit => limit,
        };
        MarkSpacing {
            bytes: limit / STEPS,
            ms: match age_ms {
                0 => u64::MAX,
                age => (age / STEPS).max(MARK_MS_MIN),
            },
        }
    }

    /// Up to where the log is beyond its limits.
    fn wanted(&self, marks: &LogMarks, first: LogIndex, now_ms: u64) -> LogIndex {
        let limit = self.config.log_bytes;
        let by_size = (limit > 0)
            .then(|| marks.beyond_size(first, limit))
            .flatten();
        let age_ms = u64::try_from(self.config.log_age.as_millis()).unwrap_or(u64::MAX);
        let by_age = (age_ms > 0)
            .then(|| marks.beyond_age(first, now_ms.saturating_sub(age_ms)))
            .flatten();
        by_size.max(by_age).unwrap_or(LogIndex::ZERO)
    }

    /// On the leader, has the log agree to purge what is beyond the limits and may go. Everywhere,
    /// says what is.
    async fn purge(
        &self,
        marks: &LogMarks,
        first: LogIndex,
        now_ms: u64,
        state: &AppliedState,
    ) -> Retention {
        let mut retention = Retention {
            purged: state.purged,
            wanted: self.wanted(marks, first, now_ms).min(state.index()),
            held_by: BTreeMap::new(),
        };
        if retention.wanted <= state.purged {
            return retention;
        }
        let raft = self.consensus.view().borrow().clone();
        let cluster = self.roles.view().borrow().clone();
        let plan = self.plan(&raft, &cluster, state, &retention).await;
        let is_pressed = plan.is_pressed;
        let mut verdict = plan.judge();
        if self.left_out == Some(Rule::PurgeNeedsCopies) {
            verdict.upto = retention.wanted;
        }
        if let Some((_, permit)) = state.permits.current()
            && permit.pinned < verdict.upto
        {
            // So `apply` would judge too.
            verdict.upto = permit.pinned;
            let why = format!("is being cloned from node {}", permit.donor);
            verdict.held_by.insert(permit.recipient, why);
        }
        if let Some(open) = state.open_since {
            verdict.upto = verdict.upto.min(LogIndex(open.0.saturating_sub(1)));
        }
        retention.held_by = verdict.held_by;
        // While voters change, two sets of them count.
        if verdict.upto > state.purged
            && !raft.joint
            && let Some(leader) = own_leadership(&raft, state)
            && self.consensus.view().borrow().voters == raft.voters
        {
            self.propose(leader, verdict.upto, is_pressed).await;
        }
        retention
    }

    async fn plan(
        &self,
        raft: &RaftView,
        cluster: &ClusterView,
        state: &AppliedState,
        retention: &Retention,
    ) -> Plan {
        let mut copies = BTreeMap::new();
        let mut followers = BTreeMap::new();
        for (node, view) in &cluster.nodes {
            let needs = self.needs(view).await;
            let is_member = raft.voters.contains(node) || raft.learners.contains(node);
            if let (Ok(needs), true) = (&needs, is_member) {
                followers.insert(*node, *needs);
            }
            let member = state.members.get(node);
            let has_server = member.is_some_and(|member| member.server_uuid.is_some());
            if raft.voters.contains(node) && has_server {
                copies.insert(*node, Copy { needs });
            }
        }
        let limit = self.config.log_bytes;
        let bytes = self.kept.borrow().log.bytes;
        Plan {
            voters: raft.voters.len(),
            copies,
            followers,
            is_pressed: bytes >= self.config.room_bytes() || (limit > 0 && bytes >= 2 * limit),
            purged: retention.purged,
            wanted: retention.wanted,
        }
    }

    /// What a server that has executed its transactions for good still needs of the log. Only one
    /// that serves or replicates now, with the settings that make it durable, counts.
    async fn needs(&self, view: &NodeView) -> Result<LogIndex, String> {
        let fit = view.healthy && matches!(view.role, Role::Replica | Role::Primary);
        if !fit {
            return Err(match view.message.as_str() {
                "" => format!("is {}", view.role),
                message => format!("is {}: {message}", view.role),
            });
        }
        let log = self.consensus.accepted_log();
        match log.first_needed(&view.executed).await {
            Ok(needed) => Ok(needed),
            Err(ReadError::Purged { .. }) => Err("needs what is purged already".to_owned()),
            Err(error) => {
                let why = quorate_types::chain(&error);
                tracing::warn!(error = why, "what a server needs cannot be found out");
                Err(why)
            }
        }
    }

    async fn propose(&self, leader: LeaderId, upto: LogIndex, is_pressed: bool) {
        let command = Command::Purge { upto };
        let fate = async { self.consensus.propose(leader, command).await.await };
        match timeout(STEP_MAX, fate).await {
            Ok(Ok(ProposalFate::Applied { .. })) => {
                tracing::info!(%upto, is_pressed, "the log is purged");
            }
            // Another leader looks at it anew.
            Ok(_) | Err(_) => tracing::debug!(%upto, "the log could not agree to be purged"),
        }
    }

    /// Gives back what was agreed to go, behind a snapshot that covers it.
    async fn free(&self, first: LogIndex, progress: &mut Progress) {
        let purged = self.consensus.applied_state().borrow().purged;
        if purged == LogIndex::ZERO || purged < first {
            progress.snapshot = None;
            return;
        }
        let snapshot = self.consensus.view().borrow().snapshot;
        let newest = snapshot.map(|snapshot| snapshot.index);
        let asked = if newest >= Some(purged) {
            self.consensus.purge_log().await
        } else {
            let asked = progress.snapshot.as_ref();
            if asked.is_some_and(|asked| asked.is_awaited(purged, newest)) {
                return;
            }
            progress.snapshot = Some(AskedSnapshot {
                upto: purged,
                at: Instant::now(),
                newest,
            });
            self.consensus.snapshot().await
        };
        if let Err(error) = asked {
            tracing::debug!(%error, "the log could not be given back");
        }
    }

    async fn measure(&self, now_ms: u64, progress: &mut Progress) -> LogState {
        let files = match progress.measured {
            Some((at, bytes)) if at.elapsed() < MEASURE => bytes,
            _ => {
                let measured = self.consensus.disk_use().await;
                let measured = measured.unwrap_or_else(|error| {
                    tracing::debug!(%error, "the log's files cannot be measured");
                    DiskUse::default()
                });
                self.metrics.set_free(measured.free_bytes);
                progress.measured = Some((Instant::now(), measured.taken_bytes));
                measured.taken_bytes
            }
        };
        let (marks, first) = self.consensus.marks();
        let written = marks.written_ms(first);
        LogState {
            first,
            last: self.consensus.view().borrow().last_log.unwrap_or_default(),
            bytes: marks.retained(first),
            disk_bytes: files,
            budget_bytes: self.config.budget_bytes,
            age_ms: written.map_or(0, |at| now_ms.saturating_sub(at)),
            is_full: false,
        }
    }

    /// Tells role control when writes must stop, and when they may go on.
    async fn watch_budget(&self) {
        loop {
            self.consensus.log_takes(self.config.full_bytes()).await;
            self.on_budget(true).await;
            while self.log_bytes() >= self.config.room_bytes() {
                tokio::time::sleep(LOOK_NEAR).await;
            }
            self.on_budget(false).await;
        }
    }

    /// What the entries of this node's log take.
    fn log_bytes(&self) -> u64 {
        let (marks, first) = self.consensus.marks();
        marks.retained(first)
    }

    async fn on_budget(&self, is_full: bool) {
        let bytes = self.log_bytes();
        let percent = bytes / (self.config.budget_bytes / 100).max(1);
        let what = match is_full {
            true => format!(
                "the log has {bytes} bytes, {percent} % of its budget: the primary takes no writes \
                 until some of it can be purged"
            ),
            false => format!("the log has {percent} % of its budget: writes go on"),
        };
        self.kept.send_modify(|kept| {
            kept.log.is_full = is_full;
            kept.log.bytes = bytes;
        });
        match is_full {
            true => tracing::warn!("{what}"),
            false => tracing::info!("{what}"),
        }
        self.recent.note(what);
        let _ = self.inputs.send(Input::LogFull(is_full)).await;
    }
}

/// This leadership, once its first entry ended the epoch before.
fn own_leadership(raft: &RaftView, state: &AppliedState) -> Option<LeaderId> {
    let leader = raft.leader.filter(|_| raft.is_leader)?;
    let began = state.set_primary.is_some_and(|id| id.leader == leader);
    began.then_some(leader)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_snapshot_that_came_and_is_too_old_is_asked_for_again_at_once() {
        let index = |index| Some(LogIndex(index));
        let asked = AskedSnapshot {
            upto: LogIndex(20),
            at: Instant::now(),
            newest: index(5),
        };
        assert!(asked.is_awaited(LogIndex(20), index(5)));
        // What was being made when it was asked for.
        assert!(!asked.is_awaited(LogIndex(20), index(12)));
        assert!(!asked.is_awaited(LogIndex(21), index(5)));
        tokio::time::advance(SNAPSHOT_MAX).await;
        assert!(!asked.is_awaited(LogIndex(20), index(5)));
    }
}

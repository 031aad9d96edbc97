//! The leader's part in cloning: who may, from whom, and until when.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use quorate_consensus::{Consensus, ProposalFate};
use quorate_proxy::RoleWatch;
use quorate_types::{
    ClonePermit, Cloning, ClusterView, Command, Incarnation, LeaderId, LogIndex, Member, NodeId,
    Outcome, Role, Standing,
};
use tokio::sync::Mutex;
use tokio::time::{Instant, timeout};

use crate::roles::Roles;
use crate::series::series;

/// A permit whose holder does not get on for so long ends: another member may need one.
const PROGRESS_MAX: Duration = Duration::from_secs(30);
/// How long one step may take: it needs a quorum, and that may be gone.
const STEP_MAX: Duration = Duration::from_secs(10);
const LOOK: Duration = Duration::from_millis(500);

/// A node that asks for a permit.
#[derive(Clone, Debug)]
pub(crate) struct Ask {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) server_version: String,
    /// Donors that failed it lately.
    pub(crate) not_from: BTreeSet<NodeId>,
}

/// A permit that is open for the node that asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Granted {
    pub(crate) sequence: u64,
    pub(crate) donor: NodeId,
}

/// Why no permit was given; asking again is what to do.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PermitError {
    #[error("this node does not lead")]
    NotLeader,
    #[error("there is no quorum")]
    NoQuorum,
    #[error("node {0} is not (yet) a member as it is")]
    NotAMember(NodeId),
    #[error("node {0} is being cloned: one at a time")]
    Taken(NodeId),
    #[error("waiting for a donor: {0}")]
    NoDonor(String),
}

/// What the holder of a permit said last.
#[derive(Clone, Copy, Debug)]
struct Heard {
    sequence: u64,
    progress: u64,
    /// When the progress changed.
    at: Instant,
}

/// Gives and ends permits while this node leads.
pub(crate) struct ClonePermits {
    consensus: Consensus,
    roles: Roles,
    heard: StdMutex<Option<Heard>>,
    one_at_a_time: Mutex<()>,
}

impl ClonePermits {
    pub(crate) fn new(consensus: Consensus, roles: Roles) -> Arc<Self> {
        Arc::new(Self {
            consensus,
            roles,
            heard: StdMutex::default(),
            one_at_a_time: Mutex::default(),
        })
    }

    /// A new permit. One that the same node has already ends: it begins anew.
    pub(crate) async fn ask(&self, ask: &Ask) -> Result<Granted, PermitError> {
        let _turn = self.one_at_a_time.lock().await;
        let leader = self.leader()?;
        // A new leader may not have applied what a former one granted.
        let barrier = timeout(STEP_MAX, self.consensus.barrier()).await;
        barrier
            .map_err(|_| PermitError::NoQuorum)?
            .map_err(|_| PermitError::NoQuorum)?;
        let state = self.consensus.applied_state().borrow().clone();
        let member = state.members.get(&ask.node);
        let as_it_is = |member: &Member| {
            member.incarnation == ask.incarnation && member.standing != Standing::Removed
        };
        if !member.is_some_and(as_it_is) {
            return Err(PermitError::NotAMember(ask.node));
        }
        if let Some((sequence, open)) = state.permits.current() {
            if open.recipient != ask.node {
                return Err(PermitError::Taken(open.recipient));
            }
            self.end(leader, sequence, "its holder begins anew").await?;
        }
        let view = self.roles.view().borrow().clone();
        let donor = choose_donor(&view, ask).map_err(PermitError::NoDonor)?;
        let executed = &view.nodes[&donor].executed;
        // What the donor lacks must be in the log, and stay there.
        let seek = self.consensus.accepted_log().first_needed(executed).await;
        let next = seek.map_err(|error| {
            let why = format!("node {donor} lacks what the log no longer has ({error})");
            PermitError::NoDonor(why)
        })?;
        let permit = ClonePermit {
            recipient: ask.node,
            incarnation: ask.incarnation,
            donor,
            pinned: LogIndex(next.0.saturating_sub(1)),
        };
        let sequence = state.permits.last_sequence + 1;
        let begin = Cloning {
            sequence,
            permit: Some(permit),
        };
        self.propose(leader, begin).await?;
        tracing::info!(recipient = %ask.node, %donor, sequence, "a member may be cloned");
        self.note(sequence, 0);
        Ok(Granted { sequence, donor })
    }

    /// What the holder says of itself; gives its permit, if that is still open.
    pub(crate) async fn report(
        &self,
        node: NodeId,
        sequence: u64,
        progress: u64,
        finished: bool,
    ) -> Result<Option<Granted>, PermitError> {
        let leader = self.leader()?;
        let state = self.consensus.applied_state().borrow().clone();
        let open = state.permits.current();
        let open = open.filter(|(open, permit)| *open == sequence && permit.recipient == node);
        let Some((_, permit)) = open else {
            return Ok(None);
        };
        if finished {
            self.end(leader, sequence, "its holder is done").await?;
            return Ok(None);
        }
        self.note(sequence, progress);
        Ok(Some(Granted {
            sequence,
            donor: permit.donor,
        }))
    }

    /// Ends permits whose holder is gone or gets no further.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            let Ok(leader) = self.leader() else {
                // Whoever led before heard the holder, this node did not: it gets its time again.
                *self.heard() = None;
                continue;
            };
            let state = self.consensus.applied_state().borrow().clone();
            let Some((sequence, permit)) = state.permits.current() else {
                continue;
            };
            let member = state.members.get(&permit.recipient);
            let gone = member.is_none_or(|member| member.incarnation != permit.incarnation);
            let why = match self.silent_for(sequence) {
                _ if gone => "its holder is gone",
                silent if silent >= PROGRESS_MAX => "its holder gets no further",
                _ => continue,
            };
            if let Err(error) = self.end(leader, sequence, why).await {
                tracing::debug!(%error, sequence, "a permit to clone could not be ended");
            }
        }
    }

    fn leader(&self) -> Result<LeaderId, PermitError> {
        let view = self.consensus.view();
        let view = view.borrow();
        let leader = view.leader.filter(|_| view.is_leader);
        leader.ok_or(PermitError::NotLeader)
    }

    async fn end(&self, leader: LeaderId, sequence: u64, why: &str) -> Result<(), PermitError> {
        let end = Cloning {
            sequence,
            permit: None,
        };
        self.propose(leader, end).await?;
        tracing::info!(sequence, "a permit to clone ended: {why}");
        Ok(())
    }

    async fn propose(&self, leader: LeaderId, cloning: Cloning) -> Result<(), PermitError> {
        let command = Command::Cloning(cloning);
        let fate = async { self.consensus.propose(leader, command).await.await };
        match timeout(STEP_MAX, fate).await {
            Ok(Ok(ProposalFate::Applied {
                outcome: Outcome::Done,
                ..
            })) => Ok(()),
            Ok(_) => Err(PermitError::NotLeader),
            Err(_) => Err(PermitError::NoQuorum),
        }
    }

    fn heard(&self) -> std::sync::MutexGuard<'_, Option<Heard>> {
        self.heard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, sequence: u64, progress: u64) {
        let mut heard = self.heard();
        match &*heard {
            Some(known) if (known.sequence, known.progress) == (sequence, progress) => {}
            _ => {
                *heard = Some(Heard {
                    sequence,
                    progress,
                    at: Instant::now(),
                });
            }
        }
    }

    /// Counted from the first look at a permit of which nothing was heard yet.
    fn silent_for(&self, sequence: u64) -> Duration {
        let mut heard = self.heard();
        match &*heard {
            Some(known) if known.sequence == sequence => known.at.elapsed(),
            _ => {
                *heard = Some(Heard {
                    sequence,
                    progress: 0,
                    at: Instant::now(),
                });
                Duration::ZERO
            }
        }
    }
}

/// The healthiest replica, else the primary: one that has no errant transaction and is of the
/// recipient's series.
fn choose_donor(view: &ClusterView, ask: &Ask) -> Result<NodeId, String> {
    let mut why = String::new();
    let mut found = Vec::new();
    for (id, node) in view.nodes.iter().filter(|(id, _)| **id != ask.node) {
        let fit = node.healthy && matches!(node.role, Role::Replica | Role::Primary);
        let reason = if !fit {
            format!("{} and not healthy", node.role)
        } else if series(&node.server_version) != series(&ask.server_version) {
            format!(
                "of version {}, and this one of {}: a clone needs one series",
                node.server_version, ask.server_version
            )
        } else if !view.accepted.contains_set(&node.executed) {
            "ahead of what is known to be accepted".to_owned()
        } else {
            let failed = ask.not_from.contains(id);
            let primary = node.role == Role::Primary;
            let load = (node.lag_transactions, node.sessions);
            found.push((failed, primary, load, *id));
            continue;
        };
        why = format!(
            "{why}{}node {id} is {reason}",
            if why.is_empty() { "" } else { "; " }
        );
    }
    if why.is_empty() {
        why = "there is no other node".to_owned();
    }
    found.into_iter().min().map(|(.., id)| id).ok_or(why)
}

#[cfg(test)]
mod tests {
    use quorate_types::{GtidSet, NodeView};

    use super::*;

    fn node(role: Role, executed: &str) -> NodeView {
        let executed: GtidSet = executed.parse().unwrap();
        NodeView {
            role,
            healthy: true,
            lag_transactions: 10 - executed.count(),
            executed,
            server_version: "9.7.4-2".to_owned(),
            ..NodeView::default()
        }
    }

    const UUID: &str = "3e11fa47-71ca-11e1-9e33-c80aa9429562";

    fn set(last: u64) -> String {
        format!("{UUID}:1-{last}")
    }

    /// Node 1 is primary, 2 and 3 are replicas, 3 lags, 4 asks.
    fn view() -> ClusterView {
        let nodes = [
            (NodeId(1), node(Role::Primary, &set(10))),
            (NodeId(2), node(Role::Replica, &set(10))),
            (NodeId(3), node(Role::Replica, &set(8))),
            (NodeId(4), node(Role::Cloning, &set(3))),
        ];
        ClusterView {
            accepted: set(10).parse().unwrap(),
            nodes: nodes.into(),
            ..ClusterView::default()
        }
    }

    fn ask(not_from: &[u64]) -> Ask {
        Ask {
            node: NodeId(4),
            incarnation: Incarnation(1),
            server_version: "9.7.1".to_owned(),
            not_from: not_from.iter().copied().map(NodeId).collect(),
        }
    }

    #[test]
    fn the_replica_that_is_least_behind_is_the_donor_and_the_primary_is_the_last() {
        let mut view = view();
        assert_eq!(choose_donor(&view, &ask(&[])), Ok(NodeId(2)));
        assert_eq!(choose_donor(&view, &ask(&[2])), Ok(NodeId(3)));
        assert_eq!(choose_donor(&view, &ask(&[2, 3])), Ok(NodeId(1)));
        assert_eq!(choose_donor(&view, &ask(&[1, 2, 3])), Ok(NodeId(2)));
        view.nodes.remove(&NodeId(2));
        view.nodes.remove(&NodeId(3));
        assert_eq!(choose_donor(&view, &ask(&[])), Ok(NodeId(1)));
    }

    #[test]
    fn an_errant_a_sick_or_another_version_s_server_is_no_donor() {
        type Spoil = fn(&mut NodeView);
        let spoil: [(Spoil, &str); 3] = [
            (|node| node.healthy = false, "not healthy"),
            (
                |node| node.executed = set(11).parse().unwrap(),
                "ahead of what is known",
            ),
            (
                |node| node.server_version = "9.6.0".to_owned(),
                "one series",
            ),
        ];
        for (spoil, expected) in spoil {
            let mut view = view();
            for id in 1..=3 {
                assert!(choose_donor(&view, &ask(&[])).is_ok());
                spoil(view.nodes.get_mut(&NodeId(id)).unwrap());
            }
            let why = choose_donor(&view, &ask(&[])).unwrap_err();
            assert_eq!(why.matches(expected).count(), 3, "{why}");
        }
    }
}

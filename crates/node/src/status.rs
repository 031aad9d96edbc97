//! What this node shows of itself and of the cluster.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::apply::APPLY_LEVEL;
use quorate_consensus::{Consensus, RaftView};
use quorate_net::Net;
use quorate_proxy::{GateHandle, RoleWatch};
use quorate_replication::AckDelay;
use quorate_role::{Candidate, Input, Series};
use quorate_types::{
    ClusterId, ClusterView, Incarnation, KeptCut, LogIndex, NodeId, NodeView, Role,
};
use quorate_wire::{NodeReport, RaftRole};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::addresses::AddressBook;
use crate::config::Config;
use crate::driver::Control;
use crate::errant::name_way_out;
use crate::flow::Flow;
use crate::http::{StatusJson, StatusSource};
use crate::part::Part;
use crate::peers::{REPORT_MAX, Reports};
use crate::recent::Recent;
use crate::retention::Kept;
use crate::roles::Roles;
use crate::series::series;
use crate::watchers::Health;

/// How often what nobody announces (lag, peers that fall silent) is looked at.
const LOOK: Duration = Duration::from_millis(50);

const REMOVED: &str = "it was removed from the cluster and serves nothing: `quorate members add` takes \
                       it in again, else its folders may go";

/// A node that has just started lacks reports of its peers, whose servers may be starting too: that
/// none is left to clone from is not said before.
const UNREPORTED_MAX: Duration = Duration::from_secs(10);

/// This node as it describes itself.
#[derive(Clone)]
pub(crate) struct OwnView<N> {
    pub(crate) node: NodeId,
    pub(crate) started_at: Instant,
    pub(crate) cluster: ClusterId,
    pub(crate) incarnation: Incarnation,
    pub(crate) gate_address: String,
    pub(crate) mysql_address: String,
    pub(crate) witness: bool,
    pub(crate) part: Arc<Part>,
    pub(crate) net: N,
    pub(crate) consensus: Consensus,
    pub(crate) roles: Roles,
    pub(crate) gate: GateHandle,
    pub(crate) control: watch::Receiver<Control>,
    pub(crate) health: watch::Receiver<Health>,
    pub(crate) doing: watch::Receiver<String>,
    pub(crate) kept_cuts: watch::Receiver<Vec<KeptCut>>,
    pub(crate) kept: watch::Receiver<Kept>,
    pub(crate) differs: watch::Receiver<BTreeSet<String>>,
}

impl<N: Net> OwnView<N> {
    fn view(&self) -> NodeView {
        let control = self.control.borrow().clone();
        let health = self.health.borrow().clone();
        let holds = self.roles.lease_holds(self.net.boot_time());
        let leads = self.consensus.view().borrow().is_leader;
        let removed = self.part.is_removed() && !leads;
        let role = match holds {
            // Whatever its server is: nothing passes this node's gate, and nobody follows it.
            _ if removed => Role::Fenced,
            true => control.role_with_lease,
            false => control.role_without_lease,
        };
        let accepted = self.consensus.applied_state().borrow().accepted.clone();
        let healthy = match role {
            Role::Primary | Role::Replica => health.fit,
            Role::Witness => leads || self.part.is_heard(),
            _ => false,
        };
        let doing = self.doing.borrow().clone();
        let message = match role {
            // How far it is, and why it had to begin.
            _ if removed => Some(REMOVED.to_owned()),
            Role::Witness if !healthy => Some("it hears no leader".to_owned()),
            Role::Cloning => Some(match doing.is_empty() {
                true => control.message.clone(),
                false => format!("{doing}; because {}", control.message),
            }),
            _ => [control.message, health.message.clone(), doing]
                .into_iter()
                .find(|text| !text.is_empty()),
        };
        let message = message.map(|message| match self.started_at.elapsed() < UNREPORTED_MAX {
            true => message,
            false => name_way_out(message, &control.phase, &self.roles.view().borrow()),
        });
        NodeView {
            role,
            healthy,
            message: if healthy {
                String::new()
            } else {
                message.unwrap_or_default()
            },
            gate_address: self.gate_address.clone(),
            mysql_address: self.mysql_address.clone(),
            lag_transactions: match self.witness {
                true => 0,
                false => accepted.difference(&health.executed).count(),
            },
            executed: health.executed,
            server_version: health.version,
            learner: self.consensus.view().borrow().learners.contains(&self.node),
            sessions: self.gate.read_only_sessions(),
            kept_cuts: self.kept_cuts.borrow().clone(),
            log: self.kept.borrow().log,
            differs: self.differs.borrow().iter().cloned().collect(),
        }
    }

    pub(crate) fn report(&self) -> NodeReport {
        let raft = self.consensus.view().borrow().clone();
        NodeReport {
            cluster: Some(self.cluster),
            node: self.node,
            view: self.view(),
            raft: match &*raft {
                view if view.is_leader => RaftRole::Leader,
                view if view.voters.contains(&self.node) => RaftRole::Follower,
                _ => RaftRole::Learner,
            },
            incarnation: self.incarnation,
            server_uuid: self.health.borrow().uuid,
            term: raft.term,
            leader: raft.leader.map(|leader| leader.node),
            last: raft.last_log.unwrap_or(LogIndex::ZERO),
            applied: *self.consensus.applied().borrow(),
            apply_level: APPLY_LEVEL,
            members: raft.voters.union(&raft.learners).copied().collect(),
        }
    }
}

/// Puts the cluster's view together, and tells role control about the peers.
#[derive(Clone)]
pub(crate) struct ViewMaker<N> {
    pub(crate) own: OwnView<N>,
    pub(crate) config: Arc<Config>,
    pub(crate) book: Arc<AddressBook>,
    pub(crate) reports: watch::Receiver<Reports>,
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) recent: Recent,
    pub(crate) ack_delay: AckDelay,
}

impl<N: Net> ViewMaker<N> {
    pub(crate) async fn run(self) {
        let mut look = tokio::time::interval(LOOK);
        look.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Skip);
        let mut set_primary = self.own.consensus.set_primary();
        let mut raft = self.own.consensus.view();
        let mut control = self.own.control.clone();
        let mut leader = None;
        let mut told = Vec::new();
        let mut told_series = None;
        let mut heard_at = Instant::now();
        let mut flow = Flow::new(self.config.flow_control, self.ack_delay.clone());
        loop {
            // The log moves thousands of times a second: only a new epoch is urgent.
            let urgent = tokio::select! {
                biased;
                Ok(()) = set_primary.changed() => true,
                Ok(()) = raft.changed() => {
                    let before = std::mem::replace(&mut leader, raft.borrow_and_update().leader);
                    before != leader
                }
                Ok(()) = control.changed() => true,
                _ = look.tick() => true,
                else => return,
            };
            if !urgent {
                continue;
            }
            let view = self.make();
            let heard = self.hears_a_leader();
            self.own.part.set_heard(heard);
            self.own.part.set_left_out(self.is_left_out());
            if heard {
                heard_at = Instant::now();
            }
            self.own
                .roles
                .set_reads(self.may_serve_reads(&view, heard_at));
            let own = view.nodes.get(&self.own.node);
            let own_series = own.and_then(|own| series(&own.server_version));
            if let Some(series) = own_series.filter(|_| own_series != told_series) {
                told_series = own_series;
                let _ = self.inputs.send(Input::Series(series)).await;
            }
            let candidates = self.candidates(&view, own_series.unwrap_or_default());
            flow.judge(
                own.is_some_and(|own| own.role == Role::Primary),
                &candidates,
            );
            if candidates != told {
                told.clone_from(&candidates);
                let _ = self.inputs.send(Input::Peers(candidates)).await;
            }
            self.own.roles.publish(view);
        }
    }

    fn make(&self) -> ClusterView {
        let state = self.own.consensus.applied_state().borrow().clone();
        let raft: Arc<RaftView> = self.own.consensus.view().borrow().clone();
        let reports = self.reports.borrow().clone();
        let mut ids = self.book.nodes();
        ids.insert(self.own.node);
        let node = |id: NodeId| {
            let mut view = match reports.get(&id) {
                _ if id == self.own.node => self.own.view(),
                Some((report, at)) if at.elapsed() < REPORT_MAX => report.view.clone(),
                _ => {
                    let member = state.members.get(&id);
                    let address =
                        |get: fn(&quorate_types::Member) -> &String| member.map(get).cloned();
                    NodeView {
                        message: "no report of it for a while".to_owned(),
                        gate_address: address(|member| &member.gate_address).unwrap_or_default(),
                        mysql_address: address(|member| &member.mysql_address).unwrap_or_default(),
                        ..NodeView::default()
                    }
                }
            };
            view.learner = !raft.voters.contains(&id);
            (id, view)
        };
        ClusterView {
            cluster: Some(self.own.cluster),
            term: raft.term,
            leader: raft.leader.map(|leader| leader.node),
            epoch: state.epoch,
            primary: state.primary,
            applied: state.index(),
            accepted: (*state.accepted).clone(),
            nodes: ids.into_iter().map(node).collect(),
            retention: self.own.kept.borrow().retention.clone(),
        }
    }

    /// Whether a leader spoke lately that has this node among its members: this node itself, or one
    /// that answered and says it leads. A node that was removed while it was cut off is told by
    /// nobody, and what it knows would look current for ever.
    fn hears_a_leader(&self) -> bool {
        let Some(leader) = self.own.consensus.view().borrow().leader else {
            return false;
        };
        if leader.node == self.own.node {
            return self.own.roles.lease_holds(self.own.net.boot_time());
        }
        let reports = self.reports.borrow();
        reports.get(&leader.node).is_some_and(|(report, at)| {
            at.elapsed() < REPORT_MAX
                && report.raft == RaftRole::Leader
                && (report.members.is_empty() || report.members.contains(&self.own.node))
                && report.term == leader.term
        })
    }

    /// Whether a leader of this term or a later one says lately that this node is no member.
    fn is_left_out(&self) -> bool {
        let raft = self.own.consensus.view().borrow().clone();
        let reports = self.reports.borrow();
        !raft.is_leader
            && reports.values().any(|(report, at)| {
                at.elapsed() < REPORT_MAX
                    && report.raft == RaftRole::Leader
                    && report.term >= raft.term
                    && !report.members.is_empty()
                    && !report.members.contains(&self.own.node)
            })
    }

    fn may_serve_reads(&self, view: &ClusterView, heard_at: Instant) -> bool {
        let own = view.nodes.get(&self.own.node);
        let fit = own.is_some_and(|own| own.role == Role::Replica && own.healthy);
        let raft = self.own.consensus.view();
        let raft = raft.borrow();
        let member = raft.voters.contains(&self.own.node) || raft.learners.contains(&self.own.node);
        let part = &self.own.part;
        fit && member
            && !part.is_removed()
            && !part.is_left_out()
            && heard_at.elapsed() < self.config.timing.ro_stale_max
    }

    fn candidates(&self, view: &ClusterView, own: Series) -> Vec<Candidate> {
        let raft = self.own.consensus.view().borrow().clone();
        // A witness that leads ships its log first: who lacks some of it could not take over.
        let has_all = |id: NodeId| {
            let matched = raft.matched.get(&id).copied().flatten();
            !self.own.witness || matched >= raft.last_log
        };
        let others = raft.voters.iter().filter(|id| **id != self.own.node);
        candidates(view, others, has_all, own)
    }
}

/// What is known of each of `voters`, which are others: whether it could take over, and how far
/// behind it is. One whose server's version is not known counts as of the series `own`.
fn candidates<'a>(
    view: &ClusterView,
    voters: impl Iterator<Item = &'a NodeId>,
    has_all: impl Fn(NodeId) -> bool,
    own: Series,
) -> Vec<Candidate> {
    let known = voters.filter_map(|id| Some((*id, view.nodes.get(id)?)));
    known
        .map(|(id, node)| Candidate {
            node: id,
            healthy: node.healthy && node.role == Role::Replica && has_all(id),
            behind: node.lag_transactions,
            series: series(&node.server_version).unwrap_or(own),
        })
        .collect()
}

impl<N: Net> StatusSource for ViewMaker<N> {
    fn status(&self) -> StatusJson {
        let mut status = StatusJson::from_view(&self.own.roles.view().borrow());
        status.recent = self.recent.list();
        status
    }

    fn healthy(&self) -> Result<(), String> {
        let view = self.own.roles.view().borrow().clone();
        match view.nodes.get(&self.own.node) {
            Some(own) if own.healthy => Ok(()),
            Some(own) => Err(format!("{}: {}", own.role, own.message)),
            None => Err("starting".to_owned()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(role: Role, healthy: bool, behind: u64, server_version: &str) -> NodeView {
        NodeView {
            role,
            healthy,
            lag_transactions: behind,
            server_version: server_version.to_owned(),
            ..NodeView::default()
        }
    }

    #[test]
    fn voters_with_a_replica_that_works_could_take_over() {
        let replica = |behind| node(Role::Replica, true, behind, "9.7.4");
        let nodes = [
            (NodeId(1), replica(3)),
            (NodeId(2), node(Role::Replica, false, 0, "9.7.4")),
            (NodeId(3), node(Role::Cloning, true, 0, "9.7.4")),
            (NodeId(4), replica(0)),
            (NodeId(5), replica(7)),
            (NodeId(6), node(Role::Replica, true, 1, "")),
        ];
        let view = ClusterView {
            nodes: nodes.into(),
            ..ClusterView::default()
        };
        // 5 is a learner, and nothing was heard of 7.
        let voters = [1, 2, 3, 4, 6, 7].map(NodeId);
        let own = Series::default();
        let found = candidates(&view, voters.iter(), |id| id != NodeId(4), own);
        let told = found
            .iter()
            .map(|one| (one.node.0, one.healthy, one.behind));
        let wanted = [
            (1, true, 3),
            (2, false, 0),
            (3, false, 0),
            (4, false, 0),
            (6, true, 1),
        ];
        assert_eq!(told.collect::<Vec<_>>(), wanted);
        assert_eq!(found[0].series, series("9.7.4").unwrap());
        assert_eq!(found[4].series, own);
    }
}

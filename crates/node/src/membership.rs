//! How nodes come into the cluster, get a vote, and leave: the leader changes one at a time.
//!
//! What is meant to be stands in the log (`Members`), and Raft's own membership is made to follow
//! it. So a change that its leader leaves half done is finished by the next one.

mod rules;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::{ChangeError, Consensus, ProposalFate, RaftView};
use quorate_net::Endpoint;
use quorate_proxy::RoleWatch;
use quorate_role::Input;
use quorate_types::{
    ClusterView, Command, Incarnation, LeaderId, Member, Members, NodeId, Outcome, Role, Standing,
};
use tokio::sync::{Mutex, MutexGuard, mpsc};
use tokio::time::timeout;

use crate::roles::Roles;
use rules::{Refusal, Voter, Voters};

/// How long one step of a change may take: it needs a quorum, and that may be gone.
const STEP_MAX: Duration = Duration::from_secs(10);
/// Between two looks for a change that was left half done.
const LOOK: Duration = Duration::from_millis(500);
/// How long somebody's change waits for its turn.
const TURN_MAX: Duration = Duration::from_secs(2);
const HEARTBEAT_LOOK: Duration = Duration::from_millis(10);
/// A learner that lacks no more entries than this gets a vote: it has the rest in a moment, and
/// under load it always lacks some.
const BEHIND_MAX: u64 = 256;

/// Why a node was not taken in.
#[derive(Debug, thiserror::Error)]
pub(crate) enum JoinError {
    #[error("this node does not lead")]
    NotLeader,
    #[error(
        "node {0} is not among the peers in this node's configuration, nor was it added: `quorate \
         members add`"
    )]
    Stranger(NodeId),
    #[error("node {0} was removed from this cluster: `quorate members add` takes it in again")]
    Removed(NodeId),
    #[error(
        "the server uuid of node {node} belongs to node {owner}: give it a data folder of its own"
    )]
    SharedUuid { node: NodeId, owner: NodeId },
    #[error(
        "node {0} was a {1}, and its Raft folder still says so: a node changes that only by being \
         removed, and added with a new folder"
    )]
    OtherKind(NodeId, &'static str),
    #[error("node {node} lacks {behind} entries of the log")]
    Behind { node: NodeId, behind: u64 },
    #[error("node {0} answers no heartbeat")]
    Silent(NodeId),
    #[error(transparent)]
    Unsafe(#[from] Refusal),
    #[error("change the members")]
    Change(#[from] ChangeError),
    #[error("the change took longer than {STEP_MAX:?}: is there a quorum?")]
    Late,
}

/// Why a change that somebody asked for was not made.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Refused {
    #[error("another change of members is under way")]
    InFlight,
    #[error("node {0} is no member")]
    NotAMember(NodeId),
    #[error("node {0} is a member already")]
    Member(NodeId),
    #[error("node {0} is a voter already")]
    Voter(NodeId),
    #[error("node {0} was added and has not come yet: start it")]
    NotHere(NodeId),
    #[error("node {node} is not ready for a vote: {why}")]
    NotReady { node: NodeId, why: String },
    #[error("`{0}` is no address that other nodes could use (HOST:PORT)")]
    Address(String),
    /// Not for people: the caller hands over first.
    #[error("node {0} leads")]
    Leads(NodeId),
    #[error(transparent)]
    Unsafe(#[from] Refusal),
    #[error(transparent)]
    Join(#[from] JoinError),
}

/// Changes members, one change at a time.
pub(crate) struct Membership {
    node: NodeId,
    consensus: Consensus,
    roles: Roles,
    /// Who may come unasked: the nodes that the configuration names, this one among them.
    known: BTreeSet<NodeId>,
    inputs: mpsc::Sender<Input>,
    one_at_a_time: Mutex<()>,
}

impl Membership {
    pub(crate) fn new(
        node: NodeId,
        consensus: Consensus,
        roles: Roles,
        known: BTreeSet<NodeId>,
        inputs: mpsc::Sender<Input>,
    ) -> Arc<Self> {
        Arc::new(Self {
            node,
            consensus,
            roles,
            known,
            inputs,
            one_at_a_time: Mutex::new(()),
        })
    }

    /// Makes `node` a member as it describes itself. Asking again changes nothing.
    pub(crate) async fn join(&self, node: NodeId, mut member: Member) -> Result<(), JoinError> {
        self.leader()?;
        // Whoever nobody knows asks again and again: that must cost the members nothing.
        let listed = self.consensus.applied_state().borrow().members.clone();
        if !listed.contains_key(&node) && !self.known.contains(&node) {
            return Err(JoinError::Stranger(node));
        }
        let _turn = self.one_at_a_time.lock().await;
        let (leader, members) = self.up_to_date().await?;
        let known = members.get(&node);
        match known.map(|known| known.standing) {
            Some(Standing::Removed) => return Err(JoinError::Removed(node)),
            None if !self.known.contains(&node) => return Err(JoinError::Stranger(node)),
            // Only the log changes what a member is meant to be.
            Some(standing) => member.standing = standing,
            None if member.standing == Standing::Removed => member.standing = Standing::Learner,
            None => {}
        }
        if let Some(owner) = shared_uuid(&members, node, &member) {
            return Err(JoinError::SharedUuid { node, owner });
        }
        let came = known.filter(|known| known.incarnation != Incarnation::default());
        let replaced = came.is_some_and(|known| known.incarnation != member.incarnation);
        if let Some(known) = came
            && !replaced
            && known.witness != member.witness
        {
            let was = if known.witness { "witness" } else { "server" };
            return Err(JoinError::OtherKind(node, was));
        }
        if replaced && is_listed(&self.raft(), node) {
            rules::judge_replacement(&self.voters(&members), node)?;
            // Its folder is new: what the old one promised is forgotten, so it must not vote
            // until it holds the log again (DESIGN 3, Identity).
            tracing::warn!(%node, "a member came back with a new Raft folder: it is taken in anew");
            within(self.consensus.remove(node)).await?;
        }
        let mut after: Members = (*members).clone();
        after.insert(node, member.clone());
        if known != Some(&member) {
            self.propose(leader, Command::Members(after.clone()))
                .await?;
        }
        if !is_listed(&self.raft(), node) {
            tracing::info!(%node, "taking a node in as a learner");
            let (address, incarnation) = (member.address.clone(), member.incarnation);
            within(
                self.consensus
                    .add_learner(node, address, incarnation, false),
            )
            .await?;
        }
        if member.standing == Standing::Voter && !self.raft().voters.contains(&node) {
            self.give_vote(node, &after).await?;
        }
        Ok(())
    }

    /// For a change that somebody asked for. A node that asks whether it is a member takes the turn for
    /// a moment, and must not have people refused; a change takes it for longer.
    async fn turn(&self) -> Result<MutexGuard<'_, ()>, Refused> {
        let turn = timeout(TURN_MAX, self.one_at_a_time.lock()).await;
        turn.map_err(|_| Refused::InFlight)
    }

    /// Lets a node come that no configuration names. It comes as a learner.
    pub(crate) async fn add(
        &self,
        node: NodeId,
        address: String,
        gate_address: String,
    ) -> Result<String, Refused> {
        for address in [&address, &gate_address] {
            let endpoint: Result<Endpoint, _> = address.parse();
            if !endpoint.is_ok_and(|to| crate::addresses::is_reachable(&to)) {
                return Err(Refused::Address(address.clone()));
            }
        }
        let _turn = self.turn().await?;
        let (leader, members) = self.settled().await?;
        let known = members.get(&node);
        if node == NodeId::ZERO || known.is_some_and(|known| known.standing != Standing::Removed) {
            return Err(Refused::Member(node));
        }
        let mut after: Members = (*members).clone();
        // What is known of a node that was removed stays: its folder is the same, or it is new.
        let member = Member {
            address,
            gate_address,
            standing: Standing::Learner,
            ..known.cloned().unwrap_or_default()
        };
        after.insert(node, member);
        self.propose(leader, Command::Members(after)).await?;
        tracing::info!(%node, "a node may come as a learner");
        Ok(format!(
            "node {node} may come: start it, and it becomes a learner. `quorate members promote` gives \
             it a vote"
        ))
    }

    /// Gives a learner a vote, if it has caught up.
    pub(crate) async fn promote(&self, node: NodeId) -> Result<String, Refused> {
        let _turn = self.turn().await?;
        let (leader, members) = self.settled().await?;
        let member = members.get(&node);
        let Some(member) = member.filter(|member| member.standing != Standing::Removed) else {
            return Err(Refused::NotAMember(node));
        };
        if self.raft().voters.contains(&node) {
            return Err(Refused::Voter(node));
        }
        if member.incarnation == Incarnation::default() || !is_listed(&self.raft(), node) {
            return Err(Refused::NotHere(node));
        }
        if let Err(why) = self.is_ready(node, member) {
            return Err(Refused::NotReady { node, why });
        }
        self.judge_vote(node, &members)?;
        let mut after: Members = (*members).clone();
        let standing = Standing::Voter;
        after.insert(
            node,
            Member {
                standing,
                ..member.clone()
            },
        );
        self.propose(leader, Command::Members(after.clone()))
            .await?;
        self.give_vote(node, &after).await?;
        Ok(format!("node {node} is a voter"))
    }

    /// Takes a node out. It stays listed as removed, and is not taken in again unasked.
    pub(crate) async fn remove(&self, node: NodeId) -> Result<String, Refused> {
        let _turn = self.turn().await?;
        let (leader, members) = self.settled().await?;
        let member = members.get(&node);
        let raft = self.raft();
        let Some(member) =
            member.filter(|member| member.standing != Standing::Removed || is_listed(&raft, node))
        else {
            return Err(Refused::NotAMember(node));
        };
        if raft.voters.contains(&node) {
            let mut after = self.voters(&members);
            after.remove(&node);
            rules::judge_removal(&after)?;
        }
        if node == self.node {
            return Err(Refused::Leads(node));
        }
        let mut after: Members = (*members).clone();
        let removed = Member {
            standing: Standing::Removed,
            ..member.clone()
        };
        after.insert(node, removed);
        // First what is meant, then Raft: whoever leads next finishes it.
        self.propose(leader, Command::Members(after)).await?;
        if is_listed(&self.raft(), node) {
            within(self.consensus.remove(node)).await?;
        }
        tracing::info!(%node, "a node was removed");
        Ok(format!("node {node} was removed"))
    }

    /// Finishes what a leader left half done, while this node leads.
    pub(crate) async fn run(self: Arc<Self>) {
        loop {
            tokio::time::sleep(LOOK).await;
            if self.leader().is_err() {
                continue;
            }
            let _turn = self.one_at_a_time.lock().await;
            if let Err(error) = self.finish().await {
                tracing::debug!(
                    error = &error as &dyn std::error::Error,
                    "a change of members is not finished yet"
                );
            }
        }
    }

    async fn finish(&self) -> Result<(), JoinError> {
        let raft = self.raft();
        let members = self.consensus.applied_state().borrow().members.clone();
        if is_removed(&members, self.node) {
            self.hand_over(&members).await;
            return Ok(());
        }
        let left = left_to_remove(&members, &raft, self.node);
        if !raft.joint && left.is_none() {
            return Ok(());
        }
        let (_, members) = self.up_to_date().await?;
        if self.raft().joint {
            tracing::info!("finishing a change of voters that was left half done");
            within(self.consensus.finish_change()).await?;
        }
        if let Some(node) = left_to_remove(&members, &self.raft(), self.node) {
            tracing::info!(%node, "finishing a removal that was left half done");
            within(self.consensus.remove(node)).await?;
        }
        Ok(())
    }

    /// This node leads and is meant to be out: elected before its removal came about. Its successor
    /// takes it out; until there is one it is what it was.
    async fn hand_over(&self, members: &Members) {
        let raft = self.raft();
        let seen = self.seen();
        let may = |node: &NodeId| raft.voters.contains(node) && !is_removed(members, *node);
        let fit = seen
            .nodes
            .iter()
            .filter(|(node, view)| view.role == Role::Replica && view.healthy && may(node));
        let nearest = fit.min_by_key(|(node, view)| (view.lag_transactions, **node));
        if let Some((to, _)) = nearest {
            let _ = self.inputs.send(Input::Switchover { to: *to }).await;
        }
    }

    /// Makes a learner a voter, once it has caught up and if the rules allow it.
    async fn give_vote(&self, node: NodeId, members: &Members) -> Result<(), JoinError> {
        let mut view = self.consensus.view();
        let caught_up = view.wait_for(|view| behind(view, node) <= BEHIND_MAX);
        if !matches!(timeout(STEP_MAX, caught_up).await, Ok(Ok(_))) {
            let behind = behind(&self.raft(), node);
            return Err(JoinError::Behind { node, behind });
        }
        self.answers_heartbeats(node).await?;
        self.judge_vote(node, members)?;
        within(self.consensus.promote(BTreeSet::from([node]))).await?;
        tracing::info!(%node, "a node became a voter");
        Ok(())
    }

    /// Returns when the node answered a heartbeat after this was called. The lease may need it from the
    /// moment when the node votes: without its answer the gate would close until the next one.
    async fn answers_heartbeats(&self, node: NodeId) -> Result<(), JoinError> {
        let lease = self.consensus.lease();
        let newest = || lease.answered().get(&node).copied();
        let before = newest();
        let answered = async {
            while newest() <= before {
                tokio::time::sleep(HEARTBEAT_LOOK).await;
            }
        };
        let answered = timeout(STEP_MAX, answered).await;
        answered.map_err(|_| JoinError::Silent(node))
    }

    fn judge_vote(&self, node: NodeId, members: &Members) -> Result<(), Refusal> {
        let mut after = self.voters(members);
        after.insert(node, voter(node, members, &self.seen()));
        rules::judge(&after)
    }

    /// Whether a learner is what `promote` wants: with all of the log and a server that follows.
    fn is_ready(&self, node: NodeId, member: &Member) -> Result<(), String> {
        let lacks = behind(&self.raft(), node);
        if lacks > BEHIND_MAX {
            return Err(format!("it lacks {lacks} entries of the log"));
        }
        let seen = self.seen();
        let Some(report) = seen.nodes.get(&node) else {
            return Err("nothing was heard of it".to_owned());
        };
        match report.healthy || member.witness {
            true => Ok(()),
            false => Err(format!("its server is {}: {}", report.role, report.message)),
        }
    }

    fn voters(&self, members: &Members) -> Voters {
        let seen = self.seen();
        let voters = self.raft().voters.clone();
        voters
            .into_iter()
            .map(|node| (node, voter(node, members, &seen)))
            .collect()
    }

    fn seen(&self) -> Arc<ClusterView> {
        self.roles.view().borrow().clone()
    }

    fn raft(&self) -> Arc<RaftView> {
        self.consensus.view().borrow().clone()
    }

    fn leader(&self) -> Result<LeaderId, JoinError> {
        let view = self.raft();
        view.leader
            .filter(|_| view.is_leader)
            .ok_or(JoinError::NotLeader)
    }

    /// This leadership and the members, with everything that a leader before may have changed: a
    /// list made without that would take it back.
    async fn up_to_date(&self) -> Result<(LeaderId, Arc<Members>), JoinError> {
        let leader = self.leader()?;
        match timeout(STEP_MAX, self.consensus.barrier()).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) => return Err(JoinError::NotLeader),
            Err(_) => return Err(JoinError::Late),
        }
        let members = self.consensus.applied_state().borrow().members.clone();
        Ok((leader, members))
    }

    /// The same, if nothing that was begun is unfinished.
    async fn settled(&self) -> Result<(LeaderId, Arc<Members>), Refused> {
        let (leader, members) = self.up_to_date().await?;
        let raft = self.raft();
        match raft.joint || left_to_remove(&members, &raft, self.node).is_some() {
            true => Err(Refused::InFlight),
            false => Ok((leader, members)),
        }
    }

    async fn propose(&self, leader: LeaderId, command: Command) -> Result<(), JoinError> {
        let fate = async { self.consensus.propose(leader, command).await.await };
        match timeout(STEP_MAX, fate).await {
            Ok(Ok(ProposalFate::Applied {
                outcome: Outcome::Done,
                ..
            })) => Ok(()),
            Ok(_) => Err(JoinError::NotLeader),
            Err(_) => Err(JoinError::Late),
        }
    }
}

async fn within(change: impl Future<Output = Result<(), ChangeError>>) -> Result<(), JoinError> {
    Ok(timeout(STEP_MAX, change)
        .await
        .map_err(|_| JoinError::Late)??)
}

fn is_listed(raft: &RaftView, node: NodeId) -> bool {
    raft.voters.contains(&node) || raft.learners.contains(&node)
}

fn is_removed(members: &Members, node: NodeId) -> bool {
    let member = members.get(&node);
    member.is_some_and(|member| member.standing == Standing::Removed)
}

/// Entries that a node lacks, as this leader knows it.
fn behind(raft: &RaftView, node: NodeId) -> u64 {
    let last = raft.last_log.map_or(0, |last| last.0);
    let matched = raft.matched.get(&node).copied().flatten();
    matched.map_or(u64::MAX, |matched| last.saturating_sub(matched.0))
}

/// A node that was removed and that Raft still lists. A leader cannot take itself out.
fn left_to_remove(members: &Members, raft: &RaftView, own: NodeId) -> Option<NodeId> {
    let mut removed = members
        .iter()
        .filter(|(_, member)| member.standing == Standing::Removed);
    let left = removed.find(|(node, _)| **node != own && is_listed(raft, **node));
    left.map(|(node, _)| *node)
}

fn voter(node: NodeId, members: &Members, seen: &ClusterView) -> Voter {
    let report = seen.nodes.get(&node);
    Voter {
        answers: report.is_some_and(|report| report.role != Role::Down),
        has_data: members.get(&node).is_none_or(|member| !member.witness),
        promotable: report.is_some_and(|report| {
            report.healthy && matches!(report.role, Role::Replica | Role::Primary)
        }),
    }
}

/// Each server belongs to one node (A7): a copied data folder would repeat its GTIDs.
fn shared_uuid(
    members: &BTreeMap<NodeId, Member>,
    node: NodeId,
    member: &Member,
) -> Option<NodeId> {
    let uuid = member.server_uuid?;
    let same =
        |(other, known): &(&NodeId, &Member)| **other != node && known.server_uuid == Some(uuid);
    members.iter().find(same).map(|(owner, _)| *owner)
}

#[cfg(test)]
mod tests {
    use quorate_types::Uuid;

    use super::*;

    #[test]
    fn a_server_s_uuid_belongs_to_one_node() {
        let with = |server_uuid| Member {
            incarnation: Incarnation(7),
            server_uuid,
            server_version: String::new(),
            address: String::new(),
            gate_address: String::new(),
            mysql_address: String::new(),
            apply_level: 1,
            standing: Standing::Voter,
            witness: server_uuid.is_none(),
        };
        let (one, other) = (Some(Uuid([1; 16])), Some(Uuid([2; 16])));
        let members = BTreeMap::from([
            (NodeId(1), with(one)),
            (NodeId(2), with(other)),
            (NodeId(3), with(None)),
        ]);
        let owner = |node, uuid| shared_uuid(&members, NodeId(node), &with(uuid));
        assert_eq!(owner(4, one), Some(NodeId(1)), "a copy of node 1's folder");
        assert_eq!(owner(2, one), Some(NodeId(1)));
        assert_eq!(owner(1, one), None, "it is its own");
        assert_eq!(owner(4, Some(Uuid([3; 16]))), None);
        // Witnesses have no server.
        assert_eq!(owner(4, None), None);
    }
}

//! Sees to it that the log knows this node as it is, and that the node knows if it was removed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::apply::APPLY_LEVEL;
use quorate_consensus::{Consensus, RaftView};
use quorate_net::Endpoint;
use quorate_types::{ClusterId, Incarnation, Member, NodeId, Standing, chain};
use quorate_wire::v1::JoinRequest;
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use crate::addresses::{AddressBook, is_reachable};
use crate::admin::Forward;
use crate::config::Config;
use crate::membership::Membership;
use crate::part::Part;
use crate::watchers::Health;

const LOOK: Duration = Duration::from_millis(200);
/// A change of members needs several rounds of the log, and the learner's catching up.
const ANSWER_MAX: Duration = Duration::from_secs(40);
/// A node that hears no leader for so long asks whether it is still a member: nobody else would tell
/// it. Elections are over by then.
const UNHEARD_MAX: Duration = Duration::from_secs(2);
/// Between two questions of a node that was removed.
const REMOVED_LOOK: Duration = Duration::from_secs(1);

pub(crate) struct Joining {
    pub(crate) node: NodeId,
    pub(crate) cluster: ClusterId,
    pub(crate) incarnation: Incarnation,
    pub(crate) config: Arc<Config>,
    pub(crate) book: Arc<AddressBook>,
    pub(crate) consensus: Consensus,
    pub(crate) membership: Arc<Membership>,
    pub(crate) health: watch::Receiver<Health>,
    pub(crate) forward: Forward,
    pub(crate) part: Arc<Part>,
}

/// What came of asking to be a member.
enum Answer {
    Taken,
    Removed(String),
    NotYet(String),
}

impl Joining {
    /// Asks to be a member whenever the log does not have this node as it is, or no leader does.
    pub(crate) async fn run(self) {
        let mut last_reason = String::new();
        let mut heard_at = Instant::now();
        loop {
            let removed = self.part.is_removed();
            tokio::time::sleep(if removed { REMOVED_LOOK } else { LOOK }).await;
            let member = self.member();
            let view = self.consensus.view().borrow().clone();
            if view.is_leader || self.part.is_heard() {
                heard_at = Instant::now();
            }
            let unheard = heard_at.elapsed() >= UNHEARD_MAX || self.part.is_left_out();
            if self.is_as_meant(&member, &view) && !unheard && !removed {
                continue;
            }
            let answer = match view.is_leader {
                true => match self.membership.join(self.node, member).await {
                    Ok(()) => Answer::Taken,
                    // One that leads hands over first, and serves until then.
                    Err(error) => Answer::NotYet(chain(&error)),
                },
                false => {
                    self.ask(member, view.leader.map(|leader| leader.node))
                        .await
                }
            };
            match answer {
                Answer::Taken => {
                    self.note_removed(None);
                    last_reason.clear();
                }
                Answer::Removed(why) => self.note_removed(Some(why)),
                Answer::NotYet(reason) if reason != last_reason => {
                    tracing::info!("not (yet) a member as this node is: {reason}");
                    last_reason = reason;
                }
                Answer::NotYet(_) => {}
            }
        }
    }

    /// A node that was removed stands for no election: the others have theirs without it.
    fn note_removed(&self, why: Option<String>) {
        let removed = why.is_some();
        if self.part.set_removed(removed) == removed {
            return;
        }
        self.consensus.set_elect(!removed);
        match why {
            Some(why) => tracing::warn!("this node serves nothing any more: {why}"),
            None => tracing::info!("this node is a member again"),
        }
    }

    /// Whether the log has this node as it is, and Raft as the log means it to be.
    fn is_as_meant(&self, member: &Member, view: &RaftView) -> bool {
        let members = self.consensus.applied_state().borrow().members.clone();
        let placed = match member.standing {
            Standing::Voter => view.voters.contains(&self.node),
            Standing::Learner => view.learners.contains(&self.node),
            Standing::Removed => false,
        };
        placed && members.get(&self.node) == Some(member)
    }

    fn member(&self) -> Member {
        let health = self.health.borrow();
        let listen = &self.config.listen;
        // What the log knew of the server stays while the server is not there to say it.
        let members = self.consensus.applied_state().borrow().members.clone();
        let listed = members.get(&self.node);
        let known = listed.filter(|known| known.incarnation == self.incarnation);
        let standing = match (known, self.config.learner) {
            (Some(known), _) => known.standing,
            (None, true) => Standing::Learner,
            (None, false) => Standing::Voter,
        };
        // Whoever listens on every interface says nothing by that: what was said of it stays.
        let address = |own: &Endpoint, known: Option<&String>| match known {
            Some(known) if !is_reachable(own) && !known.is_empty() => known.clone(),
            _ => own.to_string(),
        };
        Member {
            incarnation: self.incarnation,
            server_uuid: health.uuid.or(known.and_then(|known| known.server_uuid)),
            server_version: match health.version.is_empty() {
                true => known
                    .map(|known| known.server_version.clone())
                    .unwrap_or_default(),
                false => health.version.clone(),
            },
            address: address(&listen.grpc, listed.map(|known| &known.address)),
            gate_address: address(&listen.gate, listed.map(|known| &known.gate_address)),
            mysql_address: self.config.mysql_address(),
            apply_level: APPLY_LEVEL,
            standing,
            witness: self.config.witness,
        }
    }

    /// Asks the leader, and everybody else while none is known or answers.
    async fn ask(&self, member: Member, leader: Option<NodeId>) -> Answer {
        let mut whom: Vec<NodeId> = leader.into_iter().collect();
        let mut asked = BTreeSet::from([self.node]);
        whom.extend(self.book.nodes());
        let mut whom = std::collections::VecDeque::from(whom);
        let mut reason = "no peer answers".to_owned();
        while let Some(node) = whom.pop_front() {
            if !asked.insert(node) {
                continue;
            }
            let Some(mut client) = (self.forward)(node) else {
                continue;
            };
            let request = JoinRequest {
                cluster_id: Some(self.cluster.0),
                member: Some((self.node, &member).into()),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            };
            reason = match timeout(ANSWER_MAX, client.join(request)).await {
                Ok(Ok(reply)) => {
                    let reply = reply.into_inner();
                    if reply.accepted {
                        return Answer::Taken;
                    }
                    if reply.removed {
                        return Answer::Removed(reply.reason);
                    }
                    let reason = format!("node {node}: {}", reply.reason);
                    match reply.leader {
                        // Nobody knows better.
                        Some(hint) if hint.node == node.0 => return Answer::NotYet(reason),
                        Some(hint) => {
                            self.book.hint(NodeId(hint.node), &hint.address);
                            whom.push_front(NodeId(hint.node));
                        }
                        None => {}
                    }
                    reason
                }
                Ok(Err(status)) => format!("node {node}: {}", status.message()),
                Err(_) => format!("node {node} does not answer"),
            };
        }
        Answer::NotYet(reason)
    }
}

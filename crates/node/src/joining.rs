//! Sees to it that the log knows this node as it is.

use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::Consensus;
use quorate_consensus::apply::APPLY_LEVEL;
use quorate_types::{ClusterId, Incarnation, Member, NodeId};
use quorate_wire::v1::JoinRequest;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::admin::Forward;
use crate::config::Config;
use crate::membership::Membership;
use crate::server::chain;
use crate::watchers::Health;

const LOOK: Duration = Duration::from_millis(200);
/// A change of members needs several rounds of the log, and the learner's catching up.
const ANSWER_MAX: Duration = Duration::from_secs(40);

pub(crate) struct Joining {
    pub(crate) node: NodeId,
    pub(crate) cluster: ClusterId,
    pub(crate) incarnation: Incarnation,
    pub(crate) config: Arc<Config>,
    pub(crate) consensus: Consensus,
    pub(crate) membership: Arc<Membership>,
    pub(crate) health: watch::Receiver<Health>,
    pub(crate) forward: Forward,
}

impl Joining {
    /// Asks to be a member whenever the log does not have this node as it is.
    pub(crate) async fn run(self) {
        let mut last_reason = String::new();
        loop {
            tokio::time::sleep(LOOK).await;
            let member = self.member();
            let view = self.consensus.view().borrow().clone();
            let known = self
                .consensus
                .applied_state()
                .borrow()
                .members
                .get(&self.node)
                == Some(&member);
            if known && view.voters.contains(&self.node) {
                continue;
            }
            let refused = match view.is_leader {
                true => self
                    .membership
                    .join(self.node, member)
                    .await
                    .err()
                    .map(|error| chain(&error)),
                false => {
                    self.ask(member, view.leader.map(|leader| leader.node))
                        .await
                }
            };
            match refused {
                Some(reason) if reason != last_reason => {
                    tracing::info!("not (yet) a member as this node is: {reason}");
                    last_reason = reason;
                }
                Some(_) => {}
                None => last_reason.clear(),
            }
        }
    }

    fn member(&self) -> Member {
        let health = self.health.borrow();
        let listen = &self.config.listen;
        // What the log knew of the server stays while the server is not there to say it.
        let members = self.consensus.applied_state().borrow().members.clone();
        let known = members
            .get(&self.node)
            .filter(|known| known.incarnation == self.incarnation);
        Member {
            incarnation: self.incarnation,
            server_uuid: health.uuid.or(known.and_then(|known| known.server_uuid)),
            server_version: match health.version.is_empty() {
                true => known
                    .map(|known| known.server_version.clone())
                    .unwrap_or_default(),
                false => health.version.clone(),
            },
            address: listen.grpc.to_string(),
            gate_address: listen.gate.to_string(),
            mysql_address: format!("127.0.0.1:{}", self.config.mysqld.port),
            apply_level: APPLY_LEVEL,
        }
    }

    /// Asks the leader, or everybody while none is known; why not, if not.
    async fn ask(&self, member: Member, leader: Option<NodeId>) -> Option<String> {
        let leader = leader.filter(|leader| *leader != self.node);
        let whom: Vec<NodeId> = match leader {
            Some(leader) => vec![leader],
            None => self.config.peers.keys().copied().collect(),
        };
        let mut reason = "no peer answers".to_owned();
        for node in whom {
            let Some(mut client) = (self.forward)(node) else {
                continue;
            };
            let request = JoinRequest {
                cluster_id: Some(self.cluster.0),
                member: Some((self.node, &member).into()),
                version: env!("CARGO_PKG_VERSION").to_owned(),
            };
            match timeout(ANSWER_MAX, client.join(request)).await {
                Ok(Ok(reply)) if reply.get_ref().accepted => return None,
                Ok(Ok(reply)) => reason = format!("node {node}: {}", reply.into_inner().reason),
                Ok(Err(status)) => reason = format!("node {node}: {}", status.message()),
                Err(_) => reason = format!("node {node} does not answer"),
            }
        }
        Some(reason)
    }
}

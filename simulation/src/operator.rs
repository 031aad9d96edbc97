//! What people order: another primary, other members.

use std::time::Duration;

use quorate_node::AdminConnection;
use quorate_types::{NodeId, Standing};
use quorate_wire::v1::change_member_request::Change;
use quorate_wire::v1::{AddMember, ChangeMemberRequest, SwitchoverRequest};

use crate::cluster::{Cluster, near};
use crate::network::{MachineNet, address, sidecar_host};
use crate::node::{GATE_PORT, GRPC_PORT};
use crate::world::World;

/// An operator gives an order up that is not answered.
const PATIENCE: Duration = Duration::from_secs(30);
/// Between two orders about one node.
const AGAIN: Duration = Duration::from_millis(700);

impl Cluster {
    /// Gives an order to a node; nobody waits for the answer.
    fn order<F>(
        &mut self,
        to: NodeId,
        what: String,
        ask: impl FnOnce(World, AdminConnection) -> F + 'static,
    ) where
        F: Future<Output = String> + 'static,
    {
        self.note(&format!("ORDER {what}"));
        let world = self.world.clone();
        let number = world.with(|state| {
            state.orders += 1;
            state.trace.len()
        });
        let name = format!("operator{number}");
        self.sim.client(name.clone(), async move {
            let endpoint = quorate_net::Endpoint::Tcp(address(to, GRPC_PORT));
            let client = quorate_node::admin_client(&MachineNet::new(to), None, to, &endpoint);
            let asked = ask(world.clone(), client);
            let text = tokio::time::timeout(PATIENCE, asked).await;
            let text = text.unwrap_or_else(|_| "no answer".to_owned());
            world.trace(&format!("{what}: {text}"));
            world.with(|state| state.orders -= 1);
            Ok(())
        });
        near(&self.sim, &name, &sidecar_host(to));
    }

    /// Asks for another primary, as an operator does; nobody waits for the answer.
    pub fn switch_over(&mut self, to: NodeId) {
        let Some(from) = self.primary() else { return };
        let what = format!("switch over from n{from} to n{to}");
        self.order(from, what, move |_, mut client| async move {
            let request = SwitchoverRequest { to: Some(to.0) };
            match client.switchover(request).await {
                Ok(reply) => format!("{:?}", reply.into_inner().accepted),
                Err(status) => status.message().to_owned(),
            }
        });
    }

    fn change_members(&mut self, through: NodeId, what: String, change: Change) {
        self.order(through, what, move |world, mut client| async move {
            let request = ChangeMemberRequest {
                change: Some(change),
            };
            match client.change_member(request).await {
                Ok(reply) => {
                    let reply = reply.into_inner();
                    world.with(|state| state.changes += u64::from(reply.accepted));
                    reply.text
                }
                Err(status) => status.message().to_owned(),
            }
        });
    }

    /// Asks a node to take another one out of the cluster.
    pub fn remove_member(&mut self, through: NodeId, node: NodeId) {
        let what = format!("n{through}: remove n{node}");
        self.change_members(through, what, Change::Remove(node.0));
    }

    /// Asks a node to let another one come, as a learner.
    pub fn add_member(&mut self, through: NodeId, node: NodeId) {
        let add = AddMember {
            node: node.0,
            address: address(node, GRPC_PORT),
            gate_address: address(node, GATE_PORT),
        };
        let what = format!("n{through}: add n{node}");
        self.change_members(through, what, Change::Add(add));
    }

    /// Asks a node to give a learner its vote.
    pub fn promote_member(&mut self, through: NodeId, node: NodeId) {
        let what = format!("n{through}: promote n{node}");
        self.change_members(through, what, Change::Promote(node.0));
    }

    /// What the node that applied most says that each node is meant to be.
    #[must_use]
    pub fn standing(&self, node: NodeId) -> Option<Standing> {
        let nodes = self.nodes();
        let states = nodes.iter().filter_map(|node| self.probe(*node));
        let newest = states
            .map(|probe| probe.applied_state())
            .max_by_key(|state| state.index())?;
        newest.members.get(&node).map(|member| member.standing)
    }

    /// Whether every node is a voter, and every one that leads says so.
    #[must_use]
    pub fn all_vote(&self) -> bool {
        let nodes = self.nodes();
        let voters = |probe: quorate_node::Probe| probe.raft().voters.len();
        nodes.iter().all(|node| {
            self.standing(*node) == Some(Standing::Voter)
                && self
                    .probe(*node)
                    .is_some_and(|probe| voters(probe) == nodes.len())
        })
    }

    /// An operator who has what was removed come back, a step at a time; whether all is as it was. To be
    /// called again and again.
    pub fn put_members_back(&mut self) -> bool {
        for node in self.nodes() {
            let standing = self.standing(node);
            let now = self.elapsed();
            let was_asked = self.asked.get(&node).is_some_and(|at| now < *at + AGAIN);
            let Some(through) = self.primary().filter(|_| !was_asked) else {
                continue;
            };
            match standing {
                Some(Standing::Removed) => self.add_member(through, node),
                Some(Standing::Learner) => self.promote_member(through, node),
                Some(Standing::Voter) | None => continue,
            }
            self.asked.insert(node, now);
        }
        self.all_vote()
    }
}

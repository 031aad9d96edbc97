//! What must hold in every state, and what must be reachable from each.

use quorate_role::Phase;

use super::Omission;
use super::cluster::{Cluster, Steps};
use super::search::{Model, Step};
use super::world::{Era, NOWHERE, REFUSED, World};
use super::{Action, log};

impl<const N: usize> Cluster<N> {
    /// Whether bytes pass the node's gate to a server that runs. The lease holds for whoever leads
    /// the newest term and has not given that away: Raft elects nobody before it is over.
    fn serves(&self, world: &World<N>, node: usize) -> bool {
        let own = &world.nodes[node];
        let lease = own.leading == world.term && !own.gave_away;
        let lease = lease || self.omits(Omission::GateNeedsLease);
        own.runs && own.server.runs && own.gate.is_some() && lease
    }

    fn wrong_at(&self, world: &World<N>, node: usize) -> Option<&'static str> {
        let server = &world.nodes[node].server;
        let committed = self.log.get(world.committed);
        let serves = self.serves(world, node);
        // An operator's own transactions are judged by what becomes of them.
        let engine = server.engine.filter(|one| world.errant >> one & 1 == 0);
        if !committed.accepted.starts_with(engine) {
            return Some("shows something else than the accepted transactions in their order");
        }
        if serves && engine != server.engine {
            return Some("serves what was written past the log");
        }
        if serves && world.told & !engine.set() != 0 {
            return Some("serves without a transaction that was acknowledged");
        }
        let epoch = committed.applied().epoch.map(|(epoch, _)| Era::new(epoch));
        if serves && world.nodes[node].gate != epoch && !self.omits(Omission::GateNeedsLease) {
            return Some("serves in an epoch that is over");
        }
        None
    }
}

impl<const N: usize> Model for Cluster<N> {
    type State = World<N>;

    fn initial(&mut self) -> World<N> {
        self.first()
    }

    fn steps(&mut self, world: &World<N>, steps: &mut Steps<N>) {
        self.all_steps(world, steps);
    }

    fn violation(&mut self, world: &World<N>) -> Option<String> {
        let committed = self.log.get(world.committed);
        if let Some(wrong) = committed.wrong {
            return Some(format!("entry {}: {wrong}", log::show(committed)));
        }
        let accepted = committed.accepted.set();
        if world.told & !accepted != 0 {
            return Some("a client was told of a commit that is not accepted".to_owned());
        }
        if world.cut & accepted != 0 {
            return Some("an accepted transaction was cut off".to_owned());
        }
        if world.errant & accepted != 0 {
            return Some("what was written past the log became accepted".to_owned());
        }
        if world.thrown_away {
            return Some("a server is to be cloned that has nothing wrong".to_owned());
        }
        if (0..N).filter(|node| self.serves(world, *node)).count() > 1 {
            return Some("two gates serve".to_owned());
        }
        (0..N).find_map(|node| {
            let wrong = self.wrong_at(world, node)?;
            Some(format!("n{} {wrong}", node + 1))
        })
    }

    /// A primary serves and could commit, and every other server follows and has everything.
    fn is_good(&mut self, world: &World<N>) -> bool {
        let all = self.log.get(world.committed).accepted;
        let serving = world.nodes.iter().enumerate().any(|(node, own)| {
            let capture = own.capture.alive();
            self.serves(world, node)
                && own.server.writable
                && capture.is_some()
                && capture == own.gate
        });
        serving
            && world.nodes.iter().all(|own| {
                let primary = own.gate.is_some() && own.leading == world.term;
                let replica = *self.roles.phase(own.machine) == Phase::Replica
                    && own.server.follows
                    && !own.server.waits;
                own.runs && own.server.runs && own.server.engine == all && (primary || replica)
            })
    }

    fn describe(&mut self, from: &World<N>, step: &Step<World<N>>) -> String {
        let what = match step.action {
            Action::Commit { place } => {
                format!("Raft commits {}", log::show(self.log.get(place)))
            }
            Action::Elect { node, place } => format!(
                "n{} is elected in term {}, with the log up to {}",
                node + 1,
                step.state.term,
                log::show(self.log.get(place)),
            ),
            action => action.to_string(),
        };
        let mut more = String::new();
        for (node, (before, after)) in from.nodes.iter().zip(&step.state.nodes).enumerate() {
            if before.gate != after.gate {
                let word = if after.gate.is_some() {
                    "opens"
                } else {
                    "closes"
                };
                more += &format!("; the gate of n{} {word}", node + 1);
            }
            if after.set_primary != before.set_primary
                && ![NOWHERE, REFUSED].contains(&after.set_primary)
            {
                let entry = log::show(self.log.get(after.set_primary));
                more += &format!("; n{} appends {entry}", node + 1);
            }
            if before.machine != after.machine {
                more += &format!("; n{}: {:?}", node + 1, self.roles.phase(after.machine));
            }
            if before.server != after.server {
                more += &format!("; n{}: {}", node + 1, after.server);
            }
        }
        what + &more
    }
}

//! Raft as it is trusted to be: one committed log, of which every later leader has all.
//!
//! It may do more than Raft does: whoever is elected has any beginning of anything that anybody
//! appended behind the committed log, however old, and may commit it at any time.

use super::Action;
use super::cluster::{Cluster, Steps};
use super::log;
use super::roles::In;
use super::world::{NOWHERE, REFUSED, World};

impl<const N: usize> Cluster<N> {
    pub(super) fn raft(&mut self, world: &World<N>, node: usize, steps: &mut Steps<N>) {
        let own = world.nodes[node];
        if !own.runs {
            return;
        }
        let end = self.log.get(world.committed).index();
        if own.leading == world.term && self.log.get(own.log).index() > end {
            let next = self.log.at(own.log, end + 1);
            self.take(
                world,
                Action::Commit { place: next },
                steps,
                |cluster, world| {
                    cluster.commit(world, next);
                },
            );
        }
        if own.applied < end {
            let one = own.applied + 1;
            // Role control sees the newest state only: it may miss those between.
            for upto in [one, end].into_iter().take(1 + usize::from(one < end)) {
                self.take(
                    world,
                    Action::Apply { node, upto },
                    steps,
                    |cluster, world| {
                        cluster.apply(world, node, upto);
                    },
                );
            }
        }
        if own.leading != 0 && own.leading != world.term {
            self.take(
                world,
                Action::HearLeader { node },
                steps,
                |cluster, world| {
                    cluster.follow(world, node);
                },
            );
        }
        self.elections(world, node, steps);
    }

    fn commit(&mut self, world: &mut World<N>, place: u32) {
        world.committed = place;
        for node in 0..N {
            self.forget_what_cannot_commit(world, node);
        }
    }

    /// What a node has behind another log than the committed one is overwritten. One that believes
    /// to lead keeps it for a while, and appends to it: nothing of that is ever committed.
    pub(super) fn forget_what_cannot_commit(&self, world: &mut World<N>, node: usize) {
        let own = &mut world.nodes[node];
        if own.leading == 0 && !self.log.extends(own.log, world.committed) {
            own.log = world.committed;
        }
    }

    fn apply(&mut self, world: &mut World<N>, node: usize, upto: u8) {
        let own = &mut world.nodes[node];
        let before = self
            .log
            .get(self.log.at(world.committed, own.applied))
            .applied();
        own.applied = upto;
        let after = self.log.get(self.log.at(world.committed, upto)).applied();
        let proposed = own.set_primary;
        if proposed != NOWHERE && proposed != REFUSED && self.log.get(proposed).index() <= upto {
            own.set_primary = NOWHERE;
            let index = self.log.get(proposed).index();
            if self.log.at(world.committed, index) == proposed {
                let id = self.log.get(proposed).id;
                self.tell(world, node, In::Proposed(id));
            }
        }
        if before != after {
            self.tell(world, node, In::Applied(after.set_primary, after.epoch));
        }
    }

    /// It learns that somebody else was elected since.
    fn follow(&mut self, world: &mut World<N>, node: usize) {
        self.leads_no_more(world, node);
        self.forget_what_cannot_commit(world, node);
        self.tell(world, node, In::Leading(None));
    }

    fn leads_no_more(&mut self, world: &mut World<N>, node: usize) {
        let own = &mut world.nodes[node];
        own.leading = 0;
        own.set_primary = NOWHERE;
        own.gave_away = false;
        // Reports are of the last moments only.
        self.tell(world, node, In::Peers(0, 0));
    }

    fn elections(&mut self, world: &World<N>, node: usize, steps: &mut Steps<N>) {
        let leader = &world.nodes[usize::from(world.leader)];
        let gone = !leader.runs || leader.leading != world.term;
        // A silent leader may be elected again itself: that is one of the elections that count.
        let wanted = (leader.gave_away || leader.silent) && usize::from(world.leader) != node;
        let end = self.log.get(world.committed).index();
        let mut logs = vec![world.committed];
        for other in &world.nodes {
            if self.log.extends(other.log, world.committed) {
                let last = self.log.get(other.log).index();
                logs.extend((end..=last).map(|index| self.log.at(other.log, index)));
            }
        }
        logs.sort_unstable();
        logs.dedup();
        for place in logs {
            let action = Action::Elect { node, place };
            let elect = |cluster: &mut Self, world: &mut World<N>| cluster.lead(world, node, place);
            if gone || wanted {
                self.take(world, action, steps, elect);
            } else {
                self.fault(world, action, steps, |left| &mut left.elections, elect);
            }
        }
    }

    /// The node leads a new term, with the log up to `place`.
    pub(super) fn elect_first(&mut self, world: &mut World<N>) {
        world.term = 0;
        self.lead(world, 0, NOWHERE);
    }

    fn lead(&mut self, world: &mut World<N>, node: usize, place: u32) {
        self.leads_no_more(world, node);
        world.term += 1;
        world.leader = node as u8;
        let own = &mut world.nodes[node];
        own.leading = world.term;
        own.log = place;
        let leader = log::leader(world.term, node);
        self.tell(world, node, In::Leading(Some(leader)));
    }
}

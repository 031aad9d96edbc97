//! The jobs of role control, step by step as `quorate-node` does them (`jobs/*.rs`). Between two
//! steps everything else may happen; a job that is aborted stops there.

use super::cluster::{Cluster, Steps};
use super::list::List;
use super::log;
use super::roles::In;
use super::world::{Capture, Era, Server, Work, World};
use super::{Action, Omission};

/// Where a step of a job leads.
enum Next {
    /// It cannot be done yet.
    Wait,
    Then(Work),
    /// The job is over, and role control is told.
    Over(In),
}

impl<const N: usize> Cluster<N> {
    pub(super) fn work(&mut self, world: &World<N>, node: usize, steps: &mut Steps<N>) {
        let work = world.nodes[node].work;
        let mut done = *world;
        let next = match work {
            Work::None => return,
            Work::Kill { adopt } => self.adopt_or_kill(&mut done, node, adopt),
            Work::Cut { barrier } => self.cut(&mut done, node, barrier),
            Work::Follow { barrier } => self.judge(&mut done, node, barrier),
            Work::CatchUp { epoch } => self.catch_up(&mut done, node, epoch),
            Work::Open { epoch } => self.open(&mut done, node, epoch),
            Work::EndWrites => self.end_writes(&mut done, node),
            Work::Demote => self.demote(&mut done, node),
            Work::Clone => self.clone_server(&mut done, node),
            Work::Drain | Work::Report => Next::Over(In::JobDone),
        };
        let action = Action::Work { node, work };
        self.take_next(&done, node, action, next, steps);
        // It may take longer than its bound.
        if work == Work::EndWrites && !world.nodes[node].server.tail.is_empty() {
            let action = Action::GiveUp { node };
            self.take_next(world, node, action, Next::Over(In::JobFailed), steps);
        }
    }

    fn take_next(
        &mut self,
        world: &World<N>,
        node: usize,
        action: Action,
        next: Next,
        steps: &mut Steps<N>,
    ) {
        match next {
            Next::Wait => {}
            Next::Then(work) => self.take(world, action, steps, |_, world| {
                world.nodes[node].work = work;
            }),
            Next::Over(input) => self.take(world, action, steps, |cluster, world| {
                world.nodes[node].work = Work::None;
                cluster.tell(world, node, input);
            }),
        }
    }

    /// Names that the node knows as accepted.
    fn accepted(&self, world: &World<N>, node: usize) -> u32 {
        self.applied_place(world, node).names
    }

    fn applied_place(&self, world: &World<N>, node: usize) -> &log::Place {
        let at = self.log.at(world.committed, world.nodes[node].applied);
        self.log.get(at)
    }

    /// The earliest read index that a barrier begun now may get.
    fn barrier(&self, world: &World<N>) -> u8 {
        if self.omits(Omission::RepairAsksForAReadIndex) {
            return 0;
        }
        self.log.get(world.committed).index()
    }

    fn adopt_or_kill(&self, world: &mut World<N>, node: usize, adopt: bool) -> Next {
        let barrier = self.barrier(world);
        let server = world.nodes[node].server;
        let safe = !server.writable && !server.waits;
        if adopt && server.runs && (safe || self.omits(Omission::AdoptOnlyReplicas)) {
            return Next::Then(Work::Follow { barrier });
        }
        self.kill(world, node);
        Next::Then(Work::Cut { barrier })
    }

    fn cut(&self, world: &mut World<N>, node: usize, barrier: u8) -> Next {
        let own = world.nodes[node];
        let known = self.applied_place(world, node);
        let over = known.applied().set_primary > own.server.marker.map(|epoch| epoch.epoch().0)
            || own.server.marker.is_none();
        let may_wait = !self.omits(Omission::RepairWaitsForTheEpochsEnd);
        if own.applied < barrier || (may_wait && !over) {
            return Next::Wait;
        }
        let mut kept = List::default();
        let mut rejected = 0;
        for content in own.server.tail.iter() {
            let name = world.names[usize::from(content)];
            let accepted = known.accepted.contains(content)
                || (self.omits(Omission::ChecksumsAreCompared) && known.names & name.bit() != 0);
            if self.omits(Omission::Cut) || (accepted && rejected == 0) {
                kept = kept.with(content);
            } else if accepted || known.names & name.bit() != 0 {
                return Next::Over(In::MustClone);
            } else {
                rejected |= 1 << content;
            }
        }
        world.cut |= rejected;
        // Recovery commits what is prepared and in the binlog.
        world.nodes[node].server = Server {
            runs: true,
            engine: own.server.engine.and(kept),
            marker: own.server.marker,
            ..Server::default()
        };
        let barrier = self.barrier(world);
        Next::Then(Work::Follow { barrier })
    }

    fn judge(&self, world: &mut World<N>, node: usize, barrier: u8) -> Next {
        let own = world.nodes[node];
        if !own.server.runs {
            return Next::Over(In::JobFailed);
        }
        if own.applied < barrier {
            return Next::Wait;
        }
        let more = world.names_of(own.server.engine) & !self.accepted(world, node);
        if more != 0 && !self.omits(Omission::ErrantIsCloned) {
            let accepted = self.log.get(world.committed).names;
            world.thrown_away |= more & !accepted == 0;
            return Next::Over(In::MustClone);
        }
        world.nodes[node].server.follows = true;
        Next::Over(In::JobDone)
    }

    fn still_ours(&self, world: &World<N>, node: usize, epoch: Era) -> bool {
        let own = world.nodes[node];
        let current = self.applied_place(world, node).applied().epoch;
        log::leader(own.leading, node) == epoch.leader()
            && current.is_some_and(|(current, _)| current == epoch.epoch())
    }

    fn catch_up(&self, world: &mut World<N>, node: usize, epoch: Era) -> Next {
        let own = world.nodes[node];
        if !own.server.runs || !self.still_ours(world, node, epoch) {
            return Next::Over(In::JobFailed);
        }
        let lacking = self.accepted(world, node) & !world.names_of(own.server.engine);
        if lacking != 0 && !self.omits(Omission::CatchUpBeforePromotion) {
            return Next::Wait;
        }
        world.nodes[node].server.follows = false;
        world.nodes[node].server.waits = !self.omits(Omission::CommitsWait);
        Next::Then(Work::Open { epoch })
    }

    fn open(&self, world: &mut World<N>, node: usize, epoch: Era) -> Next {
        let server = world.nodes[node].server;
        let equal = world.names_of(server.engine) == self.accepted(world, node)
            || self.omits(Omission::EqualBeforePromotion)
            || self.omits(Omission::CatchUpBeforePromotion);
        if !server.runs || !equal || !self.still_ours(world, node, epoch) {
            return Next::Over(In::JobFailed);
        }
        let own = &mut world.nodes[node];
        if !self.omits(Omission::MarkerBeforeWrites) {
            own.server.marker = Some(epoch);
        }
        own.server.writable = true;
        own.capture = Capture::new(epoch);
        Next::Then(Work::Report)
    }

    fn end_writes(&self, world: &mut World<N>, node: usize) -> Next {
        let own = &mut world.nodes[node];
        if !own.server.runs {
            return Next::Over(In::JobFailed);
        }
        if !self.omits(Omission::WritesEndBeforeTheEpoch) {
            if !own.server.tail.is_empty() {
                return Next::Wait;
            }
            own.server.writable = false;
        }
        Next::Over(In::JobDone)
    }

    fn demote(&self, world: &mut World<N>, node: usize) -> Next {
        let accepted = self.accepted(world, node);
        let executed = world.names_of(world.nodes[node].server.engine);
        let own = &mut world.nodes[node];
        if !own.server.runs || executed & !accepted != 0 {
            return Next::Over(In::JobFailed);
        }
        if !self.omits(Omission::ReplicasDoNotWait) {
            // Nothing holds back what still waits.
            own.server.waits = false;
            own.server.engine = own.server.engine.and(own.server.tail);
            world.told |= own.server.tail.set();
            own.server.tail = List::default();
        }
        let executed = world.names_of(world.nodes[node].server.engine);
        if executed & !accepted != 0 {
            return Next::Over(In::JobFailed);
        }
        let own = &mut world.nodes[node];
        own.server.follows = true;
        own.capture = Capture::default();
        Next::Over(In::JobDone)
    }

    /// A copy of a server that has accepted transactions only.
    fn clone_server(&self, world: &mut World<N>, node: usize) -> Next {
        let accepted = self.log.get(world.committed).names;
        let donor = (0..N).find(|other| {
            let donor = &world.nodes[*other];
            let wrong = world.names_of(donor.server.engine) & !accepted;
            *other != node && donor.runs && donor.server.runs && wrong == 0
        });
        let Some(donor) = donor else {
            return Next::Wait;
        };
        self.kill(world, node);
        world.nodes[node].server = Server {
            engine: world.nodes[donor].server.engine,
            ..Server::default()
        };
        Next::Over(In::JobDone)
    }
}

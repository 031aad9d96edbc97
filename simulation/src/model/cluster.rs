//! The steps of the cluster: what each part does next, and what may go wrong.

use quorate_role::{Effect, Job, Phase};
use quorate_types::LeaderId;

use super::log::{self, Log, Name, Payload};
use super::roles::{In, Roles};
use super::search::Step;
use super::world::{CONTENTS, Capture, Era, Faults, NOWHERE, Node, REFUSED, Server, Work, World};
use super::{Action, Omission};

pub(super) struct Cluster<const N: usize> {
    pub(super) log: Log,
    pub(super) roles: Roles,
    pub(super) omission: Option<Omission>,
    faults: Faults,
}

pub(super) type Steps<const N: usize> = Vec<Step<World<N>>>;

impl<const N: usize> Cluster<N> {
    pub(super) fn new(faults: Faults, omission: Option<Omission>) -> Self {
        Self {
            log: Log::new(omission),
            roles: Roles::new(),
            omission,
            faults,
        }
    }

    pub(super) fn omits(&self, omission: Omission) -> bool {
        self.omission == Some(omission)
    }

    /// All nodes run healthy replicas without data, and the first one was just elected.
    pub(super) fn first(&mut self) -> World<N> {
        let mut world = World {
            committed: NOWHERE,
            term: 1,
            leader: 0,
            writes: 0,
            names: [Name::default(); CONTENTS],
            told: 0,
            cut: 0,
            errant: 0,
            thrown_away: false,
            left: self.faults,
            nodes: [Node::default(); N],
        };
        for node in 0..N {
            self.start(&mut world, node);
            world.nodes[node].work = Work::None;
            world.nodes[node].server = Server {
                runs: true,
                follows: true,
                ..Server::default()
            };
            self.tell(&mut world, node, In::JobDone);
        }
        self.elect_first(&mut world);
        world
    }

    pub(super) fn all_steps(&mut self, world: &World<N>, steps: &mut Steps<N>) {
        for node in 0..N {
            self.outside(world, node, steps);
            self.raft(world, node, steps);
            if world.nodes[node].runs {
                self.crashes(world, node, steps);
                self.news(world, node, steps);
                self.capture(world, node, steps);
                self.late(world, node, steps);
                self.feed(world, node, steps);
                self.work(world, node, steps);
            } else {
                self.take(world, Action::Start { node }, steps, |cluster, world| {
                    cluster.start(world, node);
                });
            }
        }
    }

    /// Adds a step that nothing has to go wrong for.
    pub(super) fn take(
        &mut self,
        world: &World<N>,
        action: Action,
        steps: &mut Steps<N>,
        change: impl FnOnce(&mut Self, &mut World<N>),
    ) {
        let mut state = *world;
        change(self, &mut state);
        steps.push(Step {
            action,
            fault: false,
            state,
        });
    }

    /// Adds a step that may happen only so often.
    pub(super) fn fault(
        &mut self,
        world: &World<N>,
        action: Action,
        steps: &mut Steps<N>,
        count: fn(&mut Faults) -> &mut u8,
        change: impl FnOnce(&mut Self, &mut World<N>),
    ) {
        let mut state = *world;
        let left = count(&mut state.left);
        if *left == 0 {
            return;
        }
        *left -= 1;
        change(self, &mut state);
        steps.push(Step {
            action,
            fault: true,
            state,
        });
    }

    /// Clients, and an operator who does what he should not.
    fn outside(&mut self, world: &World<N>, node: usize, steps: &mut Steps<N>) {
        let server = world.nodes[node].server;
        if !server.runs {
            return;
        }
        // What passed the gate while it was open is executed whenever the server likes.
        if server.writable {
            let action = Action::Write { node };
            self.fault(
                world,
                action,
                steps,
                |left| &mut left.writes,
                |_, world| {
                    write(world, node, node);
                },
            );
            let action = Action::WriteNamed { node };
            self.fault(
                world,
                action,
                steps,
                |left| &mut left.named,
                |_, world| write(world, node, (node + 1) % N),
            );
        } else if !server.waits {
            let action = Action::Errant { node };
            self.fault(
                world,
                action,
                steps,
                |left| &mut left.errant,
                |_, world| {
                    let content = begin(world, node, node);
                    world.errant |= 1 << content;
                    let server = &mut world.nodes[node].server;
                    server.engine = server.engine.with(content);
                },
            );
        }
    }

    fn crashes(&mut self, world: &World<N>, node: usize, steps: &mut Steps<N>) {
        let runs = world.nodes[node].server.runs;
        let count: fn(&mut Faults) -> &mut u8 = |left| &mut left.crashes;
        self.fault(
            world,
            Action::CrashSidecar { node },
            steps,
            count,
            |cluster, world| {
                cluster.crash_sidecar(world, node);
            },
        );
        if !runs {
            return;
        }
        self.fault(
            world,
            Action::CrashServer { node },
            steps,
            count,
            |_, world| {
                crash_server(&mut world.nodes[node]);
            },
        );
        self.fault(
            world,
            Action::CrashBoth { node },
            steps,
            count,
            |cluster, world| {
                crash_server(&mut world.nodes[node]);
                cluster.crash_sidecar(world, node);
            },
        );
    }

    fn crash_sidecar(&mut self, world: &mut World<N>, node: usize) {
        let old = world.nodes[node];
        world.nodes[node] = Node {
            log: old.log,
            server: old.server,
            ..Node::default()
        };
        self.forget_what_cannot_commit(world, node);
    }

    fn start(&mut self, world: &mut World<N>, node: usize) {
        world.nodes[node].runs = true;
        world.nodes[node].machine = self.roles.fresh(node);
        self.tell(world, node, In::Tick);
    }

    /// What happened to a node that its role control does not know yet.
    fn news(&mut self, world: &World<N>, node: usize, steps: &mut Steps<N>) {
        let own = world.nodes[node];
        let action = Action::Tick { node };
        let mut ticked = *world;
        self.tell(&mut ticked, node, In::Tick);
        if ticked != *world {
            self.take(world, action, steps, |_, world| *world = ticked);
        }
        let replica = *self.roles.phase(own.machine) == Phase::Replica;
        if own.set_primary == REFUSED && replica {
            self.take(world, action, steps, |cluster, world| {
                world.nodes[node].set_primary = NOWHERE;
                let leader = log::leader(own.leading, node);
                cluster.tell(world, node, In::Refused(leader));
            });
        }
        if own.exited {
            self.take(world, Action::HearExit { node }, steps, |cluster, world| {
                world.nodes[node].exited = false;
                cluster.tell(world, node, In::Exited);
            });
        }
        if let Some(epoch) = own.capture.epoch
            && own.capture.ended
            && !self.omits(Omission::EpochEndsWithCapture)
        {
            self.take(
                world,
                Action::HearCapture { node },
                steps,
                |cluster, world| {
                    world.nodes[node].capture = Capture::default();
                    cluster.tell(world, node, In::CaptureStopped(epoch.epoch()));
                },
            );
        }
        let accepted = self.log.get(world.committed).names;
        let errant = world.names_of(own.server.engine) & !accepted != 0;
        if errant && replica && own.server.runs && !self.omits(Omission::ErrantIsCloned) {
            self.take(
                world,
                Action::HearErrant { node },
                steps,
                |cluster, world| {
                    cluster.tell(world, node, In::Errant);
                },
            );
        }
        if own.leading == world.term {
            self.orders(world, node, steps);
        }
    }

    /// A leader hears of peers that it may give leadership to, or is told to.
    fn orders(&mut self, world: &World<N>, node: usize, steps: &mut Steps<N>) {
        let all = self.log.get(world.committed).accepted;
        let (mut healthy, mut level) = (0_u8, 0_u8);
        for (peer, other) in world.nodes.iter().enumerate() {
            let replica = *self.roles.phase(other.machine) == Phase::Replica;
            if peer != node && other.runs && other.server.runs && replica {
                healthy |= 1 << peer;
                level |= u8::from(other.server.engine == all) << peer;
            }
        }
        if healthy == 0 {
            return;
        }
        let count: fn(&mut Faults) -> &mut u8 = |left| &mut left.orders;
        self.fault(
            world,
            Action::Report { node },
            steps,
            count,
            |cluster, world| {
                cluster.tell(world, node, In::Peers(healthy, level));
            },
        );
        for to in (0..N).filter(|peer| healthy >> peer & 1 == 1) {
            let action = Action::Switchover { node, to };
            self.fault(world, action, steps, count, |cluster, world| {
                cluster.tell(world, node, In::Peers(healthy, level));
                cluster.tell(world, node, In::Switchover(to as u8));
            });
        }
    }

    /// The next accepted transaction that a replica lacks. GTIDs that it has are not sent again.
    fn feed(&mut self, world: &World<N>, node: usize, steps: &mut Steps<N>) {
        let own = world.nodes[node];
        if !own.server.runs || !own.server.follows || own.server.waits {
            return;
        }
        let has = world.names_of(own.server.engine);
        let known = self.log.get(self.log.at(world.committed, own.applied));
        let mut lacking = known.accepted.iter();
        let next = lacking.find(|one| has & world.names[usize::from(*one)].bit() == 0);
        if let Some(content) = next {
            self.take(world, Action::Feed { node, content }, steps, |_, world| {
                let server = &mut world.nodes[node].server;
                server.engine = server.engine.with(content);
            });
        }
    }

    /// Role control hears something, and does what follows.
    pub(super) fn tell(&mut self, world: &mut World<N>, node: usize, input: In) {
        let (machine, effects) = self.roles.step(world.nodes[node].machine, input);
        world.nodes[node].machine = machine;
        for effect in effects.iter() {
            self.carry_out(world, node, effect);
        }
    }

    fn carry_out(&mut self, world: &mut World<N>, node: usize, effect: &Effect) {
        let own = &mut world.nodes[node];
        match *effect {
            Effect::OpenGate { epoch } => own.gate = Some(Era::new(epoch)),
            Effect::CloseGate => own.gate = None,
            Effect::Start { job, .. } => {
                own.work = match job {
                    Job::Repair { adopt } => Work::Kill { adopt },
                    Job::Promote { epoch } => Work::CatchUp {
                        epoch: Era::new(epoch),
                    },
                    Job::Drain { .. } => Work::Drain,
                    Job::EndWrites { .. } => Work::EndWrites,
                    Job::Demote { .. } => Work::Demote,
                    Job::Clone => Work::Clone,
                    Job::Salvage { .. } | Job::LimitWrites { .. } | Job::StopServer { .. } => {
                        unreachable!("nothing in the model asks for it: {job:?}")
                    }
                }
            }
            Effect::Abort { .. } => own.work = Work::None,
            Effect::Propose {
                leader,
                node: primary,
            } => self.propose_primary(world, node, leader, primary.is_some()),
            Effect::Transfer { .. } => own.gave_away = true,
            Effect::Heartbeats(on) => own.silent = !on,
            Effect::Hold { .. } | Effect::Release { .. } | Effect::Report(_) => {}
            Effect::Stopped => unreachable!("nothing in the model asks a node to stop"),
        }
    }

    fn propose_primary(
        &mut self,
        world: &mut World<N>,
        node: usize,
        leader: LeaderId,
        mut begins: bool,
    ) {
        let own = &mut world.nodes[node];
        assert_eq!(
            leader,
            log::leader(own.leading, node),
            "role control knows who leads"
        );
        let newest = self.log.get(own.log).applied().set_primary;
        let first = newest.is_none_or(|id| id.leader != leader);
        if first && self.omits(Omission::NewLeaderEndsTheEpoch) {
            if *self.roles.phase(own.machine) != Phase::Replica {
                // Tried again once there is a server for an epoch of its own.
                own.set_primary = REFUSED;
                return;
            }
            begins = true;
        }
        own.log = self
            .log
            .append(own.log, leader, Payload::SetPrimary { begins });
        own.set_primary = own.log;
    }

    /// mysqld is ended by its sidecar, which is no news to it.
    pub(super) fn kill(&self, world: &mut World<N>, node: usize) {
        let own = &mut world.nodes[node];
        if own.server.runs && self.omits(Omission::KillNotTerminate) {
            world.told |= own.server.tail.set();
            own.server.engine = own.server.engine.and(own.server.tail);
            own.server.tail = Default::default();
        }
        stop_server(own);
        own.exited = false;
        own.capture = Capture::default();
    }
}

/// A client commits, with a GTID of `owner`.
fn write<const N: usize>(world: &mut World<N>, node: usize, owner: usize) {
    let content = begin(world, node, owner);
    let server = &mut world.nodes[node].server;
    if server.waits {
        server.tail = server.tail.with(content);
    } else {
        server.engine = server.engine.with(content);
        world.told |= 1 << content;
    }
}

/// A new transaction with the next GTID of `owner` that the server has free: one that was cut off
/// may have had it.
fn begin<const N: usize>(world: &mut World<N>, node: usize, owner: usize) -> u8 {
    let content = world.writes;
    world.writes += 1;
    let server = world.nodes[node].server;
    let used = world.names_of(server.engine) | world.names_of(server.tail);
    let free = (1..).find(|number| used & Name::new(owner, *number).bit() == 0);
    world.names[usize::from(content)] = Name::new(owner, free.unwrap_or_default());
    content
}

fn stop_server(node: &mut Node) {
    node.server = Server {
        engine: node.server.engine,
        tail: node.server.tail,
        marker: node.server.marker,
        ..Server::default()
    };
}

fn crash_server(node: &mut Node) {
    stop_server(node);
    node.exited = node.runs;
    node.capture.end();
}

//! A simulated cluster, and everything that can be done to it: what scenarios are written with.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::seed_thread;
use quorate_node::Probe;
use quorate_node::config::Retention;
use quorate_storage::MemoryDisk;
use quorate_types::{Command, NodeId, Rule};

use crate::disk::{Honesty, SimulatedDisk};
use crate::history::{Counts, History, Reply, Request};
use crate::invariants::Oracle;
use crate::mysqld::machine::run_servers;
use crate::mysqld::{BrokenRules, Change, Engine, Machine, Pace};
use crate::network::{Clock, MachineNet, server_host, sidecar_host};
use crate::node::{READ_WRITE_PORT, run_sidecar};
use crate::random::Random;
use crate::workload::{APPLICATIONS, ask, open, run_client, run_reader};
use crate::world::{State, World};

const TICK: Duration = Duration::from_millis(1);
/// Between two nodes.
const LATENCY_MAX: Duration = Duration::from_millis(3);
/// Within one machine, and from the applications.
const LATENCY_NEAR: Duration = Duration::from_micros(100);
/// Nothing takes longer than this when nothing is wrong.
const START_MAX: Duration = Duration::from_secs(30);
/// A client that asks on behalf of a scenario.
const SCENARIO_CLIENT: u64 = 1 << 20;

/// What a cluster is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Everything follows from it.
    pub seed: u64,
    pub nodes: u64,
    /// Clients of the read-write ports; there is one of the read-only ports too.
    pub clients: u64,
    /// What every machine does wrong, to see whether it is found.
    pub broken: BrokenRules,
    /// The drift of each machine's clock, at most, in millionths.
    pub drift_max: u32,
    /// No lease ends: every machine's clock stops a few seconds after the start.
    pub clocks_stand_still: bool,
    /// A rule that no node obeys.
    pub left_out: Option<Rule>,
    /// Of the Raft logs' disks.
    pub disk: Honesty,
    /// How much longer leases and elections are than by default: with a factor of a few there is time
    /// within a lease for what usually takes longer than one.
    pub patience: u64,
    /// The log goes beyond so many bytes of entries, once enough servers have executed them; 0: it
    /// stays, in a run as short as these.
    pub log_bytes: u64,
    /// At 80 % of so many bytes of entries writes stop; 0: never.
    pub budget_bytes: u64,
    /// A transaction with more bytes of events than this takes more than one entry of the log.
    pub entry_bytes_max: usize,
}

impl Setup {
    pub(crate) fn retention(&self) -> Retention {
        let default = Retention::default();
        let or = |bytes: u64, default: u64| if bytes == 0 { default } else { bytes };
        Retention {
            log_bytes: or(self.log_bytes, default.log_bytes),
            budget_bytes: or(self.budget_bytes, default.budget_bytes),
            ..default
        }
    }

    /// What is not a fault and differs from seed to seed all the same.
    #[must_use]
    pub fn varied(&self) -> Self {
        let mut random = Random::new(self.seed ^ 0x7a81_e700);
        let log_bytes = *random.pick(&[12 << 10, 24 << 10, 64 << 10, 256 << 10]);
        Self {
            log_bytes,
            // A log that nobody lets go stops writes.
            budget_bytes: if random.chance(4) { 8 * log_bytes } else { 0 },
            entry_bytes_max: *random.pick(&[2 << 10, 4 << 10, 480 << 10]),
            // The lease has a fifth to spare.
            drift_max: *random.pick(&[self.drift_max, 20_000, 100_000]),
            ..self.clone()
        }
    }
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            seed: 1,
            nodes: 3,
            clients: 4,
            broken: BrokenRules::default(),
            drift_max: 200,
            clocks_stand_still: false,
            left_out: None,
            disk: Honesty::Honest,
            patience: 1,
            log_bytes: 0,
            budget_bytes: 0,
            entry_bytes_max: 4 << 10,
        }
    }
}

/// A promise that was broken, or a bound that was passed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);

/// The cluster under test. Every method that takes time lets simulated time pass; everything else
/// takes effect at once.
pub struct Cluster {
    pub(crate) sim: turmoil::Sim<'static>,
    pub(crate) world: World,
    pub(crate) oracle: Oracle,
    random: Random,
    /// When an operator who puts members back was last busy with each.
    pub(crate) asked: BTreeMap<NodeId, Duration>,
    next_key: u64,
    _folder: tempfile::TempDir,
}

impl Cluster {
    /// Starts all nodes; node 1 makes a new cluster.
    ///
    /// # Panics
    /// If the build lacks what determinism needs.
    #[must_use]
    pub fn new(setup: &Setup) -> Self {
        if cfg!(not(tokio_unstable)) {
            panic!(
                "the simulation is deterministic only with `--cfg tokio_unstable`: build it in its own \
                 repository, and without a RUSTFLAGS variable"
            );
        }
        seed_thread(setup.seed);
        let mut random = Random::new(setup.seed);
        let folder = tempfile::tempdir().expect("a temporary folder");
        let mut sim = turmoil::Builder::new()
            .rng_seed(random.next_u64())
            .enable_random_order()
            .simulation_duration(Duration::from_secs(1 << 30))
            .tick_duration(TICK)
            .min_message_latency(LATENCY_NEAR)
            .max_message_latency(LATENCY_MAX)
            .tcp_capacity(65_536)
            .build();
        let world = World::new(State {
            machines: BTreeMap::new(),
            disks: BTreeMap::new(),
            nets: BTreeMap::new(),
            probes: BTreeMap::new(),
            stopping: BTreeSet::new(),
            ended: BTreeMap::new(),
            starts: BTreeMap::new(),
            orders: 0,
            changes: 0,
            load: false,
            history: History::default(),
            trace: Vec::new(),
            folder: folder.path().to_owned(),
            setup: setup.clone(),
        });
        for node in (1..=setup.nodes).map(NodeId) {
            add_machine(&mut sim, &world, node, setup, &mut random);
        }
        add_clients(&mut sim, &world, setup.clients, &mut random);
        for node in (1..=setup.nodes).map(NodeId) {
            near(&sim, &sidecar_host(node), &server_host(node));
            near(&sim, &sidecar_host(node), APPLICATIONS);
        }
        Self {
            sim,
            world,
            oracle: Oracle::default(),
            random: random.fork(),
            asked: BTreeMap::new(),
            next_key: SCENARIO_CLIENT << 32,
            _folder: folder,
        }
    }

    /// Lets time pass. Every promise is checked after every millisecond.
    ///
    /// # Errors
    /// The first promise that was broken.
    pub fn run_for(&mut self, time: Duration) -> Result<(), Violation> {
        let until = self.sim.elapsed() + time;
        while self.sim.elapsed() < until {
            self.step()?;
        }
        Ok(())
    }

    /// Lets time pass until something is so.
    ///
    /// # Errors
    /// If it is not so within `longest`, or a promise was broken.
    pub fn run_until(
        &mut self,
        what: &str,
        longest: Duration,
        mut is_so: impl FnMut(&Self) -> bool,
    ) -> Result<(), Violation> {
        let until = self.sim.elapsed() + longest;
        while !is_so(self) {
            if self.sim.elapsed() >= until {
                return Err(Violation(format!("not within {longest:?}: {what}")));
            }
            self.step()?;
        }
        Ok(())
    }

    fn step(&mut self) -> Result<(), Violation> {
        let stepped = self.sim.step();
        stepped.map_err(|error| Violation(format!("a simulated host failed: {error}")))?;
        self.oracle.look(&self.world, self.sim.elapsed())
    }

    /// Lets time pass until there is a primary and every node is a member.
    ///
    /// # Errors
    /// If that takes too long, or a promise was broken.
    pub fn start(&mut self) -> Result<(), Violation> {
        let nodes = self.nodes();
        self.run_until("a new cluster serves", START_MAX, |cluster| {
            let voters = |probe: &Probe| probe.raft().voters.len() == nodes.len();
            let all = cluster.world.with(|state| {
                state.probes.len() == nodes.len() && state.probes.values().all(voters)
            });
            all && cluster.primary().is_some()
        })
    }

    #[must_use]
    pub fn elapsed(&self) -> Duration {
        self.sim.elapsed()
    }

    #[must_use]
    pub fn nodes(&self) -> Vec<NodeId> {
        self.world.nodes()
    }

    /// The node whose gate passes writes now.
    #[must_use]
    pub fn primary(&self) -> Option<NodeId> {
        self.oracle.serving()
    }

    /// The replicas' nodes, when there is a primary.
    #[must_use]
    pub fn others(&self, than: NodeId) -> Vec<NodeId> {
        let nodes = self.nodes().into_iter();
        nodes.filter(|node| *node != than).collect()
    }

    #[must_use]
    pub fn probe(&self, node: NodeId) -> Option<Probe> {
        self.world.with(|state| state.probes.get(&node).cloned())
    }

    /// What a node's server holds, if it has a data folder.
    #[must_use]
    pub fn data(&self, node: NodeId) -> Option<Engine> {
        self.machine(node).engine()
    }

    pub(crate) fn machine(&self, node: NodeId) -> Machine {
        self.world.with(|state| state.machines[&node].clone())
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        self.world.with(|state| state.history.counts())
    }

    #[must_use]
    pub fn oracle(&self) -> &Oracle {
        &self.oracle
    }

    /// What happened, line by line; the same for the same seed.
    #[must_use]
    pub fn trace(&self) -> Vec<String> {
        self.world.with(|state| state.trace.clone())
    }

    pub(crate) fn note(&self, line: &str) {
        self.world.trace_at(self.sim.elapsed(), line);
    }

    /// Whether clients write and read.
    pub fn set_load(&mut self, load: bool) {
        self.world.with(|state| state.load = load);
    }

    /// Inserts a row through a node's read-write port, and waits until it is acknowledged. It is
    /// tried again, with another key, while there is no primary.
    ///
    /// # Errors
    /// If that takes longer than `longest`, or a promise was broken.
    pub fn write(&mut self, through: NodeId, longest: Duration) -> Result<u64, Violation> {
        let begun = self.sim.elapsed();
        let mut pause = Duration::from_millis(20);
        loop {
            self.next_key += 1;
            let key = self.next_key;
            let request = Request::Write(Change::Insert { key, value: key });
            self.spawn_write(through, key, request);
            let bound = Duration::from_secs(5).min(longest);
            let ended = self.run_until("a write ends", bound, |cluster| {
                cluster.reply(key).is_some()
            });
            match (ended, self.reply(key)) {
                (Ok(()), Some(Reply::Done)) => return Ok(key),
                (Err(violation), None) if !violation.0.starts_with("not within") => {
                    return Err(violation);
                }
                _ => {}
            }
            if self.sim.elapsed() >= begun + longest {
                let text = format!("no write through node {through} within {longest:?}");
                return Err(Violation(text));
            }
            self.run_for(pause)?;
            // Each try leaves a client behind, and every step looks at all of them.
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    /// Begins a transaction of so many rows through a node's read-write port; nobody waits for it.
    pub fn load(&mut self, through: NodeId, rows: u64) {
        let key = self.next_key + 1;
        self.next_key += rows;
        self.spawn_write(through, key, Request::Load { key, rows });
    }

    fn spawn_write(&mut self, through: NodeId, key: u64, request: Request) {
        let world = self.world.clone();
        let name = format!("once{}", key & 0xffff_ffff);
        self.sim.client(name.clone(), async move {
            match open(through, READ_WRITE_PORT).await {
                Some(mut connection) => {
                    ask(&world, SCENARIO_CLIENT, &mut connection, request).await;
                }
                None => world.with(|state| {
                    let now = turmoil::sim_elapsed().unwrap_or_default();
                    let number = state.history.begin(SCENARIO_CLIENT, request, now);
                    state.history.end(number, now, Reply::Refused);
                }),
            }
            Ok(())
        });
        near(&self.sim, &name, &sidecar_host(through));
    }

    /// Has a node append a command that no part of it proposed.
    pub(crate) fn propose(&mut self, node: NodeId, command: Command) {
        let Some(probe) = self.probe(node) else {
            return;
        };
        let world = self.world.clone();
        let name = format!("stranger{}", world.with(|state| state.trace.len()));
        self.sim.client(name, async move {
            let fate = probe.propose(command).await;
            world.trace(&format!("proposed to n{node} by nobody: {fate:?}"));
            Ok(())
        });
    }

    fn reply(&self, key: u64) -> Option<Reply> {
        self.world.with(|state| {
            let operations = state.history.operations.iter().rev();
            let mut of_key = operations.filter(|operation| {
                matches!(operation.request, Request::Write(Change::Insert { key: k, .. }) if k == key)
            });
            of_key.next()?.ended.map(|(_, reply)| reply)
        })
    }

    /// Cuts two nodes' sidecars off each other, both ways.
    pub fn cut(&mut self, a: NodeId, b: NodeId) {
        self.note(&format!("FAULT cut n{a} and n{b}"));
        self.sim.partition(sidecar_host(a), sidecar_host(b));
    }

    /// `from` is not heard by `to` any more.
    pub fn cut_one_way(&mut self, from: NodeId, to: NodeId) {
        self.note(&format!("FAULT cut from n{from} to n{to}"));
        self.sim
            .partition_oneway(sidecar_host(from), sidecar_host(to));
    }

    /// Cuts a node off all others.
    pub fn isolate(&mut self, node: NodeId) {
        for other in self.others(node) {
            self.cut(node, other);
        }
    }

    /// What two nodes send each other is kept back until they are joined again.
    pub fn hold(&mut self, a: NodeId, b: NodeId) {
        self.note(&format!("FAULT hold between n{a} and n{b}"));
        self.sim.hold(sidecar_host(a), sidecar_host(b));
    }

    /// What two nodes send each other takes up to so long, each message as chance has it.
    pub fn slow_link(&mut self, a: NodeId, b: NodeId, longest: Duration) {
        self.note(&format!("FAULT up to {longest:?} between n{a} and n{b}"));
        self.sim
            .set_link_max_message_latency(sidecar_host(a), sidecar_host(b), longest);
    }

    /// One in so many messages between two nodes is lost, and with it what its connection was for.
    pub fn lossy_link(&mut self, a: NodeId, b: NodeId, one_in: u64) {
        self.note(&format!(
            "FAULT one message in {one_in} is lost between n{a} and n{b}"
        ));
        self.sim
            .set_link_fail_rate(sidecar_host(a), sidecar_host(b), 1.0 / one_in as f64);
    }

    /// Ends what was done to the link of two nodes.
    pub fn join(&mut self, a: NodeId, b: NodeId) {
        self.note(&format!("HEAL n{a} and n{b}"));
        let (a, b) = (sidecar_host(a), sidecar_host(b));
        self.sim.release(a.as_str(), b.as_str());
        self.sim.repair(a.as_str(), b.as_str());
        self.sim
            .set_link_max_message_latency(a.as_str(), b.as_str(), LATENCY_MAX);
        self.sim.set_link_fail_rate(a, b, 0.0);
    }

    /// Ends what was done to any link.
    pub fn join_all(&mut self) {
        let nodes = self.nodes();
        for (i, a) in nodes.iter().enumerate() {
            for b in &nodes[i + 1..] {
                self.join(*a, *b);
            }
        }
    }

    /// Kills a node's sidecar; its server runs on.
    pub fn kill_sidecar(&mut self, node: NodeId) {
        self.note(&format!("FAULT kill the sidecar of n{node}"));
        self.forget_sidecar(node);
    }

    fn forget_sidecar(&mut self, node: NodeId) {
        self.sim.crash(sidecar_host(node));
        self.world.with(|state| {
            state.probes.remove(&node);
            state.stopping.remove(&node);
            state.ended.insert(node, "killed".to_owned());
        });
    }

    /// Starts a sidecar that ended.
    pub fn start_sidecar(&mut self, node: NodeId) {
        if self.is_ended(node) {
            self.note(&format!("HEAL start the sidecar of n{node}"));
            self.world.with(|state| state.ended.remove(&node));
            self.sim.crash(sidecar_host(node));
            self.sim.bounce(sidecar_host(node));
        }
    }

    #[must_use]
    pub fn is_ended(&self, node: NodeId) -> bool {
        self.world.with(|state| state.ended.contains_key(&node))
    }

    /// Asks a node to stop in good order, as SIGTERM does.
    pub fn stop_sidecar(&mut self, node: NodeId) {
        self.note(&format!("FAULT stop the sidecar of n{node}"));
        self.world.with(|state| state.stopping.insert(node));
    }

    /// Kills a node's server.
    pub fn kill_server(&mut self, node: NodeId) {
        self.note(&format!("FAULT kill the server of n{node}"));
        if let Some(server) = self.machine(node).server() {
            server.kill();
        }
    }

    /// Stops a node's server as SIGSTOP does, or lets it go on.
    pub fn pause_server(&mut self, node: NodeId, paused: bool) {
        let what = if paused { "FAULT pause" } else { "HEAL resume" };
        self.note(&format!("{what} the server of n{node}"));
        if let Some(server) = self.machine(node).server() {
            server.pause(paused);
        }
    }

    /// Cuts a machine's power: what was not synced is lost, in part or whole.
    pub fn power_off(&mut self, node: NodeId) {
        self.note(&format!("FAULT power off n{node}"));
        self.forget_sidecar(node);
        self.stand_still(node, false);
        let machine = self.machine(node);
        machine.kill_servers();
        machine.lose_unsynced();
        let seed = self.random.next_u64();
        self.world.with(|state| state.disks[&node].crash(seed));
    }

    /// Cuts a machine's power, and takes its Raft folder away; its data folder stays.
    pub fn wipe_log(&mut self, node: NodeId) {
        self.put_log_back(node, &MemoryDisk::new());
    }

    /// What is durable of a node's Raft folder by now.
    #[must_use]
    pub fn log_image(&self, node: NodeId) -> MemoryDisk {
        self.world.with(|state| state.disks[&node].image())
    }

    /// Cuts a machine's power, and puts an older Raft folder in the place of its own.
    pub fn put_log_back(&mut self, node: NodeId, image: &MemoryDisk) {
        self.power_off(node);
        self.note(&format!("FAULT another Raft folder on n{node}"));
        self.world.with(|state| {
            let disk = state.disks.get_mut(&node).expect("every node has a disk");
            disk.put_back(image);
        });
    }

    /// How slow a machine's disk and applier are.
    pub fn set_pace(&mut self, node: NodeId, pace: Pace) {
        self.note(&format!("PACE of n{node}: {pace:?}"));
        self.machine(node).set_pace(pace);
    }

    /// Gives a node another mysqld: its server is killed, and the next one says this version.
    pub fn set_version(&mut self, node: NodeId, version: &'static str) {
        self.note(&format!("MySQL {version} on n{node}"));
        self.machine(node).with(|state| state.version = version);
        self.kill_server(node);
    }

    /// Removes a node's data folder; its server is killed.
    pub fn wipe_data(&mut self, node: NodeId) {
        self.note(&format!("FAULT wipe the data of n{node}"));
        let machine = self.machine(node);
        machine.kill_servers();
        let folder = machine.data_folder();
        machine.with(|state| {
            if let Some(folder) = state.folders.remove(&folder) {
                state.lost.union(&folder.engine.executed);
            }
        });
    }

    /// Gives a node's server a transaction that nobody else has, as somebody does by hand: from then
    /// on only a clone mends it.
    pub fn make_errant(&mut self, node: NodeId) {
        self.note(&format!("FAULT an errant transaction on n{node}"));
        let machine = self.machine(node);
        let folder = machine.data_folder();
        machine.with(|state| {
            let sequence = 1_000_000 + state.random.below(1_000_000);
            if let Some(folder) = state.folders.get_mut(&folder) {
                folder.engine.executed.insert(quorate_types::Gtid {
                    source: folder.uuid.into(),
                    sequence,
                });
            }
        });
    }

    /// Ends every session of a node's server, as `KILL` by hand does; capture's too.
    pub fn kill_sessions(&mut self, node: NodeId) {
        self.note(&format!("FAULT kill the sessions of n{node}'s server"));
        if let Some(server) = self.machine(node).server() {
            server.volatile(|state| {
                for session in state.sessions.values() {
                    session.killed.send_replace(true);
                }
            });
        }
    }

    /// Whether a node's server has transactions that nobody accepted.
    #[must_use]
    pub fn is_errant(&self, node: NodeId) -> bool {
        let nodes = self.nodes();
        let states = nodes.iter().filter_map(|node| self.probe(*node));
        let mut accepted = quorate_types::GtidSet::new();
        for probe in states {
            accepted.union(&probe.applied_state().accepted);
        }
        let data = self.data(node);
        data.is_some_and(|data| !accepted.contains_set(&data.executed))
    }

    /// Ends every fault: links, pauses, slow disks, dead sidecars.
    pub fn heal(&mut self) {
        self.join_all();
        for node in self.nodes() {
            self.machine(node).set_pace(Pace::default());
            self.mend_log_disk(node);
            self.stand_still(node, false);
            self.pause_server(node, false);
            self.start_sidecar(node);
        }
    }

    /// Each node as it is now, for whoever reads a failure.
    #[must_use]
    pub fn describe(&self) -> Vec<String> {
        let mut lines = Vec::new();
        for node in self.nodes() {
            let mut line = format!("n{node}:");
            match self.probe(node) {
                Some(probe) => {
                    let (raft, state) = (probe.raft(), probe.applied_state());
                    line += &format!(
                        " {:?} term {} leader {:?} applied {:?} epoch {:?} primary {:?} accepted {}",
                        raft.state,
                        raft.term,
                        raft.leader.map(|leader| leader.node.0),
                        state.last.map(|last| last.index.0),
                        state.epoch.map(|epoch| epoch.to_string()),
                        state.primary.map(|node| node.0),
                        state.accepted
                    );
                }
                None => {
                    let ended = self.world.with(|state| state.ended.get(&node).cloned());
                    line += &format!(" no sidecar ({})", ended.unwrap_or_default());
                }
            }
            if let Some(data) = self.data(node) {
                line += &format!("; its server executed {}", data.executed);
            }
            lines.push(line);
        }
        lines
    }
}

pub(crate) fn near(sim: &turmoil::Sim<'_>, a: &str, b: &str) {
    sim.set_link_latency(a, b, LATENCY_NEAR);
}

fn add_machine(
    sim: &mut turmoil::Sim<'static>,
    world: &World,
    node: NodeId,
    setup: &Setup,
    random: &mut Random,
) {
    let (machine, starts) = Machine::new(node, random.next_u64());
    machine.break_rules(setup.broken);
    let drift = random.below(u64::from(2 * setup.drift_max + 1)) as i32 - setup.drift_max as i32;
    let clock = Clock {
        drift,
        stands_still: setup.clocks_stand_still,
    };
    world.with(|state| {
        state.machines.insert(node, machine);
        let seed = setup.seed << 8 ^ node.0;
        state
            .disks
            .insert(node, SimulatedDisk::new(setup.disk, seed));
        let net = MachineNet::new(node).with_clock(clock);
        state.nets.insert(node, net);
    });
    let starts = Arc::new(tokio::sync::Mutex::new(starts));
    sim.host(server_host(node), move || {
        let starts = starts.clone();
        async move {
            run_servers(starts).await;
            Ok(())
        }
    });
    let world = world.clone();
    sim.host(sidecar_host(node), move || run_sidecar(world.clone(), node));
}

fn add_clients(sim: &mut turmoil::Sim<'static>, world: &World, clients: u64, random: &mut Random) {
    let (world, random) = (world.clone(), random.fork());
    sim.host(APPLICATIONS, move || {
        let (world, mut random) = (world.clone(), random.clone());
        async move {
            for client in 1..=clients {
                tokio::spawn(run_client(world.clone(), client, random.fork()));
            }
            run_reader(world, random).await;
            Ok(())
        }
    });
}

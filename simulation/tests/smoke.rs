//! Three Rafts over a simulated network: elect, write, be cut off, heal, crash, and agree.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use quorate_consensus::{
    Consensus, ConsensusConfig, Exec, Identity, ProposalFate, Timings, seed_thread,
};
use quorate_net::{Endpoint, Net};
use quorate_simulation::SimulatedNet;
use quorate_storage::MemoryDisk;
use quorate_types::{
    BinlogSource, ClusterId, Command, Gtid, Incarnation, NodeId, Outcome, SourceId, Transaction,
    TransactionBatch, Uuid,
};

const NODES: u64 = 3;
const PORT: u16 = 7003;
const CHILD: &str = "QUORATE_SMOKE_SEED";

const TIMINGS: Timings = Timings {
    heartbeat: Duration::from_millis(50),
    election_min: Duration::from_millis(150),
    election_max: Duration::from_millis(300),
    quorum_loss_probe: Duration::from_millis(600),
};

type Error = Box<dyn std::error::Error>;

/// What the hosts leave for whoever steps the simulation.
#[derive(Default)]
struct World {
    nodes: BTreeMap<u64, Consensus>,
    disks: BTreeMap<u64, MemoryDisk>,
    starts: BTreeMap<u64, u64>,
    acknowledged: BTreeSet<Gtid>,
    trace: Vec<String>,
}

#[derive(Clone, Default)]
struct Shared(Arc<Mutex<World>>);

impl Shared {
    fn with<T>(&self, use_it: impl FnOnce(&mut World) -> T) -> T {
        use_it(&mut self.0.lock().expect("no panic while it was held"))
    }

    fn trace(&self, line: &str) {
        let at = turmoil::sim_elapsed().unwrap_or_default();
        self.with(|world| world.trace.push(format!("{at:?} {line}")));
    }

    fn leader(&self) -> Option<u64> {
        self.with(|world| {
            let leads = |node: &Consensus| {
                let view = node.view().borrow().clone();
                view.is_leader.then_some(view.term)
            };
            let leaders = world
                .nodes
                .iter()
                .filter_map(|(id, node)| Some((leads(node)?, *id)));
            leaders.max().map(|(_, id)| id)
        })
    }
}

fn host(id: u64) -> String {
    format!("n{id}")
}

fn endpoint(id: u64) -> Endpoint {
    Endpoint::Tcp(format!("{}:{PORT}", host(id)))
}

async fn run_node(id: u64, shared: Shared) -> Result<(), Error> {
    let (disk, start_counter) = shared.with(|world| {
        let starts = world.starts.entry(id).or_default();
        *starts += 1;
        (world.disks.entry(id).or_default().clone(), *starts)
    });
    let mut config = ConsensusConfig::new(Identity {
        cluster: ClusterId(1),
        node: NodeId(id),
        incarnation: Incarnation(id),
        start_counter,
    });
    config.timings = TIMINGS;
    config.exec = Exec::Inline;
    config.sit_out = (start_counter > 1).then_some(TIMINGS.election_max);
    let (consensus, service) = Consensus::start(config, SimulatedNet, disk).await?;
    shared.with(|world| world.nodes.insert(id, consensus.clone()));
    tokio::spawn(watch(id, consensus.clone(), shared.clone()));
    tokio::spawn(write(id, consensus.clone(), shared));
    if id == 1 && start_counter == 1 {
        consensus.initialize_single(endpoint(1).to_string()).await?;
        tokio::spawn(grow(consensus));
    }
    let listener = SimulatedNet.listen(&endpoint(id)).await?;
    tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(TIMINGS.election_min))
        .http2_keepalive_timeout(Some(TIMINGS.election_min))
        .add_service(service)
        .serve_with_incoming(listener.incoming)
        .await?;
    Ok(())
}

/// Makes the other nodes members.
async fn grow(consensus: Consensus) {
    let mut view = consensus.view();
    let _ = view.wait_for(|view| view.is_leader).await;
    // Members change only once this leader committed something.
    consensus.barrier().await.expect("it leads alone");
    for id in 2..=NODES {
        let address = endpoint(id).to_string();
        consensus
            .add_learner(NodeId(id), address, Incarnation(id), true)
            .await
            .expect("nobody disturbs the beginning");
        consensus
            .promote(BTreeSet::from([NodeId(id)]))
            .await
            .expect("nobody disturbs the beginning");
    }
}

async fn watch(id: u64, consensus: Consensus, shared: Shared) {
    let mut view = consensus.view();
    while view.changed().await.is_ok() {
        let view = view.borrow().clone();
        shared.trace(&format!(
            "n{id} {:?} term {} leader {:?} last {:?} applied {:?}",
            view.state, view.term, view.leader, view.last_log, view.applied
        ));
    }
}

/// Writes as a primary would, whenever this node leads: one transaction every 10 ms.
async fn write(id: u64, consensus: Consensus, shared: Shared) {
    let mut view = consensus.view();
    let mut sequence = 0;
    while view.wait_for(|view| view.is_leader).await.is_ok() {
        let Some(leader) = view.borrow().leader else {
            continue;
        };
        let begin = Command::SetPrimary {
            node: Some(NodeId(id)),
        };
        let begun = consensus.propose(leader, begin).await.await;
        let Ok(ProposalFate::Applied { outcome, .. }) = begun else {
            tokio::time::sleep(Duration::from_millis(10)).await;
            continue;
        };
        let Outcome::PrimarySet { epoch: Some(epoch) } = outcome else {
            continue;
        };
        for number in 1.. {
            sequence += 1;
            let start = shared.with(|world| world.starts[&id]);
            let gtid = Gtid {
                source: SourceId::from(Uuid([(id * 16 + start) as u8; 16])),
                sequence,
            };
            let batch = TransactionBatch {
                epoch,
                first_number: number,
                source: BinlogSource {
                    file: "binlog.000001".into(),
                    format: Bytes::new(),
                },
                transactions: vec![Transaction {
                    gtid,
                    checksum: 0,
                    events: Bytes::from_static(&[7; 100]),
                }],
            };
            let fate = consensus
                .propose(leader, Command::Transactions(batch))
                .await
                .await;
            shared.trace(&format!("n{id} {gtid} {fate:?}"));
            let Ok(ProposalFate::Applied {
                outcome: Outcome::Transactions { accepted: 1, .. },
                ..
            }) = fate
            else {
                break;
            };
            shared.with(|world| world.acknowledged.insert(gtid));
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// Steps until this many simulated milliseconds.
fn run_until(sim: &mut turmoil::Sim<'_>, ms: u64) {
    while sim.elapsed() < Duration::from_millis(ms) {
        sim.step().expect("no host fails");
    }
}

fn run(seed: u64) -> Vec<String> {
    seed_thread(seed);
    let shared = Shared::default();
    let mut sim = turmoil::Builder::new()
        .rng_seed(seed)
        .enable_random_order()
        .simulation_duration(Duration::from_secs(60))
        .tick_duration(Duration::from_millis(1))
        .min_message_latency(Duration::from_millis(1))
        .max_message_latency(Duration::from_millis(5))
        .tcp_capacity(65_536)
        .build();
    for id in 1..=NODES {
        let shared = shared.clone();
        sim.host(host(id), move || run_node(id, shared.clone()));
    }
    run_until(&mut sim, 3_000);
    let first = shared.leader().expect("a leader after 3 s");
    for other in (1..=NODES).filter(|other| *other != first) {
        sim.partition(host(first), host(other));
    }
    run_until(&mut sim, 6_000);
    let second = shared.leader().expect("a leader without the first");
    assert_ne!(first, second, "the others elect one of them");
    for other in (1..=NODES).filter(|other| *other != first) {
        sim.repair(host(first), host(other));
    }
    run_until(&mut sim, 8_000);
    let crashed = shared.leader().expect("a leader after healing");
    sim.crash(host(crashed));
    shared.with(|world| {
        world.nodes.remove(&crashed);
        let disk = &world.disks[&crashed];
        disk.crash(seed);
        let disk = disk.reopen();
        world.disks.insert(crashed, disk);
    });
    run_until(&mut sim, 10_000);
    sim.bounce(host(crashed));
    run_until(&mut sim, 13_000);
    check(&shared);
    shared.with(|world| std::mem::take(&mut world.trace))
}

/// Every acknowledged transaction is on every node, and two nodes at one index are equal.
fn check(shared: &Shared) {
    shared.with(|world| {
        assert_eq!(world.nodes.len() as u64, NODES);
        let states: Vec<_> = world
            .nodes
            .values()
            .map(|node| node.applied_state().borrow().clone())
            .collect();
        assert!(world.acknowledged.len() > 100, "it served");
        // The newest acknowledgements may be on their way to a follower.
        let missing = |state: &quorate_consensus::AppliedState| {
            let missing = |gtid: &&Gtid| !state.accepted.contains(**gtid);
            world.acknowledged.iter().filter(missing).count()
        };
        for state in &states {
            assert!(
                missing(state) < 5,
                "{} acknowledged are missing",
                missing(state)
            );
        }
        assert!(states.iter().any(|state| missing(state) == 0));
        for (a, b) in states.iter().zip(states.iter().skip(1)) {
            assert!(a.last != b.last || a == b, "equal logs, different states");
        }
    });
}

/// Each run is a process of its own: some libraries keep a generator per process.
#[test]
fn the_same_seed_gives_the_same_trace() {
    if let Ok(seed) = std::env::var(CHILD) {
        for line in run(seed.parse().expect("a number")) {
            println!("TRACE {line}");
        }
        return;
    }
    let trace = |seed: &str| {
        let name = "the_same_seed_gives_the_same_trace";
        let output = std::process::Command::new(std::env::current_exe().expect("this test"))
            .args(["--exact", name, "--nocapture"])
            .env(CHILD, seed)
            .output()
            .expect("run this test again");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        let errors = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "seed {seed}: {errors}");
        let lines = text
            .lines()
            .filter(|line| line.contains("TRACE "))
            .map(str::to_owned);
        lines.collect::<Vec<_>>()
    };
    for seed in ["1", "2", "3"] {
        let (first, second) = (trace(seed), trace(seed));
        assert!(first.len() > 300, "seed {seed}: {} lines", first.len());
        assert_eq!(first, second, "seed {seed}");
        println!("seed {seed}: {} equal lines", first.len());
    }
}

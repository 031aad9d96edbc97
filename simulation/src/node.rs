//! The production node on a simulated host.

use std::fmt::Write as _;
use std::time::Duration;

use quorate_consensus::Exec;
use quorate_node::config::{Config, Secrets};
use quorate_node::{CaptureOptions, Node, NodeFailure, Parts};
use quorate_types::{NodeId, Secret, chain};

use crate::mysqld::SimulatedHost;
use crate::mysqld::binlog::VERSION;
use crate::network::{SERVER_PORT, address};
use crate::random::Random;
use crate::world::World;

pub(crate) const READ_WRITE_PORT: u16 = 7001;
pub(crate) const READ_ONLY_PORT: u16 = 7002;
const FEED_PORT: u16 = 7003;
pub(crate) const GRPC_PORT: u16 = 7004;
const HTTP_PORT: u16 = 7005;
pub(crate) const GATE_PORT: u16 = 7006;
/// The simulation's clock for people begins here: 2026-01-01.
const EPOCH_MS: u64 = 1_767_225_600_000;

pub(crate) type Error = Box<dyn std::error::Error>;

fn config_text(node: NodeId, nodes: &[NodeId], patience: u64) -> String {
    let mut text = format!("node = {node}\ndir = \"n{node}\"\nsecrets = \"secrets\"\n[listen]\n");
    // The feed is for this machine only, and so is told by a name of loopback.
    for (name, port) in [
        ("read_write", READ_WRITE_PORT),
        ("read_only", READ_ONLY_PORT),
        ("feed", FEED_PORT),
        ("grpc", GRPC_PORT),
        ("http", HTTP_PORT),
        ("gate", GATE_PORT),
    ] {
        let _ = writeln!(text, "{name} = \"{}\"", address(node, port));
    }
    let _ = writeln!(
        text,
        "[mysqld]\nport = {SERVER_PORT}\nreplica_parallel_workers = 16"
    );
    let _ = writeln!(
        text,
        "[timing]\nelection_min_ms = {}\nelection_max_ms = {}\nquorum_loss_probe_ms = {}",
        150 * patience,
        300 * patience,
        600 * patience
    );
    for peer in nodes.iter().filter(|peer| **peer != node) {
        let (grpc, gate) = (address(*peer, GRPC_PORT), address(*peer, GATE_PORT));
        let _ = writeln!(text, "[peers.{peer}]\ngrpc = \"{grpc}\"\ngate = \"{gate}\"");
    }
    text
}

fn secrets() -> Secrets {
    let secret = |text: &str| Secret::new(text.to_owned());
    Secrets {
        control: secret("control"),
        capture: secret("capture"),
        feed: secret("feed"),
        clone: secret("clone"),
    }
}

/// Runs a node's sidecar until its simulated host is crashed. A process that ended, by itself or in
/// good order, leaves a host that does nothing.
pub(crate) async fn run_sidecar(world: World, node: NodeId) -> Result<(), Error> {
    let why = match start(&world, node).await {
        Ok(mut running) => {
            world.with(|state| state.probes.insert(node, running.probe()));
            world.trace(&format!("n{node} answers"));
            tokio::select! {
                biased;
                () = stop_asked(&world, node) => {
                    running.stop().await;
                    "stopped".to_owned()
                }
                failure = running.failed() => match failure {
                    NodeFailure::Consensus(fatal) => format!("failed: {fatal}"),
                    panicked @ NodeFailure::Panicked(_) => return Err(panicked.into()),
                },
            }
        }
        Err(error) => format!("did not start: {}", chain(&*error)),
    };
    world.trace(&format!("n{node} {why}"));
    world.with(|state| {
        state.probes.remove(&node);
        state.stopping.remove(&node);
        state.ended.insert(node, why);
    });
    std::future::pending().await
}

async fn stop_asked(world: &World, node: NodeId) {
    while !world.with(|state| state.stopping.contains(&node)) {
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

async fn start(world: &World, node: NodeId) -> Result<Node, Error> {
    let nodes = world.nodes();
    let (patience, retention, entry_bytes_max) = world.with(|state| {
        let setup = &state.setup;
        (setup.patience, setup.retention(), setup.entry_bytes_max)
    });
    let text = config_text(node, &nodes, patience);
    let (folder, machine, disk, net, starts, seed, left_out) = world.with(|state| {
        let starts = state.starts.entry(node).or_default();
        *starts += 1;
        let disk = state.disks.get_mut(&node).expect("every node has a disk");
        *disk = disk.reopen();
        (
            state.folder.clone(),
            state.machines[&node].clone(),
            disk.clone(),
            state.nets[&node].clone(),
            *starts,
            state.setup.seed,
            state.setup.left_out,
        )
    });
    let mut config = Config::parse(&text, &folder).map_err(|findings| format!("{findings:?}"))?;
    // Smaller than a configuration may have it: a run is short.
    config.retention = retention;
    std::fs::create_dir_all(&config.dir)?;
    let settings =
        quorate_mysqld::Settings::new(node.0 as u32, SERVER_PORT, config.mysqld.socket.clone());
    let wall_clock = || EPOCH_MS + turmoil::sim_elapsed().unwrap_or_default().as_millis() as u64;
    let parts = Parts {
        net,
        host: SimulatedHost::new(&machine),
        open_log: Box::new(move || Ok(disk)),
        exec: Exec::Task,
        raft: tokio::runtime::Handle::current(),
        seed: Random::new(seed ^ node.0 << 32 ^ starts).next_u64(),
        settings,
        server_version: VERSION.to_owned(),
        wall_clock: std::sync::Arc::new(wall_clock),
        disk_probe: None,
        capture: CaptureOptions {
            entry_bytes_max,
            // A transaction of many parts is on its way for a while.
            in_flight_bytes_max: 2 * entry_bytes_max,
            ..CaptureOptions::default()
        },
        left_out,
    };
    let bootstrap = node.0 == 1 && starts == 1;
    Ok(Node::start(config, secrets(), parts, bootstrap).await?)
}

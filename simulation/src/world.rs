//! What the simulated hosts and whoever steps the simulation share.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quorate_node::Probe;
use quorate_types::NodeId;

use crate::cluster::Setup;
use crate::disk::SimulatedDisk;
use crate::history::History;
use crate::mysqld::Machine;
use crate::network::MachineNet;

pub(crate) struct State {
    pub(crate) machines: BTreeMap<NodeId, Machine>,
    pub(crate) disks: BTreeMap<NodeId, SimulatedDisk>,
    /// What each machine sees of the network and of time.
    pub(crate) nets: BTreeMap<NodeId, MachineNet>,
    /// Of the sidecars that run.
    pub(crate) probes: BTreeMap<NodeId, Probe>,
    /// Sidecars that were asked to stop in good order.
    pub(crate) stopping: BTreeSet<NodeId>,
    /// Sidecars whose process ended by itself, and why.
    pub(crate) ended: BTreeMap<NodeId, String>,
    /// How often each sidecar was started.
    pub(crate) starts: BTreeMap<NodeId, u64>,
    /// Orders of operators that nobody answered yet.
    pub(crate) orders: u64,
    /// Changes of members that were made.
    pub(crate) changes: u64,
    /// Whether clients work.
    pub(crate) load: bool,
    pub(crate) history: History,
    pub(crate) trace: Vec<String>,
    /// For the files that the nodes insist to write.
    pub(crate) folder: PathBuf,
    pub(crate) setup: Setup,
}

/// A handle of the shared state.
#[derive(Clone)]
pub(crate) struct World(Arc<Mutex<State>>);

impl World {
    pub(crate) fn new(state: State) -> Self {
        Self(Arc::new(Mutex::new(state)))
    }

    pub(crate) fn with<T>(&self, use_it: impl FnOnce(&mut State) -> T) -> T {
        use_it(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn trace(&self, line: &str) {
        self.trace_at(turmoil::sim_elapsed().unwrap_or_default(), line);
    }

    pub(crate) fn trace_at(&self, at: Duration, line: &str) {
        let line = format!("{:9.3} {line}", at.as_secs_f64());
        tracing::debug!(target: "quorate_simulation::trace", "{line}");
        self.with(|state| state.trace.push(line));
    }

    pub(crate) fn nodes(&self) -> Vec<NodeId> {
        self.with(|state| state.machines.keys().copied().collect())
    }
}

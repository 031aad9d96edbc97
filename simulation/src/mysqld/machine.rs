//! One simulated machine: the folders on its disk, and the servers that run on it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quorate_mysqld::Marker;
use quorate_types::{Gtid, GtidSet, NodeId, Uuid};
use tokio::sync::mpsc;

use super::binlog::{Binlogs, VERSION};
use super::engine::Engine;
use super::process::Process;
use crate::network::MachineNet;
use crate::random::Random;

/// A data folder.
#[derive(Clone, Debug, Default)]
pub(crate) struct Folder {
    pub(crate) uuid: Uuid,
    pub(crate) binlogs: Binlogs,
    pub(crate) engine: Engine,
    pub(crate) marker: Option<Marker>,
    /// The start of the sidecar that holds the folder's lock.
    pub(crate) claimed_by: Option<u64>,
    /// The server that runs on it.
    pub(crate) process: Option<Arc<Process>>,
}

/// What the sidecar's side of a machine does wrong on purpose, to see whether the oracle notices.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct BrokenRules {
    /// A repair cuts nothing off.
    pub skip_cut: bool,
    /// A server that should be killed is asked to stop.
    pub terminate_instead_of_kill: bool,
}

/// How slow the machine is.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    /// The longest that a sync takes.
    pub sync_max: Duration,
    /// The longest that a replica takes for one transaction.
    pub apply_max: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            sync_max: Duration::from_millis(3),
            apply_max: Duration::from_millis(4),
        }
    }
}

/// A transaction became visible on a server.
#[derive(Clone, Copy, Debug)]
pub struct Visible {
    pub at: Duration,
    pub node: NodeId,
    pub gtid: Gtid,
}

#[derive(Debug)]
pub(crate) struct State {
    pub(crate) folders: BTreeMap<PathBuf, Folder>,
    pub(crate) rules: BrokenRules,
    pub(crate) pace: Pace,
    pub(crate) random: Random,
    /// Since it was last asked for.
    pub(crate) visible: Vec<Visible>,
    /// Counts the starts of the sidecar.
    pub(crate) sidecar: u64,
    /// Copies of another server's data that became this one's.
    pub(crate) clones: u64,
    /// Of its mysqld.
    pub(crate) version: &'static str,
    /// What a folder had executed that was lost: that is a failure, and not nothing.
    pub(crate) lost: GtidSet,
    next_process: u64,
}

/// A handle of a machine. It is there from the beginning to the end, whatever runs on it.
#[derive(Clone, Debug)]
pub struct Machine {
    pub node: NodeId,
    state: Arc<Mutex<State>>,
    starts: mpsc::UnboundedSender<Arc<Process>>,
}

/// What the machine's own simulated host waits for: servers to run.
pub(crate) struct Starts(mpsc::UnboundedReceiver<Arc<Process>>);

impl Machine {
    pub(crate) fn new(node: NodeId, seed: u64) -> (Self, Starts) {
        let (starts, queue) = mpsc::unbounded_channel();
        let state = State {
            folders: BTreeMap::new(),
            rules: BrokenRules::default(),
            pace: Pace::default(),
            random: Random::new(seed),
            visible: Vec::new(),
            sidecar: 0,
            clones: 0,
            version: VERSION,
            lost: GtidSet::new(),
            next_process: 0,
        };
        let machine = Self {
            node,
            state: Arc::new(Mutex::new(state)),
            starts,
        };
        (machine, Starts(queue))
    }

    pub(crate) fn with<T>(&self, use_it: impl FnOnce(&mut State) -> T) -> T {
        use_it(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn net(&self) -> MachineNet {
        MachineNet::new(self.node)
    }

    pub(crate) fn rules(&self) -> BrokenRules {
        self.with(|state| state.rules)
    }

    pub(crate) fn break_rules(&self, rules: BrokenRules) {
        self.with(|state| state.rules = rules);
    }

    pub(crate) fn set_pace(&self, pace: Pace) {
        self.with(|state| state.pace = pace);
    }

    /// The data of the machine's server, if it has any.
    #[must_use]
    pub fn engine(&self) -> Option<Engine> {
        self.with(|state| Some(state.folders.get(&self.data_folder())?.engine.clone()))
    }

    /// Whether the machine's server executed exactly that.
    pub(crate) fn has_executed(&self, set: &GtidSet) -> bool {
        self.with(|state| {
            let folder = state.folders.get(&self.data_folder());
            folder.is_some_and(|folder| folder.engine.executed == *set)
        })
    }

    /// Whether a server of this machine executed all that, in whichever folder that is now.
    pub(crate) fn ever_executed(&self, needed: &GtidSet) -> bool {
        self.with(|state| {
            let mut sets = state.folders.values().map(|folder| &folder.engine.executed);
            sets.any(|executed| executed.contains_set(needed)) || state.lost.contains_set(needed)
        })
    }

    /// How often this machine's server got its data from another one.
    #[must_use]
    pub fn clones(&self) -> u64 {
        self.with(|state| state.clones)
    }

    pub(crate) fn data_folder(&self) -> PathBuf {
        PathBuf::from(format!("/n{}/mysql", self.node))
    }

    pub(crate) fn next_process(&self) -> u64 {
        self.with(|state| {
            state.next_process += 1;
            state.next_process
        })
    }

    pub(crate) fn run(&self, process: Arc<Process>) {
        // Its host runs as long as the simulation.
        let _ = self.starts.send(process);
    }

    /// The server on the data folder, if one runs.
    pub(crate) fn server(&self) -> Option<Arc<Process>> {
        self.process_of(&self.data_folder())
    }

    pub(crate) fn process_of(&self, folder: &Path) -> Option<Arc<Process>> {
        self.with(|state| state.folders.get(folder)?.process.clone())
    }

    /// Kills every server of the machine.
    pub(crate) fn kill_servers(&self) {
        let running: Vec<_> = self.with(|state| {
            let folders = state.folders.values();
            folders
                .filter_map(|folder| folder.process.clone())
                .collect()
        });
        for process in running {
            process.kill();
        }
    }

    /// What a power loss does to the servers' files, after they were killed.
    pub(crate) fn lose_unsynced(&self) {
        self.with(|state| {
            for folder in state.folders.values_mut() {
                let keep = state.random.below(200);
                folder.binlogs.lose_unsynced(keep as usize);
                let keep = state.random.below(4);
                // A recovery brings it back, but nothing looks at it before.
                state.lost.union(&folder.engine.executed);
                folder.engine.lose_unsynced(keep as usize);
            }
        });
    }

    /// What became visible since this was asked last.
    pub(crate) fn take_visible(&self) -> Vec<Visible> {
        self.with(|state| std::mem::take(&mut state.visible))
    }

    pub(crate) async fn sync_disk(&self) {
        let wait = self.with(|state| {
            let max = state.pace.sync_max;
            state.random.duration(max)
        });
        tokio::time::sleep(wait).await;
    }

    pub(crate) async fn apply_pause(&self) {
        let wait = self.with(|state| {
            let max = state.pace.apply_max;
            state.random.duration(max)
        });
        tokio::time::sleep(wait).await;
    }
}

/// What the machine's simulated host does: it runs servers, each until it is killed.
pub(crate) async fn run_servers(starts: Arc<tokio::sync::Mutex<Starts>>) {
    while let Some(process) = starts.lock().await.0.recv().await {
        process.begin();
    }
}

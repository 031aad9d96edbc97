//! What goes wrong with a machine's time and with its Raft disk, and how often rare things happened.

use std::time::Duration;

use quorate_types::NodeId;

use crate::cluster::Cluster;

/// How often it came to what a run must come to now and then.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Rare {
    /// Of the log, agreed to by all.
    pub purges: u64,
    /// Of another node's state, taken over.
    pub snapshots: u64,
    /// Of another server's data.
    pub clones: u64,
    /// Changes of members that were made.
    pub changes: u64,
    /// Transactions of more than one entry that were seen when they were not whole.
    pub in_parts: u64,
    /// Rows that went with their session's lease or epoch, and that their client did not find.
    pub missing: u64,
}

impl Cluster {
    /// Lets a whole machine stand still, server and sidecar, as a virtual machine does, or go on.
    pub fn stand_still(&mut self, node: NodeId, still: bool) {
        let net = self.world.with(|state| state.nets[&node].clone());
        if still != net.is_running() {
            return;
        }
        let what = if still {
            "FAULT stop"
        } else {
            "HEAL go on with"
        };
        self.note(&format!("{what} the machine of n{node}"));
        net.set_stall(still.then(|| self.elapsed()));
        if let Some(server) = self.machine(node).server() {
            server.pause(still);
        }
    }

    /// How long a sync of a node's Raft log takes at most.
    pub fn slow_log_disk(&mut self, node: NodeId, sync_max: Duration) {
        self.note(&format!("FAULT slow log disk of n{node}: {sync_max:?}"));
        self.world.with(|state| state.disks[&node].slow(sync_max));
    }

    /// No sync of a node's Raft log ends until it is mended.
    pub fn hang_log_disk(&mut self, node: NodeId) {
        self.note(&format!("FAULT the log disk of n{node} hangs"));
        self.world.with(|state| state.disks[&node].hang());
    }

    /// The next sync of a node's Raft log fails.
    pub fn fail_log_disk(&mut self, node: NodeId) {
        self.note(&format!("FAULT the log disk of n{node} fails"));
        self.world.with(|state| state.disks[&node].fail());
    }

    /// A node's Raft log is synced as fast as it should be.
    pub fn mend_log_disk(&mut self, node: NodeId) {
        self.world.with(|state| state.disks[&node].mend());
    }

    /// How often a node took over another one's snapshot.
    #[must_use]
    pub fn snapshots(&self, node: NodeId) -> u64 {
        self.world.with(|state| state.disks[&node].snapshots())
    }

    /// How often a node's server got its data from another one.
    #[must_use]
    pub fn clones(&self, node: NodeId) -> u64 {
        self.machine(node).clones()
    }

    #[must_use]
    pub fn rare(&self) -> Rare {
        let nodes = self.nodes();
        Rare {
            purges: self.oracle().purges(),
            snapshots: nodes.iter().map(|node| self.snapshots(*node)).sum(),
            clones: nodes.iter().map(|node| self.clones(*node)).sum(),
            changes: self.world.with(|state| state.changes),
            in_parts: self.oracle().in_parts(),
            missing: self.world.with(|state| state.history.missing.len() as u64),
        }
    }
}

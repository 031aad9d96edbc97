//! What must come to be once nothing is broken any more.

use std::time::Duration;

use crate::cluster::{Cluster, Violation};
use crate::disk::SimulatedDisk;

/// A clone that lost a message to a cut waits for ever, as nothing is sent twice here. A leader ends
/// its permit after 30 s without progress, and it begins anew.
const SILENT_CLONE_MAX: Duration = Duration::from_secs(45);
/// One that ended so long ago may have been such a one.
const JUST_NOW: Duration = Duration::from_secs(5);
const LOOK: Duration = Duration::from_millis(20);

impl Cluster {
    /// Heals, and then the cluster must serve through every port, and all servers be equal.
    ///
    /// # Errors
    /// What is not so within `longest`, or 45 s later if a node was being cloned at
    /// the end of that; or the first promise that was broken.
    pub fn must_converge(&mut self, longest: Duration) -> Result<(), Violation> {
        self.heal();
        let mut until = self.elapsed() + longest;
        // What was under way by then must not come later: an order, a disk's failure.
        self.wait("every order is carried out", &mut until, |cluster| {
            cluster.start_sidecars();
            cluster.nothing_is_under_way()
        })?;
        self.heal();
        self.wait("every node is a voter", &mut until, |cluster| {
            cluster.start_sidecars();
            cluster.put_members_back()
        })?;
        for node in self.nodes() {
            let left = until.saturating_sub(self.elapsed());
            self.write(node, left)?;
        }
        self.set_load(false);
        self.wait("all servers are equal", &mut until, |cluster| {
            cluster.is_equal()
        })?;
        self.oracle.judge(&self.world)
    }

    /// Lets time pass until it is so.
    fn wait(
        &mut self,
        what: &str,
        until: &mut Duration,
        mut is_so: impl FnMut(&mut Self) -> bool,
    ) -> Result<(), Violation> {
        let (mut cloning, mut may_wait) = (None, true);
        while !is_so(self) {
            if self.is_cloning() {
                cloning = Some(self.elapsed());
            }
            if self.elapsed() >= *until {
                let just_now = |at: Duration| self.elapsed() < at + JUST_NOW;
                if !may_wait || !cloning.is_some_and(just_now) {
                    return Err(Violation(format!("not in time: {what}")));
                }
                may_wait = false;
                *until += SILENT_CLONE_MAX;
            }
            self.run_for(LOOK)?;
        }
        Ok(())
    }

    fn is_cloning(&self) -> bool {
        let nodes = self.nodes().into_iter();
        let mut states = nodes.filter_map(|node| Some(self.probe(node)?.applied_state()));
        states.any(|state| state.permits.current().is_some())
    }

    fn nothing_is_under_way(&self) -> bool {
        self.world.with(|state| {
            let failed = state.disks.values().any(SimulatedDisk::has_failed);
            state.stopping.is_empty() && state.orders == 0 && !failed
        })
    }

    /// What ended is started again.
    fn start_sidecars(&mut self) {
        for node in self.nodes() {
            self.start_sidecar(node);
        }
    }

    fn is_equal(&self) -> bool {
        let idle = self.world.with(|state| {
            let mut operations = state.history.operations.iter().rev().take(100);
            operations.all(|operation| operation.ended.is_some())
        });
        let nodes = self.nodes();
        let accepted: Vec<_> = nodes
            .iter()
            .filter_map(|node| Some(self.probe(*node)?.applied_state().accepted.clone()))
            .collect();
        let agreed = idle
            && accepted.len() == nodes.len()
            && accepted.iter().all(|set| *set == accepted[0])
            && nodes
                .iter()
                .all(|node| self.machine(*node).has_executed(&accepted[0]));
        // All of a server's data are copied here, so it is looked at last.
        let engines = || nodes.iter().filter_map(|node| self.data(*node));
        agreed
            && engines()
                .zip(engines().skip(1))
                .all(|(one, next)| one.inserted == next.inserted && one.registers == next.registers)
    }
}

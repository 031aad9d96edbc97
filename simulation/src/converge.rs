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

/// Until when all must be well.
struct Until {
    at: Duration,
    may_be_later: bool,
}

impl Until {
    /// For the sake of a clone, once; whether it was.
    fn put_off(&mut self) -> bool {
        if self.may_be_later {
            self.at += SILENT_CLONE_MAX;
        }
        std::mem::take(&mut self.may_be_later)
    }
}

impl Cluster {
    /// Heals, and then the cluster must serve through every port, and all servers be equal.
    ///
    /// # Errors
    /// What is not so within `longest`, or 45 s later if a node was being cloned at
    /// the end of that; or the first promise that was broken.
    pub fn must_converge(&mut self, longest: Duration) -> Result<(), Violation> {
        self.heal();
        let mut until = Until {
            at: self.elapsed() + longest,
            may_be_later: true,
        };
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
            let left = until.at.saturating_sub(self.elapsed());
            match self.write(node, left) {
                // What a clone pins stays in the log, and where that is full nobody writes.
                Err(Violation(text)) if text.starts_with("no write") && self.is_cloning() => {
                    if !until.put_off() {
                        return Err(Violation(text));
                    }
                    let left = until.at.saturating_sub(self.elapsed());
                    self.write(node, left)?
                }
                written => written?,
            };
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
        until: &mut Until,
        mut is_so: impl FnMut(&mut Self) -> bool,
    ) -> Result<(), Violation> {
        let mut cloning = None;
        while !is_so(self) {
            if self.is_cloning() {
                cloning = Some(self.elapsed());
            }
            if self.elapsed() >= until.at {
                let just_now = |at: Duration| self.elapsed() < at + JUST_NOW;
                if !cloning.is_some_and(just_now) || !until.put_off() {
                    return Err(Violation(format!("not in time: {what}")));
                }
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

//! What must hold: one file per promise. The first four are looked at after every simulated
//! millisecond, the others at the end, after healing.

mod acknowledged_rows_stay;
mod equal_logs_equal_states;
mod histories_are_prefixes;
mod one_gate_serves;
mod only_accepted_is_visible;
mod registers_are_linearizable;

use std::time::Duration;

use quorate_node::Probe;
use quorate_types::NodeId;

use crate::cluster::Violation;
use crate::mysqld::Visible;
use crate::world::World;

/// Watches a cluster.
#[derive(Default)]
pub struct Oracle {
    visible: only_accepted_is_visible::Watch,
    states: equal_logs_equal_states::Watch,
    gates: one_gate_serves::Watch,
    prefixes: histories_are_prefixes::Watch,
}

impl Oracle {
    /// Looks at everything that must hold at any time.
    pub(crate) fn look(&mut self, world: &World, now: Duration) -> Result<(), Violation> {
        let (probes, clocks, machines) = world.with(|state| {
            let probes: Vec<(NodeId, Probe)> = state
                .probes
                .iter()
                .map(|(node, probe)| (*node, probe.clone()))
                .collect();
            (probes, state.clocks.clone(), state.machines.clone())
        });
        let states: Vec<_> = probes
            .iter()
            .map(|(node, probe)| (*node, probe.applied_state()))
            .collect();
        self.states.look(&states)?;
        let visible: Vec<Visible> = machines
            .values()
            .flat_map(crate::mysqld::Machine::take_visible)
            .collect();
        self.visible.look(&states, &visible)?;
        if !visible.is_empty() {
            self.prefixes.look(&machines)?;
        }
        let serving: Vec<_> = probes
            .iter()
            .filter_map(|(node, probe)| {
                let epoch = probe.serves(clocks[node].read(now))?;
                Some((*node, epoch))
            })
            .collect();
        if let Some(line) = self.gates.look(&serving, now)? {
            world.trace_at(now, &line);
        }
        Ok(())
    }

    /// Looks at what must hold once everything is healed and equal.
    pub(crate) fn judge(&self, world: &World) -> Result<(), Violation> {
        let (history, machines, trace) = world.with(|state| {
            let seen = state.trace.iter().find(|line| line.contains("VIOLATION"));
            (state.history.clone(), state.machines.clone(), seen.cloned())
        });
        if let Some(line) = trace {
            return Err(Violation(line));
        }
        acknowledged_rows_stay::judge(&history, &machines)?;
        registers_are_linearizable::judge(&history)
    }

    /// The node whose gate passes writes now.
    pub(crate) fn serving(&self) -> Option<NodeId> {
        self.gates.serving()
    }

    /// How long no gate passed writes, each time that none did after one had.
    #[must_use]
    pub fn pauses(&self) -> &[Duration] {
        self.gates.pauses()
    }
}

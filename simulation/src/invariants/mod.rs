//! What must hold: one file per promise. Visible transactions, states, gates and histories are looked at
//! after every simulated millisecond, rows and registers at the end, after healing.

mod acknowledged_rows_stay;
mod equal_logs_equal_states;
mod histories_are_prefixes;
mod one_gate_serves;
mod only_accepted_is_visible;
mod registers_are_linearizable;

use std::time::Duration;

use quorate_types::NodeId;

use crate::cluster::Violation;
use crate::mysqld::{Machine, Visible};
use crate::world::{State, World};

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
        let changed = world.with(|state| self.look_at(state, now))?;
        if let Some(line) = changed {
            world.trace_at(now, &line);
        }
        Ok(())
    }

    /// A line to note, if something that people want to read of changed.
    fn look_at(&mut self, world: &State, now: Duration) -> Result<Option<String>, Violation> {
        let states: Vec<_> = world
            .probes
            .iter()
            .map(|(node, probe)| (*node, probe.applied_state()))
            .collect();
        self.states.look(&states)?;
        let visible: Vec<Visible> = world
            .machines
            .values()
            .flat_map(Machine::take_visible)
            .collect();
        self.visible.look(&states, &visible)?;
        if !visible.is_empty() {
            self.prefixes.look(&world.machines)?;
        }
        let serving: Vec<_> = world
            .probes
            .iter()
            .filter_map(|(node, probe)| {
                let epoch = probe.serves(world.clocks[node].read(now))?;
                Some((*node, epoch))
            })
            .collect();
        self.gates.look(&serving, now)
    }

    /// Looks at what must hold once everything is healed and equal.
    pub(crate) fn judge(&self, world: &World) -> Result<(), Violation> {
        world.with(|state| {
            let seen = state.trace.iter().find(|line| line.contains("VIOLATION"));
            if let Some(line) = seen {
                return Err(Violation(line.clone()));
            }
            acknowledged_rows_stay::judge(&state.history, &state.machines)?;
            registers_are_linearizable::judge(&state.history)
        })
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

//! What must hold: one file per promise. Visible transactions, states, gates and histories are looked at
//! after every simulated millisecond, rows and registers at the end, after healing.

mod acknowledged_rows_stay;
mod equal_logs_equal_states;
mod histories_are_prefixes;
mod one_gate_serves;
mod only_accepted_is_visible;
mod purged_is_executed;
mod registers_are_linearizable;
mod what_was_missing_stays_away;

use std::collections::BTreeSet;
use std::time::Duration;

use quorate_types::{LogIndex, NodeId};

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
    purged: purged_is_executed::Watch,
    /// First parts of transactions that somebody saw half done.
    in_parts: BTreeSet<LogIndex>,
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
        self.in_parts
            .extend(states.iter().filter_map(|(_, state)| state.open_since));
        let visible: Vec<Visible> = world
            .machines
            .values()
            .flat_map(Machine::take_visible)
            .collect();
        self.visible.look(&states, &visible)?;
        self.purged.look(world, &states)?;
        if !visible.is_empty() {
            self.prefixes.look(&world.machines)?;
        }
        let serving: Vec<_> = world
            .probes
            .iter()
            .filter_map(|(node, probe)| {
                let net = &world.nets[node];
                // On a machine that stands still nothing passes.
                let now = net.is_running().then(|| net.time(now))?;
                let epoch = probe.serves(now)?;
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
            what_was_missing_stays_away::judge(&state.history, &state.machines)?;
            registers_are_linearizable::judge(&state.history)
        })
    }

    /// The node whose gate passes writes now.
    pub(crate) fn serving(&self) -> Option<NodeId> {
        self.gates.serving()
    }

    /// How many transactions were seen half done.
    pub(crate) fn in_parts(&self) -> u64 {
        self.in_parts.len() as u64
    }

    /// How often the log was purged.
    pub(crate) fn purges(&self) -> u64 {
        self.purged.purges()
    }

    /// How long no gate passed writes, each time that none did after one had.
    #[must_use]
    pub fn pauses(&self) -> &[Duration] {
        self.gates.pauses()
    }
}

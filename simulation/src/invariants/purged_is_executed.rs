//! What is purged was executed for good by as many servers as may fail, and one more.

use std::collections::VecDeque;
use std::sync::Arc;

use quorate_consensus::AppliedState;
use quorate_types::{GtidSet, LogIndex, NodeId};

use crate::cluster::Violation;
use crate::world::State;

/// How many of the last states that anybody was in are remembered.
const REMEMBERED: usize = 50_000;

#[derive(Default)]
pub(super) struct Watch {
    /// What was accepted up to an entry, oldest first; not for each entry.
    accepted: VecDeque<(LogIndex, Arc<GtidSet>)>,
    purged: LogIndex,
    purges: u64,
}

impl Watch {
    pub(super) fn look(
        &mut self,
        world: &State,
        states: &[(NodeId, Arc<AppliedState>)],
    ) -> Result<(), Violation> {
        for (node, state) in states {
            let newest = self.accepted.back().map(|(index, _)| *index);
            if newest.is_none_or(|newest| newest < state.index()) {
                let next = (state.index(), state.accepted.clone());
                self.accepted.push_back(next);
            }
            if state.purged > self.purged {
                self.purged = state.purged;
                self.purges += 1;
                self.judge(world, *node)?;
            }
        }
        while self.accepted.len() > REMEMBERED {
            self.accepted.pop_front();
        }
        Ok(())
    }

    /// At the first node that applied the `Purge`.
    fn judge(&self, world: &State, node: NodeId) -> Result<(), Violation> {
        let before = self.accepted.iter().rev();
        let Some((_, needed)) = before.clone().find(|(index, _)| *index <= self.purged) else {
            return Ok(());
        };
        let raft = world.probes[&node].raft();
        let has_it = |node: &&NodeId| world.machines[node].ever_executed(needed);
        let copies = raft.voters.iter().filter(has_it).count();
        let enough = raft.voters.len().saturating_sub(1) / 2 + 1;
        match copies < enough {
            true => Err(Violation(format!(
                "the log is purged up to {}, and {copies} servers of {} voters have executed what was in it",
                self.purged,
                raft.voters.len()
            ))),
            false => Ok(()),
        }
    }

    pub(super) fn purges(&self) -> u64 {
        self.purges
    }
}

//! Two nodes that applied the same entry are in the same state, whenever they did.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use quorate_consensus::AppliedState;
use quorate_types::NodeId;

use crate::cluster::Violation;

/// How many entries back states are remembered: a node that starts applies old ones again.
const REMEMBERED: usize = 100_000;

#[derive(Default)]
pub(super) struct Watch {
    /// By index: who was seen there first, and a hash of the state.
    seen: BTreeMap<u64, (NodeId, u64)>,
    last: BTreeMap<NodeId, u64>,
}

impl Watch {
    pub(super) fn look(&mut self, states: &[(NodeId, Arc<AppliedState>)]) -> Result<(), Violation> {
        for (node, state) in states {
            let index = state.index().0;
            if self.last.insert(*node, index) == Some(index) {
                continue;
            }
            let hash = fingerprint(state);
            let (first, known) = *self.seen.entry(index).or_insert((*node, hash));
            if known != hash {
                return Err(Violation(format!(
                    "nodes {first} and {node} applied entry {index} and differ: {state:?}"
                )));
            }
            if self.seen.len() > REMEMBERED {
                self.seen.pop_first();
            }
        }
        Ok(())
    }
}

fn fingerprint(state: &AppliedState) -> u64 {
    let mut hasher = DefaultHasher::new();
    format!("{state:?}").hash(&mut hasher);
    hasher.finish()
}

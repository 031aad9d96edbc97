//! No server ever shows a transaction that no majority has on disk.

use std::sync::Arc;

use quorate_consensus::AppliedState;
use quorate_types::{GtidSet, NodeId};

use crate::cluster::Violation;
use crate::mysqld::Visible;

/// Remembers everything that any node ever accepted: what is accepted once is so for ever.
#[derive(Default)]
pub(super) struct Watch {
    accepted: GtidSet,
    /// The last state seen of each node, by its index: most of them stay as they are.
    seen: std::collections::BTreeMap<NodeId, u64>,
}

impl Watch {
    pub(super) fn look(
        &mut self,
        states: &[(NodeId, Arc<AppliedState>)],
        visible: &[Visible],
    ) -> Result<(), Violation> {
        for (node, state) in states {
            let index = state.index().0;
            if self.seen.insert(*node, index) != Some(index) {
                self.accepted.union(&state.accepted);
            }
        }
        match visible
            .iter()
            .find(|visible| !self.accepted.contains(visible.gtid))
        {
            None => Ok(()),
            Some(Visible { node, gtid, at }) => Err(Violation(format!(
                "the server of node {node} shows {gtid} at {at:?}, which nobody accepted"
            ))),
        }
    }
}

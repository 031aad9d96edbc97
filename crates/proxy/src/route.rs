//! What the ports need of the view. The view changes with every transaction; this only when a
//! session might have to end.

use std::collections::BTreeSet;

use quorate_types::{ClusterView, Epoch, NodeId, NodeView, Role};
use tokio::sync::watch;

/// A replica whose lag grew past its bound keeps its sessions until it is so many times the bound:
/// one that hovers at the bound would otherwise throw its sessions out all the time.
const LAG_ENDS_SESSIONS: u64 = 2;

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Route {
    pub(crate) primary: Option<NodeId>,
    pub(crate) epoch: Option<Epoch>,
    /// Replicas that may keep their read-only sessions.
    pub(crate) fit: BTreeSet<NodeId>,
}

impl Route {
    pub(crate) fn of(view: &ClusterView, max_lag_transactions: u64) -> Self {
        let bound = max_lag_transactions.saturating_mul(LAG_ENDS_SESSIONS);
        let fit = view
            .nodes
            .iter()
            .filter(|(_, node)| is_fit(node, bound))
            .map(|(id, _)| *id)
            .collect();
        Self {
            primary: view.primary,
            epoch: view.epoch,
            fit,
        }
    }
}

fn is_fit(node: &NodeView, max_lag_transactions: u64) -> bool {
    node.role == Role::Replica && node.healthy && node.lag_transactions <= max_lag_transactions
}

/// Replicas for a new session, the best first: this node's own, then by their sessions.
pub(crate) fn replicas(
    view: &ClusterView,
    local: NodeId,
    max_lag_transactions: u64,
    sessions_from_here: impl Fn(NodeId) -> u64,
) -> Vec<NodeId> {
    let mut found: Vec<_> = view
        .nodes
        .iter()
        .filter(|(_, node)| is_fit(node, max_lag_transactions))
        .map(|(id, node)| {
            // The view is a little old: many connections at once must not all go the same way.
            let sessions = node.sessions.max(sessions_from_here(*id));
            (*id != local, sessions, *id)
        })
        .collect();
    found.sort_unstable();
    found.into_iter().map(|(_, _, id)| id).collect()
}

/// Resolves when another epoch than this one, or none, is known to hold.
///
/// A gate may open before this node has heard of its epoch: a view that is older than the
/// epoch says nothing about its end.
pub(crate) async fn epoch_over(mut route: watch::Receiver<Route>, epoch: Epoch) {
    let mut reached = false;
    loop {
        let known = route.borrow_and_update().epoch;
        if known > Some(epoch) || (reached && known != Some(epoch)) {
            return;
        }
        reached |= known == Some(epoch);
        if route.changed().await.is_err() {
            return;
        }
    }
}

#[cfg(test)]
mod tests;

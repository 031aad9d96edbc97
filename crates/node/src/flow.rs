//! Slows a primary down that no replica can follow: a promotion waits until the new primary has
//! executed everything, so what replicas are behind is what a failover takes longer.

use std::time::Duration;

use quorate_replication::AckDelay;
use quorate_types::{ClusterView, NodeId, Role};

use crate::config::FlowControl;

/// Holds the ACKs of this node's capture back while it is primary and the replicas are behind.
pub(crate) struct Flow {
    node: NodeId,
    config: FlowControl,
    delay: AckDelay,
    slows: bool,
}

impl Flow {
    pub(crate) fn new(node: NodeId, config: FlowControl, delay: AckDelay) -> Self {
        Self {
            node,
            config,
            delay,
            slows: false,
        }
    }

    /// To be called with each new view.
    pub(crate) fn judge(&mut self, view: &ClusterView) {
        let behind = behind(view, self.node);
        let delay = delay(&self.config, behind);
        self.delay.set(delay);
        if self.slows == delay.is_zero() {
            self.slows = !self.slows;
            match self.slows {
                true => tracing::info!(
                    behind,
                    "the replicas cannot follow: commits are held back until they can"
                ),
                false => tracing::info!(behind, "commits are no longer held back"),
            }
        }
    }
}

/// By how many transactions the replica that is the furthest is behind, which is the one to be
/// promoted; nothing where this node is not primary or no replica runs, since nobody could catch up.
fn behind(view: &ClusterView, node: NodeId) -> u64 {
    let is_primary = view
        .nodes
        .get(&node)
        .is_some_and(|own| own.role == Role::Primary);
    let replicas = view
        .nodes
        .iter()
        .filter(|(id, other)| {
            **id != node && other.role == Role::Replica && other.healthy && !other.learner
        })
        .map(|(_, other)| other.lag_transactions);
    replicas.min().filter(|_| is_primary).unwrap_or(0)
}

/// Grows with the distance beyond the bound, up to twice the bound.
fn delay(config: &FlowControl, behind: u64) -> Duration {
    let bound = config.max_behind_transactions;
    if bound == 0 || behind <= bound {
        return Duration::ZERO;
    }
    let share = (behind - bound) as f64 / bound as f64;
    config.delay_max.mul_f64(share.min(1.0))
}

#[cfg(test)]
mod tests {
    use quorate_types::NodeView;

    use super::*;

    const CONFIG: FlowControl = FlowControl {
        max_behind_transactions: 1000,
        delay_max: Duration::from_millis(20),
    };

    fn view(nodes: &[(Role, bool, u64)]) -> ClusterView {
        let node = |(index, (role, healthy, lag)): (usize, &(Role, bool, u64))| {
            let view = NodeView {
                role: *role,
                healthy: *healthy,
                lag_transactions: *lag,
                ..NodeView::default()
            };
            (NodeId(index as u64 + 1), view)
        };
        ClusterView {
            nodes: nodes.iter().enumerate().map(node).collect(),
            ..ClusterView::default()
        }
    }

    #[test]
    fn the_delay_grows_from_the_bound_to_twice_the_bound() {
        let at = |behind| delay(&CONFIG, behind);
        assert_eq!(at(1000), Duration::ZERO);
        assert_eq!(at(1500), Duration::from_millis(10));
        assert_eq!(at(2000), Duration::from_millis(20));
        assert_eq!(at(u64::MAX), Duration::from_millis(20));
        let off = FlowControl {
            max_behind_transactions: 0,
            ..CONFIG
        };
        assert_eq!(delay(&off, u64::MAX), Duration::ZERO);
    }

    #[test]
    fn the_replica_that_is_the_furthest_counts_and_one_that_stands_does_not() {
        use Role::{Cloning, Primary, Replica};
        let primary = (Primary, true, 0);
        let behind = |others: &[(Role, bool, u64)]| {
            let nodes: Vec<_> = [primary]
                .into_iter()
                .chain(others.iter().copied())
                .collect();
            behind(&view(&nodes), NodeId(1))
        };
        assert_eq!(behind(&[(Replica, true, 7), (Replica, true, 9000)]), 7);
        assert_eq!(behind(&[(Replica, false, 7), (Replica, true, 9000)]), 9000);
        assert_eq!(behind(&[(Replica, false, 9000), (Cloning, true, 9000)]), 0);
        assert_eq!(behind(&[]), 0);
    }

    #[test]
    fn a_node_that_is_no_primary_any_more_holds_nothing_back() {
        let shared = AckDelay::default();
        let mut flow = Flow::new(NodeId(1), CONFIG, shared.clone());
        flow.judge(&view(&[
            (Role::Primary, true, 0),
            (Role::Replica, true, 1500),
        ]));
        assert_eq!(shared.get(), Duration::from_millis(10));
        flow.judge(&view(&[
            (Role::Replica, true, 0),
            (Role::Replica, true, 1500),
        ]));
        assert_eq!(shared.get(), Duration::ZERO);
    }

    #[test]
    fn a_learner_does_not_count() {
        let mut two = view(&[(Role::Primary, true, 0), (Role::Replica, true, 1500)]);
        assert_eq!(behind(&two, NodeId(1)), 1500);
        if let Some(learner) = two.nodes.get_mut(&NodeId(2)) {
            learner.learner = true;
        }
        assert_eq!(behind(&two, NodeId(1)), 0);
    }
}

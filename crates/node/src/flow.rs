//! Slows a primary down that no replica can follow: a promotion waits until the new primary has
//! executed everything, so what replicas are behind is what a failover takes longer.

use std::time::Duration;

use quorate_replication::AckDelay;
use quorate_role::Candidate;

use crate::config::FlowControl;

/// Holds the ACKs of this node's capture back while it is primary and the replicas are behind.
pub(crate) struct Flow {
    config: FlowControl,
    delay: AckDelay,
    slows: bool,
}

impl Flow {
    pub(crate) fn new(config: FlowControl, delay: AckDelay) -> Self {
        Self {
            config,
            delay,
            slows: false,
        }
    }

    /// To be called with each new view of them: whether this node is primary, and the others. Only
    /// the one counts that would be promoted. Without any nothing is held back: nobody could catch up.
    pub(crate) fn judge(&mut self, is_primary: bool, candidates: &[Candidate]) {
        let nearest = Candidate::nearest(candidates).filter(|_| is_primary);
        let behind = nearest.map_or(0, |nearest| nearest.behind);
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
    use quorate_role::Series;
    use quorate_types::NodeId;

    use super::*;

    const CONFIG: FlowControl = FlowControl {
        max_behind_transactions: 1000,
        delay_max: Duration::from_millis(20),
    };

    const OLD: Series = (8, 4);
    const NEW: Series = (9, 7);

    fn held_back(others: &[(bool, u64, Series)]) -> Duration {
        let candidate =
            |(index, (healthy, behind, series)): (usize, &(bool, u64, Series))| Candidate {
                node: NodeId(index as u64 + 2),
                healthy: *healthy,
                behind: *behind,
                series: *series,
            };
        let candidates: Vec<_> = others.iter().enumerate().map(candidate).collect();
        let shared = AckDelay::default();
        Flow::new(CONFIG, shared.clone()).judge(true, &candidates);
        shared.get()
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
    fn the_replica_that_would_be_promoted_counts_and_no_other() {
        let half = Duration::from_millis(10);
        let (near, far, over) = ((true, 7, OLD), (true, 1500, OLD), (true, 9000, OLD));
        assert_eq!(held_back(&[near, over]), Duration::ZERO);
        assert_eq!(held_back(&[far, over]), half);
        // One that stands, and one that what this primary writes may be too new for.
        assert_eq!(held_back(&[(false, 7, OLD), far]), half);
        assert_eq!(held_back(&[(true, 7, NEW), far]), half);
        assert_eq!(held_back(&[(false, 9000, OLD)]), Duration::ZERO);
        assert_eq!(held_back(&[]), Duration::ZERO);
    }

    #[test]
    fn a_node_that_is_no_primary_any_more_holds_nothing_back() {
        let shared = AckDelay::default();
        let mut flow = Flow::new(CONFIG, shared.clone());
        let behind = [Candidate {
            node: NodeId(2),
            healthy: true,
            behind: 9000,
            series: OLD,
        }];
        flow.judge(true, &behind);
        assert_eq!(shared.get(), CONFIG.delay_max);
        flow.judge(false, &behind);
        assert_eq!(shared.get(), Duration::ZERO);
    }
}

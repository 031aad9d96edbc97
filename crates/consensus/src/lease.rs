//! How long this node may act as the leader that it was elected to be.
//!
//! openraft's own lease is judged by the monotonic clock, which stops while a machine is
//! suspended; this one is judged by the clock that does not.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use quorate_types::{LeaderId, NodeId};

/// The part of a follower's promise that the leader relies on; the rest is for clocks that drift.
const LEASE_PARTS: (u32, u32) = (4, 5);

/// What a quorum promised by answering heartbeats: until when it elects nobody else.
#[derive(Debug)]
pub struct Lease {
    own: NodeId,
    length: Duration,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Which leadership the stamps belong to; none while another node leads, or nobody.
    leader: Option<LeaderId>,
    /// This leadership and older ones never get a lease again.
    closed: Option<LeaderId>,
    /// The newest heartbeat that each follower answered, by when it was about to be sent.
    stamps: BTreeMap<NodeId, Duration>,
    /// The sets of voters, two while they change: a quorum of each is needed.
    configs: Vec<BTreeSet<NodeId>>,
}

impl Lease {
    pub(crate) fn new(own: NodeId, election_timeout_max: Duration) -> Self {
        Self {
            own,
            length: election_timeout_max * LEASE_PARTS.0 / LEASE_PARTS.1,
            state: Mutex::default(),
        }
    }

    /// Whether this node may serve as `leader` at `now` ([`Net::boot_time`](quorate_net::Net::boot_time)).
    #[must_use]
    pub fn is_valid(&self, leader: LeaderId, now: Duration) -> bool {
        self.valid_until(leader, now).is_some_and(|end| now < end)
    }

    /// Until when this node may serve as `leader`, seen from `now`; none if it may not at all.
    #[must_use]
    pub fn valid_until(&self, leader: LeaderId, now: Duration) -> Option<Duration> {
        let state = self.state();
        if state.leader != Some(leader) || state.closed >= Some(leader) || state.configs.is_empty()
        {
            return None;
        }
        state
            .configs
            .iter()
            .map(|voters| state.quorum_stamp(voters, self.own, now))
            .min()
            .flatten()
            .map(|stamp| stamp + self.length)
    }

    /// When the newest heartbeat was sent that each follower of this leadership answered.
    #[must_use]
    pub fn answered(&self) -> BTreeMap<NodeId, Duration> {
        self.state().stamps.clone()
    }

    /// No lease for `leader` any more, for ever: a transfer lets others vote at once.
    pub(crate) fn close(&self, leader: LeaderId) {
        let mut state = self.state();
        state.closed = state.closed.max(Some(leader));
    }

    /// This node leads as `leader`, or does not lead.
    pub(crate) fn set_leader(&self, leader: Option<LeaderId>) {
        let mut state = self.state();
        if state.leader != leader {
            state.leader = leader;
            state.stamps.clear();
        }
    }

    pub(crate) fn set_voters(&self, configs: Vec<BTreeSet<NodeId>>) {
        self.state().configs = configs;
    }

    /// `peer` answered a heartbeat of `leader` that was sent no earlier than `stamp`.
    pub(crate) fn record(&self, leader: LeaderId, peer: NodeId, stamp: Duration) {
        let mut state = self.state();
        if state.leader == Some(leader) {
            let newest = state.stamps.entry(peer).or_default();
            *newest = stamp.max(*newest);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    /// The oldest stamp among the newest ones of a quorum of `voters`.
    fn quorum_stamp(
        &self,
        voters: &BTreeSet<NodeId>,
        own: NodeId,
        now: Duration,
    ) -> Option<Duration> {
        let mut stamps: Vec<Duration> = voters
            .iter()
            .filter_map(|voter| match *voter == own {
                true => Some(now),
                // A stamp from the future is a clock that jumped: it proves nothing.
                false => self.stamps.get(voter).copied().filter(|at| *at <= now),
            })
            .collect();
        stamps.sort_unstable_by(|a, b| b.cmp(a));
        stamps.get(voters.len() / 2).copied()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use quorate_types::Term;

    const LEADER: LeaderId = LeaderId {
        term: Term(3),
        node: NodeId(1),
    };

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    fn voters(ids: impl IntoIterator<Item = u64>) -> BTreeSet<NodeId> {
        ids.into_iter().map(NodeId).collect()
    }

    fn lease(configs: Vec<BTreeSet<NodeId>>) -> Lease {
        let lease = Lease::new(NodeId(1), ms(300));
        lease.set_leader(Some(LEADER));
        lease.set_voters(configs);
        lease
    }

    #[test]
    fn the_lease_ends_four_fifths_after_the_request_that_a_quorum_answered_was_sent() {
        let lease = lease(vec![voters(1..=3)]);
        assert!(!lease.is_valid(LEADER, ms(1000)));
        lease.record(LEADER, NodeId(2), ms(1000));
        assert!(lease.is_valid(LEADER, ms(1239)));
        assert!(!lease.is_valid(LEADER, ms(1240)));
        lease.record(LEADER, NodeId(3), ms(1100));
        assert_eq!(lease.valid_until(LEADER, ms(1110)), Some(ms(1340)));
    }

    #[test]
    fn five_voters_need_two_followers_and_the_older_stamp_of_them_counts() {
        let lease = lease(vec![voters(1..=5)]);
        lease.record(LEADER, NodeId(2), ms(1000));
        assert!(!lease.is_valid(LEADER, ms(1001)));
        lease.record(LEADER, NodeId(3), ms(900));
        assert_eq!(lease.valid_until(LEADER, ms(1001)), Some(ms(1140)));
    }

    #[test]
    fn while_voters_change_a_quorum_of_both_sets_is_needed() {
        let lease = lease(vec![voters(1..=3), voters([1, 4, 5])]);
        lease.record(LEADER, NodeId(2), ms(1000));
        lease.record(LEADER, NodeId(3), ms(1000));
        assert!(!lease.is_valid(LEADER, ms(1001)));
        lease.record(LEADER, NodeId(5), ms(950));
        assert_eq!(lease.valid_until(LEADER, ms(1001)), Some(ms(1190)));
    }

    #[test]
    fn stamps_of_another_leadership_and_of_the_future_count_nothing() {
        let lease = lease(vec![voters(1..=3)]);
        lease.record(LEADER, NodeId(2), ms(2000));
        assert!(!lease.is_valid(LEADER, ms(1000)));
        let next = LeaderId {
            term: Term(4),
            ..LEADER
        };
        lease.set_leader(Some(next));
        lease.record(LEADER, NodeId(2), ms(2000));
        assert!(!lease.is_valid(LEADER, ms(2000)));
        assert!(!lease.is_valid(next, ms(2000)));
    }

    #[test]
    fn a_closed_leadership_never_gets_a_lease_again() {
        let lease = lease(vec![voters([1])]);
        assert!(lease.is_valid(LEADER, ms(1)));
        lease.close(LEADER);
        lease.set_leader(None);
        lease.set_leader(Some(LEADER));
        assert!(!lease.is_valid(LEADER, ms(2)));
        let next = LeaderId {
            term: Term(4),
            ..LEADER
        };
        lease.set_leader(Some(next));
        assert!(lease.is_valid(next, ms(3)));
    }

    #[test]
    fn a_leader_that_is_no_voter_does_not_count_itself() {
        let lease = lease(vec![voters([2])]);
        assert!(!lease.is_valid(LEADER, ms(5)));
        lease.record(LEADER, NodeId(2), ms(4));
        assert!(lease.is_valid(LEADER, ms(5)));
    }
}

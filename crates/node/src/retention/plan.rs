//! What may go from the log: only what enough servers have executed for good.

use std::collections::BTreeMap;

use quorate_types::{LogIndex, NodeId};

/// A voter with a server, and what it still needs of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Copy {
    /// The first entry with a transaction that it has not executed; all before it, accepted ones,
    /// are durable in a server that says so now. Otherwise why it does not count.
    pub(crate) needs: Result<LogIndex, String>,
}

/// What the log needs to be known of the cluster to be purged.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    pub(crate) voters: usize,
    /// Voters with a server.
    pub(crate) copies: BTreeMap<NodeId, Copy>,
    /// Whoever follows the log now, and needs it from there: cloning it would be a waste.
    pub(crate) followers: BTreeMap<NodeId, LogIndex>,
    /// Followers are not waited for any more.
    pub(crate) is_pressed: bool,
    pub(crate) purged: LogIndex,
    /// Up to here the log is beyond its limits.
    pub(crate) wanted: LogIndex,
}

/// Up to where to purge, and for whom no further.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) upto: LogIndex,
    pub(crate) held_by: BTreeMap<NodeId, String>,
}

impl Plan {
    /// How many servers must have executed what goes: one more than may fail (DESIGN 3). With an
    /// even number of voters, one more than that if there are so many: then every majority has one.
    fn copies_needed(&self) -> usize {
        let failures = self.voters.saturating_sub(1) / 2;
        let majority = self.voters / 2 + 1;
        (failures + 1).max(majority.min(self.copies.len()))
    }

    /// Up to where enough servers have executed everything.
    fn durable(&self) -> LogIndex {
        let mut needs: Vec<LogIndex> = self
            .copies
            .values()
            .filter_map(|copy| copy.needs.clone().ok())
            .collect();
        needs.sort_unstable();
        let needed = self.copies_needed();
        let at = needs.len().checked_sub(needed);
        at.map_or(LogIndex::ZERO, |at| before(needs[at]))
    }

    pub(crate) fn judge(&self) -> Verdict {
        let durable = self.durable();
        let mut upto = self.wanted.min(durable);
        let mut held_by = BTreeMap::new();
        if durable < self.wanted {
            for (node, copy) in &self.copies {
                match &copy.needs {
                    Err(why) => {
                        held_by.insert(*node, why.clone());
                    }
                    Ok(needs) if *needs <= self.wanted => {
                        held_by.insert(*node, executed(*needs));
                    }
                    Ok(_) => {}
                }
            }
        }
        // Who is behind the purge point already is cloned, whatever stays.
        let followers = self
            .followers
            .iter()
            .filter(|(_, needs)| **needs > self.purged);
        for (node, needs) in followers.filter(|_| !self.is_pressed) {
            if *needs <= self.wanted {
                upto = upto.min(before(*needs));
                held_by.entry(*node).or_insert_with(|| executed(*needs));
            }
        }
        Verdict { upto, held_by }
    }
}

fn before(needs: LogIndex) -> LogIndex {
    LogIndex(needs.0.saturating_sub(1))
}

fn executed(needs: LogIndex) -> String {
    format!("has executed the log up to {}", before(needs))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Voters with a server, by what each needs; none counts for nothing.
    fn plan(voters: usize, needs: &[Option<u64>], wanted: u64) -> Plan {
        let copy = |needs: &Option<u64>| Copy {
            needs: needs.map(LogIndex).ok_or_else(|| "is down".to_owned()),
        };
        Plan {
            voters,
            copies: (1..).map(NodeId).zip(needs.iter().map(copy)).collect(),
            followers: BTreeMap::new(),
            is_pressed: false,
            purged: LogIndex(0),
            wanted: LogIndex(wanted),
        }
    }

    fn upto(voters: usize, needs: &[Option<u64>]) -> u64 {
        plan(voters, needs, 100).judge().upto.0
    }

    #[test]
    fn nothing_goes_that_fewer_servers_have_than_may_fail_and_one_more() {
        // One of three may be away, or behind.
        assert_eq!(upto(3, &[Some(200), Some(150), None]), 100);
        assert_eq!(upto(3, &[Some(200), Some(51), Some(31)]), 50);
        assert_eq!(upto(3, &[Some(200), None, None]), 0);
        // Two servers and a witness: both are needed.
        assert_eq!(upto(3, &[Some(200), Some(61)]), 60);
        assert_eq!(upto(3, &[Some(200), None]), 0);
        // Two of five.
        assert_eq!(upto(5, &[Some(9), Some(8), Some(7), None, None]), 6);
        assert_eq!(upto(5, &[Some(9), Some(8), None, None, None]), 0);
        // Alone, and two, of which each is needed for a majority.
        assert_eq!(upto(1, &[Some(200)]), 100);
        assert_eq!(upto(2, &[Some(200), Some(41)]), 40);
        assert_eq!(upto(2, &[Some(200), None]), 0);
        // Two servers, two witnesses.
        assert_eq!(upto(4, &[Some(200), Some(41)]), 40);
        assert_eq!(upto(4, &[Some(200), Some(41), Some(30), Some(20)]), 29);
        assert_eq!(upto(0, &[]), 0);
    }

    #[test]
    fn who_holds_the_log_is_named_with_the_reason() {
        let held = plan(3, &[Some(200), Some(51), None], 100).judge().held_by;
        let expected = [
            (NodeId(2), "has executed the log up to 50".to_owned()),
            (NodeId(3), "is down".to_owned()),
        ];
        assert_eq!(held, expected.into());
        let held = plan(3, &[Some(200), Some(101), None], 100).judge().held_by;
        assert_eq!(held, BTreeMap::new());
    }

    #[test]
    fn a_follower_is_waited_for_until_the_log_is_pressed_or_it_is_too_late() {
        let mut plan = plan(3, &[Some(200), Some(200), Some(71)], 100);
        plan.followers = [(NodeId(3), LogIndex(71))].into();
        assert_eq!(plan.judge().upto, LogIndex(70));
        assert!(plan.judge().held_by.contains_key(&NodeId(3)));
        plan.purged = LogIndex(80);
        assert_eq!(plan.judge().upto, LogIndex(100));
        plan.purged = LogIndex(10);
        plan.is_pressed = true;
        assert_eq!(plan.judge().upto, LogIndex(100));
        assert_eq!(plan.judge().held_by, BTreeMap::new());
    }

    proptest! {
        #[test]
        fn whatever_minority_is_lost_what_went_is_still_there(
            voters in 1..8_usize,
            needs in prop::collection::vec(prop::option::weighted(0.8, 0..120_u64), 0..8),
        ) {
            let needs = &needs[..needs.len().min(voters)];
            let upto = upto(voters, needs);
            let failures = (voters as u32 - 1) / 2;
            for lost in (0..1_u32 << needs.len()).filter(|lost| lost.count_ones() <= failures) {
                let mut left = (0..needs.len()).filter(|at| lost & (1 << at) == 0);
                let there = left.any(|at| needs[at].is_some_and(|needs| needs > upto));
                prop_assert!(upto == 0 || there);
            }
        }
    }
}

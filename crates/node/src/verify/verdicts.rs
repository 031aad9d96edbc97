//! What came of comparing a table on one replica, and what is kept of it.

use std::collections::BTreeSet;

use quorate_types::NodeId;
use quorate_wire::v1::{ChecksumTableReply, VerifyReply};

/// More tables than this are not shown one by one; each is in the log.
const SHOWN_MAX: usize = 100;

/// Of one table on one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Equal,
    /// In words for people.
    Differs(String),
    /// Why not.
    NotCompared(String),
}

/// What came of one table on one node. No table: of all tables on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) node: NodeId,
    pub(crate) table: String,
    pub(crate) verdict: Verdict,
}

impl Verdict {
    pub(crate) fn of(primary: &str, replica: &ChecksumTableReply) -> Self {
        match replica.checksum.as_str() {
            "" if replica.missing => Self::Differs("it has no such table".to_owned()),
            "" => Self::NotCompared("it gave no checksum".to_owned()),
            other if other == primary => Self::Equal,
            other => Self::Differs(format!("it holds {other}; the primary {primary}")),
        }
    }

    pub(crate) fn is_compared(&self) -> bool {
        !matches!(self, Self::NotCompared(_))
    }
}

impl From<Outcome> for VerifyReply {
    fn from(outcome: Outcome) -> Self {
        let Outcome {
            node,
            table,
            verdict,
        } = outcome;
        Self {
            node: node.0,
            table,
            compared: verdict.is_compared(),
            wrong: match verdict {
                Verdict::Equal => String::new(),
                Verdict::Differs(how) => how,
                Verdict::NotCompared(why) => format!("not compared: {why}"),
            },
        }
    }
}

/// How many tables of replicas came out how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) equal: u64,
    pub(crate) different: u64,
    pub(crate) not_compared: u64,
}

impl Tally {
    pub(crate) fn count(&mut self, verdict: &Verdict) {
        match verdict {
            Verdict::Equal => self.equal += 1,
            Verdict::Differs(_) => self.different += 1,
            Verdict::NotCompared(_) => self.not_compared += 1,
        }
    }
}

/// Keeps what was told of a table; whether that changed anything.
pub(crate) fn keep(known: &mut BTreeSet<String>, table: &str, differs: bool) -> bool {
    match differs {
        false => known.remove(table),
        true => known.len() < SHOWN_MAX && known.insert(table.to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reply(checksum: &str, missing: bool) -> ChecksumTableReply {
        ChecksumTableReply {
            checksum: checksum.to_owned(),
            missing,
        }
    }

    #[test]
    fn only_two_checksums_that_are_there_are_compared() {
        assert_eq!(Verdict::of("17", &reply("17", false)), Verdict::Equal);
        let of = |checksum, missing| Verdict::of("17", &reply(checksum, missing));
        assert!(matches!(of("18", false), Verdict::Differs(_)));
        assert!(matches!(of("", true), Verdict::Differs(_)));
        assert!(!of("", false).is_compared());
        // Not even with a primary that has none either.
        assert!(!Verdict::of("", &reply("", false)).is_compared());
    }

    #[test]
    fn what_was_not_compared_is_neither_equal_nor_different() {
        let mut tally = Tally::default();
        let verdicts = [
            Verdict::Equal,
            Verdict::Differs("so".to_owned()),
            Verdict::NotCompared("it lags".to_owned()),
            Verdict::Equal,
        ];
        for verdict in &verdicts {
            tally.count(verdict);
        }
        let counted = (tally.equal, tally.different, tally.not_compared);
        assert_eq!(counted, (2, 1, 1));
        let outcome = |verdict: &Verdict| Outcome {
            node: NodeId(2),
            table: "app.t".to_owned(),
            verdict: verdict.clone(),
        };
        let said = verdicts[..3].iter().map(|verdict| {
            let reply = VerifyReply::from(outcome(verdict));
            (reply.compared, reply.wrong)
        });
        let expected = [(true, ""), (true, "so"), (false, "not compared: it lags")];
        assert!(said.eq(expected.map(|(compared, wrong)| (compared, wrong.to_owned()))));
    }

    #[test]
    fn a_table_stays_named_until_it_is_equal_and_their_number_is_bounded() {
        let mut known = BTreeSet::new();
        assert!(keep(&mut known, "app.t", true));
        assert!(!keep(&mut known, "app.t", true));
        assert!(!keep(&mut known, "app.other", false));
        assert!(keep(&mut known, "app.t", false));
        assert!(known.is_empty());
        for table in 0..2 * SHOWN_MAX {
            keep(&mut known, &table.to_string(), true);
        }
        assert_eq!(known.len(), SHOWN_MAX);
    }
}

//! What must hold once everything is healed: pure judgements over what clients were told and what
//! servers hold.

use std::collections::{BTreeMap, BTreeSet};

use quorate_tests::Outcomes;

/// Why the product failed.
#[derive(Debug)]
pub(crate) struct Violation(pub(crate) String);

/// Whether something made by DDL is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    There,
    Gone,
    /// Nobody was told.
    Either,
}

/// What one server holds.
#[derive(Clone, Debug, Default)]
pub(crate) struct Facts {
    /// How often each id is in the table of inserts.
    pub(crate) rows: BTreeMap<u64, u64>,
    /// Of all accounts.
    pub(crate) sum: i64,
    /// Tables of the DDL client, and their added columns as `table.column`.
    pub(crate) tables: BTreeSet<String>,
    /// Large transactions of which only a part is there.
    pub(crate) torn: u64,
}

/// The first few of many.
fn some<T: std::fmt::Debug>(found: &[T]) -> String {
    let more = if found.len() > 10 { ", …" } else { "" };
    format!(
        "{} of them: {:?}{more}",
        found.len(),
        &found[..found.len().min(10)]
    )
}

fn none<T: std::fmt::Debug>(
    found: impl IntoIterator<Item = T>,
    what: &str,
) -> Result<(), Violation> {
    let found: Vec<T> = found.into_iter().collect();
    match found.is_empty() {
        true => Ok(()),
        false => Err(Violation(format!("{what}: {}", some(&found)))),
    }
}

/// Every acknowledged row once, no refused one, none twice, none that nobody sent, and every row
/// that a reader ever saw; on every server the same.
pub(crate) fn judge_rows(
    outcomes: &Outcomes,
    seen: &BTreeSet<u64>,
    servers: &BTreeMap<String, Facts>,
) -> Result<(), Violation> {
    for (name, facts) in servers {
        let rows = &facts.rows;
        let lacks = |id: &&u64| !rows.contains_key(id);
        none(
            outcomes.acknowledged.iter().filter(lacks),
            &format!("{name} lost acknowledged rows"),
        )?;
        let twice = rows.iter().filter(|(_, count)| **count != 1);
        none(twice, &format!("{name} has rows more than once"))?;
        let refused = outcomes.refused.iter().filter(|id| rows.contains_key(id));
        none(refused, &format!("{name} has rows that were refused"))?;
        let sent = |id: &u64| outcomes.acknowledged.contains(id) || outcomes.unknown.contains(id);
        none(
            rows.keys().filter(|id| !sent(id)),
            &format!("{name} has rows that nobody sent"),
        )?;
        none(
            seen.iter().filter(lacks),
            &format!("{name} lacks rows that a reader saw"),
        )?;
    }
    let mut servers = servers.iter();
    let Some((first, expected)) = servers.next() else {
        return Err(Violation("no server was looked at".to_owned()));
    };
    for (name, facts) in servers {
        let differ = expected
            .rows
            .keys()
            .filter(|id| !facts.rows.contains_key(id));
        none(differ, &format!("{first} has rows that {name} has not"))?;
        let differ = facts
            .rows
            .keys()
            .filter(|id| !expected.rows.contains_key(id));
        none(differ, &format!("{name} has rows that {first} has not"))?;
    }
    Ok(())
}

/// No money came or went, and no transaction is there in part.
pub(crate) fn judge_wholeness(
    total: i64,
    servers: &BTreeMap<String, Facts>,
) -> Result<(), Violation> {
    for (name, facts) in servers {
        if facts.sum != total {
            let sum = facts.sum;
            return Err(Violation(format!(
                "{name}: the accounts have {sum} instead of {total}"
            )));
        }
        if facts.torn != 0 {
            let torn = facts.torn;
            return Err(Violation(format!(
                "{name} has {torn} large transactions in part"
            )));
        }
    }
    Ok(())
}

/// Every table and column is there, or gone, as the DDL client was told.
pub(crate) fn judge_tables(
    expected: &BTreeMap<String, Presence>,
    servers: &BTreeMap<String, Facts>,
) -> Result<(), Violation> {
    for (name, facts) in servers {
        let is = |table: &str| facts.tables.contains(table);
        let lost = expected
            .iter()
            .filter(|(table, presence)| **presence == Presence::There && !is(table));
        none(lost, &format!("{name} lost what DDL made"))?;
        let left = expected
            .iter()
            .filter(|(table, presence)| **presence == Presence::Gone && is(table));
        none(
            left,
            &format!("{name} has what DDL removed, or was refused to make"),
        )?;
        let foreign = facts
            .tables
            .iter()
            .filter(|table| !expected.contains_key(*table));
        none(foreign, &format!("{name} has what nobody made"))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told() -> Outcomes {
        Outcomes {
            acknowledged: BTreeSet::from([1, 2]),
            unknown: BTreeSet::from([3, 4]),
            refused: BTreeSet::from([5]),
            ..Outcomes::default()
        }
    }

    fn server(rows: &[(u64, u64)]) -> Facts {
        Facts {
            rows: rows.iter().copied().collect(),
            ..Facts::default()
        }
    }

    fn rows(a: &[(u64, u64)], b: &[(u64, u64)], seen: &[u64]) -> Result<(), Violation> {
        let servers = BTreeMap::from([("a".to_owned(), server(a)), ("b".to_owned(), server(b))]);
        judge_rows(&told(), &seen.iter().copied().collect(), &servers)
    }

    #[test]
    fn rows_that_are_as_clients_were_told_pass() {
        let as_told = [(1, 1), (2, 1), (4, 1)];
        assert!(rows(&as_told, &as_told, &[1, 4]).is_ok());
    }

    #[test]
    fn each_way_in_which_rows_are_wrong_is_found() {
        let fine = [(1, 1), (2, 1)];
        for (what, wrong) in [
            ("lost", vec![(1, 1)]),
            ("twice", vec![(1, 1), (2, 2)]),
            ("an unknown one twice", vec![(1, 1), (2, 1), (3, 2)]),
            ("refused", vec![(1, 1), (2, 1), (5, 1)]),
            ("never sent", vec![(1, 1), (2, 1), (6, 1)]),
            (
                "an unknown one on one server only",
                vec![(1, 1), (2, 1), (3, 1)],
            ),
        ] {
            assert!(rows(&fine, &wrong, &[]).is_err(), "{what}");
            assert!(rows(&wrong, &fine, &[]).is_err(), "{what}");
        }
        assert!(rows(&fine, &fine, &[3]).is_err(), "seen and gone");
        assert!(judge_rows(&told(), &BTreeSet::new(), &BTreeMap::new()).is_err());
    }

    #[test]
    fn money_that_is_lost_and_torn_transactions_are_found() {
        let judge = |sum, torn| {
            let facts = Facts {
                sum,
                torn,
                ..Facts::default()
            };
            judge_wholeness(100, &BTreeMap::from([("a".to_owned(), facts)]))
        };
        assert!(judge(100, 0).is_ok());
        assert!(judge(99, 0).is_err());
        assert!(judge(100, 1).is_err());
    }

    #[test]
    fn tables_that_are_not_as_told_are_found() {
        use Presence::{Either, Gone, There};
        let expected = [("a", There), ("b", Gone), ("c", Either)];
        let expected = expected
            .map(|(name, presence)| (name.to_owned(), presence))
            .into();
        let judge = |tables: &[&str]| {
            let facts = Facts {
                tables: tables.iter().map(|name| (*name).to_owned()).collect(),
                ..Facts::default()
            };
            judge_tables(&expected, &BTreeMap::from([("s".to_owned(), facts)]))
        };
        assert!(judge(&["a"]).is_ok());
        assert!(judge(&["a", "c"]).is_ok());
        assert!(judge(&["c"]).is_err());
        assert!(judge(&["a", "b"]).is_err());
        assert!(judge(&["a", "d"]).is_err());
    }
}

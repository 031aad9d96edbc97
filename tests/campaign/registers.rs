//! Whether reads and writes of registers through the read-write ports have an order that agrees
//! with real time.
//!
//! Each write counts its register's version up in the same statement and is told the new one, and
//! each read tells it. So the order is known, and it is enough to compare it with the times: no
//! search is needed, however long the history is.

use std::collections::BTreeMap;

use tokio::time::Instant;

use crate::checks::Violation;

/// What a client did with a register and was told.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Done {
    /// The version that it got, if it was told.
    Set {
        value: u64,
        version: Option<u64>,
    },
    /// The server refused: it never happens.
    Refused,
    Read {
        value: u64,
        version: u64,
    },
}

#[derive(Clone, Copy, Debug)]
pub(crate) struct Operation {
    pub(crate) register: u64,
    pub(crate) begun: Instant,
    /// None: it may take effect at any later time, or never.
    pub(crate) ended: Option<Instant>,
    pub(crate) done: Done,
}

/// One operation whose place in the order is known.
#[derive(Clone, Copy, Debug)]
struct Placed {
    operation: Operation,
    version: u64,
    is_write: bool,
}

/// All registers begin with value 0, version 0.
pub(crate) fn judge(history: &[Operation]) -> Result<(), Violation> {
    let mut registers: BTreeMap<u64, Vec<Operation>> = BTreeMap::new();
    for operation in history {
        let of_register = registers.entry(operation.register).or_default();
        of_register.push(*operation);
    }
    registers.values().try_for_each(|all| judge_one(all))
}

fn judge_one(all: &[Operation]) -> Result<(), Violation> {
    let versions = versions(all)?;
    let placed = all.iter().filter_map(|operation| {
        let (version, is_write) = match operation.done {
            Done::Set { value, version } => {
                (version.or_else(|| versions.get(&value).copied())?, true)
            }
            Done::Read { version, .. } => (version, false),
            Done::Refused => return None,
        };
        Some(Placed {
            operation: *operation,
            version,
            is_write,
        })
    });
    let mut by_begin: Vec<Placed> = placed.collect();
    by_begin.sort_by_key(|one| one.operation.begun);
    let mut by_end: Vec<Placed> = by_begin.clone();
    by_end.retain(|one| one.operation.ended.is_some());
    by_end.sort_by_key(|one| one.operation.ended);

    let mut ended = by_end.iter().peekable();
    let mut newest: Option<Placed> = None;
    for one in &by_begin {
        let before = |other: &&Placed| {
            other
                .operation
                .ended
                .is_some_and(|end| end < one.operation.begun)
        };
        while let Some(other) = ended.next_if(|other| before(other)) {
            if newest.is_none_or(|newest| newest.version < other.version) {
                newest = Some(*other);
            }
        }
        let Some(newest) = newest else { continue };
        let late = if one.is_write {
            one.version <= newest.version
        } else {
            one.version < newest.version
        };
        if late {
            return Err(Violation(format!(
                "the read-write port is not linearizable: after {:?} had ended, {:?} began and got version {}",
                newest.operation, one.operation, one.version
            )));
        }
    }
    Ok(())
}

/// The version of each value that anybody was told of.
fn versions(all: &[Operation]) -> Result<BTreeMap<u64, u64>, Violation> {
    let mut versions = BTreeMap::from([(0, 0)]);
    let mut values = BTreeMap::from([(0, 0)]);
    for operation in all {
        let (value, version) = match operation.done {
            Done::Set {
                value,
                version: Some(version),
            }
            | Done::Read { value, version } => (value, version),
            Done::Set { version: None, .. } | Done::Refused => continue,
        };
        let same_value = *values.entry(version).or_insert(value) == value;
        let same_version = *versions.entry(value).or_insert(version) == version;
        if !same_value || !same_version {
            return Err(Violation(format!(
                "two writes of register {} got one version, or one write two: {operation:?}",
                operation.register
            )));
        }
    }
    let mut written: Vec<u64> = vec![0];
    written.extend(all.iter().filter_map(|operation| match operation.done {
        Done::Set { value, .. } => Some(value),
        _ => None,
    }));
    written.sort_unstable();
    match versions
        .keys()
        .find(|value| written.binary_search(value).is_err())
    {
        Some(value) => Err(Violation(format!(
            "a register had {value}, which nobody wrote or a server refused"
        ))),
        None => Ok(versions),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn at(start: Instant, begun: u64, ended: Option<u64>, done: Done) -> Operation {
        Operation {
            register: 1,
            begun: start + Duration::from_millis(begun),
            ended: ended.map(|ended| start + Duration::from_millis(ended)),
            done,
        }
    }

    fn set(value: u64, version: u64) -> Done {
        Done::Set {
            value,
            version: Some(version),
        }
    }

    fn read(value: u64, version: u64) -> Done {
        Done::Read { value, version }
    }

    const LOST: Done = Done::Set {
        value: 10,
        version: None,
    };

    #[test]
    fn a_history_with_an_order_passes() {
        let start = Instant::now();
        let history = [
            at(start, 0, Some(10), set(10, 1)),
            at(start, 5, Some(15), set(20, 2)),
            // The first read overlaps both writes.
            at(start, 6, Some(7), read(10, 1)),
            at(start, 8, Some(20), read(20, 2)),
        ];
        assert!(judge(&history).is_ok());
        // One whose outcome nobody was told takes effect late, or never.
        let late = [
            at(start, 0, None, LOST),
            at(start, 5, Some(6), read(0, 0)),
            at(start, 100, Some(101), read(10, 1)),
        ];
        assert!(judge(&late).is_ok());
        assert!(judge(&late[..2]).is_ok());
    }

    #[test]
    fn a_stale_read_is_found() {
        let start = Instant::now();
        let history = [
            at(start, 0, Some(1), set(10, 1)),
            at(start, 2, Some(3), set(20, 2)),
            at(start, 4, Some(5), read(10, 1)),
        ];
        assert!(judge(&history).is_err());
        let history = [
            at(start, 0, Some(1), set(10, 1)),
            at(start, 2, Some(3), read(0, 0)),
        ];
        assert!(judge(&history).is_err());
        // Seen, and then unseen.
        let history = [
            at(start, 0, None, LOST),
            at(start, 5, Some(6), read(10, 1)),
            at(start, 7, Some(8), read(0, 0)),
        ];
        assert!(judge(&history).is_err());
    }

    #[test]
    fn a_value_from_the_future_a_refused_one_and_a_lost_update_are_found() {
        let start = Instant::now();
        let future = [
            at(start, 0, Some(1), read(10, 1)),
            at(start, 2, Some(3), set(10, 1)),
        ];
        assert!(judge(&future).is_err());
        let refused = [
            at(start, 0, Some(1), Done::Refused),
            at(start, 2, Some(3), read(10, 1)),
        ];
        assert!(judge(&refused).is_err());
        // Both began with the same version: one was overwritten unseen.
        let lost = [
            at(start, 0, Some(5), set(10, 1)),
            at(start, 1, Some(6), set(20, 1)),
        ];
        assert!(judge(&lost).is_err());
    }
}

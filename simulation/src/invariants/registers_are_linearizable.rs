//! What is read through the read-write ports is the newest value: there is an order of all reads
//! and writes of a register that agrees with real time.

use std::collections::BTreeSet;
use std::time::Duration;

use crate::cluster::Violation;
use crate::history::{History, Reply, Request};
use crate::mysqld::Change;
use crate::workload::REGISTERS;

/// One operation of a register; `end` none: it may take effect at any later time, or never.
#[derive(Clone, Copy, Debug)]
struct Interval {
    begin: Duration,
    end: Option<Duration>,
    value: u64,
    is_write: bool,
}

pub(super) fn judge(history: &History) -> Result<(), Violation> {
    for key in 0..REGISTERS {
        let intervals = of_register(history, key);
        if let Some(at) = first_contradiction(&intervals) {
            return Err(Violation(format!(
                "the reads and writes of register {key} have no order: stuck at {at:?}"
            )));
        }
    }
    Ok(())
}

fn of_register(history: &History, register: u64) -> Vec<Interval> {
    let mut intervals = Vec::new();
    for operation in &history.operations {
        let begin = operation.begun;
        let (value, is_write, end) = match (operation.request, operation.ended) {
            (Request::Write(Change::Set { key, value }), ended) if key == register => match ended {
                Some((_, Reply::Refused)) => continue,
                Some((at, Reply::Done)) => (value, true, Some(at)),
                _ => (value, true, None),
            },
            (Request::Read { key }, Some((at, Reply::Value(value)))) if key == register => {
                (value, false, Some(at))
            }
            _ => continue,
        };
        intervals.push(Interval {
            begin,
            end,
            value,
            is_write,
        });
    }
    intervals
}

/// Wing and Gong's search, with the states that were seen remembered (Lowe). Values are unique, so
/// a state is the set of operations that took effect and the last value. Gives an operation that
/// finds no place, if there is one.
fn first_contradiction(all: &[Interval]) -> Option<Interval> {
    // A write whose outcome is unknown and that nobody read may as well never have happened.
    let read: BTreeSet<u64> = all
        .iter()
        .filter(|one| !one.is_write)
        .map(|one| one.value)
        .collect();
    let mut rest: Vec<Interval> = all
        .iter()
        .filter(|one| one.end.is_some() || read.contains(&one.value))
        .copied()
        .collect();
    rest.sort_by_key(|one| one.begin);
    let mut search = Search {
        all: &rest,
        seen: BTreeSet::new(),
        furthest: 0,
    };
    match search.run() {
        true => None,
        false => rest.get(search.furthest).copied(),
    }
}

/// What took effect: everything before `first`, and `later` of those after it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Point {
    first: usize,
    later: BTreeSet<usize>,
    value: u64,
}

struct Search<'a> {
    all: &'a [Interval],
    seen: BTreeSet<Point>,
    furthest: usize,
}

impl Search<'_> {
    fn run(&mut self) -> bool {
        let mut open = vec![Point {
            first: 0,
            later: BTreeSet::new(),
            value: 0,
        }];
        while let Some(point) = open.pop() {
            if point.first == self.all.len() {
                return true;
            }
            if !self.seen.insert(point.clone()) {
                continue;
            }
            self.furthest = self.furthest.max(point.first);
            // Whatever comes next began before the first end of those that are left.
            let left = (point.first..self.all.len()).filter(|i| !point.later.contains(i));
            let mut bound: Option<Duration> = None;
            let mut next = Vec::new();
            for i in left {
                let one = self.all[i];
                if bound.is_some_and(|bound| one.begin > bound) {
                    break;
                }
                bound = match (bound, one.end) {
                    (Some(bound), Some(end)) => Some(bound.min(end)),
                    (bound, end) => bound.or(end),
                };
                next.push(i);
            }
            for i in next {
                let one = self.all[i];
                let in_time = bound.is_none_or(|bound| one.begin <= bound);
                if in_time && (one.is_write || one.value == point.value) {
                    open.push(self.after(&point, i));
                }
            }
        }
        false
    }

    fn after(&self, point: &Point, i: usize) -> Point {
        let mut next = point.clone();
        next.later.insert(i);
        next.value = self.all[i].value;
        while next.later.remove(&next.first) {
            next.first += 1;
        }
        next
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn write(begin: u64, end: Option<u64>, value: u64) -> Interval {
        Interval {
            begin: Duration::from_millis(begin),
            end: end.map(Duration::from_millis),
            value,
            is_write: true,
        }
    }

    fn read(begin: u64, end: u64, value: u64) -> Interval {
        Interval {
            is_write: false,
            ..write(begin, Some(end), value)
        }
    }

    #[test]
    fn an_order_is_found_if_there_is_one() {
        // The first read overlaps both writes; the second must see what the first saw or newer.
        let history = [
            write(0, Some(10), 1),
            write(5, Some(15), 2),
            read(6, 7, 1),
            read(8, 20, 2),
        ];
        assert!(first_contradiction(&history).is_none());
        // One whose outcome is unknown may take effect late.
        let history = [write(0, None, 1), read(5, 6, 0), read(100, 101, 1)];
        assert!(first_contradiction(&history).is_none());
    }

    #[test]
    fn a_stale_read_has_no_place() {
        let history = [write(0, Some(1), 1), write(2, Some(3), 2), read(4, 5, 1)];
        assert!(first_contradiction(&history).is_some());
        let history = [write(0, Some(1), 1), read(2, 3, 0)];
        assert!(first_contradiction(&history).is_some());
        // Seen, and then unseen.
        let history = [write(0, None, 1), read(5, 6, 1), read(7, 8, 0)];
        assert!(first_contradiction(&history).is_some());
    }
}

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use crate::gtid::{Gtid, GtidParseError, SourceId, Tag};

/// Consecutive sequence numbers of one source, half open.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Interval {
    pub start: u64,
    pub end: u64,
}

/// A set of GTIDs, kept as sorted, disjoint, not adjacent intervals per source.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct GtidSet {
    // No entry has an empty list: equality of the map is equality of the sets.
    intervals: BTreeMap<SourceId, Vec<Interval>>,
}

impl GtidSet {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.intervals.is_empty()
    }

    /// The number of GTIDs in the set.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.intervals
            .values()
            .flatten()
            .map(|interval| interval.end - interval.start)
            .sum()
    }

    #[must_use]
    pub fn contains(&self, gtid: Gtid) -> bool {
        self.intervals.get(&gtid.source).is_some_and(|list| {
            let after = list.partition_point(|interval| interval.start <= gtid.sequence);
            after > 0 && gtid.sequence < list[after - 1].end
        })
    }

    /// Whether every GTID of `other` is in this set.
    #[must_use]
    pub fn contains_set(&self, other: &Self) -> bool {
        other.intervals.iter().all(|(source, theirs)| {
            let Some(ours) = self.intervals.get(source) else {
                return false;
            };
            theirs.iter().all(|interval| {
                let after = ours.partition_point(|own| own.start <= interval.start);
                after > 0 && interval.end <= ours[after - 1].end
            })
        })
    }

    /// Adds one GTID; false if it was there.
    pub fn insert(&mut self, gtid: Gtid) -> bool {
        if self.contains(gtid) {
            return false;
        }
        let Gtid { source, sequence } = gtid;
        self.insert_interval(
            source,
            Interval {
                start: sequence,
                end: sequence + 1,
            },
        );
        true
    }

    /// Adds an interval; an empty one changes nothing.
    pub fn insert_interval(&mut self, source: SourceId, new: Interval) {
        if new.start >= new.end {
            return;
        }
        let list = self.intervals.entry(source).or_default();
        // All that touch or overlap the new one melt into it.
        let first = list.partition_point(|interval| interval.end < new.start);
        let last = list.partition_point(|interval| interval.start <= new.end);
        let mut merged = new;
        for interval in &list[first..last] {
            merged.start = merged.start.min(interval.start);
            merged.end = merged.end.max(interval.end);
        }
        list.splice(first..last, [merged]);
    }

    /// Adds every GTID of `other`.
    pub fn union(&mut self, other: &Self) {
        for (source, interval) in other.iter() {
            self.insert_interval(source, interval);
        }
    }

    /// What is in this set and not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut result = Self::new();
        for (source, interval) in self.iter() {
            let mut start = interval.start;
            for theirs in other.intervals.get(&source).into_iter().flatten() {
                if theirs.end <= start {
                    continue;
                }
                if theirs.start >= interval.end {
                    break;
                }
                result.insert_interval(
                    source,
                    Interval {
                        start,
                        end: theirs.start.max(start),
                    },
                );
                start = theirs.end;
            }
            result.insert_interval(
                source,
                Interval {
                    start: start.min(interval.end),
                    end: interval.end,
                },
            );
        }
        result
    }

    /// What is in both sets.
    #[must_use]
    pub fn intersection(&self, other: &Self) -> Self {
        self.difference(&self.difference(other))
    }

    /// Every interval, by source and start.
    pub fn iter(&self) -> impl Iterator<Item = (SourceId, Interval)> + '_ {
        self.intervals
            .iter()
            .flat_map(|(source, list)| list.iter().map(|one| (*source, *one)))
    }

    /// Sources with their intervals, in order.
    pub fn sources(&self) -> impl Iterator<Item = (SourceId, &[Interval])> + '_ {
        self.intervals
            .iter()
            .map(|(source, list)| (*source, list.as_slice()))
    }
}

impl FromIterator<Gtid> for GtidSet {
    fn from_iter<I: IntoIterator<Item = Gtid>>(gtids: I) -> Self {
        let mut set = Self::new();
        for gtid in gtids {
            set.insert(gtid);
        }
        set
    }
}

/// MySQL's text: `uuid:1-5:7:tag:1-3,uuid:…`, sources in order; empty for the empty set.
impl fmt::Display for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut previous = None;
        for (source, list) in &self.intervals {
            if previous != Some(source.uuid) {
                f.write_str(if previous.is_some() { "," } else { "" })?;
                fmt::Display::fmt(&source.uuid, f)?;
                previous = Some(source.uuid);
            }
            if !source.tag.is_empty() {
                write!(f, ":{}", source.tag.as_str())?;
            }
            for Interval { start, end } in list {
                write!(f, ":{start}")?;
                if *end > start + 1 {
                    write!(f, "-{}", end - 1)?;
                }
            }
        }
        Ok(())
    }
}

impl fmt::Debug for GtidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{{{self}}}")
    }
}

impl FromStr for GtidSet {
    type Err = GtidParseError;

    fn from_str(text: &str) -> Result<Self, GtidParseError> {
        let mut set = Self::new();
        for part in text
            .split(',')
            .map(str::trim)
            .filter(|part| !part.is_empty())
        {
            let mut pieces = part.split(':').map(str::trim);
            let uuid = pieces.next().unwrap_or_default().parse()?;
            let mut source = SourceId {
                uuid,
                tag: Tag::EMPTY,
            };
            for piece in pieces.filter(|piece| !piece.is_empty()) {
                if piece.starts_with(|first: char| first.is_ascii_digit()) {
                    set.insert_interval(source, parse_interval(piece)?);
                } else {
                    source.tag = piece.parse()?;
                }
            }
        }
        Ok(set)
    }
}

fn parse_interval(text: &str) -> Result<Interval, GtidParseError> {
    let error = || GtidParseError::Interval(text.to_owned());
    let (first, last) = text.split_once('-').unwrap_or((text, text));
    let start: u64 = first.trim().parse().map_err(|_| error())?;
    let last: u64 = last.trim().parse().map_err(|_| error())?;
    if start == 0 || last > Gtid::SEQUENCE_LAST {
        return Err(error());
    }
    // Like MySQL, an interval that ends before it starts is empty, not an error.
    Ok(Interval {
        start,
        end: last.saturating_add(1).max(start),
    })
}

#[cfg(test)]
mod tests;

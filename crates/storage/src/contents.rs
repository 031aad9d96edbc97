use std::collections::BTreeMap;
use std::ops::Range;

use bytes::Bytes;
use quorate_types::LogIndex;

use crate::{Error, MetaKey, Record, Write};

/// What a log's disk holds, as maps. Cloning is cheap: the bytes are shared.
#[derive(Clone, Debug, Default)]
pub(crate) struct Contents {
    log: BTreeMap<LogIndex, Bytes>,
    accepted: BTreeMap<LogIndex, Bytes>,
    meta: BTreeMap<MetaKey, Bytes>,
}

impl Contents {
    /// Applies a write that [`bounds_after`] let through.
    pub(crate) fn apply(&mut self, write: &Write) {
        match write {
            Write::Append(records) => {
                for record in records {
                    self.log.insert(record.index, record.bytes.clone());
                }
            }
            Write::TruncateFrom(index) => {
                self.log.split_off(index);
            }
            Write::PurgeTo(index) => self.log = self.log.split_off(&index.next()),
            Write::SetMeta(key, value) => {
                self.meta.insert(*key, value.clone());
            }
            Write::PutAccepted(records) => {
                for record in records {
                    self.accepted.insert(record.index, record.bytes.clone());
                }
            }
            Write::PurgeAcceptedTo(index) => {
                self.accepted = self.accepted.split_off(&index.next());
            }
            Write::ClearAccepted => self.accepted.clear(),
        }
    }

    pub(crate) fn bounds(&self) -> Bounds {
        Some((
            *self.log.first_key_value()?.0,
            *self.log.last_key_value()?.0,
        ))
    }

    pub(crate) fn read(&self, range: Range<LogIndex>, bytes_max: usize) -> Vec<Record> {
        // The log has no gaps, so only its beginning can be missing from the range's start.
        if !self.log.contains_key(&range.start) {
            return Vec::new();
        }
        take(&self.log, range, bytes_max)
    }

    pub(crate) fn read_accepted(&self, range: Range<LogIndex>, bytes_max: usize) -> Vec<Record> {
        take(&self.accepted, range, bytes_max)
    }

    pub(crate) fn meta(&self, key: MetaKey) -> Option<Bytes> {
        self.meta.get(&key).cloned()
    }

    pub(crate) fn bytes(&self) -> u64 {
        let values = self
            .log
            .values()
            .chain(self.accepted.values())
            .chain(self.meta.values());
        values.map(|bytes| bytes.len() as u64).sum()
    }
}

/// First and last index of the log's records, if there are any.
pub(crate) type Bounds = Option<(LogIndex, LogIndex)>;

/// The log's bounds after `write`; refuses an append that does not follow the last record.
pub(crate) fn bounds_after(bounds: Bounds, write: &Write) -> Result<Bounds, Error> {
    match write {
        Write::Append(records) => records.iter().try_fold(bounds, |bounds, record| {
            let Some((first, last)) = bounds else {
                return Ok(Some((record.index, record.index)));
            };
            if record.index != last.next() {
                return Err(Error::Gap {
                    expected: last.next(),
                    found: record.index,
                });
            }
            Ok(Some((first, record.index)))
        }),
        Write::TruncateFrom(index) => Ok(bounds.and_then(|(first, last)| {
            let before = LogIndex(index.0.checked_sub(1)?);
            (first <= before).then(|| (first, last.min(before)))
        })),
        Write::PurgeTo(index) => Ok(bounds
            .filter(|(_, last)| index < last)
            .map(|(first, last)| (first.max(index.next()), last))),
        Write::SetMeta(..)
        | Write::PutAccepted(_)
        | Write::PurgeAcceptedTo(_)
        | Write::ClearAccepted => Ok(bounds),
    }
}

fn take(map: &BTreeMap<LogIndex, Bytes>, range: Range<LogIndex>, bytes_max: usize) -> Vec<Record> {
    let mut records = Vec::new();
    if range.is_empty() {
        return records;
    }
    let mut bytes_sum = 0_usize;
    for (index, bytes) in map.range(range) {
        bytes_sum = bytes_sum.saturating_add(bytes.len());
        if !records.is_empty() && bytes_sum > bytes_max {
            break;
        }
        records.push(Record {
            index: *index,
            bytes: bytes.clone(),
        });
    }
    records
}

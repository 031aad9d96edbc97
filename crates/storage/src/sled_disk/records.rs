//! A tree of records under ascending indexes, read and cut at both ends.

use std::ops::Range;

use bytes::Bytes;
use quorate_types::LogIndex;
use sled::{Batch, Tree};

use super::failure::Failure;
use super::frame::{self, Damage, Frame, Kind, parse_record_key, record_key, unseal};
use crate::Record;

/// Larger writes become several batches of sled, in order.
const BATCH_BYTES_MAX: usize = 1 << 20;
/// For so many bytes written or read a page is looked up once more. Each of the 256 parts of sled's
/// cache looks at its size once in 64 accesses only, and a write or a read is one or two, however
/// large: without more of them the cache grows by a gigabyte before it drops anything.
const ACCESS_BYTES: usize = 2 << 10;

#[derive(Clone, Debug)]
pub(super) struct RecordTree {
    tree: Tree,
    /// Records with consecutive indexes may share a value.
    packed: bool,
}

/// Collects records out of values in the order of their keys.
struct Gather {
    range: Range<LogIndex>,
    bytes_max: usize,
    bytes_sum: usize,
    records: Vec<Record>,
    /// Index, pieces in all, pieces so far, bytes so far.
    partial: Option<(LogIndex, u32, u32, Vec<u8>)>,
}

impl RecordTree {
    pub(super) fn new(tree: Tree, packed: bool) -> Self {
        Self { tree, packed }
    }

    pub(super) fn insert(&self, records: &[Record]) -> Result<(), Failure> {
        let values = frame::encode(records, self.packed);
        let written: Vec<_> = values
            .iter()
            .map(|(key, value)| (*key, value.len()))
            .collect();
        apply_in_batches(&self.tree, values)?;
        for (key, bytes) in written {
            self.look_up(&key, bytes)?;
        }
        Ok(())
    }

    /// Makes sled notice that the page of a value, which was written or read, takes memory.
    fn look_up(&self, key: &[u8], value_bytes: usize) -> Result<(), Failure> {
        for _ in 0..value_bytes / ACCESS_BYTES {
            self.tree.contains_key(key)?;
        }
        Ok(())
    }

    /// The first and the last index that the values from `floor` on hold.
    pub(super) fn bounds(&self, floor: LogIndex) -> Result<Option<(LogIndex, LogIndex)>, Failure> {
        let Some((key, value)) = self.tree.last()? else {
            return Ok(None);
        };
        let last = last_index(&key, &value)?;
        if last < floor {
            return Ok(None);
        }
        let from = self.first_key_of(floor)?;
        for entry in self.tree.range(from..) {
            let (key, value) = entry?;
            if last_index(&key, &value)? >= floor {
                let (first, _) = parse_record_key(&key)?;
                return Ok(Some((first.max(floor), last)));
            }
        }
        Err(Failure::Damage("the last record cannot be found again"))
    }

    pub(super) fn read(
        &self,
        range: Range<LogIndex>,
        bytes_max: usize,
    ) -> Result<Vec<Record>, Failure> {
        let from = self.first_key_of(range.start)?;
        let to = record_key(range.end, 0);
        let records = Vec::new();
        let mut gather = Gather {
            range,
            bytes_max,
            bytes_sum: 0,
            records,
            partial: None,
        };
        if from >= to {
            return Ok(gather.records);
        }
        for entry in self.tree.range(from..to) {
            let (key, value) = entry?;
            let (index, piece) = parse_record_key(&key)?;
            self.look_up(&key, value.len())?;
            if !gather.take(index, piece, &unseal(&key, &value)?)? {
                return Ok(gather.records);
            }
        }
        match gather.partial {
            None => Ok(gather.records),
            Some(_) => Err(Failure::Damage("a large record lacks its last pieces")),
        }
    }

    /// Drops the records at and after `index`, in one step.
    pub(super) fn truncate_from(&self, index: LogIndex) -> Result<(), Failure> {
        let mut batch = Batch::default();
        for key in self.tree.range(record_key(index, 0)..).keys() {
            batch.remove(key?);
        }
        if let Some((key, value)) = self.tree.get_lt(record_key(index, 0))? {
            let frame = unseal(&key, &value)?;
            if frame.kind == Kind::Group && last_index(&key, &value)? >= index {
                let (first, _) = parse_record_key(&key)?;
                let mut kept = frame::decode_group(first, frame.count, frame.payload)?;
                kept.retain(|record| record.index < index);
                for (key, value) in frame::encode(&kept, true) {
                    batch.insert(&key, value);
                }
            }
        }
        self.tree.apply_batch(batch)?;
        Ok(())
    }

    /// Removes values that hold nothing from `floor` on, `values_max` at most. Says whether there
    /// may be more.
    pub(super) fn sweep(&self, floor: LogIndex, values_max: usize) -> Result<bool, Failure> {
        let mut batch = Batch::default();
        let mut count = 0;
        for entry in self.tree.range(..record_key(floor, 0)).take(values_max) {
            let (key, value) = entry?;
            if last_index(&key, &value)? >= floor {
                break;
            }
            batch.remove(key);
            count += 1;
        }
        if count > 0 {
            self.tree.apply_batch(batch)?;
        }
        Ok(count == values_max)
    }

    /// A crash may have kept only the first pieces of the last record, which was then never
    /// synced: it is gone.
    pub(super) fn drop_partial_tail(&self) -> Result<(), Failure> {
        let Some((key, value)) = self.tree.last()? else {
            return Ok(());
        };
        let (index, piece) = parse_record_key(&key)?;
        let frame = unseal(&key, &value)?;
        if frame.kind == Kind::Piece && piece.checked_add(1) != Some(frame.count) {
            self.truncate_from(index)?;
        }
        Ok(())
    }

    /// Where to begin reading for `index`: the value that holds it may begin before it.
    fn first_key_of(&self, index: LogIndex) -> Result<[u8; 12], Failure> {
        if !self.packed {
            return Ok(record_key(index, 0));
        }
        let before = self
            .tree
            .get_lt(record_key(LogIndex(index.0.saturating_add(1)), 0))?;
        let Some((key, _)) = before else {
            return Ok(record_key(index, 0));
        };
        Ok(record_key(parse_record_key(&key)?.0, 0))
    }
}

impl Gather {
    /// Takes one value; says whether another one is wanted.
    fn take(&mut self, index: LogIndex, piece: u32, frame: &Frame<'_>) -> Result<bool, Failure> {
        match frame.kind {
            Kind::Group if piece == 0 && self.partial.is_none() => {
                let records = frame::decode_group(index, frame.count, frame.payload)?;
                Ok(records.into_iter().all(|record| self.push(record)))
            }
            Kind::Piece => self.take_piece(index, piece, frame),
            Kind::Group | Kind::Whole | Kind::Pointer => Err(Failure::Damage(
                "a value is not of the kind that its place wants",
            )),
        }
    }

    fn take_piece(
        &mut self,
        index: LogIndex,
        piece: u32,
        frame: &Frame<'_>,
    ) -> Result<bool, Failure> {
        let (of, count, next, mut bytes) =
            self.partial
                .take()
                .unwrap_or((index, frame.count, 0, Vec::new()));
        if (of, count, next) != (index, frame.count, piece) {
            return Err(Failure::Damage(
                "the pieces of a large record do not fit together",
            ));
        }
        bytes.extend_from_slice(frame.payload);
        if piece + 1 < count {
            self.partial = Some((index, count, piece + 1, bytes));
            return Ok(true);
        }
        Ok(self.push(Record {
            index,
            bytes: Bytes::from(bytes),
        }))
    }

    /// Keeps a record that the range and the budget want; says whether another one is wanted.
    fn push(&mut self, record: Record) -> bool {
        if record.index < self.range.start {
            return true;
        }
        self.bytes_sum = self.bytes_sum.saturating_add(record.bytes.len());
        let over = self.bytes_sum > self.bytes_max && !self.records.is_empty();
        if over || record.index >= self.range.end {
            return false;
        }
        self.records.push(record);
        true
    }
}

/// The last index of which a value holds something.
fn last_index(key: &[u8], value: &[u8]) -> Result<LogIndex, Failure> {
    let (first, _) = parse_record_key(key)?;
    let frame = unseal(key, value)?;
    match frame.kind {
        Kind::Group => {
            let after = u64::from(frame.count).checked_sub(1);
            let last = after.and_then(|after| first.0.checked_add(after));
            Ok(LogIndex(last.ok_or(Damage("a group of records is empty"))?))
        }
        Kind::Piece => Ok(first),
        Kind::Whole | Kind::Pointer => Err(Failure::Damage("a value is in the wrong tree")),
    }
}

/// sled keeps the order of batches over a crash, and each batch whole.
pub(super) fn apply_in_batches<K: AsRef<[u8]>>(
    tree: &Tree,
    values: Vec<(K, Vec<u8>)>,
) -> Result<(), Failure> {
    let mut batch = Batch::default();
    let mut bytes_sum = 0;
    for (key, value) in values {
        bytes_sum += value.len();
        batch.insert(key.as_ref(), value);
        if bytes_sum >= BATCH_BYTES_MAX {
            tree.apply_batch(std::mem::take(&mut batch))?;
            bytes_sum = 0;
        }
    }
    if bytes_sum > 0 {
        tree.apply_batch(batch)?;
    }
    Ok(())
}

//! What the writer writes: a function of its seed, so that whoever checks knows it too.

use bytes::Bytes;
use quorate_storage::{MetaKey, Record, Write};
use quorate_types::{LogIndex, SplitMix64};

/// Draws what is written.
pub(crate) struct Random(SplitMix64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(SplitMix64::new(seed))
    }

    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.0.below(bound)
    }

    fn bytes(&mut self) -> Bytes {
        let length = match self.below(20) {
            0 => 60_000 + self.below(100_000),
            1..8 => 300 + self.below(60_000),
            _ => 300 + self.below(2_000),
        };
        let mut bytes = Vec::with_capacity(length as usize + 8);
        while bytes.len() < length as usize {
            bytes.extend_from_slice(&self.below(u64::MAX).to_be_bytes());
        }
        Bytes::from(bytes)
    }
}

/// Groups of writes without end; after each one the writer syncs.
pub(crate) struct Workload {
    random: Random,
    first: u64,
    next: u64,
    next_accepted: u64,
    number: u64,
}

impl Workload {
    pub(crate) fn new(seed: u64) -> Self {
        Self {
            random: Random::new(seed),
            first: 1,
            next: 1,
            next_accepted: 1,
            number: 0,
        }
    }

    fn append(&mut self) -> Write {
        let count = 1 + self.random.below(7);
        let indexes = self.next..self.next + count;
        self.next += count;
        let record = |index| Record {
            index: LogIndex(index),
            bytes: self.random.bytes(),
        };
        Write::Append(indexes.map(record).collect())
    }

    fn put_accepted(&mut self) -> Write {
        let from = self.next_accepted;
        self.next_accepted = self.next.max(from);
        let record = |index| Record {
            index: LogIndex(index),
            bytes: self.random.bytes(),
        };
        Write::PutAccepted((from..self.next_accepted).step_by(3).map(record).collect())
    }

    fn purge(&mut self, writes: &mut Vec<Write>) {
        // Mostly most of the log, so that sled frees segments and uses them again.
        let gone = self.random.below(self.next - self.first + 1);
        let index = LogIndex(self.first + gone);
        self.first = (index.0 + 1).min(self.next);
        writes.push(Write::PurgeTo(index));
        writes.push(Write::PurgeAcceptedTo(index));
    }
}

impl Iterator for Workload {
    type Item = Vec<Write>;

    fn next(&mut self) -> Option<Vec<Write>> {
        self.number += 1;
        let mut writes = Vec::new();
        if self.random.below(12) == 0 {
            self.next -= self.random.below(self.next - self.first + 1).min(5);
            writes.push(Write::TruncateFrom(LogIndex(self.next)));
        }
        for _ in 0..=self.random.below(3) {
            writes.push(self.append());
        }
        let number = Bytes::copy_from_slice(&self.number.to_be_bytes());
        match self.random.below(5) {
            0 => writes.push(Write::SetMeta(MetaKey::Vote, number)),
            1 => writes.push(Write::SetMeta(MetaKey::Committed, number)),
            2 => writes.push(self.put_accepted()),
            3 if self.random.below(6) == 0 => self.purge(&mut writes),
            4 if self.random.below(10) == 0 => {
                writes.push(Write::SetMeta(MetaKey::Snapshot, self.random.bytes()));
            }
            4 if self.random.below(60) == 0 => writes.push(Write::ClearAccepted),
            _ => {}
        }
        Some(writes)
    }
}

/// A write as the smallest writes it is made of: where a crash may cut it.
pub(crate) fn cut(write: Write) -> Vec<Write> {
    match write {
        Write::Append(records) => records
            .into_iter()
            .map(|record| Write::Append(vec![record]))
            .collect(),
        Write::PutAccepted(records) => records
            .into_iter()
            .map(|record| Write::PutAccepted(vec![record]))
            .collect(),
        write => vec![write],
    }
}

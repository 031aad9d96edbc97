//! The end of the log in memory: what replication, `apply` and the feed read again soon.

use std::collections::VecDeque;

use crate::types::RaftEntry;

/// Memory that synced entries may take; what is not synced yet is kept whatever its size, since
/// it is nowhere else.
const BYTES_MAX: usize = 16 << 20;

/// What an entry without a payload counts as.
const ENTRY_BYTES: usize = 128;

struct Cached {
    entry: RaftEntry,
    bytes: usize,
    /// Which append brought it. Indexes do not tell whether an entry is synced: after a truncation
    /// the same index stands for another entry.
    append: u64,
}

/// Consecutive entries up to the last one of the log.
#[derive(Default)]
pub(crate) struct Tail {
    entries: VecDeque<Cached>,
    /// Index of the first entry here; entries before it are on the disk only.
    base: u64,
    bytes: usize,
    appends: u64,
    synced: u64,
}

impl Tail {
    /// An empty tail that the entry `next` will begin.
    pub(crate) fn new(next: u64) -> Self {
        Self {
            base: next,
            ..Self::default()
        }
    }

    pub(crate) fn base(&self) -> u64 {
        self.base
    }

    /// Adds entries that follow the last one; returns the number of this append for [`Tail::on_synced`].
    pub(crate) fn append(&mut self, entries: &[RaftEntry]) -> u64 {
        self.appends += 1;
        for entry in entries {
            if self.entries.is_empty() {
                self.base = entry.log_id.index;
            }
            let bytes = entry_bytes(entry);
            self.bytes += bytes;
            self.entries.push_back(Cached {
                entry: entry.clone(),
                bytes,
                append: self.appends,
            });
        }
        self.evict();
        self.appends
    }

    /// Drops the entries at and after `from`; gives about how many bytes they had.
    pub(crate) fn truncate(&mut self, from: u64) -> usize {
        let before = self.bytes;
        while self.base + self.entries.len() as u64 > from
            && let Some(dropped) = self.entries.pop_back()
        {
            self.bytes -= dropped.bytes;
        }
        self.base = self.base.min(from);
        before - self.bytes
    }

    /// Drops the entries at and before `to`.
    pub(crate) fn purge(&mut self, to: u64) {
        while self.base <= to
            && let Some(dropped) = self.entries.pop_front()
        {
            self.bytes -= dropped.bytes;
            self.base += 1;
        }
        self.base = self.base.max(to + 1);
    }

    /// Every append up to this one is on the disk.
    pub(crate) fn on_synced(&mut self, append: u64) {
        self.synced = self.synced.max(append);
        self.evict();
    }

    /// The entries at `start` and before `end` that are here, until `bytes_max` is exceeded, but at
    /// least one; none if `start` is not here.
    pub(crate) fn read(&self, start: u64, end: u64, bytes_max: usize) -> Vec<RaftEntry> {
        let mut found = Vec::new();
        let Some(skip) = start.checked_sub(self.base) else {
            return found;
        };
        let Ok(skip) = usize::try_from(skip) else {
            return found;
        };
        let mut bytes = 0;
        for cached in self.entries.iter().skip(skip) {
            bytes += cached.bytes;
            let full = bytes > bytes_max && !found.is_empty();
            if cached.entry.log_id.index >= end || full {
                break;
            }
            found.push(cached.entry.clone());
        }
        found
    }

    fn evict(&mut self) {
        while self.bytes > BYTES_MAX
            && self
                .entries
                .front()
                .is_some_and(|first| first.append <= self.synced)
        {
            let Some(evicted) = self.entries.pop_front() else {
                break;
            };
            self.bytes -= evicted.bytes;
            self.base += 1;
        }
    }
}

/// About what the entry takes in a message, on the disk and in memory.
pub(crate) fn entry_bytes(entry: &RaftEntry) -> usize {
    let payload = match &entry.payload {
        openraft::EntryPayload::Normal(command) => command.encoded.len(),
        openraft::EntryPayload::Blank => 0,
        openraft::EntryPayload::Membership(membership) => membership.nodes().count() * ENTRY_BYTES,
    };
    payload + ENTRY_BYTES
}

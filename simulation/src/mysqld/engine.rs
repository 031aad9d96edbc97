//! What a simulated server's engine holds.

use std::collections::{BTreeMap, VecDeque};

use quorate_types::{Gtid, GtidSet, Secret};

/// One change of a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// A row of table `t`, whose keys are used once only.
    Insert { key: u64, value: u64 },
    /// A register: a row of table `r`, which is there from the beginning.
    Set { key: u64, value: u64 },
}

/// A transaction that is on disk and not committed: a crash leaves it to the recovery.
#[derive(Clone, Debug)]
struct Prepared {
    changes: Vec<Change>,
    /// Once it is in the binlog.
    gtid: Option<Gtid>,
}

/// A commit whose record a loss of power may take. What was prepared is on disk, and so it is again.
#[derive(Clone, Debug)]
struct Unsynced {
    xid: u64,
    gtid: Gtid,
    changes: Vec<Change>,
    /// For each change: what was there before.
    before: Vec<Option<u64>>,
}

/// The tables, and the redo log: everything here survives a kill, and what was synced a loss of power.
#[derive(Clone, Debug, Default)]
pub struct Engine {
    pub inserted: BTreeMap<u64, u64>,
    pub registers: BTreeMap<u64, u64>,
    pub executed: GtidSet,
    /// Every transaction with what it did, in the order in which it became visible.
    pub history: Vec<(Gtid, Vec<Change>)>,
    pub(crate) accounts: BTreeMap<String, Secret>,
    /// By xid.
    prepared: BTreeMap<u64, Prepared>,
    /// In the order in which they became visible.
    unsynced: VecDeque<Unsynced>,
    /// How many commits there were.
    commits: u64,
    next_xid: u64,
}

impl Engine {
    /// Puts a transaction on disk; its xid.
    pub(crate) fn prepare(&mut self, changes: &[Change]) -> u64 {
        self.next_xid += 1;
        let prepared = Prepared {
            changes: changes.to_vec(),
            gtid: None,
        };
        self.prepared.insert(self.next_xid, prepared);
        self.next_xid
    }

    pub(crate) fn was_logged(&mut self, xid: u64, gtid: Gtid) {
        if let Some(prepared) = self.prepared.get_mut(&xid) {
            prepared.gtid = Some(gtid);
        }
    }

    /// Makes a prepared transaction visible; its GTID.
    pub(crate) fn commit(&mut self, xid: u64) -> Option<Gtid> {
        let Prepared { changes, gtid } = self.prepared.remove(&xid)?;
        let gtid = gtid?;
        let before = self.make_visible(gtid, changes.clone());
        self.commits += 1;
        self.unsynced.push_back(Unsynced {
            xid,
            gtid,
            changes,
            before,
        });
        Some(gtid)
    }

    pub(crate) fn commits(&self) -> u64 {
        self.commits
    }

    /// The first so many commits are on disk: a sync that began when there were as many is over.
    pub(crate) fn synced(&mut self, commits: u64) {
        let later = usize::try_from(self.commits.saturating_sub(commits)).unwrap_or(usize::MAX);
        let synced = self.unsynced.len().saturating_sub(later);
        self.unsynced.drain(..synced);
    }

    pub(crate) fn sync_all(&mut self) {
        self.unsynced.clear();
    }

    /// Takes the records of commits away that were not synced, but for the first `keep`.
    pub(crate) fn lose_unsynced(&mut self, keep: usize) {
        let lost = self.unsynced.split_off(keep.min(self.unsynced.len()));
        self.history.truncate(self.history.len() - lost.len());
        let mut no_longer = GtidSet::new();
        for commit in lost.into_iter().rev() {
            for (change, before) in commit.changes.iter().zip(&commit.before).rev() {
                let (table, key) = match *change {
                    Change::Insert { key, .. } => (&mut self.inserted, key),
                    Change::Set { key, .. } => (&mut self.registers, key),
                };
                match before {
                    Some(value) => table.insert(key, *value),
                    None => table.remove(&key),
                };
            }
            no_longer.insert(commit.gtid);
            let prepared = Prepared {
                changes: commit.changes,
                gtid: Some(commit.gtid),
            };
            self.prepared.insert(commit.xid, prepared);
        }
        self.executed = self.executed.difference(&no_longer);
        self.sync_all();
    }

    pub(crate) fn roll_back(&mut self, xid: u64) {
        self.prepared.remove(&xid);
    }

    pub(crate) fn prepared_xids(&self) -> Vec<u64> {
        self.prepared.keys().copied().collect()
    }

    /// For each change: what was there before.
    pub(crate) fn make_visible(&mut self, gtid: Gtid, changes: Vec<Change>) -> Vec<Option<u64>> {
        let before = changes.iter().map(|change| match *change {
            Change::Insert { key, value } => self.inserted.insert(key, value),
            Change::Set { key, value } => self.registers.insert(key, value),
        });
        let before = before.collect();
        self.executed.insert(gtid);
        self.history.push((gtid, changes));
        before
    }
}

//! What a simulated server's engine holds.

use std::collections::BTreeMap;

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

/// The tables, and what a redo log makes durable: everything here survives a kill.
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
        let prepared = self.prepared.remove(&xid)?;
        let gtid = prepared.gtid?;
        self.make_visible(gtid, prepared.changes);
        Some(gtid)
    }

    pub(crate) fn roll_back(&mut self, xid: u64) {
        self.prepared.remove(&xid);
    }

    pub(crate) fn prepared_xids(&self) -> Vec<u64> {
        self.prepared.keys().copied().collect()
    }

    pub(crate) fn make_visible(&mut self, gtid: Gtid, changes: Vec<Change>) {
        for change in &changes {
            match *change {
                Change::Insert { key, value } => self.inserted.insert(key, value),
                Change::Set { key, value } => self.registers.insert(key, value),
            };
        }
        self.executed.insert(gtid);
        self.history.push((gtid, changes));
    }
}

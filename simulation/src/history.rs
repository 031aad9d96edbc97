//! What clients did and were told.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::mysqld::Change;

/// What a client asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    Write(Change),
    /// So many rows from a key on, each with its key as its value, in one transaction.
    Load {
        key: u64,
        rows: u64,
    },
    /// Of a register, through a read-write port.
    Read {
        key: u64,
    },
}

/// What it was told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reply {
    Done,
    Value(u64),
    /// It did not happen, and never will.
    Refused,
    /// The connection ended: it may have happened, or may yet.
    Unknown,
    /// The client waited no longer: the same.
    GaveUp,
}

/// One request, with the times between which it took effect if it did.
#[derive(Clone, Copy, Debug)]
pub struct Operation {
    pub client: u64,
    pub request: Request,
    pub begun: Duration,
    /// None while it is under way.
    pub ended: Option<(Duration, Reply)>,
}

/// A row that was looked for through a read-write port, and was not there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Missing {
    pub key: u64,
    pub at: Duration,
}

/// Everything that clients did.
#[derive(Clone, Debug, Default)]
pub struct History {
    pub operations: Vec<Operation>,
    /// Rows whose session ended with the epoch or the lease that it lived with, and that a session
    /// which began after that did not find.
    pub missing: Vec<Missing>,
}

/// How many requests ended how.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    pub committed: u64,
    pub read: u64,
    pub refused: u64,
    pub unknown: u64,
}

impl History {
    pub(crate) fn begin(&mut self, client: u64, request: Request, at: Duration) -> usize {
        self.operations.push(Operation {
            client,
            request,
            begun: at,
            ended: None,
        });
        self.operations.len() - 1
    }

    pub(crate) fn end(&mut self, number: usize, at: Duration, reply: Reply) {
        self.operations[number].ended = Some((at, reply));
    }

    /// The rows whose insertion was acknowledged.
    #[must_use]
    pub fn acknowledged_rows(&self) -> BTreeMap<u64, u64> {
        let done = self
            .operations
            .iter()
            .filter(|operation| matches!(operation.ended, Some((_, Reply::Done))));
        let rows = done.flat_map(|operation| match operation.request {
            Request::Write(Change::Insert { key, value }) => vec![(key, value)],
            Request::Load { key, rows } => (key..key + rows).map(|key| (key, key)).collect(),
            Request::Write(Change::Set { .. }) | Request::Read { .. } => vec![],
        });
        rows.collect()
    }

    #[must_use]
    pub fn counts(&self) -> Counts {
        let mut counts = Counts::default();
        for operation in &self.operations {
            match operation.ended {
                Some((_, Reply::Done)) => counts.committed += 1,
                Some((_, Reply::Value(_))) => counts.read += 1,
                Some((_, Reply::Refused)) => counts.refused += 1,
                Some((_, Reply::Unknown | Reply::GaveUp)) | None => counts.unknown += 1,
            }
        }
        counts
    }
}

//! The Raft log's disk of the simulation: one that loses what was not synced, or lies about it.

use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use quorate_storage::{Error, LogDisk, LogRead, MemoryDisk, MemoryReader, MetaKey, Record, Write};
use quorate_types::LogIndex;

/// Whether a disk does what it says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Honesty {
    #[default]
    Honest,
    /// `sync` makes nothing durable.
    SyncsNothing,
    /// `sync` makes everything durable but votes.
    SyncsNoVotes,
}

/// A log's disk in memory.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedDisk {
    inner: MemoryDisk,
    honesty: Honesty,
    /// A vote that the disk keeps to itself until its power goes.
    vote: Arc<Mutex<Option<Bytes>>>,
}

/// Reads it.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedReader {
    inner: MemoryReader,
    vote: Arc<Mutex<Option<Bytes>>>,
}

impl SimulatedDisk {
    pub(crate) fn new(honesty: Honesty) -> Self {
        Self {
            inner: MemoryDisk::new(),
            honesty,
            vote: Arc::default(),
        }
    }

    /// The next process's handle.
    pub(crate) fn reopen(&self) -> Self {
        Self {
            inner: match self.honesty {
                // Opening makes durable what it finds, which this disk does not.
                Honesty::SyncsNothing => self.inner.reopen_unsynced(),
                Honesty::Honest | Honesty::SyncsNoVotes => self.inner.reopen(),
            },
            ..self.clone()
        }
    }

    /// Power loss: see [`MemoryDisk::crash`].
    pub(crate) fn crash(&self, seed: u64) {
        self.inner.crash(seed);
        *self.vote.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

impl LogDisk for SimulatedDisk {
    type Reader = SimulatedReader;

    fn write(&mut self, mut writes: Vec<Write>) -> Result<(), Error> {
        if self.honesty == Honesty::SyncsNoVotes {
            let mut vote = self.vote.lock().unwrap_or_else(PoisonError::into_inner);
            writes.retain(|write| match write {
                Write::SetMeta(MetaKey::Vote, bytes) => {
                    *vote = Some(bytes.clone());
                    false
                }
                _ => true,
            });
        }
        self.inner.write(writes)
    }

    fn sync(&mut self) -> Result<(), Error> {
        match self.honesty {
            Honesty::SyncsNothing => Ok(()),
            Honesty::Honest | Honesty::SyncsNoVotes => self.inner.sync(),
        }
    }

    fn reader(&self) -> SimulatedReader {
        SimulatedReader {
            inner: self.inner.reader(),
            vote: self.vote.clone(),
        }
    }

    fn disk_bytes(&self) -> Result<u64, Error> {
        self.inner.disk_bytes()
    }
}

impl LogRead for SimulatedReader {
    fn bounds(&self) -> Result<Option<(LogIndex, LogIndex)>, Error> {
        self.inner.bounds()
    }

    fn read(&self, range: Range<LogIndex>, bytes_max: usize) -> Result<Vec<Record>, Error> {
        self.inner.read(range, bytes_max)
    }

    fn read_accepted(
        &self,
        range: Range<LogIndex>,
        bytes_max: usize,
    ) -> Result<Vec<Record>, Error> {
        self.inner.read_accepted(range, bytes_max)
    }

    fn disk_bytes(&self) -> Result<u64, Error> {
        self.inner.disk_bytes()
    }

    fn meta(&self, key: MetaKey) -> Result<Option<Bytes>, Error> {
        let vote = self.vote.lock().unwrap_or_else(PoisonError::into_inner);
        match (key, &*vote) {
            (MetaKey::Vote, Some(vote)) => Ok(Some(vote.clone())),
            _ => self.inner.meta(key),
        }
    }
}

//! The Raft log's disk of the simulation: one that loses what was not synced, or lies about it.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quorate_storage::{Error, LogDisk, LogRead, MemoryDisk, MemoryReader, MetaKey, Record, Write};
use quorate_types::LogIndex;

use crate::random::Random;

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
    manner: Arc<Mutex<Manner>>,
    /// The sync that is under way has waited.
    waited: bool,
}

/// How a disk behaves; it stays when a process ends.
#[derive(Debug)]
struct Manner {
    random: Random,
    sync_max: Duration,
    /// No sync ends.
    is_stuck: bool,
    /// What the last process wrote before a sync failed may be gone.
    failed: bool,
    /// Snapshots of other nodes that were taken over.
    snapshots: u64,
}

/// The longest that a sync takes when nothing is wrong.
const SYNC_MAX: Duration = Duration::from_micros(1500);
/// How often a sync that is stuck is looked at.
const STUCK_LOOK: Duration = Duration::from_millis(10);

/// Reads it.
#[derive(Clone, Debug)]
pub(crate) struct SimulatedReader {
    inner: MemoryReader,
    vote: Arc<Mutex<Option<Bytes>>>,
}

impl SimulatedDisk {
    pub(crate) fn new(honesty: Honesty, seed: u64) -> Self {
        Self {
            inner: MemoryDisk::new(),
            honesty,
            vote: Arc::default(),
            manner: Arc::new(Mutex::new(Manner {
                random: Random::new(seed),
                sync_max: SYNC_MAX,
                is_stuck: false,
                failed: false,
                snapshots: 0,
            })),
            waited: false,
        }
    }

    fn manner(&self) -> MutexGuard<'_, Manner> {
        self.manner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How long its syncs take at most.
    pub(crate) fn slow(&self, sync_max: Duration) {
        self.manner().sync_max = sync_max;
    }

    /// Its syncs never end.
    pub(crate) fn hang(&self) {
        self.manner().is_stuck = true;
    }

    /// The next sync fails, and what it was to make durable may be lost.
    pub(crate) fn fail(&self) {
        self.inner.fail_next_sync();
    }

    /// As when nothing is wrong with it, from now on; a sync that failed has failed.
    pub(crate) fn mend(&self) {
        self.inner.fail_no_more();
        let mut manner = self.manner();
        manner.is_stuck = false;
        manner.sync_max = SYNC_MAX;
    }

    /// Whether a sync failed, and no other process has opened it since.
    pub(crate) fn has_failed(&self) -> bool {
        self.manner().failed
    }

    /// How many snapshots of other nodes were taken over.
    pub(crate) fn snapshots(&self) -> u64 {
        self.manner().snapshots
    }

    /// What is durable on it by now.
    pub(crate) fn image(&self) -> MemoryDisk {
        self.inner.image()
    }

    /// Has these contents from now on. To be called while no process has it open.
    pub(crate) fn put_back(&mut self, image: &MemoryDisk) {
        self.inner = image.image();
    }

    /// The next process's handle.
    pub(crate) fn reopen(&self) -> Self {
        let lost = {
            let mut manner = self.manner();
            let seed = manner.random.next_u64();
            std::mem::take(&mut manner.failed).then_some(seed)
        };
        if let Some(seed) = lost {
            self.crash(seed);
        }
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
        let mut each = writes.iter();
        if each.any(|write| matches!(write, Write::ClearAccepted)) {
            self.manner().snapshots += 1;
        }
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
        let synced = match self.honesty {
            Honesty::SyncsNothing => Ok(()),
            Honesty::Honest | Honesty::SyncsNoVotes => self.inner.sync(),
        };
        self.manner().failed |= synced.is_err();
        synced
    }

    fn sync_wait(&mut self) -> Duration {
        let mut manner = self.manner();
        if manner.is_stuck {
            return STUCK_LOOK;
        }
        let sync_max = manner.sync_max;
        let wait = match self.waited {
            true => Duration::ZERO,
            false => manner.random.duration(sync_max),
        };
        drop(manner);
        self.waited = !wait.is_zero();
        wait
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

use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use quorate_types::{LogIndex, SplitMix64};

use crate::contents::{Contents, bounds_after};
use crate::{Error, LogDisk, LogRead, MetaKey, Record, Write};

/// A log's disk in memory that loses what was never synced, as a crash chooses.
///
/// The value is a handle: [`MemoryDisk::reopen`] gives the next process its handle of the same
/// disk, and whoever plays the machine keeps one to call [`MemoryDisk::crash`] on. A handle (and
/// its readers) from before a crash or a reopen answers nothing but errors, as a dead process does.
///
/// Handles share their state under one lock, held for the length of a call only; nothing waits
/// while it holds it.
#[derive(Clone, Debug)]
pub struct MemoryDisk {
    shared: Arc<Mutex<Shared>>,
    /// Which opening of the disk this handle belongs to.
    opening: u64,
}

/// Reads a [`MemoryDisk`].
#[derive(Clone, Debug)]
pub struct MemoryReader(MemoryDisk);

#[derive(Debug, Default)]
struct Shared {
    opening: u64,
    durable: Contents,
    /// What readers see: `durable` and then `pending`.
    visible: Contents,
    /// In order, since the last sync.
    pending: Vec<Write>,
    fail_next_write: bool,
    fail_next_sync: bool,
    fail_reads: bool,
    /// Once a sync failed, what is pending may or may not be durable: no later sync may say yes.
    sync_failed: bool,
    sync_delay: Duration,
    syncs: u64,
    bytes_max: Option<u64>,
}

impl Default for MemoryDisk {
    fn default() -> Self {
        Self::new()
    }
}

impl MemoryDisk {
    /// An empty disk, open.
    #[must_use]
    pub fn new() -> Self {
        Self {
            shared: Arc::default(),
            opening: 0,
        }
    }

    /// Power loss. What was synced stays; of what was written since, `seed` chooses how long a
    /// prefix stays: nothing, everything, or something between, where an append or a put may end
    /// in the middle of its records. Every handle and reader is dead afterwards.
    pub fn crash(&self, seed: u64) {
        let mut shared = self.lock();
        shared.opening += 1;
        let pending = std::mem::take(&mut shared.pending);
        for write in survivors(pending, seed) {
            shared.durable.apply(&write);
        }
        shared.visible = shared.durable.clone();
        shared.forget_faults();
    }

    /// The handle of the next process, after a crash or after an orderly stop. It makes durable
    /// what it finds, as every store must before it lets anyone act on it.
    #[must_use]
    pub fn reopen(&self) -> Self {
        let mut shared = self.lock();
        shared.opening += 1;
        shared.durable = shared.visible.clone();
        shared.pending.clear();
        shared.forget_faults();
        Self {
            shared: Arc::clone(&self.shared),
            opening: shared.opening,
        }
    }

    /// As [`MemoryDisk::reopen`], but what was not synced stays so: for a model of a disk whose syncs
    /// do nothing.
    #[must_use]
    pub fn reopen_unsynced(&self) -> Self {
        let mut shared = self.lock();
        shared.opening += 1;
        shared.forget_faults();
        Self {
            shared: Arc::clone(&self.shared),
            opening: shared.opening,
        }
    }

    /// Another disk with what is durable on this one, as an image of it.
    #[must_use]
    pub fn image(&self) -> Self {
        let durable = self.lock().durable.clone();
        let shared = Shared {
            visible: durable.clone(),
            durable,
            ..Shared::default()
        };
        Self {
            shared: Arc::new(Mutex::new(shared)),
            opening: 0,
        }
    }

    /// The next `write` takes nothing and fails.
    pub fn fail_next_write(&self) {
        self.lock().fail_next_write = true;
    }

    /// The next `sync`, and every one after it until the disk is opened again, fails; a crash then
    /// keeps any prefix of what it was to make durable.
    pub fn fail_next_sync(&self) {
        self.lock().fail_next_sync = true;
    }

    /// From now on, until the disk is opened again, whoever reads gets an error.
    pub fn fail_reads(&self) {
        self.lock().fail_reads = true;
    }

    /// What was to fail next does not; what failed has failed.
    pub fn fail_no_more(&self) {
        let mut shared = self.lock();
        shared.fail_next_write = false;
        shared.fail_next_sync = false;
    }

    /// Writes beyond this many bytes of contents fail as on a full disk.
    pub fn set_bytes_max(&self, bytes_max: Option<u64>) {
        self.lock().bytes_max = bytes_max;
    }

    /// How long a sync should seem to take. Only a mark: calls return at once, and whoever runs
    /// them in simulated time reads [`MemoryDisk::sync_delay`] and waits.
    pub fn set_sync_delay(&self, delay: Duration) {
        self.lock().sync_delay = delay;
    }

    #[must_use]
    pub fn sync_delay(&self) -> Duration {
        self.lock().sync_delay
    }

    /// How many syncs succeeded.
    #[must_use]
    pub fn syncs(&self) -> u64 {
        self.lock().syncs
    }

    /// A panic under the lock is a broken invariant that already stopped its thread; the others
    /// may go on and report it.
    fn lock(&self) -> MutexGuard<'_, Shared> {
        self.shared.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn open(&self) -> Result<MutexGuard<'_, Shared>, Error> {
        let shared = self.lock();
        if shared.opening == self.opening {
            return Ok(shared);
        }
        Err(failed(
            "use a handle from before a crash",
            io::ErrorKind::BrokenPipe,
        ))
    }

    fn readable(&self) -> Result<MutexGuard<'_, Shared>, Error> {
        let shared = self.open()?;
        if shared.fail_reads {
            return Err(failed("read", io::ErrorKind::InvalidData));
        }
        Ok(shared)
    }
}

impl LogDisk for MemoryDisk {
    type Reader = MemoryReader;

    fn write(&mut self, writes: Vec<Write>) -> Result<(), Error> {
        let mut shared = self.open()?;
        if std::mem::take(&mut shared.fail_next_write) {
            return Err(failed("write", io::ErrorKind::Other));
        }
        writes
            .iter()
            .try_fold(shared.visible.bounds(), bounds_after)?;
        if let Some(max) = shared.bytes_max
            && shared.visible.bytes() + writes.iter().map(Write::bytes).sum::<u64>() > max
        {
            return Err(failed("write", io::ErrorKind::StorageFull));
        }
        for write in &writes {
            shared.visible.apply(write);
        }
        shared.pending.extend(writes);
        Ok(())
    }

    fn sync(&mut self) -> Result<(), Error> {
        let mut shared = self.open()?;
        if std::mem::take(&mut shared.fail_next_sync) {
            shared.sync_failed = true;
        }
        if shared.sync_failed {
            return Err(failed("sync", io::ErrorKind::Other));
        }
        for write in std::mem::take(&mut shared.pending) {
            shared.durable.apply(&write);
        }
        shared.syncs += 1;
        Ok(())
    }

    fn reader(&self) -> MemoryReader {
        MemoryReader(self.clone())
    }

    fn disk_bytes(&self) -> Result<u64, Error> {
        Ok(self.open()?.visible.bytes())
    }
}

impl LogRead for MemoryReader {
    fn bounds(&self) -> Result<Option<(LogIndex, LogIndex)>, Error> {
        Ok(self.0.readable()?.visible.bounds())
    }

    fn read(&self, range: Range<LogIndex>, bytes_max: usize) -> Result<Vec<Record>, Error> {
        Ok(self.0.readable()?.visible.read(range, bytes_max))
    }

    fn read_accepted(
        &self,
        range: Range<LogIndex>,
        bytes_max: usize,
    ) -> Result<Vec<Record>, Error> {
        Ok(self.0.readable()?.visible.read_accepted(range, bytes_max))
    }

    fn meta(&self, key: MetaKey) -> Result<Option<Bytes>, Error> {
        Ok(self.0.readable()?.visible.meta(key))
    }

    fn disk_bytes(&self) -> Result<u64, Error> {
        Ok(self.0.readable()?.visible.bytes())
    }
}

impl Shared {
    fn forget_faults(&mut self) {
        self.fail_next_write = false;
        self.fail_next_sync = false;
        self.fail_reads = false;
        self.sync_failed = false;
    }
}

/// The prefix of `pending` that a crash keeps.
fn survivors(mut pending: Vec<Write>, seed: u64) -> Vec<Write> {
    let mut numbers = SplitMix64::new(seed);
    let mut draw =
        |bound: usize| usize::try_from(numbers.below(bound as u64)).expect("less than a usize");
    let kept = match draw(4) {
        0 => 0,
        1 => pending.len(),
        _ => draw(pending.len() + 1),
    };
    pending.truncate(kept);
    if draw(2) == 0
        && let Some(Write::Append(records) | Write::PutAccepted(records)) = pending.last_mut()
    {
        let kept = draw(records.len() + 1);
        records.truncate(kept);
    }
    pending
}

fn failed(action: &'static str, kind: io::ErrorKind) -> Error {
    Error::Io {
        action,
        dir: PathBuf::from("memory"),
        source: kind.into(),
    }
}

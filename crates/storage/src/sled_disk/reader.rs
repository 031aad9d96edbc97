//! What the writer and the readers share, and the reading side.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use bytes::Bytes;
use quorate_types::LogIndex;

use super::failure::{Failure, guarded};
use super::records::RecordTree;
use super::values::{Floor, Values};
use crate::contents::{Bounds, bounds_after};
use crate::{Error, LogRead, MetaKey, Record, Write};

/// Reads a [`Base`](super::base::Base), at any time, from any thread.
#[derive(Clone, Debug)]
pub(super) struct BaseReader {
    shared: Arc<Shared>,
}

#[derive(Debug)]
pub(super) struct Shared {
    pub(super) dir: PathBuf,
    pub(super) log: RecordTree,
    pub(super) accepted: RecordTree,
    pub(super) values: Values,
    /// Locked to copy it, never over a call of sled.
    state: Mutex<State>,
    /// Readers hold it over one read; the writer takes it for what would pull values from under
    /// them (a truncation, a raised floor, another large value), never for an append.
    stable: RwLock<()>,
}

/// What exists, whatever sled still has of it.
#[derive(Clone, Copy, Debug)]
pub(super) struct State {
    pub(super) bounds: Bounds,
    pub(super) log_floor: LogIndex,
    pub(super) accepted_floor: LogIndex,
}

impl Shared {
    pub(super) fn open(
        dir: PathBuf,
        log: RecordTree,
        accepted: RecordTree,
        values: Values,
    ) -> Result<Self, Failure> {
        let log_floor = values.floor(Floor::Log)?;
        let accepted_floor = values.floor(Floor::Accepted)?;
        let bounds = log.bounds(log_floor)?;
        let state = Mutex::new(State {
            bounds,
            log_floor,
            accepted_floor,
        });
        Ok(Self {
            dir,
            log,
            accepted,
            values,
            state,
            stable: RwLock::new(()),
        })
    }

    pub(super) fn state(&self) -> State {
        *self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn update(&self, change: impl FnOnce(&mut State)) {
        change(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner));
    }

    /// Lets readers see what was appended.
    pub(super) fn appended(&self, records: &[Record]) {
        if let (Some(first), Some(last)) = (records.first(), records.last()) {
            self.update(|state| {
                let first = state.bounds.map_or(first.index, |(first, _)| first);
                state.bounds = Some((first, last.index));
            });
        }
    }

    pub(super) fn truncate_from(&self, index: LogIndex) -> Result<(), Failure> {
        let _still = self.stable.write().unwrap_or_else(PoisonError::into_inner);
        self.log.truncate_from(index)?;
        self.cut(&Write::TruncateFrom(index));
        Ok(())
    }

    pub(super) fn set_floor(&self, floor: Floor, index: LogIndex) -> Result<(), Failure> {
        let _still = self.stable.write().unwrap_or_else(PoisonError::into_inner);
        self.values.set_floor(floor, index)?;
        match floor {
            Floor::Log => {
                self.update(|state| state.log_floor = index);
                if let Some(last_purged) = index.0.checked_sub(1) {
                    self.cut(&Write::PurgeTo(LogIndex(last_purged)));
                }
            }
            Floor::Accepted => self.update(|state| state.accepted_floor = index),
        }
        Ok(())
    }

    /// A reader that follows a pointer must find the pieces; whole values need no such care.
    pub(super) fn flip_pieces(
        &self,
        key: MetaKey,
        generation: Option<u64>,
        value: &[u8],
    ) -> Result<(), Failure> {
        let _still = self.stable.write().unwrap_or_else(PoisonError::into_inner);
        self.values.flip(key, generation, value)
    }

    fn cut(&self, write: &Write) {
        self.update(|state| {
            state.bounds = bounds_after(state.bounds, write).expect("only an append is refused");
        });
    }

    fn read_log(&self, range: Range<LogIndex>, bytes_max: usize) -> Result<Vec<Record>, Failure> {
        let Some((first, last)) = self.state().bounds else {
            return Ok(Vec::new());
        };
        if range.is_empty() || range.start < first || range.start > last {
            return Ok(Vec::new());
        }
        let range = range.start..range.end.min(last.next());
        let records = self.log.read(range.clone(), bytes_max)?;
        let mut expected = range.start;
        for record in &records {
            if record.index != expected {
                return Err(Failure::Damage("an entry of the log is missing"));
            }
            expected = expected.next();
        }
        if records.is_empty() {
            return Err(Failure::Damage("an entry of the log is missing"));
        }
        Ok(records)
    }

    fn read_accepted(
        &self,
        range: Range<LogIndex>,
        bytes_max: usize,
    ) -> Result<Vec<Record>, Failure> {
        let start = range.start.max(self.state().accepted_floor);
        if start >= range.end {
            return Ok(Vec::new());
        }
        self.accepted.read(start..range.end, bytes_max)
    }
}

impl BaseReader {
    pub(super) fn new(shared: Arc<Shared>) -> Self {
        Self { shared }
    }

    fn reading<T>(&self, read: impl FnOnce(&Shared) -> Result<T, Failure>) -> Result<T, Error> {
        let shared = &self.shared;
        let _still = shared.stable.read().unwrap_or_else(PoisonError::into_inner);
        guarded(|| read(shared)).map_err(|failure| failure.at("read log", &shared.dir))
    }
}

impl LogRead for BaseReader {
    fn bounds(&self) -> Result<Option<(LogIndex, LogIndex)>, Error> {
        Ok(self.shared.state().bounds)
    }

    fn read(&self, range: Range<LogIndex>, bytes_max: usize) -> Result<Vec<Record>, Error> {
        self.reading(|shared| shared.read_log(range, bytes_max))
    }

    fn read_accepted(
        &self,
        range: Range<LogIndex>,
        bytes_max: usize,
    ) -> Result<Vec<Record>, Error> {
        self.reading(|shared| shared.read_accepted(range, bytes_max))
    }

    fn meta(&self, key: MetaKey) -> Result<Option<Bytes>, Error> {
        self.reading(|shared| shared.values.get(key))
    }

    fn disk_bytes(&self) -> Result<u64, Error> {
        let dir = &self.shared.dir;
        folder_bytes(dir).map_err(|error| Failure::from(error).at("measure log", dir))
    }

    fn free_bytes(&self) -> Result<Option<u64>, Error> {
        let dir = &self.shared.dir;
        let free = free_bytes(dir);
        free.map(Some)
            .map_err(|error| Failure::from(error).at("measure room", dir))
    }
}

/// Bytes that the file system of a file or folder has left for this process.
///
/// # Errors
/// The system's.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let system = rustix::fs::statvfs(path)?;
    Ok(system.f_bavail.saturating_mul(system.f_frsize))
}

/// The bytes of the files in a folder, sled's snapshots among them.
///
/// # Errors
/// The system's.
pub fn folder_bytes(dir: &Path) -> io::Result<u64> {
    let mut bytes_sum = 0;
    for entry in std::fs::read_dir(dir)? {
        match entry?.metadata() {
            Ok(metadata) if metadata.is_file() => bytes_sum += metadata.len(),
            Ok(_) => {}
            // sled replaces its snapshots.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error),
        }
    }
    Ok(bytes_sum)
}

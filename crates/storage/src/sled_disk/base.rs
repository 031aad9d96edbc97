use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use quorate_types::LogIndex;

use super::failure::{Failure, guarded};
use super::reader::{BaseReader, Shared};
use super::records::RecordTree;
use super::values::{Floor, Generations, Values};
use super::{Options, SyncMode, witness};
use crate::contents::{Bounds, bounds_after};
use crate::{Error, LogRead as _, MetaKey, Record, Write};

/// sled keeps a page whole in its log only below a quarter of this; larger ones go to files that
/// it never syncs. Fixed when a folder is made.
const SEGMENT_BYTES: usize = 8 << 20;
/// How much of what was purged a write removes on its way, so that no write waits for a purge.
const SWEEP_VALUES_MAX: usize = 256;
/// How many syncs pass between two entries of the witness, and looks at the folder of sled's blobs.
const WITNESS_SYNCS: u64 = 256;

/// What sled keeps of a log's disk: all that was moved on from the journal.
///
/// sled's own flush never reaches the device on Linux, so a sync flushes and then calls
/// `fdatasync` on sled's file. What was purged disappears at once and is removed bit by bit.
#[derive(Debug)]
pub(super) struct Base {
    shared: Arc<Shared>,
    generations: Generations,
    db: sled::Db,
    /// sled's file, opened once more to sync it.
    file: File,
    sync: SyncMode,
    syncs: u64,
    /// The newest number that sled's log and the witness both have.
    mark: u64,
    /// Whether values below a floor may be left, of the log and of the accepted transactions.
    log_unswept: bool,
    accepted_unswept: bool,
    /// After an error the contents are not known, so nothing is done any more.
    failed: bool,
}

/// How often, and how long apart, a store that is in use is looked at again before that is an error.
const IN_USE_LOOKS: u32 = 50;
const IN_USE_LOOK: std::time::Duration = std::time::Duration::from_millis(20);

impl Base {
    /// Opens the folder, or makes it. Blocks while sled reads its log.
    ///
    /// # Errors
    /// [`Error::InUse`] while another process has it open, [`Error::Corrupt`] if it is damaged, or
    /// the disk's.
    pub(super) fn open(dir: &Path, options: &Options) -> Result<Self, Error> {
        let open = || {
            guarded(|| Self::try_open(dir, options)).map_err(|failure| match failure {
                failure if failure.is_for_want_of_room() => failure.at("open log", dir),
                // While it opens, sled panics on what it cannot read.
                Failure::Panic(what) => Error::Corrupt {
                    dir: dir.to_path_buf(),
                    what,
                },
                failure => failure.at("open log", dir),
            })
        };
        // Who had it open may be ending: a process, or sled's own threads, which let go of a store
        // some time after it was dropped.
        for _ in 0..IN_USE_LOOKS {
            match open() {
                Err(Error::InUse { .. }) => std::thread::sleep(IN_USE_LOOK),
                opened => return opened,
            }
        }
        open()
    }

    fn try_open(dir: &Path, options: &Options) -> Result<Self, Failure> {
        let path = dir.join("db");
        // A killed process may have left what no disk has yet. sled would write down that it read
        // it, and after a power loss look for it.
        if path.exists() {
            File::options()
                .read(true)
                .write(true)
                .open(&path)?
                .sync_all()?;
        }
        let db = sled::Config::new()
            .path(dir)
            .mode(sled::Mode::HighThroughput)
            .flush_every_ms(None)
            .segment_size(SEGMENT_BYTES)
            .cache_capacity(options.cache_bytes)
            .open()?;
        check_blobs(dir)?;
        let log = RecordTree::new(db.open_tree("log")?, true);
        let accepted = RecordTree::new(db.open_tree("accepted")?, false);
        let values = Values::new(db.open_tree("meta")?);
        let generations = values.recover()?;
        let mark = values.mark()?;
        if mark < witness::read(dir)? {
            return Err(Failure::Damage(
                "what was synced before is gone from sled's log",
            ));
        }
        log.drop_partial_tail()?;
        accepted.drop_partial_tail()?;
        let shared = Shared::open(dir.to_path_buf(), log, accepted, values)?;
        let mut disk = Self {
            shared: Arc::new(shared),
            generations,
            db,
            file: File::options().read(true).write(true).open(&path)?,
            sync: options.sync,
            syncs: 0,
            mark,
            log_unswept: true,
            accepted_unswept: true,
            failed: false,
        };
        // Nobody may act on what was found before it is durable, the names of the files included.
        disk.testify()?;
        disk.file.sync_all()?;
        if let Some(parent) = dir.parent().filter(|parent| !parent.as_os_str().is_empty()) {
            File::open(parent)?.sync_all()?;
        }
        Ok(disk)
    }

    fn try_write(&mut self, writes: Vec<Write>) -> Result<(), Failure> {
        for write in writes {
            match write {
                Write::Append(records) => self.append(&records)?,
                Write::TruncateFrom(index) => self.shared.truncate_from(index)?,
                Write::PurgeTo(index) => self.purge_log_to(index)?,
                Write::SetMeta(key, value) => self.set_meta(key, &value)?,
                Write::PutAccepted(records) => self.put_accepted(&records)?,
                Write::PurgeAcceptedTo(index) => self.purge_accepted_below(index.next())?,
                Write::ClearAccepted => self.purge_accepted_below(LogIndex(u64::MAX))?,
            }
        }
        self.sweep_some()
    }

    fn append(&mut self, records: &[Record]) -> Result<(), Failure> {
        let Some(first) = records.first() else {
            return Ok(());
        };
        let state = self.shared.state();
        if state.bounds.is_none() && first.index < state.log_floor {
            while self.shared.log.sweep(state.log_floor, SWEEP_VALUES_MAX)? {}
            self.shared.set_floor(Floor::Log, first.index)?;
        }
        self.shared.log.insert(records)?;
        self.shared.appended(records);
        Ok(())
    }

    fn set_meta(&mut self, key: MetaKey, value: &[u8]) -> Result<(), Failure> {
        let values = &self.shared.values;
        let generation = values.put_pieces(&self.generations, key, value)?;
        if generation.is_none() && !Values::is_in_pieces(&self.generations, key) {
            return values.flip(key, None, value);
        }
        self.shared.flip_pieces(key, generation, value)?;
        values.forget_old(&mut self.generations, key, generation)
    }

    fn purge_log_to(&mut self, index: LogIndex) -> Result<(), Failure> {
        // A mark below the first record would say nothing new; one in an empty log is remembered
        // only by what is above it, so it says nothing either.
        let purges = self
            .shared
            .state()
            .bounds
            .is_some_and(|(first, _)| first <= index);
        if purges {
            self.shared.set_floor(Floor::Log, index.next())?;
            self.log_unswept = true;
        }
        Ok(())
    }

    fn purge_accepted_below(&mut self, floor: LogIndex) -> Result<(), Failure> {
        if floor > self.shared.state().accepted_floor {
            self.shared.set_floor(Floor::Accepted, floor)?;
            self.accepted_unswept = true;
        }
        Ok(())
    }

    fn put_accepted(&mut self, records: &[Record]) -> Result<(), Failure> {
        let Some(first) = records.iter().map(|record| record.index).min() else {
            return Ok(());
        };
        let floor = self.shared.state().accepted_floor;
        if first < floor {
            // What was dropped must be gone before the floor sinks, or it would come back.
            while self.shared.accepted.sweep(floor, SWEEP_VALUES_MAX)? {}
            self.shared.set_floor(Floor::Accepted, first)?;
        }
        self.shared.accepted.insert(records)
    }

    fn sweep_some(&mut self) -> Result<(), Failure> {
        let state = self.shared.state();
        if self.log_unswept {
            self.log_unswept = self.shared.log.sweep(state.log_floor, SWEEP_VALUES_MAX)?;
        }
        if self.accepted_unswept {
            let floor = state.accepted_floor;
            self.accepted_unswept = self.shared.accepted.sweep(floor, SWEEP_VALUES_MAX)?;
        }
        Ok(())
    }

    fn try_sync(&mut self) -> Result<(), Failure> {
        self.syncs += 1;
        if self.syncs.is_multiple_of(WITNESS_SYNCS) {
            check_blobs(&self.shared.dir)?;
            return self.testify();
        }
        self.flush()
    }

    fn flush(&mut self) -> Result<(), Failure> {
        self.db.flush()?;
        if self.sync == SyncMode::Fdatasync {
            self.file.sync_data()?;
        }
        Ok(())
    }

    /// Syncs, and writes down outside of sled that it did.
    fn testify(&mut self) -> Result<(), Failure> {
        let mark = self.mark + 1;
        self.shared.values.set_mark(mark)?;
        self.flush()?;
        witness::write(&self.shared.dir, mark)?;
        self.mark = mark;
        Ok(())
    }

    pub(super) fn failed_before(&self) -> Error {
        Error::Io {
            action: "go on",
            dir: self.shared.dir.clone(),
            source: io::Error::other("an earlier step failed"),
        }
    }

    /// Runs one step of the writer; after an error there is no other.
    fn step<T>(
        &mut self,
        action: &'static str,
        step: impl FnOnce(&mut Self) -> Result<T, Failure>,
    ) -> Result<T, Error> {
        if self.failed {
            return Err(self.failed_before());
        }
        let dir = self.shared.dir.clone();
        guarded(|| step(self)).map_err(|failure| {
            self.failed = true;
            failure.at(action, &dir)
        })
    }

    pub(super) fn write(&mut self, writes: Vec<Write>) -> Result<(), Error> {
        writes.iter().try_fold(self.bounds(), bounds_after)?;
        self.step("write log", |disk| disk.try_write(writes))
    }

    pub(super) fn sync(&mut self) -> Result<(), Error> {
        self.step("sync log", Self::try_sync)
    }

    pub(super) fn bounds(&self) -> Bounds {
        self.shared.state().bounds
    }

    pub(super) fn reader(&self) -> BaseReader {
        BaseReader::new(Arc::clone(&self.shared))
    }

    /// The last frame of the journal that is in here whole.
    pub(super) fn journal_mark(&mut self) -> Result<u64, Error> {
        self.step("read log", |disk| disk.shared.values.journal_mark())
    }

    /// A crash keeps what was written before this if it keeps this.
    pub(super) fn set_journal_mark(&mut self, frame: u64) -> Result<(), Error> {
        self.step("write log", |disk| {
            disk.shared.values.set_journal_mark(frame)
        })
    }

    pub(super) fn disk_bytes(&self) -> Result<u64, Error> {
        self.reader().disk_bytes()
    }
}

/// sled puts what is too large for its log into files that it never syncs. The sizes here never
/// let it come to that; if it did after all, a power loss could take what was promised.
fn check_blobs(dir: &Path) -> Result<(), Failure> {
    let blobs: PathBuf = dir.join("blobs");
    if blobs.exists() && std::fs::read_dir(blobs)?.next().is_some() {
        return Err(Failure::Damage(
            "sled keeps a value in a file that it never syncs",
        ));
    }
    Ok(())
}

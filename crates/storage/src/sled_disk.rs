//! The log's disk in production: sled, behind a journal that makes a group durable in one write.

mod base;
mod compact;
mod failure;
mod frame;
mod journal;
mod overlay;
mod reader;
mod records;
mod values;
mod witness;

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use self::base::Base;
use self::frame::VALUE_BYTES_MAX;
use self::journal::Journal;
use self::overlay::Overlay;
use crate::contents::{Bounds, bounds_after};
use crate::{Error, LogDisk, Write};

pub use self::compact::Compacted;
pub use self::overlay::SledReader;
pub use self::reader::{folder_bytes, free_bytes};

/// What waits in the journal for sled until it is moved on: enough that sled gets full values.
const MOVE_BYTES: u64 = 256 << 10;
/// A group that is larger gains nothing from the journal: sled gets it at once.
const JOURNALED_BYTES_MAX: u64 = 1 << 20;
/// What nobody syncs is given to sled before it takes more memory than this.
const FRESH_BYTES_MAX: u64 = 4 << 20;

/// How a [`SledDisk`] is to be opened.
#[derive(Clone, Debug)]
pub struct Options {
    /// How much memory sled's cache of pages may take.
    pub cache_bytes: u64,
    #[doc(hidden)]
    pub sync: SyncMode,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            cache_bytes: 16 << 20,
            sync: SyncMode::Fdatasync,
        }
    }
}

/// What a sync does. Anything but the default loses data: it is there to prove that the test of
/// power losses can fail.
#[doc(hidden)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SyncMode {
    Fdatasync,
    FlushOnly,
}

/// A log's disk in a folder of its own, kept by sled.
///
/// sled makes a group durable in several writes, each waited for by another of its threads. So a
/// group goes to a journal first (one write, one `fdatasync`), stays readable from memory, and is
/// moved on to sled with its neighbours when there is time. sled remembers the last frame of the
/// journal that it has whole; what comes after that frame is moved on when the store opens.
///
/// What takes something away (a truncation, a purge) goes to sled alone, behind all before it.
#[derive(Debug)]
pub struct SledDisk {
    base: Base,
    journal: Journal,
    overlay: Arc<Overlay>,
    bounds: Bounds,
    /// Taken, and in no file yet.
    fresh: Vec<Write>,
    fresh_bytes: u64,
    /// Durable in the journal, and not in sled yet.
    journaled: Vec<Write>,
    journaled_bytes: u64,
    /// Whether sled has something that neither it nor the journal made durable.
    base_unsynced: bool,
    /// After an error nothing is known, so nothing is done any more.
    failed: bool,
}

impl SledDisk {
    /// Opens the folder, or makes it. Blocks while sled reads its log.
    ///
    /// # Errors
    /// [`Error::InUse`] while another process has it open, [`Error::Corrupt`] if it is damaged, or
    /// the disk's.
    pub fn open(dir: &Path, options: &Options) -> Result<Self, Error> {
        let mut base = Base::open(dir, options)?;
        let mark = base.journal_mark()?;
        let (mut journal, found) =
            Journal::open(dir, options.sync, mark).map_err(|e| e.at("open the journal", dir))?;
        if !found.is_empty() {
            let writes = found.into_iter().filter_map(|write| {
                // A crash came after sled had them and before it had the mark.
                not_before(write, base.bounds())
            });
            base.write(writes.collect())?;
            base.set_journal_mark(journal.last_frame())?;
            base.sync()?;
        }
        journal.restart();
        let bounds = base.bounds();
        Ok(Self {
            overlay: Arc::new(Overlay::new(bounds)),
            base,
            journal,
            bounds,
            fresh: Vec::new(),
            fresh_bytes: 0,
            journaled: Vec::new(),
            journaled_bytes: 0,
            base_unsynced: false,
            failed: false,
        })
    }

    /// Moves on to sled what the journal has.
    fn move_on(&mut self) -> Result<(), Error> {
        if self.journaled.is_empty() {
            return Ok(());
        }
        let journaled = joined(std::mem::take(&mut self.journaled));
        self.base.write(journaled)?;
        self.journaled_bytes = 0;
        self.base.set_journal_mark(self.journal.last_frame())?;
        self.overlay.replace(&self.fresh, self.bounds);
        Ok(())
    }

    /// Gives everything to sled, so that what comes next may go there without the journal.
    fn settle(&mut self) -> Result<(), Error> {
        self.move_on()?;
        if !self.fresh.is_empty() {
            self.base.write(std::mem::take(&mut self.fresh))?;
            self.fresh_bytes = 0;
            self.base_unsynced = true;
            self.overlay.replace(&[], self.bounds);
        }
        Ok(())
    }

    fn take(&mut self, write: Write) -> Result<(), Error> {
        let bounds = bounds_after(self.bounds, &write)?;
        if is_journaled(&write) {
            self.bounds = bounds;
            self.overlay.add(&write, bounds);
            self.fresh_bytes += write.bytes();
            self.fresh.push(write);
            return Ok(());
        }
        self.settle()?;
        self.base.write(vec![write])?;
        self.base_unsynced = true;
        self.bounds = bounds;
        self.overlay.cut(bounds);
        Ok(())
    }

    fn try_write(&mut self, writes: Vec<Write>) -> Result<(), Error> {
        writes.into_iter().try_for_each(|write| self.take(write))?;
        if self.fresh_bytes > FRESH_BYTES_MAX {
            self.settle()?;
            self.sync_base()?;
        }
        Ok(())
    }

    fn try_sync(&mut self) -> Result<(), Error> {
        if self.base_unsynced || self.fresh_bytes > JOURNALED_BYTES_MAX {
            self.settle()?;
            return self.sync_base();
        }
        if self.fresh.is_empty() {
            return Ok(());
        }
        if !self.journal.prepare(&self.fresh) {
            self.move_on()?;
            self.sync_base()?;
        }
        if !self.journal.has_room() {
            self.settle()?;
            return self.sync_base();
        }
        self.journal.write()?;
        self.journaled.append(&mut self.fresh);
        self.journaled_bytes += std::mem::take(&mut self.fresh_bytes);
        Ok(())
    }

    /// Runs one step; after one that failed there is no other.
    fn step(&mut self, step: impl FnOnce(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        if self.failed {
            return Err(self.base.failed_before());
        }
        let result = step(self);
        self.failed = result.is_err();
        result
    }

    /// Syncs sled; nothing of the journal is needed any more.
    ///
    /// What sled gets is synced soon: it writes new contents over what it believes to have copied
    /// elsewhere for good, while only a sync makes the copy so.
    fn sync_base(&mut self) -> Result<(), Error> {
        self.base.sync()?;
        self.base_unsynced = false;
        self.journal.restart();
        Ok(())
    }
}

/// Whether the journal takes this write: it only adds, so that reading it from memory over sled's
/// contents is right.
fn is_journaled(write: &Write) -> bool {
    match write {
        Write::Append(_) | Write::PutAccepted(_) => true,
        Write::SetMeta(_, value) => value.len() < VALUE_BYTES_MAX,
        Write::TruncateFrom(_)
        | Write::PurgeTo(_)
        | Write::PurgeAcceptedTo(_)
        | Write::ClearAccepted => false,
    }
}

/// The same in as few writes as there are kinds and values: sled makes each of them durable on its
/// own, and packs only the records of one into shared values.
///
/// Only for writes that the journal takes and still has. They add, each where no other does, so
/// their order matters to a crash alone, after which the journal has all of them once more.
fn joined(writes: Vec<Write>) -> Vec<Write> {
    let (mut log, mut accepted, mut meta) = (Vec::new(), Vec::new(), BTreeMap::new());
    let mut others = Vec::new();
    for write in writes {
        match write {
            Write::Append(mut records) => log.append(&mut records),
            Write::PutAccepted(mut records) => accepted.append(&mut records),
            Write::SetMeta(key, value) => {
                meta.insert(key, value);
            }
            other => others.push(other),
        }
    }
    debug_assert!(others.is_empty(), "the journal takes no {others:?}");
    let metas = meta
        .into_iter()
        .map(|(key, value)| Write::SetMeta(key, value));
    let records = [Write::Append(log), Write::PutAccepted(accepted)];
    records.into_iter().chain(metas).chain(others).collect()
}

/// What of a write does not stand in a log of these bounds.
fn not_before(write: Write, bounds: Bounds) -> Option<Write> {
    match (write, bounds) {
        (Write::Append(mut records), Some((_, last))) => {
            records.retain(|record| record.index > last);
            (!records.is_empty()).then_some(Write::Append(records))
        }
        (write, _) => Some(write),
    }
}

impl LogDisk for SledDisk {
    type Reader = SledReader;

    fn write(&mut self, writes: Vec<Write>) -> Result<(), Error> {
        writes.iter().try_fold(self.bounds, bounds_after)?;
        self.step(|disk| disk.try_write(writes))
    }

    fn sync(&mut self) -> Result<(), Error> {
        self.step(Self::try_sync)
    }

    fn tidy(&mut self) -> Result<(), Error> {
        if self.journaled_bytes < MOVE_BYTES {
            return Ok(());
        }
        self.step(|disk| {
            disk.move_on()?;
            disk.sync_base()
        })
    }

    fn reader(&self) -> SledReader {
        SledReader::new(self.base.reader(), Arc::clone(&self.overlay))
    }

    fn disk_bytes(&self) -> Result<u64, Error> {
        self.base.disk_bytes()
    }
}

//! A copy of a store that takes no more room than what is in it.

use std::fs;
use std::path::Path;

use quorate_types::LogIndex;

use super::failure::Failure;
use super::values::ALL;
use super::{Options, SledDisk};
use crate::{Error, LogDisk, LogRead, Write};

/// What is held of the old store at once.
const BATCH_BYTES: usize = 4 << 20;

/// Bytes of the files before and after.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Compacted {
    pub before: u64,
    pub after: u64,
}

impl SledDisk {
    /// Writes all that the store in `from` holds into a new one in `to`, which must not exist, and
    /// reads it back. Durable when it returns; `from` is as it was.
    ///
    /// sled uses the room of what was removed again and never gives it back: this does.
    ///
    /// # Errors
    /// [`Error::InUse`] while a process has `from` open, or that of either disk. What is in `to`
    /// then is of no use.
    pub fn copy(from: &Path, to: &Path, options: &Options) -> Result<Compacted, Error> {
        fs::create_dir(to).map_err(|error| Failure::from(error).at("make a folder", to))?;
        let old = Self::open(from, options)?;
        let mut new = Self::open(to, options)?;
        let reader = old.reader();
        for key in ALL {
            if let Some(value) = reader.meta(key)? {
                new.write(vec![Write::SetMeta(key, value)])?;
            }
        }
        if let Some((first, last)) = reader.bounds()? {
            let mut next = first;
            while next <= last {
                let records = reader.read(next..last.next(), BATCH_BYTES)?;
                next = after(&records, from)?;
                new.write(vec![Write::Append(records)])?;
                new.sync()?;
                new.tidy()?;
            }
        }
        let mut next = LogIndex::ZERO;
        loop {
            let records = reader.read_accepted(next..LogIndex(u64::MAX), BATCH_BYTES)?;
            if records.is_empty() {
                break;
            }
            next = after(&records, from)?;
            new.write(vec![Write::PutAccepted(records)])?;
            new.sync()?;
            new.tidy()?;
        }
        new.sync()?;
        compare(&reader, &new.reader(), to)?;
        Ok(Compacted {
            before: old.disk_bytes()?,
            after: new.disk_bytes()?,
        })
    }
}

fn after(records: &[crate::Record], dir: &Path) -> Result<LogIndex, Error> {
    let last = records.last().map(|record| record.index.next());
    last.ok_or_else(|| Failure::Damage("an entry of the log is missing").at("copy", dir))
}

/// What is read of both must be the same, to the last byte.
fn compare(old: &impl LogRead, new: &impl LogRead, dir: &Path) -> Result<(), Error> {
    let differs = || Failure::Damage("a copy is not what it was made of").at("compare", dir);
    let same = |same: bool| same.then_some(()).ok_or_else(differs);
    for key in ALL {
        same(old.meta(key)? == new.meta(key)?)?;
    }
    let bounds = old.bounds()?;
    same(bounds == new.bounds()?)?;
    if let Some((first, last)) = bounds {
        let mut next = first;
        while next <= last {
            let records = old.read(next..last.next(), BATCH_BYTES)?;
            same(records == new.read(next..last.next(), BATCH_BYTES)?)?;
            next = after(&records, dir)?;
        }
    }
    let mut next = LogIndex::ZERO;
    loop {
        let range = next..LogIndex(u64::MAX);
        let records = old.read_accepted(range.clone(), BATCH_BYTES)?;
        same(records == new.read_accepted(range, BATCH_BYTES)?)?;
        match records.last() {
            Some(last) => next = last.index.next(),
            None => return Ok(()),
        }
    }
}

//! What is not in sled yet, in memory, and the reading of both.

use std::ops::Range;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use bytes::Bytes;
use quorate_types::LogIndex;

use super::reader::BaseReader;
use crate::contents::{Bounds, Contents};
use crate::{Error, LogRead, MetaKey, Record, Write};

/// The writes that sled does not have, as what they add to it.
#[derive(Debug)]
pub(super) struct Overlay(RwLock<View>);

#[derive(Debug)]
struct View {
    added: Contents,
    /// Of the whole log.
    bounds: Bounds,
    /// How often something was taken away from sled: a read that saw it before and after is void.
    cuts: u64,
}

impl Overlay {
    pub(super) fn new(bounds: Bounds) -> Self {
        Self(RwLock::new(View {
            added: Contents::default(),
            bounds,
            cuts: 0,
        }))
    }

    pub(super) fn add(&self, write: &Write, bounds: Bounds) {
        let mut view = self.change();
        view.added.apply(write);
        view.bounds = bounds;
    }

    /// Sled has everything now but `left`. To be called after that is so: a reader looks here
    /// first.
    pub(super) fn replace(&self, left: &[Write], bounds: Bounds) {
        let mut added = Contents::default();
        left.iter().for_each(|write| added.apply(write));
        let mut view = self.change();
        // What it held is freed when nobody waits for the lock any more.
        let old = std::mem::replace(&mut view.added, added);
        view.bounds = bounds;
        drop(view);
        drop(old);
    }

    /// Something was taken away from sled, and nothing was added since.
    pub(super) fn cut(&self, bounds: Bounds) {
        let mut view = self.change();
        view.bounds = bounds;
        view.cuts += 1;
    }

    fn change(&self) -> RwLockWriteGuard<'_, View> {
        self.0.write().unwrap_or_else(PoisonError::into_inner)
    }

    fn view(&self) -> RwLockReadGuard<'_, View> {
        self.0.read().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Reads a [`SledDisk`](super::SledDisk), at any time, from any thread.
///
/// It looks at what is in memory first and at sled then: what moves on between is seen twice, never
/// not at all.
#[derive(Clone, Debug)]
pub struct SledReader {
    base: BaseReader,
    overlay: Arc<Overlay>,
}

impl SledReader {
    pub(super) fn new(base: BaseReader, overlay: Arc<Overlay>) -> Self {
        Self { base, overlay }
    }
}

impl LogRead for SledReader {
    fn bounds(&self) -> Result<Option<(LogIndex, LogIndex)>, Error> {
        Ok(self.overlay.view().bounds)
    }

    fn read(&self, range: Range<LogIndex>, bytes_max: usize) -> Result<Vec<Record>, Error> {
        loop {
            let view = self.overlay.view();
            let cuts = view.cuts;
            let Some((first, last)) = view.bounds else {
                return Ok(Vec::new());
            };
            if range.start < first || range.start > last {
                return Ok(Vec::new());
            }
            let added_from = view.added.bounds().map(|(first, _)| first);
            let below = range.start..added_from.map_or(range.end, |from| range.end.min(from));
            let above = range.start.max(below.end)..range.end;
            let added = view.added.read(above, bytes_max);
            drop(view);
            if below.is_empty() {
                return Ok(added);
            }
            let mut records = self.base.read(below, bytes_max)?;
            if self.overlay.view().cuts != cuts {
                continue;
            }
            extend(&mut records, added, bytes_max);
            return Ok(records);
        }
    }

    fn read_accepted(
        &self,
        range: Range<LogIndex>,
        bytes_max: usize,
    ) -> Result<Vec<Record>, Error> {
        loop {
            let view = self.overlay.view();
            let cuts = view.cuts;
            let added = view.added.read_accepted(range.clone(), bytes_max);
            drop(view);
            let mut merged = Contents::default();
            let mut rest = range.clone();
            let base = self.base.read_accepted(range.clone(), bytes_max)?;
            if let Some(last) = base.last().map(|record| record.index) {
                rest.start = last.next();
            }
            merged.apply(&Write::PutAccepted(base));
            // Sled may have stopped for want of room: what it has next would come before some of
            // what is added.
            let is_added_behind = added.last().is_some_and(|last| last.index >= rest.start);
            if rest.start > range.start && is_added_behind {
                let next = self.base.read_accepted(rest, 1)?;
                merged.apply(&Write::PutAccepted(next));
            }
            if self.overlay.view().cuts != cuts {
                continue;
            }
            merged.apply(&Write::PutAccepted(added));
            return Ok(merged.read_accepted(range, bytes_max));
        }
    }

    fn meta(&self, key: MetaKey) -> Result<Option<Bytes>, Error> {
        let added = self.overlay.view().added.meta(key);
        match added {
            Some(value) => Ok(Some(value)),
            None => self.base.meta(key),
        }
    }

    fn disk_bytes(&self) -> Result<u64, Error> {
        self.base.disk_bytes()
    }

    fn free_bytes(&self) -> Result<Option<u64>, Error> {
        self.base.free_bytes()
    }
}

/// Adds what follows `records` without a gap, as long as there is room.
fn extend(records: &mut Vec<Record>, more: Vec<Record>, bytes_max: usize) {
    let mut bytes_sum: usize = records.iter().map(|record| record.bytes.len()).sum();
    for record in more {
        bytes_sum = bytes_sum.saturating_add(record.bytes.len());
        let follows = records
            .last()
            .is_some_and(|last| last.index.next() == record.index);
        if !follows || bytes_sum > bytes_max {
            return;
        }
        records.push(record);
    }
}

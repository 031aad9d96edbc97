//! Which end of a binlog must go before its server starts.

use std::io::Read;

use quorate_types::Gtid;

use crate::classify::{Class, Obstacle};
use crate::file::{Damage, FileScanner, Found, Group, ScanError};
use crate::rewrite::empty_checksum;

/// What to do with a binlog before its server starts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CutPlan {
    Nothing,
    Cut(Cut),
    Clone { reason: CloneReason },
}

/// Where to cut. The server rolls back what it cannot find in its binlog.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cut {
    pub file: String,
    /// The new length of the file.
    pub offset: u64,
    /// The files after it, to be dropped from the index file.
    pub drop_files: Vec<String>,
    /// What is cut off, in order, as far as it can be read.
    pub tail: Vec<TailGroup>,
}

/// A transaction that is cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TailGroup {
    pub file: String,
    pub group: Group,
}

/// Why cutting does not give a server that agrees with the accepted transactions.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CloneReason {
    #[error("accepted transaction {accepted} follows what is not accepted in {file}")]
    AcceptedAfterRejected { accepted: Gtid, file: String },
    #[error("{gtid} in {file} is not the accepted transaction of that GTID")]
    ChecksumDiffers { gtid: Gtid, file: String },
    #[error("{gtid} in {file} would not be rolled back: {obstacle}")]
    NotRollbackable {
        gtid: Gtid,
        file: String,
        obstacle: Obstacle,
    },
    #[error("damage inside of {file} at {offset}, transactions follow it: {damage}")]
    DamageInside {
        file: String,
        offset: u64,
        damage: Damage,
    },
    #[error("{file} is damaged at its beginning: {damage}")]
    NoFileToKeep { file: String, damage: Damage },
}

/// Judges the binlog file by file, in the order of the index file, keeping only the tail.
///
/// - The tail starts at the first transaction that is not accepted, or at the first damage.
/// - Inert transactions that are not accepted neither start a tail nor count as a hole.
/// - An accepted transaction behind the tail's start, one of the server's own with other content
///   than the accepted one of its GTID, or a tail with anything that is not rolled back: clone.
/// - Damage with no whole transaction behind it is a torn end, and is cut. With one behind it, what
///   was damaged cannot be told, so it cannot be said to roll back: clone.
pub struct Planner<'a> {
    accepted: &'a dyn Fn(&Gtid) -> bool,
    checksum_of: &'a dyn Fn(&Gtid) -> Option<u32>,
    file: String,
    /// Whether the current file's head, up to `Previous_gtids`, is there.
    has_head: bool,
    any_head: bool,
    /// The file before the current one, and its length.
    before: Option<(String, u64)>,
    cut: Option<Cut>,
    damage: Option<(String, u64, Damage)>,
    clone: Option<CloneReason>,
}

impl<'a> Planner<'a> {
    /// `checksum_of` gives none for an accepted transaction that the index no longer holds.
    #[must_use]
    pub fn new(
        accepted: &'a dyn Fn(&Gtid) -> bool,
        checksum_of: &'a dyn Fn(&Gtid) -> Option<u32>,
    ) -> Self {
        Self {
            accepted,
            checksum_of,
            file: String::new(),
            has_head: false,
            any_head: false,
            before: None,
            cut: None,
            damage: None,
            clone: None,
        }
    }

    /// What is pushed from now on is of this file.
    pub fn begin_file(&mut self, name: &str) {
        self.has_head = false;
        name.clone_into(&mut self.file);
        if let Some(cut) = &mut self.cut {
            cut.drop_files.push(self.file.clone());
        }
    }

    /// The current file was read to its end.
    pub fn end_file(&mut self, len: u64) {
        self.before = Some((std::mem::take(&mut self.file), len));
    }

    /// True if the verdict is clear: the rest need not be read.
    pub fn push(&mut self, found: Found) -> bool {
        let reason = match found {
            Found::PreviousGtids(_) => {
                self.has_head = true;
                self.any_head = true;
                None
            }
            Found::Damage { offset, damage } => {
                self.start_tail_at_damage(offset);
                let first = (self.file.clone(), offset, damage);
                self.damage.get_or_insert(first);
                None
            }
            Found::Group(group) => self.group(group).err(),
        };
        self.clone = reason;
        self.clone.is_some()
    }

    fn group(&mut self, group: Group) -> Result<(), CloneReason> {
        let gtid = group.gtid;
        let file = || self.file.clone();
        let accepted = (self.accepted)(&gtid);
        if accepted && self.cut.is_some() {
            return Err(CloneReason::AcceptedAfterRejected {
                accepted: gtid,
                file: file(),
            });
        }
        if accepted {
            return match self.has_other_content(&group) {
                true => Err(CloneReason::ChecksumDiffers { gtid, file: file() }),
                false => Ok(()),
            };
        }
        match group.class {
            Class::Inert if self.cut.is_none() => return Ok(()),
            Class::Inert | Class::Rollbackable(_) => {}
            Class::NotRollbackable(obstacle) => {
                return Err(CloneReason::NotRollbackable {
                    gtid,
                    file: file(),
                    obstacle,
                });
            }
        }
        if let Some((file, offset, damage)) = self.damage.clone() {
            return Err(CloneReason::DamageInside {
                file,
                offset,
                damage,
            });
        }
        self.start_tail(group.start);
        let file = self.file.clone();
        if let Some(cut) = &mut self.cut {
            cut.tail.push(TailGroup { file, group });
        }
        Ok(())
    }

    /// Whether the server committed, as its own, another transaction under an accepted one's GTID.
    fn has_other_content(&self, group: &Group) -> bool {
        // What it applied as a replica came from the accepted ones.
        let Some(wanted) = (self.checksum_of)(&group.gtid).filter(|_| group.is_original) else {
            return false;
        };
        // The cluster took an inert transaction of one server in as an empty one.
        let inert = group.class == Class::Inert;
        wanted != group.checksum && !(inert && wanted == empty_checksum(group.gtid))
    }

    /// A file without a whole head is dropped, since the server that was writing it had nothing
    /// in it yet: the tail starts at the end of the file before.
    fn start_tail_at_damage(&mut self, offset: u64) {
        match self.before.clone() {
            Some((file, offset)) if !self.has_head && self.cut.is_none() => {
                self.cut = Some(Cut {
                    file,
                    offset,
                    drop_files: vec![self.file.clone()],
                    tail: Vec::new(),
                });
            }
            _ => self.start_tail(offset),
        }
    }

    fn start_tail(&mut self, offset: u64) {
        self.cut.get_or_insert_with(|| Cut {
            file: self.file.clone(),
            offset,
            drop_files: Vec::new(),
            tail: Vec::new(),
        });
    }

    #[must_use]
    pub fn finish(self) -> CutPlan {
        match (self.clone, self.cut, self.damage) {
            (Some(reason), _, _) => CutPlan::Clone { reason },
            // A first file that is cut at its head is no binlog: there is nothing to start from.
            (None, Some(cut), Some((file, _, damage))) if !self.any_head && cut.file == file => {
                let reason = CloneReason::NoFileToKeep { file, damage };
                CutPlan::Clone { reason }
            }
            (None, Some(cut), _) => CutPlan::Cut(cut),
            (None, None, _) => CutPlan::Nothing,
        }
    }
}

/// Scans all files, in the order of the index file, and says what to do.
///
/// # Errors
/// If a file cannot be read or is encrypted.
pub fn plan<R: Read>(
    files: impl IntoIterator<Item = (String, R)>,
    accepted: &dyn Fn(&Gtid) -> bool,
    checksum_of: &dyn Fn(&Gtid) -> Option<u32>,
) -> Result<CutPlan, ScanError> {
    let mut planner = Planner::new(accepted, checksum_of);
    for (name, reader) in files {
        planner.begin_file(&name);
        let mut scanner = FileScanner::new(reader);
        while let Some(found) = scanner.next_found()? {
            if planner.push(found) {
                return Ok(planner.finish());
            }
        }
        planner.end_file(scanner.offset());
    }
    Ok(planner.finish())
}

/// The files that an index file names, in order, relative to the index file's folder if so written.
///
/// # Errors
/// The number (from 1) of the first line that is not UTF-8.
pub fn parse_index(bytes: &[u8]) -> Result<Vec<std::path::PathBuf>, usize> {
    let lines = bytes.split(|byte| *byte == b'\n').enumerate();
    let names = lines.map(|(at, line)| {
        let line = line.strip_suffix(b"\r").unwrap_or(line);
        std::str::from_utf8(line).map_err(|_| at + 1)
    });
    names
        .filter(|name| !matches!(name, Ok("")))
        .map(|name| name.map(std::path::PathBuf::from))
        .collect()
}

//! The journal: groups of writes in one file of a fixed size, each made durable by one write.
//!
//! A frame is written behind the last one. When there is no room, or sled has made durable all that
//! came before, the next one goes to the beginning again. Frames are numbered; sled knows the last
//! one that it has whole, so those that count are the ones behind it, in order. At most one frame is
//! written and not synced at any time, so only the last one can be torn: a whole frame behind a
//! damaged one means that something that was synced is gone.
//!
//! Frames hold what clients wrote, and what an earlier pass left stands behind the last one. So each
//! bears a key of its file that nobody else knows: no row can pass for a frame.

use std::fs::{self, File};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::FileExt;
use std::path::Path;

use bytes::Bytes;
use quorate_types::LogIndex;

use super::SyncMode;
use super::failure::Failure;
use super::values::{ALL, tag};
use crate::{Error, MetaKey, Record, Write};

const NAME: &str = "journal";
/// Written whole once, so that a sync has only contents to write, no sizes and no places.
const FILE_BYTES: usize = 8 << 20;
/// What the file begins with; then its key, and a checksum over both.
const MAGIC: [u8; 8] = *b"QRTJRNL\x01";
/// Where the first frame begins.
const FRAMES_AT: usize = 4096;
/// The file's key, checksum over the rest, length of what follows, number.
const HEADER_BYTES: usize = 24;
/// Where frames may begin.
const ALIGN: usize = 8;

const APPEND: u8 = b'a';
const SET_META: u8 = b'm';
const PUT_ACCEPTED: u8 = b'p';

#[derive(Debug)]
pub(super) struct Journal {
    file: File,
    dir: std::path::PathBuf,
    sync: SyncMode,
    key: [u8; 8],
    /// Where the next frame goes.
    at: usize,
    last_frame: u64,
    /// The next frame, if it was prepared; kept for its memory.
    frame: Vec<u8>,
}

impl Journal {
    /// Opens the file, or makes it; gives what its frames behind `mark` hold.
    pub(super) fn open(
        dir: &Path,
        sync: SyncMode,
        mark: u64,
    ) -> Result<(Self, Vec<Write>), Failure> {
        let path = dir.join(NAME);
        if !path.exists() {
            if mark > 0 {
                return Err(Failure::Damage("the journal is missing"));
            }
            create(dir)?;
        }
        let file = File::options().read(true).write(true).open(&path)?;
        let bytes = fs::read(&path)?;
        if bytes.len() != FILE_BYTES {
            return Err(Failure::Damage("the journal has the wrong size"));
        }
        let key = read_head(&bytes)?;
        let (last_frame, writes) = read_frames(key, &bytes, mark)?;
        let journal = Self {
            file,
            dir: dir.to_path_buf(),
            sync,
            key,
            at: FRAMES_AT,
            last_frame,
            frame: Vec::new(),
        };
        Ok((journal, writes))
    }

    /// The number of the last frame.
    pub(super) fn last_frame(&self) -> u64 {
        self.last_frame
    }

    /// The next frame goes to the beginning. Sled must have made durable that it has the last one.
    pub(super) fn restart(&mut self) {
        self.at = FRAMES_AT;
    }

    /// Makes a frame of a group; says whether there is room for it.
    pub(super) fn prepare(&mut self, group: &[Write]) -> bool {
        self.frame.clear();
        self.frame.resize(HEADER_BYTES, 0);
        // Of a small value only the last one in a group counts.
        let last_of = ALL.map(|key| {
            let is_it = |write: &Write| matches!(write, Write::SetMeta(other, _) if *other == key);
            group.iter().rposition(is_it)
        });
        for (position, write) in group.iter().enumerate() {
            if !matches!(write, Write::SetMeta(..)) || last_of.contains(&Some(position)) {
                encode(&mut self.frame, write);
            }
        }
        self.frame
            .resize(self.frame.len().next_multiple_of(ALIGN), 0);
        let number = self.last_frame + 1;
        let length = u32::try_from(self.frame.len() - HEADER_BYTES).unwrap_or(u32::MAX);
        self.frame[..8].copy_from_slice(&self.key);
        self.frame[12..16].copy_from_slice(&length.to_be_bytes());
        self.frame[16..24].copy_from_slice(&number.to_be_bytes());
        let checksum = crc32fast::hash(&self.frame[12..]);
        self.frame[8..12].copy_from_slice(&checksum.to_be_bytes());
        self.has_room()
    }

    /// Whether there is room for the prepared frame.
    pub(super) fn has_room(&self) -> bool {
        self.at + self.frame.len() <= FILE_BYTES
    }

    /// Makes the prepared frame durable.
    pub(super) fn write(&mut self) -> Result<(), Error> {
        self.try_write()
            .map_err(|error| Failure::from(error).at("write the journal", &self.dir))
    }

    fn try_write(&mut self) -> io::Result<()> {
        self.file.write_all_at(&self.frame, self.at as u64)?;
        if self.sync == SyncMode::Fdatasync {
            self.file.sync_data()?;
        }
        self.at += self.frame.len();
        self.last_frame += 1;
        Ok(())
    }
}

/// Under another name first: there is no journal, or a whole one.
fn create(dir: &Path) -> Result<(), Failure> {
    let fresh = dir.join("journal.new");
    let mut key = [0; 8];
    File::open("/dev/urandom")?.read_exact(&mut key)?;
    let mut file = File::create(&fresh)?;
    file.write_all(&head(key))?;
    file.write_all(&vec![0; FILE_BYTES - FRAMES_AT])?;
    file.sync_all()?;
    fs::rename(&fresh, dir.join(NAME))?;
    File::open(dir)?.sync_all()?;
    Ok(())
}

fn head(key: [u8; 8]) -> Vec<u8> {
    let mut head = [MAGIC, key].concat();
    head.extend_from_slice(&crc32fast::hash(&head).to_be_bytes());
    head.resize(FRAMES_AT, 0);
    head
}

fn read_head(file: &[u8]) -> Result<[u8; 8], Failure> {
    let mut rest = file;
    let magic: Option<[u8; 8]> = take(&mut rest);
    let key = take(&mut rest).filter(|_| magic == Some(MAGIC));
    key.filter(|key| file.starts_with(&head(*key)))
        .ok_or(Failure::Damage("the journal does not begin as one does"))
}

/// The number of the last frame there ever was, and what those behind `mark` hold.
fn read_frames(key: [u8; 8], file: &[u8], mark: u64) -> Result<(u64, Vec<Write>), Failure> {
    let mut last = None;
    let mut writes = Vec::new();
    let mut at = FRAMES_AT;
    while let Some((number, content)) = frame_at(key, file, at) {
        if last.is_some_and(|last| number != last + 1) {
            break;
        }
        if last.is_none() && number > mark + 1 {
            return Err(Failure::Damage("the journal's first frames are missing"));
        }
        if number > mark {
            decode(content, &mut writes)?;
        }
        last = Some(number);
        at += HEADER_BYTES + content.len();
    }
    let last = last.map_or(mark, |last| last.max(mark));
    let lost = |at: &usize| frame_at(key, file, *at).is_some_and(|(number, _)| number > last);
    if (at..file.len()).step_by(ALIGN).any(|at| lost(&at)) {
        return Err(Failure::Damage("a frame of the journal is damaged"));
    }
    Ok((last, writes))
}

/// The number and the content of the frame that begins here, if there is a whole one.
fn frame_at(key: [u8; 8], file: &[u8], at: usize) -> Option<(u64, &[u8])> {
    let rest = file.get(at..)?;
    let header = rest.get(..HEADER_BYTES)?;
    if header[..8] != key {
        return None;
    }
    let word = |at: usize| {
        u32::from_be_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let length = usize::try_from(word(12)).ok()?;
    let content = rest.get(HEADER_BYTES..HEADER_BYTES.checked_add(length)?)?;
    if crc32fast::hash(&rest[12..HEADER_BYTES + length]) != word(8) {
        return None;
    }
    let number = u64::from(word(16)) << 32 | u64::from(word(20));
    Some((number, content))
}

/// Kind, count, and then for each record its index, length and bytes; a small value is a record
/// with its letter for an index. The content of a frame ends with zeros or its end.
fn encode(out: &mut Vec<u8>, write: &Write) {
    match write {
        Write::Append(records) => put(out, APPEND, records),
        Write::PutAccepted(records) => put(out, PUT_ACCEPTED, records),
        Write::SetMeta(key, value) => {
            let index = LogIndex(tag(*key).into());
            let bytes = value.clone();
            put(out, SET_META, &[Record { index, bytes }]);
        }
        // Never in a journal: they take something away.
        Write::TruncateFrom(_)
        | Write::PurgeTo(_)
        | Write::PurgeAcceptedTo(_)
        | Write::ClearAccepted => {}
    }
}

fn put(out: &mut Vec<u8>, kind: u8, records: &[Record]) {
    out.push(kind);
    out.extend_from_slice(&(records.len() as u32).to_be_bytes());
    for record in records {
        out.extend_from_slice(&record.index.0.to_be_bytes());
        out.extend_from_slice(&(record.bytes.len() as u32).to_be_bytes());
        out.extend_from_slice(&record.bytes);
    }
}

fn decode(mut content: &[u8], writes: &mut Vec<Write>) -> Result<(), Failure> {
    const SHORT: Failure = Failure::Damage("a frame of the journal ends too early");
    while let Some((&kind, rest)) = content.split_first() {
        if kind == 0 {
            break;
        }
        content = rest;
        let count = take(&mut content).map(u32::from_be_bytes).ok_or(SHORT)?;
        let mut records = Vec::new();
        for _ in 0..count {
            let index = take(&mut content).map(u64::from_be_bytes).ok_or(SHORT)?;
            let length = take(&mut content).map(u32::from_be_bytes).ok_or(SHORT)?;
            let (bytes, rest) = content.split_at_checked(length as usize).ok_or(SHORT)?;
            content = rest;
            records.push(Record {
                index: LogIndex(index),
                bytes: Bytes::copy_from_slice(bytes),
            });
        }
        match kind {
            APPEND => writes.push(Write::Append(records)),
            PUT_ACCEPTED => writes.push(Write::PutAccepted(records)),
            SET_META => {
                for record in records {
                    let key = meta_key(record.index.0);
                    let unknown = Failure::Damage("the journal has a value of an unknown name");
                    writes.push(Write::SetMeta(key.ok_or(unknown)?, record.bytes));
                }
            }
            _ => {
                return Err(Failure::Damage(
                    "the journal has a write of an unknown kind",
                ));
            }
        }
    }
    Ok(())
}

fn meta_key(letter: u64) -> Option<MetaKey> {
    ALL.into_iter().find(|key| u64::from(tag(*key)) == letter)
}

fn take<const N: usize>(content: &mut &[u8]) -> Option<[u8; N]> {
    let (first, rest) = content.split_first_chunk()?;
    *content = rest;
    Some(*first)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::suite::records;

    const KEY: [u8; 8] = *b"own key!";

    fn frame(number: u64, group: &[Write]) -> Vec<u8> {
        let dir = tempfile::tempdir().unwrap();
        let (mut journal, _) = Journal::open(dir.path(), SyncMode::Fdatasync, 0).unwrap();
        journal.key = KEY;
        journal.last_frame = number - 1;
        assert!(journal.prepare(group));
        journal.frame
    }

    fn file(frames: &[Vec<u8>]) -> Vec<u8> {
        let mut file = head(KEY);
        file.extend(frames.concat());
        file.resize(FILE_BYTES, 0);
        file
    }

    fn group(from: u64) -> Vec<Write> {
        vec![
            Write::Append(records(from..from + 2, 77)),
            Write::SetMeta(MetaKey::Committed, Bytes::from_static(b"old")),
            Write::PutAccepted(records(from..from + 1, 5)),
            Write::SetMeta(MetaKey::Committed, Bytes::from_static(b"new")),
        ]
    }

    fn last_and_appended(file: &[u8], mark: u64) -> Result<(u64, Vec<u64>), String> {
        let read = read_head(file).and_then(|key| read_frames(key, file, mark));
        let (last, writes) = read.map_err(|error| format!("{error:?}"))?;
        let appended = writes.iter().filter_map(|write| match write {
            Write::Append(records) => Some(records[0].index.0),
            _ => None,
        });
        Ok((last, appended.collect()))
    }

    #[test]
    fn what_counts_is_behind_the_mark_and_in_order() {
        let frames: Vec<_> = (5..9).map(|n| frame(n, &group(n * 10))).collect();
        let found = |mark| last_and_appended(&file(&frames), mark);
        assert_eq!(found(4), Ok((8, vec![50, 60, 70, 80])));
        assert_eq!(found(6), Ok((8, vec![70, 80])));
        assert_eq!(found(8), Ok((8, vec![])));
        // A folder with a later mark overwrote none of them.
        assert_eq!(found(12), Ok((12, vec![])));
        assert!(found(3).is_err());
        let again = file(&[frame(9, &group(90)), frames[1].clone()]);
        assert_eq!(last_and_appended(&again, 8), Ok((9, vec![90])));
    }

    #[test]
    fn a_group_is_read_as_it_was_but_for_values_that_were_replaced() {
        let (_, writes) = read_frames(KEY, &file(&[frame(1, &group(10))]), 0).unwrap();
        let mut expected = group(10);
        expected.remove(1);
        assert_eq!(format!("{writes:?}"), format!("{expected:?}"));
    }

    #[test]
    fn the_last_frame_may_be_torn_and_no_other() {
        let frames: Vec<_> = (1..4).map(|n| frame(n, &group(n * 10))).collect();
        let lengths: Vec<_> = frames.iter().map(Vec::len).collect();
        let whole = file(&frames);
        let mut torn = whole;
        for at in (0..20).chain(FRAMES_AT..FRAMES_AT + lengths.iter().sum::<usize>()) {
            torn[at] ^= 0x55;
            let found = last_and_appended(&torn, 0);
            torn[at] ^= 0x55;
            if at < FRAMES_AT + lengths[0] + lengths[1] {
                assert!(found.is_err(), "{at}: {found:?}");
            } else {
                assert_eq!(found, Ok((2, vec![10, 20])), "{at}");
            }
        }
        assert_eq!(last_and_appended(&file(&[]), 7), Ok((7, vec![])));
    }

    #[test]
    fn what_a_client_wrote_is_never_a_frame() {
        let mut forged = frame(2, &group(20));
        forged[..8].copy_from_slice(b"guessed!");
        let row = Write::Append(vec![Record {
            index: LogIndex(10),
            bytes: Bytes::from([vec![0; 7], forged.clone()].concat()),
        }]);
        let found = last_and_appended(&file(&[frame(1, &[row]), forged.clone()]), 0);
        assert_eq!(found, Ok((1, vec![10])));
        // What an earlier pass left behind the last frame.
        let found = last_and_appended(&file(&[frame(1, &group(10)), vec![0; 16], forged]), 0);
        assert_eq!(found, Ok((1, vec![10])));
    }
}

//! The tree of the small values that stand beside the log, and of the store's own marks.

use std::collections::BTreeMap;

use bytes::Bytes;
use quorate_types::LogIndex;
use sled::{Batch, Tree};

use super::failure::Failure;
use super::frame::{self, Kind, PAYLOAD_BYTES_MAX, seal, unseal};
use super::records::apply_in_batches;
use crate::MetaKey;

/// What a key of this tree begins with.
const VALUE: u8 = b'v';
const PIECE: u8 = b'p';
const FLOOR: u8 = b'f';
const MARK: &[u8] = b"mark";
const JOURNAL: &[u8] = b"journal";
const FORMAT: &[u8] = b"format";
const FORMAT_NUMBER: &[u8] = &[0, 1];
/// Why a stored value may not be larger: reading one must not take all memory.
const VALUE_BYTES_MAX: usize = 64 << 20;

/// Which tree of records a floor belongs to: nothing below its floor exists any more.
#[derive(Clone, Copy, Debug)]
pub(super) enum Floor {
    Log = b'l' as isize,
    Accepted = b'a' as isize,
}

/// The reading side.
#[derive(Clone, Debug)]
pub(super) struct Values {
    tree: Tree,
}

/// The writing side's knowledge: under which generation a value's pieces are, if it has any.
#[derive(Debug, Default)]
pub(super) struct Generations(BTreeMap<MetaKey, u64>);

impl Values {
    pub(super) fn new(tree: Tree) -> Self {
        Self { tree }
    }

    /// Refuses a folder of another format, marks a new one, and drops pieces that no pointer
    /// names: a crash came between them and their pointer.
    pub(super) fn recover(&self) -> Result<Generations, Failure> {
        match self.tree.get(FORMAT)? {
            Some(value) => {
                if unseal(FORMAT, &value)?.payload != FORMAT_NUMBER {
                    return Err(Failure::Damage("its format is not known to this version"));
                }
            }
            None => {
                self.tree
                    .insert(FORMAT, seal(FORMAT, Kind::Whole, 0, FORMAT_NUMBER))?;
            }
        }
        let mut generations = Generations::default();
        for key in ALL {
            if let Some((generation, _)) = self.pointer(key)? {
                generations.0.insert(key, generation);
            }
            self.drop_pieces(key, generations.0.get(&key).copied())?;
        }
        Ok(generations)
    }

    pub(super) fn get(&self, key: MetaKey) -> Result<Option<Bytes>, Failure> {
        let Some(value) = self.tree.get(value_key(key))? else {
            return Ok(None);
        };
        if let Some((generation, bytes_sum)) = self.pointer(key)? {
            return self.collect(key, generation, bytes_sum).map(Some);
        }
        Ok(Some(Bytes::copy_from_slice(
            unseal(&value_key(key), &value)?.payload,
        )))
    }

    /// The new pieces of a large value. Nobody sees them before [`Values::flip`].
    pub(super) fn put_pieces(
        &self,
        generations: &Generations,
        key: MetaKey,
        value: &[u8],
    ) -> Result<Option<u64>, Failure> {
        if value.len() <= PAYLOAD_BYTES_MAX {
            return Ok(None);
        }
        if value.len() > VALUE_BYTES_MAX {
            return Err(Failure::Io(std::io::ErrorKind::FileTooLarge.into()));
        }
        let generation = generations
            .0
            .get(&key)
            .map_or(0, |generation| generation + 1);
        let pieces = frame::pieces(value, |piece| piece_key(key, generation, piece));
        apply_in_batches(&self.tree, pieces)?;
        Ok(Some(generation))
    }

    /// Makes `value` the one that is read: one small write, so it is there whole or not at all.
    pub(super) fn flip(
        &self,
        key: MetaKey,
        generation: Option<u64>,
        value: &[u8],
    ) -> Result<(), Failure> {
        let place = value_key(key);
        let sealed = match generation {
            None => seal(&place, Kind::Whole, 0, value),
            Some(generation) => {
                let mut pointer = generation.to_be_bytes().to_vec();
                pointer.extend_from_slice(&(value.len() as u64).to_be_bytes());
                seal(&place, Kind::Pointer, 0, &pointer)
            }
        };
        self.tree.insert(place, sealed)?;
        Ok(())
    }

    /// Forgets the pieces of what `key` was before.
    pub(super) fn forget_old(
        &self,
        generations: &mut Generations,
        key: MetaKey,
        generation: Option<u64>,
    ) -> Result<(), Failure> {
        if generations.0.contains_key(&key) {
            self.drop_pieces(key, generation)?;
        }
        match generation {
            Some(generation) => generations.0.insert(key, generation),
            None => generations.0.remove(&key),
        };
        Ok(())
    }

    /// Whether `key` now has its value in pieces.
    pub(super) fn is_in_pieces(generations: &Generations, key: MetaKey) -> bool {
        generations.0.contains_key(&key)
    }

    pub(super) fn floor(&self, floor: Floor) -> Result<LogIndex, Failure> {
        let place = [FLOOR, floor as u8];
        let Some(value) = self.tree.get(place)? else {
            return Ok(LogIndex::ZERO);
        };
        let index = unseal(&place, &value)?.payload.try_into();
        let index = index.map_err(|_| Failure::Damage("a floor has the wrong length"))?;
        Ok(LogIndex(u64::from_be_bytes(index)))
    }

    pub(super) fn set_floor(&self, floor: Floor, index: LogIndex) -> Result<(), Failure> {
        let place = [FLOOR, floor as u8];
        self.tree
            .insert(place, seal(&place, Kind::Whole, 0, &index.0.to_be_bytes()))?;
        Ok(())
    }

    /// How far this tree knows that the log went: see `witness`.
    pub(super) fn mark(&self) -> Result<u64, Failure> {
        self.number(MARK)
    }

    pub(super) fn set_mark(&self, number: u64) -> Result<(), Failure> {
        self.set_number(MARK, number)
    }

    pub(super) fn journal_mark(&self) -> Result<u64, Failure> {
        self.number(JOURNAL)
    }

    pub(super) fn set_journal_mark(&self, frame: u64) -> Result<(), Failure> {
        self.set_number(JOURNAL, frame)
    }

    fn number(&self, place: &[u8]) -> Result<u64, Failure> {
        let Some(value) = self.tree.get(place)? else {
            return Ok(0);
        };
        let number = unseal(place, &value)?.payload.try_into();
        Ok(u64::from_be_bytes(number.map_err(|_| {
            Failure::Damage("a mark has the wrong length")
        })?))
    }

    fn set_number(&self, place: &[u8], number: u64) -> Result<(), Failure> {
        self.tree
            .insert(place, seal(place, Kind::Whole, 0, &number.to_be_bytes()))?;
        Ok(())
    }

    /// Generation and length of a value in pieces; nothing if the value is whole or not there.
    fn pointer(&self, key: MetaKey) -> Result<Option<(u64, u64)>, Failure> {
        let place = value_key(key);
        let Some(value) = self.tree.get(place)? else {
            return Ok(None);
        };
        let frame = unseal(&place, &value)?;
        match frame.kind {
            Kind::Whole => Ok(None),
            Kind::Pointer => {
                let wrong = |_| Failure::Damage("a pointer has the wrong length");
                let pointer: [u8; 16] = frame.payload.try_into().map_err(wrong)?;
                let pointer = u128::from_be_bytes(pointer);
                Ok(Some(((pointer >> 64) as u64, pointer as u64)))
            }
            Kind::Group | Kind::Piece => Err(Failure::Damage("a value is in the wrong tree")),
        }
    }

    fn collect(&self, key: MetaKey, generation: u64, bytes_sum: u64) -> Result<Bytes, Failure> {
        let mut bytes = Vec::new();
        let entries = self.tree.scan_prefix(generation_key(key, generation));
        for (expected, entry) in (0..).zip(entries) {
            let (place, value) = entry?;
            let frame = unseal(&place, &value)?;
            if place != piece_key(key, generation, expected) || frame.kind != Kind::Piece {
                return Err(Failure::Damage("a large value lacks a piece"));
            }
            bytes.extend_from_slice(frame.payload);
        }
        if bytes.len() as u64 != bytes_sum {
            return Err(Failure::Damage("a large value lacks a piece"));
        }
        Ok(Bytes::from(bytes))
    }

    fn drop_pieces(&self, key: MetaKey, except: Option<u64>) -> Result<(), Failure> {
        let mut batch = Batch::default();
        let kept = except.map(|generation| generation_key(key, generation));
        for place in self.tree.scan_prefix([PIECE, tag(key)]).keys() {
            let place = place?;
            if kept.is_none_or(|kept| !place.starts_with(&kept)) {
                batch.remove(place);
            }
        }
        self.tree.apply_batch(batch)?;
        Ok(())
    }
}

pub(super) const ALL: [MetaKey; 7] = [
    MetaKey::Identity,
    MetaKey::Vote,
    MetaKey::Committed,
    MetaKey::Purged,
    MetaKey::Snapshot,
    MetaKey::PeerStarts,
    MetaKey::Marks,
];

/// On disk for ever: a key keeps its letter.
pub(super) fn tag(key: MetaKey) -> u8 {
    match key {
        MetaKey::Identity => b'i',
        MetaKey::Vote => b'v',
        MetaKey::Committed => b'c',
        MetaKey::Purged => b'p',
        MetaKey::Snapshot => b's',
        MetaKey::PeerStarts => b'n',
        MetaKey::Marks => b'k',
    }
}

fn value_key(key: MetaKey) -> [u8; 2] {
    [VALUE, tag(key)]
}

fn generation_key(key: MetaKey, generation: u64) -> [u8; 10] {
    let mut place = [0; 10];
    place[..2].copy_from_slice(&[PIECE, tag(key)]);
    place[2..].copy_from_slice(&generation.to_be_bytes());
    place
}

fn piece_key(key: MetaKey, generation: u64, piece: u32) -> [u8; 14] {
    let mut place = [0; 14];
    place[..10].copy_from_slice(&generation_key(key, generation));
    place[10..].copy_from_slice(&piece.to_be_bytes());
    place
}

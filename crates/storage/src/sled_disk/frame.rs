//! The bytes of one sled value: a header with a checksum over the key too, then a payload.

use bytes::Bytes;
use quorate_types::LogIndex;

use crate::Record;

/// More than 64 KiB would let a page grow past a quarter of a segment, and sled then puts the page
/// into a file of its own that nobody syncs. It is less since each of the 256 parts of sled's cache
/// keeps one page, however small the cache is to be, and a page of the log has nine values or more.
pub(super) const VALUE_BYTES_MAX: usize = 16 << 10;

const MAGIC: u8 = 0x51;
const VERSION: u8 = 1;
const HEADER_BYTES: usize = 12;
const CHECKSUM_AT: std::ops::Range<usize> = 4..8;
pub(super) const PAYLOAD_BYTES_MAX: usize = VALUE_BYTES_MAX - HEADER_BYTES;
const LENGTH_BYTES: usize = 4;

/// What a value holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// Whole records with consecutive indexes, as many as the count says.
    Group = 1,
    /// One of the pieces of something too large for one value; the count is how many there are.
    Piece = 2,
    /// A small value, whole.
    Whole = 3,
    /// Where the pieces of a large value are.
    Pointer = 4,
}

/// What is wrong with bytes that were read.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Damage(pub(super) &'static str);

pub(super) struct Frame<'a> {
    pub(super) kind: Kind,
    pub(super) count: u32,
    pub(super) payload: &'a [u8],
}

pub(super) fn seal(key: &[u8], kind: Kind, count: u32, payload: &[u8]) -> Vec<u8> {
    let mut value = Vec::with_capacity(HEADER_BYTES + payload.len());
    value.extend_from_slice(&[MAGIC, VERSION, kind as u8, 0, 0, 0, 0, 0]);
    value.extend_from_slice(&count.to_be_bytes());
    value.extend_from_slice(payload);
    let checksum = checksum(key, &value);
    value[CHECKSUM_AT].copy_from_slice(&checksum.to_be_bytes());
    value
}

pub(super) fn unseal<'a>(key: &[u8], value: &'a [u8]) -> Result<Frame<'a>, Damage> {
    let Some((header, payload)) = value.split_at_checked(HEADER_BYTES) else {
        return Err(Damage("a value is shorter than its header"));
    };
    if header[0] != MAGIC {
        return Err(Damage("a value does not begin as values do"));
    }
    if header[1] != VERSION {
        return Err(Damage(
            "a value has a format that this version does not know",
        ));
    }
    if u32_at(header, CHECKSUM_AT.start) != checksum(key, value) {
        return Err(Damage("a value does not match its checksum"));
    }
    let kind = match header[2] {
        1 => Kind::Group,
        2 => Kind::Piece,
        3 => Kind::Whole,
        4 => Kind::Pointer,
        _ => return Err(Damage("a value is of an unknown kind")),
    };
    Ok(Frame {
        kind,
        count: u32_at(header, 8),
        payload,
    })
}

/// Over everything but the checksum itself. The key is in it: a value under a wrong key is damage.
fn checksum(key: &[u8], value: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    hasher.update(key);
    hasher.update(&value[..CHECKSUM_AT.start]);
    hasher.update(&value[CHECKSUM_AT.end..]);
    hasher.finalize()
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]])
}

/// A key of a tree of records: the first index that the value holds, and which piece it is.
pub(super) fn record_key(index: LogIndex, piece: u32) -> [u8; 12] {
    let mut key = [0; 12];
    key[..8].copy_from_slice(&index.0.to_be_bytes());
    key[8..].copy_from_slice(&piece.to_be_bytes());
    key
}

pub(super) fn parse_record_key(key: &[u8]) -> Result<(LogIndex, u32), Damage> {
    let key: [u8; 12] = key
        .try_into()
        .map_err(|_| Damage("a key has the wrong length"))?;
    let (index, piece) = key.split_at(8);
    let index = index.try_into().expect("eight of twelve bytes");
    Ok((LogIndex(u64::from_be_bytes(index)), u32_at(piece, 0)))
}

/// Records as keys and values: neighbours share a value where they fit and `packed` says so.
pub(super) fn encode(records: &[Record], packed: bool) -> Vec<([u8; 12], Vec<u8>)> {
    let mut values = Vec::new();
    let mut rest = records;
    while let Some(first) = rest.first() {
        let count = group_len(rest, packed);
        if count == 0 {
            values.extend(pieces(&first.bytes, |piece| record_key(first.index, piece)));
            rest = &rest[1..];
            continue;
        }
        let (group, after) = rest.split_at(count);
        let mut payload = Vec::new();
        for record in group {
            payload.extend_from_slice(&length(record.bytes.len()).to_be_bytes());
            payload.extend_from_slice(&record.bytes);
        }
        let key = record_key(first.index, 0);
        values.push((key, seal(&key, Kind::Group, length(count), &payload)));
        rest = after;
    }
    values
}

/// How many of the first records fit into one value.
fn group_len(records: &[Record], packed: bool) -> usize {
    let count_max = if packed { records.len() } else { 1 };
    let mut bytes_sum = 0;
    let mut fits = |record: &&Record| {
        bytes_sum += LENGTH_BYTES + record.bytes.len();
        bytes_sum <= PAYLOAD_BYTES_MAX
    };
    records[..count_max]
        .iter()
        .take_while(|record| fits(record))
        .count()
}

/// Cuts something too large for one value.
pub(super) fn pieces<K: AsRef<[u8]>>(bytes: &[u8], key: impl Fn(u32) -> K) -> Vec<(K, Vec<u8>)> {
    let count = length(bytes.len().div_ceil(PAYLOAD_BYTES_MAX));
    let chunks = bytes.chunks(PAYLOAD_BYTES_MAX);
    let seal_piece = |(number, chunk)| {
        let key = key(number);
        let value = seal(key.as_ref(), Kind::Piece, count, chunk);
        (key, value)
    };
    (0..count).zip(chunks).map(seal_piece).collect()
}

/// The records of a group's payload.
pub(super) fn decode_group(
    first: LogIndex,
    count: u32,
    mut payload: &[u8],
) -> Result<Vec<Record>, Damage> {
    let short = Damage("a group of records is shorter than it says");
    let mut records = Vec::new();
    for number in 0..u64::from(count) {
        let Some((header, rest)) = payload.split_at_checked(LENGTH_BYTES) else {
            return Err(short);
        };
        let Some((bytes, rest)) = rest.split_at_checked(u32_at(header, 0) as usize) else {
            return Err(short);
        };
        let index = first
            .0
            .checked_add(number)
            .ok_or(Damage("an index is too large"))?;
        records.push(Record {
            index: LogIndex(index),
            bytes: Bytes::copy_from_slice(bytes),
        });
        payload = rest;
    }
    if payload.is_empty() {
        Ok(records)
    } else {
        Err(Damage("a group of records has a tail"))
    }
}

fn length(length: usize) -> u32 {
    u32::try_from(length).expect("nothing of 4 GiB is ever written")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_payload_of_any_bytes_is_records_or_damage(
            first: u64,
            count: u32,
            payload in prop::collection::vec(any::<u8>(), 0..60),
        ) {
            if let Ok(records) = decode_group(LogIndex(first), count, &payload) {
                prop_assert_eq!(records.len(), count as usize);
            }
        }

        #[test]
        fn records_come_back_from_values_that_are_small_enough(
            lengths in prop::collection::vec(prop_oneof![0..900_usize, 60_000..140_000_usize], 0..9),
            packed: bool,
        ) {
            let record = |(index, length)| Record {
                index: LogIndex(index),
                bytes: Bytes::from(vec![index as u8; length]),
            };
            let records: Vec<_> = (7..).zip(lengths).map(record).collect();
            let mut found: Vec<Record> = Vec::new();
            let mut large = Vec::new();
            for (key, value) in encode(&records, packed) {
                prop_assert!(value.len() <= VALUE_BYTES_MAX);
                let (index, piece) = parse_record_key(&key).unwrap();
                let frame = unseal(&key, &value).unwrap();
                if frame.kind == Kind::Group {
                    found.extend(decode_group(index, frame.count, frame.payload).unwrap());
                    continue;
                }
                large.extend_from_slice(frame.payload);
                if piece + 1 == frame.count {
                    found.push(Record { index, bytes: std::mem::take(&mut large).into() });
                }
            }
            prop_assert_eq!(found, records);
        }

        #[test]
        fn a_value_with_one_wrong_bit_is_damage(
            payload in prop::collection::vec(any::<u8>(), 0..60),
            bit: usize,
        ) {
            let mut value = seal(b"key", Kind::Whole, 3, &payload);
            prop_assert!(unseal(b"another", &value).is_err());
            let bit = bit % (value.len() * 8);
            value[bit / 8] ^= 1 << (bit % 8);
            prop_assert!(unseal(b"key", &value).is_err());
        }
    }
}

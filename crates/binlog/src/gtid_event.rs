use quorate_types::{Gtid, SourceId, Tag, Uuid};

use crate::cursor::Cursor;
use crate::event::{Event, EventError, EventType};

/// What the event at the head of a transaction says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GtidEvent {
    pub gtid: Gtid,
    /// The logical clocks of the parallel applier; they restart with each binlog file.
    pub last_committed: i64,
    pub sequence_number: i64,
    /// When the first server committed it, in microseconds; equal on every server.
    pub original_commit_us: u64,
    /// When the server that wrote this event committed it.
    pub immediate_commit_us: u64,
    /// Bytes of the whole transaction, this event included, as the writing server counted them.
    pub transaction_length: u64,
}

const LOGICAL_CLOCK: u8 = 2;
const CLOCK_TYPE_AT: usize = 25;
const LAST_COMMITTED_AT: usize = 26;
const SEQUENCE_NUMBER_AT: usize = 34;
/// How much of a [`EventType::GTID`] event's body ends with the logical clocks.
pub const CLOCKS_END: usize = 42;
const SERIALIZATION_VERSION: u64 = 1;

/// Lets at most `most` transactions run beside each other on a parallel applier, by the clocks in
/// the beginning of a GTID event's body: the transaction then depends on more than its source says,
/// which is always right.
///
/// MySQL's applier spins as long as a transaction could run and all its workers are busy
/// (`Mts_submode_logical_clock::get_least_occupied_worker`), for minutes if it is behind; where a
/// transaction depends on another it sleeps. So `most` should be the number of its workers.
pub fn limit_parallel(front: &mut [u8; CLOCKS_END], most: u32) {
    let clock = |at: usize| {
        let bytes = front[at..at + 8].try_into().expect("it has eight bytes");
        i64::from_le_bytes(bytes)
    };
    let (last_committed, sequence_number) = (clock(LAST_COMMITTED_AT), clock(SEQUENCE_NUMBER_AT));
    let least = sequence_number.saturating_sub(most.into());
    if front[CLOCK_TYPE_AT] == LOGICAL_CLOCK && last_committed < least {
        front[LAST_COMMITTED_AT..SEQUENCE_NUMBER_AT].copy_from_slice(&least.to_le_bytes());
    }
}

impl GtidEvent {
    /// Whether the server that wrote this event was the first to commit the transaction, and did not
    /// apply it as a replica.
    #[must_use]
    pub fn is_original(&self) -> bool {
        self.immediate_commit_us == self.original_commit_us
    }

    /// # Errors
    /// If the event is no GTID event, tagged or not, or is malformed.
    pub fn parse(event: &Event) -> Result<Self, EventError> {
        Self::parse_body(event.event_type(), event.body())
    }

    pub(crate) fn parse_body(event_type: EventType, body: &[u8]) -> Result<Self, EventError> {
        match event_type {
            EventType::GTID => Self::parse_plain(body),
            EventType::GTID_TAGGED => Self::parse_tagged(body),
            found => Err(EventError::Type {
                expected: EventType::GTID,
                found,
            }),
        }
    }

    fn parse_plain(body: &[u8]) -> Result<Self, EventError> {
        let mut cursor = Cursor::new(body);
        let _flags = cursor.u8()?;
        let uuid = Uuid(cursor.array()?);
        let sequence = checked_sequence(cursor.u64()?)?;
        let mut parsed = Self {
            gtid: Gtid {
                source: uuid.into(),
                sequence,
            },
            last_committed: 0,
            sequence_number: 0,
            original_commit_us: 0,
            immediate_commit_us: 0,
            transaction_length: 0,
        };
        // Servers before 5.7 and before 8.0 stop early.
        if cursor.is_empty() || cursor.u8()? != LOGICAL_CLOCK {
            return Ok(parsed);
        }
        parsed.last_committed = cursor.u64()? as i64;
        parsed.sequence_number = cursor.u64()? as i64;
        if cursor.is_empty() {
            return Ok(parsed);
        }
        // The highest bit says that the original time follows; else both are the same.
        let immediate = cursor.uint(7)?;
        let has_original = immediate >> 55 == 1;
        parsed.immediate_commit_us = immediate & !(1 << 55);
        parsed.original_commit_us = match has_original {
            true => cursor.uint(7)?,
            false => immediate,
        };
        if !cursor.is_empty() {
            parsed.transaction_length = cursor.lenenc()?;
        }
        Ok(parsed)
    }

    /// MySQL's serialization library: version, size of the message, the last field that a reader
    /// must know, then pairs of field number and value, in order, absent ones left out.
    fn parse_tagged(body: &[u8]) -> Result<Self, EventError> {
        let mut cursor = Cursor::new(body);
        if cursor.varlen()? != SERIALIZATION_VERSION {
            return Err(EventError::Malformed("serialization version"));
        }
        let size = cursor.varlen()?;
        if usize::try_from(size).ok() != Some(body.len()) {
            return Err(EventError::Malformed("message size"));
        }
        let last_known = cursor.varlen()?;
        let (mut uuid, mut tag, mut sequence) = (None, Tag::EMPTY, None);
        let (mut last_committed, mut sequence_number) = (0, 0);
        let (mut immediate, mut original, mut length) = (0, None, 0);
        let mut next_field = 0;
        while !cursor.is_empty() {
            let field = cursor.varlen()?;
            if field < next_field {
                return Err(EventError::Malformed("order of fields"));
            }
            next_field = field.saturating_add(1);
            match field {
                1 => uuid = Some(varlen_uuid(&mut cursor)?),
                2 => sequence = Some(cursor.varlen_signed()? as u64),
                3 => tag = varlen_tag(&mut cursor)?,
                4 => last_committed = cursor.varlen_signed()?,
                5 => sequence_number = cursor.varlen_signed()?,
                6 => immediate = cursor.varlen()?,
                7 => original = Some(cursor.varlen()?),
                8 => length = cursor.varlen()?,
                // Flags, server versions, group commit ticket.
                0 | 9..=11 => drop(cursor.varlen()?),
                unknown if unknown <= last_known => {
                    return Err(EventError::Malformed("field that must be known"));
                }
                // Fields are not self describing: what follows an unknown one cannot be read.
                _ => break,
            }
        }
        let missing = EventError::Malformed("tagged GTID");
        Ok(Self {
            gtid: Gtid {
                source: SourceId {
                    uuid: uuid.ok_or(missing)?,
                    tag,
                },
                sequence: checked_sequence(sequence.ok_or(missing)?)?,
            },
            last_committed,
            sequence_number,
            original_commit_us: original.unwrap_or(immediate),
            immediate_commit_us: immediate,
            transaction_length: length,
        })
    }
}

fn checked_sequence(sequence: u64) -> Result<u64, EventError> {
    match sequence {
        1..=Gtid::SEQUENCE_LAST => Ok(sequence),
        _ => Err(EventError::Malformed("GTID sequence number")),
    }
}

/// Each byte is an integer of its own, so those from 128 take two bytes.
fn varlen_uuid(cursor: &mut Cursor<'_>) -> Result<Uuid, EventError> {
    let mut uuid = [0; 16];
    for byte in &mut uuid {
        *byte = u8::try_from(cursor.varlen()?).map_err(|_| EventError::Malformed("UUID"))?;
    }
    Ok(Uuid(uuid))
}

fn varlen_tag(cursor: &mut Cursor<'_>) -> Result<Tag, EventError> {
    let malformed = EventError::Malformed("tag");
    let len = usize::try_from(cursor.varlen()?).map_err(|_| malformed)?;
    let text = cursor.take(len)?;
    if text.is_empty() {
        return Ok(Tag::EMPTY);
    }
    let text = std::str::from_utf8(text).map_err(|_| malformed)?;
    text.parse().map_err(|_| malformed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_would_run_beside_too_many_depends_on_more() {
        let limited = |kind: u8, last_committed: i64, sequence_number: i64| {
            let mut front = [7; CLOCKS_END];
            front[CLOCK_TYPE_AT] = kind;
            front[LAST_COMMITTED_AT..][..8].copy_from_slice(&last_committed.to_le_bytes());
            front[SEQUENCE_NUMBER_AT..].copy_from_slice(&sequence_number.to_le_bytes());
            let before = front;
            limit_parallel(&mut front, 4);
            assert_eq!(front[..LAST_COMMITTED_AT], before[..LAST_COMMITTED_AT]);
            assert_eq!(front[SEQUENCE_NUMBER_AT..], before[SEQUENCE_NUMBER_AT..]);
            i64::from_le_bytes(front[LAST_COMMITTED_AT..][..8].try_into().unwrap())
        };
        assert_eq!(limited(LOGICAL_CLOCK, 0, 100), 96);
        assert_eq!(limited(LOGICAL_CLOCK, 97, 100), 97);
        assert_eq!(limited(LOGICAL_CLOCK, 0, 4), 0);
        assert_eq!(limited(LOGICAL_CLOCK, 0, i64::MIN), 0);
        // Another kind of clock: nothing is known of these bytes.
        assert_eq!(limited(1, 0, 100), 0);
    }
}

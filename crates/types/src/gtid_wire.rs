//! GTID sets as MySQL writes them in `COM_BINLOG_DUMP_GTID` and `Previous_gtids`.
//!
//! Untagged: u64 count of sources, then per source 16 bytes UUID, u64 count of intervals, and per
//! interval u64 start, u64 end (exclusive); all little endian. Tagged (8.3+): the first u64 holds
//! the format 1 in its lowest and highest byte and the count in the six bytes between, and each
//! UUID is followed by the tag: its length times two as one byte, then its text.
//! Source: mysql-server `sql/rpl_gtid_set.cc`, `Gtid_set::encode` and `add_gtid_encoding`.

use crate::gtid::{Gtid, SourceId, Tag, Uuid};
use crate::gtid_set::{GtidSet, Interval};

/// Why bytes are no GTID set.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GtidWireError {
    #[error("GTID set ends after {0} bytes, in the middle of a value")]
    Short(usize),
    #[error("GTID set of the unknown format {0}")]
    Format(u8),
    #[error("GTID set has an illegal tag at byte {0}")]
    Tag(usize),
    #[error("GTID set has an illegal interval at byte {0}")]
    Interval(usize),
    #[error("GTID set is followed by {0} more bytes")]
    Trailing(usize),
}

const FORMAT_TAGGED: u8 = 1;

impl GtidSet {
    /// The bytes of the set; in the tagged format only if there is a tag, as MySQL does.
    #[must_use]
    pub fn to_wire(&self) -> Vec<u8> {
        let tagged = self.sources().any(|(source, _)| !source.tag.is_empty());
        let count = self.sources().count() as u64;
        let mut out = Vec::new();
        if tagged {
            let format = u64::from(FORMAT_TAGGED);
            out.extend_from_slice(&(format << 56 | count << 8 | format).to_le_bytes());
        } else {
            out.extend_from_slice(&count.to_le_bytes());
        }
        for (source, intervals) in self.sources() {
            out.extend_from_slice(&source.uuid.0);
            if tagged {
                let tag = source.tag.as_str();
                out.push((tag.len() as u8) << 1);
                out.extend_from_slice(tag.as_bytes());
            }
            out.extend_from_slice(&(intervals.len() as u64).to_le_bytes());
            for Interval { start, end } in intervals {
                out.extend_from_slice(&start.to_le_bytes());
                out.extend_from_slice(&end.to_le_bytes());
            }
        }
        out
    }

    /// # Errors
    /// If the bytes are not exactly one GTID set.
    pub fn try_from_wire(bytes: &[u8]) -> Result<Self, GtidWireError> {
        let mut reader = Reader { bytes, at: 0 };
        let head = reader.u64()?;
        let format = (head >> 56) as u8;
        let tagged = match format {
            0 => false,
            FORMAT_TAGGED => true,
            other => return Err(GtidWireError::Format(other)),
        };
        let sources = if tagged { head << 8 >> 16 } else { head };
        let mut set = Self::new();
        // Counts are not trusted: each turn consumes bytes or fails, and nothing is reserved.
        for _ in 0..sources {
            let uuid = Uuid(reader.array()?);
            let tag = if tagged { reader.tag()? } else { Tag::EMPTY };
            for _ in 0..reader.u64()? {
                let at = reader.at;
                let (start, end) = (reader.u64()?, reader.u64()?);
                if start == 0 || end <= start || end > Gtid::SEQUENCE_LAST + 1 {
                    return Err(GtidWireError::Interval(at));
                }
                set.insert_interval(SourceId { uuid, tag }, Interval { start, end });
            }
        }
        match bytes.len() - reader.at {
            0 => Ok(set),
            more => Err(GtidWireError::Trailing(more)),
        }
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn array<const N: usize>(&mut self) -> Result<[u8; N], GtidWireError> {
        let array = self.bytes[self.at..]
            .first_chunk()
            .ok_or(GtidWireError::Short(self.bytes.len()))?;
        self.at += N;
        Ok(*array)
    }

    fn u64(&mut self) -> Result<u64, GtidWireError> {
        self.array().map(u64::from_le_bytes)
    }

    fn tag(&mut self) -> Result<Tag, GtidWireError> {
        let at = self.at;
        let [twice] = self.array()?;
        let len = usize::from(twice >> 1);
        let rest = &self.bytes[self.at..];
        if len == 0 {
            return Ok(Tag::EMPTY);
        }
        let text = rest
            .get(..len)
            .ok_or(GtidWireError::Short(self.bytes.len()))?;
        self.at += len;
        let text = std::str::from_utf8(text).map_err(|_| GtidWireError::Tag(at))?;
        text.parse().map_err(|_| GtidWireError::Tag(at))
    }
}

//! Numbers and GTIDs as bytes, for what `apply` keeps on disk and sends in snapshots.

use quorate_types::{Gtid, SourceId, Tag, Uuid};

/// Why bytes are no record or snapshot.
#[derive(Debug, thiserror::Error)]
pub enum CodecError {
    #[error("ends in the middle of a value")]
    Short,
    #[error("is followed by {0} more bytes")]
    Trailing(usize),
    #[error("has an illegal {0}")]
    Illegal(&'static str),
    #[error("is no snapshot of this version")]
    Version,
    #[error("has the wrong checksum")]
    Checksum,
    #[error("has an illegal GTID set")]
    GtidSet(#[from] quorate_types::GtidWireError),
    #[error("has an illegal command")]
    Command(#[from] quorate_wire::DecodeError),
}

/// Base 128, low bits first, as protobuf does: most numbers are small.
pub(super) fn put_number(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

pub(super) fn put_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_number(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// Neighbours mostly come from one server: only a change of source is written out.
pub(super) fn put_gtid(out: &mut Vec<u8>, previous: &mut Option<SourceId>, gtid: Gtid) {
    if *previous == Some(gtid.source) {
        out.push(0);
    } else {
        let tag = gtid.source.tag.as_str();
        out.push(tag.len() as u8 + 1);
        out.extend_from_slice(&gtid.source.uuid.0);
        out.extend_from_slice(tag.as_bytes());
        *previous = Some(gtid.source);
    }
    put_number(out, gtid.sequence);
}

pub(super) struct Reader<'a> {
    pub(super) rest: &'a [u8],
}

impl<'a> Reader<'a> {
    pub(super) fn take(&mut self, len: u64) -> Result<&'a [u8], CodecError> {
        let len = usize::try_from(len).map_err(|_| CodecError::Short)?;
        let (bytes, rest) = self.rest.split_at_checked(len).ok_or(CodecError::Short)?;
        self.rest = rest;
        Ok(bytes)
    }

    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], CodecError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(CodecError::Short)?;
        self.rest = rest;
        Ok(*array)
    }

    pub(super) fn u32(&mut self) -> Result<u32, CodecError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(super) fn number(&mut self) -> Result<u64, CodecError> {
        let mut number = 0;
        for shift in (0..64).step_by(7) {
            let [byte] = self.array()?;
            let bits = u64::from(byte & 0x7f);
            // One number has one encoding: nothing is shifted out, no zero byte stands last.
            if bits << shift >> shift != bits || (byte == 0 && shift > 0) {
                return Err(CodecError::Illegal("number"));
            }
            number |= bits << shift;
            if byte & 0x80 == 0 {
                return Ok(number);
            }
        }
        Err(CodecError::Illegal("number"))
    }

    pub(super) fn bytes(&mut self) -> Result<&'a [u8], CodecError> {
        let len = self.number()?;
        self.take(len)
    }

    pub(super) fn gtid(&mut self, previous: &mut Option<SourceId>) -> Result<Gtid, CodecError> {
        let [head] = self.array()?;
        let source = match head.checked_sub(1) {
            None => previous.ok_or(CodecError::Illegal("GTID"))?,
            Some(len) => {
                let uuid = Uuid(self.array()?);
                let text = std::str::from_utf8(self.take(len.into())?);
                let text = text.map_err(|_| CodecError::Illegal("tag"))?;
                let tag = match text {
                    "" => Tag::EMPTY,
                    text => text.parse().map_err(|_| CodecError::Illegal("tag"))?,
                };
                SourceId { uuid, tag }
            }
        };
        *previous = Some(source);
        let sequence = self.number()?;
        if !(1..=Gtid::SEQUENCE_LAST).contains(&sequence) {
            return Err(CodecError::Illegal("GTID"));
        }
        Ok(Gtid { source, sequence })
    }

    pub(super) fn end(self) -> Result<(), CodecError> {
        match self.rest.len() {
            0 => Ok(()),
            more => Err(CodecError::Trailing(more)),
        }
    }
}

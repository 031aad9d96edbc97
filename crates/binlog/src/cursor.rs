//! Reading values from untrusted bytes: every step is checked, nothing is allocated.

use crate::event::EventError;

pub(crate) struct Cursor<'a> {
    rest: &'a [u8],
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes }
    }

    pub(crate) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    pub(crate) fn take(&mut self, len: usize) -> Result<&'a [u8], EventError> {
        let (taken, rest) = self.rest.split_at_checked(len).ok_or(EventError::Short)?;
        self.rest = rest;
        Ok(taken)
    }

    pub(crate) fn array<const N: usize>(&mut self) -> Result<[u8; N], EventError> {
        let (array, rest) = self.rest.split_first_chunk().ok_or(EventError::Short)?;
        self.rest = rest;
        Ok(*array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, EventError> {
        self.array::<1>().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, EventError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, EventError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, EventError> {
        self.array().map(u64::from_le_bytes)
    }

    /// A little endian integer of `len` (at most 8) bytes.
    pub(crate) fn uint(&mut self, len: usize) -> Result<u64, EventError> {
        let bytes = self.take(len)?;
        Ok(bytes
            .iter()
            .rev()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)))
    }

    /// The client protocol's length-encoded integer.
    pub(crate) fn lenenc(&mut self) -> Result<u64, EventError> {
        match self.u8()? {
            0xfc => self.uint(2),
            0xfd => self.uint(3),
            0xfe => self.uint(8),
            small @ 0..=0xfa => Ok(u64::from(small)),
            _ => Err(EventError::Malformed("length-encoded integer")),
        }
    }

    /// The serialization library's integer: as many low one bits in the first byte as there are
    /// more bytes, then a zero bit (which nine bytes leave out), then the value.
    pub(crate) fn varlen(&mut self) -> Result<u64, EventError> {
        let first = self.u8()?;
        let more = first.trailing_ones() as usize;
        let high = self.uint(more)?;
        if more >= 7 {
            // Eight and nine bytes leave no bit of the first one to the value.
            return Ok(high);
        }
        let low_bits = 7 - more;
        Ok(high << low_bits | u64::from(first >> (more + 1)))
    }

    /// The signed form: the sign in the lowest bit, negative values complemented.
    pub(crate) fn varlen_signed(&mut self) -> Result<i64, EventError> {
        let value = self.varlen()?;
        let magnitude = (value >> 1) as i64;
        Ok(if value & 1 == 1 {
            !magnitude
        } else {
            magnitude
        })
    }
}

use bytes::{BufMut, Bytes};

/// Bytes that are not what the protocol says they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("malformed {what} at byte {at}")]
pub struct ParseError {
    pub what: &'static str,
    pub at: usize,
}

/// Reads a packet's fields front to back. A length from the wire is only ever compared with what
/// is there: nothing is reserved by it.
pub(crate) struct Cursor<'a> {
    packet: &'a Bytes,
    at: usize,
    what: &'static str,
}

impl<'a> Cursor<'a> {
    pub(crate) fn new(packet: &'a Bytes, what: &'static str) -> Self {
        Self {
            packet,
            at: 0,
            what,
        }
    }

    pub(crate) fn error(&self) -> ParseError {
        ParseError {
            what: self.what,
            at: self.at,
        }
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.at == self.packet.len()
    }

    pub(crate) fn peek(&self) -> Option<u8> {
        self.packet.get(self.at).copied()
    }

    pub(crate) fn rest(&mut self) -> Bytes {
        let rest = self.packet.slice(self.at..);
        self.at = self.packet.len();
        rest
    }

    pub(crate) fn bytes(&mut self, len: usize) -> Result<Bytes, ParseError> {
        if self.packet.len() - self.at < len {
            return Err(self.error());
        }
        let bytes = self.packet.slice(self.at..self.at + len);
        self.at += len;
        Ok(bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], ParseError> {
        let array = *self.packet[self.at..]
            .first_chunk()
            .ok_or_else(|| self.error())?;
        self.at += N;
        Ok(array)
    }

    pub(crate) fn u8(&mut self) -> Result<u8, ParseError> {
        self.array().map(|[byte]| byte)
    }

    pub(crate) fn u16(&mut self) -> Result<u16, ParseError> {
        self.array().map(u16::from_le_bytes)
    }

    pub(crate) fn u32(&mut self) -> Result<u32, ParseError> {
        self.array().map(u32::from_le_bytes)
    }

    pub(crate) fn u64(&mut self) -> Result<u64, ParseError> {
        self.array().map(u64::from_le_bytes)
    }

    pub(crate) fn lenenc(&mut self) -> Result<u64, ParseError> {
        match self.u8()? {
            small @ 0..=0xfa => Ok(u64::from(small)),
            0xfc => self.u16().map(u64::from),
            0xfd => {
                let [a, b, c] = self.array()?;
                Ok(u64::from(u32::from_le_bytes([a, b, c, 0])))
            }
            0xfe => self.u64(),
            _ => Err(self.error()),
        }
    }

    pub(crate) fn lenenc_bytes(&mut self) -> Result<Bytes, ParseError> {
        let len = self.lenenc()?;
        let len = usize::try_from(len).map_err(|_| self.error())?;
        self.bytes(len)
    }

    /// Up to a NUL, which is consumed.
    pub(crate) fn nul_bytes(&mut self) -> Result<Bytes, ParseError> {
        let len = self.packet[self.at..]
            .iter()
            .position(|byte| *byte == 0)
            .ok_or_else(|| self.error())?;
        let bytes = self.bytes(len)?;
        self.at += 1;
        Ok(bytes)
    }
}

pub(crate) fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

pub(crate) fn put_lenenc(out: &mut Vec<u8>, value: u64) {
    match value {
        0..=0xfa => out.put_u8(value as u8),
        0xfb..=0xffff => {
            out.put_u8(0xfc);
            out.put_u16_le(value as u16);
        }
        0x1_0000..=0xff_ffff => {
            out.put_u8(0xfd);
            out.put_uint_le(value, 3);
        }
        _ => {
            out.put_u8(0xfe);
            out.put_u64_le(value);
        }
    }
}

pub(crate) fn put_lenenc_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    put_lenenc(out, bytes.len() as u64);
    out.put_slice(bytes);
}

pub(crate) fn put_nul_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    out.put_slice(bytes);
    out.put_u8(0);
}

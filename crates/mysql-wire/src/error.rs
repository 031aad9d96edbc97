use bytes::{BufMut, Bytes};

use crate::cursor::{Cursor, ParseError, text};

/// MySQL's own texts end at 512 bytes; clients have buffers for no more.
const MESSAGE_BYTES_MAX: usize = 511;

/// An ERR packet: what a MySQL server says went wrong.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message} (error {code}, {state})")]
pub struct ServerError {
    pub code: u16,
    /// Five characters; `HY000` where the server gave none.
    pub state: String,
    pub message: String,
}

impl ServerError {
    pub const ACCESS_DENIED: u16 = 1045;
    pub const UNKNOWN_COMMAND: u16 = 1047;
    pub const SERVER_SHUTDOWN: u16 = 1053;
    pub const UNKNOWN_ERROR: u16 = 1105;
    pub const UNKNOWN_SYSTEM_VARIABLE: u16 = 1193;
    pub const LOCK_WAIT_TIMEOUT: u16 = 1205;
    pub const FATAL_BINLOG_READ: u16 = 1236;

    #[must_use]
    pub fn new(code: u16, state: &str, message: impl Into<String>) -> Self {
        Self {
            code,
            state: state.to_owned(),
            message: message.into(),
        }
    }

    /// The packet's payload as a client expects it once it has answered the greeting.
    #[must_use]
    pub fn to_payload(&self) -> Vec<u8> {
        let mut out = self.head();
        out.put_u8(b'#');
        let state = self.state.as_bytes();
        for index in 0..5 {
            out.put_u8(state.get(index).copied().unwrap_or(b'0'));
        }
        out.put_slice(self.short_message().as_bytes());
        out
    }

    /// The payload in place of a greeting: nothing is negotiated yet, so there is no state.
    #[must_use]
    pub fn to_payload_before_handshake(&self) -> Vec<u8> {
        let mut out = self.head();
        out.put_slice(self.short_message().as_bytes());
        out
    }

    /// A whole packet, for who has no [`crate::PacketStream`]: a proxy that only passes bytes.
    #[must_use]
    pub fn to_frame(&self, sequence: u8) -> Bytes {
        frame(sequence, &self.to_payload())
    }

    /// A whole packet in place of a greeting.
    #[must_use]
    pub fn to_frame_before_handshake(&self) -> Bytes {
        frame(0, &self.to_payload_before_handshake())
    }

    fn head(&self) -> Vec<u8> {
        let mut out = vec![0xff];
        out.put_u16_le(self.code);
        out
    }

    fn short_message(&self) -> &str {
        let mut end = self.message.len().min(MESSAGE_BYTES_MAX);
        while !self.message.is_char_boundary(end) {
            end -= 1;
        }
        &self.message[..end]
    }

    /// # Errors
    /// If it is no ERR packet.
    pub fn parse(packet: &Bytes) -> Result<Self, ParseError> {
        let mut cursor = Cursor::new(packet, "ERR packet");
        if cursor.u8()? != 0xff {
            return Err(cursor.error());
        }
        let code = cursor.u16()?;
        let state = if cursor.peek() == Some(b'#') {
            cursor.u8()?;
            text(&cursor.bytes(5)?)
        } else {
            "HY000".to_owned()
        };
        Ok(Self {
            code,
            state,
            message: text(&cursor.rest()),
        })
    }
}

fn frame(sequence: u8, payload: &[u8]) -> Bytes {
    let mut out = Vec::new();
    out.put_uint_le(payload.len() as u64, 3);
    out.put_u8(sequence);
    out.put_slice(payload);
    out.into()
}

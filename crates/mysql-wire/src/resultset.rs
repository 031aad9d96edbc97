//! Answers of the text protocol, both ways, without `CLIENT_DEPRECATE_EOF`.

use bytes::{BufMut, Bytes};

use crate::cursor::{Cursor, ParseError, put_lenenc, put_lenenc_bytes, text};
use crate::handshake::{CHARSET, STATUS_AUTOCOMMIT};

const NULL: u8 = 0xfb;
const TYPE_VAR_STRING: u8 = 0xfd;
pub(crate) const STATUS_MORE_RESULTS: u16 = 8;

/// What a statement gave: for one without rows, `columns` is empty.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QueryResult {
    pub columns: Vec<String>,
    pub rows: Vec<Row>,
    pub affected_rows: u64,
    pub last_insert_id: u64,
}

impl QueryResult {
    /// The first column of the first row as text; none if there is no row or it is NULL.
    #[must_use]
    pub fn scalar(&self) -> Option<String> {
        self.rows.first()?.text(0)
    }

    /// A value of the first row by its column's name, whatever its case (`SHOW ... STATUS`).
    #[must_use]
    pub fn named(&self, column: &str) -> Option<String> {
        let index = self
            .columns
            .iter()
            .position(|name| name.eq_ignore_ascii_case(column))?;
        self.rows.first()?.text(index)
    }
}

/// One row's values as the server wrote them; none is NULL.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Row(pub Vec<Option<Bytes>>);

impl Row {
    #[must_use]
    pub fn get(&self, index: usize) -> Option<&Bytes> {
        self.0.get(index)?.as_ref()
    }

    #[must_use]
    pub fn text(&self, index: usize) -> Option<String> {
        self.get(index).map(|value| text(value))
    }

    pub(crate) fn parse(packet: &Bytes, columns: usize) -> Result<Self, ParseError> {
        let mut cursor = Cursor::new(packet, "text row");
        let mut values = Vec::new();
        for _ in 0..columns {
            if cursor.peek() == Some(NULL) {
                cursor.u8()?;
                values.push(None);
            } else {
                values.push(Some(cursor.lenenc_bytes()?));
            }
        }
        if cursor.is_empty() {
            Ok(Self(values))
        } else {
            Err(cursor.error())
        }
    }

    pub(crate) fn to_payload(&self) -> Vec<u8> {
        let mut out = Vec::new();
        for value in &self.0 {
            match value {
                Some(value) => put_lenenc_bytes(&mut out, value),
                None => out.put_u8(NULL),
            }
        }
        out
    }
}

impl<T: Into<Bytes>> FromIterator<Option<T>> for Row {
    fn from_iter<I: IntoIterator<Item = Option<T>>>(values: I) -> Self {
        Self(
            values
                .into_iter()
                .map(|value| value.map(Into::into))
                .collect(),
        )
    }
}

/// An OK packet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OkPacket {
    pub affected_rows: u64,
    pub last_insert_id: u64,
    pub status: u16,
}

impl OkPacket {
    pub(crate) fn parse(packet: &Bytes) -> Result<Self, ParseError> {
        let mut cursor = Cursor::new(packet, "OK packet");
        if cursor.u8()? != 0 {
            return Err(cursor.error());
        }
        Ok(Self {
            affected_rows: cursor.lenenc()?,
            last_insert_id: cursor.lenenc()?,
            status: cursor.u16()?,
        })
    }

    pub(crate) fn to_payload(self) -> Vec<u8> {
        let mut out = vec![0];
        put_lenenc(&mut out, self.affected_rows);
        put_lenenc(&mut out, self.last_insert_id);
        out.put_u16_le(self.status | STATUS_AUTOCOMMIT);
        out.put_u16_le(0);
        out
    }
}

/// A row may start with 0xfe too (a long value), but then it is long.
pub(crate) fn is_eof(packet: &[u8]) -> bool {
    packet.first() == Some(&0xfe) && packet.len() < 9
}

pub(crate) fn eof_status(packet: &Bytes) -> Result<u16, ParseError> {
    let mut cursor = Cursor::new(packet, "EOF packet");
    cursor.u8()?;
    cursor.u16()?;
    cursor.u16()
}

pub(crate) fn eof_payload() -> Vec<u8> {
    let mut out = vec![0xfe];
    out.put_u16_le(0);
    out.put_u16_le(STATUS_AUTOCOMMIT);
    out
}

/// A column that holds text, of no table.
pub(crate) fn column_payload(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    for part in ["def", "", "", "", name, ""] {
        put_lenenc_bytes(&mut out, part.as_bytes());
    }
    out.put_u8(0x0c);
    out.put_u16_le(u16::from(CHARSET));
    out.put_u32_le(u32::MAX);
    out.put_u8(TYPE_VAR_STRING);
    out.put_u16_le(0);
    out.put_u8(31);
    out.put_u16_le(0);
    out
}

pub(crate) fn column_name(packet: &Bytes) -> Result<String, ParseError> {
    let mut cursor = Cursor::new(packet, "column definition");
    for _ in 0..4 {
        cursor.lenenc_bytes()?;
    }
    Ok(text(&cursor.lenenc_bytes()?))
}

#[cfg(test)]
mod tests;

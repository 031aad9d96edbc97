use bytes::Bytes;

use crate::cursor::Cursor;
use crate::event::{ChecksumAlgorithm, Event, EventError, EventHeader, EventType};

/// What a format description event says about the events after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FormatDescription {
    pub server_version: String,
    pub algorithm: ChecksumAlgorithm,
    /// The whole event as it was read.
    pub raw: Bytes,
}

const VERSION_LEN: usize = 50;
/// Binlog version, server version, time of creation.
pub(crate) const CREATED_AT: usize = EventHeader::LEN + 2 + VERSION_LEN;

impl FormatDescription {
    /// Frames and parses an event that must be a format description, and verifies its checksum.
    ///
    /// # Errors
    /// If it is none, is damaged, or describes another format than version 4 with headers of 19
    /// bytes (all servers since 5.0 write that).
    pub fn parse(bytes: Bytes) -> Result<Self, EventError> {
        let event = Event::parse(bytes, ChecksumAlgorithm::Off)?;
        event.expect_type(EventType::FORMAT_DESCRIPTION)?;
        let mut cursor = Cursor::new(event.body());
        if cursor.u16()? != 4 {
            return Err(EventError::Malformed("binlog version"));
        }
        let version = cursor.take(VERSION_LEN)?;
        let len = version.iter().position(|byte| *byte == 0);
        let version = &version[..len.unwrap_or(VERSION_LEN)];
        let server_version = std::str::from_utf8(version)
            .map_err(|_| EventError::Malformed("server version"))?
            .to_owned();
        let _created = cursor.u32()?;
        if usize::from(cursor.u8()?) != EventHeader::LEN {
            return Err(EventError::Malformed("header length"));
        }
        let algorithm = match cursor.rest().last().ok_or(EventError::Short)? {
            0 => ChecksumAlgorithm::Off,
            1 => ChecksumAlgorithm::Crc32,
            _ => return Err(EventError::Malformed("checksum algorithm")),
        };
        let event = Event::parse(event.bytes().clone(), algorithm)?;
        event.verify_checksum()?;
        Ok(Self {
            server_version,
            algorithm,
            raw: event.bytes().clone(),
        })
    }
}

use std::fmt;

use bytes::Bytes;

use crate::cursor::Cursor;

/// Why bytes are no event, or no event of the expected type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EventError {
    #[error("event ends in the middle of a value")]
    Short,
    #[error("event of {len} bytes says that its size is {size}")]
    Size { len: usize, size: u32 },
    #[error("event's checksum is {found:08x}, its bytes give {expected:08x}")]
    Checksum { found: u32, expected: u32 },
    #[error("event has a malformed {0}")]
    Malformed(&'static str),
    #[error("event is of type {found:?}, not {expected:?}")]
    Type {
        expected: EventType,
        found: EventType,
    },
}

/// The type code of an event; any byte, known or not.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventType(pub u8);

macro_rules! event_types {
    ($($name:ident = $code:literal),* $(,)?) => {
        impl EventType {
            $(pub const $name: Self = Self($code);)*

            /// The name in MySQL's sources, if it is a type that this crate knows.
            #[must_use]
            pub fn name(self) -> Option<&'static str> {
                match self.0 {
                    $($code => Some(stringify!($name)),)*
                    _ => None,
                }
            }
        }
    };
}

event_types! {
    QUERY = 2, STOP = 3, ROTATE = 4, INTVAR = 5, RAND = 13, USER_VAR = 14,
    FORMAT_DESCRIPTION = 15, XID = 16, BEGIN_LOAD_QUERY = 17, EXECUTE_LOAD_QUERY = 18,
    TABLE_MAP = 19, WRITE_ROWS_V1 = 23, UPDATE_ROWS_V1 = 24, DELETE_ROWS_V1 = 25,
    INCIDENT = 26, HEARTBEAT = 27, IGNORABLE = 28, ROWS_QUERY = 29, WRITE_ROWS = 30,
    UPDATE_ROWS = 31, DELETE_ROWS = 32, GTID = 33, ANONYMOUS_GTID = 34, PREVIOUS_GTIDS = 35,
    TRANSACTION_CONTEXT = 36, VIEW_CHANGE = 37, XA_PREPARE = 38, PARTIAL_UPDATE_ROWS = 39,
    TRANSACTION_PAYLOAD = 40, HEARTBEAT_V2 = 41, GTID_TAGGED = 42,
}

impl EventType {
    /// Whether it carries rows.
    #[must_use]
    pub fn is_rows(self) -> bool {
        matches!(self.0, 23..=25 | 30..=32 | 39)
    }
}

impl fmt::Debug for EventType {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.name() {
            Some(name) => f.write_str(name),
            None => write!(f, "type {}", self.0),
        }
    }
}

/// How events end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChecksumAlgorithm {
    /// With the last byte of the body.
    #[default]
    Off,
    /// With a CRC32 (zlib's) of everything before it.
    Crc32,
}

impl ChecksumAlgorithm {
    /// The bytes that it adds to an event.
    #[must_use]
    pub fn len(self) -> usize {
        match self {
            Self::Off => 0,
            Self::Crc32 => CHECKSUM_LEN,
        }
    }

    /// Whether it adds nothing.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self == Self::Off
    }
}

pub(crate) const CHECKSUM_LEN: usize = 4;

/// The binlog was not closed (format description event in a file).
pub const FLAG_BINLOG_IN_USE: u16 = 0x1;
/// The event was made for the stream and is in no file.
pub const FLAG_ARTIFICIAL: u16 = 0x20;
/// A server that does not know the type may leave it out.
pub const FLAG_IGNORABLE: u16 = 0x80;

/// The 19 bytes that every event begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EventHeader {
    pub timestamp: u32,
    pub event_type: EventType,
    pub server_id: u32,
    /// Header, body and checksum.
    pub event_size: u32,
    /// Where the event ends in its file, modulo 2^32; 0 if it is in none.
    pub log_pos: u32,
    pub flags: u16,
}

impl EventHeader {
    pub const LEN: usize = 19;

    /// # Errors
    /// If there are fewer than [`EventHeader::LEN`] bytes, or the size cannot be right.
    pub fn parse(bytes: &[u8]) -> Result<Self, EventError> {
        let mut cursor = Cursor::new(bytes);
        let header = Self {
            timestamp: cursor.u32()?,
            event_type: EventType(cursor.u8()?),
            server_id: cursor.u32()?,
            event_size: cursor.u32()?,
            log_pos: cursor.u32()?,
            flags: cursor.u16()?,
        };
        if (header.event_size as usize) < Self::LEN {
            return Err(EventError::Size {
                len: bytes.len(),
                size: header.event_size,
            });
        }
        Ok(header)
    }

    #[must_use]
    pub fn to_bytes(&self) -> [u8; Self::LEN] {
        let mut bytes = [0; Self::LEN];
        bytes[0..4].copy_from_slice(&self.timestamp.to_le_bytes());
        bytes[4] = self.event_type.0;
        bytes[5..9].copy_from_slice(&self.server_id.to_le_bytes());
        bytes[9..13].copy_from_slice(&self.event_size.to_le_bytes());
        bytes[13..17].copy_from_slice(&self.log_pos.to_le_bytes());
        bytes[17..19].copy_from_slice(&self.flags.to_le_bytes());
        bytes
    }
}

/// One event: a view over its bytes, which are exactly header, body and checksum.
#[derive(Clone, PartialEq, Eq)]
pub struct Event {
    header: EventHeader,
    algorithm: ChecksumAlgorithm,
    bytes: Bytes,
}

impl Event {
    /// Frames an event; its checksum is not looked at, see [`Event::verify_checksum`].
    ///
    /// # Errors
    /// If the size in the header is not that of the bytes, or too small for the checksum.
    pub fn parse(bytes: Bytes, algorithm: ChecksumAlgorithm) -> Result<Self, EventError> {
        let header = EventHeader::parse(&bytes)?;
        // A format description always ends with four bytes for a checksum.
        let reserved = match header.event_type {
            EventType::FORMAT_DESCRIPTION => CHECKSUM_LEN,
            _ => algorithm.len(),
        };
        let size = header.event_size as usize;
        if size != bytes.len() || size < EventHeader::LEN + reserved {
            return Err(EventError::Size {
                len: bytes.len(),
                size: header.event_size,
            });
        }
        Ok(Self {
            header,
            algorithm,
            bytes,
        })
    }

    #[must_use]
    pub fn header(&self) -> &EventHeader {
        &self.header
    }

    #[must_use]
    pub fn event_type(&self) -> EventType {
        self.header.event_type
    }

    #[must_use]
    pub fn algorithm(&self) -> ChecksumAlgorithm {
        self.algorithm
    }

    /// All of it.
    #[must_use]
    pub fn bytes(&self) -> &Bytes {
        &self.bytes
    }

    /// What is between header and checksum.
    #[must_use]
    pub fn body(&self) -> &[u8] {
        let reserved = match self.header.event_type {
            EventType::FORMAT_DESCRIPTION => CHECKSUM_LEN,
            _ => self.algorithm.len(),
        };
        &self.bytes[EventHeader::LEN..self.bytes.len() - reserved]
    }

    /// # Errors
    /// If there is a checksum and the bytes before it do not give it.
    pub fn verify_checksum(&self) -> Result<(), EventError> {
        if self.algorithm == ChecksumAlgorithm::Off {
            return Ok(());
        }
        let (content, found) = self
            .bytes
            .split_last_chunk::<CHECKSUM_LEN>()
            .ok_or(EventError::Short)?;
        let found = u32::from_le_bytes(*found);
        let expected = file_crc(self.header.event_type, self.header.flags, content);
        if found == expected {
            Ok(())
        } else {
            Err(EventError::Checksum { found, expected })
        }
    }

    pub(crate) fn expect_type(&self, expected: EventType) -> Result<(), EventError> {
        if self.event_type() == expected {
            Ok(())
        } else {
            Err(EventError::Type {
                expected,
                found: self.event_type(),
            })
        }
    }
}

impl fmt::Debug for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Event")
            .field("header", &self.header)
            .field("body_bytes", &self.body().len())
            .finish_non_exhaustive()
    }
}

/// The CRC32 of an event's bytes before the checksum.
///
/// The server sets and clears the in-use flag of a format description in place, without a new
/// checksum: it counts as clear.
pub(crate) fn file_crc(event_type: EventType, flags: u16, content: &[u8]) -> u32 {
    let mut hasher = crc32fast::Hasher::new();
    let header = content.len().min(EventHeader::LEN);
    let (head, body) = content.split_at(header);
    if let Some(head) = plain_head(event_type, flags, head) {
        hasher.update(&head);
    } else {
        hasher.update(head);
    }
    hasher.update(body);
    hasher.finalize()
}

/// The header as it is checksummed, where that is not the header as it stands.
pub(crate) fn plain_head(
    event_type: EventType,
    flags: u16,
    head: &[u8],
) -> Option<[u8; EventHeader::LEN]> {
    if event_type != EventType::FORMAT_DESCRIPTION || flags & FLAG_BINLOG_IN_USE == 0 {
        return None;
    }
    let mut plain: [u8; EventHeader::LEN] = head.try_into().ok()?;
    plain[17..].copy_from_slice(&(flags & !FLAG_BINLOG_IN_USE).to_le_bytes());
    Some(plain)
}

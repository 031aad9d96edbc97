use std::fmt;
use std::str::FromStr;

/// Why a text is no GTID or GTID set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GtidParseError {
    #[error("`{0}` is not a UUID")]
    Uuid(String),
    #[error("`{0}` is not a tag: 1 to 32 of a-z, 0-9 and _, not beginning with a digit")]
    Tag(String),
    #[error("`{0}` is not a sequence number or an interval of them (1 to 2^63 - 2)")]
    Interval(String),
    #[error("`{0}` is not of the form UUID[:TAG]:NUMBER")]
    Gtid(String),
}

/// A server's UUID, 16 bytes in text order.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Uuid(pub [u8; 16]);

impl fmt::Display for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, byte) in self.0.iter().enumerate() {
            if matches!(at, 4 | 6 | 8 | 10) {
                f.write_str("-")?;
            }
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

impl fmt::Debug for Uuid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for Uuid {
    type Err = GtidParseError;

    fn from_str(text: &str) -> Result<Self, GtidParseError> {
        let error = || GtidParseError::Uuid(text.to_owned());
        let mut digits = text.bytes().filter(|byte| *byte != b'-');
        let mut uuid = [0; 16];
        for byte in &mut uuid {
            let mut value = 0;
            for _ in 0..2 {
                let digit = digits.next().ok_or_else(error)?;
                let digit = char::from(digit).to_digit(16).ok_or_else(error)?;
                value = value << 4 | digit as u8;
            }
            *byte = value;
        }
        if digits.next().is_some() || !matches!(text.len(), 32 | 36) {
            return Err(error());
        }
        Ok(Self(uuid))
    }
}

/// The tag of a GTID (MySQL 8.3+), empty for most.
#[derive(Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tag {
    // Zero bytes follow the text, so the derived order is the text's.
    text: [u8; Tag::LEN_MAX],
}

impl Tag {
    pub const LEN_MAX: usize = 32;
    pub const EMPTY: Self = Self {
        text: [0; Self::LEN_MAX],
    };

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.text[0] == 0
    }

    #[must_use]
    pub fn as_str(&self) -> &str {
        let len = self
            .text
            .iter()
            .position(|byte| *byte == 0)
            .unwrap_or(Self::LEN_MAX);
        std::str::from_utf8(&self.text[..len]).expect("a tag is made of ASCII only")
    }
}

impl FromStr for Tag {
    type Err = GtidParseError;

    fn from_str(text: &str) -> Result<Self, GtidParseError> {
        let lower = text.to_ascii_lowercase();
        let legal = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_';
        let first_is_digit = lower
            .bytes()
            .next()
            .is_none_or(|byte| byte.is_ascii_digit());
        if lower.len() > Self::LEN_MAX || first_is_digit || !lower.bytes().all(legal) {
            return Err(GtidParseError::Tag(text.to_owned()));
        }
        let mut tag = Self::EMPTY;
        tag.text[..lower.len()].copy_from_slice(lower.as_bytes());
        Ok(tag)
    }
}

impl fmt::Debug for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self.as_str(), f)
    }
}

/// Where GTIDs come from: a server and a tag. Each source numbers its transactions from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceId {
    pub uuid: Uuid,
    pub tag: Tag,
}

impl From<Uuid> for SourceId {
    fn from(uuid: Uuid) -> Self {
        Self {
            uuid,
            tag: Tag::EMPTY,
        }
    }
}

impl fmt::Display for SourceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.uuid, f)?;
        if !self.tag.is_empty() {
            write!(f, ":{}", self.tag.as_str())?;
        }
        Ok(())
    }
}

/// A global transaction identifier.
///
/// It names a transaction, it does not identify one: only together with the transaction's bytes
/// does it (a number can be used again after a cut, DESIGN 3).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Gtid {
    pub source: SourceId,
    /// 1 to [`Gtid::SEQUENCE_LAST`].
    pub sequence: u64,
}

impl Gtid {
    /// The largest sequence number that MySQL uses (`GNO_END - 1`).
    pub const SEQUENCE_LAST: u64 = i64::MAX as u64 - 1;
}

impl fmt::Display for Gtid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.source, self.sequence)
    }
}

impl FromStr for Gtid {
    type Err = GtidParseError;

    fn from_str(text: &str) -> Result<Self, GtidParseError> {
        let error = || GtidParseError::Gtid(text.to_owned());
        let parts: Vec<&str> = text.split(':').map(str::trim).collect();
        let (uuid, tag, sequence) = match parts[..] {
            [uuid, sequence] => (uuid, Tag::EMPTY, sequence),
            [uuid, tag, sequence] => (uuid, tag.parse()?, sequence),
            _ => return Err(error()),
        };
        let sequence = sequence.parse().map_err(|_| error())?;
        if !(1..=Self::SEQUENCE_LAST).contains(&sequence) {
            return Err(error());
        }
        Ok(Self {
            source: SourceId {
                uuid: uuid.parse()?,
                tag,
            },
            sequence,
        })
    }
}

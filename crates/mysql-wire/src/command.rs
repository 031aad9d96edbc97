use bytes::{BufMut, Bytes};
use quorate_types::{GtidSet, GtidWireError};

use crate::cursor::{Cursor, ParseError, text};

const COM_QUIT: u8 = 0x01;
const COM_INIT_DB: u8 = 0x02;
const COM_QUERY: u8 = 0x03;
const COM_PING: u8 = 0x0e;
const COM_BINLOG_DUMP: u8 = 0x12;
const COM_REGISTER_SLAVE: u8 = 0x15;
const COM_BINLOG_DUMP_GTID: u8 = 0x1e;

/// A dump that ends with the last event there is.
pub const DUMP_NON_BLOCK: u16 = 1;
/// The consumer knows heartbeats with 64 bit positions.
pub const DUMP_HEARTBEAT_V2: u16 = 2;

/// What a client asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    Query(String),
    InitDb(String),
    Ping,
    Quit,
    RegisterReplica(RegisterReplica),
    BinlogDump(BinlogDump),
    BinlogDumpGtid(BinlogDumpGtid),
    /// Something that a source has no answer for, by its first byte.
    Other(u8),
}

/// `COM_REGISTER_SLAVE`, without the account in it: that is for show only.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RegisterReplica {
    pub server_id: u32,
    pub host: String,
    pub port: u16,
}

/// A dump from a place in a binlog file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BinlogDump {
    pub flags: u16,
    pub server_id: u32,
    pub file: String,
    pub position: u32,
}

/// A dump of what is not in a GTID set.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BinlogDumpGtid {
    pub flags: u16,
    pub server_id: u32,
    pub file: String,
    pub position: u64,
    pub executed: GtidSet,
}

/// Why a command is none. The connection can go on: refuse the command.
#[derive(Debug, thiserror::Error)]
pub enum CommandParseError {
    #[error("understand a command")]
    Parse(#[from] ParseError),
    #[error("understand a dump request's GTID set")]
    Gtids(#[from] GtidWireError),
}

impl Command {
    /// # Errors
    /// If a known command does not have the form that it should have.
    pub fn parse(packet: &Bytes) -> Result<Self, CommandParseError> {
        let mut cursor = Cursor::new(packet, "command");
        Ok(match cursor.u8()? {
            COM_QUIT => Self::Quit,
            COM_INIT_DB => Self::InitDb(text(&cursor.rest())),
            COM_QUERY => Self::Query(text(&cursor.rest())),
            COM_PING => Self::Ping,
            COM_REGISTER_SLAVE => Self::RegisterReplica(RegisterReplica::parse(&mut cursor)?),
            COM_BINLOG_DUMP => Self::BinlogDump(BinlogDump {
                position: cursor.u32()?,
                flags: cursor.u16()?,
                server_id: cursor.u32()?,
                file: text(&cursor.rest()),
            }),
            COM_BINLOG_DUMP_GTID => Self::BinlogDumpGtid(BinlogDumpGtid::parse(&mut cursor)?),
            other => Self::Other(other),
        })
    }
}

impl RegisterReplica {
    fn parse(cursor: &mut Cursor<'_>) -> Result<Self, ParseError> {
        let server_id = cursor.u32()?;
        let mut texts = [const { String::new() }; 3];
        for one in &mut texts {
            let len = cursor.u8()?;
            *one = text(&cursor.bytes(usize::from(len))?);
        }
        let [host, ..] = texts;
        let port = cursor.u16()?;
        Ok(Self {
            server_id,
            host,
            port,
        })
    }

    #[must_use]
    pub fn to_payload(&self) -> Vec<u8> {
        let mut out = vec![COM_REGISTER_SLAVE];
        out.put_u32_le(self.server_id);
        let host = &self.host.as_bytes()[..self.host.len().min(60)];
        out.put_u8(host.len() as u8);
        out.put_slice(host);
        // No user, no password.
        out.put_u16_le(0);
        out.put_u16_le(self.port);
        // Rank and source id are unused since long.
        out.put_u64_le(0);
        out
    }
}

impl BinlogDumpGtid {
    fn parse(cursor: &mut Cursor<'_>) -> Result<Self, CommandParseError> {
        let flags = cursor.u16()?;
        let server_id = cursor.u32()?;
        let len = cursor.u32()? as usize;
        let file = text(&cursor.bytes(len)?);
        let position = cursor.u64()?;
        // Without the set, everything is wanted.
        let executed = if cursor.is_empty() {
            GtidSet::new()
        } else {
            let len = cursor.u32()? as usize;
            GtidSet::try_from_wire(&cursor.bytes(len)?)?
        };
        Ok(Self {
            flags,
            server_id,
            file,
            position,
            executed,
        })
    }

    #[must_use]
    pub fn to_payload(&self) -> Vec<u8> {
        let set = self.executed.to_wire();
        let mut out = vec![COM_BINLOG_DUMP_GTID];
        out.put_u16_le(self.flags);
        out.put_u32_le(self.server_id);
        out.put_u32_le(self.file.len() as u32);
        out.put_slice(self.file.as_bytes());
        out.put_u64_le(self.position);
        out.put_u32_le(set.len() as u32);
        out.put_slice(&set);
        out
    }
}

#[cfg(test)]
mod tests;

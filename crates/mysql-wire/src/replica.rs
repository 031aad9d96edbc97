use std::time::Duration;

use bytes::{BufMut, Bytes};
use quorate_types::{BinlogPosition, GtidSet, Uuid};

use crate::client::{Answer, Connection, QueryError};
use crate::command::{BinlogDumpGtid, DUMP_HEARTBEAT_V2, DUMP_NON_BLOCK, RegisterReplica};
use crate::cursor::ParseError;
use crate::error::ServerError;
use crate::packet::{PacketError, PacketReader, PacketWriter, SequenceCheck};
use crate::resultset::is_eof;

/// A year, the most that MySQL takes: our reader stops reading while it is full, and a connection
/// that waits for its turn to dump is idle.
const PATIENCE_SECONDS: u32 = 31_536_000;
const SEMI_SYNC_MAGIC: u8 = 0xef;
const ACK_WANTED: u8 = 1;
/// A dump by GTID set starts at no file's first event.
const DUMP_POSITION: u64 = 4;

/// Who the replica says it is.
#[derive(Clone, Debug)]
pub struct ReplicaOptions {
    /// Not zero, and no other replica's.
    pub server_id: u32,
    /// Another connection with the same uuid makes the source end this one's dump.
    pub server_uuid: Uuid,
    /// How long the source may be silent.
    pub heartbeat_period: Duration,
    pub checksum: ChecksumRequest,
    /// Whether the source waits for this replica's ACKs.
    pub semi_sync: bool,
}

/// What events should end with.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ChecksumRequest {
    /// Whatever the source has in its files.
    #[default]
    AsSource,
    None,
}

/// What the source said of itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SourceIdentity {
    pub server_id: String,
    pub server_uuid: String,
    pub gtid_mode: String,
    /// `CRC32` or `NONE`.
    pub checksum: String,
    /// `@@rpl_semi_sync_source_enabled`; none if the plugin is not there.
    pub semi_sync_enabled: Option<bool>,
}

/// Why a replica could not be introduced to its source.
#[derive(Debug, thiserror::Error)]
pub enum PrepareError {
    #[error("run `{statement}` on the source")]
    Query {
        statement: String,
        #[source]
        source: QueryError,
    },
    #[error("the source has no semi-sync plugin")]
    NoSemiSync,
}

/// A connection that is registered as a replica, and whose dump has not begun. It may wait as long
/// as it likes: it is opened before the port that it guards.
#[derive(Debug)]
pub struct ReplicaConnection {
    connection: Connection,
    server_id: u32,
    semi_sync: bool,
    source: SourceIdentity,
}

impl ReplicaConnection {
    /// Says what a replica of MySQL says before it asks for a dump.
    pub async fn prepare(
        connection: Connection,
        options: &ReplicaOptions,
    ) -> Result<Self, PrepareError> {
        let mut steps = Steps(connection);
        steps.run(&format!(
            "SET SESSION net_write_timeout = {PATIENCE_SECONDS}, SESSION wait_timeout = {PATIENCE_SECONDS}"
        )).await?;
        steps.run("SELECT UNIX_TIMESTAMP()").await?;
        let server_id = steps.run("SELECT @@GLOBAL.SERVER_ID").await?;
        let period = options.heartbeat_period.as_nanos();
        steps
            .run(&format!(
                "SET @master_heartbeat_period = {period}, @source_heartbeat_period = {period}"
            ))
            .await?;
        let checksum = match options.checksum {
            ChecksumRequest::AsSource => "@@global.binlog_checksum",
            ChecksumRequest::None => "'NONE'",
        };
        steps
            .run(&format!(
                "SET @master_binlog_checksum = {checksum}, @source_binlog_checksum = {checksum}"
            ))
            .await?;
        let checksum = steps.run("SELECT @source_binlog_checksum").await?;
        let gtid_mode = steps.run("SELECT @@GLOBAL.GTID_MODE").await?;
        let server_uuid = steps.run("SELECT @@GLOBAL.SERVER_UUID").await?;
        let uuid = options.server_uuid;
        steps
            .run(&format!(
                "SET @slave_uuid = '{uuid}', @replica_uuid = '{uuid}'"
            ))
            .await?;
        let semi_sync_enabled = steps.semi_sync().await?;
        if options.semi_sync {
            if semi_sync_enabled.is_none() {
                return Err(PrepareError::NoSemiSync);
            }
            steps
                .run("SET @rpl_semi_sync_replica = 1, @rpl_semi_sync_slave = 1")
                .await?;
        }
        steps.register(options.server_id).await?;
        Ok(Self {
            connection: steps.0,
            server_id: options.server_id,
            semi_sync: options.semi_sync,
            source: SourceIdentity {
                server_id,
                server_uuid,
                gtid_mode,
                checksum,
                semi_sync_enabled,
            },
        })
    }

    #[must_use]
    pub fn source(&self) -> &SourceIdentity {
        &self.source
    }

    #[must_use]
    pub fn connection_id(&self) -> u32 {
        self.connection.connection_id()
    }

    /// The connection still answers statements before the dump.
    pub fn connection(&mut self) -> &mut Connection {
        &mut self.connection
    }

    /// Asks for everything outside `executed`. The file's name is left empty and the position is 4,
    /// so that nothing but the set decides.
    pub async fn dump_gtid(
        self,
        executed: &GtidSet,
    ) -> Result<(DumpReader, AckWriter), QueryError> {
        self.dump(executed, DUMP_HEARTBEAT_V2).await
    }

    /// The same, but it ends with what there is.
    pub async fn dump_gtid_to_the_end(
        self,
        executed: &GtidSet,
    ) -> Result<(DumpReader, AckWriter), QueryError> {
        let flags = DUMP_HEARTBEAT_V2 | DUMP_NON_BLOCK;
        self.dump(executed, flags).await
    }

    async fn dump(
        mut self,
        executed: &GtidSet,
        flags: u16,
    ) -> Result<(DumpReader, AckWriter), QueryError> {
        let request = BinlogDumpGtid {
            flags,
            server_id: self.server_id,
            file: String::new(),
            position: DUMP_POSITION,
            executed: executed.clone(),
        };
        self.connection.begin()?;
        let mut stream = self.connection.stream;
        stream.start_command();
        stream.write(&request.to_payload()).await?;
        let (packets, writer) = stream.split(SequenceCheck::Lenient);
        let reader = DumpReader {
            packets,
            semi_sync: self.semi_sync,
            ack_wanted: false,
        };
        Ok((reader, AckWriter { packets: writer }))
    }
}

struct Steps(Connection);

impl Steps {
    /// The first value of the answer; empty if there is none.
    async fn run(&mut self, statement: &str) -> Result<String, PrepareError> {
        let result = self
            .0
            .query(statement)
            .await
            .map_err(|source| PrepareError::Query {
                statement: statement.to_owned(),
                source,
            })?;
        Ok(result.scalar().unwrap_or_default())
    }

    /// Whether the source's side of semi-sync is on, under its new name or its old one.
    async fn semi_sync(&mut self) -> Result<Option<bool>, PrepareError> {
        for name in ["source", "master"] {
            match self
                .run(&format!("SELECT @@global.rpl_semi_sync_{name}_enabled"))
                .await
            {
                Ok(value) => return Ok(Some(value == "1")),
                Err(PrepareError::Query {
                    source: QueryError::Server(error),
                    ..
                }) if error.code == ServerError::UNKNOWN_SYSTEM_VARIABLE => {}
                Err(error) => return Err(error),
            }
        }
        Ok(None)
    }

    async fn register(&mut self, server_id: u32) -> Result<(), PrepareError> {
        let payload = RegisterReplica {
            server_id,
            ..RegisterReplica::default()
        }
        .to_payload();
        let answer = self.0.command(&[&payload], Answer::Ok).await;
        answer.map(drop).map_err(|source| PrepareError::Query {
            statement: "COM_REGISTER_SLAVE".to_owned(),
            source,
        })
    }
}

/// What comes in a dump.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DumpPacket {
    Event(EventChunk),
    /// There is no more, and the source does not wait for it.
    Eof,
    /// The source ended the dump.
    Error(ServerError),
}

/// An event, or a piece of one that is larger than [`crate::CHUNK_BYTES_MAX`]: its header is whole
/// in the first piece; the last one may be empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventChunk {
    /// The source holds back a commit until this event's end position is ACKed. The same in every
    /// piece of the event.
    pub ack_wanted: bool,
    pub first: bool,
    pub last: bool,
    /// The event's bytes, nothing of the protocol's before them.
    pub bytes: Bytes,
}

/// Why a dump cannot go on. Whatever it is, the epoch of the dump is over.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    #[error("read the dump")]
    Packet(#[from] PacketError),
    #[error("understand a packet of the dump")]
    Parse(#[from] ParseError),
    #[error("the source sent an event without the semi-sync header")]
    NoSemiSyncHeader,
}

/// The events of a dump.
#[derive(Debug)]
pub struct DumpReader {
    packets: PacketReader,
    semi_sync: bool,
    ack_wanted: bool,
}

impl DumpReader {
    /// The next event or piece of one. Cancelling it loses nothing.
    pub async fn next(&mut self) -> Result<DumpPacket, DumpError> {
        let chunk = self.packets.next_chunk().await?;
        if !chunk.first {
            return Ok(self.event(chunk.first, chunk.last, chunk.bytes));
        }
        match chunk.bytes.first() {
            Some(0x00) if self.semi_sync => match (chunk.bytes.get(1), chunk.bytes.get(2)) {
                (Some(&SEMI_SYNC_MAGIC), Some(flag)) => {
                    self.ack_wanted = flag & ACK_WANTED != 0;
                    Ok(self.event(true, chunk.last, chunk.bytes.slice(3..)))
                }
                _ => Err(DumpError::NoSemiSyncHeader),
            },
            Some(0x00) => Ok(self.event(true, chunk.last, chunk.bytes.slice(1..))),
            Some(0xff) => Ok(DumpPacket::Error(ServerError::parse(&chunk.bytes)?)),
            Some(0xfe) if is_eof(&chunk.bytes) => Ok(DumpPacket::Eof),
            _ => Err(ParseError {
                what: "packet of a dump",
                at: 0,
            }
            .into()),
        }
    }

    fn event(&self, first: bool, last: bool, bytes: Bytes) -> DumpPacket {
        DumpPacket::Event(EventChunk {
            ack_wanted: self.ack_wanted,
            first,
            last,
            bytes,
        })
    }
}

/// The way of the ACKs to the source.
#[derive(Debug)]
pub struct AckWriter {
    packets: PacketWriter,
}

impl AckWriter {
    /// Releases every transaction at or before `position`. The caller read it in this dump: the
    /// server believes anything, and a position past its end opens it for good.
    ///
    /// **One write.** The source reads an ACK with a single read, so it leaves in a single write.
    /// **Cancellation.** A cancelled ACK may be sent, or sent with the next one.
    pub async fn ack(&mut self, position: &BinlogPosition) -> Result<(), PacketError> {
        let mut payload = Vec::with_capacity(9 + position.file.len());
        payload.put_u8(SEMI_SYNC_MAGIC);
        payload.put_u64_le(position.offset);
        payload.put_slice(position.file.as_bytes());
        // A leftover of a cancelled ACK must not share this one's write.
        self.packets.flush().await?;
        self.packets.set_sequence(0);
        self.packets.queue(&[&payload]).await?;
        self.packets.flush().await
    }
}

#[cfg(test)]
mod tests;

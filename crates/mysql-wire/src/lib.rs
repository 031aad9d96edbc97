//! The MySQL protocol, both ends: a client that is a replica of the primary and its administrator,
//! and a server that other replicas and consumers read the binlog from.
//!
//! # Invariants
//! - Bytes from the other side never panic, and nothing is allocated by a count that they hold.
//! - A packet of a dump is never held whole: it comes in pieces of at most [`CHUNK_BYTES_MAX`].
//! - A semi-sync ACK leaves in one write ([`AckWriter::ack`]).
//! - A statement never gets another statement's answer: a connection whose answer was not read to
//!   its end refuses everything ([`QueryError::Interrupted`]).
//! - A password goes out hashed; itself only over TLS, a unix socket, or under the server's RSA key.
//! - Events are bytes here: what is in them is another crate's business.

mod auth;
mod client;
mod command;
mod cursor;
mod error;
mod handshake;
mod packet;
mod replica;
mod resultset;
mod server;
mod tls;

pub use client::{
    ANSWER_BYTES_MAX, ClientTls, ConnectError, ConnectOptions, Connection, QueryError,
};
pub use command::{
    BinlogDump, BinlogDumpGtid, Command, CommandParseError, DUMP_HEARTBEAT_V2, DUMP_NON_BLOCK,
    RegisterReplica,
};
pub use cursor::ParseError;
pub use error::ServerError;
pub use handshake::{Greeting, Scramble};
pub use packet::{
    CHUNK_BYTES_MAX, Chunk, PacketError, PacketReader, PacketStream, PacketWriter, SequenceCheck,
};
pub use replica::{
    AckWriter, ChecksumRequest, DumpError, DumpPacket, DumpReader, EventChunk, PrepareError,
    ReplicaConnection, ReplicaOptions, SourceIdentity,
};
pub use resultset::{OkPacket, QueryResult, Row};
pub use server::{
    AcceptError, CommandError, CommandReader, EventWriter, ServerConnection, ServerOptions,
    clean_scramble,
};
pub use tls::{accept as accept_tls, connect as connect_tls};

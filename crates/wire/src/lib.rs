//! The protocol between nodes and the log's payloads as bytes: the code generated from `proto/`,
//! and conversions into the domain's values.
//!
//! The comments in `proto/quorate/v1` are the reference. Generated types are in [`v1`]; what Raft
//! itself needs (votes, memberships) is converted in `consensus`, which knows the other side.
//!
//! # Invariants
//! - Bytes from a peer or from disk give a value or a [`DecodeError`]: no panic, and no allocation
//!   by a count that they contain.
//! - Decoding copies no event: a transaction's bytes are a slice of the buffer that was received.
//! - Equal commands have equal bytes, and the bytes of each kind are pinned by a file in
//!   `testdata/`: logs written by an older version must be read alike by every node.
//! - A payload of an unknown kind is an error of its own, never skipped: the node must stop there.

mod admin;
mod command;
mod error;
mod ids;
mod member;

/// What is generated from `proto/quorate/v1`.
pub mod v1 {
    #![allow(missing_docs, unreachable_pub, clippy::all, clippy::pedantic)]
    tonic::include_proto!("quorate.v1");
}

pub use admin::{NodeReport, RaftRole, cluster_view, status_reply};
pub use command::{decode_command, encode_command, encoded_len};
pub use error::DecodeError;

use bytes::Bytes;

/// The bytes of a generated message, in one allocation of their size.
pub fn encode_message<M: prost::Message>(message: &M) -> Bytes {
    Bytes::from(message.encode_to_vec())
}

/// # Errors
/// If the bytes are no such message.
pub fn decode_message<M: prost::Message + Default>(bytes: Bytes) -> Result<M, DecodeError> {
    Ok(M::decode(bytes)?)
}

/// A field that the protocol requires, though its encoding does not.
fn required<T>(field: Option<T>, name: &'static str) -> Result<T, DecodeError> {
    field.ok_or(DecodeError::Missing(name))
}

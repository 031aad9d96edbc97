//! Snapshots: the state of `apply` and the index of accepted transactions. No transaction is in
//! them; the log is where those are.

use bytes::{Bytes, BytesMut};
use prost::Message;
use quorate_wire::v1;

use crate::codec::{self, CodecError};
use crate::types::RaftSnapshotMeta;

/// An encoded [`apply::Snapshot`](crate::apply::Snapshot).
#[derive(Clone, Debug)]
pub(crate) struct SnapshotBytes(pub(crate) Bytes);

/// A snapshot as the disk keeps it: where it stands in the log, then its bytes.
pub(crate) fn to_disk(meta: &RaftSnapshotMeta, snapshot: &Bytes) -> Bytes {
    let head = head(meta, snapshot.len());
    let mut out = BytesMut::with_capacity(snapshot.len() + 1024);
    head.encode_length_delimited(&mut out)
        .expect("a buffer grows as needed");
    out.extend_from_slice(snapshot);
    out.freeze()
}

pub(crate) fn from_disk(mut bytes: Bytes) -> Result<(RaftSnapshotMeta, Bytes), CodecError> {
    let head = v1::SnapshotHead::decode_length_delimited(&mut bytes)?;
    Ok((meta(head)?, bytes))
}

pub(crate) fn head(meta: &RaftSnapshotMeta, length: usize) -> v1::SnapshotHead {
    let membership = &meta.last_membership;
    v1::SnapshotHead {
        peer: None,
        vote: None,
        last: meta.last_log_id.map(codec::log_id_to_wire),
        membership_log_id: membership.log_id().map(codec::log_id_to_wire),
        membership: Some(codec::membership_to_wire(membership.membership())),
        length: length as u64,
    }
}

pub(crate) fn meta(head: v1::SnapshotHead) -> Result<RaftSnapshotMeta, CodecError> {
    Ok(RaftSnapshotMeta {
        last_log_id: head.last.map(codec::log_id_from_wire),
        last_membership: codec::stored_membership(head.membership_log_id, head.membership)?,
    })
}

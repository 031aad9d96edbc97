//! The last resort: what makes one survivor's log the log of a new cluster.

use bytes::Bytes;
use openraft::EntryPayload;
use quorate_storage::{LogRead, MetaKey, Record, Write};
use quorate_types::{Command, LogId, LogIndex, Member, Members, NodeId};
use std::collections::{BTreeMap, BTreeSet};

use crate::codec;
use crate::types::{
    LogCommand, NodeAddress, RaftEntry, RaftLeaderId, RaftLogId, RaftMembership, RaftVote, log_id,
};

/// Why a survivor's log cannot be made a cluster's.
#[derive(Debug, thiserror::Error)]
pub enum RecoverError {
    #[error("read the Raft log")]
    Disk(#[from] quorate_storage::Error),
    #[error("the Raft log is damaged")]
    Damaged(#[source] Box<dyn std::error::Error + Send + Sync>),
    #[error("the Raft folder has no log: there is nothing to recover")]
    Empty,
}

/// What a survivor holds, and what makes it a cluster of its own.
#[derive(Debug)]
pub struct SoleVoter {
    /// The last entry of its log.
    pub last: LogId,
    /// The last one that it knew to be committed. What follows may never have been acknowledged;
    /// what it lacks may have been.
    pub committed: Option<LogId>,
    /// To be written as one group, and synced.
    pub writes: Vec<Write>,
}

fn damaged(error: impl std::error::Error + Send + Sync + 'static) -> RecoverError {
    RecoverError::Damaged(Box::new(error))
}

/// Makes `node`, described by `member`, the only voter and the only member, behind everything that
/// its log holds. The log, its snapshot and so the accepted set stay as they are.
///
/// The two entries are of a term that this log never saw, led by this node. So they come after
/// everything else in it, and the epoch before them is over with the first entry of whoever leads.
///
/// # Errors
/// If there is no log, or it cannot be read.
pub fn sole_voter(
    disk: &impl LogRead,
    node: NodeId,
    member: &Member,
) -> Result<SoleVoter, RecoverError> {
    let id = |key| -> Result<Option<RaftLogId>, RecoverError> {
        let bytes = disk.meta(key)?;
        bytes
            .map(codec::log_id_from_bytes)
            .transpose()
            .map_err(damaged)
    };
    let vote = disk.meta(MetaKey::Vote)?;
    let vote = vote.map(codec::vote_from_bytes).transpose();
    let voted = vote.map_err(damaged)?.map_or(0, |vote| vote.leader_id.term);
    let last = last_entry(disk)?
        .max(id(MetaKey::Purged)?)
        .ok_or(RecoverError::Empty)?;
    let leader_id = RaftLeaderId {
        term: voted.max(last.leader_id.term) + 1,
        node_id: node.0,
    };
    let address = NodeAddress {
        address: member.address.clone(),
        incarnation: member.incarnation,
    };
    let voters = vec![BTreeSet::from([node.0])];
    let nodes = BTreeMap::from([(node.0, address)]);
    let membership = RaftMembership::new(voters, nodes).map_err(damaged)?;
    let members = Members::from([(node, member.clone())]);
    let payloads = [
        EntryPayload::Membership(membership),
        EntryPayload::Normal(LogCommand::new(Command::Members(members))),
    ];
    let records = (last.index + 1..).zip(payloads).map(|(index, payload)| {
        let log_id = RaftLogId { leader_id, index };
        Record {
            index: LogIndex(index),
            bytes: codec::entry_to_bytes(&RaftEntry { log_id, payload }),
        }
    });
    let vote = RaftVote {
        leader_id,
        committed: true,
    };
    Ok(SoleVoter {
        last: log_id(last),
        committed: id(MetaKey::Committed)?.map(log_id),
        writes: vec![
            Write::Append(records.collect()),
            Write::SetMeta(MetaKey::Vote, codec::vote_to_bytes(&vote)),
            // Whoever comes with such a number now is somebody else.
            Write::SetMeta(MetaKey::PeerStarts, Bytes::new()),
        ],
    })
}

fn last_entry(disk: &impl LogRead) -> Result<Option<RaftLogId>, RecoverError> {
    let Some((_, last)) = disk.bounds()? else {
        return Ok(None);
    };
    let record = disk.read(last..last.next(), 1)?.pop();
    let record = record.ok_or_else(|| damaged(std::io::Error::other("its last entry is gone")))?;
    let entry = codec::entry_from_bytes(record.bytes).map_err(damaged)?;
    Ok(Some(entry.log_id))
}

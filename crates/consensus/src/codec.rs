//! openraft's types to and from the protocol's. An entry has one encoding, on disk and on the way.

use bytes::Bytes;
use openraft::EntryPayload;
use prost::Message;
use quorate_types::Command;
use quorate_wire::v1 as pb;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use crate::types::{
    LogCommand, NodeAddress, RaftEntry, RaftLeaderId, RaftLogId, RaftMembership,
    RaftStoredMembership, RaftVote,
};

/// Why bytes from a peer or the disk are not what they should be.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CodecError {
    #[error("not a message of the protocol")]
    Message(#[from] prost::DecodeError),
    #[error("{0} is missing")]
    Missing(&'static str),
    #[error("illegal membership: {0}")]
    Membership(String),
    #[error("entries of more than one log, or of a leader after the one that sends them")]
    Entries,
    #[error("illegal payload")]
    Payload(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl LogCommand {
    /// Encodes the command, once and for all. What is kept are slices of the encoding: the events
    /// as they came would be a second copy for as long as the log's tail holds the entry.
    #[must_use]
    pub fn new(command: Command) -> Self {
        let encoded = quorate_wire::encode_command(&command);
        let sliced = quorate_wire::decode_command(encoded.clone());
        debug_assert_eq!(sliced.as_ref().ok(), Some(&command));
        Self {
            command: Arc::new(sliced.unwrap_or(command)),
            encoded,
        }
    }

    pub(crate) fn decode(encoded: Bytes) -> Result<Self, CodecError> {
        let command = quorate_wire::decode_command(encoded.clone())
            .map_err(|error| CodecError::Payload(Box::new(error)))?;
        Ok(Self {
            command: Arc::new(command),
            encoded,
        })
    }
}

pub(crate) fn vote_to_wire(vote: &RaftVote) -> pb::Vote {
    pb::Vote {
        term: vote.leader_id.term,
        node: vote.leader_id.node_id,
        committed: vote.committed,
    }
}

pub(crate) fn vote_from_wire(vote: Option<pb::Vote>) -> Result<RaftVote, CodecError> {
    let vote = vote.ok_or(CodecError::Missing("vote"))?;
    Ok(RaftVote {
        leader_id: RaftLeaderId {
            term: vote.term,
            node_id: vote.node,
        },
        committed: vote.committed,
    })
}

pub(crate) fn log_id_to_wire(id: RaftLogId) -> pb::LogId {
    pb::LogId {
        term: id.leader_id.term,
        node: id.leader_id.node_id,
        index: id.index,
    }
}

pub(crate) fn log_id_from_wire(id: pb::LogId) -> RaftLogId {
    RaftLogId {
        leader_id: RaftLeaderId {
            term: id.term,
            node_id: id.node,
        },
        index: id.index,
    }
}

pub(crate) fn membership_to_wire(membership: &RaftMembership) -> pb::Membership {
    pb::Membership {
        configs: membership
            .get_joint_config()
            .iter()
            .map(|ids| pb::NodeSet {
                ids: ids.iter().copied().collect(),
            })
            .collect(),
        nodes: membership
            .nodes()
            .map(|(id, node)| pb::RaftNode {
                id: *id,
                address: node.address.clone(),
                incarnation: node.incarnation.0,
            })
            .collect(),
    }
}

pub(crate) fn membership_from_wire(
    membership: pb::Membership,
) -> Result<RaftMembership, CodecError> {
    let configs: Vec<BTreeSet<u64>> = membership
        .configs
        .into_iter()
        .map(|set| set.ids.into_iter().collect())
        .collect();
    let nodes: BTreeMap<u64, NodeAddress> = membership
        .nodes
        .into_iter()
        .map(|node| {
            let address = NodeAddress {
                address: node.address,
                incarnation: quorate_types::Incarnation(node.incarnation),
            };
            (node.id, address)
        })
        .collect();
    if configs.is_empty() && nodes.is_empty() {
        return Ok(RaftMembership::default());
    }
    RaftMembership::new(configs, nodes).map_err(|error| CodecError::Membership(error.to_string()))
}

pub(crate) fn stored_membership(
    log_id: Option<pb::LogId>,
    membership: Option<pb::Membership>,
) -> Result<RaftStoredMembership, CodecError> {
    let membership = membership_from_wire(membership.unwrap_or_default())?;
    Ok(RaftStoredMembership::new(
        log_id.map(log_id_from_wire),
        membership,
    ))
}

pub(crate) fn entry_to_wire(entry: &RaftEntry) -> pb::Entry {
    use quorate_wire::v1::entry::Body;
    let body = match &entry.payload {
        EntryPayload::Blank => Body::Blank(pb::Blank {}),
        EntryPayload::Normal(command) => Body::Payload(command.encoded.clone()),
        EntryPayload::Membership(membership) => Body::Membership(membership_to_wire(membership)),
    };
    pb::Entry {
        log_id: Some(log_id_to_wire(entry.log_id)),
        body: Some(body),
    }
}

pub(crate) fn entry_from_wire(entry: pb::Entry) -> Result<RaftEntry, CodecError> {
    use quorate_wire::v1::entry::Body;
    let log_id = entry.log_id.ok_or(CodecError::Missing("log id"))?;
    let payload = match entry.body.ok_or(CodecError::Missing("entry body"))? {
        Body::Blank(_) => EntryPayload::Blank,
        Body::Payload(encoded) => EntryPayload::Normal(LogCommand::decode(encoded)?),
        Body::Membership(membership) => EntryPayload::Membership(membership_from_wire(membership)?),
    };
    Ok(RaftEntry {
        log_id: log_id_from_wire(log_id),
        payload,
    })
}

pub(crate) fn entry_to_bytes(entry: &RaftEntry) -> Bytes {
    entry_to_wire(entry).encode_to_vec().into()
}

pub(crate) fn entry_from_bytes(bytes: Bytes) -> Result<RaftEntry, CodecError> {
    entry_from_wire(pb::Entry::decode(bytes)?)
}

pub(crate) fn vote_to_bytes(vote: &RaftVote) -> Bytes {
    vote_to_wire(vote).encode_to_vec().into()
}

pub(crate) fn vote_from_bytes(bytes: Bytes) -> Result<RaftVote, CodecError> {
    vote_from_wire(Some(pb::Vote::decode(bytes)?))
}

pub(crate) fn log_id_to_bytes(id: RaftLogId) -> Bytes {
    log_id_to_wire(id).encode_to_vec().into()
}

pub(crate) fn log_id_from_bytes(bytes: Bytes) -> Result<RaftLogId, CodecError> {
    Ok(log_id_from_wire(pb::LogId::decode(bytes)?))
}

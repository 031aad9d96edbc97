//! Who talks to whom: a node whose folder is not the one that was made a member must not take
//! part, since it forgot what it promised.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use bytes::Bytes;
use prost::Message;
use quorate_storage::{MetaKey, Write};
use quorate_types::{ClusterId, Incarnation, NodeId};
use quorate_wire::v1;
use tonic::Status;
use tonic::metadata::{BinaryMetadataValue, MetadataMap};

use crate::log::{WriteError, Writer};

/// The metadata of every answer: the answerer's `Peer`, as every request has the asker's.
const PEER_METADATA: &str = "quorate-peer-bin";

/// This process, as it introduces itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Identity {
    pub cluster: ClusterId,
    pub node: NodeId,
    /// Of the Raft folder.
    pub incarnation: Incarnation,
    /// Grows with each start of the process; kept in the Raft folder.
    pub start_counter: u64,
}

/// How many of its last starts a node names.
pub const START_IDS: usize = 16;

/// Random numbers of a folder's last starts, this one first; 0 for a start of which none is known.
pub type StartIds = [u64; START_IDS];

/// Checks what peers say of themselves, and remembers how often they started.
pub(crate) struct Peers {
    own: Identity,
    start_ids: StartIds,
    writer: Writer,
    starts: Mutex<Starts>,
    /// Which refusals were told to people, each once.
    told: Mutex<BTreeMap<NodeId, String>>,
}

/// The highest start that was heard of a node, with its number; 0 if it named none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Start {
    incarnation: Incarnation,
    counter: u64,
    id: u64,
}

type Starts = BTreeMap<NodeId, Start>;

/// The incarnation that a membership names for a node, if it names one.
pub(crate) type Registered = Option<Incarnation>;

impl Peers {
    /// `starts` is what [`MetaKey::PeerStarts`] holds.
    pub(crate) fn new(
        own: Identity,
        start_ids: StartIds,
        writer: Writer,
        starts: Option<Bytes>,
    ) -> Result<Self, prost::DecodeError> {
        Ok(Self {
            own,
            start_ids,
            writer,
            starts: Mutex::new(decode_starts(starts.unwrap_or_default())?),
            told: Mutex::default(),
        })
    }

    /// This node or a peer takes the other for somebody else. Nobody else would say why nothing goes
    /// on between them; it is said once.
    pub(crate) fn on_refused(&self, peer: NodeId, why: &str) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.get(&peer).is_none_or(|before| before != why) {
            tracing::warn!(%peer, "nothing counts between this node and a peer: {why}");
            told.insert(peer, why.to_owned());
        }
    }

    pub(crate) fn on_agreed(&self, peer: NodeId) {
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        told.remove(&peer);
    }

    pub(crate) fn introduce(&self, to: NodeId) -> v1::Peer {
        v1::Peer {
            cluster_id: self.own.cluster.0,
            from: self.own.node.0,
            to: to.0,
            incarnation: self.own.incarnation.0,
            start_counter: self.own.start_counter,
            start_ids: known_ids(&self.start_ids).to_vec(),
        }
    }

    /// Adds this node's introduction to an answer.
    pub(crate) fn sign<T>(&self, to: NodeId, answer: T) -> tonic::Response<T> {
        let mut response = tonic::Response::new(answer);
        let peer = self.introduce(to).encode_to_vec();
        response
            .metadata_mut()
            .insert_bin(PEER_METADATA, BinaryMetadataValue::from_bytes(&peer));
        response
    }

    /// Checks the introduction in an answer to a request that was meant for `expected`.
    pub(crate) async fn check_answer(
        &self,
        metadata: &MetadataMap,
        expected: NodeId,
        registered: Registered,
    ) -> Result<(), Status> {
        let bytes = metadata
            .get_bin(PEER_METADATA)
            .and_then(|value| value.to_bytes().ok())
            .ok_or_else(|| Status::failed_precondition("the answer names no peer"))?;
        let peer = v1::Peer::decode(bytes)
            .map_err(|_| Status::invalid_argument("the answer's peer is no message"))?;
        let from = self.check(Some(peer), registered).await?;
        if from != expected {
            return Err(Status::failed_precondition(format!(
                "this is node {from}, not node {expected}"
            )));
        }
        Ok(())
    }

    /// Checks an introduction; with `registered`, the sender's incarnation must be that one.
    pub(crate) async fn check(
        &self,
        peer: Option<v1::Peer>,
        registered: Registered,
    ) -> Result<NodeId, Status> {
        let peer = peer.ok_or_else(|| Status::invalid_argument("the request names no peer"))?;
        let own = &self.own;
        if peer.cluster_id != own.cluster.0 {
            return Err(Status::failed_precondition(format!(
                "this node is in cluster {}, not in {}",
                own.cluster,
                ClusterId(peer.cluster_id)
            )));
        }
        if peer.to != own.node.0 {
            return Err(Status::failed_precondition(format!(
                "this is node {}, not node {}",
                own.node, peer.to
            )));
        }
        let from = NodeId(peer.from);
        let incarnation = Incarnation(peer.incarnation);
        if let Some(registered) = registered
            && registered != incarnation
        {
            return Err(Status::failed_precondition(format!(
                "the folder of node {from} is {incarnation}, but the member's is {registered}"
            )));
        }
        self.on_start(from, incarnation, peer.start_counter, &peer.start_ids)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))??;
        Ok(from)
    }

    /// Remembers the highest start of each folder. A lower one is an old image of it; so is one whose
    /// history has another number where the highest start that was heard has its own: the image was
    /// started as often as the folder, or more often.
    ///
    /// The record is written before any vote that is asked for in the same request, so it is
    /// synced with that vote.
    async fn on_start(
        &self,
        from: NodeId,
        incarnation: Incarnation,
        counter: u64,
        ids: &[u64],
    ) -> Result<Result<(), Status>, WriteError> {
        let id = ids.first().copied().unwrap_or_default();
        let encoded = {
            let mut starts = self.starts.lock().unwrap_or_else(PoisonError::into_inner);
            let known = starts
                .get(&from)
                .filter(|known| known.incarnation == incarnation);
            if let Some(known) = known {
                if counter < known.counter {
                    return Ok(Err(Status::failed_precondition(format!(
                        "node {from} says that it started {counter} times, but it started \
                         {} times: its Raft folder was put back. Without that folder it is \
                         taken in anew",
                        known.counter
                    ))));
                }
                if is_another(known, counter, ids) {
                    return Ok(Err(Status::failed_precondition(format!(
                        "node {from} says that it started {counter} times, but its start number \
                         {} was another one: its Raft folder was put back. Without that folder it \
                         is taken in anew",
                        known.counter
                    ))));
                }
                if (known.counter, known.id) == (counter, id)
                    || (known.counter == counter && id == 0)
                {
                    return Ok(Ok(()));
                }
            }
            let start = Start {
                incarnation,
                counter,
                id,
            };
            starts.insert(from, start);
            encode_starts(&starts)
        };
        let write = Write::SetMeta(MetaKey::PeerStarts, encoded);
        self.writer.write_lazily(vec![write]).await?;
        Ok(Ok(()))
    }
}

/// Whether a history of starts, the one numbered `counter` first, has another start in the place of
/// the known one. One that does not reach back so far says nothing.
fn is_another(known: &Start, counter: u64, ids: &[u64]) -> bool {
    let back = usize::try_from(counter - known.counter).unwrap_or(usize::MAX);
    let said = ids.iter().take(START_IDS).nth(back).copied();
    known.id != 0 && said.is_some_and(|said| said != 0 && said != known.id)
}

fn known_ids(ids: &[u64]) -> &[u64] {
    let known = ids.iter().take_while(|id| **id != 0).count();
    &ids[..known]
}

fn encode_starts(starts: &Starts) -> Bytes {
    let mut out = Vec::new();
    for (node, start) in starts {
        let peer = v1::Peer {
            cluster_id: 0,
            from: node.0,
            to: 0,
            incarnation: start.incarnation.0,
            start_counter: start.counter,
            start_ids: known_ids(&[start.id]).to_vec(),
        };
        peer.encode_length_delimited(&mut out)
            .expect("a vector grows as needed");
    }
    out.into()
}

fn decode_starts(mut bytes: Bytes) -> Result<Starts, prost::DecodeError> {
    let mut starts = Starts::new();
    while !bytes.is_empty() {
        let peer = v1::Peer::decode_length_delimited(&mut bytes)?;
        let start = Start {
            incarnation: Incarnation(peer.incarnation),
            counter: peer.start_counter,
            id: peer.start_ids.first().copied().unwrap_or_default(),
        };
        starts.insert(NodeId(peer.from), start);
    }
    Ok(starts)
}

#[cfg(test)]
mod tests;

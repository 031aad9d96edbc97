//! openraft's network: one [`Link`] per follower and purpose, all to the same peer service.

use std::fmt::Display;
use std::future::{Future, ready};
use std::sync::Arc;
use std::time::Duration;

use futures_util::{Stream, StreamExt, stream};
use openraft::OptionalSend;
use openraft::alias;
use openraft::base::{BoxFuture, BoxStream};
use openraft::errors::{NetworkError, RPCError, ReplicationClosed, StreamingError, Unreachable};
use openraft::network::{
    Backoff, NetBackoff, NetSnapshot, NetStreamAppend, NetTransferLeader, NetVote, RPCOption,
    RaftNetworkFactory,
};
use openraft::raft::{
    AppendEntriesRequest, SnapshotResponse, StreamAppendError, StreamAppendResult,
    TransferLeaderError, TransferLeaderRequest, TransferLeaderResponse, VoteRequest, VoteResponse,
};
use quorate_types::{Incarnation, LogIndex, NodeId};
use quorate_wire::v1::{self, raft_client::RaftClient};
use tonic::Status;
use tonic::transport::Channel;

use crate::codec::{self, CodecError};
use crate::lease::Lease;
use crate::peer::dialer::{Dialer, Line};
use crate::peer::identity::Peers;
use crate::peer::is_of_one_log;
use crate::peer::piggyback::Piggyback;
use crate::snapshot::SnapshotBytes;
use crate::types::{NodeAddress, RaftLogId, RaftVote, TypeConfig, leader_id};

type AppendResult = Result<StreamAppendResult<TypeConfig>, RPCError<TypeConfig>>;

/// Between two attempts to reach a node that is down. It is what a returning node waits at most
/// until it hears from the leader's replication; heartbeats reach it sooner.
const BACKOFF: Duration = Duration::from_millis(100);

/// A piece of a snapshot, as sent.
const SNAPSHOT_CHUNK_BYTES: usize = 1 << 20;

/// A whole snapshot, which the receiver also makes durable.
const SNAPSHOT_TIMEOUT: Duration = Duration::from_secs(60);

/// The boot time, as the node's network has it.
pub(crate) type BootTime = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Makes links.
#[derive(Clone)]
pub(crate) struct Network {
    pub(crate) dialer: Arc<Dialer>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) lease: Arc<Lease>,
    pub(crate) boot_time: BootTime,
}

impl Network {
    pub(crate) fn link(&self, target: NodeId, node: &NodeAddress, line: Line) -> Link {
        Link {
            network: self.clone(),
            target,
            node: node.clone(),
            line,
        }
    }
}

impl RaftNetworkFactory<TypeConfig> for Network {
    type Network = Link;

    async fn new_client(&mut self, target: u64, node: &NodeAddress) -> Link {
        self.link(NodeId(target), node, Line::Log)
    }

    async fn new_heartbeat_client(&mut self, target: u64, node: &NodeAddress) -> Link {
        self.link(NodeId(target), node, Line::Heartbeat)
    }

    async fn new_snapshot_client(&mut self, target: u64, node: &NodeAddress) -> Link {
        self.link(NodeId(target), node, Line::Snapshot)
    }
}

/// The way to one node for one purpose.
pub(crate) struct Link {
    network: Network,
    target: NodeId,
    node: NodeAddress,
    line: Line,
}

fn unreachable(error: impl Display) -> RPCError<TypeConfig> {
    RPCError::Unreachable(Unreachable::from_string(error))
}

fn broken(error: &CodecError) -> RPCError<TypeConfig> {
    RPCError::Network(NetworkError::new(error))
}

impl Link {
    /// Calls, within `timeout`, and checks who answers.
    pub(crate) async fn call<T, F>(
        &self,
        line: Line,
        timeout: Duration,
        call: impl FnOnce(RaftClient<Channel>) -> F,
    ) -> Result<T, Status>
    where
        F: Future<Output = Result<tonic::Response<T>, Status>>,
    {
        let client = self
            .network
            .dialer
            .client(self.target, &self.node.address, line)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let answer = tokio::time::timeout(timeout, call(client))
            .await
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer in time")));
        let checked = match answer {
            Ok(response) => {
                let registered = (self.node.incarnation != Incarnation::default())
                    .then_some(self.node.incarnation);
                self.network
                    .peers
                    .check_answer(response.metadata(), self.target, registered)
                    .await
                    .map(|()| response.into_inner())
            }
            Err(status) => Err(status),
        };
        match &checked {
            Ok(_) => self.network.peers.on_agreed(self.target),
            // One of the two refused the other for what it says of itself.
            Err(status) if status.code() == tonic::Code::FailedPrecondition => {
                self.network.peers.on_refused(self.target, status.message());
            }
            Err(_) => {}
        }
        if checked.is_err() {
            self.network.dialer.forget(self.target, line);
        }
        checked
    }

    pub(crate) fn introduce(&self) -> Option<v1::Peer> {
        Some(self.network.peers.introduce(self.target))
    }

    async fn heartbeat(
        &self,
        request: AppendEntriesRequest<TypeConfig>,
        timeout: Duration,
    ) -> AppendResult {
        let leader = leader_id(request.vote.leader_id);
        let message = v1::HeartbeatRequest {
            peer: self.introduce(),
            vote: Some(codec::vote_to_wire(&request.vote)),
            previous: request.prev_log_id.map(codec::log_id_to_wire),
            committed: request.leader_commit.map(codec::log_id_to_wire),
        };
        // Before it is sent: the follower's promise counts from when it arrives, which is later.
        let stamp = (self.network.boot_time)();
        let answer = self
            .call(Line::Heartbeat, timeout, |mut client| async move {
                client.heartbeat(message).await
            })
            .await
            .map_err(unreachable)?;
        let result = heartbeat_result(answer, request.prev_log_id).map_err(|e| broken(&e))?;
        if !matches!(result, Err(StreamAppendError::HigherVote(_))) {
            self.network.lease.record(leader, self.target, stamp);
        }
        Ok(result)
    }

    async fn append(
        &self,
        input: impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send + Unpin + 'static,
        timeout: Duration,
    ) -> Result<BoxStream<'static, AppendResult>, RPCError<TypeConfig>> {
        let mut peer = self.introduce();
        let requests = input.map(move |request| append_to_wire(&request, peer.take()));
        let answers = self
            .call(Line::Log, timeout, |mut client| async move {
                client.append(requests).await
            })
            .await
            .map_err(unreachable)?;
        let (dialer, target) = (self.network.dialer.clone(), self.target);
        Ok(Box::pin(answers.map(move |answer| match answer {
            Ok(answer) => append_result(answer).map_err(|error| broken(&error)),
            Err(status) => {
                dialer.forget(target, Line::Log);
                Err(unreachable(status))
            }
        })))
    }
}

fn append_to_wire(
    request: &AppendEntriesRequest<TypeConfig>,
    peer: Option<v1::Peer>,
) -> v1::AppendRequest {
    v1::AppendRequest {
        peer,
        vote: Some(codec::vote_to_wire(&request.vote)),
        previous: request.prev_log_id.map(codec::log_id_to_wire),
        committed: request.leader_commit.map(codec::log_id_to_wire),
        entries: request.entries.iter().map(codec::entry_to_wire).collect(),
    }
}

fn append_result(answer: v1::AppendResponse) -> Result<StreamAppendResult<TypeConfig>, CodecError> {
    use v1::append_response::Result as Answer;
    Ok(match answer.result.ok_or(CodecError::Missing("result"))? {
        Answer::Appended(appended) => Ok(appended.last.map(codec::log_id_from_wire)),
        Answer::Conflict(at) => Err(StreamAppendError::Conflict(codec::log_id_from_wire(at))),
        Answer::HigherVote(vote) => Err(StreamAppendError::HigherVote(codec::vote_from_wire(
            Some(vote),
        )?)),
    })
}

fn heartbeat_result(
    answer: v1::HeartbeatResponse,
    previous: Option<RaftLogId>,
) -> Result<StreamAppendResult<TypeConfig>, CodecError> {
    use v1::heartbeat_response::Result as Answer;
    Ok(match answer.result.ok_or(CodecError::Missing("result"))? {
        Answer::Complete(_) => Ok(previous),
        Answer::Appended(appended) => Ok(appended.last.map(codec::log_id_from_wire)),
        Answer::Conflict(_) => Err(StreamAppendError::Conflict(
            previous.ok_or(CodecError::Missing("previous log id"))?,
        )),
        Answer::HigherVote(vote) => Err(StreamAppendError::HigherVote(codec::vote_from_wire(
            Some(vote),
        )?)),
    })
}

impl NetStreamAppend<TypeConfig> for Link {
    fn stream_append<'s, S>(
        &'s mut self,
        input: S,
        option: RPCOption,
    ) -> BoxFuture<'s, Result<BoxStream<'s, AppendResult>, RPCError<TypeConfig>>>
    where
        S: Stream<Item = AppendEntriesRequest<TypeConfig>> + OptionalSend + Unpin + 'static,
    {
        let mut input = input.take_while(|request| {
            let sent = is_of_one_log(request);
            if !sent {
                tracing::info!(%request, "it leads no more, and sends nothing of the next leader's log");
            }
            ready(sent)
        });
        Box::pin(async move {
            // openraft's backoff sleeps inside this stream: whoever dials before polling it dials
            // a dead node in a tight loop.
            let Some(first) = input.next().await else {
                return Ok(stream::empty().boxed());
            };
            if self.line == Line::Heartbeat {
                let result = self.heartbeat(first, option.hard_ttl()).await;
                return match result {
                    Ok(result) => Ok(stream::iter([Ok(result)]).boxed()),
                    Err(error) => Err(error),
                };
            }
            let input = stream::iter([first]).chain(input);
            // The answer begins once the first request arrived, a whole message of entries.
            let timeout = option.hard_ttl().max(Duration::from_secs(1));
            self.append(Piggyback::new(input), timeout).await
        })
    }
}

impl NetVote<TypeConfig> for Link {
    async fn vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let message = vote_to_wire(&request, self.introduce());
        let answer = self
            .call(Line::Control, option.hard_ttl(), |mut client| async move {
                client.vote(message).await
            })
            .await
            .map_err(unreachable)?;
        vote_result(answer).map_err(|error| broken(&error))
    }

    async fn pre_vote(
        &mut self,
        request: VoteRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<VoteResponse<TypeConfig>, RPCError<TypeConfig>> {
        let message = vote_to_wire(&request, self.introduce());
        let answer = self
            .call(Line::Control, option.hard_ttl(), |mut client| async move {
                client.pre_vote(message).await
            })
            .await
            .map_err(unreachable)?;
        vote_result(answer).map_err(|error| broken(&error))
    }
}

fn vote_to_wire(request: &VoteRequest<TypeConfig>, peer: Option<v1::Peer>) -> v1::VoteRequest {
    v1::VoteRequest {
        peer,
        vote: Some(codec::vote_to_wire(&request.vote)),
        last: request.last_log_id.map(codec::log_id_to_wire),
        leadership_transfer: request.leadership_transfer,
    }
}

fn vote_result(answer: v1::VoteResponse) -> Result<VoteResponse<TypeConfig>, CodecError> {
    Ok(VoteResponse::new(
        codec::vote_from_wire(answer.vote)?,
        answer.last.map(codec::log_id_from_wire),
        answer.granted,
    ))
}

impl NetTransferLeader<TypeConfig> for Link {
    async fn transfer_leader(
        &mut self,
        request: TransferLeaderRequest<TypeConfig>,
        option: RPCOption,
    ) -> Result<TransferLeaderResponse<TypeConfig>, RPCError<TypeConfig>> {
        let message = v1::TransferLeaderRequest {
            peer: self.introduce(),
            from: Some(codec::vote_to_wire(request.from_leader())),
            to: *request.to_node_id(),
            last: request.last_log_id().copied().map(codec::log_id_to_wire),
        };
        let answer = self
            .call(Line::Control, option.hard_ttl(), |mut client| async move {
                client.transfer_leader(message).await
            })
            .await
            .map_err(unreachable)?;
        transfer_result(answer).map_err(|error| broken(&error))
    }
}

fn transfer_result(
    answer: v1::TransferLeaderResponse,
) -> Result<TransferLeaderResponse<TypeConfig>, CodecError> {
    use v1::transfer_leader_response::Result as Answer;
    Ok(match answer.result.ok_or(CodecError::Missing("result"))? {
        Answer::Accepted(_) => Ok(()),
        Answer::VoteChanged(changed) => Err(TransferLeaderError::VoteChanged {
            expected: codec::vote_from_wire(changed.expected)?,
            actual: codec::vote_from_wire(changed.actual)?,
        }),
        Answer::LogNotSynced(behind) => Err(TransferLeaderError::LogNotFlushed {
            expected: behind.expected.map(codec::log_id_from_wire),
            actual: behind.actual.map(codec::log_id_from_wire),
        }),
    })
}

impl NetSnapshot<TypeConfig> for Link {
    type SnapshotData = SnapshotBytes;

    async fn full_snapshot(
        &mut self,
        vote: RaftVote,
        snapshot: alias::SnapshotOf<TypeConfig, SnapshotBytes>,
        cancel: impl Future<Output = ReplicationClosed> + OptionalSend + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamingError<TypeConfig>> {
        let (meta, bytes) = (snapshot.meta, snapshot.snapshot.0);
        let head = v1::SnapshotHead {
            peer: self.introduce(),
            vote: Some(codec::vote_to_wire(&vote)),
            last: meta.last_log_id.map(codec::log_id_to_wire),
            membership_log_id: meta.last_membership.log_id().map(codec::log_id_to_wire),
            membership: Some(codec::membership_to_wire(meta.last_membership.membership())),
            length: bytes.len() as u64,
        };
        let head = stream::iter([v1::snapshot_chunk::Part::Head(head)]);
        let data = stream::iter((0..bytes.len()).step_by(SNAPSHOT_CHUNK_BYTES)).map(move |at| {
            let end = bytes.len().min(at + SNAPSHOT_CHUNK_BYTES);
            v1::snapshot_chunk::Part::Data(bytes.slice(at..end))
        });
        let chunks = head
            .chain(data)
            .map(|part| v1::SnapshotChunk { part: Some(part) });
        let sending = self.call(Line::Snapshot, SNAPSHOT_TIMEOUT, |mut client| async move {
            client.snapshot(chunks).await
        });
        tokio::select! {
            biased;
            closed = cancel => Err(StreamingError::Closed(closed)),
            answer = sending => {
                let answer = answer.map_err(|status| {
                    StreamingError::Unreachable(Unreachable::from_string(status))
                })?;
                let vote = codec::vote_from_wire(answer.vote)
                    .map_err(|error| StreamingError::Network(NetworkError::new(&error)))?;
                Ok(SnapshotResponse::new(vote))
            }
        }
    }
}

impl NetBackoff<TypeConfig> for Link {
    fn backoff(&self) -> Option<Backoff> {
        Some(Backoff::new(std::iter::repeat(BACKOFF)))
    }
}

/// What a node that was asked for a read index said.
pub(crate) enum ReadIndexAnswer {
    At(LogIndex),
    NotLeader,
}

impl Link {
    pub(crate) async fn read_index(&self, timeout: Duration) -> Result<ReadIndexAnswer, Status> {
        use v1::read_index_response::Result as Answer;
        let request = v1::ReadIndexRequest {
            peer: self.introduce(),
        };
        let answer = self
            .call(Line::Control, timeout, |mut client| async move {
                client.read_index(request).await
            })
            .await?;
        Ok(match answer.result {
            Some(Answer::Read(id)) => ReadIndexAnswer::At(LogIndex(id.index)),
            Some(Answer::NotLeader(_)) | None => ReadIndexAnswer::NotLeader,
        })
    }
}

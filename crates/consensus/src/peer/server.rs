//! The peer service: checks who asks, then hands over to openraft.

use std::collections::VecDeque;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::BytesMut;
use futures_util::{FutureExt, Stream, StreamExt, stream};
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, StreamAppendError, TransferLeaderError,
    TransferLeaderRequest, VoteRequest,
};
use openraft::{RaftLogReader, alias};
use prost::Message;
use quorate_types::{NodeId, Rule};
use quorate_wire::v1;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, oneshot};
use tokio::time::Instant;
use tonic::{Request, Response, Status, Streaming};

use crate::codec::{self, CodecError};
use crate::consensus::Raft;
use crate::log::{LogReader, Writer};
use crate::peer::identity::{Peers, Registered};
use crate::peer::is_of_one_log;
use crate::snapshot::{self, SnapshotBytes};
use crate::types::{RaftLogId, RaftVote, TypeConfig};

/// Bytes of entries from one leader that are appended here and not synced yet. The sender waits
/// when they are full, so that a slow disk does not fill the memory.
const UNSYNCED_BYTES_MAX: usize = 8 << 20;

/// A snapshot that a peer may send: its claim is not allocated, but it is not trusted without end.
const SNAPSHOT_BYTES_MAX: u64 = 1 << 30;

/// Answers this node's peers.
pub struct Service {
    pub(crate) raft: Raft,
    pub(crate) peers: Arc<Peers>,
    pub(crate) log: LogReader,
    pub(crate) writer: Writer,
    /// Until then this node promised to the leader before its restart, which it forgot, may hold.
    pub(crate) sits_out_until: Option<Instant>,
    pub(crate) left_out: Option<Rule>,
}

type Appends = Pin<Box<dyn Stream<Item = Result<v1::AppendResponse, Status>> + Send>>;

fn illegal(error: CodecError) -> Status {
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    Status::invalid_argument(format!("{error}: {}", cause.unwrap_or_default()))
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(format!("Raft has stopped: {error}"))
}

impl Service {
    /// Whether the log has the entry that a snapshot ends with, from the leadership that sends it or
    /// one before, and so all that comes before it: the answers were lost by which the leader would
    /// know. openraft (0.10.0-alpha.37) takes such a snapshot over as if the log ended there, though
    /// it goes on, and says in debug builds that its state is invalid.
    async fn has_all_of(&self, vote: RaftVote, last: Option<RaftLogId>) -> bool {
        let Some(last) = last else { return false };
        let obeys = self
            .raft
            .with_raft_state(move |state| *state.vote_ref() == vote);
        if !matches!(obeys.await, Ok(true)) {
            return false;
        }
        let mut log = self.log.clone();
        let found = log.try_get_log_entries(last.index..=last.index).await;
        let has = found.is_ok_and(|found| found.first().is_some_and(|entry| entry.log_id == last));
        // What was written before this is durable then; and since the entry is committed, no leader
        // takes it away.
        has && self.writer.write_synced(Vec::new()).await.is_ok()
    }

    /// Refuses what a node must not answer for one lease after it started: openraft keeps no
    /// lease over a restart, so the leader before may still count on this node's promise.
    fn check_sat_out(&self) -> Result<(), Status> {
        match self.sits_out_until {
            Some(until) if Instant::now() < until => Err(Status::unavailable(
                "this node just started and does not vote yet",
            )),
            _ => Ok(()),
        }
    }

    /// Takes a heartbeat in. Its answer promises to elect nobody else for a while, and says nothing
    /// of the log: it needs this node's vote for the leader on the disk, and no more. openraft's own
    /// answer comes when all entries before it are synced, under load later than a lease ends.
    async fn hear(
        &self,
        heartbeat: AppendEntriesRequest<TypeConfig>,
    ) -> Result<AppendEntriesResponse<TypeConfig>, Status> {
        let vote = heartbeat.vote;
        let mut answer = std::pin::pin!(self.raft.append_entries(heartbeat));
        // Sent behind the heartbeat, so that Raft has refused it by then or will not.
        let (tell, told) = oneshot::channel();
        let taken_in = async {
            let look = self.raft.external_request(move |state| {
                // Nobody waits any more if the answer came first.
                let _ = tell.send(*state.vote_ref() == vote);
            });
            look.await.map_err(stopped)?;
            told.await.map_err(stopped)
        };
        let is_followed = tokio::select! {
            biased;
            answer = &mut answer => return answer.map_err(stopped),
            is_followed = taken_in => is_followed?,
        };
        if let Some(answer) = answer.as_mut().now_or_never() {
            return answer.map_err(stopped);
        }
        if is_followed && self.raft.watch_vote_progress().get() == Some(vote) {
            return Ok(AppendEntriesResponse::Success);
        }
        answer.await.map_err(stopped)
    }

    /// Checks a candidate: its folder must be the member's. A candidate whose log is longer than
    /// this node's may be a member that this node has not read of yet; that log elects it, or not.
    async fn check_candidate(
        &self,
        request: v1::VoteRequest,
    ) -> Result<(NodeId, VoteRequest<TypeConfig>), Status> {
        let metrics = self.raft.metrics();
        let (registered, own_last, excluded_by) = {
            use openraft::async_runtime::WatchReceiver;
            let metrics = metrics.borrow_watched();
            let from = request.peer.as_ref().map(|peer| peer.from);
            let membership = &metrics.membership_config;
            let node = from.and_then(|from| membership.get_node(&from).cloned());
            let votes = from.is_some_and(|from| membership.voter_ids().any(|voter| voter == from));
            // Only what is committed counts: an entry that may yet be taken back excludes nobody.
            let excluded_by =
                (*membership.log_id()).filter(|at| !votes && Some(*at) <= metrics.last_applied);
            (
                node.map(|node| node.incarnation),
                metrics.last_log_index,
                excluded_by,
            )
        };
        // A node without a log is no member yet, or was one and lost its folder.
        if own_last.is_none() {
            return Err(Status::unavailable(
                "this node has no log and does not vote",
            ));
        }
        // Who was removed, or never had a vote, and whose log does not even hold that, cannot know of
        // a later change. An election of its could only disturb.
        let last = request.last.map(codec::log_id_from_wire);
        if let Some(at) = excluded_by
            && last < Some(at)
        {
            let from = self.peers.check(request.peer, None).await?;
            return Err(Status::failed_precondition(format!(
                "node {from} has no vote in this cluster"
            )));
        }
        let candidate_last = request.last.as_ref().map(|last| last.index);
        let registered: Registered = registered
            .filter(|incarnation| incarnation.0 != 0)
            .filter(|_| candidate_last <= own_last);
        let from = self.peers.check(request.peer, registered).await?;
        self.check_sat_out()?;
        let vote = VoteRequest {
            vote: codec::vote_from_wire(request.vote).map_err(illegal)?,
            last_log_id: request.last.map(codec::log_id_from_wire),
            leadership_transfer: request.leadership_transfer,
        };
        Ok((from, vote))
    }
}

fn append_from_wire(
    request: v1::AppendRequest,
) -> Result<AppendEntriesRequest<TypeConfig>, CodecError> {
    let request = AppendEntriesRequest {
        vote: codec::vote_from_wire(request.vote)?,
        prev_log_id: request.previous.map(codec::log_id_from_wire),
        leader_commit: request.committed.map(codec::log_id_from_wire),
        entries: request
            .entries
            .into_iter()
            .map(codec::entry_from_wire)
            .collect::<Result<_, _>>()?,
    };
    match is_of_one_log(&request) {
        true => Ok(request),
        false => Err(CodecError::Entries),
    }
}

/// The entries of one stream that are on their way to the disk.
#[derive(Clone)]
struct Unsynced {
    room: Arc<Semaphore>,
    taken: Arc<Mutex<VecDeque<OwnedSemaphorePermit>>>,
}

impl Unsynced {
    fn new() -> Self {
        Self {
            room: Arc::new(Semaphore::new(UNSYNCED_BYTES_MAX)),
            taken: Arc::default(),
        }
    }

    async fn enter(&self, bytes: usize) {
        let bytes = u32::try_from(bytes.min(UNSYNCED_BYTES_MAX)).unwrap_or(u32::MAX);
        let room = self.room.clone();
        let permit = room
            .acquire_many_owned(bytes)
            .await
            .expect("the semaphore is never closed");
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.push_back(permit);
    }

    fn leave(&self) {
        let mut taken = self.taken.lock().unwrap_or_else(PoisonError::into_inner);
        taken.pop_front();
    }
}

/// The requests of a stream, decoded; it ends where one is illegal, and the leader begins another.
fn append_requests(
    first: v1::AppendRequest,
    rest: Streaming<v1::AppendRequest>,
    unsynced: Unsynced,
    (from, left_out): (NodeId, Option<Rule>),
) -> impl Stream<Item = AppendEntriesRequest<TypeConfig>> + Send {
    let requests = stream::iter([Ok(first)]).chain(rest);
    stream::unfold(Some((requests, unsynced)), move |state| async move {
        let (mut requests, unsynced) = state?;
        let request: v1::AppendRequest = requests.next().await?.ok()?;
        let bytes = request.encoded_len();
        match append_from_wire(request) {
            Ok(mut request) => {
                if left_out == Some(Rule::ApplyWhatIsCommitted) {
                    let last = request.entries.last().map(|entry| entry.log_id);
                    request.leader_commit = last.max(request.leader_commit);
                }
                unsynced.enter(bytes).await;
                Some((request, Some((requests, unsynced))))
            }
            Err(error) => {
                tracing::error!(peer = %from, %error, cause = ?error, "cannot read the log that the leader sends");
                None
            }
        }
    })
}

fn appended(
    result: Result<Option<alias::LogIdOf<TypeConfig>>, StreamAppendError<TypeConfig>>,
) -> v1::AppendResponse {
    use v1::append_response::Result as Answer;
    let result = match result {
        Ok(last) => Answer::Appended(v1::Appended {
            last: last.map(codec::log_id_to_wire),
        }),
        Err(StreamAppendError::Conflict(at)) => Answer::Conflict(codec::log_id_to_wire(at)),
        Err(StreamAppendError::HigherVote(vote)) => Answer::HigherVote(codec::vote_to_wire(&vote)),
    };
    v1::AppendResponse {
        result: Some(result),
    }
}

fn heartbeat_answer(result: AppendEntriesResponse<TypeConfig>) -> v1::HeartbeatResponse {
    use v1::heartbeat_response::Result as Answer;
    let result = match result {
        AppendEntriesResponse::Success => Answer::Complete(v1::Complete {}),
        AppendEntriesResponse::PartialSuccess(last) => Answer::Appended(v1::Appended {
            last: last.map(codec::log_id_to_wire),
        }),
        AppendEntriesResponse::Conflict => Answer::Conflict(v1::Conflict {}),
        AppendEntriesResponse::HigherVote(vote) => Answer::HigherVote(codec::vote_to_wire(&vote)),
    };
    v1::HeartbeatResponse {
        result: Some(result),
    }
}

fn vote_answer(answer: openraft::raft::VoteResponse<TypeConfig>) -> v1::VoteResponse {
    v1::VoteResponse {
        vote: Some(codec::vote_to_wire(&answer.vote)),
        granted: answer.vote_granted,
        last: answer.last_log_id.map(codec::log_id_to_wire),
    }
}

async fn receive_snapshot(
    mut chunks: Streaming<v1::SnapshotChunk>,
    length: u64,
) -> Result<BytesMut, Status> {
    let mut bytes = BytesMut::new();
    while let Some(chunk) = chunks.message().await? {
        let Some(v1::snapshot_chunk::Part::Data(data)) = chunk.part else {
            return Err(Status::invalid_argument("a snapshot has one head"));
        };
        bytes.extend_from_slice(&data);
        if bytes.len() as u64 > length.min(SNAPSHOT_BYTES_MAX) {
            return Err(Status::invalid_argument(
                "the snapshot is longer than it should be",
            ));
        }
    }
    match bytes.len() as u64 == length {
        true => Ok(bytes),
        false => Err(Status::invalid_argument("the snapshot ends early")),
    }
}

#[tonic::async_trait]
impl v1::raft_server::Raft for Service {
    type AppendStream = Appends;

    async fn append(
        &self,
        request: Request<Streaming<v1::AppendRequest>>,
    ) -> Result<Response<Appends>, Status> {
        let mut requests = request.into_inner();
        let mut first = requests
            .message()
            .await?
            .ok_or_else(|| Status::invalid_argument("the stream is empty"))?;
        // Whoever was elected leads, whatever this node knows of the members by now: the
        // incarnation was checked by those who voted.
        let from = self.peers.check(first.peer.take(), None).await?;
        let unsynced = Unsynced::new();
        let requests = append_requests(first, requests, unsynced.clone(), (from, self.left_out));
        let answers = self.raft.stream_append(requests).map(move |answer| {
            unsynced.leave();
            answer.map(appended).map_err(stopped)
        });
        Ok(self.peers.sign(from, Box::pin(answers) as Appends))
    }

    async fn heartbeat(
        &self,
        request: Request<v1::HeartbeatRequest>,
    ) -> Result<Response<v1::HeartbeatResponse>, Status> {
        let request = request.into_inner();
        let from = self.peers.check(request.peer, None).await?;
        let append = AppendEntriesRequest {
            vote: codec::vote_from_wire(request.vote).map_err(illegal)?,
            prev_log_id: request.previous.map(codec::log_id_from_wire),
            leader_commit: request.committed.map(codec::log_id_from_wire),
            entries: Vec::new(),
        };
        let answer = self.hear(append).await?;
        Ok(self.peers.sign(from, heartbeat_answer(answer)))
    }

    async fn vote(
        &self,
        request: Request<v1::VoteRequest>,
    ) -> Result<Response<v1::VoteResponse>, Status> {
        let (from, vote) = self.check_candidate(request.into_inner()).await?;
        let answer = self.raft.vote(vote).await.map_err(stopped)?;
        Ok(self.peers.sign(from, vote_answer(answer)))
    }

    async fn pre_vote(
        &self,
        request: Request<v1::VoteRequest>,
    ) -> Result<Response<v1::VoteResponse>, Status> {
        let (from, vote) = self.check_candidate(request.into_inner()).await?;
        let answer = self.raft.pre_vote(vote).await.map_err(stopped)?;
        Ok(self.peers.sign(from, vote_answer(answer)))
    }

    async fn transfer_leader(
        &self,
        request: Request<v1::TransferLeaderRequest>,
    ) -> Result<Response<v1::TransferLeaderResponse>, Status> {
        use v1::transfer_leader_response::Result as Answer;
        let request = request.into_inner();
        let from = self.peers.check(request.peer, None).await?;
        self.check_sat_out()?;
        let leader: RaftVote = codec::vote_from_wire(request.from).map_err(illegal)?;
        let last = request.last.map(codec::log_id_from_wire);
        let transfer = TransferLeaderRequest::new(leader, request.to, last);
        let answer = self.raft.handle_transfer_leader(transfer).await;
        let result = match answer.map_err(stopped)? {
            Ok(()) => Answer::Accepted(v1::TransferAccepted {}),
            Err(TransferLeaderError::VoteChanged { expected, actual }) => {
                Answer::VoteChanged(v1::VoteChanged {
                    expected: Some(codec::vote_to_wire(&expected)),
                    actual: Some(codec::vote_to_wire(&actual)),
                })
            }
            Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
                Answer::LogNotSynced(v1::LogNotSynced {
                    expected: expected.map(codec::log_id_to_wire),
                    actual: actual.map(codec::log_id_to_wire),
                })
            }
        };
        let answer = v1::TransferLeaderResponse {
            result: Some(result),
        };
        Ok(self.peers.sign(from, answer))
    }

    async fn snapshot(
        &self,
        request: Request<Streaming<v1::SnapshotChunk>>,
    ) -> Result<Response<v1::SnapshotResponse>, Status> {
        let mut chunks = request.into_inner();
        let first = chunks.message().await?.and_then(|chunk| chunk.part);
        let Some(v1::snapshot_chunk::Part::Head(mut head)) = first else {
            return Err(Status::invalid_argument("a snapshot begins with its head"));
        };
        let from = self.peers.check(head.peer.take(), None).await?;
        let vote = codec::vote_from_wire(head.vote.take()).map_err(illegal)?;
        let length = head.length;
        let meta = snapshot::meta(head).map_err(illegal)?;
        let bytes = receive_snapshot(chunks, length).await?.freeze();
        if self.has_all_of(vote, meta.last_log_id).await {
            tracing::info!(peer = %from, "the log has all of a snapshot: it is not taken over");
            let vote = Some(codec::vote_to_wire(&vote));
            return Ok(self.peers.sign(from, v1::SnapshotResponse { vote }));
        }
        let snapshot = alias::SnapshotOf::<TypeConfig, SnapshotBytes> {
            meta,
            snapshot: SnapshotBytes(bytes),
        };
        let answer = self.raft.install_full_snapshot(vote, snapshot).await;
        let answer = v1::SnapshotResponse {
            vote: Some(codec::vote_to_wire(&answer.map_err(stopped)?.vote)),
        };
        Ok(self.peers.sign(from, answer))
    }

    async fn read_index(
        &self,
        request: Request<v1::ReadIndexRequest>,
    ) -> Result<Response<v1::ReadIndexResponse>, Status> {
        use v1::read_index_response::Result as Answer;
        let from = self.peers.check(request.into_inner().peer, None).await?;
        let read = self
            .raft
            .get_read_linearizer(openraft::ReadPolicy::ReadIndex)
            .await;
        let result = match read {
            Ok(read) => Answer::Read(codec::log_id_to_wire(*read.read_log_id().log_id())),
            Err(error) => {
                tracing::debug!(peer = %from, %error, "no read index to give");
                Answer::NotLeader(v1::NotLeader::default())
            }
        };
        let answer = v1::ReadIndexResponse {
            result: Some(result),
        };
        Ok(self.peers.sign(from, answer))
    }

    /// Answers anybody: it is how a node finds out that there is a cluster already.
    async fn hello(
        &self,
        request: Request<v1::HelloRequest>,
    ) -> Result<Response<v1::HelloResponse>, Status> {
        let from = request.into_inner().peer.map_or(0, |peer| peer.from);
        let answer = v1::HelloResponse {
            peer: Some(self.peers.introduce(NodeId(from))),
        };
        Ok(self.peers.sign(NodeId(from), answer))
    }
}

#[cfg(test)]
mod tests {
    use openraft::vote::RaftLeaderId;
    use quorate_net::TokioNet;
    use quorate_storage::MemoryDisk;
    use quorate_types::{ClusterId, Incarnation};

    use super::*;
    use crate::types::RaftLeaderId as LeaderId;
    use crate::{Consensus, ConsensusConfig, Identity};

    #[tokio::test]
    async fn a_snapshot_is_needed_unless_its_last_entry_came_from_who_is_obeyed() {
        let config = ConsensusConfig::new(Identity {
            cluster: ClusterId(7),
            node: NodeId(1),
            incarnation: Incarnation(1),
            start_counter: 1,
        });
        let (consensus, _) = Consensus::start(config, TokioNet, MemoryDisk::new())
            .await
            .unwrap();
        let address = "127.0.0.1:1".to_owned();
        consensus.initialize_single(address).await.unwrap();
        let mut view = consensus.view();
        view.wait_for(|view| view.is_leader && view.applied.is_some_and(|id| id.index.0 > 0))
            .await
            .unwrap();
        let service = consensus.service(None);

        let (vote, last) = service
            .raft
            .with_raft_state(|state| (*state.vote_ref(), state.local_committed().copied()))
            .await
            .unwrap();
        let last = last.expect("a leader begins with an entry");
        assert!(service.has_all_of(vote, Some(last)).await);
        let first = RaftLogId { index: 0, ..last };
        assert!(
            !service.has_all_of(vote, Some(first)).await,
            "of another term"
        );
        let next = RaftLogId {
            index: last.index + 1,
            ..last
        };
        assert!(!service.has_all_of(vote, Some(next)).await);
        let stranger = LeaderId::new(last.leader_id.term, 2);
        let other = RaftLogId::new(stranger, last.index);
        assert!(!service.has_all_of(vote, Some(other)).await);
        let of_stranger = RaftVote::new_committed(last.leader_id.term, 2);
        assert!(!service.has_all_of(of_stranger, Some(last)).await);
        assert!(!service.has_all_of(vote, None).await);
        consensus.shutdown().await;
    }
}

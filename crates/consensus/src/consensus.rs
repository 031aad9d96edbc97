use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::future::BoxFuture;
use openraft::async_runtime::WatchReceiver;
use openraft::errors::{ChangeMembershipError, ClientWriteError, RaftError};
use openraft::{ChangeMembers, ReadPolicy};
use quorate_net::Net;
use quorate_storage::{LogDisk, LogRead, MetaKey, Write};
use quorate_types::{Command, Incarnation, LeaderId, LogId, LogIndex, NodeId, Rule};
use quorate_wire::v1::raft_server::RaftServer;
use tokio::sync::{oneshot, watch};
use tokio::time::Instant;

use crate::accepted::{AcceptedIndex, AcceptedLog};
use crate::config::{ConsensusConfig, Timings};
use crate::error::{ChangeError, FatalError, ReadIndexError, StartError};
use crate::lease::Lease;
use crate::log::{LogMarks, LogReader, LogStore, MarkSpacing, Writer};
use crate::machine::{AppliedState, Machine, Published};
use crate::metrics::Metrics;
use crate::observer;
use crate::peer::{Dialer, Line, MESSAGE_BYTES_MAX, Network, Peers, ReadIndexAnswer, Service};
use crate::propose::{ProposalFate, answer};
use crate::types::{LogCommand, NodeAddress, TypeConfig, raft_leader_id};
use crate::view::RaftView;

pub(crate) type Raft = openraft::Raft<TypeConfig, Machine>;

/// The service that peers call; the node serves it beside its own on one listener.
pub type RaftService = RaftServer<Service>;

/// What a log takes and has left on its disk, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DiskUse {
    /// Free space inside its files included.
    pub taken_bytes: u64,
    /// Of its file system, if it is on one.
    pub free_bytes: Option<u64>,
}

/// One node's part of the replicated log. Cloning gives another handle to the same.
#[derive(Clone)]
pub struct Consensus {
    inner: Arc<Inner>,
}

struct Inner {
    raft: Raft,
    node: NodeId,
    incarnation: Incarnation,
    timings: Timings,
    lease: Arc<Lease>,
    network: Network,
    log: LogReader,
    writer: Writer,
    published: Published,
    accepted: AcceptedLog,
    view: watch::Receiver<Arc<RaftView>>,
    fatal: watch::Receiver<Option<FatalError>>,
    metrics: Metrics,
    /// Whether it may stand for election, once it sat out.
    elect: Arc<watch::Sender<bool>>,
    /// Whether it was asked to stop.
    stopping: Arc<AtomicBool>,
    left_out: Option<Rule>,
}

impl Consensus {
    /// Starts a node's Raft on its disk. The service must be served for others to reach it.
    ///
    /// # Errors
    /// If the disk cannot be read or the configuration is not valid.
    pub async fn start<D: LogDisk, N: Net>(
        config: ConsensusConfig,
        net: N,
        disk: D,
    ) -> Result<(Self, RaftService), StartError> {
        let raft_config = config
            .raft()
            .map_err(|error| StartError::Config(Box::new(error)))?;
        let index = AcceptedIndex::default();
        let indexed = index.clone();
        let on_indexed = Box::new(move |last| indexed.on_indexed(last));
        let store = LogStore::open(disk, config.exec, on_indexed, config.metrics.clone())
            .map_err(StartError::Log)?;
        let machine = Machine::open(
            store.reader(),
            store.writer(),
            index.clone(),
            config.left_out,
        )
        .map_err(StartError::Log)?;
        let network = network(&config, net, &store)?;
        Self::boxed_start((config, raft_config), network, store, (machine, index)).await
    }

    /// Boxed where nothing is generic, so that openraft is compiled in this crate, once, and not in
    /// each that names a disk and a network.
    fn boxed_start(
        config: (ConsensusConfig, openraft::Config),
        network: Network,
        store: LogStore,
        machine: ((Machine, Published), AcceptedIndex),
    ) -> BoxFuture<'static, Result<(Self, RaftService), StartError>> {
        Box::pin(Self::start_raft(config, network, store, machine))
    }

    async fn start_raft(
        (config, raft_config): (ConsensusConfig, openraft::Config),
        network: Network,
        store: LogStore,
        ((machine, published), index): ((Machine, Published), AcceptedIndex),
    ) -> Result<(Self, RaftService), StartError> {
        let (reader, writer) = (store.reader(), store.writer());
        let timings = config.timings;
        let lease = network.lease.clone();
        let sits_out_until = config.sit_out.map(|sit_out| Instant::now() + sit_out);
        let raft = Raft::new(
            config.identity.node.0,
            Arc::new(raft_config),
            network.clone(),
            store,
            machine,
        )
        .await
        .map_err(|error| StartError::Raft(Box::new(error)))?;
        let elect = observer::spawn_elections(raft.clone(), sits_out_until);
        let stopping = Arc::new(AtomicBool::new(false));
        let (view, fatal) =
            observer::spawn(&raft, lease.clone(), writer.failed(), stopping.clone());
        let inner = Inner {
            raft,
            node: config.identity.node,
            incarnation: config.identity.incarnation,
            timings,
            lease,
            network,
            writer,
            accepted: AcceptedLog::new(reader.clone(), index, published.clone()),
            log: reader,
            published,
            view,
            fatal,
            metrics: config.metrics,
            elect,
            stopping,
            left_out: config.left_out,
        };
        let inner = Arc::new(inner);
        let consensus = Self { inner };
        let service = RaftServer::new(consensus.service(sits_out_until))
            .max_decoding_message_size(MESSAGE_BYTES_MAX)
            .max_encoding_message_size(MESSAGE_BYTES_MAX);
        Ok((consensus, service))
    }

    pub(crate) fn service(&self, sits_out_until: Option<Instant>) -> Service {
        Service {
            raft: self.inner.raft.clone(),
            peers: self.inner.network.peers.clone(),
            log: self.inner.log.clone(),
            writer: self.inner.writer.clone(),
            sits_out_until,
            left_out: self.inner.left_out,
        }
    }

    /// Makes this node the only voter of a new cluster; only on an empty folder.
    ///
    /// # Errors
    /// If the folder is not empty.
    pub async fn initialize_single(&self, address: String) -> Result<(), ChangeError> {
        let node = NodeAddress {
            address,
            incarnation: self.inner.incarnation,
        };
        let members = BTreeMap::from([(self.inner.node.0, node)]);
        match self.inner.raft.initialize(members).await {
            Ok(()) => Ok(()),
            Err(RaftError::APIError(error)) => Err(ChangeError::Refused(error.to_string())),
            Err(RaftError::Fatal(_)) => Err(ChangeError::Stopped),
        }
    }

    /// Whether the folder belongs to a cluster: it has a log, or voted.
    ///
    /// # Errors
    /// If Raft has stopped.
    pub async fn is_initialized(&self) -> Result<bool, ChangeError> {
        let initialized = self.inner.raft.is_initialized().await;
        initialized.map_err(|_| ChangeError::Stopped)
    }

    #[must_use]
    pub fn view(&self) -> watch::Receiver<Arc<RaftView>> {
        self.inner.view.clone()
    }

    /// The last applied index; changes whenever there may be more to read.
    #[must_use]
    pub fn applied(&self) -> watch::Receiver<LogIndex> {
        self.inner.published.index.clone()
    }

    /// The last `SetPrimary` that took effect; changes with it only, when [`Self::applied_state`]
    /// has it.
    #[must_use]
    pub fn set_primary(&self) -> watch::Receiver<Option<LogId>> {
        self.inner.published.set_primary.clone()
    }

    #[must_use]
    pub fn applied_state(&self) -> watch::Receiver<Arc<AppliedState>> {
        self.inner.published.state.clone()
    }

    #[must_use]
    pub fn accepted_log(&self) -> AcceptedLog {
        self.inner.accepted.clone()
    }

    #[must_use]
    pub fn lease(&self) -> Arc<Lease> {
        self.inner.lease.clone()
    }

    /// Turns to an error when the process must stop.
    #[must_use]
    pub fn fatal(&self) -> watch::Receiver<Option<FatalError>> {
        self.inner.fatal.clone()
    }

    /// Proposes a command, to be appended by `leader` or not at all. Proposals are appended in the
    /// order in which these futures complete. A dropped sender of the fate means
    /// [`ProposalFate::Unknown`].
    pub async fn propose(
        &self,
        leader: LeaderId,
        command: Command,
    ) -> oneshot::Receiver<ProposalFate> {
        self.propose_encoded(leader, LogCommand::new(command)).await
    }

    /// Like [`Self::propose`], for a command that was encoded elsewhere.
    pub async fn propose_encoded(
        &self,
        leader: LeaderId,
        command: LogCommand,
    ) -> oneshot::Receiver<ProposalFate> {
        let (answer, fate) = answer(&self.inner.metrics);
        let write = self
            .inner
            .raft
            .write(command)
            .responder(answer)
            .with_leader(raft_leader_id(leader));
        if let Err(error) = write.await {
            tracing::debug!(%error, "Raft has stopped, the proposal's fate is unknown");
        }
        fate
    }

    /// Up to where the log was committed, anywhere, when this was called.
    ///
    /// # Errors
    /// [`ReadIndexError::NoLeader`] if no leader proves that it leads.
    pub async fn read_index(&self) -> Result<LogIndex, ReadIndexError> {
        let view = self.inner.view.borrow().clone();
        if view.is_leader {
            let read = self.inner.raft.get_read_linearizer(ReadPolicy::ReadIndex);
            return match read.await {
                Ok(read) => Ok(LogIndex(read.read_log_id().log_id().index)),
                Err(RaftError::Fatal(_)) => Err(ReadIndexError::Stopped),
                Err(RaftError::APIError(_)) => Err(ReadIndexError::NoLeader),
            };
        }
        let leader = view.leader.ok_or(ReadIndexError::NoLeader)?.node;
        let address = {
            let metrics = self.inner.raft.metrics();
            let metrics = metrics.borrow_watched();
            metrics.membership_config.get_node(&leader.0).cloned()
        };
        let address = address.ok_or(ReadIndexError::NoLeader)?;
        let link = self.inner.network.link(leader, &address, Line::Control);
        match link.read_index(self.inner.timings.election_max * 2).await {
            Ok(ReadIndexAnswer::At(index)) => Ok(index),
            Ok(ReadIndexAnswer::NotLeader) => Err(ReadIndexError::NoLeader),
            Err(status) => {
                tracing::debug!(peer = %leader, %status, "no read index");
                Err(ReadIndexError::NoLeader)
            }
        }
    }

    /// Returns after this node applied everything that was committed, anywhere, when the call was
    /// made; with the index.
    ///
    /// # Errors
    /// As [`Self::read_index`].
    pub async fn barrier(&self) -> Result<LogIndex, ReadIndexError> {
        let index = self.read_index().await?;
        let mut applied = self.applied();
        let reached = applied.wait_for(|applied| *applied >= index).await;
        reached.map_err(|_| ReadIndexError::Stopped)?;
        Ok(index)
    }

    /// Asks `to` to stand for election at once. The lease of this leadership ends before.
    ///
    /// # Errors
    /// If Raft has stopped, or this node does not lead.
    pub async fn transfer_leader(&self, to: NodeId) -> Result<(), ChangeError> {
        let view = self.inner.view.borrow().clone();
        let Some(leader) = view.leader.filter(|_| view.is_leader) else {
            let leader = view.leader.map(|leader| leader.node);
            return Err(ChangeError::NotLeader { leader });
        };
        if self.inner.left_out != Some(Rule::GateClosesBeforeTransfer) {
            self.inner.lease.close(leader);
        }
        let asked = self.inner.raft.trigger().transfer_leader(to.0).await;
        asked.map_err(|_| ChangeError::Stopped)
    }

    /// Whether a leader sends heartbeats; one that does not is replaced.
    pub fn set_heartbeat(&self, enabled: bool) {
        self.inner.raft.runtime_config().heartbeat(enabled);
    }

    /// Whether the node may stand for election (after it sat out).
    pub fn set_elect(&self, enabled: bool) {
        self.inner.elect.send_replace(enabled);
    }

    /// Stands for election now, asking first whether it would win. Does nothing on a leader.
    ///
    /// # Errors
    /// If Raft has stopped.
    pub async fn elect(&self) -> Result<(), ChangeError> {
        let asked = self.inner.raft.trigger().elect(true).await;
        asked.map_err(|_| ChangeError::Stopped)
    }

    /// Adds a node that gets the log and does not vote; with `wait`, returns when it caught up.
    ///
    /// # Errors
    /// If this node does not lead, or another change is under way.
    pub async fn add_learner(
        &self,
        node: NodeId,
        address: String,
        incarnation: Incarnation,
        wait: bool,
    ) -> Result<(), ChangeError> {
        let address = NodeAddress {
            address,
            incarnation,
        };
        let added = self.inner.raft.add_learner(node.0, address, wait).await;
        changed(added.map(drop))
    }

    /// Makes these learners and voters the only voters; former voters become learners.
    ///
    /// # Errors
    /// If this node does not lead, or another change is under way.
    pub async fn change_voters(&self, voters: BTreeSet<NodeId>) -> Result<(), ChangeError> {
        let voters: BTreeSet<u64> = voters.into_iter().map(|node| node.0).collect();
        let done = self.inner.raft.change_membership(voters, true).await;
        changed(done.map(drop))
    }

    /// Makes learners voters.
    ///
    /// # Errors
    /// If this node does not lead, or another change is under way.
    pub async fn promote(&self, nodes: BTreeSet<NodeId>) -> Result<(), ChangeError> {
        let ids = nodes.into_iter().map(|node| node.0).collect();
        let change = ChangeMembers::AddVoterIds(ids);
        let done = self.inner.raft.change_membership(change, true).await;
        changed(done.map(drop))
    }

    /// Removes a node, voter or learner.
    ///
    /// # Errors
    /// If this node does not lead, or another change is under way.
    pub async fn remove(&self, node: NodeId) -> Result<(), ChangeError> {
        let ids = BTreeSet::from([node.0]);
        let is_voter = self.inner.view.borrow().voters.contains(&node);
        let change = match is_voter {
            true => ChangeMembers::RemoveVoters(ids),
            false => ChangeMembers::RemoveNodes(ids),
        };
        let done = self.inner.raft.change_membership(change, false).await;
        changed(done.map(drop))
    }

    /// Ends a change of voters that its leader left half done: the newer of the two sets stays.
    ///
    /// # Errors
    /// If this node does not lead, or another change is under way.
    pub async fn finish_change(&self) -> Result<(), ChangeError> {
        let change = ChangeMembers::AddVoterIds(BTreeSet::new());
        let done = self.inner.raft.change_membership(change, true).await;
        changed(done.map(drop))
    }

    /// Takes a snapshot now.
    ///
    /// # Errors
    /// If Raft has stopped.
    pub async fn snapshot(&self) -> Result<(), ChangeError> {
        let asked = self.inner.raft.trigger().snapshot().await;
        asked.map_err(|_| ChangeError::Stopped)
    }

    /// Purges what the log agreed to purge ([`AppliedState::purged`]), as far as the durable
    /// snapshot goes. Nothing else is ever purged: readers know what is gone by that mark.
    ///
    /// # Errors
    /// If Raft has stopped.
    pub async fn purge_log(&self) -> Result<(), ChangeError> {
        let upto = self.inner.published.state.borrow().purged;
        if upto == LogIndex::ZERO {
            return Ok(());
        }
        let asked = self.inner.raft.trigger().purge_log(upto.0).await;
        asked.map_err(|_| ChangeError::Stopped)
    }

    /// How large this node's log was when, and its first entry.
    #[must_use]
    pub fn marks(&self) -> (LogMarks, LogIndex) {
        (self.inner.log.marks(), self.inner.log.first())
    }

    /// Returns when the entries of this node's log take so many bytes: at once, not at the next
    /// look. Only the newest of these calls is answered.
    pub async fn log_takes(&self, bytes: u64) {
        if self.inner.log.when_it_takes(bytes).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Notes how large the log is now, in milliseconds since 1970, if the last note is far enough
    /// back. It survives a restart.
    ///
    /// # Errors
    /// If Raft has stopped.
    pub async fn mark_log(&self, at_ms: u64, spacing: MarkSpacing) -> Result<(), ChangeError> {
        let Some(marks) = self.inner.log.mark(at_ms, spacing) else {
            return Ok(());
        };
        let write = Write::SetMeta(MetaKey::Marks, marks.into());
        let written = self.inner.writer.write_lazily(vec![write]).await;
        written.map_err(|_| ChangeError::Stopped)
    }

    /// What the log takes and has left on its disk.
    ///
    /// # Errors
    /// The disk's.
    pub async fn disk_use(&self) -> std::io::Result<DiskUse> {
        let read = self.inner.log.on_disk(|log| {
            Ok::<_, quorate_storage::Error>(DiskUse {
                taken_bytes: LogRead::disk_bytes(log)?,
                free_bytes: LogRead::free_bytes(log)?,
            })
        });
        read.await?.map_err(std::io::Error::other)
    }

    /// Stops Raft, syncs what was asked for before, and lets go of the disk.
    pub async fn shutdown(&self) {
        self.inner.stopping.store(true, Ordering::Release);
        if let Err(error) = self.inner.raft.shutdown().await {
            tracing::warn!(%error, "Raft did not stop cleanly");
        }
        self.inner.writer.close().await;
    }

    /// The longest that a heartbeat's answer may take to count.
    #[must_use]
    pub fn lease_length(&self) -> Duration {
        self.inner.timings.election_max * 4 / 5
    }
}

fn network<N: Net>(
    config: &ConsensusConfig,
    net: N,
    store: &LogStore,
) -> Result<Network, StartError> {
    let starts = store.reader().disk().meta(MetaKey::PeerStarts);
    let starts = starts.map_err(unreadable)?;
    let peers = Peers::new(config.identity, config.start_ids, store.writer(), starts);
    let lease_length = config.timings.election_max;
    Ok(Network {
        dialer: Arc::new(Dialer::new(
            net.clone(),
            config.dial.clone(),
            config.secure.clone(),
            lease_length,
        )),
        peers: Arc::new(peers.map_err(unreadable)?),
        lease: Arc::new(Lease::new(config.identity.node, lease_length)),
        boot_time: Arc::new(move || net.boot_time()),
    })
}

fn unreadable(error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> StartError {
    StartError::Log(std::io::Error::other(error))
}

fn changed(
    result: Result<(), RaftError<TypeConfig, ClientWriteError<TypeConfig>>>,
) -> Result<(), ChangeError> {
    match result {
        Ok(()) => Ok(()),
        Err(RaftError::Fatal(_)) => Err(ChangeError::Stopped),
        Err(RaftError::APIError(ClientWriteError::ForwardToLeader(forward))) => {
            Err(ChangeError::NotLeader {
                leader: forward.leader_id.map(NodeId),
            })
        }
        Err(RaftError::APIError(ClientWriteError::ChangeMembershipError(
            ChangeMembershipError::InProgress(_) | ChangeMembershipError::UncommittedLeaderLog(_),
        ))) => Err(ChangeError::InProgress),
        Err(RaftError::APIError(error)) => Err(ChangeError::Refused(error.to_string())),
    }
}

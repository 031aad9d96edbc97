//! A cluster of nodes on loopback, each with a disk that outlives it.

#![allow(dead_code, reason = "each test uses a part")]

mod stalling_disk;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use quorate_consensus::{
    AppliedState, Consensus, ConsensusConfig, Identity, ProposalFate, Timings,
};
use quorate_net::{Endpoint, Net, TokioNet};
use quorate_storage::MemoryDisk;
use quorate_types::{
    BinlogSource, ClusterId, Command, Epoch, Gtid, Incarnation, LeaderId, NodeId, Outcome,
    SourceId, Transaction, TransactionBatch, Uuid,
};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

pub(crate) use stalling_disk::Stall;
use stalling_disk::StallingDisk;

/// Slower than production's: eight other builds may share the machine.
pub(crate) const TIMINGS: Timings = Timings {
    heartbeat: Duration::from_millis(50),
    election_min: Duration::from_millis(400),
    election_max: Duration::from_millis(800),
    quorum_loss_probe: Duration::from_millis(1600),
};

const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) struct Running {
    pub(crate) consensus: Consensus,
    stop: oneshot::Sender<()>,
    server: JoinHandle<()>,
}

/// Tests run beside each other, and a port may be another's next: who still dials it is a stranger.
static CLUSTERS: AtomicU64 = AtomicU64::new(1);

async fn wait_until(is_so: impl Fn() -> bool, or: &str) {
    let end = tokio::time::Instant::now() + PATIENCE;
    while !is_so() {
        assert!(tokio::time::Instant::now() < end, "{or}");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

pub(crate) struct Cluster {
    id: ClusterId,
    nodes: BTreeMap<NodeId, Running>,
    disks: BTreeMap<NodeId, MemoryDisk>,
    stalls: BTreeMap<NodeId, Stall>,
    starts: BTreeMap<NodeId, u64>,
    incarnations: BTreeMap<NodeId, Incarnation>,
    addresses: Arc<Mutex<BTreeMap<NodeId, Endpoint>>>,
}

impl Cluster {
    /// A cluster of `size` voters, the first of which was initialised alone.
    pub(crate) async fn start(size: u64) -> Self {
        let mut cluster = Self {
            id: ClusterId(CLUSTERS.fetch_add(1, Ordering::Relaxed)),
            nodes: BTreeMap::new(),
            disks: BTreeMap::new(),
            stalls: BTreeMap::new(),
            starts: BTreeMap::new(),
            incarnations: BTreeMap::new(),
            addresses: Arc::default(),
        };
        cluster.launch(NodeId(1), None).await;
        let first = cluster.node(NodeId(1));
        let address = cluster.address(NodeId(1));
        first.initialize_single(address).await.expect("empty");
        cluster.wait_for_leader(NodeId(1)).await;
        for id in 2..=size {
            cluster.join(id).await;
        }
        cluster
    }

    /// Adds a node as a learner, then as a voter.
    pub(crate) async fn join(&mut self, id: u64) {
        self.join_as_learner(id).await;
        let leader = self.node(self.leader().await);
        let voters: BTreeSet<NodeId> = BTreeSet::from([NodeId(id)]);
        leader.promote(voters).await.expect("promoted");
    }

    pub(crate) async fn join_as_learner(&mut self, id: u64) {
        self.launch(NodeId(id), None).await;
        let address = self.address(NodeId(id));
        let leader = self.node(self.leader().await);
        leader
            .add_learner(NodeId(id), address, incarnation(NodeId(id)), true)
            .await
            .expect("added");
    }

    async fn launch(&mut self, id: NodeId, sit_out: Option<Duration>) {
        let disk = StallingDisk {
            disk: self.disks.entry(id).or_default().clone(),
            stall: self.stalls.entry(id).or_default().clone(),
        };
        let start_counter = self.starts.entry(id).or_default();
        *start_counter += 1;
        let mut config = ConsensusConfig::new(Identity {
            cluster: self.id,
            node: id,
            incarnation: *self.incarnations.entry(id).or_insert(incarnation(id)),
            start_counter: *start_counter,
        });
        config.timings = TIMINGS;
        config.sit_out = sit_out;
        let dial = self.addresses.clone();
        config.dial = Arc::new(move |node| {
            dial.lock()
                .expect("no panic while held")
                .get(&node)
                .cloned()
        });
        let (consensus, service) = Consensus::start(config, TokioNet, disk)
            .await
            .expect("start");
        let local = Endpoint::Tcp("127.0.0.1:0".into());
        let listener = TokioNet.listen(&local).await.expect("listen");
        self.addresses
            .lock()
            .expect("no panic while held")
            .insert(id, listener.local);
        let (stop, stopped) = oneshot::channel::<()>();
        let server = tokio::spawn(async move {
            tonic::transport::Server::builder()
                .http2_keepalive_interval(Some(Duration::from_millis(400)))
                .http2_keepalive_timeout(Some(Duration::from_millis(400)))
                .add_service(service)
                .serve_with_incoming_shutdown(listener.incoming, async {
                    let _ = stopped.await;
                })
                .await
                .expect("serve");
        });
        let running = Running {
            consensus,
            stop,
            server,
        };
        self.nodes.insert(id, running);
    }

    pub(crate) fn ids(&self) -> Vec<NodeId> {
        self.nodes.keys().copied().collect()
    }

    pub(crate) fn node(&self, id: NodeId) -> Consensus {
        self.nodes[&id].consensus.clone()
    }

    fn address(&self, id: NodeId) -> String {
        self.addresses.lock().expect("no panic while held")[&id].to_string()
    }

    /// Takes a node away without a farewell: connections end, what was not synced is lost.
    pub(crate) async fn crash(&mut self, id: NodeId) {
        let node = self.nodes.remove(&id).expect("running");
        node.server.abort();
        let _ = node.server.await;
        drop(node.stop);
        node.consensus.shutdown().await;
        self.disks[&id].crash(id.0);
        let disk = self.disks[&id].reopen();
        self.disks.insert(id, disk);
    }

    pub(crate) async fn restart(&mut self, id: NodeId) {
        self.launch(id, Some(TIMINGS.election_max)).await;
    }

    /// Like [`Self::restart`], with another time to sit out.
    pub(crate) async fn restart_sitting_out(&mut self, id: NodeId, sit_out: Duration) {
        self.launch(id, Some(sit_out)).await;
    }

    /// The folder of a node that does not run is put back: it counted so many starts.
    pub(crate) fn put_starts_back(&mut self, id: NodeId, starts: u64) {
        assert!(!self.nodes.contains_key(&id), "node {id} runs");
        self.starts.insert(id, starts);
    }

    /// The folder of a node that does not run is removed: the next start makes another.
    pub(crate) fn wipe(&mut self, id: NodeId) {
        assert!(!self.nodes.contains_key(&id), "node {id} runs");
        self.disks.remove(&id);
        self.starts.remove(&id);
        self.incarnations.insert(id, Incarnation(200 + id.0));
    }

    pub(crate) fn disk(&self, id: NodeId) -> &MemoryDisk {
        &self.disks[&id]
    }

    /// What makes the syncs of a node's disk hang.
    pub(crate) fn stall(&self, id: NodeId) -> Stall {
        self.stalls[&id].clone()
    }

    pub(crate) fn others(&self, id: NodeId) -> Vec<NodeId> {
        self.ids()
            .into_iter()
            .filter(|other| *other != id)
            .collect()
    }

    /// Which nodes say that they lead.
    pub(crate) fn leaders(&self) -> Vec<NodeId> {
        let leads = |node: &&NodeId| self.node(**node).view().borrow().is_leader;
        self.nodes.keys().filter(leads).copied().collect()
    }

    pub(crate) async fn leader(&self) -> NodeId {
        let end = tokio::time::Instant::now() + PATIENCE;
        loop {
            for (id, node) in &self.nodes {
                if node.consensus.view().borrow().is_leader
                    && node.consensus.barrier().await.is_ok()
                {
                    return *id;
                }
            }
            assert!(tokio::time::Instant::now() < end, "no leader");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    pub(crate) async fn wait_for_leader(&self, id: NodeId) {
        let mut view = self.node(id).view();
        let leads = view.wait_for(|view| view.is_leader);
        tokio::time::timeout(PATIENCE, leads)
            .await
            .expect("it is elected")
            .expect("running");
    }

    pub(crate) fn lease_is_valid(&self, node: NodeId, leader: LeaderId) -> bool {
        let now = TokioNet.boot_time();
        self.node(node).lease().is_valid(leader, now)
    }

    /// Starts a node again, and waits until the leader has heard from this start of it.
    pub(crate) async fn restart_heard(&mut self, node: NodeId, leader: NodeId) {
        let before = TokioNet.boot_time();
        self.restart(node).await;
        let lease = self.node(leader).lease();
        let heard = || lease.answered().get(&node).is_some_and(|at| *at >= before);
        wait_until(heard, "it is never heard").await;
    }

    pub(crate) async fn wait_for_lease(&self, node: NodeId, leader: LeaderId) {
        wait_until(|| self.lease_is_valid(node, leader), "no lease").await;
    }

    /// Makes the leader primary; with the leadership and the epoch.
    pub(crate) async fn begin_epoch(&self, leader: NodeId) -> (LeaderId, Epoch) {
        let node = self.node(leader);
        let id = node.view().borrow().leader.expect("it leads");
        let fate = node.propose(id, set_primary(Some(leader))).await.await;
        match fate {
            Ok(ProposalFate::Applied {
                outcome: Outcome::PrimarySet { epoch: Some(epoch) },
                ..
            }) => (id, epoch),
            other => panic!("no epoch: {other:?}"),
        }
    }

    /// The applied states, once all nodes are as far as the leader was.
    pub(crate) async fn settled_states(&self) -> Vec<AppliedState> {
        let leader = self.leader().await;
        let index = self.node(leader).barrier().await.expect("it leads");
        let mut states = Vec::new();
        for node in self.nodes.values() {
            let mut applied = node.consensus.applied();
            let reached = applied.wait_for(|applied| *applied >= index);
            tokio::time::timeout(PATIENCE, reached)
                .await
                .expect("it catches up")
                .expect("running");
            let state = node.consensus.applied_state().borrow().clone();
            states.push((*state).clone());
        }
        states
    }

    pub(crate) async fn stop(self) {
        for node in self.nodes.into_values() {
            node.server.abort();
            node.consensus.shutdown().await;
        }
    }
}

pub(crate) fn incarnation(id: NodeId) -> Incarnation {
    Incarnation(100 + id.0)
}

pub(crate) fn set_primary(node: Option<NodeId>) -> Command {
    Command::SetPrimary { node }
}

pub(crate) fn gtid(sequence: u64) -> Gtid {
    Gtid {
        source: SourceId::from(Uuid([1; 16])),
        sequence,
    }
}

/// `count` transactions of `bytes` each; GTIDs are numbered like the transactions.
pub(crate) fn transactions(epoch: Epoch, first_number: u64, count: u64, bytes: usize) -> Command {
    Command::Transactions(TransactionBatch {
        epoch,
        first_number,
        source: BinlogSource {
            file: "binlog.000001".into(),
            format: Bytes::from_static(b"format"),
        },
        transactions: (first_number..first_number + count)
            .map(|number| Transaction {
                gtid: gtid(number),
                checksum: u32::try_from(number).expect("few"),
                events: Bytes::from(vec![number.to_le_bytes()[0]; bytes]),
            })
            .collect(),
    })
}

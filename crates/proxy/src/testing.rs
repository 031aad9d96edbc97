//! A network in memory, servers that echo, and roles that tests set.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Error, ErrorKind, Result};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use futures_util::StreamExt;
use futures_util::future::{BoxFuture, FutureExt, ready};
use quorate_net::{BoxIo, Endpoint, Listener, Net};
use quorate_types::{
    ClusterId, ClusterView, Epoch, LeaderId, LogId, LogIndex, NodeId, NodeView, Role, Term,
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use crate::metrics::Metrics;
use crate::{
    Gate, GateHandle, GateParts, Proxy, ProxyHandle, ProxyParts, ProxySettings, RoleWatch,
    ServerSessions,
};

pub(crate) const CLUSTER: ClusterId = ClusterId(0xc1);
const PIPE_BYTES: usize = 32 * 1024;

pub(crate) fn epoch(index: u64) -> Epoch {
    let leader = LeaderId {
        term: Term(1),
        node: NodeId(1),
    };
    Epoch(LogId {
        leader,
        index: LogIndex(index),
    })
}

/// Its clock is tokio's, so that a paused clock decides what happens.
#[derive(Clone)]
pub(crate) struct MemoryNet {
    listeners: Arc<Mutex<BTreeMap<Endpoint, mpsc::UnboundedSender<BoxIo>>>>,
    start: Instant,
}

impl MemoryNet {
    pub(crate) fn new() -> Self {
        Self {
            listeners: Arc::default(),
            start: Instant::now(),
        }
    }
}

impl Net for MemoryNet {
    async fn connect(&self, to: &Endpoint) -> Result<BoxIo> {
        let refused = || Error::from(ErrorKind::ConnectionRefused);
        let (near, far) = tokio::io::duplex(PIPE_BYTES);
        let listeners = self.listeners.lock().unwrap();
        let listener = listeners.get(to).ok_or_else(refused)?;
        listener.send(BoxIo::new(far)).map_err(|_| refused())?;
        Ok(BoxIo::new(near))
    }

    async fn listen(&self, at: &Endpoint) -> Result<Listener> {
        let (sender, receiver) = mpsc::unbounded_channel();
        self.listeners.lock().unwrap().insert(at.clone(), sender);
        let incoming = futures_util::stream::unfold(receiver, |mut receiver| async move {
            receiver.recv().await.map(|io| (Ok(io), receiver))
        });
        Ok(Listener {
            local: at.clone(),
            incoming: Box::pin(incoming),
        })
    }

    fn boot_time(&self) -> Duration {
        self.start.elapsed()
    }
}

/// What one node knows; the view is shared by all of a test's nodes.
#[derive(Clone)]
pub(crate) struct FakeRole {
    pub(crate) view: Arc<watch::Sender<Arc<ClusterView>>>,
    opened: Arc<watch::Sender<Option<Epoch>>>,
    pub(crate) serving: Arc<watch::Sender<Option<Epoch>>>,
    /// Whoever asks after that ends the lease for all.
    pub(crate) lease_until: Arc<Mutex<Duration>>,
    pub(crate) reads: Arc<AtomicBool>,
    pub(crate) asked: Arc<AtomicU64>,
}

impl FakeRole {
    pub(crate) fn new(view: &Arc<watch::Sender<Arc<ClusterView>>>) -> Self {
        Self {
            view: Arc::clone(view),
            opened: Arc::new(watch::Sender::new(None)),
            serving: Arc::new(watch::Sender::new(None)),
            lease_until: Arc::new(Mutex::new(Duration::MAX)),
            reads: Arc::default(),
            asked: Arc::default(),
        }
    }

    /// The order to open the gate for an epoch, or to close it.
    pub(crate) fn order(&self, epoch: Option<Epoch>) {
        self.opened.send_replace(epoch);
        self.serving.send_replace(epoch);
    }

    /// As somebody finds who looks now.
    pub(crate) fn end_lease(&self) {
        *self.lease_until.lock().unwrap() = Duration::ZERO;
        // Who asks is among those that are told, and asks again when told.
        self.serving
            .send_if_modified(|serving| serving.take().is_some());
    }

    pub(crate) fn renew_lease(&self) {
        *self.lease_until.lock().unwrap() = Duration::MAX;
        self.serving.send_replace(*self.opened.borrow());
    }

    pub(crate) fn set_reads(&self, fit: bool) {
        self.reads.store(fit, Ordering::SeqCst);
    }
}

impl RoleWatch for FakeRole {
    fn view(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.view.subscribe()
    }

    fn opened(&self) -> watch::Receiver<Option<Epoch>> {
        self.opened.subscribe()
    }

    fn serving(&self) -> watch::Receiver<Option<Epoch>> {
        self.serving.subscribe()
    }

    fn may_serve(&self, epoch: Epoch, now: Duration) -> bool {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if now >= *self.lease_until.lock().unwrap() {
            self.end_lease();
        }
        *self.serving.borrow() == Some(epoch)
    }

    fn may_serve_reads(&self) -> bool {
        self.reads.load(Ordering::SeqCst)
    }
}

pub(crate) fn packet(sequence: u8, payload: &[u8]) -> Vec<u8> {
    let mut packet = (payload.len() as u32).to_le_bytes().to_vec();
    packet[3] = sequence;
    packet.extend_from_slice(payload);
    packet
}

fn port(node: NodeId, offset: u64) -> Endpoint {
    Endpoint::Tcp(format!("node-{node}:{offset}"))
}

pub(crate) fn gate_port(node: NodeId) -> Endpoint {
    port(node, 6)
}

type Dial = fn(NodeId) -> Option<Endpoint>;

/// One node: a server that greets with its node's number and echoes, its gate, and its ports.
pub(crate) struct TestNode {
    pub(crate) role: FakeRole,
    pub(crate) gate: GateHandle,
    pub(crate) handle: ProxyHandle,
    pub(crate) proxy: Arc<Proxy<MemoryNet, FakeRole, Dial>>,
    /// Who may clone its server.
    pub(crate) permit: Arc<Mutex<Option<NodeId>>>,
    /// What reached its server.
    pub(crate) received: Arc<Mutex<Vec<u8>>>,
}

pub(crate) struct TestCluster {
    pub(crate) net: MemoryNet,
    pub(crate) view: Arc<watch::Sender<Arc<ClusterView>>>,
    pub(crate) nodes: Vec<TestNode>,
}

impl TestCluster {
    pub(crate) async fn start(count: u64, settings: ProxySettings) -> Self {
        let view = ClusterView {
            cluster: Some(CLUSTER),
            ..ClusterView::default()
        };
        let view = Arc::new(watch::Sender::new(Arc::new(view)));
        let net = MemoryNet::new();
        let mut nodes = Vec::new();
        for id in (1..=count).map(NodeId) {
            nodes.push(start_node(&net, &view, id, settings).await);
        }
        Self { net, view, nodes }
    }

    pub(crate) fn node(&self, id: u64) -> &TestNode {
        &self.nodes[id as usize - 1]
    }

    pub(crate) fn change_view(&self, change: impl FnOnce(&mut ClusterView)) {
        self.view.send_modify(|view| change(Arc::make_mut(view)));
    }

    /// This node serves in this epoch, and everybody knows.
    pub(crate) fn make_primary(&self, id: u64, index: u64) {
        self.node(id).role.order(Some(epoch(index)));
        self.change_view(|view| {
            view.primary = Some(NodeId(id));
            view.epoch = Some(epoch(index));
        });
    }

    pub(crate) fn make_replica(&self, id: u64, lag_transactions: u64, sessions: u64) {
        self.node(id).role.set_reads(true);
        let node = NodeView {
            role: Role::Replica,
            healthy: true,
            lag_transactions,
            sessions,
            ..NodeView::default()
        };
        self.change_view(|view| {
            view.nodes.insert(NodeId(id), node);
        });
    }

    pub(crate) async fn read_write(&self, id: u64) -> Client {
        Client(self.net.connect(&port(NodeId(id), 0)).await.unwrap())
    }

    pub(crate) async fn read_only(&self, id: u64) -> Client {
        Client(self.net.connect(&port(NodeId(id), 1)).await.unwrap())
    }
}

/// The sessions of a server that does as tests say.
#[derive(Default)]
pub(crate) struct FakeSessions {
    /// Those whose statements were stopped.
    pub(crate) stopped: Mutex<BTreeSet<u32>>,
    /// Until then they are on their way to the binlog, or wait for an ACK.
    pub(crate) commit_until: Mutex<Option<Instant>>,
}

impl ServerSessions for FakeSessions {
    fn stop_statement(&self, id: u32) -> BoxFuture<'_, ()> {
        self.stopped.lock().unwrap().insert(id);
        ready(()).boxed()
    }

    fn may_commit(&self, _: u32) -> BoxFuture<'_, bool> {
        let until = *self.commit_until.lock().unwrap();
        ready(until.is_some_and(|until| Instant::now() < until)).boxed()
    }
}

async fn start_node(
    net: &MemoryNet,
    view: &Arc<watch::Sender<Arc<ClusterView>>>,
    id: NodeId,
    settings: ProxySettings,
) -> TestNode {
    let role = FakeRole::new(view);
    let received = Arc::<Mutex<Vec<u8>>>::default();
    let server = net.listen(&port(id, 5)).await.unwrap();
    tokio::spawn(echo_server(server, id, Arc::clone(&received)));
    let permit = Arc::<Mutex<Option<NodeId>>>::default();
    let (gate, gate_handle) = Gate::new(GateParts {
        net: net.clone(),
        role: role.clone(),
        tls: None,
        node: id,
        is_member: Arc::new(|node| node.0 < 9),
        may_clone: {
            let permit = Arc::clone(&permit);
            Arc::new(move |node| *permit.lock().unwrap() == Some(node))
        },
        server: port(id, 5),
        server_sessions: Arc::new(FakeSessions::default()),
        metrics: Metrics::default(),
        left_out: None,
    });
    tokio::spawn(gate.run(net.listen(&gate_port(id)).await.unwrap()));
    let dialer: Dial = |node| Some(gate_port(node));
    let (proxy, handle) = Proxy::new(ProxyParts {
        net: net.clone(),
        role: role.clone(),
        dialer,
        tls: None,
        node: id,
        own_gate: Some(gate_handle.clone()),
        settings,
        metrics: Metrics::default(),
    });
    let read_write = net.listen(&port(id, 0)).await.unwrap();
    let read_only = net.listen(&port(id, 1)).await.unwrap();
    tokio::spawn(Arc::clone(&proxy).run(read_write, read_only));
    TestNode {
        role,
        gate: gate_handle,
        handle,
        proxy,
        permit,
        received,
    }
}

async fn echo_server(mut listener: Listener, id: NodeId, received: Arc<Mutex<Vec<u8>>>) {
    while let Some(Ok(mut io)) = listener.incoming.next().await {
        let received = Arc::clone(&received);
        tokio::spawn(async move {
            io.write_all(&packet(0, &[10, id.0 as u8])).await.unwrap();
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = io.read(&mut buffer).await {
                received.lock().unwrap().extend_from_slice(&buffer[..count]);
                let _ = io.write_all(&buffer[..count]).await;
            }
        });
    }
}

/// A client of a port, or of a gate.
pub(crate) struct Client(pub(crate) BoxIo);

impl Client {
    /// The number of the node whose server greets.
    pub(crate) async fn greeted_by(&mut self) -> u64 {
        let greeting = self.read(6).await;
        assert_eq!(greeting[..5], [2, 0, 0, 0, 10]);
        greeting[5].into()
    }

    pub(crate) async fn read(&mut self, count: usize) -> Vec<u8> {
        let mut bytes = vec![0; count];
        self.0.read_exact(&mut bytes).await.unwrap();
        bytes
    }

    pub(crate) async fn send(&mut self, bytes: &[u8]) {
        self.0.write_all(bytes).await.unwrap();
    }

    /// Sends, and waits for the echo.
    pub(crate) async fn round_trip(&mut self, bytes: &[u8]) {
        self.send(bytes).await;
        assert_eq!(self.read(bytes.len()).await, bytes);
    }

    /// All that still comes, until the connection ends.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        let mut bytes = Vec::new();
        self.0.read_to_end(&mut bytes).await.unwrap();
        bytes
    }
}

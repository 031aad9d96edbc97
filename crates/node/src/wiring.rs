//! Joins the parts of a node: every task and every channel between them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt;
use prometheus_client::registry::Registry;
use quorate_consensus::{Consensus, RaftService};
use quorate_mysqld::{Host, ReplicationSource};
use quorate_net::{BoxIo, Endpoint, Net, Tls};
use quorate_proxy::{Gate, GateHandle, GateParts, Proxy, ProxyParts, ProxySettings, RoleWatch};
use quorate_replication::{CaptureMetrics, Feed, FeedMetrics, FeedOptions, stable_identity};
use quorate_role::{Input, Machine, Timing};
use quorate_types::{ClusterView, NodeId, Uuid};
use quorate_wire::v1::admin_server::AdminServer;
use tokio::sync::{Mutex, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::adapters::Log;
use crate::admin::{AdminService, Forward};
use crate::driver::{Control, Driver};
use crate::jobs::JobContext;
use crate::joining::Joining;
use crate::membership::Membership;
use crate::node::{AdminChannel, HANDSHAKE_MAX, Known, Listeners, addresses, known_nodes};
use crate::peers::{Reports, admin_client, ask_peer};
use crate::recent::Recent;
use crate::roles::Roles;
use crate::server::{Logins, ServerState};
use crate::status::{OwnView, ViewMaker};
use crate::watchers::{Health, Watcher};

/// The account that replicas log in to the feed with.
const FEED_USER: &str = "quorate_feed";
/// TLS handshakes of peers under way at once.
const HANDSHAKES_MAX: usize = 64;

/// What is left to hold when everything runs.
pub(crate) struct Wired {
    pub(crate) stopped: watch::Receiver<bool>,
    pub(crate) view: watch::Receiver<Arc<ClusterView>>,
    pub(crate) tasks: JoinSet<()>,
}

type Inputs = (mpsc::Sender<Input>, mpsc::Receiver<Input>);

pub(crate) fn wire<N: Net, H: Host>(
    known: Known<N, H>,
    consensus: Consensus,
    raft_service: RaftService,
    listeners: Listeners,
    mut registry: Registry,
    (inputs, inputs_rx): Inputs,
    raft: &tokio::runtime::Handle,
) -> Wired {
    let mut tasks = JoinSet::new();
    let roles = Roles::new(consensus.clone());
    tasks.spawn(roles.clone().watch_lease(known.net.clone()));

    let server = server_state(&known);
    let running = server.running.subscribe();
    let proxy_metrics = quorate_proxy::Metrics::new(&mut registry);
    let capture_metrics = Arc::new(CaptureMetrics::default());
    capture_metrics.register(&mut registry);
    let feed_metrics = Arc::new(FeedMetrics::default());
    feed_metrics.register(&mut registry);

    let gate = spawn_gate(
        &mut tasks,
        &known,
        &consensus,
        &roles,
        proxy_metrics.clone(),
        listeners.gate,
    );
    spawn_proxy(
        &mut tasks,
        &known,
        &roles,
        proxy_metrics,
        (listeners.read_write, listeners.read_only),
    );
    spawn_feed(&mut tasks, &known, &consensus, feed_metrics, listeners.feed);

    let timing = Timing {
        lease: known.config.timing.election_max,
        ..Timing::default()
    };
    let machine = Machine::new(known.config.node, timing, false);
    let (control_tx, control) = watch::channel(Control::of(&machine, false));
    let (health_tx, health) = watch::channel(Health::default());
    let recent = Recent::new(known.wall_clock.clone());
    let doing = watch::Sender::new(String::new());

    let jobs = job_context(
        &known,
        &consensus,
        server.state,
        capture_metrics,
        inputs.clone(),
        doing.clone(),
    );
    let driver = Driver {
        machine,
        jobs: Arc::new(jobs),
        net: known.net.clone(),
        consensus: consensus.clone(),
        roles: roles.clone(),
        gate: gate.clone(),
        inputs: inputs.clone(),
        control: control_tx,
        recent: recent.clone(),
        job: None,
    };
    let (stopped_tx, stopped) = watch::channel(false);
    tasks.spawn(async move {
        driver.run(inputs_rx).await;
        stopped_tx.send_replace(true);
    });

    let watcher = Arc::new(Watcher {
        net: known.net.clone(),
        logins: server.logins,
        running,
        control: control.clone(),
        consensus: consensus.clone(),
        inputs: inputs.clone(),
        health: health_tx,
        probe_interval: known.config.timing.probe_interval,
        probe_timeout: known.config.timing.probe_timeout,
        disk_probe: known.disk_probe.clone(),
    });
    tasks.spawn(watcher.clone().probe());
    tasks.spawn(watcher.clone().probe_disk());
    tasks.spawn(watcher.follow());

    let reports: Arc<watch::Sender<Reports>> = Arc::default();
    let forward = forward(&known);
    for node in known.config.peers.keys() {
        if let Some(client) = forward(*node) {
            tasks.spawn(ask_peer(*node, client, reports.clone()));
        }
    }
    let own = OwnView {
        node: known.config.node,
        cluster: known.cluster,
        incarnation: known.identity.incarnation,
        gate_address: known.config.listen.gate.to_string(),
        mysql_address: format!("127.0.0.1:{}", known.config.mysqld.port),
        net: known.net.clone(),
        consensus: consensus.clone(),
        roles: roles.clone(),
        gate,
        control,
        health: health.clone(),
        doing: doing.subscribe(),
    };
    let maker = ViewMaker {
        own: own.clone(),
        config: known.config.clone(),
        reports: reports.subscribe(),
        inputs: inputs.clone(),
        recent,
    };
    tasks.spawn(maker.clone().run());

    let membership = Membership::new(consensus.clone(), known_nodes(&known.config));
    let joining = Joining {
        node: known.config.node,
        cluster: known.cluster,
        incarnation: known.identity.incarnation,
        config: known.config.clone(),
        consensus: consensus.clone(),
        membership: membership.clone(),
        health,
        forward: forward.clone(),
    };
    tasks.spawn(joining.run());
    let admin = AdminService {
        node: known.config.node,
        cluster: known.cluster,
        consensus,
        roles: roles.clone(),
        membership,
        own_report: Arc::new(move || own.report()),
        inputs,
        forward,
        addresses: addresses(&known.config),
    };
    let router = crate::http::router(Arc::new(maker), Arc::new(registry));
    tasks.spawn(crate::http::serve(listeners.http, router));
    let incoming = secure(listeners.grpc.incoming, known.tls);
    let grpc = tonic::transport::Server::builder()
        .http2_keepalive_interval(Some(KEEP_ALIVE))
        .http2_keepalive_timeout(Some(KEEP_ALIVE))
        .add_service(raft_service)
        .add_service(AdminServer::new(admin))
        .serve_with_incoming(incoming);
    tasks.spawn_on(
        async move {
            if let Err(error) = grpc.await {
                tracing::error!(%error, "the gRPC server ended");
            }
        },
        raft,
    );
    Wired {
        stopped,
        view: roles.view(),
        tasks,
    }
}

/// A peer that vanished is noticed within this.
const KEEP_ALIVE: Duration = Duration::from_secs(1);

/// Connections after their handshake, however long each takes: a slow one holds up no other.
fn secure(
    incoming: quorate_net::Incoming,
    tls: Option<Tls>,
) -> impl futures_util::Stream<Item = std::io::Result<BoxIo>> {
    let handshake = move |io: std::io::Result<BoxIo>| {
        let tls = tls.clone();
        async move {
            match (io, tls) {
                (Ok(io), Some(tls)) => match timeout(HANDSHAKE_MAX, tls.accept(io)).await {
                    Ok(Ok((io, _))) => Some(Ok(io)),
                    Ok(Err(error)) => {
                        tracing::debug!(%error, "a peer's TLS handshake failed");
                        None
                    }
                    Err(_) => None,
                },
                (io, _) => Some(io),
            }
        }
    };
    incoming
        .map(handshake)
        .buffer_unordered(HANDSHAKES_MAX)
        .filter_map(std::future::ready)
}

/// The server's state, and what those beside the jobs may see of it.
struct ServerParts<H: Host> {
    state: Arc<Mutex<ServerState<H>>>,
    running: watch::Sender<Option<crate::server::Running<H>>>,
    logins: Logins,
}

fn server_state<N: Net, H: Host>(known: &Known<N, H>) -> ServerParts<H> {
    let logins = Logins {
        socket: Endpoint::Unix(known.config.mysqld.socket.clone()),
        control: known.secrets.control.clone(),
        capture: known.secrets.capture.clone(),
    };
    let running = watch::Sender::new(None);
    let state = ServerState {
        host: known.host.clone(),
        settings: known.settings.clone(),
        logins: logins.clone(),
        running: running.clone(),
        control: None,
        spare: None,
        capture: None,
    };
    ServerParts {
        state: Arc::new(Mutex::new(state)),
        running,
        logins,
    }
}

fn job_context<N: Net, H: Host>(
    known: &Known<N, H>,
    consensus: &Consensus,
    server: Arc<Mutex<ServerState<H>>>,
    capture_metrics: Arc<CaptureMetrics>,
    inputs: mpsc::Sender<Input>,
    doing: watch::Sender<String>,
) -> JobContext<N, H> {
    let (cluster_uuid, cluster_server_id) = stable_identity(known.cluster);
    // Capture is another replica than the feed is a source: one byte apart.
    let mut capture_uuid = cluster_uuid;
    capture_uuid.0[15] ^= 0x80 | known.config.node.0 as u8;
    let port = known.config.listen.feed.port().unwrap_or_default();
    JobContext {
        net: known.net.clone(),
        consensus: consensus.clone(),
        server,
        node: known.config.node,
        incarnation: known.identity.incarnation,
        start_counter: known.identity.start_counter,
        cluster: known.cluster,
        feed: ReplicationSource {
            host: "127.0.0.1".to_owned(),
            port,
            user: FEED_USER.to_owned(),
            password: known.secrets.feed.clone(),
        },
        capture_server_id: cluster_server_id ^ (known.config.node.0 as u32) << 1,
        capture_uuid: Uuid(capture_uuid.0),
        capture_metrics,
        demote_bound: known.config.timing.demote_bound,
        drain_bound: known.config.timing.switchover_drain,
        inputs,
        doing,
    }
}

fn spawn_gate<N: Net, H: Host>(
    tasks: &mut JoinSet<()>,
    known: &Known<N, H>,
    consensus: &Consensus,
    roles: &Roles,
    metrics: quorate_proxy::Metrics,
    listener: quorate_net::Listener,
) -> GateHandle {
    let (members, own) = (consensus.clone(), known.config.node);
    let is_member = move |node: NodeId| {
        let view = members.view();
        let view = view.borrow();
        node == own || view.voters.contains(&node) || view.learners.contains(&node)
    };
    let parts = GateParts {
        net: known.net.clone(),
        role: roles.clone(),
        tls: known.tls.clone(),
        node: known.config.node,
        is_member: Arc::new(is_member),
        server: Endpoint::Unix(known.config.mysqld.socket.clone()),
        metrics,
    };
    let (gate, handle) = Gate::new(parts);
    tasks.spawn(gate.run(listener));
    handle
}

fn spawn_proxy<N: Net, H: Host>(
    tasks: &mut JoinSet<()>,
    known: &Known<N, H>,
    roles: &Roles,
    metrics: quorate_proxy::Metrics,
    (read_write, read_only): (quorate_net::Listener, quorate_net::Listener),
) {
    let config = known.config.clone();
    let dialer = move |node: NodeId| match node == config.node {
        true => Some(config.listen.gate.clone()),
        false => config.peers.get(&node).map(|peer| peer.dial_gate().clone()),
    };
    let parts = ProxyParts {
        net: known.net.clone(),
        role: roles.clone(),
        dialer,
        tls: known.tls.clone(),
        node: known.config.node,
        settings: ProxySettings {
            wait_max: known.config.timing.connection_wait,
            max_lag_transactions: known.config.read_only.max_lag_transactions,
            read_only_falls_back: known.config.read_only.fall_back_to_primary,
        },
        metrics,
    };
    let (proxy, _) = Proxy::new(parts);
    tasks.spawn(proxy.run(read_write, read_only));
}

fn spawn_feed<N: Net, H: Host>(
    tasks: &mut JoinSet<()>,
    known: &Known<N, H>,
    consensus: &Consensus,
    metrics: Arc<FeedMetrics>,
    listener: quorate_net::Listener,
) {
    let (server_uuid, server_id) = stable_identity(known.cluster);
    let password = known.secrets.feed.clone();
    let wall_clock = known.wall_clock.clone();
    let options = FeedOptions {
        server_version: known.server_version.clone(),
        server_uuid,
        server_id,
        tls: None,
        accounts: Arc::new(move |user: &str| (user == FEED_USER).then(|| password.clone())),
        unix_seconds: Arc::new(move || wall_clock() / 1000),
        seed: known.random.peek(),
    };
    let feed = Feed::new(Log::new(consensus.clone()), options, metrics);
    tasks.spawn(feed.run(listener));
}

fn forward<N: Net, H: Host>(known: &Known<N, H>) -> Forward {
    let peers = known.config.peers.iter();
    let clients: BTreeMap<NodeId, AdminChannel> = peers
        .map(|(node, peer)| {
            (
                *node,
                admin_client(&known.net, known.tls.as_ref(), *node, peer.dial_grpc()),
            )
        })
        .collect();
    Arc::new(move |node| clients.get(&node).cloned())
}

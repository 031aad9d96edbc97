//! Joins the parts of a node: every task and every channel between them.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex as StdMutex, PoisonError};
use std::time::Duration;

use futures_util::{Stream, StreamExt};
use prometheus_client::registry::Registry;
use quorate_consensus::{Consensus, RaftService};
use quorate_mysqld::{Host, ReplicationSource};
use quorate_net::{BoxIo, Endpoint, Listener, Net, Tls};
use quorate_proxy::{Gate, GateHandle, GateParts, Proxy, ProxyHandle, ProxyParts, ProxySettings};
use quorate_replication::{
    AckDelay, CaptureMetrics, Feed, FeedMetrics, FeedOptions, stable_identity,
};
use quorate_role::{Input, Machine, Timing};
use quorate_types::{KeptCut, NodeId, Uuid};
use tokio::sync::{Mutex, Semaphore, mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio::time::timeout;

use crate::adapters::Log;
use crate::admin::{AdminService, Forward, Questions};
use crate::checking::checker;
use crate::cloning::ClonePermits;
use crate::config::Errant;
use crate::driver::{Control, Driver};
use crate::errant::{JudgeOwn, OwnErrant};
use crate::export::{Export, Exporter};
use crate::grpc::GrpcServer;
use crate::guard::{GuardSessions, Guarded};
use crate::holding::Holding;
use crate::inert::OwnGroups;
use crate::jobs::{CloneParts, JobContext};
use crate::joining::Joining;
use crate::kept_cuts::KeptCuts;
use crate::lost_sessions::LostSessions;
use crate::membership::Membership;
use crate::node::{AdminChannel, HANDSHAKE_MAX, Known, Listeners, known_nodes};
use crate::part::Part;
use crate::peers::{Reports, ask_peers, following_client};
use crate::permit_client::PermitClient;
use crate::recent::Recent;
use crate::retention::{Kept, LogMetrics, Retainer};
use crate::roles::Roles;
use crate::server::{Logins, ServerState};
use crate::status::{OwnView, ViewMaker};
use crate::verify::{self, Verifier};
use crate::watchers::{Health, Watcher};

/// The account that replicas log in to the feed with.
const FEED_USER: &str = "quorate_feed";
/// TLS handshakes of peers under way at once.
const HANDSHAKES_MAX: usize = 64;

/// What is left to hold when everything runs.
pub(crate) struct Wired {
    pub(crate) stopped: watch::Receiver<bool>,
    pub(crate) roles: Roles,
    pub(crate) tasks: JoinSet<()>,
    pub(crate) grpc: GrpcServer,
}

type Inputs = (mpsc::Sender<Input>, mpsc::Receiver<Input>);

/// What most parts are made of.
struct Wiring<'a, N: Net, H: Host> {
    known: &'a Known<N, H>,
    consensus: Consensus,
    roles: Roles,
    inputs: mpsc::Sender<Input>,
    forward: Forward,
    permits: Arc<ClonePermits>,
    recent: Recent,
    feed_metrics: Arc<FeedMetrics>,
    own_groups: OwnGroups,
    part: Arc<Part>,
    ack_delay: AckDelay,
    tasks: JoinSet<()>,
    registry: Registry,
    raft: tokio::runtime::Handle,
}

/// What role control and its watchers tell the rest.
struct Controlled {
    control: watch::Receiver<Control>,
    health: watch::Receiver<Health>,
    doing: watch::Receiver<String>,
    kept_cuts: watch::Receiver<Vec<KeptCut>>,
    stopped: watch::Receiver<bool>,
    judge: JudgeOwn,
}

pub(crate) fn wire<N: Net, H: Host>(
    known: &Known<N, H>,
    consensus: Consensus,
    raft_service: RaftService,
    listeners: Listeners,
    registry: Registry,
    (inputs, inputs_rx): Inputs,
    raft: &tokio::runtime::Handle,
) -> Wired {
    let roles = Roles::new(consensus.clone(), known.left_out);
    let permits = ClonePermits::new(consensus.clone(), roles.clone());
    let mut wiring = Wiring {
        known,
        permits: permits.clone(),
        consensus,
        roles: roles.clone(),
        inputs,
        forward: forward(known),
        recent: Recent::new(known.wall_clock.clone()),
        feed_metrics: Arc::default(),
        own_groups: OwnGroups::default(),
        part: Arc::default(),
        ack_delay: AckDelay::default(),
        tasks: JoinSet::new(),
        registry,
        raft: raft.clone(),
    };
    wiring.feed_metrics.register(&mut wiring.registry);
    wiring
        .tasks
        .spawn(roles.clone().watch_lease(known.net.clone()));
    wiring.tasks.spawn(permits.run());
    let metrics = quorate_proxy::Metrics::new(&mut wiring.registry);
    let gate = wiring.gate(metrics.clone(), listeners.gate);
    let ports = (listeners.read_write, listeners.read_only);
    let proxy = wiring.proxy(metrics, gate.clone(), ports);
    let holding = wiring.holding(gate.clone(), proxy.clone());
    // Only this machine reaches the one without certificates.
    let own_feed = listeners
        .own_feed
        .as_ref()
        .unwrap_or(&listeners.feed)
        .local
        .clone();
    let feed_tls = listeners.own_feed.as_ref().and(known.tls.as_ref());
    // A witness has no version to name, and no server that would read it.
    if !known.config.witness {
        wiring.feed(listeners.feed, feed_tls);
        if let Some(listener) = listeners.own_feed {
            wiring.feed(listener, None);
        }
    }
    let verifier = wiring.verifier();
    let export = wiring.export(own_feed.clone());
    let controlled = wiring.role_control(gate.clone(), holding, own_feed, inputs_rx);
    let stopped = controlled.stopped.clone();
    let questions = wiring.questions(export, controlled.judge.clone(), &verifier);
    let (maker, own) = wiring.status(gate, &controlled, verifier.differs.subscribe());
    let admin = wiring.admin(own, controlled.health, proxy, questions);
    let grpc = wiring.grpc(raft_service, admin, listeners.grpc, raft);
    let router = crate::http::router(Arc::new(maker), Arc::new(wiring.registry));
    let mut http = listeners.http;
    // As it is configured, like the feed: what a name stands for may change.
    if !known.config.listen.http.is_local() {
        http.incoming = Box::pin(secure(http.incoming, known.tls.clone()));
    }
    wiring.tasks.spawn(crate::http::serve(http, router));
    Wired {
        stopped,
        roles,
        tasks: wiring.tasks,
        grpc,
    }
}

impl<N: Net, H: Host> Wiring<'_, N, H> {
    fn gate(&mut self, metrics: quorate_proxy::Metrics, listener: Listener) -> GateHandle {
        let (members, own) = (self.consensus.clone(), self.known.config.node);
        let is_member = move |node: NodeId| {
            let view = members.view();
            let view = view.borrow();
            node == own || view.voters.contains(&node) || view.learners.contains(&node)
        };
        let state = self.consensus.applied_state();
        let may_clone = move |node: NodeId| {
            let permit = state.borrow().permits.open;
            permit.is_some_and(|permit| (permit.recipient, permit.donor) == (node, own))
        };
        let parts = GateParts {
            net: self.known.net.clone(),
            role: self.roles.clone(),
            tls: self.known.tls.clone(),
            node: self.known.config.node,
            is_member: Arc::new(is_member),
            may_clone: Arc::new(may_clone),
            // Not its unix socket: there the server would let every client in as the socket's
            // passwordless root, and take what a client without TLS sends for a secure login.
            server: Endpoint::Tcp(format!("127.0.0.1:{}", self.known.config.mysqld.port)),
            server_sessions: Arc::new(LostSessions::new(
                self.known.net.clone(),
                server_logins(self.known),
            )),
            metrics,
            left_out: self.known.left_out,
        };
        let (gate, handle) = Gate::new(parts);
        self.tasks.spawn(gate.run(listener));
        handle
    }

    fn proxy(
        &mut self,
        metrics: quorate_proxy::Metrics,
        own_gate: GateHandle,
        (read_write, read_only): (Listener, Listener),
    ) -> ProxyHandle {
        let (config, book) = (self.known.config.clone(), self.known.book.clone());
        let dialer = move |node: NodeId| match node == config.node {
            true => Some(config.listen.gate.clone()),
            false => book.gate(node),
        };
        let config = &self.known.config;
        let parts = ProxyParts {
            net: self.known.net.clone(),
            role: self.roles.clone(),
            dialer,
            tls: self.known.tls.clone(),
            node: config.node,
            own_gate: Some(own_gate),
            settings: ProxySettings {
                wait_max: config.timing.connection_wait,
                max_lag_transactions: config.read_only.max_lag_transactions,
                read_only_falls_back: config.read_only.fall_back_to_primary,
            },
            metrics,
        };
        let (proxy, handle) = Proxy::new(parts);
        self.tasks.spawn(proxy.run(read_write, read_only));
        handle
    }

    fn holding(&self, gate: GateHandle, proxy: ProxyHandle) -> Holding {
        let timing = &self.known.config.timing;
        Holding {
            gate,
            proxy,
            book: self.known.book.clone(),
            forward: self.forward.clone(),
            longest: timing.switchover_drain + timing.demote_bound + PROMOTION_USUAL,
        }
    }

    fn feed(&mut self, listener: Listener, tls: Option<&Tls>) {
        let metrics = self.feed_metrics.clone();
        let (server_uuid, server_id) = stable_identity(self.known.cluster);
        let password = self.known.secrets.feed.clone();
        let wall_clock = self.known.wall_clock.clone();
        let own_groups = self.own_groups.clone();
        let mut random = self.known.random;
        let options = FeedOptions {
            server_version: self.known.server_version.clone(),
            server_uuid,
            server_id,
            tls: tls.map(Tls::server_config),
            accounts: Arc::new(move |user: &str| (user == FEED_USER).then(|| password.clone())),
            unix_seconds: Arc::new(move || wall_clock() / 1000),
            inert: Arc::new(move || own_groups.inert()),
            parallel_max: self.known.config.mysqld.parallel_workers(),
            seed: random.next_u64(),
        };
        let feed = Feed::new(Log::new(self.consensus.clone()), options, metrics);
        self.tasks.spawn(feed.run(listener));
    }

    fn verifier(&mut self) -> Verifier<N> {
        let verifier = Verifier {
            node: self.known.config.node,
            server: verify::Server {
                net: self.known.net.clone(),
                logins: server_logins(self.known),
                note: self.known.config.dir.join("comparing"),
            },
            roles: self.roles.clone(),
            state: self.consensus.applied_state(),
            forward: self.forward.clone(),
            differs: Arc::default(),
            turns: Arc::default(),
            places: Arc::new(Semaphore::new(verify::PLACES)),
            table_max: self.known.config.verify.table_max,
        };
        if verifier.server.may_have_some_left() {
            self.tasks.spawn(verifier.server.clone().end_what_is_left());
        }
        let every = self.known.config.verify.every;
        if !every.is_zero() {
            self.tasks.spawn(verifier.clone().run(every));
        }
        verifier
    }

    fn questions(&self, export: Export, judge: JudgeOwn, verifier: &Verifier<N>) -> Questions {
        let (verify, checksum, verdict) = (verifier.clone(), verifier.clone(), verifier.clone());
        Questions {
            export,
            judge,
            check: checker(self.known.net.clone(), server_logins(self.known)),
            verify: Arc::new(move || verify.start()),
            checksum: Arc::new(move |request| checksum.checksum(request)),
            verdict: Arc::new(move |what| verdict.on_verdict(what)),
        }
    }

    fn export(&self, feed: Endpoint) -> Export {
        let (mut uuid, _) = stable_identity(self.known.cluster);
        // Neither the feed's nor capture's.
        uuid.0[14] ^= 0x80;
        let exporter = Exporter {
            net: self.known.net.clone(),
            feed,
            user: FEED_USER.to_owned(),
            password: self.known.secrets.feed.clone(),
            uuid,
        };
        Arc::new(move |executed| exporter.start(executed))
    }

    fn role_control(
        &mut self,
        gate: GateHandle,
        holding: Holding,
        own_feed: Endpoint,
        inputs_rx: mpsc::Receiver<Input>,
    ) -> Controlled {
        let known = self.known;
        let metrics = Arc::new(CaptureMetrics::default());
        metrics.register(&mut self.registry);
        self.ack_delay.register(&mut self.registry);
        let server = server_state(known);
        let running = server.running.subscribe();
        let timing = Timing {
            lease: known.config.timing.election_max,
            ..Timing::default()
        };
        let mut machine = Machine::new(known.config.node, timing, known.config.witness);
        if known.config.repair.errant == Errant::Stop {
            machine.stop_instead_of_cloning();
        }
        let (control_tx, control) = watch::channel(Control::of(&machine, false));
        let (health_tx, health) = watch::channel(Health::default());
        let doing = watch::Sender::new(String::new());
        let guard_sessions = watch::Sender::default();
        let driver = Driver {
            machine,
            jobs: Arc::new(self.jobs(
                &server,
                &own_feed,
                metrics,
                doing.clone(),
                (guard_sessions.subscribe(), health.clone()),
            )),
            net: known.net.clone(),
            consensus: self.consensus.clone(),
            roles: self.roles.clone(),
            gate,
            holding,
            inputs: self.inputs.clone(),
            control: control_tx,
            recent: self.recent.clone(),
            job: None,
        };
        let (stopped_tx, stopped) = watch::channel(false);
        self.tasks.spawn(async move {
            driver.run(inputs_rx).await;
            stopped_tx.send_replace(true);
        });
        let kept_cuts = self.kept_cuts(running.clone());
        let judge = self.errant(running.clone(), control.clone());
        let watcher = Arc::new(Watcher {
            net: known.net.clone(),
            host: known.host.clone(),
            own_groups: self.own_groups.clone(),
            logins: server.logins,
            running,
            control: control.clone(),
            consensus: self.consensus.clone(),
            inputs: self.inputs.clone(),
            health: health_tx,
            probe_interval: known.config.timing.probe_interval,
            probe_timeout: known.config.timing.probe_timeout,
            disk_probe: known.disk_probe.clone(),
            left_out: known.left_out,
            met_statements: server.met_statements,
            guard_sessions,
        });
        self.watch(watcher);
        Controlled {
            control,
            health,
            doing: doing.subscribe(),
            kept_cuts,
            stopped,
            judge,
        }
    }

    fn watch(&mut self, watcher: Arc<Watcher<N, H>>) {
        self.tasks.spawn(watcher.clone().probe());
        self.tasks.spawn(watcher.clone().probe_disk());
        self.tasks.spawn(watcher.clone().guard(Guarded::Variables));
        self.tasks.spawn(watcher.clone().guard(Guarded::Status));
        self.tasks.spawn(watcher.follow());
    }

    fn errant(
        &mut self,
        running: watch::Receiver<Option<crate::server::Running<H>>>,
        control: watch::Receiver<Control>,
    ) -> JudgeOwn {
        let own = Arc::new(OwnErrant {
            net: self.known.net.clone(),
            logins: server_logins(self.known),
            running,
            control,
            consensus: self.consensus.clone(),
            inputs: self.inputs.clone(),
            incarnation: self.known.identity.incarnation,
        });
        self.tasks.spawn(own.clone().watch());
        own.judge_own()
    }

    fn kept_cuts(
        &mut self,
        running: watch::Receiver<Option<crate::server::Running<H>>>,
    ) -> watch::Receiver<Vec<KeptCut>> {
        let days = self.known.config.repair.keep_cuts_days;
        let (kept, receiver) = watch::channel(Vec::new());
        let keeper = KeptCuts {
            host: self.known.host.clone(),
            running,
            wall_clock: self.known.wall_clock.clone(),
            keep: Duration::from_secs(u64::from(days) * 24 * 60 * 60),
            kept,
        };
        self.tasks.spawn(keeper.run());
        receiver
    }

    fn jobs(
        &self,
        server: &ServerParts<H>,
        own_feed: &Endpoint,
        capture_metrics: Arc<CaptureMetrics>,
        doing: watch::Sender<String>,
        (guard_sessions, health): (watch::Receiver<GuardSessions>, watch::Receiver<Health>),
    ) -> JobContext<N, H> {
        let known = self.known;
        let (cluster_uuid, cluster_server_id) = stable_identity(known.cluster);
        // Capture is another replica than the feed is a source: one byte apart.
        let mut capture_uuid = cluster_uuid;
        capture_uuid.0[15] ^= 0x80 | known.config.node.0 as u8;
        JobContext {
            net: known.net.clone(),
            consensus: self.consensus.clone(),
            server: server.state.clone(),
            node: known.config.node,
            incarnation: known.identity.incarnation,
            start_counter: known.identity.start_counter,
            cluster: known.cluster,
            feed: ReplicationSource {
                host: "127.0.0.1".to_owned(),
                port: own_feed.port().unwrap_or_default(),
                user: FEED_USER.to_owned(),
                password: known.secrets.feed.clone(),
            },
            met_statements: server.met_statements.clone(),
            capture_server_id: cluster_server_id ^ (known.config.node.0 as u32) << 1,
            capture_uuid: Uuid(capture_uuid.0),
            capture_metrics,
            ack_delay: self.ack_delay.clone(),
            raft: self.raft.clone(),
            transaction_bytes_max: known.config.retention.transaction_bytes_max(),
            demote_bound: known.config.timing.demote_bound,
            drain_bound: known.config.timing.switchover_drain,
            own_groups: self.own_groups.clone(),
            logins: server.logins.clone(),
            guard_sessions,
            enable_events: known.config.mysqld.enable_events,
            inputs: self.inputs.clone(),
            capture: known.capture,
            left_out: known.left_out,
            clone: self.clone_parts(health),
            doing,
            told: std::sync::Mutex::default(),
        }
    }

    fn clone_parts(&self, health: watch::Receiver<Health>) -> CloneParts {
        let known = self.known;
        let book = known.book.clone();
        let dial_gate = move |node: NodeId| book.gate(node);
        CloneParts {
            permits: PermitClient {
                node: known.config.node,
                incarnation: known.identity.incarnation,
                cluster: known.cluster,
                server_version: known.server_version.clone(),
                consensus: self.consensus.clone(),
                permits: self.permits.clone(),
                forward: self.forward.clone(),
            },
            tls: known.tls.clone(),
            dial_gate: Arc::new(dial_gate),
            password: known.secrets.clone.clone(),
            health,
            failed: std::sync::Mutex::default(),
            kept: std::sync::atomic::AtomicU64::default(),
        }
    }

    fn status(
        &mut self,
        gate: GateHandle,
        controlled: &Controlled,
        differs: watch::Receiver<BTreeSet<String>>,
    ) -> (ViewMaker<N>, OwnView<N>) {
        let known = self.known;
        let reports: Arc<watch::Sender<Reports>> = Arc::default();
        let (book, forward) = (known.book.clone(), self.forward.clone());
        self.tasks.spawn(ask_peers(book, forward, reports.clone()));
        let kept = self.retention();
        let own = OwnView {
            node: known.config.node,
            started_at: Instant::now(),
            cluster: known.cluster,
            incarnation: known.identity.incarnation,
            gate_address: known.config.listen.gate.to_string(),
            mysql_address: known.config.mysql_address(),
            witness: known.config.witness,
            part: self.part.clone(),
            net: known.net.clone(),
            consensus: self.consensus.clone(),
            roles: self.roles.clone(),
            gate,
            control: controlled.control.clone(),
            health: controlled.health.clone(),
            doing: controlled.doing.clone(),
            kept_cuts: controlled.kept_cuts.clone(),
            kept,
            differs,
        };
        let maker = ViewMaker {
            own: own.clone(),
            config: known.config.clone(),
            book: known.book.clone(),
            reports: reports.subscribe(),
            inputs: self.inputs.clone(),
            recent: self.recent.clone(),
            ack_delay: self.ack_delay.clone(),
        };
        self.tasks.spawn(maker.clone().run());
        (maker, own)
    }

    /// Keeps the log within its limits.
    fn retention(&mut self) -> watch::Receiver<Kept> {
        let metrics = LogMetrics::default();
        metrics.register(&mut self.registry);
        let kept = watch::Sender::default();
        let changes = kept.subscribe();
        let retainer = Retainer {
            config: self.known.config.retention.clone(),
            consensus: self.consensus.clone(),
            roles: self.roles.clone(),
            wall_clock: self.known.wall_clock.clone(),
            inputs: self.inputs.clone(),
            recent: self.recent.clone(),
            metrics,
            kept,
            left_out: self.known.left_out,
        };
        self.tasks.spawn(retainer.run());
        changes
    }

    fn admin(
        &mut self,
        own: OwnView<N>,
        health: watch::Receiver<Health>,
        proxy: ProxyHandle,
        questions: Questions,
    ) -> AdminService {
        let known = self.known;
        let membership = Membership::new(
            known.config.node,
            self.consensus.clone(),
            self.roles.clone(),
            known_nodes(&known.config),
            self.inputs.clone(),
        );
        self.tasks.spawn(membership.clone().run());
        let joining = Joining {
            node: known.config.node,
            cluster: known.cluster,
            incarnation: known.identity.incarnation,
            config: known.config.clone(),
            book: known.book.clone(),
            consensus: self.consensus.clone(),
            membership: membership.clone(),
            health,
            forward: self.forward.clone(),
            part: self.part.clone(),
        };
        self.tasks.spawn(joining.run());
        AdminService {
            node: known.config.node,
            cluster: known.cluster,
            consensus: self.consensus.clone(),
            roles: self.roles.clone(),
            membership,
            permits: self.permits.clone(),
            own_report: Arc::new(move || own.report()),
            inputs: self.inputs.clone(),
            forward: self.forward.clone(),
            book: known.book.clone(),
            proxy,
            questions,
        }
    }

    fn grpc(
        &self,
        raft_service: RaftService,
        admin: AdminService,
        listener: Listener,
        raft: &tokio::runtime::Handle,
    ) -> GrpcServer {
        GrpcServer::start(
            (raft_service, admin),
            listener,
            self.known.tls.clone(),
            raft,
        )
    }
}

/// What a transfer and a promotion need at most when nothing is wrong.
const PROMOTION_USUAL: Duration = Duration::from_secs(3);
/// Connections after their handshake, however long each takes: a slow one holds up no other.
pub(crate) fn secure(
    incoming: impl Stream<Item = std::io::Result<BoxIo>>,
    tls: Option<Tls>,
) -> impl Stream<Item = std::io::Result<BoxIo>> {
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
    met_statements: Arc<AtomicBool>,
}

fn server_logins<N: Net, H: Host>(known: &Known<N, H>) -> Logins {
    Logins {
        socket: Endpoint::Unix(known.config.mysqld.socket.clone()),
        control: known.secrets.control.clone(),
        capture: known.secrets.capture.clone(),
    }
}

fn server_state<N: Net, H: Host>(known: &Known<N, H>) -> ServerParts<H> {
    let logins = server_logins(known);
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
        met_statements: Arc::default(),
    }
}

/// Clients are made when they are first wanted: nodes may come later.
fn forward<N: Net, H: Host>(known: &Known<N, H>) -> Forward {
    let (net, tls, book) = (known.net.clone(), known.tls.clone(), known.book.clone());
    let clients: StdMutex<BTreeMap<NodeId, AdminChannel>> = StdMutex::default();
    Arc::new(move |node| {
        book.grpc(node)?;
        let mut clients = clients.lock().unwrap_or_else(PoisonError::into_inner);
        let client = clients.entry(node).or_insert_with(|| {
            let book = book.clone();
            following_client(&net, tls.as_ref(), node, move || book.grpc(node))
        });
        Some(client.clone())
    })
}

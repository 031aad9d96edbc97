//! One node put together.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use quorate_consensus::{Consensus, ConsensusConfig, FatalError, Timings};
use quorate_mysqld::{Host, HostError, Marker, Settings};
use quorate_net::{Listener, Net, Tls, TlsError, require_tls_or_loopback};
use quorate_proxy::RoleWatch;
use quorate_replication::CaptureOptions;
use quorate_role::Input;
use quorate_storage::LogDisk;
use quorate_types::{ClusterId, ClusterView, NodeId, Rule, SplitMix64};
use quorate_wire::v1::admin_client::AdminClient;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;

use crate::addresses::AddressBook;
use crate::cluster_id::{BootstrapError, ClusterFinder};
use crate::config::{Config, Secrets};
use crate::existing::{self, ExistingError};
use crate::grpc::GrpcServer;
use crate::identity::{Identity, IdentityError};
use crate::parts::Parts;
use crate::probe::Probe;
use crate::roles::Roles;
use crate::waiting::Waiting;
use crate::wiring;

pub(crate) type AdminChannel = AdminClient<tonic::transport::Channel>;

/// Inputs of role control on their way; it takes them as fast as they come.
const INPUTS: usize = 256;

/// Why a node could not be started.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("load certificates")]
    Tls(#[from] TlsError),
    #[error(transparent)]
    Exposed(#[from] quorate_net::ExposedListener),
    #[error("open the Raft log")]
    Log(#[source] quorate_storage::Error),
    #[error("read who this node is")]
    Identity(#[from] IdentityError),
    #[error("listen for {name}")]
    Listen {
        name: &'static str,
        source: std::io::Error,
    },
    #[error(transparent)]
    Bootstrap(#[from] BootstrapError),
    #[error("begin with the data that are there")]
    Existing(#[from] ExistingError),
    #[error("look at the data folder")]
    Host(#[from] HostError),
    #[error("start Raft")]
    Consensus(#[from] quorate_consensus::StartError),
    #[error("make a new cluster")]
    Initialize(#[from] quorate_consensus::ChangeError),
    #[error("write {}", file.display())]
    PidFile {
        file: PathBuf,
        source: std::io::Error,
    },
    #[error("Raft's own threads ended")]
    RaftRuntime,
}

/// Why a process must end, and must not touch the server: a new start will deal with the commits that
/// wait there.
#[derive(Debug, thiserror::Error)]
pub enum NodeFailure {
    #[error(transparent)]
    Consensus(#[from] FatalError),
    /// A defect of ours, which the log has. Of what goes on without that part nobody thought.
    #[error("a part of the node panicked: {0}")]
    Panicked(String),
}

/// A node that runs.
pub struct Node {
    inputs: mpsc::Sender<Input>,
    stopped: watch::Receiver<bool>,
    fatal: watch::Receiver<Option<FatalError>>,
    roles: Roles,
    consensus: Consensus,
    tasks: JoinSet<()>,
    grpc: GrpcServer,
    raft: tokio::runtime::Handle,
    pid_file: PathBuf,
}

/// The listeners, bound before anything else is done: a port in use is the first thing to say.
pub(crate) struct Listeners {
    pub(crate) read_write: Listener,
    pub(crate) read_only: Listener,
    pub(crate) feed: Listener,
    /// For this node's own mysqld, if the feed for others wants certificates.
    pub(crate) own_feed: Option<Listener>,
    pub(crate) http: Listener,
    pub(crate) gate: Listener,
    pub(crate) grpc: Listener,
}

/// What the wiring needs, once the node knows its cluster.
pub(crate) struct Known<N: Net, H: Host> {
    pub(crate) config: Arc<Config>,
    pub(crate) book: Arc<AddressBook>,
    pub(crate) secrets: Secrets,
    pub(crate) tls: Option<Tls>,
    pub(crate) net: N,
    pub(crate) host: H,
    pub(crate) identity: Identity,
    pub(crate) cluster: ClusterId,
    pub(crate) settings: Settings,
    pub(crate) server_version: String,
    pub(crate) random: SplitMix64,
    pub(crate) wall_clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    pub(crate) disk_probe: Option<PathBuf>,
    pub(crate) capture: CaptureOptions,
    pub(crate) left_out: Option<Rule>,
}

impl Node {
    /// Starts everything; returns when the node answers its ports. It may take a while until its
    /// cluster is known, and its server runs later still.
    ///
    /// # Errors
    /// If the node must not or cannot start as it is configured.
    pub async fn start<N: Net, H: Host, D: LogDisk>(
        config: Config,
        secrets: Secrets,
        parts: Parts<N, H, D>,
        bootstrap: bool,
    ) -> Result<Self, StartError> {
        let tls = closed_doors(&config)?;
        let mut random = SplitMix64::new(parts.seed);
        let mut disk = (parts.open_log)().map_err(StartError::Log)?;
        let mut identity = count_start(&config, &mut disk, &mut random)?;
        let mut listeners = bind(&parts.net, &parts.raft, &config).await?;
        let pid_file = write_pid_file(config.pid_file())?;
        let mut baseline = None;
        let cluster = match identity.cluster {
            Some(cluster) => cluster,
            None => {
                let find = ClusterFinder {
                    net: &parts.net,
                    config: &config,
                    tls: tls.as_ref(),
                };
                let cluster = if bootstrap {
                    let cluster = find.make(&parts.host, &mut random).await?;
                    let server = (&parts.settings, parts.server_version.as_str());
                    let look = prepare_existing(&parts.net, &parts.host, server, &secrets);
                    baseline = Box::pin(look).await?;
                    identity.brings_data = baseline.is_some();
                    cluster
                } else {
                    Box::pin(wait_for_cluster(find, &identity, &mut listeners)).await
                };
                identity.cluster = Some(cluster);
                identity.save(&mut disk).map_err(StartError::Log)?;
                cluster
            }
        };
        identity.mark(&mut disk, &parts.host).await?;
        let config = Arc::new(config);
        let known = Known {
            book: AddressBook::new(config.clone()),
            config,
            secrets,
            tls,
            net: parts.net,
            host: parts.host,
            identity,
            cluster,
            settings: parts.settings,
            server_version: parts.server_version,
            random,
            wall_clock: parts.wall_clock,
            disk_probe: parts.disk_probe,
            capture: parts.capture,
            left_out: parts.left_out,
        };
        let mut registry = Registry::default();
        let (consensus, raft_service) =
            start_consensus(&known, &mut registry, disk, parts.exec, &parts.raft).await?;
        Box::pin(found(&known, &consensus, bootstrap, baseline)).await?;
        let (inputs, inputs_rx) = mpsc::channel(INPUTS);
        let both = (inputs.clone(), inputs_rx);
        let (log, raft) = (consensus.clone(), &parts.raft);
        let wired = wiring::wire(&known, log, raft_service, listeners, registry, both, raft);
        Ok(Self {
            inputs,
            stopped: wired.stopped,
            fatal: consensus.fatal(),
            roles: wired.roles,
            consensus,
            tasks: wired.tasks,
            grpc: wired.grpc,
            raft: parts.raft,
            pid_file,
        })
    }

    #[must_use]
    pub fn view(&self) -> watch::Receiver<Arc<ClusterView>> {
        self.roles.view()
    }

    #[must_use]
    pub fn probe(&self) -> Probe {
        Probe {
            consensus: self.consensus.clone(),
            roles: self.roles.clone(),
        }
    }

    /// Hands leadership over if it has it, stops the server in good order, then Raft.
    pub async fn stop(mut self) {
        if self.inputs.send(Input::Stop).await.is_ok() {
            let _ = self.stopped.wait_for(|stopped| *stopped).await;
        }
        // First: a request that comes while Raft stops would be an error in its log.
        self.grpc.stop().await;
        self.tasks.shutdown().await;
        let consensus = self.consensus.clone();
        let _ = self
            .raft
            .spawn(async move { consensus.shutdown().await })
            .await;
        let _ = std::fs::remove_file(&self.pid_file);
    }

    /// Resolves when the node can no longer keep its promises: the process must end.
    pub async fn failed(&mut self) -> NodeFailure {
        first_failure(&mut self.fatal, &mut self.tasks).await
    }
}

async fn first_failure(
    fatal: &mut watch::Receiver<Option<FatalError>>,
    tasks: &mut JoinSet<()>,
) -> NodeFailure {
    let of_consensus = async {
        let fatal = fatal.wait_for(Option::is_some).await;
        match fatal.ok().and_then(|fatal| fatal.clone()) {
            Some(fatal) => fatal.into(),
            None => std::future::pending().await,
        }
    };
    let of_a_part = async {
        while let Some(end) = tasks.join_next().await {
            if let Err(error) = end
                && error.is_panic()
            {
                return NodeFailure::Panicked(error.to_string());
            }
        }
        std::future::pending().await
    };
    tokio::select! {
        biased;
        failure = of_consensus => failure,
        failure = of_a_part => failure,
    }
}

/// Counts this start of the Raft folder.
fn count_start(
    config: &Config,
    disk: &mut impl LogDisk,
    random: &mut SplitMix64,
) -> Result<Identity, IdentityError> {
    let incarnation = quorate_types::Incarnation(random.next_u64());
    let start_id = random.next_u64();
    Identity::start(disk, config.node, incarnation, start_id)
}

/// Refuses listeners that others could reach without a certificate; the node's certificates, if any.
pub(crate) fn closed_doors(config: &Config) -> Result<Option<Tls>, StartError> {
    let load = |tls: &crate::config::Tls| Tls::load(&tls.ca, &tls.cert, &tls.key);
    let tls = config.tls.as_ref().map(load).transpose()?;
    let listen = &config.listen;
    let closed = [
        ("feed", &listen.feed),
        ("grpc", &listen.grpc),
        ("http", &listen.http),
        ("gate", &listen.gate),
    ];
    require_tls_or_loopback(&closed, tls.as_ref())?;
    Ok(tls)
}

/// The cluster that a peer is in, however long that takes; until then the node says that it waits.
async fn wait_for_cluster<N: Net>(
    find: ClusterFinder<'_, N>,
    identity: &Identity,
    listeners: &mut Listeners,
) -> ClusterId {
    let waiting = Waiting::new(find.config, identity.incarnation);
    waiting.answer_until(listeners, find.tls, find.wait()).await
}

fn write_pid_file(file: PathBuf) -> Result<PathBuf, StartError> {
    match std::fs::write(&file, format!("{}\n", std::process::id())) {
        Ok(()) => Ok(file),
        Err(source) => Err(StartError::PidFile { file, source }),
    }
}

/// Starts Raft on its own threads.
async fn start_consensus<N: Net, H: Host, D: LogDisk>(
    known: &Known<N, H>,
    registry: &mut Registry,
    disk: D,
    exec: quorate_consensus::Exec,
    raft: &tokio::runtime::Handle,
) -> Result<(Consensus, quorate_consensus::RaftService), StartError> {
    let metrics = quorate_consensus::Metrics::default();
    metrics.register(registry);
    let config = consensus_config(
        &known.config,
        &known.identity,
        known.cluster,
        known.tls.as_ref(),
    );
    let sits_out = known.left_out != Some(Rule::SitOutTheLease);
    let book = known.book.clone();
    let config = ConsensusConfig {
        metrics,
        exec,
        sit_out: config.sit_out.filter(|_| sits_out),
        left_out: known.left_out,
        dial: Arc::new(move |node| book.grpc(node)),
        ..config
    };
    let start = Consensus::start(config, known.net.clone(), disk);
    let (consensus, service) = raft
        .spawn(start)
        .await
        .map_err(|_| StartError::RaftRuntime)??;
    known.book.follow(consensus.applied_state());
    Ok((consensus, service))
}

/// Makes this node the only voter of its new cluster.
async fn initialize<N: Net, H: Host>(
    known: &Known<N, H>,
    consensus: &Consensus,
) -> Result<(), StartError> {
    if consensus.is_initialized().await? {
        return Err(BootstrapError::Member(known.cluster).into());
    }
    Ok(consensus
        .initialize_single(known.config.listen.grpc.to_string())
        .await?)
}

/// What the data begin with that are there already, if there are any.
async fn prepare_existing<N: Net, H: Host>(
    net: &N,
    host: &H,
    server: (&Settings, &str),
    secrets: &Secrets,
) -> Result<Option<existing::Baseline>, StartError> {
    if !existing::is_there(host)? {
        return Ok(None);
    }
    tracing::info!("the data folder has data: the cluster begins with them");
    Ok(Some(existing::prepare(net, host, server, secrets).await?))
}

/// Makes a new cluster of this node, if it is to be one.
async fn found<N: Net, H: Host>(
    known: &Known<N, H>,
    consensus: &Consensus,
    bootstrap: bool,
    prepared: Option<existing::Baseline>,
) -> Result<(), StartError> {
    if bootstrap {
        initialize(known, consensus).await?;
    }
    bring_data(known, consensus, prepared).await
}

/// Begins the log with the data that were there, if that was not done before.
async fn bring_data<N: Net, H: Host>(
    known: &Known<N, H>,
    consensus: &Consensus,
    prepared: Option<existing::Baseline>,
) -> Result<(), StartError> {
    if !known.identity.brings_data || !existing::is_there(&known.host)? {
        return Ok(());
    }
    let Some(leader) = existing::lead(consensus).await? else {
        return Ok(());
    };
    let baseline = match prepared {
        Some(baseline) => baseline,
        // A start that was interrupted.
        None => {
            let server = (&known.settings, known.server_version.as_str());
            existing::prepare(&known.net, &known.host, server, &known.secrets).await?
        }
    };
    let marker = Marker {
        cluster: known.cluster,
        node: known.identity.node,
        incarnation: known.identity.incarnation,
        start_counter: known.identity.start_counter,
        last_epoch: None,
    };
    Ok(existing::found(consensus, leader, &known.host, baseline, &marker).await?)
}

async fn bind<N: Net>(
    net: &N,
    raft: &tokio::runtime::Handle,
    config: &Config,
) -> Result<Listeners, StartError> {
    let listen = &config.listen;
    let bind = async |name, at: &quorate_net::Endpoint| {
        net.listen(at)
            .await
            .map_err(|source| StartError::Listen { name, source })
    };
    // Raft's connections live with Raft's threads from the beginning.
    let (raft_net, grpc) = (net.clone(), listen.grpc.clone());
    let grpc = raft
        .spawn(async move { raft_net.listen(&grpc).await })
        .await;
    let grpc = grpc.map_err(|_| StartError::RaftRuntime)?;
    Ok(Listeners {
        grpc: grpc.map_err(|source| StartError::Listen {
            name: "grpc",
            source,
        })?,
        read_write: bind("read_write", &listen.read_write).await?,
        read_only: bind("read_only", &listen.read_only).await?,
        feed: bind("feed", &listen.feed).await?,
        own_feed: match listen.feed.is_local() {
            true => None,
            false => Some(
                bind(
                    "feed",
                    &quorate_net::Endpoint::Tcp("127.0.0.1:0".to_owned()),
                )
                .await?,
            ),
        },
        http: bind("http", &listen.http).await?,
        gate: bind("gate", &listen.gate).await?,
    })
}

fn consensus_config(
    config: &Arc<Config>,
    identity: &Identity,
    cluster: ClusterId,
    tls: Option<&Tls>,
) -> ConsensusConfig {
    let timing = &config.timing;
    let own = quorate_consensus::Identity {
        cluster,
        node: identity.node,
        incarnation: identity.incarnation,
        start_counter: identity.start_counter,
    };
    let secure = tls.cloned().map(|tls| -> quorate_consensus::SecureConnect {
        Arc::new(move |node, io| {
            let tls = tls.clone();
            Box::pin(async move { tls.connect(io, &quorate_net::node_server_name(node)).await })
        })
    });
    ConsensusConfig {
        timings: Timings {
            heartbeat: timing.heartbeat,
            election_min: timing.election_min,
            election_max: timing.election_max,
            quorum_loss_probe: timing.quorum_loss_probe,
        },
        secure,
        // A folder that was never used promised nothing to anybody.
        sit_out: (identity.start_counter > 1).then_some(timing.election_max),
        start_ids: identity.start_ids,
        ..ConsensusConfig::new(own)
    }
}

/// Every node of the configuration, this one too.
pub(crate) fn known_nodes(config: &Config) -> BTreeSet<NodeId> {
    config.peers.keys().copied().chain([config.node]).collect()
}

/// How long a handshake of an incoming connection may take.
pub(crate) const HANDSHAKE_MAX: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::tests::GOOD;

    #[test]
    fn only_a_folder_that_was_never_used_sits_no_lease_out() {
        let config = Arc::new(Config::parse(GOOD, std::path::Path::new("/")).unwrap());
        let sit_out = |start_counter| {
            let identity = Identity {
                node: NodeId(1),
                cluster: Some(ClusterId(7)),
                incarnation: quorate_types::Incarnation(1),
                start_counter,
                marked: 0,
                brings_data: false,
                start_ids: quorate_consensus::StartIds::default(),
            };
            consensus_config(&config, &identity, ClusterId(7), None).sit_out
        };
        assert_eq!(sit_out(1), None);
        assert_eq!(sit_out(2), Some(config.timing.election_max));
    }

    #[tokio::test(start_paused = true)]
    async fn a_part_that_panics_is_a_failure_and_one_that_ends_is_none() {
        let (to_fatal, mut fatal) = watch::channel(None);
        let mut tasks = JoinSet::new();
        tasks.spawn(async {});
        tasks.spawn(std::future::pending());
        let day = Duration::from_secs(86400);
        let none = tokio::time::timeout(day, first_failure(&mut fatal, &mut tasks)).await;
        assert!(none.is_err(), "{none:?}");

        tasks.spawn(async { panic!("by a test") });
        let failure = first_failure(&mut fatal, &mut tasks).await;
        assert!(matches!(failure, NodeFailure::Panicked(_)), "{failure:?}");

        to_fatal.send_replace(Some(FatalError::Raft("by a test".to_owned())));
        let failure = first_failure(&mut fatal, &mut tasks).await;
        assert!(matches!(failure, NodeFailure::Consensus(_)), "{failure:?}");
    }
}

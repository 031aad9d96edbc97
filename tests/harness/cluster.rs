use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_mysqld::{FileLock, machine_lock};
use quorate_net::{Tls, node_server_name};
use quorate_types::NodeId;

use crate::machine::{Stolen, eventually};
use crate::node_process::{NodeProcess, Ports, Signal};
use crate::ports::free_ports;
use crate::relay::{Links, Relay};
use crate::sql::{Sql, SqlError};
use crate::undisturbed::{say, show_panics};

/// What a story may ask of its cluster.
#[derive(Clone, Debug)]
pub struct Options {
    pub nodes: u64,
    /// Further lines for every node's configuration, as whole TOML tables.
    pub config: String,
    pub buffer_pool: String,
    /// Further options of every mysqld.
    pub mysqld_extra: Vec<String>,
    /// Further lines for the section `[mysqld]` of every node's configuration.
    pub mysqld_lines: String,
    /// Whether the nodes have certificates, made by the program under test, in `certs/`. Their feed
    /// and HTTP ports are then beyond loopback as far as the program can tell.
    pub certs: bool,
    /// Further environment of every node, and of the servers that they start.
    pub environment: Vec<(String, String)>,
    /// A node that only votes, if any.
    pub witness: Option<u64>,
    /// Whether nodes reach each other through relays. Each message then passes one more process, so
    /// who measures does without, and can cut nothing.
    pub relays: bool,
    /// How long the cluster may take until it is whole for the first time.
    pub patience: Duration,
    /// Lines for the section `[timing]` of every node's configuration. By default a cluster waits longer
    /// before an election than one that is shipped: a machine whose host takes its processors away for
    /// a quarter of a second has no part in most stories.
    pub timing: String,
}

const PATIENT: &str =
    "election_min_ms = 500\nelection_max_ms = 1000\nquorum_loss_probe_ms = 2000\n";

/// A machine that is busy otherwise ends the primary's lease for a moment.
const LEASE_ENDED: &str = "the lease ended";
/// Once in the logs of all nodes, unless the primary changed or its epoch ended.
const NEW_PRIMARY: &str = "this node is primary: its gate is open";

/// Loopback, in words that the program under test takes for an address of the network.
const AS_IF_BEYOND: &str = "127.1";

impl Default for Options {
    fn default() -> Self {
        Self {
            nodes: 3,
            config: String::new(),
            buffer_pool: "64M".to_owned(),
            mysqld_extra: Vec::new(),
            mysqld_lines: String::new(),
            certs: false,
            environment: Vec::new(),
            witness: None,
            relays: true,
            patience: Duration::from_secs(90),
            timing: PATIENT.to_owned(),
        }
    }
}

impl Options {
    /// A cluster that elects as fast as one that nobody configured: for stories of how fast that is.
    #[must_use]
    pub fn with_shipped_timing() -> Self {
        Self {
            timing: String::new(),
            ..Self::default()
        }
    }

    /// Clones have 4 MiB per second: an empty server's data take 18 s.
    #[must_use]
    pub fn with_slow_clones() -> Self {
        let slow = [
            "--clone_max_data_bandwidth=4",
            "--clone_max_concurrency=1",
            "--clone_autotune_concurrency=OFF",
        ];
        Self {
            mysqld_extra: slow.map(str::to_owned).to_vec(),
            ..Self::default()
        }
    }
}

/// Nodes of the program under test, each with its mysqld, linked through relays.
pub struct Cluster {
    pub nodes: BTreeMap<NodeId, NodeProcess>,
    pub links: Links,
    pub dir: PathBuf,
    /// Nodes that are meant to have no vote.
    pub learners: BTreeSet<NodeId>,
    program: PathBuf,
    options: Options,
    stolen: Stolen,
    // Last: the next story starts when all processes are gone.
    _machine: FileLock,
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            say(&self.last_words());
        }
    }
}

impl Cluster {
    /// How openraft reports a peer that does not answer, or a leadership that ended.
    pub const PEER_LOST: &[&str] = &[
        "openraft::core::heartbeat::worker: HeartbeatWorker(",
        "openraft::replication: ReplicationCore recv RPCError: Unreachable node",
        "replication_handler: update progress error: Unreachable node",
        "raft_core: while requesting pre-vote, error: Unreachable node",
        "raft_core: while requesting vote, error: Unreachable node",
        "raft_core: A message will be ignored because this node is no longer Leader",
    ];

    /// What a server without a processor makes its sidecar say.
    const STARVED: &[&str] = &[
        "mysqld does not answer",
        "the server's disk does not answer",
        "repair failed: login took longer than",
        " took too long: repairing",
    ];

    /// What the sidecar of a primary says that no longer leads, whatever the cause.
    const CHANGE_OF_PRIMARY: &[&str] = &[
        // The new leader took over before the order arrived.
        "leadership could not be given away",
        // Not for a GTID that came again with another content.
        "capture ended: the primary's dump ended",
        "capture ended: the epoch is over",
        // Commits that nobody accepts: only a kill ends them.
        "super_read_only=ON waits behind something",
        "the mysqld that runs is no replica that takes no writes: it will be killed",
        "mysqld exited",
        "mysqld does not answer",
        // A commit of hundreds of MiB is synced before the disk answers anybody else.
        "the server's disk does not answer",
        // Its donor was promoted: that ends the sessions of others.
        "the clone failed: a copy of node ",
        // A second election amid a promotion.
        "this epoch is over: repairing",
        // The demotion began before it was known that the server is gone.
        "bound the wait for locks",
        "cut what was never acknowledged off the binlog",
    ];

    /// Starts a new cluster, waits until it serves and every node is a healthy member, and makes
    /// the database and user `app`.
    ///
    /// # Panics
    /// If it does not come up, with the reason and where the logs are.
    pub async fn start(story: &str, program: &str, options: Options) -> Self {
        let mut cluster = Self::lay_out(story, program, options).await;
        cluster.start_all().await;
        cluster.make_app().await;
        cluster
    }

    /// Where a story's logs and data are.
    #[must_use]
    pub fn story_folder(story: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../target/stories")
            .join(story)
    }

    /// Makes the folders and configurations of a new cluster, and starts nothing.
    ///
    /// # Panics
    /// If there is no MySQL, or the folders cannot be made.
    pub async fn lay_out(story: &str, program: &str, options: Options) -> Self {
        show_panics();
        // One cluster at a time on a machine: their timings would be each other's noise.
        let machine = machine_lock().await.expect("lock the machine");
        // A first run fetches MySQL and makes the seed: that is no part of how long nodes take.
        let installation = crate::tools::mysql().await;
        let cache = quorate_mysqld::default_cache();
        let seed = quorate_mysqld::prepare_seed(&installation, &cache).await;
        seed.expect("a seed data folder");
        let dir = story_dir(Self::story_folder(story));
        let (nodes, links) = lay_out(&dir, program, &options).await;
        Self {
            nodes,
            links,
            dir,
            learners: BTreeSet::new(),
            program: PathBuf::from(program),
            options,
            stolen: Stolen::from_now(),
            _machine: machine,
        }
    }

    /// Starts the nodes, the first one as the founder, and waits until the cluster serves and every
    /// node is a healthy member.
    ///
    /// # Panics
    /// If it does not come up, with the reason and where the logs are.
    pub async fn start_all(&mut self) {
        let first = *self.nodes.keys().next().expect("a cluster has nodes");
        for (id, node) in &mut self.nodes {
            node.start(*id == first);
        }
        self.wait_until_whole(self.options.patience).await;
    }

    /// Makes the database and user `app`, of a cluster that was laid out first. On a loaded machine the
    /// primary may change meanwhile: then again.
    ///
    /// # Panics
    /// If the cluster does not serve.
    pub async fn make_app(&self) {
        let mut last = None;
        let made = eventually(Duration::from_secs(30), async || {
            last = self.try_to_make_app().await.err();
            last.is_none()
        });
        assert!(made.await, "the cluster takes no writes: {last:?}");
    }

    async fn try_to_make_app(&self) -> Result<(), SqlError> {
        let primary = self.primary().await;
        let primary = primary.ok_or_else(|| SqlError::Unknown("no primary".to_owned()))?;
        let mut sql = Sql::socket(&self.nodes[&primary].socket()).await?;
        for statement in [
            "CREATE DATABASE IF NOT EXISTS app",
            "CREATE USER IF NOT EXISTS app@'%' IDENTIFIED BY 'app'",
            "GRANT ALL ON app.* TO app@'%'",
        ] {
            let bound = Duration::from_secs(20);
            sql.run_within(statement, bound).await?;
        }
        Ok(())
    }

    /// Logs `app` in to every server once. Its password is in their memory then, as sysbench's
    /// client library needs it: without TLS that can log in only so.
    ///
    /// # Panics
    /// If a server does not take the login.
    pub async fn remember_app(&self) {
        for node in self.nodes.values() {
            // A replica has the account a little later.
            let bound = Duration::from_secs(20);
            let took = eventually(bound, async || Sql::port(node.ports.mysql).await.is_ok()).await;
            assert!(took, "node {}'s server does not take app's login", node.id);
        }
    }

    /// Waits until one node is primary and all others are healthy replicas, which may lag.
    ///
    /// # Panics
    /// If that takes longer than the bound.
    pub async fn wait_until_whole(&self, bound: Duration) {
        let mut last = String::new();
        let whole = eventually(bound, async || {
            let statuses = self.statuses().await;
            let lines = statuses
                .iter()
                .map(|(id, status)| format!("\n{id}: {status}"));
            last = lines.collect();
            statuses.len() == self.nodes.len()
                && statuses
                    .values()
                    .all(|status| is_whole(status, self.nodes.len(), self.learners.len()))
        })
        .await;
        assert!(whole, "the cluster is not whole after {bound:?}: {last}");
    }

    /// For whoever reads a failure before the folder: what the machine was like, and the ends of logs.
    fn last_words(&self) -> String {
        let mut text = format!(
            "{}: the machine's host took {:.1} % of it\n",
            self.dir.display(),
            self.stolen.share() * 100.0
        );
        for node in self.nodes.values() {
            text += &node.last_words();
        }
        text
    }

    /// Every running node's `/api/status`.
    pub async fn statuses(&self) -> BTreeMap<NodeId, serde_json::Value> {
        let mut statuses = BTreeMap::new();
        for (id, node) in &self.nodes {
            let status = node.http_get("/api/status").await;
            let status = status.and_then(|status| serde_json::from_str(&status).ok());
            if let Some(status) = status {
                statuses.insert(*id, status);
            }
        }
        statuses
    }

    /// Kills sidecar and server, those that run, and returns when they are gone.
    ///
    /// # Panics
    /// If it is there after ten seconds.
    pub async fn kill_node(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        node.kill();
        node.try_signal_mysqld(Signal::KILL);
        let gone = eventually(Duration::from_secs(10), async || {
            node.mysqld_pid().is_none()
        })
        .await;
        assert!(gone, "mysqld of node {id} does not end");
    }

    /// What a node says of itself: its role and its message.
    pub async fn role_of(&self, id: NodeId) -> Option<(String, String)> {
        let status = self.node(id).http_get("/api/status").await?;
        let status: serde_json::Value = serde_json::from_str(&status).ok()?;
        let nodes = status["nodes"].as_array()?;
        let own = nodes.iter().find(|node| node["id"] == id.0)?;
        let text = |name: &str| Some(own[name].as_str()?.to_owned());
        Some((text("role")?, text("message").unwrap_or_default()))
    }

    /// Waits until a node has the role, with a message that contains the text; gives the message.
    ///
    /// # Panics
    /// If it does not come to it within the bound.
    pub async fn wait_for_role(
        &self,
        id: NodeId,
        role: &str,
        text: &str,
        bound: Duration,
    ) -> String {
        let mut last = None;
        let there = eventually(bound, async || {
            last = self.role_of(id).await;
            let fits = |(now, message): &(String, String)| now == role && message.contains(text);
            last.as_ref().is_some_and(fits)
        })
        .await;
        assert!(
            there,
            "node {id} is not {role} with `{text}` after {bound:?}: {last:?}"
        );
        last.map(|(_, message)| message).unwrap_or_default()
    }

    /// The node that calls itself primary, if there is one.
    pub async fn primary(&self) -> Option<NodeId> {
        let all: Vec<NodeId> = self.nodes.keys().copied().collect();
        self.primary_among(&all).await
    }

    /// The one of these nodes that calls itself primary, if there is one.
    pub async fn primary_among(&self, nodes: &[NodeId]) -> Option<NodeId> {
        let mut statuses = self.statuses().await;
        statuses.retain(|id, _| nodes.contains(id));
        for (id, status) in statuses {
            let own = status["nodes"]
                .as_array()?
                .iter()
                .find(|node| node["id"] == id.0)?;
            if own["role"] == "primary" {
                return Some(id);
            }
        }
        None
    }

    /// # Panics
    /// If there is no primary within the bound.
    pub async fn wait_for_primary(&self, bound: Duration) -> NodeId {
        let all: Vec<NodeId> = self.nodes.keys().copied().collect();
        self.wait_for_primary_among(&all, bound).await
    }

    /// Before this what only the last leader's log had may still be accepted: it has the longest log,
    /// and is elected again if it returns early.
    ///
    /// # Panics
    /// If none of these nodes is primary within the bound.
    pub async fn wait_for_primary_among(&self, nodes: &[NodeId], bound: Duration) -> NodeId {
        let mut primary = None;
        eventually(bound, async || {
            primary = self.primary_among(nodes).await;
            primary.is_some()
        })
        .await;
        primary.expect("a primary within the bound")
    }

    #[must_use]
    pub fn node(&self, id: NodeId) -> &NodeProcess {
        &self.nodes[&id]
    }

    /// # Panics
    /// If there is no such node.
    pub fn node_mut(&mut self, id: NodeId) -> &mut NodeProcess {
        self.nodes.get_mut(&id).expect("a node of the cluster")
    }

    #[must_use]
    pub fn others(&self, id: NodeId) -> Vec<NodeId> {
        self.nodes
            .keys()
            .copied()
            .filter(|other| *other != id)
            .collect()
    }

    /// Of all servers: a witness has none.
    #[must_use]
    pub fn sockets(&self) -> Vec<PathBuf> {
        let witness = self.options.witness.map(NodeId);
        let servers = self.nodes.values().filter(|node| Some(node.id) != witness);
        servers.map(NodeProcess::socket).collect()
    }

    /// Lays out a node that the configurations of the others do not name, and starts it. Its links
    /// go through no relay.
    ///
    /// # Panics
    /// If there is such a node already, or it cannot be started.
    pub fn add_node(&mut self, id: NodeId) {
        assert!(!self.nodes.contains_key(&id), "node {id} is there");
        let dir = self.dir.join(format!("n{id}"));
        std::fs::create_dir_all(&dir).expect("make the node's folder");
        let own = Ports::new(&free_ports(Ports::COUNT));
        let mut ports: BTreeMap<NodeId, Ports> = self
            .nodes
            .iter()
            .map(|(id, node)| (*id, node.ports))
            .collect();
        ports.insert(id, own);
        let secrets = self.dir.join("secrets.toml");
        let text = config(id, &dir, &secrets, &ports, &BTreeMap::new(), &self.options);
        std::fs::write(dir.join("node.toml"), text).expect("write configuration");
        let mut node = NodeProcess::new(id, dir, own, self.program.clone());
        node.environment.clone_from(&self.options.environment);
        node.start(false);
        self.nodes.insert(id, node);
    }

    /// Stops a node that was added, by kill -9 of its sidecar, and starts it with its ports for other
    /// nodes moved. Nobody is told.
    ///
    /// # Panics
    /// If its configuration cannot be changed.
    pub fn move_node(&mut self, id: NodeId) {
        // While it runs: its own ports are not free.
        let fresh = free_ports(2);
        let node = self.node_mut(id);
        node.kill();
        let text = std::fs::read_to_string(node.config()).expect("read configuration");
        let mut text = text;
        for (port, fresh) in [
            (&mut node.ports.grpc, fresh[0]),
            (&mut node.ports.gate, fresh[1]),
        ] {
            let old = format!("127.0.0.1:{port}\"");
            assert_eq!(text.matches(&old).count(), 1, "{old} in {text}");
            text = text.replace(&old, &format!("127.0.0.1:{fresh}\""));
            *port = fresh;
        }
        std::fs::write(node.config(), text).expect("write configuration");
        node.start(false);
    }

    /// Runs a command of the program under test that asks a node; what it printed, if it succeeded.
    ///
    /// # Errors
    /// What it printed as its error.
    ///
    /// # Panics
    /// If it cannot be run, or takes a minute.
    pub async fn ask(&self, at: NodeId, words: &[&str]) -> Result<String, String> {
        let output = tokio::process::Command::new(&self.program)
            .args(words)
            .arg("--addr")
            .arg(format!("127.0.0.1:{}", self.node(at).ports.grpc))
            .stdin(std::process::Stdio::null())
            .kill_on_drop(true)
            .output();
        let output = tokio::time::timeout(Duration::from_secs(60), output).await;
        let output = output.expect("it answers").expect("it was started");
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match output.status.success() {
            true => Ok(text(&output.stdout)),
            false => Err(text(&output.stderr)),
        }
    }

    #[must_use]
    pub fn read_write_ports(&self) -> Vec<u16> {
        let nodes = self.nodes.values();
        nodes.map(|node| node.ports.read_write).collect()
    }

    #[must_use]
    pub fn read_only_ports(&self) -> Vec<u16> {
        let nodes = self.nodes.values();
        nodes.map(|node| node.ports.read_only).collect()
    }

    /// Lines of the nodes' logs at WARN or ERROR that none of `expected` is part of. On a loaded machine
    /// a peer may be silent at any time, a lease may end and there may be an election: what comes of
    /// one is not unexpected where one was.
    ///
    /// # Panics
    /// If a log cannot be read.
    #[must_use]
    pub fn unexpected_log_lines(&self, expected: &[&str]) -> Vec<String> {
        let logs = self.logs();
        let lines = logs.iter().flat_map(|(_, log)| log.lines());
        let primaries = lines.filter(|line| line.contains(NEW_PRIMARY)).count();
        let of_an_election = match primaries {
            0 | 1 => &[],
            _ => Self::CHANGE_OF_PRIMARY,
        };
        let of_the_host = match self.stolen.is_much() {
            true => Self::STARVED,
            false => &[],
        };
        let forgiven = [Self::PEER_LOST, of_an_election, of_the_host, expected];
        loud_lines(&logs, &forgiven.concat())
    }

    /// The same where a primary ends in good order or not at all: nothing is forgiven but a lease that
    /// ended.
    ///
    /// # Panics
    /// If a log cannot be read.
    #[must_use]
    pub fn unexpected_log_lines_in_good_order(&self, expected: &[&str]) -> Vec<String> {
        loud_lines(&self.logs(), expected)
    }

    fn logs(&self) -> Vec<(NodeId, String)> {
        let of = |node: &NodeProcess| {
            let log = std::fs::read(node.log()).expect("read log");
            (node.id, String::from_utf8_lossy(&log).into_owned())
        };
        self.nodes.values().map(of).collect()
    }

    /// Ends every node in good order.
    pub async fn end_nodes(&mut self) {
        for node in self.nodes.values() {
            if node.pid().is_some() {
                node.signal(Signal::TERM);
            }
        }
        for node in self.nodes.values_mut() {
            node.exited(Duration::from_secs(30)).await;
        }
    }

    /// Ends every node in good order, and removes the folder: nobody needs to look at it.
    pub async fn stop(mut self) {
        self.end_nodes().await;
        // All stories together would leave 30 GB.
        if let Err(error) = std::fs::remove_dir_all(&self.dir) {
            println!("{} stays: {error}", self.dir.display());
        }
    }
}

/// What is at WARN or ERROR, but for a lease that ended and lines that contain one of `expected`.
fn loud_lines(logs: &[(NodeId, String)], expected: &[&str]) -> Vec<String> {
    let is_expected =
        |line: &&str| line.contains(LEASE_ENDED) || expected.iter().any(|text| line.contains(text));
    let loud = |line: &&str| line.contains(" ERROR ") || line.contains(" WARN ");
    let of = |(id, log): &(NodeId, String)| -> Vec<String> {
        let lines = log.lines().filter(|line| loud(line) && !is_expected(line));
        lines.map(|line| format!("node {id}: {line}")).collect()
    };
    logs.iter().flat_map(of).collect()
}

fn is_whole(status: &serde_json::Value, nodes: usize, learners: usize) -> bool {
    let Some(list) = status["nodes"].as_array() else {
        return false;
    };
    let roles = |role: &str| list.iter().filter(|node| node["role"] == role).count();
    let without_vote = list.iter().filter(|node| node["raft"] == "learner").count();
    list.len() == nodes
        && list.iter().all(|node| node["healthy"] == true)
        && without_vote == learners
        && roles("primary") == 1
        && roles("replica") + roles("witness") == nodes - 1
        && !status["primary"].is_null()
}

/// A fresh folder for the story; the one of its last run is removed.
fn story_dir(dir: PathBuf) -> PathBuf {
    if dir.exists() {
        std::fs::remove_dir_all(&dir).expect("remove the last run's folder");
    }
    std::fs::create_dir_all(&dir).expect("make the story's folder");
    dir.canonicalize().expect("the folder exists")
}

async fn lay_out(
    dir: &Path,
    program: &str,
    options: &Options,
) -> (BTreeMap<NodeId, NodeProcess>, Links) {
    let ids: Vec<NodeId> = (1..=options.nodes).map(NodeId).collect();
    let pairs = ids.len() * (ids.len() - 1);
    let mut free = free_ports(ids.len() * Ports::COUNT + pairs * 2).into_iter();
    let mut ports = BTreeMap::new();
    for id in &ids {
        let own: Vec<u16> = free.by_ref().take(Ports::COUNT).collect();
        ports.insert(*id, Ports::new(&own));
    }
    let mut relays = BTreeMap::new();
    for from in ids.iter().filter(|_| options.relays) {
        for to in ids.iter().filter(|to| *to != from) {
            let grpc = Relay::start(free.next().expect("enough ports"), ports[to].grpc).await;
            let gate = Relay::start(free.next().expect("enough ports"), ports[to].gate).await;
            relays.insert((*from, *to), vec![grpc, gate]);
        }
    }
    let secrets = secrets(dir, program, options);
    let mut nodes = BTreeMap::new();
    for id in &ids {
        let node_dir = dir.join(format!("n{id}"));
        std::fs::create_dir_all(&node_dir).expect("make the node's folder");
        let config = config(*id, &node_dir, &secrets, &ports, &relays, options);
        std::fs::write(node_dir.join("node.toml"), config).expect("write configuration");
        let mut node = NodeProcess::new(*id, node_dir, ports[id], PathBuf::from(program));
        node.environment.clone_from(&options.environment);
        if options.certs {
            node.tls = Some(member_tls(&dir.join("certs"), *id));
        }
        nodes.insert(*id, node);
    }
    (nodes, Links::new(relays))
}

/// A member's certificates, of a set that `quorate certs` made.
///
/// # Panics
/// If they cannot be loaded.
#[must_use]
pub fn member_tls(certs: &Path, id: NodeId) -> Tls {
    let (cert, key) = (format!("node-{id}.pem"), format!("node-{id}-key.pem"));
    Tls::load(&certs.join("ca.pem"), &certs.join(cert), &certs.join(key))
        .expect("load certificates")
}

/// The file with the accounts' passwords; with certificates beside it, if the story wants them.
fn secrets(dir: &Path, program: &str, options: &Options) -> PathBuf {
    if !options.certs {
        let secrets = dir.join("secrets.toml");
        let drawn = quorate_node::config::Secrets::generate().expect("draw secrets");
        drawn.save(&secrets).expect("write secrets");
        return secrets;
    }
    make_certs(&dir.join("certs"), program, options.nodes);
    dir.join("certs/secrets.toml")
}

/// Has the program under test make a set of certificates for so many nodes.
///
/// # Panics
/// If it does not.
pub fn make_certs(out: &Path, program: &str, nodes: u64) {
    let hosts = vec!["127.0.0.1"; nodes as usize].join(",");
    let made = std::process::Command::new(program)
        .arg("certs")
        .arg("--out")
        .arg(out)
        .args(["--nodes", &hosts])
        .status()
        .expect("run the program under test");
    assert!(made.success(), "certs: {made}");
}

fn config(
    id: NodeId,
    dir: &Path,
    secrets: &Path,
    ports: &BTreeMap<NodeId, Ports>,
    relays: &BTreeMap<(NodeId, NodeId), Vec<Relay>>,
    options: &Options,
) -> String {
    let own = &ports[&id];
    let host = if options.certs {
        AS_IF_BEYOND
    } else {
        "127.0.0.1"
    };
    let is_witness = options.witness == Some(id.0);
    let witness = if is_witness { "witness = true\n" } else { "" };
    let mysqld = match is_witness {
        true => String::new(),
        false => format!(
            "[mysqld]\nport = {}\nbuffer_pool = \"{}\"\nextra = {:?}\n{}",
            own.mysql, options.buffer_pool, options.mysqld_extra, options.mysqld_lines,
        ),
    };
    let mut text = format!(
        "node = {id}\ndir = {dir:?}\nsecrets = {secrets:?}\n{witness}\n[listen]\n\
         read_write = \"127.0.0.1:{}\"\nread_only = \"127.0.0.1:{}\"\nfeed = \"{host}:{}\"\n\
         grpc = \"127.0.0.1:{}\"\nhttp = \"{host}:{}\"\ngate = \"127.0.0.1:{}\"\n\n{mysqld}",
        own.read_write, own.read_only, own.feed, own.grpc, own.http, own.gate,
    );
    for (peer, theirs) in ports.iter().filter(|(peer, _)| **peer != id) {
        write!(
            text,
            "\n[peers.{peer}]\ngrpc = \"127.0.0.1:{}\"\ngate = \"127.0.0.1:{}\"\n",
            theirs.grpc, theirs.gate,
        )
        .expect("a string takes everything");
        if let Some([grpc, gate]) = relays.get(&(id, *peer)).map(Vec::as_slice) {
            writeln!(
                text,
                "dial = {{ grpc = \"127.0.0.1:{}\", gate = \"127.0.0.1:{}\" }}",
                grpc.port(),
                gate.port(),
            )
            .expect("a string takes everything");
        }
    }
    if options.certs {
        let certs = secrets.parent().expect("secrets are in a folder");
        let file = |name: &str| certs.join(name);
        write!(
            text,
            "\n[tls]\nca = {:?}\ncert = {:?}\nkey = {:?}\n",
            file("ca.pem"),
            file(&format!("node-{id}.pem")),
            file(&format!("node-{id}-key.pem")),
        )
        .expect("a string takes everything");
    }
    write!(text, "\n[timing]\n{}\n{}", options.timing, options.config)
        .expect("a string takes everything");
    text
}

/// One GET without a client library: the answer's body, if there is one in a second. With `tls`, of
/// a server that is the node of that name.
pub(crate) async fn http_get(port: u16, path: &str, tls: Option<(&Tls, NodeId)>) -> Option<String> {
    use quorate_net::{Endpoint, Net, TokioNet};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let exchange = async {
        let mut io = TokioNet
            .connect(&Endpoint::Tcp(format!("127.0.0.1:{port}")))
            .await
            .ok()?;
        if let Some((tls, node)) = tls {
            io = tls.connect(io, &node_server_name(node)).await.ok()?;
        }
        let request =
            format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
        io.write_all(request.as_bytes()).await.ok()?;
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        // Small answers come with a length; a chunked one is put together here.
        if !head
            .to_ascii_lowercase()
            .contains("transfer-encoding: chunked")
        {
            return Some(body.to_owned());
        }
        let mut whole = String::new();
        let mut rest = body;
        while let Some((size, after)) = rest.split_once("\r\n") {
            let size = usize::from_str_radix(size.trim(), 16).ok()?;
            whole.push_str(after.get(..size)?);
            rest = after.get(size + 2..).unwrap_or("");
        }
        Some(whole)
    };
    tokio::time::timeout(Duration::from_secs(1), exchange)
        .await
        .ok()?
}

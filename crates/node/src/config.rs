//! What a node is told by its configuration file, and the passwords beside it.

mod check;
mod finding;
mod retention;
mod secrets;
#[cfg(test)]
pub(crate) mod tests;

pub use finding::{Finding, LoadError};
pub use retention::Retention;
pub use secrets::{Secrets, SecretsError};

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use quorate_mysqld::ServiceManager;
use quorate_net::Endpoint;
use quorate_types::NodeId;
use serde::Deserialize;

/// One node's configuration, checked. Relative paths were resolved against the file's folder.
#[derive(Clone, Debug)]
pub struct Config {
    /// This node's number, from 1; never changed for a folder.
    pub node: NodeId,
    /// `raft/`, `mysql/`, `quorate.pid`, `mysqld.pid` and the logs live below it.
    pub dir: PathBuf,
    /// For people only: what counts is the cluster id drawn at initialisation. Default: none.
    pub cluster_name: Option<String>,
    /// The file with the passwords of the sidecar's own accounts, the same on all nodes.
    pub secrets: PathBuf,
    /// Whether this node only votes and has no server. Default: false.
    pub witness: bool,
    /// Whether this node has no vote until it is promoted. It counts when the node first comes into
    /// its cluster; from then on the log says it. Default: false.
    pub learner: bool,
    pub listen: Listen,
    pub mysqld: Mysqld,
    /// The other nodes; an entry for this node was left out.
    pub peers: BTreeMap<NodeId, Peer>,
    /// None: every listener but the two application ports is on loopback.
    pub tls: Option<Tls>,
    pub timing: Timing,
    pub read_only: ReadOnly,
    pub flow_control: FlowControl,
    pub repair: Repair,
    pub retention: Retention,
    pub verify: Verify,
    pub log: Log,
}

/// Where this node listens. `A` is text while the file is being checked.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listen<A = Endpoint> {
    /// Applications that write: goes to the primary, wherever it is.
    pub read_write: A,
    /// Applications that only read: goes to a replica.
    pub read_only: A,
    /// A MySQL replication source, for this node's mysqld and for other consumers.
    pub feed: A,
    /// Raft and admin.
    pub grpc: A,
    /// Dashboard, metrics, health, status.
    pub http: A,
    /// The member-only way to this node's mysqld.
    pub gate: A,
}

impl<A> Listen<A> {
    /// Every listener with its name in the file.
    pub fn each(&self) -> [(&'static str, &A); 6] {
        [
            ("read_write", &self.read_write),
            ("read_only", &self.read_only),
            ("feed", &self.feed),
            ("grpc", &self.grpc),
            ("http", &self.http),
            ("gate", &self.gate),
        ]
    }
}

/// The server under this node's control.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Mysqld {
    /// The mysqld to run. Default: the first found in `QUORATE_MYSQLD`, PATH, the cache folder.
    pub program: Option<PathBuf>,
    /// Its port on loopback.
    pub port: u16,
    /// Its unix socket. Default: `mysql.sock` in `dir`; filled in by [`Config::load`].
    #[serde(default)]
    pub socket: PathBuf,
    /// `innodb_buffer_pool_size`, as a number with K, M or G. Default: `128M`.
    #[serde(default = "default_buffer_pool")]
    pub buffer_pool: String,
    /// How many transactions the server applies beside each other while it is a replica. Default:
    /// [`quorate_mysqld::default_parallel_workers`].
    pub replica_parallel_workers: Option<u32>,
    /// Whether scheduled events, which a replica keeps disabled, are enabled on each new primary.
    /// Default: true.
    #[serde(default = "default_enable_events")]
    pub enable_events: bool,
    /// Further options, each `--name=value`; none that decides about durability or replication.
    #[serde(default)]
    pub extra: Vec<String>,
    /// The command, a program and its arguments, that makes a service manager run `quorate mysqld`
    /// with this file. Default: none, the server is a process that the node starts itself.
    pub start: Option<Vec<String>>,
    /// The command that has the manager end the server in good order. Default: SIGTERM.
    pub stop: Option<Vec<String>>,
    /// The command that has the manager kill the server, besides SIGKILL. Default: none.
    pub kill: Option<Vec<String>>,
}

impl Mysqld {
    /// How many transactions the server applies beside each other while it is a replica.
    #[must_use]
    pub fn parallel_workers(&self) -> u32 {
        let workers = self.replica_parallel_workers;
        workers.unwrap_or_else(quorate_mysqld::default_parallel_workers)
    }
}

fn default_buffer_pool() -> String {
    "128M".to_owned()
}

fn default_enable_events() -> bool {
    true
}

/// How another node is reached.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Peer<A = Endpoint> {
    /// Its `listen.grpc`, as seen from here.
    pub grpc: A,
    /// Its `listen.gate`, as seen from here.
    pub gate: A,
    /// Dialled instead, so that a relay can stand between. Default: the two above.
    pub dial: Option<Dial<A>>,
}

/// Addresses to dial in place of a peer's own.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Dial<A = Endpoint> {
    pub grpc: Option<A>,
    pub gate: Option<A>,
}

impl Peer {
    /// What to dial for Raft and admin.
    #[must_use]
    pub fn dial_grpc(&self) -> &Endpoint {
        let dial = self.dial.as_ref().and_then(|dial| dial.grpc.as_ref());
        dial.unwrap_or(&self.grpc)
    }

    /// What to dial for its gate.
    #[must_use]
    pub fn dial_gate(&self) -> &Endpoint {
        let dial = self.dial.as_ref().and_then(|dial| dial.gate.as_ref());
        dial.unwrap_or(&self.gate)
    }
}

/// PEM files; `quorate certs` makes a set.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Tls {
    /// Who signed the nodes' certificates: a peer without one of its certificates is refused.
    pub ca: PathBuf,
    /// This node's certificate, for `node-N.quorate`.
    pub cert: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

/// How long things take. In the file each has the suffix `_ms` and is in milliseconds.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    /// Between two heartbeats of a leader. Default: 50.
    #[serde(rename = "heartbeat_ms", deserialize_with = "milliseconds")]
    pub heartbeat: Duration,
    /// The shortest wait without a heartbeat before an election. Default: 150.
    #[serde(rename = "election_min_ms", deserialize_with = "milliseconds")]
    pub election_min: Duration,
    /// The longest; also the lease. Default: 300.
    #[serde(rename = "election_max_ms", deserialize_with = "milliseconds")]
    pub election_max: Duration,
    /// A leader that hears no quorum for so long lets another be elected. Default: 600.
    #[serde(rename = "quorum_loss_probe_ms", deserialize_with = "milliseconds")]
    pub quorum_loss_probe: Duration,
    /// Between two probes of mysqld. Default: 100.
    #[serde(rename = "probe_interval_ms", deserialize_with = "milliseconds")]
    pub probe_interval: Duration,
    /// A mysqld that does not answer a probe for so long hangs. Default: 1000.
    #[serde(rename = "probe_timeout_ms", deserialize_with = "milliseconds")]
    pub probe_timeout: Duration,
    /// How long a new connection waits for a primary. Default: 10000.
    #[serde(rename = "connection_wait_ms", deserialize_with = "milliseconds")]
    pub connection_wait: Duration,
    /// A node that heard no leader for so long serves no reads. Default: 10000.
    #[serde(rename = "ro_stale_max_ms", deserialize_with = "milliseconds")]
    pub ro_stale_max: Duration,
    /// How long `super_read_only=ON` may take before mysqld is killed and repaired. Default: 2000.
    #[serde(rename = "demote_bound_ms", deserialize_with = "milliseconds")]
    pub demote_bound: Duration,
    /// How long a switchover waits for running transactions to end. Default: 500.
    #[serde(rename = "switchover_drain_ms", deserialize_with = "milliseconds")]
    pub switchover_drain: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        let ms = Duration::from_millis;
        Self {
            heartbeat: ms(50),
            election_min: ms(150),
            election_max: ms(300),
            quorum_loss_probe: ms(600),
            probe_interval: ms(100),
            probe_timeout: ms(1000),
            connection_wait: ms(10_000),
            ro_stale_max: ms(10_000),
            demote_bound: ms(2000),
            switchover_drain: ms(500),
        }
    }
}

fn milliseconds<'de, D: serde::Deserializer<'de>>(input: D) -> Result<Duration, D::Error> {
    u64::deserialize(input).map(Duration::from_millis)
}

/// What the read-only port serves.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct ReadOnly {
    /// A replica further behind serves nothing. Default: 1000.
    pub max_lag_transactions: u64,
    /// Whether the primary serves reads when no replica can. Default: true.
    pub fall_back_to_primary: bool,
}

impl Default for ReadOnly {
    fn default() -> Self {
        Self {
            max_lag_transactions: 1000,
            fall_back_to_primary: true,
        }
    }
}

/// How a primary is slowed down that its replicas cannot follow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct FlowControl {
    /// While every replica is further behind, commits are held back; never if 0. Default: 5000.
    pub max_behind_transactions: u64,
    /// How long at most, from twice that on. Default: 20.
    #[serde(rename = "delay_max_ms", deserialize_with = "milliseconds")]
    pub delay_max: Duration,
}

impl Default for FlowControl {
    fn default() -> Self {
        Self {
            max_behind_transactions: 5000,
            delay_max: Duration::from_millis(20),
        }
    }
}

/// What becomes of a server that no cut can mend, and of what a cut took away.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Repair {
    /// A server that holds other data than the accepted transactions made. Default: `clone`.
    pub errant: Errant,
    /// How long a copy of what was cut off a binlog is kept, in days. Default: 30.
    pub keep_cuts_days: u32,
}

impl Default for Repair {
    fn default() -> Self {
        Self {
            errant: Errant::default(),
            keep_cuts_days: 30,
        }
    }
}

/// What to do with a server that holds what was never accepted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Errant {
    /// Replace its data by a copy of another server's.
    #[default]
    Clone,
    /// Leave it as it is, serving nothing, for somebody to look at.
    Stop,
}

/// The comparison of tables between servers in the background.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Verify {
    /// How often the primary compares all tables with the replicas', in seconds; never if 0.
    /// Default: 0.
    #[serde(rename = "every_s", deserialize_with = "retention::seconds")]
    pub every: Duration,
    /// How long this node's server may read one table, in seconds: it keeps what transactions
    /// change meanwhile as it was. Default: 3600.
    #[serde(rename = "table_max_s", deserialize_with = "retention::seconds")]
    pub table_max: Duration,
}

impl Default for Verify {
    fn default() -> Self {
        Self {
            every: Duration::ZERO,
            table_max: Duration::from_secs(3600),
        }
    }
}

/// What is written down about the node's own doing, and what of the Raft log is kept in memory.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Log {
    /// Which messages are written, as `level` or `target=level,…`. Default: `info`.
    pub filter: String,
    /// Where; none is standard error. Default: none.
    pub file: Option<PathBuf>,
    /// How many bytes of its own pages sled keeps in memory.
    /// Default: 16777216 (16 MiB).
    pub cache_bytes: u64,
}

impl Default for Log {
    fn default() -> Self {
        Self {
            filter: "info,openraft=error".to_owned(),
            file: None,
            cache_bytes: 16 << 20,
        }
    }
}

impl Config {
    /// Reads and checks the file; the error has every finding.
    pub fn load(file: &Path) -> Result<Self, LoadError> {
        let text = std::fs::read_to_string(file).map_err(|source| LoadError::Read {
            file: file.to_owned(),
            source,
        })?;
        let folder = file.parent().unwrap_or(Path::new(""));
        Self::parse(&text, folder).map_err(|findings| LoadError::Findings {
            file: file.to_owned(),
            findings,
        })
    }

    /// Checks a file's text; relative paths in it are relative to `folder`.
    pub fn parse(text: &str, folder: &Path) -> Result<Self, Vec<Finding>> {
        check::parse(text, folder)
    }

    #[must_use]
    pub fn raft_dir(&self) -> PathBuf {
        self.dir.join("raft")
    }

    #[must_use]
    pub fn mysql_dir(&self) -> PathBuf {
        self.dir.join("mysql")
    }

    /// Where its server listens, for people; empty for a witness.
    #[must_use]
    pub fn mysql_address(&self) -> String {
        match self.witness {
            true => String::new(),
            false => format!("127.0.0.1:{}", self.mysqld.port),
        }
    }

    /// Holds this process's id while it runs.
    #[must_use]
    pub fn pid_file(&self) -> PathBuf {
        self.dir.join("quorate.pid")
    }

    /// What a service manager is to start; see [`quorate_mysqld::ServiceManager`].
    #[must_use]
    pub fn mysqld_order_file(&self) -> PathBuf {
        self.dir.join("mysqld.order")
    }

    /// Who runs the server, if not this node itself.
    #[must_use]
    pub fn service_manager(&self) -> Option<ServiceManager> {
        Some(ServiceManager {
            start: self.mysqld.start.clone()?,
            stop: self.mysqld.stop.clone(),
            kill: self.mysqld.kill.clone(),
            order_file: self.mysqld_order_file(),
        })
    }

    #[must_use]
    pub fn mysqld_pid_file(&self) -> PathBuf {
        self.dir.join("mysqld.pid")
    }
}

use std::path::PathBuf;
use std::sync::Arc;

use quorate_consensus::Exec;
use quorate_mysqld::{Host, Settings};
use quorate_net::Net;
use quorate_replication::CaptureOptions;
use quorate_storage::LogDisk;
use quorate_types::Rule;

/// Opens the Raft log's disk.
pub type OpenLog<D> = Box<dyn FnOnce() -> Result<D, quorate_storage::Error> + Send>;

/// What differs between production and simulation: everything else is the same code.
pub struct Parts<N: Net, H: Host, D: LogDisk> {
    pub net: N,
    pub host: H,
    pub open_log: OpenLog<D>,
    /// Whether the log has a thread of its own or is written in line.
    pub exec: Exec,
    /// Where Raft and its peers' requests run: threads of their own in production, so that a busy
    /// node does not lose its leadership.
    pub raft: tokio::runtime::Handle,
    /// Randomness of this node (scrambles, ids): from the system, or from the simulation's seed.
    pub seed: u64,
    /// What the server is started with.
    pub settings: Settings,
    /// What the feed says that it is: the version of the group's servers.
    pub server_version: String,
    /// Milliseconds since 1970, for people only.
    pub wall_clock: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// A file to write on the server's disk, to see whether the disk answers.
    pub disk_probe: Option<PathBuf>,
    /// How large what capture proposes may be: the defaults in production.
    pub capture: CaptureOptions,
    /// A rule that this node breaks, for a simulation that shows what it is for. Production: none.
    pub left_out: Option<Rule>,
}

use quorate_consensus::Exec;
use quorate_mysqld::Host;
use quorate_net::Net;
use quorate_storage::LogDisk;

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
}

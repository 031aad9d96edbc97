//! One MySQL server under our control: find or fetch it, start it, probe it, fence it, cut its
//! binlog, and judge what it holds.
//!
//! # Invariants
//! - A half-finished fetch, seed or data folder never stands under its final name.
//! - A process is signalled only through a pidfd, after its executable and its data folder were
//!   checked; a pid file is a hint and nothing more.
//! - A cloned folder replaces a data folder whole, and only one that has a marker.
//! - A service manager starts no server that the sidecar did not order, and does not wait for.
//! - No binlog is cut while a process may still have the data folder open.

mod accounts;
mod binlog_files;
mod clone;
mod control;
mod debian;
mod exec_server;
mod file_lock;
mod first_data;
mod first_session;
mod host;
mod inert;
mod inspect;
mod installation;
mod kept_cuts;
mod local_host;
mod marker;
mod no_server;
mod preflight;
mod process;
mod repair;
mod replacement;
mod rules;
mod seed;
mod service_manager;
mod settings;
mod sources;
mod verify;
mod version;

pub use accounts::{Accounts, CAPTURE_USER, CLONE_USER, CONTROL_USER};
pub use binlog_files::LocalBinlogs;
pub use clone::{CloneProgress, unreachable_settings};
pub use control::{ControlError, Identity, ReplicationSource, ReplicationStatus, Session, Stream};
pub use debian::{FetchError, PackageTree, fetch_debian_tool};
pub use exec_server::{EXEC_SERVER, exec_server};
pub use file_lock::{FileLock, machine_lock};
pub use first_session::{FirstSessionError, first_session};
pub use host::{Beside, BinlogFiles, Host, HostError, Signal};
pub use inert::inert_groups;
pub use inspect::{FileReport, Inspection, inspect};
pub use installation::{
    FindError, FindOptions, Installation, default_cache, find_installed, find_or_fetch,
};
pub use kept_cuts::prune_kept_cuts;
pub use local_host::{LocalHost, LocalHostOptions};
pub use marker::{Marker, MarkerParseError};
pub use no_server::{NoBinlogs, NoServer};
pub use preflight::{CheckFinding, Facts, Severity, compare_facts};
pub use process::ServerProcess;
pub use repair::{
    AcceptedIndex, RepairError, RepairReport, Repaired, cut_tail, ensure_stopped, judge,
    kill_server, wait_until_free,
};
pub use seed::{Seed, SeedError, prepare_seed};
pub use service_manager::{ServiceManager, ServiceManagerError, exec_ordered_server};
pub use settings::{Finding, Settings, default_parallel_workers, is_owned, judge_variables};
pub use verify::{BaseTable, TableName};
pub use version::{Version, VersionError};

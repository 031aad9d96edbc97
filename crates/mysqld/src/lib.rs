//! One MySQL server under our control: find or fetch it, start it, probe it, fence it, cut its
//! binlog, and judge what it holds.
//!
//! # Invariants
//! - A half-finished fetch, seed or data folder never stands under its final name.
//! - A process is signalled only through a pidfd, after its executable and its data folder were
//!   checked; a pid file is a hint and nothing more.
//! - No binlog is cut while a process may still have the data folder open.

mod debian;
mod file_lock;
mod installation;
mod seed;
mod sources;
mod version;

pub use debian::{FetchError, PackageTree, fetch_debian_tool};
pub use file_lock::{FileLock, machine_lock};
pub use installation::{FindError, FindOptions, Installation, default_cache, find_or_fetch};
pub use seed::{Seed, SeedError, prepare_seed};
pub use version::{Version, VersionError};

//! Benchmarks, one question each.
//!
//! # Invariants
//! - What is compared runs with the same durability: `sync_binlog=1`,
//!   `innodb_flush_log_at_trx_commit=1`, a majority or one of two replicas before the OK.
//! - A ratio is made of runs of one invocation, side by side in time.

mod machine;
mod server;
mod system;
mod table;
mod versus;

pub use versus::versus;

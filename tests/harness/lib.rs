//! What the stories in this package stand on: a cluster of real processes on real mysqlds, whose
//! peer links go through relays that can cut, hold and delay.
//!
//! # Invariants
//! - Everything that was started is stopped, by the id it was started with.
//! - Only loopback is used; ports are free ones.
//! - A failed story leaves its folder (logs, configurations, data) where its message says.

mod audit;
mod cluster;
mod data_folder;
mod equality;
mod errant;
mod identity;
mod machine;
mod node_process;
mod packet_filter;
mod ports;
mod relay;
mod small_disk;
mod sql;
mod sysbench;
mod tools;
mod undisturbed;
mod writer;

pub use audit::{assert_rows_survived, written_rows};
pub use cluster::{Cluster, Options, make_certs, member_tls};
pub use data_folder::{binlog_comes_to_hold, wait_until_server_ended};
pub use equality::{assert_servers_equal, fingerprint};
pub use errant::{
    ERRANT_ID, TAKES_WRITES, assert_nothing_beside, copy_folder, make_errant, replace_folder,
};
pub use machine::{eventually, wait_for};
pub use node_process::{NodeProcess, Signal};
pub use packet_filter::PacketFilter;
pub use ports::free_ports;
pub use relay::{Flow, Links, Relay};
pub use small_disk::SmallDisk;
pub use sql::{Sql, SqlError};
pub use sysbench::{GoneOn, Running, Sysbench, SysbenchReport};
pub use tools::{mysql, python_mysql_replication, run_as_root};
pub use undisturbed::undisturbed;
pub use writer::{Outcomes, Reader, Writer};

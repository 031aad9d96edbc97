//! The simulation: the same code as in production, over a simulated network, simulated disks and
//! simulated MySQL servers, on one thread and in simulated time.
//!
//! # Invariants
//! - The same seed gives the same trace, byte for byte.
//! - What is under test is production code: only sockets, clocks, disks and server processes are
//!   simulated.
//! - One simulation runs per process: some libraries keep a generator per process.

pub mod chaos;
pub mod cluster;
mod converge;
mod disk;
mod faults;
pub mod history;
mod invariants;
pub mod model;
pub mod mutation;
pub mod mysqld;
mod network;
mod node;
mod operator;
mod random;
pub mod report;
pub mod run;
pub mod scenarios;
mod stall;
mod workload;
mod world;

pub use cluster::{Cluster, Setup, Violation};
pub use disk::Honesty;
pub use faults::Rare;
pub use network::{Clock, MachineNet, SimulatedNet};
pub use random::Random;

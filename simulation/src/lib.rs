//! The simulation: the same code as in production, over a simulated network and simulated disks.
//!
//! # Invariants
//! - The same seed gives the same trace, byte for byte.

mod network;

pub use network::SimulatedNet;

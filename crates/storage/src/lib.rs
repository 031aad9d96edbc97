//! The Raft log's disk: a small contract, kept by sled in production and by a memory that models
//! crashes in the simulation, and one suite of tests that both pass.
//!
//! # Invariants
//! - Only [`LogDisk::sync`] makes anything durable, and what it made durable survives a power loss.
//! - A failed sync is final: durability is unknown then, so the process stops, it never retries.

mod contents;
mod contract;
mod memory;
mod sled_disk;
#[cfg(any(test, feature = "test-util"))]
pub mod suite;
#[cfg(test)]
mod tests;

pub use contract::{Error, LogDisk, LogRead, MetaKey, Record, Write};
pub use memory::{MemoryDisk, MemoryReader};
pub use sled_disk::{Options, SledDisk, SledReader, SyncMode};

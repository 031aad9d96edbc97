//! The Raft log's disk: a small contract, kept by sled behind a journal in production and by a
//! memory that models crashes in the simulation, and one suite of tests that both pass.
//!
//! # Invariants
//! - Only [`LogDisk::sync`] makes anything durable, and what it made durable survives a power loss.
//! - A failed sync is final: durability is unknown then, so the process stops, it never retries.
//! - What a store finds when it opens is durable before anyone sees it.
//! - A crash leaves a prefix of what was written, large records and values whole.
//! - Damage is an error: a checksum covers every value and its key, and a witness beside sled tells
//!   when sled opens with less than was synced.

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
pub use sled_disk::{Compacted, Options, SledDisk, SledReader, SyncMode, folder_bytes, free_bytes};

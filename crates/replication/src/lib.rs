//! Both ends of MySQL's replication protocol: `capture` takes the primary's transactions and ACKs
//! them once they are accepted; `feed` serves accepted transactions to replicas.
//!
//! # Invariants
//! - Consensus is reached through [`Propose`] and [`CommittedLog`] only, so both ends are tested
//!   without Raft.
//! - A semi-sync ACK is written only for a position that capture read in this dump connection from
//!   an event of a transaction that `apply` accepted (DESIGN 4, A3).
//! - The feed serves what [`CommittedLog`] gives: accepted transactions, in log order.

mod capture;
mod contract;
mod metrics;

pub use capture::{Capture, CaptureEnd, CaptureOptions, ReadStopped};
pub use contract::{
    AcceptedEntry, AcceptedTransaction, CommittedLog, Fate, Propose, ReadBatch, ReadError,
    TransactionBytes,
};
pub use metrics::{CaptureMetrics, FeedMetrics};

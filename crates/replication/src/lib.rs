//! Both ends of MySQL's replication protocol: `capture` takes the primary's transactions and ACKs
//! them once they are accepted; `feed` serves accepted transactions to replicas.
//!
//! # Invariants
//! - Consensus is reached through [`Propose`] and [`CommittedLog`] only, so both ends are tested
//!   without Raft.
//! - A semi-sync ACK is written only for a position that capture read in this dump connection from
//!   an event of a transaction that `apply` accepted (DESIGN 4, A3).
//! - The feed serves what [`CommittedLog`] gives: accepted transactions, in log order.

mod ack_delay;
mod capture;
mod contract;
mod feed;
mod metrics;
mod reached;

pub use ack_delay::{ACK_DELAY, AckDelay};
pub use capture::{Capture, CaptureEnd, CaptureOptions, ReadStopped};
pub use contract::{
    AcceptedEntry, AcceptedTransaction, CommittedLog, Fate, PendingFate, Propose, ReadBatch,
    ReadError, TransactionBytes,
};
pub use feed::{Accounts, Feed, FeedOptions, START_FILE, stable_identity};
pub use metrics::{
    CAPTURED, CAPTURED_TRANSACTIONS, COMMIT_ACCEPTED, COMMIT_ACKNOWLEDGED, COMMIT_PROPOSED,
    CaptureMetrics, FEED, FEED_CONSUMERS, FEED_REFUSED, FEED_TRANSACTIONS, FeedMetrics,
    PROPOSALS_REFUSED,
};

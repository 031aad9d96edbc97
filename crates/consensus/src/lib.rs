//! The replicated log: openraft behind a facade of our own, [`Consensus`].
//!
//! # Invariants
//! - Nothing is acknowledged before its sync: entries to a leader, votes to a candidate. A disk
//!   that fails stops the node; a sync is never tried twice.
//! - A proposal is appended by the leader that it names, or not at all; only an outcome of
//!   [`apply`] says what became of it.
//! - Transactions are read through [`AcceptedLog`]: the log holds rejected ones too.
//! - openraft never purges the log by itself.
//! - A node that just started neither votes nor stands for one lease; the leader's lease is judged
//!   by the clock that runs while the machine is suspended, and a transfer ends it for ever.
//! - All of openraft's types stay in this crate.

pub mod apply;

mod accepted;
mod codec;
mod config;
#[cfg(test)]
mod conformance;
mod consensus;
mod error;
mod lease;
mod log;
mod machine;
mod metrics;
mod observer;
mod peer;
mod propose;
mod recover;
mod runtime;
mod snapshot;
mod types;
mod view;

pub use accepted::{
    AcceptedEntry, AcceptedLog, AcceptedTransaction, ReadBatch, ReadError, TransactionBytes,
};
pub use config::{ConsensusConfig, Timings};
pub use consensus::{Consensus, DiskUse, RaftService};
pub use error::{ChangeError, FatalError, ReadIndexError, StartError};
pub use lease::Lease;
pub use log::{Exec, LogMarks, MarkSpacing, WriteError};
pub use machine::AppliedState;
pub use metrics::{LOG_APPLIED, LOG_COMMITTED, LOG_GROUP, LOG_SYNC, LOG_SYNCED, Metrics};
pub use peer::{Dial, Identity, START_IDS, SecureConnect, Service, StartIds};
pub use propose::ProposalFate;
pub use recover::{RecoverError, SoleVoter, sole_voter};
pub use runtime::seed_thread;
pub use types::LogCommand;
pub use view::{RaftState, RaftView};

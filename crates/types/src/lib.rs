//! Quorate's vocabulary: ids, GTIDs and their sets, binlog positions, and the values of the log.
//!
//! Values and their algebra only: no IO, no clock, no tokio. Every other crate may use this one.
//!
//! # Invariants
//! - A value that exists is well formed: text and wire codecs reject what MySQL would reject, and
//!   never panic or allocate by a count that comes from the input.
//! - Collections iterate in one order on every node (`BTreeMap`, never `HashMap`).

mod chain;
mod cluster;
mod command;
mod gtid;
mod gtid_set;
mod gtid_wire;
mod ids;
mod outcome;
mod position;
mod rule;
mod secret;
mod split_mix;

pub use chain::chain;
pub use cluster::{
    ClusterView, KeptCut, LogState, Member, Members, NodeView, Retention, Role, Settings, Standing,
};
pub use command::{
    AcceptErrant, BinlogSource, ClonePermit, Cloning, Command, FRAGMENT_FIRST, Fragment,
    FragmentEnd, Transaction, TransactionBatch,
};
pub use gtid::{Gtid, GtidParseError, SourceId, Tag, Uuid};
pub use gtid_set::{GtidSet, Interval};
pub use gtid_wire::GtidWireError;
pub use ids::{ClusterId, Epoch, Incarnation, LeaderId, LogId, LogIndex, NodeId, Term};
pub use outcome::{Outcome, Rejection};
pub use position::BinlogPosition;
pub use rule::Rule;
pub use secret::Secret;
pub use split_mix::SplitMix64;

//! Binlog events and transactions as bytes: frame, checksum, classify, rewrite; binlog files: scan,
//! find the cut.
//!
//! No IO but what is passed in, no clock, no tokio. Everything is parsed by hand, since the bytes
//! come from servers, disks and peers that may be damaged.
//!
//! # Invariants
//! - No bytes make anything here panic, or allocate more than a small multiple of what was read.
//! - Transactions are bounded by events, never by sizes, flags or packets.
//! - An event is never changed in place: rewriting makes a new one, with a right checksum.
//! - The content checksum of a transaction is the same for every server's copy of it.

mod body;
mod boundary;
pub mod build;
mod checksum;
mod classify;
mod cursor;
mod cut;
mod event;
mod file;
mod format;
mod gtid_event;
mod rewrite;
mod statement;

pub use body::{Heartbeat, Query, Rotate, XaPrepare, previous_gtids, xid};
pub use boundary::{AssembleError, Assembler, Ending, Step};
pub use checksum::{Checksummer, HEAD_BYTES};
pub use classify::{Class, Form, Obstacle};
pub use cut::{CloneReason, Cut, CutPlan, Planner, TailGroup, parse_index, plan};
pub use event::{
    ChecksumAlgorithm, Event, EventError, EventHeader, EventType, FLAG_ARTIFICIAL,
    FLAG_BINLOG_IN_USE, FLAG_IGNORABLE,
};
pub use file::{Damage, FileScanner, Found, Group, MAGIC, ScanError};
pub use format::FormatDescription;
pub use gtid_event::{CLOCKS_END, GtidEvent, limit_parallel};
pub use rewrite::{
    empty_checksum, empty_transaction, fake_rotate, heartbeat_v1, heartbeat_v2,
    previous_gtids_event, rewrite, rewritten_len, stream_format,
};

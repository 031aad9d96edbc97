use std::sync::Arc;

use bytes::Bytes;

use crate::cluster::{Members, Settings};
use crate::gtid::Gtid;
use crate::gtid_set::GtidSet;
use crate::ids::{Epoch, Incarnation, LogIndex, NodeId};

/// The payload of one log entry (DESIGN 3).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// Ends the epoch before it and, with a node, begins one, named by this entry's log id.
    SetPrimary {
        node: Option<NodeId>,
    },
    /// The data that the first server brings; only the first entry after initialisation.
    Baseline {
        gtid_set: GtidSet,
        checksum: u64,
    },
    /// The permit to clone a member, or its end.
    Cloning(Cloning),
    /// The way out when no server is left to clone from.
    AcceptErrant(AcceptErrant),
    /// Up to which log index (inclusive) the index of accepted transactions is trimmed.
    Purge {
        upto: LogIndex,
    },
    Transactions(TransactionBatch),
    Fragment(Fragment),
    Members(Members),
    Settings(Settings),
}

/// Makes accepted what one server executed and nobody accepted: the log has none of it, so every
/// other server is cloned.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AcceptErrant {
    /// Whose server it is.
    pub node: NodeId,
    pub incarnation: Incarnation,
    /// All that the server executed. Everything accepted is in it, or it has no effect.
    pub executed: GtidSet,
}

/// Begins or ends a permit to clone (DESIGN 4): one is open at a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cloning {
    /// Of the permit. Each has the next number, so that the end of an old one, proposed late, does
    /// not end the one after it.
    pub sequence: u64,
    /// None ends the permit.
    pub permit: Option<ClonePermit>,
}

/// Who may replace its data by a copy of whose.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClonePermit {
    pub recipient: NodeId,
    /// Of the recipient: a member that came back with a new Raft folder is another one.
    pub incarnation: Incarnation,
    pub donor: NodeId,
    /// While the permit is open nothing after this is purged: the donor executed everything up to
    /// here, so a copy of it finds what it lacks in the log.
    pub pinned: LogIndex,
}

/// Where events were captured: what a reader needs to make sense of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BinlogSource {
    /// The primary's binlog file. Logical clocks restart with each, so the feed starts a new
    /// virtual file when it changes.
    pub file: Arc<str>,
    /// The format description event that the primary sent for this file: header, body, checksum.
    pub format: Bytes,
}

/// Consecutive transactions of one epoch and one binlog file, proposed together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TransactionBatch {
    pub epoch: Epoch,
    /// The number of the first transaction; the others follow. Capture counts from 1 per epoch.
    pub first_number: u64,
    pub source: BinlogSource,
    pub transactions: Vec<Transaction>,
}

/// One whole transaction: its events as the primary wrote them, the GTID event first.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    pub gtid: Gtid,
    /// CRC32 of the content, equal for every server's copy of the transaction (crate `binlog`).
    pub checksum: u32,
    pub events: Bytes,
}

/// The number of the first part of a fragmented transaction.
pub const FRAGMENT_FIRST: u32 = 1;

/// A piece of a transaction that is larger than the entry limit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fragment {
    pub epoch: Epoch,
    pub number: u64,
    pub gtid: Gtid,
    /// Counts from [`FRAGMENT_FIRST`].
    pub part: u32,
    /// With the last part only.
    pub end: Option<FragmentEnd>,
    pub source: BinlogSource,
    pub bytes: Bytes,
}

/// What the parts of a transaction must add up to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FragmentEnd {
    /// Bytes of all parts together.
    pub length: u64,
    /// CRC32 of the bytes of all parts together: `apply` checks it without reading events.
    pub bytes_crc32: u32,
    /// The transaction's, as in [`Transaction::checksum`].
    pub checksum: u32,
}

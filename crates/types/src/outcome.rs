use crate::gtid::Gtid;
use crate::ids::Epoch;

/// What `apply` made of an entry: the same on every node, and final.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// A command without a verdict of its own took effect.
    Done,
    /// A `SetPrimary` whose node is not the leader that appended it, a late `Baseline`, a
    /// permit out of turn, an `AcceptErrant` that came too late.
    Ignored,
    /// `SetPrimary` took effect: the epoch that it began, if it named a node.
    PrimarySet { epoch: Option<Epoch> },
    /// The first `accepted` transactions of the batch (a fragment's transaction counts with its
    /// last part) are real now; the rest changed nothing, for the reason given.
    Transactions {
        accepted: u32,
        rejected: Option<Rejection>,
    },
}

/// Why `apply` did not take a transaction or a part of one (DESIGN 3, Acceptance).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rejection {
    /// Its epoch is not the current one, or its entry is of another leader's term.
    WrongEpoch,
    /// Its number is not the next one: an earlier proposal did not make it.
    OutOfOrder { expected: u64 },
    /// Its GTID is already accepted: the node must be cloned, and nothing ACKed.
    Collision { gtid: Gtid },
    /// A part that does not follow the one before it, or a whole that does not add up.
    BrokenFragment,
}

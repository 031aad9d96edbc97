//! Which bounds are searched, and in which of them a rule that is left out is missed.

use std::fmt;

use super::{Faults, Omission};

/// How much may happen. With two nodes a third one is implied, which votes and does nothing else.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    pub nodes: u8,
    pub faults: Faults,
    /// Of states to keep, about 200 bytes each.
    pub states_max: usize,
}

const fn with(nodes: u8, faults: Faults) -> Bounds {
    Bounds {
        nodes,
        faults,
        states_max: 40_000_000,
    }
}

const WRITE: Faults = Faults {
    writes: 1,
    crashes: 0,
    elections: 0,
    captures: 0,
    refusals: 0,
    orders: 0,
    errant: 0,
    delays: 0,
    named: 0,
};
const WRITES: Faults = Faults { writes: 2, ..WRITE };
const CRASH: Faults = Faults {
    crashes: 1,
    ..WRITE
};
const ELECTION: Faults = Faults {
    elections: 1,
    ..WRITE
};
const CAPTURE: Faults = Faults {
    captures: 1,
    ..WRITE
};
const REFUSAL: Faults = Faults {
    refusals: 1,
    ..WRITES
};
const ORDER: Faults = Faults { orders: 1, ..WRITE };
const ERRANT: Faults = Faults { errant: 1, ..WRITE };
const DELAY: Faults = Faults { delays: 1, ..CRASH };
const DELAY_OF_TWO: Faults = Faults { writes: 2, ..DELAY };
const NAMED: Faults = Faults { named: 1, ..CRASH };
const BOTH: Faults = Faults {
    elections: 1,
    ..CRASH
};

/// Seconds all together: every change is checked with them.
pub const SMALL: &[Bounds] = &[
    with(2, BOTH),
    with(2, Faults { writes: 2, ..CRASH }),
    with(
        2,
        Faults {
            writes: 2,
            ..ELECTION
        },
    ),
    with(
        2,
        Faults {
            captures: 1,
            ..CRASH
        },
    ),
    with(
        2,
        Faults {
            refusals: 2,
            writes: 3,
            ..WRITE
        },
    ),
    with(2, ORDER),
    with(2, Faults { errant: 1, ..CRASH }),
    with(2, DELAY_OF_TWO),
    with(2, Faults { delays: 1, ..NAMED }),
];

/// Minutes, and gigabytes of memory.
pub const LARGE: &[Bounds] = &[
    with(
        2,
        Faults {
            captures: 1,
            ..BOTH
        },
    ),
    with(2, Faults { writes: 2, ..BOTH }),
    with(2, Faults { delays: 1, ..BOTH }),
    with(
        2,
        Faults {
            crashes: 2,
            ..WRITE
        },
    ),
    with(
        2,
        Faults {
            elections: 2,
            ..WRITE
        },
    ),
    with(
        2,
        Faults {
            elections: 1,
            ..ORDER
        },
    ),
    with(3, CRASH),
    with(3, ELECTION),
];

/// The rules that are left out, and bounds in which that is noticed.
pub const LEFT_OUT: &[(Omission, Bounds)] = &[
    (Omission::AcceptsAnyEpoch, with(2, DELAY_OF_TWO)),
    (Omission::AcceptsAnyOrder, with(2, REFUSAL)),
    (Omission::AckAfterAcceptance, with(2, WRITE)),
    (Omission::CommitsWait, with(2, WRITE)),
    (Omission::CatchUpBeforePromotion, with(2, CRASH)),
    (Omission::EqualBeforePromotion, with(2, ERRANT)),
    (Omission::MarkerBeforeWrites, with(2, CRASH)),
    (Omission::NewLeaderEndsTheEpoch, with(2, CRASH)),
    (Omission::WritesEndBeforeTheEpoch, with(2, ELECTION)),
    (Omission::ReplicasDoNotWait, with(2, ELECTION)),
    (Omission::EpochEndsWithCapture, with(2, CAPTURE)),
    (Omission::GateNeedsLease, with(2, ELECTION)),
    (Omission::AdoptOnlyReplicas, with(2, CRASH)),
    (Omission::Cut, with(2, CRASH)),
    (Omission::ChecksumsAreCompared, with(2, NAMED)),
    (Omission::RepairAsksForAReadIndex, with(2, CRASH)),
    (Omission::RepairWaitsForTheEpochsEnd, with(2, CRASH)),
    (Omission::KillNotTerminate, with(2, CRASH)),
    (Omission::ErrantIsCloned, with(2, ERRANT)),
];

/// The rule that no schedule within these bounds needs: a server that is promoted has everything
/// accepted, so it gives no accepted GTID to another transaction. It is a second line.
pub const NOT_MISSED: (Omission, Bounds) = (
    Omission::AcceptsTwice,
    with(2, Faults { delays: 1, ..NAMED }),
);

impl fmt::Display for Bounds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let faults = &self.faults;
        write!(f, "{} nodes", self.nodes)?;
        for (count, what) in [
            (faults.writes, "writes"),
            (faults.crashes, "crashes"),
            (faults.elections, "elections"),
            (faults.captures, "lost captures"),
            (faults.refusals, "refusals"),
            (faults.orders, "orders"),
            (faults.errant, "errant"),
            (faults.delays, "late proposals"),
            (faults.named, "foreign GTIDs"),
        ] {
            if count > 0 {
                write!(f, ", {count} {what}")?;
            }
        }
        Ok(())
    }
}

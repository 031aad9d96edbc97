//! A model of the rules beside the simulation: every state within small bounds instead of some runs of
//! everything (`docs/protocol.md`, section 8).
//!
//! The log is judged by the real `apply` and roles are changed by the real role machine. What is written
//! down here once more, and may differ from the product, are Raft, jobs, capture and the server.
//!
//! # Invariants
//! - There is no time and no chance: each search sees the same states in the same order.
//! - Whatever a fault or another node may do, it may do between any two steps.

mod bounds;
mod capture;
mod check;
mod cluster;
mod list;
mod log;
mod raft;
mod roles;
mod search;
#[cfg(test)]
mod tests;
mod work;
mod world;

use std::fmt;

pub use bounds::{Bounds, LARGE, LEFT_OUT, NOT_MISSED, SMALL};
pub use search::Verdict;
pub use world::Faults;

use cluster::Cluster;
use world::Work;

/// A rule that is left out, to see that the model misses it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Omission {
    /// `apply` takes a transaction of any epoch and leader for one of the current epoch.
    AcceptsAnyEpoch,
    /// `apply` takes any number for the next one.
    AcceptsAnyOrder,
    /// `apply` takes a GTID that is accepted already.
    AcceptsTwice,
    AckAfterAcceptance,
    CommitsWait,
    CatchUpBeforePromotion,
    EqualBeforePromotion,
    MarkerBeforeWrites,
    NewLeaderEndsTheEpoch,
    WritesEndBeforeTheEpoch,
    ReplicasDoNotWait,
    EpochEndsWithCapture,
    GateNeedsLease,
    AdoptOnlyReplicas,
    Cut,
    /// A GTID is taken for the transaction.
    ChecksumsAreCompared,
    RepairAsksForAReadIndex,
    RepairWaitsForTheEpochsEnd,
    KillNotTerminate,
    ErrantIsCloned,
}

/// A step, by what does it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Action {
    Write { node: usize },
    WriteNamed { node: usize },
    Errant { node: usize },
    CrashSidecar { node: usize },
    CrashServer { node: usize },
    CrashBoth { node: usize },
    Start { node: usize },
    Tick { node: usize },
    HearExit { node: usize },
    HearCapture { node: usize },
    HearErrant { node: usize },
    HearLeader { node: usize },
    Report { node: usize },
    Switchover { node: usize, to: usize },
    Commit { place: u32 },
    Apply { node: usize, upto: u8 },
    Elect { node: usize, place: u32 },
    LoseCapture { node: usize },
    Propose { node: usize, content: u8 },
    Refuse { node: usize, content: u8 },
    Delay { node: usize, content: u8 },
    Arrive { node: usize },
    Settle { node: usize },
    LoseFate { node: usize },
    Feed { node: usize, content: u8 },
    Work { node: usize, work: Work },
    GiveUp { node: usize },
}

impl fmt::Display for Action {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let n = |node: usize| format!("n{}", node + 1);
        match *self {
            Self::Write { node } => write!(f, "a client writes on {}", n(node)),
            Self::WriteNamed { node } => {
                write!(
                    f,
                    "a client writes on {} with another server's GTID",
                    n(node)
                )
            }
            Self::Errant { node } => write!(f, "an operator writes on {} past the log", n(node)),
            Self::CrashSidecar { node } => write!(f, "the sidecar of {} is killed", n(node)),
            Self::CrashServer { node } => write!(f, "the mysqld of {} is killed", n(node)),
            Self::CrashBoth { node } => write!(f, "sidecar and mysqld of {} are killed", n(node)),
            Self::Start { node } => write!(f, "the sidecar of {} starts", n(node)),
            Self::Tick { node } => write!(f, "time passes on {}", n(node)),
            Self::HearExit { node } => write!(f, "{} hears that its mysqld ended", n(node)),
            Self::HearCapture { node } => write!(f, "{} hears that its capture ended", n(node)),
            Self::HearErrant { node } => write!(f, "{} finds its server errant", n(node)),
            Self::HearLeader { node } => write!(f, "{} hears that another leads", n(node)),
            Self::Report { node } => write!(f, "{} hears of healthy peers", n(node)),
            Self::Switchover { node, to } => {
                write!(f, "{} is to hand over to {}", n(node), n(to))
            }
            Self::Commit { .. } => write!(f, "Raft commits an entry"),
            Self::Apply { node, upto } => write!(f, "{} applies up to {upto}", n(node)),
            Self::Elect { node, .. } => write!(f, "{} is elected", n(node)),
            Self::LoseCapture { node } => write!(f, "capture of {} is cut off", n(node)),
            Self::Propose { node, content } => {
                write!(f, "capture of {} proposes t{content}", n(node))
            }
            Self::Refuse { node, content } => {
                write!(
                    f,
                    "capture of {} proposes t{content}, which is refused",
                    n(node)
                )
            }
            Self::Delay { node, content } => {
                write!(
                    f,
                    "capture of {} proposes t{content}, which comes late",
                    n(node)
                )
            }
            Self::Arrive { node } => write!(f, "what {} proposed reaches its Raft", n(node)),
            Self::Settle { node } => write!(f, "capture of {} sees a fate", n(node)),
            Self::LoseFate { node } => write!(f, "capture of {} will see no fate", n(node)),
            Self::Feed { node, content } => write!(f, "{} replicates t{content}", n(node)),
            Self::Work { node, work } => write!(f, "{} does {work:?}", n(node)),
            Self::GiveUp { node } => write!(f, "{} cannot end its writes", n(node)),
        }
    }
}

/// What one search found.
#[derive(Clone, Debug)]
pub struct Checked {
    pub states: usize,
    pub verdict: Verdict,
}

impl Checked {
    /// Whether a promise is broken: there is a schedule that shows it.
    #[must_use]
    pub fn is_broken(&self) -> bool {
        matches!(self.verdict, Verdict::Unsafe { .. } | Verdict::Stuck { .. })
    }
}

impl fmt::Display for Checked {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} states: ", self.states)?;
        let (what, schedule) = match &self.verdict {
            Verdict::Holds => return f.write_str("all of them, safe, none stuck"),
            Verdict::TooMany => return f.write_str("too many; safe as far as seen"),
            Verdict::Unsafe { what, schedule } => (what.clone(), schedule),
            Verdict::Stuck { states, schedule } => (format!("{states} of them stuck"), schedule),
        };
        write!(f, "{what}, after {} steps", schedule.len())?;
        if f.alternate() {
            for (number, step) in (1..).zip(schedule) {
                write!(f, "\n{number:>4}. {step}")?;
            }
        }
        Ok(())
    }
}

/// Searches through every state within the bounds, with a rule left out or with all of them.
///
/// # Panics
/// If the bounds name another number of nodes than two or three, or more transactions than a
/// state has room for.
#[must_use]
pub fn check(bounds: &Bounds, omission: Option<Omission>) -> Checked {
    let transactions = bounds.faults.writes + bounds.faults.errant + bounds.faults.named;
    assert!(
        usize::from(transactions) <= world::CONTENTS,
        "too many transactions"
    );
    let (faults, max) = (bounds.faults, bounds.states_max);
    let (states, verdict) = match bounds.nodes {
        2 => search::search(&mut Cluster::<2>::new(faults, omission), max),
        3 => search::search(&mut Cluster::<3>::new(faults, omission), max),
        other => panic!("a model of {other} nodes"),
    };
    Checked { states, verdict }
}

//! One state of the whole cluster.

use quorate_types::{Epoch, LeaderId, LogId, LogIndex, NodeId, Term};

use super::list::List;
use super::log::Name;

/// How many transactions there may be, an operator's on a replica included.
pub(super) const CONTENTS: usize = 4;

/// An epoch in 16 bits, in the order of epochs.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) struct Era(u16);

impl Era {
    pub(super) fn new(epoch: Epoch) -> Self {
        let LogId { leader, index } = epoch.0;
        assert!(leader.term.0 < 64 && leader.node.0 < 4 && index.0 < 256);
        Self((leader.term.0 << 10 | leader.node.0 << 8 | index.0) as u16)
    }

    pub(super) fn epoch(self) -> Epoch {
        let bits = u64::from(self.0);
        let leader = LeaderId {
            term: Term(bits >> 10),
            node: NodeId(bits >> 8 & 3),
        };
        Epoch(LogId {
            leader,
            index: LogIndex(bits & 255),
        })
    }

    pub(super) fn leader(self) -> LeaderId {
        self.epoch().0.leader
    }
}

/// Nothing stands for a place in the log with 0, which is the empty log.
pub(super) const NOWHERE: u32 = 0;
/// A proposal that was refused: it is in no log.
pub(super) const REFUSED: u32 = u32::MAX;
/// A proposal that Raft was not given yet.
pub(super) const LATE: u32 = u32::MAX - 2;
/// A refused one, or one rejected behind it, whose fate capture has seen.
pub(super) const OUT: u32 = u32::MAX - 1;

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct World<const N: usize> {
    /// The log that is committed.
    pub(super) committed: u32,
    /// The newest term, and who was elected in it.
    pub(super) term: u8,
    pub(super) leader: u8,
    /// How many transactions were begun.
    pub(super) writes: u8,
    pub(super) names: [Name; CONTENTS],
    /// Contents that a client was told are committed.
    pub(super) told: u8,
    /// Contents that a repair cut off.
    pub(super) cut: u8,
    /// Contents that an operator wrote past the log.
    pub(super) errant: u8,
    /// A server that has nothing wrong was given up to be cloned.
    pub(super) thrown_away: bool,
    pub(super) left: Faults,
    pub(super) nodes: [Node; N],
}

/// How often each thing may still happen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Faults {
    pub writes: u8,
    /// Of a sidecar, a mysqld, or both together.
    pub crashes: u8,
    /// Elections while a leader lives and wants to stay.
    pub elections: u8,
    /// Captures that lose their connection.
    pub captures: u8,
    /// Proposals that are refused though the leader goes on leading.
    pub refusals: u8,
    /// Switchovers, and reports of healthy peers, by which leadership is given away.
    pub orders: u8,
    /// Transactions that an operator commits on a replica.
    pub errant: u8,
    /// Proposals that reach Raft late, perhaps when nobody waits for them any more.
    pub delays: u8,
    /// Transactions that a client gives the next GTID of another server.
    pub named: u8,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Node {
    /// Whether the sidecar runs. What follows, up to the server, is its memory.
    pub(super) runs: bool,
    /// The state of its role machine.
    pub(super) machine: u32,
    /// The term in which it believes to lead, or 0.
    pub(super) leading: u8,
    /// Up to which entry it applied the log.
    pub(super) applied: u8,
    /// Its `SetPrimary` whose answer it waits for.
    pub(super) set_primary: u32,
    /// The epoch under which its gate is open.
    pub(super) gate: Option<Era>,
    /// It asked another to take leadership over, so its lease is over for good.
    pub(super) gave_away: bool,
    /// Its heartbeats are off.
    pub(super) silent: bool,
    pub(super) work: Work,
    pub(super) capture: Capture,
    /// A proposal on its way to Raft.
    pub(super) late: Option<Late>,
    /// mysqld ended, and role control does not know yet.
    pub(super) exited: bool,
    /// Its log: what is committed of it and what more it has. It survives crashes.
    pub(super) log: u32,
    pub(super) server: Server,
}

/// A mysqld with its data folder.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Server {
    pub(super) runs: bool,
    /// `super_read_only=OFF`.
    pub(super) writable: bool,
    /// Semi-sync source on.
    pub(super) waits: bool,
    /// It replicates from the feed.
    pub(super) follows: bool,
    /// What it shows, in the order of its commits.
    pub(super) engine: List,
    /// In its binlog and not committed in the engine: each waits for its ACK.
    pub(super) tail: List,
    /// The epoch in its marker file.
    pub(super) marker: Option<Era>,
}

/// The job of role control, by what it does next.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) enum Work {
    #[default]
    None,
    /// A repair: adopt the server, or kill it.
    Kill {
        adopt: bool,
    },
    /// A repair: once the log is applied up to `barrier` and the server's last epoch is over, cut
    /// the tail and start.
    Cut {
        barrier: u8,
    },
    /// A repair: once the log is applied up to `barrier`, judge what is executed, and follow.
    Follow {
        barrier: u8,
    },
    /// A promotion: once everything accepted is executed, stop replication, make commits wait.
    CatchUp {
        epoch: Era,
    },
    /// A promotion: attach capture, look again, take writes.
    Open {
        epoch: Era,
    },
    /// It is done, and role control does not know yet.
    Report,
    Drain,
    EndWrites,
    Demote,
    Clone,
}

/// One attachment of capture.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(super) struct Capture {
    pub(super) epoch: Option<Era>,
    /// It stopped, and role control does not know yet.
    pub(super) ended: bool,
    /// What it read: the transaction with number 1 first.
    pub(super) read: List,
    /// How many of them were accepted, and so acknowledged.
    pub(super) settled: u8,
    /// How many were proposed.
    pub(super) proposed: u8,
    /// Where in the log each proposal is whose fate is open, or [`REFUSED`] or [`OUT`].
    pub(super) at: [u32; CONTENTS],
}

/// A proposal that capture made and Raft was not given yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Late {
    pub(super) epoch: Era,
    pub(super) number: u8,
    pub(super) content: u8,
}

impl Capture {
    pub(super) fn new(epoch: Era) -> Self {
        Self {
            epoch: Some(epoch),
            ..Self::default()
        }
    }

    /// The epoch, while it can still propose and acknowledge.
    pub(super) fn alive(&self) -> Option<Era> {
        self.epoch.filter(|_| !self.ended)
    }

    /// It has the epoch only to say that it is over.
    pub(super) fn end(&mut self) {
        *self = Self {
            epoch: self.epoch,
            ended: self.epoch.is_some(),
            ..Self::default()
        };
    }

    /// Whether all that follows a refused proposal is waited for.
    pub(super) fn goes_back(&self) -> bool {
        self.at.get(usize::from(self.settled)) == Some(&OUT)
    }

    /// The oldest proposal whose fate was not seen yet, counted from 0.
    pub(super) fn oldest(&self) -> Option<u8> {
        (self.settled..self.proposed).find(|one| self.at[usize::from(*one)] != OUT)
    }
}

impl<const N: usize> World<N> {
    /// The names of these transactions, as a set.
    pub(super) fn names_of(&self, list: List) -> u32 {
        let bits = list.iter().map(|one| self.names[usize::from(one)].bit());
        bits.fold(0, |set, bit| set | bit)
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let word = |on, word: &'static str| if on { word } else { "" };
        write!(
            f,
            "mysqld {}{}{}{} with {:?}, waiting {:?}",
            if self.runs { "up" } else { "down" },
            word(self.writable, ", writable"),
            word(self.waits, ", semi-sync"),
            word(self.follows, ", replicating"),
            self.engine,
            self.tail,
        )
    }
}

/// A rule that safety stands on and that a node can be told to leave out, so that the simulation
/// can show that it is missed. It is a value in a node's parts; nothing that a user writes sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// A commit is released when its transaction was accepted, not when it was captured.
    AckAfterAcceptance,
    /// A server is promoted when it executed everything that is accepted.
    CatchUpBeforePromotion,
    /// Commits of a primary wait for their ACK.
    CommitsWait,
    /// Writes end before the epoch does, and before commits stop waiting.
    WritesEndBeforeTheEpoch,
    /// Nothing passes a gate whose lease is over.
    GateNeedsLease,
    /// Where a lease came back, sessions begin when those that were lost with it are over.
    LostSessionsEndFirst,
    /// A gate closes, and its lease ends, before leadership is given away.
    GateClosesBeforeTransfer,
    /// The epoch ends with capture.
    EpochEndsWithCapture,
    /// A server that was left running is kept only if it is a replica that takes no writes.
    AdoptOnlyReplicas,
    /// A server that is no primary any more commits without an ACK, which is what an applier does.
    ReplicasDoNotWait,
    /// A server with transactions that were never accepted is cloned.
    ErrantIsCloned,
    /// A node that was started again neither votes nor stands for one lease.
    SitOutTheLease,
    /// The parts of a transaction that is not complete end with their epoch.
    PartsEndWithTheEpoch,
    /// A transaction counts in the epoch that it was captured in, and in no other.
    EpochOfTheCapture,
    /// Transactions count in the order of the primary's binlog, without a gap.
    OrderOfTheBinlog,
    /// A GTID is accepted once.
    GtidOnce,
    /// What was rejected gets into no index, so that nobody reads it.
    OnlyAcceptedIsIndexed,
    /// A node applies, and serves to replicas, what is committed, not all that it was sent.
    ApplyWhatIsCommitted,
    /// A snapshot brings the set of accepted transactions.
    SnapshotHasTheSet,
    /// What goes from the log is in as many servers as may fail, and one more.
    PurgeNeedsCopies,
}

//! Rules left out on purpose: the oracle must notice each.

use quorate_types::Rule;

use crate::cluster::Setup;
use crate::mysqld::BrokenRules;

/// How a rule is left out.
#[derive(Clone, Copy, Debug)]
enum Break {
    /// In the production code.
    Rule(Rule),
    /// On the machine under it.
    Machine(BrokenRules),
    /// The machine's clock stops, so no lease ends any more.
    Clock,
    /// The Raft log's disk says that it synced, and did not.
    SyncNothing,
    /// The same for votes only.
    SyncNoVotes,
}

/// One rule that can be left out, and what it takes to notice.
#[derive(Clone, Copy, Debug)]
pub struct Mutation {
    pub name: &'static str,
    /// What is not done then.
    pub leaves_out: &'static str,
    breaks: Break,
    /// It is found within so many seeds, from `from` on, with so many seconds of faults each.
    pub seeds: u64,
    pub from: u64,
    pub chaos_s: u64,
    /// The story in which it shows, if chance is too unlikely to show it.
    pub scenario: Option<&'static str>,
}

const NO_MACHINE_RULE: BrokenRules = BrokenRules {
    skip_cut: false,
    terminate_instead_of_kill: false,
};

const fn mutation(
    name: &'static str,
    leaves_out: &'static str,
    breaks: Break,
    from: u64,
) -> Mutation {
    Mutation {
        name,
        leaves_out,
        breaks,
        seeds: 20,
        from,
        chaos_s: 30,
        scenario: None,
    }
}

/// Every one of them.
pub const MUTATIONS: &[Mutation] = &[
    mutation(
        "ack-before-acceptance",
        "a commit is released before a majority has it",
        Break::Rule(Rule::AckAfterAcceptance),
        1,
    ),
    mutation(
        "cut-skipped",
        "a killed server keeps what was never accepted",
        Break::Machine(BrokenRules {
            skip_cut: true,
            ..NO_MACHINE_RULE
        }),
        2,
    ),
    mutation(
        "sigterm-instead-of-sigkill",
        "a server with waiting commits is asked to stop",
        Break::Machine(BrokenRules {
            terminate_instead_of_kill: true,
            ..NO_MACHINE_RULE
        }),
        2,
    ),
    mutation(
        "lease-never-ends",
        "the lease is not judged by a clock",
        Break::Clock,
        2,
    ),
    mutation(
        "gate-without-lease",
        "a gate serves past its lease",
        Break::Rule(Rule::GateNeedsLease),
        3,
    ),
    mutation(
        "lost-sessions-do-not-matter",
        "sessions begin while some that a lease took with it go on",
        Break::Rule(Rule::LostSessionsEndFirst),
        1,
    )
    .told_in("lease-comes-back"),
    mutation(
        "log-not-synced",
        "entries are acknowledged before they are durable",
        Break::SyncNothing,
        3,
    ),
    mutation(
        "vote-not-synced",
        "votes are given before they are durable",
        Break::SyncNoVotes,
        31,
    ),
    mutation(
        "promotion-before-catch-up",
        "a server becomes primary before it executed everything",
        Break::Rule(Rule::CatchUpBeforePromotion),
        9,
    ),
    mutation(
        "commits-do-not-wait",
        "a primary's commits wait for nothing",
        Break::Rule(Rule::CommitsWait),
        1,
    ),
    mutation(
        "epoch-ends-with-writes",
        "an epoch ends while commits wait",
        Break::Rule(Rule::WritesEndBeforeTheEpoch),
        2,
    ),
    mutation(
        "epoch-outlives-capture",
        "a primary stays primary when nobody reads its binlog",
        Break::Rule(Rule::EpochEndsWithCapture),
        5,
    ),
    mutation(
        "any-server-is-adopted",
        "a sidecar that starts keeps a server that takes writes",
        Break::Rule(Rule::AdoptOnlyReplicas),
        9,
    ),
    mutation(
        "replicas-wait",
        "a server that is no primary any more still waits for ACKs",
        Break::Rule(Rule::ReplicasDoNotWait),
        2,
    ),
    mutation(
        "errant-ignored",
        "a server with transactions of its own stays as it is",
        Break::Rule(Rule::ErrantIsCloned),
        1,
    )
    .told_in("errant-replica"),
    mutation(
        "any-epoch-counts",
        "what was captured in an epoch that is over counts",
        Break::Rule(Rule::EpochOfTheCapture),
        1,
    )
    .told_in("proposals-of-nobody"),
    mutation(
        "any-order-counts",
        "a transaction counts whose predecessor is missing",
        Break::Rule(Rule::OrderOfTheBinlog),
        1,
    )
    .told_in("proposals-of-nobody"),
    mutation(
        "accepted-twice",
        "a transaction counts again that was accepted",
        Break::Rule(Rule::GtidOnce),
        1,
    )
    .told_in("proposals-of-nobody"),
    mutation(
        "uncommitted-is-fed",
        "a replica gets what no majority has",
        Break::Rule(Rule::ApplyWhatIsCommitted),
        1,
    )
    .told_in("minority-of-two"),
    mutation(
        "rejected-is-fed",
        "a replica gets what was rejected",
        Break::Rule(Rule::OnlyAcceptedIsIndexed),
        1,
    )
    .told_in("proposals-of-nobody"),
    mutation(
        "gate-open-at-transfer",
        "leadership is given away with the gate open",
        Break::Rule(Rule::GateClosesBeforeTransfer),
        1,
    )
    .told_in("switchover-from-one-that-hears-nothing"),
    mutation(
        "snapshot-without-the-set",
        "a snapshot does not bring the accepted transactions",
        Break::Rule(Rule::SnapshotHasTheSet),
        1,
    ),
    mutation(
        "purge-without-copies",
        "what no other server has executed goes from the log",
        Break::Rule(Rule::PurgeNeedsCopies),
        1,
    ),
    mutation(
        "parts-of-a-dead-epoch",
        "the parts of a transaction outlive their epoch",
        Break::Rule(Rule::PartsEndWithTheEpoch),
        1,
    )
    .told_in("leader-dies-between-parts"),
    mutation(
        "no-sit-out",
        "a node that just started votes at once",
        Break::Rule(Rule::SitOutTheLease),
        10,
    )
    .told_in("voter-starts-within-a-lease"),
];

/// The mutation of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Mutation> {
    MUTATIONS.iter().find(|mutation| mutation.name == name)
}

impl Mutation {
    const fn told_in(self, scenario: &'static str) -> Self {
        Self {
            scenario: Some(scenario),
            ..self
        }
    }

    /// Leaves the rule out of a cluster that is set up so.
    pub fn apply(&self, setup: &mut Setup) {
        match self.breaks {
            Break::Rule(rule) => setup.left_out = Some(rule),
            Break::Machine(broken) => setup.broken = broken,
            Break::Clock => setup.clocks_stand_still = true,
            Break::SyncNothing => setup.disk = crate::disk::Honesty::SyncsNothing,
            Break::SyncNoVotes => setup.disk = crate::disk::Honesty::SyncsNoVotes,
        }
    }
}

//! Named stories: each is a schedule that broke a draft of the design or another system, and what
//! must come of it. Write your own as a function of [`Cluster`], and run it with [`tell`].

mod clones;
mod crashes;
mod disks;
mod members;
mod partitions;
mod proposals;
mod servers;
mod switchovers;

use std::time::Duration;

use quorate_types::NodeId;

use crate::cluster::{Cluster, Setup, Violation};

/// What came of a story.
#[derive(Clone, Debug)]
pub struct Told {
    pub violation: Option<Violation>,
    pub trace: Vec<String>,
    /// Each node at the end.
    pub nodes: Vec<String>,
}

/// A story.
type Story = fn(&mut Cluster) -> Result<(), Violation>;

/// A named story, and the question that it answers: a hole of the safety review (A1 to A34), an item of
/// the second review (R1 to R28), or another system's failure.
#[derive(Clone, Copy)]
pub struct Scenario {
    pub name: &'static str,
    pub answers: &'static str,
    story: Story,
    nodes: u64,
    patience: u64,
    log_bytes: u64,
    budget_bytes: u64,
    drift_max: u32,
}

impl Scenario {
    const fn new(name: &'static str, answers: &'static str, story: Story) -> Self {
        Self {
            name,
            answers,
            story,
            nodes: 3,
            patience: 1,
            log_bytes: 0,
            budget_bytes: 0,
            drift_max: 0,
        }
    }

    const fn of(self, nodes: u64) -> Self {
        Self { nodes, ..self }
    }

    /// With longer leases: see [`Setup::patience`].
    const fn patient(self, patience: u64) -> Self {
        Self { patience, ..self }
    }

    /// With a log that goes so soon: see [`Setup::log_bytes`].
    const fn keeping(self, log_bytes: u64) -> Self {
        Self { log_bytes, ..self }
    }

    /// With a log in which writes stop so soon: see [`Setup::budget_bytes`].
    const fn within(self, budget_bytes: u64) -> Self {
        Self {
            budget_bytes,
            ..self
        }
    }

    /// With clocks that differ so much: see [`Setup::drift_max`].
    const fn drifting(self, drift_max: u32) -> Self {
        Self { drift_max, ..self }
    }

    /// Tells it. To be called once per process.
    #[must_use]
    pub fn run(&self, setup: &Setup) -> Told {
        let setup = Setup {
            nodes: self.nodes,
            patience: self.patience,
            log_bytes: self.log_bytes,
            budget_bytes: self.budget_bytes,
            drift_max: self.drift_max.max(setup.drift_max),
            ..setup.clone()
        };
        tell(&setup, self.story)
    }
}

/// Starts a cluster with clients at work, tells a story, heals what it broke, and checks that the
/// cluster serves and lost nothing.
pub fn tell(setup: &Setup, story: impl FnOnce(&mut Cluster) -> Result<(), Violation>) -> Told {
    let mut cluster = Cluster::new(setup);
    let all_of_it = || {
        cluster.start()?;
        cluster.set_load(true);
        cluster.run_for(Duration::from_millis(500))?;
        story(&mut cluster)?;
        cluster.must_converge(Duration::from_secs(60))
    };
    let violation = all_of_it().err();
    Told {
        violation,
        trace: cluster.trace(),
        nodes: cluster.describe(),
    }
}

/// The scenario of this name.
#[must_use]
pub fn find(name: &str) -> Option<&'static Scenario> {
    SCENARIOS.iter().find(|scenario| scenario.name == name)
}

/// Every one of them.
pub const SCENARIOS: &[Scenario] = &[
    Scenario::new(
        "isolated-primary",
        "A17, A19: a primary that hears nobody serves nothing, and is replaced",
        partitions::isolated_primary,
    ),
    Scenario::new(
        "heard-but-deaf-primary",
        "R4: a leader that is heard and hears nobody blocks no election",
        partitions::heard_but_deaf_primary,
    ),
    Scenario::new(
        "mute-primary",
        "R4: a leader that hears and is not heard is replaced",
        partitions::mute_primary,
    ),
    Scenario::new(
        "partial-partition",
        "a pair that is cut while a third node sees both goes on without flapping",
        partitions::partial_partition,
    ),
    Scenario::new(
        "minority-of-two",
        "a replica that is cut off with its primary executes nothing that no majority has",
        partitions::minority_of_two,
    )
    .of(5),
    Scenario::new(
        "half-of-four",
        "PhxSQL counted one half as a majority: neither half of four nodes commits anything",
        partitions::half_of_four,
    )
    .of(4),
    Scenario::new(
        "clocks-that-differ",
        "A16, R21: a lease is over before the promises that it stands on, whoever's clock is fast",
        partitions::clocks_that_differ,
    )
    .drifting(100_000),
    Scenario::new(
        "held-messages",
        "A11, A12: messages of an old leader that arrive late change nothing",
        partitions::held_messages,
    ),
    Scenario::new(
        "flapping-link",
        "R10: short losses of the lease kill no primary for good",
        partitions::flapping_link,
    ),
    Scenario::new(
        "lease-comes-back",
        "what a client lost with a lease that came back, and looked for in vain, never comes",
        partitions::lease_comes_back,
    )
    .patient(20),
    Scenario::new(
        "long-cut-replica",
        "R22: a replica that was away for long catches up",
        partitions::long_cut_replica,
    ),
    Scenario::new(
        "killed-with-waiting-commits",
        "PhxSQL's truncation, A26: commits that waited on a killed primary are nowhere",
        crashes::killed_with_waiting_commits,
    ),
    Scenario::new(
        "power-lost-everywhere",
        "P1: nothing acknowledged is lost when all machines lose their power",
        crashes::power_lost_everywhere,
    ),
    Scenario::new(
        "cold-start",
        "R1, PhxSQL 147: a cluster whose every process was killed serves again by itself",
        crashes::cold_start,
    ),
    Scenario::new(
        "one-never-returns",
        "a majority that starts again needs nobody else",
        crashes::one_never_returns,
    ),
    Scenario::new(
        "primary-dies-again-and-again",
        "each new primary dies as soon as it serves",
        crashes::primary_dies_again_and_again,
    ),
    Scenario::new(
        "dies-while-it-is-promoted",
        "A22, R24: a sidecar that dies in the middle of a promotion leaves no writable server",
        crashes::dies_while_it_is_promoted,
    ),
    Scenario::new(
        "voter-starts-within-a-lease",
        "A15: a voter that forgot its promise by a restart helps no second primary",
        crashes::voter_starts_within_a_lease,
    )
    .patient(6),
    Scenario::new(
        "orderly-stop-of-all",
        "A2, P3: a planned stop of all nodes answers nothing that is not accepted",
        crashes::orderly_stop_of_all,
    ),
    Scenario::new(
        "server-restarts-under-its-leader",
        "A1: one node's new server is another epoch, though its leader stayed",
        servers::server_restarts_under_its_leader,
    ),
    Scenario::new(
        "only-the-server-dies",
        "leadership leaves a dead server at once",
        servers::only_the_server_dies,
    ),
    Scenario::new(
        "capture-is-cut-off",
        "P8: ACKs that were lost with their connection leave no commit waiting for ever",
        servers::capture_is_cut_off,
    ),
    Scenario::new(
        "replica-is-killed",
        "what a replica applied it knows by its GTIDs, in whatever form it logged it: it is not cloned",
        servers::replica_is_killed,
    ),
    Scenario::new(
        "server-hangs",
        "a primary that does not answer is replaced, and comes back as a replica",
        servers::server_hangs,
    ),
    Scenario::new(
        "lagging-replicas",
        "A22, R15, PhxSQL 125: a replica far behind is promoted when it caught up, not before",
        servers::lagging_replicas,
    ),
    Scenario::new(
        "all-servers-die",
        "R1: with every server dead at once the cluster mends itself",
        servers::all_servers_die,
    ),
    Scenario::new(
        "switchover-under-load",
        "A9, A18: leadership is given away without losing a commit",
        switchovers::under_load,
    ),
    Scenario::new(
        "switchover-to-one-that-dies",
        "R3: a transfer that fails does not close the cluster",
        switchovers::to_one_that_dies,
    ),
    Scenario::new(
        "switchover-while-cut",
        "A18: leadership is given away by a node that is being cut off",
        switchovers::while_cut,
    ),
    Scenario::new(
        "switchover-from-one-that-hears-nothing",
        "A18: leadership is given away by a node that does not hear who got it",
        switchovers::from_one_that_hears_nothing,
    ),
    Scenario::new(
        "errant-while-promoted",
        "A22: a server that has more than is accepted by the time its writes should begin is no primary",
        servers::errant_while_promoted,
    ),
    Scenario::new(
        "deposed-while-promoted",
        "A18: a node that stood still amid its promotion, and was replaced, lets nobody write",
        servers::deposed_while_promoted,
    ),
    Scenario::new(
        "newer-series",
        "R18: a server of a newer series is primary only while no older one can be",
        servers::newer_series,
    ),
    Scenario::new(
        "wiped-replica",
        "A23: a replica without data gets all of it from the log",
        clones::wiped_replica,
    ),
    Scenario::new(
        "errant-replica",
        "A20, A22, PhxSQL 109: a replica with a transaction of its own is cloned",
        clones::errant_replica,
    ),
    Scenario::new(
        "errant-primary",
        "A22: a primary with a transaction that nobody accepted is cloned once it is no primary",
        clones::errant_primary,
    ),
    Scenario::new(
        "both-replicas-errant",
        "R13: two that need a copy get one, one after the other",
        clones::both_replicas_errant,
    ),
    Scenario::new(
        "donor-dies",
        "R13: a copy whose donor dies begins again",
        clones::donor_dies,
    ),
    Scenario::new(
        "recipient-dies",
        "R13: a recipient that dies holds no permit for ever",
        clones::recipient_dies,
    ),
    Scenario::new(
        "recipient-restarts-with-its-copy",
        "R13: a recipient that is started anew behind its copy gives its permit back",
        clones::recipient_restarts_with_its_copy,
    ),
    Scenario::new(
        "primary-changes-while-cloning",
        "R13: a permit outlives its leader, or is asked for again",
        clones::primary_changes_while_cloning,
    ),
    Scenario::new(
        "away-past-the-purge",
        "A4: a node for which the log has nothing left gets the state and a copy, and can be primary",
        clones::away_past_the_purge,
    )
    .keeping(12 << 10),
    Scenario::new(
        "cloned-while-purging",
        "A4: what a copy lacks stays in the log until the copy has it",
        clones::cloned_while_purging,
    )
    .keeping(12 << 10),
    Scenario::new(
        "voter-goes-and-comes",
        "A28: a voter is removed and comes back under load, while leaders die",
        members::voter_goes_and_comes,
    )
    .keeping(24 << 10),
    Scenario::new(
        "primary-is-removed",
        "A28: a primary that is taken out hands over, and serves nothing afterwards",
        members::primary_is_removed,
    ),
    Scenario::new(
        "removed-while-cut-off",
        "A28: a voter that does not hear of its removal disturbs nobody",
        members::removed_while_cut_off,
    ),
    Scenario::new(
        "proposals-of-nobody",
        "A1, A7, A11: what is of another epoch, out of order or accepted already changes nothing",
        proposals::of_nobody,
    ),
    Scenario::new(
        "raft-folder-is-wiped",
        "A6: a voter whose promises are gone elects nobody, and is taken in anew",
        members::raft_folder_is_wiped,
    ),
    Scenario::new(
        "raft-folder-is-put-back",
        "A6, R20: a voter with an older Raft folder counts for no quorum",
        members::raft_folder_is_put_back,
    ),
    Scenario::new(
        "leader-dies-between-parts",
        "a transaction of which only some parts are in the log is nowhere, or whole",
        disks::leader_dies_between_parts,
    ),
    Scenario::new(
        "primary-stands-still",
        "A17: a primary that stood still for longer than its lease serves nothing that is old",
        disks::primary_stands_still,
    ),
    Scenario::new(
        "log-near-its-budget",
        "R7: writes stop before a log is full that nobody can let go, and go on when it went",
        disks::log_near_its_budget,
    )
    .keeping(24 << 10)
    .within(192 << 10),
    Scenario::new(
        "log-disk-hangs",
        "a log that cannot be synced stops no majority, and its node goes on when it can",
        disks::log_disk_hangs,
    ),
    Scenario::new(
        "log-disk-fails",
        "after a failed sync the process ends, and its next start knows what is durable",
        disks::log_disk_fails,
    ),
];

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

const fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

/// The node that serves, waiting for one if need be.
fn primary(cluster: &mut Cluster) -> Result<NodeId, Violation> {
    cluster.run_until("a primary serves", seconds(20), |cluster| {
        cluster.primary().is_some()
    })?;
    Ok(cluster.primary().expect("it was just there"))
}

/// Waits until another node than `old` serves.
fn replaced(cluster: &mut Cluster, old: NodeId, longest: Duration) -> Result<NodeId, Violation> {
    cluster.run_until("another primary serves", longest, |cluster| {
        cluster.primary().is_some_and(|now| now != old)
    })?;
    Ok(cluster.primary().expect("it was just there"))
}

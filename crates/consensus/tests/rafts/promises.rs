//! What a node must not do: forget a promise over a restart, count for a folder that it no longer
//! has, or go on with a disk that failed.

use std::time::Duration;

use crate::harness::{Cluster, transactions};
use crate::purge::free;
use quorate_consensus::{FatalError, ProposalFate};
use quorate_types::{Command, Epoch, LeaderId, NodeId};
use tokio::time::{Instant, timeout};

/// Long enough for several elections, had nobody to sit out.
const SIT_OUT: Duration = Duration::from_secs(4);
/// As long as nothing may happen.
const NOTHING: Duration = Duration::from_secs(3);
const PATIENCE: Duration = Duration::from_secs(30);

fn one(epoch: Epoch, number: u64) -> Command {
    transactions(epoch, number, 1, 100)
}

/// Proposes, and asserts that it is not applied while nothing may happen.
async fn assert_not_applied(cluster: &Cluster, leader: NodeId, id: LeaderId, command: Command) {
    let fate = cluster.node(leader).propose(id, command).await;
    let fate = timeout(NOTHING, fate).await;
    assert!(
        !matches!(fate, Ok(Ok(ProposalFate::Applied { .. }))),
        "applied without a quorum: {fate:?}"
    );
}

/// The leader dies, and so does one of its followers, which comes back: what it promised to the
/// leader it forgot, so for one lease it must neither vote nor stand.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_just_started_neither_votes_nor_stands_for_one_lease() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let [restarted, _] = cluster.others(leader)[..] else {
        panic!("three nodes")
    };
    cluster.crash(leader).await;
    cluster.crash(restarted).await;
    let started = Instant::now();
    cluster.restart_sitting_out(restarted, SIT_OUT).await;
    while started.elapsed() < SIT_OUT - Duration::from_millis(100) {
        let leaders = cluster.leaders();
        assert!(
            leaders.is_empty(),
            "{leaders:?} leads {:?} after the restart",
            started.elapsed()
        );
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    cluster.leader().await;
    println!("a leader {:?} after the restart", started.elapsed());
    assert!(started.elapsed() >= SIT_OUT);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_just_started_takes_no_leadership_over() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let follower = cluster.others(leader)[0];
    cluster.crash(follower).await;
    cluster.restart_sitting_out(follower, PATIENCE).await;
    cluster.settled_states().await;
    let node = cluster.node(leader);
    node.transfer_leader(follower).await.expect("it leads");
    tokio::time::sleep(NOTHING).await;
    assert!(!cluster.leaders().contains(&follower));
    cluster.stop().await;
}

/// With one follower gone, the other decides whether there is a quorum. Its folder comes back as it
/// was some starts ago: it may have forgotten a vote, or entries that it acknowledged.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_folder_that_was_put_back_counts_for_no_quorum() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (id, epoch) = cluster.begin_epoch(leader).await;
    let [put_back, other] = cluster.others(leader)[..] else {
        panic!("three nodes")
    };
    for _ in 0..2 {
        cluster.crash(put_back).await;
        cluster.restart_heard(put_back, leader).await;
    }
    cluster.crash(put_back).await;
    cluster.put_starts_back(put_back, 1);
    cluster.restart(put_back).await;
    cluster.crash(other).await;
    assert_not_applied(&cluster, leader, id, one(epoch, 1)).await;
    assert!(cluster.node(leader).barrier().await.is_err(), "a quorum");

    // The folder that goes on counting is taken again.
    cluster.crash(put_back).await;
    cluster.put_starts_back(put_back, 3);
    cluster.restart(put_back).await;
    let leader = cluster.leader().await;
    let (id, epoch) = cluster.begin_epoch(leader).await;
    let fate = cluster.node(leader).propose(id, one(epoch, 1)).await.await;
    assert!(matches!(fate, Ok(ProposalFate::Applied { .. })), "{fate:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_folder_of_a_member_counts_for_no_quorum() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (id, epoch) = cluster.begin_epoch(leader).await;
    let [wiped, other] = cluster.others(leader)[..] else {
        panic!("three nodes")
    };
    cluster.crash(wiped).await;
    cluster.wipe(wiped);
    cluster.restart(wiped).await;
    cluster.crash(other).await;
    assert_not_applied(&cluster, leader, id, one(epoch, 1)).await;
    assert!(cluster.node(leader).barrier().await.is_err(), "a quorum");
    // The other one is enough for all that was committed, and for what comes.
    cluster.restart(other).await;
    let leader = cluster.leader().await;
    assert_ne!(leader, wiped);
    let (id, epoch) = cluster.begin_epoch(leader).await;
    let fate = cluster.node(leader).propose(id, one(epoch, 1)).await.await;
    assert!(matches!(fate, Ok(ProposalFate::Applied { .. })), "{fate:?}");
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_sync_failed_stops_and_acknowledges_nothing_more() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (id, epoch) = cluster.begin_epoch(leader).await;
    let [failing, other] = cluster.others(leader)[..] else {
        panic!("three nodes")
    };
    cluster.crash(other).await;
    cluster.disk(failing).fail_next_sync();
    let mut fatal = cluster.node(failing).fatal();
    let fate = cluster.node(leader).propose(id, one(epoch, 1)).await;
    let stopped = timeout(PATIENCE, fatal.wait_for(Option::is_some)).await;
    let why = stopped.expect("in time").expect("running").clone();
    assert!(matches!(why, Some(FatalError::Log(_))), "{why:?}");
    let fate = timeout(NOTHING, fate).await;
    assert!(
        !matches!(fate, Ok(Ok(ProposalFate::Applied { .. }))),
        "applied without a second disk: {fate:?}"
    );
    cluster.stop().await;
}

/// Nobody can do without what it can no longer read: here a snapshot, for a follower that needs it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_cannot_read_its_disk_stops_and_says_so() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (id, epoch) = cluster.begin_epoch(leader).await;
    let away = cluster.others(leader)[0];
    cluster.crash(away).await;
    let node = cluster.node(leader);
    let fate = node.propose(id, one(epoch, 1)).await.await;
    assert!(matches!(fate, Ok(ProposalFate::Applied { .. })), "{fate:?}");
    let upto = node.applied_state().borrow().index();
    let fate = node.propose(id, Command::Purge { upto }).await.await;
    assert!(matches!(fate, Ok(ProposalFate::Applied { .. })), "{fate:?}");
    free(&node).await;
    assert!(node.view().borrow().purged.is_some(), "it needs a snapshot");

    let mut fatal = node.fatal();
    assert!(fatal.borrow().is_none());
    cluster.disk(leader).fail_reads();
    cluster.restart(away).await;
    let stopped = timeout(PATIENCE, fatal.wait_for(Option::is_some)).await;
    let why = stopped.expect("in time").expect("running").clone();
    assert!(matches!(why, Some(FatalError::Raft(_))), "{why:?}");
    println!("{}", why.expect("a reason"));
    cluster.stop().await;
}

/// A follower whose disk hangs acknowledges nothing; when it was the only one, nothing commits until
/// the disk goes on, and then what waited does. Meanwhile it keeps the leader's lease: what that
/// promises needs no disk.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_follower_whose_disk_hangs_acknowledges_nothing_until_it_goes_on() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (id, epoch) = cluster.begin_epoch(leader).await;
    let [hanging, other] = cluster.others(leader)[..] else {
        panic!("three nodes")
    };
    cluster.crash(other).await;
    let stall = cluster.stall(hanging);
    stall.set(true);
    let mut fate = cluster.node(leader).propose(id, one(epoch, 1)).await;
    let early = timeout(NOTHING, &mut fate).await;
    assert!(early.is_err(), "decided without a second disk: {early:?}");
    let hung = tokio::time::Instant::now();
    while hung.elapsed() < Duration::from_secs(1) {
        let holds = cluster.lease_is_valid(leader, id);
        assert!(holds, "lapsed after {:?} and more", hung.elapsed());
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(cluster.leaders(), [leader]);
    stall.set(false);
    let fate = timeout(PATIENCE, fate).await.expect("the disk goes on");
    assert!(matches!(fate, Ok(ProposalFate::Applied { .. })), "{fate:?}");
    cluster.stop().await;
}

/// Two synced disks are a quorum, and the leader's need not be among them.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_whose_own_disk_hangs_commits_with_the_others_and_can_be_replaced() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (id, epoch) = cluster.begin_epoch(leader).await;
    let stall = cluster.stall(leader);
    stall.set(true);
    let fate = cluster.node(leader).propose(id, one(epoch, 1)).await;
    let fate = timeout(PATIENCE, fate).await.expect("the others' disks");
    assert!(matches!(fate, Ok(ProposalFate::Applied { .. })), "{fate:?}");
    let to = cluster.others(leader)[0];
    let node = cluster.node(leader);
    node.transfer_leader(to).await.expect("it leads");
    cluster.wait_for_leader(to).await;
    let committed = async {
        while cluster.node(to).barrier().await.is_err() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        cluster.begin_epoch(to).await
    };
    let committed = timeout(PATIENCE, committed).await;
    committed.expect("the two other disks are enough");
    stall.set(false);
    let states = cluster.settled_states().await;
    assert_eq!(states[0].accepted.count(), 1);
    assert!(states.iter().all(|state| *state == states[0]));
    cluster.stop().await;
}

/// It forgot what it knew to be committed, and what it had sent before its own disk had it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_leader_that_restarts_does_not_lead_its_old_term() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let old = cluster.node(leader).view().borrow().term;
    cluster.crash(leader).await;
    cluster.restart(leader).await;
    let node = cluster.node(leader);
    let mut view = node.view();
    let led_again = view.wait_for(|view| view.is_leader && view.term == old);
    let led_again = tokio::time::timeout(Duration::from_secs(2), led_again).await;
    assert!(led_again.is_err(), "it leads term {old} again");
    cluster.leader().await;
    cluster.stop().await;
}

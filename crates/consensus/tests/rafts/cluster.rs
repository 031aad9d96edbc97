//! Three nodes over real sockets.

use std::time::Duration;

use crate::harness::{Cluster, set_primary, transactions};
use quorate_consensus::ProposalFate;
use quorate_types::{Command, GtidSet, LogIndex, Outcome};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_node_proposes_every_node_applies_alike() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (id, epoch) = cluster.begin_epoch(leader).await;
    for number in 1..=20 {
        let command = transactions(epoch, number, 1, 100);
        let fate = cluster.node(leader).propose(id, command).await.await;
        let Ok(ProposalFate::Applied { outcome, .. }) = fate else {
            panic!("proposal {number}: {fate:?}");
        };
        let expected = Outcome::Transactions {
            accepted: 1,
            rejected: None,
        };
        assert_eq!(outcome, expected);
    }
    let states = cluster.settled_states().await;
    assert_eq!(states[0].accepted.count(), 20);
    assert!(states.iter().all(|state| *state == states[0]));
    for node in cluster.ids() {
        let log = cluster.node(node).accepted_log();
        let start = log.seek(&GtidSet::new()).await.expect("all can be read");
        let batch = log.read(start, usize::MAX).await.expect("read");
        assert_eq!(batch.entries.len(), 20);
        let done = log
            .seek(&states[0].accepted)
            .await
            .expect("nothing to read");
        assert!(log.read(done, 1).await.expect("read").entries.is_empty());
        assert_eq!(log.checksums().await.expect("read").len(), 20);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proposals_of_another_leadership_are_refused_and_never_appended() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (mut id, epoch) = cluster.begin_epoch(leader).await;
    id.term.0 += 1;
    let command = transactions(epoch, 1, 1, 100);
    let fate = cluster
        .node(leader)
        .propose(id, command.clone())
        .await
        .await;
    assert_eq!(fate, Ok(ProposalFate::Refused));
    let follower = cluster
        .ids()
        .into_iter()
        .find(|node| *node != leader)
        .unwrap();
    let fate = cluster.node(follower).propose(id, command).await.await;
    assert_eq!(fate, Ok(ProposalFate::Refused));
    assert_eq!(cluster.settled_states().await[0].accepted.count(), 0);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_restarted_node_has_what_it_had_and_follows() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (id, epoch) = cluster.begin_epoch(leader).await;
    for number in 1..=5 {
        let command = transactions(epoch, number, 1, 100);
        let fate = cluster.node(leader).propose(id, command).await.await;
        assert!(matches!(fate, Ok(ProposalFate::Applied { .. })));
    }
    let follower = cluster
        .ids()
        .into_iter()
        .find(|node| *node != leader)
        .unwrap();
    cluster.node(follower).snapshot().await.expect("running");
    cluster.crash(follower).await;
    for number in 6..=10 {
        let command = transactions(epoch, number, 1, 100);
        let fate = cluster.node(leader).propose(id, command).await.await;
        assert!(matches!(fate, Ok(ProposalFate::Applied { .. })), "{fate:?}");
    }
    cluster.restart(follower).await;
    let states = cluster.settled_states().await;
    assert_eq!(states[0].accepted.count(), 10);
    assert!(states.iter().all(|state| *state == states[0]));
    let log = cluster.node(follower).accepted_log();
    let start = log.seek(&GtidSet::new()).await.expect("all can be read");
    let batch = log.read(start, usize::MAX).await.expect("read");
    assert_eq!(batch.entries.len(), 10);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_barrier_on_a_follower_waits_for_what_was_committed_before() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (id, epoch) = cluster.begin_epoch(leader).await;
    let follower = cluster
        .ids()
        .into_iter()
        .find(|node| *node != leader)
        .unwrap();
    for number in 1..=10 {
        let command = transactions(epoch, number, 1, 100);
        let fate = cluster.node(leader).propose(id, command).await.await;
        let Ok(ProposalFate::Applied { index, .. }) = fate else {
            panic!("{fate:?}");
        };
        let read = cluster.node(follower).barrier().await.expect("a leader");
        assert!(read >= index);
        assert!(*cluster.node(follower).applied().borrow() >= index);
    }
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transfer_moves_leadership_and_ends_the_lease_for_ever() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (id, _) = cluster.begin_epoch(leader).await;
    let node = cluster.node(leader);
    cluster.wait_for_lease(leader, id).await;
    let to = cluster
        .ids()
        .into_iter()
        .find(|node| *node != leader)
        .unwrap();
    node.transfer_leader(to).await.expect("it leads");
    assert!(!cluster.lease_is_valid(leader, id));
    cluster.wait_for_leader(to).await;
    assert!(!cluster.lease_is_valid(leader, id));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_lease_ends_when_the_leader_is_cut_off_and_others_elect() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (id, _) = cluster.begin_epoch(leader).await;
    cluster.wait_for_lease(leader, id).await;
    let followers: Vec<_> = cluster
        .ids()
        .into_iter()
        .filter(|node| *node != leader)
        .collect();
    for follower in &followers {
        cluster.crash(*follower).await;
    }
    let end = tokio::time::Instant::now() + Duration::from_secs(5);
    while cluster.lease_is_valid(leader, id) {
        assert!(tokio::time::Instant::now() < end, "the lease goes on alone");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let fate = cluster.node(leader).propose(id, set_primary(None)).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    // Without a quorum it is refused, or waits; it is not applied.
    let fate = tokio::time::timeout(Duration::from_millis(100), fate).await;
    assert!(
        !matches!(fate, Ok(Ok(ProposalFate::Applied { .. }))),
        "{fate:?}"
    );
    for follower in followers {
        cluster.restart(follower).await;
    }
    cluster.leader().await;
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_without_the_log_gets_a_snapshot_and_goes_on_from_there() {
    let mut cluster = Cluster::start(1).await;
    let leader = cluster.leader().await;
    let (id, epoch) = cluster.begin_epoch(leader).await;
    for number in 1..=10 {
        let command = transactions(epoch, number, 1, 100);
        let fate = cluster.node(leader).propose(id, command).await.await;
        assert!(matches!(fate, Ok(ProposalFate::Applied { .. })));
    }
    let node = cluster.node(leader);
    node.snapshot().await.expect("running");
    let mut view = node.view();
    let taken = view.wait_for(|view| view.snapshot.is_some()).await;
    let upto = taken.expect("running").snapshot.expect("taken").index;
    // Nothing goes before the log agreed to it.
    node.purge_log().await.expect("running");
    let fate = node.propose(id, Command::Purge { upto }).await.await;
    assert!(matches!(fate, Ok(ProposalFate::Applied { .. })), "{fate:?}");
    // Raft takes what it is asked for in turn, so it has come to the first one.
    assert_eq!(node.marks().1, LogIndex::ZERO);
    node.purge_log().await.expect("running");
    view.wait_for(|view| view.purged.is_some())
        .await
        .expect("running");
    cluster.join(2).await;
    let fate = node
        .propose(id, transactions(epoch, 11, 1, 100))
        .await
        .await;
    assert!(matches!(fate, Ok(ProposalFate::Applied { .. })), "{fate:?}");
    let states = cluster.settled_states().await;
    assert_eq!(states[0].accepted.count(), 11);
    assert_eq!(states[0], states[1]);
    let log = cluster.node(cluster.ids()[1]).accepted_log();
    assert!(
        log.seek(&GtidSet::new()).await.is_err(),
        "it lacks the first ten"
    );
    assert_eq!(log.checksums().await.expect("read").len(), 1);
    assert!(log.read(LogIndex(1), 1).await.is_err());
    cluster.stop().await;
}

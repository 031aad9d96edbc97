//! Who has a vote, while members come and go.

use std::time::Duration;

use crate::harness::{Cluster, TIMINGS, transactions};
use quorate_consensus::{ProposalFate, RecoverError, sole_voter};
use quorate_storage::LogDisk;
use quorate_types::{Member, NodeId};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_voter_that_was_removed_while_it_was_away_disturbs_no_election() {
    let mut cluster = Cluster::start(4).await;
    let leader = cluster.leader().await;
    let others = cluster.others(leader);
    let (gone, stays) = (others[0], others[1]);
    // That it has a vote must be on its own disk: without the entry it would come back a learner.
    let mut view = cluster.node(leader).view();
    let synced = view.wait_for(|view| view.matched.get(&gone) == Some(&view.last_log));
    let synced = tokio::time::timeout(Duration::from_secs(5), synced).await;
    drop(synced.expect("it follows").expect("the leader runs"));
    cluster.crash(gone).await;
    cluster.node(leader).remove(gone).await.expect("removed");
    let term = cluster.node(leader).view().borrow().term;
    // It comes back with a log in which it has a vote, and hears nobody.
    cluster.restart(gone).await;
    let mut view = cluster.node(gone).view();
    let votes = view.wait_for(|view| view.voters.contains(&gone));
    let votes = tokio::time::timeout(Duration::from_secs(2), votes).await;
    assert!(votes.is_ok(), "{:?}", cluster.node(gone).view().borrow());
    drop(votes);
    tokio::time::sleep(TIMINGS.election_max * 4).await;
    let view = cluster.node(leader).view().borrow().clone();
    assert_eq!((view.term, view.is_leader), (term, true), "it disturbed");

    // Nor does it win, or hinder, when there is something to win.
    cluster.crash(leader).await;
    let new = loop {
        let new = cluster.leader().await;
        if new != gone {
            break new;
        }
    };
    assert_ne!(new, gone);
    assert!(!cluster.node(gone).view().borrow().is_leader);
    let view = cluster.node(stays).view().borrow().clone();
    assert!(!view.voters.contains(&gone), "{view:?}");
    cluster.stop().await;
}

/// openraft would let a leader go on leading its term after a restart. But the process forgot
/// that it may have given that leadership away, and which epoch it served.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_restart_of_all_nodes_the_old_leader_leads_in_a_new_term_only() {
    let mut cluster = Cluster::start(3).await;
    let old = cluster.leader().await;
    let (id, epoch) = cluster.begin_epoch(old).await;
    for node in cluster.ids() {
        cluster.crash(node).await;
    }
    // The old leader has a head start: the others sit out for longer.
    cluster.restart(old).await;
    for node in [1, 2, 3]
        .map(NodeId)
        .into_iter()
        .filter(|node| *node != old)
    {
        let longer = TIMINGS.election_max * 3;
        cluster.restart_sitting_out(node, longer).await;
    }
    let leader = cluster.leader().await;
    let now = cluster.node(leader).view().borrow().leader;
    let now = now.expect("it leads");
    assert!(now.term > id.term, "{now} after {id}");
    // What the old leadership's epoch would propose is refused.
    let late = transactions(epoch, 1, 1, 100);
    let fate = cluster.node(leader).propose(id, late).await.await;
    assert_eq!(fate, Ok(ProposalFate::Refused));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_learner_follows_and_is_never_elected() {
    let mut cluster = Cluster::start(3).await;
    let learner = NodeId(4);
    cluster.join_as_learner(learner.0).await;
    let leader = cluster.leader().await;
    let (id, epoch) = cluster.begin_epoch(leader).await;
    let command = transactions(epoch, 1, 3, 100);
    let fate = cluster.node(leader).propose(id, command).await.await;
    assert!(matches!(fate, Ok(ProposalFate::Applied { .. })), "{fate:?}");
    let states = cluster.settled_states().await;
    assert_eq!(states.len(), 4);
    assert!(states.iter().all(|state| state.accepted.count() == 3));

    // The voters are left, would vote for anybody who has what they have, and do not stand.
    for voter in [1, 2, 3].map(NodeId) {
        cluster.node(voter).set_elect(voter == leader);
    }
    cluster.crash(leader).await;
    let alone = cluster.node(learner);
    // Within a lease nobody stands.
    tokio::time::sleep(TIMINGS.election_max * 2).await;
    alone.elect().await.expect("running");
    tokio::time::sleep(TIMINGS.election_max * 4).await;
    assert_eq!(cluster.leaders(), []);
    assert_eq!(alone.view().borrow().term, id.term);
    // It was not that nobody can be elected.
    for voter in cluster.others(learner) {
        cluster.node(voter).set_elect(true);
    }
    assert_ne!(cluster.leader().await, learner);
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_change_that_is_finished_already_needs_no_finishing() {
    let cluster = Cluster::start(3).await;
    let leader = cluster.node(cluster.leader().await);
    leader.finish_change().await.expect("nothing to do");
    let finish = tokio::time::timeout(Duration::from_secs(5), leader.finish_change());
    finish.await.expect("at once").expect("nothing to do");
    let view = leader.view().borrow().clone();
    assert_eq!((view.voters.len(), view.joint), (3, false));
    cluster.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_survivor_made_the_sole_voter_has_all_that_it_had_and_leads() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (id, epoch) = cluster.begin_epoch(leader).await;
    let command = transactions(epoch, 1, 5, 100);
    let fate = cluster.node(leader).propose(id, command).await.await;
    assert!(matches!(fate, Ok(ProposalFate::Applied { .. })), "{fate:?}");
    cluster.settled_states().await;
    let survivor = cluster.others(leader)[0];
    // With a snapshot in the folder its membership is older than the log's.
    cluster.node(survivor).snapshot().await.expect("running");
    let mut snapshot = cluster.node(survivor).view();
    let there = snapshot.wait_for(|view| view.snapshot.is_some());
    there.await.expect("running");
    for node in cluster.ids() {
        cluster.crash(node).await;
    }

    let mut disk = cluster.disk(survivor).clone();
    let member = Member {
        incarnation: crate::harness::incarnation(survivor),
        address: "127.0.0.1:1".to_owned(),
        ..Member::default()
    };
    let sole = sole_voter(&disk.reader(), survivor, &member).expect("it has a log");
    assert!(sole.committed <= Some(sole.last));
    disk.write(sole.writes).expect("written");
    disk.sync().expect("synced");
    cluster.restart(survivor).await;
    assert_eq!(cluster.leader().await, survivor);
    let states = cluster.settled_states().await;
    let [state] = &states[..] else {
        panic!("one node")
    };
    assert_eq!(state.accepted.count(), 5);
    assert_eq!(*state.members, [(survivor, member)].into());
    let view = cluster.node(survivor).view().borrow().clone();
    assert_eq!((view.voters.len(), view.learners.len()), (1, 0));
    assert!(view.term > id.term);
    // Its epochs come after all of before.
    let (_, next) = cluster.begin_epoch(survivor).await;
    assert!(next > epoch);
    let empty = quorate_storage::MemoryDisk::new();
    let nothing = sole_voter(&empty.reader(), survivor, &Member::default());
    assert!(matches!(nothing, Err(RecoverError::Empty)));
    cluster.stop().await;
}

//! Heartbeats beside a follower that catches up.

mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::{Cluster, transactions};
use quorate_consensus::{Lease, ProposalFate};
use quorate_types::NodeId;

const CATCH_UP_BYTES: usize = 256 << 20;
const ENTRY_BYTES: usize = 480 << 10;
const GAP_MAX: Duration = Duration::from_millis(75);

/// The longest time between two heartbeats to `peer` that it answered, until `stop`; from the
/// first one on that was sent after this was called.
fn longest_gap(lease: &Lease, peer: NodeId, stop: &AtomicBool) -> Duration {
    let before = lease.answered().get(&peer).copied();
    let mut last = None;
    let mut longest = Duration::ZERO;
    while !stop.load(Ordering::Relaxed) {
        let newest = lease.answered().get(&peer).copied();
        let newest = newest.filter(|_| newest != before);
        if let (Some(last), Some(newest)) = (last, newest) {
            longest = longest.max(newest.saturating_sub(last));
        }
        last = newest.or(last);
        std::thread::sleep(Duration::from_millis(5));
    }
    longest
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn heartbeats_keep_their_pace_while_a_follower_catches_up() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (id, epoch) = cluster.begin_epoch(leader).await;
    let follower = NodeId(if leader.0 == 3 { 2 } else { 3 });
    cluster.crash(follower).await;
    let entries = (CATCH_UP_BYTES / ENTRY_BYTES) as u64;
    for number in 1..=entries {
        let command = transactions(epoch, number, 1, ENTRY_BYTES);
        let fate = cluster.node(leader).propose(id, command).await.await;
        assert!(matches!(fate, Ok(ProposalFate::Applied { .. })), "{fate:?}");
    }
    let stop = Arc::new(AtomicBool::new(false));
    let watchers: Vec<_> = [NodeId(1), NodeId(2), NodeId(3)]
        .into_iter()
        .filter(|node| *node != leader)
        .map(|node| {
            let (lease, stop) = (cluster.node(leader).lease(), stop.clone());
            let watch = move || (node, longest_gap(&lease, node, &stop));
            std::thread::Builder::new().spawn(watch).expect("a thread")
        })
        .collect();
    let start = tokio::time::Instant::now();
    cluster.restart(follower).await;
    let mut applied = cluster.node(follower).applied();
    let goal = *cluster.node(leader).applied().borrow();
    let caught_up = applied.wait_for(|applied| *applied >= goal);
    tokio::time::timeout(Duration::from_secs(60), caught_up)
        .await
        .expect("it catches up")
        .expect("running");
    println!("caught up on 256 MiB in {:?}", start.elapsed());
    stop.store(true, Ordering::Relaxed);
    for watcher in watchers {
        let (node, gap) = watcher.join().expect("no panic");
        println!("longest gap between heartbeats to node {node}: {gap:?}");
        assert!(gap < GAP_MAX, "node {node}: {gap:?}");
    }
    let view = cluster.node(leader).view().borrow().clone();
    assert_eq!(view.leader, Some(id), "nobody else was elected");
    cluster.stop().await;
}

//! Heartbeats beside a follower that catches up.

mod harness;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use harness::{Cluster, transactions};
use quorate_consensus::{Lease, ProposalFate};
use quorate_types::NodeId;
use tokio::time::Instant;

const CATCH_UP_BYTES: usize = 256 << 20;
const ENTRY_BYTES: usize = 480 << 10;
const GAP_MAX: Duration = Duration::from_millis(75);
const ROUNDS: u64 = 5;

const LOOK: Duration = Duration::from_millis(5);

#[derive(Clone, Copy, Debug, Default)]
struct Watched {
    /// The longest time between two heartbeats that were answered.
    gap: Duration,
    /// The longest time that whoever watched was kept from a processor.
    kept: Duration,
}

impl Watched {
    /// What keeps a thread that only looks on keeps a request and its answer too.
    fn is_paced(self) -> bool {
        self.gap < GAP_MAX + 2 * self.kept
    }
}

/// The heartbeats to `peer` until `stop`, from the first one on that was sent after this was called.
fn watch(lease: &Lease, peer: NodeId, stop: &AtomicBool) -> Watched {
    let before = lease.answered().get(&peer).copied();
    let mut last = None;
    let mut watched = Watched::default();
    while !stop.load(Ordering::Relaxed) {
        let newest = lease.answered().get(&peer).copied();
        let newest = newest.filter(|_| newest != before);
        if let (Some(last), Some(newest)) = (last, newest) {
            watched.gap = watched.gap.max(newest.saturating_sub(last));
        }
        last = newest.or(last);
        let asleep = Instant::now();
        std::thread::sleep(LOOK);
        watched.kept = watched.kept.max(asleep.elapsed().saturating_sub(LOOK));
    }
    watched
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn heartbeats_keep_their_pace_while_a_follower_catches_up() {
    let mut cluster = Cluster::start(3).await;
    let leader = cluster.leader().await;
    let (id, epoch) = cluster.begin_epoch(leader).await;
    let follower = NodeId(if leader.0 == 3 { 2 } else { 3 });
    let entries = (CATCH_UP_BYTES / ENTRY_BYTES) as u64;
    let mut rounds = Vec::new();
    // Heartbeats that wait behind entries are late each time; those of a machine that stood still, once.
    for round in 0..ROUNDS {
        cluster.crash(follower).await;
        for number in round * entries + 1..=(round + 1) * entries {
            let command = transactions(epoch, number, 1, ENTRY_BYTES);
            let fate = cluster.node(leader).propose(id, command).await.await;
            assert!(matches!(fate, Ok(ProposalFate::Applied { .. })), "{fate:?}");
        }
        let watched = watch_it_catch_up(&mut cluster, leader, follower).await;
        let view = cluster.node(leader).view().borrow().clone();
        assert_eq!(view.leader, Some(id), "nobody else was elected");
        let paced = watched.iter().all(|(_, watched)| watched.is_paced());
        println!("round {round}: {watched:?}");
        rounds.push(watched);
        if paced {
            cluster.stop().await;
            return;
        }
    }
    panic!("heartbeats were late in each round: {rounds:?}");
}

/// Starts the follower again, and watches the heartbeats to both until it has what the leader has.
async fn watch_it_catch_up(
    cluster: &mut Cluster,
    leader: NodeId,
    follower: NodeId,
) -> Vec<(NodeId, Watched)> {
    let stop = Arc::new(AtomicBool::new(false));
    let watchers: Vec<_> = [NodeId(1), NodeId(2), NodeId(3)]
        .into_iter()
        .filter(|node| *node != leader)
        .map(|node| {
            let (lease, stop) = (cluster.node(leader).lease(), stop.clone());
            let watch = move || (node, watch(&lease, node, &stop));
            std::thread::Builder::new().spawn(watch).expect("a thread")
        })
        .collect();
    let start = Instant::now();
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
    let watched = watchers.into_iter().map(|watcher| watcher.join());
    watched.map(|ended| ended.expect("no panic")).collect()
}

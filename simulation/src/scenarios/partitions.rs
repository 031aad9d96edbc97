use quorate_types::{Epoch, NodeId};

use super::{ms, primary, replaced, seconds};
use crate::cluster::{Cluster, Violation};

/// A failover without a live server to blame: the lease, an election, a promotion.
const FAILOVER_MAX: std::time::Duration = seconds(3);

pub(super) fn isolated_primary(cluster: &mut Cluster) -> Result<(), Violation> {
    let old = primary(cluster)?;
    cluster.isolate(old);
    replaced(cluster, old, FAILOVER_MAX)?;
    cluster.run_for(seconds(3))?;
    cluster.join_all();
    cluster.run_for(seconds(3))
}

pub(super) fn heard_but_deaf_primary(cluster: &mut Cluster) -> Result<(), Violation> {
    let old = primary(cluster)?;
    for other in cluster.others(old) {
        cluster.cut_one_way(other, old);
    }
    replaced(cluster, old, FAILOVER_MAX)?;
    cluster.run_for(seconds(2))
}

pub(super) fn mute_primary(cluster: &mut Cluster) -> Result<(), Violation> {
    let old = primary(cluster)?;
    for other in cluster.others(old) {
        cluster.cut_one_way(old, other);
    }
    replaced(cluster, old, FAILOVER_MAX)?;
    cluster.run_for(seconds(2))
}

pub(super) fn partial_partition(cluster: &mut Cluster) -> Result<(), Violation> {
    let old = primary(cluster)?;
    let other = cluster.others(old)[0];
    cluster.cut(old, other);
    cluster.run_for(seconds(5))?;
    let changes = cluster.oracle().pauses().len();
    cluster.run_for(seconds(5))?;
    match cluster.oracle().pauses().len() - changes {
        0 => Ok(()),
        changes => Err(Violation(format!(
            "{changes} changes of the primary in 5 s, long after the cut"
        ))),
    }
}

pub(super) fn half_of_four(cluster: &mut Cluster) -> Result<(), Violation> {
    let old = primary(cluster)?;
    let others = cluster.others(old);
    for away in &others[1..] {
        cluster.cut(old, *away);
        cluster.cut(others[0], *away);
    }
    // What was on its way arrives, and the lease ends.
    cluster.run_for(seconds(1))?;
    let committed = cluster.counts().committed;
    cluster.run_for(seconds(5))?;
    let more = cluster.counts().committed - committed;
    if more > 0 {
        return Err(Violation(format!("half of the nodes made {more} commits")));
    }
    cluster.join_all();
    cluster.run_for(seconds(3))?;
    primary(cluster).map(drop)
}

pub(super) fn clocks_that_differ(cluster: &mut Cluster) -> Result<(), Violation> {
    for _ in 0..6 {
        let old = primary(cluster)?;
        cluster.isolate(old);
        replaced(cluster, old, FAILOVER_MAX)?;
        cluster.run_for(ms(300))?;
        cluster.join_all();
        cluster.run_for(seconds(2))?;
    }
    Ok(())
}

pub(super) fn held_messages(cluster: &mut Cluster) -> Result<(), Violation> {
    let old = primary(cluster)?;
    for other in cluster.others(old) {
        cluster.hold(old, other);
    }
    replaced(cluster, old, FAILOVER_MAX)?;
    cluster.run_for(seconds(1))?;
    // Now everything that it had said arrives.
    cluster.join_all();
    cluster.run_for(seconds(2))
}

pub(super) fn flapping_link(cluster: &mut Cluster) -> Result<(), Violation> {
    for round in 0..10 {
        let node = primary(cluster)?;
        cluster.isolate(node);
        cluster.run_for(ms(150 + 40 * round))?;
        cluster.join_all();
        cluster.run_for(ms(600))?;
    }
    Ok(())
}

/// Clients whose commits hang lose their sessions with the lease, and look for what they wrote when it
/// is back, in the same epoch.
pub(super) fn lease_comes_back(cluster: &mut Cluster) -> Result<(), Violation> {
    let mut back = 0;
    for _ in 0..8 {
        let node = primary(cluster)?;
        let epoch = epoch_of(cluster, node);
        cluster.isolate(node);
        cluster.run_until("the lease is over", seconds(5), |cluster| {
            cluster.primary().is_none()
        })?;
        // Sessions end when it stays away for 200 ms.
        cluster.run_for(ms(250))?;
        cluster.join_all();
        primary(cluster)?;
        cluster.run_for(seconds(3))?;
        if epoch_of(cluster, node) == epoch {
            back += 1;
        }
    }
    match back {
        0 => Err(Violation("no lease came back in its epoch".to_owned())),
        _ => Ok(()),
    }
}

fn epoch_of(cluster: &Cluster, node: NodeId) -> Option<Epoch> {
    cluster.probe(node)?.applied_state().epoch
}

pub(super) fn long_cut_replica(cluster: &mut Cluster) -> Result<(), Violation> {
    let node = primary(cluster)?;
    let replica = cluster.others(node)[0];
    cluster.isolate(replica);
    cluster.run_for(seconds(20))?;
    cluster.join_all();
    let all = |cluster: &Cluster| {
        let (one, other) = (cluster.data(node), cluster.data(replica));
        let executed = |data: Option<crate::mysqld::Engine>| data.map(|data| data.executed.count());
        executed(other).unwrap_or(0) + 50 > executed(one).unwrap_or(0)
    };
    cluster.run_until("the replica caught up", seconds(20), all)
}

pub(super) fn minority_of_two(cluster: &mut Cluster) -> Result<(), Violation> {
    let old = primary(cluster)?;
    let others = cluster.others(old);
    for away in &others[1..] {
        cluster.cut(old, *away);
        cluster.cut(others[0], *away);
    }
    replaced(cluster, old, seconds(5))?;
    cluster.run_for(seconds(2))
}

use super::{ms, primary, replaced, seconds};
use crate::cluster::{Cluster, Violation};

pub(super) fn leader_dies_between_parts(cluster: &mut Cluster) -> Result<(), Violation> {
    for round in 0..4 {
        let node = primary(cluster)?;
        let others = cluster.others(node);
        // What is large waits for the slower of the two.
        for other in &others {
            cluster.slow_log_disk(*other, ms(8));
        }
        let seen = cluster.rare().in_parts;
        cluster.load(node, 4000);
        cluster.run_until("some parts are in the log", seconds(5), |cluster| {
            cluster.rare().in_parts > seen
        })?;
        match round % 2 {
            0 => cluster.power_off(node),
            _ => cluster.isolate(node),
        }
        replaced(cluster, node, seconds(6))?;
        cluster.join_all();
        cluster.start_sidecar(node);
        cluster.run_for(seconds(2))?;
    }
    Ok(())
}

pub(super) fn primary_stands_still(cluster: &mut Cluster) -> Result<(), Violation> {
    for still in [100, 250, 400, 2000, 6000] {
        let node = primary(cluster)?;
        cluster.stand_still(node, true);
        cluster.run_for(ms(still))?;
        cluster.stand_still(node, false);
        cluster.run_for(seconds(2))?;
    }
    Ok(())
}

pub(super) fn log_near_its_budget(cluster: &mut Cluster) -> Result<(), Violation> {
    let node = primary(cluster)?;
    let replicas = cluster.others(node);
    // What they do not execute is in one server only.
    for replica in &replicas {
        cluster.pause_server(*replica, true);
    }
    let mut last = (0, cluster.elapsed());
    cluster.run_until("writes stop", seconds(60), |cluster| {
        let committed = cluster.counts().committed;
        if committed != last.0 {
            last = (committed, cluster.elapsed());
        }
        cluster.elapsed() - last.1 >= seconds(2)
    })?;
    if primary(cluster)? != node {
        return Err(Violation("another node is primary by now".to_owned()));
    }
    for replica in &replicas {
        cluster.pause_server(*replica, false);
    }
    cluster.run_until("writes go on", seconds(30), |cluster| {
        cluster.counts().committed > last.0 + 20
    })
}

pub(super) fn log_disk_hangs(cluster: &mut Cluster) -> Result<(), Violation> {
    let node = primary(cluster)?;
    let replica = cluster.others(node)[0];
    for node in [replica, node] {
        cluster.hang_log_disk(node);
        let committed = cluster.counts().committed;
        cluster.run_until("others commit", seconds(10), |cluster| {
            cluster.counts().committed > committed + 20
        })?;
        cluster.mend_log_disk(node);
        cluster.run_for(seconds(1))?;
    }
    Ok(())
}

pub(super) fn log_disk_fails(cluster: &mut Cluster) -> Result<(), Violation> {
    for _ in 0..3 {
        let node = primary(cluster)?;
        cluster.fail_log_disk(node);
        cluster.run_until("its process ended", seconds(5), |cluster| {
            cluster.is_ended(node)
        })?;
        replaced(cluster, node, seconds(5))?;
        cluster.start_sidecar(node);
        cluster.run_for(seconds(1))?;
    }
    Ok(())
}

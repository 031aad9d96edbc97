use super::{ms, primary, replaced, seconds};
use crate::cluster::{Cluster, Violation};

pub(super) fn killed_with_waiting_commits(cluster: &mut Cluster) -> Result<(), Violation> {
    let old = primary(cluster)?;
    cluster.isolate(old);
    // Clients of its own proxy have commits in its binlog by now, which nobody else will ever see.
    cluster.run_for(ms(100))?;
    cluster.kill_sidecar(old);
    cluster.kill_server(old);
    replaced(cluster, old, seconds(3))?;
    cluster.run_for(seconds(1))?;
    cluster.join_all();
    cluster.start_sidecar(old);
    cluster.run_for(seconds(3))
}

pub(super) fn power_lost_everywhere(cluster: &mut Cluster) -> Result<(), Violation> {
    for _ in 0..3 {
        primary(cluster)?;
        cluster.run_for(ms(700))?;
        for node in cluster.nodes() {
            cluster.power_off(node);
        }
        cluster.run_for(ms(300))?;
        for node in cluster.nodes() {
            cluster.start_sidecar(node);
        }
    }
    Ok(())
}

pub(super) fn cold_start(cluster: &mut Cluster) -> Result<(), Violation> {
    for node in cluster.nodes() {
        cluster.kill_sidecar(node);
        cluster.kill_server(node);
    }
    cluster.run_for(seconds(1))?;
    for node in cluster.nodes() {
        cluster.start_sidecar(node);
    }
    cluster.run_until("it serves again", seconds(10), |cluster| {
        cluster.primary().is_some()
    })
}

pub(super) fn one_never_returns(cluster: &mut Cluster) -> Result<(), Violation> {
    let old = primary(cluster)?;
    for node in cluster.nodes() {
        cluster.power_off(node);
    }
    for node in cluster.others(old) {
        cluster.start_sidecar(node);
    }
    replaced(cluster, old, seconds(10))?;
    cluster.run_for(seconds(3))
}

pub(super) fn primary_dies_again_and_again(cluster: &mut Cluster) -> Result<(), Violation> {
    for _ in 0..6 {
        let node = primary(cluster)?;
        cluster.run_for(ms(100))?;
        cluster.power_off(node);
        cluster.run_for(ms(200))?;
        cluster.start_sidecar(node);
    }
    Ok(())
}

pub(super) fn dies_while_it_is_promoted(cluster: &mut Cluster) -> Result<(), Violation> {
    for wait in [20, 60, 100, 140, 180, 220] {
        let old = primary(cluster)?;
        cluster.kill_server(old);
        // Whoever leads next is at one step or another by then.
        cluster.run_for(ms(wait))?;
        let leads = |cluster: &Cluster| {
            let nodes = cluster.others(old).into_iter();
            let leads = |node: &quorate_types::NodeId| {
                let probe = cluster.probe(*node);
                probe.is_some_and(|probe| probe.raft().is_leader)
            };
            nodes.filter(leads).collect::<Vec<_>>()
        };
        let dying = leads(cluster);
        for node in &dying {
            cluster.kill_sidecar(*node);
        }
        cluster.run_for(ms(500))?;
        for node in dying {
            cluster.start_sidecar(node);
        }
        cluster.run_for(seconds(2))?;
    }
    Ok(())
}

pub(super) fn voter_starts_within_a_lease(cluster: &mut Cluster) -> Result<(), Violation> {
    for wait in [1, 20, 60, 150] {
        let old = primary(cluster)?;
        let others = cluster.others(old);
        let (cut_off, voter) = (others[0], others[1]);
        // The one that is cut off will stand; the other one promised its vote to the old leader.
        cluster.cut(old, cut_off);
        cluster.run_for(seconds(5))?;
        cluster.cut(old, voter);
        cluster.kill_sidecar(voter);
        cluster.run_for(ms(wait))?;
        cluster.start_sidecar(voter);
        cluster.run_for(seconds(8))?;
        cluster.join_all();
        cluster.run_for(seconds(3))?;
    }
    Ok(())
}

pub(super) fn orderly_stop_of_all(cluster: &mut Cluster) -> Result<(), Violation> {
    for node in cluster.nodes() {
        cluster.stop_sidecar(node);
    }
    cluster.run_until("all nodes stopped", seconds(40), |cluster| {
        let mut nodes = cluster.nodes().into_iter();
        nodes.all(|node| cluster.is_ended(node))
    })?;
    for node in cluster.nodes() {
        cluster.start_sidecar(node);
    }
    primary(cluster).map(drop)
}

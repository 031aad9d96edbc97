use quorate_types::NodeId;

use super::{ms, primary, replaced, seconds};
use crate::cluster::{Cluster, Violation};
use crate::mysqld::Pace;

pub(super) fn server_restarts_under_its_leader(cluster: &mut Cluster) -> Result<(), Violation> {
    let old = primary(cluster)?;
    // Nobody else can take over, so the same node goes on with a new server.
    for other in cluster.others(old) {
        cluster.kill_server(other);
    }
    cluster.kill_server(old);
    cluster.run_for(seconds(3))?;
    for _ in 0..4 {
        let node = primary(cluster)?;
        cluster.kill_server(node);
        cluster.run_for(ms(400))?;
    }
    Ok(())
}

pub(super) fn only_the_server_dies(cluster: &mut Cluster) -> Result<(), Violation> {
    let old = primary(cluster)?;
    cluster.kill_server(old);
    replaced(cluster, old, seconds(1))?;
    cluster.run_for(seconds(2))
}

pub(super) fn capture_is_cut_off(cluster: &mut Cluster) -> Result<(), Violation> {
    for wait in [400, 700, 1000, 1300] {
        let node = primary(cluster)?;
        cluster.kill_sessions(node);
        cluster.run_for(ms(wait))?;
        let serving = primary(cluster)?;
        cluster.write(serving, seconds(3))?;
    }
    Ok(())
}

pub(super) fn replica_is_killed(cluster: &mut Cluster) -> Result<(), Violation> {
    let node = primary(cluster)?;
    let replica = cluster.others(node)[0];
    let before = cluster.machine(replica).clones();
    for wait in [1000, 1300, 900, 1170] {
        cluster.run_for(ms(wait))?;
        cluster.kill_server(replica);
    }
    cluster.run_for(seconds(3))?;
    match cluster.machine(replica).clones() - before {
        0 => Ok(()),
        times => Err(Violation(format!(
            "node {replica}'s server was cloned {times} times without need"
        ))),
    }
}

pub(super) fn server_hangs(cluster: &mut Cluster) -> Result<(), Violation> {
    let old = primary(cluster)?;
    cluster.pause_server(old, true);
    replaced(cluster, old, seconds(4))?;
    cluster.run_for(seconds(2))
}

pub(super) fn lagging_replicas(cluster: &mut Cluster) -> Result<(), Violation> {
    let old = primary(cluster)?;
    for replica in cluster.others(old) {
        cluster.set_pace(
            replica,
            Pace {
                apply_max: ms(60),
                ..Pace::default()
            },
        );
    }
    cluster.run_for(seconds(4))?;
    cluster.power_off(old);
    replaced(cluster, old, seconds(30))?;
    cluster.run_for(seconds(2))
}

pub(super) fn all_servers_die(cluster: &mut Cluster) -> Result<(), Violation> {
    for node in cluster.nodes() {
        cluster.kill_server(node);
    }
    cluster.run_for(ms(100))?;
    primary(cluster).map(drop)
}

/// Whether a node's server runs and takes writes.
fn takes_writes(cluster: &Cluster, node: NodeId) -> bool {
    let server = cluster.machine(node).server();
    // One that is starting has no variables yet.
    server.is_some_and(|server| server.variable("super_read_only").as_deref() == Some("OFF"))
}

/// Kills the primary's server, and stops the world between steps 6 and 11 of another one's promotion:
/// its commits would wait already, and it does not take any yet.
fn promotes_another(cluster: &mut Cluster) -> Result<NodeId, Violation> {
    let old = primary(cluster)?;
    cluster.kill_server(old);
    let others = cluster.others(old);
    let next = |cluster: &Cluster| {
        let mut nodes = others.iter().copied();
        nodes.find(|node| {
            let server = cluster.machine(*node).server();
            server.is_some_and(|server| {
                server.is_on("rpl_semi_sync_source_enabled") && server.is_on("super_read_only")
            })
        })
    };
    cluster.run_until("another is promoted", seconds(5), |cluster| {
        next(cluster).is_some()
    })?;
    Ok(next(cluster).expect("it was just there"))
}

pub(super) fn errant_while_promoted(cluster: &mut Cluster) -> Result<(), Violation> {
    for _ in 0..3 {
        let node = promotes_another(cluster)?;
        cluster.make_errant(node);
        let until = cluster.elapsed() + seconds(30);
        while cluster.is_errant(node) {
            if takes_writes(cluster, node) {
                return Err(Violation(format!(
                    "node {node} takes writes with a transaction that nobody accepted"
                )));
            }
            if cluster.elapsed() >= until {
                return Err(Violation(format!("node {node} is not cloned within 30 s")));
            }
            cluster.run_for(ms(1))?;
        }
    }
    Ok(())
}

pub(super) fn deposed_while_promoted(cluster: &mut Cluster) -> Result<(), Violation> {
    for _ in 0..3 {
        let node = promotes_another(cluster)?;
        cluster.stand_still(node, true);
        replaced(cluster, node, seconds(10))?;
        cluster.stand_still(node, false);
        for _ in 0..2000 {
            cluster.run_for(ms(1))?;
            if cluster.primary() == Some(node) {
                break;
            }
            if takes_writes(cluster, node) {
                return Err(Violation(format!(
                    "node {node} takes writes, and another is primary"
                )));
            }
        }
    }
    Ok(())
}

pub(super) fn newer_series(cluster: &mut Cluster) -> Result<(), Violation> {
    let first = primary(cluster)?;
    let others = cluster.others(first);
    let (newer, older) = (others[0], [first, others[1]]);
    cluster.set_version(newer, "9.8.0");
    cluster.run_for(seconds(3))?;
    for round in 0..4 {
        let old = primary(cluster)?;
        if old == newer {
            return Err(Violation(format!(
                "node {newer} is primary, and an older server could be"
            )));
        }
        match round % 2 {
            0 => cluster.kill_server(old),
            _ => cluster.power_off(old),
        }
        replaced(cluster, old, seconds(5))?;
        cluster.start_sidecar(old);
        // It leaves leadership to an older one once in 10 s.
        cluster.run_for(seconds(10))?;
    }
    better_than_none(cluster, newer, older)?;
    // Then all are updated but one, which is ended in good order.
    let [last, other] = older;
    cluster.set_version(other, "9.8.0");
    cluster.run_for(seconds(15))?;
    for _ in 0..2 {
        if cluster.primary() == Some(last) {
            break;
        }
        let old = primary(cluster)?;
        cluster.kill_server(old);
        cluster.run_for(seconds(11))?;
    }
    if cluster.primary() != Some(last) {
        return Err(Violation(format!(
            "the oldest, node {last}, is not primary"
        )));
    }
    cluster.stop_sidecar(last);
    replaced(cluster, last, seconds(2))?;
    cluster.run_until("it ended", seconds(20), |cluster| cluster.is_ended(last))?;
    cluster.start_sidecar(last);
    cluster.run_for(seconds(3))
}

fn better_than_none(
    cluster: &mut Cluster,
    newer: NodeId,
    older: [NodeId; 2],
) -> Result<(), Violation> {
    let until = cluster.elapsed() + seconds(5);
    while cluster.primary() != Some(newer) {
        if cluster.elapsed() >= until {
            return Err(Violation(format!(
                "node {newer} is not primary, and nobody else can be"
            )));
        }
        for node in older {
            cluster.kill_server(node);
        }
        cluster.run_for(ms(50))?;
    }
    cluster.run_for(seconds(3))
}

use std::time::Duration;

use quorate_types::{NodeId, Standing};

use super::{ms, primary, replaced, seconds};
use crate::cluster::{Cluster, Violation};

/// Asks for a removal until it is so.
fn remove(cluster: &mut Cluster, node: NodeId) -> Result<(), Violation> {
    for _ in 0..10 {
        let through = primary(cluster)?;
        cluster.remove_member(through, node);
        cluster.run_for(seconds(1))?;
        if cluster.standing(node) == Some(Standing::Removed) {
            return Ok(());
        }
    }
    Err(Violation(format!("node {node} cannot be removed")))
}

fn put_back(cluster: &mut Cluster) -> Result<(), Violation> {
    let until = cluster.elapsed() + seconds(40);
    while !cluster.put_members_back() {
        if cluster.elapsed() >= until {
            return Err(Violation("who was removed does not come back".to_owned()));
        }
        cluster.run_for(ms(20))?;
    }
    Ok(())
}

pub(super) fn voter_goes_and_comes(cluster: &mut Cluster) -> Result<(), Violation> {
    for wait in [0, 30, 80] {
        let node = primary(cluster)?;
        let voter = cluster.others(node)[0];
        cluster.remove_member(node, voter);
        cluster.run_for(ms(wait))?;
        cluster.kill_sidecar(node);
        cluster.run_for(ms(400))?;
        cluster.start_sidecar(node);
        remove(cluster, voter)?;
        cluster.run_for(seconds(2))?;
        let node = primary(cluster)?;
        cluster.add_member(node, voter);
        cluster.run_for(ms(wait))?;
        cluster.kill_server(node);
        put_back(cluster)?;
    }
    Ok(())
}

pub(super) fn primary_is_removed(cluster: &mut Cluster) -> Result<(), Violation> {
    let old = primary(cluster)?;
    cluster.remove_member(old, old);
    replaced(cluster, old, seconds(5))?;
    remove(cluster, old)?;
    cluster.run_for(seconds(2))?;
    match cluster.primary() == Some(old) {
        true => Err(Violation(format!("node {old} was removed and serves"))),
        false => put_back(cluster),
    }
}

pub(super) fn removed_while_cut_off(cluster: &mut Cluster) -> Result<(), Violation> {
    let node = primary(cluster)?;
    let voter = cluster.others(node)[1];
    cluster.isolate(voter);
    cluster.run_for(seconds(1))?;
    remove(cluster, voter)?;
    let leads = primary(cluster)?;
    cluster.join_all();
    cluster.run_for(seconds(4))?;
    match cluster.primary() == Some(leads) {
        true => put_back(cluster),
        false => Err(Violation("a node that was removed had its way".to_owned())),
    }
}

/// Nobody may serve for so long.
fn nobody_serves(cluster: &mut Cluster, for_so_long: Duration) -> Result<(), Violation> {
    let until = cluster.elapsed() + for_so_long;
    while cluster.elapsed() < until {
        if let Some(node) = cluster.primary() {
            let text =
                format!("node {node} serves, though a majority has forgotten what it promised");
            return Err(Violation(text));
        }
        cluster.run_for(ms(20))?;
    }
    Ok(())
}

pub(super) fn raft_folder_is_wiped(cluster: &mut Cluster) -> Result<(), Violation> {
    let old = primary(cluster)?;
    let others = cluster.others(old);
    let (forgets, away) = (others[0], others[1]);
    // What is acknowledged now is on two machines.
    cluster.isolate(away);
    cluster.run_for(seconds(1))?;
    cluster.power_off(old);
    cluster.wipe_log(forgets);
    cluster.join_all();
    cluster.start_sidecar(forgets);
    // The gates are looked at as time passes.
    cluster.run_for(ms(50))?;
    nobody_serves(cluster, seconds(5))?;
    cluster.start_sidecar(old);
    primary(cluster)?;
    cluster.run_until("it is a voter again", seconds(30), |cluster| {
        cluster.all_vote()
    })
}

pub(super) fn raft_folder_is_put_back(cluster: &mut Cluster) -> Result<(), Violation> {
    let old = primary(cluster)?;
    let others = cluster.others(old);
    let (restored, away) = (others[0], others[1]);
    let image = cluster.log_image(restored);
    cluster.power_off(restored);
    cluster.start_sidecar(restored);
    cluster.run_for(seconds(3))?;
    cluster.put_log_back(restored, &image);
    cluster.start_sidecar(restored);
    cluster.run_for(seconds(2))?;
    // Those two have no quorum, though both answer.
    cluster.isolate(away);
    cluster.run_for(seconds(1))?;
    nobody_serves(cluster, seconds(3))?;
    cluster.join_all();
    primary(cluster)?;
    // The way out is an empty folder.
    cluster.wipe_log(restored);
    cluster.start_sidecar(restored);
    cluster.run_until("it is a voter again", seconds(30), |cluster| {
        cluster.all_vote()
    })
}

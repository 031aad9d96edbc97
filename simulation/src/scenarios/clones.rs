use quorate_types::NodeId;

use super::{ms, primary, seconds};
use crate::cluster::{Cluster, Violation};

/// A server with an errant transaction is mended by a copy of another one, and by nothing else.
fn is_mended(node: NodeId) -> impl Fn(&Cluster) -> bool {
    move |cluster| {
        let data = cluster.data(node);
        !cluster.is_errant(node) && data.is_some_and(|data| data.executed.count() > 20)
    }
}

pub(super) fn wiped_replica(cluster: &mut Cluster) -> Result<(), Violation> {
    let node = primary(cluster)?;
    let replica = cluster.others(node)[0];
    cluster.kill_sidecar(replica);
    cluster.wipe_data(replica);
    cluster.start_sidecar(replica);
    cluster.run_until("it has the data again", seconds(30), is_mended(replica))
}

pub(super) fn errant_replica(cluster: &mut Cluster) -> Result<(), Violation> {
    let node = primary(cluster)?;
    let replica = cluster.others(node)[0];
    cluster.make_errant(replica);
    cluster.run_until("it was cloned", seconds(30), is_mended(replica))
}

pub(super) fn errant_primary(cluster: &mut Cluster) -> Result<(), Violation> {
    let node = primary(cluster)?;
    cluster.make_errant(node);
    // It shows when it is judged again: as a replica.
    cluster.kill_server(node);
    cluster.run_until("it was cloned", seconds(30), is_mended(node))
}

pub(super) fn both_replicas_errant(cluster: &mut Cluster) -> Result<(), Violation> {
    let node = primary(cluster)?;
    let replicas = cluster.others(node);
    for replica in &replicas {
        cluster.make_errant(*replica);
    }
    for replica in replicas {
        cluster.run_until("it was cloned", seconds(40), is_mended(replica))?;
    }
    Ok(())
}

pub(super) fn donor_dies(cluster: &mut Cluster) -> Result<(), Violation> {
    for wait in [50, 150, 250, 350] {
        let node = primary(cluster)?;
        let others = cluster.others(node);
        cluster.make_errant(others[0]);
        cluster.run_for(ms(wait))?;
        cluster.power_off(others[1]);
        cluster.run_for(seconds(1))?;
        cluster.start_sidecar(others[1]);
        cluster.run_until("it was cloned", seconds(90), is_mended(others[0]))?;
    }
    Ok(())
}

pub(super) fn recipient_dies(cluster: &mut Cluster) -> Result<(), Violation> {
    let node = primary(cluster)?;
    let recipient = cluster.others(node)[0];
    for wait in [50, 150, 250, 350] {
        cluster.make_errant(recipient);
        cluster.run_for(ms(wait))?;
        cluster.power_off(recipient);
        cluster.run_for(ms(200))?;
        cluster.start_sidecar(recipient);
        cluster.run_for(ms(400))?;
    }
    cluster.run_until("it was cloned", seconds(90), is_mended(recipient))
}

pub(super) fn recipient_restarts_with_its_copy(cluster: &mut Cluster) -> Result<(), Violation> {
    let node = primary(cluster)?;
    let recipient = cluster.others(node)[0];
    let permit = move |cluster: &Cluster| {
        let state = cluster.probe(node)?.applied_state();
        state.permits.current().map(|(sequence, _)| sequence)
    };
    cluster.make_errant(recipient);
    cluster.run_until("its copy is in place", seconds(30), move |cluster| {
        permit(cluster).is_some() && is_mended(recipient)(cluster)
    })?;
    cluster.power_off(recipient);
    let Some(open) = permit(cluster) else {
        return Err(Violation("its permit ended before it was shown".to_owned()));
    };
    cluster.run_for(ms(200))?;
    cluster.start_sidecar(recipient);
    // A leader would end it after 30 s.
    cluster.run_until("its permit is given back", seconds(10), move |cluster| {
        permit(cluster) != Some(open) && is_mended(recipient)(cluster)
    })
}

pub(super) fn primary_changes_while_cloning(cluster: &mut Cluster) -> Result<(), Violation> {
    let node = primary(cluster)?;
    let others = cluster.others(node);
    cluster.make_errant(others[0]);
    cluster.run_for(ms(200))?;
    cluster.kill_server(node);
    cluster.run_until("it was cloned", seconds(90), is_mended(others[0]))
}

pub(super) fn away_past_the_purge(cluster: &mut Cluster) -> Result<(), Violation> {
    let node = primary(cluster)?;
    let replica = cluster.others(node)[0];
    let log_of = |cluster: &Cluster, node| {
        let probe = cluster.probe(node);
        probe.map_or_else(Default::default, |probe| probe.applied_state())
    };
    let has = log_of(cluster, replica).index();
    cluster.kill_sidecar(replica);
    cluster.kill_server(replica);
    // What it reported last counts for a while.
    let purged = move |cluster: &Cluster| log_of(cluster, node).purged.0 > has.0 + 200;
    cluster.run_until("the log is purged", seconds(20), purged)?;
    let before = (cluster.snapshots(replica), cluster.clones(replica));
    cluster.start_sidecar(replica);
    cluster.run_until("it has the state and the data", seconds(30), |cluster| {
        cluster.snapshots(replica) > before.0 && cluster.clones(replica) > before.1
    })?;
    // It is as good as any other.
    for _ in 0..5 {
        cluster.switch_over(replica);
        cluster.run_for(seconds(2))?;
        if cluster.primary() == Some(replica) {
            return cluster.write(replica, seconds(5)).map(drop);
        }
    }
    Err(Violation(
        "the node that was cloned is never primary".to_owned(),
    ))
}

pub(super) fn cloned_while_purging(cluster: &mut Cluster) -> Result<(), Violation> {
    for round in 0..3 {
        let node = primary(cluster)?;
        let replica = cluster.others(node)[round % 2];
        let before = cluster.clones(replica);
        cluster.make_errant(replica);
        cluster.run_until("it was cloned", seconds(40), |cluster| {
            cluster.clones(replica) > before
        })?;
        cluster.run_until("it is mended", seconds(30), is_mended(replica))?;
    }
    match cluster.rare().purges {
        0 => Err(Violation("nothing was purged".to_owned())),
        _ => Ok(()),
    }
}

use super::{ms, primary, replaced, seconds};
use crate::cluster::{Cluster, Violation};

pub(super) fn under_load(cluster: &mut Cluster) -> Result<(), Violation> {
    for _ in 0..4 {
        let old = primary(cluster)?;
        let to = cluster.others(old)[0];
        cluster.switch_over(to);
        let new = replaced(cluster, old, seconds(3))?;
        if new != to {
            return Err(Violation(format!(
                "node {new} is the primary, and node {to} was asked for"
            )));
        }
        cluster.run_for(seconds(2))?;
    }
    let longest = cluster.oracle().pauses().iter().max().copied();
    match longest.unwrap_or_default() {
        pause if pause < seconds(1) => Ok(()),
        pause => Err(Violation(format!("a switchover took {pause:?}"))),
    }
}

pub(super) fn to_one_that_dies(cluster: &mut Cluster) -> Result<(), Violation> {
    for wait in [1, 10, 30, 100] {
        let old = primary(cluster)?;
        let to = cluster.others(old)[0];
        cluster.switch_over(to);
        cluster.run_for(ms(wait))?;
        cluster.power_off(to);
        cluster.run_for(seconds(4))?;
        primary(cluster)?;
        cluster.start_sidecar(to);
        cluster.run_for(seconds(3))?;
    }
    Ok(())
}

/// Cut off between the end of its epoch and the votes for another leader, so that only what it did
/// before tells it that it is none.
pub(super) fn from_one_that_hears_nothing(cluster: &mut Cluster) -> Result<(), Violation> {
    for _ in 0..4 {
        let old = primary(cluster)?;
        let to = cluster.others(old)[0];
        cluster.switch_over(to);
        let ended = |cluster: &Cluster| {
            let probe = cluster.probe(old);
            probe.is_some_and(|probe| probe.applied_state().epoch.is_none())
        };
        cluster.run_until("its epoch ended", seconds(3), ended)?;
        for other in cluster.others(old) {
            cluster.cut_one_way(other, old);
        }
        replaced(cluster, old, seconds(3))?;
        cluster.run_for(seconds(1))?;
        cluster.join_all();
        cluster.run_for(seconds(2))?;
    }
    Ok(())
}

pub(super) fn while_cut(cluster: &mut Cluster) -> Result<(), Violation> {
    for wait in [1, 20, 60, 120] {
        let old = primary(cluster)?;
        let to = cluster.others(old)[1];
        cluster.switch_over(to);
        cluster.run_for(ms(wait))?;
        cluster.isolate(old);
        cluster.run_for(seconds(3))?;
        cluster.join_all();
        cluster.run_for(seconds(1))?;
    }
    Ok(())
}

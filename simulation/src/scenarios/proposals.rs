use std::sync::Arc;

use quorate_consensus::AppliedState;
use quorate_types::{Command, Epoch, Gtid, NodeId, TransactionBatch, Uuid};

use super::{ms, primary, replaced, seconds};
use crate::cluster::{Cluster, Violation};
use crate::mysqld::{Change, captured};

/// Of rows that no client writes.
const KEY: u64 = 1 << 60;

fn applied(cluster: &Cluster, node: NodeId) -> Result<Arc<AppliedState>, Violation> {
    let probe = cluster.probe(node);
    let probe = probe.ok_or_else(|| Violation(format!("node {node} does not run")))?;
    Ok(probe.applied_state())
}

fn epoch(state: &AppliedState) -> Result<Epoch, Violation> {
    let none = || Violation("there is no epoch".to_owned());
    state.epoch.ok_or_else(none)
}

/// What other rules keep out of the log: `apply` refuses it all the same.
pub(super) fn of_nobody(cluster: &mut Cluster) -> Result<(), Violation> {
    let old = primary(cluster)?;
    let over = epoch(&*applied(cluster, old)?)?;
    let to = cluster.others(old)[0];
    cluster.switch_over(to);
    let leader = replaced(cluster, old, seconds(3))?;
    // The number of the next transaction must not change meanwhile.
    cluster.set_load(false);
    cluster.run_for(seconds(2))?;
    let state = applied(cluster, leader)?;
    let current = epoch(&state)?;
    let next = state.next_number;
    let first = state.accepted.iter().next().map(|(source, interval)| Gtid {
        source,
        sequence: interval.start,
    });
    let known = first.ok_or_else(|| Violation("nothing was accepted".to_owned()))?;
    let unknown = |sequence| Gtid {
        source: Uuid([7; 16]).into(),
        sequence,
    };
    let proposals = [
        (over, next, unknown(1)),
        (current, next + 1, unknown(2)),
        (current, next, known),
    ];
    for (key, (epoch, first_number, gtid)) in (KEY..).zip(proposals) {
        let (source, transaction) = captured(gtid, Change::Insert { key, value: 0 });
        let batch = TransactionBatch {
            epoch,
            first_number,
            source,
            transactions: vec![transaction],
        };
        cluster.propose(leader, Command::Transactions(batch));
        cluster.run_for(ms(300))?;
    }
    cluster.set_load(true);
    cluster.run_for(seconds(3))?;
    match applied(cluster, leader)?.epoch == Some(current) {
        true => Ok(()),
        false => Err(Violation(format!(
            "epoch {current} ended by a proposal that was refused"
        ))),
    }
}

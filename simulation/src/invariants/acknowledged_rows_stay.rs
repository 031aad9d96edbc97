//! Every row whose insertion was acknowledged is on every server, once and as it was written.

use std::collections::BTreeMap;

use quorate_types::NodeId;

use crate::cluster::Violation;
use crate::history::History;
use crate::mysqld::{Change, Machine};

pub(super) fn judge(
    history: &History,
    machines: &BTreeMap<NodeId, Machine>,
) -> Result<(), Violation> {
    let acknowledged = history.acknowledged_rows();
    for (node, machine) in machines {
        let Some(engine) = machine.engine() else {
            return Err(Violation(format!("node {node} has no data at all")));
        };
        for (key, value) in &acknowledged {
            let found = engine.inserted.get(key);
            if found != Some(value) {
                return Err(Violation(format!(
                    "row {key}, acknowledged with {value}, is {found:?} on node {node}"
                )));
            }
        }
        let mut times: BTreeMap<u64, u64> = BTreeMap::new();
        for (_, changes) in &engine.history {
            for change in changes {
                if let Change::Insert { key, .. } = change {
                    *times.entry(*key).or_default() += 1;
                }
            }
        }
        if let Some((key, times)) = times.iter().find(|(_, times)| **times > 1) {
            return Err(Violation(format!(
                "row {key} was inserted {times} times on node {node}"
            )));
        }
    }
    Ok(())
}

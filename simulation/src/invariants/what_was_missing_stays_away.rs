//! A row that a client lost with its primary's epoch or lease, and looked for afterwards without finding
//! it, never comes.

use std::collections::BTreeMap;

use quorate_types::NodeId;

use crate::cluster::Violation;
use crate::history::History;
use crate::mysqld::Machine;

pub(super) fn judge(
    history: &History,
    machines: &BTreeMap<NodeId, Machine>,
) -> Result<(), Violation> {
    for (node, machine) in machines {
        let Some(engine) = machine.engine() else {
            continue;
        };
        let came = |missing: &&crate::history::Missing| engine.inserted.contains_key(&missing.key);
        if let Some(missing) = history.missing.iter().find(came) {
            return Err(Violation(format!(
                "row {} was not there at {:?}, when its client looked for it, and is on node {node}",
                missing.key, missing.at
            )));
        }
    }
    Ok(())
}

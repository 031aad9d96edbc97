//! Every server shows transactions in one and the same order, each with the same changes: what one
//! server went through is a prefix of what another did.

use std::collections::BTreeMap;

use quorate_types::{Gtid, NodeId};

use crate::cluster::Violation;
use crate::mysqld::{Change, Machine};

#[derive(Default)]
pub(super) struct Watch {
    /// The longest history that any server ever had.
    longest: Vec<(Gtid, Vec<Change>)>,
    /// How much of each server's history was compared: it only grows, but for a cloned one's.
    compared: BTreeMap<NodeId, usize>,
}

impl Watch {
    pub(super) fn look(&mut self, machines: &BTreeMap<NodeId, Machine>) -> Result<(), Violation> {
        for (node, machine) in machines {
            let compared = self.compared.entry(*node).or_default();
            let longest = &mut self.longest;
            let folder = machine.data_folder();
            let result = machine.with(|state| {
                let Some(folder) = state.folders.get(&folder) else {
                    *compared = 0;
                    return Ok(());
                };
                let history = &folder.engine.history;
                if history.len() < *compared {
                    *compared = 0;
                }
                for at in *compared..history.len() {
                    match longest.get(at) {
                        None => longest.push(history[at].clone()),
                        Some(known) if *known == history[at] => {}
                        Some(known) => {
                            return Err(Violation(format!(
                                "the server of node {node} shows {:?} as its transaction {at}, where \
                                 another showed {known:?}",
                                history[at]
                            )));
                        }
                    }
                }
                *compared = history.len();
                Ok(())
            });
            result?;
        }
        Ok(())
    }
}

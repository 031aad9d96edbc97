//! What nodes say of their logs.

use quorate_types::{LogIndex, LogState, NodeId, Retention};

use crate::v1;

pub(super) fn to_wire(retention: &Retention) -> v1::Retention {
    let holders = retention.held_by.iter();
    v1::Retention {
        purged: retention.purged.0,
        wanted: retention.wanted.0,
        held_by: holders
            .map(|(node, why)| v1::Holder {
                node: node.0,
                why: why.clone(),
            })
            .collect(),
    }
}

pub(super) fn from_wire(retention: v1::Retention) -> Retention {
    let holders = retention.held_by.into_iter();
    Retention {
        purged: LogIndex(retention.purged),
        wanted: LogIndex(retention.wanted),
        held_by: holders
            .map(|holder| (NodeId(holder.node), holder.why))
            .collect(),
    }
}

pub(super) fn log_to_wire(log: &LogState) -> Option<v1::LogState> {
    (*log != LogState::default()).then_some(v1::LogState {
        first_index: log.first.0,
        last_index: log.last.0,
        bytes: log.bytes,
        disk_bytes: log.disk_bytes,
        budget_bytes: log.budget_bytes,
        age_ms: log.age_ms,
        is_full: log.is_full,
    })
}

pub(super) fn log_from_wire(log: v1::LogState) -> LogState {
    LogState {
        first: LogIndex(log.first_index),
        last: LogIndex(log.last_index),
        bytes: log.bytes,
        disk_bytes: log.disk_bytes,
        budget_bytes: log.budget_bytes,
        age_ms: log.age_ms,
        is_full: log.is_full,
    }
}

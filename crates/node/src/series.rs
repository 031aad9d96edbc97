//! Which of the members' servers are of an older release series.

use quorate_mysqld::Version;
use quorate_role::Series;
use quorate_types::{ClusterView, NodeId, NodeView, Role};

/// Of a version as a server says it. MySQL clones within one series only, and an older one may not be
/// able to apply what a newer one writes.
pub(crate) fn series(version: &str) -> Option<Series> {
    Version::parse(version).ok().map(Version::series)
}

/// A healthy member with data whose server is of an older series than `node`'s.
pub(crate) fn older(view: &ClusterView, node: &NodeView) -> Option<NodeId> {
    let own = series(&node.server_version)?;
    let fit = |node: &NodeView| {
        node.healthy && !node.learner && matches!(node.role, Role::Replica | Role::Primary)
    };
    let older = |node: &NodeView| series(&node.server_version).is_some_and(|other| other < own);
    let mut nodes = view.nodes.iter();
    nodes
        .find(|(_, other)| fit(other) && older(other))
        .map(|(id, _)| *id)
}

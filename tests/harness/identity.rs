//! Which server a node has.

use std::time::Duration;

use quorate_types::NodeId;

use crate::{Cluster, Sql, eventually};

/// A node looks twice, 0.2 s apart, before it tells the log; and the log may be without a leader.
const REGISTERED_MAX: Duration = Duration::from_secs(10);

impl Cluster {
    /// The uuid of a node's server, as the server has it.
    ///
    /// # Panics
    /// If the server does not answer.
    pub async fn server_uuid(&self, node: NodeId) -> String {
        let session = Sql::socket(&self.node(node).socket()).await;
        let mut sql = session.expect("root on the socket");
        let uuid = sql.value("SELECT @@GLOBAL.server_uuid").await;
        uuid.expect("the server's uuid")
    }

    /// The uuid of a node's server, once the node's log has it: only then does a clone keep it.
    ///
    /// # Panics
    /// If the log does not have it in time.
    pub async fn registered_uuid(&self, node: NodeId) -> String {
        let uuid = self.server_uuid(node).await;
        let mut list = Err(String::new());
        let registered = eventually(REGISTERED_MAX, async || {
            list = self.ask(node, &["members", "list"]).await;
            list.as_ref().is_ok_and(|list| list.contains(&uuid))
        });
        let registered = registered.await;
        assert!(registered, "the log of node {node} lacks {uuid}: {list:?}");
        uuid
    }
}

//! How a node that is in no cluster comes to know one.

use std::time::Duration;

use quorate_mysqld::Host;
use quorate_net::{Net, Tls};
use quorate_types::{ClusterId, NodeId, SplitMix64};
use quorate_wire::NodeReport;
use quorate_wire::v1::NodeStatusRequest;
use tokio::time::timeout;

use crate::config::{Config, Peer};
use crate::peers::admin_client;

/// Between two rounds of questions.
const ASK: Duration = Duration::from_millis(200);
/// Of a peer that will be asked again.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Of one that nobody asks again, since there must be nobody: it may be slow, and where nobody listens a
/// connection is refused at once.
pub(crate) const LAST_ANSWER_MAX: Duration = Duration::from_secs(5);

/// Why no new cluster may be made here.
#[derive(Debug, thiserror::Error)]
pub enum BootstrapError {
    #[error(
        "node {node} is in cluster {cluster} already: start this node without --bootstrap to join it"
    )]
    PeerHasCluster { node: NodeId, cluster: ClusterId },
    #[error(
        "the data folder belongs to a cluster already (it has a marker): start without --bootstrap, or \
         take the folder away"
    )]
    Marked,
    #[error("the data folder cannot be looked at")]
    Host(#[from] quorate_mysqld::HostError),
    #[error("a witness has no data: found the cluster on a node that has a server")]
    Witness,
    #[error("this node is in cluster {0} already: start it without --bootstrap")]
    Member(ClusterId),
}

pub(crate) struct ClusterFinder<'a, N> {
    pub(crate) net: &'a N,
    pub(crate) config: &'a Config,
    pub(crate) tls: Option<&'a Tls>,
}

impl<N: Net> ClusterFinder<'_, N> {
    /// Draws the id of a new cluster, if nothing speaks against one.
    pub(crate) async fn make(
        &self,
        host: &impl Host,
        random: &mut SplitMix64,
    ) -> Result<ClusterId, BootstrapError> {
        if self.config.witness {
            return Err(BootstrapError::Witness);
        }
        if host.data_folder_exists() && host.read_marker()?.is_some() {
            return Err(BootstrapError::Marked);
        }
        if let Some((node, cluster)) = self.ask_all(LAST_ANSWER_MAX).await {
            return Err(BootstrapError::PeerHasCluster { node, cluster });
        }
        Ok(ClusterId(random.next_u64()))
    }

    /// Asks the peers until one is in a cluster.
    pub(crate) async fn wait(&self) -> ClusterId {
        tracing::info!("this node is in no cluster yet: asking its peers");
        loop {
            if let Some((node, cluster)) = self.ask_all(ANSWER_MAX).await {
                tracing::info!(%node, %cluster, "a peer is in a cluster");
                return cluster;
            }
            tokio::time::sleep(ASK).await;
        }
    }

    /// The first peer that is in a cluster. Each has so long to answer.
    pub(crate) async fn ask_all(&self, bound: Duration) -> Option<(NodeId, ClusterId)> {
        for (node, peer) in &self.config.peers {
            if let Some(cluster) = self.ask(*node, peer, bound).await {
                return Some((*node, cluster));
            }
        }
        None
    }

    async fn ask(&self, node: NodeId, peer: &Peer, bound: Duration) -> Option<ClusterId> {
        let mut client = admin_client(self.net, self.tls, node, peer.dial_grpc());
        let answer = timeout(bound, client.node_status(NodeStatusRequest {}))
            .await
            .ok()?
            .ok()?;
        NodeReport::try_from(answer.into_inner()).ok()?.cluster
    }
}

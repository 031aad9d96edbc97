//! What a node answers while it is in no cluster yet.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use prometheus_client::registry::Registry;
use quorate_consensus::apply::APPLY_LEVEL;
use quorate_net::Tls;
use quorate_types::{ClusterView, Incarnation, LogIndex, NodeId, NodeView, Role, Term};
use quorate_wire::v1::admin_server::{Admin, AdminServer};
use quorate_wire::v1::{
    AcceptErrantReply, AcceptErrantRequest, ChangeMemberReply, ChangeMemberRequest, CheckReply,
    CheckRequest, ChecksumTableRequest, CloneReply, CloneRequest, ExportRequest, HoldReply,
    HoldRequest, JoinReply, JoinRequest, JudgeServerReply, JudgeServerRequest, MembersReply,
    MembersRequest, NodeStatusReply, NodeStatusRequest, StatusReply, StatusRequest,
    SwitchoverReply, SwitchoverRequest, VerdictReply, VerdictRequest, VerifyRequest,
};
use quorate_wire::{NodeReport, RaftRole};
use tokio::sync::oneshot;
use tokio::time::timeout;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::config::Config;
use crate::export::Exported;
use crate::http::{StatusJson, StatusSource};
use crate::node::Listeners;
use crate::verify::{Checksummed, Verified};
use crate::wiring::secure;

/// How long requests that are being answered may take when the cluster is found.
const STOP_MAX: Duration = Duration::from_millis(500);

/// This node, as it shows itself meanwhile.
#[derive(Clone)]
pub(crate) struct Waiting {
    report: NodeReport,
}

impl Waiting {
    pub(crate) fn new(config: &Config, incarnation: Incarnation) -> Self {
        let peers = config.peers.iter();
        let asked: Vec<String> = peers
            .map(|(node, peer)| format!("node {node} ({})", peer.dial_grpc()))
            .collect();
        let view = NodeView {
            role: Role::Repairing,
            message: format!(
                "it is in no cluster yet, and waits until one that is in one answers: {}",
                asked.join(", ")
            ),
            gate_address: config.listen.gate.to_string(),
            mysql_address: config.mysql_address(),
            learner: true,
            ..NodeView::default()
        };
        let report = NodeReport {
            cluster: None,
            node: config.node,
            view,
            raft: RaftRole::Learner,
            incarnation,
            server_uuid: None,
            term: Term::default(),
            leader: None,
            last: LogIndex::ZERO,
            applied: LogIndex::ZERO,
            apply_level: APPLY_LEVEL,
            members: BTreeSet::new(),
        };
        Self { report }
    }

    /// Answers status over gRPC and HTTP until `found` is there. The listeners are for the node
    /// itself then, and no connection of before keeps the answers of before.
    pub(crate) async fn answer_until<T>(
        &self,
        listeners: &mut Listeners,
        tls: Option<&Tls>,
        found: impl Future<Output = T>,
    ) -> T {
        let (stop, stopped) = oneshot::channel::<()>();
        // Polled again below, also if it has ended.
        let mut serve = self.serve(listeners, tls, stopped).fuse();
        let answer = async {
            (&mut serve).await;
            std::future::pending::<T>().await
        };
        let found = tokio::select! {
            biased;
            found = found => found,
            never = answer => never,
        };
        let _ = stop.send(());
        let _ = timeout(STOP_MAX, serve).await;
        found
    }

    /// Until it is stopped, and what was asked over gRPC is answered. Boxed here, so that it is
    /// compiled here and not in each crate that names a network.
    fn serve<'a>(
        &self,
        listeners: &'a mut Listeners,
        tls: Option<&Tls>,
        stopped: oneshot::Receiver<()>,
    ) -> BoxFuture<'a, ()> {
        let grpc_tls = tls.cloned();
        let grpc = tonic::transport::Server::builder()
            .add_service(AdminServer::new(self.clone()))
            .serve_with_incoming_shutdown(secure(&mut listeners.grpc.incoming, grpc_tls), async {
                let _ = stopped.await;
            });
        let http_tls = tls.filter(|_| !listeners.http.local.is_local()).cloned();
        let http = secure(&mut listeners.http.incoming, http_tls);
        let router = crate::http::router(Arc::new(self.clone()), Arc::new(Registry::default()));
        let http = crate::http::serve_on(http, router);
        Box::pin(async {
            let http = async {
                http.await;
                std::future::pending::<()>().await;
            };
            tokio::select! {
                biased;
                _ended = grpc => {}
                () = http => {}
            }
        })
    }

    fn view(&self) -> ClusterView {
        ClusterView {
            nodes: [(self.report.node, self.report.view.clone())].into(),
            ..ClusterView::default()
        }
    }

    fn node(&self) -> NodeId {
        self.report.node
    }

    fn refusal(&self) -> Status {
        Status::unavailable(format!("node {} is in no cluster yet", self.node()))
    }
}

#[tonic::async_trait]
impl Admin for Waiting {
    async fn status(&self, _: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        let reply = quorate_wire::status_reply(self.node(), &self.view());
        Ok(Response::new(reply))
    }

    async fn node_status(
        &self,
        _: Request<NodeStatusRequest>,
    ) -> Result<Response<NodeStatusReply>, Status> {
        Ok(Response::new((&self.report).into()))
    }

    async fn switchover(
        &self,
        _: Request<SwitchoverRequest>,
    ) -> Result<Response<SwitchoverReply>, Status> {
        Err(self.refusal())
    }

    async fn hold(&self, _: Request<HoldRequest>) -> Result<Response<HoldReply>, Status> {
        Err(self.refusal())
    }

    async fn clone_server(&self, _: Request<CloneRequest>) -> Result<Response<CloneReply>, Status> {
        Err(self.refusal())
    }

    async fn join(&self, _: Request<JoinRequest>) -> Result<Response<JoinReply>, Status> {
        Err(self.refusal())
    }

    type ExportBinlogStream = ReceiverStream<Exported>;

    async fn export_binlog(
        &self,
        _: Request<ExportRequest>,
    ) -> Result<Response<Self::ExportBinlogStream>, Status> {
        Err(self.refusal())
    }

    type VerifyStream = ReceiverStream<Verified>;
    type ChecksumTableStream = ReceiverStream<Checksummed>;

    async fn verify(
        &self,
        _: Request<VerifyRequest>,
    ) -> Result<Response<Self::VerifyStream>, Status> {
        Err(self.refusal())
    }

    async fn checksum_table(
        &self,
        _: Request<ChecksumTableRequest>,
    ) -> Result<Response<Self::ChecksumTableStream>, Status> {
        Err(self.refusal())
    }

    async fn tell_verdict(
        &self,
        _: Request<VerdictRequest>,
    ) -> Result<Response<VerdictReply>, Status> {
        Err(self.refusal())
    }

    async fn check(&self, _: Request<CheckRequest>) -> Result<Response<CheckReply>, Status> {
        Err(self.refusal())
    }

    async fn change_member(
        &self,
        _: Request<ChangeMemberRequest>,
    ) -> Result<Response<ChangeMemberReply>, Status> {
        Err(self.refusal())
    }

    async fn judge_server(
        &self,
        _: Request<JudgeServerRequest>,
    ) -> Result<Response<JudgeServerReply>, Status> {
        Err(self.refusal())
    }

    async fn accept_errant(
        &self,
        _: Request<AcceptErrantRequest>,
    ) -> Result<Response<AcceptErrantReply>, Status> {
        Err(self.refusal())
    }

    async fn members(&self, _: Request<MembersRequest>) -> Result<Response<MembersReply>, Status> {
        Err(self.refusal())
    }
}

impl StatusSource for Waiting {
    fn status(&self) -> StatusJson {
        StatusJson::from_view(&self.view())
    }

    fn healthy(&self) -> Result<(), String> {
        Err(self.report.view.message.clone())
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt;
    use quorate_net::{Endpoint, Net, TokioNet};

    use super::*;
    use crate::config::tests::GOOD;
    use crate::http::fetch_status;
    use crate::peers::admin_client;

    async fn listener() -> quorate_net::Listener {
        let at = Endpoint::Tcp("127.0.0.1:0".to_owned());
        TokioNet.listen(&at).await.unwrap()
    }

    async fn listeners() -> Listeners {
        Listeners {
            read_write: listener().await,
            read_only: listener().await,
            feed: listener().await,
            own_feed: None,
            http: listener().await,
            gate: listener().await,
            grpc: listener().await,
        }
    }

    #[tokio::test]
    async fn a_node_that_waits_for_its_cluster_says_for_whom_and_then_leaves_its_ports() {
        let config = Config::parse(GOOD, std::path::Path::new("/nowhere")).unwrap();
        let waiting = Waiting::new(&config, Incarnation(7));
        let mut listeners = listeners().await;
        let (http, grpc) = (listeners.http.local.clone(), listeners.grpc.local.clone());
        let ask = async {
            let status = fetch_status(&TokioNet, &http).await.unwrap();
            let mut client = admin_client(&TokioNet, None, NodeId(1), &grpc);
            let reply = client.node_status(NodeStatusRequest {}).await.unwrap();
            (status, NodeReport::try_from(reply.into_inner()).unwrap())
        };
        let (status, report) = waiting.answer_until(&mut listeners, None, ask).await;
        let own = &status.nodes[0];
        assert_eq!((own.id, own.role.as_str()), (1, "repairing"));
        assert!(own.message.contains("node 2 (127.0.0.1:9001)"), "{own:?}");
        assert_eq!((report.cluster, report.node), (None, NodeId(1)));

        for listener in [&mut listeners.http, &mut listeners.grpc] {
            let connect = TokioNet.connect(&listener.local);
            let (connected, taken) = tokio::join!(connect, listener.incoming.next());
            assert!(connected.is_ok() && taken.is_some_and(|taken| taken.is_ok()));
        }
    }
}

use std::time::Duration;

use quorate_consensus::RaftService;
use quorate_net::{Listener, Tls};
use quorate_wire::v1::admin_server::AdminServer;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio::time::timeout;
use tonic::service::Routes;

use crate::admin::AdminService;
use crate::wiring::secure;

/// A peer that vanished is noticed within this.
const KEEP_ALIVE: Duration = Duration::from_secs(1);
/// How long requests that are being answered may take at a stop.
const STOP_MAX: Duration = Duration::from_secs(1);

/// The server of Raft's and the admin's requests. Its connections are tasks of their own, so it is
/// not enough to drop it.
pub(crate) struct GrpcServer {
    stop: oneshot::Sender<()>,
    task: JoinHandle<()>,
}

impl GrpcServer {
    /// Nothing here is generic: the servers below are then compiled in this crate, once.
    pub(crate) fn start(
        (raft_service, admin): (RaftService, AdminService),
        listener: Listener,
        tls: Option<Tls>,
        raft: &tokio::runtime::Handle,
    ) -> Self {
        let (stop, stopped) = oneshot::channel::<()>();
        let serve = tonic::transport::Server::builder()
            .http2_keepalive_interval(Some(KEEP_ALIVE))
            .http2_keepalive_timeout(Some(KEEP_ALIVE))
            .add_routes(Routes::new(raft_service).add_service(AdminServer::new(admin)))
            .serve_with_incoming_shutdown(secure(listener.incoming, tls), async {
                let _ = stopped.await;
            });
        let task = raft.spawn(async move {
            if let Err(error) = serve.await {
                tracing::error!(%error, "the gRPC server ended");
            }
        });
        Self { stop, task }
    }

    /// Takes no more requests, and returns when those that came are answered.
    pub(crate) async fn stop(self) {
        let _ = self.stop.send(());
        let mut task = self.task;
        if timeout(STOP_MAX, &mut task).await.is_err() {
            task.abort();
        }
    }
}

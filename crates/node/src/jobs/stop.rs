use std::time::Duration;

use quorate_mysqld::{Host, Signal};
use quorate_net::Net;
use tokio::time::timeout;

use super::{JobContext, JobError};
use crate::server::ServerState;

/// A server that was told to end and does not is killed: it recovers at its next start.
const SHUTDOWN_MAX: Duration = Duration::from_secs(60);
const ASK_MAX: Duration = Duration::from_secs(2);

impl<N: Net, H: Host> JobContext<N, H> {
    /// Ends the server for good. SIGTERM is only for one that is asked again and takes no writes;
    /// any other might answer commits that nobody accepted (A2).
    pub(super) async fn stop_server(
        &self,
        server: &mut ServerState<H>,
        clean: bool,
    ) -> Result<(), JobError> {
        self.doing("stopping mysqld");
        // A clone that was under way left its own server running.
        if let Err(error) = super::clone::clear_beside(&server.host).await {
            tracing::warn!("end the clone: {}", quorate_types::chain(&error));
        }
        let safe = clean && self.is_safe_replica(server).await;
        if let (true, Some(process)) = (safe, server.process()) {
            server.running.send_replace(None);
            self.end_sessions(server).await;
            server.forget_sessions();
            server.host.signal(&process, Signal::Terminate)?;
            if timeout(SHUTDOWN_MAX, server.host.exited(&process))
                .await
                .is_ok()
            {
                return Ok(());
            }
            server.host.signal(&process, Signal::Kill)?;
            server.host.exited(&process).await;
            return Ok(());
        }
        Ok(server.kill().await?)
    }

    /// A server that is to end waits ten seconds for its sessions, for idle ones too.
    async fn end_sessions(&self, server: &mut ServerState<H>) {
        let end = async {
            let session = server.session(&self.net).await.ok()?;
            session.end_foreign_sessions(&[]).await.ok()
        };
        // It ends without this too, only later.
        let _ = timeout(ASK_MAX, end).await;
    }

    async fn is_safe_replica(&self, server: &mut ServerState<H>) -> bool {
        let ask = async {
            server
                .session(&self.net)
                .await
                .ok()?
                .is_safe_replica()
                .await
                .ok()
        };
        timeout(ASK_MAX, ask).await == Ok(Some(true))
    }
}

use std::time::Duration;

use quorate_mysqld::Host;
use quorate_net::Net;
use quorate_types::Epoch;
use tokio::time::timeout;

use super::{JobContext, JobError};
use crate::server::ServerState;

impl<N: Net, H: Host> JobContext<N, H> {
    /// Stops or resumes the writes of a primary that stays one. Commits that are in flight end as
    /// always: `super_read_only=ON` waits for them, and succeeds when there are none.
    pub(super) async fn limit_writes(
        &self,
        server: &mut ServerState<H>,
        epoch: Epoch,
        stop: bool,
    ) -> Result<(), JobError> {
        let lock_wait_s = self.demote_bound.as_secs().max(1) as u32;
        let bound = self.demote_bound + Duration::from_secs(1);
        let limit = async {
            let session = server.session(&self.net).await?;
            if stop {
                session.set_read_only(lock_wait_s).await?;
            } else {
                // As at a promotion: whatever is written waits for its ACK.
                session.verify_semi_sync_source().await?;
                self.still_ours(epoch)?;
                session.set_writable().await?;
            }
            Ok::<_, JobError>(())
        };
        timeout(bound, limit)
            .await
            .map_err(|_| JobError::Failed(format!("no answer within {bound:?}")))??;
        match stop {
            true => tracing::warn!("the primary takes no writes: its log is near its budget"),
            false => tracing::info!("the primary takes writes again"),
        }
        Ok(())
    }
}

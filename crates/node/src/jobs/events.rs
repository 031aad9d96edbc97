use std::time::Duration;

use quorate_mysqld::Host;
use quorate_net::Net;
use quorate_types::Epoch;
use tokio::time::timeout;

use super::{JobContext, JobError};

/// One write for each event; nobody waits for them.
const EVENTS_MAX: Duration = Duration::from_secs(60);

impl<N: Net, H: Host> JobContext<N, H> {
    /// Once the gate is open: a server keeps the scheduled events of other primaries disabled, and
    /// as the primary it is the one that must run them.
    pub(crate) async fn enable_events(&self, epoch: Epoch) {
        if !self.enable_events {
            return;
        }
        let enable = async {
            let mut session = self.logins.control(&self.net).await?;
            Ok::<_, JobError>(session.enable_replica_events().await?)
        };
        match timeout(EVENTS_MAX, enable).await {
            Ok(Ok(0)) => {}
            Ok(Ok(count)) => tracing::info!(count, "enabled the scheduled events"),
            // The next primary does it.
            _ if self.still_ours(epoch).is_err() => {}
            Ok(Err(error)) => tracing::warn!(
                error = quorate_types::chain(&error),
                "scheduled events stay disabled"
            ),
            Err(_) => tracing::warn!("scheduled events stay disabled: no answer in {EVENTS_MAX:?}"),
        }
    }
}

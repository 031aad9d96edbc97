use std::time::Duration;

use quorate_mysqld::Host;
use quorate_net::Net;
use quorate_types::{GtidSet, Rule};
use tokio::time::timeout;

use super::{JobContext, JobError};
use crate::server::ServerState;

/// InnoDB shows its list of transactions from a cache that it renews only when nobody read it for
/// 100 ms: whoever looks more often sees for ever what was there at first.
const DRAIN_LOOK: Duration = Duration::from_millis(110);
const STEP_MAX: Duration = Duration::from_secs(5);

/// How long what was answered too early may take to be accepted.
const SALVAGE_MAX: Duration = Duration::from_secs(2);
/// How much of it may pass until no commit is on its way any more. No variable can be set while the
/// server switches semi-sync off, which takes up to a second.
const SALVAGE_END_MAX: Duration = Duration::from_millis(1_500);
const SALVAGE_LOOK: Duration = Duration::from_millis(10);

impl<N: Net, H: Host> JobContext<N, H> {
    /// Waits until no transaction of a client runs, for a bounded time. Clients go on meanwhile:
    /// under load some always run, and the last ones are cut off.
    pub(super) async fn drain(&self, server: &mut ServerState<H>) -> Result<(), JobError> {
        self.doing("letting running transactions end");
        let drain = async {
            let session = server.session(&self.net).await?;
            // Threads without a number are the server's own, and prepared XA transactions.
            let sql = "SELECT COUNT(*) FROM information_schema.innodb_trx \
                       WHERE trx_mysql_thread_id NOT IN (0, CONNECTION_ID())";
            loop {
                let open = session.run("count open transactions", sql).await?;
                if open.scalar().as_deref() == Some("0") {
                    return Ok(());
                }
                tokio::time::sleep(DRAIN_LOOK).await;
            }
        };
        // Whatever could not be waited for is cut off.
        timeout(self.drain_bound, drain).await.unwrap_or(Ok(()))
    }

    /// Waits until everything that was executed is accepted, for a bounded time: clients may have
    /// been told of it.
    pub(super) async fn salvage(&self, server: &mut ServerState<H>) -> Result<(), JobError> {
        self.doing("waiting until the log has what was answered");
        let salvage = async {
            // Nothing holds commits up any more. What sessions of the closed gate commit in the
            // engine after the last look only a clone can take back.
            let end = async {
                let session = server.session(&self.net).await?;
                Ok::<_, JobError>(session.set_read_only(1).await?)
            };
            if !matches!(timeout(SALVAGE_END_MAX, end).await, Ok(Ok(()))) {
                tracing::warn!("commits may still be on their way when the server is killed");
            }
            let session = server.session(&self.net).await?;
            while !self
                .accepted()
                .contains_set(&session.gtid_executed().await?)
            {
                tokio::time::sleep(SALVAGE_LOOK).await;
            }
            Ok::<_, JobError>(())
        };
        timeout(SALVAGE_MAX, salvage).await.unwrap_or_else(|_| {
            tracing::error!("commits were answered that the log does not have: they are lost");
            Ok(())
        })
    }

    /// `super_read_only=ON`; only its success proves that no commit is in flight (A9).
    pub(super) async fn end_writes(&self, server: &mut ServerState<H>) -> Result<(), JobError> {
        self.doing("ending writes");
        if !self.obeys(Rule::WritesEndBeforeTheEpoch) {
            return Ok(());
        }
        let lock_wait_s = self.demote_bound.as_secs().max(1) as u32;
        let bound = self.demote_bound + Duration::from_secs(1);
        let end = async {
            let session = server.session(&self.net).await?;
            Ok::<_, JobError>(session.set_read_only(lock_wait_s).await?)
        };
        timeout(bound, end)
            .await
            .map_err(|_| JobError::Failed("super_read_only=ON took too long".to_owned()))?
    }

    /// The rest of a demotion, after the end of the epoch was applied.
    pub(super) async fn demote(&self, server: &mut ServerState<H>) -> Result<(), JobError> {
        self.doing("becoming a replica");
        let feed = self.feed.clone();
        let accepted = self.accepted();
        let revert = async {
            let session = server.session(&self.net).await?;
            within(&session.gtid_executed().await?, &accepted)?;
            if self.obeys(Rule::ReplicasDoNotWait) {
                session.disable_semi_sync_source().await?;
            }
            within(&session.gtid_executed().await?, &accepted)?;
            session.start_replication(&feed, self.stream()).await?;
            Ok::<_, JobError>(())
        };
        let late = |_| JobError::Failed("becoming a replica took too long".to_owned());
        timeout(STEP_MAX, revert).await.map_err(late)??;
        // Its connection was the primary's replica until now.
        server.capture = None;
        self.doing("");
        Ok(())
    }
}

fn within(executed: &GtidSet, accepted: &GtidSet) -> Result<(), JobError> {
    if accepted.contains_set(executed) {
        return Ok(());
    }
    let more = executed.difference(accepted);
    Err(JobError::Failed(format!(
        "it executed transactions that were not accepted: {more}"
    )))
}

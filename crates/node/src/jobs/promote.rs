use std::time::Duration;

use quorate_mysqld::{Host, Marker, Session};
use quorate_net::Net;
use quorate_replication::{Capture, CaptureOptions};
use quorate_role::{Input, JobId};
use quorate_types::{Epoch, GtidSet, Rule};
use tokio::time::timeout;

use super::{JobContext, JobError};
use crate::adapters::EpochProposer;
use crate::server::ServerState;

/// How long one look at the applier may wait.
const CATCH_UP_LOOK_S: f64 = 0.5;
/// A server that does not do a step of control within this is of no use as a primary.
const STEP_MAX: Duration = Duration::from_secs(5);
const SESSIONS_LOOK: Duration = Duration::from_millis(5);
/// The source announces its dump at once.
const ATTACH_MAX: Duration = Duration::from_secs(2);

impl<N: Net, H: Host> JobContext<N, H> {
    /// DESIGN 4, Promotion, up to and with `super_read_only=OFF`.
    pub(super) async fn promote(
        &self,
        server: &mut ServerState<H>,
        id: JobId,
        epoch: Epoch,
    ) -> Result<(), JobError> {
        self.still_ours(epoch)?;
        // Nothing is accepted in this epoch before capture proposes, so the set stands still.
        let accepted = self.accepted();
        self.doing("waiting for replication to catch up");
        let net = self.net.clone();
        if self.obeys(Rule::CatchUpBeforePromotion) {
            self.catch_up(server.session(&net).await?, id, &accepted)
                .await?;
        }
        let switch = async {
            self.doing("becoming a source");
            // Opened before commits wait: account statements that do block every login.
            let login = server
                .logins
                .replica(&net, self.capture_server_id, self.capture_uuid);
            let connection = on_runtime(&self.raft, login).await?;
            let spare = server.spare.as_ref().map(Session::id);
            let keep: Vec<u64> = spare
                .into_iter()
                .chain(self.guard_sessions.borrow().iter().flatten().copied())
                .chain([u64::from(connection.connection_id())])
                .collect();
            let session = server.session(&net).await?;
            session.stop_replication_and_reset().await?;
            while session.end_foreign_sessions(&keep).await? > 0 {
                tokio::time::sleep(SESSIONS_LOOK).await;
            }
            if self.obeys(Rule::CommitsWait) {
                session.enable_semi_sync_source().await?;
            }
            Ok::<_, JobError>(connection)
        };
        let connection = timeout(STEP_MAX, switch)
            .await
            .map_err(|_| late("becoming a source"))??;
        let (accepted, first_number) =
            timeout(STEP_MAX, self.share_inert(server, epoch, &accepted))
                .await
                .map_err(|_| late("sharing transactions that change nothing"))??;
        let attach = self.attach(connection, epoch, &accepted, first_number);
        let capture = attach.await?;
        let go = async {
            let session = server.session(&net).await?;
            let executed = session.gtid_executed().await?;
            if executed != accepted && self.obeys(Rule::CatchUpBeforePromotion) {
                let errant = executed.difference(&accepted);
                return Err(JobError::Failed(format!(
                    "gtid_executed is not the accepted set: {errant} more, {} missing",
                    accepted.difference(&executed)
                )));
            }
            self.still_ours(epoch)?;
            mark_primary(server, epoch)?;
            capture.release();
            let session = server.session(&net).await?;
            session
                .limit_transactions(self.transaction_bytes_max)
                .await?;
            Ok(session.set_writable().await?)
        };
        timeout(STEP_MAX, go)
            .await
            .map_err(|_| late("taking writes"))??;
        self.watch_capture(&capture, epoch);
        server.capture = Some(capture);
        self.doing("");
        Ok(())
    }

    /// Waits until everything accepted is executed, as long as it takes: role control looks whether
    /// it gets nearer.
    async fn catch_up(
        &self,
        session: &mut Session,
        id: JobId,
        accepted: &GtidSet,
    ) -> Result<(), JobError> {
        let sql = format!("SELECT WAIT_FOR_EXECUTED_GTID_SET('{accepted}', {CATCH_UP_LOOK_S})");
        let mut missing = u64::MAX;
        loop {
            let look = session.run("wait for the accepted transactions", &sql);
            let reached = timeout(STEP_MAX, look)
                .await
                .map_err(|_| late("catching up"))??;
            if reached.scalar().as_deref() == Some("0") {
                return Ok(());
            }
            let executed = session.gtid_executed().await?;
            let left = accepted.difference(&executed).count();
            if left < missing {
                missing = left;
                let _ = self.inputs.send(Input::PromotionAdvanced { id }).await;
            }
        }
    }

    async fn attach(
        &self,
        connection: quorate_mysql_wire::ReplicaConnection,
        epoch: Epoch,
        accepted: &GtidSet,
        first_number: u64,
    ) -> Result<Capture, JobError> {
        let propose = EpochProposer {
            consensus: self.consensus.clone(),
            epoch,
        };
        let metrics = self.capture_metrics.clone();
        let start = Capture::start(
            connection,
            epoch,
            accepted,
            propose,
            CaptureOptions {
                first_number,
                left_out: self.left_out,
                ..self.capture
            },
            self.ack_delay.clone(),
            metrics,
        );
        let mut capture = on_runtime(&self.raft, start)
            .await
            .map_err(|error| JobError::Failed(quorate_types::chain(&error)))?;
        match timeout(ATTACH_MAX, capture.attached()).await {
            Ok(true) => Ok(capture),
            Ok(false) => {
                let why = capture.ended().borrow().as_ref().map(ToString::to_string);
                Err(JobError::Failed(
                    why.unwrap_or_else(|| "capture ended".to_owned()),
                ))
            }
            Err(_) => Err(late("attaching capture")),
        }
    }

    pub(super) fn still_ours(&self, epoch: Epoch) -> Result<(), JobError> {
        let view = self.consensus.view();
        let leading = view.borrow().is_leader && view.borrow().leader == Some(epoch.0.leader);
        let current = self.consensus.applied_state().borrow().epoch == Some(epoch);
        if leading && current {
            Ok(())
        } else {
            Err(JobError::EpochOver)
        }
    }

    fn watch_capture(&self, capture: &Capture, epoch: Epoch) {
        let (mut ended, inputs) = (capture.ended(), self.inputs.clone());
        let obeys = self.obeys(Rule::EpochEndsWithCapture);
        tokio::spawn(async move {
            match ended.wait_for(Option::is_some).await {
                Ok(why) => {
                    let why = why.as_ref().map(ToString::to_string).unwrap_or_default();
                    tracing::warn!(%epoch, "capture ended: {why}");
                }
                // Dropped by a job, which ends the epoch itself; or it died, which nobody else tells.
                Err(_) => tracing::debug!(%epoch, "capture is gone"),
            }
            if obeys {
                let _ = inputs.send(Input::CaptureStopped { epoch }).await;
            }
        });
    }
}

/// Polls the future here, but what it opens and spawns belongs to another runtime.
async fn on_runtime<F: Future>(runtime: &tokio::runtime::Handle, future: F) -> F::Output {
    let mut future = std::pin::pin!(future);
    std::future::poll_fn(|cx| {
        let _entered = runtime.enter();
        future.as_mut().poll(cx)
    })
    .await
}

fn late(what: &str) -> JobError {
    JobError::Failed(format!("{what} took too long"))
}

/// On disk before the first commit: a repair must know which epoch to wait for.
fn mark_primary<H: Host>(server: &ServerState<H>, epoch: Epoch) -> Result<(), JobError> {
    let marker = server.host.read_marker()?;
    let marker = marker.ok_or_else(|| JobError::Failed("the marker file is gone".to_owned()))?;
    server.host.write_marker(&Marker {
        last_epoch: Some(epoch),
        ..marker
    })?;
    Ok(())
}

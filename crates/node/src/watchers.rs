//! What happens to the server by itself: it hangs, its replication stops, it lags.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use quorate_consensus::Consensus;
use quorate_mysqld::{ControlError, Host, ReplicationStatus, Session};
use quorate_net::Net;
use quorate_role::{Defect, Input, Phase, ServerEvent};
use quorate_types::{GtidSet, Rule, chain};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, timeout};

use crate::driver::Control;
use crate::errant::never_accepted;
use crate::guard::GuardSessions;
use crate::inert::OwnGroups;
use crate::server::{Logins, Running};

/// A replica that hangs is in nobody's way: it gets more time than a primary.
const REPLICA_PATIENCE: u32 = 10;
/// Between two looks at a replica's threads.
const HEALTH: Duration = Duration::from_millis(100);
/// How long an applier may stand still with an error, which somebody may be looking at by hand.
const APPLIER_MAX: Duration = Duration::from_secs(2);
pub(crate) const ANSWER_MAX: Duration = Duration::from_secs(2);
/// How long the server's disk may take for one small synced write.
const DISK_MAX: Duration = Duration::from_secs(4);
const DISK_LOOK: Duration = Duration::from_secs(1);
/// Between two looks at all the settings that Quorate depends on.
const SETTINGS_LOOK: Duration = Duration::from_secs(3);

/// What is known of the server's data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Health {
    pub(crate) executed: GtidSet,
    pub(crate) version: String,
    pub(crate) uuid: Option<quorate_types::Uuid>,
    /// It answers, and as a replica it replicates.
    pub(crate) fit: bool,
    pub(crate) message: String,
}

pub(crate) struct Watcher<N, H: Host> {
    pub(crate) net: N,
    pub(crate) host: H,
    pub(crate) own_groups: OwnGroups,
    pub(crate) logins: Logins,
    pub(crate) running: watch::Receiver<Option<Running<H>>>,
    pub(crate) control: watch::Receiver<Control>,
    pub(crate) consensus: Consensus,
    pub(crate) inputs: mpsc::Sender<Input>,
    pub(crate) health: watch::Sender<Health>,
    pub(crate) probe_interval: Duration,
    pub(crate) probe_timeout: Duration,
    /// A file on the server's disk that is written again and again, if the host has one.
    pub(crate) disk_probe: Option<PathBuf>,
    pub(crate) left_out: Option<Rule>,
    /// Whether replication takes statements the next time it is started.
    pub(crate) met_statements: Arc<AtomicBool>,
    pub(crate) guard_sessions: watch::Sender<GuardSessions>,
}

/// In a replica's error if its source refused to go on.
const FEED_REFUSED: &str = "1236";

/// The last look at the server's settings.
struct Checked {
    at: Instant,
    wrong: Option<String>,
    /// Since when a replica's applier stands still with an error.
    applier_stopped: Option<Instant>,
}

impl<N: Net, H: Host> Watcher<N, H> {
    /// Asks the server for a sign of life on a session of its own, which cannot queue behind a
    /// commit that waits for its ACK.
    pub(crate) async fn probe(self: Arc<Self>) {
        let mut session: Option<Session> = None;
        let mut answered = Instant::now();
        loop {
            tokio::time::sleep(self.probe_interval).await;
            let ready = self
                .running
                .borrow()
                .as_ref()
                .is_some_and(|running| running.identity.is_some());
            if !ready || matches!(self.control.borrow().phase, Phase::Repairing { .. }) {
                session = None;
                answered = Instant::now();
                continue;
            }
            let patience = match self.control.borrow().phase {
                Phase::Replica => self.probe_timeout * REPLICA_PATIENCE,
                _ => self.probe_timeout,
            };
            let left = (answered + patience).saturating_duration_since(Instant::now());
            let ask = async {
                if session.is_none() {
                    session = self.logins.control(&self.net).await.ok();
                }
                match &mut session {
                    Some(open) => open.probe().await.is_ok(),
                    None => false,
                }
            };
            match timeout(left.max(self.probe_interval), ask).await {
                Ok(true) => answered = Instant::now(),
                // Refused or broken off: if the process ended, that is told elsewhere.
                Ok(false) => session = None,
                Err(_) => session = None,
            }
            if answered.elapsed() >= patience {
                tracing::warn!(?patience, "mysqld does not answer");
                let _ = self.inputs.send(Input::Server(ServerEvent::Hung)).await;
                answered = Instant::now();
            }
        }
    }

    /// Writes and syncs a small file beside the data: a disk that hangs stops commits, not queries.
    pub(crate) async fn probe_disk(self: Arc<Self>) {
        let Some(path) = self.disk_probe.clone() else {
            return;
        };
        loop {
            tokio::time::sleep(DISK_LOOK).await;
            if !matches!(
                self.control.borrow().phase,
                Phase::Primary { .. } | Phase::Draining { .. }
            ) {
                continue;
            }
            let path = path.clone();
            let write = tokio::task::spawn_blocking(move || {
                use std::io::Write;
                let mut file = std::fs::File::create(path)?;
                file.write_all(b"quorate\n")?;
                file.sync_data()
            });
            match timeout(DISK_MAX, write).await {
                Ok(Ok(Ok(()))) => {}
                // A write that fails is the server's to notice: it ends by itself.
                Ok(result) => tracing::warn!(?result, "the disk probe failed"),
                Err(_) => {
                    tracing::warn!("the server's disk does not answer");
                    let _ = self.inputs.send(Input::Server(ServerEvent::Hung)).await;
                }
            }
        }
    }

    /// Follows what the server executed, and whether a replica's threads run.
    pub(crate) async fn follow(self: Arc<Self>) {
        let mut session: Option<Session> = None;
        let mut running = self.running.clone();
        let mut checked = Checked {
            at: Instant::now(),
            wrong: None,
            applier_stopped: None,
        };
        loop {
            tokio::time::sleep(HEALTH).await;
            let identity = running
                .borrow_and_update()
                .as_ref()
                .and_then(|running| running.identity.clone());
            let Some(identity) = identity else {
                session = None;
                self.unfit(None);
                continue;
            };
            if session.is_none() {
                session = self.logins.control(&self.net).await.ok();
            }
            let Some(open) = &mut session else { continue };
            let replica = self.is_replica();
            match timeout(ANSWER_MAX, self.look(open, replica, &mut checked)).await {
                Ok(Ok((executed, mut fit, mut message))) => {
                    if let Some(errant) = self.errant(&executed, replica).await {
                        (fit, message) = (false, errant);
                    }
                    let version = identity.version_text.clone();
                    self.publish(Health {
                        executed,
                        version,
                        uuid: Some(identity.uuid),
                        fit,
                        message,
                    });
                    if replica && self.is_replica() {
                        let _ = self
                            .inputs
                            .send(Input::Server(ServerEvent::ReplicaHealth(fit)))
                            .await;
                    }
                }
                failed => {
                    session = None;
                    let message = match failed {
                        Ok(Err(error)) => chain(&error),
                        _ => "mysqld does not answer".to_owned(),
                    };
                    self.unfit(Some(message));
                }
            }
        }
    }

    async fn look(
        &self,
        session: &mut Session,
        replica: bool,
        checked: &mut Checked,
    ) -> Result<(GtidSet, bool, String), ControlError> {
        let executed = session.gtid_executed().await?;
        self.check(session, replica, checked).await?;
        if let Some(wrong) = &checked.wrong {
            return Ok((executed, false, wrong.clone()));
        }
        if !replica {
            checked.applier_stopped = None;
            // Its promotion waits for the applier.
            if self.is_promoting() {
                let status = session.replication_status().await?;
                self.watch_stream(&status).await;
            }
            return Ok((executed, true, String::new()));
        }
        let status = session.replication_status().await?;
        self.watch_stream(&status).await;
        self.watch_applier(&status, checked).await;
        if let Some(behind) = self.behind(&executed, &status).await {
            return Ok((executed, false, behind));
        }
        let mut message = String::new();
        if !status.is_healthy() {
            message = [&status.apply_error, &status.receive_error]
                .into_iter()
                .find(|error| !error.is_empty())
                .cloned()
                .unwrap_or_else(|| "replication is starting".to_owned());
        }
        Ok((executed, status.is_healthy(), message))
    }

    /// A replica that lacks what this node's log no longer has, and did not receive it before: its
    /// feed refused it for good.
    async fn behind(&self, executed: &GtidSet, status: &ReplicationStatus) -> Option<String> {
        let refused = !status.receiving && status.receive_error.contains(FEED_REFUSED);
        let lacks = !self.consensus.accepted_log().can_serve(executed);
        if !refused || !lacks || !self.is_replica() {
            return None;
        }
        let why = "it is too old: it lacks transactions that are no longer in the log".to_owned();
        let found = Input::Unmendable(Defect::Behind, why.clone());
        let _ = self.inputs.send(found).await;
        Some(why)
    }

    /// What a replica of rows cannot apply is no error of its data: it takes everything from now on.
    async fn watch_stream(&self, status: &ReplicationStatus) {
        let met = status.met_statements && (self.is_replica() || self.is_promoting());
        if met && !self.met_statements.swap(true, Ordering::Relaxed) {
            let event = Input::Server(ServerEvent::MetStatements);
            let _ = self.inputs.send(event).await;
        }
    }

    /// An applier that stopped with an error met other data than the accepted transactions made: its
    /// own retries are over, and nothing that it could be given would mend it.
    async fn watch_applier(&self, status: &ReplicationStatus, checked: &mut Checked) {
        if status.applying || status.apply_error.is_empty() {
            checked.applier_stopped = None;
            return;
        }
        let since = *checked.applier_stopped.get_or_insert_with(Instant::now);
        if since.elapsed() >= APPLIER_MAX {
            let why = format!(
                "it cannot apply an accepted transaction: {}",
                status.apply_error
            );
            let found = Input::Unmendable(Defect::Damaged, why);
            let _ = self.inputs.send(found).await;
        }
    }

    /// Looks at the settings again, if it is time; says once what is wrong, and that it no longer is.
    async fn check(
        &self,
        session: &mut Session,
        replica: bool,
        checked: &mut Checked,
    ) -> Result<(), ControlError> {
        if checked.at.elapsed() < SETTINGS_LOOK {
            return Ok(());
        }
        let mut wrong = session
            .check_settings()
            .await?
            .first()
            .map(|finding| format!("mysqld runs with {finding}"));
        if wrong.is_none() && replica && !session.is_safe_replica().await? && self.is_replica() {
            wrong = Some("mysqld, a replica, takes writes or is a semi-sync source".to_owned());
        }
        if wrong != checked.wrong {
            match &wrong {
                Some(wrong) => tracing::warn!("{wrong}"),
                None => tracing::info!("mysqld's settings are right again"),
            }
        }
        (checked.at, checked.wrong) = (Instant::now(), wrong);
        Ok(())
    }

    /// By what role control knows now: a look may be older than its last decision.
    fn is_replica(&self) -> bool {
        self.control.borrow().phase == Phase::Replica
    }

    fn is_promoting(&self) -> bool {
        matches!(self.control.borrow().phase, Phase::Promoting { .. })
    }

    /// Transactions that were never accepted, and are not inert. A set is judged only after applying
    /// a read index that was obtained after it was read.
    async fn errant(&self, executed: &GtidSet, replica: bool) -> Option<String> {
        let more = || executed.difference(&self.consensus.applied_state().borrow().accepted);
        let obeys = self.left_out != Some(Rule::ErrantIsCloned);
        if !replica || more().is_empty() || !obeys {
            return None;
        }
        let barrier = timeout(ANSWER_MAX, self.consensus.barrier()).await;
        barrier.ok()?.ok()?;
        match self.own_groups.errant(&self.host, &more()).await {
            Ok(errant) if errant.is_empty() => None,
            Ok(errant) => {
                let why = never_accepted(&errant);
                let found = Input::Unmendable(Defect::Errant, why.clone());
                let _ = self.inputs.send(found).await;
                Some(why)
            }
            Err(error) => Some(format!(
                "its transactions cannot be judged: {}",
                chain(&error)
            )),
        }
    }

    /// What it executed is still what was known last.
    fn unfit(&self, message: Option<String>) {
        let mut health = self.health.borrow().clone();
        health.fit = false;
        health.message = message.unwrap_or(health.message);
        self.publish(health);
    }

    fn publish(&self, health: Health) {
        self.health.send_if_modified(|known| {
            let changed = *known != health;
            *known = health;
            changed
        });
    }
}

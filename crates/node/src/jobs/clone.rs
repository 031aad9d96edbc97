use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use quorate_mysqld::{
    Beside, CloneProgress, Host, Session, Settings, Signal, ensure_stopped, unreachable_settings,
    wait_until_free,
};
use quorate_net::{Endpoint, Net, Tls};
use quorate_proxy::CloneWay;
use quorate_types::{GtidSet, NodeId, Secret, chain};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

use super::{JobContext, JobError};
use crate::cloning::Granted;
use crate::permit_client::{PermitClient, REPORT};
use crate::server::{Logins, START_LOOK, START_MAX, ServerError, ServerState};
use crate::watchers::Health;

/// Between two questions for a permit.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// The log tells of a permit at once, or its leader is gone.
const LEARN_MAX: Duration = Duration::from_secs(5);
const PROGRESS_LOOK: Duration = Duration::from_millis(500);
/// How long nothing may come from a donor whose gate cannot be reached.
const UNREACHABLE_MAX: Duration = Duration::from_secs(5);
/// How long a donor that failed is passed over if there is another.
const PASSED_OVER: Duration = Duration::from_secs(60);
const SHUTDOWN_MAX: Duration = Duration::from_secs(60);

/// What a clone needs beyond what every job has.
pub(crate) struct CloneParts {
    pub(crate) permits: PermitClient,
    pub(crate) tls: Option<Tls>,
    pub(crate) dial_gate: Arc<dyn Fn(NodeId) -> Option<Endpoint> + Send + Sync>,
    pub(crate) password: Secret,
    pub(crate) health: watch::Receiver<Health>,
    /// When a clone from them failed last.
    pub(crate) failed: Mutex<BTreeMap<NodeId, Instant>>,
    /// The last permit that this process keeps until its server has caught up; zero before any.
    pub(crate) kept: AtomicU64,
}

/// How far a clone is, for the leader: it changes while the clone gets on.
#[derive(Clone, Default)]
struct Progress {
    received_bytes: Arc<AtomicU64>,
    /// Seconds spent on what needs no donor, which has bounds of its own.
    local: Arc<AtomicU64>,
    waits_for_donor: Arc<AtomicBool>,
}

impl Progress {
    fn number(&self) -> u64 {
        if !self.waits_for_donor.load(Ordering::Relaxed) {
            self.local.fetch_add(1, Ordering::Relaxed);
        }
        self.received_bytes.load(Ordering::Relaxed) + self.local.load(Ordering::Relaxed)
    }
}

impl<N: Net, H: Host> JobContext<N, H> {
    /// Replaces the server's data by a copy of another's, by a permit of the log. The data folder
    /// is the old one until the copy was verified, and the new one from then on.
    pub(super) async fn clone_server(&self, server: &mut ServerState<H>) -> Result<(), JobError> {
        self.doing("asking for a permit to clone");
        let granted = self.permitted().await;
        let progress = Progress::default();
        let result = tokio::select! {
            biased;
            result = self.replace_data(server, granted, &progress) => result,
            why = self.permit_lost(granted, &progress) => Err(why),
        };
        // Whatever became of it, no server of it runs on.
        clear_beside(&server.host).await?;
        let accepted = match result {
            Ok(accepted) => accepted,
            Err(error) => {
                if !is_busy(&error) {
                    let mut failed = self.clone.failed.lock();
                    let failed = failed.as_mut().map_err(|error| error.get_mut());
                    let (Ok(failed) | Err(failed)) = failed;
                    failed.insert(granted.donor, Instant::now());
                }
                let error = JobError::Failed(format!(
                    "a copy of node {}: {}",
                    granted.donor,
                    chain(&error)
                ));
                self.doing("");
                return Err(error);
            }
        };
        self.clone
            .failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clear();
        self.keep_permit(granted.sequence, accepted);
        Ok(())
    }

    /// Keeps the permit that this node got before it was started anew, with its copy in place. Else
    /// nobody would give it back, and it would hold the log, and other members, until its time is over.
    pub(super) fn keep_permit_of_earlier_start(&self) {
        let state = self.consensus.applied_state().borrow().clone();
        let own = state.permits.current().filter(|(_, permit)| {
            (permit.recipient, permit.incarnation) == (self.node, self.incarnation)
        });
        if let Some((sequence, _)) = own {
            self.keep_permit(sequence, state.accepted.clone());
        }
    }

    fn keep_permit(&self, sequence: u64, accepted: Arc<GtidSet>) {
        if self.clone.kept.swap(sequence, Ordering::Relaxed) != sequence {
            let (permits, health) = (self.clone.permits.clone(), self.clone.health.clone());
            tokio::spawn(permits.keep_until_caught_up(sequence, accepted, health));
        }
    }

    /// Asks until there is a permit, and this node's log has it too.
    async fn permitted(&self) -> Granted {
        let mut last_reason = String::new();
        loop {
            let not_from = self.failed_donors();
            match self.clone.permits.ask(not_from).await {
                Ok(granted) => {
                    let mut state = self.consensus.applied_state();
                    let open = |sequence| sequence == Some(granted.sequence);
                    let learnt = state.wait_for(|state| {
                        open(state.permits.current().map(|(sequence, _)| sequence))
                    });
                    if matches!(timeout(LEARN_MAX, learnt).await, Ok(Ok(_))) {
                        return granted;
                    }
                }
                Err(reason) if reason != last_reason => {
                    self.doing(&reason);
                    last_reason = reason;
                }
                Err(_) => {}
            }
            tokio::time::sleep(ASK_AGAIN).await;
        }
    }

    fn failed_donors(&self) -> BTreeSet<NodeId> {
        let mut failed = self
            .clone
            .failed
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        failed.retain(|_, at| at.elapsed() < PASSED_OVER);
        failed.keys().copied().collect()
    }

    /// Reports progress; returns when the permit is no longer open.
    async fn permit_lost(&self, granted: Granted, progress: &Progress) -> JobError {
        loop {
            let open = self
                .clone
                .permits
                .report(granted.sequence, progress.number(), false);
            let told = open.await == Some(false);
            if told || !self.has_permit(granted) {
                return JobError::Failed("the leader ended the permit".to_owned());
            }
            tokio::time::sleep(REPORT).await;
        }
    }

    fn has_permit(&self, granted: Granted) -> bool {
        let state = self.consensus.applied_state();
        let current = state.borrow().permits.current();
        current.is_some_and(|(sequence, _)| sequence == granted.sequence)
    }

    /// Gives the accepted set as of when the copy was found to be within it.
    async fn replace_data(
        &self,
        server: &mut ServerState<H>,
        granted: Granted,
        progress: &Progress,
    ) -> Result<Arc<GtidSet>, JobError> {
        self.doing("stopping mysqld");
        server.kill().await?;
        ensure_stopped(&server.host).await?;
        wait_until_free(&server.host).await?;
        clear_beside(&server.host).await?;
        let settings = unreachable_settings(&server.settings);
        let logins = Logins {
            socket: Endpoint::Unix(settings.socket.clone()),
            ..server.logins.clone()
        };
        let cloned = server.host.beside(Beside::Cloned);
        self.copy(&server.host, &settings, &logins, granted, progress)
            .await?;
        self.doing("checking the copy");
        let accepted = self.verify(&cloned, &settings, &logins).await?;
        self.doing("putting the copy in place");
        // It was never primary: no epoch of its own can be under way.
        cloned.write_marker(&self.marker(None))?;
        if !self.has_permit(granted) {
            return Err(JobError::Failed("the permit ended".to_owned()));
        }
        server.host.replace_by(&cloned).await?;
        Ok(accepted)
    }

    /// Runs the clone on a server made from the seed.
    async fn copy(
        &self,
        host: &H,
        settings: &Settings,
        logins: &Logins,
        granted: Granted,
        progress: &Progress,
    ) -> Result<(), JobError> {
        self.doing("making a server that clones");
        let scratch = host.beside(Beside::Scratch);
        scratch.plant().await?;
        let process = start(&self.net, &scratch, settings, &logins.socket).await?;
        let mut session = logins.root(&self.net).await?;
        let mut watching = logins.root(&self.net).await?;
        let anywhere = Endpoint::Tcp("127.0.0.1:0".to_owned());
        let listener = self.net.listen(&anywhere).await;
        let listener = listener.map_err(|error| JobError::Failed(chain(&error)))?;
        let port = listener.local.port().unwrap_or_default();
        let way = CloneWay {
            net: self.net.clone(),
            tls: self.clone.tls.clone(),
            cluster: self.cluster,
            recipient: self.node,
            donor: granted.donor,
            gate: (self.clone.dial_gate)(granted.donor),
            received: progress.received_bytes.clone(),
            failure: Arc::default(),
        };
        let failure = way.failure.clone();
        self.doing(&format!("cloning from node {}", granted.donor));
        progress.waits_for_donor.store(true, Ordering::Relaxed);
        let folder = host.beside(Beside::Cloned).data_folder().to_owned();
        let copied = tokio::select! {
            biased;
            copied = clone_into(&mut session, port, &self.clone.password, &folder) => copied,
            why = self.watch_copy(&mut watching, granted, progress, &failure) => Err(why),
            () = way.run(listener) => Err(JobError::Failed("the way to the donor ended".to_owned())),
        };
        progress.waits_for_donor.store(false, Ordering::Relaxed);
        scratch.signal(&process, Signal::Kill)?;
        scratch.exited(&process).await;
        copied.map_err(|error| {
            // The server only knows that the connection ended.
            let why = failure
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .take();
            why.map_or(error, JobError::Failed)
        })
    }

    /// Shows how far the copy is; returns when the donor is out of reach.
    async fn watch_copy(
        &self,
        session: &mut Session,
        granted: Granted,
        progress: &Progress,
        failure: &Mutex<Option<String>>,
    ) -> JobError {
        let (mut received, mut since) = (0, Instant::now());
        loop {
            tokio::time::sleep(PROGRESS_LOOK).await;
            let now = progress.received_bytes.load(Ordering::Relaxed);
            if now != received {
                (received, since) = (now, Instant::now());
            }
            let asked = timeout(PROGRESS_LOOK, session.clone_progress()).await;
            if let Ok(Ok(told)) = asked {
                let local = told.is_local();
                progress.waits_for_donor.store(!local, Ordering::Relaxed);
                self.doing.send_replace(said(granted.donor, &told));
            }
            let why = failure
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .clone();
            if let Some(why) = why
                && since.elapsed() >= UNREACHABLE_MAX
            {
                return JobError::Failed(why);
            }
        }
    }

    /// Starts the copy where nobody reaches it: it must start, know the sidecar's accounts, and
    /// hold accepted transactions only, none of which is older than what the log still has.
    async fn verify(
        &self,
        cloned: &H,
        settings: &Settings,
        logins: &Logins,
    ) -> Result<Arc<GtidSet>, JobError> {
        if !cloned.claim()? {
            return Err(JobError::Failed("another process owns the copy".to_owned()));
        }
        let members = self.consensus.applied_state().borrow().members.clone();
        if let Some(uuid) = members
            .get(&self.node)
            .and_then(|member| member.server_uuid)
        {
            cloned.write_server_uuid(uuid)?;
        }
        let process = start(&self.net, cloned, settings, &logins.socket).await?;
        let mut session = logins.control(&self.net).await?;
        let executed = session.gtid_executed().await?;
        // A set is judged only after applying a read index obtained after it was read (A23).
        self.settle(None).await;
        let accepted = self.accepted();
        let errant = executed.difference(&accepted);
        if !errant.is_empty() {
            let why = format!("it has transactions that were never accepted: {errant}");
            return Err(JobError::Failed(why));
        }
        let seek = self.consensus.accepted_log().seek(&executed).await;
        seek.map_err(|error| JobError::Failed(format!("it is too old: {}", chain(&error))))?;
        let signal = match session.is_safe_replica().await? {
            true => Signal::Terminate,
            false => Signal::Kill,
        };
        drop(session);
        cloned.signal(&process, signal)?;
        if timeout(SHUTDOWN_MAX, cloned.exited(&process))
            .await
            .is_err()
        {
            cloned.signal(&process, Signal::Kill)?;
            cloned.exited(&process).await;
        }
        wait_until_free(cloned).await?;
        Ok(accepted)
    }
}

/// Whether the donor has not noticed yet that an earlier clone ended (its error 3634, which the
/// recipient's server wraps into its own): it is as good as before in a moment.
fn is_busy(error: &JobError) -> bool {
    chain(error).contains("Clone Donor Error: 3634")
}

/// Ends what an earlier clone left running, and removes its folders. The data folder stays.
pub(super) async fn clear_beside<H: Host>(host: &H) -> Result<(), JobError> {
    host.finish_replacement()?;
    for which in [Beside::Scratch, Beside::Cloned] {
        let beside = host.beside(which);
        ensure_stopped(&beside).await?;
        beside.wipe().await?;
    }
    Ok(host.remove_replaced().await?)
}

/// Starts a server that only this job knows, and waits until it answers.
async fn start<N: Net, H: Host>(
    net: &N,
    host: &H,
    settings: &Settings,
    socket: &Endpoint,
) -> Result<H::Process, JobError> {
    let process = host.start(settings).await?;
    let answers = async {
        while net.connect(socket).await.is_err() {
            tokio::time::sleep(START_LOOK).await;
        }
    };
    tokio::select! {
        biased;
        () = host.exited(&process) => return Err(ServerError::Ended.into()),
        answered = timeout(START_MAX, answers) => {
            answered.map_err(|_| ServerError::Late("start of mysqld", START_MAX))?;
        }
    }
    Ok(process)
}

async fn clone_into(
    session: &mut Session,
    port: u16,
    password: &Secret,
    folder: &Path,
) -> Result<(), JobError> {
    Ok(session.clone_into(port, password, folder).await?)
}

fn said(donor: NodeId, progress: &CloneProgress) -> String {
    let mib = |bytes: u64| bytes >> 20;
    let CloneProgress {
        stage,
        copied_bytes,
        estimated_bytes,
    } = progress;
    let stage = stage.to_lowercase();
    format!(
        "cloning from node {donor}: {} of {} MiB {stage}",
        mib(*copied_bytes),
        mib(*estimated_bytes),
    )
    .trim_end()
    .to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn progress_changes_by_itself_only_while_no_donor_is_waited_for() {
        let progress = Progress::default();
        assert!(progress.number() < progress.number());
        progress.waits_for_donor.store(true, Ordering::Relaxed);
        let before = progress.number();
        assert_eq!(progress.number(), before);
        progress.received_bytes.fetch_add(1, Ordering::Relaxed);
        assert!(progress.number() > before);
    }

    #[test]
    fn people_see_how_far_a_clone_is() {
        let told = CloneProgress {
            stage: "FILE COPY".to_owned(),
            copied_bytes: 45 << 20,
            estimated_bytes: 120 << 20,
        };
        assert_eq!(
            said(NodeId(2), &told),
            "cloning from node 2: 45 of 120 MiB file copy"
        );
    }
}

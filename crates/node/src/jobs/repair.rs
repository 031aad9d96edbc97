use std::sync::Arc;
use std::time::Duration;

use quorate_mysqld::{
    Accounts, Host, Marker, RepairReport, Repaired, cut_tail, ensure_stopped, wait_until_free,
};
use quorate_net::Net;
use quorate_role::Defect;
use quorate_types::{Epoch, Rule, chain};
use tokio::time::timeout;

use super::{JobContext, JobError};
use crate::errant::never_accepted;
use crate::server::{Running, ServerState};

/// A server that is adopted answers within this, or is killed (DESIGN 4).
const ADOPT_MAX: Duration = Duration::from_secs(2);
/// How long to wait before the log is asked again where it stands.
const BARRIER_RETRY: Duration = Duration::from_millis(50);

impl<N: Net, H: Host> JobContext<N, H> {
    /// Makes a following replica of whatever is there.
    pub(super) async fn repair(
        &self,
        server: &mut ServerState<H>,
        adopt: bool,
    ) -> Result<(), JobError> {
        server.forget_sessions();
        super::clone::clear_beside(&server.host).await?;
        self.own_groups.forget();
        if server.host.data_folder_exists() && !server.host.claim()? {
            return Err(JobError::Failed(
                "another process owns the data folder".to_owned(),
            ));
        }
        if adopt && self.adopt(server).await? {
            return self.follow(server).await;
        }
        self.doing("stopping mysqld");
        server.kill().await?;
        ensure_stopped(&server.host).await?;
        wait_until_free(&server.host).await?;
        let fresh = !server.host.data_folder_exists();
        if fresh {
            self.doing("making a data folder");
            server.host.plant().await?;
            server.host.write_marker(&self.marker(None))?;
        } else {
            let report = self.cut(server).await?;
            self.own_groups.note_inert(&report.inert);
        }
        self.doing("starting mysqld");
        server.start(&self.net).await?;
        self.watch_exit(server);
        // A start that was interrupted may have left the accounts half made.
        let control = server.logins.control(&self.net).await;
        if fresh || control.is_err() {
            self.make_accounts(server).await?;
        }
        self.follow(server).await
    }

    /// A server that was left running is kept if it is a replica that takes no writes.
    async fn adopt(&self, server: &mut ServerState<H>) -> Result<bool, JobError> {
        if !server.host.data_folder_exists() {
            return Ok(false);
        }
        self.own_marker(server)?;
        let Some(process) = server.host.adopt().await? else {
            return Ok(false);
        };
        server.running.send_replace(Some(Running {
            process: process.into(),
            identity: None,
            doomed: false,
        }));
        let obeys = self.obeys(Rule::AdoptOnlyReplicas);
        let ask = async {
            let mut session = server.logins.control(&self.net).await.ok()?;
            let safe = session.is_safe_replica().await.ok()?;
            (safe || !obeys).then_some(session)
        };
        let Ok(Some(session)) = timeout(ADOPT_MAX, ask).await else {
            tracing::warn!(
                "the mysqld that runs is no replica that takes no writes: it will be killed"
            );
            return Ok(false);
        };
        self.doing("adopting the mysqld that runs");
        server.control = Some(session);
        self.watch_exit(server);
        Ok(true)
    }

    /// The marker, which must say that the folder is this node's of this cluster.
    fn own_marker(&self, server: &ServerState<H>) -> Result<Marker, JobError> {
        let marker = server.host.read_marker()?.ok_or_else(|| {
            JobError::Failed(
                "the data folder has no marker of this node: it holds data of somebody else"
                    .to_owned(),
            )
        })?;
        if marker.cluster == self.cluster && marker.node != self.node {
            let why = format!("the data folder is a copy of node {}'s", marker.node);
            return Err(JobError::MustClone(Defect::Damaged, why));
        }
        if marker.cluster != self.cluster {
            return Err(JobError::Failed(format!(
                "the data folder belongs to node {} of cluster {}, this is node {} of cluster {}: it is \
                 left alone. Move it away, and this node gets the data anew",
                marker.node, marker.cluster, self.node, self.cluster,
            )));
        }
        // This start was counted in both folders before Raft began, if they go together.
        if marker.incarnation != self.incarnation || marker.start_counter != self.start_counter {
            return Err(JobError::MustClone(
                Defect::Damaged,
                "the data folder is not the one that goes with the Raft folder: it may be restored from \
                 an image"
                    .to_owned(),
            ));
        }
        Ok(marker)
    }

    /// Cuts off what is not accepted, once it is known what is.
    async fn cut(&self, server: &mut ServerState<H>) -> Result<RepairReport, JobError> {
        let marker = self.own_marker(server)?;
        self.doing("waiting for the log to tell what is accepted");
        self.settle(marker.last_epoch).await;
        self.doing("reading the binlog");
        let label = format!(
            "{}-{}",
            self.consensus.applied_state().borrow().index(),
            self.start_counter
        );
        let index = crate::adapters::Index {
            accepted: self.accepted(),
            checksums: self
                .consensus
                .accepted_log()
                .checksums()
                .await
                .map_err(|error| {
                    JobError::Failed(format!(
                        "read the index of accepted transactions: {}",
                        chain(&error)
                    ))
                })?,
        };
        match cut_tail(&server.host, label, index).await? {
            Repaired::MustClone(reason) => {
                Err(JobError::MustClone(Defect::Damaged, reason.to_string()))
            }
            Repaired::MayStart(report) => Ok(report),
        }
    }

    /// Applies through a read index obtained now, and on to the end of the server's last epoch:
    /// until then something of it may still become accepted (DESIGN 4, Repair).
    pub(super) async fn settle(&self, last_epoch: Option<Epoch>) {
        while let Err(error) = self.consensus.barrier().await {
            tracing::debug!(
                error = &error as &dyn std::error::Error,
                "no read index yet"
            );
            tokio::time::sleep(BARRIER_RETRY).await;
        }
        let mut applied = self.consensus.applied_state();
        let ended = |set_primary: Option<quorate_types::LogId>| match last_epoch {
            Some(epoch) => set_primary > Some(epoch.0),
            None => true,
        };
        // Whoever leads ends the epochs before it with its first entry.
        let _ = applied.wait_for(|applied| ended(applied.set_primary)).await;
    }

    /// Makes the sidecar's accounts on a new server.
    async fn make_accounts(&self, server: &ServerState<H>) -> Result<(), JobError> {
        self.doing("making the sidecar's accounts");
        let mut root = server.logins.root(&self.net).await?;
        let accounts = Accounts {
            control: server.logins.control.clone(),
            capture: server.logins.capture.clone(),
            clone: self.clone.password.clone(),
        };
        Ok(accounts.install(&mut root).await?)
    }

    /// Judges a running server, and lets it follow the feed.
    async fn follow(&self, server: &mut ServerState<H>) -> Result<(), JobError> {
        self.doing("checking mysqld");
        let process = server.process();
        let feed = self.feed.clone();
        let session = server.session(&self.net).await?;
        let findings = session.check_settings().await?;
        if let Some(finding) = findings.first() {
            return Err(JobError::Settings(finding.to_string()));
        }
        self.preflight(session).await?;
        let session = server.session(&self.net).await?;
        let identity = session.identity().await?;
        let executed = session.gtid_executed().await?;
        self.settle(None).await;
        let more = executed.difference(&self.accepted());
        let errant = self.own_groups.errant(&server.host, &more).await?;
        if !errant.is_empty() && self.obeys(Rule::ErrantIsCloned) {
            return Err(JobError::MustClone(Defect::Errant, never_accepted(&errant)));
        }
        if let Err(error) = self.consensus.accepted_log().seek(&executed).await {
            return Err(match error {
                quorate_consensus::ReadError::Purged { .. } => {
                    JobError::MustClone(Defect::Behind, format!("it is too old: {error}"))
                }
                error => JobError::Failed(format!("look for what it lacks: {}", chain(&error))),
            });
        }
        self.doing("starting replication");
        let session = server.session(&self.net).await?;
        session.start_replication(&feed, self.stream()).await?;
        self.keep_permit_of_earlier_start();
        server.spare = Some(server.logins.control(&self.net).await?);
        if let Some(process) = process {
            server.running.send_replace(Some(Running {
                process,
                identity: Some(identity),
                doomed: false,
            }));
        }
        self.doing("");
        Ok(())
    }

    /// Tells role control when this process ends.
    fn watch_exit(&self, server: &ServerState<H>) {
        let Some(process) = server.process() else {
            return;
        };
        let (host, running, inputs) = (
            server.host.clone(),
            server.running.clone(),
            self.inputs.clone(),
        );
        tokio::spawn(async move {
            host.exited(&process).await;
            let ours = running
                .borrow()
                .as_ref()
                .is_some_and(|now| Arc::ptr_eq(&now.process, &process) && !now.doomed);
            // One that a job killed is no news.
            if ours {
                tracing::warn!("mysqld exited");
                let _ = inputs
                    .send(quorate_role::Input::Server(
                        quorate_role::ServerEvent::Exited,
                    ))
                    .await;
            }
        });
    }
}

//! A cluster that begins with the data of one server (DESIGN 3, Baseline).

use std::time::Duration;

use quorate_consensus::{AppliedState, Consensus, ProposalFate};
use quorate_mysql_wire::ConnectOptions;
use quorate_mysqld::{
    Accounts, BinlogFiles, CONTROL_USER, ControlError, FirstSessionError, Host, HostError, Marker,
    Session, Settings, Severity, Signal, Version, ensure_stopped, first_session,
    unreachable_settings, wait_until_free,
};
use quorate_net::{Endpoint, Net};
use quorate_types::{Command, GtidSet, LeaderId, Outcome};
use tokio::time::timeout;

use crate::config::Secrets;
use crate::server::START_MAX;

/// It is the only voter: nothing but its own disk is waited for.
const LEAD_MAX: Duration = Duration::from_secs(30);
const SHUTDOWN_MAX: Duration = Duration::from_secs(600);
/// Nobody else is there whom `super_read_only=ON` could wait for.
const LOCK_WAIT_S: u32 = 5;

/// Why a server's data cannot be what a cluster begins with. Nothing was founded, unless it says so.
#[derive(Debug, thiserror::Error)]
pub enum ExistingError {
    #[error("look at the existing data")]
    Host(#[from] HostError),
    #[error("a server still uses the data folder: stop it cleanly first (mysqladmin shutdown)")]
    InUse,
    #[error("look for the binlog of the existing data")]
    Binlogs(#[source] std::io::Error),
    #[error(
        "the server of the existing data was not stopped cleanly, its binlog {0} is open: start it as \
         it was, and stop it (mysqladmin shutdown)"
    )]
    NotClosed(String),
    #[error("start a server on the existing data; its log says more")]
    Start(#[from] FirstSessionError),
    #[error("the server on the existing data takes longer than {0:?} to start or to stop")]
    Late(Duration),
    #[error("prepare the existing data")]
    Control(#[from] ControlError),
    #[error("the existing data must be changed before they are taken in:{0}")]
    Forbidden(String),
    #[error(
        "the log does not begin with these data, or somebody changed them since: remove the Raft \
         folder, if no other node ever joined, and found the cluster again"
    )]
    Changed,
    #[error(
        "this node does not lead, though it should be the only voter: was the cluster founded?"
    )]
    NoLeader,
}

/// What is known of the data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Baseline {
    pub(crate) executed: GtidSet,
    /// Of the names and types of all columns: which data they are, not each row of them.
    pub(crate) checksum: u64,
}

impl Baseline {
    /// What makes these data the beginning of the log; nothing if they are.
    fn begins(&self, state: &AppliedState) -> Result<Option<Command>, ExistingError> {
        let Some(checksum) = state.baseline_checksum else {
            return Ok(Some(Command::Baseline {
                gtid_set: self.executed.clone(),
                checksum: self.checksum,
            }));
        };
        // The marker is missing, so nothing was accepted since.
        match *state.accepted == self.executed && checksum == self.checksum {
            true => Ok(None),
            false => Err(ExistingError::Changed),
        }
    }
}

/// Whether the folder holds data that no sidecar ever owned.
pub(crate) fn is_there(host: &impl Host) -> Result<bool, HostError> {
    Ok(host.data_folder_exists() && host.read_marker()?.is_none())
}

/// Makes the sidecar's accounts on the data, and gives what they begin with.
///
/// The server runs where nobody reaches it and where no event does. Safe to repeat: it changes
/// nothing but the accounts, the binlog's files, and a set that was empty.
pub(crate) async fn prepare<N: Net, H: Host>(
    net: &N,
    host: &H,
    (settings, server_version): (&Settings, &str),
    secrets: &Secrets,
) -> Result<Baseline, ExistingError> {
    let version = Version::parse_supported(server_version).map_err(ControlError::from)?;
    if !host.claim()? {
        return Err(ExistingError::InUse);
    }
    if host.has_init_file() {
        // An attempt that was interrupted: the folder was closed before, and what may run on it, or
        // left its binlog open, is a server of ours that nobody reaches.
        ensure_stopped(host).await?;
    } else if !host.data_folder_is_free()? {
        return Err(ExistingError::InUse);
    } else {
        let open = host.with_binlogs(BinlogFiles::left_open).await;
        if let Some(file) = open.map_err(ExistingError::Binlogs)? {
            return Err(ExistingError::NotClosed(file));
        }
    }
    let accounts = Accounts {
        control: secrets.control.clone(),
        capture: secrets.capture.clone(),
        clone: secrets.clone.clone(),
    };
    let init_file = host.write_init_file(&accounts.script(version))?;
    let mut settings = unreachable_settings(settings);
    settings.extra.extend([
        "super-read-only=OFF".to_owned(),
        "read-only=OFF".to_owned(),
        "event-scheduler=OFF".to_owned(),
        format!("init-file={}", init_file.display()),
    ]);
    let process = host.start(&settings).await?;
    let prepared = async {
        let options = ConnectOptions {
            user: CONTROL_USER.to_owned(),
            password: secrets.control.clone(),
            secure_transport: true,
            ..ConnectOptions::default()
        };
        let socket = Endpoint::Unix(settings.socket.clone());
        let first = first_session(host, &process, net, &socket, &options);
        let late = |_| ExistingError::Late(START_MAX);
        let mut session = timeout(START_MAX, first).await.map_err(late)??;
        look_and_prepare(&mut session).await
    };
    let prepared = prepared.await;
    // Read-only by now, and never a semi-sync source; after an error whatever it was at is lost.
    let signal = match prepared {
        Ok(_) => Signal::Terminate,
        Err(_) => Signal::Kill,
    };
    host.signal(&process, signal)?;
    let ended = timeout(SHUTDOWN_MAX, host.exited(&process)).await;
    ended.map_err(|_| ExistingError::Late(SHUTDOWN_MAX))?;
    wait_until_free(host).await?;
    host.remove_init_file()?;
    prepared
}

async fn look_and_prepare(session: &mut Session) -> Result<Baseline, ExistingError> {
    let mut forbidden = String::new();
    for finding in session.preflight().await? {
        match finding.severity {
            Severity::Forbids => forbidden.push_str(&format!("\n  {finding}")),
            Severity::Warns | Severity::Notes => tracing::info!("existing data: {finding}"),
        }
    }
    if !forbidden.is_empty() {
        return Err(ExistingError::Forbidden(forbidden));
    }
    if session.gtid_executed().await?.is_empty() {
        // Without a GTID the data could not be told from those of a new server.
        session.commit_empty_transaction().await?;
    }
    session.purge_old_binlogs().await?;
    session.set_read_only(LOCK_WAIT_S).await?;
    Ok(Baseline {
        executed: session.gtid_executed().await?,
        checksum: session.schema_checksum().await?,
    })
}

/// The leadership of a node that is the only voter, once all of its log is applied. None if the
/// log is past its beginning: a server was taken in already.
pub(crate) async fn lead(consensus: &Consensus) -> Result<Option<LeaderId>, ExistingError> {
    let mut view = consensus.view();
    let leads = async {
        let view = view.wait_for(|view| view.is_leader).await;
        let leader = view.ok().and_then(|view| view.leader);
        consensus.barrier().await.ok()?;
        leader
    };
    let leader = timeout(LEAD_MAX, leads).await.ok().flatten();
    let leader = leader.ok_or(ExistingError::NoLeader)?;
    let begun = consensus.applied_state().borrow().set_primary.is_some();
    Ok((!begun).then_some(leader))
}

/// Makes the data what the log begins with, and the folder this node's.
///
/// The marker comes last: without it no repair judges the folder, so none sees transactions that
/// are not accepted yet.
pub(crate) async fn found<H: Host>(
    consensus: &Consensus,
    leader: LeaderId,
    host: &H,
    baseline: Baseline,
    marker: &Marker,
) -> Result<(), ExistingError> {
    let state = consensus.applied_state().borrow().clone();
    if let Some(command) = baseline.begins(&state)? {
        let fate = async { consensus.propose(leader, command).await.await };
        match timeout(LEAD_MAX, fate).await {
            Ok(Ok(ProposalFate::Applied {
                outcome: Outcome::Done,
                ..
            })) => {}
            _ => return Err(ExistingError::NoLeader),
        }
    }
    host.write_marker(marker)?;
    let executed = &baseline.executed;
    tracing::info!(%executed, "the cluster begins with the data that were there");
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn baseline(executed: &str, checksum: u64) -> Baseline {
        Baseline {
            executed: executed.parse().unwrap(),
            checksum,
        }
    }

    /// As after a kill between the command and the marker.
    #[test]
    fn a_log_that_has_begun_is_that_of_the_same_data_only() {
        let data = "3e11fa47-71ca-11e1-9e33-c80aa9429562";
        let ours = baseline(&format!("{data}:1-7"), 11);
        let mut state = AppliedState::default();
        let command = Command::Baseline {
            gtid_set: ours.executed.clone(),
            checksum: 11,
        };
        assert_eq!(ours.begins(&state).unwrap(), Some(command));
        state.accepted = Arc::new(ours.executed.clone());
        state.baseline_checksum = Some(11);
        assert_eq!(ours.begins(&state).unwrap(), None);
        for other in [
            baseline(&format!("{data}:1-8"), 11),
            baseline(&format!("{data}:1-6"), 11),
            baseline(&format!("{data}:1-7"), 12),
        ] {
            let refused = other.begins(&state).unwrap_err().to_string();
            assert!(refused.contains("found the cluster again"), "{refused}");
        }
    }
}

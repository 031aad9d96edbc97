//! The last resort, offline: a survivor becomes a cluster of its own.

use quorate_consensus::{RecoverError, SoleVoter, sole_voter};
use quorate_mysqld::{Host, HostError, Marker};
use quorate_net::Net;
use quorate_storage::LogDisk;
use quorate_types::{ClusterId, LogId, Member, NodeId, SplitMix64, Standing};

use crate::cluster_id::{ClusterFinder, LAST_ANSWER_MAX};
use crate::config::Config;
use crate::identity::{Identity, IdentityError};
use crate::parts::Parts;

/// Why no new cluster is made of what this node has.
#[derive(Debug, thiserror::Error)]
pub enum ForceError {
    #[error("load certificates")]
    Tls(#[from] quorate_net::TlsError),
    #[error("open the Raft log: does the node's sidecar run?")]
    Open(#[source] quorate_storage::Error),
    #[error("write the Raft log")]
    Disk(#[from] quorate_storage::Error),
    #[error(transparent)]
    Identity(#[from] IdentityError),
    #[error("use the data folder")]
    Host(#[from] HostError),
    #[error(transparent)]
    Recover(#[from] RecoverError),
    #[error("a witness has no data: recover a node that has a server")]
    Witness,
    #[error("this node was never in a cluster: there is nothing to recover")]
    NoCluster,
    #[error(
        "node {node} answers and is in cluster {cluster}: this is for when nothing else is left. Stop \
         it, and make sure that it is never started again with its folders"
    )]
    PeerAnswers { node: NodeId, cluster: ClusterId },
    #[error("another process owns the data folder")]
    FolderInUse,
    #[error(
        "the data folder is not the one that goes with the Raft folder: it may be restored from an \
         image, or another node's"
    )]
    AnotherFolder,
}

/// What was, or would be, done.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forced {
    pub before: ClusterId,
    pub after: ClusterId,
    /// The last entry of the log, which stays.
    pub last: LogId,
    /// Up to where the log was known to be committed.
    pub committed: Option<LogId>,
}

/// Makes this node, which does not run, the only member of a new cluster with the log and the data
/// that it has. Without `carry_out` it only looks whether it could.
///
/// **Crash.** Killed at any moment, it can be run again: the Raft folder changes in one synced group,
/// and the data folder's marker after it.
///
/// # Errors
/// If something speaks against it.
pub async fn force_new_cluster<N: Net, H: Host, D: LogDisk>(
    config: &Config,
    parts: Parts<N, H, D>,
    carry_out: bool,
) -> Result<Forced, ForceError> {
    if config.witness {
        return Err(ForceError::Witness);
    }
    let load = |tls: &crate::config::Tls| quorate_net::Tls::load(&tls.ca, &tls.cert, &tls.key);
    let tls = config.tls.as_ref().map(load).transpose()?;
    let find = ClusterFinder {
        net: &parts.net,
        config,
        tls: tls.as_ref(),
    };
    let mut disk = (parts.open_log)().map_err(ForceError::Open)?;
    let identity = Identity::read(&disk, config.node)?.ok_or(ForceError::NoCluster)?;
    let before = identity.cluster.ok_or(ForceError::NoCluster)?;
    if let Some((node, cluster)) = find.ask_all(LAST_ANSWER_MAX).await {
        return Err(ForceError::PeerAnswers { node, cluster });
    }
    let marker = own_marker(&parts.host, &identity)?;
    let after = ClusterId(SplitMix64::new(parts.seed).next_u64());
    let member = Member {
        incarnation: identity.incarnation,
        address: config.listen.grpc.to_string(),
        gate_address: config.listen.gate.to_string(),
        mysql_address: config.mysql_address(),
        apply_level: quorate_consensus::apply::APPLY_LEVEL,
        standing: Standing::Voter,
        ..Member::default()
    };
    let SoleVoter {
        last,
        committed,
        mut writes,
    } = sole_voter(&disk.reader(), config.node, &member)?;
    let forced = Forced {
        before,
        after,
        last,
        committed,
    };
    if !carry_out {
        return Ok(forced);
    }
    let renamed = Identity {
        cluster: Some(after),
        ..identity
    };
    writes.push(renamed.to_write());
    disk.write(writes)?;
    disk.sync()?;
    if let Some(marker) = marker {
        parts.host.write_marker(&Marker {
            cluster: after,
            ..marker
        })?;
    }
    Ok(forced)
}

/// The data folder's marker, if there is a folder. It must be the one that goes with the Raft folder;
/// its cluster may be the one before, of a run that was killed half way.
fn own_marker(host: &impl Host, identity: &Identity) -> Result<Option<Marker>, ForceError> {
    host.finish_replacement()?;
    if !host.data_folder_exists() {
        return Ok(None);
    }
    if !host.claim()? {
        return Err(ForceError::FolderInUse);
    }
    let Some(marker) = host.read_marker()? else {
        return Err(ForceError::AnotherFolder);
    };
    let pair = (marker.node, marker.incarnation) == (identity.node, identity.incarnation);
    let counted = (identity.marked..=identity.start_counter).contains(&marker.start_counter);
    match pair && counted {
        true => Ok(Some(marker)),
        false => Err(ForceError::AnotherFolder),
    }
}

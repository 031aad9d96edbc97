//! The recipient's side of a permit to clone: asks whoever leads, and says how far it is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::Consensus;
use quorate_types::{ClusterId, GtidSet, Incarnation, NodeId};
use quorate_wire::v1::CloneRequest;
use tokio::sync::watch;
use tokio::time::timeout;

use crate::admin::Forward;
use crate::cloning::{Ask, ClonePermits, Granted};
use crate::server::START_MAX;
use crate::watchers::Health;

const ANSWER_MAX: Duration = Duration::from_secs(12);
/// Between two reports of progress.
pub(crate) const REPORT: Duration = Duration::from_secs(1);

#[derive(Clone)]
pub(crate) struct PermitClient {
    pub(crate) node: NodeId,
    pub(crate) incarnation: Incarnation,
    pub(crate) cluster: ClusterId,
    /// Of this node's mysqld.
    pub(crate) server_version: String,
    pub(crate) consensus: Consensus,
    /// Asked if this node leads.
    pub(crate) permits: Arc<ClonePermits>,
    pub(crate) forward: Forward,
}

impl PermitClient {
    /// A permit, or why there is none now.
    pub(crate) async fn ask(&self, not_from: BTreeSet<NodeId>) -> Result<Granted, String> {
        let leader = self.leader()?;
        if leader == self.node {
            let ask = Ask {
                node: self.node,
                incarnation: self.incarnation,
                server_version: self.server_version.clone(),
                not_from,
            };
            return self
                .permits
                .ask(&ask)
                .await
                .map_err(|error| error.to_string());
        }
        let request = CloneRequest {
            not_from: not_from.into_iter().map(|node| node.0).collect(),
            ..self.request()
        };
        self.send(leader, request).await?
    }

    /// Whether the permit is still open, as far as a leader answers.
    pub(crate) async fn report(
        &self,
        sequence: u64,
        progress: u64,
        finished: bool,
    ) -> Option<bool> {
        let leader = self.leader().ok()?;
        if leader == self.node {
            let report = self.permits.report(self.node, sequence, progress, finished);
            return report.await.ok().map(|granted| granted.is_some());
        }
        let request = CloneRequest {
            sequence: Some(sequence),
            progress,
            finished,
            ..self.request()
        };
        match self.send(leader, request).await {
            Ok(answer) => Some(answer.is_ok()),
            Err(_) => None,
        }
    }

    /// Keeps the permit, and with it the log after its pin, until the server that was cloned has
    /// executed `accepted`; then gives it back.
    pub(crate) async fn keep_until_caught_up(
        self,
        sequence: u64,
        accepted: Arc<GtidSet>,
        health: watch::Receiver<Health>,
    ) {
        let started = tokio::time::Instant::now();
        loop {
            let (caught_up, progress) = {
                let health = health.borrow();
                let starts = !health.fit && started.elapsed() < START_MAX;
                let ticks = if starts {
                    started.elapsed().as_secs()
                } else {
                    0
                };
                let caught_up = health.fit && health.executed.contains_set(&accepted);
                (caught_up, health.executed.count() + ticks)
            };
            let open = self.report(sequence, progress, caught_up).await;
            if open == Some(false) {
                return;
            }
            tokio::time::sleep(REPORT).await;
        }
    }

    fn leader(&self) -> Result<NodeId, String> {
        let leader = self.consensus.view().borrow().leader;
        let leader = leader.map(|leader| leader.node);
        leader.ok_or_else(|| "waiting for a leader".to_owned())
    }

    fn request(&self) -> CloneRequest {
        CloneRequest {
            cluster_id: self.cluster.0,
            node: self.node.0,
            incarnation: self.incarnation.0,
            server_version: self.server_version.clone(),
            ..CloneRequest::default()
        }
    }

    /// The answer of the node that leads: the permit, or why there is none. The outer error means
    /// that it did not answer as a leader.
    async fn send(
        &self,
        leader: NodeId,
        request: CloneRequest,
    ) -> Result<Result<Granted, String>, String> {
        let silent = || format!("node {leader}, which leads, does not answer");
        let mut client = (self.forward)(leader).ok_or_else(silent)?;
        let answer = timeout(ANSWER_MAX, client.clone_server(request)).await;
        let reply = match answer {
            Ok(Ok(reply)) => reply.into_inner(),
            Ok(Err(status)) => return Err(format!("node {leader}: {}", status.message())),
            Err(_) => return Err(silent()),
        };
        Ok(match reply.sequence {
            Some(sequence) => Ok(Granted {
                sequence,
                donor: NodeId(reply.donor),
            }),
            None => Err(reply.reason),
        })
    }
}

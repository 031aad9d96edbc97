//! Compares the tables of the primary with those of the replicas, one after the other.
//!
//! While one table is looked at, writes to it wait: until each replica has executed what the
//! primary had, and both have a snapshot. Then they go on, and the snapshots are read. So both
//! sides read the table as it was at one moment of the log, however busy it is.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use quorate_mysqld::{ControlError, Session, TableName};
use quorate_net::Net;
use quorate_proxy::RoleWatch;
use quorate_types::{GtidSet, NodeId, Role, chain};
use quorate_wire::v1::{
    ChecksumTableReply, ChecksumTableRequest, VerdictRequest, VerifyReply, VerifyRequest,
};
use tokio::sync::{Mutex, mpsc, watch};
use tokio::time::{Instant, timeout};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::admin::Forward;
use crate::roles::Roles;
use crate::server::Logins;

/// How long a table may be kept locked: shorter than a demotion waits for such a lock.
const HOLD_MAX: Duration = Duration::from_secs(1);
/// How long the lock itself may be waited for: new writers queue behind.
const LOCK_WAIT_S: u32 = 1;
const STEP_MAX: Duration = Duration::from_secs(5);
/// A large table takes its time, on both sides alike.
const CHECKSUM_MAX: Duration = Duration::from_secs(6 * 60 * 60);
/// In the background: after each table so many times as long as it took.
const REST: u32 = 4;
const REST_MIN: Duration = Duration::from_millis(100);
const REPLIES: usize = 16;

pub(crate) type Verified = Result<VerifyReply, Status>;
pub(crate) type Checksummed = Result<ChecksumTableReply, Status>;
/// The tables in which this server differs from the primary.
pub(crate) type Differs = watch::Sender<BTreeSet<String>>;

#[derive(Clone)]
pub(crate) struct Verifier<N> {
    pub(crate) node: NodeId,
    pub(crate) net: N,
    pub(crate) logins: Logins,
    pub(crate) roles: Roles,
    pub(crate) forward: Forward,
    pub(crate) differs: Arc<Differs>,
    pub(crate) one_at_a_time: Arc<Mutex<()>>,
}

/// A replica that has its snapshot, and what it sends next.
type Waiting = (NodeId, tonic::Streaming<ChecksumTableReply>);

/// What came of one table on one node.
struct Outcome {
    node: NodeId,
    table: TableName,
    /// None if the two are equal.
    wrong: Option<String>,
    compared: bool,
}

impl<N: Net> Verifier<N> {
    /// Compares everything now, if this node is the primary; else its primary does.
    pub(crate) fn start(&self) -> ReceiverStream<Verified> {
        let (replies, receiver) = mpsc::channel(REPLIES);
        let verifier = self.clone();
        tokio::spawn(async move {
            let ran = match verifier.primary() {
                Some(primary) if primary == verifier.node => {
                    verifier.verify(Some(&replies), 0).await
                }
                Some(primary) => verifier.pass_on(primary, &replies).await,
                None => Err(Status::unavailable("there is no primary now")),
            };
            if let Err(status) = ran {
                let _ = replies.send(Err(status)).await;
            }
        });
        ReceiverStream::new(receiver)
    }

    /// Compares everything again and again, slowly, while this node is the primary.
    pub(crate) async fn run(self, every: Duration) {
        let mut next = Instant::now() + every;
        loop {
            tokio::time::sleep_until(next).await;
            next = Instant::now() + every;
            if self.primary() != Some(self.node) {
                continue;
            }
            match self.verify(None, REST).await {
                Ok(()) => tracing::info!("compared all tables with the replicas'"),
                Err(status) => {
                    tracing::info!("the comparison of tables ended: {}", status.message());
                }
            }
        }
    }

    fn primary(&self) -> Option<NodeId> {
        self.roles.view().borrow().primary
    }

    fn serves(&self) -> bool {
        let view = self.roles.view().borrow().clone();
        let own = view.nodes.get(&self.node);
        view.primary == Some(self.node) && own.is_some_and(|own| own.role == Role::Primary)
    }

    async fn pass_on(
        &self,
        primary: NodeId,
        replies: &mpsc::Sender<Verified>,
    ) -> Result<(), Status> {
        let client = (self.forward)(primary);
        let mut client = client.ok_or_else(|| Status::unavailable("the primary is not known"))?;
        let mut answers = client.verify(VerifyRequest {}).await?.into_inner();
        while let Some(answer) = answers.message().await? {
            if replies.send(Ok(answer)).await.is_err() {
                return Ok(());
            }
        }
        Ok(())
    }

    async fn verify(
        &self,
        replies: Option<&mpsc::Sender<Verified>>,
        rest: u32,
    ) -> Result<(), Status> {
        let Ok(_turn) = self.one_at_a_time.try_lock() else {
            return Err(Status::failed_precondition("a comparison is under way"));
        };
        let mut session = self.session().await?;
        let tables = session.base_tables().await;
        for table in tables.map_err(|error| failed(&error))? {
            if !self.serves() {
                return Err(Status::unavailable("this node is the primary no more"));
            }
            let began = Instant::now();
            for outcome in self.table(&table).await? {
                self.tell(&outcome).await;
                let Some(replies) = replies else { continue };
                let reply = VerifyReply {
                    node: outcome.node.0,
                    table: outcome.table.to_string(),
                    compared: outcome.compared,
                    wrong: outcome.wrong.unwrap_or_default(),
                };
                if replies.send(Ok(reply)).await.is_err() {
                    return Ok(());
                }
            }
            if rest > 0 {
                tokio::time::sleep((began.elapsed() * rest).max(REST_MIN)).await;
            }
        }
        Ok(())
    }

    async fn session(&self) -> Result<Session, Status> {
        let session = self.logins.control(&self.net).await;
        session.map_err(|error| Status::unavailable(chain(&error)))
    }

    fn replicas(&self) -> Vec<NodeId> {
        let view = self.roles.view().borrow().clone();
        let nodes = view.nodes.iter();
        nodes
            .filter(|(id, node)| **id != self.node && node.role == Role::Replica && node.healthy)
            .map(|(id, _)| *id)
            .collect()
    }

    /// Whatever happens, the lock goes with its session.
    async fn table(&self, table: &TableName) -> Result<Vec<Outcome>, Status> {
        let outcome = |node, compared, wrong: Option<String>| Outcome {
            node,
            table: table.clone(),
            wrong,
            compared,
        };
        let replicas = self.replicas();
        let mut locking = self.session().await?;
        let mut reading = self.session().await?;
        let lock = timeout(STEP_MAX, locking.lock_table(table, LOCK_WAIT_S)).await;
        if !matches!(lock, Ok(Ok(()))) {
            let busy = "not compared: a transaction holds it, or it is gone";
            let all = replicas.iter();
            let all = all.map(|node| outcome(*node, false, Some(busy.to_owned())));
            return Ok(all.collect());
        }
        let mut outcomes = Vec::new();
        let snapshots = async {
            reading.begin_snapshot().await?;
            let executed = reading.gtid_executed().await?;
            let asked = replicas
                .iter()
                .map(|node| self.ask(*node, table, &executed));
            Ok::<_, ControlError>(futures_util::future::join_all(asked).await)
        };
        let snapshots = timeout(HOLD_MAX, snapshots).await;
        // If it cannot be told, the end of its session tells it.
        let _ = timeout(STEP_MAX, locking.unlock_table()).await;
        drop(locking);
        let mut waiting = Vec::new();
        for (node, asked) in replicas.iter().zip(match snapshots {
            Ok(snapshots) => snapshots.map_err(|error| failed(&error))?,
            Err(_) => return Err(Status::unavailable("the primary's server is too slow now")),
        }) {
            match asked {
                Ok(stream) => waiting.push(stream),
                Err(why) => {
                    outcomes.push(outcome(*node, false, Some(format!("not compared: {why}"))));
                }
            }
        }
        let own = timeout(CHECKSUM_MAX, reading.checksum_table(table)).await;
        let own = own.map_err(|_| Status::deadline_exceeded("a checksum takes too long"))?;
        let own = own.map_err(|error| failed(&error))?.unwrap_or_default();
        for (node, mut stream) in waiting {
            let answer = timeout(CHECKSUM_MAX, stream.message()).await;
            outcomes.push(match answer {
                Ok(Ok(Some(reply))) if reply.checksum == own => outcome(node, true, None),
                Ok(Ok(Some(reply))) => {
                    let what = format!(
                        "its checksum is {}, the primary's is {own}",
                        or_none(&reply.checksum)
                    );
                    outcome(node, true, Some(what))
                }
                _ => outcome(
                    node,
                    false,
                    Some("not compared: it gave no answer".to_owned()),
                ),
            });
        }
        Ok(outcomes)
    }

    /// Returns when the replica has its snapshot.
    async fn ask(
        &self,
        node: NodeId,
        table: &TableName,
        executed: &GtidSet,
    ) -> Result<Waiting, String> {
        let mut client = (self.forward)(node).ok_or("it is not known here")?;
        let request = ChecksumTableRequest {
            schema: table.schema.clone(),
            table: table.table.clone(),
            executed_gtid_set: executed.to_wire().into(),
        };
        let ready = async {
            let mut stream = client.checksum_table(request).await?.into_inner();
            stream.message().await?;
            Ok::<_, Status>(stream)
        };
        match timeout(HOLD_MAX * 8 / 10, ready).await {
            Ok(Ok(stream)) => Ok((node, stream)),
            Ok(Err(status)) => Err(status.message().to_owned()),
            Err(_) => Err("it lags".to_owned()),
        }
    }

    async fn tell(&self, outcome: &Outcome) {
        let Outcome {
            node,
            table,
            wrong,
            compared,
        } = outcome;
        if !compared {
            return;
        }
        if let Some(wrong) = wrong {
            tracing::error!(%node, %table, "a replica's table differs: {wrong}");
        }
        let request = VerdictRequest {
            table: table.to_string(),
            wrong: wrong.clone().unwrap_or_default(),
        };
        if let Some(mut client) = (self.forward)(*node) {
            let _ = timeout(STEP_MAX, client.tell_verdict(request)).await;
        }
    }

    /// A replica's part: a snapshot once it has executed the set, then the checksum.
    pub(crate) fn checksum(&self, request: ChecksumTableRequest) -> ReceiverStream<Checksummed> {
        let (replies, receiver) = mpsc::channel(REPLIES);
        let verifier = self.clone();
        tokio::spawn(async move {
            if let Err(status) = verifier.snapshot(request, &replies).await {
                let _ = replies.send(Err(status)).await;
            }
        });
        ReceiverStream::new(receiver)
    }

    async fn snapshot(
        &self,
        request: ChecksumTableRequest,
        replies: &mpsc::Sender<Checksummed>,
    ) -> Result<(), Status> {
        let table = TableName {
            schema: request.schema,
            table: request.table,
        };
        let executed = GtidSet::try_from_wire(&request.executed_gtid_set)
            .map_err(|error| Status::invalid_argument(error.to_string()))?;
        let mut session = self.session().await?;
        let there = session.executes(&executed, HOLD_MAX.as_secs_f64()).await;
        if !there.map_err(|error| failed(&error))? {
            return Err(Status::unavailable("it lags"));
        }
        let begun = session.begin_snapshot().await;
        begun.map_err(|error| failed(&error))?;
        let _ = replies.send(Ok(ChecksumTableReply::default())).await;
        let checksum = tokio::select! {
            biased;
            () = replies.closed() => return Ok(()),
            checksum = session.checksum_table(&table) => checksum,
        };
        let reply = ChecksumTableReply {
            checksum: checksum
                .map_err(|error| failed(&error))?
                .unwrap_or_default(),
        };
        let _ = replies.send(Ok(reply)).await;
        session.end_snapshot().await.map_err(|error| failed(&error))
    }

    /// What the primary found out about this node.
    pub(crate) fn on_verdict(&self, verdict: VerdictRequest) {
        let VerdictRequest { table, wrong } = verdict;
        if wrong.is_empty() {
            self.differs.send_if_modified(|known| known.remove(&table));
        } else {
            tracing::error!(table, "a table differs from the primary's: {wrong}");
            self.differs.send_if_modified(|known| known.insert(table));
        }
    }
}

fn or_none(checksum: &str) -> &str {
    match checksum {
        "" => "none, it has no such table",
        checksum => checksum,
    }
}

fn failed(error: &ControlError) -> Status {
    Status::unavailable(chain(error))
}

//! Compares the tables of the primary with those of the replicas, one after the other.
//!
//! While one table is looked at, writes to it wait: until each replica has executed what the
//! primary had, and both have a snapshot. Then they go on, and the snapshots are read. So both
//! sides read the table as it was at one moment of the log, however busy it is.
//!
//! # Invariants
//! - Writers of a table wait for [`HOLD_MAX`] at most, and not past the gate's closing; the lock's session
//!   ends by itself if this process stands still.
//! - What was not surely at one moment is not compared. In doubt nothing is said to differ.
//! - A snapshot ends with whoever wanted it, with the epoch, and when a statement waits for a table.

mod snapshot;
mod verdicts;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use quorate_consensus::AppliedState;
use quorate_mysqld::{BaseTable, ControlError, Session, TableName, Version};
use quorate_net::Net;
use quorate_proxy::RoleWatch;
use quorate_types::{Epoch, GtidSet, NodeId, Role, chain};
use quorate_wire::v1::{
    ChecksumTableReply, ChecksumTableRequest, VerdictRequest, VerifyReply, VerifyRequest,
};
use tokio::sync::{Mutex, Semaphore, mpsc, watch};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use crate::admin::Forward;
use crate::roles::Roles;

pub(crate) use self::snapshot::Server;
use self::snapshot::Snapshot;
use self::verdicts::{Outcome, Tally, Verdict, keep};

/// How long writers of a table may wait in all: for the lock behind which they queue, and while it is
/// held. `super_read_only=ON` waits behind them, for a second at least (`timing.demote_bound_ms`).
const HOLD_MAX: Duration = Duration::from_millis(900);
/// How much of it the lock may be waited for.
const LOCK_WAIT: Duration = Duration::from_millis(400);
/// How much of it remains when the last replica's answer is waited for.
const TO_LET_GO: Duration = Duration::from_millis(100);
/// For what takes a moment unless something is wrong.
const STEP_MAX: Duration = Duration::from_secs(5);
const NO_ANSWER: &str = "its server does not answer";
/// In the background: after each table so many times as long as it took.
const REST: u32 = 4;
const REST_MIN: Duration = Duration::from_millis(100);
/// How often a table is tried, if nothing large was read in vain.
const TRIES: u32 = 3;
const TRY_AGAIN_MAX: Duration = Duration::from_secs(10);
const BEFORE_NEXT_TRY: Duration = Duration::from_millis(500);
const REPLIES: usize = 16;
/// Snapshots that other nodes may have of this one's server at once: one, and one that is ending.
pub(crate) const PLACES: usize = 2;

pub(crate) type Verified = Result<VerifyReply, Status>;
pub(crate) type Checksummed = Result<ChecksumTableReply, Status>;
/// The tables in which this server differs from the primary.
pub(crate) type Differs = watch::Sender<BTreeSet<String>>;
pub(crate) type State = watch::Receiver<Arc<AppliedState>>;

#[derive(Clone)]
pub(crate) struct Verifier<N> {
    pub(crate) node: NodeId,
    pub(crate) server: Server<N>,
    pub(crate) roles: Roles,
    pub(crate) state: State,
    pub(crate) forward: Forward,
    pub(crate) differs: Arc<Differs>,
    pub(crate) turns: Arc<Turns>,
    pub(crate) places: Arc<Semaphore>,
    /// How long one table may be read.
    pub(crate) table_max: Duration,
}

/// What one comparison at a time has. The one in the background rests most of the time, and may
/// take days: whoever asks for one need not wait for it.
#[derive(Default)]
pub(crate) struct Turns {
    asked: Mutex<()>,
    table: Mutex<()>,
}

/// A replica that has its snapshot, and what it sends next.
struct Ready {
    first: ChecksumTableReply,
    rest: tonic::Streaming<ChecksumTableReply>,
}

/// All sides of a table at one moment, and why some are missing.
struct Frozen<N: Net> {
    own: Snapshot<N>,
    others: Vec<(NodeId, Result<Ready, String>)>,
}

/// A table, and the replicas that are to be compared.
type Open = (BaseTable, Vec<NodeId>);

impl<N: Net> Verifier<N> {
    /// Compares everything now, if this node is the primary; else its primary does. It ends with
    /// whoever reads the answers.
    pub(crate) fn start(&self) -> ReceiverStream<Verified> {
        let (replies, receiver) = mpsc::channel(REPLIES);
        let verifier = self.clone();
        tokio::spawn(async move {
            let work = async {
                match verifier.primary() {
                    Some(primary) if primary == verifier.node => {
                        verifier.verify(Some(&replies), 0).await.map(drop)
                    }
                    Some(primary) => verifier.pass_on(primary, &replies).await,
                    None => Err(Status::unavailable("there is no primary now")),
                }
            };
            let ran = tokio::select! {
                biased;
                () = replies.closed() => return,
                ran = work => ran,
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
                Ok(tally) => {
                    let Tally {
                        equal,
                        different,
                        not_compared,
                    } = tally;
                    tracing::info!(
                        equal,
                        different,
                        not_compared,
                        "compared the replicas' tables with the primary's"
                    );
                }
                Err(status) => {
                    tracing::info!("the comparison of tables ended: {}", status.message());
                }
            }
        }
    }

    fn primary(&self) -> Option<NodeId> {
        self.roles.view().borrow().primary
    }

    /// The epoch in which this node serves as the primary now.
    fn serves(&self) -> Result<Epoch, String> {
        let serving = *self.roles.serving().borrow();
        serving.ok_or_else(|| "this node is the primary no more".to_owned())
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
    ) -> Result<Tally, Status> {
        let turn = replies.map(|_| self.turns.asked.try_lock());
        let under_way = |_| Status::failed_precondition("a comparison is under way");
        let _turn = turn.transpose().map_err(under_way)?;
        self.serves().map_err(Status::unavailable)?;
        let mut session = self.session().await.map_err(Status::unavailable)?;
        let tables = within(STEP_MAX, session.base_tables()).await;
        let tables = tables.map_err(Status::unavailable)?;
        drop(session);
        self.forget_what_is_gone(&tables).await;
        let mut tally = Tally::default();
        let (replicas, left_out) = self.replicas();
        self.report(left_out, replies, &mut tally).await;
        let mut open: Vec<Open> = tables
            .into_iter()
            .map(|table| (table, replicas.clone()))
            .collect();
        for tries_left in (0..TRIES).rev() {
            let mut again = Vec::new();
            for (table, nodes) in open {
                self.serves().map_err(Status::unavailable)?;
                let turn = self.turns.table.lock().await;
                let began = Instant::now();
                let mut outcomes = self.table(&table, &nodes).await;
                let took = began.elapsed();
                drop(turn);
                if tries_left > 0 && took < TRY_AGAIN_MAX && table.has_snapshots() {
                    let failed = outcomes.extract_if(.., |outcome| !outcome.verdict.is_compared());
                    let nodes: Vec<_> = failed.map(|outcome| outcome.node).collect();
                    if !nodes.is_empty() {
                        again.push((table, nodes));
                    }
                }
                self.report(outcomes, replies, &mut tally).await;
                if rest > 0 {
                    tokio::time::sleep((took * rest).max(REST_MIN)).await;
                }
            }
            if again.is_empty() {
                break;
            }
            open = again;
            tokio::time::sleep(BEFORE_NEXT_TRY).await;
        }
        Ok(tally)
    }

    async fn session(&self) -> Result<Session, String> {
        match timeout(STEP_MAX, self.server.session()).await {
            Ok(session) => session.map_err(|error| chain(&error)),
            Err(_) => Err(NO_ANSWER.to_owned()),
        }
    }

    /// Those that can be compared, and why others cannot.
    fn replicas(&self) -> (Vec<NodeId>, Vec<Outcome>) {
        let view = self.roles.view().borrow().clone();
        let (mut replicas, mut left_out) = (Vec::new(), Vec::new());
        for (id, node) in &view.nodes {
            match node.role {
                _ if *id == self.node => {}
                Role::Witness => {}
                Role::Replica if node.healthy => replicas.push(*id),
                role => left_out.push(Outcome {
                    node: *id,
                    table: String::new(),
                    verdict: Verdict::NotCompared(match role {
                        Role::Replica => format!("it is not healthy: {}", node.message),
                        role => format!("it is {role}"),
                    }),
                }),
            }
        }
        (replicas, left_out)
    }

    async fn table(&self, table: &BaseTable, nodes: &[NodeId]) -> Vec<Outcome> {
        let outcome = |node: NodeId, verdict| Outcome {
            node,
            table: table.name.to_string(),
            verdict,
        };
        let not_compared = |why: &str| {
            let verdict = || Verdict::NotCompared(why.to_owned());
            let nodes = nodes.iter();
            nodes.map(|node| outcome(*node, verdict())).collect()
        };
        if nodes.is_empty() {
            return Vec::new();
        }
        if !table.has_snapshots() {
            return not_compared("its engine has no snapshots");
        }
        let epoch = match self.serves() {
            Ok(epoch) => epoch,
            Err(why) => return not_compared(&why),
        };
        let frozen = match self.freeze(&table.name, nodes, epoch).await {
            Ok(Some(frozen)) => frozen,
            // It was dropped since the tables were listed.
            Ok(None) => return Vec::new(),
            Err(why) => return not_compared(&why),
        };
        let Frozen { own, others } = frozen;
        let own = match others.iter().any(|(_, ready)| ready.is_ok()) {
            true => own.checksum(&self.state, epoch).await,
            // Nothing to compare it with: nobody is told of it.
            false => Ok(String::new()),
        };
        let own = match own {
            Ok(own) => own,
            Err(why) => return not_compared(&format!("on the primary {why}")),
        };
        let mut outcomes = Vec::new();
        for (node, ready) in others {
            let verdict = match ready {
                Ok(ready) => ready.verdict(&own, self.table_max).await,
                Err(why) => Verdict::NotCompared(why),
            };
            outcomes.push(outcome(node, verdict));
        }
        outcomes
    }

    /// Snapshots of the table as it is at one moment, here and on the replicas. None if it is not
    /// there. Writes to it go on when this returns, and when it is dropped.
    async fn freeze(
        &self,
        table: &TableName,
        nodes: &[NodeId],
        epoch: Epoch,
    ) -> Result<Option<Frozen<N>>, String> {
        let mut locking = self.session().await?;
        let (session, watching) = (self.session().await?, self.session().await?);
        let mut serving = self.roles.serving();
        let until = Instant::now() + HOLD_MAX;
        let end = self.server.ends_with_us(&locking);
        let frozen = async {
            match timeout(LOCK_WAIT, locking.lock_table(table)).await {
                Ok(Ok(true)) => {}
                Ok(Ok(false)) => return Ok(None),
                Ok(Err(error)) => return Err(chain(&error)),
                Err(_) => return Err("a transaction holds it".to_owned()),
            }
            let frozen = self.snapshots(table, nodes, epoch, (session, watching), until);
            let frozen = frozen.await?;
            // A lock that could not be given back was perhaps not held any more.
            let unlocked = locking.unlock_table().await;
            unlocked.map_err(|error| format!("it was perhaps not held: {}", chain(&error)))?;
            Ok(frozen)
        };
        let frozen = tokio::select! {
            biased;
            // Whoever closes the gate may be about to end writes.
            _ = serving.wait_for(|serves| *serves != Some(epoch)) => {
                return Err("the primary changed".to_owned());
            }
            frozen = timeout_at(until, frozen) => frozen,
        };
        let frozen = frozen.map_err(|_| "the primary's server is too slow now".to_owned())??;
        end.disarm();
        match self.serves() {
            Ok(now) if now == epoch => Ok(frozen),
            _ => Err("the primary changed".to_owned()),
        }
    }

    /// The same, while the table is locked.
    async fn snapshots(
        &self,
        table: &TableName,
        nodes: &[NodeId],
        epoch: Epoch,
        (session, mut watching): (Session, Session),
        until: Instant,
    ) -> Result<Option<Frozen<N>>, String> {
        let identity = watching.identity().await.map_err(|error| chain(&error))?;
        let own = self
            .server
            .snapshot(session, watching, table, self.table_max);
        let Some(mut own) = own.await.map_err(|error| chain(&error))? else {
            return Ok(None);
        };
        let executed = own.session().gtid_executed().await;
        let request = ChecksumTableRequest {
            schema: table.schema.clone(),
            table: table.table.clone(),
            executed_gtid_set: executed.map_err(|error| chain(&error))?.to_wire().into(),
            epoch: Some(epoch.into()),
            server_version: identity.version_text,
        };
        let asked = nodes.iter().map(|node| async {
            let ready = self.ask(*node, request.clone(), until - TO_LET_GO);
            (*node, ready.await)
        });
        let others = futures_util::future::join_all(asked).await;
        Ok(Some(Frozen { own, others }))
    }

    /// Returns when the replica has its snapshot.
    async fn ask(
        &self,
        node: NodeId,
        request: ChecksumTableRequest,
        until: Instant,
    ) -> Result<Ready, String> {
        let mut client = (self.forward)(node).ok_or("it is not known here")?;
        let ready = async {
            let mut rest = client.checksum_table(request).await?.into_inner();
            let first = rest.message().await?;
            let first = first.ok_or_else(|| Status::unavailable("it gave no answer"))?;
            Ok::<_, Status>(Ready { first, rest })
        };
        match timeout_at(until, ready).await {
            Ok(ready) => ready.map_err(|status| status.message().to_owned()),
            Err(_) => Err("it lags".to_owned()),
        }
    }

    async fn report(
        &self,
        outcomes: Vec<Outcome>,
        replies: Option<&mpsc::Sender<Verified>>,
        tally: &mut Tally,
    ) {
        let mut equal: BTreeMap<String, bool> = BTreeMap::new();
        for outcome in outcomes {
            tally.count(&outcome.verdict);
            let all = equal.entry(outcome.table.clone()).or_insert(true);
            *all &= outcome.verdict == Verdict::Equal;
            self.tell(&outcome).await;
            if let Some(replies) = replies {
                // Nobody may be listening any more: then this ends at the next await.
                let _ = replies.send(Ok(outcome.into())).await;
            }
        }
        for (table, equal) in equal {
            // It may have differed from the primary before.
            if equal {
                self.differs
                    .send_if_modified(|known| keep(known, &table, false));
            }
        }
    }

    async fn tell(&self, outcome: &Outcome) {
        let (node, table) = (outcome.node, &outcome.table);
        let wrong = match &outcome.verdict {
            Verdict::Equal => "",
            Verdict::Differs(how) => {
                tracing::error!(%node, %table, "a replica's table differs: {how}");
                how
            }
            Verdict::NotCompared(_) => return,
        };
        self.tell_verdict(node, table, wrong).await;
    }

    async fn tell_verdict(&self, node: NodeId, table: &str, wrong: &str) {
        let request = VerdictRequest {
            table: table.to_owned(),
            wrong: wrong.to_owned(),
        };
        if let Some(mut client) = (self.forward)(node) {
            let _ = timeout(STEP_MAX, client.tell_verdict(request)).await;
        }
    }

    /// No comparison comes any more to a table that was dropped.
    async fn forget_what_is_gone(&self, tables: &[BaseTable]) {
        let there: BTreeSet<_> = tables.iter().map(|table| table.name.to_string()).collect();
        let view = self.roles.view().borrow().clone();
        for (id, node) in &view.nodes {
            for table in node.differs.iter().filter(|table| !there.contains(*table)) {
                if *id == self.node {
                    self.differs
                        .send_if_modified(|known| keep(known, table, false));
                } else {
                    self.tell_verdict(*id, table, "").await;
                }
            }
        }
    }

    /// A replica's part: a snapshot once it has executed the set, then the checksum.
    pub(crate) fn checksum(&self, request: ChecksumTableRequest) -> ReceiverStream<Checksummed> {
        let (replies, receiver) = mpsc::channel(REPLIES);
        let verifier = self.clone();
        tokio::spawn(async move {
            let ran = tokio::select! {
                biased;
                () = replies.closed() => return,
                ran = verifier.answer(request, &replies) => ran,
            };
            if let Err(why) = ran {
                let _ = replies.send(Err(Status::unavailable(why))).await;
            }
        });
        ReceiverStream::new(receiver)
    }

    async fn answer(
        &self,
        request: ChecksumTableRequest,
        replies: &mpsc::Sender<Checksummed>,
    ) -> Result<(), String> {
        let Ok(_place) = self.places.try_acquire() else {
            return Err("it is being compared".to_owned());
        };
        let executed = GtidSet::try_from_wire(&request.executed_gtid_set);
        let executed = executed.map_err(|error| error.to_string())?;
        let epoch: Epoch = request.epoch.ok_or("no epoch")?.into();
        let table = TableName {
            schema: request.schema,
            table: request.table,
        };
        let (mut session, mut watching) = (self.session().await?, self.session().await?);
        let own = within(STEP_MAX, watching.identity()).await?.version;
        let primary = Version::parse_supported(&request.server_version);
        let primary = primary.map_err(|error| error.to_string())?;
        if !own.same_series(primary) {
            return Err(format!(
                "it runs {own}, the primary {primary}: their checksums may differ"
            ));
        }
        let wait_s = HOLD_MAX.as_secs_f64();
        if !within(STEP_MAX, session.executes(&executed, wait_s)).await? {
            return Err("it lags".to_owned());
        }
        let snapshot = self
            .server
            .snapshot(session, watching, &table, self.table_max);
        let snapshot = within(STEP_MAX, snapshot).await?;
        // The feed sends nothing of an epoch before its beginning is applied here: so there is
        // nothing of a later one in the snapshot.
        if self.state.borrow().epoch != Some(epoch) {
            return Err("it knows another primary".to_owned());
        }
        let ready = ChecksumTableReply {
            missing: snapshot.is_none(),
            ..ChecksumTableReply::default()
        };
        let _ = replies.send(Ok(ready)).await;
        let Some(snapshot) = snapshot else {
            return Ok(());
        };
        let checksum = snapshot.checksum(&self.state, epoch).await?;
        let reply = ChecksumTableReply {
            checksum,
            ..ChecksumTableReply::default()
        };
        let _ = replies.send(Ok(reply)).await;
        Ok(())
    }

    /// What the primary found out about this node.
    pub(crate) fn on_verdict(&self, verdict: VerdictRequest) {
        let VerdictRequest { table, wrong } = verdict;
        if !wrong.is_empty() {
            tracing::error!(table, "a table differs from the primary's: {wrong}");
        }
        self.differs
            .send_if_modified(|known| keep(known, &table, !wrong.is_empty()));
    }
}

impl Ready {
    async fn verdict(mut self, own: &str, longest: Duration) -> Verdict {
        if self.first.missing {
            return Verdict::of(own, &self.first);
        }
        match timeout(longest, self.rest.message()).await {
            Ok(Ok(Some(reply))) => Verdict::of(own, &reply),
            Ok(Ok(None)) => Verdict::NotCompared("it gave no answer".to_owned()),
            Ok(Err(status)) => Verdict::NotCompared(status.message().to_owned()),
            Err(_) => Verdict::NotCompared("it takes too long".to_owned()),
        }
    }
}

/// The answer, or why there is none in that time, in words for people.
async fn within<T>(
    longest: Duration,
    step: impl Future<Output = Result<T, ControlError>>,
) -> Result<T, String> {
    match timeout(longest, step).await {
        Ok(done) => done.map_err(|error| chain(&error)),
        Err(_) => Err(NO_ANSWER.to_owned()),
    }
}

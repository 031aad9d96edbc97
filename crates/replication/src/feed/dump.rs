use std::sync::Arc;
use std::time::Duration;

use quorate_mysql_wire::{CommandReader, EventWriter, PacketError, ServerError};
use quorate_types::{Gtid, GtidSet, LogIndex};
use tokio::sync::watch;
use tokio::time::{Instant, sleep, timeout};

use super::FeedOptions;
use super::sink::{Agreed, Sink, SinkError};
use crate::contract::{AcceptedEntry, CommittedLog, ReadError, TransactionBytes};
use crate::metrics::FeedMetrics;
use crate::reached::reached;

/// What one consumer makes us hold of the log at once.
const READ_BYTES_MAX: usize = 1 << 20;
/// Between two attempts to reach a leader for a consumer that has more than this node.
const BARRIER_WAIT: Duration = Duration::from_millis(200);
/// A consumer that does not take its error by then does not get it.
const REFUSE_WAIT: Duration = Duration::from_secs(10);
/// Between two sendings to a consumer that keeps up: under load a replica gets transactions in
/// groups that share its wake-ups and syncs; a transaction that comes alone does not wait.
const PACE: Duration = Duration::from_millis(5);
/// Bytes of a GTID set that an error names: it fits into an ERR packet with the rest.
const SET_TEXT_MAX: usize = 200;

/// What a consumer asked for.
#[derive(Clone, Debug)]
pub(super) struct Request {
    pub(super) executed: GtidSet,
    pub(super) agreed: Agreed,
    /// Ends with what is accepted.
    pub(super) non_block: bool,
    pub(super) heartbeat_period: Option<Duration>,
}

/// Why a dump ended.
#[derive(Debug, thiserror::Error)]
pub(super) enum DumpEnd {
    #[error("the consumer left")]
    Left(#[source] PacketError),
    #[error(transparent)]
    Sink(#[from] SinkError),
    #[error("the consumer was refused: {0}")]
    Refused(ServerError),
}

/// Streams to one consumer until it leaves or cannot be served.
pub(super) struct Dump<L> {
    log: L,
    sink: Sink,
    request: Request,
    options: Arc<FeedOptions>,
    metrics: Arc<FeedMetrics>,
}

impl<L: CommittedLog> Dump<L> {
    pub(super) fn new(
        log: L,
        writer: EventWriter,
        request: Request,
        options: Arc<FeedOptions>,
        metrics: Arc<FeedMetrics>,
    ) -> Self {
        Self {
            log,
            sink: Sink::new(writer, request.agreed, options.clone(), metrics.clone()),
            request,
            options,
            metrics,
        }
    }

    /// None if a dump that does not wait came to its end.
    pub(super) async fn run(mut self, mut commands: CommandReader) -> Option<DumpEnd> {
        let counted = Counted::new(&self.metrics);
        let left = async {
            loop {
                // What else it may say is not waited for by anybody.
                if let Err(error) = commands.next().await {
                    return error;
                }
            }
        };
        let end = tokio::select! {
            biased;
            error = left => Some(DumpEnd::Left(error)),
            end = self.stream() => end.err(),
        };
        drop(counted);
        if let Some(DumpEnd::Refused(error)) = &end {
            self.metrics.refused.inc();
            // It may be gone, or read nothing.
            drop(timeout(REFUSE_WAIT, self.sink.refuse(error)).await);
        }
        end
    }

    async fn stream(&mut self) -> Result<(), DumpEnd> {
        self.judge().await?;
        let mut applied = self.log.applied();
        let mut next = self.log.seek(&self.request.executed).await.map_err(told)?;
        loop {
            let last = *applied.borrow_and_update();
            let batch = match self.log.read(next, READ_BYTES_MAX).await {
                // Perhaps it has all that is gone: nothing of it came between.
                Err(ReadError::Purged { .. }) => {
                    let found = self.log.seek(&self.request.executed).await.map_err(told)?;
                    if found <= next {
                        return Err(told(ReadError::Purged { first: found }));
                    }
                    next = found;
                    continue;
                }
                batch => batch.map_err(told)?,
            };
            let is_last = batch.next <= next || batch.next > last;
            next = next.max(batch.next);
            for entry in &batch.entries {
                self.entry(entry).await?;
            }
            if is_last {
                self.sink.caught_up(&self.request.executed).await?;
                if self.request.non_block {
                    return Ok(self.sink.eof().await?);
                }
                // First what is long, so that what is accepted meanwhile wakes nobody.
                sleep(PACE).await;
                self.wait(&mut applied).await?;
            } else if self.heartbeat_at().is_some_and(|at| at <= Instant::now()) {
                // Much was read of which the consumer has everything.
                self.sink.heartbeat(&self.request.executed).await?;
            }
        }
    }

    /// The consumer's set must be part of what is accepted. This node may be behind the one that
    /// the consumer has it from, so that is judged again when it is not.
    async fn judge(&mut self) -> Result<(), DumpEnd> {
        if self.log.accepted().contains_set(&self.request.executed) {
            return Ok(());
        }
        loop {
            match self.log.barrier().await {
                Ok(()) => break,
                Err(ReadError::NoLeader) => sleep(BARRIER_WAIT).await,
                Err(error) => return Err(told(error)),
            }
        }
        let more = self.request.executed.difference(&self.log.accepted());
        let errant = more.difference(&(self.options.inert)());
        if errant.is_empty() {
            return Ok(());
        }
        Err(refused(format!(
            "The consumer has transactions that are not in the cluster's log, so it cannot follow: {}",
            short_text(&errant)
        )))
    }

    async fn entry(&mut self, entry: &AcceptedEntry) -> Result<(), DumpEnd> {
        for transaction in &entry.transactions {
            if self.request.executed.contains(transaction.gtid) {
                continue;
            }
            let executed = &self.request.executed;
            self.sink
                .enter(entry.epoch, &entry.source, executed)
                .await?;
            match &transaction.bytes {
                TransactionBytes::Whole(bytes) => self.sink.push(bytes).await?,
                TransactionBytes::Parts { first, last } => {
                    self.parts(transaction.gtid, *first, *last).await?;
                }
            }
            self.sink.end_transaction()?;
            self.request.executed.insert(transaction.gtid);
        }
        Ok(())
    }

    async fn parts(&mut self, gtid: Gtid, first: LogIndex, last: LogIndex) -> Result<(), DumpEnd> {
        let mut next = first;
        while next <= last {
            let (parts, after) = self.log.read_parts(gtid, next, last).await.map_err(told)?;
            if parts.is_empty() || after <= next {
                return Err(SinkError::Torn.into());
            }
            for part in &parts {
                self.sink.push(&part.bytes).await?;
            }
            next = after;
        }
        Ok(())
    }

    fn heartbeat_at(&self) -> Option<Instant> {
        let period = self.request.heartbeat_period?;
        self.sink.last_sent.checked_add(period)
    }

    /// Until there may be more to read.
    async fn wait(&mut self, applied: &mut watch::Receiver<LogIndex>) -> Result<(), DumpEnd> {
        loop {
            let heartbeat_at = self.heartbeat_at();
            tokio::select! {
                biased;
                changed = applied.changed() => {
                    return changed.map_err(|_| told(ReadError::Stopped));
                }
                () = reached(heartbeat_at) => self.sink.heartbeat(&self.request.executed).await?,
            }
        }
    }
}

/// A consumer counts while its dump lasts, however that ends.
struct Counted(Arc<FeedMetrics>);

impl Counted {
    fn new(metrics: &Arc<FeedMetrics>) -> Self {
        metrics.consumers.inc();
        Self(Arc::clone(metrics))
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.0.consumers.dec();
    }
}

fn refused(text: String) -> DumpEnd {
    DumpEnd::Refused(ServerError::new(
        ServerError::FATAL_BINLOG_READ,
        "HY000",
        text,
    ))
}

/// What the consumer is told of it.
fn told(error: ReadError) -> DumpEnd {
    match error {
        ReadError::Purged { .. } => refused(format!(
            "The consumer needs transactions that the cluster no longer has: {error}. \
             Provision it anew from a backup or a clone"
        )),
        ReadError::NoLeader | ReadError::Disk(_) => refused(error.to_string()),
        ReadError::Stopped => DumpEnd::Refused(ServerError::new(
            ServerError::SERVER_SHUTDOWN,
            "08S01",
            error.to_string(),
        )),
    }
}

fn short_text(set: &GtidSet) -> String {
    let mut text = set.to_string();
    if text.len() > SET_TEXT_MAX {
        text.truncate(SET_TEXT_MAX);
        text.push('…');
    }
    text
}

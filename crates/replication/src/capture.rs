//! The primary's transactions, from its dump into the log, and the ACKs back.
//!
//! One reader turns the dump into pieces (whole transactions, or parts of one that is larger than an
//! entry); one proposer groups pieces into proposals, keeps several in flight, and writes one ACK
//! for the highest accepted position. What both hold together is bounded: past that the reader
//! stops reading the socket.

mod assemble;
mod event_stream;
mod in_flight;
mod position;
mod propose;

use std::sync::Arc;

use quorate_mysql_wire::{
    AckWriter, DumpError, DumpReader, QueryError, ReplicaConnection, ServerError,
};
use quorate_types::{Epoch, Gtid, GtidSet, Rule, chain};
use tokio::sync::{Semaphore, mpsc, watch};
use tokio::task::JoinSet;

use crate::ack_delay::AckDelay;
use crate::contract::Propose;
use crate::metrics::CaptureMetrics;

pub use assemble::ReadStopped;

/// How much capture may hold and how it groups.
#[derive(Clone, Copy, Debug)]
pub struct CaptureOptions {
    /// Bytes of transactions read and not yet accepted; past that the socket is not read.
    pub memory_bytes_max: usize,
    /// Events in one entry; below the entry limit by what the encoding adds.
    pub entry_bytes_max: usize,
    /// Bytes of events in proposals that are in flight at once.
    pub in_flight_bytes_max: usize,
    /// Of the first transaction that is captured: 1, but where the epoch has others before it.
    pub first_number: u64,
    /// A rule that this capture breaks, for a simulation. Production: none.
    pub left_out: Option<Rule>,
}

impl Default for CaptureOptions {
    fn default() -> Self {
        Self {
            memory_bytes_max: 64 << 20,
            entry_bytes_max: 480 << 10,
            // What waits longer stays unencoded here, where it is counted.
            in_flight_bytes_max: 8 << 20,
            first_number: 1,
            left_out: None,
        }
    }
}

/// Why capture ended. Whatever it is, its epoch is over.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum CaptureEnd {
    /// The dump ended or what it gave makes no sense.
    Dump(String),
    /// The fate of a proposal is unknown, or the log has moved on to another epoch.
    EpochOver(String),
    /// A GTID that is accepted already came again in this epoch: this server's history is not the
    /// log's. It must be killed and cloned.
    Collision(Gtid),
}

impl std::fmt::Display for CaptureEnd {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Dump(why) => write!(f, "the primary's dump ended: {why}"),
            Self::EpochOver(why) => write!(f, "the epoch is over: {why}"),
            Self::Collision(gtid) => write!(f, "GTID {gtid} is accepted with another content"),
        }
    }
}

/// The errors of one packet, as one line for people.
fn dump_error(error: &DumpError) -> CaptureEnd {
    CaptureEnd::Dump(chain(error))
}

fn server_error(error: &ServerError) -> CaptureEnd {
    CaptureEnd::Dump(error.to_string())
}

/// One attachment to one start of a mysqld, for one epoch. Dropping it ends the attachment: the
/// connection closes and nothing more is proposed or ACKed.
#[derive(Debug)]
pub struct Capture {
    attached: watch::Receiver<bool>,
    ended: watch::Receiver<Option<CaptureEnd>>,
    released: watch::Sender<bool>,
    _tasks: JoinSet<()>,
}

impl Capture {
    /// Begins the dump of everything outside `executed`. It reads at once, but proposes nothing
    /// before [`Capture::release`]: what the server has beyond the accepted set must not become law
    /// (DESIGN 4, Promotion).
    ///
    /// # Errors
    /// If the request could not be written.
    pub async fn start<P: Propose>(
        connection: ReplicaConnection,
        epoch: Epoch,
        executed: &GtidSet,
        propose: P,
        options: CaptureOptions,
        ack_delay: AckDelay,
        metrics: Arc<CaptureMetrics>,
    ) -> Result<Self, QueryError> {
        let (reader, acks) = connection.dump_gtid(executed).await?;
        Ok(Self::run(
            reader, acks, epoch, propose, options, ack_delay, metrics,
        ))
    }

    fn run<P: Propose>(
        reader: DumpReader,
        acks: AckWriter,
        epoch: Epoch,
        propose: P,
        options: CaptureOptions,
        ack_delay: AckDelay,
        metrics: Arc<CaptureMetrics>,
    ) -> Self {
        let (attached_tx, attached) = watch::channel(false);
        let (ended_tx, ended) = watch::channel(None);
        let (released, released_rx) = watch::channel(false);
        // Bounded by the budget, which counts at least 1 KiB a piece; the channel needs no bound
        // of its own but has one that the budget never lets it reach.
        let (pieces_tx, pieces) =
            mpsc::channel(options.memory_bytes_max / assemble::BUDGET_UNIT + 1);
        let budget = Arc::new(Semaphore::new(
            options.memory_bytes_max / assemble::BUDGET_UNIT,
        ));
        let mut tasks = JoinSet::new();
        let assembler = assemble::Assembly::new(options.entry_bytes_max, metrics.clone());
        let reader_ended = ended_tx.clone();
        tasks.spawn(async move {
            let end = assemble::read(reader, assembler, budget, pieces_tx, attached_tx).await;
            reader_ended.send_if_modified(|ended| ended.is_none().then(|| *ended = end).is_some());
        });
        let proposer = propose::Proposer::new(epoch, propose, acks, options, ack_delay, metrics);
        tasks.spawn(async move {
            let end = proposer.run(pieces, released_rx).await;
            ended_tx.send_if_modified(|ended| ended.is_none().then(|| *ended = end).is_some());
        });
        Self {
            attached,
            ended,
            released,
            _tasks: tasks,
        }
    }

    /// Resolves when the source sends its dump, and so counts this connection as its replica;
    /// false if it ended before.
    pub async fn attached(&mut self) -> bool {
        self.attached.wait_for(|attached| *attached).await.is_ok()
    }

    /// From now on what is read is proposed.
    pub fn release(&self) {
        self.released.send_replace(true);
    }

    /// Why it ended, once it did.
    #[must_use]
    pub fn ended(&self) -> watch::Receiver<Option<CaptureEnd>> {
        self.ended.clone()
    }
}

#[cfg(test)]
mod tests;

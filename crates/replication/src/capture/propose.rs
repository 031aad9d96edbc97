use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use quorate_mysql_wire::AckWriter;
use quorate_types::{BinlogPosition, Epoch, Outcome, Rejection, Rule};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;

use super::assemble::Piece;
use super::in_flight::{Grouping, Proposal};
use super::{CaptureEnd, CaptureOptions, chain};
use crate::ack_delay::AckDelay;
use crate::contract::{Fate, Propose};
use crate::metrics::CaptureMetrics;
use crate::reached::reached;

/// How long to wait before a proposal that was refused (no lease) is made again.
const REFUSED_WAIT: Duration = Duration::from_millis(10);
/// Transactions that join one group at most: what one wake-up finds, so that a slow log is given
/// large entries and a fast one small ones.
const GROUP_PIECES_MAX: usize = 1024;

/// Proposes pieces in order and ACKs what was accepted.
pub(super) struct Proposer<P> {
    propose: P,
    acks: AckWriter,
    ack_delay: AckDelay,
    /// An ACK that is held back, and until when.
    held: Option<(Ack, Instant)>,
    grouping: Grouping,
    in_flight_bytes_max: usize,
    /// Made and not answered, oldest first.
    in_flight: VecDeque<Proposal>,
    in_flight_bytes: usize,
    /// Not made yet, or known to be out and to be made again, in order.
    waiting: VecDeque<Proposal>,
    metrics: Arc<CaptureMetrics>,
    left_out: Option<Rule>,
}

/// An ACK to write: the highest accepted position that the primary waits for, and when the oldest
/// transaction that it releases was captured.
struct Ack {
    position: BinlogPosition,
    captured_at: Instant,
}

/// What a fate means for the proposal.
enum Verdict {
    Accepted,
    /// Certainly not in the log: a refusal, or a rejection for order behind one.
    Out,
}

impl<P: Propose> Proposer<P> {
    pub(super) fn new(
        epoch: Epoch,
        propose: P,
        acks: AckWriter,
        options: CaptureOptions,
        ack_delay: AckDelay,
        metrics: Arc<CaptureMetrics>,
    ) -> Self {
        Self {
            propose,
            acks,
            ack_delay,
            held: None,
            grouping: Grouping::new(epoch, options.first_number, options.entry_bytes_max),
            in_flight_bytes_max: options.in_flight_bytes_max,
            in_flight: VecDeque::new(),
            in_flight_bytes: 0,
            waiting: VecDeque::new(),
            metrics,
            left_out: options.left_out,
        }
    }

    /// Until the epoch is over for this capture; none if the reader ended (it says why itself).
    pub(super) async fn run(
        mut self,
        mut pieces: mpsc::Receiver<Piece>,
        mut released: watch::Receiver<bool>,
    ) -> Option<CaptureEnd> {
        released.wait_for(|released| *released).await.ok()?;
        let mut arrived = Vec::new();
        loop {
            self.submit().await;
            let room = self.waiting.is_empty();
            let held_until = self.held.as_ref().map(|(_, until)| *until);
            tokio::select! {
                biased;
                () = reached(held_until) => {
                    if let Some((ack, _)) = self.held.take()
                        && let Err(end) = self.write_ack(ack).await
                    {
                        return Some(end);
                    }
                }
                fate = first_fate(&mut self.in_flight), if !self.in_flight.is_empty() => {
                    if let Err(end) = self.on_fate(fate).await {
                        return Some(end);
                    }
                }
                count = pieces.recv_many(&mut arrived, GROUP_PIECES_MAX), if room => {
                    if count == 0 {
                        return None;
                    }
                    let mut ready = Vec::new();
                    for piece in arrived.drain(..) {
                        self.grouping.push(piece, &mut ready);
                    }
                    self.grouping.close(&mut ready);
                    self.waiting.extend(ready);
                }
            }
        }
    }

    /// Makes the proposals that wait, as far as there is room in flight.
    async fn submit(&mut self) {
        while let Some(next) = self.waiting.front() {
            if !self.in_flight.is_empty()
                && self.in_flight_bytes + next.bytes > self.in_flight_bytes_max
            {
                return;
            }
            let Some(mut proposal) = self.waiting.pop_front() else {
                return;
            };
            proposal.fate = Some(self.propose.propose(proposal.command.clone()).await);
            self.metrics
                .proposed
                .observe(proposal.captured_at.elapsed().as_secs_f64());
            if self.left_out == Some(Rule::AckAfterAcceptance) {
                let captured_at = proposal.captured_at;
                let ack = proposal.ack.take().map(|position| Ack {
                    position,
                    captured_at,
                });
                // Whatever goes wrong shows when the next one is sent.
                let _ = self.send_ack(ack).await;
            }
            self.in_flight_bytes += proposal.bytes;
            self.in_flight.push_back(proposal);
        }
    }

    async fn on_fate(&mut self, fate: Fate) -> Result<(), CaptureEnd> {
        let mut ack = None;
        match self.settle(fate, false, &mut ack)? {
            Verdict::Accepted => {}
            Verdict::Out => return self.go_back().await,
        }
        // Whatever else is decided by now shares the ACK.
        while let Some(fate) = self.ready_fate() {
            if let Verdict::Out = self.settle(fate, false, &mut ack)? {
                self.send_ack(ack.take()).await?;
                return self.go_back().await;
            }
        }
        self.send_ack(ack).await
    }

    /// The oldest proposal is out, so all behind it are or will be: their verdicts are awaited,
    /// since only a verdict says so, and then all are made again in their order.
    async fn go_back(&mut self) -> Result<(), CaptureEnd> {
        let mut again: Vec<Proposal> = Vec::new();
        again.extend(self.take_first());
        while !self.in_flight.is_empty() {
            let fate = first_fate(&mut self.in_flight).await;
            let mut ack = None;
            match self.settle(fate, true, &mut ack)? {
                Verdict::Out => again.extend(self.take_first()),
                Verdict::Accepted => {
                    return Err(CaptureEnd::EpochOver(
                        "a proposal was accepted ahead of an earlier one that was refused"
                            .to_owned(),
                    ));
                }
            }
        }
        for proposal in again.into_iter().rev() {
            self.waiting.push_front(proposal);
        }
        self.metrics.refused.inc();
        tokio::time::sleep(REFUSED_WAIT).await;
        Ok(())
    }

    fn take_first(&mut self) -> Option<Proposal> {
        let proposal = self.in_flight.pop_front()?;
        self.in_flight_bytes -= proposal.bytes;
        Some(proposal)
    }

    /// Judges the oldest proposal's fate; an accepted one leaves the queue. `behind_refused`: an
    /// earlier one is known to be out, so a rejection for order is no surprise.
    fn settle(
        &mut self,
        fate: Fate,
        behind_refused: bool,
        ack: &mut Option<Ack>,
    ) -> Result<Verdict, CaptureEnd> {
        let over = |why: &str| Err(CaptureEnd::EpochOver(why.to_owned()));
        let (accepted, rejected) = match fate {
            Fate::Refused => return Ok(Verdict::Out),
            Fate::Unknown => return over("the fate of a proposal is unknown"),
            Fate::Applied {
                outcome: Outcome::Transactions { accepted, rejected },
                ..
            } => (accepted, rejected),
            Fate::Applied { .. } => {
                return over("a proposal of transactions came back as something else");
            }
        };
        match rejected {
            None => {}
            Some(Rejection::Collision { gtid }) => return Err(CaptureEnd::Collision(gtid)),
            Some(Rejection::WrongEpoch) => return over("the log has gone on to another epoch"),
            // A part of it in the log would come a second time.
            Some(Rejection::OutOfOrder { .. } | Rejection::BrokenFragment)
                if behind_refused && accepted == 0 =>
            {
                return Ok(Verdict::Out);
            }
            Some(rejection) => return over(&format!("a proposal was rejected: {rejection:?}")),
        }
        if let Some(mut proposal) = self.take_first() {
            self.metrics
                .accepted
                .observe(proposal.captured_at.elapsed().as_secs_f64());
            if let Some(position) = proposal.ack.take() {
                let captured_at = ack
                    .take()
                    .map_or(proposal.captured_at, |ack| ack.captured_at);
                *ack = Some(Ack {
                    position,
                    captured_at,
                });
            }
        }
        Ok(Verdict::Accepted)
    }

    /// The fate of the oldest proposal, if it is known by now.
    fn ready_fate(&mut self) -> Option<Fate> {
        self.in_flight.front_mut()?.fate.as_mut()?.now_or_never()
    }

    /// Writes it, or holds it back with what comes meanwhile: the primary is told of the last
    /// position only.
    async fn send_ack(&mut self, ack: Option<Ack>) -> Result<(), CaptureEnd> {
        let Some(mut ack) = ack else {
            return Ok(());
        };
        let delay = self.ack_delay.get();
        let until = match self.held.take() {
            Some((held, until)) => {
                ack.captured_at = held.captured_at;
                until
            }
            None if delay.is_zero() => return self.write_ack(ack).await,
            None => Instant::now() + delay,
        };
        self.held = Some((ack, until));
        Ok(())
    }

    async fn write_ack(&mut self, ack: Ack) -> Result<(), CaptureEnd> {
        let sent = self.acks.ack(&ack.position).await;
        self.metrics
            .acknowledged
            .observe(ack.captured_at.elapsed().as_secs_f64());
        sent.map_err(|error| CaptureEnd::Dump(chain(&error)))
    }
}

/// Waits for the fate of the oldest proposal. It stays in the queue: cancelling loses nothing.
async fn first_fate(in_flight: &mut VecDeque<Proposal>) -> Fate {
    match in_flight.front_mut().and_then(|first| first.fate.as_mut()) {
        Some(fate) => fate.await,
        None => Fate::Unknown,
    }
}

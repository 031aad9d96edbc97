use quorate_types::{BinlogPosition, Command, Epoch, Fragment, Transaction, TransactionBatch};
use tokio::sync::OwnedSemaphorePermit;
use tokio::time::Instant;

use super::assemble::{Piece, PieceKind};
use crate::contract::PendingFate;

/// A proposal: what it is, kept until it is accepted so that it can be made again, and its fate.
pub(super) struct Proposal {
    pub(super) command: Command,
    pub(super) bytes: usize,
    /// The last position in it that the primary waits for.
    pub(super) ack: Option<BinlogPosition>,
    /// When the oldest transaction in it was captured.
    pub(super) captured_at: Instant,
    pub(super) fate: Option<PendingFate>,
    _permits: Vec<OwnedSemaphorePermit>,
}

/// Groups pieces into proposals and numbers them.
pub(super) struct Grouping {
    epoch: Epoch,
    next_number: u64,
    entry_bytes_max: usize,
    open: Option<Batch>,
}

struct Batch {
    batch: TransactionBatch,
    bytes: usize,
    ack: Option<BinlogPosition>,
    captured_at: Instant,
    permits: Vec<OwnedSemaphorePermit>,
}

/// Bytes that the encoding adds to each transaction at most: GTID with tag, checksum, lengths.
const OVERHEAD_BYTES: usize = 96;

impl Grouping {
    pub(super) fn new(epoch: Epoch, first_number: u64, entry_bytes_max: usize) -> Self {
        Self {
            epoch,
            next_number: first_number,
            entry_bytes_max,
            open: None,
        }
    }

    /// Adds a piece; gives the proposals that are complete by that.
    pub(super) fn push(&mut self, mut piece: Piece, ready: &mut Vec<Proposal>) {
        let ack = piece.end.take().filter(|_| piece.ack_wanted);
        match piece.kind {
            PieceKind::Whole { checksum } => {
                let bytes = piece.bytes.len() + OVERHEAD_BYTES;
                let fits = self.open.as_ref().is_some_and(|open| {
                    open.bytes + bytes <= self.entry_bytes_max && open.batch.source == piece.source
                });
                if !fits {
                    self.close(ready);
                }
                let open = self.open.get_or_insert_with(|| Batch {
                    batch: TransactionBatch {
                        epoch: self.epoch,
                        first_number: self.next_number,
                        source: piece.source,
                        transactions: Vec::new(),
                    },
                    bytes: 0,
                    ack: None,
                    captured_at: piece.captured_at,
                    permits: Vec::new(),
                });
                let transaction = Transaction {
                    gtid: piece.gtid,
                    checksum,
                    events: piece.bytes,
                };
                open.batch.transactions.push(transaction);
                open.bytes += bytes;
                open.ack = ack.or(open.ack.take());
                open.permits.extend(piece.permit);
                self.next_number += 1;
            }
            PieceKind::Part { part, end } => {
                self.close(ready);
                let bytes = piece.bytes.len();
                let fragment = Fragment {
                    epoch: self.epoch,
                    number: self.next_number,
                    gtid: piece.gtid,
                    part,
                    end,
                    source: piece.source,
                    bytes: piece.bytes,
                };
                // The last part takes the number.
                self.next_number += u64::from(end.is_some());
                ready.push(Proposal {
                    command: Command::Fragment(fragment),
                    bytes,
                    ack,
                    captured_at: piece.captured_at,
                    fate: None,
                    _permits: piece.permit.into_iter().collect(),
                });
            }
        }
    }

    /// Ends the open group: nothing more is there to join it.
    pub(super) fn close(&mut self, ready: &mut Vec<Proposal>) {
        if let Some(Batch {
            batch,
            bytes,
            ack,
            captured_at,
            permits,
        }) = self.open.take()
        {
            let command = Command::Transactions(batch);
            ready.push(Proposal {
                command,
                bytes,
                ack,
                captured_at,
                fate: None,
                _permits: permits,
            });
        }
    }
}

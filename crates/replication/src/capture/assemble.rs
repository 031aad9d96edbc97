use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use crc32fast::Hasher;
use quorate_binlog::{EventType, Heartbeat, Rotate, Step};
use quorate_mysql_wire::{DumpPacket, DumpReader, EventChunk};
use quorate_types::{BinlogPosition, BinlogSource, FRAGMENT_FIRST, FragmentEnd, Gtid};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::time::Instant;

use super::event_stream::{EventStream, EventStreamError, Seen};
use super::position::Position;
use super::{CaptureEnd, chain, dump_error, server_error};
use crate::metrics::CaptureMetrics;

/// What a permit of the budget stands for, in bytes. Every piece takes at least one.
pub(super) const BUDGET_UNIT: usize = 1 << 10;

/// Why reading stopped.
#[derive(Debug, thiserror::Error)]
pub enum ReadStopped {
    #[error("understand the dump")]
    Stream(#[from] EventStreamError),
    #[error("a transaction came before a format description and a file name")]
    NoSource,
}

/// A whole transaction, or a part of a large one, on its way to the proposer.
pub(super) struct Piece {
    pub(super) gtid: Gtid,
    pub(super) source: BinlogSource,
    pub(super) kind: PieceKind,
    pub(super) bytes: Bytes,
    /// With what ends a transaction: where it ends.
    pub(super) end: Option<BinlogPosition>,
    /// Whether the primary holds a commit back for it.
    pub(super) ack_wanted: bool,
    pub(super) captured_at: Instant,
    /// Goes back to the budget when the piece is dropped.
    pub(super) permit: Option<OwnedSemaphorePermit>,
}

pub(super) enum PieceKind {
    Whole { checksum: u32 },
    Part { part: u32, end: Option<FragmentEnd> },
}

/// Reads the dump until it ends; why it did. None if the proposer is gone.
pub(super) async fn read(
    mut reader: DumpReader,
    mut assembly: Assembly,
    budget: Arc<Semaphore>,
    pieces: mpsc::Sender<Piece>,
    attached: watch::Sender<bool>,
) -> Option<CaptureEnd> {
    let budget_max = budget.available_permits().max(1);
    loop {
        let chunk = match reader.next().await {
            Ok(DumpPacket::Event(chunk)) => chunk,
            Ok(DumpPacket::Eof) => {
                return Some(CaptureEnd::Dump("the source has no more".to_owned()));
            }
            Ok(DumpPacket::Error(error)) => return Some(server_error(&error)),
            Err(error) => return Some(dump_error(&error)),
        };
        attached.send_if_modified(|attached| !std::mem::replace(attached, true));
        let mut ready = Vec::new();
        if let Err(error) = assembly.push(&chunk, &mut ready) {
            return Some(CaptureEnd::Dump(chain(&error)));
        }
        for mut piece in ready {
            // A piece larger than the whole budget takes all of it, and so passes alone.
            let units = piece.bytes.len().div_ceil(BUDGET_UNIT).clamp(1, budget_max) as u32;
            // While this waits the socket is not read, and the primary's dump thread waits too.
            piece.permit = budget.clone().acquire_many_owned(units).await.ok();
            pieces.send(piece).await.ok()?;
        }
    }
}

/// The transaction under way.
struct Open {
    gtid: Gtid,
    source: BinlogSource,
    parts: u32,
    length: u64,
    bytes_crc32: Hasher,
}

/// Turns chunks of the dump into pieces.
pub(super) struct Assembly {
    stream: EventStream,
    position: Position,
    /// The same value for all transactions of a file, so that comparing is cheap.
    source: Option<BinlogSource>,
    open: Option<Open>,
    buffer: BytesMut,
    /// A large event under way ends the transaction.
    ends: bool,
    part_bytes_max: usize,
    metrics: Arc<CaptureMetrics>,
}

impl Assembly {
    pub(super) fn new(part_bytes_max: usize, metrics: Arc<CaptureMetrics>) -> Self {
        Self {
            stream: EventStream::new(),
            position: Position::new(),
            source: None,
            open: None,
            buffer: BytesMut::new(),
            ends: false,
            part_bytes_max,
            metrics,
        }
    }

    pub(super) fn push(
        &mut self,
        chunk: &EventChunk,
        ready: &mut Vec<Piece>,
    ) -> Result<(), ReadStopped> {
        let ended = match self.stream.push(chunk)? {
            Seen::Event { event, step } => {
                self.locate(&event)?;
                if matches!(step, Step::Outside) {
                    // A sign of life may come inside of a transaction and is not part of it.
                    return Ok(());
                }
                self.begin_if(step)?;
                matches!(step, Step::End(_))
            }
            Seen::Head { header, step } => {
                self.position.advance(&header);
                self.begin_if(step)?;
                self.ends = matches!(step, Step::End(_));
                false
            }
            Seen::Piece { last } => last && std::mem::take(&mut self.ends),
        };
        if self.open.is_none() {
            return Ok(());
        }
        self.take(&chunk.bytes, ready);
        if ended {
            self.end(chunk.ack_wanted, ready);
        }
        Ok(())
    }

    /// Keeps track of file and position.
    fn locate(&mut self, event: &quorate_binlog::Event) -> Result<(), ReadStopped> {
        let stopped = |error| ReadStopped::Stream(EventStreamError::Event(error));
        match event.event_type() {
            EventType::ROTATE => {
                let rotate = Rotate::parse(event).map_err(stopped)?;
                self.position.rotate(&rotate.file, rotate.position);
                self.source = None;
            }
            EventType::FORMAT_DESCRIPTION => {
                self.position.advance(event.header());
                self.source = None;
            }
            EventType::HEARTBEAT | EventType::HEARTBEAT_V2 => {
                // It tells where the source is, past what it left out.
                let heartbeat = Heartbeat::parse(event).map_err(stopped)?;
                self.position.rotate(&heartbeat.file, heartbeat.position);
            }
            _ => self.position.advance(event.header()),
        }
        Ok(())
    }

    fn begin_if(&mut self, step: Step) -> Result<(), ReadStopped> {
        let Step::Begin(event) = step else {
            return Ok(());
        };
        let source = match &self.source {
            Some(source) => source.clone(),
            None => {
                let format = self.stream.format().ok_or(ReadStopped::NoSource)?;
                let source = BinlogSource {
                    file: self.position.file().clone(),
                    format: format.raw.clone(),
                };
                self.source.insert(source).clone()
            }
        };
        let bytes_crc32 = Hasher::new();
        self.open = Some(Open {
            gtid: event.gtid,
            source,
            parts: 0,
            length: 0,
            bytes_crc32,
        });
        Ok(())
    }

    /// Adds bytes of the open transaction; cuts off a part whenever there is enough for one more
    /// than the transaction may end with.
    fn take(&mut self, mut bytes: &[u8], ready: &mut Vec<Piece>) {
        while self.buffer.len() + bytes.len() > self.part_bytes_max {
            let (fits, rest) = bytes.split_at(self.part_bytes_max - self.buffer.len());
            self.buffer.extend_from_slice(fits);
            bytes = rest;
            let piece = self.cut(None, false);
            ready.extend(piece);
        }
        self.buffer.extend_from_slice(bytes);
    }

    fn end(&mut self, ack_wanted: bool, ready: &mut Vec<Piece>) {
        let checksum = self.stream.finish_content();
        ready.extend(self.cut(Some(checksum), ack_wanted));
        self.open = None;
        self.metrics.transactions.inc();
    }

    /// What was gathered, as a piece; with a checksum it is the transaction's last.
    fn cut(&mut self, checksum: Option<u32>, ack_wanted: bool) -> Option<Piece> {
        let bytes = self.buffer.split().freeze();
        self.metrics.bytes.inc_by(bytes.len() as u64);
        let open = self.open.as_mut()?;
        let kind = match checksum {
            Some(checksum) if open.parts == 0 => PieceKind::Whole { checksum },
            _ => {
                open.length += bytes.len() as u64;
                open.bytes_crc32.update(&bytes);
                let part = FRAGMENT_FIRST + open.parts;
                open.parts += 1;
                let end = checksum.map(|checksum| FragmentEnd {
                    length: open.length,
                    bytes_crc32: open.bytes_crc32.clone().finalize(),
                    checksum,
                });
                PieceKind::Part { part, end }
            }
        };
        Some(Piece {
            gtid: open.gtid,
            source: open.source.clone(),
            kind,
            bytes,
            end: checksum.map(|_| self.position.here()),
            ack_wanted,
            captured_at: Instant::now(),
            permit: None,
        })
    }
}

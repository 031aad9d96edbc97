use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use crc32fast::Hasher;
use quorate_binlog::build::EventBuilder;
use quorate_binlog::{
    CLOCKS_END, ChecksumAlgorithm, EventError, EventHeader, EventType, FormatDescription,
    fake_rotate, heartbeat_v1, heartbeat_v2, limit_parallel, previous_gtids_event, stream_format,
};
use quorate_mysql_wire::{EventWriter, PacketError, ServerError};
use quorate_types::{BinlogSource, Epoch, GtidSet};
use tokio::time::Instant;

use super::FeedOptions;
use super::virtual_file::{FILE_BYTES_MAX, FIRST_POSITION, VirtualFile};
use crate::metrics::FeedMetrics;

/// Why nothing more can be sent to a consumer.
#[derive(Debug, thiserror::Error)]
pub(super) enum SinkError {
    #[error("write to the consumer")]
    Packet(#[from] PacketError),
    #[error("read an event of the log")]
    Event(#[from] EventError),
    #[error("a transaction of the log ends in the middle of an event")]
    Torn,
}

/// What was agreed with a consumer before its dump.
#[derive(Clone, Copy, Debug)]
pub(super) struct Agreed {
    pub(super) algorithm: ChecksumAlgorithm,
    pub(super) heartbeat_v2: bool,
}

/// The events of one consumer's stream, placed in its virtual files.
pub(super) struct Sink {
    writer: EventWriter,
    agreed: Agreed,
    options: Arc<FeedOptions>,
    metrics: Arc<FeedMetrics>,
    file: Option<VirtualFile>,
    pub(super) file_bytes_max: u64,
    /// The first bytes of an event whose header is not whole yet.
    head: BytesMut,
    event: Option<OpenEvent>,
    pub(super) last_sent: Instant,
}

/// An event under way: its header is out, its end is not.
struct OpenEvent {
    body_left: usize,
    source_crc: Option<Hasher>,
    /// The source's checksum, as far as it came.
    found: Vec<u8>,
    found_len: usize,
    crc: Option<Hasher>,
    /// The beginning of a GTID event's body, until its clocks are whole: they are changed.
    front: Option<Vec<u8>>,
}

impl Sink {
    pub(super) fn new(
        writer: EventWriter,
        agreed: Agreed,
        options: Arc<FeedOptions>,
        metrics: Arc<FeedMetrics>,
    ) -> Self {
        Self {
            writer,
            agreed,
            options,
            metrics,
            file: None,
            file_bytes_max: FILE_BYTES_MAX,
            head: BytesMut::new(),
            event: None,
            last_sent: Instant::now(),
        }
    }

    /// Makes the file for these transactions the current one. `executed` is what the consumer has
    /// by now.
    pub(super) async fn enter(
        &mut self,
        epoch: Epoch,
        source: &BinlogSource,
        executed: &GtidSet,
    ) -> Result<(), SinkError> {
        let current = self.file.as_ref();
        match VirtualFile::next(current, epoch, source, self.file_bytes_max)? {
            None => Ok(()),
            Some((file, format)) => self.open(file, &format, executed).await,
        }
    }

    /// Sends the head of a stream that has no transaction yet: consumers understand signs of life
    /// only in a file, and a format can only be that of our own version.
    async fn open_start(&mut self, executed: &GtidSet) -> Result<(), SinkError> {
        let builder = EventBuilder::new(self.options.server_id);
        let version = &self.options.server_version;
        let format = FormatDescription::parse(builder.format_description(version, 0))?;
        self.open(VirtualFile::start(), &format, executed).await
    }

    async fn open(
        &mut self,
        mut file: VirtualFile,
        format: &FormatDescription,
        executed: &GtidSet,
    ) -> Result<(), SinkError> {
        let (algorithm, id) = (self.agreed.algorithm, self.options.server_id);
        let rotate = fake_rotate(&file.name, FIRST_POSITION, id, algorithm);
        self.send(rotate).await?;
        // A format description is of the same size, whatever it says.
        file.position += format.raw.len() as u64;
        self.send(stream_format(format, Some(file.position), algorithm))
            .await?;
        let bytes = previous_gtids_event(executed, 0, id, algorithm).len();
        file.position += bytes as u64;
        let previous = previous_gtids_event(executed, file.position, id, algorithm);
        self.file = Some(file);
        self.send(previous).await
    }

    async fn send(&mut self, event: Bytes) -> Result<(), SinkError> {
        self.metrics.bytes.inc_by(event.len() as u64);
        self.last_sent = Instant::now();
        Ok(self.writer.event(&[event]).await?)
    }

    /// Bytes of a transaction, beginning and ending anywhere in its events.
    pub(super) async fn push(&mut self, mut bytes: &[u8]) -> Result<(), SinkError> {
        while !bytes.is_empty() {
            if self.event.is_none() {
                let missing = EventHeader::LEN - self.head.len();
                let (now, later) = bytes.split_at(missing.min(bytes.len()));
                self.head.extend_from_slice(now);
                bytes = later;
                if self.head.len() == EventHeader::LEN {
                    self.begin_event().await?;
                }
            } else {
                bytes = self.go_on(bytes).await?;
            }
            if self.event.as_ref().is_some_and(OpenEvent::is_whole) {
                self.end_event().await?;
            }
        }
        Ok(())
    }

    /// # Errors
    /// If the bytes pushed do not end where an event does.
    pub(super) fn end_transaction(&mut self) -> Result<(), SinkError> {
        self.metrics.transactions.inc();
        if self.event.is_some() || !self.head.is_empty() {
            return Err(SinkError::Torn);
        }
        Ok(())
    }

    async fn begin_event(&mut self) -> Result<(), SinkError> {
        let head = self.head.split();
        let mut header = EventHeader::parse(&head)?;
        let file = self.file.as_mut().ok_or(SinkError::Torn)?;
        let found_len = file.source_algorithm.len();
        let body_left = (header.event_size as usize)
            .checked_sub(EventHeader::LEN + found_len)
            .ok_or(EventError::Short)?;
        let size = EventHeader::LEN + body_left + self.agreed.algorithm.len();
        file.position += size as u64;
        header.event_size = u32::try_from(size).map_err(|_| EventError::Malformed("size"))?;
        header.log_pos = file.position as u32;
        let hasher = |is_wanted: bool, bytes: &[u8]| {
            is_wanted.then(|| {
                let mut hasher = Hasher::new();
                hasher.update(bytes);
                hasher
            })
        };
        let rewritten = header.to_bytes();
        let has_clocks = header.event_type == EventType::GTID && body_left >= CLOCKS_END;
        self.event = Some(OpenEvent {
            body_left,
            source_crc: hasher(found_len > 0, &head),
            found: Vec::new(),
            found_len,
            crc: hasher(!self.agreed.algorithm.is_empty(), &rewritten),
            front: has_clocks.then(Vec::new),
        });
        self.metrics.bytes.inc_by(size as u64);
        self.last_sent = Instant::now();
        self.writer.begin_event(size).await?;
        Ok(self.writer.append(&rewritten).await?)
    }

    /// Takes what belongs to the open event; gives the rest.
    async fn go_on<'a>(&mut self, bytes: &'a [u8]) -> Result<&'a [u8], SinkError> {
        let event = self.event.as_mut().ok_or(SinkError::Torn)?;
        let (body, rest) = bytes.split_at(event.body_left.min(bytes.len()));
        event.body_left -= body.len();
        if let Some(source_crc) = &mut event.source_crc {
            source_crc.update(body);
        }
        let missing = event.found_len - event.found.len();
        let (found, rest) = match event.body_left {
            0 => rest.split_at(missing.min(rest.len())),
            _ => (&[][..], rest),
        };
        event.found.extend_from_slice(found);
        self.last_sent = Instant::now();
        let mut body = body;
        if let Some(mut front) = event.front.take() {
            let (now, later) = body.split_at((CLOCKS_END - front.len()).min(body.len()));
            front.extend_from_slice(now);
            body = later;
            match <&mut [u8; CLOCKS_END]>::try_from(front.as_mut_slice()) {
                Ok(whole) => {
                    limit_parallel(whole, self.options.parallel_max);
                    self.append(&front).await?;
                }
                Err(_) => event.front = Some(front),
            }
        }
        self.append(body).await?;
        Ok(rest)
    }

    /// Bytes of the open event's body, as the consumer gets them.
    async fn append(&mut self, body: &[u8]) -> Result<(), SinkError> {
        if let Some(crc) = self.event.as_mut().and_then(|event| event.crc.as_mut()) {
            crc.update(body);
        }
        Ok(self.writer.append(body).await?)
    }

    /// The consumer gets no whole event if its bytes are not what the source wrote: the new
    /// checksum would hide the damage.
    async fn end_event(&mut self) -> Result<(), SinkError> {
        let event = self.event.as_mut().ok_or(SinkError::Torn)?;
        if let Some(crc) = event.source_crc.take() {
            let found = event.found.first_chunk().ok_or(EventError::Short)?;
            let found = u32::from_le_bytes(*found);
            let expected = crc.finalize();
            if found != expected {
                return Err(EventError::Checksum { found, expected }.into());
            }
        }
        if let Some(crc) = event.crc.take() {
            self.writer.append(&crc.finalize().to_le_bytes()).await?;
        }
        self.event = None;
        Ok(())
    }

    /// A sign of life, at once.
    pub(super) async fn heartbeat(&mut self, executed: &GtidSet) -> Result<(), SinkError> {
        let file = match &self.file {
            Some(file) => file,
            None => {
                self.open_start(executed).await?;
                self.file.as_ref().ok_or(SinkError::Torn)?
            }
        };
        let (algorithm, id) = (self.agreed.algorithm, self.options.server_id);
        let heartbeat = if self.agreed.heartbeat_v2 {
            heartbeat_v2(&file.name, file.position, id, algorithm)
        } else {
            heartbeat_v1(&file.name, file.position as u32, id, algorithm)
        };
        self.send(heartbeat).await?;
        Ok(self.writer.flush().await?)
    }

    /// What is queued leaves; a stream without a head gets one.
    pub(super) async fn caught_up(&mut self, executed: &GtidSet) -> Result<(), SinkError> {
        if self.file.is_none() {
            self.open_start(executed).await?;
        }
        Ok(self.writer.flush().await?)
    }

    pub(super) async fn eof(&mut self) -> Result<(), SinkError> {
        self.writer.eof().await?;
        Ok(self.writer.shutdown().await?)
    }

    /// Says why there is no more, unless that would end up inside of an event.
    pub(super) async fn refuse(&mut self, error: &ServerError) -> Result<(), PacketError> {
        if self.event.is_none() {
            self.writer.err(error).await?;
        }
        self.writer.shutdown().await
    }
}

impl OpenEvent {
    fn is_whole(&self) -> bool {
        self.body_left == 0 && self.found.len() == self.found_len
    }
}

use bytes::Bytes;
use crc32fast::Hasher;
use quorate_binlog::{
    AssembleError, Assembler, ChecksumAlgorithm, Checksummer, Event, EventError, EventHeader,
    EventType, FormatDescription, HEAD_BYTES, Step,
};
use quorate_mysql_wire::EventChunk;

/// Why the dump makes no sense.
#[derive(Debug, thiserror::Error)]
pub enum EventStreamError {
    #[error(transparent)]
    Event(#[from] EventError),
    #[error(transparent)]
    Assemble(#[from] AssembleError),
    #[error("an event of {0} bytes comes in a first piece of {1}")]
    Head(u32, usize),
}

/// What one chunk of the dump was.
pub(super) enum Seen {
    /// An event as a whole: small enough to be looked at.
    Event { event: Event, step: Step },
    /// The first piece of a large event.
    Head { header: EventHeader, step: Step },
    /// A further piece of it; `last` once its checksum was right.
    Piece { last: bool },
}

/// Events as they come: verifies their checksums, tells where transactions begin and end, and makes
/// the content checksum. Events of any size pass; none is held.
pub(super) struct EventStream {
    format: Option<FormatDescription>,
    assembler: Assembler,
    content: Checksummer,
    large: Option<Large>,
}

/// A large event under way.
struct Large {
    crc: Option<Hasher>,
    /// Bytes of the event that are still to come, its checksum included.
    left: usize,
    /// The last bytes seen, which may be the checksum.
    tail: Vec<u8>,
}

impl EventStream {
    pub(super) fn new() -> Self {
        Self {
            format: None,
            assembler: Assembler::new(),
            content: Checksummer::new(),
            large: None,
        }
    }

    /// The format that events are in; none before the first description.
    pub(super) fn format(&self) -> Option<&FormatDescription> {
        self.format.as_ref()
    }

    /// The content checksum of the transaction that just ended.
    pub(super) fn finish_content(&mut self) -> u32 {
        self.content.finish()
    }

    pub(super) fn push(&mut self, chunk: &EventChunk) -> Result<Seen, EventStreamError> {
        match (chunk.first, chunk.last) {
            (true, true) => self.whole(&chunk.bytes),
            (true, false) => self.head(&chunk.bytes),
            _ => self.piece(chunk),
        }
    }

    fn algorithm(&self) -> ChecksumAlgorithm {
        self.format
            .as_ref()
            .map_or(ChecksumAlgorithm::Off, |format| format.algorithm)
    }

    fn whole(&mut self, bytes: &Bytes) -> Result<Seen, EventStreamError> {
        let event = match &self.format {
            Some(format) => Event::parse(bytes.clone(), format.algorithm)?,
            None => unannounced(bytes)?,
        };
        if event.event_type() == EventType::FORMAT_DESCRIPTION {
            self.format = Some(FormatDescription::parse(bytes.clone())?);
        } else {
            event.verify_checksum()?;
        }
        let step = self.assembler.push(&event)?;
        if !matches!(step, Step::Outside) {
            self.content.update(&event);
        }
        Ok(Seen::Event { event, step })
    }

    fn head(&mut self, bytes: &Bytes) -> Result<Seen, EventStreamError> {
        let header = EventHeader::parse(bytes)?;
        let size = header.event_size as usize;
        let checksum = self.algorithm().len();
        if bytes.len() < EventHeader::LEN + HEAD_BYTES + checksum || size <= bytes.len() {
            return Err(EventStreamError::Head(header.event_size, bytes.len()));
        }
        let (body_head, rest) = bytes[EventHeader::LEN..].split_at(HEAD_BYTES);
        let step = self.assembler.push_head(&header, body_head)?;
        // Outside of a transaction nothing is content; what goes on is then skipped too.
        if !matches!(step, Step::Outside) {
            self.content.start(header.event_type, body_head);
        }
        let crc = (checksum > 0).then(|| {
            let mut crc = Hasher::new();
            crc.update(&bytes[..EventHeader::LEN + HEAD_BYTES]);
            crc
        });
        let large = Large {
            crc,
            left: size - EventHeader::LEN - HEAD_BYTES,
            tail: Vec::new(),
        };
        self.large = Some(large);
        self.feed(rest)?;
        Ok(Seen::Head { header, step })
    }

    fn piece(&mut self, chunk: &EventChunk) -> Result<Seen, EventStreamError> {
        // A packet whose last frame is full ends with an empty one, after the event's end.
        if self.large.is_none() && chunk.bytes.is_empty() {
            return Ok(Seen::Piece { last: false });
        }
        let last = self.feed(&chunk.bytes)?;
        if chunk.last && !last {
            return Err(EventError::Short.into());
        }
        Ok(Seen::Piece { last })
    }

    /// Goes on with the large event; whether it ended with these bytes.
    fn feed(&mut self, bytes: &[u8]) -> Result<bool, EventStreamError> {
        let checksum = self.algorithm().len();
        let large = self.large.as_mut().ok_or(EventError::Short)?;
        large.left = large
            .left
            .checked_sub(bytes.len())
            .ok_or(EventError::Malformed("size"))?;
        // Everything but the event's last bytes, its checksum, is body.
        let body = (large.left + bytes.len())
            .saturating_sub(checksum)
            .min(bytes.len());
        self.content.go_on(&bytes[..body]);
        if let Some(crc) = &mut large.crc {
            crc.update(&bytes[..body]);
            large.tail.extend_from_slice(&bytes[body..]);
        }
        if large.left > 0 {
            return Ok(false);
        }
        if let Some(Large {
            crc: Some(crc),
            tail,
            ..
        }) = self.large.take()
        {
            let found = tail
                .first_chunk()
                .map(|found| u32::from_le_bytes(*found))
                .ok_or(EventError::Short)?;
            let expected = crc.finalize();
            if found != expected {
                return Err(EventError::Checksum { found, expected }.into());
            }
        }
        Ok(true)
    }
}

/// An event before the first format description, which alone says whether there are checksums: a
/// fake Rotate. One with a right checksum has one.
fn unannounced(bytes: &Bytes) -> Result<Event, EventError> {
    let with = Event::parse(bytes.clone(), ChecksumAlgorithm::Crc32);
    match with {
        Ok(event) if event.verify_checksum().is_ok() => Ok(event),
        _ => Event::parse(bytes.clone(), ChecksumAlgorithm::Off),
    }
}

//! Reading binlog files.

use std::io::{self, Read};

use bytes::Bytes;
use crc32fast::Hasher;
use quorate_types::{Gtid, GtidSet};

use crate::boundary::{AssembleError, Assembler, Step};
use crate::checksum::{Checksummer, HEAD_BYTES};
use crate::classify::{Class, Classifier};
use crate::event::{
    CHECKSUM_LEN, ChecksumAlgorithm, EventError, EventHeader, EventType, plain_head,
};
use crate::format::FormatDescription;
use crate::gtid_event::GtidEvent;

/// What a binlog file begins with.
pub const MAGIC: [u8; 4] = [0xfe, b'b', b'i', b'n'];
const MAGIC_ENCRYPTED: [u8; 4] = [0xfd, b'b', b'i', b'n'];
/// What is read at once of the body of a large event.
const CHUNK_BYTES: usize = 64 << 10;

/// A longer set of GTIDs is not read; a server with a million gaps writes 16 MB.
const GTID_SET_BYTES_MAX: usize = 64 << 20;

/// Why a file could not be judged at all.
#[derive(Debug, thiserror::Error)]
pub enum ScanError {
    #[error("read binlog file at {offset}")]
    Read {
        offset: u64,
        #[source]
        source: io::Error,
    },
    #[error(
        "the binlog file is encrypted, so it can be neither checked nor cut. While the server runs: \
         SET GLOBAL binlog_encryption=OFF, then FLUSH BINARY LOGS and PURGE BINARY LOGS"
    )]
    Encrypted,
}

/// What is wrong at one place of a file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    #[error("file ends in the middle of an event or a transaction")]
    Torn,
    #[error("file does not begin with a binlog's magic number")]
    Magic,
    #[error(transparent)]
    Event(#[from] EventError),
    #[error(transparent)]
    Order(#[from] AssembleError),
}

/// A whole, undamaged transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Group {
    pub gtid: Gtid,
    /// Where its GTID event begins.
    pub start: u64,
    /// Where its last event ends.
    pub end: u64,
    /// Of its content, see [`Checksummer`].
    pub checksum: u32,
    /// Whether the server that wrote it was the first to commit it. What it applied as a replica
    /// has not the checksum that the transaction has where it comes from.
    pub is_original: bool,
    pub class: Class,
}

/// What a scan finds, in the order of the file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    PreviousGtids(GtidSet),
    Group(Group),
    /// Everything before `offset` is good. If the frames go on, so does the scan, with the next
    /// GTID event: what is found then says whether something is lost.
    Damage {
        offset: u64,
        damage: Damage,
    },
}

/// Walks a binlog file from its magic number, and checks the CRC of every event.
///
/// It holds at most [`Self::BUFFER_BYTES`] of an event. Offsets are counted, not taken from events,
/// where they have 32 bits only.
pub struct FileScanner<R> {
    reader: R,
    offset: u64,
    algorithm: ChecksumAlgorithm,
    server_version: String,
    phase: Phase,
    /// Between damage and the next GTID event.
    resyncing: bool,
    assembler: Assembler,
    checksummer: Checksummer,
    classifier: Classifier,
    /// Start of the open transaction, and what its GTID event says.
    open: Option<(u64, GtidEvent)>,
    buffer: Vec<u8>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Magic,
    Format,
    Events,
    Done,
}

/// One event went by.
struct Passed {
    header: EventHeader,
    step: Result<Step, Damage>,
    class: Option<Class>,
}

impl<R: Read> FileScanner<R> {
    pub const BUFFER_BYTES: usize = HEAD_BYTES + CHUNK_BYTES;

    pub fn new(reader: R) -> Self {
        Self {
            reader,
            offset: 0,
            algorithm: ChecksumAlgorithm::Off,
            server_version: String::new(),
            phase: Phase::Magic,
            resyncing: false,
            assembler: Assembler::new(),
            checksummer: Checksummer::new(),
            classifier: Classifier::default(),
            open: None,
            buffer: Vec::new(),
        }
    }

    /// How far the file was read.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Who wrote the file, and whether its events have checksums: as far as it was read.
    #[must_use]
    pub fn written_by(&self) -> (&str, ChecksumAlgorithm) {
        (&self.server_version, self.algorithm)
    }

    /// What comes next; none at the end of the file.
    ///
    /// # Errors
    /// If the reader fails or the file is encrypted.
    pub fn next_found(&mut self) -> Result<Option<Found>, ScanError> {
        loop {
            let found = match self.phase {
                Phase::Done => return Ok(None),
                Phase::Magic => self.magic()?,
                Phase::Format | Phase::Events => self.event()?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
    }

    fn magic(&mut self) -> Result<Option<Found>, ScanError> {
        let mut magic = [0; MAGIC.len()];
        let len = self.fill(&mut magic)?;
        if magic == MAGIC_ENCRYPTED {
            return Err(ScanError::Encrypted);
        }
        if magic == MAGIC {
            self.phase = Phase::Format;
            return Ok(None);
        }
        let damage = if len < MAGIC.len() {
            Damage::Torn
        } else {
            Damage::Magic
        };
        self.offset = 0;
        self.phase = Phase::Done;
        Ok(Some(Found::Damage { offset: 0, damage }))
    }

    fn event(&mut self) -> Result<Option<Found>, ScanError> {
        let start = self.offset;
        let mut head = [0; EventHeader::LEN];
        let len = self.fill(&mut head)?;
        if len == 0 {
            // A file of nothing but its magic number was being made when the server stopped.
            let torn = self.open.is_some() || self.phase == Phase::Format;
            self.phase = Phase::Done;
            return Ok(torn.then(|| self.damaged(start, Damage::Torn)).flatten());
        }
        let header = match EventHeader::parse(&head[..len]) {
            Ok(header) => header,
            Err(error) => {
                self.phase = Phase::Done;
                let torn = len < head.len();
                let damage = if torn { Damage::Torn } else { error.into() };
                return Ok(self.damaged(start, damage));
            }
        };
        let passed = match self.pass(header, &head)? {
            Some(passed) => passed,
            None => {
                self.phase = Phase::Done;
                return Ok(self.damaged(start, Damage::Torn));
            }
        };
        Ok(self.conclude(start, passed))
    }

    fn conclude(&mut self, start: u64, passed: Passed) -> Option<Found> {
        let Passed {
            header,
            step,
            class,
        } = passed;
        match step {
            Err(damage) => {
                if self.phase == Phase::Format {
                    // Without the format nothing after it can be read.
                    self.phase = Phase::Done;
                }
                self.damaged(start, damage)
            }
            Ok(Step::Begin(event)) => {
                self.open = Some((start, event));
                self.resyncing = false;
                None
            }
            Ok(Step::End(_)) => {
                let (start, event) = self.open.take()?;
                Some(Found::Group(Group {
                    gtid: event.gtid,
                    start,
                    end: self.offset,
                    checksum: self.checksummer.finish(),
                    is_original: event.is_original(),
                    class: class?,
                }))
            }
            Ok(Step::Outside) if header.event_type == EventType::PREVIOUS_GTIDS => {
                let set = GtidSet::try_from_wire(&self.buffer).ok()?;
                Some(Found::PreviousGtids(set))
            }
            Ok(Step::Outside | Step::Within) => None,
        }
    }

    /// Forgets the open transaction; reports only the first damage before a good GTID event.
    fn damaged(&mut self, offset: u64, damage: Damage) -> Option<Found> {
        let offset = self.open.take().map_or(offset, |(start, _)| start);
        self.assembler = Assembler::new();
        self.classifier = Classifier::default();
        self.checksummer.finish();
        let first = !std::mem::replace(&mut self.resyncing, true);
        first.then_some(Found::Damage { offset, damage })
    }

    /// Reads the rest of an event; none if the file ends before it does.
    fn pass(
        &mut self,
        header: EventHeader,
        head: &[u8; EventHeader::LEN],
    ) -> Result<Option<Passed>, ScanError> {
        let is_format = header.event_type == EventType::FORMAT_DESCRIPTION;
        let reserved = if is_format {
            CHECKSUM_LEN
        } else {
            self.algorithm.len()
        };
        let size = header.event_size as usize;
        let Some(body_len) = size.checked_sub(EventHeader::LEN + reserved) else {
            let len = EventHeader::LEN;
            let size = header.event_size;
            self.phase = Phase::Done;
            return Ok(Some(Passed {
                header,
                step: Err(EventError::Size { len, size }.into()),
                class: None,
            }));
        };
        let mut crc = Hasher::new();
        let plain = plain_head(header.event_type, header.flags, head);
        crc.update(plain.as_ref().unwrap_or(head));
        // A set of GTIDs is judged as a whole; other bodies by their head.
        let held = match header.event_type {
            EventType::PREVIOUS_GTIDS => body_len.min(GTID_SET_BYTES_MAX),
            _ => body_len.min(HEAD_BYTES),
        };
        if !self.fill_buffer(held)? {
            return Ok(None);
        }
        crc.update(&self.buffer);
        let judged = self.judge(&header, body_len == held);
        let mut left = body_len - held;
        let mut chunk = [0; CHUNK_BYTES];
        while left > 0 {
            let chunk = &mut chunk[..left.min(CHUNK_BYTES)];
            if self.fill(chunk)? < chunk.len() {
                return Ok(None);
            }
            crc.update(chunk);
            self.checksummer.go_on(chunk);
            left -= chunk.len();
        }
        let mut found = [0; CHECKSUM_LEN];
        if self.fill(&mut found[..reserved])? < reserved {
            return Ok(None);
        }
        let checksum = found;
        let (found, expected) = (u32::from_le_bytes(found), crc.finalize());
        let (step, class) = match judged {
            // The CRC says first whether the bytes mean anything.
            _ if reserved > 0 && found != expected => {
                (Err(EventError::Checksum { found, expected }.into()), None)
            }
            // In a file a format description has a right checksum even where other events have none.
            _ if is_format => return Ok(Some(self.format(header, head, checksum))),
            Ok((step, class)) => (Ok(step), class),
            Err(damage) => (Err(damage), None),
        };
        Ok(Some(Passed {
            header,
            step,
            class,
        }))
    }

    fn judge(
        &mut self,
        header: &EventHeader,
        whole: bool,
    ) -> Result<(Step, Option<Class>), Damage> {
        let event_type = header.event_type;
        let begins = matches!(event_type, EventType::GTID | EventType::GTID_TAGGED);
        if event_type == EventType::FORMAT_DESCRIPTION || self.resyncing && !begins {
            return Ok((Step::Outside, None));
        }
        if self.phase == Phase::Format {
            return Err(AssembleError::Outside(event_type).into());
        }
        let step = self.assembler.push_head(header, &self.buffer)?;
        if step == Step::Outside {
            return Ok((step, None));
        }
        self.checksummer.start(event_type, &self.buffer);
        let class = self.classifier.push(event_type, &self.buffer, whole, &step);
        Ok((step, class))
    }

    fn format(
        &mut self,
        header: EventHeader,
        head: &[u8; EventHeader::LEN],
        checksum: [u8; CHECKSUM_LEN],
    ) -> Passed {
        let raw: Bytes = [&head[..], &self.buffer, &checksum].concat().into();
        let step = match FormatDescription::parse(raw) {
            Ok(_) if self.assembler.in_transaction() => {
                Err(AssembleError::Inside(header.event_type).into())
            }
            Ok(format) => {
                self.algorithm = format.algorithm;
                self.server_version = format.server_version;
                self.phase = Phase::Events;
                Ok(Step::Outside)
            }
            Err(error) => Err(error.into()),
        };
        Passed {
            header,
            step,
            class: None,
        }
    }

    /// Reads so many bytes into the buffer, which grows with what is there, not what is claimed.
    fn fill_buffer(&mut self, len: usize) -> Result<bool, ScanError> {
        self.buffer.clear();
        let read = (&mut self.reader)
            .take(len as u64)
            .read_to_end(&mut self.buffer)
            .map_err(|source| ScanError::Read {
                offset: self.offset,
                source,
            })?;
        self.offset += read as u64;
        Ok(read == len)
    }

    fn fill(&mut self, target: &mut [u8]) -> Result<usize, ScanError> {
        let mut len = 0;
        while len < target.len() {
            match self.reader.read(&mut target[len..]) {
                Ok(0) => break,
                Ok(read) => len += read,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(source) => {
                    let offset = self.offset;
                    return Err(ScanError::Read { offset, source });
                }
            }
        }
        self.offset += len as u64;
        Ok(len)
    }
}

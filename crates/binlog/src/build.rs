//! Makes events and binlog files as a server writes them: for simulated servers and for tests.

use bytes::Bytes;
use quorate_types::{Gtid, GtidSet};

use crate::event::{ChecksumAlgorithm, EventHeader, EventType};
use crate::file::MAGIC;
use crate::rewrite::{frame, put_lenenc};

/// The type and metadata of a column of a table map.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Column {
    Int,
    BigInt,
    /// Up to so many bytes.
    Varchar(u16),
}

/// Makes events of one server, without a position in a file: see [`FileBuilder`].
#[derive(Clone, Copy, Debug)]
pub struct EventBuilder {
    pub server_id: u32,
    pub timestamp: u32,
    /// In microseconds, for GTID events.
    pub commit_us: u64,
    /// The same of another server that committed first, if there is one.
    pub original_commit_us: Option<u64>,
    pub algorithm: ChecksumAlgorithm,
}

impl EventBuilder {
    #[must_use]
    pub fn new(server_id: u32) -> Self {
        Self {
            server_id,
            timestamp: 0,
            commit_us: 1,
            original_commit_us: None,
            algorithm: ChecksumAlgorithm::Crc32,
        }
    }

    /// An event of any type with a body of any bytes.
    #[must_use]
    pub fn event(&self, event_type: EventType, flags: u16, body: &[u8]) -> Bytes {
        let header = EventHeader {
            timestamp: self.timestamp,
            event_type,
            server_id: self.server_id,
            event_size: 0,
            log_pos: 0,
            flags,
        };
        frame(header, body, self.algorithm)
    }

    /// The event at the head of a file. `version` is cut at 50 bytes.
    #[must_use]
    pub fn format_description(&self, version: &str, flags: u16) -> Bytes {
        self.format_with_types(version, flags, usize::MAX)
    }

    /// Of a server that knows so many types of events: 41 before MySQL 8.3, 42 since.
    #[must_use]
    pub fn format_with_types(&self, version: &str, flags: u16, types: usize) -> Bytes {
        // Fixed lengths per event type; readers of version 4 go by their own knowledge.
        const POST_HEADERS: [u8; 42] = [
            0, 13, 0, 8, 0, 0, 0, 0, 4, 0, 4, 0, 0, 0, 99, 0, 4, 26, 8, 0, 0, 0, 0, 0, 0, 2, 0, 0,
            0, 10, 10, 10, 42, 42, 0, 18, 52, 0, 10, 40, 0, 0,
        ];
        let mut body = vec![4, 0];
        let mut text = [0; 50];
        let len = version.len().min(text.len());
        text[..len].copy_from_slice(&version.as_bytes()[..len]);
        body.extend_from_slice(&text);
        body.extend_from_slice(&self.timestamp.to_le_bytes());
        body.push(EventHeader::LEN as u8);
        body.extend_from_slice(&POST_HEADERS[..types.min(POST_HEADERS.len())]);
        body.push((self.algorithm == ChecksumAlgorithm::Crc32).into());
        self.event(EventType::FORMAT_DESCRIPTION, flags, &body)
    }

    /// What the files before hold.
    #[must_use]
    pub fn previous_gtids(&self, set: &GtidSet) -> Bytes {
        let flags = crate::event::FLAG_IGNORABLE;
        self.event(EventType::PREVIOUS_GTIDS, flags, &set.to_wire())
    }

    /// The head of a transaction, tagged if the GTID is.
    #[must_use]
    pub fn gtid(&self, gtid: Gtid, last_committed: i64, sequence_number: i64) -> Bytes {
        if gtid.source.tag.is_empty() {
            self.plain_gtid(gtid, last_committed, sequence_number)
        } else {
            self.tagged_gtid(gtid, last_committed, sequence_number)
        }
    }

    fn plain_gtid(&self, gtid: Gtid, last_committed: i64, sequence_number: i64) -> Bytes {
        let mut body = vec![0];
        body.extend_from_slice(&gtid.source.uuid.0);
        body.extend_from_slice(&gtid.sequence.to_le_bytes());
        body.push(2);
        body.extend_from_slice(&last_committed.to_le_bytes());
        body.extend_from_slice(&sequence_number.to_le_bytes());
        let has_original = u64::from(self.original_commit_us.is_some()) << 55;
        let times = [Some(self.commit_us | has_original), self.original_commit_us];
        for us in times.into_iter().flatten() {
            body.extend_from_slice(&us.to_le_bytes()[..7]);
        }
        put_lenenc(&mut body, 0);
        body.extend_from_slice(&90_704_u32.to_le_bytes());
        self.event(EventType::GTID, 0, &body)
    }

    fn tagged_gtid(&self, gtid: Gtid, last_committed: i64, sequence_number: i64) -> Bytes {
        let mut fields = vec![];
        let mut field = |number: u64, values: &[u64]| {
            put_varlen(&mut fields, number);
            for value in values {
                put_varlen(&mut fields, *value);
            }
        };
        field(0, &[0]);
        field(1, &gtid.source.uuid.0.map(u64::from));
        field(2, &[gtid.sequence << 1]);
        let tag = gtid.source.tag.as_str();
        field(3, &[tag.len() as u64]);
        fields.extend_from_slice(tag.as_bytes());
        let mut field = |number: u64, value: u64| {
            put_varlen(&mut fields, number);
            put_varlen(&mut fields, value);
        };
        field(4, (last_committed as u64) << 1);
        field(5, (sequence_number as u64) << 1);
        field(6, self.commit_us);
        if let Some(us) = self.original_commit_us {
            field(7, us);
        }
        field(8, 0);
        field(9, 90_704);
        // Version, size (of itself too; it is below 2^14, so two bytes do) and last needed field.
        let mut body = vec![2];
        let size = (fields.len() + 4) as u64;
        body.extend_from_slice(&(size << 2 | 1).to_le_bytes()[..2]);
        body.push(11 << 1);
        body.extend_from_slice(&fields);
        self.event(EventType::GTID_TAGGED, 0, &body)
    }

    /// A statement, with the xid of atomic DDL if it is one.
    #[must_use]
    pub fn query(&self, schema: &str, text: &str, ddl_xid: Option<u64>) -> Bytes {
        let mut variables = vec![0, 0, 0, 0, 0];
        if let Some(xid) = ddl_xid {
            variables.push(17);
            variables.extend_from_slice(&xid.to_le_bytes());
        }
        let mut body = vec![0; 8];
        body.push(schema.len() as u8);
        body.extend_from_slice(&[0, 0]);
        body.extend_from_slice(&(variables.len() as u16).to_le_bytes());
        body.extend_from_slice(&variables);
        body.extend_from_slice(schema.as_bytes());
        body.push(0);
        body.extend_from_slice(text.as_bytes());
        self.event(EventType::QUERY, 0, &body)
    }

    /// Names the table that row events mean with `table_id`.
    #[must_use]
    pub fn table_map(&self, table_id: u64, schema: &str, table: &str, columns: &[Column]) -> Bytes {
        let mut body = table_id.to_le_bytes()[..6].to_vec();
        body.extend_from_slice(&[1, 0]);
        for name in [schema, table] {
            body.push(name.len() as u8);
            body.extend_from_slice(name.as_bytes());
            body.push(0);
        }
        put_lenenc(&mut body, columns.len() as u64);
        let mut metadata = vec![];
        for column in columns {
            body.push(match column {
                Column::Int => 3,
                Column::BigInt => 8,
                Column::Varchar(_) => 15,
            });
            if let Column::Varchar(bytes) = column {
                metadata.extend_from_slice(&bytes.to_le_bytes());
            }
        }
        put_lenenc(&mut body, metadata.len() as u64);
        body.extend_from_slice(&metadata);
        body.resize(body.len() + columns.len().div_ceil(8), 0xff);
        self.event(EventType::TABLE_MAP, 0, &body)
    }

    /// Inserted rows, as the bytes of their images; `last` ends the statement.
    #[must_use]
    pub fn write_rows(&self, table_id: u64, columns: usize, rows: &[u8], last: bool) -> Bytes {
        self.rows(EventType::WRITE_ROWS, table_id, columns, rows, last)
    }

    /// Rows of any kind; an update has two images of each.
    #[must_use]
    pub fn rows(
        &self,
        event_type: EventType,
        table_id: u64,
        columns: usize,
        rows: &[u8],
        last: bool,
    ) -> Bytes {
        let mut body = table_id.to_le_bytes()[..6].to_vec();
        body.extend_from_slice(&[last.into(), 0, 2, 0]);
        put_lenenc(&mut body, columns as u64);
        let images = if event_type == EventType::UPDATE_ROWS {
            2
        } else {
            1
        };
        body.resize(body.len() + columns.div_ceil(8) * images, 0xff);
        body.extend_from_slice(rows);
        self.event(event_type, 0, &body)
    }

    /// The commit of an engine's transaction.
    #[must_use]
    pub fn xid(&self, xid: u64) -> Bytes {
        self.event(EventType::XID, 0, &xid.to_le_bytes())
    }

    /// The end of a file that the server left for the next one.
    #[must_use]
    pub fn rotate(&self, next_file: &str) -> Bytes {
        let mut body = 4_u64.to_le_bytes().to_vec();
        body.extend_from_slice(next_file.as_bytes());
        self.event(EventType::ROTATE, 0, &body)
    }

    /// The end of a file when the server stopped.
    #[must_use]
    pub fn stop(&self) -> Bytes {
        self.event(EventType::STOP, 0, &[])
    }

    /// A whole transaction that inserts one row of bytes into one table.
    #[must_use]
    pub fn insert(&self, gtid: Gtid, clock: i64, xid: u64, row: &[u8]) -> Vec<Bytes> {
        vec![
            self.gtid(gtid, clock - 1, clock),
            self.query("", "BEGIN", None),
            self.table_map(100, "app", "t", &[Column::Int, Column::Varchar(255)]),
            self.write_rows(100, 2, row, true),
            self.xid(xid),
        ]
    }
}

/// A binlog file in memory: magic number, then events, each with its end position.
#[derive(Clone, Debug)]
pub struct FileBuilder {
    events: EventBuilder,
    bytes: Vec<u8>,
}

impl FileBuilder {
    /// With format description and `Previous_gtids`, as a server begins a file.
    #[must_use]
    pub fn new(events: EventBuilder, previous: &GtidSet) -> Self {
        Self::with_format(events, &events.format_description("9.7.4", 0), previous)
    }

    /// The same with another server's format description.
    #[must_use]
    pub fn with_format(events: EventBuilder, format: &Bytes, previous: &GtidSet) -> Self {
        let mut file = Self {
            events,
            bytes: MAGIC.to_vec(),
        };
        file.push(format);
        file.push(&events.previous_gtids(previous));
        file
    }

    /// Appends an event; its position becomes the right one. Returns where it begins.
    ///
    /// # Panics
    /// If the bytes are shorter than an event.
    pub fn push(&mut self, event: &Bytes) -> u64 {
        let start = self.bytes.len();
        let mut header = EventHeader::parse(event).expect("a builder makes whole events");
        header.log_pos = (start + event.len()) as u32;
        let checksum = match header.event_type {
            EventType::FORMAT_DESCRIPTION => crate::event::CHECKSUM_LEN,
            _ => self.events.algorithm.len(),
        };
        let body = &event[EventHeader::LEN..event.len() - checksum];
        self.bytes
            .extend_from_slice(&frame(header, body, self.events.algorithm));
        start as u64
    }

    /// Appends events; returns where the first begins.
    pub fn extend(&mut self, events: &[Bytes]) -> u64 {
        let start = self.bytes.len() as u64;
        for event in events {
            self.push(event);
        }
        start
    }

    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }
}

fn put_varlen(out: &mut Vec<u8>, value: u64) {
    let bits = (u64::BITS - value.leading_zeros()).max(1) as usize;
    let len = bits.div_ceil(7).min(9);
    if len == 9 {
        out.push(0xff);
        out.extend_from_slice(&value.to_le_bytes());
        return;
    }
    let marked = (u128::from(value) << len) | ((1 << (len - 1)) - 1);
    out.extend_from_slice(&marked.to_le_bytes()[..len]);
}
